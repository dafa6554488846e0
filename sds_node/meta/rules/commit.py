"""Objects enter the ledger: where each share of each segment is, the escrow out of the lease, the file record.

    lease ─ each confirmed share's escrow ─► object        unused reservations: a tenth ─► the common repair fund

After a lease's end its meta node has 300 s for commits, and the rest of the 600 s for windows: what a commit has is paid.
An object of more segments than one operation has comes in several, in order; until the last one it is OPEN and no file. Numbers of all its segments are
given with the first. Source: storage-protocol.md 3.2, 3.3, 3.6; ADR 7 (object id), ADR 8.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

from sds_node.hashes import is_hash
from sds_node.meta.ledger.tables import Tables
from sds_node.meta.rules.call import Call, change_state, enqueue, state_of
from sds_node.meta.rules.files import check_record, put_file
from sds_node.meta.rules.leases import TAKEOVER_S, held_lease, settles_ms, takeover_ms
from sds_node.meta.rules.money import change_common_fund
from sds_node.meta.rules.objects import due, share_escrow, term_ends_ms
from sds_node.meta.rules.places import Entry, add_held, nodes_of
from sds_node.meta.rules.refusals import (
    BAD_OBJECT,
    LEASE_TIME,
    NOT_ASKED,
    NOT_CONFIRMED,
    NOT_ENOUGH,
    SAME_OWNER,
    TOO_MANY,
    UNKNOWN_NODE,
    need,
    refuse,
    shown,
)
from sds_node.meta.rules.strings import check_new
from sds_node.meta.rules.tables import (
    DAY_BYTES,
    GONE,
    KEPT,
    LEASE,
    MOVED,
    NODE,
    NODE_BYTES,
    OBJECT,
    OPEN,
    SEGMENT,
    Lease,
    Moved,
    Object,
    Segment,
)
from sds_node.meta.rules.wire import MAX_OBJECTS, MAX_SEGMENT, MAX_SEGMENTS, ascending, count, identity, listed, serial_of, sized, whole
from sds_node.schemes import Scheme, SchemeError, returned, scheme_of, segment_count

_OBJECT_DOMAIN: Final = b"stratos/object/v1\0"


def object_id(lease: bytes, counter: int) -> bytes:
    """The id (32 bytes) of the object that a lease's session counts as ``counter``."""
    return sha256(_OBJECT_DOMAIN + lease + counter.to_bytes(8, "big")).digest()


def commit(call: Call, message: Any) -> bytes:
    """Add objects, or the next segments of open ones. Gives the number of each one's first segment, 6 bytes each."""
    tables = call.tables
    lease = held_lease(call, message.lease_id)
    listed(message.objects, MAX_OBJECTS, "commit.objects", 0)
    ascending((one.counter for one in message.objects), "commit.objects (counters)")
    listed([one for new in message.objects for one in new.segments], MAX_SEGMENTS, "commit.objects.segments", 0)
    need(
        lease.is_put_allowed or not message.objects,
        NOT_ASKED,
        f"lease {shown(lease.id)} was taken for reading: what its wallet signed does not allow to store",
    )
    need(
        call.time_ms < takeover_ms(lease) or not message.objects,
        LEASE_TIME,
        f"lease {shown(lease.id)} ended at {lease.ends_ms} ms, and what is stored under it is committed within {TAKEOVER_S} s",
    )
    unused = count(message.unused_noz, "commit.unused_noz")
    need(bool(message.objects) or unused > 0, BAD_OBJECT, "expected objects, or noz that were reserved and not used; got neither")
    owners: dict[int, bytes] = {}
    held: dict[int, list[Entry]] = {}
    first_numbers = []
    for new in message.objects:
        check_new(tables, lease, new)
        row, spent = _add(call, lease, new, owners, held)
        need(spent <= lease.noz, NOT_ENOUGH, f"lease {shown(lease.id)} has {lease.noz} noz left, the escrow of object {new.counter} is {spent}")
        lease = lease._replace(noz=lease.noz - spent)
        first_numbers.append(row.first_segment.to_bytes(6, "big"))
    for node in sorted(held):
        add_held(tables, node, sorted(held[node]))
    tenth = min(returned(unused).repair_fund_noz, lease.noz)
    change_common_fund(tables, lease.fund, tenth)
    tables.put(LEASE, lease._replace(noz=lease.noz - tenth))
    return b"".join(first_numbers)


