"""What puts with an idempotency key gave: the same key gives the first result again, in this process and, with a file, in later ones.

put(key) ─► known ─► its result          unknown ─► the put, once for all who call with it now, in all processes ─► kept, the oldest of 10,000 goes

A process that is killed between the put's commit and its note leaves none: the same call again stores the content once more, as a newer version. One
whose note cannot be written, since the disk is full, has its result with a warning: the put is done and paid.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from sds_node.client import locks
from sds_node.client.errors import StorageError

MAX_RESULTS: Final = 10_000
LOOK_S: Final = 0.1
"""So often it is looked whether another process is done with a key."""
MAX_KEY_CHARACTERS: Final = 200
CLOSED: Final = "this client is closed: open another one"


class Results:
    """Results by key, in a SQLite file, or in memory. The file is opened for the first key: what needs none works on a full disk, too. Close it."""

    def __init__(self, path: Path | None, clock: Callable[[], float]) -> None:
        self._clock, self._path = clock, path
        self._rows: sqlite3.Connection | None = None
        self._unnoted: dict[str, tuple[str, str]] = {}
        self._running: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._is_closed = False

    async def once(self, key: str, asked: dict[str, Any], work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """What ``work`` gave for the key, now or before. Raises StorageError for a key that was used for something else, and when this is
        closed; what ``work`` raises.
        """
        if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
            raise StorageError(f"an idempotency key has 1 to {MAX_KEY_CHARACTERS} characters, got {len(key)}")
        said = json.dumps(asked, sort_keys=True)
        while key in self._running:
            # Who waits sees the result below; if that put failed, it makes its own.
            await asyncio.wait([self._running[key]])
        self._need_open()
        future = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            async with self._claimed(key):
                return await self._once(key, said, work)
        finally:
            del self._running[key]
            future.set_result({})

    @contextlib.asynccontextmanager
    async def _claimed(self, key: str) -> AsyncIterator[None]:
        """Have a key for oneself, also among processes. A process that ends, however, gives it up."""
        if self._path is None:
            yield
            return
        path = self._path.with_name(f"{sha256(key.encode(errors='surrogatepass')).hexdigest()[:40]}.key")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            while (held := locks.opened(path, 0o600)) is None:
                # Another process does not tell when it is done.
                self._need_open()
                await asyncio.sleep(LOOK_S)
        except OSError as error:
            raise StorageError(f"{path} cannot be used ({error.strerror}): make room there") from None
        with held:
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    async def _once(self, key: str, said: str, work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        try:
            row = self._unnoted.get(key) or self._opened().execute("SELECT asked, given FROM result WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        if row is not None:
            if row[0] != said:
                raise StorageError(f"the idempotency key {key!a} was used for another put: choose another key")
            given: dict[str, Any] = json.loads(row[1])
            return given
        result = await work()
        try:
            self._note(key, said, result)
        except sqlite3.Error as error:
            told = f"it is stored, but that could not be noted in {self._path} ({error}): make room there; the same command again stores it once more"
            result["warning"] = "; ".join(one for one in (result.get("warning"), told) if one)
            # For those who wait here for this key.
            self._unnoted[key] = said, json.dumps(result)
            if len(self._unnoted) > MAX_RESULTS:
                del self._unnoted[next(iter(self._unnoted))]
        return result

    def _opened(self) -> sqlite3.Connection:
        if self._rows is not None:
            return self._rows
        rows = sqlite3.connect(self._path or ":memory:", isolation_level=None)
        try:
            rows.execute("PRAGMA journal_mode=WAL")
            rows.execute("CREATE TABLE IF NOT EXISTS result (key TEXT PRIMARY KEY, asked TEXT NOT NULL, given TEXT NOT NULL, made REAL NOT NULL)")
        except sqlite3.Error:
            rows.close()
            raise
        self._rows = rows
        return rows

    def _note(self, key: str, said: str, result: dict[str, Any]) -> None:
        """A result, in place of the oldest. Raises sqlite3.Error: then it is not noted."""
        rows, most = self._opened(), MAX_RESULTS - 1
        rows.execute("DELETE FROM result WHERE key IN (SELECT key FROM result ORDER BY made DESC, key LIMIT -1 OFFSET ?)", (most,))
        rows.execute("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", (key, said, json.dumps(result), self._clock()))

    def _unusable(self, error: sqlite3.Error) -> StorageError:
        # SQLite tells a file that is none of its own, or damaged, by another kind than a disk that is full or fails.
        is_damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        todo = "move the file away" if is_damaged else "if its disk is full, make room there; then run the same command again"
        return StorageError(f"the results of earlier puts in {self._path} cannot be read or written ({error}): {todo}")

    def _need_open(self) -> None:
        if self._is_closed:
            raise StorageError(CLOSED)

    async def close(self) -> None:
        """Begin nothing more, and close the file when what is under way has noted its results."""
        self._is_closed = True
        while self._running:
            await asyncio.wait(self._running.values())
        if self._rows is not None:
            self._rows.close()
