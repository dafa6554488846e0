"""What puts with an idempotency key gave: the same key gives the first result again, in this process and, with a file, in later ones.

put(key) ─► known ─► its result          unknown ─► the put, once for all who call with it now, in all processes ─► kept, the oldest of 10,000 goes

A process that is killed between the put's commit and its note leaves none: the same call again stores the content once more, as a newer version.
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
    """Results by key, in a SQLite file, or in memory. Close it."""

    def __init__(self, path: Path | None, clock: Callable[[], float]) -> None:
        self._clock, self._path = clock, path
        try:
            if path is not None:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._rows = sqlite3.connect(path or ":memory:", isolation_level=None)
            self._rows.execute("PRAGMA journal_mode=WAL")
            self._rows.execute(
                "CREATE TABLE IF NOT EXISTS result (key TEXT PRIMARY KEY, asked TEXT NOT NULL, given TEXT NOT NULL, made REAL NOT NULL)"
            )
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"the results of earlier puts in {path} cannot be opened ({error}): move the file away") from None
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
        row = self._rows.execute("SELECT asked, given FROM result WHERE key = ?", (key,)).fetchone()
        if row is not None:
            if row[0] != said:
                raise StorageError(f"the idempotency key {key!a} was used for another put: choose another key")
            given: dict[str, Any] = json.loads(row[1])
            return given
        result = await work()
        self._rows.execute("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", (key, said, json.dumps(result), self._clock()))
        self._rows.execute("DELETE FROM result WHERE key IN (SELECT key FROM result ORDER BY made DESC, key LIMIT -1 OFFSET ?)", (MAX_RESULTS,))
        return result

    def _need_open(self) -> None:
        if self._is_closed:
            raise StorageError(CLOSED)

    async def close(self) -> None:
        """Begin nothing more, and close the file when what is under way has noted its results."""
        self._is_closed = True
        while self._running:
            await asyncio.wait(self._running.values())
        self._rows.close()
