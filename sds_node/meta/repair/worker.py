"""Repair of segments: the most urgent first, a few at a time.

    queue ─► judged ─► can it be paid? ─► new nodes ─► k good shares ─► the missing ones computed, checked ─► put, acknowledged ─► move
      ▲                     └ funds.py       └ placing.py   └ one lies or fails: marked, the next one        └ another node       │
      └── later, with the reason: no nodes, no funds, too few shares (lost: reported, tried again when a node comes back) ◄───────┘

A share at a node that leaves is copied from it when it answers, which costs one share instead of k. What came back in the meantime is not made again.
Where there are several meta nodes, each keeps the queue and one repairs the segments of an object. What an audit or an inventory found is known to the meta
node that asked alone, so that one makes it again if the object's has not for a while. Should two make the same share, the ledger takes one move of it.
Source: storage-protocol.md 3.2; storage-interfaces.md 3.3.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from sds_node import transfers
from sds_node.coding import CodingError, recreate
from sds_node.merkle import Buffer, share_root
from sds_node.meta.books.books import BooksError
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.nodes.registry import Registry
from sds_node.meta.operations import AnyLedger
from sds_node.meta.repair.funds import HANDED_NOZ, Funds, read_noz, repair_noz, store_noz
from sds_node.meta.repair.health import Health, Judged
from sds_node.meta.repair.issuing import Issuer, Limit
from sds_node.meta.repair.known import Later, Settings, together
from sds_node.meta.repair.moves import Mover
from sds_node.meta.repair.placing import Placing
from sds_node.meta.repair.queue import Owed, Put, QueueError, RepairQueue, Waiting
from sds_node.meta.repair.transfer import NodeFailed, Transfers
from sds_node.meta.rules import tables
from sds_node.meta.rules.call import state_of
from sds_node.meta.users.known import Candidate
from sds_node.meta.users.roots import RootsError, ShareRoots

log = structlog.get_logger("repair")

IDLE_S: Final = 1.0
MOST_IN_VAIN: Final = 100
"""After so many attempts in a row that came to nothing there is a pause between them."""
OTHERS_PAUSE_S: Final = 0.02
LIED_SCORE: Final = -50
FAILED_S: Final = 600.0
"""A node that failed is read from last for so long."""
_GONE_CODES: Final = (transfers.SHARE_MISSING, transfers.SHARE_DAMAGED)


@dataclass(slots=True)
class _Job:
    """A segment under repair."""

    judged: Judged
    roots: Sequence[bytes]
    state: tables.State
    shares: dict[int, Buffer] = field(default_factory=dict)
    """What was read, by the share's number."""
    failures: dict[int, str] = field(default_factory=dict)


