"""Places that wallets have at a time: none has all of them, and those that wait have the next ones in turn.

    take(wallet) ─ a place is free, and the wallet has fewer than its part ─► goes on
                └─ else ─► behind its own that wait ─► a place is given back ─► to the wallet whose turn it is, past those that have their part

**Why a part.** A wallet whose files come slowly would have all places, and nobody else's would come at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator


class Turns:
    """``most`` places; of them a wallet has one less at a time, and at least one."""

    def __init__(self, most: int) -> None:
        self._free, self._part = most, max(1, most - 1)
        self._held: Counter[str] = Counter()
        # In the order of their turns. While a place is free, all that wait have their part.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def take(self, wallet: str) -> AsyncIterator[None]:
        """A place for this wallet, once it is its turn."""
        if self._free and self._held[wallet] < self._part:
            self._have(wallet)
        else:
            await self._wait(wallet)
        try:
            yield
        finally:
            self._give(wallet)

    async def _wait(self, wallet: str) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(wallet, deque()).append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give(wallet)  # it was given in the same moment
            elif future in (mine := self._waiting.get(wallet, deque())):  # else its turn came when it was cancelled already
                mine.remove(future)
                if not mine:
                    del self._waiting[wallet]
            raise

    def _have(self, wallet: str) -> None:
        self._free -= 1
        self._held[wallet] += 1

    def _give(self, wallet: str) -> None:
        self._free += 1
        self._held[wallet] -= 1
        if not self._held[wallet]:
            del self._held[wallet]
        self._serve()

    def _serve(self) -> None:
        while self._free:
            wallet = next((one for one in self._waiting if self._held[one] < self._part), None)
            if wallet is None:
                return
            mine = self._waiting.pop(wallet)
            future = mine.popleft()
            if mine:
                # Behind the others, for its next.
                self._waiting[wallet] = mine
            if not future.done():
                self._have(wallet)
                future.set_result(None)
