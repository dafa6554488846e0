"""The file of one meta node's giving: up to where of the ledger's log nodes were given manifests, how far the walk over empty objects is, and which nodes lag
behind with which segments.

Losing it costs time alone: the log is gone through again, and comparisons (``compared.py``) find what nodes lack. One thread writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sds_node.meta.file import File

PAGE: Final = 200
MAX_LAGGING: Final = 100_000
"""Segments that one node may lag behind with; what is beyond, a comparison finds."""
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE place (id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, object BLOB NOT NULL, began_s INTEGER NOT NULL);
INSERT INTO place VALUES (0, 0, x'', 0);
CREATE TABLE lagging (node INTEGER NOT NULL, segment INTEGER NOT NULL, PRIMARY KEY (node, segment)) WITHOUT ROWID;
"""


class LaggingError(Exception):
    """The file cannot be used. The text says what came and what to do."""


class Lagging:
    """The file at ``path``, made if there is none. Raises LaggingError; ``close`` gives it back."""

    def __init__(self, path: Path) -> None:
        self._file = File(path, _VERSION, {0: _SCHEMA}, LaggingError, "move it away, it is made anew", "giving", is_synced=False)

    async def place(self) -> int:
        """The last operation that was looked at."""
        return await self._file.do(lambda db: int(db.execute("SELECT sequence FROM place").fetchone()[0]))

    async def came_to(self, sequence: int) -> None:
        """Operations up to this one were looked at."""
        await self._file.do(lambda db: db.execute("UPDATE place SET sequence = ?", (sequence,)).close())

    async def walked(self) -> tuple[bytes, int]:
        """The last object that the walk over all of them came to, and when that walk began (Unix seconds)."""
        return await self._file.do(lambda db: (lambda row: (bytes(row[0]), int(row[1])))(db.execute("SELECT object, began_s FROM place").fetchone()))

    async def walked_to(self, key: bytes, began_s: int) -> None:
        """The walk came to an object."""
        await self._file.do(lambda db: db.execute("UPDATE place SET object = ?, began_s = ?", (key, began_s)).close())

    async def add(self, node: int, segments: Sequence[int]) -> None:
        """A node lags behind with segments."""

        def note(db: sqlite3.Connection) -> None:
            room = MAX_LAGGING - db.execute("SELECT count(*) FROM lagging WHERE node = ?", (node,)).fetchone()[0]
            db.executemany("INSERT OR IGNORE INTO lagging VALUES (?, ?)", [(node, one) for one in segments[: max(0, room)]])

        await self._file.do(note)

    async def nodes(self) -> list[int]:
        """Nodes that lag behind."""
        return await self._file.do(lambda db: [row[0] for row in db.execute("SELECT DISTINCT node FROM lagging ORDER BY node")])

    async def of(self, node: int, after: int = -1) -> list[int]:
        """At most 200 segments after a number that a node lags behind with, in order."""
        query = "SELECT segment FROM lagging WHERE node = ? AND segment > ? ORDER BY segment LIMIT ?"
        return await self._file.do(lambda db: [row[0] for row in db.execute(query, (node, after, PAGE))])

    async def done(self, node: int, segments: Sequence[int]) -> None:
        """A node has been given these."""
        rows: list[tuple[Any, ...]] = [(node, one) for one in segments]
        await self._file.do(lambda db: db.executemany("DELETE FROM lagging WHERE node = ? AND segment = ?", rows).close())

    async def forget(self, node: int) -> None:
        """A node is none any more."""
        await self._file.do(lambda db: db.execute("DELETE FROM lagging WHERE node = ?", (node,)).close())

    def close(self) -> None:
        """Give the file back, after what is under way."""
        self._file.close()
