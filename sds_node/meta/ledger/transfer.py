"""A ledger as one stream of bytes, and back, into either kind of database.

    header   `stratos/ledger-export/v1` newline, then length (4 bytes big-endian) and head: a row of ledger_state, canonical bytes (schema.py)
    rows     1 ‖ table's id (2 bytes) ‖ length (4) ‖ row, by table's id and then key, each key once
    end      0 ‖ number of rows (8) ‖ SHA-256 over all before it

The head in the stream has the log's base at the head and no height: the log and its blocks stay behind, its hashes go along. Everything else is rows, so equal ledgers give equal
streams, whatever database they are in, and the last 32 bytes name a state. The app hash is a chain over changes and cannot be computed from rows: who
imports trusts the stream, and compares its last 32 bytes with what others say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, Final

from sds_node.meta.ledger.core import Core, Rules, walk
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import BadValue, Damaged, Foreign
from sds_node.meta.ledger.log import FORMAT, HASH_BYTES, HEAD, OWN, Head, first_head
from sds_node.meta.ledger.schema import MAX_ROW_BYTES, Key, Row, Schema
from sds_node.meta.ledger.sql import Session, Store, open_store

MAGIC: Final = b"stratos/ledger-export/v1\n"
_ROW: Final = b"\x01"
_END: Final = b"\x00"
_PART_BYTES: Final = 1 << 20


def settled(head: Head) -> Head:
    """The head with the log's base at it: without a log, and alike on every node (the log hash is a node's own and starts anew from the app hash)."""
    return head._replace(
        log_hash=head.app_hash,
        base_sequence=head.sequence,
        base_time_ms=head.time_ms,
        base_app_hash=head.app_hash,
        base_log_hash=head.app_hash,
        base_carry=head.carry,
    )


def export_ledger(view: ReadView, schema: Schema, write: Callable[[bytes], object]) -> bytes:
    """Give a committed state to ``write``, in parts of about 1 MiB. The stream's name: SHA-256 over all but its last 32 bytes. Raises Damaged, Unavailable."""
    hashed = sha256()
    parts: list[bytes] = []
    size = 0

    def give() -> None:
        nonlocal size
        joined = b"".join(parts)
        hashed.update(joined)
        write(joined)
        parts.clear()
        size = 0

    head = HEAD.encode(settled(view.head)._replace(height=0))
    parts.append(MAGIC + len(head).to_bytes(4, "big") + head)
    rows = 0
    for table in schema.tables:
        mark = _ROW + table.id.to_bytes(2, "big")
        for row in walk(view.session, table):
            raw = table.encode(row)
            parts.append(mark + len(raw).to_bytes(4, "big") + raw)
            size += 7 + len(raw)
            rows += 1
            if size >= _PART_BYTES:
                give()
    parts.append(_END + rows.to_bytes(8, "big"))
    give()
    write(hashed.digest())
    return hashed.digest()


def export_name(view: ReadView, schema: Schema) -> bytes:
    """The name of the state's export, without writing it. Raises Damaged, Unavailable."""
    return export_ledger(view, schema, lambda _: None)


def peek(read: Callable[[int], bytes], rules: Rules) -> Head:
    """The head of an export, whichever ledger of these rules it is of, from its beginning. What follows is not looked at. Raises Damaged, Foreign."""
    return _read_header(_Source(read), rules, None)


def name_of(read: Callable[[int], bytes]) -> bytes:
    """The name of an export whose rows are not looked at: its last 32 bytes, after they were compared with all before. Raises Damaged."""
    hashed, held = sha256(), b""
    while part := read(_PART_BYTES):
        held += part
        hashed.update(held[:-HASH_BYTES])
        held = held[-HASH_BYTES:]
    if held != hashed.digest():
        raise Damaged("the export is not what was written (its hash differs): copy it again")
    return held


def forget_height(store: Store, rules: Rules, ledger_id: str) -> Head:
    """Have the ledger stand at no height, so that its next block may be the first one of a new chain of blocks. The head. Raises Locked, Foreign, Damaged,
    Unavailable."""
    core = Core.open(store, rules, ledger_id)
    try:
        head = core.head._replace(height=0)
        if head != core.head:
            core.session.begin()
            core.session.write(HEAD, [head], ())
            core.session.commit()
        return head
    finally:
        core.close()


class _Source:
    """Reads a stream exactly, and hashes it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.hashed = sha256()

    def take(self, size: int) -> bytes:
        raw = self.take_unhashed(size)
        self.hashed.update(raw)
        return raw

    def take_unhashed(self, size: int) -> bytes:
        parts: list[bytes] = []
        left = size
        while left:
            part = self._read(left)
            if not part or len(part) > left:
                raise Damaged("the export is cut short: copy it again")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def import_ledger(url: str, rules: Rules, ledger_id: str, read: Callable[[int], bytes]) -> tuple[Head, bytes]:
    """Fill an empty database from ``read(size)``, which gives at most so many bytes and none at the end: one transaction, nothing of a bad stream stays. The
    head, and the stream's name to compare. Raises Foreign for a database that is not empty or a stream of another ledger, Damaged for a bad stream."""
    return import_into(open_store(url), rules, ledger_id, read)


