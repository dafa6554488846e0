"""How much maintenance a node may have: 8 hours within 30 days, at most 4 hours at a time. What is beyond counts as offline.

hello: maintenance until … ─► budget over the spans that are in the books ─► until when it is allowed, or over the budget

The original allows about 1 % of a year (sds.md 3.5), which is these 8 hours in 30 days; a bound for one time keeps a node from using a year's at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sds_node.meta.rules.nodes import LONGEST_MAINTENANCE_S

WINDOW_S: Final = 30 * 86_400
MOST_S: Final = 8 * 3_600
LONGEST_S: Final = LONGEST_MAINTENANCE_S

Span = tuple[int, int]
"""(from, until) in Unix seconds."""


def used_s(spans: Iterable[Span], now_s: int) -> int:
    """Seconds of maintenance within the last 30 days."""
    return sum(max(0, min(until_s, now_s) - max(from_s, now_s - WINDOW_S)) for from_s, until_s in spans)


def allowed_until_s(before: Iterable[Span], from_s: int, now_s: int) -> int:
    """Until when maintenance that began at ``from_s`` is allowed; ``before`` are the earlier spans, without this one."""
    left_s = MOST_S - used_s(before, from_s)
    return max(from_s, from_s + min(left_s, LONGEST_S))
