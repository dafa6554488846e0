"""How fast a client asks for what meta nodes bound, so that many calls at once are done one after the other and none is refused as too many.

turn() ─ fewer than ``most`` under way ─ ``per_s`` a second, and as many at once ─► goes on
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Pace:
    """At most ``per_s`` begin in a second, after as many that begin at once; ``most`` are under way."""

    def __init__(self, per_s: int, most: int) -> None:
        self._per_s, self._slots = per_s, asyncio.Semaphore(most)
        self._next_s = float("-inf")
        """When the next one begins that is not among those at once, by the loop's clock."""

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Within, one of them is under way."""
        async with self._slots:
            now_s = asyncio.get_running_loop().time()
            self._next_s = max(self._next_s, now_s - 1.0) + 1 / self._per_s
            if (wait_s := self._next_s - now_s) > 0:
                await asyncio.sleep(wait_s)
            yield
