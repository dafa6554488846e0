"""Releases: what audits decided about kept shares. A passed share's days go from escrow to its node's beneficiary, a failed one's to the object's repair fund.

    node, segments first … last ─► the node's own list ─► each share's days since it was settled ─┬─ passed ─► earned
                                                                                                 └─ failed ─► repair fund

A result covers all shares of a stretch of a node's list, and all days since each was settled, of those that pass MAX_RELEASED_DAYS together; so a day that was
missed is not lost, and none counts twice.
A share that failed by name is noted at its node (``failed``) until it is released as passed, moved or gone: whoever audits the node next knows of it.

What is settled goes into the log with all that its leaves need, so that nobody has to be believed about them, whatever becomes of the rows:

    result    1 (1 byte) ‖ group …      group    node (4) ‖ its beneficiary (20) ‖ entries (2) ‖ entry …
    entry     segment (6) ‖ index (1) ‖ first day (2) ‖ last day (2) ‖ flags (1) ‖ escrow of the share for a term (8) ‖ days of a term (2) ‖ the segment's root (32)
    flags     1 passed, 2 granted noz, 4 the node failed whole

Source: storage-protocol.md 3.5, 3.6; ADR 8, 10.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sds_node.meta.rules.call import Call
from sds_node.meta.rules.money import earn_storage
from sds_node.meta.rules.objects import STORED, day_of, settle_share, share_escrow, to_repair
from sds_node.meta.rules.places import FAILED_OF_NODE, days_of, failed_of, held_of
from sds_node.meta.rules.refusals import BAD_FORM, TOO_MANY, UNKNOWN_NODE, UNKNOWN_SEGMENT, need, refuse
from sds_node.meta.rules.tables import FAILED, NODE, OBJECT, PAID, PROMO, SEGMENT, Failed, Node, Object
from sds_node.meta.rules.windows import put_window
from sds_node.meta.rules.wire import MAX_RELEASED_SHARES, MAX_RESULTS, MAX_SEGMENT, ascending, listed, whole

MAX_RELEASED_DAYS: Final = 100_000
"""So many days of shares one release pays at most: each is a leaf in everybody's books. What is left is for the next one."""
_FORMAT: Final = b"\x01"
"""Results from before a release's leaves followed from it begin with a segment's number, so with a zero."""
_GROUP: Final = struct.Struct(">I20sH")
_ENTRY: Final = struct.Struct(">6sBHHBQH32s")
"""MAX_RELEASED_SHARES of them in MAX_RESULTS groups fit the engine's MAX_RESULT_BYTES."""
_PASSED, _PROMO, _WHOLE = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Settled:
    """A share whose days from ``first_day`` to ``last_day`` a release settled, and what it was then."""

    segment: int
    index: int
    first_day: int
    last_day: int
    has_passed: bool
    node: int
    beneficiary: bytes
    """Of the node."""
    fund: int
    escrow_noz: int
    """Of the share, for one term."""
    term_days: int
    root: bytes
    """Of the segment."""
    is_whole: bool = False
    """The node failed with all of its shares: nothing is said of this one."""

    def packed(self) -> bytes:
        """The entry of a release's result."""
        flags = self.has_passed * _PASSED | (self.fund == PROMO) * _PROMO | self.is_whole * _WHOLE
        segment = self.segment.to_bytes(6, "big")
        return _ENTRY.pack(segment, self.index, self.first_day, self.last_day, flags, self.escrow_noz, self.term_days, self.root)


def settled_of(result: bytes) -> list[Settled] | None:
    """The entries of a release's result; None for one from before it said what leaves need."""
    if not result.startswith(_FORMAT):
        return None if result else []
    found: list[Settled] = []
    at = 1
    while at < len(result):
        node, beneficiary, count = _GROUP.unpack_from(result, at)
        at += _GROUP.size
        for segment, index, first, last, flags, escrow, term, root in _ENTRY.iter_unpack(result[at : at + count * _ENTRY.size]):
            fund, is_whole = PROMO if flags & _PROMO else PAID, bool(flags & _WHOLE)
            number = int.from_bytes(segment, "big")
            found.append(Settled(number, index, first, last, bool(flags & _PASSED), node, beneficiary, fund, escrow, term, root, is_whole))
        at += count * _ENTRY.size
    return found


def _group(node: Node, entries: Sequence[Settled]) -> bytes:
    return b"".join([_GROUP.pack(node.number, node.beneficiary, len(entries)), *(one.packed() for one in entries)]) if entries else b""


def release(call: Call, message: Any) -> bytes:
    """Settle the days of nodes' shares. Gives an entry for each share that had days to settle, in the order of results and segments."""
    tables = call.tables
    results = listed(message.results, MAX_RESULTS, "release.results")
    ascending(((one.node, one.first_segment) for one in results), "release.results")
    objects: dict[bytes, Object] = {}
    seen = earned = 0
    days_left = MAX_RELEASED_DAYS
    groups = [_FORMAT]
    for one in results:
        whole(one.last_segment, one.first_segment, MAX_SEGMENT, "release.results.last_segment")
        node = tables.get(NODE, (one.node,))
        if node is None:
            refuse(UNKNOWN_NODE, f"there is no node {one.node}: observe its registration first")
        entries = held_of(tables, one.node, one.first_segment, one.last_segment, MAX_RELEASED_SHARES - seen + 1)
        seen += len(entries)
        need(seen <= MAX_RELEASED_SHARES, TOO_MANY, f"a release has at most {MAX_RELEASED_SHARES} shares: split it")
        failed, noted = _failed(one, entries), failed_of(tables, one.node)
        paid = {1: 0, 2: 0}
        settled: list[Settled] = []
        for number, index in entries:
            segment = tables.get(SEGMENT, (number,))
            assert segment is not None
            row = objects.get(segment.object) or tables.get(OBJECT, (segment.object,))
            assert row is not None
            if row.state not in STORED:
                continue
            if number in failed and number not in noted and len(noted) < FAILED_OF_NODE:
                tables.put(FAILED, Failed(one.node, number, index))
                noted[number] = index
            has_passed = not (one.has_failed or number in failed)
            before, day = days_of(segment.days)[index], day_of(row, call.time_ms)
            noz, after = settle_share(row, segment, index, min(day, before + days_left) if has_passed else day)
            if after is segment:
                continue
            if has_passed and number in noted:
                tables.delete(FAILED, (one.node, number))
                del noted[number]
            days, escrow = (before + 1, days_of(after.days)[index]), share_escrow(row, number - row.first_segment)
            settled.append(
                Settled(
                    number, index, *days, has_passed, node.number, node.beneficiary, row.fund, escrow, row.term_days, segment.root, one.has_failed
                )
            )
            days_left -= days[1] - before if has_passed else 0
            tables.put(SEGMENT, after)
            if not has_passed:
                row = to_repair(row, noz)
            else:
                row = row._replace(escrow_noz=row.escrow_noz - noz)
                paid[row.fund] += noz
            objects[row.id] = row
        groups.append(_group(node, settled))
        for fund, noz in paid.items():
            earn_storage(tables, node.beneficiary, fund, noz, call.time_ms)
            earned += noz
    for row in objects.values():
        tables.put(OBJECT, row)
    put_window(call, message.number, True, message.answers_root, message.answers_count, message.batch_hash, earned)
    return b"".join(groups)


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