def _add(call: Call, lease: Lease, new: Any, owners: dict[int, bytes], held: dict[int, list[Entry]]) -> tuple[Object, int]:
    """(the object, the escrow of its new segments)."""
    tables = call.tables
    identity(new.root, "object.root")
    key = object_id(lease.id, count(new.counter, "object.counter"))
    row = tables.get(OBJECT, (key,))
    if row is None:
        row = _opened(call, lease, new, key)
    else:
        _check_next(row, new)
    form = scheme_of(row.k, row.n)
    left = row.segments - row.committed
    need(
        len(new.segments) <= left and (bool(new.segments) or not left),
        BAD_OBJECT,
        f"expected 1 to {left} segments that follow, got {len(new.segments)}",
    )
    spent = 0
    for at, one in enumerate(new.segments, row.committed):
        nodes = _check_segment(call, form, one, owners)
        number = row.first_segment + at
        tables.put(SEGMENT, Segment(number, key, one.root, one.first_serial, one.nodes, bytes(DAY_BYTES * row.n)))
        for other in one.others:
            tables.put(MOVED, Moved(number, other.index, other.serial))
        spent += share_escrow(row, at) * sum(1 for node in nodes if node)
        for index, node in enumerate(nodes):
            if node:
                held.setdefault(node, []).append((number, index))
    row = row._replace(committed=row.committed + len(new.segments), escrow_noz=row.escrow_noz + spent, term_noz=row.term_noz + spent)
    if row.committed < row.segments:
        tables.put(OBJECT, row)
        return row, spent
    row = row._replace(made_ms=call.time_ms)
    row = due(tables, row, KEPT, term_ends_ms(row))
    put_file(tables, row, new.file, call.time_ms)
    return row, spent


def _opened(call: Call, lease: Lease, new: Any, key: bytes) -> Object:
    """A new object's row, written as OPEN; its segments have numbers from here on."""
    tables, state = call.tables, state_of(call.tables)
    need(is_hash(new.file_hash), BAD_OBJECT, f"object.file_hash: expected a file hash of 40 characters, got {new.file_hash[:60]!a}")
    need(new.first_segment == 0, BAD_OBJECT, f"object {new.counter} is new: expected its segments from 0 on, got {new.first_segment}")
    check_record(new.file)
    count(new.size_bytes, "object.size_bytes")
    try:
        scheme_of(new.data_shares, new.total_shares)
        segments = segment_count(new.size_bytes)
    except SchemeError as error:
        refuse(BAD_OBJECT, f"object {new.counter}: {error}")
    first = state.next_segment
    need(first + segments <= MAX_SEGMENT, TOO_MANY, "a ledger numbers at most 2^48 - 1 segments")
    change_state(tables, next_segment=first + segments)
    row = Object(
        id=key, payer=lease.wallet, lookup_id=new.file.lookup_id, lease=lease.id, fund=lease.fund, root=new.root, file_hash=new.file_hash,
        size_bytes=new.size_bytes, k=new.data_shares, n=new.total_shares, first_segment=first, segments=segments, committed=0,
        escrow_ratio_e18=state.escrow_ratio_e18, made_ms=0, term_days=state.retention_days, terms=1, term_noz=0, escrow_noz=0, repair_noz=0,
        promo_ends_ms=lease.promo_ends_ms, state=OPEN, due_ms=settles_ms(lease),
    )  # fmt: skip
    tables.put(OBJECT, row)
    enqueue(tables, row.due_ms, OPEN, key)
    return row


def _check_next(row: Object, new: Any) -> None:
    """What comes for an object that is there must be its next part."""
    need(row.state == OPEN, BAD_OBJECT, f"object {new.counter} of this lease is complete: count on for the next one")
    said = (new.root, new.file_hash, new.size_bytes, new.data_shares, new.total_shares, new.file.lookup_id, new.first_segment)
    wanted = (row.root, row.file_hash, row.size_bytes, row.k, row.n, row.lookup_id, row.committed)
    need(
        said == wanted,
        BAD_OBJECT,
        f"object {new.counter} is open: expected the same object from segment {row.committed} on, got another or from {new.first_segment} on",
    )
    check_record(new.file)


def _check_segment(call: Call, form: Scheme, new: Any, owners: dict[int, bytes]) -> list[int]:
    """The nodes of a new segment's shares: known, of different owners, enough of them; their serials are the sender's."""
    identity(new.root, "segment.root")
    serial_of(new.first_serial, call.meta_node, form.n, "segment.first_serial")
    nodes = nodes_of(sized(new.nodes, NODE_BYTES * form.n, "segment.nodes"))
    placed = [node for node in nodes if node]
    need(
        len(placed) >= form.confirmed_at,
        NOT_CONFIRMED,
        f"a segment of {form.k} of {form.n} is stored with {form.confirmed_at} shares acknowledged, got {len(placed)}",
    )
    found = [owner_of(call.tables, node, owners) for node in placed]
    need(len({*found}) == len(found), SAME_OWNER, "a segment has one share for each owner of nodes, got two")
    listed(new.others, form.n, "segment.others", 0)
    ascending((one.index for one in new.others), "segment.others")
    for one in new.others:
        whole(one.index, 0, form.n - 1, "segment.others.index")
        serial_of(one.serial, call.meta_node, 1, "segment.others.serial")
        need(nodes[one.index] != 0, BAD_OBJECT, f"segment.others: share {one.index} is nowhere and has no serial")
    return nodes


def owner_of(tables: Tables, number: int, known: dict[int, bytes]) -> bytes:
    """The owner of a node that may take shares. Refuses a number that is none, and a node that is gone."""
    if number not in known:
        row = tables.get(NODE, (number,))
        if row is None or row.standing == GONE:
            refuse(UNKNOWN_NODE, f"there is no node {number}, or it is gone")
        known[number] = row.owner
    return known[number]
