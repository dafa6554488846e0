"""The auditor: once a day each node is challenged at a time of its own; who proves its shares is paid for its days, who does not gets a second chance first.

    each day, at a time drawn for the node ─► challenge ─┬─ all proved ───────────────────────────────► release: its days are paid
                                                         └─ not proved, or no answer ─ half an hour ─► again ─┬─ proved ─► release
              a node in maintenance waits for the next day                                                    ├─ some not ─► those fail, on_lost, the rest is paid
                                                                                                              └─ no answer ─► all fail
    shares that are known to be bad ─► some are asked for, too ─┬─ proved ─► known as good again, and paid
                                                                └─ not, or not asked ─► neither paid nor failed once more: what is due waits until they are moved
    shares that failed in anybody's audit (``failed`` in the ledger) ─► all are asked for, and are paid once they are proved
    not one proof ─► noted (memory.py): from the second day on the node counts as lost for repair
    answers (leaves as hashes) ─► one batch, kept in the books ─► its hash and root in the release

Where there are several meta nodes, one audits a node, for a week at a time. When that passes on within a day, the node may be audited once more: a release settles the days since
the last one, so nothing is paid twice. A second chance goes with the meta node that gave it, and outlives its stop.

Source: storage-protocol.md 3.5, 3.6; rules/releases.py; ``resource/service.py`` answers; docs/adr/0010.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, Final, Protocol

import nacl.signing
import structlog

from chain.codec.canonical import encode
from modules.settlement.trees import plain_root
from sds_node.meta.audits.challenges import Item, challenges, drawn, framed, judged, places, seed_of, with_leaves
from sds_node.meta.audits.memory import Forgetful, Memory, packed, unpacked
from sds_node.meta.books.books import Books, BooksError
from sds_node.meta.books.releases import NodeResult, Releases, RootsOf
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.nodes.calls import Calls
from sds_node.meta.nodes.hello import BadEndpoint
from sds_node.meta.nodes.registry import Registry
from sds_node.meta.operations import AnyLedger, LedgerRefused
from sds_node.meta.repair.queue import QueueError
from sds_node.meta.rules import tables
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.objects import STORED, scheme
from sds_node.meta.rules.places import Entry, entries_of, failed_of, held_of, nodes_of
from sds_node.meta.rules.wire import MAX_RELEASED_SHARES, MAX_RESULTS, MAX_SEGMENT
from sds_node.meta.users.roots import RootsError
from sds_node.schemes import segment_size, share_bytes
from sds_node.transfers import AUDIT, MAX_AUDIT_BYTES, serial_at
from sds_node.wire import errors as wire_errors

log = structlog.get_logger("audits")

DAY_S: Final = 86_400
SECOND_PARTS: Final = 48
"""A second chance comes a 48th of the audit's day later: half an hour."""
ANSWER_S: Final = 60
AT_ONCE: Final = 4
"""Nodes that are audited at a time."""
KEPT_DAYS: Final = 40
"""Answers are kept for so many days of audits."""
FAILED_SCORE: Final = -50
"""For each share that is not proved; a node without an answer pays for two."""
PASSED_SCORE: Final = 5
MOST_FAILED: Final = 10
"""More failed shares than these cost no more score in one audit."""
BUSY_S: Final = 0.5
"""A node that is busy is asked again after so long, then twice as long, within ANSWER_S."""
MARKED_ASKED: Final = 20
"""So many of a node's shares that are known to be bad are asked for in an audit."""
MARKED_MOST: Final = 1_000
MARKED_PART: Final = 50
"""A node with more bad shares than that many, and than a 50th of what it has, is paid for none until they are fewer."""
RELEASES_TRIED: Final = 3
AGAIN_S: Final = 60
"""Audits for which something failed here are tried again after so long."""


class OnLost(Protocol):
    """Hears of each share that its node could not prove twice: it is to be repaired."""

    def __call__(self, segment: int, index: int) -> None: ...


def _nobody(segment: int, index: int) -> None:
    return


@dataclass(slots=True)
class _Second:
    """A node that gets another chance: with these items, all of its own where it gave no answer. ``has_proved``: it proved others."""

    at_s: float
    items: list[Item]
    records: list[bytes]
    has_proved: bool


@dataclass(slots=True)
class _Verdict:
    """What an audit of a node came to."""

    row: tables.Node
    records: list[bytes]
    failed: list[Item] = field(default_factory=list)
    is_silent: bool = False
    has_proved: bool = True
    """Something was proved, or nothing was asked."""


