"""The file under a meta node's books: SQLite with one thread that has it, a check in each row, everything synced.

    any coroutine ─ work ─┐             ┌ BEGIN · work · work · COMMIT, synced ┐
    any coroutine ─ work ─┴─► queue ─► one thread ──────────────────────────────┴─► answers

What was answered is on the disk: the write-ahead log is synced at every commit (``synchronous=FULL``), and those that wait share one. A row that is not
what was written is told and left out. Source: ADR 9.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

import structlog

from sds_node.files import sync_folder

log = structlog.get_logger("books")

MAX_WAITING: Final = 65_536
PAGE_ROWS: Final = 1_000
MAX_BOOT: Final = (1 << 32) - 1
DAMAGED_TOLD: Final = 100
_BATCH: Final = 1_024
_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL, check32 INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE leaves (
    id BLOB NOT NULL UNIQUE, state INTEGER NOT NULL, beneficiary BLOB NOT NULL, fund INTEGER NOT NULL, class INTEGER NOT NULL, noz INTEGER NOT NULL,
    acked INTEGER NOT NULL, lease BLOB NOT NULL, object BLOB NOT NULL, action INTEGER NOT NULL, settles_ms INTEGER NOT NULL, window INTEGER NOT NULL, epoch INTEGER NOT NULL,
    leaf BLOB NOT NULL, reason TEXT NOT NULL, check32 INTEGER NOT NULL);
CREATE INDEX held ON leaves (id) WHERE state = 1;
CREATE INDEX due ON leaves (settles_ms, id) WHERE state = 1;
CREATE INDEX by_window ON leaves (window, id) WHERE window > 0;
CREATE INDEX by_epoch ON leaves (epoch, beneficiary, fund, class, id) WHERE state = 3;
CREATE INDEX unpaid ON leaves (beneficiary) WHERE state < 3;
CREATE TABLE windows (
    number INTEGER PRIMARY KEY, kind INTEGER NOT NULL, state INTEGER NOT NULL, root BLOB NOT NULL, batch_hash BLOB NOT NULL, items INTEGER NOT NULL,
    sequence INTEGER NOT NULL, time_ms INTEGER NOT NULL, note BLOB NOT NULL, check32 INTEGER NOT NULL);
CREATE TABLE epochs (number INTEGER PRIMARY KEY, state INTEGER NOT NULL, closed_ms INTEGER NOT NULL, data BLOB NOT NULL, check32 INTEGER NOT NULL);
CREATE TABLE tells (number INTEGER PRIMARY KEY AUTOINCREMENT, node INTEGER NOT NULL, method TEXT NOT NULL, body BLOB NOT NULL, check32 INTEGER NOT NULL);
CREATE INDEX tells_of ON tells (node, number);
CREATE TABLE maintenance (
    node INTEGER NOT NULL, from_s INTEGER NOT NULL, until_s INTEGER NOT NULL, check32 INTEGER NOT NULL, PRIMARY KEY (node, from_s)) WITHOUT ROWID;
CREATE TABLE snapshots (epoch INTEGER NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (epoch, name));
CREATE TABLE batches (hash BLOB PRIMARY KEY, made_ms INTEGER NOT NULL, data BLOB NOT NULL);
"""
_OTHERS: Final = """
CREATE TABLE others (
    id INTEGER PRIMARY KEY, meta BLOB NOT NULL, number INTEGER NOT NULL, kind INTEGER NOT NULL, state INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    leaves INTEGER NOT NULL, arrived INTEGER NOT NULL, reason TEXT NOT NULL, check32 INTEGER NOT NULL, UNIQUE (meta, number));
CREATE INDEX others_missing ON others (meta, number) WHERE state <> 2;
CREATE INDEX others_arrived ON others (arrived) WHERE arrived > 0;
"""
"""New in version 2: windows of other meta nodes. Their leaves name the ``id``, which is above every number of an own window."""
_PROPOSED: Final = """
CREATE TABLE IF NOT EXISTS proposed (
    meta BLOB NOT NULL, number INTEGER NOT NULL, root BLOB NOT NULL, batch_hash BLOB NOT NULL, made_ms INTEGER NOT NULL, data BLOB NOT NULL,
    check32 INTEGER NOT NULL, UNIQUE (meta, number, root, batch_hash));
"""
"""Windows of other meta nodes that were approved and are not on the ledger yet; files of before have it not."""
LEAF: Final = "id, state, beneficiary, fund, class, noz, acked, lease, object, action, settles_ms, window, epoch, leaf, reason"
WINDOW: Final = "number, kind, state, root, batch_hash, items, sequence, time_ms, note"
EPOCH: Final = "number, state, closed_ms, data"
TELL: Final = "number, node, method, body"
OTHER: Final = "id, meta, number, kind, state, time_ms, leaves, arrived, reason"
PROPOSED: Final = "meta, number, root, batch_hash, made_ms, data"

