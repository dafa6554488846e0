"""Windows: every minute what a meta node's receipts move is proposed to the ledger; the receipts stay in the books.

    held leaves of leases ─ which end first ─┐
    held leaves of repair ─ by serial ───────┴─► what each lease and repair fund can pay ─► intent, synced ─► window ─► settled, on_done
                                                    └─ never fits: refused, and an error in the log  │
    after a crash, or an answer that was lost: is that window on the ledger? ─ yes: settled ── no: the same one is proposed again

Repair that no fund can pay waits, and nothing waits for it. A window that may still be on its way is never replaced by another one of its number: the same is proposed until the ledger has it or refuses it.
Sources: rules/windows.py; storage-protocol.md 2, 3.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, Final

import structlog

from chain.codec.registry import message_class
from modules.settlement.leaves import PUT
from modules.settlement.trees import sum_root
from sds_node.meta.books.books import Books, BooksError, Kind, LeafRow, Phase, WindowRow
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import AnyLedger, LedgerRefused, Proposer
from sds_node.meta.rules import tables
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.leases import settles_ms
from sds_node.meta.rules.moves import is_word_of_several
from sds_node.meta.rules.objects import STORED
from sds_node.meta.rules.wire import MAX_AMOUNT, MAX_CREDITS, MAX_DEBITS, MAX_REPAIR_DEBITS, PACKAGE

log = structlog.get_logger("books")

Window: Final = message_class(f"{PACKAGE}.Window")
LeaseDebit: Final = message_class(f"{PACKAGE}.LeaseDebit")
RepairDebit: Final = message_class(f"{PACKAGE}.RepairDebit")
Credit: Final = message_class(f"{PACKAGE}.Credit")

MAX_LEAVES: Final = 20_000
"""In one window; what is left goes into the next one at once."""
_ALLOWED: Final = b"allowed"
REPAIR_PAGES: Final = 10
"""Pages of held leaves of repair that are looked at in one round; the next round goes on behind them."""

Done = Callable[[bytes, bytes, int], None]
"""(lease id, serial, noz): a receipt is on the ledger; with 0 noz, it never will be."""


def _nobody(lease_id: bytes, serial: bytes, noz: int) -> None:
    return


def order_of(row: LeafRow) -> tuple[bytes, int, int, bytes]:
    """Settlement's sort key of a leaf."""
    return row.beneficiary, row.fund, row.traffic_class, row.id


def batch_bytes(rows: Iterable[LeafRow]) -> bytes:
    """A batch: each leaf's canonical bytes after their length (4 bytes, big-endian)."""
    return b"".join([len(row.leaf).to_bytes(4, "big") + row.leaf for row in rows])


def roots_of(rows: Sequence[LeafRow]) -> tuple[bytes, bytes]:
    """(root with sums over leaves in settlement's order, SHA-256 of their batch in that order)."""
    ordered = sorted(rows, key=order_of)
    root, _ = sum_root([(row.leaf, row.noz) for row in ordered])
    return root, sha256(batch_bytes(ordered)).digest()


@dataclass(slots=True)
class _Chosen:
    """What fits one window."""

    rows: list[LeafRow] = field(default_factory=list)
    leases: dict[bytes, int] = field(default_factory=dict)
    puts: dict[bytes, int] = field(default_factory=dict)
    """Of these noz, those for shares that were stored: the governed share is not taken on top of them."""
    repairs: dict[tuple[bytes, int], int] = field(default_factory=dict)
    credits: dict[tuple[bytes, int, int], int] = field(default_factory=dict)
    refused: list[tuple[LeafRow, str]] = field(default_factory=list)
    lost: list[LeafRow] = field(default_factory=list)
    """Their lease ended, and another meta node settles it."""
    waiting: int = 0


