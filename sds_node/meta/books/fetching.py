"""Leaves of other meta nodes' windows come into these books, as the windows come onto the ledger.

    ledger: windows since the last known ─► MISSING ─ asked of its meta node, then of the others ─► checked (checking.py) ─► HERE, or BAD
                                               ▲            nobody has it: again after a pause that grows ┘
    EpochBooks ─ need(up to these numbers) ────┘ at once, for some seconds

Windows up to those of the last mature epoch whose lines are forgotten are not looked for: who was paid by them is not known any more, and others forget their
leaves. A bad window is looked at once more after a start. Sources: ADR 10; storage-protocol.md 1.9, 3.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from sds_node import asking
from sds_node.meta.books.books import Books, BooksError, Kind
from sds_node.meta.books.checking import NotThatWindow, ShareRoot, Wanted, rows_of, wanted_of
from sds_node.meta.books.judging import Judge
from sds_node.meta.books.others import BadWindow, OtherRow, Others, Unfinished
from sds_node.meta.books.windows import MAX_LEAVES
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules import tables
from sds_node.meta.rules.epochs import MAX_META_ROWS, last_window
from sds_node.wire.errors import WireError

log = structlog.get_logger("books")

EVERY_S: Final = 2.0
NEED_S: Final = 5.0
FETCH_S: Final = 15.0
"""One meta node has so long to give a window."""
FIRST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 300.0
MAX_AT_ONCE: Final = 200
"""Windows that are asked for in one round."""
MAX_RELEASE_LEAVES: Final = 200_000
MAX_WINDOW_BYTES: Final = 512 << 20
PREFIX_BYTES: Final = 4
_PAGE: Final = 500
_EPOCHS_LOOKED_AT: Final = 1_000

Fetch = Callable[[bytes, bytes, int], AsyncIterator[bytes]]
"""(who is asked, meta node, number) → the leaves of a window in the batch's order. Raises WireError, TimeoutError, NotThatWindow."""
Sources = Callable[[], Sequence[bytes]]
"""Meta nodes that may be asked now."""


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