T = TypeVar("T")


class BooksError(Exception):
    """The books cannot do what was asked. The text says what came and what to do."""


class BooksLocked(BooksError):
    """Another process has them open."""


class BooksUnusable(BooksError):
    """The disk refuses, the books are closed, or too much work waits for them."""


class BooksDamaged(BooksError):
    """The file holds what was never written there."""


class _Work(NamedTuple):
    make: Callable[[sqlite3.Connection], Any]
    future: Future[Any]


class BooksFile:
    """An open file of books. ``do`` runs work in its thread; what a caller makes of the rows is ``Books``'s."""

    def __init__(self, path: Path, lock: int, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = path, clock
        self.boot = 0
        self.damaged: list[str] = []
        """Rows that are not what was written, at most 100 of them, in words."""
        self._lock_file = lock
        self._queue: queue.Queue[_Work | None] = queue.Queue(MAX_WAITING)
        self._guard = threading.Lock()
        self._is_closed = False
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="books", daemon=True)

    def start(self) -> None:
        """Open the file in its thread; ``boot`` is drawn. Raises what opening it raises."""
        self._thread.start()
        self.boot = self._started.result()

    def verify(self) -> Iterator[str]:
        """What is wrong with the file, a sentence each; it reads all of it and changes nothing. Blocks."""
        for (text,) in self.submit(lambda database: database.execute("PRAGMA integrity_check(100)").fetchall()).result():
            if text != "ok":
                yield f"books: {text}"
        tables = (("leaves", LEAF), ("windows", WINDOW), ("epochs", EPOCH), ("tells", TELL), ("others", OTHER), ("proposed", PROPOSED))
        for table, columns in tables:
            page_rows = 1 if table == "proposed" else PAGE_ROWS  # each has a whole window
            after = 0
            while True:
                query = f"SELECT rowid, {columns}, check32 FROM {table} WHERE rowid > {after} ORDER BY rowid LIMIT {page_rows}"
                page = self.submit(lambda database, query=query: database.execute(query).fetchall()).result()  # type: ignore[misc]
                for row in page:
                    after = row[0]
                    if checksum(*row[1:-1]) != row[-1]:
                        yield f"books: row {after} of {table} is not what was written"
                if len(page) < page_rows:
                    break

    def close(self) -> None:
        """Do what waits and end. Calling it again does nothing."""
        with self._guard:
            if self._is_closed:
                return
            self._is_closed = True
        self._queue.put(None)
        self._thread.join()
        os.close(self._lock_file)

    async def do(self, make: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``make`` within the next transaction, which is on the disk when this returns. Raises BooksError and ValueError as ``make`` does, and
        BooksUnusable, BooksDamaged."""
        return await asyncio.wrap_future(self.submit(make))

    def another_boot(self) -> Future[int]:
        """Draw another number of a start, for a process that has used up what one may number: on the disk when it comes. ``boot`` is then that one."""

        def draw(database: sqlite3.Connection) -> int:
            # Before the commit, so that no serial of a boot is ever above it.
            self.boot = max(self.boot, _next_boot(database, int(self._clock())))
            return self.boot

        return self.submit(draw)

    def submit(self, make: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """``do`` for threads."""
        future: Future[T] = Future()
        with self._guard:
            if self._is_closed:
                future.set_exception(BooksUnusable(f"the books {self.path} are closed: the meta node is stopping"))
                return future
            try:
                self._queue.put_nowait(_Work(make, future))
            except queue.Full:
                future.set_exception(BooksUnusable(f"{MAX_WAITING} changes wait for {self.path}: see that its disk works"))
        return future

    def rows(self, kind: Callable[..., T], rows: Iterable[tuple[Any, ...]]) -> list[T]:
        """Rows whose check is right; the others are told."""
        found: list[T] = []
        for row in rows:
            if checksum(*row[:-1]) == row[-1]:
                found.append(kind(*row[:-1]))
            else:
                self._tell(row[0])
        return found

    def _tell(self, key: Any) -> None:
        shown = key.hex() if isinstance(key, bytes) else str(key)
        text = f"a row ({shown}) in {self.path} is not what was written: it is left out, the others are not"
        if text not in self.damaged and len(self.damaged) < DAMAGED_TOLD:
            self.damaged.append(text)
            log.error("a row of the books is damaged", row=shown)

    # --- the thread ---------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            database = _opened(self.path)
            database.execute("BEGIN IMMEDIATE")
            boot = _next_boot(database, int(self._clock()))
            database.execute("COMMIT")
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._started.set_result(boot)
        while (batch := self._next()) is not None:
            if batch:
                self._commit(database, batch)
        with contextlib.suppress(sqlite3.Error):
            database.close()

    def _next(self) -> list[_Work] | None:
        work = self._queue.get()
        batch: list[_Work] = []
        while work is not None:
            if work.future.set_running_or_notify_cancel():  # from now on nobody can cancel it
                batch.append(work)
            if len(batch) == _BATCH:
                break
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                break
        else:
            if batch:
                self._queue.put(None)  # the end comes again, after these
            else:
                return None
        return batch

    def _commit(self, database: sqlite3.Connection, batch: list[_Work]) -> None:
        """One transaction. Whoever's work fails is told; the others' stays."""
        results: list[tuple[_Work, Any, BaseException | None]] = []
        failure: BaseException | None = None
        try:
            database.execute("BEGIN IMMEDIATE")
            for work in batch:
                database.execute("SAVEPOINT work")
                try:
                    results.append((work, work.make(database), None))
                except (BooksError, ValueError, OverflowError) as error:  # one work's values are wrong, not the file
                    database.execute("ROLLBACK TO work")
                    results.append((work, None, error))
                database.execute("RELEASE work")
            database.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            failure = told(self.path, error)
            log.error("the books are not written", why=str(failure))
        for work in batch if failure is not None else ():
            work.future.set_exception(failure)
        for work, result, failed in results if failure is None else ():
            if failed is not None:
                work.future.set_exception(failed)
            else:
                work.future.set_result(result)


def told(path: Path, error: BaseException) -> BaseException:
    """An error as a caller shall read it."""
    if isinstance(error, sqlite3.OperationalError | OSError):
        return BooksUnusable(f"the books {path} cannot be used ({error}): see that their disk has room and works")
    if isinstance(error, sqlite3.DatabaseError):
        return BooksDamaged(f"the books {path} are damaged ({error}): put the file aside, keep it, and restore a copy")
    return error


def checksum(*fields: Any) -> int:
    """The check of a row: CRC-32 over its fields, each with its length."""
    value = 0
    for field in fields:
        data = field if isinstance(field, bytes) else field.encode() if isinstance(field, str) else int(field).to_bytes(8, "big", signed=True)
        value = zlib.crc32(len(data).to_bytes(4, "big") + data, value)
    return value


def put(database: sqlite3.Connection, table: str, columns: str, row: Sequence[Any]) -> None:
    plain = [int(one) if isinstance(one, int) else one for one in row]
    marks = ", ".join("?" * (len(plain) + 1))
    database.execute(f"INSERT OR REPLACE INTO {table} ({columns}, check32) VALUES ({marks})", (*plain, checksum(*plain)))


def change(database: sqlite3.Connection, changes: str, where: str, values: Sequence[Any]) -> int:
    """UPDATE leaves; the check is made again from the changed row, unless the row was damaged before, which stays so."""
    whole = f"checksum({LEAF}) = check32"
    ids = [row[0] for row in database.execute(f"UPDATE leaves SET {changes}, check32 = -1 WHERE {where} AND {whole} RETURNING rowid", values)]
    database.executemany(f"UPDATE leaves SET check32 = checksum({LEAF}) WHERE rowid = ?", [(one,) for one in ids])
    return len(ids)


def _opened(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(f"file:{quote(os.fspath(path))}?mode=rw", uri=True, isolation_level=None, timeout=0.0)
    try:
        # One process and one thread: no file with shared memory is needed.
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA cache_size=-32768")
        database.create_function("checksum", -1, checksum, deterministic=True)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {_OTHERS} PRAGMA user_version={_VERSION}; COMMIT;")
        elif version == 1:
            database.executescript(f"BEGIN IMMEDIATE; {_OTHERS} PRAGMA user_version={_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise BooksDamaged(f"the books {path} have version {version}, expected {_VERSION}: another version made them")
        database.execute("CREATE INDEX IF NOT EXISTS of_lease ON leaves (lease) WHERE state < 3")  # files of before have it not
        database.execute(_PROPOSED)
        sync_folder(path.parent)
    except BaseException:
        database.close()
        raise
    return database


def _next_boot(database: sqlite3.Connection, now_s: int) -> int:
    """More than was ever drawn from this file, and than from one of which it is a copy, or whose place it took: that was earlier. Within a transaction."""
    row = database.execute("SELECT name, value, check32 FROM facts WHERE name = 'boot'").fetchone()
    if row is not None and checksum(*row[:2]) != row[2]:
        raise BooksDamaged("the counter of starts is not what was written: serials could come twice; restore the books from a copy")
    boot = max(1 if row is None else row[1] + 1, min(now_s, MAX_BOOT))
    if boot > MAX_BOOT:
        raise BooksDamaged(f"the books are at start {MAX_BOOT}, the last one: begin new ones under another meta node key")
    put(database, "facts", "name, value", ("boot", boot))
    return int(boot)
