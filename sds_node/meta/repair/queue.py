"""What waits to be repaired, on disk: segments in order of urgency, how far nodes' lists were walked, damaged shares, shares on their way, what is owed; and
what audits remember of nodes.

    note ─► segments  READY, ordered by (healthy − k, age) ─ take ─► a worker ─┬─ remove
                 ▲                                                            └─ later ─► WAITING until due ─┐
                 └────────────────────────────── wake, or its node came back ────────────────────────────────┘

A segment is there once. Nothing is held in memory but what ``owed`` is read into by funds.py; each change is synced before it is answered, by one thread.
Everything here can be found again from the ledger and the nodes: a file that is lost costs time, not shares.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from sds_node.meta.file import File

_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE segments (
    number INTEGER PRIMARY KEY, spare INTEGER NOT NULL, since_s INTEGER NOT NULL, due_s INTEGER NOT NULL, attempts INTEGER NOT NULL, is_ready INTEGER NOT NULL,
    why TEXT NOT NULL);
CREATE INDEX ready ON segments (spare, since_s, number) WHERE is_ready = 1;
CREATE INDEX waiting ON segments (due_s) WHERE is_ready = 0;
CREATE INDEX lost ON segments (number) WHERE spare < 0;
CREATE INDEX reasons ON segments (why) WHERE is_ready = 0;
CREATE TABLE walks (node INTEGER PRIMARY KEY, kind INTEGER NOT NULL, cursor INTEGER NOT NULL);
CREATE TABLE bad (
    segment INTEGER NOT NULL, share INTEGER NOT NULL, node INTEGER NOT NULL, why TEXT NOT NULL, PRIMARY KEY (segment, share)) WITHOUT ROWID;
CREATE TABLE puts (
    serial BLOB PRIMARY KEY, segment INTEGER NOT NULL, share INTEGER NOT NULL, from_node INTEGER NOT NULL, to_node INTEGER NOT NULL, root BLOB NOT NULL,
    old_serial BLOB NOT NULL, is_acked INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX puts_of ON puts (segment);
CREATE TABLE owed (serial BLOB PRIMARY KEY, object BLOB NOT NULL, fund INTEGER NOT NULL, noz INTEGER NOT NULL, until_s INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE expected (serial BLOB PRIMARY KEY, root BLOB NOT NULL, segment INTEGER NOT NULL, share INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE compared (node INTEGER PRIMARY KEY, at_s INTEGER NOT NULL);
"""
_SINCE_2: Final = """
CREATE INDEX bad_of ON bad (node, segment);
CREATE TABLE unproved (node INTEGER PRIMARY KEY, days INTEGER NOT NULL, at_s INTEGER NOT NULL);
CREATE TABLE audits (node INTEGER PRIMARY KEY, day INTEGER NOT NULL, second_s REAL, items BLOB NOT NULL);
ALTER TABLE puts ADD COLUMN evidence BLOB NOT NULL DEFAULT x'';
"""
_FROM_1: Final = f"""
DROP TABLE exits;
{_SINCE_2}"""
MAX_WHY: Final = 40
MAX_BACKOFF: Final = 16
WOKEN_AT_ONCE: Final = 10_000


class QueueError(Exception):
    """The file of repairs cannot be used. The text says what came and what to do."""


class Walk(IntEnum):
    """Why a node's list is walked. Numbers are on disk and never change their meaning."""

    LOST = 1
    BACK = 2
    LEAVING = 3


class Waiting(NamedTuple):
    """A segment that is to be repaired. ``spare``: healthy shares beyond k, negative for a lost one."""

    number: int
    spare: int
    since_s: int
    attempts: int


class Put(NamedTuple):
    """A share on its way to another node. ``serial`` is the new copy's, ``old_serial`` that of the copy whose place it takes."""

    serial: bytes
    segment: int
    share: int
    from_node: int
    to_node: int
    root: bytes
    old_serial: bytes
    is_acked: bool
    evidence: bytes = b""
    """What a MovedShare shows of it: the share's root, its path, the node's acknowledgement."""


class Owed(NamedTuple):
    """An order limit of repair whose receipt no window has settled yet: its noz, whose fund pays them first, and when it is forgotten if none comes."""

    serial: bytes
    object: bytes
    fund: int
    noz: int
    until_s: int


class Expected(NamedTuple):
    """A copy that a node must have."""

    serial: bytes
    root: bytes
    segment: int
    share: int


class Audited(NamedTuple):
    """A node's last audit: its day, and what is asked again at ``second_s``, packed by the auditor."""

    node: int
    day: int
    second_s: float | None
    items: bytes


