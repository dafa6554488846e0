"""Repair of one meta node, its parts put together and their loops.

    Health ─ every look_s: nodes, lists ─► RepairQueue ─► Worker ─► Mover ─► ledger
       ▲ audits (share_lost), Damage (inventories)           ├─ Issuer, Transfers ─► nodes
                                                             └─ Funds ◄─ books

``start`` before the wire listens, ``run`` as a task, ``close`` when it was cancelled. Source: storage-protocol.md 3.2, 3.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import nacl.signing
import structlog

from modules.settlement.trees import plain_root
from sds_node.meta.books.books import Books, BooksError
from sds_node.meta.books.releases import Releases
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.nodes.calls import Calls
from sds_node.meta.nodes.registry import Registry
from sds_node.meta.operations import Proposer
from sds_node.meta.repair.damage import Damage
from sds_node.meta.repair.funds import Funds
from sds_node.meta.repair.health import Health
from sds_node.meta.repair.issuing import Issuer
from sds_node.meta.repair.known import Settings
from sds_node.meta.repair.moves import Mover
from sds_node.meta.repair.placing import Placing
from sds_node.meta.repair.queue import Audited, QueueError, open_queue
from sds_node.meta.repair.transfer import Transfers
from sds_node.meta.repair.worker import Worker
from sds_node.meta.users.known import Cosign, Tell
from sds_node.meta.users.roots import RootsError, ShareRoots

log = structlog.get_logger("repair")

NO_ANSWERS: Final = plain_root([])
NO_BATCH: Final = sha256(b"").digest()
"""Of a release without audits."""


class Repair:
    """Finds what is lost and makes it again. ``key`` is the ledger key of the proposer's meta node, ``boot`` the books' number of this start, ``path`` the
    file of what waits; ``cosign`` gets leases for repair signed by other meta nodes, ``tell`` notes what a node is to hear. ``clock`` tells Unix seconds.

    Give ``share_lost`` to the auditor as ``on_lost``, and this as its ``memory``. Where there are several meta nodes, ``is_ours`` says of an object's id whether this one repairs it;
    those of others are looked at again later, in case they are ours then.
    ``finish`` brings a window or release to its end that a stop cut off (``Windows.finish_intended``). Raises QueueError for a file that cannot be opened.
    """

    def __init__(
        self,
        proposer: Proposer,
        key: nacl.signing.SigningKey,
        registry: Registry,
        calls: Calls,
        books: Books,
        roots: ShareRoots,
        path: Path,
        clock: Callable[[], float],
        *,
        boot: int,
        cosign: Cosign,
        tell: Tell,
        is_ours: Callable[[bytes], bool] = lambda object_id: True,
        finish: Callable[[], Awaitable[object]] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._clock, ledger = clock, proposer.ledger
        self.queue = open_queue(path)
        self.health = Health(ledger, registry, self.queue, clock, self.settings)
        registry.proves_nothing = self.health.proves_nothing
        self.funds = Funds(books, self.queue, clock, self.settings)
        self.transfers = Transfers(proposer.chain_id, clock, self.settings.stall_s)
        issuer = Issuer(
            ledger, proposer.chain_id, proposer.address, key, boot, self.transfers.session, cosign, clock, self.settings.limit_s,
            books.another_boot,
        )  # fmt: skip
        self.mover = Mover(proposer, self.queue, tell, self.settings.batch_s, books.numbering, finish)
        placing = Placing(registry, self.health, clock, self.settings.limit_s)
        self.worker = Worker(
            ledger, registry, self.queue, self.health, self.funds, placing, issuer, self.transfers, self.mover, roots, clock, self.settings, is_ours
        )  # fmt: skip
        self.damage = Damage(ledger, registry, calls, self.queue, self.health, self.mover, roots, clock, self.settings)
        self._numbers: dict[str, int] = {}

    def share_lost(self, segment: int, index: int) -> None:
        """An audit found that a share is not kept: it is made again."""
        self.health.share_lost(segment, index)

    # --- what the auditor remembers here (``audits.memory.Memory``) ---------------------------------------------------------

    async def marked(self, node: int, most: int) -> dict[int, int]:
        """Segment → index of a node's shares that are known to be damaged or missing, at most so many."""
        return await self.queue.marked_at(node, most)

    async def proved(self, node: int, shares: Sequence[tuple[int, int]]) -> None:
        """A node proved these shares (segment, index)."""
        await self.health.proved(node, shares)

    async def not_proved(self, node: int) -> None:
        """An audit of a node ended without one proof."""
        await self.health.not_proved(node)

    async def audited(self, node: int, day: int, second_s: float | None, items: bytes) -> None:
        """A node was audited on a day; ``items`` are asked again at ``second_s``."""
        await self.queue.audited(Audited(node, day, second_s, items))

    async def all_audited(self) -> list[tuple[int, int, float | None, bytes]]:
        """The last audit of each node: (node, day, second_s, items)."""
        return [(row.node, row.day, row.second_s, row.items) for row in await self.queue.all_audited()]

    # ------------------------------------------------------------------------------------------------------------------------

    def pays(self, releases: Releases) -> None:
        """Have nodes that leave paid for what they hand over, up to that day."""

        async def release(results: Sequence[Any]) -> None:
            await releases.release(results, NO_ANSWERS, 0, NO_BATCH)

        self.mover.release = release

    async def start(self) -> None:
        """Bring to an end what a stop cut off. Raises LedgerError, QueueError, BooksError."""
        await self.health.start()
        await self.funds.start()
        count = await self.mover.recover()
        if count:
            log.info("shares that were on their way at the last stop were looked up", shares=count)

    async def run(self) -> None:
        """The loops, until they are cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(self.settings.look_s, self.look))
            group.create_task(self._every(self.settings.look_s, self.damage.ask_due))
            group.create_task(self._every(self.settings.look_s, self.damage.compare_due))
            group.create_task(self.worker.run())
            group.create_task(self.mover.run())

    async def look(self) -> None:
        """One look at nodes, queue and what is owed. Raises LedgerError, QueueError, BooksError."""
        for number in await self.health.step():
            await self.queue.set_compared(number, 0)
        await self.funds.settle()
        self._numbers = await self.queue.numbers()

    def status(self) -> dict[str, Any]:
        """What an operator is told: ``waiting`` and ``lost`` segments, why others wait (``later``), what is owed by receipt, what was done since the start."""
        later = {name: count for name, count in self._numbers.items() if name not in ("waiting", "lost")}
        return {
            "waiting": self._numbers.get("waiting", 0),
            "lost": self._numbers.get("lost", 0),
            "later": later,
            "under_way": self.worker.under_way,
            "owed_receipts": self.funds.owed,
            "owed_noz": self.funds.owed_noz,
            "moved_shares": self.mover.moved,
            **{f"total_{name}": count for name, count in sorted(self.worker.count.items())},
        }

    async def lost(self, after: int = -1) -> Sequence[int]:
        """Segments of which too few shares are left, at most 1,000 after a number."""
        return await self.queue.lost(after)

    async def close(self) -> None:
        """End connections and give the file back."""
        await self.transfers.close()
        self.queue.close()

    async def _every(self, period_s: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except (LedgerError, QueueError, BooksError, RootsError) as error:
                log.error("what needs repair is not looked at now; it is tried again", why=str(error))
            await asyncio.sleep(period_s)