class Worker:
    """Repairs what is in the queue. ``run`` does it until cancelled."""

    def __init__(
        self,
        ledger: AnyLedger,
        registry: Registry,
        queue: RepairQueue,
        health: Health,
        funds: Funds,
        placing: Placing,
        issuer: Issuer,
        transfers_: Transfers,
        mover: Mover,
        roots: ShareRoots,
        clock: Callable[[], float],
        settings: Settings,
        is_ours: Callable[[bytes], bool],
    ) -> None:
        self._ledger, self._registry, self._queue, self._health, self._funds, self._placing = ledger, registry, queue, health, funds, placing
        self._issuer, self._transfers, self._mover, self._roots, self._clock, self._settings = issuer, transfers_, mover, roots, clock, settings
        self._is_ours = is_ours
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._failed: dict[int, float] = {}
        """Nodes that failed as sources → until when they are asked last."""
        self._told: set[int] = set()
        self._in_vain = 0
        self.count: Counter[str] = Counter(dict.fromkeys(("segments", "shares", "read_bytes", "stored_bytes", "credits", "failed_nodes"), 0))
        """Since this process began; ``credits`` are segments that no fund could pay at once, ``later_`` and a reason those that were put off."""

    async def run(self) -> None:
        """Repair until cancelled."""
        try:
            while True:
                if self._in_vain >= MOST_IN_VAIN:
                    await asyncio.sleep(IDLE_S)  # what hinders one hinders most
                for row in await self._next():
                    task = asyncio.get_running_loop().create_task(self._one(row))
                    self._busy[row.number] = task
                    task.add_done_callback(lambda _, number=row.number: self._busy.pop(number, None))  # type: ignore[misc]
                if self._busy:
                    await asyncio.wait(self._busy.values(), timeout=IDLE_S, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(IDLE_S)
        finally:
            tasks = list(self._busy.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def under_way(self) -> int:
        """Segments that are being repaired."""
        return len(self._busy)

    async def _next(self) -> list[Waiting]:
        free = self._settings.at_once - len(self._busy)
        if free <= 0:
            return []
        try:
            return await self._queue.take(free, set(self._busy), int(self._clock()))
        except QueueError as error:
            log.error("what waits for repair cannot be read", why=str(error))
            return []

    async def _one(self, row: Waiting) -> None:
        """Repair a segment, or put it off."""
        spare = row.spare
        try:
            try:
                await self._mover.recover(row.number)
                judged = await self._health.look(row.number)
                if judged is not None:
                    spare = judged.spare
                if judged is not None and judged.needs_work:
                    if not self._may_repair(judged, row):
                        raise Later("others", "another meta node is responsible for its object")
                    await self._repair(judged)
                await self._end(row.number)
                self._in_vain = 0
            except Later as later:
                await self._put_off(row, spare, later.why, str(later))
            except (LedgerError, RootsError, BooksError, CodingError) as error:
                await self._put_off(row, spare, "fault", str(error))
        except QueueError as error:
            log.error("what was repaired cannot be noted: it is looked at again", segment=row.number, why=str(error))
            await asyncio.sleep(IDLE_S)
        except Exception:  # one segment may not end the repair of all others
            log.exception("a repair failed by a fault of ours", segment=row.number)
            await asyncio.sleep(IDLE_S)
            with contextlib.suppress(QueueError):
                await self._put_off(row, spare, "fault", "a fault of ours, which the log has")

    def _may_repair(self, judged: Judged, row: Waiting) -> bool:
        if self._is_ours(judged.row.id):
            return True
        if self._clock() - row.since_s < self._settings.others_s:
            return False
        return bool(judged.marked) or any(self._health.proves_nothing(judged.holders[index]) for index in judged.lost)

    async def _end(self, number: int) -> None:
        """Out of the queue, unless something became worse in the meantime."""
        judged = await self._health.look(number)
        if judged is not None and judged.needs_work:
            raise Later("again", "shares became lost while others were made")
        await self._queue.remove([number])
        self._told.discard(number)
        if judged is None:
            await self._queue.unmark(number)

    async def _put_off(self, row: Waiting, spare: int, why: str, text: str) -> None:
        wait_s = min(self._settings.retry_s * 2**row.attempts, self._settings.retry_most_s)
        if why == "others":
            # Nothing was in the way of it: those of this meta node wait no longer because of it. A queue that is mostly others' takes its time.
            self.count["later_others"] += 1
            await self._queue.later(row.number, spare, int(self._clock() + self._settings.others_s), why)
            await asyncio.sleep(OTHERS_PAUSE_S)
            return
        if spare < 0:
            if row.number not in self._told:
                log.error("a segment has too few shares and cannot be repaired until a node comes back", segment=row.number, missing=-spare, why=text)
            self._told.add(row.number)
            if len(self._told) > 10_000:
                self._told.clear()
        else:
            log.info("a repair is tried again later", segment=row.number, spare=spare, why=text, in_s=int(wait_s))
        self._in_vain += 1
        self.count[f"later_{why}"] += 1
        await self._queue.later(row.number, spare, int(self._clock() + wait_s), "lost" if spare < 0 else why)

    # --- one segment --------------------------------------------------------------------------------------------------------

    async def _repair(self, judged: Judged) -> None:
        """Make and place what is missing. Raises Later with what was in the way of all of it, or the rest."""
        known = await self._roots.of([judged.segment])
        if judged.segment.number not in known:
            raise Later("roots", "the roots of its shares are not known here")
        judged = await self._unchanged(judged)
        job = _Job(judged, known[judged.segment.number], await self._ledger.query(state_of))
        wanted = self._funds.shares_to_make(judged, job.state)
        copies = [index for index in wanted if index in judged.leaving and self._health.is_online(judged.holders[index])]
        is_handed = not judged.is_short and len(copies) == len(wanted)
        is_paid = self._funds.check(judged, job.state, repair_noz(judged, len(wanted), len(wanted) if is_handed else None))
        places = self._places(job, wanted)
        if not places:
            raise Later("nodes", "no node of another owner and prefix has room for its shares")
        try:
            made = await (self._handed(job, list(places)) if is_handed else self._made(job, list(places)))
            outcomes = await asyncio.gather(*(self._store(job, index, places, made[index]) for index in places), return_exceptions=True)
        finally:
            for index in wanted:
                self._placing.release(judged, index)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Later):
                raise outcome
        stored = sum(outcome is None for outcome in outcomes)
        if stored:
            self._in_vain = 0
            self.count["segments"] += 1
            self.count["shares"] += stored
            self.count["credits"] += not is_paid
            log.info("a segment is repaired", segment=judged.segment.number, shares=stored, missing=len(wanted) - stored, is_paid=is_paid)
        for outcome in outcomes:
            if isinstance(outcome, Later):
                raise outcome
        if len(places) < len(wanted) and not await self._is_enough(judged.segment.number):
            raise Later("nodes", f"{len(wanted) - len(places)} of its shares have no node of another owner and prefix with room")

    async def _unchanged(self, judged: Judged) -> Judged:
        """The segment as it stands just before anything is read of it: its roots may have taken a while, and another meta node may have had the duty."""
        now = await self._health.look(judged.segment.number)
        if now is None or not now.needs_work or (now.segment.nodes, now.serials) != (judged.segment.nodes, judged.serials):
            raise Later("again", "its shares were moved in the meantime, or came back")
        return now

    async def _is_enough(self, number: int) -> bool:
        judged = await self._health.look(number)
        return judged is None or not judged.needs_work

    def _places(self, job: _Job, wanted: Sequence[int]) -> dict[int, Candidate]:
        places: dict[int, Candidate] = {}
        for index in wanted:
            found = self._placing.choose(job.judged, index, job.state.block_hash, list(places.values()), ())
            if found is not None:
                places[index] = found
        return places

    # --- shares are read ----------------------------------------------------------------------------------------------------

    async def _handed(self, job: _Job, wanted: Sequence[int]) -> dict[int, Buffer]:
        """Shares from the nodes that leave, for a noz each; when one does not give it, all are computed."""
        outcomes = await together(self._read(job, index, HANDED_NOZ) for index in wanted)
        if all(outcomes):
            return {index: job.shares[index] for index in wanted}
        # That costs k reads at the full price, and nothing is in danger: not on credit.
        has, needed = self._funds.available(await self._ledger.query(state_of), job.judged.row), repair_noz(job.judged, len(wanted))
        if has < needed:
            raise Later(
                "funds", f"nodes that leave do not hand over, and the repair funds can pay {has} noz, {needed} are needed to compute their shares"
            )
        return await self._made(job, wanted)

    async def _made(self, job: _Job, wanted: Sequence[int]) -> dict[int, Buffer]:
        """Shares computed from k good ones. Raises Later when there are too few."""
        judged, k = job.judged, job.judged.row.k
        noz = read_noz(judged.share_bytes)
        waiting = [index for index in self._sources(judged) if index not in job.shares]
        while len(job.shares) < k and waiting:
            part, waiting = waiting[: k - len(job.shares)], waiting[k - len(job.shares) :]
            await together(self._read(job, index, noz) for index in part)
        if len(job.shares) < k:
            told = "; ".join(f"share {index}: {text}" for index, text in sorted(job.failures.items()))
            raise Later("sources", f"{k} good shares are needed, {len(job.shares)} were found ({told[:400] or 'nobody has any'})")
        missing = [index for index in wanted if index not in job.shares]
        return await asyncio.to_thread(_computed, job, wanted, missing)

    def _sources(self, judged: Judged) -> list[int]:
        """Shares in the order in which they are asked for: the segment's own bytes first, of nodes that answer; lost nodes last, since one may be there."""
        online = {index for index in (*judged.healthy, *judged.leaving) if self._health.is_online(judged.holders[index])}
        rest = [index for index in (*judged.healthy, *judged.leaving) if index not in online]
        lost = [index for index in judged.lost if index not in judged.marked]
        order = [*sorted(online), *rest, *lost]
        # Sorting is stable: those that failed a moment ago come last, so a few bad ones do not cost every repair its time.
        now_s = self._clock()
        return sorted(order, key=lambda index: now_s < self._failed.get(judged.holders[index], 0.0))

    async def _read(self, job: _Job, index: int, noz: int) -> bool:
        """Read a share into the job. False when its node failed; one that is damaged, missing or a lie is marked."""
        judged, number = job.judged, job.judged.holders[index]
        contact = self._registry.contact(number)
        if contact is None:
            job.failures[index] = f"the ledger has no node {number}"
            return False
        limit = await self._issuer.limit(judged.row, contact, bytes(job.roots[index]), judged.share_bytes, noz)
        await self._owe(judged, limit)
        try:
            job.shares[index] = await self._transfers.get(limit, judged.segment.root)
        except NodeFailed as error:
            job.failures[index] = str(error)
            self.count["failed_nodes"] += 1
            if error.code is None and not error.is_lie:
                # It cost time. A refusal costs none, and a lie is to be found.
                self._failed[number] = self._clock() + FAILED_S
            log.info("a share cannot be read for repair", segment=judged.segment.number, share=index, why=str(error))
            if error.is_lie:
                self._registry.score(number, LIED_SCORE)
            if error.is_lie or error.code in _GONE_CODES:
                await self._health.mark([(judged.segment.number, index, number, "wrong bytes" if error.is_lie else "missing at its node")])
            if not error.is_owed:
                await self._funds.forget([limit.serial])
            return False
        self.count["read_bytes"] += judged.share_bytes
        return True

    # --- shares are stored --------------------------------------------------------------------------------------------------

    async def _store(self, job: _Job, index: int, places: dict[int, Candidate], data: Buffer) -> None:
        """Put a share to its place, or another one, and move it. Raises Later when no node took it or the ledger refused."""
        judged = job.judged
        tried: set[int] = set()
        place: Candidate | None = places[index]
        text = "no node took it"
        while place is not None and len(tried) < self._settings.attempts:
            tried.add(place.number)
            try:
                put = await self._put(job, index, place.number, data)
            except NodeFailed as error:
                text = str(error)
                self.count["failed_nodes"] += 1
                log.info("a repaired share is not taken", segment=judged.segment.number, share=index, why=text)
                place = self._placing.choose(judged, index, job.state.block_hash, [one for at, one in places.items() if at != index], tried)
                if place is not None:
                    places[index] = place
                continue
            refusal = await self._mover.move(put, is_handed=index in judged.leaving and index in job.shares)
            if refusal:
                raise Later("refused", refusal)
            self.count["stored_bytes"] += len(data)
            return
        raise Later("nodes", text)

    async def _put(self, job: _Job, index: int, number: int, data: Buffer) -> Put:
        judged, contact = job.judged, self._registry.contact(number)
        if contact is None:
            raise NodeFailed(number, "the ledger has no such node")
        noz = store_noz(judged.row, judged.share_bytes)
        limit = await self._issuer.limit(judged.row, contact, bytes(job.roots[index]), judged.share_bytes, noz)
        put = Put(
            limit.serial, judged.segment.number, index, judged.holders[index], number, limit.share_root, judged.serials[index], is_acked=False
        )  # fmt: skip
        await self._owe(judged, limit)
        await self._queue.putting(put)
        try:
            evidence = await self._transfers.put(limit, judged, index, job.roots, data)
        except NodeFailed as error:
            # It may have stored it all the same.
            await self._mover.gave_up(put)
            if not error.is_owed:
                await self._funds.forget([limit.serial])
            raise
        await self._queue.acked(limit.serial, evidence)
        return put._replace(is_acked=True, evidence=evidence)

    async def _owe(self, judged: Judged, limit: Limit) -> None:
        await self._funds.owe([Owed(limit.serial, judged.row.id, judged.row.fund, limit.noz, limit.expires_s)])


def _computed(job: _Job, wanted: Sequence[int], missing: Sequence[int]) -> dict[int, Buffer]:
    """The wanted shares, each with its root. Runs in a thread."""
    made: dict[int, Buffer] = {index: job.shares[index] for index in wanted if index in job.shares}
    if missing:
        for index, share in zip(missing, recreate(job.judged.scheme, job.shares.items(), missing), strict=True):
            if share_root(share) != job.roots[index]:
                raise Later("roots", f"share {index} computed from proved ones has not its root: the roots of this segment are no code's")
            made[index] = share
    return made
