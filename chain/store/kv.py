"""Key-value databases behind one small interface: LevelDB (plyvel), RocksDB (rocksdict), and memory for tests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import starmap
from pathlib import Path
from typing import Any, Final, Protocol

from sortedcontainers import SortedDict

from chain.store.errors import CorruptStore, StoreError, StoreLocked

_CANNOT_WRITE: Final = "the database in {} cannot be written ({}): see that its disk has room and is writable, then start again; nothing is lost"
_CANNOT_READ: Final = "the database in {} cannot be read ({}): see that its disk works, then start again"

CLOSE_TIMEOUT_S: Final = 10


class KVBackend(Protocol):
    """A sorted map of bytes that survives a kill. Any thread may call it."""

    def get(self, key: bytes) -> bytes | None:
        """The value at ``key``, or None."""

    def write(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = (), *, sync: bool) -> None:
        """All of it or nothing. With ``sync`` it is on disk when the call returns."""

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start <= key < end`` in key order, or backwards, as they were when the iteration began."""

    def compact(self) -> None:
        """Give back the space of what was deleted."""

    def close(self) -> None:
        """Release the files; no call may follow."""


class PlyvelKV:
    """LevelDB."""

    def __init__(self, path: Path) -> None:
        import plyvel

        path.mkdir(parents=True, exist_ok=True)
        _refuse_headless(path)
        self._path = path
        self._inside: deque[None] = deque()  # one for each use under way: appending and popping are atomic
        self._is_closed = False
        self._left = threading.Event()
        self._errors: Any = plyvel.Error
        self._corruption: Any = plyvel.CorruptionError
        # Tables of 32 MiB: with LevelDB's 2 MiB, merging falls behind a minute of full blocks and a commit waits for it many seconds.
        sizes = {"write_buffer_size": 64 << 20, "max_file_size": 32 << 20, "lru_cache_size": 64 << 20}
        # Hashes do not compress, and trying to makes writers wait.
        options: Any = {"create_if_missing": True, "bloom_filter_bits": 10, "compression": None, **sizes}
        try:
            try:
                self._db: Any = plyvel.DB(str(path), paranoid_checks=True, **options)
            except plyvel.CorruptionError:
                # The end of the log may never have reached the disk in a power cut; this leaves it out. What else is lost with it, the
                # store above notices. Reading without the checks is another matter: a damaged index ends the process.
                plyvel.DB(str(path), **options).close()
                self._db = plyvel.DB(str(path), paranoid_checks=True, **options)
        except plyvel.CorruptionError as error:
            raise _damaged(path, error) from None
        except (plyvel.Error, OSError) as error:
            raise _cannot_open(path, error) from None

    def get(self, key: bytes) -> bytes | None:
        self._enter()
        try:
            value: bytes | None = self._db.get(key, verify_checksums=True)
        except self._errors as error:
            raise self._told(error) from None
        finally:
            self._leave()
        return value

    def write(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = (), *, sync: bool) -> None:
        self._enter()
        try:
            batch = self._db.write_batch(sync=sync)
            deque(starmap(batch.put, puts), maxlen=0)
            deque(map(batch.delete, deletes), maxlen=0)
            batch.write()
        except self._errors as error:
            raise self._told(error, _CANNOT_WRITE) from None
        finally:
            self._leave()

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self._enter()
        try:
            with self._db.iterator(start=start, stop=end, reverse=reverse, verify_checksums=True) as iterator:
                yield from iterator
        except self._errors as error:
            raise self._told(error) from None
        finally:
            self._leave()

    def _enter(self) -> None:
        """Before every use: LevelDB ends the process when it is closed under one. Raises StoreError once it is closed."""
        self._inside.append(None)  # first, then look: ``close`` does it the other way round
        if self._is_closed:
            self._leave()
            raise StoreError(f"the database in {self._path} is closed: the node is stopping")

    def _leave(self) -> None:
        self._inside.pop()
        if self._is_closed:
            self._left.set()

    def _told(self, error: Exception, otherwise: str = _CANNOT_READ) -> StoreError:
        return _damaged(self._path, error) if isinstance(error, self._corruption) else StoreError(otherwise.format(self._path, _text(error)))

    def compact(self) -> None:
        self._enter()
        try:
            self._db.compact_range()
        finally:
            self._leave()

    def close(self) -> None:
        """Refuse new uses, wait for those under way; one that does not end keeps the files open until the process does."""
        self._is_closed = True
        while self._inside:
            self._left.clear()
            if self._inside and not self._left.wait(CLOSE_TIMEOUT_S):
                return
        self._db.close()


