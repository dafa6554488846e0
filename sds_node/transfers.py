"""What both ends of a transfer have in common: methods and their heads, codes of refusals, bounds, the digest in a receipt, what makes a receipt good.

    put   head ─► share bytes ─► final receipt ─►                             ◄─ acknowledgement
    get   head ─► receipt, every MiB ─► final receipt ─►                      ◄─ reply ◄─ leaves, at most 4 MiB ahead of the receipts

A record on a stream is its length (4 bytes, big-endian) and its bytes. Sources: storage-protocol.md 3.4, 3.5 and 4; storage-interfaces.md 4.4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from modules.settlement.documents import Receipt
from modules.settlement.leaves import HASH_BYTES, SERIAL_BYTES, faults_of_receipt
from sds_node.documents import PACKAGE, Refused, check_signed
from sds_node.fast.leaves import digests
from sds_node.merkle import LEAF_BYTES, MAX_LEAVES, Buffer, leaf_count
from sds_node.wire import errors as wire_errors
from sds_node.wire.frames import MAX_HEAD_BYTES
from sds_node.wire.stream import Stream

PutHead: Final = message_class(f"{PACKAGE}.PutHead")
GetHead: Final = message_class(f"{PACKAGE}.GetHead")
GetReply: Final = message_class(f"{PACKAGE}.GetReply")
LeafRun: Final = message_class(f"{PACKAGE}.LeafRun")
KeptShare: Final = message_class(f"{PACKAGE}.KeptShare")
AuditHead: Final = message_class(f"{PACKAGE}.AuditHead")
AuditChallenge: Final = message_class(f"{PACKAGE}.AuditChallenge")
AuditAnswer: Final = message_class(f"{PACKAGE}.AuditAnswer")
CopyKey: Final = message_class(f"{PACKAGE}.CopyKey")
CopyList: Final = message_class(f"{PACKAGE}.CopyList")
CopyRow: Final = message_class(f"{PACKAGE}.CopyRow")
InventoryHead: Final = message_class(f"{PACKAGE}.InventoryHead")
InventoryPage: Final = message_class(f"{PACKAGE}.InventoryPage")
NodeReport: Final = message_class(f"{PACKAGE}.NodeReport")
TrafficEvidence: Final = message_class("stratos.settlement.v1.TrafficEvidence")

PUT: Final = "share.put"
GET: Final = "share.get"
AUDIT: Final = "share.audit"
CONFIRM: Final = "share.confirm"
DROP: Final = "share.drop"
"""Copies that no meta node confirmed go by the word of one. A confirmed one goes when as many different active meta nodes as sign a lease
(``documents.lease_quorum``: 1 of 3, 2 of 4) have asked for it within 15 days; until then an answer does not name it, and nothing has happened."""
RESTORE: Final = "share.restore"
INVENTORY: Final = "share.inventory"
STATUS: Final = "node.status"

# Codes of refusals on the wire (``wire.errors.Refused``). Append-only.
LIMIT_REFUSED: Final = 1_000
"""The order limit, its lease, grant or manifest does not hold; ask for another limit."""
LIMIT_USED: Final = 1_001
"""The serial was used already, here; one of a put only when its final receipt came, or it began 16 times."""
SESSION_CLOSED: Final = 1_002
"""Final receipts of this session did not come, or did not pay what was sent: it gets nothing here any more."""
RECEIPT_REFUSED: Final = 1_003
"""A receipt was wrong, smaller than the one before, or late."""
SHARE_REFUSED: Final = 1_004
"""The bytes are not the share that was announced, or the range is not within it."""
SHARE_MISSING: Final = 1_005
SHARE_DAMAGED: Final = 1_006
STORE_FULL: Final = 1_007
SHARE_EXISTS: Final = 1_008
NOT_ALLOWED: Final = 1_009
"""Only active meta nodes may ask for this."""
RECEIPTS_DUE: Final = 1_010
"""Final receipts of this session are missing here: hand them in first."""

RECEIPT_BYTES: Final = 1 << 20
"""A receipt is due each time so many more bytes were moved. A multiple of a leaf."""
STREAM_WINDOW_BYTES: Final = 4 << 20
"""As many bytes may be ahead of the receipts of one stream."""
WALLET_WINDOW_BYTES: Final = 64 << 20
"""The same over all streams of a wallet at one node."""
MAX_RECEIPT_BYTES: Final = 1_024
MAX_ACK_BYTES: Final = 1_024
MAX_REPLY_BYTES: Final = MAX_LEAVES * HASH_BYTES + 1_024
MAX_RUNS: Final = 64
MAX_SEGMENT_PATH: Final = 6
MAX_AUDIT_ITEMS: Final = 256
MAX_AUDIT_BYTES: Final = MAX_AUDIT_ITEMS * (LEAF_BYTES + 12 * (HASH_BYTES + 2) + 16) + 64
MAX_COPIES_ASKED: Final = 1_000
MAX_PAGE_BYTES: Final = MAX_COPIES_ASKED * 96
AUDIT_DOMAIN: Final = b"stratos/audit-challenge/v1"
ANY_ROOT: Final = bytes(HASH_BYTES)
"""What ``share_root`` of a put's limit is when it was issued before the share was coded; the signed manifest names the root then."""