class Windows:
    """Makes the windows of the meta node at ``address``. ``on_done`` hears of each receipt that is on the ledger, or never will be."""

    def __init__(
        self,
        ledger: AnyLedger,
        proposer: Proposer,
        books: Books,
        address: bytes,
        clock: Callable[[], float],
        *,
        window_s: float = 60.0,
        on_done: Done = _nobody,
        most_leaves: int = MAX_LEAVES,
    ) -> None:
        self._ledger, self._proposer, self._books, self.address, self._clock = ledger, proposer, books, address, clock
        self.window_s, self.on_done, self._most_leaves = window_s, on_done, most_leaves
        self.finish_release: Callable[[WindowRow], Awaitable[None]] | None = None
        """Finishes a release whose intent is in the books (releases.py)."""
        self._repair_after = b""
        self.settled_leaves = self.settled_noz = 0
        """Since this meta node runs."""

    async def run(self) -> None:
        """Settle every ``window_s`` until cancelled."""
        while True:
            try:
                await self.settle()
            except (LedgerError, LedgerRefused, BooksError) as error:
                log.warning("a window is not on the ledger yet", why=str(error))
            await asyncio.sleep(self.window_s)

    async def settle(self) -> int:
        """Put what is held into windows. How many leaves were settled. Raises LedgerError, LedgerRefused, BooksError."""
        settled = 0
        async with self._books.numbering:
            settled += await self.finish_intended()
            while True:
                rows = await self._books.held_of_leases(self._most_leaves)
                count, is_waiting = await self._window_of(rows)
                settled += count
                if not count or (len(rows) < self._most_leaves and not is_waiting):
                    break
            for _ in range(REPAIR_PAGES):
                rows = await self._books.held_of_repair(self._most_leaves, self._repair_after)
                count, _ = await self._window_of(rows)
                settled += count
                is_last = len(rows) < self._most_leaves
                self._repair_after = b"" if is_last else rows[-1].id
                if is_last:
                    break
        return settled

    async def _window_of(self, rows: Sequence[LeafRow]) -> tuple[int, bool]:
        """Put of some held leaves what fits into one window. (How many were settled, whether others wait.)"""
        if not rows:
            return 0, False
        chosen: _Chosen = await self._ledger.query(partial(self._choose, rows=rows))
        await self._refuse(chosen.refused)
        if chosen.lost:
            # Not refused: their nodes hand them in there, or that one's windows have them already.
            await self._books.drop([row.id for row in chosen.lost])
            log.warning("another meta node settles leases that ended: their receipts are not held here", receipts=len(chosen.lost))
        return (await self._propose(chosen) if chosen.rows else 0), chosen.waiting > 0

    # --- one window ---------------------------------------------------------------------------------------------------------

    def _choose(self, view: ReadView, rows: Sequence[LeafRow]) -> _Chosen:
        """What leases and repair funds can pay of these leaves, within a window's bounds; what does not fit the bounds waits."""
        chosen = _Chosen()
        leases: dict[bytes, tables.Lease | None] = {}
        takers: dict[bytes, tables.Taken | None] = {}
        funds: dict[tuple[bytes, int], int] = {}
        now_ms = int(self._clock() * 1_000)
        for row in rows:
            line = (row.beneficiary, row.fund, row.traffic_class)
            if line not in chosen.credits and len(chosen.credits) == MAX_CREDITS:
                chosen.waiting += 1
                continue
            if row.lease:
                if row.lease not in leases:
                    leases[row.lease] = view.get(tables.LEASE, (row.lease,))
                    takers[row.lease] = view.get(tables.TAKEN, (row.lease,))
                taker = takers[row.lease]
                if taker is not None and taker.meta_node != self.address:
                    chosen.lost.append(row)
                    continue
                if row.lease not in chosen.leases and len(chosen.leases) == MAX_DEBITS:
                    chosen.waiting += 1
                    continue
                given = chosen.leases.get(row.lease, 0)
                refusal = self._unpayable(leases[row.lease], row, given, now_ms)
                if refusal is not None:
                    chosen.refused.append((row, refusal))
                    continue
                chosen.leases[row.lease] = given + row.noz
                if row.action == PUT:
                    chosen.puts[row.lease] = chosen.puts.get(row.lease, 0) + row.noz
            elif not _take_repair(view, row, chosen, funds):
                chosen.waiting += 1
                continue
            chosen.credits[line] = chosen.credits.get(line, 0) + row.noz
            chosen.rows.append(row)
        return chosen

    def _unpayable(self, lease: tables.Lease | None, row: LeafRow, given_noz: int, now_ms: int) -> str | None:
        if lease is None:
            return "the lease was settled before this receipt came into a window"
        if now_ms >= settles_ms(lease):
            return "the lease's time to settle is over"
        if given_noz + row.noz > lease.noz:
            return f"the lease has {lease.noz - given_noz} noz left, this receipt is for {row.noz}"
        return None

    async def _refuse(self, refused: Sequence[tuple[LeafRow, str]]) -> None:
        if not refused:
            return
        await self._books.refuse([(row.id, reason) for row, reason in refused])
        for row, reason in refused:
            log.error("a receipt that was held cannot be paid", serial=row.id.hex(), lease=row.lease.hex(), noz=row.noz, why=reason)
            self._tell(row, 0)

    async def _propose(self, chosen: _Chosen) -> int:
        """Write the intent and propose it. How many leaves are settled: none when the ledger refuses it, which frees them."""
        meta = await self._ledger.query(lambda view: view.get(tables.META, (self.address,)))
        number = (meta.windows if meta is not None else 0) + 1
        root, batch_hash = roots_of(chosen.rows)
        message = Window(
            number=number,
            receipts_root=root,
            receipts_count=len(chosen.rows),
            batch_hash=batch_hash,
            leases=[LeaseDebit(lease_id=key, noz=noz, put_noz=chosen.puts.get(key, 0)) for key, noz in sorted(chosen.leases.items())],
            repairs=[RepairDebit(object_id=key, fund=fund, noz=noz) for (key, fund), noz in sorted(chosen.repairs.items())],
            credits=[Credit(beneficiary=to, fund=fund, traffic_class=kind, noz=noz) for (to, fund, kind), noz in sorted(chosen.credits.items())],
        )
        intent = WindowRow(
            number, Kind.WINDOW, Phase.INTENDED, root, batch_hash, len(chosen.rows), 0, 0, message.SerializeToString(deterministic=True)
        )
        await self._books.intend(intent, [row.id for row in chosen.rows])
        return await self._proposed(intent, message)

    async def _proposed(self, intent: WindowRow, message: Any) -> int:
        try:
            result = await self._proposer.propose("window", message)
        except LedgerRefused as error:
            if await self._on_ledger(intent):
                return await self._done(intent, 0, 0)
            await self._books.free(intent.number)
            log.error("the ledger refuses a window: its receipts wait for the next one", number=intent.number, code=error.code, why=str(error))
            raise
        return await self._done(intent, result.sequence, result.time_ms)

    async def _done(self, intent: WindowRow, sequence: int, time_ms: int) -> int:
        if not sequence:
            row = await self._ledger.query(lambda view: view.get(tables.WINDOW, (self.address, intent.number)))
            time_ms = row.made_ms if row is not None else int(self._clock() * 1_000)
        await self._books.applied(intent.number, sequence, time_ms)
        leaves = await self._books.leaves_of_window(intent.number)
        for leaf in leaves:
            self._tell(leaf, leaf.noz)
        noz = sum(leaf.noz for leaf in leaves)
        self.settled_leaves, self.settled_noz = self.settled_leaves + len(leaves), self.settled_noz + noz
        log.info("a window is on the ledger", number=intent.number, receipts=len(leaves), noz=noz)
        return len(leaves)

    async def _on_ledger(self, intent: WindowRow) -> bool:
        """Whether the ledger has exactly that window."""
        row = await self._ledger.query(lambda view: view.get(tables.WINDOW, (self.address, intent.number)))
        return row is not None and (row.root, row.batch_hash) == (intent.root, intent.batch_hash)

    async def finish_intended(self) -> int:
        """What was intended and of which it is not known whether the ledger has it: settle its leaves, or propose it again. How many leaves were settled.
        To be called with ``books.numbering`` held."""
        intent = await self._books.intended()
        if intent is None:
            return 0
        if intent.kind == Kind.RELEASE:
            if self.finish_release is None:
                raise BooksError(f"release {intent.number} is not finished, and nothing here finishes releases: start this meta node with its audits")
            await self.finish_release(intent)
            return 0
        if await self._on_ledger(intent):
            return await self._done(intent, 0, 0)
        meta = await self._ledger.query(lambda view: view.get(tables.META, (self.address,)))
        if meta is not None and meta.windows >= intent.number:
            # The number is another one's: this one can never be applied.
            await self._books.free(intent.number)
            return 0
        try:
            return await self._proposed(intent, Window.FromString(intent.note))
        except LedgerRefused:
            return 0  # free again: judged anew in the next one

    def _tell(self, row: LeafRow, noz: int) -> None:
        if row.lease:
            self.on_done(row.lease, row.id, noz)


