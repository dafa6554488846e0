"""Handles that users pass around: of their own files, and of what was shared with them (reference sds.md 2.4).

    sdm://<wallet, 41 characters>/<file hash, 40 characters>[/<name>]      a file of this wallet
    sds://<link>[/<password>]                                              a share

    link   V1   r4nd0m_0123456789abcdef                  code and share id
           V2   0123456789abcdef_0123456789_abcdef       the share id itself
           CID  of IPFS, version 0 or 1                  registered when the share was made

Both are read with and without their prefix, and written with it.
"""

from __future__ import annotations

import enum
import re
from base64 import b16decode, b16encode, b32decode, b32encode, b32hexdecode, b32hexencode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chain.codec.varint import uvarint
from chain.crypto import address
from chain.errors import InvalidAddress
from sds_node.hashes import HASH_CHARACTERS, HashError, is_hash, parse_hash

FILE_PREFIX: Final = "sdm://"
SHARE_PREFIX: Final = "sds://"
WALLET_CHARACTERS: Final = 41
MAX_NAME_BYTES: Final = 1_024
MAX_PASSWORD_CHARACTERS: Final = 64
MAX_CID_CHARACTERS: Final = 256
MAX_CID_DIGEST_BYTES: Final = 128
LINK_ENTROPY_BYTES: Final = 16

_IS_V1: Final = re.compile(r"([0-9A-Za-z]{6})_([0-9a-f]{16})").fullmatch
_IS_V2: Final = re.compile(r"[0-9a-f]{16}_[0-9a-f]{10}_[0-9a-f]{6}").fullmatch
_IS_PASSWORD: Final = re.compile(rf"[!-.0-~]{{1,{MAX_PASSWORD_CHARACTERS}}}").fullmatch
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]").search
_SHA2_256: Final = 0x12
_IDENTITY: Final = 0x00
_DAG_PB: Final = 0x70
_BASE_58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE_36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class HandleError(ValueError):
    """Text that is no handle of the kind that was asked for. The message says what was expected."""


class LinkKind(enum.Enum):
    """What a share's link is made of."""

    V1 = "v1"
    V2 = "v2"
    CID = "cid"


@dataclass(frozen=True)
class FileHandle:
    """A file of a wallet. ``wallet`` is bech32 text, ``file_hash`` 40 characters, ``name`` at most 1,024 bytes and may be empty."""

    wallet: str
    file_hash: str
    name: str = ""

    def __post_init__(self) -> None:
        parse_wallet(self.wallet)
        try:
            parse_hash(self.file_hash)
        except HashError as error:
            raise HandleError(f"the second part of a file handle is a file hash: {error}") from None
        _check_name(self.name)


@dataclass(frozen=True)
class ShareLink:
    """A share. ``link`` has neither prefix nor password: it is what the current dialect signs. Make it with ``parse_share_link``.

    ``share_id`` is what the share is kept under; ``random_code`` is V1's 6 characters, else empty; ``password`` is empty for a public share.
    """

    kind: LinkKind
    link: str
    share_id: str
    random_code: str
    password: str


@dataclass(frozen=True)
class Cid:
    """An IPFS content identifier: version 0 or 1, the content's codec, the hash's code (multicodec numbers), its digest."""

    version: int
    codec: int
    hash_code: int
    digest: bytes

    @property
    def raw(self) -> bytes:
        """The identifier's own bytes."""
        multihash = uvarint(self.hash_code) + uvarint(len(self.digest)) + self.digest
        return multihash if self.version == 0 else uvarint(1) + uvarint(self.codec) + multihash


def parse_wallet(text: str) -> bytes:
    """The 20 bytes of a wallet's address, written in lower case. Raises HandleError."""
    if len(text) != WALLET_CHARACTERS or text != text.lower():
        raise HandleError(f"expected a wallet address of {WALLET_CHARACTERS} characters in lower case, got {_shown(text)}")
    try:
        return address.decode(text)
    except InvalidAddress as error:
        raise HandleError(f"expected a wallet address, st1 and 38 characters: {error.detail}") from None


