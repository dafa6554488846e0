"""What wallets sign when they ask the storage network for something, and how it is checked (reference sds.md 1.4; storage-protocol.md 5).

    legacy      subject ‖ wallet [‖ sequence] ‖ unix seconds            no separators, no domain; what the original's clients sign
    version 2   stratos-sds/v2 ⏎ chain id ⏎ method ⏎ params ⏎ expiry    names chain, method and every parameter

    request ─ parse_signature ─► accept ─ age ─ signature ─ UsedStrings ─► Accepted

A legacy status poll equals a legacy delete, letter by letter. So ``UsedStrings`` remembers what each string was used for, as long as it is fresh.
Nothing here reads a clock: seconds are an argument.

**What the original's check does, and what ours decides.** It drops a 65th byte unread, hashes the text with Keccak-256 and asks libsecp256k1, which
refuses S above half the order; so do we, in one verdict with the chain, which judges these strings as evidence (``legacy_signed``). Its signing helper
takes 32 bytes for a digest that is ready, its check does not: such a text has no right signature, and none that is real is so short. We refuse up to 32 bytes.

**Canonical params of version 2**: the JSON object of the call without ``signature`` and ``data`` (content is named by its hash), with ``walletaddr`` = the
signer. Flat; values are text, integers below 2^53 in size, true or false; keys sorted; no spaces; escapes as JSON.stringify's. That is RFC 8785 for such objects.
"""

from __future__ import annotations

import enum
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeVar

from chain.crypto import address
from chain.crypto.keys import EthSecp256k1PublicKey, PrivateKey, Secp256k1PublicKey, keccak256
from chain.errors import InvalidAddress, InvalidPubKey
from modules.settlement.documents import legacy_signed
from sds_node.handles import HandleError, format_share_link, parse_share_id, parse_share_link, parse_wallet
from sds_node.hashes import HashError, parse_hash

FRESH_S: Final = 300
"""A legacy timestamp is at most this far from now, on either side."""
KEPT_S: Final = 2 * FRESH_S
"""A used string is remembered this long: one that is FRESH_S ahead of now stays usable as long as that."""
MAX_TOLERANCE_S: Final = 1
MAX_SEQUENCES: Final = 4
MAX_TIMESTAMP_S: Final = 253_402_300_799
"""The last second of the year 9999."""

MAX_USED: Final = 200_000
MAX_USED_PER_WALLET: Final = 10_000

V2_HEAD: Final = "stratos-sds/v2"
MAX_V2_LIFETIME_S: Final = KEPT_S
"""No longer than the record lasts, so that a repeated string is always known as one."""
MAX_V2_PARAMS: Final = 32
MAX_V2_BYTES: Final = 4_096
MAX_V2_INTEGER: Final = (1 << 53) - 1
V2_LEFT_OUT: Final = ("signature", "data")
V2_SIGNER: Final = "walletaddr"

_T = TypeVar("_T")
MAX_PUBKEY_CHARACTERS: Final = 120
_IS_SEQUENCE: Final = re.compile(r"SN:[0-9]{19}").fullmatch
_IS_SIGNATURE: Final = re.compile(r"(?:[0-9a-fA-F]{2}){64,65}").fullmatch
_IS_CHAIN_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,49}").fullmatch
_IS_METHOD: Final = re.compile(r"[A-Za-z][0-9A-Za-z_]{0,63}").fullmatch
_IS_KEY: Final = re.compile(r"[A-Za-z][0-9A-Za-z_]{0,63}").fullmatch
_READY_DIGEST_BYTES: Final = 32


class RequestError(Exception):
    """A request that is refused. The message says what was expected; each subclass is one reason that a gateway answers in its own way."""


class WrongRequest(RequestError):
    """A part of the request has the wrong form: hash, link, wallet, sequence number, time, parameters."""


class WrongPublicKey(RequestError):
    """The public key is none, or belongs to another wallet."""


class WrongSignature(RequestError):
    """The signature is none, or not of this wallet over this text."""


class NotFresh(RequestError):
    """The timestamp is too far from now, or the expiry has passed."""


class UsedOtherwise(RequestError):
    """The same signed string was used for something else."""


class TooManyRequests(RequestError):
    """More strings were used within ten minutes than are remembered."""