class WrongReceipt(Refused):
    """A receipt that does not hold, or not for what was moved."""


def parsed(kind: Any, head: bytes) -> Any:
    """The message of a head. Raises BadRequest for bytes that are none; the wire bounds their number to 64 KiB."""
    try:
        return kind.FromString(head)
    except DecodeError:
        raise wire_errors.BadRequest(f"expected a {kind.DESCRIPTOR.name} as head, got {len(head)} bytes that are none") from None


def head_bytes(head: Any) -> bytes:
    """A head as it goes out. Raises ValueError for one that is too long for the wire."""
    data = encode(head)
    if len(data) > MAX_HEAD_BYTES:
        raise ValueError(f"a head has at most {MAX_HEAD_BYTES} bytes, not {len(data)}: leave out signatures that are not needed")
    return data


# --- records -------------------------------------------------------------------------------------------------------------------------

_LENGTH_BYTES: Final = 4


def record(data: bytes) -> bytes:
    """Bytes with their length before them."""
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


async def receive_record(stream: Stream, most_bytes: int) -> bytes | None:
    """The next record of a stream; None when the peer ended before its first byte. Raises BadRequest for one that is longer than ``most_bytes`` or
    cut short, and the stream's error.
    """
    first = await stream.receive(1)
    if not first:
        return None
    size = int.from_bytes(bytes(first) + await stream.receive_exactly(_LENGTH_BYTES - 1), "big")
    if size > most_bytes:
        raise wire_errors.BadRequest(f"expected a record of at most {most_bytes} bytes, got one of {size}")
    return await stream.receive_exactly(size)


# --- runs of leaves ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """``leaves`` leaves of a share from number ``first`` on."""

    first: int
    leaves: int

    def bounds(self, size_bytes: int) -> tuple[int, int]:
        """(from, to) in bytes, of a share of ``size_bytes``."""
        return self.first * LEAF_BYTES, min((self.first + self.leaves) * LEAF_BYTES, size_bytes)


def whole(size_bytes: int) -> Run:
    """All leaves of a share."""
    return Run(0, leaf_count(size_bytes))


def runs_of(given: Iterable[Any], size_bytes: int) -> list[Run]:
    """The runs of a head, for a share of ``size_bytes``. Raises Refused unless they are few, not empty, ascending, disjoint and within the share."""
    runs: list[Run] = []
    end = 0
    count = leaf_count(size_bytes)
    for one in given:
        if len(runs) == MAX_RUNS:
            raise Refused(f"expected at most {MAX_RUNS} runs of leaves")
        if one.first < end or not 1 <= one.leaves <= count - one.first:
            raise Refused(f"expected ascending runs within the share's {count} leaves, got {one.leaves} from {one.first} on after {end}")
        runs.append(Run(one.first, one.leaves))
        end = one.first + one.leaves
    return runs


def runs_bytes(runs: Iterable[Run], size_bytes: int) -> int:
    """How many bytes runs of a share of ``size_bytes`` have."""
    return sum(stop - start for start, stop in (run.bounds(size_bytes) for run in runs))


# --- receipts ------------------------------------------------------------------------------------------------------------------------


