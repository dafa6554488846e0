"""Sessions on a database: what the ledger asks of SQLite and PostgreSQL, in the SQL that both speak.

    Session ── get, get_many, page ──► rows as stored         sqlite.py      one file, WAL, synchronous=FULL
            └─ write, load, trim   ──► inside begin … commit  postgres.py    psycopg 3, unnest and COPY

Hot statements are text made once for each table, from names that schema.py has checked; values are always parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy

from sds_node.meta.ledger.errors import BadValue
from sds_node.meta.ledger.schema import Key, Order, Row, Table, sql_metadata

MOST_AT_ONCE: Final = 2_000
"""Rows in one statement."""
READ_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 10


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range of an order: rows whose first columns equal ``prefix`` and whose next ones are not below ``start``, are above ``after``, are below ``end``.

    Each of the three may name fewer columns than there are; then only those are compared, as the databases' row values do.
    """

    prefix: Key = ()
    start: Key = ()
    after: Key = ()
    end: Key = ()

    def check(self, table: Table[Any], order: Order) -> None:
        """Raises BadValue for values that ``order`` does not have, and for both ``start`` and ``after``."""
        if self.start and self.after:
            raise BadValue(f"a scan of {table.name} begins at start or after a place, not both")
        for part, at in ((self.prefix, 0), (self.start, len(self.prefix)), (self.after, len(self.prefix)), (self.end, len(self.prefix))):
            if type(part) is not tuple or at + len(part) > len(order.columns):
                raise BadValue(f"a scan of {table.name} compares a tuple of at most {len(order.columns)} columns {order.columns}, got {part!r:.80}")
            for check, value in zip(order.checks[at:], part, strict=False):
                check(value)


class Statements:
    """The text of one table's statements. ``mark`` stands for a value: ``?`` or ``%s``."""

    def __init__(self, table: Table[Any], mark: str) -> None:
        self._table, self._mark = table, mark
        self.quoted = f'"{table.name}"'
        self.columns = _listed(table.columns)
        self.keys = _listed(table.columns[: table.key_size])
        where = " AND ".join(f'"{one}" = {mark}' for one in table.columns[: table.key_size])
        self.get = f"SELECT {self.columns} FROM {self.quoted} WHERE {where}"
        self.delete = f"DELETE FROM {self.quoted} WHERE {where}"
        self.insert = f"INSERT INTO {self.quoted} ({self.columns}) VALUES ({', '.join([mark] * len(table.columns))})"
        others = ", ".join(f'"{one}" = excluded."{one}"' for one in table.columns[table.key_size :])
        self.on_conflict = f" ON CONFLICT ({self.keys}) DO " + (f"UPDATE SET {others}" if others else "NOTHING")
        self._pages: dict[tuple[str, int, int, int, int, bool], str] = {}

    def page(self, order: Order, bounds: Bounds, reverse: bool, hint: str) -> str:
        """A SELECT of a range in order; its values are those of ``bounds``, then the limit. ``hint`` goes after the table's name."""
        shape = (order.name, len(bounds.prefix), len(bounds.start), len(bounds.after), len(bounds.end), reverse)
        found = self._pages.get(shape)
        if found is None:
            at = len(bounds.prefix)
            parts = [f'"{one}" = {self._mark}' for one in order.columns[:at]]
            for values, sign in ((bounds.start, ">="), (bounds.after, ">"), (bounds.end, "<")):
                if values:
                    parts.append(f"({_listed(order.columns[at : at + len(values)])}) {sign} ({', '.join([self._mark] * len(values))})")
            where = f" WHERE {' AND '.join(parts)}" if parts else ""
            by = ", ".join(f'"{one}"{" DESC" if reverse else ""}' for one in order.columns)
            found = f"SELECT {self.columns} FROM {self.quoted}{hint}{where} ORDER BY {by} LIMIT {self._mark}"
            self._pages[shape] = found
        return found

    def page_values(self, order: Order, bounds: Bounds, limit: int) -> list[Any]:
        """The values for ``page``, as stored."""
        at = len(bounds.prefix)
        values = list(bounds.prefix) + list(bounds.start) + list(bounds.after) + list(bounds.end)
        if self._table.packed_at:
            places = [*order.at[:at], *(order.at[at + one] for part in (bounds.start, bounds.after, bounds.end) for one in range(len(part)))]
            packed = self._table.packed_at
            values = [value.to_bytes(16, "big") if place in packed else value for place, value in zip(places, values, strict=True)]
        values.append(limit)
        return values


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(f'"{one}"' for one in columns)


