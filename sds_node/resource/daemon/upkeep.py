"""What a node does for its own disk: reads shares again, empties the trash, forgets settled receipts, and watches the free space.

    every minute   scrub: so much that all shares are read once in ``scrub_days``;  collect: unconfirmed, trash, idle writes
    every 10 min   receipts that are settled long ago go
    every 10 s     free space of home and store: too little room for receipts stops transfers before a receipt would be lost

Work that blocks runs in a pool of its own, so it never waits behind a transfer. Source: storage-interfaces.md 9; resource/store/README.md.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from sds_node.resource import store as shares
from sds_node.resource.receipts import PAGE_ROWS, ReceiptLog, ReceiptsError

log = structlog.get_logger("upkeep")

STEP_S: Final = 60.0
COMPACT_S: Final = 600.0
GUARD_S: Final = 10.0
LEAST_HOME_BYTES: Final = 64 << 20
"""Below it no transfer begins: its receipt might find no room."""
LEAST_STEP_BYTES: Final = 1 << 20
MOST_STEP_BYTES: Final = 256 << 20
TELL_BYTES: Final = 1 << 30
"""Meta nodes are told at once when the free space changed by so much."""
_DAY_S: Final = 86_400

T = TypeVar("T")


class Upkeep:
    """The loops over a store and a record of receipts. ``changed`` is called when meta nodes should be told of the free space."""

    def __init__(
        self, store: shares.ShareStore, receipts: ReceiptLog, home: Path, clock: Callable[[], float], scrub_days: float, changed: Callable[[], None]
    ) -> None:
        self._store, self._receipts, self._home, self._clock = store, receipts, home, clock
        self._scrub_days, self._changed = scrub_days, changed
        self._pool = ThreadPoolExecutor(2, "upkeep")
        self.is_short = False
        """The disk of the home has too little room for receipts."""
        self.free_bytes = store.free_bytes()
        """Bytes of shares that may still come, as of the last look."""
        self._told_bytes = self.free_bytes
        self.count: Counter[str] = Counter()
        """scrubbed_bytes, scrubbed, damaged, adopted, expired, purged, abandoned, forgotten (receipts)."""
        self.problems: dict[str, str] = {}
        """What the disk could not do at the last step of each loop, in words."""

    async def run(self) -> None:
        """All loops, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(STEP_S, self.tidy))
            tasks.create_task(self._every(COMPACT_S, self.compact))
            tasks.create_task(self._every(GUARD_S, self.look))

    def close(self) -> None:
        """Wait for the step that runs, and end."""
        self._pool.shutdown(cancel_futures=True)

    async def tidy(self) -> None:
        """One step of scrubbing, and all that is to be collected."""
        kept_bytes = self._store.totals().bytes(*shares.State)
        step_bytes = int(kept_bytes * STEP_S / (self._scrub_days * _DAY_S))
        report = await self._in_pool(shares.scrub, self._store, min(max(step_bytes, LEAST_STEP_BYTES), MOST_STEP_BYTES))
        self.count.update(scrubbed=report.copies, scrubbed_bytes=report.bytes, damaged=len(report.damaged), adopted=len(report.adopted))
        for key, what in report.damaged:
            log.error("a share is damaged", share_root=key[0].hex(), serial=key[1].hex(), why=what)
        for name in report.unknown:
            log.warning("a file in the store is none of its shares and is left alone", name=name)
        while True:
            done = await self._in_pool(shares.collect, self._store)
            self.count.update(expired=done.expired, purged=done.purged, abandoned=done.abandoned)
            if not (done.expired or done.purged):
                return

    async def compact(self) -> None:
        """Forget receipts that were settled long ago."""
        while True:
            gone = await self._in_pool(self._receipts.compact, int(self._clock()))
            self.count["forgotten"] += gone
            if gone < PAGE_ROWS:
                return

    async def look(self) -> None:
        """See how much room there is."""
        self.free_bytes = await self._in_pool(self._store.free_bytes)
        disk = os.statvfs(self._home)
        is_short = disk.f_bavail * disk.f_frsize < LEAST_HOME_BYTES
        if is_short and not self.is_short:
            log.error("the disk of the home is full: transfers wait until there is room", home=str(self._home), least_bytes=LEAST_HOME_BYTES)
        was_short, self.is_short = self.is_short, is_short
        is_crossed = (self.free_bytes < LEAST_HOME_BYTES) != (self._told_bytes < LEAST_HOME_BYTES)
        if is_short != was_short or is_crossed or abs(self.free_bytes - self._told_bytes) >= TELL_BYTES:
            self._told_bytes = self.free_bytes
            self._changed()

    async def _every(self, period_s: float, step: Callable[[], Any]) -> None:
        while True:
            try:
                await step()
                self.problems.pop(step.__name__, None)
            except shares.StoreBusy:
                pass  # somebody scrubs by hand
            except (shares.StoreError, ReceiptsError, OSError) as error:
                if str(error) != self.problems.get(step.__name__):
                    log.error("upkeep fails", step=step.__name__, why=str(error))
                self.problems[step.__name__] = str(error)
            await asyncio.sleep(period_s)

    async def _in_pool(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run something that blocks; cancelled, wait for its end, since nothing may be closed under it."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait({future})
            raise
