"""Releases: what audits decided about kept shares. A passed share's days go from escrow to its node's beneficiary, a failed one's to the object's repair fund.

    node, segments first … last ─► the node's own list ─► each share's days since it was settled ─┬─ passed ─► earned
                                                                                                 └─ failed ─► repair fund

A result covers all shares of a stretch of a node's list, and all days since each was settled; so a day that was missed is not lost, and none counts twice.
Source: storage-protocol.md 3.5, 3.6; ADR 8.
"""

from __future__ import annotations

from typing import Any

from sds_node.meta.rules.call import Call
from sds_node.meta.rules.money import earn_storage
from sds_node.meta.rules.objects import STORED, day_of, settle_share, to_repair
from sds_node.meta.rules.places import held_of
from sds_node.meta.rules.refusals import BAD_FORM, TOO_MANY, UNKNOWN_NODE, UNKNOWN_SEGMENT, need, refuse
from sds_node.meta.rules.tables import NODE, OBJECT, SEGMENT, Object
from sds_node.meta.rules.windows import put_window
from sds_node.meta.rules.wire import MAX_RELEASED_SHARES, MAX_RESULTS, MAX_SEGMENT, ascending, listed, whole


def release(call: Call, message: Any) -> bytes:
    """Settle the days of nodes' shares. Gives how many shares had days to settle (4 bytes)."""
    tables = call.tables
    results = listed(message.results, MAX_RESULTS, "release.results")
    ascending(((one.node, one.first_segment) for one in results), "release.results")
    objects: dict[bytes, Object] = {}
    seen = settled = earned = 0
    for one in results:
        whole(one.last_segment, one.first_segment, MAX_SEGMENT, "release.results.last_segment")
        node = tables.get(NODE, (one.node,))
        if node is None:
            refuse(UNKNOWN_NODE, f"there is no node {one.node}: observe its registration first")
        entries = held_of(tables, one.node, one.first_segment, one.last_segment, MAX_RELEASED_SHARES - seen + 1)
        seen += len(entries)
        need(seen <= MAX_RELEASED_SHARES, TOO_MANY, f"a release has at most {MAX_RELEASED_SHARES} shares: split it")
        failed = _failed(one, entries)
        paid = {1: 0, 2: 0}
        for number, index in entries:
            segment = tables.get(SEGMENT, (number,))
            assert segment is not None
            row = objects.get(segment.object) or tables.get(OBJECT, (segment.object,))
            assert row is not None
            if row.state not in STORED:
                continue
            noz, after = settle_share(row, segment, index, day_of(row, call.time_ms))
            if after is segment:
                continue
            settled += 1
            tables.put(SEGMENT, after)
            if one.has_failed or number in failed:
                row = to_repair(row, noz)
            else:
                row = row._replace(escrow_noz=row.escrow_noz - noz)
                paid[row.fund] += noz
            objects[row.id] = row
        for fund, noz in paid.items():
            earn_storage(tables, node.beneficiary, fund, noz, call.time_ms)
            earned += noz
    for row in objects.values():
        tables.put(OBJECT, row)
    put_window(call, message.number, True, message.answers_root, message.answers_count, message.batch_hash, earned)
    return settled.to_bytes(4, "big")


def _failed(result: Any, entries: list[tuple[int, int]]) -> frozenset[int]:
    """Numbers of the segments whose shares alone failed. Refuses one of which the node has no share in that stretch."""
    listed(result.failed_segments, MAX_RELEASED_SHARES, "release.results.failed_segments", 0)
    need(not (result.has_failed and result.failed_segments), BAD_FORM, "release.results: a node that failed whole names no segments")
    ascending(result.failed_segments, "release.results.failed_segments")
    held = {number for number, _ in entries}
    for number in result.failed_segments:
        need(
            number in held,
            UNKNOWN_SEGMENT,
            f"node {result.node} has no share of segment {number} between {result.first_segment} and {result.last_segment}",
        )
    return frozenset(result.failed_segments)