class Moved:
    """What was moved under one serial, leaf by leaf: what a receipt may say. Both ends keep one.

    ``marks`` are (bytes up to here, digest) at the ends of leaves that no receipt covers: at most a window's, so 256 and a few.
    """

    __slots__ = ("acked_bytes", "acked_digest", "bytes", "digest", "marks")

    def __init__(self, digest: bytes, bytes_acked: int = 0) -> None:
        self.bytes = self.acked_bytes = bytes_acked
        self.digest = self.acked_digest = digest
        self.marks: deque[tuple[int, bytes]] = deque()

    def leaves(self, first: int, hashes: Buffer, size_bytes: int) -> None:
        """More leaves were moved, whose numbers begin with ``first``: their hashes, joined, and their bytes in all. Each but the last one is whole.

        The digest, which begins as the share's root, becomes SHA-256(digest ‖ leaf's number, 8 bytes big-endian ‖ its hash) with each leaf; so a put's, in
        which no leaf comes back, is that root.
        """
        if not size_bytes:
            return
        begin, self.bytes = self.bytes, self.bytes + size_bytes
        found = digests(self.digest, first, hashes)
        self.marks.extend(zip([*range(begin + LEAF_BYTES, self.bytes, LEAF_BYTES), self.bytes], found, strict=True))
        self.digest = found[-1]

    def acknowledge(self, bytes_acked: int, digest: bytes) -> int:
        """A receipt covers what came up to there → how many bytes more than the one before. Raises WrongReceipt unless that is the end of a leaf
        that was moved, with its digest.
        """
        if not self.acked_bytes <= bytes_acked <= self.bytes:
            raise WrongReceipt(f"expected a receipt of {self.acked_bytes} to {self.bytes} bytes, got one of {bytes_acked}")
        found = self.acked_digest if bytes_acked == self.acked_bytes else None
        if self.marks and bytes_acked == self.marks[-1][0]:
            found = self.marks[-1][1]
        elif found is None:
            found = next((mark for end, mark in self.marks if end == bytes_acked), None)
        if found is None:
            raise WrongReceipt(f"expected a receipt that ends with a leaf, got one of {bytes_acked} bytes")
        if found != digest:
            raise WrongReceipt(f"expected the digest {found.hex()} after {bytes_acked} bytes, got {digest.hex()[:64]}")
        while self.marks and self.marks[0][0] <= bytes_acked:
            self.marks.popleft()
        more, self.acked_bytes, self.acked_digest = bytes_acked - self.acked_bytes, bytes_acked, digest
        return more


def check_receipt(given: Any, limit: Any, before: Any | None) -> Any:
    """The Receipt of a SignedDocument for that OrderLimit, by every rule of settlement's, and above the one before. Raises WrongReceipt."""
    try:
        receipt = check_signed(Receipt, given, limit.session_pubkey, "the session key")
    except Refused as error:
        raise WrongReceipt(str(error)) from None
    fault = next(faults_of_receipt(receipt, limit, limit.chain_id), None)
    if fault is not None:
        raise WrongReceipt(fault)
    if before is not None:
        if receipt.sequence <= before.sequence or receipt.bytes_acked < before.bytes_acked:
            raise WrongReceipt(
                f"expected a receipt after number {before.sequence} of {before.bytes_acked} bytes, got {receipt.sequence} of {receipt.bytes_acked}"
            )
        if receipt.first_ms != before.first_ms or receipt.last_ms < before.last_ms:
            raise WrongReceipt("expected a receipt whose times go on from those of the one before")
    return receipt


def audit_body(challenge: Any) -> bytes:
    """Canonical bytes of an AuditChallenge: what its meta node signs under ``AUDIT_DOMAIN`` and an answer names by SHA-256."""
    return encode(known(challenge))


def serial_at(first_serial: bytes, index: int) -> bytes:
    """The serial of share ``index`` of a segment whose serials follow one another (ADR 8). Raises ValueError beyond the last."""
    return (int.from_bytes(first_serial, "big") + index).to_bytes(SERIAL_BYTES, "big")


def check_path(path: Sequence[bytes]) -> list[bytes]:
    """A segment's path as it came. Raises Refused for one that no segment has."""
    if len(path) > MAX_SEGMENT_PATH or any(len(one) != HASH_BYTES for one in path):
        raise Refused(f"expected a path of at most {MAX_SEGMENT_PATH} hashes of {HASH_BYTES} bytes within the segment")
    return [bytes(one) for one in path]