class Fetching:
    """Brings the windows of the other meta nodes into the books of the one at ``address``. ``sources`` are those that may be asked, ``share_root`` gives the
    root of a share where it is known (in a thread); ``clock`` tells Unix seconds."""

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
        share_root: ShareRoot | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._ledger, self._books, self._chain_id, self._address, self._fetch, self._sources = ledger, books, chain_id, address, fetch, sources
        self._clock, self._share_root, self.every_s = clock, share_root, every_s
        self.others = Others(books)
        self._judge = Judge()
        self._working = asyncio.Lock()
        self._failures: dict[int, int] = {}
        self._not_before_s: dict[int, float] = {}
        self._problems: list[str] = []
        self.fetched = self.bad = self.missing = 0
        """Windows that came since this meta node runs; those that do not hold and those that are not here as of the last round."""

    async def run(self) -> None:
        """Fetch what comes, until cancelled."""
        is_begun = False
        while True:
            try:
                if not is_begun:
                    await self.others.try_bad_again()
                    is_begun = True
                await self.step()
            except (BooksError, LedgerError) as error:
                log.warning("windows of other meta nodes are not looked for", why=str(error))
            await asyncio.sleep(self.every_s)

    async def step(self) -> int:
        """Look for new windows, and fetch those whose pause is over. How many came. Raises BooksError, LedgerError."""
        async with self._working:
            await self._discover()
            now_s, came = self._clock(), 0
            missing = await self.others.missing(_PAGE)
            self._failures = {row.id: self._failures[row.id] for row in missing if row.id in self._failures}
            self._not_before_s = {row.id: self._not_before_s[row.id] for row in missing if row.id in self._not_before_s}
            due = [row for row in missing if self._not_before_s.get(row.id, now_s) <= now_s]
            for row in due[:MAX_AT_ONCE]:
                came += await self._get(row)
            await self._look_back()
            return came

    async def need(self, upto: Mapping[bytes, int], wait_s: float = NEED_S) -> None:
        """Fetch what is missing of windows up to these numbers, whatever pauses they have; for some seconds, or until nothing is. Raises BooksError,
        LedgerError."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while True:
            try:
                async with asyncio.timeout_at(until_s):
                    await self._working.acquire()  # a round that asks a slow one keeps nobody waiting for longer
            except TimeoutError:
                return
            try:
                await self._discover()
                missing = await self.others.missing(MAX_AT_ONCE, upto)
                came = 0
                for row in missing:
                    if loop.time() < until_s:
                        came += await self._get(row, until_s - loop.time())
            finally:
                self._working.release()
            if len(missing) == came < MAX_AT_ONCE or loop.time() >= until_s:
                return
            if not came:
                await asyncio.sleep(min(0.5, max(0.0, until_s - loop.time())))

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
                last, time_ms = _first_needed(view, meta)
                if last:
                    past[meta.address] = last, time_ms
            rows += view.scan(tables.WINDOW, (meta.address,), after=(last,), limit=_PAGE)
            if len(rows) >= _PAGE:
                break
        return rows, past

    # --- one window ---------------------------------------------------------------------------------------------------------

    async def _get(self, row: OtherRow, most_s: float = FETCH_S) -> bool:
        """Fetch a window from whoever has it. Whether it is done with: here, or bad."""
        wanted: Wanted | None = await self._ledger.query(lambda view: wanted_of(view, row.meta_node, row.number))
        if wanted is None:
            await self.others.refuse(row, "the ledger has forgotten it")
            return True
        name, reasons = _name(row), []
        for source in self._in_order(row.meta_node):
            try:
                async with asyncio.timeout(min(most_s, FETCH_S)):
                    raws = await self._all(source, row, wanted.row)
                leaves = await asyncio.to_thread(rows_of, raws, wanted, self._judge, self._chain_id, self._share_root)
                await self.others.keep(row, leaves)
            except BadWindow as error:
                # Traffic is what the ledger's root says, whoever gave it. Of a release only its own meta node is believed to say what it paid.
                if row.kind == Kind.WINDOW or source == row.meta_node:
                    await self.others.refuse(row, str(error))
                    log.error("a window of another meta node does not hold: its leaves are not taken", window=name, why=str(error))
                    return True
                reasons.append(str(error))
            except (NotThatWindow, WireError, TimeoutError, OSError, Unfinished) as error:
                reasons.append(str(error) or type(error).__name__)
            else:
                self.fetched += 1
                log.info("a window of another meta node is here", window=name, leaves=len(leaves), source=source.hex())
                return True
        self._pause(row, reasons)
        return False

    def _in_order(self, meta_node: bytes) -> list[bytes]:
        """Whom to ask for a window of a meta node: it first."""
        there = [one for one in self._sources() if one != self._address]
        return sorted(there, key=lambda one: one != meta_node)

    async def _all(self, source: bytes, row: OtherRow, wanted: tables.WindowRow) -> list[bytes]:
        most = MAX_RELEASE_LEAVES if wanted.is_release else wanted.items
        if not wanted.is_release and wanted.items > MAX_LEAVES:
            raise BadWindow(f"expected a window of at most {MAX_LEAVES} leaves, it has {wanted.items}")
        raws: list[bytes] = []
        size_bytes = 0
        async for raw in self._fetch(source, row.meta_node, row.number):
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
        self.missing = len(missing)
        found = [f"{_name(row)} does not hold: {row.reason}: whom it pays is left out of reports here" for row in bad]
        if self.bad > len(bad):
            found.append(f"{self.bad - len(bad)} more windows of other meta nodes do not hold")
        late = [row for row in missing if self._failures.get(row.id, 0) >= 3]
        if late:
            found.append(f"{_name(late[0])} and {len(late) - 1} more cannot be had of any meta node: until one gives them, epochs with them wait")
        self._problems = found


def _first_needed(view: ReadView, meta: tables.Meta) -> tuple[int, int]:
    """(number, time in ms) of the last window of a meta node of which nobody needs the leaves; (0, 0) for none."""
    for row in view.scan(tables.EPOCH, reverse=True, limit=_EPOCHS_LOOKED_AT):
        if row.status == tables.MATURE and row.ends_ms == 0:
            return last_window(view, meta, row), row.closed_ms
    return 0, 0


def _name(row: OtherRow) -> str:
    return f"window {row.number} of meta node {bech32.encode(row.meta_node, bech32.NODE)}"
