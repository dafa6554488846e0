"""Windows: every minute what a meta node's receipts move is proposed to the ledger; the receipts stay in the books.

    held leaves of leases ─ which end first ─┐             puts: once the ledger has their share (stored.py); refused when no commit can come any more
    held leaves of repair ─ by serial ───────┴─► what each lease and repair fund can pay ─► intent, synced ─► window ─► settled, on_done
                                                    └─ never fits: refused, and an error in the log  │
    after a crash, or an answer that was lost: is that window on the ledger? ─ yes: settled ── no: the same one is proposed again

From four meta nodes on others approve a window before it is proposed, once they have its leaves; until enough of them do it stays intended:

    not approved ─ would the ledger refuse it, or do others name leaves that do not hold? ─ never proposed, or its ``until_s`` is over ─► freed, chosen anew at once
                        └─ no: asked again in a moment, or after a release               └─ it may still be on its way: the same one, or none

A window that may still be on its way is never replaced by another one of its number. No block takes it after its ``until_s``, which others signed with it, so that
is when it is over. Leaves that others name wait (aside.py). Repair that no fund can pay waits, and nothing waits for it.
Sources: rules/windows.py, rules/approvals.py; ADR 10; storage-protocol.md 2, 3.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, Final, NamedTuple

import structlog

from chain.codec.registry import message_class
from modules.settlement.leaves import PUT
from modules.settlement.trees import sum_root
from sds_node.meta.books.aside import Aside
from sds_node.meta.books.books import FIRST_OF_LEASES, Books, BooksError, Kind, LeafRow, Phase, WindowRow
from sds_node.meta.books.stored import Stored
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import FIRST_CODE, Busy, LedgerError
from sds_node.meta.operations import HOLDS_S, AnyLedger, Approve, Asked, LedgerRefused, Proposer, nobody_approves, with_approvals
from sds_node.meta.rules import tables
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.leases import settles_ms, takeover_ms
from sds_node.meta.rules.moves import is_word_of_several
from sds_node.meta.rules.objects import STORED
from sds_node.meta.rules.refusals import NO_QUORUM, OUT_OF_TIME, UNKNOWN_SENDER, USED_NONCE
from sds_node.meta.rules.wire import MAX_AMOUNT, MAX_CREDITS, MAX_DEBITS, MAX_REPAIR_DEBITS, PACKAGE

log = structlog.get_logger("books")

Window: Final = message_class(f"{PACKAGE}.Window")
LeaseDebit: Final = message_class(f"{PACKAGE}.LeaseDebit")
RepairDebit: Final = message_class(f"{PACKAGE}.RepairDebit")
Credit: Final = message_class(f"{PACKAGE}.Credit")

MAX_LEAVES: Final = 20_000
"""In one window; what is left goes into the next one at once."""
MAX_BATCH_BYTES: Final = 64 << 20
"""Of the leaves of one window."""
AGAIN_S: Final = 5.0
"""A window that is not approved is asked for again so soon, or after ``window_s`` if that is sooner."""
LONG_S: Final = 120.0
"""A window that others have not approved for so long is a problem to tell."""
GIVE_UP_S: Final = HOLDS_S + 300.0
"""Then, by the ledger's time, its leaves are chosen anew, unless it may be on its way."""
MOST_ANEW: Final = 4
"""So often leaves are chosen anew in one round."""
_AS_IT_IS: Final = frozenset((NO_QUORUM, OUT_OF_TIME, USED_NONCE, UNKNOWN_SENDER))
"""Refusals that another choice of leaves would get as well."""
_ALLOWED: Final = b"allowed"
REPAIR_PAGES: Final = 10
"""Pages of held leaves of repair that are looked at in one round; the next round goes on behind them."""

Done = Callable[[bytes, bytes, int], None]
"""(lease id, serial, noz): a receipt is on the ledger; with 0 noz, it never will be."""


class NotApproved(BooksError):
    """Too few other meta nodes have approved a window: it stays intended."""


class _Freed(Exception):
    """A window is not intended any more: its leaves are to be chosen anew. The text says why."""


def _nobody(lease_id: bytes, serial: bytes, noz: int) -> None:
    return


