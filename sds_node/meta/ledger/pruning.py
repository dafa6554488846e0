"""The log does not grow for ever: entries older than so many days are forgotten, a few times a day. Rows stay; so do the hashes that the log began with.

    every 6 h ─► the first entry that is young enough ─► prune below it          a meta node that is added later begins with an export, not with the log

Source: storage-protocol.md 3.5; docs/adr/0008.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError

log = structlog.get_logger("ledger")

KEEP_DAYS: Final = 30
STEP_S: Final = 6 * 3_600.0
_DAY_MS: Final = 86_400_000


class Prunable(Protocol):
    """What is asked of a ledger, with a log of its own or with blocks."""

    async def query(self, question: Callable[[ReadView], Any]) -> Any: ...
    def prune(self, below: int) -> None: ...


class Pruner:
    """Prunes a ledger. ``clock`` tells Unix seconds; ``keep_days`` is how long entries stay."""

    def __init__(self, ledger: Prunable, clock: Callable[[], float], keep_days: int = KEEP_DAYS) -> None:
        if keep_days < 1:
            raise ValueError(f"expected to keep the log for at least one day, got {keep_days}")
        self._ledger, self._clock, self._keep_days = ledger, clock, keep_days

    async def run(self) -> None:
        """Prune now and every six hours, until it is cancelled. What fails is tried again then."""
        while True:
            try:
                await self.prune()
            except LedgerError as error:
                log.warning("the ledger's log is not pruned now; it is tried again later", why=str(error))
            await asyncio.sleep(STEP_S)

    async def prune(self) -> int:
        """Forget entries that are too old by both the wall clock and the ledger's own time. How many. Raises LedgerError."""

        def look(view: ReadView) -> tuple[int, int]:
            now_ms = min(int(self._clock() * 1_000), view.head.time_ms)
            return view.head.base_sequence + 1, view.sequence_at(now_ms - self._keep_days * _DAY_MS)

        found: tuple[int, int] = await self._ledger.query(look)
        first, below = found
        if below > first:
            await asyncio.to_thread(self._ledger.prune, below)
            log.info("old entries of the ledger's log are forgotten", entries=below - first, days=self._keep_days)
        return below - first
