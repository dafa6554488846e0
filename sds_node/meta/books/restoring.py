"""Own windows that the ledger has and these books have not, since they are from an older copy, or new: they come back from the others.

    ledger: windows of this meta node ─ without those in the books ─► missing ─┬─ window: asked of the others, judged by the ledger's root (checking.py) ─┬─► SETTLED
                                                                               └─ release: made from its result in the log (released.py) ────────────────┤
                                                                                   └─ not there: what as many others as sign a lease give alike ─────────┘
    before an epoch is made ─ need() ─► those first, then the others' windows; one that may still come is waited for: BooksError

Others approved each window with its leaves on disk, so while one of them is there none is lost. Windows up to the last mature epoch are not looked for, as in
fetching.py. What comes back after its epoch was reported is that epoch's then (choosing.py). Source: ADR 10.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog

from sds_node.meta.books.books import Books, BooksError, Kind, LeafRow, Phase, State, WindowRow
from sds_node.meta.books.checking import NotThatWindow, Wanted, rows_of, wanted_of
from sds_node.meta.books.choosing import GIVE_UP_MS, first_needed
from sds_node.meta.books.fetching import FETCH_S, NEED_S, Fetch, Sources
from sds_node.meta.books.file import LEAF, WINDOW, put
from sds_node.meta.books.judging import Judge
from sds_node.meta.books.others import BadWindow, Others, Unfinished
from sds_node.meta.books.released import leaf_rows
from sds_node.meta.books.windows import MAX_BATCH_BYTES, Done
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules import tables
from sds_node.meta.rules.observe import active_metas
from sds_node.wire.errors import WireError

log = structlog.get_logger("books")

EVERY_S: Final = 30.0
MAX_AT_ONCE: Final = 1_000
"""Windows that are looked for in one round."""

Need = Callable[[Mapping[bytes, int]], Awaitable[None]]
Agreed = Callable[[Wanted, list[str]], Awaitable[list[LeafRow] | None]]
"""The leaves of a release that enough others give alike; None, with the reasons, where too few do now."""


class Restoring:
    """Of the meta node at ``address`` with these books. ``fetch`` and ``sources`` as in fetching.py; ``on_done`` hears of receipts that are settled; ``need`` brings
    the others' windows, ``agreed`` a release's leaves; ``clock`` tells Unix seconds."""

    def __init__(
        self,
        ledger: AnyLedger,
        books: Books,
        chain_id: str,
        address: bytes,
        fetch: Fetch,
        sources: Sources,
        on_done: Done,
        need: Need,
        agreed: Agreed,
        clock: Callable[[], float],
    ) -> None:
        self._ledger, self._books, self._chain_id, self._address = ledger, books, chain_id, address
        self._fetch, self._sources, self._on_done, self._need = fetch, sources, on_done, need
        self._agreed, self._clock = agreed, clock
        self._others, self._judge, self._working = Others(books), Judge(), asyncio.Lock()
        self._failed: dict[bytes, int] = {}
        """How often a meta node gave none."""
        self._bad: dict[int, str] = {}
        """Windows that cannot come back, and why."""
        self._missing: list[int] = []
        self._came_s = 0.0
        """When the last one came, or none was missing."""
        self._is_alone = True

    @property
    def missing(self) -> int:
        """Windows that were not here after the last round."""
        return len(self._missing)

    async def run(self) -> None:
        """Bring back what is missing, until cancelled."""
        while True:
            try:
                await self.step()
            except (BooksError, LedgerError) as error:
                log.warning("own windows are not looked for", why=str(error))
            await asyncio.sleep(EVERY_S)

    async def need(self, upto: Mapping[bytes, int]) -> None:
        """Own windows for some seconds, then the others' windows up to these numbers. Raises BooksError while an own one up to its number is missing that others may
        still give: one came in the last hour. Raises LedgerError."""
        try:
            async with asyncio.timeout(NEED_S):
                await self.step()
        except TimeoutError:
            log.info("own windows are not all here yet")
        await self._need({meta: last for meta, last in upto.items() if meta != self._address})
        awaited = [number for number in self._missing if number <= upto.get(self._address, 0) and number not in self._bad]
        if awaited and not self._is_alone and self._clock() * 1_000 < self._came_s * 1_000 + GIVE_UP_MS:
            raise BooksError(
                f"{len(awaited)} windows of this meta node are not in its books, {awaited[0]} is the first: they are asked of the others"
            )

    def problems(self) -> list[str]:
        """What is wrong, in sentences."""
        bad = [number for number in self._missing if number in self._bad]
        found = [f"window {number} of this meta node is not in its books, and cannot be brought back: {self._bad[number]}" for number in bad[:5]]
        if count := self.missing - len(bad):
            found.append(f"{count} windows of this meta node are not in its books, which are from an older copy: others are asked for them")
        return found

    async def step(self) -> int:
        """Look once for each window that is missing. How many came. Raises BooksError, LedgerError."""
        async with self._working:
            self._missing = await self._those_missing()
            if not self._missing or not self._came_s:
                self._came_s = self._clock()
            came = 0
            for number in [one for one in self._missing if one not in self._bad][:MAX_AT_ONCE]:
                if await self._brought(number):
                    came += 1
                    self._missing.remove(number)
                    self._came_s = self._clock()
            return came

    async def _those_missing(self) -> list[int]:
        def read(view: ReadView) -> tuple[int, int, bool]:
            meta = view.get(tables.META, (self._address,))
            first, last = (first_needed(view, meta)[0], meta.windows) if meta is not None else (0, 0)
            return first, last, all(one.address == self._address for one in active_metas(view))

        # The ledger first: what is on it by then has its row here, unless that was lost.
        found: tuple[int, int, bool] = await self._ledger.query(read)
        first, last, self._is_alone = found

        def compare(database: sqlite3.Connection) -> list[int]:
            those = "FROM windows WHERE number > ? AND number <= ?"
            if database.execute(f"SELECT count(*) {those}", (first, last)).fetchone()[0] == last - first:
                return []
            here = {number for (number,) in database.execute(f"SELECT number {those}", (first, last))}
            return [number for number in range(first + 1, last + 1) if number not in here]

        return await self._books.do(compare)

    async def _brought(self, number: int) -> bool:
        wanted: Wanted | None = await self._ledger.query(lambda view: wanted_of(view, self._address, number))
        if wanted is None:
            self._bad[number] = "the ledger has forgotten it"
            return False
        try:
            leaves = await (self._of_release(wanted) if wanted.row.is_release else self._of_others(number, wanted))
            if leaves is None:
                return False
            await self._keep(wanted.row, leaves)
        except BadWindow as error:
            self._bad[number] = str(error)
            log.error("a window of this meta node cannot be brought back", number=number, why=str(error))
            return False
        except Unfinished:
            return False  # one of its leaves is in a window that waits: that one is freed first
        for leaf in leaves:
            if leaf.lease:
                self._on_done(leaf.lease, leaf.id, leaf.noz)
        log.info("a window of this meta node is in its books again", number=number, leaves=len(leaves))
        return True

    async def _of_release(self, wanted: Wanted) -> list[LeafRow] | None:
        if wanted.settled is None:
            reasons: list[str] = []
            given = await self._agreed(wanted, reasons)
            if given is None:
                log.info("a release of this meta node cannot be had yet", number=wanted.row.number, why="; ".join(reasons)[:500])
            return given
        leaves = await asyncio.to_thread(leaf_rows, wanted.settled, wanted.row.number)
        if (noz := sum(leaf.noz for leaf in leaves)) != wanted.row.noz:
            raise BadWindow(f"its result in the log pays {noz} noz, the ledger moved {wanted.row.noz}")
        return leaves

    async def _of_others(self, number: int, wanted: Wanted) -> list[LeafRow] | None:
        """The leaves of a window from whoever has them; None where nobody does now. What the ledger's root says is believed whoever gives it."""
        # Who failed most is asked last, so that one that is slow or lies costs its time once.
        for source in sorted(self._sources(), key=lambda one: self._failed.get(one, 0)):
            raws: list[bytes] = []
            size_bytes = 0
            try:
                async with asyncio.timeout(FETCH_S):
                    async for raw in self._fetch(source, self._address, number):
                        raws.append(raw)
                        size_bytes += len(raw)
                        if len(raws) > wanted.row.items or size_bytes > MAX_BATCH_BYTES:
                            raise NotThatWindow("it gives more leaves than the window has")
                return await asyncio.to_thread(rows_of, raws, wanted, self._judge, self._chain_id)
            except (NotThatWindow, WireError, TimeoutError, OSError) as error:
                self._failed[source] = self._failed.get(source, 0) + 1
                log.info("a window of this meta node cannot be had there", number=number, source=source.hex(), why=str(error) or type(error).__name__)
        return None

    async def _keep(self, row: tables.WindowRow, leaves: Sequence[LeafRow]) -> None:
        """The window is here again, as if it had never been gone. Raises BadWindow, Unfinished."""
        kind = Kind.RELEASE if row.is_release else Kind.WINDOW
        made = WindowRow(row.number, kind, Phase.APPLIED, row.root, row.batch_hash, len(leaves), 0, row.made_ms, b"")

        def make(database: sqlite3.Connection) -> None:
            if self._books.window_in(database, row.number) is not None:
                return
            for leaf in leaves:
                self._others.check_free(database, leaf.id)
                put(database, "leaves", LEAF, leaf._replace(state=State.SETTLED, window=row.number, epoch=0))
            put(database, "windows", WINDOW, made)

        await self._books.do(make)
