"""What nodes told of, on disk while a ledger is made of it: manifests of objects, copies of shares that lie under them, share roots.

    gathering.py ─► manifests, copies, roots ─► making.py ─► chosen, segments ─► rows of the ledger

A file of its own, removed at the end; memory does not grow with it. One thread at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

FAR: Final = 1 << 32
"""A manifest of an operation that is so far above what most nodes tell is a lie: it counts as the oldest of all."""
_SCHEMA: Final = """
CREATE TABLE manifests (
    object BLOB NOT NULL, body BLOB NOT NULL, sequence INTEGER NOT NULL, node BLOB NOT NULL, PRIMARY KEY (object, node, body)
) WITHOUT ROWID;
CREATE TABLE copies (
    object BLOB NOT NULL, segment INTEGER NOT NULL, share INTEGER NOT NULL, node BLOB NOT NULL, serial BLOB NOT NULL, root BLOB NOT NULL,
    segment_root BLOB NOT NULL, wallet BLOB NOT NULL, PRIMARY KEY (object, segment, share, node)
) WITHOUT ROWID;
CREATE TABLE roots (segment_root BLOB PRIMARY KEY, roots BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE segments (
    object BLOB NOT NULL, at INTEGER NOT NULL, root BLOB NOT NULL, first_serial BLOB NOT NULL, nodes BLOB NOT NULL, moved BLOB NOT NULL,
    PRIMARY KEY (object, at)
) WITHOUT ROWID;
CREATE TABLE chosen (
    object BLOB PRIMARY KEY, body BLOB NOT NULL, wallet BLOB NOT NULL, lookup BLOB NOT NULL, sequence INTEGER NOT NULL, first INTEGER NOT NULL,
    segments INTEGER NOT NULL, full_shares INTEGER NOT NULL, last_shares INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE placed (node INTEGER NOT NULL, segment INTEGER NOT NULL, share INTEGER NOT NULL, PRIMARY KEY (node, segment)) WITHOUT ROWID;
"""


class FoundCopy(NamedTuple):
    """A copy at a node (20 bytes), judged: its share's root lies under ``segment_root`` at ``share``."""

    object: bytes
    segment: int
    share: int
    node: bytes
    serial: bytes
    root: bytes
    segment_root: bytes
    wallet: bytes


class Chosen(NamedTuple):
    """An object that comes into the ledger: its manifest's body, its first segment's number, how many of its shares are there in full segments and in the last."""

    object: bytes
    body: bytes
    wallet: bytes
    lookup: bytes
    sequence: int
    first: int
    segments: int
    full_shares: int
    last_shares: int


class SegmentFound(NamedTuple):
    """A segment with its shares' places. ``moved``: share's index (1 byte) and serial (16), for each whose serial is not the first one's plus its index."""

    object: bytes
    at: int
    root: bytes
    first_serial: bytes
    nodes: bytes
    moved: bytes


class Found:
    """The file at ``path``; what one that was killed left there goes. ``close`` removes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.most_sequence = (1 << 63) - 1
        """Manifests of operations above are lies."""
        path.unlink(missing_ok=True)
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = OFF")  # it is made anew after a crash
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.executescript(_SCHEMA)

    def add_manifests(self, node: bytes, rows: Iterable[tuple[bytes, bytes, int]]) -> None:
        """(object id, body, sequence) of manifests that a node told."""
        self._many("INSERT OR IGNORE INTO manifests VALUES (?, ?, ?, ?)", [(key, body, sequence, node) for key, body, sequence in rows])

    def judge(self) -> int:
        """All nodes have told their manifests: decide how far operations came, by what is in the middle at the node that is in the middle. The highest one that
        is not far above."""
        query = (
            "WITH ranked AS (SELECT sequence, row_number() OVER (PARTITION BY node ORDER BY sequence) AS place, count(*) OVER (PARTITION BY node) AS among "
            "FROM manifests) SELECT sequence FROM ranked WHERE place = (among + 1) / 2 ORDER BY sequence"
        )
        middles = [int(row[0]) for row in self.db.execute(query)]
        self.most_sequence = middles[(len(middles) - 1) // 2] + FAR if middles else 0
        return int(self.db.execute("SELECT max(sequence) FROM manifests WHERE sequence <= ?", (self.most_sequence,)).fetchone()[0] or 0)

    def bodies(self, key: bytes) -> list[tuple[bytes, int, int]]:
        """(body, sequence, how many nodes have it) of an object's manifests, the best first: of the highest sequence, 0 for a lie, then what most nodes have."""
        query = (
            "SELECT body, CASE WHEN sequence > ? THEN 0 ELSE sequence END AS place, count(*) FROM manifests WHERE object = ? GROUP BY body, sequence "
            "ORDER BY place DESC, 3 DESC, body LIMIT 64"
        )
        return [(bytes(body), int(sequence), int(count)) for body, sequence, count in self.db.execute(query, (self.most_sequence, key))]

    def objects(self, after: bytes, limit: int) -> list[bytes]:
        """At most so many ids of objects, those after one."""
        query = "SELECT DISTINCT object FROM manifests WHERE object > ? ORDER BY object LIMIT ?"
        return [bytes(row[0]) for row in self.db.execute(query, (after, limit))]

    def add_copies(self, rows: Iterable[FoundCopy], roots: Iterable[tuple[bytes, bytes]]) -> None:
        """Copies, and the roots of all shares by their segment's root."""
        self._many("INSERT OR REPLACE INTO copies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", list(rows))
        self._many("INSERT OR IGNORE INTO roots VALUES (?, ?)", list(roots))

    def copies(self, key: bytes) -> Iterator[FoundCopy]:
        """Copies of an object's shares by segment and share. Nothing may be written meanwhile but to other tables."""
        query = "SELECT * FROM copies WHERE object = ? ORDER BY segment, share, node"
        return map(FoundCopy._make, self.db.execute(query, (key,)))

    def wallets(self, key: bytes) -> list[bytes]:
        """Wallets that copies of an object name, that of most nodes first."""
        query = "SELECT wallet FROM copies WHERE object = ? GROUP BY wallet ORDER BY count(DISTINCT node) DESC, wallet"
        return [bytes(row[0]) for row in self.db.execute(query, (key,))]

    def roots_said(self, key: bytes, wallet: bytes) -> dict[int, list[bytes]]:
        """Roots that nodes tell of the segments of a wallet's object, what most of them say first."""
        query = (
            "SELECT segment, segment_root FROM copies WHERE object = ? AND wallet = ? GROUP BY segment, segment_root "
            "ORDER BY segment, count(DISTINCT node) DESC, segment_root"
        )
        said: dict[int, list[bytes]] = {}
        for segment, root in self.db.execute(query, (key, wallet)):
            said.setdefault(int(segment), []).append(bytes(root))
        return said

    def add_roots(self, segment_root: bytes, roots: bytes) -> None:
        """The roots of all shares of a segment, one after the other."""
        self.db.execute("INSERT OR IGNORE INTO roots VALUES (?, ?)", (segment_root, roots))

    def roots_of(self, segment_root: bytes) -> bytes | None:
        """The roots of a segment's shares, one after the other."""
        row = self.db.execute("SELECT roots FROM roots WHERE segment_root = ?", (segment_root,)).fetchone()
        return None if row is None else bytes(row[0])

    def choose(self, row: Chosen, segments: Iterable[SegmentFound]) -> None:
        """An object comes into the ledger."""
        self._many("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?)", segments)
        self.db.execute("INSERT INTO chosen VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def chosen(self, order: str = "object") -> Iterator[Chosen]:
        """All chosen objects: by id, or in another order of their columns (the caller's own text)."""
        return map(Chosen._make, self.db.execute(f"SELECT * FROM chosen ORDER BY {order}"))

    def renumber(self, key: bytes, first: int) -> None:
        """Give an object's segments other numbers."""
        self.db.execute("UPDATE chosen SET first = ? WHERE object = ?", (first, key))

    def segments(self, key: bytes) -> Iterator[SegmentFound]:
        """Segments of a chosen object, in order."""
        return map(SegmentFound._make, self.db.execute("SELECT * FROM segments WHERE object = ? ORDER BY at", (key,)))

    def place(self, rows: Sequence[tuple[int, int, int]]) -> None:
        """(node's number, segment, share) of what the ledger says is where."""
        self._many("INSERT INTO placed VALUES (?, ?, ?)", rows)

    def placed(self) -> Iterator[tuple[int, int, int]]:
        """All of it, by node and segment."""
        return iter(self.db.execute("SELECT node, segment, share FROM placed ORDER BY node, segment"))

    def close(self) -> None:
        """Remove the file."""
        self.db.close()
        self.path.unlink(missing_ok=True)

    def _many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        self.db.execute("BEGIN")
        self.db.executemany(sql, rows)
        self.db.execute("COMMIT")
