"""The index of the share store: which copies there are and where each is in its life. SQLite, many readers, one writer that commits for all.

    thread ─ change ─┐                     ┌─ BEGIN · change · change · change · COMMIT (one fsync) ─┐
    thread ─ change ─┼─► queue ─► whoever holds the writer's lock                                    ├─► every thread has its result
    thread ─ change ─┘                     └─────────────────────────────────────────────────────────┘

A row carries a check over its own fields, so a page that rotted is told and not believed. ``dues`` names the files that may not yet look as their rows
say: a row is changed first, in one transaction with its due, and its file afterwards; a start after a crash settles what is due.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

from sds_node.resource.store.clock import Clock
from sds_node.resource.store.errors import IndexDamaged, StoreError, StoreFull, StoreUnusable
from sds_node.resource.store.layout import ROOT_BYTES, SERIAL_BYTES, Key, State

SCHEMA_VERSION: Final = 1
PAGE_ROWS: Final = 1000
BATCH_CHANGES: Final = 1024
READERS: Final = 8

_SCHEMA: Final = """
CREATE TABLE copies (
    root BLOB NOT NULL, serial BLOB NOT NULL, size_bytes INTEGER NOT NULL, manifest_bytes INTEGER NOT NULL, state INTEGER NOT NULL,
    kept INTEGER NOT NULL, stored_s INTEGER NOT NULL, changed_age_s INTEGER NOT NULL, disk_bytes INTEGER NOT NULL, check32 INTEGER NOT NULL,
    PRIMARY KEY (root, serial)) WITHOUT ROWID;
CREATE INDEX pending_by_age ON copies (changed_age_s) WHERE state = 1;
CREATE INDEX trash_by_age ON copies (changed_age_s) WHERE state = 3;
CREATE INDEX damaged ON copies (kept) WHERE kept = 3;
CREATE TABLE dues (
    root BLOB NOT NULL, serial BLOB NOT NULL, number INTEGER NOT NULL, kind INTEGER NOT NULL, PRIMARY KEY (root, serial)) WITHOUT ROWID;
CREATE TABLE totals (
    state INTEGER NOT NULL, kept INTEGER NOT NULL, copies INTEGER NOT NULL, size_bytes INTEGER NOT NULL, disk_bytes INTEGER NOT NULL,
    PRIMARY KEY (state, kept)) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
"""
_COLUMNS: Final = "root, serial, size_bytes, manifest_bytes, state, kept, stored_s, changed_age_s, disk_bytes, check32"
_CHECKED: Final = struct.Struct(">32s16sQIBBQQQ")
_DAMAGED_TEXTS: Final = ("malformed", "not a database", "no such table", "no such column", "datatype mismatch", "constraint failed")

T = TypeVar("T")


class Kept(IntEnum):
    """Where a copy's bytes are."""

    OWN = 1
    """In its own file."""
    SHARED = 2
    """In the file of another copy of the same root."""
    DAMAGED = 3
    """Its file is damaged or missing; what was left of it is in quarantine."""


class Due(IntEnum):
    """Why a file may not look as its row says."""

    CHECK = 0
    """The state changed, or the row went."""
    ARRIVES = 1
    """The file is being moved in; without it there was no acknowledgement, and the row goes."""
    RETURNS = 2
    """The same for a copy that was damaged; without the file it stays so."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a share. ``stored_s``: Unix seconds of this machine's clock; ``changed_age_s``: the store's own age when the state last changed."""

    root: bytes
    serial: bytes
    size_bytes: int
    manifest_bytes: int
    state: State
    kept: Kept
    stored_s: int
    changed_age_s: int
    disk_bytes: int

    @property
    def key(self) -> Key:
        return self.root, self.serial


