"""The ledger in a PostgreSQL schema (the first of the search path): psycopg 3, one writer by an advisory lock, readers on snapshots of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

import sqlalchemy
from sqlalchemy.dialects.postgresql import psycopg as dialects

from sds_node.meta.ledger.errors import BadValue, Damaged, LedgerError, Locked, Unavailable
from sds_node.meta.ledger.schema import Bool, Int63, Key, Kind, Row, Table, Text
from sds_node.meta.ledger.sql import CONNECT_TIMEOUT_S, MOST_AT_ONCE, READ_TIMEOUT_S, Session, Store

try:
    import psycopg
except ImportError:  # the extra ``postgres`` was not installed; PostgresStore says so
    psycopg = None  # type: ignore[assignment]

LEAST_VERSION: Final = 130000
LOCK_WAIT_S: Final = 5.0
_LOCK_CLASS: Final = 0x53744C31
"""``StL1``: the first half of the advisory lock's key; the second names the schema."""
_ALWAYS: Final = (
    "SET client_encoding = 'UTF8'",
    # Every statement of the ledger goes by a key or an index; without statistics the planner may think otherwise.
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
    "SET jit = off",
    "SET plan_cache_mode = force_generic_plan",
)


def _array(kind: Kind) -> str:
    if isinstance(kind, Int63):
        return "bigint[]"
    if isinstance(kind, Bool):
        return "boolean[]"
    return "text[]" if isinstance(kind, Text) else "bytea[]"


