"""Windows of other meta nodes in the books: which there are, which of them are here, and which do not hold.

    ledger: window rows ─► MISSING ─ leaves fetched and checked (fetching.py) ─► HERE: its leaves are SETTLED, under a number of the books' own
                              │  └─ what the ledger names is not what a leaf may be ─► BAD, with the reason: its leaves are not here
                              └─ before the first window that is looked for ─► PAST

A window's leaves come in one transaction. A leaf that was held or refused here is replaced by the one that was settled; one that is settled already makes
the window bad. Source: ADR 10.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from sds_node.meta.books.books import MAX_REASON, Books, BooksError, Kind, LeafRow, State
from sds_node.meta.books.file import LEAF, OTHER, put
from sds_node.meta.rules import tables

FIRST_ID: Final = 1 << 40
"""Above every number of an own window."""
MAX_BAD_TOLD: Final = 5


class OtherState(IntEnum):
    """Numbers are on disk and never change their meaning."""

    MISSING = 1
    HERE = 2
    BAD = 3
    PAST = 4


class OtherRow(NamedTuple):
    """A window or release of another meta node. ``id`` is what its leaves have as their window; ``arrived`` counts windows as they came, 0 for none."""

    id: int
    meta_node: bytes
    number: int
    kind: int
    state: int
    time_ms: int
    leaves: int
    arrived: int
    reason: str


class BadWindow(BooksError):
    """The leaves of a window do not hold. The text says why."""


class Unfinished(BooksError):
    """It is not known yet whether a leaf is in a window of this meta node: try again in a moment."""


class Others:
    """Windows of other meta nodes in ``books``."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def last_numbers(self) -> dict[bytes, int]:
        """Meta node → the last window of it that is known here."""
        return await self._books.do(last_numbers)

    async def note(self, rows: Sequence[tables.WindowRow], past: Mapping[bytes, tuple[int, int]]) -> None:
        """Windows that the ledger has, in order of each meta node's numbers; ``past``: meta node → (number, time) of the one before its first one."""

        def make(database: sqlite3.Connection) -> None:
            following = max(FIRST_ID, database.execute("SELECT max(id) FROM others").fetchone()[0] or 0) + 1
            wanted = [(meta, number, Kind.WINDOW, OtherState.PAST, time_ms) for meta, (number, time_ms) in past.items()]
            wanted += [(row.meta_node, row.number, Kind.RELEASE if row.is_release else Kind.WINDOW, OtherState.MISSING, row.made_ms) for row in rows]
            for meta, number, kind, state, time_ms in wanted:
                if self.window_in(database, meta, number) is None:
                    put(database, "others", OTHER, OtherRow(following, meta, number, kind, state, time_ms, 0, 0, ""))
                    following += 1

        await self._books.do(make)

    async def missing(self, limit: int, upto: Mapping[bytes, int] | None = None) -> list[OtherRow]:
        """At most so many windows that are not here, the oldest first; ``upto``: only those up to a number for each meta node."""

        def make(database: sqlite3.Connection) -> list[OtherRow]:
            query = f"SELECT {OTHER}, check32 FROM others WHERE state = 1 ORDER BY time_ms, meta, number"
            rows = self._books.rows(OtherRow, database.execute(query))
            return [row for row in rows if upto is None or row.number <= upto.get(row.meta_node, 0)][:limit]

        return await self._books.do(make)

    async def keep(self, row: OtherRow, leaves: Sequence[LeafRow]) -> None:
        """A window is here. Raises BadWindow when a leaf is settled in another one, Unfinished; nothing is changed then."""

        def make(database: sqlite3.Connection) -> None:
            for leaf in leaves:
                before = self._books.leaf_in(database, leaf.id)
                if before is not None and before.state == State.SETTLED:
                    raise BadWindow(f"serial {leaf.id.hex()} is settled in {self.name_in(database, before.window)}, too")
                if before is not None and before.state == State.IN_WINDOW:
                    raise Unfinished(f"serial {leaf.id.hex()} is in a window of this meta node that is not on the ledger yet")
                put(database, "leaves", LEAF, leaf._replace(state=State.SETTLED, window=row.id, epoch=0))
            made = row._replace(state=OtherState.HERE, leaves=len(leaves), arrived=arrived_in(database) + 1, reason="")
            put(database, "others", OTHER, made)

        await self._books.do(make)

    async def refuse(self, row: OtherRow, reason: str) -> None:
        """A window does not hold, and why."""
        made = row._replace(state=OtherState.BAD, reason=reason[:MAX_REASON])
        await self._books.do(lambda database: put(database, "others", OTHER, made))

    async def try_bad_again(self) -> None:
        """Bad windows are looked for once more."""

        def make(database: sqlite3.Connection) -> None:
            query = f"SELECT {OTHER}, check32 FROM others WHERE state = 3"
            for row in self._books.rows(OtherRow, database.execute(query).fetchall()):
                put(database, "others", OTHER, row._replace(state=OtherState.MISSING, reason=""))

        await self._books.do(make)

    async def bad(self) -> tuple[int, list[OtherRow]]:
        """(how many windows do not hold, the first few of them)."""

        def make(database: sqlite3.Connection) -> tuple[int, list[OtherRow]]:
            count = database.execute("SELECT count(*) FROM others WHERE state = 3").fetchone()[0]
            query = f"SELECT {OTHER}, check32 FROM others WHERE state = 3 ORDER BY time_ms, id LIMIT {MAX_BAD_TOLD}"
            return count, self._books.rows(OtherRow, database.execute(query))

        return await self._books.do(make)

    async def behind(self, windows: Mapping[bytes, int], now_ms: int) -> dict[bytes, int]:
        """Of meta nodes with so many windows on the ledger: when the newest was made whose leaves are not here (ms); 0 when all are."""

        def make(database: sqlite3.Connection) -> dict[bytes, int]:
            known = last_numbers(database)
            query = "SELECT meta, max(time_ms) FROM others WHERE state <> 2 GROUP BY meta"
            made_ms: dict[bytes, int] = dict(database.execute(query).fetchall())
            return {meta: now_ms if known.get(meta, 0) < count else made_ms.get(meta, 0) for meta, count in windows.items()}

        return await self._books.do(make)

    def window_in(self, database: sqlite3.Connection, meta: bytes, number: int) -> OtherRow | None:
        """A window, within ``Books.do``."""
        found = database.execute(f"SELECT {OTHER}, check32 FROM others WHERE meta = ? AND number = ?", (meta, number))
        return next(iter(self._books.rows(OtherRow, found)), None)

    def name_in(self, database: sqlite3.Connection, window: int) -> str:
        """A window that a leaf names, in words."""
        found = database.execute("SELECT meta, number FROM others WHERE id = ?", (window,)).fetchone()
        return f"window {window} of this meta node" if found is None else f"window {found[1]} of meta node {found[0].hex()}"


def last_numbers(database: sqlite3.Connection) -> dict[bytes, int]:
    """Meta node → the last window of it that is known here, within ``Books.do``."""
    return dict(database.execute("SELECT meta, max(number) FROM others GROUP BY meta").fetchall())


def arrived_in(database: sqlite3.Connection) -> int:
    """How many windows of others have come, within ``Books.do``."""
    return int(database.execute("SELECT max(arrived) FROM others WHERE arrived > 0").fetchone()[0] or 0)


def forget_empty(database: sqlite3.Connection, before_ms: int, most: int) -> int:
    """Forget at most so many windows from before a time whose leaves are all forgotten, but for the last of each meta node. How many, within ``Books.do``."""
    query = (
        "DELETE FROM others WHERE id IN (SELECT o.id FROM others o WHERE o.state IN (2, 4) AND o.time_ms < ? "
        "AND NOT EXISTS (SELECT 1 FROM leaves l WHERE l.window = o.id AND l.window > 0) "
        "AND o.number < (SELECT max(number) FROM others x WHERE x.meta = o.meta) AND o.arrived < (SELECT max(arrived) FROM others) LIMIT ?)"
    )
    return database.execute(query, (before_ms, most)).rowcount