@dataclass(frozen=True, slots=True)
class Totals:
    """Copies, their share bytes and what their files take on disk, by (state, kept)."""

    copies: dict[tuple[State, Kept], int]
    size_bytes: dict[tuple[State, Kept], int]
    disk_bytes: int

    def count(self, *states: State) -> int:
        """Copies in these states whose file is whole."""
        return sum(number for (state, kept), number in self.copies.items() if state in states and kept is not Kept.DAMAGED)

    def bytes(self, *states: State) -> int:
        """Share bytes of the copies in these states whose file is whole, each copy counted."""
        return sum(number for (state, kept), number in self.size_bytes.items() if state in states and kept is not Kept.DAMAGED)

    @property
    def damaged(self) -> int:
        """Copies whose file is damaged or missing."""
        return sum(number for (_state, kept), number in self.copies.items() if kept is Kept.DAMAGED)


class _Change(Generic[T]):
    """A change that waits for its commit."""

    __slots__ = ("error", "is_done", "make", "result")

    def __init__(self, make: Callable[[Writing], T]) -> None:
        self.make = make
        self.is_done = False
        self.result: T | None = None
        self.error: BaseException | None = None


class Writing:
    """What a change may do inside the transaction. The rows it reads are as of now."""

    def __init__(self, index: Index, db: sqlite3.Connection) -> None:
        self._index, self._db = index, db

    def get(self, key: Key) -> Copy | None:
        return self._index.row(self._db, key)

    def of_root(self, root: bytes) -> list[Copy]:
        return self._index.rows_of_root(self._db, root)

    def put(self, copy: Copy, due: Due = Due.CHECK) -> int:
        """Write a row and its totals, and name its file as due. Returns the due's number."""
        self._count(self.get(copy.key), -1)
        self._db.execute(f"INSERT OR REPLACE INTO copies ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)", _values(copy))
        self._count(copy, 1)
        return self.due(copy.key, due)

    def remove(self, copy: Copy) -> None:
        self._db.execute("DELETE FROM copies WHERE root = ? AND serial = ?", copy.key)
        self._count(copy, -1)
        self.due(copy.key)

    def due(self, key: Key, kind: Due = Due.CHECK) -> int:
        self._index.next_due += 1
        self._db.execute("INSERT OR REPLACE INTO dues VALUES (?,?,?,?)", (*key, self._index.next_due, kind))
        return self._index.next_due

    def is_due(self, key: Key) -> bool:
        return self._db.execute("SELECT 1 FROM dues WHERE root = ? AND serial = ?", key).fetchone() is not None

    def settled(self, numbers: Iterable[tuple[bytes, bytes, int]]) -> None:
        """Forget dues, unless a file became due again since."""
        self._db.executemany("DELETE FROM dues WHERE root = ? AND serial = ? AND number = ?", numbers)

    def fact(self, name: str, value: int | bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?,?)", (name, value))

    def _count(self, copy: Copy | None, sign: int) -> None:
        if copy is not None:
            self._db.execute(
                "INSERT INTO totals VALUES (?,?,?,?,?) ON CONFLICT (state, kept) DO UPDATE SET copies = copies + excluded.copies, "
                "size_bytes = size_bytes + excluded.size_bytes, disk_bytes = disk_bytes + excluded.disk_bytes",
                (copy.state, copy.kept, sign, sign * copy.size_bytes, sign * copy.disk_bytes),
            )