class PostgresSession(Session):
    """One connection to the server."""

    mark = "%s"
    dialect = dialects.dialect()  # type: ignore[no-untyped-call]

    def __init__(self, connection: psycopg.Connection[Row], is_writer: bool) -> None:
        super().__init__()
        self._connection, self._is_writer = connection, is_writer
        self._cursor = connection.cursor(binary=True)

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        cursor = self._cursor
        try:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as error:
            raise told(error) from error

    def begin(self) -> None:
        self.run("BEGIN" if self._is_writer else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if not self._is_writer:
            self.run("SELECT 1 FROM ledger_state")  # the snapshot is taken at the first statement, not at BEGIN

    def rollback(self) -> None:
        if not self._connection.closed and self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            self.run("ROLLBACK")

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    def get_many(self, table: Table[Any], keys: Sequence[Key]) -> list[Row]:
        statements = self.statements(table)
        found: list[Row] = []
        sql = (
            f"SELECT {statements.columns} FROM {statements.quoted} WHERE ({statements.keys}) IN (SELECT * FROM {self._unnest(table, table.key_size)})"
        )
        for at in range(0, len(keys), MOST_AT_ONCE):
            found.extend(self.run(sql, self._columns(table, keys[at : at + MOST_AT_ONCE])))
        return found

    def _unnest(self, table: Table[Any], count: int) -> str:
        return f"unnest({', '.join(f'%b::{_array(kind)}' for kind in table.kinds[:count])})"

    def _columns(self, table: Table[Any], rows: Sequence[Row]) -> list[list[Any]]:
        """Rows, turned into one list for each column."""
        return [list(column) for column in zip(*map(table.stored, rows), strict=True)]

    def write(self, table: Table[Any], puts: Sequence[Row], deletes: Sequence[Key]) -> None:
        statements = self.statements(table)
        is_unique = any(index.unique for index in table.indexes)
        # Two rows may have changed places in a unique index: first all go, then all come.
        gone = [*deletes, *(row[: table.key_size] for row in puts)] if is_unique else deletes
        delete = f"DELETE FROM {statements.quoted} WHERE ({statements.keys}) IN (SELECT * FROM {self._unnest(table, table.key_size)})"
        for at in range(0, len(gone), MOST_AT_ONCE):
            self.run(delete, self._columns(table, gone[at : at + MOST_AT_ONCE]))
        insert = f"INSERT INTO {statements.quoted} ({statements.columns}) SELECT * FROM {self._unnest(table, len(table.columns))}"
        insert += "" if is_unique else statements.on_conflict
        for part in _parts(table, puts):
            self.run(insert, self._columns(table, part))

    def load(self, table: Table[Any], rows: Iterable[Row]) -> None:
        statements = self.statements(table)
        sql = f"COPY {statements.quoted} ({statements.columns}) FROM STDIN (FORMAT BINARY)"
        types = [_array(kind)[:-2] for kind in table.kinds]
        left = iter(rows)
        try:
            with self._cursor.copy(sql) as copy:
                copy.set_types([{"bigint": "int8", "boolean": "bool"}.get(one, one) for one in types])
                while part := list(islice(left, MOST_AT_ONCE)):
                    for row in part:
                        copy.write_row(table.stored(row))
        except psycopg.Error as error:
            raise told(error) from error

    def trim(self, table: Table[Any], below: int, most: int) -> int:
        key = f'"{table.columns[0]}"'
        inner = f'SELECT {key} FROM "{table.name}" WHERE {key} < %s ORDER BY {key} LIMIT %s'
        self.run(f'DELETE FROM "{table.name}" WHERE {key} IN ({inner})', (below, most))
        return max(self._cursor.rowcount, 0)

    def tables(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        sql = (
            "SELECT c.relname::text, a.attname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
            " AND NOT a.attisdropped WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace = current_schema()::regnamespace"
            " ORDER BY c.relname, a.attnum"
        )
        for name, column in self.run(sql):
            found.setdefault(name, []).append(column)
        return found

    def size_bytes(self) -> int:
        return int(self.run("SELECT pg_database_size(current_database())")[0][0])

    def damage(self) -> list[str]:
        return []  # the server has no check of its own without an extension; ``verify`` reads every row


class PostgresStore(Store):
    """A database and its first schema."""

    def __init__(self, url: sqlalchemy.URL) -> None:
        if psycopg is None:
            raise Unavailable("PostgreSQL needs psycopg: install stratos-chain[postgres]")
        if not url.database:
            raise BadValue("a PostgreSQL ledger's URL is postgresql://user@host/database, got one without a database")
        self.shown = url.render_as_string(hide_password=True)
        _, self._arguments = dialects.dialect().create_connect_args(url)  # type: ignore[no-untyped-call]

    def lock(self) -> Session:
        connection = self._connect()
        try:
            self._claim(connection)
        except BaseException:
            connection.close()
            raise
        return PostgresSession(connection, True)

    def _claim(self, connection: psycopg.Connection[Row]) -> None:
        try:
            one = connection.execute("SELECT current_schema()").fetchone()
            if one is None or one[0] is None:
                raise Unavailable(f"{self.shown} has no schema to put tables into: create the first one of its search_path")
            # The server keeps the lock of a process that was killed until it has ended what that one had begun.
            connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{int(LOCK_WAIT_S * 1000)}ms",))
            try:
                connection.execute("SELECT pg_advisory_lock(%s, hashtext(current_schema()))", (_LOCK_CLASS,))
            except psycopg.errors.LockNotAvailable:
                raise Locked(f"another process writes the ledger in {self.shown}: stop it first") from None
            connection.execute("SET lock_timeout = 0")
            if connection.info.server_version < LEAST_VERSION:
                raise Unavailable(f"PostgreSQL is 13 or later, the server is {connection.info.server_version // 10000}")
            for setting, wanted in (("server_encoding", "UTF8"), ("fsync", "on"), ("full_page_writes", "on")):
                shown = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
                if shown is None or shown[0] != wanted:
                    got = None if shown is None else shown[0]
                    raise Unavailable(
                        f"the server of {self.shown} needs {setting} = {wanted}, it has {got}: without it committed operations can be lost"
                    )
            connection.execute("SET synchronous_commit = on")
            connection.execute("SET idle_in_transaction_session_timeout = 0")
        except psycopg.Error as error:
            raise told(error) from error

    def reader(self, timeout_s: float | None = READ_TIMEOUT_S) -> Session:
        connection = self._connect()
        try:
            if timeout_s is not None:
                for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
                    connection.execute("SELECT set_config(%s, %s, false)", (setting, str(max(1, int(timeout_s * 1000)))))
        except psycopg.Error as error:
            connection.close()
            raise told(error) from error
        return PostgresSession(connection, False)

    def _connect(self) -> psycopg.Connection[Row]:
        try:
            connection = psycopg.connect(
                **{"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "stratos-ledger", **self._arguments}, autocommit=True
            )
        except psycopg.Error as error:
            raise Unavailable(f"{self.shown} cannot be reached ({type(error).__name__}): see that the server runs and lets this user in") from None
        try:
            for setting in _ALWAYS:
                connection.execute(setting)
        except psycopg.Error as error:
            connection.close()
            raise told(error) from error
        return connection


def _parts(table: Table[Any], rows: Sequence[Row]) -> Iterable[Sequence[Row]]:
    """Parts of at most MOST_AT_ONCE rows and about 16 MiB."""
    step = max(1, min(MOST_AT_ONCE, (16 << 20) // max(1, max(map(table.weight, rows), default=1))))
    return (rows[at : at + step] for at in range(0, len(rows), step))


def told(error: psycopg.Error) -> LedgerError:
    """The error as the ledger says it. The server's text can hold values, so only its first line is kept."""
    text = (str(error).splitlines() or [type(error).__name__])[0][:300]
    if isinstance(error, psycopg.errors.DataCorrupted | psycopg.errors.IndexCorrupted):
        return Damaged(f"the PostgreSQL database is damaged ({text}): restore a backup, or import an export")
    if isinstance(error, psycopg.errors.QueryCanceled | psycopg.errors.IdleInTransactionSessionTimeout):
        return Unavailable("a read took longer than it may: ask for less at once")
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn | psycopg.errors.DatatypeMismatch | psycopg.IntegrityError):
        return Damaged(f"the PostgreSQL database does not have the tables that the ledger made ({text}): restore a backup, or import an export")
    return Unavailable(f"the PostgreSQL server fails ({text}): see that it runs and has room, then start again; nothing answered is lost")
