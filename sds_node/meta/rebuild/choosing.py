"""Which objects come into the ledger that is made anew, and where their shares are.

    manifests of an object, the best first ─┐
    copies ─ roots of segments, what most nodes say first ─ under the object's root? ─► one node for each share ─► chosen, segments

A node has one share of a segment, and an owner one. Of several nodes that tell the same share the one with the newest serial has it. An object of which a
segment has no copy at all cannot be in the ledger: nobody can say what is lost. An empty one, such as a folder's record, needs none. Source: docs/meta-nodes.md, "When all ledgers are lost".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, product
from typing import Any, Final

import structlog

from modules.settlement.leaves import SERIAL_BYTES
from sds_node.manifests import ObjectManifest, read_roots
from sds_node.merkle import object_root
from sds_node.meta.rebuild.found import Chosen, Found, FoundCopy, SegmentFound
from sds_node.meta.rules.places import pack
from sds_node.meta.rules.tables import NODE_BYTES
from sds_node.schemes import segment_count

log = structlog.get_logger("rebuild")

PAGE: Final = 500
MOST_TRIED: Final = 256
"""So many ways to put segments together are tried where nodes tell different roots."""
MOST_NUMBER: Final = 1 << 47
"""Segments above are numbered anew: what a manifest says cannot use up the numbers."""
GAP: Final = 1 << 20
"""Numbers of segments that are left free above all that were seen."""
_PREFIX_BYTES: Final = 8


@dataclass
class Outcome:
    """What became of objects: how many came in, with fewer than k shares or unknown share roots in some segment, and were left out."""

    objects: int = 0
    shares: int = 0
    size_bytes: int = 0
    short: int = 0
    left_out: int = 0
    next_segment: int = 1


def choose(found: Found, numbers: Mapping[bytes, tuple[int, bytes]], progress: Callable[[str, int], None]) -> Outcome:
    """Fill ``chosen`` and ``segments``. ``numbers``: address of a node → (its number, its owner)."""
    made, after = Outcome(), b""
    while keys := found.objects(after, PAGE):
        after = keys[-1]
        for key in keys:
            _choose(found, key, numbers, made)
        progress("objects", len(keys))
    made.next_segment = _number(found)
    return made


def _choose(found: Found, key: bytes, numbers: Mapping[bytes, tuple[int, bytes]], made: Outcome) -> None:
    bodies = found.bodies(key)
    if len({sequence for _, sequence, _ in bodies}) < len(bodies):
        log.warning("meta nodes have signed different manifests of an object for one operation: what most nodes keep is taken", object=key.hex())
    # An object's wallet never changes: what most nodes' shares say of it comes before any later manifest.
    rank = {wallet: place for place, wallet in enumerate(found.wallets(key))}
    read = [(ObjectManifest.FromString(body), body, sequence) for body, sequence, _ in bodies]
    for manifest, body, sequence in sorted(read, key=lambda one: rank.get(bytes(one[0].payer), len(rank))):
        roots = _roots(manifest, found.roots_said(key, bytes(manifest.payer)))
        if roots is None:
            continue
        segments, counts, shares, is_short = [], [0, 0], 0, False
        for segment in _segments(found, key, manifest, roots, numbers):
            there = sum(1 for at in range(0, len(segment.nodes), NODE_BYTES) if any(segment.nodes[at : at + NODE_BYTES]))
            counts[segment.at == len(roots) - 1] += there
            shares += there
            is_short = is_short or there < manifest.data_shares or found.roots_of(segment.root) is None
            segments.append(segment)
        if len(segments) != len(roots):
            continue
        file = manifest.file
        found.choose(
            Chosen(key, body, bytes(manifest.payer), bytes(file.lookup_id), sequence, int(manifest.first_segment), len(roots), counts[0], counts[1]),
            segments,
        )
        made.objects, made.shares, made.size_bytes = made.objects + 1, made.shares + shares, made.size_bytes + int(manifest.size_bytes)
        made.short += is_short
        return
    made.left_out += 1
    log.warning("an object is left out: of some segment no node has told a share that lies under the object's root", object=key.hex())


def _roots(manifest: Any, said: Mapping[int, Sequence[bytes]]) -> list[bytes] | None:
    """The roots of all segments, which lie under the object's; None where there are none."""
    count = segment_count(manifest.size_bytes)
    if any(at not in said for at in range(count)):
        return None
    for roots in (
        islice(product(*(said[at] for at in range(count))), MOST_TRIED) if _is_unclear(said, count) else [[said[at][0] for at in range(count)]]
    ):
        if object_root(roots) == bytes(manifest.root):
            return list(roots)
    return None


