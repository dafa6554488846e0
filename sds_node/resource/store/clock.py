"""The store's own age, in seconds: what grace times are measured with, so that a machine's clock that jumps neither purges early nor never.

While the store is open its age follows the monotonic clock. Over a restart it grows by what the machine's clock says has passed, but never shrinks and
never grows by more than a day: a clock that jumped by years costs a day of grace, no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

MAX_AWAY_S: Final = 86_400
_MAX_WALL_S: Final = 1 << 48


class Clock:
    """Both clocks of the machine, and the store's age once ``start`` was told what was last written of it."""

    def __init__(self, wall_s: Callable[[], float] = time.time, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._wall_s, self.monotonic_s = wall_s, monotonic_s
        self._base_s, self._started_s = 0, monotonic_s()

    def start(self, age_s: int, wall_s: int) -> None:
        """Go on from the age and the machine's time (Unix seconds) that were last written; 0 and 0 for a new store."""
        away_s = self.wall_s() - wall_s if wall_s else 0
        self._base_s, self._started_s = age_s + min(max(away_s, 0), MAX_AWAY_S), self.monotonic_s()

    def age_s(self) -> int:
        return self._base_s + max(int(self.monotonic_s() - self._started_s), 0)

    def wall_s(self) -> int:
        """Unix seconds, for people to read; nothing is decided by them."""
        return min(max(int(self._wall_s()), 0), _MAX_WALL_S)
