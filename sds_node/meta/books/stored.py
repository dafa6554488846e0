"""Whether the share that a put's receipt is for was stored: unconfirmed shares are not paid for, whatever their nodes and clients signed.

    order limit {object, serial} ─► the object's segments ─ first serial ≤ serial < first + n ─► share ─ has a node, no serial of its own ─► stored
                                                          └ a share has this serial as its own ───────────────────────────────────────────► stored

A share that repair moved since is another node's under a serial of repair's; what its first node took in was stored all the same, and is paid. Which serial of its
own a share had before that is not known any more: whoever hands such a receipt in so late, when the share was lost and made again, is not paid.
Source: storage-protocol.md 3.4, 3.6 ("unconfirmed shares are refunded").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from modules.settlement.leaves import PUT, Leaf
from sds_node.meta.books.books import LeafRow
from sds_node.meta.books.judging import read
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.rules import tables
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.wire import is_of_repair

ROWS_READ = 5_000


class _Placed(NamedTuple):
    """The committed shares of an object: where rows of serials begin, ascending, each with its segment and nodes; and shares' own serials."""

    firsts: list[int]
    segments: list[tuple[int, list[int]]]
    own: dict[tuple[int, int], bytes]
    own_serials: frozenset[bytes]


class Stored:
    """What a view of the ledger has of shares. Objects are read once, so it is for one query."""

    def __init__(self, view: ReadView) -> None:
        self._view = view
        self._objects: dict[bytes, _Placed | None] = {}

    def has(self, row: LeafRow) -> bool:
        """Whether the share of a put's leaf is in the ledger."""
        limit = read(Leaf.FromString(row.leaf)).limit
        key = bytes(limit.object_root) if limit is not None else b""
        if key not in self._objects:
            self._objects[key] = self._placed(key)
        placed = self._objects[key]
        if placed is None:
            return False
        if row.id in placed.own_serials:
            return True
        serial = int.from_bytes(row.id, "big")
        at = bisect_right(placed.firsts, serial) - 1
        if at < 0:
            return False
        segment, nodes = placed.segments[at]
        index = serial - placed.firsts[at]
        if index >= len(nodes) or not nodes[index]:
            return False
        own = placed.own.get((segment, index))
        return own is None or is_of_repair(own)

    def _placed(self, key: bytes) -> _Placed | None:
        row = self._view.get(tables.OBJECT, (key,)) if len(key) == tables.ID_BYTES else None
        if row is None:
            return None
        begin, end = row.first_segment, row.first_segment + row.committed
        found = [
            (int.from_bytes(one.first_serial, "big"), one.number, nodes_of(one.nodes))
            for at in range(begin, end, ROWS_READ)
            for one in self._view.scan(tables.SEGMENT, start=(at,), end=(min(at + ROWS_READ, end),), limit=ROWS_READ)
        ]
        found.sort()
        own: dict[tuple[int, int], bytes] = {}
        after: tuple[int, ...] = ()
        while True:
            page = self._view.scan(tables.MOVED, start=() if after else (begin,), after=after, end=(end,), limit=ROWS_READ)
            own.update({(one.segment, one.share): one.serial for one in page})
            if len(page) < ROWS_READ:
                break
            after = page[-1].segment, page[-1].share
        return _Placed([first for first, _, _ in found], [(number, nodes) for _, number, nodes in found], own, frozenset(own.values()))


def unstored(view: ReadView, rows: Iterable[LeafRow]) -> list[bytes]:
    """Ids of the leaves for puts whose shares are not in the ledger."""
    stored = Stored(view)
    return [row.id for row in rows if row.action == PUT and not stored.has(row)]
