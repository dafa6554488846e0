"""The ledger in a SQLite file: WAL, synchronous=FULL, one writer by a lock file beside it, readers that never wait for it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import sqlalchemy
from sqlalchemy.dialects.sqlite import pysqlite

from sds_node.meta.ledger.errors import BadValue, Damaged, Foreign, LedgerError, Locked, Unavailable
from sds_node.meta.ledger.schema import Key, Order, Row, Table
from sds_node.meta.ledger.sql import MOST_AT_ONCE, READ_TIMEOUT_S, Session, Store

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

APPLICATION_ID: Final = 0x53744C31
"""``StL1``: what the file says that it is."""
LEAST_VERSION: Final = (3, 24, 0)
CACHE_BYTES: Final = 64 << 20
CHECKPOINT_PAGES: Final = 4_000
_STEPS_BETWEEN_LOOKS: Final = 10_000
_WRITER: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",  # where fsync does not reach the disk (macOS)
    f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit = {CACHE_BYTES}",
)
_ALWAYS: Final = (
    "PRAGMA busy_timeout = 10000",
    "PRAGMA cell_size_check = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",
)


class SqliteSession(Session):
    """One connection to the file."""

    mark = "?"
    dialect = pysqlite.dialect()

    def __init__(self, path: Path, connection: sqlite3.Connection, held: BinaryIO | None, timeout_s: float | None) -> None:
        super().__init__()
        self._path, self._connection, self._held, self._timeout_s = path, connection, held, timeout_s
        self._deadline_s = float("inf")
        if timeout_s is not None:
            connection.set_progress_handler(self._is_late, _STEPS_BETWEEN_LOOKS)

    def _is_late(self) -> int:
        return int(time.monotonic() > self._deadline_s)

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise told(self._path, error) from error

    def _many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        try:
            self._connection.executemany(sql, values)
        except sqlite3.Error as error:
            raise told(self._path, error) from error

    def begin(self) -> None:
        if self._timeout_s is None:
            self._deadline_s = float("inf")
        else:
            self._deadline_s = time.monotonic() + self._timeout_s
        if self._held is not None:
            self.run("BEGIN IMMEDIATE")
        else:
            self.run("BEGIN")
            self.run("SELECT 1 FROM sqlite_schema LIMIT 1" if sqlite3.sqlite_version_info >= (3, 33) else "SELECT 1 FROM sqlite_master LIMIT 1")

    def rollback(self) -> None:
        self._deadline_s = float("inf")
        if self._connection.in_transaction:
            self.run("ROLLBACK")

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        if self._held is not None:
            self._held.close()  # which gives the lock back

    def get_many(self, table: Table[Any], keys: Sequence[Key]) -> list[Row]:
        return [row for key in keys if (row := self.get(table, key)) is not None]

    def _hint(self, table: Table[Any], order: Order) -> str:
        return f' INDEXED BY "{table.name}__{order.name}"' if order.name else ""

    def write(self, table: Table[Any], puts: Sequence[Row], deletes: Sequence[Key]) -> None:
        statements = self.statements(table)
        if deletes:
            self._many(statements.delete, map(table.stored, deletes))
        if not puts:
            return
        if any(index.unique for index in table.indexes):
            # Two rows may have changed places in a unique index: first all go, then all come.
            self._many(statements.delete, (table.stored(row[: table.key_size]) for row in puts))
            self._many(statements.insert, map(table.stored, puts))
        else:
            self._many(statements.insert + statements.on_conflict, map(table.stored, puts))

    def load(self, table: Table[Any], rows: Iterable[Row]) -> None:
        left = iter(rows)
        insert = self.statements(table).insert
        while part := list(islice(left, MOST_AT_ONCE)):
            self._many(insert, map(table.stored, part))

    def trim(self, table: Table[Any], below: int, most: int) -> int:
        key = f'"{table.columns[0]}"'
        inner = f'SELECT {key} FROM "{table.name}" WHERE {key} < ? ORDER BY {key} LIMIT ?'
        try:
            return self._connection.execute(f'DELETE FROM "{table.name}" WHERE {key} IN ({inner})', (below, most)).rowcount
        except sqlite3.Error as error:
            raise told(self._path, error) from error

    def tables(self) -> dict[str, list[str]]:
        names = [str(row[0]) for row in self.run("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name")]
        return {name: [str(row[0]) for row in self.run("SELECT name FROM pragma_table_info(?) ORDER BY cid", (name,))] for name in names}

    def size_bytes(self) -> int:
        pages, size = self.run("PRAGMA page_count")[0][0], self.run("PRAGMA page_size")[0][0]
        return int(pages) * int(size)

    def damage(self) -> list[str]:
        return [str(row[0]) for row in self.run("PRAGMA integrity_check(20)") if row[0] != "ok"]


class SqliteStore(Store):
    """A file. It is made with mode 0600; so are its WAL and its lock."""

    def __init__(self, url: sqlalchemy.URL) -> None:
        if not url.database or url.database == ":memory:" or url.host or url.query:
            raise BadValue("a SQLite ledger's URL is sqlite:///relative/path or sqlite:////absolute/path, without anything after it")
        if sqlite3.sqlite_version_info < LEAST_VERSION:
            raise Unavailable(f"SQLite is {'.'.join(map(str, LEAST_VERSION))} or later, this Python has {sqlite3.sqlite_version}: use a newer Python")
        self._path = Path(url.database).absolute()
        self.shown = f"sqlite:///{self._path}"

    def lock(self) -> Session:
        held = _locked(self._path)
        try:
            try:
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            except OSError as error:
                raise Unavailable(f"{self._path} cannot be opened ({error.strerror}): see that its folder exists and is writable") from None
            connection = self._connect("rw")
            try:
                self._claim(connection)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            held.close()
            raise
        return SqliteSession(self._path, connection, held, None)

    def _claim(self, connection: sqlite3.Connection) -> None:
        try:
            is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            mark = connection.execute("PRAGMA application_id").fetchone()[0]
            if not is_empty and mark != APPLICATION_ID:
                raise Foreign(f"{self._path} is a SQLite database of something else (application id {mark:#x}): name another file for the ledger")
            if is_empty:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            encoding = connection.execute("PRAGMA encoding").fetchone()[0]
            if encoding != "UTF-8":  # text would have another order
                raise Foreign(f"{self._path} keeps text as {encoding}, a ledger as UTF-8: name another file for the ledger")
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise Unavailable(f"{self._path} cannot have a write-ahead log (mode {mode}): put the ledger on a local file system")
            for pragma in _WRITER:
                connection.execute(pragma)
        except sqlite3.Error as error:
            raise told(self._path, error) from error

    def reader(self, timeout_s: float | None = READ_TIMEOUT_S) -> Session:
        if not self._path.exists():
            raise Unavailable(f"{self._path} does not exist: open the ledger for writing once, which makes it")
        return SqliteSession(self._path, self._connect("ro"), None, timeout_s)

    def _connect(self, mode: str) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, cached_statements=512
            )
        except sqlite3.Error as error:
            raise told(self._path, error) from error
        try:
            for pragma in (*_ALWAYS, f"PRAGMA cache_size = {-(CACHE_BYTES if mode == 'rw' else CACHE_BYTES >> 3) // 1024}"):
                connection.execute(pragma)
        except sqlite3.Error as error:
            connection.close()
            raise told(self._path, error) from error
        return connection


def told(path: Path, error: sqlite3.Error) -> LedgerError:
    """The error as the ledger says it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    text = str(error)
    if code == sqlite3.SQLITE_NOTADB:
        return Damaged(f"{path} is not a SQLite database ({text}): name another file, or restore a backup")
    if code == sqlite3.SQLITE_CORRUPT or "malformed" in text:
        return Damaged(f"{path} is damaged ({text}): restore a backup, or import an export")
    if code == sqlite3.SQLITE_INTERRUPT:
        return Unavailable("a read took longer than it may: ask for less at once")
    if code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_CONSTRAINT):
        return Damaged(f"{path} does not have the tables that the ledger made ({text}): restore a backup, or import an export")
    return Unavailable(f"{path} cannot be read or written ({text}): see that its disk works and has room, then start again; nothing answered is lost")


def _locked(path: Path) -> BinaryIO:
    """The lock file beside ``path``, held until it is closed. A kill gives it back. Raises Locked, Unavailable."""
    beside = path.with_name(path.name + ".lock")
    try:
        held = os.fdopen(os.open(beside, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
    except OSError as error:
        raise Unavailable(f"{beside} cannot be opened ({error.strerror}): see that its folder exists and is writable") from None
    try:
        if sys.platform == "win32":
            msvcrt.locking(held.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.close()
        raise Locked(f"another process writes the ledger in {path}: stop it first") from None
    return held
