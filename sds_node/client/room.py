"""How much a client has in memory at a time: puts take room for what they hold, in the order in which they came.

put ─ take(bytes) ─► room left ─► goes on          none ─► waits behind those before it ─► somebody gives room back
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class Room:
    """Room for ``most_bytes``."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = self._left_bytes = most_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def take(self, size_bytes: int) -> AsyncIterator[None]:
        """Room for so many bytes, or all there is for more."""
        size = min(size_bytes, self._most_bytes)
        if self._waiting or not self._fits(size):
            await self._wait(size)
        else:
            self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _wait(self, size: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give(size)  # it was given in the same moment
            elif (size, future) in self._waiting:  # else its turn came when it was cancelled already
                self._waiting.remove((size, future))
                self._serve()
            raise

    def _fits(self, size: int) -> bool:
        return size <= self._left_bytes

    def _take(self, size: int) -> None:
        self._left_bytes -= size

    def _give(self, size: int) -> None:
        self._left_bytes += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, future = self._waiting.popleft()
            if not future.done():
                self._take(size)
                future.set_result(None)
