"""What puts with an idempotency key gave: the same key gives the first result again, in this process and, with a file, in later ones.

put(key) ─► known ─► its result          unknown ─► the put, once for all who call with it now ─► kept, the oldest of 10,000 goes
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from sds_node.client.errors import StorageError

MAX_RESULTS: Final = 10_000
MAX_KEY_CHARACTERS: Final = 200


class Results:
    """Results by key, in a SQLite file, or in memory. Close it."""

    def __init__(self, path: Path | None, clock: Callable[[], float]) -> None:
        self._clock = clock
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

    async def once(self, key: str, asked: dict[str, Any], work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """What ``work`` gave for the key, now or before. Raises StorageError for a key that was used for something else, what ``work`` raises."""
        if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
            raise StorageError(f"an idempotency key has 1 to {MAX_KEY_CHARACTERS} characters, got {len(key)}")
        said = json.dumps(asked, sort_keys=True)
        while key in self._running:
            # Who waits sees the result below; if that put failed, it makes its own.
            await asyncio.wait([self._running[key]])
        row = self._rows.execute("SELECT asked, given FROM result WHERE key = ?", (key,)).fetchone()
        if row is not None:
            if row[0] != said:
                raise StorageError(f"the idempotency key {key!a} was used for another put: choose another key")
            given: dict[str, Any] = json.loads(row[1])
            return given
        future = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            result = await work()
            self._rows.execute("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", (key, said, json.dumps(result), self._clock()))
            self._rows.execute("DELETE FROM result WHERE key IN (SELECT key FROM result ORDER BY made DESC, key LIMIT -1 OFFSET ?)", (MAX_RESULTS,))
            return result
        finally:
            del self._running[key]
            future.set_result({})

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
