"""Share roots that came from other meta nodes, and which are looked for: tables beside those of ``roots.py``, in the same file.

    meta.keep ─► kept (object, root, at → roots) ─ the ledger has it ─► share_roots          ─ it never will ─► dropped
    ledger ─ from ``looked`` on ─► not in share_roots: missing (segment, again_s) ─ found ─► share_roots
             objects that are not complete yet: growing (object, next)            ─ gone, or here ─► no more missing

A row of ``kept`` has the root that its share roots make: what a liar gives lies under another root, and stands in nobody's way. A segment that has a number is
not always there yet: those of an object are numbered with its first one. ``growing`` has where an object goes on.
Source: docs/adr/0010 (share roots are with several).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sds_node.meta.rules.tables import Segment
from sds_node.meta.users.roots import PAGE, ShareRoots, known


class KeptRow(NamedTuple):
    """Share roots of an object's segment ``at``: ``root`` is what they make, ``roots`` has them one after the other."""

    object: bytes
    root: bytes
    at: int
    roots: bytes


class KeptKey(NamedTuple):
    """Where a row of ``kept`` is, in order, and the Unix second at which it came."""

    object: bytes
    root: bytes
    at: int
    made_s: int


class Looked(NamedTuple):
    """What a look at the ledger found: the number to go on with, segments that it has, objects that go on (→ at which number), and those that do not."""

    next: int
    numbers: Sequence[int]
    growing: Mapping[bytes, int]
    complete: Sequence[bytes]


_FIRST: Final = KeptKey(b"", b"", -1, 0)
_KEY: Final = "object = ? AND root = ? AND at = ?"


class KeptRoots:
    """In the file of ``roots``. Everything raises RootsError for a file that cannot be used."""

    def __init__(self, roots: ShareRoots) -> None:
        self._roots = roots

    # --- before the ledger has them ---

    async def keep(self, source: bytes, rows: Sequence[KeptRow], now_s: int, most_segments: int, most_bytes: int) -> bool:
        """Keep rows for the meta node ``source``, all or none: whether it stays within its bounds. What is there already counts once."""

        def write(db: sqlite3.Connection) -> bool:
            new = [row for row in rows if db.execute(f"SELECT 1 FROM kept WHERE {_KEY}", row[:3]).fetchone() is None]
            segments, size_bytes = db.execute("SELECT COUNT(*), COALESCE(SUM(size_bytes), 0) FROM kept WHERE source = ?", (source,)).fetchone()
            if segments + len(new) > most_segments or size_bytes + sum(len(row.roots) for row in new) > most_bytes:
                return False
            made = [(row.object, row.root, row.at, row.roots, source, len(row.roots), now_s) for row in new]
            db.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?, ?, ?, ?, ?, ?)", made)
            return True

        return await self._roots.work(write)

    async def page(self, after: KeptKey | None) -> list[KeptKey]:
        """At most 500 that are kept, those after one."""
        query = "SELECT object, root, at, made_s FROM kept WHERE (object, root, at) > (?, ?, ?) ORDER BY object, root, at LIMIT ?"
        key = (after or _FIRST)[:3]
        return await self._roots.work(lambda db: [KeptKey(*row) for row in db.execute(query, (*key, PAGE))])

    async def settle(self, taken: Sequence[tuple[int, KeptKey]], dropped: Sequence[KeptKey]) -> None:
        """The ledger has some, with these numbers; others will never come."""

        def write(db: sqlite3.Connection) -> None:
            for number, key in taken:
                db.execute(f"INSERT OR IGNORE INTO share_roots SELECT ?, roots, 1 FROM kept WHERE {_KEY}", (number, *key[:3]))
            db.executemany(f"DELETE FROM kept WHERE {_KEY}", [key[:3] for key in (*dropped, *(key for _, key in taken))])

        await self._roots.work(write)

    # --- what the ledger has ---

    async def looked(self) -> int:
        """The first number of a segment that was not looked at."""
        return await self._roots.work(lambda db: int(db.execute("SELECT next FROM looked").fetchone()[0]))

    async def growing(self, after: bytes) -> list[tuple[bytes, int]]:
        """At most 500 objects that were not complete, those after one: (id, the number of its next segment)."""
        query = "SELECT object, next FROM growing WHERE object > ? ORDER BY object LIMIT ?"
        return await self._roots.work(lambda db: [(bytes(key), int(number)) for key, number in db.execute(query, (after, PAGE))])

    async def note(self, found: Looked, now_s: int, again_s: int) -> None:
        """Remember how far the ledger was looked at, and what is not here of it: to be fetched from ``again_s`` on."""
        lacking = "INSERT OR IGNORE INTO missing SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM share_roots WHERE segment = ?)"

        def write(db: sqlite3.Connection) -> None:
            db.executemany(lacking, [(number, now_s, again_s, number) for number in found.numbers])
            db.executemany("INSERT OR REPLACE INTO growing VALUES (?, ?)", found.growing.items())
            db.executemany("DELETE FROM growing WHERE object = ?", [(key,) for key in found.complete])
            db.execute("UPDATE looked SET next = ?", (found.next,))

        await self._roots.work(write)

    # --- what is missing ---

    async def due(self, now_s: int) -> list[tuple[int, int]]:
        """At most 500 missing segments whose pause is over, the one that waits longest first: (number, since which Unix second)."""
        query = "SELECT segment, since_s FROM missing WHERE again_s <= ? ORDER BY again_s, segment LIMIT ?"
        return await self._roots.work(lambda db: [(int(number), int(since_s)) for number, since_s in db.execute(query, (now_s, PAGE))])

    async def here(self, segments: Sequence[Segment]) -> dict[int, list[bytes]]:
        """Those whose share roots are in the file, by number."""
        return await self._roots.work(lambda db: {row.number: roots for row in segments if (roots := known(db, row)) is not None})

    async def put(self, found: Mapping[int, Sequence[bytes]], gone: Sequence[int]) -> None:
        """Share roots of segments, each checked: they are missing no more, nor are those that are gone."""

        def write(db: sqlite3.Connection) -> None:
            # Where one is numbered already it is left, with whether its nodes were told; what rotted is replaced.
            upsert = "INSERT INTO share_roots VALUES (?, ?, 1) ON CONFLICT (segment) DO UPDATE SET roots = excluded.roots"
            db.executemany(upsert, [(number, b"".join(roots)) for number, roots in found.items()])
            db.executemany("DELETE FROM missing WHERE segment = ?", [(number,) for number in (*found, *gone)])

        await self._roots.work(write)

    async def later(self, pauses: Mapping[int, int]) -> None:
        """Missing segments → the Unix seconds from which on they are looked for again."""
        await self._roots.work(
            lambda db: _done(db.executemany("UPDATE missing SET again_s = ? WHERE segment = ?", [(s, n) for n, s in pauses.items()]))
        )

    async def missing(self, since_s: int) -> tuple[int, int]:
        """(how many are missing since a Unix second or longer, the lowest number among them; 0 for none)."""
        query = "SELECT COUNT(*), COALESCE(MIN(segment), 0) FROM missing WHERE since_s <= ?"
        count, first = await self._roots.work(lambda db: db.execute(query, (since_s,)).fetchone())
        return int(count), int(first)


def _done(_: sqlite3.Cursor) -> None:
    """The cursor ends in the thread that made it."""