def _take_repair(view: ReadView, row: LeafRow, chosen: _Chosen, funds: dict[tuple[bytes, int], int]) -> bool:
    """Book a leaf of repair or audit traffic: from the object's own fund as far as that goes, then the common one. False where both have too little, or moves
    have not allowed as much yet."""
    own, common, allowed = (row.object, row.fund), (b"", row.fund), (_ALLOWED, row.fund)
    if common not in funds:
        state = state_of(view)
        funds[common] = state.repair_paid_noz if row.fund == tables.PAID else state.repair_promo_noz
        there = view.get(tables.ALLOWED, (row.fund,))
        funds[allowed] = (there.noz if there is not None else 0) if is_word_of_several(view) else MAX_AMOUNT
    if own not in funds:
        stored = view.get(tables.OBJECT, (row.object,))
        funds[own] = stored.repair_noz if stored is not None and stored.state in STORED and stored.fund == row.fund else 0
    from_own = min(funds[own], row.noz)
    parts = [(key, noz) for key, noz in ((own, from_own), (common, row.noz - from_own)) if noz]
    new = sum(key not in chosen.repairs for key, _ in parts)
    if funds[allowed] < row.noz or funds[common] < row.noz - from_own or len(chosen.repairs) + new > MAX_REPAIR_DEBITS:
        return False
    funds[allowed] -= row.noz
    for key, noz in parts:
        funds[key] -= noz
        chosen.repairs[key] = chosen.repairs.get(key, 0) + noz
    return True