def parse_file_handle(text: str) -> FileHandle:
    """The file in ``[sdm://]wallet/hash[/name]``; a name may have slashes. Raises HandleError."""
    rest = text.removeprefix(FILE_PREFIX)
    if len(rest) < WALLET_CHARACTERS + 1 + HASH_CHARACTERS or rest[WALLET_CHARACTERS] != "/":
        raise HandleError(f"a file handle is sdm://<wallet, 41 characters>/<hash, 40 characters>[/<name>], got {_shown(text)}")
    end = WALLET_CHARACTERS + 1 + HASH_CHARACTERS
    if rest[end : end + 1] not in ("", "/"):
        raise HandleError(f"after the hash of a file handle comes nothing, or / and a name, got {_shown(rest[end:])}")
    return FileHandle(rest[:WALLET_CHARACTERS], rest[WALLET_CHARACTERS + 1 : end], rest[end + 1 :])


def format_file_handle(handle: FileHandle) -> str:
    """The handle as text, with its prefix."""
    return f"{FILE_PREFIX}{handle.wallet}/{handle.file_hash}" + (f"/{handle.name}" if handle.name else "")


def parse_share_link(text: str) -> ShareLink:
    """The share in ``[sds://]link[/password]``. Raises HandleError."""
    link, slash, password = text.removeprefix(SHARE_PREFIX).partition("/")
    if slash and password and not _IS_PASSWORD(password):
        raise HandleError(
            f"a share's password is 1 to {MAX_PASSWORD_CHARACTERS} printable ASCII characters without /, got {len(password)} characters"
        )
    first = _IS_V1(link)
    if first:
        return ShareLink(LinkKind.V1, link, first[2], first[1], password)
    if _IS_V2(link):
        return ShareLink(LinkKind.V2, link, link, "", password)
    _check_cid_link(link)
    return ShareLink(LinkKind.CID, link, link, "", password)


def parse_share_id(text: str) -> str:
    """``text`` if a share can be kept under it: V1's 16 hex digits, a V2 link or a CID. Raises HandleError."""
    if re.fullmatch(r"[0-9a-f]{16}", text) is None and not _IS_V2(text):
        _check_cid_link(text)
    return text


def format_share_link(share: ShareLink) -> str:
    """The share as text, with its prefix, and with its password if it has one."""
    return f"{SHARE_PREFIX}{share.link}" + (f"/{share.password}" if share.password else "")


def new_share_link(entropy: bytes) -> str:
    """A V2 link of 16 random bytes, without prefix. Raises HandleError for another number of them."""
    if len(entropy) != LINK_ENTROPY_BYTES:
        raise HandleError(f"a share link is made of {LINK_ENTROPY_BYTES} random bytes, got {len(entropy)}")
    digits = entropy.hex()
    return f"{digits[:16]}_{digits[16:26]}_{digits[26:]}"


def parse_cid(text: str) -> Cid:
    """The content identifier in ``text``: version 0, or version 1 in base 16, 32, 32hex, 36, 58 or 64url. Raises HandleError."""
    if not 2 <= len(text) <= MAX_CID_CHARACTERS or not text.isascii():
        raise HandleError(f"a CID has 2 to {MAX_CID_CHARACTERS} ASCII characters, got {_shown(text)}")
    if len(text) == 46 and text.startswith("Qm"):
        return _parse_multihash(0, _DAG_PB, _from_digits(text, _BASE_58), text)
    codecs = _MULTIBASE.get(text[0])
    if codecs is None:
        raise HandleError(f"a CID starts with Qm, or with the letter of its base, one of {' '.join(_MULTIBASE)}; got {_shown(text)}")
    decode, encode = codecs
    try:
        raw = decode(text[1:])
    except ValueError:
        raise HandleError(f"the characters of a CID that starts with {text[0]!r} are of that base, got {_shown(text)}") from None
    if encode(raw) != text[1:]:
        raise HandleError(f"a CID is written in the one shortest form of its base, got {_shown(text)}")
    version, rest = _varint(raw, text)
    if version != 1:
        raise HandleError(f"a CID behind the letter of a base has version 1, got {version} in {_shown(text)}")
    codec, rest = _varint(rest, text)
    return _parse_multihash(1, codec, rest, text)


