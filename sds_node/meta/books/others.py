"""Windows of other meta nodes in the books: which there are, which of them are here, and which do not hold.

    ledger: window rows ─► MISSING ─ leaves fetched and checked (fetching.py) ─► HERE: its leaves are SETTLED, under a number of the books' own
                              │  └─ what the ledger names is not what a leaf may be ─► BAD, with the reason: its leaves are not here ─ now and then again ─► HERE
                              │                                                            └─ nobody needs them any more ─► forgotten
                              └─ before the first window that is looked for ─► PAST

A window's leaves come in one transaction. A leaf that was held or refused here is replaced by the one that was settled; one that is settled already makes
the window bad. Source: ADR 10.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from sds_node.meta.books.books import MAX_REASON, Books, BooksError, Kind, LeafRow, State
from sds_node.meta.books.file import LEAF, OTHER, put
from sds_node.meta.rules import tables

FIRST_ID: Final = 1 << 40
"""Above every number of an own window."""
MAX_BAD_TOLD: Final = 5
MAX_BAD_SERIALS: Final = 1_000


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
    """The leaves of a window do not hold. The text says why; ``serials`` are those of its leaves that are bad or settled already, at most MAX_BAD_SERIALS."""

    def __init__(self, text: str, serials: Sequence[bytes] = ()) -> None:
        super().__init__(text)
        self.serials = tuple(serials[:MAX_BAD_SERIALS])


class UnsureWindow(BadWindow):
    """A window that others may approve, and these books cannot: of the leaves with these ``serials`` they do not know enough."""


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

    async def missing(self, limit: int, upto: Mapping[bytes, int] | None = None) -> dict[bytes, list[OtherRow]]:
        """Meta node → at most so many of its windows that are not here, the oldest first; ``upto``: only those up to a number for each meta node."""

        def make(database: sqlite3.Connection) -> dict[bytes, list[OtherRow]]:
            lasts = dict(upto) if upto is not None else last_numbers(database)
            query = f"SELECT {OTHER}, check32 FROM others WHERE state <> 2 AND state = 1 AND meta = ? AND number <= ? ORDER BY number LIMIT ?"
            found = {meta: self._books.rows(OtherRow, database.execute(query, (meta, last, limit))) for meta, last in sorted(lasts.items())}
            return {meta: rows for meta, rows in found.items() if rows}

        return await self._books.do(make)

    async def window(self, meta: bytes, number: int) -> OtherRow | None:
        """A window; None for one that is not known here."""
        return await self._books.do(lambda database: self.window_in(database, meta, number))

    async def keep(self, row: OtherRow, leaves: Sequence[LeafRow]) -> None:
        """A window is here. Raises BadWindow when a leaf is settled in another one or there twice, Unfinished; nothing is changed then."""

        def make(database: sqlite3.Connection) -> None:
            self.check_all_free(database, [leaf.id for leaf in leaves])
            for leaf in leaves:
                put(database, "leaves", LEAF, leaf._replace(state=State.SETTLED, window=row.id, epoch=0))
            made = row._replace(state=OtherState.HERE, leaves=len(leaves), arrived=arrived_in(database) + 1, reason="")
            put(database, "others", OTHER, made)
            # What was approved under this number or an earlier one is here, or can never come any more: but for that of windows that the ledger has and
            # whose leaves could not be taken yet.
            is_open = "EXISTS (SELECT 1 FROM others o WHERE o.meta = proposed.meta AND o.number = proposed.number AND o.state IN (1, 3))"
            database.execute(f"DELETE FROM proposed WHERE meta = ? AND number <= ? AND NOT {is_open}", (row.meta_node, row.number))

        await self._books.do(make)

    def check_all_free(self, database: sqlite3.Connection, keys: Sequence[bytes]) -> None:
        """Raises BadWindow, with the serials, for leaves of one window some of which are settled or there twice; Unfinished for one in a window of this meta
        node; within ``Books.do``."""
        bad: dict[bytes, str] = {}
        unfinished: Unfinished | None = None
        for key, times in Counter(keys).items():
            try:
                self.check_free(database, key)
                if times > 1:
                    bad[key] = f"serial {key.hex()} is there {times} times"
            except BadWindow as error:
                bad[key] = str(error)
            except Unfinished as error:
                unfinished = error
            if len(bad) == MAX_BAD_SERIALS:
                break
        if bad:
            raise BadWindow(next(iter(bad.values())), [*bad])
        if unfinished is not None:
            raise unfinished

    def check_free(self, database: sqlite3.Connection, key: bytes) -> None:
        """Raises BadWindow for a leaf that is settled, Unfinished for one in a window of this meta node; within ``Books.do``."""
        before = self._books.leaf_in(database, key)
        if before is not None and before.state == State.SETTLED:
            raise BadWindow(f"serial {key.hex()} is settled in {self.name_in(database, before.window)}, too", [key])
        if before is not None and before.state == State.IN_WINDOW:
            raise Unfinished(f"serial {key.hex()} is in a window of this meta node that is not on the ledger yet")

    def earlier_in(self, database: sqlite3.Connection, meta: bytes, number: int) -> str:
        """What is not here yet of a meta node's windows before one, in words; empty where nothing is waited for. One that does not hold is gone past: its leaves
        are not here, so what comes after it is compared with what is. Nor is a release waited for: what its leaves pay no window's leaf can have. Within
        ``Books.do``."""
        last = database.execute("SELECT max(number) FROM others WHERE meta = ?", (meta,)).fetchone()[0] or 0
        if last < number - 1:
            return f"window {last + 1} of this meta node is not known here yet"
        query = "SELECT min(number) FROM others WHERE meta = ? AND number < ? AND state <> 2 AND state = 1 AND kind = ?"
        found = database.execute(query, (meta, number, Kind.WINDOW)).fetchone()[0]
        return f"window {found} is not here yet" if found is not None else ""

    def past_ms_in(self, database: sqlite3.Connection, meta: bytes) -> int:
        """Until when nothing is known here of the leaves of a meta node's windows (ms); 0 where all were looked for. Within ``Books.do``."""
        return int(database.execute("SELECT max(time_ms) FROM others WHERE meta = ? AND state <> 2 AND state = 4", (meta,)).fetchone()[0] or 0)

    async def refuse(self, row: OtherRow, reason: str) -> None:
        """A window does not hold, and why."""
        made = row._replace(state=OtherState.BAD, reason=reason[:MAX_REASON])
        await self._books.do(lambda database: put(database, "others", OTHER, made))

    async def open_metas(self) -> list[bytes]:
        """Meta nodes of which windows are not here, or do not hold."""
        query = "SELECT DISTINCT meta FROM others WHERE state <> 2 AND state IN (1, 3) ORDER BY meta"
        return await self._books.do(lambda database: [bytes(row[0]) for row in database.execute(query)])

    async def bad_of(self, meta: bytes, after: int, limit: int) -> list[OtherRow]:
        """The next windows of a meta node that do not hold, after an id."""
        query = f"SELECT {OTHER}, check32 FROM others WHERE state <> 2 AND state = 3 AND meta = ? AND id > ? ORDER BY id LIMIT ?"
        return await self._books.do(lambda database: self._books.rows(OtherRow, database.execute(query, (meta, after, limit))))

    async def bad(self) -> tuple[int, list[OtherRow]]:
        """(how many windows do not hold, the first few of them)."""

        def make(database: sqlite3.Connection) -> tuple[int, list[OtherRow]]:
            count = database.execute("SELECT count(*) FROM others WHERE state = 3").fetchone()[0]
            query = f"SELECT {OTHER}, check32 FROM others WHERE state = 3 ORDER BY time_ms, id LIMIT {MAX_BAD_TOLD}"
            return count, self._books.rows(OtherRow, database.execute(query))

        return await self._books.do(make)

    async def count_missing(self) -> int:
        """How many windows are not here yet."""
        query = "SELECT count(*) FROM others WHERE state <> 2 AND state = 1"
        return await self._books.do(lambda database: int(database.execute(query).fetchone()[0]))

    async def behind(self, windows: Mapping[bytes, int], now_ms: int) -> dict[bytes, int]:
        """Of meta nodes with so many windows on the ledger: when the newest was made whose leaves are not here (ms); 0 when all are. A release is not waited for."""

        def make(database: sqlite3.Connection) -> dict[bytes, int]:
            known = last_numbers(database)
            query = "SELECT meta, max(time_ms) FROM others WHERE state <> 2 AND kind = ? GROUP BY meta"
            made_ms: dict[bytes, int] = dict(database.execute(query, (Kind.WINDOW,)).fetchall())
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


