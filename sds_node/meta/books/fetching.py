"""Leaves of other meta nodes' windows come into these books, as the windows come onto the ledger.

    ledger: windows since the last known ─► MISSING ─ asked of its meta node, then of the others ─► checked (checking.py) ─► HERE, or BAD
                                               ▲            nobody has it: again after a pause that grows ┘
    EpochBooks ─ need(up to these numbers) ────┘ at once, for some seconds       one that was approved here (proposed.py) is here already: nobody is asked
                                                                                 a release's leaves are made here, from its result in the log (released.py)

Windows up to those of the last mature epoch whose lines are forgotten are not looked for: who was paid by them is not known any more, and others forget their
leaves. A bad window is looked at again now and then. Each meta node's windows are fetched one after the other, those of different ones beside each other, so that
who is slow delays its own alone. Sources: ADR 10; storage-protocol.md 1.9, 3.6.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Final, NamedTuple

import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from sds_node import asking
from sds_node.documents import lease_quorum
from sds_node.meta.books.books import Books, BooksError, Kind, LeafRow
from sds_node.meta.books.checking import NotThatWindow, Wanted, rows_kept, rows_of, wanted_of
from sds_node.meta.books.choosing import first_needed
from sds_node.meta.books.judging import Judge
from sds_node.meta.books.others import FIRST_ID, BadWindow, OtherRow, Others, Unfinished
from sds_node.meta.books.proposed import Proposed
from sds_node.meta.books.released import leaf_rows
from sds_node.meta.books.windows import MAX_LEAVES, batch_bytes
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules import tables
from sds_node.meta.rules.approvals import approvals_needed
from sds_node.meta.rules.epochs import MAX_META_ROWS
from sds_node.wire.errors import TimedOut, WireError

log = structlog.get_logger("books")

EVERY_S: Final = 2.0
NEED_S: Final = 5.0
FETCH_S: Final = 15.0
"""One meta node has so long to give a window."""
FIRST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 300.0
MAX_AT_ONCE: Final = 200
"""Windows of one meta node that are asked for in one round."""
SLOW_S: Final = 5.0
"""Who takes longer to give a window, or gives none in FETCH_S, is asked last for ``SLOW_FOR_S``."""
SLOW_FOR_S: Final = 60.0
JUDGED_AT_ONCE: Final = 2
BAD_AGAIN_S: Final = 600.0
"""A window that did not hold is looked at again so much later: what contradicts it may be gone."""
MAX_RELEASE_LEAVES: Final = 200_000
MAX_WINDOW_BYTES: Final = 512 << 20
PREFIX_BYTES: Final = 4
_PAGE: Final = 500

Fetch = Callable[[bytes, bytes, int], AsyncIterator[bytes]]
"""(who is asked, meta node, number) → the leaves of a window in the batch's order. Raises WireError, TimeoutError, NotThatWindow."""
Sources = Callable[[], Sequence[bytes]]
"""Meta nodes that may be asked now."""


class Before(NamedTuple):
    """Until that time (ms) these meta nodes kept the ledger, which had no blocks yet or other ones: of what was made by then, who joined has no log. Nobody where
    that is not known."""

    until_ms: int = 0
    keepers: frozenset[bytes] = frozenset()


async def window_leaves(ask: Callable[[bytes], Awaitable[bytes]], meta_node: bytes, number: int) -> AsyncIterator[bytes]:
    """A ``Fetch`` over ``meta.window``: ``ask(head)`` gives an answer's bytes. Raises NotThatWindow for an answer that is none, and what ``ask`` raises."""
    after = b""
    while True:
        raw = await ask(encode(asking.WindowLeavesHead(meta_node=meta_node, number=number, after=after)))
        try:
            page = asking.EpochBatchPage.FromString(raw)
        except DecodeError:
            raise NotThatWindow(f"expected a page of leaves, got {len(raw)} bytes that are none") from None
        at, data = 0, bytes(page.data)
        while at < len(data):
            size = int.from_bytes(data[at : at + PREFIX_BYTES], "big")
            at += PREFIX_BYTES
            if not 0 < size <= asking.MAX_LEAF_BYTES or at + size > len(data):
                raise NotThatWindow(f"expected 1 to {asking.MAX_LEAF_BYTES} bytes of a leaf after their length, it says {size}")
            yield data[at : at + size]
            at += size
        if not page.next:
            return
        if not data or len(page.next) > asking.MAX_CURSOR_BYTES or page.next <= after:
            raise NotThatWindow("it gives pages without an end")
        after = bytes(page.next)