def _is_unclear(said: Mapping[int, Sequence[bytes]], count: int) -> bool:
    return any(len(said[at]) > 1 for at in range(count))


def _segments(
    found: Found, key: bytes, manifest: Any, roots: Sequence[bytes], numbers: Mapping[bytes, tuple[int, bytes]]
) -> Iterator[SegmentFound]:  # fmt: skip
    for at, group in groupby(found.copies(key), key=lambda copy: copy.segment):
        if at < len(roots):
            payer = bytes(manifest.payer)
            copies = [copy for copy in group if (copy.segment_root, copy.wallet) == (roots[at], payer) and copy.node in numbers]
            _assemble(found, roots[at], copies, manifest.total_shares)
            placed = place(copies, manifest.total_shares, numbers)
            if placed:
                yield _segment(key, at, roots[at], placed, manifest.total_shares, numbers)


def _assemble(found: Found, segment_root: bytes, copies: Sequence[FoundCopy], total: int) -> None:
    """Note the roots of all shares of a segment of which no node told the list, where each was told with its share."""
    if found.roots_of(segment_root) is None:
        by_share = {copy.share: copy.root for copy in copies}
        roots = read_roots(b"".join(by_share.get(share, b"") for share in range(total)), segment_root, total)
        if roots is not None:
            found.add_roots(segment_root, b"".join(roots))


def place(copies: Sequence[FoundCopy], total: int, numbers: Mapping[bytes, tuple[int, bytes]]) -> dict[int, FoundCopy]:
    """Which copy counts as each share of a segment: shares with the fewest holders choose first, newest serials first."""
    by_share: dict[int, list[FoundCopy]] = {}
    for copy in copies:
        if copy.share < total:
            by_share.setdefault(copy.share, []).append(copy)
    taken: set[bytes] = set()
    placed: dict[int, FoundCopy] = {}
    for share in sorted(by_share, key=lambda one: (len(by_share[one]), one)):
        for copy in sorted(by_share[share], key=lambda one: (one.serial[_PREFIX_BYTES:], one.node), reverse=True):
            owner = numbers[copy.node][1]
            if not {copy.node, owner} & taken:
                taken |= {copy.node, owner}
                placed[share] = copy
                break
    return placed


def _segment(
    key: bytes, at: int, root: bytes, placed: Mapping[int, FoundCopy], total: int, numbers: Mapping[bytes, tuple[int, bytes]]
) -> SegmentFound:  # fmt: skip
    firsts = Counter(int.from_bytes(copy.serial, "big") - share for share, copy in placed.items())
    firsts = Counter({first: count for first, count in firsts.items() if 0 <= first < (1 << 8 * SERIAL_BYTES) - total})
    first = min(firsts, key=lambda one: (-firsts[one], one), default=0)
    moved = b"".join(
        bytes([share]) + copy.serial for share, copy in sorted(placed.items()) if int.from_bytes(copy.serial, "big") != first + share
    )  # fmt: skip
    nodes = pack((numbers[placed[share].node][0] if share in placed else 0 for share in range(total)), NODE_BYTES)
    return SegmentFound(key, at, root, first.to_bytes(SERIAL_BYTES, "big"), nodes, moved)


def _number(found: Found) -> int:
    """Give objects whose segments' numbers are another's, or out of bounds, new ones. The number of the ledger's next segment."""
    end, anew = 1, []
    for row in found.chosen('"first", sequence DESC, object'):
        if not row.segments:
            continue
        if row.first < end or row.first + row.segments > MOST_NUMBER:
            anew.append((row.object, row.segments))
        else:
            end = row.first + row.segments
    end += GAP
    for key, segments in anew:
        log.warning("segments of an object are numbered anew", object=key.hex(), first=end)
        found.renumber(key, end)
        end += segments
    return end