class RepairQueue:
    """What is in ``file``. Make one with ``open_queue``; close it with ``close``."""

    def __init__(self, file: File) -> None:
        self._file = file

    # --- segments -----------------------------------------------------------------------------------------------------------

    async def note(self, found: Iterable[tuple[int, int]], now_s: int) -> int:
        """(number, spare) of segments that are to be repaired; one that is here gets its new urgency and is looked at soon. How many were new."""
        rows = [(number, spare, now_s, now_s) for number, spare in found]

        def make(database: sqlite3.Connection) -> int:
            before = _count(database, "SELECT count(*) FROM segments")
            _note(database, rows)
            return _count(database, "SELECT count(*) FROM segments") - before

        return await self._file.do(make) if rows else 0

    async def take(self, count: int, busy: Collection[int], now_s: int) -> list[Waiting]:
        """The ``count`` most urgent segments that may be tried now and are not ``busy``. They stay here until they are removed."""

        def make(database: sqlite3.Connection) -> list[Waiting]:
            query = "UPDATE segments SET is_ready = 1 WHERE number IN (SELECT number FROM segments WHERE is_ready = 0 AND due_s <= ? ORDER BY due_s LIMIT ?)"
            database.execute(query, (now_s, WOKEN_AT_ONCE))
            query = "SELECT number, spare, since_s, attempts FROM segments WHERE is_ready = 1 ORDER BY spare, since_s, number LIMIT ?"
            rows = [Waiting(*row) for row in database.execute(query, (count + len(busy),))]
            return [row for row in rows if row.number not in busy][:count]

        return await self._file.do(make)

    async def later(self, number: int, spare: int, due_s: int, why: str) -> None:
        """A segment could not be repaired: not before ``due_s`` again."""
        query = "UPDATE segments SET spare = ?, due_s = ?, is_ready = 0, why = ?, attempts = min(attempts + 1, ?) WHERE number = ?"
        await self._file.change(lambda database: database.execute(query, (spare, due_s, why[:MAX_WHY], MAX_BACKOFF, number)))

    async def remove(self, numbers: Sequence[int]) -> None:
        """These need no repair any more."""
        await self._file.change(lambda database: database.executemany("DELETE FROM segments WHERE number = ?", [(one,) for one in numbers]))

    async def numbers(self) -> dict[str, int]:
        """How many wait in all (``waiting``), have too few shares to be repaired (``lost``), and why those wait that were tried (by the words of ``why``)."""

        def make(database: sqlite3.Connection) -> dict[str, int]:
            found = dict(database.execute("SELECT why, count(*) FROM segments WHERE is_ready = 0 GROUP BY why"))
            found["waiting"] = _count(database, "SELECT count(*) FROM segments")
            found["lost"] = _count(database, "SELECT count(*) FROM segments WHERE spare < 0")
            return found

        return await self._file.do(make)

    async def lost(self, after: int = -1, limit: int = 1_000) -> list[int]:
        """Numbers of segments with too few shares, those after one."""
        query = "SELECT number FROM segments WHERE spare < 0 AND number > ? ORDER BY number LIMIT ?"
        return await self._file.do(lambda database: [row[0] for row in database.execute(query, (after, limit))])

    # --- walks --------------------------------------------------------------------------------------------------------------

    async def walks(self) -> dict[int, tuple[Walk, int]]:
        """Nodes whose lists are walked: why, and from which segment on."""
        return await self._file.do(
            lambda database: {row[0]: (Walk(row[1]), row[2]) for row in database.execute("SELECT node, kind, cursor FROM walks")}
        )

    async def begin_walk(self, node: int, kind: Walk) -> None:
        """Walk a node's list from its beginning."""
        await self._file.change(lambda database: database.execute("INSERT OR REPLACE INTO walks VALUES (?, ?, 0)", (node, kind)))

    async def walked(self, node: int, cursor: int, found: Iterable[tuple[int, int]], now_s: int) -> None:
        """A stretch of a node's list was looked at, up to ``cursor``: what was found there is noted in the same step."""
        rows = [(number, spare, now_s, now_s) for number, spare in found]

        def make(database: sqlite3.Connection) -> None:
            _note(database, rows)
            database.execute("UPDATE walks SET cursor = ? WHERE node = ?", (cursor, node))

        await self._file.do(make)

    async def end_walk(self, node: int) -> None:
        """Nothing is to be found at a node any more."""
        await self._file.change(lambda database: database.execute("DELETE FROM walks WHERE node = ?", (node,)))

    # --- damaged shares -----------------------------------------------------------------------------------------------------

    async def mark(self, found: Iterable[tuple[int, int, int, str]]) -> None:
        """(segment, share, node, why) of copies that are known to be damaged or missing."""
        rows = [(segment, share, node, why[:MAX_WHY]) for segment, share, node, why in found]
        await self._file.change(lambda database: database.executemany("INSERT OR REPLACE INTO bad VALUES (?, ?, ?, ?)", rows))

    async def marked(self, segments: Iterable[int]) -> dict[tuple[int, int], int]:
        """(segment, share) → the node whose copy is damaged or missing."""
        wanted = sorted(set(segments))

        def make(database: sqlite3.Connection) -> dict[tuple[int, int], int]:
            found: dict[tuple[int, int], int] = {}
            for number in wanted:
                for share, node in database.execute("SELECT share, node FROM bad WHERE segment = ?", (number,)):
                    found[number, share] = node
            return found

        return await self._file.do(make)

    async def unmark(self, segment: int) -> None:
        """A segment is no more."""
        await self._file.change(lambda database: database.execute("DELETE FROM bad WHERE segment = ?", (segment,)))

    async def marked_at(self, node: int, limit: int) -> dict[int, int]:
        """Of a node, segment → index of its shares that are known to be damaged or missing, at most ``limit``."""
        query = "SELECT segment, share FROM bad WHERE node = ? ORDER BY segment LIMIT ?"
        return await self._file.do(lambda database: dict(database.execute(query, (node, limit)).fetchall()))

    # --- what audits remember -----------------------------------------------------------------------------------------------

    async def proved(self, node: int, shares: Sequence[tuple[int, int]]) -> None:
        """A node proved these shares (segment, index): they are not bad, nor is it without proofs."""
        rows = [(segment, share, node) for segment, share in shares]

        def make(database: sqlite3.Connection) -> None:
            database.executemany("DELETE FROM bad WHERE segment = ? AND share = ? AND node = ?", rows)
            database.execute("DELETE FROM unproved WHERE node = ?", (node,))

        await self._file.do(make)

    async def not_proved(self, node: int, now_s: int) -> None:
        """An audit of a node ended without one proof."""
        query = "INSERT INTO unproved VALUES (?, 1, ?) ON CONFLICT (node) DO UPDATE SET days = days + 1, at_s = excluded.at_s"
        await self._file.change(lambda database: database.execute(query, (node, now_s)))

    async def unproved(self) -> dict[int, tuple[int, int]]:
        """Node → (how many audits in a row it has proved nothing, when the last of them was)."""
        return await self._file.do(lambda database: {row[0]: (row[1], row[2]) for row in database.execute("SELECT * FROM unproved")})

    async def forget_unproved(self, node: int) -> None:
        """A node that proved nothing has another chance."""
        await self._file.change(lambda database: database.execute("DELETE FROM unproved WHERE node = ?", (node,)))

    async def audited(self, row: Audited) -> None:
        """A node was audited; ``second_s`` is when it is asked again for what it did not prove, None when that is decided."""
        await self._file.change(lambda database: database.execute("INSERT OR REPLACE INTO audits VALUES (?, ?, ?, ?)", row))

    async def all_audited(self) -> list[Audited]:
        """The last audit of each node."""
        return await self._file.do(lambda database: [Audited(*row) for row in database.execute("SELECT * FROM audits")])

    # --- shares on their way ------------------------------------------------------------------------------------------------

    async def putting(self, put: Put) -> None:
        """A share is about to be sent: whatever becomes of this process, the copy is not forgotten."""
        await self._file.change(lambda database: database.execute("INSERT OR REPLACE INTO puts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", put))

    async def acked(self, serial: bytes, evidence: bytes = b"") -> None:
        """Its node has it, which ``evidence`` shows."""
        await self._file.change(lambda database: database.execute("UPDATE puts SET is_acked = 1, evidence = ? WHERE serial = ?", (evidence, serial)))

    async def puts(self, segment: int | None = None, limit: int = 1_000) -> list[Put]:
        """What was on its way, of one segment or of all."""
        query = f"SELECT * FROM puts {'' if segment is None else 'WHERE segment = ?'} ORDER BY segment, share LIMIT ?"
        arguments = (limit,) if segment is None else (segment, limit)
        return await self._file.do(lambda database: [Put._make((*row[:7], bool(row[7]), row[8])) for row in database.execute(query, arguments)])

    async def moved(self, puts: Sequence[Put]) -> None:
        """The ledger has these moves, and their nodes will hear of it."""

        def make(database: sqlite3.Connection) -> None:
            for put in puts:
                database.execute("DELETE FROM puts WHERE serial = ?", (put.serial,))
                database.execute("DELETE FROM bad WHERE segment = ? AND share = ? AND node = ?", (put.segment, put.share, put.from_node))

        await self._file.do(make)

    async def given_up(self, serials: Sequence[bytes]) -> None:
        """These copies will be in no move, and their nodes will hear of it."""
        await self._file.change(lambda database: database.executemany("DELETE FROM puts WHERE serial = ?", [(one,) for one in serials]))

    # --- what is owed -------------------------------------------------------------------------------------------------------

    async def owe(self, rows: Sequence[Owed]) -> None:
        """Receipts of these limits may come."""
        await self._file.change(lambda database: database.executemany("INSERT OR REPLACE INTO owed VALUES (?, ?, ?, ?, ?)", rows))

    async def paid(self, serials: Sequence[bytes]) -> None:
        """These are settled, or will never be."""
        await self._file.change(lambda database: database.executemany("DELETE FROM owed WHERE serial = ?", [(one,) for one in serials]))

    async def all_owed(self) -> list[Owed]:
        """All that is owed."""
        return await self._file.do(lambda database: [Owed(*row) for row in database.execute("SELECT serial, object, fund, noz, until_s FROM owed")])

    # --- what a node must have ----------------------------------------------------------------------------------------------

    async def clear_expected(self) -> None:
        """Begin with another node."""
        await self._file.change(lambda database: database.execute("DELETE FROM expected"))

    async def expect(self, rows: Sequence[Expected]) -> None:
        """The node that is compared must have these."""
        await self._file.change(lambda database: database.executemany("INSERT OR REPLACE INTO expected VALUES (?, ?, ?, ?)", rows))

    async def found(self, keys: Sequence[tuple[bytes, bytes]]) -> list[Expected | None]:
        """(share root, serial) of copies that the node has → what was expected of each, None for those that nobody expected. They are ticked off.

        A root that is not known (empty) fits any."""

        def make(database: sqlite3.Connection) -> list[Expected | None]:
            answers: list[Expected | None] = []
            for root, serial in keys:
                row = database.execute(
                    "SELECT serial, root, segment, share FROM expected WHERE serial = ? AND root IN (?, x'')", (serial, root)
                ).fetchone()
                if row is not None:
                    database.execute("DELETE FROM expected WHERE serial = ?", (serial,))
                answers.append(None if row is None else Expected(*row))
            return answers

        return await self._file.do(make)

    async def missing(self, limit: int = 500) -> list[Expected]:
        """Of what was expected and not found, the next; they are taken off the list."""

        def make(database: sqlite3.Connection) -> list[Expected]:
            rows = [Expected(*row) for row in database.execute("SELECT serial, root, segment, share FROM expected LIMIT ?", (limit,))]
            database.executemany("DELETE FROM expected WHERE serial = ?", [(row.serial,) for row in rows])
            return rows

        return await self._file.do(make)

    async def compared(self) -> dict[int, int]:
        """When all that a node has was compared last, by its number."""
        return await self._file.do(lambda database: dict(database.execute("SELECT node, at_s FROM compared")))

    async def set_compared(self, node: int, at_s: int) -> None:
        """A node was compared; 0: it shall be, soon."""
        await self._file.change(lambda database: database.execute("INSERT OR REPLACE INTO compared VALUES (?, ?)", (node, at_s)))

    # --- the file -----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the file back, after what is under way."""
        self._file.close()


def _count(database: sqlite3.Connection, query: str) -> int:
    return int(database.execute(query).fetchone()[0])


def _note(database: sqlite3.Connection, rows: Sequence[tuple[int, int, int, int]]) -> None:
    database.executemany(
        "INSERT INTO segments VALUES (?, ?, ?, ?, 0, 1, '') ON CONFLICT (number) DO UPDATE SET spare = excluded.spare, is_ready = 1, attempts = 0",
        rows,
    )


def open_queue(path: Path) -> RepairQueue:
    """The queue in the file at ``path``, made if there is none. Raises QueueError for a file that is something else, or cannot be opened."""
    upgrades = {0: f"{_SCHEMA} {_SINCE_2}", 1: _FROM_1}
    return RepairQueue(File(path, _VERSION, upgrades, QueueError, "move it away, and what needs repair is found again", "repair-queue"))
