"""Key-value databases behind one small interface: LevelDB (plyvel), RocksDB (rocksdict), and memory for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from sortedcontainers import SortedDict

from chain.store.errors import CorruptStore, StoreError, StoreLocked


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
        try:
            self._db: Any = plyvel.DB(str(path), create_if_missing=True, write_buffer_size=32 << 20, lru_cache_size=64 << 20, bloom_filter_bits=10)
        except plyvel.CorruptionError as error:
            raise CorruptStore(
                f"the database in {path} is damaged ({error}): restore it from a backup or snapshot, or start from state sync"
            ) from None
        except (plyvel.IOError, OSError) as error:
            raise _cannot_open(path, error) from None
        except plyvel.Error as error:
            raise StoreError(f"the database in {path} cannot be opened: {error}") from None

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._db.get(key)
        return value

    def write(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = (), *, sync: bool) -> None:
        batch = self._db.write_batch(sync=sync)
        put, delete = batch.put, batch.delete
        for key, value in puts:
            put(key, value)
        for key in deletes:
            delete(key)
        batch.write()

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        with self._db.iterator(start=start, stop=end, reverse=reverse) as iterator:
            yield from iterator

    def compact(self) -> None:
        self._db.compact_range()

    def close(self) -> None:
        self._db.close()


class RocksKV:
    """RocksDB."""

    def __init__(self, path: Path) -> None:
        import rocksdict

        path.parent.mkdir(parents=True, exist_ok=True)
        self._rocksdict: Any = rocksdict
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        try:
            self._db: Any = rocksdict.Rdict(str(path), options)
        except Exception as error:  # rocksdict raises bare Exception
            if "orruption" in str(error):
                raise CorruptStore(f"the database in {path} is damaged ({error}): restore it from a backup or snapshot") from None
            raise _cannot_open(path, error) from None
        self._sync = rocksdict.WriteOptions()
        self._sync.sync = True
        self._plain = rocksdict.WriteOptions()

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._db.get(key)
        return value

    def write(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = (), *, sync: bool) -> None:
        batch = self._rocksdict.WriteBatch(raw_mode=True)
        for key, value in puts:
            batch.put(key, value)
        for key in deletes:
            batch.delete(key)
        self._db.write(batch, self._sync if sync else self._plain)

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
    return StoreError(f"the database in {path} cannot be opened: {error}")
