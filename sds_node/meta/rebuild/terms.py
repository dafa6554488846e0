"""What is left of an object's term when its ledger is made anew, and which days count as settled so that no more is promised than the chain owes.

Days that are over count as settled: nobody is paid for them any more, or twice. Where what the chain owes is less than the escrows of the days that are left,
the days of all objects of that fund are cut down alike, from the near end: nodes are paid for the last days of a term. Source: rules/objects.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from sds_node.meta.rebuild.found import Chosen
from sds_node.meta.rules.objects import released_until
from sds_node.meta.rules.tables import DAY_MS
from sds_node.schemes import Scheme, scheme_of, segment_count, segment_size, share_bytes, share_noz

_CUTS: Final = 400
"""So often the part is made smaller by a hundredth until it fits."""


@dataclass(frozen=True, slots=True)
class Part:
    """``over`` of ``under``: what of the days that are left is paid."""

    over: int = 1
    under: int = 1

    def of(self, days: int) -> int:
        return days * self.over // self.under


WHOLE: Final = Part()


def form_of(manifest: Any) -> Scheme:
    """An object's scheme."""
    return scheme_of(manifest.data_shares, manifest.total_shares)


def each_noz(manifest: Any, at: int) -> int:
    """The escrow of a share of segment ``at`` for one term."""
    return share_noz(share_bytes(form_of(manifest), segment_size(manifest.size_bytes, at)), manifest.escrow_ratio_e18).escrow_noz


def settled_day(manifest: Any, now_ms: int, part: Part) -> int:
    """The day up to which all shares of an object count as settled."""
    most = manifest.terms * manifest.term_days
    left = most - min(max(0, (now_ms - manifest.made_ms) // DAY_MS), most)
    return int(most - part.of(left))


def escrow(row: Chosen, manifest: Any, day: int) -> tuple[int, int]:
    """(escrow that is left when all shares are settled up to a day, escrow of one term) of an object, over the shares that are there."""
    left = term = 0
    last = segment_count(manifest.size_bytes) - 1
    for at, shares in ((0, row.full_shares), (last, row.last_shares)):
        if shares:
            each = each_noz(manifest, at)
            left += shares * (manifest.terms * each - released_until(each, day, manifest.term_days))
            term += shares * each
    return left, term


def part_within(noz: int, objects: Callable[[], Iterable[tuple[Chosen, Any]]], now_ms: int) -> Part:
    """The largest part, of a few that are tried, with which all escrows together are at most ``noz``."""

    def total(part: Part) -> int:
        return sum(escrow(row, manifest, settled_day(manifest, now_ms, part))[0] for row, manifest in objects())

    whole = total(WHOLE)
    if whole <= noz:
        return WHOLE
    over = noz
    for _ in range(_CUTS):
        part = Part(over, whole)
        if over == 0 or total(part) <= noz:
            return part
        over = over * 99 // 100
    return Part(0, 1)