def forget_bad(database: sqlite3.Connection, over: Mapping[bytes, int], most: int) -> int:
    """Forget at most so many windows that do not hold, but for the last of each meta node, and what was approved of them. ``over``: meta node → the number of its last
    window of which nobody needs the leaves. How many, within ``Books.do``."""
    gone = 0
    for meta, last in over.items():
        is_missing = "EXISTS (SELECT 1 FROM others o WHERE o.meta = proposed.meta AND o.number = proposed.number AND o.state = 1)"
        database.execute(f"DELETE FROM proposed WHERE meta = ? AND number <= ? AND NOT {is_missing}", (meta, last))
        query = (
            "DELETE FROM others WHERE id IN (SELECT o.id FROM others o WHERE o.state <> 2 AND o.state = 3 AND o.meta = ? AND o.number <= ? "
            "AND o.number < (SELECT max(number) FROM others x WHERE x.meta = o.meta) LIMIT ?)"
        )
        gone += database.execute(query, (meta, last, most - gone)).rowcount
    return gone


def forget_empty(database: sqlite3.Connection, before_ms: int, most: int) -> int:
    """Forget at most so many windows from before a time whose leaves are all forgotten, but for the last of each meta node. How many, within ``Books.do``."""
    query = (
        "DELETE FROM others WHERE id IN (SELECT o.id FROM others o WHERE o.state IN (2, 4) AND o.time_ms < ? "
        "AND NOT EXISTS (SELECT 1 FROM leaves l WHERE l.window = o.id AND l.window > 0) "
        "AND o.number < (SELECT max(number) FROM others x WHERE x.meta = o.meta) AND o.arrived < (SELECT max(arrived) FROM others) LIMIT ?)"
    )
    return database.execute(query, (before_ms, most)).rowcount
