"""What all parts of repair have in common: an operator's settings, and how a part is told that a thing cannot be done now.

Source: storage-protocol.md 3.2 and 3.6; storage-interfaces.md 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sds_node.schemes import Scheme

LOST_S: Final = 86_400
"""A node that is offline for longer counts as lost for the planning of repair (storage-interfaces.md 9)."""
DAY_S: Final = 86_400

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides."""

    lost_s: float = LOST_S
    """A node of which nothing was heard for so long is lost: its shares are made again."""
    look_s: float = 10.0
    """How often nodes are looked at."""
    at_once: int = 2
    """Segments under repair at a time; each holds at most its n shares, 96 MiB with 10 of 30."""
    retry_s: float = 60.0
    """After a failure a segment waits so long, twice as long after the next one, at most ``retry_most_s``."""
    retry_most_s: float = 3_600.0
    others_s: float = 600.0
    """A segment that another meta node repairs is looked at again after so long; what is known here alone is left to it for so long."""
    stall_s: float = 30.0
    """A node that moves nothing for so long has failed."""
    attempts: int = 3
    """Nodes tried for one share."""
    batch_s: float = 0.5
    """Moves of so long a time go into one operation."""
    limit_s: int = 600
    """How long an order limit holds."""
    most_owed: int = 5_000
    """Receipts of repair that no window has settled yet; with more of them nothing is repaired on credit."""
    damage_s: float = 600.0
    """How often each node is asked which shares it found damaged."""
    compare_s: float = 7 * DAY_S
    """How often all that a node has is compared with the ledger."""
    compare_pause_s: float = 0.05
    """Between two pages of that."""
    orphan_s: int = DAY_S
    """A copy that the ledger does not know is dropped when it is so old."""

    def __post_init__(self) -> None:
        if (
            min(self.lost_s, self.look_s, self.retry_s, self.stall_s, self.damage_s, self.compare_s, self.others_s) <= 0
            or self.retry_most_s < self.retry_s
        ):
            raise ValueError("expected times above 0, and the longest wait not below the first one")
        if not (1 <= self.at_once <= 64 and 1 <= self.attempts <= 16 and 1 <= self.limit_s <= 3_000 and self.most_owed >= 0):
            raise ValueError("expected 1 to 64 segments at once, 1 to 16 attempts, limits of 1 to 3,000 s, and a number of receipts")


def credit_spare(scheme: Scheme) -> int:
    """With at most so many healthy shares beyond k a segment is repaired even when no fund can pay now: half of what is left below its threshold."""
    return (scheme.repair_below - scheme.k) // 2


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each of them gives, done at the same time. When one fails, the others are ended before its error is raised: none goes on by itself."""
    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Later(Exception):
    """A segment cannot be repaired now. ``why`` is one of a few words that are counted, the text has the details."""

    def __init__(self, why: str, text: str) -> None:
        self.why = why
        super().__init__(text)