class Auditor:
    """Audits the nodes of the meta node at ``address``, whose ledger key is ``key``. ``audit_day_s`` is how often, in seconds of ``clock``; ``is_ours`` says of
    a node's number whether this meta node audits it."""

    def __init__(
        self,
        ledger: AnyLedger,
        books: Books,
        releases: Releases,
        registry: Registry,
        calls: Calls,
        roots_of: RootsOf,
        chain_id: str,
        address: bytes,
        key: nacl.signing.SigningKey,
        clock: Callable[[], float],
        *,
        audit_day_s: int = DAY_S,
        on_lost: OnLost = _nobody,
        is_ours: Callable[[int], bool] = lambda node: True,
        memory: Memory | None = None,
    ) -> None:
        self._ledger, self._books, self._releases, self._registry, self._calls, self._roots_of = ledger, books, releases, registry, calls, roots_of
        self._chain_id, self._address, self._key, self._clock = chain_id, address, key, clock
        self.audit_day_s, self._on_lost, self._is_ours = audit_day_s, on_lost, is_ours
        self._memory: Memory = memory if memory is not None else Forgetful()
        self._is_remembered = False
        self._proved_s = float("-inf")
        """When any node proved a share last."""
        self._secret = sha256(b"stratos/audit-time/v1\0" + bytes(key)).digest()
        self._audited: dict[int, int] = {}
        self._seconds: dict[int, _Second] = {}
        self._proved: dict[int, set[int]] = {}
        """Segments of the shares that a node proved in its last audit."""
        self._again: dict[int, float] = {}
        """Nodes whose audit could not be made → when it is tried again."""

    async def run(self, every_s: float = 10.0) -> None:
        """Audit whoever is due, until cancelled."""
        while True:
            try:
                await self.step()
            except (LedgerError, LedgerRefused, BooksError, RootsError, QueueError) as error:
                log.error("audits are not settled: they are made again tomorrow", why=str(error))
            await asyncio.sleep(every_s)

    async def step(self) -> int:
        """Audit the nodes that are due now and propose what came of it. How many nodes were decided. A node for which something fails here is left for
        later; the others are not. Raises LedgerError, LedgerRefused, BooksError, RootsError, QueueError when nothing at all can be settled."""
        await self._registry.refresh()
        if not self._is_remembered:
            await self._remember()
        now_s = self._clock()
        due = [row for number, row in sorted(self._registry.rows().items()) if self._is_due(row, now_s)]
        if not due:
            return 0
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(row: tables.Node) -> _Verdict | None:
            async with gate:
                try:
                    return await self._audit(row)
                except (LedgerError, BooksError, RootsError, QueueError) as error:
                    self._put_off(row.number, error)
                    return None

        verdicts = [verdict for verdict in await asyncio.gather(*(one(row) for row in due)) if verdict is not None]
        if verdicts:
            await self._settle(verdicts)
        return len(verdicts)

    async def _remember(self) -> None:
        """Read what was audited, and who has a second chance, before this start."""
        for number, day, second_s, raw in await self._memory.all_audited():
            self._audited[number] = day
            if second_s is not None:
                self._seconds[number] = _Second(second_s, *unpacked(raw))
        self._is_remembered = True

    async def _note(self, number: int) -> None:
        """Keep what was audited of a node. That it is not kept matters after a stop alone."""
        second = self._seconds.get(number)
        raw = packed(second.items, second.records, has_proved=second.has_proved) if second is not None else b""
        try:
            await self._memory.audited(number, self._audited[number], None if second is None else second.at_s, raw)
        except QueueError as error:
            log.error("an audit is not kept beyond this process", node=number, why=str(error))

    def due_s(self, node: bytes, day: int) -> float:
        """When a node is audited on a day (its number since 1970, in days of audits): a time drawn for both, which the node cannot know before."""
        return day * self.audit_day_s + drawn(seed_of(self._secret, node, day), b"time", 0, self.audit_day_s)

    def _is_due(self, row: tables.Node, now_s: float) -> bool:
        if row.standing == tables.GONE or not row.shares:
            return False
        if not self._is_ours(row.number):
            self._seconds.pop(row.number, None)
            return False
        if self._registry.maintenance_until_s(row) > now_s:
            return False
        if self._again.get(row.number, float("-inf")) > now_s:
            return False
        second = self._seconds.get(row.number)
        if second is not None:
            return now_s >= second.at_s
        day = int(now_s // self.audit_day_s)
        return self._audited.get(row.number) != day and now_s >= self.due_s(row.address, day)

    def _put_off(self, number: int, error: Exception) -> None:
        self._again[number] = self._clock() + AGAIN_S
        log.error("a node cannot be audited now: it is tried again", node=number, why=str(error))

    # --- one node -----------------------------------------------------------------------------------------------------------

    async def _audit(self, row: tables.Node) -> _Verdict | None:
        """Challenge a node; None while it still has its second chance, or nothing can be asked of it."""
        now_s = self._clock()
        day = int(now_s // self.audit_day_s)
        state: tables.State = await self._ledger.query(state_of)
        seed = seed_of(state.block_hash, row.address, day)
        second = self._seconds.get(row.number)
        marked = await self._memory.marked(row.number, MARKED_MOST)
        noted: dict[int, int] = await self._ledger.query(partial(failed_of, node=row.number))
        known = noted | marked
        if second is None:
            items = await self._drawn_items(row, seed, state.audits_per_day)
            items += await self._marked_items(row, seed, marked, noted, items)
        else:
            items = await self._still_held(row, second.items)
            seed = sha256(seed + b"second").digest()
        failed: list[Item] = []
        records: list[bytes] = []
        is_silent = False
        if items:
            failed, records, is_silent = await self._ask(row, with_leaves(items, seed), state)
        proved = {(item.segment, item.index) for item in items} - {(item.segment, item.index) for item in failed}
        if proved:
            self._proved_s = now_s
            await self._memory.proved(row.number, sorted(proved))
        before = self._proved.get(row.number, set()) if second is not None else set()
        self._proved[row.number] = before | {segment for segment, _ in proved}
        # From here on nothing fails: an audit that did not come to its end is made again.
        self._seconds.pop(row.number, None)
        self._again.pop(row.number, None)
        if second is None:
            self._audited[row.number] = day
            if not items:
                await self._note(row.number)
                return None
        if not is_silent:
            for item in failed:
                if noted.get(item.segment) == item.index != marked.get(item.segment):
                    self._on_lost(item.segment, item.index)  # another meta node found it first
        # What is known to be bad is not found a second time.
        lost = [item for item in failed if known.get(item.segment) != item.index]
        has_proved = bool(proved) or not items or (second is not None and second.has_proved)
        verdict = _Verdict(row, [*(second.records if second is not None else ()), *records], lost, is_silent, has_proved)
        if (lost or is_silent) and second is None:
            self._seconds[row.number] = _Second(now_s + self.audit_day_s / SECOND_PARTS, failed if is_silent else lost, records, has_proved)
            log.info("a node has not proved its shares: it gets a second chance", node=row.number, shares=len(failed), is_silent=is_silent)
        await self._note(row.number)
        return None if row.number in self._seconds else verdict

    async def _answer(self, number: int, head: bytes) -> bytes:
        """A node's answer to a challenge. One that says that it is busy is asked again while there is time: that is no silence."""
        wait_s = BUSY_S
        async with asyncio.timeout(ANSWER_S):
            while True:
                try:
                    return await self._calls.ask(number, AUDIT, head, most_bytes=MAX_AUDIT_BYTES, idle_s=ANSWER_S)
                except wire_errors.Busy:
                    await asyncio.sleep(wait_s)
                    wait_s *= 2

    async def _ask(self, row: tables.Node, items: Sequence[Item], state: tables.State) -> tuple[list[Item], list[bytes], bool]:
        """(items that are not proved, records of the answers, whether there was no answer at all)."""
        due_s = int(self._clock()) + ANSWER_S
        failed: list[Item] = []
        records: list[bytes] = []
        answers = 0
        for head, part in challenges(items, self._chain_id, self._address, row.address, state.height, state.block_hash, due_s, self._key):
            try:
                raw = await self._answer(row.number, encode(head))
            except (wire_errors.WireError, BadEndpoint, TimeoutError) as error:
                log.info("a node does not answer a challenge", node=row.number, why=str(error))
                missing, record = judged(head, part, b"")
                failed.extend(missing)
                records.append(record)
                continue
            answers += 1
            missing, record = await asyncio.to_thread(judged, head, part, raw)
            failed.extend(missing)
            records.append(record)
        return failed, records, answers == 0

    async def _drawn_items(self, row: tables.Node, seed: bytes, count: int) -> list[Item]:
        """Random shares of a node, of stored objects whose roots are known."""

        def read(view: ReadView) -> list[tuple[Item, tables.Segment]]:
            chosen = _entries_at(view, row.number, places(seed, row.shares, count))
            return [found for number, index in chosen if (found := _item(view, number, index)) is not None]

        found: list[tuple[Item, tables.Segment]] = await self._ledger.query(read)
        return await self._with_roots(found)

    async def _marked_items(
        self, row: tables.Node, seed: bytes, marked: Mapping[int, int], noted: Mapping[int, int], besides: Sequence[Item]
    ) -> list[Item]:
        """Some of a node's shares that are known to be bad, and all of those that the ledger has as such: one that is there again is to be paid again, and what
        another meta node says of a share holds until the node is asked for it."""
        asked = {(item.segment, item.index) for item in besides}
        entries = sorted(set(marked.items()) - set(noted.items()) - asked)
        chosen = sorted({entries[place] for place in places(seed, len(entries), MARKED_ASKED)} | (set(noted.items()) - asked))

        def read(view: ReadView) -> list[tuple[Item, tables.Segment]]:
            found = [one for number, index in chosen if (one := _item(view, number, index)) is not None]
            return [one for one in found if nodes_of(one[1].nodes)[one[0].index] == row.number]

        return await self._with_roots(await self._ledger.query(read)) if chosen else []

    async def _with_roots(self, found: Sequence[tuple[Item, tables.Segment]]) -> list[Item]:
        """Those of some items whose roots are known, with them."""
        roots = await self._roots_of([segment for _, segment in found])
        items = []
        for item, _ in found:
            known = roots.get(item.segment)
            if known is not None:
                items.append(Item(item.segment, item.index, item.serial, bytes(known[item.index]), item.size_bytes))
        return items

    async def _still_held(self, row: tables.Node, items: Sequence[Item]) -> list[Item]:
        """Those of some items that the node still has to keep."""

        def read(view: ReadView) -> list[Item]:
            held: list[Item] = []
            for item in items:
                now = _item(view, item.segment, item.index)
                if now is not None and now[0].serial == item.serial and nodes_of(now[1].nodes)[item.index] == row.number:
                    held.append(item)
            return held

        found: list[Item] = await self._ledger.query(read)
        return found

    # --- what comes of it -----------------------------------------------------------------------------------------------------

    async def _settle(self, verdicts: Sequence[_Verdict]) -> None:
        """Releases for all shares of the nodes that were decided."""
        now_ms = int(self._clock() * 1_000)
        records = [record for verdict in verdicts for record in verdict.records]
        batch = b"".join(framed(record) for record in records)
        batch_hash, root = sha256(batch).digest(), plain_root(records)
        await self._books.keep_batch(batch_hash, batch, now_ms)
        await self._books.forget_batches(now_ms - KEPT_DAYS * self.audit_day_s * 1_000)
        release = partial(self._releases.release, answers_root=root, answers_count=len(records), batch_hash=batch_hash)
        try:
            await self._release(verdicts, release)
        finally:
            # After the release: who hears of lost shares moves them, and a release names those that the ledger has at the node.
            for verdict in verdicts:
                await self._tell(verdict)

    async def _release(self, verdicts: Sequence[_Verdict], release: Callable[[Sequence[Any]], Awaitable[object]]) -> None:
        """Release what verdicts came to; when that is refused, node by node: a share of one may have been moved in the meantime."""
        try:
            await self._release_all(verdicts, release)
            return
        except (LedgerRefused, BooksError) as error:
            log.warning("a release is made again node by node", nodes=len(verdicts), why=str(error))
        for verdict in verdicts:
            for left in reversed(range(RELEASES_TRIED)):
                try:
                    await self._release_all([verdict], release)
                    break
                except (LedgerRefused, BooksError) as error:
                    if not left:
                        log.error("an audit of a node is not settled: it is made again tomorrow", node=verdict.row.number, why=str(error))

    async def _release_all(self, verdicts: Sequence[_Verdict], release: Callable[[Sequence[Any]], Awaitable[object]]) -> None:
        waiting: list[Any] = []
        shares = 0
        for verdict in verdicts:
            try:
                results = [found async for found in self._results(verdict)]
            except (LedgerError, RootsError, QueueError) as error:
                log.error("an audit of a node is not settled: it is made again tomorrow", node=verdict.row.number, why=str(error))
                continue
            for result, size in results:
                if waiting and (shares + size > MAX_RELEASED_SHARES or len(waiting) == MAX_RESULTS):
                    await release(waiting)
                    waiting, shares = [], 0
                waiting.append(result)
                shares += size
        if waiting:
            await release(waiting)

    async def _tell(self, verdict: _Verdict) -> None:
        """Score, and who repairs."""
        number = verdict.row.number
        if not verdict.has_proved and self._clock() - self._proved_s <= self.audit_day_s:
            # Without a proof from anybody for a day it is this meta node that hears nothing.
            try:
                await self._memory.not_proved(number)
            except QueueError as error:
                log.error("it is not noted that a node proved nothing", node=number, why=str(error))
        if verdict.is_silent:
            # One that is known for it loses as much as if it had said that it has nothing.
            self._registry.score(number, FAILED_SCORE * (MOST_FAILED if self._registry.proves_nothing(number) else 2))
            log.warning("a node has not answered its audit twice: its days are not paid", node=number)
        elif verdict.failed:
            self._registry.score(number, FAILED_SCORE * min(len(verdict.failed), MOST_FAILED))
            log.warning("a node cannot prove shares", node=number, shares=len(verdict.failed), segment=verdict.failed[0].segment)
            for item in verdict.failed:
                self._on_lost(item.segment, item.index)
        elif verdict.has_proved:
            self._registry.score(number, PASSED_SCORE)

    async def _results(self, verdict: _Verdict) -> AsyncIterator[tuple[Any, int]]:
        """(NodeResult, shares) for stretches of a node's list; segments whose roots are not known are left out, and settled once they are; so are its shares
        that are known to be bad."""
        failed = {item.segment for item in verdict.failed} if not verdict.is_silent else set()
        number, first = verdict.row.number, 0
        most = max(MARKED_MOST, verdict.row.shares // MARKED_PART)
        bad = set(await self._memory.marked(number, most + 1)) - failed if not verdict.is_silent else set()
        if len(bad) > most:
            log.warning("a node has so many bad shares that it is paid for none until they are fewer", node=number, most=most)
            return
        if not verdict.is_silent:
            noted: dict[int, int] = await self._ledger.query(partial(failed_of, node=number))
            bad |= noted.keys() - failed - self._proved.get(number, set())
        while True:
            entries: list[Entry] = await self._ledger.query(partial(held_of, node=number, first=first, last=MAX_SEGMENT, most=MAX_RELEASED_SHARES))
            if not entries:
                return
            missing = bad.union(await self._releases.missing(number, first, entries[-1][0], len(entries)))
            for run in _runs(entries, missing):
                stretch = [segment for segment, _ in run]
                result = NodeResult(node=number, first_segment=stretch[0], last_segment=stretch[-1], has_failed=verdict.is_silent)
                result.failed_segments.extend(sorted(failed.intersection(stretch)))
                yield result, len(run)
            first = entries[-1][0] + 1


def _runs(entries: Iterable[Entry], missing: set[int]) -> list[list[Entry]]:
    """Entries that follow one another, without those of missing segments."""
    runs: list[list[Entry]] = [[]]
    for entry in entries:
        if entry[0] in missing:
            runs.append([])
        else:
            runs[-1].append(entry)
    return [run for run in runs if run]


def _entries_at(view: ReadView, node: int, wanted: Sequence[int]) -> list[Entry]:
    """The entries of a node's list at ascending places; those beyond its end are left out."""
    found: list[Entry] = []
    begin, at = 0, 0
    page = view.scan(tables.HELD, (node,), limit=8)
    while page and at < len(wanted):
        for chunk in page:
            entries = None
            while at < len(wanted) and wanted[at] < begin + chunk.entries:
                entries = entries if entries is not None else entries_of(chunk)
                found.append(entries[wanted[at] - begin])
                at += 1
            begin += chunk.entries
        page = view.scan(tables.HELD, (node,), after=(page[-1].first,), limit=8)
    return found


def _item(view: ReadView, number: int, index: int) -> tuple[Item, tables.Segment] | None:
    """A share as it is asked for, still without its root; None for one of an object that is not stored."""
    segment = view.get(tables.SEGMENT, (number,))
    row = view.get(tables.OBJECT, (segment.object,)) if segment is not None else None
    if segment is None or row is None or row.state not in STORED:
        return None
    moved = view.get(tables.MOVED, (number, index))
    serial = moved.serial if moved is not None else serial_at(segment.first_serial, index)
    size_bytes = share_bytes(scheme(row), segment_size(row.size_bytes, number - row.first_segment))
    return Item(number, index, serial, b"", size_bytes), segment
