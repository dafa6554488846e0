"""``tick`` operations: when something in the ledger's queue is due, and when nothing was written for a minute, so that time passes there.

    due ─┬─ this meta node comes first ─► tick
         └─ others come before ─► TURN_S later for each of them, if it is still due then          the second of two ticks finds nothing due

Source: rules/tick.py; docs/adr/0010.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.rules.tables import QUEUE
from sds_node.meta.rules.tick import WORK
from sds_node.meta.rules.wire import Operation

log = structlog.get_logger("ticker")

LOOK_S: Final = 1.0
QUIET_S: Final = 60
TURN_S: Final = 5
"""A tick waits so much longer for each meta node that comes before."""
LONGEST_PAUSE_S: Final = 600.0
"""Each tick that is refused stays in the log: after one the pause is doubled, up to this."""


class Ticker:
    """Looks once a second. ``clock`` tells Unix seconds, ``place`` how many meta nodes come before this one."""

    def __init__(self, proposer: Proposer, clock: Callable[[], float], place: Callable[[], int] = lambda: 0) -> None:
        self._proposer, self._clock, self._place = proposer, clock, place

    async def run(self) -> None:
        """Until it is cancelled."""
        pause_s = LOOK_S
        while True:
            pause_s = await self.look(pause_s)
            await asyncio.sleep(pause_s)

    async def look(self, pause_s: float) -> float:
        """Tick while something is due. After how many seconds to look again; ``pause_s`` is how long it was before."""
        try:
            while await self.step():
                pass
        except LedgerRefused as error:
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            log.error("the ledger refuses a tick: what is due there waits", code=error.code, why=str(error), again_s=pause_s)
            return pause_s
        except LedgerError as error:
            log.warning("the ledger took no tick", why=str(error))
        return LOOK_S

    async def step(self) -> bool:
        """One look. Whether there may be more to do at once."""
        now_ms = int(self._clock() * 1_000) - self._place() * TURN_S * 1_000
        if not await self._proposer.ledger.query(lambda view: _is_due(view, now_ms)):
            return False
        result = await self._proposer.propose("tick", Operation().tick)
        return int.from_bytes(result.result, "big") >= WORK


def _is_due(view: ReadView, now_ms: int) -> bool:
    first = view.scan(QUEUE, limit=1)
    return (bool(first) and first[0].at_ms <= now_ms) or now_ms - view.head.time_ms >= QUIET_S * 1_000