def order_of(row: LeafRow) -> tuple[bytes, int, int, bytes]:
    """Settlement's sort key of a leaf."""
    return row.beneficiary, row.fund, row.traffic_class, row.id


def batch_bytes(leaves: Iterable[bytes]) -> bytes:
    """A batch: each leaf's canonical bytes after their length (4 bytes, big-endian)."""
    return b"".join([len(leaf).to_bytes(4, "big") + leaf for leaf in leaves])


def batch_of(data: bytes) -> list[bytes]:
    """The leaves of a batch that ``batch_bytes`` made."""
    found, at = [], 0
    while at < len(data):
        size_bytes = int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : at + 4 + size_bytes])
        at += 4 + size_bytes
    return found


def roots_of(rows: Sequence[LeafRow]) -> tuple[bytes, bytes]:
    """(root with sums over leaves in settlement's order, SHA-256 of their batch in that order)."""
    ordered = sorted(rows, key=order_of)
    root, _ = sum_root([(row.leaf, row.noz) for row in ordered])
    return root, sha256(batch_bytes(row.leaf for row in ordered)).digest()


class _Asking(NamedTuple):
    """Which window others are asked for: its root, since when by the ledger's time (s), and until when it is to hold (s)."""

    root: bytes
    since_s: float
    until_s: int


_NOTHING_ASKED: Final = _Asking(b"", 0.0, 0)


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
    unstored: list[LeafRow] = field(default_factory=list)
    """For puts that were never committed, and cannot be any more."""
    waiting: int = 0
    size_bytes: int = 0