NOT_KNOWN: Final = Before()


class Fetching:
    """Brings the windows of the other meta nodes into the books of the one at ``address``. ``sources`` are those that may be asked;
    ``before`` is who kept the ledger before its blocks; ``clock`` tells Unix seconds."""

    def __init__(
        self,
        ledger: AnyLedger,
        books: Books,
        chain_id: str,
        address: bytes,
        fetch: Fetch,
        sources: Sources,
        clock: Callable[[], float],
        *,
        every_s: float = EVERY_S,
        before: Before = NOT_KNOWN,
    ) -> None:
        self._ledger, self._books, self._chain_id, self._address, self._fetch, self._sources = ledger, books, chain_id, address, fetch, sources
        self._clock, self.every_s, self.before = clock, every_s, before
        self.others = Others(books)
        self._proposed = Proposed(books)
        self._judge = Judge()
        self._turns: dict[bytes, asyncio.Lock] = {}
        self._rounds: dict[bytes, asyncio.Task[int]] = {}
        """What is under way, by the meta node whose windows are fetched."""
        self._threads = asyncio.Semaphore(JUDGED_AT_ONCE)
        self._slow_until_s: dict[bytes, float] = {}
        self._bad_after: dict[bytes, int] = {}
        self._bad_until_s: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._not_before_s: dict[int, float] = {}
        self._problems: list[str] = []
        self.fetched = self.made = self.bad = self.missing = 0
        """Windows that came, and releases whose leaves were made here, since this meta node runs; those that do not hold and those that are not here as of the last round."""

    async def run(self) -> None:
        """Fetch what comes, until cancelled. A meta node whose windows come slowly keeps those of the others not waiting."""
        try:
            while True:
                try:
                    await self._begin()
                    await self._look_back()
                except (BooksError, LedgerError) as error:
                    log.warning("windows of other meta nodes are not looked for", why=str(error))
                await asyncio.sleep(self.every_s)
        finally:
            await self.close()

    async def close(self) -> None:
        """Nothing is fetched any more."""
        rounds = [*self._rounds.values()]
        for one in rounds:
            one.cancel()
        await asyncio.gather(*rounds, return_exceptions=True)

    async def step(self) -> int:
        """Look for new windows, and fetch those whose pause is over: of each meta node at most MAX_AT_ONCE. How many came. Raises BooksError, LedgerError."""
        came = sum(await asyncio.gather(*await self._begin()))
        await self._look_back()
        return came

    async def _begin(self) -> list[asyncio.Task[int]]:
        """Look for new windows, and begin with a round for each meta node that has none under way."""
        await self._discover()
        begun = []
        metas = await self.others.open_metas()
        for meta in metas:
            if meta not in self._rounds:
                task = self._rounds[meta] = asyncio.ensure_future(self._round(meta))
                task.add_done_callback(partial(self._ended, meta))
                begun.append(task)
        return begun

    def _ended(self, meta: bytes, task: asyncio.Task[int]) -> None:
        del self._rounds[meta]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("windows of another meta node are not fetched", meta_node=meta.hex(), why=str(error))

    async def _round(self, meta: bytes) -> int:
        """Fetch windows of a meta node whose pause is over, and look at one again that did not hold. How many came."""
        now_s, came = self._clock(), 0
        missing = (await self.others.missing(_PAGE, {meta: FIRST_ID})).get(meta, [])
        due = [row for row in missing if self._not_before_s.get(row.id, now_s) <= now_s]
        for row in due[:MAX_AT_ONCE]:
            came += await self._get(row)
        for row in await self.others.bad_of(meta, self._bad_after.get(meta, 0), 1) or await self.others.bad_of(meta, 0, 1):
            self._bad_after[meta] = row.id
            if self._bad_until_s.get(row.id, now_s) <= now_s:
                self._bad_until_s[row.id] = now_s + BAD_AGAIN_S
                await self._get(row)
        return came

    async def need(self, upto: Mapping[bytes, int], wait_s: float = NEED_S) -> None:
        """Fetch what is missing of windows up to these numbers, whatever pauses they have and whatever is fetched of other meta nodes; for some seconds, or until
        nothing is. Raises BooksError, LedgerError."""
        until_s = asyncio.get_running_loop().time() + wait_s
        await self._discover()
        await asyncio.gather(*[self._need(meta, last, until_s) for meta, last in upto.items()])

    async def _need(self, meta: bytes, last: int, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until_s:
            missing = (await self.others.missing(MAX_AT_ONCE, {meta: last})).get(meta, [])
            came = 0
            for row in missing:
                left_s = until_s - loop.time()
                came += left_s > 0 and await self._get(row, left_s)
            if len(missing) == came < MAX_AT_ONCE:
                return
            if not came:
                await asyncio.sleep(min(0.5, max(0.0, until_s - loop.time())))
                await self._discover()

    def problems(self) -> list[str]:
        """What is wrong, in sentences, as of the last round."""
        return list(self._problems)

    # --- which there are ----------------------------------------------------------------------------------------------------

    async def _discover(self) -> None:
        """Note the windows that the ledger has and the books do not know."""
        while True:
            known = await self.others.last_numbers()
            found: tuple[list[tables.WindowRow], dict[bytes, tuple[int, int]]] = await self._ledger.query(partial(self._new, known=known))
            rows, past = found
            if not rows and not past:
                return
            await self.others.note(rows, past)

    def _new(self, view: ReadView, known: Mapping[bytes, int]) -> tuple[list[tables.WindowRow], dict[bytes, tuple[int, int]]]:
        """(windows after the known ones, at most some hundred; where those of meta nodes begin that are looked at for the first time)."""
        rows: list[tables.WindowRow] = []
        past: dict[bytes, tuple[int, int]] = {}
        for meta in view.scan(tables.META, limit=MAX_META_ROWS):
            last = known.get(meta.address, 0)
            if meta.address == self._address or meta.windows <= last:
                continue
            if not last:
                last, time_ms = first_needed(view, meta)
                if last:
                    past[meta.address] = last, time_ms
            rows += view.scan(tables.WINDOW, (meta.address,), after=(last,), limit=_PAGE)
            if len(rows) >= _PAGE:
                break
        return rows, past

    # --- one window ---------------------------------------------------------------------------------------------------------

    async def _get(self, row: OtherRow, most_s: float = FETCH_S) -> bool:
        """Fetch a window from whoever has it; of each meta node one at a time. Whether it is done with: here, or bad."""
        turn = self._turns.setdefault(row.meta_node, asyncio.Lock())
        try:
            async with asyncio.timeout(most_s):
                await turn.acquire()
        except TimeoutError:
            return False
        try:
            now = await self.others.window(row.meta_node, row.number)
            is_done = now is None or now.state != row.state or await self._got(row, most_s)
        finally:
            turn.release()
        if is_done:
            self._failures.pop(row.id, None)
            self._not_before_s.pop(row.id, None)
        return is_done

    async def _got(self, row: OtherRow, most_s: float) -> bool:
        wanted: Wanted | None = await self._ledger.query(lambda view: wanted_of(view, row.meta_node, row.number))
        if wanted is None:
            await self._refuse(row, "the ledger has forgotten it")
            return True
        if row.kind == Kind.RELEASE:
            return await self._release(row, wanted, most_s)
        name = _name(row)
        reasons: list[str] = []
        if (done := await self._approved(row, wanted, reasons)) is not None:
            return done
        for source in self._in_order(row.meta_node):
            try:
                leaves = await self._judged(source, wanted, most_s)
                await self.others.keep(row, leaves)
            except BadWindow as error:
                # They are what the ledger's root says, whoever gave them.
                await self._refuse(row, str(error))
                log.error("a window of another meta node does not hold: its leaves are not taken", window=name, why=str(error))
                return True
            except (NotThatWindow, WireError, TimeoutError, OSError, Unfinished) as error:
                reasons.append(str(error) or type(error).__name__)
            else:
                self.fetched += 1
                log.info("a window of another meta node is here", window=name, leaves=len(leaves), source=source.hex())
                return True
        self._pause(row, reasons)
        return False

    async def _judged(self, source: bytes, wanted: Wanted, most_s: float) -> list[LeafRow]:
        """What one meta node gives, judged. One that lets others wait is asked last for a while. Raises as ``rows_of`` and a ``Fetch``."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            async with asyncio.timeout(min(most_s, FETCH_S)):
                raws = await self._all(source, wanted.row)
        except (TimeoutError, TimedOut):
            self._slow_until_s[source] = self._clock() + SLOW_FOR_S
            raise
        if loop.time() - begun_s > SLOW_S:
            self._slow_until_s[source] = self._clock() + SLOW_FOR_S
        async with self._threads:
            return await asyncio.to_thread(rows_of, raws, wanted, self._judge, self._chain_id)

    async def _approved(self, row: OtherRow, wanted: Wanted, reasons: list[str]) -> bool | None:
        """Take a window that was approved here. Whether it is done with; None where it was not approved here."""
        raws = await self._proposed.find(row.meta_node, row.number, wanted.row.root, wanted.row.batch_hash)
        if raws is None:
            return None
        try:
            await self.others.keep(row, await asyncio.to_thread(rows_kept, raws, wanted))
        except NotThatWindow:
            return None
        except BadWindow as error:
            await self._refuse(row, str(error))
            log.error("a window that was approved here does not hold: its leaves are not taken", window=_name(row), why=str(error))
        except Unfinished as error:
            reasons.append(str(error))
            self._pause(row, reasons)
            return False
        self.fetched += 1
        return True

    async def _release(self, row: OtherRow, wanted: Wanted, most_s: float) -> bool:
        """Make the leaves of a release from its result in the log: whoever made it need not be asked, nor believed. Whether it is done with."""
        reasons: list[str] = []
        try:
            if wanted.settled is not None:
                leaves: list[LeafRow] | None = await asyncio.to_thread(leaf_rows, wanted.settled)
            else:
                leaves = await self.agreed(wanted, reasons, most_s)
            if leaves is not None:
                if (noz := sum(leaf.noz for leaf in leaves)) != wanted.row.noz:
                    raise BadWindow(f"its result in the log pays {noz} noz, the ledger moved {wanted.row.noz}")
                await self.others.keep(row, leaves)
        except BadWindow as error:
            await self._refuse(row, str(error))
            log.error("a release of another meta node does not hold: its leaves are not taken", window=_name(row), why=str(error))
            return True
        except Unfinished as error:
            leaves = None
            reasons.append(str(error))
        if leaves is None:
            self._pause(row, reasons)
            return False
        self.made += wanted.settled is not None
        self.fetched += wanted.settled is None
        log.info("a release of another meta node is here", release=_name(row), leaves=len(leaves), is_made=wanted.settled is not None)
        return True

    async def agreed(self, wanted: Wanted, reasons: list[str], most_s: float = FETCH_S) -> list[LeafRow] | None:
        """The leaves of a release whose result is not in the log here: as many others as sign a lease have to give the same, so that one of them is honest. Of
        one of before the blocks it is enough when as many give it of those who kept the ledger then as signed a lease then: the state that the blocks begin with
        is their word, too."""
        needed = 1 + await self._ledger.query(approvals_needed)
        keepers = self.before.keepers if wanted.row.made_ms <= self.before.until_ms else frozenset()
        needed_of_keepers = lease_quorum(max(1, len(keepers)))
        said: Counter[bytes] = Counter()
        of_keepers: Counter[bytes] = Counter()
        for source in self._in_order(wanted.row.meta_node):
            try:
                leaves = await self._judged(source, wanted, most_s)
            except (BadWindow, NotThatWindow, WireError, TimeoutError, OSError) as error:
                reasons.append(str(error) or type(error).__name__)
                continue
            digest = sha256(batch_bytes(leaf.leaf for leaf in leaves)).digest()
            said[digest] += 1
            of_keepers[digest] += source in keepers
            if said[digest] >= needed or of_keepers[digest] >= needed_of_keepers:
                return leaves
        of_those = f", or {needed_of_keepers} of those who kept the ledger before its blocks," if keepers else ""
        reasons.append(f"its result is not in the log here, and fewer than {needed} meta nodes{of_those} give the same leaves")
        return None

    async def _refuse(self, row: OtherRow, reason: str) -> None:
        """It does not hold; after a while it is looked at again."""
        self._bad_until_s[row.id] = self._clock() + BAD_AGAIN_S
        await self.others.refuse(row, reason)

    def _in_order(self, meta_node: bytes) -> list[bytes]:
        """Whom to ask for a window of a meta node: it first, and last who was slow."""
        now_s = self._clock()
        there = [one for one in self._sources() if one != self._address]
        return sorted(there, key=lambda one: (self._slow_until_s.get(one, now_s) > now_s, one != meta_node))

    async def _all(self, source: bytes, wanted: tables.WindowRow) -> list[bytes]:
        most = MAX_RELEASE_LEAVES if wanted.is_release else wanted.items
        if not wanted.is_release and wanted.items > MAX_LEAVES:
            raise BadWindow(f"expected a window of at most {MAX_LEAVES} leaves, it has {wanted.items}")
        raws: list[bytes] = []
        size_bytes = 0
        async for raw in self._fetch(source, wanted.meta_node, wanted.number):
            raws.append(raw)
            size_bytes += len(raw)
            if len(raws) > most or size_bytes > MAX_WINDOW_BYTES:
                raise NotThatWindow(f"expected at most {most} leaves in {MAX_WINDOW_BYTES} bytes, more are given")
        return raws

    def _pause(self, row: OtherRow, reasons: Sequence[str]) -> None:
        failures = self._failures[row.id] = self._failures.get(row.id, 0) + 1
        pause_s = min(FIRST_PAUSE_S * 2 ** min(failures - 1, 16), LONGEST_PAUSE_S)
        self._not_before_s[row.id] = self._clock() + pause_s
        level = log.info if failures < 3 else log.warning
        level("a window of another meta node cannot be had yet", window=_name(row), again_in_s=pause_s, why="; ".join(reasons)[:500])

    async def _look_back(self) -> None:
        """What ``problems`` and the counts tell."""
        self.bad, bad = await self.others.bad()
        missing = await self.others.missing(_PAGE)
        self.missing = await self.others.count_missing()
        found = [f"{_name(row)} does not hold: {row.reason}: whom it pays is left out of reports here" for row in bad]
        if self.bad > len(bad):
            found.append(f"{self.bad - len(bad)} more windows of other meta nodes do not hold")
        late = [row for rows in missing.values() for row in rows if self._failures.get(row.id, 0) >= 3]
        if late:
            found.append(f"{_name(late[0])} and {len(late) - 1} more cannot be had of any meta node: until one gives them, epochs with them wait")
        self._problems = found


def _name(row: OtherRow) -> str:
    return f"window {row.number} of meta node {bech32.encode(row.meta_node, bech32.NODE)}"
