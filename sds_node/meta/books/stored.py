"""Whether the share that a put's receipt is for was stored: unconfirmed shares are not paid for, whatever their nodes and clients signed.

    order limit {object, serial} ─► the object's segments ─ first serial ≤ serial < first + n ─► share ─ has a node, and no other serial ─► stored
                                                          └ a share that the commit had under this serial ──────────────────────────────► stored

A share that was moved since has the mover's serial. What its first node took in is paid all the same, if the commit had it there: the ledger keeps that serial
as long as the lease is not settled (``committed``). Source: storage-protocol.md 3.4, 3.6 ("unconfirmed shares are refunded").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, NamedTuple

from modules.settlement.documents import OrderLimit, decoded
from modules.settlement.leaves import PUT, Leaf
from sds_node.meta.books.books import LeafRow
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.schema import Table
from sds_node.meta.rules import tables
from sds_node.meta.rules.invariants import walk
from sds_node.meta.rules.places import nodes_of


class _Placed(NamedTuple):
    """The shares that commits of an object have: where rows of serials begin, ascending, each with its segment and nodes; and by segment and index the serials
    of those that have one of their own."""

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
        """Whether a commit has the share of a put's leaf."""
        limit = decoded(OrderLimit, Leaf.FromString(row.leaf).traffic.order_limit.body)
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
        return index < len(nodes) and nodes[index] != 0 and (segment, index) not in placed.own

    def _placed(self, key: bytes) -> _Placed | None:
        row = self._view.get(tables.OBJECT, (key,)) if len(key) == tables.ID_BYTES else None
        if row is None:
            return None
        begin, end = row.first_segment, row.first_segment + row.committed
        segments = walk(self._view, tables.SEGMENT, start=(begin,), end=(end,))
        found = sorted((int.from_bytes(one.first_serial, "big"), one.number, nodes_of(one.nodes)) for one in segments)
        own = self._serials(tables.MOVED, begin, end)
        if own:  # else none was moved
            own |= self._serials(tables.COMMITTED, begin, end)
        return _Placed([first for first, _, _ in found], [(number, nodes) for _, number, nodes in found], own, frozenset(own.values()) - {b""})

    def _serials(self, table: Table[Any], begin: int, end: int) -> dict[tuple[int, int], bytes]:
        """Serials of shares of a stretch of segments, by segment and index."""
        return {(one.segment, one.share): one.serial for one in walk(self._view, table, start=(begin,), end=(end,))}


def unstored(view: ReadView, rows: Iterable[LeafRow]) -> list[bytes]:
    """Ids of the leaves for puts whose shares no commit has."""
    stored = Stored(view)
    return [row.id for row in rows if row.action == PUT and not stored.has(row)]