class Index:
    """An open index. Any thread may call it."""

    def __init__(self, path: Path, clock: Clock, at_step: Callable[[str], None]) -> None:
        """Open ``path``, which ``create`` made, and start ``clock`` with what was last written of it.

        Raises IndexDamaged when it is missing or not ours, StoreUnusable when it cannot be opened.
        """
        self._path = path
        self._clock, self._at_step = clock, at_step
        self._waiting: deque[_Change[Any]] = deque()
        self._settled: deque[tuple[bytes, bytes, int]] = deque()
        self._lock = threading.Lock()
        self._is_closed = False
        self._readers: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        if not path.is_file():
            raise IndexDamaged(f"the share store's index {path} is missing: rebuild it from the files")
        with self._told():
            self._db = _connect(path)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA_VERSION:
                raise IndexDamaged(f"the share store's index {path} has version {version}, expected {SCHEMA_VERSION}: rebuild it from the files")
            self._db.execute("PRAGMA wal_autocheckpoint = 4000")
            self.totals = _read_totals(self._db)
            self.next_due = int(self._db.execute("SELECT coalesce(max(number), 0) FROM dues").fetchone()[0])
            age, wall = (int(self.fact(name, self._db) or 0) for name in ("age_s", "wall_s"))
        clock.start(age, wall)
        for _ in range(READERS):
            self._readers.put(None)

    # --- changes -----------------------------------------------------------------------------------------------------------

    def commit(self, make: Callable[[Writing], T]) -> T:
        """Make a change in a transaction that is durable when this returns, together with those that wait beside it.

        What ``make`` raises comes out here, and nothing of its change stays. Raises StoreFull, StoreUnusable or IndexDamaged when nothing could be
        written; the changes of others in the transaction then fail as well.
        """
        change = _Change(make)
        self._waiting.append(change)
        with self._lock:
            while not change.is_done:
                self._commit_waiting()
        if change.error is not None:
            raise change.error
        return change.result  # type: ignore[return-value]

    def settled_later(self, key: Key, number: int) -> None:
        """A file looks durably as its row says: forget the due with the next commit."""
        self._settled.append((*key, number))

    def _commit_waiting(self) -> None:
        changes = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_CHANGES))]
        try:
            with self._told():
                self._write(changes)
        except BaseException as error:
            for change in changes:
                change.error = error
            if not isinstance(error, (StoreError, OSError)):
                raise
        finally:
            for change in changes:
                change.is_done = True

    def _write(self, changes: list[_Change[Any]]) -> None:
        if self._is_closed:
            raise StoreUnusable(f"the share store's index {self._path} is closed: the node is stopping")
        writing = Writing(self, self._db)
        settled = [self._settled.popleft() for _ in range(len(self._settled))]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for change in changes:
                self._db.execute("SAVEPOINT change")
                try:
                    change.result = change.make(writing)
                except StoreError as error:
                    change.error = error
                    self._db.execute("ROLLBACK TO change")
                self._db.execute("RELEASE change")
            writing.settled(settled)
            writing.fact("age_s", self._clock.age_s())
            writing.fact("wall_s", self._clock.wall_s())
            self._at_step("changes made")
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            self._settled.extend(settled)
            raise
        self._at_step("changes committed")
        self.totals = _read_totals(self._db)

    # --- reading -----------------------------------------------------------------------------------------------------------

    def get(self, key: Key) -> Copy | None:
        with self._reading() as db:
            return self.row(db, key)

    def of_root(self, root: bytes) -> list[Copy]:
        with self._reading() as db:
            return self.rows_of_root(db, root)

    def row(self, db: sqlite3.Connection, key: Key) -> Copy | None:
        found = db.execute(f"SELECT {_COLUMNS} FROM copies WHERE root = ? AND serial = ?", key).fetchone()
        return None if found is None else self._copy(found)

    def rows_of_root(self, db: sqlite3.Connection, root: bytes) -> list[Copy]:
        return [self._copy(row) for row in db.execute(f"SELECT {_COLUMNS} FROM copies WHERE root = ? ORDER BY serial", (root,))]

    def after(self, key: Key, *, below: bytes | None = None, rows: int = PAGE_ROWS) -> list[Copy]:
        """Up to ``rows`` copies that follow ``key`` in the order of (root, serial), their roots less than ``below``."""
        end = below or b"\xff" * (ROOT_BYTES + 1)
        with self._reading() as db:
            found = db.execute(
                f"SELECT {_COLUMNS} FROM copies WHERE (root, serial) > (?, ?) AND root < ? ORDER BY root, serial LIMIT ?", (*key, end, rows)
            ).fetchall()
        return [self._copy(row) for row in found]

    def older(self, state: State, age_s: int, rows: int) -> list[Copy]:
        """Up to ``rows`` copies that came into ``state`` (pending or trash) at ``age_s`` or before, the oldest first."""
        if state not in (State.PENDING, State.TRASH):
            raise ValueError(f"{state.name} has no index by age")
        with self._reading() as db:
            found = db.execute(
                f"SELECT {_COLUMNS} FROM copies WHERE state = {int(state)} AND changed_age_s <= ? ORDER BY changed_age_s LIMIT ?", (age_s, rows)
            ).fetchall()
        return [self._copy(row) for row in found]

    def damaged(self, after: Key, rows: int) -> list[Copy]:
        """Up to ``rows`` copies whose file is damaged or missing, after ``after``, in order."""
        with self._reading() as db:
            found = db.execute(
                f"SELECT {_COLUMNS} FROM copies INDEXED BY damaged WHERE kept = 3 AND (root, serial) > (?, ?) ORDER BY root, serial LIMIT ?",
                (*after, rows),
            ).fetchall()
        return [self._copy(row) for row in found]

    def dues(self, rows: int) -> list[tuple[bytes, bytes, int, Due]]:
        """Up to ``rows`` files that may not look as their rows say, the oldest first: (root, serial, number, why)."""
        with self._reading() as db:
            found = db.execute("SELECT root, serial, number, kind FROM dues ORDER BY number LIMIT ?", (rows,)).fetchall()
        return [(root, serial, number, Due(kind)) for root, serial, number, kind in found]

    def due(self, key: Key) -> Due | None:
        """Why a copy's file may not look as its row says, or None."""
        with self._reading() as db:
            found = db.execute("SELECT kind FROM dues WHERE root = ? AND serial = ?", key).fetchone()
        return None if found is None else Due(found[0])

    def due_count(self) -> int:
        with self._reading() as db:
            return int(db.execute("SELECT count(*) FROM dues").fetchone()[0])

    def fact(self, name: str, db: sqlite3.Connection | None = None) -> Any:
        """A number or bytes that ``Writing.fact`` wrote, or None."""
        with self._reading() if db is None else contextlib.nullcontext(db) as reading:
            found = reading.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def complaints(self) -> list[str]:
        """What SQLite's own check of every page says, and totals that are not the sums; empty when all is well. Reads the whole index."""
        sums = "SELECT state, kept, count(*), sum(size_bytes), sum(disk_bytes) FROM copies GROUP BY state, kept ORDER BY state, kept"
        told = "SELECT state, kept, copies, size_bytes, disk_bytes FROM totals WHERE copies != 0 ORDER BY state, kept"
        with self._reading() as db:
            texts = [str(text) for (text,) in db.execute("PRAGMA integrity_check(100)") if text != "ok"]
            db.execute("BEGIN")
            try:
                found, kept = db.execute(sums).fetchall(), db.execute(told).fetchall()
            finally:
                db.execute("ROLLBACK")
        if found != kept:
            texts.append(f"the totals are {kept}, but the rows sum up to {found} (state, kept, copies, share bytes, bytes on disk)")
        return texts

    def close(self) -> None:
        """Finish the log and release the file; no call may follow. Nothing is lost when this fails."""
        with self._lock:
            self._is_closed = True
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        for _ in range(READERS):
            reader = self._readers.get()
            if reader is not None:
                reader.close()
        self._readers.put(None)  # whoever comes later gets one and is told

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        db = self._readers.get()
        try:
            with self._told():
                if self._is_closed:
                    raise StoreUnusable(f"the share store's index {self._path} is closed: the node is stopping")
                db = db or _connect(self._path, is_reader=True)
                yield db
        finally:
            self._readers.put(db)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Have what SQLite raises come out as a StoreError."""
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            if "full" in text:
                raise StoreFull(f"the disk of the share store's index {self._path} is full: free some space; nothing is lost") from error
            if any(one in text for one in _DAMAGED_TEXTS):
                raise self._damaged(text) from error
            raise StoreUnusable(f"the share store's index {self._path} cannot be used ({text}): see that its disk works and is writable") from error

    def _damaged(self, what: str) -> IndexDamaged:
        return IndexDamaged(f"the share store's index {self._path} is damaged ({what}): stop the node and rebuild the index from the files")

    def _copy(self, row: tuple[Any, ...]) -> Copy:
        try:
            copy = Copy(row[0], row[1], row[2], row[3], State(row[4]), Kept(row[5]), *row[6:9])
            if _values(copy)[-1] == row[9]:
                return copy
        except (ValueError, TypeError, struct.error):
            pass
        raise self._damaged(f"the row of {bytes(row[0]).hex() if isinstance(row[0], bytes) else row[0]} is not what was written")


def create(path: Path, rows: Iterable[Copy] = ()) -> None:
    """Make an index with ``rows``, which come in the order of (root, serial). It is durable when this returns. Raises OSError, sqlite3.Error."""
    for ending in ("-wal", "-shm", "-journal", ""):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600))
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; BEGIN; {_SCHEMA}")
        insert = f"INSERT INTO copies ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)"
        db.executemany(insert, (_values(copy) for copy in rows))
        db.execute("INSERT INTO totals SELECT state, kept, count(*), sum(size_bytes), sum(disk_bytes) FROM copies GROUP BY state, kept")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")
    finally:
        db.close()
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def changed(copy: Copy, state: State, age_s: int) -> Copy:
    """The same copy in another state."""
    return replace(copy, state=state, changed_age_s=age_s)


def check_key(key: Key) -> Key:
    """Raises ValueError unless it is (32 bytes, 16 bytes)."""
    root, serial = key
    if len(root) != ROOT_BYTES or len(serial) != SERIAL_BYTES:
        raise ValueError(f"a copy is named by a root of {ROOT_BYTES} bytes and a serial of {SERIAL_BYTES}, not of {len(root)} and {len(serial)}")
    return bytes(root), bytes(serial)


def _values(copy: Copy) -> tuple[Any, ...]:
    fields = (
        copy.root,
        copy.serial,
        copy.size_bytes,
        copy.manifest_bytes,
        int(copy.state),
        int(copy.kept),
        copy.stored_s,
        copy.changed_age_s,
        copy.disk_bytes,
    )
    return (*fields, zlib.crc32(_CHECKED.pack(*fields)))


def _read_totals(db: sqlite3.Connection) -> Totals:
    rows = db.execute("SELECT state, kept, copies, size_bytes, disk_bytes FROM totals WHERE copies != 0").fetchall()
    try:
        by = [((State(state), Kept(kept)), copies, size, disk) for state, kept, copies, size, disk in rows]
    except ValueError as error:
        raise sqlite3.DatabaseError(f"malformed totals: {error}") from error
    return Totals({key: copies for key, copies, _, _ in by}, {key: size for key, _, size, _ in by}, sum(disk for *_, disk in by))


def _connect(path: Path, *, is_reader: bool = False) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{_quoted(path)}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    # FULL: a commit is on disk when it returns; WAL with NORMAL would lose the last ones in a power cut.
    for pragma in ("synchronous = FULL", "cell_size_check = ON", "temp_store = MEMORY", "trusted_schema = OFF"):
        db.execute(f"PRAGMA {pragma}")
    db.execute(f"PRAGMA cache_size = {-8192 if is_reader else -65536}")
    if is_reader:
        db.execute("PRAGMA query_only = ON")
    elif db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        db.close()
        raise StoreUnusable(f"the folder of {path} cannot hold a write-ahead log: keep the share store on a local disk")
    return db


def _quoted(path: Path) -> str:
    return quote(os.fspath(path.absolute()))