class RocksKV:
    """RocksDB."""

    def __init__(self, path: Path) -> None:
        import rocksdict

        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_headless(path)
        self._path = path
        self._rocksdict: Any = rocksdict
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        try:
            self._db: Any = rocksdict.Rdict(str(path), options)
        except Exception as error:  # rocksdict raises bare Exception
            raise (_damaged if "orruption" in str(error) else _cannot_open)(path, error) from None
        self._sync = rocksdict.WriteOptions()
        self._sync.sync = True
        self._plain = rocksdict.WriteOptions()

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise self._told(error) from None
        return value

    def write(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = (), *, sync: bool) -> None:
        batch = self._rocksdict.WriteBatch(raw_mode=True)
        for key, value in puts:
            batch.put(key, value)
        for key in deletes:
            batch.delete(key)
        try:
            self._db.write(batch, self._sync if sync else self._plain)
        except Exception as error:
            raise self._told(error, _CANNOT_WRITE) from None

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        snapshot = self._db.snapshot()
        iterator = snapshot.iter()
        if reverse:
            if end is None:
                iterator.seek_to_last()
            else:
                iterator.seek_for_prev(end)
                if iterator.valid() and iterator.key() == end:
                    iterator.prev()
            while iterator.valid() and (start is None or iterator.key() >= start):
                yield iterator.key(), iterator.value()
                iterator.prev()
        else:
            if start is None:
                iterator.seek_to_first()
            else:
                iterator.seek(start)
            while iterator.valid() and (end is None or iterator.key() < end):
                yield iterator.key(), iterator.value()
                iterator.next()
        if not iterator.valid():  # the end, or a block that cannot be read
            try:
                iterator.status()
            except Exception as error:
                raise self._told(error) from None

    def _told(self, error: Exception, otherwise: str = _CANNOT_READ) -> StoreError:
        return _damaged(self._path, error) if "orruption" in str(error) else StoreError(otherwise.format(self._path, error))

    def compact(self) -> None:
        self._db.compact_range(None, None)

    def close(self) -> None:
        self._db.close()


class MemoryBackend:
    """A backend that forgets everything with the process: for tests and one-off tools."""

    def __init__(self) -> None:
        self._entries: Any = SortedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._entries.get(key)
        return value

    def write(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = (), *, sync: bool) -> None:
        with self._lock:
            self._entries.update(puts)
            for key in deletes:
                self._entries.pop(key, None)

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        with self._lock:
            found = [(key, self._entries[key]) for key in self._entries.irange(start, end, inclusive=(True, False), reverse=reverse)]
        yield from found

    def compact(self) -> None:
        """Memory has nothing to compact."""

    def close(self) -> None:
        """Memory has nothing to release."""


def open_backend(kind: str, path: Path) -> KVBackend:
    """Open the database at ``path``: ``goleveldb`` or ``plyvel``, ``rocksdb``, ``memdb``, or ``""`` for the best one installed.

    Raises StoreLocked, CorruptStore or StoreError with a sentence for the operator.
    """
    if kind in ("", "auto"):
        kind = "plyvel" if find_spec("plyvel") else "rocksdb"
    if kind in ("plyvel", "goleveldb", "leveldb"):
        if not find_spec("plyvel"):
            raise StoreError("app-db-backend goleveldb needs the package plyvel, which has no wheel for this Python: use rocksdb")
        return PlyvelKV(path)
    if kind in ("rocksdb", "rocksdict"):
        if not find_spec("rocksdict"):
            raise StoreError("app-db-backend rocksdb needs the package rocksdict: install it, or use goleveldb")
        return RocksKV(path)
    if kind in ("memdb", "memory"):
        return MemoryBackend()
    raise StoreError(f"app-db-backend must be goleveldb, rocksdb or memdb, got {kind!r}")


def _cannot_open(path: Path, error: Exception) -> StoreError:
    if "lock" in str(error).lower():
        return StoreLocked(f"the database in {path} is in use by another process: stop the running node first")
    return StoreError(f"the database in {path} cannot be opened ({_text(error)}): see that its disk has room and that its files are yours")


def _damaged(path: Path, error: Exception) -> CorruptStore:
    return CorruptStore(f"the database in {path} is damaged ({_text(error)}): restore it from a backup or snapshot, or start from state sync")


def _text(error: Exception) -> str:
    # plyvel's errors hold bytes
    return ", ".join(part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in error.args)


def _refuse_headless(path: Path) -> None:
    """LevelDB and RocksDB make a new database where the file CURRENT is missing, and delete what is left of the old one."""
    if not path.joinpath("CURRENT").exists() and any(path.glob("MANIFEST-*")):
        raise CorruptStore(f"the database in {path} has lost its file CURRENT: restore it from a backup or snapshot, or start from state sync")
