"""What an operation's rules see: typed rows by key and by index, read through what earlier operations of the batch wrote.

    get, scan ──► pending rows of the batch ──► rows remembered (bounded) ──► the database, as of the last commit
    put, delete ─► pending rows + undo log; ``rollback(mark)`` walks it backwards, so a refused operation changes nothing

Rows are compared in the order that schema.py states, so a scan merges pending and stored rows by Python's order of their keys. What is remembered
cannot change a result: it holds what the database would answer. Bounds count what was asked for, never how it was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sortedcontainers import SortedDict

from sds_node.meta.ledger.errors import CODE_DUPLICATE, CODE_TOO_LARGE, BadValue, EngineRefused
from sds_node.meta.ledger.schema import Key, Order, R, Row, Schema, Table
from sds_node.meta.ledger.sql import Bounds, Session

MAX_CHANGES: Final = 100_000
MAX_CHANGED_BYTES: Final = 64 << 20
MAX_READ_ROWS: Final = 1_000_000
"""Bounds of one operation. They are rules: every node must have the same ones."""
CACHE_BYTES: Final = 64 << 20

_ABSENT: Final = object()
_PUT: Final = b"\x01"
_DELETE: Final = b"\x00"


class _Top:
    """Above every value: ends a range that a partial key begins."""

    def __gt__(self, other: object) -> bool:
        return True

    def __lt__(self, other: object) -> bool:
        return False


_TOP: Final = (_Top(),)


class Cache:
    """Rows that were read or written lately, and keys that have none. Two generations: what the old one still has when the young one is full is forgotten."""

    def __init__(self, most_bytes: int) -> None:
        self._half = most_bytes // 2
        self._young: dict[tuple[int, Key], Any] = {}
        self._old: dict[tuple[int, Key], Any] = {}
        self._bytes = 0

    def get(self, table: Table[Any], key: Key) -> Any:
        """The row, None if there is none, or _ABSENT if that is not remembered."""
        place = (table.id, key)
        row: Any = self._young.get(place, _ABSENT)
        if row is _ABSENT:
            row = self._old.get(place, _ABSENT)
            if row is not _ABSENT:
                self.put(table, key, row)
        return row

    def put(self, table: Table[Any], key: Key, row: Row | None) -> None:
        self._young[table.id, key] = row
        self._bytes += 200 if row is None else table.weight(row)
        if self._bytes > self._half:
            self._old, self._young, self._bytes = self._young, {}, 0

    def clear(self) -> None:
        self._young, self._old, self._bytes = {}, {}, 0


class _Pending:
    """One table's rows of the batch."""

    __slots__ = ("orders", "rows", "table", "uniques")

    def __init__(self, table: Table[Any]) -> None:
        self.table = table
        self.rows: dict[Key, Row | None] = {}
        self.uniques: dict[str, dict[Key, Key]] = {one.name: {} for one in table.indexes if one.unique}
        self.orders: dict[str, SortedDict] = {}
        """Pending rows by an order's values, for those orders that were scanned."""

    def set(self, key: Key, row: Row | object | None) -> object:
        """Put a row, None for a deletion or _ABSENT for nothing pending. What was there before."""
        previous: Any = self.rows.get(key, _ABSENT)
        if row is _ABSENT:
            del self.rows[key]
        else:
            self.rows[key] = row  # type: ignore[assignment]
        had, has = previous is not _ABSENT and previous is not None, row is not _ABSENT and row is not None
        for name, holders in self.uniques.items():
            of = self.table.orders[name].of
            if had:
                del holders[of(previous)]
            if has:
                holders[of(row)] = key  # type: ignore[arg-type]
        for name, sorted_rows in self.orders.items():
            of = self.table.orders[name].of
            if had:
                del sorted_rows[of(previous)]
            if has:
                sorted_rows[of(row)] = row  # type: ignore[arg-type]
        return previous

    def within(self, order: Order, bounds: Bounds, reverse: bool) -> Iterator[Any]:
        """Pending rows of a range, in order or backwards."""
        if not self.rows:
            return
        sorted_rows = self.orders.get(order.name)
        if sorted_rows is None:
            sorted_rows = self.orders[order.name] = SortedDict({order.of(row): row for row in self.rows.values() if row is not None})
        low = bounds.prefix + (bounds.after + _TOP if bounds.after else bounds.start)
        high = bounds.prefix + bounds.end if bounds.end else bounds.prefix + _TOP
        for place in sorted_rows.irange(low, high, inclusive=(True, False), reverse=reverse):
            yield sorted_rows[place]