def _check_cid_link(link: str) -> None:
    # A file hash is a CID, too. As a link it would make the signed text of "get what was shared" equal the one of "delete this file".
    if is_hash(link):
        raise HandleError(f"{link} is the hash of a file or slice of this network, which is no share link: is it the link that you were sent?")
    try:
        parse_cid(link)
    except HandleError as error:
        raise HandleError(
            f"a share link is xxxxxx_<16 hex>, <16 hex>_<10 hex>_<6 hex> or an IPFS CID, got {_shown(link)} (as CID: {error})"
        ) from None


def _parse_multihash(version: int, codec: int, raw: bytes, text: str) -> Cid:
    hash_code, rest = _varint(raw, text)
    size_bytes, digest = _varint(rest, text)
    if size_bytes != len(digest) or size_bytes > MAX_CID_DIGEST_BYTES or (size_bytes == 0 and hash_code != _IDENTITY):
        raise HandleError(f"the digest in a CID has the length that stands before it, at most {MAX_CID_DIGEST_BYTES} bytes; not so in {_shown(text)}")
    if version == 0 and (hash_code != _SHA2_256 or size_bytes != 32):
        raise HandleError(f"a CID of version 0 holds SHA-256, got {_shown(text)}")
    return Cid(version, codec, hash_code, digest)


def _varint(raw: bytes, text: str) -> tuple[int, bytes]:
    """(the unsigned varint at the start, what follows). At most 9 bytes, in the shortest form, as multiformats rule."""
    value = 0
    for at, byte in enumerate(raw[:9]):
        value |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            if at and not byte:
                break
            return value, raw[at + 1 :]
    raise HandleError(f"a number in the CID {_shown(text)} is cut off, longer than 9 bytes, or not in its shortest form")


def _from_digits(text: str, alphabet: str) -> bytes:
    """Base 58 or 36: a number, and a zero byte for each leading zero digit. Raises HandleError."""
    # One product a character, over at most 256 of them.
    number = 0
    for character in text:
        value = alphabet.find(character)
        if value < 0:
            raise HandleError(f"a CID in base {len(alphabet)} has the characters {alphabet}, got {_shown(character)}")
        number = number * len(alphabet) + value
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _to_digits(raw: bytes, alphabet: str) -> str:
    number, digits = int.from_bytes(raw, "big"), ""
    while number:
        number, value = divmod(number, len(alphabet))
        digits = alphabet[value] + digits
    return alphabet[0] * (len(raw) - len(raw.lstrip(b"\x00"))) + digits


def _pad(text: str, block: int) -> str:
    return text + "=" * (-len(text) % block)


_MULTIBASE: Final[dict[str, tuple[Callable[[str], bytes], Callable[[bytes], str]]]] = {
    "b": (lambda text: b32decode(_pad(text.upper(), 8)), lambda raw: b32encode(raw).decode().rstrip("=").lower()),
    "B": (lambda text: b32decode(_pad(text, 8)), lambda raw: b32encode(raw).decode().rstrip("=")),
    "f": (lambda text: b16decode(text.upper()), lambda raw: b16encode(raw).decode().lower()),
    "F": (b16decode, lambda raw: b16encode(raw).decode()),
    "k": (lambda text: _from_digits(text, _BASE_36), lambda raw: _to_digits(raw, _BASE_36)),
    "u": (lambda text: urlsafe_b64decode(_pad(text, 4)), lambda raw: urlsafe_b64encode(raw).decode().rstrip("=")),
    "v": (lambda text: b32hexdecode(_pad(text.upper(), 8)), lambda raw: b32hexencode(raw).decode().rstrip("=").lower()),
    "V": (lambda text: b32hexdecode(_pad(text, 8)), lambda raw: b32hexencode(raw).decode().rstrip("=")),
    "z": (lambda text: _from_digits(text, _BASE_58), lambda raw: _to_digits(raw, _BASE_58)),
}
"""By the letter of multibase: (decode, encode). What decodes and does not encode to itself again is refused, whatever the decoder lets pass."""


def _check_name(name: str) -> None:
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise HandleError("a file's name is Unicode text, got half of a surrogate pair") from None
    if size_bytes > MAX_NAME_BYTES:
        raise HandleError(f"a file's name has at most {MAX_NAME_BYTES} bytes, got {size_bytes}")
    if _CONTROL(name):
        raise HandleError("a file's name has no control characters")


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 100 else f"{text[:100]!a}…"
