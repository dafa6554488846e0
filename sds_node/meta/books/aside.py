"""Leaves that other meta nodes say do not hold, or are settled already: they wait, so that the rest of their window goes ahead.

    not approved ─ others named leaves ─┬─ fewer than one honest one among them for sure, or unsure ones ─► set aside for ASIDE_S, then tried again
                                        └─ as many, and as many at an earlier time ─► never paid from here (the books keep the reason)

Once is not enough for good: who is a block behind may not know a lease yet. Who does not know enough of a leaf, since his books are new or the clocks differ, says
so, and that never counts for good. One liar alone has no leaf thrown away, and delays those that nobody approves anyway.
Kept in memory: after a start all are tried again. Source: ADR 10.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final

ASIDE_S: Final = 30.0
MAX_REMEMBERED: Final = 100_000


class Aside:
    """``clock`` tells Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._named: dict[bytes, tuple[float, bool]] = {}
        """Leaf → (when it was named, whether by enough)."""

    def has(self, leaf: bytes) -> bool:
        """Whether a leaf waits."""
        found = self._named.get(leaf)
        return found is not None and 0 <= self._clock() - found[0] < ASIDE_S

    def note(
        self, bad: Mapping[bytes, Collection[bytes]], unsure: Mapping[bytes, Collection[bytes]], leaves: Collection[bytes], enough: int
    ) -> tuple[list[bytes], int]:
        """What others name of a window's leaves, as bad, and as leaves of which they know too little; ``enough``: of so many one at least is honest. → (those that
        are bad for good, how many are set aside)."""
        of_it = set(leaves)
        counts = Counter(one for named in bad.values() for one in set(named) & of_it)
        of_all = counts + Counter(one for named in unsure.values() for one in set(named) & of_it)
        if len(of_all) == len(of_it) and max(of_all.values(), default=0) < enough:
            return [], 0  # nothing would go ahead
        now_s = self._clock()
        for_good: list[bytes] = []
        for leaf in sorted(of_all):
            count = counts[leaf]
            before = self._named.pop(leaf, None)
            if count >= enough and before is not None and before[1]:
                for_good.append(leaf)
            else:
                self._named[leaf] = now_s, count >= enough
        while len(self._named) > MAX_REMEMBERED:
            del self._named[next(iter(self._named))]
        return for_good, len(of_all) - len(for_good)