class View:
    """Rows as they were at one commit: what a user's question sees. Belongs to one thread; ends with ``Ledger.read``."""

    def __init__(self, schema: Schema, session: Session) -> None:
        self._schema, self._session = schema, session

    def get(self, table: Table[R], key: Key) -> R | None:
        """The row at a key (a tuple of its values). Raises BadValue for a key that no row can have, Unavailable, Damaged."""
        self._check(table)
        table.check_key(key)
        values = self._session.get(table, key)
        return None if values is None else table.load(values)

    def scan(
        self,
        table: Table[R],
        prefix: Key = (),
        *,
        start: Key = (),
        after: Key = (),
        end: Key = (),
        index: str = "",
        limit: int,
        reverse: bool = False,
    ) -> list[R]:
        """At most ``limit`` rows (1 to ``table.most_scanned``, as a rule 10,000) in the order of the key or of an index: those whose first columns equal ``prefix`` and whose next ones are
        ``>= start`` or ``> after`` and ``< end``; each of these may name fewer columns than there are. ``reverse`` begins at the end. Raises BadValue for
        values that the order does not have."""
        bounds = Bounds(prefix, start, after, end)
        order = self._checked(table, index, bounds, limit)
        return [table.load(row) for row in self._session.page(table, order, bounds, limit, reverse)]

    def find(self, table: Table[R], index: str, values: Key) -> R | None:
        """The row that has these values in a unique index."""
        if index not in table.orders or not table.orders[index].unique or len(values) != len(table.orders[index].columns):
            raise BadValue(f"{table.name} has no unique index {index!r:.40} of {len(values)} columns")
        rows = self.scan(table, values, index=index, limit=1)
        return rows[0] if rows else None

    def _check(self, table: Table[Any]) -> None:
        if self._schema.by_id.get(table.id) is not table:
            raise BadValue(f"table {table.name} is not of this ledger's schema")

    def _checked(self, table: Table[Any], index: str, bounds: Bounds, limit: int) -> Order:
        self._check(table)
        order = table.orders.get(index)
        if order is None:
            raise BadValue(f"{table.name} has the indexes {[one.name for one in table.indexes]}, got {index!r:.40}")
        if type(limit) is not int or not 1 <= limit <= table.most_scanned:
            raise BadValue(f"a scan of {table.name} gives 1 to {table.most_scanned} rows, got a limit of {limit!r:.20}")
        bounds.check(table, order)
        return order


