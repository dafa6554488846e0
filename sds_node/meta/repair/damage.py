"""What nodes have, against what the ledger says that they have: damaged shares are found early, missing ones at all, and copies that nobody wants go.

    every 10 min  INVENTORY, only damaged ─► whose shares are these? (the node's list) ─► marked ─► repaired
    every week    the node's list ─► expected, on disk ─┐
                  INVENTORY, all of it ─────────────────┴─► expected, damaged ─► marked          expected, in the trash ─► RESTORE    pending ─► CONFIRM
                                                            expected and not there ─► marked     not expected, a day old ─► DROP

Where there are several meta nodes each one asks every node: the damaged copies of a segment are at different nodes, and whoever repairs it has to know of all.
A node that was lost and is back is compared at once. The list is read before the inventory, so what is new in the meantime is younger than a day. One node is
compared at a time, by each meta node (``resource/votes.py``); memory does not grow with its shares. What nodes say is believed where it costs them: a share
that a node denies is repaired elsewhere. A node that tells without end, or nothing, costs a bounded time, and less and less often.
Source: storage-protocol.md 3.5; ``resource/service.py`` (inventory).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode
from sds_node import transfers
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.nodes.calls import Calls
from sds_node.meta.nodes.hello import BadEndpoint
from sds_node.meta.nodes.registry import Registry
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rebuild.lagging import LaggingError
from sds_node.meta.repair.health import PAGE, Health
from sds_node.meta.repair.known import Settings, together
from sds_node.meta.repair.moves import Mover
from sds_node.meta.repair.queue import Expected, RepairQueue
from sds_node.meta.rules import tables
from sds_node.meta.rules.places import held_of
from sds_node.meta.rules.wire import MAX_SEGMENT
from sds_node.meta.users.roots import ShareRoots
from sds_node.transfers import serial_at
from sds_node.wire import errors as wire_errors

log = structlog.get_logger("repair")

ANSWER_S: Final = 60.0
"""For a page, and for all that a node says of damaged shares at a time."""
MAX_DAMAGED: Final = 5_000
"""Damaged shares of a node that are looked up at once; the others at the next time."""
DAMAGED_PAGES: Final = MAX_DAMAGED // transfers.MAX_COPIES_ASKED + 1
"""So many are asked for at a time; what is behind them the next time."""
SPARE_PAGES: Final = 1_000
"""A node's copies may fill so many pages more than twice what the ledger expects: what it has in the trash, what is on its way."""
COMPARE_S: Final = 600.0
PAGE_S: Final = 5.0
"""A node has so long to tell all that it has, and so much more for each page that is expected."""
LONGEST_PAUSE_S: Final = 86_400.0
AT_ONCE: Final = 4
PENDING, CONFIRMED, TRASH = 1, 2, 3
"""Of CopyState."""
_SPREAD: Final = 2_654_435_761


class Compared(NamedTuple):
    """What a comparison came to, in copies."""

    expected: int
    missing: int
    damaged: int
    dropped: int
    restored: int


class WrongInventory(Exception):
    """A node's answer that is no page of an inventory."""