class Windows:
    """Makes the windows of the meta node at ``address``. ``on_done`` hears of each receipt that is on the ledger, or never will be; ``approve`` asks the other
    meta nodes."""

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
        approve: Approve = nobody_approves,
        may_commit: Callable[[bytes], bool] = lambda lease_id: True,
    ) -> None:
        self._ledger, self._proposer, self._books, self.address, self._clock = ledger, proposer, books, address, clock
        self.window_s, self.on_done, self._most_leaves, self._approve = window_s, on_done, most_leaves, approve
        self._may_commit = may_commit
        self._unapproved = 0, 0.0
        """The window that others have not approved, and since when no window was."""
        self._asking = _NOTHING_ASKED
        self._aside = Aside(clock)
        self.finish_release: Callable[[WindowRow], Awaitable[None]] | None = None
        """Finishes a release whose intent is in the books (releases.py)."""
        self._repair_after = b""
        self.settled_leaves = self.settled_noz = 0
        """Since this meta node runs."""

    async def run(self) -> None:
        """Settle every ``window_s`` until cancelled."""
        while True:
            pause_s = self.window_s
            try:
                await self.settle()
            except NotApproved as error:
                pause_s = min(pause_s, AGAIN_S)
                level = log.warning if self.problems() else log.info
                level("a window is not approved yet", why=str(error))
            except (LedgerError, LedgerRefused, BooksError) as error:
                log.warning("a window is not on the ledger yet", why=str(error))
            await asyncio.sleep(pause_s)

    def problems(self) -> list[str]:
        """What is wrong, in sentences."""
        number, since_s = self._unapproved
        if not number or self._clock() - since_s < LONG_S:
            return []
        return [
            f"window {number} of this meta node is not approved by others since {int(self._clock() - since_s)} s: its receipts wait; see why in their logs, "
            "and that they reach this meta node"
        ]

    async def settle(self) -> int:
        """Put what is held into windows. How many leaves were settled. Raises LedgerError, LedgerRefused, BooksError (NotApproved among them)."""
        settled = 0
        async with self._books.numbering:
            settled += await self.finish_intended()
            after = FIRST_OF_LEASES
            while True:
                count, rows, is_waiting = await self._window_of(partial(self._books.held_of_leases, after=after))
                settled += count
                if count and is_waiting:
                    continue  # the rest of this page
                if len(rows) < self._most_leaves:
                    break
                # All of them in each round: what is promised anew is promised as if it were so (``lateness.py``).
                after = rows[-1].action == PUT, rows[-1].settles_ms, rows[-1].id
            for _ in range(REPAIR_PAGES):
                count, rows, _ = await self._window_of(partial(self._books.held_of_repair, after=self._repair_after))
                settled += count
                is_last = len(rows) < self._most_leaves
                self._repair_after = b"" if is_last else rows[-1].id
                if is_last:
                    break
            self._unapproved = 0, 0.0
        return settled

    async def _window_of(self, held: Callable[[int], Awaitable[list[LeafRow]]]) -> tuple[int, list[LeafRow], bool]:
        """Put of some held leaves what fits into one window. (How many were settled, the leaves, whether others wait.)"""
        for is_last in (*[False] * (MOST_ANEW - 1), True):
            rows = await held(self._most_leaves)
            if not rows:
                return 0, rows, False
            # Before the ledger is looked at: what was committed until now is in it.
            ended = {lease for lease in {row.lease for row in rows if row.action == PUT} if not self._may_commit(lease)}
            chosen: _Chosen = await self._ledger.query(partial(self._choose, rows=rows, ended=ended))
            await self._refuse(chosen.refused)
            await self._refuse_unstored(chosen.unstored)
            if chosen.lost:
                # Not refused: their nodes hand them in there, or that one's windows have them already.
                await self._books.drop([row.id for row in chosen.lost])
                log.warning("another meta node settles leases that ended: their receipts are not held here", receipts=len(chosen.lost))
            try:
                return (await self._propose(chosen) if chosen.rows else 0), rows, chosen.waiting > 0
            except _Freed as freed:
                if is_last:
                    raise NotApproved(str(freed)) from None
        raise AssertionError

    # --- one window ---------------------------------------------------------------------------------------------------------

    def _choose(self, view: ReadView, rows: Sequence[LeafRow], ended: Collection[bytes]) -> _Chosen:
        """What leases and repair funds can pay of these leaves, within a window's bounds; what does not fit the bounds waits. ``ended``: leases under which
        nothing is committed any more."""
        chosen, stored = _Chosen(), Stored(view)
        leases: dict[bytes, tables.Lease | None] = {}
        takers: dict[bytes, tables.Taken | None] = {}
        funds: dict[tuple[bytes, int], int] = {}
        now_ms = max(int(self._clock() * 1_000), view.head.time_ms)
        for row in rows:
            if self._aside.has(row.id):
                continue
            line = (row.beneficiary, row.fund, row.traffic_class)
            is_full = chosen.size_bytes + len(row.leaf) + 4 > MAX_BATCH_BYTES
            if is_full or (line not in chosen.credits and len(chosen.credits) == MAX_CREDITS):
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
                lease = leases[row.lease]
                if lease is not None and row.action == PUT and not stored.has(row):
                    if row.lease in ended or view.head.time_ms >= takeover_ms(lease):
                        chosen.unstored.append(row)
                    continue
                if row.lease not in chosen.leases and len(chosen.leases) == MAX_DEBITS:
                    chosen.waiting += 1
                    continue
                given = chosen.leases.get(row.lease, 0)
                refusal = self._unpayable(lease, row, given, now_ms)
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
            chosen.size_bytes += len(row.leaf) + 4
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
        await self._never_pay(refused)
        for row, reason in refused:
            log.error("a receipt that was held cannot be paid", serial=row.id.hex(), lease=row.lease.hex(), noz=row.noz, why=reason)

    async def _refuse_unstored(self, rows: Sequence[LeafRow]) -> None:
        if not rows:
            return
        await self._never_pay([(row, "its share was not stored: no commit had it when its lease was ended, or over") for row in rows])
        log.info("receipts for shares that were not stored are not paid", receipts=len(rows), noz=sum(row.noz for row in rows))

    async def _never_pay(self, refused: Sequence[tuple[LeafRow, str]]) -> None:
        """These leaves are refused for good, each for its reason."""
        if refused:
            await self._books.refuse([(row.id, reason) for row, reason in refused])
        for row, _ in refused:
            self._tell(row, 0)

    async def _propose(self, chosen: _Chosen) -> int:
        """Write the intent and propose it. How many leaves are settled. Raises as ``_proposed``."""
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
            until_s=self._proposer.until_s(),
        )
        intent = WindowRow(
            number, Kind.WINDOW, Phase.INTENDED, root, batch_hash, len(chosen.rows), 0, 0, message.SerializeToString(deterministic=True)
        )
        await self._books.intend(intent, [row.id for row in chosen.rows])
        return await self._proposed(intent, message)

    async def _proposed(self, intent: WindowRow, message: Any) -> int:
        """Have a window approved, and propose it; ``intent.state`` is PROPOSED if it may be on its way already. How many leaves are settled. Raises NotApproved and
        LedgerError where it stays intended, _Freed where it does not, LedgerRefused for either."""
        with_them = await self._approved(intent, message)
        # From now on it may come onto the ledger whatever happens here, until its time is over.
        noted = intent._replace(state=Phase.PROPOSED, note=message.SerializeToString(deterministic=True))
        await self._books.note_intent(noted)
        try:
            result = await self._proposer.propose("window", with_them)
        except (LedgerRefused, Busy) as error:
            if await self._on_ledger(intent):
                return await self._done(intent, 0, 0)
            # That is final: no block will have what was proposed just now. What was proposed before may still be on its way.
            if intent.state == Phase.INTENDED:
                await self._books.note_intent(noted._replace(state=Phase.INTENDED))
                if isinstance(error, LedgerRefused) and _is_its_fault(error):
                    await self._books.free(intent.number)
                    log.error(
                        "the ledger refuses a window: its receipts wait for the next one", number=intent.number, code=error.code, why=str(error)
                    )
            raise
        return await self._done(intent, result.sequence, result.time_ms)

    async def _approved(self, intent: WindowRow, message: Any) -> Any:
        """The window with the approvals that it needs, until a new time. Raises NotApproved, _Freed."""
        now_s, ledger_s = self._clock(), self._ledger.head.time_ms / 1_000
        until_s = self._proposer.until_s()
        if self._asking.root != intent.root:
            self._asking = _Asking(intent.root, max(now_s, ledger_s), until_s)
        elif self._asking.until_s < until_s - HOLDS_S // 2:
            self._asking = self._asking._replace(until_s=until_s)
        # The same message as long as it may be: those who looked at it need not do it again.
        message.until_s = max(self._asking.until_s, message.until_s if intent.state == Phase.PROPOSED else 0)
        asked = await with_approvals(self._ledger, self._approve, message, f"window {intent.number}")
        if asked.message is not None:
            self._unapproved = 0, 0.0
            return asked.message
        self._unapproved = intent.number, self._unapproved[1] or now_s
        if intent.state == Phase.PROPOSED:
            raise NotApproved(f"{asked.why}: it is asked for again")
        is_long = ledger_s > self._asking.since_s + GIVE_UP_S
        if await self._set_aside(intent, asked) or is_long:
            # What others do not approve of may have changed in the meantime.
            await self._books.free(intent.number)
            self._asking = _NOTHING_ASKED
            raise _Freed(f"{asked.why}: its leaves are chosen anew")
        raise NotApproved(f"{asked.why}: it is asked for again")

    async def _set_aside(self, intent: WindowRow, asked: Asked) -> bool:
        """Leave out of a window that was never proposed what others name. Whether it is free then."""
        if not any((*asked.said.bad.values(), *asked.said.unsure.values())):
            return False
        leaves = await self._books.leaves_of_window(intent.number)
        named, aside = self._aside.note(asked.said.bad, asked.said.unsure, [leaf.id for leaf in leaves], asked.enough)
        if not named and not aside:
            return False
        await self._books.free(intent.number)  # before some are refused
        for_good = set(named)
        reason = f"{asked.enough} other meta nodes say that this receipt does not hold, or is settled already; their logs say which"
        await self._refuse([(leaf, reason) for leaf in leaves if leaf.id in for_good])
        log.warning(
            "others do not approve of some receipts: the rest goes ahead", number=intent.number, receipts=len(leaves), aside=aside, refused=len(named)
        )
        return True

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
        found: tuple[bool, int, int] = await self._ledger.query(partial(self._there, intent=intent))
        return found[0]

    def _there(self, view: ReadView, intent: WindowRow) -> tuple[bool, int, int]:
        """(whether the ledger has exactly that window, how many windows of this meta node it has, its time in ms)."""
        row = view.get(tables.WINDOW, (self.address, intent.number))
        meta = view.get(tables.META, (self.address,))
        is_there = row is not None and (row.root, row.batch_hash) == (intent.root, intent.batch_hash)
        return is_there, meta.windows if meta is not None else 0, view.head.time_ms

    def _is_on_its_way(self, intent: WindowRow, ledger_ms: int) -> bool:
        """Whether a window that the ledger had not at that time may still come onto it."""
        return intent.state == Phase.PROPOSED and ledger_ms <= Window.FromString(intent.note).until_s * 1_000

    async def finish_intended(self, *, proposes: bool = True) -> int:
        """What was intended and of which it is not known whether the ledger has it: settle its leaves, or propose it again, unless that is not wanted; or free it,
        where the ledger would not take it. How many leaves were settled. To be called with ``books.numbering`` held. Raises NotApproved where a window waits for
        others."""
        intent = await self._books.intended()
        if intent is None:
            return 0
        if intent.kind == Kind.RELEASE:
            if self.finish_release is None:
                raise BooksError(f"release {intent.number} is not finished, and nothing here finishes releases: start this meta node with its audits")
            await self.finish_release(intent)
            return 0
        is_there, windows, ledger_ms = await self._ledger.query(partial(self._there, intent=intent))
        if is_there:
            return await self._done(intent, 0, 0)
        if windows >= intent.number:
            # The number is another one's: this one can never be applied.
            await self._books.free(intent.number)
            return 0
        if not proposes:
            return 0
        message = Window.FromString(intent.note)
        if not message.until_s:
            # One of a version before: it may have been proposed, and holds as long as operations do.
            message.until_s = self._proposer.until_s()
            intent = intent._replace(state=Phase.PROPOSED, note=message.SerializeToString(deterministic=True))
            await self._books.note_intent(intent)
        if not self._is_on_its_way(intent, ledger_ms):
            intent = intent._replace(state=Phase.INTENDED)
        refusal = await self._refusal(message)
        if refusal is not None and intent.state == Phase.PROPOSED:
            raise NotApproved(f"window {intent.number} may be on its way until {message.until_s} s, and could not be proposed again: {refusal}")
        if refusal is not None:
            await self._books.free(intent.number)
            log.warning("the ledger would refuse a window that waits: its receipts are chosen anew", number=intent.number, why=str(refusal))
            return 0
        try:
            return await self._proposed(intent, message)
        except _Freed:
            return 0
        except LedgerRefused as error:
            if _is_its_fault(error) and intent.state == Phase.INTENDED:
                return 0  # free again: judged anew in the next one
            raise

    async def make_way(self) -> None:
        """``finish_intended`` before a release, which takes the next number: a window that others do not approve now, and that is not on its way, is chosen anew
        after it."""
        try:
            await self.finish_intended()
        except NotApproved:
            intent = await self._books.intended()
            if intent is None or intent.kind != Kind.WINDOW:
                raise
            is_there, _, ledger_ms = await self._ledger.query(partial(self._there, intent=intent))
            if is_there or self._is_on_its_way(intent, ledger_ms):
                raise
            await self._books.free(intent.number)
            log.info("a release goes before a window that is not approved yet", number=intent.number)

    async def _refusal(self, message: Any) -> LedgerRefused | None:
        """Why the ledger would refuse a window that is approved, if another choice of leaves could help."""
        tried = Window.FromString(message.SerializeToString())
        tried.until_s = self._proposer.until_s()
        try:
            await self._proposer.try_out("window", tried)
        except LedgerRefused as error:
            return error if _is_its_fault(error) else None
        return None

    def _tell(self, row: LeafRow, noz: int) -> None:
        if row.lease:
            self.on_done(row.lease, row.id, noz)


def _is_its_fault(error: LedgerRefused) -> bool:
    """Whether another choice of leaves may be taken where this one is not."""
    return error.code >= FIRST_CODE and error.code not in _AS_IT_IS


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