class Tables(View):
    """Rows for the rules: a view of the last commit under what the batch has written. Writes are possible only while an operation is applied."""

    def __init__(self, schema: Schema, session: Session, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(schema, session)
        self._pending = {one.id: _Pending(one) for one in schema.tables}
        self._undo: list[tuple[_Pending, Key, object]] = []
        self._cache = Cache(cache_bytes)
        self._is_open = False
        self._changed_bytes = self._changes = self._read = 0
        self.weight_bytes = 0
        """About what the pending rows take in memory."""

    # --- for the rules ------------------------------------------------------------------------------------------------

    def get(self, table: Table[R], key: Key) -> R | None:
        """As ``View.get``, with what this operation and those before it wrote."""
        self._check(table)
        table.check_key(key)
        self._count(1)
        return self._current(table, key)

    def _current(self, table: Table[R], key: Key) -> R | None:
        row: Any = self._pending[table.id].rows.get(key, _ABSENT)
        if row is _ABSENT and (row := self._cache.get(table, key)) is _ABSENT:
            values = self._session.get(table, key)
            row = None if values is None else table.load(values)
            self._cache.put(table, key, row)
        return row  # type: ignore[no-any-return]

    def scan(
        self,
        table: Table[R],
        prefix: Key = (),
        *,
        start: Key = (),
        after: Key = (),
        end: Key = (),
        index: str = "",
        limit: int,
        reverse: bool = False,
    ) -> list[R]:
        """As ``View.scan``, with what this operation and those before it wrote. The list is the caller's: writing while walking it is safe."""
        bounds = Bounds(prefix, start, after, end)
        order = self._checked(table, index, bounds, limit)
        pending = self._pending[table.id]
        rows = self._merged(pending, order, bounds, limit, reverse) if pending.rows else self._stored(table, order, bounds, limit, reverse)
        self._count(len(rows) + 1)
        return rows

    def put(self, table: Table[R], row: R) -> None:
        """Write a row in place of what is at its key. Raises BadValue for a row that the table does not allow; refuses (code 2) a row whose values in a
        unique index another row has, and (code 3) what is more than an operation may write."""
        self._check(table)
        table.check_row(row)
        key = table.key_of(row)
        pending = self._pending[table.id]
        weight = table.weight(row)
        self._write(weight)
        for name in pending.uniques:
            self._check_unique(pending, table.orders[name], key, row)
        self._undo.append((pending, key, pending.set(key, row)))
        self.weight_bytes += weight

    def delete(self, table: Table[R], key: Key) -> None:
        """Delete the row at a key, if there is one."""
        self._check(table)
        table.check_key(key)
        self._write(0)
        pending = self._pending[table.id]
        self._undo.append((pending, key, pending.set(key, None)))
        self.weight_bytes += 200

    def mark(self) -> int:
        """A place to ``rollback`` to, within this operation."""
        return len(self._undo)

    def rollback(self, mark: int) -> None:
        """Undo all writes since ``mark``."""
        undo = self._undo
        while len(undo) > mark:
            pending, key, previous = undo.pop()
            pending.set(key, previous)

    def _write(self, weight: int) -> None:
        if not self._is_open:
            raise BadValue("rows are written only while an operation is applied")
        self._changes += 1
        self._changed_bytes += weight
        if self._changes > MAX_CHANGES or self._changed_bytes > MAX_CHANGED_BYTES:
            raise EngineRefused(CODE_TOO_LARGE, f"an operation writes at most {MAX_CHANGES} rows of {MAX_CHANGED_BYTES} bytes: split it")

    def _count(self, rows: int) -> None:
        self._read += rows
        if self._read > MAX_READ_ROWS and self._is_open:
            raise EngineRefused(CODE_TOO_LARGE, f"an operation reads at most {MAX_READ_ROWS} rows: split it")

    def _check_unique(self, pending: _Pending, order: Order, key: Key, row: Row) -> None:
        values = order.of(row)
        holder = pending.uniques[order.name].get(values)
        if holder is None:
            current = pending.rows.get(key, _ABSENT)
            if current is _ABSENT:
                current = self._cache.get(pending.table, key)
            if current is not _ABSENT and current is not None and order.of(current) == values:  # type: ignore[arg-type]
                return  # the row keeps what it has
            stored = self._session.page(pending.table, order, Bounds(values), 1, False)
            if not stored:
                return
            holder = pending.table.key_of(pending.table.load(stored[0]))
            if holder in pending.rows:
                return  # that row has been deleted, or has other values now
        if holder != key:
            raise EngineRefused(CODE_DUPLICATE, f"{pending.table.name}: another row has the same {' and '.join(order.columns)}")

    def _stored(self, table: Table[R], order: Order, bounds: Bounds, limit: int, reverse: bool) -> list[R]:
        return [table.load(row) for row in self._session.page(table, order, bounds, limit, reverse)]

    def _merged(self, pending: _Pending, order: Order, bounds: Bounds, limit: int, reverse: bool) -> list[Any]:
        found: list[Any] = []
        of = order.of
        mine = pending.within(order, bounds, reverse)
        own = next(mine, None)
        for row in self._unchanged(pending, order, bounds, limit, reverse):
            place = of(row)
            while own is not None and ((of(own) > place) if reverse else (of(own) < place)):
                found.append(own)
                if len(found) == limit:
                    return found
                own = next(mine, None)
            found.append(row)
            if len(found) == limit:
                return found
        while own is not None and len(found) < limit:
            found.append(own)
            own = next(mine, None)
        return found

    def _unchanged(self, pending: _Pending, order: Order, bounds: Bounds, limit: int, reverse: bool) -> Iterator[Row]:
        """Stored rows of a range whose keys have nothing pending, page by page."""
        table, size = pending.table, limit
        while True:
            page = [table.load(row) for row in self._session.page(table, order, bounds, size, reverse)]
            for row in page:
                if table.key_of(row) not in pending.rows:
                    yield row
            if len(page) < size:
                return
            place = order.of(page[-1])[len(bounds.prefix) :]
            if not place:
                return  # the prefix names every column: there was one row
            bounds = (
                Bounds(bounds.prefix, start=bounds.start, after=bounds.after, end=place)
                if reverse
                else Bounds(bounds.prefix, after=place, end=bounds.end)
            )
            size = min(2 * size, table.most_scanned)

    # --- for the engine -----------------------------------------------------------------------------------------------

    def open_operation(self) -> None:
        """From here the rules may write."""
        self._is_open = True
        self._changed_bytes = self._changes = self._read = 0

    def close_operation(self, *, keep: bool) -> bytes:
        """End the operation and keep its writes or undo them. Canonical bytes of its changes, for the app hash: for each row written, by table's id and then
        key, once and as the operation leaves it: id (2 bytes big-endian), then 1 and the row or 0 and the key of a deletion. Writing the row that was
        there, and deleting none, count too."""
        if not keep:
            self.rollback(0)
        self._is_open = False
        if not self._undo:
            return b""
        touched: dict[int, set[Key]] = {}
        for pending, key, _ in self._undo:
            touched.setdefault(pending.table.id, set()).add(key)
        self._undo.clear()
        parts: list[bytes] = []
        for table_id in sorted(touched):
            pending = self._pending[table_id]
            table, rows, head = pending.table, pending.rows, table_id.to_bytes(2, "big")
            for key in sorted(touched[table_id]):
                row = rows[key]
                parts.append(head + _DELETE + table.encode_key(key) if row is None else head + _PUT + table.encode(row))
        return b"".join(parts)

    def prefetch(self, wanted: Sequence[tuple[Table[Any], Key]]) -> None:
        """Read rows that operations will ask for, many in one statement. Raises BadValue for keys that no row can have."""
        missing: dict[int, dict[Key, None]] = {}
        for table, key in wanted:
            self._check(table)
            table.check_key(key)
            if key not in self._pending[table.id].rows and self._cache.get(table, key) is _ABSENT:
                missing.setdefault(table.id, {})[key] = None
        for table_id, keys in missing.items():
            table = self._schema.by_id[table_id]
            for values in self._session.get_many(table, list(keys)):
                row = table.load(values)
                key = table.key_of(row)
                keys.pop(key)
                self._cache.put(table, key, row)
            for key in keys:
                self._cache.put(table, key, None)

    def flush(self) -> None:
        """Write the pending rows into the session's transaction, table by table in the order of their keys."""
        if self._is_open or self._undo:
            raise BadValue("rows are flushed between operations")
        for table_id, pending in self._pending.items():
            rows = pending.rows
            if not rows:
                continue
            table = pending.table
            keys = sorted(rows)
            puts = [row for key in keys if (row := rows[key]) is not None]
            self._session.write(table, puts, [key for key in keys if rows[key] is None])
            for key, row in rows.items():
                self._cache.put(table, key, row)
            self._pending[table_id] = _Pending(table)
        self.weight_bytes = 0

    def forget(self) -> None:
        """Drop what is pending and what is remembered."""
        self._undo.clear()
        self._is_open = False
        self._cache.clear()
        self._pending = {one.id: _Pending(one) for one in self._schema.tables}
        self.weight_bytes = 0
