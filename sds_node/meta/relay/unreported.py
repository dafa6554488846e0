"""Public files that the chain may not know of yet, and how far they were looked for: a file of this meta node's own.

    ledger ─ page by page ─► note (objects, cursor)  one step on the disk ─► due ─► sending, until a height ─► remove
                                                                              └──── later ◄── refused, or another's turn

Each change is synced before it is answered. Nothing in it is needed for long: without the file all files of the ledger are gone through once more, and the
chain is asked about each public one. Source: storage-protocol.md 5.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sds_node.meta.file import File

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE files (object BLOB PRIMARY KEY, due_s INTEGER NOT NULL, missed_s INTEGER NOT NULL, until_height INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX due ON files (due_s);
CREATE TABLE cursor (id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, file BLOB);
"""


class UnreportedError(Exception):
    """The file cannot be used. The text says what came and what to do."""


class Cursor(NamedTuple):
    """The log was read up to ``sequence``. ``file``: where all files are gone through, the key of the last one (wallet ‖ lookup id, empty before the first);
    None when that is done."""

    sequence: int
    file: bytes | None


class Waiting(NamedTuple):
    """An object that may have to be reported. ``missed_s``: since when the chain is known to lack its file (Unix seconds), 0 before it was asked;
    ``until_height``: a transaction with it may come into a block up to there, 0 when none was sent."""

    object: bytes
    missed_s: int
    until_height: int


class Unreported:
    """What is in ``file``. Make one with ``open_unreported``; close it with ``close``. All raise UnreportedError."""

    def __init__(self, file: File) -> None:
        self._file = file

    async def cursor(self) -> Cursor | None:
        """How far the ledger was looked at; None for nothing of it."""

        def make(database: sqlite3.Connection) -> Cursor | None:
            row = database.execute("SELECT sequence, file FROM cursor").fetchone()
            return None if row is None else Cursor(*row)

        return await self._file.do(make)

    async def note(self, objects: Iterable[bytes], cursor: Cursor, now_s: int) -> None:
        """The ledger was looked at up to ``cursor``, and these were found since: to be looked at now."""
        rows = [(one, now_s) for one in objects]

        def make(database: sqlite3.Connection) -> None:
            database.executemany("INSERT OR IGNORE INTO files VALUES (?, ?, 0, 0)", rows)
            database.execute("INSERT OR REPLACE INTO cursor VALUES (0, ?, ?)", cursor)

        await self._file.do(make)

    async def due(self, now_s: int, limit: int) -> list[Waiting]:
        """At most ``limit`` whose time has come, the one that waits longest first."""
        query = "SELECT object, missed_s, until_height FROM files WHERE due_s <= ? ORDER BY due_s, object LIMIT ?"
        return await self._file.do(lambda database: [Waiting(*row) for row in database.execute(query, (now_s, limit))])

    async def later(self, rows: Iterable[tuple[Waiting, int]]) -> None:
        """Write these as they are now, each with the Unix second from which on it is looked at again."""
        values = [(due_s, row.missed_s, row.until_height, row.object) for row, due_s in rows]
        await self._many("UPDATE files SET due_s = ?, missed_s = ?, until_height = ? WHERE object = ?", values)

    async def sending(self, objects: Iterable[bytes], until_height: int) -> None:
        """A transaction with these is about to be sent, and cannot come into a block after a height."""
        await self._many("UPDATE files SET until_height = ? WHERE object = ?", [(until_height, one) for one in objects])

    async def remove(self, objects: Iterable[bytes]) -> None:
        """Nothing has to be done about these."""
        await self._many("DELETE FROM files WHERE object = ?", [(one,) for one in objects])

    async def count(self) -> int:
        """How many there are."""
        return await self._file.do(lambda database: int(database.execute("SELECT count(*) FROM files").fetchone()[0]))

    def close(self) -> None:
        """Give the file back, after what is under way."""
        self._file.close()

    async def _many(self, query: str, rows: Sequence[tuple[Any, ...]]) -> None:
        def make(database: sqlite3.Connection) -> None:
            database.executemany(query, rows)

        if rows:
            await self._file.do(make)


def open_unreported(path: Path) -> Unreported:
    """The file at ``path``, made if there is none. Raises UnreportedError for one that is something else, or cannot be opened."""
    loss = "move it away, and what has to be reported is found again"
    return Unreported(File(path, _VERSION, {0: _SCHEMA}, UnreportedError, loss, "unreported"))
