"""Share roots of segments: what lies under a segment's root in the ledger. The meta node that commits it has them first, then all.

    commit:  stage (object, segment in it → roots) ─► the ledger ─► number: the ledger's number of the segment ─► its nodes are told ─► told
                                                                      nodes that could not be told ─► lagging (node, segment) ─► caught up
    start:   what is staged and in the ledger is numbered; what is numbered and not told is told again
    others:  kept (object, root → roots) before the ledger has the segment ─► kept.py ─► numbered

A limit for a get names the share's root, an audit asks for it, and a row of the ledger has the segment's alone. Each list is checked against that root when it
is used, so what rotted on the disk is not believed: what is kept is looked at, then ``fetch`` gets it, if somebody provides that. One thread writes, each
change synced.
Source: docs/adr/0008 (share roots are under the segment's), 0009 (what a meta node keeps by itself).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from sds_node.merkle import segment_root
from sds_node.meta.file import File
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.tables import NODE_BYTES, OBJECT, SEGMENT, Object, Segment

log = structlog.get_logger("users")

PAGE: Final = 500
_VERSION: Final = 3
_SCHEMA: Final = """
CREATE TABLE staged (object BLOB NOT NULL, at INTEGER NOT NULL, roots BLOB NOT NULL, PRIMARY KEY (object, at)) WITHOUT ROWID;
CREATE TABLE share_roots (segment INTEGER PRIMARY KEY, roots BLOB NOT NULL, is_told INTEGER NOT NULL);
CREATE INDEX untold ON share_roots (segment) WHERE is_told = 0;
"""
_LAGGING: Final = "CREATE TABLE lagging (node INTEGER NOT NULL, segment INTEGER NOT NULL, PRIMARY KEY (node, segment)) WITHOUT ROWID;"
"""New in version 2."""
_KEPT: Final = """
CREATE TABLE IF NOT EXISTS kept (
    object BLOB NOT NULL, root BLOB NOT NULL, at INTEGER NOT NULL, roots BLOB NOT NULL, source BLOB NOT NULL, size_bytes INTEGER NOT NULL,
    made_s INTEGER NOT NULL, PRIMARY KEY (object, root, at)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kept_of ON kept (source, size_bytes);
CREATE TABLE IF NOT EXISTS missing (segment INTEGER PRIMARY KEY, since_s INTEGER NOT NULL, again_s INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS due ON missing (again_s);
CREATE TABLE IF NOT EXISTS growing (object BLOB PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS looked (id INTEGER PRIMARY KEY, next INTEGER NOT NULL);
INSERT OR IGNORE INTO looked VALUES (0, 0);
"""
"""New in version 3 (``kept.py``)."""

Fetch = Callable[[Segment], Awaitable[Sequence[bytes] | None]]
"""Roots of all shares of a segment, asked of whoever has them; None when they cannot be had. Whoever calls it checks them."""
HASH_BYTES: Final = 32
T = TypeVar("T")


class RootsError(Exception):
    """The file of share roots cannot be used. The text says what came and what to do."""


@dataclass(frozen=True, slots=True)
class Part:
    """Segments of an object from number ``first`` in it on, each with the roots of its shares."""

    object_id: bytes
    first: int
    roots: Sequence[Sequence[bytes]]


Spread = Callable[[Sequence[Part]], Awaitable[int]]
"""Has other meta nodes keep share roots that will be proposed. How many have them on disk. Raises Refused when too few do."""


async def nobody_else(parts: Sequence[Part]) -> int:
    """A ``Spread`` of a meta node that is alone."""
    return 0


class ShareRoots:
    """What is in ``file``. Make one with ``open_roots``; close it with ``close``."""

    def __init__(self, file: File, fetch: Fetch | None) -> None:
        self._file, self._fetch = file, fetch

    # --- writing ---

    async def stage(self, parts: Sequence[Part]) -> None:
        """Keep the roots of objects' segments before the ledger has them."""
        rows = [(one.object_id, one.first + at, b"".join(roots)) for one in parts for at, roots in enumerate(one.roots)]
        await self._write("INSERT OR REPLACE INTO staged VALUES (?, ?, ?)", rows)

    async def number(self, parts: Sequence[tuple[bytes, int, int, int]]) -> None:
        """The ledger has what was staged. Of each part (object id, first, count, number): segment i of the object is the ledger's number ``number`` + i."""

        def move(db: sqlite3.Connection) -> None:
            for object_id, first, count, number in parts:
                bounds = (object_id, first, first + count)
                db.execute(
                    "INSERT OR REPLACE INTO share_roots SELECT ? + at, roots, 0 FROM staged WHERE object = ? AND at >= ? AND at < ?",
                    (number, *bounds),
                )
                db.execute("DELETE FROM staged WHERE object = ? AND at >= ? AND at < ?", bounds)

        await self._file.do(move)

    async def told(self, numbers: Sequence[int], lagging: Sequence[tuple[int, int]] = ()) -> None:
        """The nodes of these segments were told, or will be whatever happens, but for the ``lagging``: (node, segment)."""

        def note(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR IGNORE INTO lagging VALUES (?, ?)", lagging)
            db.executemany("UPDATE share_roots SET is_told = 1 WHERE segment = ?", [(one,) for one in numbers])

        await self._file.do(note)

    async def caught_up(self, node: int, numbers: Sequence[int]) -> None:
        """A node was told of these segments."""
        await self._write("DELETE FROM lagging WHERE node = ? AND segment = ?", [(node, one) for one in numbers])

    async def drop_staged(self, object_id: bytes) -> None:
        """Nothing of what is staged for an object will come into the ledger."""
        await self._write("DELETE FROM staged WHERE object = ?", [(object_id,)])

    async def forget(self, numbers: Sequence[int]) -> None:
        """The ledger has these segments no more. Nodes that lag behind with them find nothing to be told."""
        await self._write("DELETE FROM share_roots WHERE segment = ?", [(one,) for one in numbers])

    # --- reading ---

    async def of(self, segments: Sequence[Segment]) -> dict[int, list[bytes]]:
        """Segments of the ledger → by number, the roots of their shares in order. One whose roots are not known is left out."""
        here = await self._file.do(lambda db: {row.number: known(db, row) for row in segments})
        found: dict[int, list[bytes]] = {}
        for row in segments:
            roots = here[row.number]
            if roots is None and self._fetch is not None:
                fetched = await self._fetch(row)
                roots = checked(row, b"".join(fetched)) if fetched is not None else None
                if roots is not None:
                    await self._keep(row.number, roots)
            if roots is not None:
                found[row.number] = roots
        lacking = [row.number for row in segments if row.number not in found]
        if lacking:
            log.warning("the share roots of segments are not known", segments=len(lacking), first=lacking[0])
        return found

    async def untold(self, after: int = -1) -> list[int]:
        """At most 500 numbers of segments of which it is not known that any node was told, those after one."""
        query = "SELECT segment FROM share_roots WHERE is_told = 0 AND segment > ? ORDER BY segment LIMIT ?"
        return await self._file.do(lambda db: [row[0] for row in db.execute(query, (after, PAGE))])

    async def lagging_nodes(self) -> list[int]:
        """Nodes that could not be told of some of their segments."""
        return await self._file.do(lambda db: [row[0] for row in db.execute("SELECT DISTINCT node FROM lagging ORDER BY node")])

    async def lagging(self, node: int) -> list[int]:
        """At most 500 numbers of segments that a node could not be told of, in order."""
        query = "SELECT segment FROM lagging WHERE node = ? ORDER BY segment LIMIT ?"
        return await self._file.do(lambda db: [row[0] for row in db.execute(query, (node, PAGE))])

    async def numbers(self, after: int) -> list[int]:
        """At most 500 numbers of segments, those after one, in order."""
        query = "SELECT segment FROM share_roots WHERE segment > ? ORDER BY segment LIMIT ?"
        return await self._file.do(lambda db: [row[0] for row in db.execute(query, (after, PAGE))])

    # --- upkeep ---

    async def recover(self, ledger: AnyLedger) -> int:
        """After a start: number what came into the ledger just before a stop, drop what never will. How many objects it were."""
        objects = await self._file.do(lambda db: [bytes(row[0]) for row in db.execute("SELECT DISTINCT object FROM staged")])
        for key in objects:

            def look(view: ReadView, key: bytes = key) -> Object | None:
                return view.get(OBJECT, (key,))

            row = await ledger.query(look)
            if row is not None:
                await self.number([(key, 0, row.committed, row.first_segment)])
            await self.drop_staged(key)
        return len(objects)

    async def sweep(self, ledger: AnyLedger, after: int) -> int:
        """Forget those of 500 segments after a number that the ledger has no more. Where to go on; -1 at the end."""
        numbers = await self.numbers(after)
        if not numbers:
            return -1

        def gone(view: ReadView) -> list[int]:
            return [number for number in numbers if view.get(SEGMENT, (number,)) is None]

        missing = await ledger.query(gone)
        if missing:
            await self.forget(missing)
        return numbers[-1]

    async def work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` makes of the file, in one transaction (``kept.py``)."""
        return await self._file.do(work)

    def close(self) -> None:
        """Give the file back, after what is under way."""
        self._file.close()

    async def _keep(self, number: int, roots: Sequence[bytes]) -> None:
        await self._write("INSERT OR REPLACE INTO share_roots VALUES (?, ?, 1)", [(number, b"".join(roots))])

    async def _write(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """A statement for each row. Its cursor ends in the thread that made it."""

        def work(db: sqlite3.Connection) -> None:
            db.executemany(sql, rows)

        await self._file.do(work)


def known(db: sqlite3.Connection, segment: Segment) -> list[bytes] | None:
    """The share roots that are here and lie under a segment's root, whether numbered or only kept."""
    for query, key in (
        ("SELECT roots FROM share_roots WHERE segment = ?", (segment.number,)),
        ("SELECT roots FROM kept WHERE object = ? AND root = ? LIMIT 1", (segment.object, segment.root)),
    ):
        row = db.execute(query, key).fetchone()
        roots = checked(segment, bytes(row[0])) if row is not None else None
        if roots is not None:
            return roots
    return None


def checked(segment: Segment, raw: bytes) -> list[bytes] | None:
    """Share roots one after the other → a list of them; None unless they lie under the segment's root."""
    if not raw or len(raw) % HASH_BYTES or len(raw) // HASH_BYTES != len(segment.nodes) // NODE_BYTES:
        return None
    roots = [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]
    return roots if segment_root(roots) == segment.root else None


def open_roots(path: Path, fetch: Fetch | None = None) -> ShareRoots:
    """The share roots in the file at ``path``, made if there is none. Raises RootsError for a file that is something else, or cannot be opened."""
    steps = (_SCHEMA, _LAGGING, _KEPT)
    upgrades = {version: "".join(steps[version:]) for version in range(_VERSION)}
    return ShareRoots(File(path, _VERSION, upgrades, RootsError, "move it away, or repair the disk", "share-roots"), fetch)