class Session(ABC):
    """One connection. Methods raise Unavailable or Damaged; rows come and go as stored (``Table.load``, ``Table.stored``). Not for two threads at once."""

    mark: str
    dialect: sqlalchemy.Dialect

    def __init__(self) -> None:
        self._statements: dict[str, Statements] = {}

    def statements(self, table: Table[Any]) -> Statements:
        found = self._statements.get(table.name)
        if found is None:
            found = self._statements[table.name] = Statements(table, self.mark)
        return found

    @abstractmethod
    def run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows that a statement gives; none for one that gives none."""

    @abstractmethod
    def begin(self) -> None:
        """Begin a transaction: for writing, or one that reads a single committed state if the session is a reader's."""

    def commit(self) -> None:
        """All that was written since ``begin`` is on disk when this returns."""
        self.run("COMMIT")

    def rollback(self) -> None:
        self.run("ROLLBACK")

    @abstractmethod
    def close(self) -> None: ...

    def get(self, table: Table[Any], key: Key) -> Row | None:
        """The row at ``key``."""
        rows = self.run(self.statements(table).get, table.stored(key))
        return rows[0] if rows else None

    @abstractmethod
    def get_many(self, table: Table[Any], keys: Sequence[Key]) -> list[Row]:
        """Those rows that exist, in any order."""

    def page(self, table: Table[Any], order: Order, bounds: Bounds, limit: int, reverse: bool) -> list[Row]:
        """At most ``limit`` rows of a range that ``Bounds.check`` has passed, in order or backwards."""
        statements = self.statements(table)
        sql = statements.page(order, bounds, reverse, self._hint(table, order))
        return self.run(sql, statements.page_values(order, bounds, limit))

    def _hint(self, table: Table[Any], order: Order) -> str:
        return ""

    @abstractmethod
    def write(self, table: Table[Any], puts: Sequence[Row], deletes: Sequence[Key]) -> None:
        """Rows take the place of what was at their keys; no key comes twice. Unique indexes hold when all is done, not between."""

    @abstractmethod
    def load(self, table: Table[Any], rows: Iterable[Row]) -> None:
        """Many new rows, in the order of their keys, into an empty table."""

    @abstractmethod
    def trim(self, table: Table[Any], below: int, most: int) -> int:
        """Delete at most ``most`` rows of a table whose key is one number, those below ``below``, lowest first. How many were deleted."""

    @abstractmethod
    def tables(self) -> dict[str, list[str]]:
        """The tables that exist, with their columns in order."""

    def create(self, tables: Sequence[Table[Any]]) -> None:
        """Make tables and indexes."""
        self.create_tables(tables)
        self.create_indexes(tables)

    def create_tables(self, tables: Sequence[Table[Any]]) -> None:
        """Make tables, without indexes."""
        for made in sql_metadata(tables).sorted_tables:
            self.run(str(sqlalchemy.schema.CreateTable(made).compile(dialect=self.dialect)))

    def create_indexes(self, tables: Sequence[Table[Any]]) -> None:
        """Make the indexes of tables that exist."""
        for made in sql_metadata(tables).sorted_tables:
            for index in sorted(made.indexes, key=lambda one: str(one.name)):
                self.run(str(sqlalchemy.schema.CreateIndex(index).compile(dialect=self.dialect)))

    @abstractmethod
    def size_bytes(self) -> int:
        """What the database takes on disk."""

    @abstractmethod
    def damage(self) -> list[str]:
        """What the database itself finds wrong; slow."""


class Store(ABC):
    """A database that holds one ledger: opens sessions."""

    shown: str
    """Its URL without password."""

    @abstractmethod
    def lock(self) -> Session:
        """The writer's session; nobody else can have one until it is closed. Raises Locked, Unavailable, Foreign, Damaged."""

    @abstractmethod
    def reader(self, timeout_s: float | None = READ_TIMEOUT_S) -> Session:
        """A session that only reads. A transaction of it ends with Unavailable after ``timeout_s``; None waits for ever."""


def open_store(url: str) -> Store:
    """The store that a URL names: ``sqlite:///path`` or ``postgresql://user@host/database``. Opens nothing yet. Raises BadValue for any other URL."""
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise BadValue("a ledger's URL is sqlite:///path or postgresql://user@host/database; what came is no URL") from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        from sds_node.meta.ledger.sqlite import SqliteStore

        return SqliteStore(parsed)
    if parsed.drivername in ("postgresql", "postgresql+psycopg", "postgres"):
        from sds_node.meta.ledger.postgres import PostgresStore

        return PostgresStore(parsed)
    raise BadValue(f"a ledger's URL is sqlite:///path or postgresql://user@host/database; got one for {parsed.drivername!r:.40}")
