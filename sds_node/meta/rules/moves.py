"""Moves: a share is at another node now, under another serial. What repair itself costs is paid by receipts in the sender's window (windows.py).

    from node ─ its days up to now that no audit settled ─► the object's repair fund; the rest of the escrow goes with the share
    no node before ─ the rest of its terms ◄─ the object's repair fund, then the common one, which gets its part back when the object ends

Each move allows repair to cost so much as making the share again does, so that receipts that a meta node gave itself empty no fund. From four meta nodes on the
new node's acknowledgement has to be shown, under the segment's root; with fewer one of them alone decides anyway.

Source: storage-protocol.md 3.2 (repair), 3.6; ADR 8, 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sds_node.documents import Refused as NotThatAck
from sds_node.documents import SignedDocument, check_ack, lease_quorum
from sds_node.merkle import share_proved
from sds_node.meta.ledger.errors import BadValue
from sds_node.meta.ledger.tables import Tables, View
from sds_node.meta.rules.call import Call
from sds_node.meta.rules.commit import owner_of
from sds_node.meta.rules.money import allow_repair
from sds_node.meta.rules.objects import STORED, day_of, endow, released_until, scheme, settle_share, share_escrow, to_repair
from sds_node.meta.rules.places import add_held, nodes_of, pack, remove_held
from sds_node.meta.rules.refusals import BAD_FORM, BAD_SIGNATURE, SAME_OWNER, UNKNOWN_SEGMENT, WRONG_STATE, need, refuse
from sds_node.meta.rules.tables import COMMITTED, LEASE, META, MOVED, NODE, NODE_BYTES, OBJECT, SEGMENT, Committed, Moved, Object, Segment
from sds_node.meta.rules.wire import MAX_MOVES, ascending, identity, listed, serial_of
from sds_node.schemes import segment_size, share_bytes, share_noz
from sds_node.transfers import serial_at

MOST_METAS: Final = 10_000


def move(call: Call, message: Any) -> None:
    """Put shares of segments to other nodes."""
    listed(message.shares, MAX_MOVES, "move.shares")
    ascending(((one.segment, one.index) for one in message.shares), "move.shares")
    is_shown = is_word_of_several(call.tables)
    for one in message.shares:
        _move(call, one, is_shown)


def is_word_of_several(view: View) -> bool:
    """Whether there are so many meta nodes that the word of one alone moves nothing: as for leases, from four on."""
    return lease_quorum(sum(one.is_active for one in view.scan(META, limit=MOST_METAS))) > 1


def allowance_noz(row: Object, size_bytes: int) -> int:
    """What repair may cost for a share that was moved: k shares read twice, since sources fail, and the share stored."""
    return 2 * row.k * max(1, size_bytes) + max(1, share_noz(size_bytes, row.escrow_ratio_e18).receipt_noz)


@dataclass(frozen=True, slots=True)
class _ChainOnly:
    """What an acknowledgement is judged by: it names no meta node."""

    chain_id: str

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        return None

    def active_meta_nodes(self) -> tuple[bytes, ...]:
        return ()


def _check_kept(call: Call, segment: Segment, row: Object, share: Any, size_bytes: int) -> None:
    """Refuses a share that its new node has not acknowledged, or that is not the one at its place in the segment."""
    root = identity(share.share_root, "move.shares.share_root")
    is_there = share_proved(segment.root, root, share.index, row.n, list(share.segment_path))
    need(is_there, BAD_FORM, f"expected a path from share {share.index} to the root of segment {segment.number}")
    node = call.tables.get(NODE, (share.to_node,))
    assert node is not None
    try:
        given = SignedDocument(body=share.ack_body, signature=share.ack_signature)
        check_ack(given, _ChainOnly(call.chain_id), node.p2p_key, serial=share.serial, share_root=root, size_bytes=size_bytes)
    except NotThatAck as error:
        refuse(BAD_SIGNATURE, f"move.shares: node {share.to_node} has not acknowledged share {share.index} of segment {segment.number}: {error}")


def _move(call: Call, share: Any, is_shown: bool) -> None:
    tables = call.tables
    segment = tables.get(SEGMENT, (share.segment,)) if share.segment < 1 << 63 else None
    if segment is None:
        refuse(UNKNOWN_SEGMENT, f"there is no segment {share.segment}: it was never given, or is no longer stored")
    row = tables.get(OBJECT, (segment.object,))
    if row is None:
        raise BadValue(f"segment {segment.number} is of no object")
    need(row.state in STORED, WRONG_STATE, f"segment {segment.number} is of an object that is not stored")
    nodes = nodes_of(segment.nodes)
    serial_of(share.serial, call.meta_node, 1, "move.shares.serial")
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
    size_bytes = share_bytes(scheme(row), segment_size(row.size_bytes, segment.number - row.first_segment))
    if is_shown:
        _check_kept(call, segment, row, share, size_bytes)
    allow_repair(tables, row.fund, allowance_noz(row, size_bytes))
    row, segment = _settled(call, row, segment, share.index, there)
    nodes[share.index] = share.to_node
    tables.put(SEGMENT, segment._replace(nodes=pack(nodes, NODE_BYTES)))
    tables.put(OBJECT, row)
    _note_committed(tables, row, segment, share.index, there)
    tables.put(MOVED, Moved(segment.number, share.index, share.serial))
    if there:
        remove_held(tables, there, [segment.number])
    add_held(tables, share.to_node, [(segment.number, share.index)])


def _note_committed(tables: Tables, row: Object, segment: Segment, index: int, there: int) -> None:
    """Keep the serial that the commit had, as long as its receipt may come; ``there``: the node that has the share now, 0 for none."""
    key = segment.number, index
    if tables.get(LEASE, (row.lease,)) is None or tables.get(COMMITTED, key) is not None:
        return
    own = tables.get(MOVED, key)
    serial = (own.serial if own is not None else serial_at(segment.first_serial, index)) if there else b""
    tables.put(COMMITTED, Committed(*key, serial))


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
    return endow(call.tables, row, needed)._replace(term_noz=row.term_noz + escrow), segment
