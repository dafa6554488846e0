"""The log and the head: what every operation was, what came of it, and where the ledger stands.

    app hash_i  = SHA-256(app hash_(i-1) ‖ SHA-256(changes of operation i))                 storage-protocol.md section 2
    log hash_i  = SHA-256(log hash_(i-1) ‖ SHA-256(entry i))

Both are chained operation by operation, so how operations were batched, or put into blocks, cannot show. The app hash before the first operation is
SHA-256(`stratos/ledger/v1` ‖ 0x00 ‖ ledger id ‖ 0x00 ‖ application ‖ 0x00 ‖ schema digest). The log hash starts from it, and is this node's own: it holds
the reasons of refusals, which no rule needs to agree on.

A pruned log begins after its base, whose time and hashes are kept. A migration changes rows without an operation: its digest waits as ``carry`` and is
hashed in before the next operation's changes, since CometBFT allows no app hash to change between blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Final, NamedTuple

from sds_node.meta.ledger.errors import MAX_REASON_BYTES, BadValue, Damaged
from sds_node.meta.ledger.schema import Bytes, Int63, Key, Table, Text, declare, fixed
from sds_node.meta.ledger.sql import Bounds, Session

FORMAT: Final = 1
MAX_OPERATION_BYTES: Final = 900 << 10
"""An entry with its result and reason fits a row, and an operation CometBFT's default of 1 MiB."""
MAX_RESULT_BYTES: Final = 112 << 10
MAX_NAME_BYTES: Final = 64
HASH_BYTES: Final = 32
NO_CARRY: Final = b""
_DOMAIN: Final = b"stratos/ledger/v1\0"
_PAGE: Final = 64

Count = Annotated[int, Int63()]
Hash = Annotated[bytes, fixed(HASH_BYTES)]


class Head(NamedTuple):
    """Where the ledger stands, and where its log begins. ``height`` is CometBFT's, 0 with a local log."""

    id: Count
    format: Count
    ledger_id: Annotated[str, Text(MAX_NAME_BYTES)]
    application: Annotated[str, Text(MAX_NAME_BYTES)]
    schema_version: Count
    schema_digest: Hash
    sequence: Count
    time_ms: Count
    height: Count
    app_hash: Hash
    log_hash: Hash
    carry: Annotated[bytes, Bytes(HASH_BYTES)]
    base_sequence: Count
    base_time_ms: Count
    base_app_hash: Hash
    base_log_hash: Hash
    base_carry: Annotated[bytes, Bytes(HASH_BYTES)]


class Entry(NamedTuple):
    """One operation of the log. ``result`` is what the rules gave; ``reason`` is empty unless ``code`` is not 0."""

    sequence: Count
    time_ms: Count
    code: Count
    result: Annotated[bytes, Bytes(MAX_RESULT_BYTES)]
    reason: Annotated[str, Text(MAX_REASON_BYTES)]
    operation: Annotated[bytes, Bytes(MAX_OPERATION_BYTES)]
    app_hash: Hash
    log_hash: Hash


HEAD: Final[Table[Head]] = declare(0, "ledger_state", Head, key=("id",))
LOG: Final[Table[Entry]] = declare(0, "ledger_log", Entry, key=("sequence",), has_large_rows=True)
OWN: Final[tuple[Table[Any], ...]] = (HEAD, LOG)
HEAD_KEY: Final[Key] = (1,)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an operation. ``app_hash`` is the one after it."""

    sequence: int
    time_ms: int
    code: int
    result: bytes
    reason: str
    app_hash: bytes

    @property
    def is_applied(self) -> bool:
        """False if the operation was refused and changed nothing."""
        return self.code == 0


def first_head(ledger_id: str, application: str, schema_version: int, schema_digest: bytes) -> Head:
    """The head of an empty ledger."""
    for what, name in (("a ledger's id", ledger_id), ("an application's name", application)):
        if not name or not name.isascii() or not name.isprintable() or len(name) > MAX_NAME_BYTES:
            raise BadValue(f"{what} is 1 to {MAX_NAME_BYTES} printable ASCII characters, got {name!r:.80}")
    start = sha256(_DOMAIN + b"\0".join((ledger_id.encode(), application.encode(), schema_digest))).digest()
    head = Head(1, FORMAT, ledger_id, application, schema_version, schema_digest, 0, 0, 0, start, start, NO_CARRY, 0, 0, start, start, NO_CARRY)
    HEAD.check_row(head)
    return head


def next_app_hash(previous: bytes, carry: bytes, changes: bytes) -> bytes:
    """The app hash after an operation with these changes (``Tables.close_operation``)."""
    if carry:
        previous = sha256(previous + carry).digest()
    return sha256(previous + sha256(changes).digest()).digest()


def next_log_hash(previous: bytes, entry: Entry) -> bytes:
    """The log hash after an entry: over all its columns but the last, in their canonical bytes."""
    raw = b"".join([encode(value) for encode, value in zip(LOG.encoders[:-1], entry[:-1], strict=True)])
    return sha256(previous + sha256(raw).digest()).digest()


def read_head(session: Session) -> Head:
    """The head. Raises Damaged if there is not exactly one that this code can read."""
    rows = session.page(HEAD, HEAD.orders[""], Bounds(), 2, False)
    if len(rows) != 1:
        raise Damaged(f"table {HEAD.name} has {'no row' if not rows else 'more than one row'}: restore a backup, or import an export")
    return HEAD.load(rows[0])


def entries(session: Session, after: int, up_to: int) -> Iterator[Entry]:
    """The log's entries after sequence ``after`` up to ``up_to``. Raises Damaged for a gap."""
    order = LOG.orders[""]
    while after < up_to:
        page = session.page(LOG, order, Bounds(after=(after,), end=(up_to + 1,)), min(_PAGE, up_to - after), False)
        for values in page:
            entry = LOG.load(values)
            if entry.sequence != after + 1:
                break
            after += 1
            yield entry
        else:
            if page:
                continue
        raise Damaged(f"the log has no entry {after + 1}, and should have all up to {up_to}: restore a backup, or import an export")


def check_chain(entry: Entry, log_hash: bytes) -> None:
    """Raises Damaged for an entry that is not what was written after ``log_hash``."""
    if next_log_hash(log_hash, entry) != entry.log_hash:
        raise Damaged(f"entry {entry.sequence} of the log is not what was written (its hash differs): restore a backup, or import an export")
