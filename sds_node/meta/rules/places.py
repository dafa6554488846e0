"""Where shares are: packed node numbers in a segment's row, and each node's own list in chunks.

    nodes    4 bytes big-endian for each share of a segment, 0 where there is none
    days     2 bytes big-endian for each share
    held     (varint of segment − the one before, index byte) …; the first one counts from the chunk's ``first``

A chunk has at most 1,024 entries. New segments have the highest numbers, so what a commit adds goes behind the last entry, without reading the others.
A node has at most one share of a segment. ``failed`` has those of its shares that an audit found to be lost, until they are elsewhere, or proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sds_node.meta.ledger.errors import BadValue
from sds_node.meta.ledger.tables import Tables, View
from sds_node.meta.rules.tables import CHUNK_ENTRIES, DAY_BYTES, FAILED, HELD, NODE, NODE_BYTES, Held

Entry = tuple[int, int]
"""(segment, index of the share)"""
FAILED_OF_NODE: Final = 256
"""So many failed shares of a node are noted: whoever audits it next asks for all of them."""


def unpack(packed: bytes, width: int) -> list[int]:
    """The numbers of ``width`` bytes each."""
    return [int.from_bytes(packed[at : at + width], "big") for at in range(0, len(packed), width)]


def pack(numbers: Iterable[int], width: int) -> bytes:
    """The reverse of ``unpack``."""
    return b"".join([number.to_bytes(width, "big") for number in numbers])


def nodes_of(packed: bytes) -> list[int]:
    """Node numbers of a segment's shares."""
    return unpack(packed, NODE_BYTES)


def days_of(packed: bytes) -> list[int]:
    """The last settled days of a segment's shares."""
    return unpack(packed, DAY_BYTES)


def entries_of(chunk: Held) -> list[Entry]:
    """What a chunk holds, in order."""
    packed, segment, at, entries = chunk.packed, chunk.first, 0, []
    while at < len(packed):
        shift = step = 0
        while (byte := packed[at]) & 0x80:
            step |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
        segment += step | byte << shift
        entries.append((segment, packed[at + 1]))
        at += 2
    return entries


def _packed(first: int, entries: Sequence[Entry]) -> bytes:
    out = bytearray()
    before = first
    for segment, index in entries:
        step, before = segment - before, segment
        while step > 0x7F:
            out.append(step & 0x7F | 0x80)
            step >>= 7
        out.append(step)
        out.append(index)
    return bytes(out)


def chunk_of(node: int, entries: Sequence[Entry]) -> Held:
    """The row of 1 to 1,024 shares of a node that follow one another in its list."""
    first = entries[0][0]
    return Held(node, first, entries[-1][0], len(entries), _packed(first, entries))


def add_held(tables: Tables, node: int, entries: Sequence[Entry]) -> None:
    """A node has these shares too; ascending, none of a segment of which it has one."""
    last = tables.scan(HELD, (node,), limit=1, reverse=True)
    if last and entries[0][0] <= last[0].last:
        _insert(tables, node, entries)
    else:
        _append(tables, node, last[0] if last else None, entries)
    _count(tables, node, len(entries))


def _append(tables: Tables, node: int, last: Held | None, entries: Sequence[Entry]) -> None:
    at = 0
    if last is not None and last.entries < CHUNK_ENTRIES:
        part = entries[: CHUNK_ENTRIES - last.entries]
        at = len(part)
        more = _packed(last.last, part)
        tables.put(HELD, last._replace(last=part[-1][0], entries=last.entries + at, packed=last.packed + more))
    for begin in range(at, len(entries), CHUNK_ENTRIES):
        tables.put(HELD, chunk_of(node, entries[begin : begin + CHUNK_ENTRIES]))


def _insert(tables: Tables, node: int, entries: Sequence[Entry]) -> None:
    """Put entries among those that are there, a chunk at a time: what falls into one is merged into it at once."""
    at = 0
    while at < len(entries):
        segment, begin = entries[at][0], at
        before = tables.scan(HELD, (node,), end=(segment + 1,), limit=1, reverse=True)
        after = tables.scan(HELD, (node,), start=(segment + 1,), limit=1)
        while at < len(entries) and (not after or entries[at][0] < after[0].first):
            at += 1
        merged = sorted([*(entries_of(before[0]) if before else ()), *entries[begin:at]])
        pieces = -(-len(merged) // CHUNK_ENTRIES)
        for piece in range(pieces):
            tables.put(HELD, chunk_of(node, merged[len(merged) * piece // pieces : len(merged) * (piece + 1) // pieces]))


def remove_held(tables: Tables, node: int, segments: Sequence[int]) -> None:
    """A node has no share of these segments any more; ascending, each one that it has."""
    at = 0
    while at < len(segments):
        found = tables.scan(HELD, (node,), end=(segments[at] + 1,), limit=1, reverse=True)
        if not found or found[0].last < segments[at]:
            raise BadValue(f"node {node} is said to hold a share of segment {segments[at]}, its list does not")
        chunk, begin = found[0], at
        while at < len(segments) and segments[at] <= chunk.last:
            at += 1
        gone = set(segments[begin:at])
        entries = [one for one in entries_of(chunk) if one[0] not in gone]
        if len(entries) != chunk.entries - len(gone):
            raise BadValue(f"node {node}'s list lacks one of {len(gone)} segments from {segments[begin]} on")
        if not entries or entries[0][0] != chunk.first:
            tables.delete(HELD, (node, chunk.first))
        if entries:
            tables.put(HELD, chunk_of(node, entries))
    _count(tables, node, -len(segments))
    gone = set(segments)
    for row in tables.scan(FAILED, (node,), start=(segments[0],), end=(segments[-1] + 1,), limit=FAILED_OF_NODE) if segments else ():
        if row.segment in gone:
            tables.delete(FAILED, (node, row.segment))


def failed_of(view: View, node: int) -> dict[int, int]:
    """Segment → index of a node's shares that releases named as failed, and none as passed since. A reader's question too."""
    return {row.segment: row.share for row in view.scan(FAILED, (node,), limit=FAILED_OF_NODE)}


def _count(tables: Tables, node: int, change: int) -> None:
    row = tables.get(NODE, (node,))
    if row is None:
        raise BadValue(f"there is no node {node}")
    tables.put(NODE, row._replace(shares=row.shares + change))


def held_of(view: View, node: int, first: int, last: int, most: int) -> list[Entry]:
    """At most ``most`` shares that a node has of segments ``first`` to ``last``, in order. A reader's question too."""
    begin = view.scan(HELD, (node,), end=(first + 1,), limit=1, reverse=True)
    found: list[Entry] = []
    page = view.scan(HELD, (node,), start=(begin[0].first if begin else first,), end=(last + 1,), limit=8)
    while page:
        for chunk in page:
            found.extend([one for one in entries_of(chunk) if first <= one[0] <= last])
            if len(found) >= most:
                return found[:most]
        page = view.scan(HELD, (node,), after=(page[-1].first,), end=(last + 1,), limit=8)
    return found