class Damage:
    """Asks nodes what they have. ``run`` does it until cancelled; ``ask_damaged`` and ``compare`` do one thing of one node."""

    def __init__(
        self,
        ledger: AnyLedger,
        registry: Registry,
        calls: Calls,
        queue: RepairQueue,
        health: Health,
        mover: Mover,
        roots: ShareRoots,
        clock: Callable[[], float],
        settings: Settings,
    ) -> None:
        self._ledger, self._registry, self._calls, self._queue, self._health = ledger, registry, calls, queue, health
        self._mover, self._roots, self._clock, self._settings = mover, roots, clock, settings
        self._asked: dict[int, float] = {}
        self._in_vain: Counter[int] = Counter()
        """How often a node did not tell what it found damaged, one time after another."""
        self._after: dict[int, Any] = {}
        """Nodes that have more damaged copies to tell of → behind which."""
        self._comparing = asyncio.Lock()
        self.also: Callable[[int], Awaitable[object]] | None = None
        """What else of a node is compared with the ledger (``rebuild/compared.py``)."""

    async def step(self) -> None:
        """``ask_due`` and ``compare_due``, one after the other."""
        await self.ask_due()
        await self.compare_due()

    async def ask_due(self) -> None:
        """Ask the nodes whose turn it is what they found damaged. One that does not tell is asked again later and later, a day at last, and few of those at
        a time, so that the others are not kept waiting for them. Raises LedgerError, QueueError, RootsError."""
        now_s = self._clock()
        online = [number for number, row in sorted(self._registry.rows().items()) if row.shares and self._health.is_online(number)]
        due = [one for one in online if now_s - self._asked.get(one, 0.0) >= self._pause_s(one)]
        due = [one for one in due if not self._in_vain[one]] + [one for one in due if self._in_vain[one]][:AT_ONCE]
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                self._asked[number] = now_s
                is_told = await self._guarded(number, self.ask_damaged(number))
                self._in_vain[number] = 0 if is_told else self._in_vain[number] + 1

        await together(one(number) for number in due)

    def _pause_s(self, number: int) -> float:
        return min(self._settings.damage_s * (1 << min(self._in_vain[number], 16)), max(LONGEST_PAUSE_S, self._settings.damage_s))

    async def compare_due(self) -> None:
        """Compare a node whose comparison is due. Where there are several meta nodes each one compares: a node drops a confirmed copy on the word of as many
        as sign a lease. Raises LedgerError, QueueError, RootsError."""
        now_s = self._clock()
        number = await self._next(now_s)
        if number is not None:
            # Whatever comes of it: a node that does not answer is not asked all the time.
            await self._queue.set_compared(number, int(now_s))
            await self._guarded(number, self.compare(number))
            if self.also is not None:
                await self._guarded(number, self.also(number))

    async def _guarded(self, number: int, work: Awaitable[object]) -> bool:
        """Whether a node told what it has."""
        try:
            await work
        except (wire_errors.WireError, BadEndpoint, TimeoutError, WrongInventory) as error:
            log.info("a node does not tell what it has", node=number, why=str(error) or "it took too long")
            return False
        except (LaggingError, sqlite3.Error) as error:
            log.error("what a node keeps of manifests is not compared now; it is when its turn comes again", node=number, why=str(error))
            return False
        return True

    async def _next(self, now_s: float) -> int | None:
        """The node whose comparison is due longest. Those that were never compared are spread over a period."""
        compared = await self._queue.compared()
        first: tuple[float, int] | None = None
        for number, row in self._registry.rows().items():
            if row.standing == tables.GONE or not self._registry.is_online(row):
                continue
            at_s = compared.get(number)
            if at_s is None:
                await self._queue.set_compared(number, int(now_s - number * _SPREAD % max(1, int(self._settings.compare_s))))
            elif now_s - at_s >= self._settings.compare_s and (first is None or at_s < first[0]):
                first = at_s, number
        return None if first is None else first[1]

    # --- what a node found damaged ------------------------------------------------------------------------------------------

    async def ask_damaged(self, number: int) -> int:
        """Mark what a node says is damaged. How many shares it were. Raises WireError, TimeoutError, WrongInventory."""
        serials: set[bytes] = set()
        after = self._after.pop(number, transfers.CopyKey())
        async with asyncio.timeout(ANSWER_S):
            for _ in range(DAMAGED_PAGES):
                page = await self._page(number, after, only_damaged=True)
                serials.update(bytes(copy.serial) for copy in page if copy.state != TRASH)
                if len(page) < transfers.MAX_COPIES_ASKED:
                    break
                after = _key(page[-1])
            else:
                self._after[number] = after
        found = await self._located(number, serials) if serials else []
        await self._health.mark([(one.segment, one.share, number, "damaged") for one in found])
        return len(found)

    async def _located(self, number: int, serials: Collection[bytes]) -> list[Expected]:
        """Which shares of a node have these serials."""
        found: list[Expected] = []
        cursor = 0
        while len(found) < len(serials):
            page, last = await self._held(number, cursor)
            if last is None:
                break
            found.extend(one for one, _ in page if one.serial in serials)
            cursor = last + 1
        return found

    async def _held(self, number: int, cursor: int) -> tuple[list[tuple[Expected, tables.Segment]], int | None]:
        """A page of what a node has by the ledger, without roots, and its last segment; None at the end."""
        page: tuple[list[tuple[Expected, tables.Segment]], int | None] = await self._ledger.query(partial(_held_page, node=number, first=cursor))
        return page

    # --- all that a node has ------------------------------------------------------------------------------------------------

    async def compare(self, number: int) -> Compared:
        """Compare all that a node has with the ledger. Raises WireError, TimeoutError, WrongInventory: what was found until then counts, nothing is taken as
        missing."""
        async with self._comparing:
            expected = await self._expect(number)
            pages = -(-expected // transfers.MAX_COPIES_ASKED)
            async with asyncio.timeout(COMPARE_S + pages * (PAGE_S + self._settings.compare_pause_s)):
                damaged, dropped, restored = await self._look_through(number, 2 * pages + SPARE_PAGES)
            missing = 0
            while page := await self._queue.missing():
                missing += len(page)
                await self._health.mark([(one.segment, one.share, number, "missing at its node") for one in page])
        made = Compared(expected, missing, damaged, dropped, restored)
        log.info("a node's shares were compared with the ledger", node=number, **made._asdict())
        return made

    async def _expect(self, number: int) -> int:
        await self._queue.clear_expected()
        cursor = count = 0
        while True:
            page, last = await self._held(number, cursor)
            if last is None:
                return count
            roots = await self._roots.of([segment for _, segment in page])
            await self._queue.expect([one._replace(root=bytes(roots[one.segment][one.share]) if one.segment in roots else b"") for one, _ in page])
            count += len(page)
            cursor = last + 1
            await asyncio.sleep(self._settings.compare_pause_s)

    async def _look_through(self, number: int, most_pages: int) -> tuple[int, int, int]:
        after, damaged, dropped, restored = transfers.CopyKey(), 0, 0, 0
        for _ in range(most_pages):
            page = await self._page(number, after, only_damaged=False)
            answers = await self._queue.found([(bytes(copy.share_root), bytes(copy.serial)) for copy in page])
            marks, orphans, trashed, pending = [], [], [], []
            oldest_s = self._clock() - self._settings.orphan_s
            for copy, one in zip(page, answers, strict=True):
                key = (bytes(copy.share_root), bytes(copy.serial))
                if one is None:
                    if copy.state != TRASH and copy.stored_s <= oldest_s:
                        orphans.append(key)
                elif copy.is_damaged:
                    marks.append((one.segment, one.share, number, "damaged"))
                elif copy.state == TRASH:
                    trashed.append(key)
                elif copy.state == PENDING:
                    pending.append(key)
            await self._health.mark(marks)
            await self._mover.drop(number, orphans)
            await self._mover.keep(number, transfers.RESTORE, trashed)
            await self._mover.keep(number, transfers.CONFIRM, pending)
            damaged, dropped, restored = damaged + len(marks), dropped + len(orphans), restored + len(trashed)
            if len(page) < transfers.MAX_COPIES_ASKED:
                return damaged, dropped, restored
            after = _key(page[-1])
            await asyncio.sleep(self._settings.compare_pause_s)
        raise WrongInventory(f"node {number} tells of more than {most_pages} pages of copies")

    async def _page(self, number: int, after: Any, *, only_damaged: bool) -> Sequence[Any]:
        """The copies of a page, in order."""
        head = transfers.InventoryHead(after=after, limit=transfers.MAX_COPIES_ASKED, only_damaged=only_damaged)
        async with asyncio.timeout(ANSWER_S):
            raw = await self._calls.ask(number, transfers.INVENTORY, encode(head), most_bytes=transfers.MAX_PAGE_BYTES, idle_s=ANSWER_S)
        try:
            page: Sequence[Any] = list(transfers.InventoryPage.FromString(raw).copies)
        except DecodeError:
            raise WrongInventory(f"node {number} answers with {len(raw)} bytes that are no inventory") from None
        last = (bytes(after.share_root), bytes(after.serial))
        for copy in page:
            key = (bytes(copy.share_root), bytes(copy.serial))
            if key <= last or (len(key[0]), len(key[1])) != (32, 16):
                raise WrongInventory(f"node {number} tells its copies out of order")
            last = key
        if len(page) > transfers.MAX_COPIES_ASKED:
            raise WrongInventory(f"node {number} tells of {len(page)} copies, {transfers.MAX_COPIES_ASKED} were asked for")
        return page


def _key(copy: Any) -> Any:
    return transfers.CopyKey(share_root=copy.share_root, serial=copy.serial)


def _held_page(view: ReadView, node: int, first: int) -> tuple[list[tuple[Expected, tables.Segment]], int | None]:
    entries = held_of(view, node, first, MAX_SEGMENT, PAGE)
    found = []
    for number, index in entries:
        segment = view.get(tables.SEGMENT, (number,))
        if segment is not None:
            moved = view.get(tables.MOVED, (number, index))
            serial = moved.serial if moved is not None else serial_at(segment.first_serial, index)
            found.append((Expected(serial, b"", number, index), segment))
    return found, entries[-1][0] if entries else None
