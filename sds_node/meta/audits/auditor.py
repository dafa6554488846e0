"""The auditor: once a day each node is challenged at a time of its own; who proves its shares is paid for its days, who does not gets a second chance first.

    each day, at a time drawn for the node ─► challenge ─┬─ all proved ───────────────────────────────► release: its days are paid
                                                         └─ not proved, or no answer ─ half an hour ─► again ─┬─ proved ─► release
              a node in maintenance waits for the next day                                                    ├─ some not ─► those fail, on_lost, the rest is paid
                                                                                                              └─ no answer ─► all fail
    answers (leaves as hashes) ─► one batch, kept in the books ─► its hash and root in the release

Source: storage-protocol.md 3.5, 3.6; rules/releases.py; ``resource/service.py`` answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, Final, Protocol

import nacl.signing
import structlog

from chain.codec.canonical import encode
from modules.settlement.trees import plain_root
from sds_node.meta.audits.challenges import Item, challenges, drawn, framed, judged, places, seed_of, with_leaves
from sds_node.meta.books.books import Books, BooksError
from sds_node.meta.books.releases import NodeResult, Releases, RootsOf
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.nodes.registry import Registry
from sds_node.meta.operations import AnyLedger, LedgerRefused
from sds_node.meta.rules import tables
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.objects import STORED, scheme
from sds_node.meta.rules.places import Entry, entries_of, held_of, nodes_of
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
AGAIN_S: Final = 60
"""Audits for which something failed here are tried again after so long."""


class Calls(Protocol):
    """How nodes are asked (``nodes/calls.py``)."""

    async def ask(
        self, number: int, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 1 << 20, idle_s: float | None = None
    ) -> bytes: ...


class OnLost(Protocol):
    """Hears of each share that its node could not prove twice: it is to be repaired."""

    def __call__(self, segment: int, index: int) -> None: ...


def _nobody(segment: int, index: int) -> None:
    return


@dataclass(slots=True)
class _Second:
    """A node that gets another chance: with these items, all of its own where it gave no answer."""

    at_s: float
    items: list[Item]
    records: list[bytes]


@dataclass(slots=True)
class _Verdict:
    """What an audit of a node came to."""

    row: tables.Node
    records: list[bytes]
    failed: list[Item] = field(default_factory=list)
    is_silent: bool = False


class Auditor:
    """Audits the nodes of the meta node at ``address``, whose ledger key is ``key``. ``audit_day_s`` is how often, in seconds of ``clock``."""

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
    ) -> None:
        self._ledger, self._books, self._releases, self._registry, self._calls, self._roots_of = ledger, books, releases, registry, calls, roots_of
        self._chain_id, self._address, self._key, self._clock = chain_id, address, key, clock
        self.audit_day_s, self._on_lost = audit_day_s, on_lost
        self._secret = sha256(b"stratos/audit-time/v1\0" + bytes(key)).digest()
        self._audited: dict[int, int] = {}
        self._seconds: dict[int, _Second] = {}
        self._again: dict[int, float] = {}
        """Nodes whose audit could not be made → when it is tried again."""

    async def run(self, every_s: float = 10.0) -> None:
        """Audit whoever is due, until cancelled."""
        while True:
            try:
                await self.step()
            except (LedgerError, LedgerRefused, BooksError, RootsError) as error:
                log.error("audits are not settled: they are made again tomorrow", why=str(error))
            await asyncio.sleep(every_s)

    async def step(self) -> int:
        """Audit the nodes that are due now and propose what came of it. How many nodes were decided. A node for which something fails here is left for
        later; the others are not. Raises LedgerError, LedgerRefused, BooksError, RootsError when nothing at all can be settled."""
        await self._registry.refresh()
        now_s = self._clock()
        due = [row for number, row in sorted(self._registry.rows().items()) if self._is_due(row, now_s)]
        if not due:
            return 0
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(row: tables.Node) -> _Verdict | None:
            async with gate:
                try:
                    return await self._audit(row)
                except (LedgerError, BooksError, RootsError) as error:
                    self._put_off(row.number, error)
                    return None

        verdicts = [verdict for verdict in await asyncio.gather(*(one(row) for row in due)) if verdict is not None]
        if verdicts:
            await self._settle(verdicts)
        return len(verdicts)

    def due_s(self, node: bytes, day: int) -> float:
        """When a node is audited on a day (its number since 1970, in days of audits): a time drawn for both, which the node cannot know before."""
        return day * self.audit_day_s + drawn(seed_of(self._secret, node, day), b"time", 0, self.audit_day_s)

    def _is_due(self, row: tables.Node, now_s: float) -> bool:
        if row.standing == tables.GONE or not row.shares:
            return False
        seen = self._registry.seen_of(row.number)
        if max(seen.maintenance_until_s if seen is not None else 0, row.maintenance_until_ms // 1_000) > now_s:
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
        if second is None:
            items = await self._drawn_items(row, seed, state.audits_per_day)
        else:
            items = await self._still_held(row, second.items)
            seed = sha256(seed + b"second").digest()
        failed: list[Item] = []
        records: list[bytes] = []
        is_silent = False
        if items:
            failed, records, is_silent = await self._ask(row, with_leaves(items, seed), state)
        # From here on nothing fails: an audit that did not come to its end is made again.
        self._seconds.pop(row.number, None)
        self._again.pop(row.number, None)
        if second is None:
            self._audited[row.number] = day
            if not items:
                return None
        verdict = _Verdict(row, [*(second.records if second is not None else ()), *records], failed, is_silent)
        if failed and second is None:
            self._seconds[row.number] = _Second(now_s + self.audit_day_s / SECOND_PARTS, failed, records)
            log.info("a node has not proved its shares: it gets a second chance", node=row.number, shares=len(failed), is_silent=is_silent)
            return None
        return verdict

    async def _ask(self, row: tables.Node, items: Sequence[Item], state: tables.State) -> tuple[list[Item], list[bytes], bool]:
        """(items that are not proved, records of the answers, whether there was no answer at all)."""
        due_s = int(self._clock()) + ANSWER_S
        failed: list[Item] = []
        records: list[bytes] = []
        answers = 0
        for head, part in challenges(items, self._chain_id, self._address, row.address, state.height, state.block_hash, due_s, self._key):
            try:
                async with asyncio.timeout(ANSWER_S):
                    raw = await self._calls.ask(row.number, AUDIT, encode(head), most_bytes=MAX_AUDIT_BYTES, idle_s=ANSWER_S)
            except (wire_errors.WireError, TimeoutError) as error:
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
        for verdict in verdicts:
            self._tell(verdict)
        waiting: list[Any] = []
        shares = 0
        for verdict in verdicts:
            try:
                results = [found async for found in self._results(verdict)]
            except (LedgerError, RootsError) as error:
                log.error("an audit of a node is not settled: it is made again tomorrow", node=verdict.row.number, why=str(error))
                continue
            for result, size in results:
                if waiting and (shares + size > MAX_RELEASED_SHARES or len(waiting) == MAX_RESULTS):
                    await self._releases.release(waiting, root, len(records), batch_hash)
                    waiting, shares = [], 0
                waiting.append(result)
                shares += size
        if waiting:
            await self._releases.release(waiting, root, len(records), batch_hash)

    def _tell(self, verdict: _Verdict) -> None:
        """Score, and who repairs."""
        number = verdict.row.number
        if verdict.is_silent:
            self._registry.score(number, 2 * FAILED_SCORE)
            log.warning("a node has not answered its audit twice: its days are not paid", node=number)
        elif verdict.failed:
            self._registry.score(number, FAILED_SCORE * min(len(verdict.failed), MOST_FAILED))
            log.warning("a node cannot prove shares", node=number, shares=len(verdict.failed), segment=verdict.failed[0].segment)
            for item in verdict.failed:
                self._on_lost(item.segment, item.index)
        else:
            self._registry.score(number, PASSED_SCORE)

    async def _results(self, verdict: _Verdict) -> AsyncIterator[tuple[Any, int]]:
        """(NodeResult, shares) for stretches of a node's list; segments whose roots are not known are left out, and settled once they are."""
        failed = {item.segment for item in verdict.failed} if not verdict.is_silent else set()
        number, first = verdict.row.number, 0
        while True:
            entries: list[Entry] = await self._ledger.query(partial(held_of, node=number, first=first, last=MAX_SEGMENT, most=MAX_RELEASED_SHARES))
            if not entries:
                return
            missing = set(await self._releases.missing(number, first, entries[-1][0], len(entries)))
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
