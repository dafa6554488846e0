"""Releases: what audits decided about kept shares. A passed share's days go from escrow to its node's beneficiary, a failed one's to the object's repair fund.

    node, segments first … last ─► the node's own list ─► each share's days since it was settled ─┬─ passed ─► earned
                                                                                                 └─ failed ─► repair fund

A result covers all shares of a stretch of a node's list, and all days since each was settled; so a day that was missed is not lost, and none counts twice.
Source: storage-protocol.md 3.5, 3.6; ADR 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sds_node.meta.rules.call import Call
from sds_node.meta.rules.money import earn_storage
from sds_node.meta.rules.objects import STORED, day_of, settle_share, to_repair
from sds_node.meta.rules.places import days_of, held_of
from sds_node.meta.rules.refusals import BAD_FORM, TOO_MANY, UNKNOWN_NODE, UNKNOWN_SEGMENT, need, refuse
from sds_node.meta.rules.tables import NODE, OBJECT, SEGMENT, Object
from sds_node.meta.rules.windows import put_window
from sds_node.meta.rules.wire import MAX_RELEASED_SHARES, MAX_RESULTS, MAX_SEGMENT, ascending, listed, whole

SETTLED_BYTES: Final = 12
"""An entry of a release's result; MAX_RELEASED_SHARES of them fit the engine's MAX_RESULT_BYTES."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A share whose days from ``first_day`` to ``last_day`` a release settled."""

    segment: int
    index: int
    first_day: int
    last_day: int
    has_passed: bool

    def packed(self) -> bytes:
        """The entry of a release's result."""
        days = self.first_day.to_bytes(2, "big") + self.last_day.to_bytes(2, "big")
        return self.segment.to_bytes(6, "big") + bytes([self.index]) + days + bytes([self.has_passed])


def settled_of(result: bytes) -> list[Settled]:
    """The entries of a release's result."""
    return [
        Settled(int.from_bytes(one[:6], "big"), one[6], int.from_bytes(one[7:9], "big"), int.from_bytes(one[9:11], "big"), one[11] == 1)
        for one in (result[at : at + SETTLED_BYTES] for at in range(0, len(result), SETTLED_BYTES))
    ]


def release(call: Call, message: Any) -> bytes:
    """Settle the days of nodes' shares. Gives an entry for each share that had days to settle, in the order of results and segments: segment (6 bytes) ‖
    index (1) ‖ first day (2) ‖ last day (2) ‖ 1 for a share that passed, 0 for one that failed (1)."""
    tables = call.tables
    results = listed(message.results, MAX_RESULTS, "release.results")
    ascending(((one.node, one.first_segment) for one in results), "release.results")
    objects: dict[bytes, Object] = {}
    seen = earned = 0
    settled: list[bytes] = []
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
            has_passed = not (one.has_failed or number in failed)
            settled.append(Settled(number, index, days_of(segment.days)[index] + 1, days_of(after.days)[index], has_passed).packed())
            tables.put(SEGMENT, after)
            if not has_passed:
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
    return b"".join(settled)


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
