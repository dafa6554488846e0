"""Memory for answers: what one request, and all of them together, may hold until their clients have read it.

    request ─► Tab ─ charge (before bytes are fetched) ─► settle (what the answer has become) ─► close (it is sent)
                └──────────────── Budget: waits while others hold too much, and is refused after a while

A method charges by ``charge``; whoever made the request's tab closes it. Outside of a request nothing is counted. Source: sds.md 5.1.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

from sds_node.gateway.results import INTERNAL_DATA_FAILURE, Failed

ANSWERS_BYTES: Final = 256 << 20
COPIES: Final = 4
"""Bytes of a file are in memory so often while an answer is made of them: as they are, in base64, as text, in the answer."""
WAIT_S: Final = 20.0


class Budget:
    """So many bytes for all tabs."""

    def __init__(self, most_bytes: int = ANSWERS_BYTES, wait_s: float = WAIT_S) -> None:
        self.most_bytes, self.wait_s = most_bytes, wait_s
        self.taken_bytes = 0
        self._freed = asyncio.Event()

    def tab(self) -> Tab:
        """A request's."""
        return Tab(self)

    async def take(self, size_bytes: int, own_bytes: int) -> None:
        """So many bytes more for somebody who has ``own_bytes``; waits until there is room, or nobody else has any. Raises Failed."""
        try:
            async with asyncio.timeout(self.wait_s):
                while self.taken_bytes > own_bytes and self.taken_bytes + size_bytes > self.most_bytes:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            raise Failed(INTERNAL_DATA_FAILURE, "too many answers are under way at this gateway: try again in a moment") from None
        self.taken_bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        """They are free again."""
        self.taken_bytes -= size_bytes
        self._freed.set()


class Tab:
    """What one request holds."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self.held_bytes = budget, 0

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Inside, ``charge`` and ``settle`` are on this tab."""
        token = _TAB.set(self)
        try:
            yield
        finally:
            _TAB.reset(token)

    async def charge(self, size_bytes: int) -> None:
        """So many bytes more. Raises Failed."""
        await self._budget.take(size_bytes, self.held_bytes)
        self.held_bytes += size_bytes

    def settle(self, size_bytes: int) -> None:
        """It is so much now; no more than was charged is counted."""
        if size_bytes < self.held_bytes:
            self._budget.give(self.held_bytes - size_bytes)
            self.held_bytes = size_bytes

    def close(self) -> None:
        """Nothing is held any more."""
        self.settle(0)


_TAB: ContextVar[Tab | None] = ContextVar("answer_tab", default=None)


async def charge(content_bytes: int) -> None:
    """So many bytes of a file are going to be in this request's answer. Raises Failed when there is no room for a while."""
    tab = _TAB.get()
    if tab is not None:
        await tab.charge(COPIES * content_bytes)


def settle(size_bytes: int) -> None:
    """This request's answer has so many bytes by now."""
    tab = _TAB.get()
    if tab is not None:
        tab.settle(size_bytes)