class Action(enum.Enum):
    """What a legacy request asks for. The subject that it names, and whether a sequence number is signed, are its value's first two parts."""

    UPLOAD = ("file", True, "upload")
    DOWNLOAD = ("file", True, "download")
    DOWNLOAD_SHARED = ("link", True, "download of a share")
    GET_SHARED_OLD = ("link as shown", False, "get shared, old dialect")
    FILE_STATUS = ("file", False, "file status")
    DELETE_FILE = ("file", False, "delete file")
    CREATE_SHARE = ("file", False, "create share")
    REPLICA_INFO = ("file", False, "replica info")
    STOP_SHARE = ("share", False, "stop share")
    LIST_FILES = ("", False, "list files")
    LIST_SHARES = ("", False, "list shares")
    CLEAR_SHARES = ("", False, "clear expired shares")
    REGISTER_NODE = ("", False, "register node")
    PREPAY = ("", False, "prepay")
    LIST_META_NODES = ("", False, "list meta nodes")


class Use(enum.Enum):
    """What one string may be used for again and again: for one of these, and no other."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    DELETE = "delete"
    OTHER = "other"
    END_SHARE = "end share"
    VERSION_2 = "version 2"


USES: Final = {
    Action.UPLOAD: Use.UPLOAD,
    Action.DOWNLOAD: Use.DOWNLOAD,
    Action.DOWNLOAD_SHARED: Use.DOWNLOAD,
    Action.DELETE_FILE: Use.DELETE,
    Action.FILE_STATUS: Use.OTHER,
    Action.CREATE_SHARE: Use.OTHER,
    Action.REPLICA_INFO: Use.OTHER,
    Action.STOP_SHARE: Use.END_SHARE,
    Action.GET_SHARED_OLD: Use.OTHER,
}
"""Actions that spend, actions whose strings equal a deletion's, and the old way to get a share, whose string ends it where the share is the wallet's own.
The rest need no record: their strings begin with a wallet, and no link is a file hash (``handles``)."""


class Dialect(enum.Enum):
    """How a client asks for a shared file: the old one signs without sequence number, and goes on with a second call."""

    CURRENT = "current"
    OLD = "old"


@dataclass(frozen=True)
class WalletSignature:
    """Who signed: the wallet as text, its 20 bytes, its public key of 33 bytes, R‖S of 64 bytes. ``parse_signature`` makes it."""

    wallet: str
    address: bytes
    public_key: bytes
    signature: bytes


@dataclass(frozen=True)
class Accepted:
    """A request that holds: the text that was signed, the sequence number in it (or empty), its time or expiry, and whether it is new to the record.

    A string that is not first asks for nothing new: the upload or download goes on, the deletion is done. For polls, which share their strings with
    "create share", it says only that the string was seen; for actions that are not in ``USES`` it is always True.
    """

    text: str
    sequence: str
    timestamp_s: int
    is_first: bool


# --- The strings that are signed ---


def signed_text(action: Action, subject: str, wallet: str, sequence: str, timestamp_s: int) -> str:
    """The string that ``wallet`` signs for an action. Raises WrongRequest.

    ``subject`` is the file hash, the share link, the share id or empty, as ``action.value[0]`` says; ``sequence`` is ``SN:`` and 19 digits where
    ``action.value[1]`` is True, else empty.
    """
    kind, has_sequence, name = action.value
    _check_subject(kind, subject)
    _check(lambda: parse_wallet(wallet))
    if has_sequence and not _IS_SEQUENCE(sequence):
        raise WrongRequest(f"{name} is signed with a sequence number, SN: and 19 digits, got {_shown(sequence)}: ask for the wallet's ozone first")
    if not has_sequence and sequence:
        raise WrongRequest(f"{name} is signed without sequence number, got {_shown(sequence)}")
    if not 0 <= timestamp_s <= MAX_TIMESTAMP_S:
        raise WrongRequest(f"a request's time is in unix seconds, 0 to {MAX_TIMESTAMP_S}, got {_shown_number(timestamp_s)}")
    return f"{subject}{wallet}{sequence}{timestamp_s}"


def upload_text(file_hash: str, wallet: str, sequence: str, timestamp_s: int) -> str:
    """For requestUpload, uploadData, uploadSign and uploadStream. Raises WrongRequest."""
    return signed_text(Action.UPLOAD, file_hash, wallet, sequence, timestamp_s)


def download_text(file_hash: str, wallet: str, sequence: str, timestamp_s: int) -> str:
    """For requestDownload, requestVideoDownload, and for requestDownloadShared, the second step of the old dialect. Raises WrongRequest."""
    return signed_text(Action.DOWNLOAD, file_hash, wallet, sequence, timestamp_s)


def download_shared_text(link: str, wallet: str, sequence: str, timestamp_s: int) -> str:
    """For requestGetShared in the current dialect: ``link`` without prefix and password. Raises WrongRequest."""
    return signed_text(Action.DOWNLOAD_SHARED, link, wallet, sequence, timestamp_s)


def get_shared_old_text(shown_link: str, wallet: str, timestamp_s: int) -> str:
    """For requestGetShared in the old dialect: the link exactly as it was passed, prefix and password included. Raises WrongRequest."""
    return signed_text(Action.GET_SHARED_OLD, shown_link, wallet, "", timestamp_s)


def file_text(file_hash: str, wallet: str, timestamp_s: int) -> str:
    """For file status, delete file, create share and replica info: one string for all four. Raises WrongRequest."""
    return signed_text(Action.FILE_STATUS, file_hash, wallet, "", timestamp_s)


def stop_share_text(share_id: str, wallet: str, timestamp_s: int) -> str:
    """For stop share. Raises WrongRequest."""
    return signed_text(Action.STOP_SHARE, share_id, wallet, "", timestamp_s)


def wallet_text(wallet: str, timestamp_s: int) -> str:
    """For lists of files, shares and meta nodes, clear expired shares, register node and prepay: one string for all. Raises WrongRequest."""
    return signed_text(Action.LIST_FILES, "", wallet, "", timestamp_s)


def sign_text(key: PrivateKey, text: str) -> str:
    """The signature as clients send it: R‖S in hex, low S, over Keccak-256. Raises WrongRequest for a text that the original takes for a digest."""
    message = text.encode()
    if len(message) <= _READY_DIGEST_BYTES:
        raise WrongRequest(f"a signed text has more than {_READY_DIGEST_BYTES} bytes, got {len(message)}")
    return PrivateKey(key.raw, "eth_secp256k1").sign(message).hex()


# --- Who signed ---


def parse_signature(wallet: str, pubkey: str, signature: str) -> WalletSignature:
    """The ``signature`` object of a request. Raises WrongRequest (wallet), WrongPublicKey, WrongSignature.

    ``pubkey`` is bech32 with any prefix over 33 bytes; ``signature`` is 64 or 65 bytes in hex, of which a 65th is not read. The key must be the wallet's:
    Ethereum's kind of address, or the SDK's.
    """
    raw = _check(lambda: parse_wallet(wallet))
    if len(pubkey) > MAX_PUBKEY_CHARACTERS:
        raise WrongPublicKey(f"a public key is stpub1 and 59 characters, got {len(pubkey)} characters")
    try:
        _, public_key = address.decode_any(pubkey)
        belongs = raw in (EthSecp256k1PublicKey(public_key).address, Secp256k1PublicKey(public_key).address)
    except (InvalidAddress, InvalidPubKey) as error:
        raise WrongPublicKey(f"expected a secp256k1 public key of 33 bytes as bech32, stpub1…: {error.detail}") from None
    if not belongs:
        raise WrongPublicKey(f"the public key is not the one of {wallet}: sign with the key of the wallet that the request names")
    if not _IS_SIGNATURE(signature):
        raise WrongSignature(f"a signature is 64 or 65 bytes in hex, got {len(signature)} characters")
    return WalletSignature(wallet, raw, public_key, bytes.fromhex(signature)[:64])


def is_signed(text: str, signature: WalletSignature) -> bool:
    """True if this wallet signed this text. The verdict of the chain over the same string, on purpose from the same lines. Never raises."""
    try:
        return legacy_signed(text, signature.public_key, signature.signature, signature.address)
    except UnicodeEncodeError:
        return False


# --- Legacy requests ---


class UsedStrings:
    """What each signed string was used for in the last ten minutes. Bounded: 200,000 strings, 10,000 of one wallet. For one thread.

    When it is full nothing is forgotten early, for a forgotten poll could delete: new strings are refused until old ones leave. One wallet cannot fill
    it. It lives in the memory of the wallet's meta node, to which all legacy requests of that wallet go. What was used before the node started, or at
    another node, is a gap: strings that may lie in it cannot delete, which ends five minutes after the gap.

    Wallets cost nothing, so twenty of a stranger's can fill it for ten minutes: ask only for wallets that the ledger knows.
    """

    def __init__(self, gap_until_s: int = 0, max_strings: int = MAX_USED, max_per_wallet: int = MAX_USED_PER_WALLET) -> None:
        """``gap_until_s``: the last second at which strings may have been used that this record does not know; 0 if there were none."""
        self._gap_until_s = gap_until_s
        self._max_strings = max_strings
        self._max_per_wallet = max_per_wallet
        # In the order of their times, since time never goes back here: what leaves stands in front. A plain dict would look for its front among all that left.
        self._used: OrderedDict[bytes, tuple[Use, int, bytes]] = OrderedDict()
        self._of_wallet: dict[bytes, int] = {}
        self._now_s = 0

    def __len__(self) -> int:
        return len(self._used)

    def now(self, now_s: int) -> int:
        """The time that counts, in unix seconds: the latest that was told. A clock that is set back must not bring a forgotten string back to life."""
        self._now_s = max(self._now_s, now_s)
        return self._now_s

    def note_gap(self, until_s: int) -> None:
        """Until then (unix seconds) another node kept the record of wallets that come here now."""
        self._gap_until_s = max(self._gap_until_s, until_s)

    def use(self, text: str, use: Use, wallet: bytes, timestamp_s: int, now_s: int, gap_until_s: int = 0) -> bool:
        """Record that a string whose signature holds is used. True if it is new; ``gap_until_s``: of this wallet's record, if it has one of its own. Raises
        UsedOtherwise, NotFresh (the gap), TooManyRequests."""
        now_s = self.now(now_s)
        self._forget(now_s)
        key = sha256(text.encode()).digest()
        known = self._used.get(key)
        if known is not None:
            if known[0] is not use:
                raise UsedOtherwise(
                    f"this signed string was used for {_NAMES[known[0]]} before and cannot be used for {_NAMES[use]}: sign again with a new req_time"
                )
            return False
        # Whatever was used in the gap was not more than FRESH_S ahead of it.
        gap_until_s = max(gap_until_s, self._gap_until_s)
        if use is Use.DELETE and gap_until_s and timestamp_s <= gap_until_s + FRESH_S:
            raise NotFresh(
                f"this node does not know what strings were used for until {gap_until_s}, so a deletion is signed with a req_time later than "
                f"{gap_until_s + FRESH_S}, got {timestamp_s}: sign again then, or delete with a client that signs orders (ppd)"
            )
        count = self._of_wallet.get(wallet, 0)
        if count >= self._max_per_wallet or len(self._used) >= self._max_strings:
            whose = "this wallet" if count >= self._max_per_wallet else "all wallets"
            raise TooManyRequests(f"{whose} used too many signed strings within {KEPT_S // 60} minutes: wait, or repeat a string")
        self._used[key] = (use, now_s, wallet)
        self._of_wallet[wallet] = count + 1
        return True

    def _forget(self, now_s: int) -> None:
        while self._used:
            key = next(iter(self._used))
            _, used_s, wallet = self._used[key]
            if now_s - used_s <= KEPT_S:
                return
            del self._used[key]
            left = self._of_wallet[wallet] - 1
            if left:
                self._of_wallet[wallet] = left
            else:
                del self._of_wallet[wallet]


_NAMES: Final = {
    Use.UPLOAD: "an upload",
    Use.DOWNLOAD: "a download",
    Use.DELETE: "a deletion",
    Use.OTHER: "a request that deletes nothing",
    Use.END_SHARE: "the end of a share",
    Use.VERSION_2: "version 2",
}


def accept(
    used: UsedStrings,
    action: Action,
    subject: str,
    sequences: Sequence[str],
    timestamp_s: int,
    signature: WalletSignature,
    now_s: int,
    tolerance_s: int = 0,
    gap_until_s: int = 0,
) -> Accepted:
    """A legacy request: its age, its signature, then its place in the record, which only a request that holds reaches.

    ``sequences`` are those that the wallet may use now, at most 4, and empty for actions without one (clients do not send it with a download). With
    ``tolerance_s`` = 1 the time that was signed may differ from ``timestamp_s`` by a second; ``gap_until_s`` is for ``UsedStrings.use``. Raises RequestError: WrongRequest, NotFresh,
    WrongSignature, UsedOtherwise, TooManyRequests.
    """
    now_s = used.now(now_s)
    signed = _signed_one(action, subject, sequences, _fresh_times(timestamp_s, now_s, tolerance_s), signature)
    if signed is None:
        raise WrongSignature(f"the signature is not {signature.wallet}'s over {_form(action)}: check req_time and the sequence number")
    text, sequence, signed_s = signed
    use = USES.get(action)
    return Accepted(text, sequence, signed_s, True if use is None else used.use(text, use, signature.address, signed_s, now_s, gap_until_s))


def accept_get_shared(
    used: UsedStrings, shown_link: str, sequences: Sequence[str], timestamp_s: int, signature: WalletSignature, now_s: int, tolerance_s: int = 0
) -> tuple[Dialect, Accepted]:
    """requestGetShared in either dialect, told apart by what was signed. Raises RequestError as ``accept`` does."""
    share = _check(lambda: parse_share_link(shown_link))
    now_s = used.now(now_s)
    times = _fresh_times(timestamp_s, now_s, tolerance_s)
    if sequences:
        current = _signed_one(Action.DOWNLOAD_SHARED, share.link, sequences, times, signature)
        if current is not None:
            is_first = used.use(current[0], USES[Action.DOWNLOAD_SHARED], signature.address, current[2], now_s)
            return Dialect.CURRENT, Accepted(*current, is_first=is_first)
    old = _signed_one(Action.GET_SHARED_OLD, shown_link, (), times, signature)
    if old is not None:
        return Dialect.OLD, Accepted(*old, is_first=used.use(old[0], USES[Action.GET_SHARED_OLD], signature.address, old[2], now_s))
    raise WrongSignature(
        f"the signature is not {signature.wallet}'s over {_form(Action.DOWNLOAD_SHARED)}, nor over {_form(Action.GET_SHARED_OLD)}: check req_time"
    )


# --- Version 2 ---


def canonical_params(params: Mapping[str, object], wallet: str) -> str:
    """The parameters of a call as version 2 signs them (module docstring). Raises WrongRequest."""
    _check(lambda: parse_wallet(wallet))
    if len(params) > MAX_V2_PARAMS:
        raise WrongRequest(f"a call has at most {MAX_V2_PARAMS} parameters, got {len(params)}")
    if params.get(V2_SIGNER, wallet) != wallet:
        raise WrongRequest(f"{V2_SIGNER} is the wallet that signs, {wallet}, got {_shown(str(params[V2_SIGNER]))}")
    kept: dict[str, object] = {V2_SIGNER: wallet}
    for key, value in params.items():
        if not isinstance(key, str) or not _IS_KEY(key):
            raise WrongRequest(f"a parameter's name is a letter and up to 63 letters, digits and _, got {_shown(str(key))}")
        if key not in V2_LEFT_OUT:
            kept[key] = _v2_value(key, value)
    return json.dumps(kept, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def v2_text(chain_id: str, method: str, params: Mapping[str, object], wallet: str, expiry_s: int) -> str:
    """The string of version 2 for a call. Raises WrongRequest."""
    if not _IS_CHAIN_ID(chain_id):
        raise WrongRequest(f"a chain id has 1 to 50 letters, digits and . _ -, got {_shown(chain_id)}")
    if not _IS_METHOD(method):
        raise WrongRequest(f"a method's name is a letter and up to 63 letters, digits and _, got {_shown(method)}")
    if not 0 <= expiry_s <= MAX_TIMESTAMP_S:
        raise WrongRequest(f"an expiry is in unix seconds, 0 to {MAX_TIMESTAMP_S}, got {_shown_number(expiry_s)}")
    text = "\n".join((V2_HEAD, chain_id, method, canonical_params(params, wallet), str(expiry_s)))
    if len(text.encode()) > MAX_V2_BYTES:
        raise WrongRequest(f"a signed text has at most {MAX_V2_BYTES} bytes, got {len(text.encode())}")
    return text


def accept_v2(
    used: UsedStrings, chain_id: str, method: str, params: Mapping[str, object], expiry_s: int, signature: WalletSignature, now_s: int
) -> Accepted:
    """A version 2 request that holds, noted as used. Raises WrongRequest, NotFresh, WrongSignature, TooManyRequests.

    It may be repeated until it expires, as the calls of one upload do, and is then not first.
    """
    now_s = used.now(now_s)
    text = check_v2(chain_id, method, params, expiry_s, signature, now_s)
    return Accepted(text, "", expiry_s, used.use(text, Use.VERSION_2, signature.address, expiry_s, now_s))


def check_v2(chain_id: str, method: str, params: Mapping[str, object], expiry_s: int, signature: WalletSignature, now_s: int) -> str:
    """The text of a version 2 request that holds; nothing is noted. Raises WrongRequest, NotFresh, WrongSignature."""
    text = v2_text(chain_id, method, params, signature.wallet, expiry_s)
    if not now_s <= expiry_s <= now_s + MAX_V2_LIFETIME_S:
        raise NotFresh(f"a request expires now or within {MAX_V2_LIFETIME_S} s, got {expiry_s} while it is {now_s}: sign again")
    if not is_signed(text, signature):
        raise WrongSignature(f"the signature is not {signature.wallet}'s over {V2_HEAD} of {method} on {chain_id} with these parameters")
    return text


def text_digest(text: str) -> bytes:
    """Keccak-256 of a signed text, 32 bytes: what is signed, and what evidence names it by."""
    return keccak256(text.encode())


def _v2_value(key: str, value: object) -> str | int | bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_V2_INTEGER:
            raise WrongRequest(f"the number {key} is at most 2^53 - 1 in size: send larger ones as text")
        return value
    if not isinstance(value, str):
        raise WrongRequest(f"the parameter {key} is text, an integer, true or false, got {type(value).__name__}")
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError:
        raise WrongRequest(f"the parameter {key} is Unicode text, got half of a surrogate pair") from None
    if size_bytes > MAX_V2_BYTES:
        raise WrongRequest(f"the parameter {key} has at most {MAX_V2_BYTES} bytes, got {size_bytes}")
    return value


def _fresh_times(timestamp_s: int, now_s: int, tolerance_s: int) -> list[int]:
    if not 0 <= tolerance_s <= MAX_TOLERANCE_S:
        raise ValueError(f"the tolerance is 0 to {MAX_TOLERANCE_S} s, got {tolerance_s}")
    offsets = (0, -1, 1) if tolerance_s else (0,)
    times = [timestamp_s + offset for offset in offsets if abs(timestamp_s + offset - now_s) <= FRESH_S and timestamp_s + offset >= 0]
    if not times:
        raise NotFresh(f"req_time is within {FRESH_S} s of now ({now_s}), got {_shown_number(timestamp_s)}: set the clock right and sign again")
    return times


def _signed_one(
    action: Action, subject: str, sequences: Sequence[str], times: Sequence[int], signature: WalletSignature
) -> tuple[str, str, int] | None:
    """(text, sequence, time) of the candidate that was signed. At most 4 sequences × 3 times."""
    if len(sequences) > MAX_SEQUENCES or bool(sequences) != action.value[1]:
        wanted = f"1 to {MAX_SEQUENCES} sequence numbers" if action.value[1] else "no sequence number"
        raise WrongRequest(f"{action.value[2]} is checked with {wanted}, got {len(sequences)}")
    for sequence in sequences or ("",):
        for time_s in times:
            text = signed_text(action, subject, signature.wallet, sequence, time_s)
            if is_signed(text, signature):
                return text, sequence, time_s
    return None


def _check_subject(kind: str, subject: str) -> None:
    if kind == "file":
        _check(lambda: parse_hash(subject))
    elif kind == "share":
        _check(lambda: parse_share_id(subject))
    elif kind:
        share = _check(lambda: parse_share_link(subject))
        if kind == "link" and share.link != subject:
            raise WrongRequest(f"the link is signed without sds:// and password, as {share.link}, got {_shown(format_share_link(share))}")
    elif subject:
        raise WrongRequest(f"this request names no file and no share, got {_shown(subject)}")


def _check(parse: Callable[[], _T]) -> _T:
    """What ``parse`` gives; its refusal is one of the request."""
    try:
        return parse()
    except (HandleError, HashError) as error:
        raise WrongRequest(str(error)) from None


def _form(action: Action) -> str:
    kind, has_sequence, name = action.value
    return f"{kind + ' + ' if kind else ''}wallet{' + sequence number' if has_sequence else ''} + req_time ({name})"


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 80 else f"{text[:80]!a}…"


def _shown_number(number: int) -> str:
    return str(number) if abs(number) < 1 << 64 else "a number beyond 64 bits"