def import_into(store: Store, rules: Rules, ledger_id: str, read: Callable[[int], bytes]) -> tuple[Head, bytes]:
    """``import_ledger`` into a store."""
    source = _Source(read)
    session = store.lock()
    try:
        if session.tables():
            raise Foreign(f"{store.shown} is not empty: an export goes into an empty database")
        head = _read_header(source, rules, ledger_id)
        session.begin()
        try:
            session.create_tables((*OWN, *rules.schema.tables))
            _read_rows(source, session, rules.schema)
            session.create_indexes(rules.schema.tables)
            session.write(HEAD, [head], ())
            if read(1):
                raise Damaged("the export goes on after its end: copy it again")
        except BaseException:
            session.rollback()
            raise
        session.commit()
        return head, source.hashed.digest()
    finally:
        session.close()


def _read_header(source: _Source, rules: Rules, ledger_id: str | None) -> Head:
    if source.take(len(MAGIC)) != MAGIC:
        raise Damaged("this is no export of a ledger: it does not begin with stratos/ledger-export/v1")
    size = int.from_bytes(source.take(4), "big")
    if size > MAX_ROW_BYTES:
        raise Damaged(f"the export's head has at most {MAX_ROW_BYTES} bytes, it says {size}")
    try:
        head = HEAD.decode(source.take(size))
    except BadValue as error:
        raise Damaged(f"the export's head cannot be read ({error})") from None
    wanted = first_head(head.ledger_id if ledger_id is None else ledger_id, rules.application, rules.schema_version, rules.schema.digest)
    if head.format != FORMAT:
        raise Foreign(f"the export has format {head.format}, this program knows {FORMAT}: use the program's version that wrote it")
    for what, has, wants in (
        ("ledger", head.ledger_id, wanted.ledger_id),
        ("application", head.application, wanted.application),
        ("schema version", head.schema_version, wanted.schema_version),
        ("schema", head.schema_digest.hex(), wanted.schema_digest.hex()),
    ):
        if has != wants:
            raise Foreign(f"the export is of {what} {has!r}, this is {what} {wants!r}: import it with the program that wrote it")
    if head != settled(head) or head.id != 1:
        raise Damaged("the export's head does not stand where its log begins")
    return head


def _read_rows(source: _Source, session: Session, schema: Schema) -> None:
    """Load all rows and check the end."""
    state = _Rows(source, schema)
    for table in schema.tables:
        session.load(table, state.of(table.id))
    state.finish()


class _Rows:
    """The rows of a stream, table by table."""

    def __init__(self, source: _Source, schema: Schema) -> None:
        self._source, self._schema = source, schema
        self._count = 0
        self._next: tuple[int, Row] | None = None
        self._is_done = False
        self._place: tuple[int, Key] = (0, ())

    def of(self, table_id: int) -> Iterator[Row]:
        """The rows of the next table."""
        while True:
            if self._next is None and not self._is_done:
                self._next = self._read()
            if self._next is None or self._next[0] != table_id:
                return
            row = self._next[1]
            self._next = None
            yield row

    def _read(self) -> tuple[int, Row] | None:
        mark = self._source.take(1)
        if mark == _END:
            self._is_done = True
            return None
        if mark != _ROW:
            raise Damaged(f"the export has neither row nor end after row {self._count}: copy it again")
        table_id = int.from_bytes(self._source.take(2), "big")
        table = self._schema.by_id.get(table_id)
        size = int.from_bytes(self._source.take(4), "big")
        if table is None or size > MAX_ROW_BYTES:
            raise Damaged(f"the export has a row of table {table_id} and {size} bytes after row {self._count}: there is no such row")
        try:
            row: Any = table.decode(self._source.take(size))
        except BadValue as error:
            raise Damaged(f"the export's row {self._count + 1} cannot be read ({error})") from None
        place = (table_id, table.key_of(row))
        if place <= self._place:
            raise Damaged(f"the export's row {self._count + 1} is not in order: copy it again")
        self._place = place
        self._count += 1
        return table_id, row

    def finish(self) -> None:
        """The end is there, with the right count and hash, and nothing after it."""
        if self._next is not None or (not self._is_done and self._read() is not None):
            raise Damaged(f"the export has rows of tables out of order after row {self._count}")
        count = int.from_bytes(self._source.take(8), "big")
        name = self._source.hashed.copy().digest()
        if count != self._count:
            raise Damaged(f"the export says that it has {count} rows, it has {self._count}: copy it again")
        if self._source.take_unhashed(HASH_BYTES) != name:
            raise Damaged("the export is not what was written (its hash differs): copy it again")
