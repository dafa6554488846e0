"""Moves: a share is at another node now, under another serial. What repair itself costs is paid by receipts in the sender's window (windows.py).

    from node ─ its days up to now that no audit settled ─► the object's repair fund; the rest of the escrow goes with the share
    no node before ─ the rest of its terms ◄─ the object's repair fund, then the common one

Source: storage-protocol.md 3.2 (repair), 3.6; ADR 8.
"""

from __future__ import annotations

from typing import Any

from sds_node.meta.ledger.errors import BadValue
from sds_node.meta.ledger.tables import Tables
from sds_node.meta.rules.call import Call
from sds_node.meta.rules.commit import owner_of
from sds_node.meta.rules.objects import STORED, day_of, from_repair, released_until, settle_share, share_escrow, to_repair
from sds_node.meta.rules.places import add_held, nodes_of, pack, remove_held
from sds_node.meta.rules.refusals import BAD_FORM, SAME_OWNER, UNKNOWN_SEGMENT, WRONG_STATE, need, refuse
from sds_node.meta.rules.tables import MOVED, NODE, NODE_BYTES, OBJECT, SEGMENT, SERIAL_BYTES, Moved, Object, Segment
from sds_node.meta.rules.wire import MAX_MOVES, ascending, listed, sized


def move(call: Call, message: Any) -> None:
    """Put shares of segments to other nodes."""
    listed(message.shares, MAX_MOVES, "move.shares")
    ascending(((one.segment, one.index) for one in message.shares), "move.shares")
    for one in message.shares:
        _move(call, one)


def _move(call: Call, share: Any) -> None:
    tables = call.tables
    segment = tables.get(SEGMENT, (share.segment,)) if share.segment < 1 << 63 else None
    if segment is None:
        refuse(UNKNOWN_SEGMENT, f"there is no segment {share.segment}: it was never given, or is no longer stored")
    row = tables.get(OBJECT, (segment.object,))
    if row is None:
        raise BadValue(f"segment {segment.number} is of no object")
    need(row.state in STORED, WRONG_STATE, f"segment {segment.number} is of an object that is not stored")
    nodes = nodes_of(segment.nodes)
    sized(share.serial, SERIAL_BYTES, "move.shares.serial")
    need(share.index < row.n, BAD_FORM, f"segment {segment.number} has {row.n} shares, got index {share.index}")
    there = nodes[share.index]
    need(there == share.from_node, WRONG_STATE, f"share {share.index} of segment {segment.number} is at node {there}, not {share.from_node}")
    owner = owner_of(tables, share.to_node, {})
    others = [_owner_of_any(tables, node) for at, node in enumerate(nodes) if node and at != share.index]
    need(
        there != share.to_node and owner not in others,
        SAME_OWNER,
        f"node {share.to_node} or its owner has a share of segment {segment.number} already",
    )
    row, segment = _settled(call, row, segment, share.index, there)
    nodes[share.index] = share.to_node
    tables.put(SEGMENT, segment._replace(nodes=pack(nodes, NODE_BYTES)))
    tables.put(OBJECT, row)
    tables.put(MOVED, Moved(segment.number, share.index, share.serial))
    if there:
        remove_held(tables, there, [segment.number])
    add_held(tables, share.to_node, [(segment.number, share.index)])


def _owner_of_any(tables: Tables, number: int) -> bytes:
    """The owner of a node that has a share, even if it is gone."""
    row = tables.get(NODE, (number,))
    if row is None:
        raise BadValue(f"there is no node {number}")
    return row.owner


def _settled(call: Call, row: Object, segment: Segment, index: int, there: int) -> tuple[Object, Segment]:
    """The object and segment with a share's days settled up to now."""
    day = day_of(row, call.time_ms)
    noz, segment = settle_share(row, segment, index, day)
    if there:
        return to_repair(row, noz), segment
    escrow = share_escrow(row, segment.number - row.first_segment)
    needed = row.terms * escrow - released_until(escrow, day, row.term_days)
    row = from_repair(call.tables, row, needed)
    return row._replace(escrow_noz=row.escrow_noz + needed, term_noz=row.term_noz + escrow), segment
