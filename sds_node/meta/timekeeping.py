"""The time by which a meta node acts: the machine's clock, as long as the value chain's blocks and the monotonic clock do not speak against it.

    block time ─► heard ─► it is that, plus what has passed since (monotonic) ───────┐
    wall clock ───────────────────── within 10 minutes of it? ───────────────────────┤
                           yes ─► the wall clock       no, it was right before ─► the last right time, plus what has passed
                                                       no, it never was right  ─► behind: the blocks' time; ahead: nothing is proposed, ClockWrong

Ledger time never goes back, and leases, terms and the trash end by it: one operation at a time that is a week ahead empties the trash for good. So a jump is
not followed until blocks say the same, as they do within seconds when the machine had slept. A chain that stands changes nothing while the node runs, since
the monotonic clock goes on. Until a chain is seen to move, the ledger's last time is as good as a block's, so that a node may start while the chain stands;
a node whose ledger is older than 10 minutes then waits for a block.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import Final

from sds_node.meta.ledger.errors import LedgerError

FURTHEST_S: Final = 600
"""So far may the clock be from what is known. Blocks are a few seconds old when they are heard of."""


class ClockWrong(LedgerError):
    """Nothing can be proposed, since nobody knows the time: the text says what is known, and what to do."""


class Timekeeper:
    """``clock`` tells Unix seconds, ``monotonic`` seconds that never jump. For all threads of a process."""

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._guard = Lock()
        # Each a time, and the monotonic clock when it was so.
        self._block: tuple[float, float] | None = None
        self._ledger: tuple[float, float] | None = None
        self._right: tuple[float, float] | None = None
        """The last reading of the wall clock that was right."""
        self._is_moving = False
        """Whether a block was heard of that is newer than the first one."""
        self._first_s = 0.0

    def heard(self, block_time_s: float) -> None:
        """The chain has a block of that time."""
        with self._guard:
            now = self._monotonic()
            if self._block is None:
                self._block = block_time_s, now
                self._first_s = block_time_s
                return
            self._is_moving = self._is_moving or block_time_s > self._first_s
            if block_time_s > _now(self._block, now):
                self._block = block_time_s, now

    def opened(self, ledger_time_s: float) -> None:
        """The ledger was opened, and its last operation is of that time."""
        with self._guard:
            self._ledger = ledger_time_s, self._monotonic()

    def now_s(self) -> float:
        """Unix seconds."""
        return self._read()[0]

    def now_ms(self) -> int:
        """The same in milliseconds, for the ledger."""
        return int(self.now_s() * 1_000)

    def check(self) -> None:
        """Raises ClockWrong when the time is not known."""
        _, is_known, problem = self._read()
        if not is_known:
            raise ClockWrong(problem or "nothing is known of the time yet: wait until the value chain answers")

    def problem(self) -> str:
        """What is wrong with the clock, as a sentence; empty when nothing is."""
        return self._read()[2]

    def _read(self) -> tuple[float, bool, str]:
        """(Unix seconds; whether that is the time; what is wrong with the wall clock)."""
        with self._guard:
            wall_s, now = self._clock(), self._monotonic()
            told = [_now(one, now) for one in (self._block, None if self._is_moving else self._ledger) if one is not None]
            if not told:
                return wall_s, False, ""
            if any(abs(wall_s - one) <= FURTHEST_S for one in told):
                self._right = wall_s, now
                return wall_s, True, ""
            problem = _problem(wall_s, told[0])
            if self._right is not None:
                return _now(self._right, now), True, f"{problem} Until then the time before it jumped goes on."
            if self._block is not None and wall_s < told[0]:
                return told[0], True, f"{problem} Until then the blocks' time counts."
            return min(wall_s, told[0]), False, f"{problem} Until then nothing is written."


def _now(at: tuple[float, float], monotonic_s: float) -> float:
    """What time it is if it was ``at``."""
    return at[0] + monotonic_s - at[1]


def _problem(wall_s: float, least_s: float) -> str:
    apart_s = abs(wall_s - least_s)
    shown = f"{apart_s / 86_400:.1f} days" if apart_s >= 2 * 86_400 else f"{apart_s / 60:.0f} minutes"
    try:
        at = datetime.fromtimestamp(least_s, UTC).isoformat(sep=" ", timespec="seconds")
    except (OverflowError, OSError, ValueError):
        at = f"{least_s:.0f}"
    way = "ahead of" if wall_s > least_s else "behind"
    return (
        f"This machine's clock is {shown} {way} what the value chain or the ledger say ({at}): set it, as by NTP; if it is right, the chain stands, or "
        "its node is not synchronized, and the clock is followed as soon as a block says the same."
    )
