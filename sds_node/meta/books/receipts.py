"""Receipts come in: what resource nodes hand in is judged, kept on disk and answered; what became of it is told; what a node earns is added up.

    node.receipts ─ known already? ─ judged in threads ─ kept, synced ─► HELD       node.settled ─► HELD, SETTLED, REFUSED
                        └► as before     └► REFUSED, or left open with the reason    node.earnings ─► escrow, earned, held

REFUSED is for good. What may become good later has no state and a reason: another meta node is responsible, or the receipt is not final yet.
Sources: ADR 9; storage-protocol.md 4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import structlog

from modules.settlement.commitment import node_of
from modules.settlement.leaves import Leaf
from sds_node import asking
from sds_node.meta.books.books import Books, LeafRow, State
from sds_node.meta.books.judging import Asked, Facts, Judge, Verdict, read
from sds_node.meta.books.others import Others
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.nodes.handling import handler
from sds_node.meta.nodes.registry import Registry
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules import tables
from sds_node.meta.rules.objects import STORED, released_until, share_escrow
from sds_node.meta.rules.places import days_of, held_of
from sds_node.meta.rules.tables import EARNED, LEASE, META, OBJECT, SEGMENT, TAKEN, Lease, Meta, Node, Object
from sds_node.meta.rules.wire import MAX_SEGMENT
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection, Handler

log = structlog.get_logger("books")

PIECE_LEAVES: Final = 250
"""Judged by one thread at a time."""
ESCROW_FRESH_S: Final = 600
HELD_FRESH_S: Final = 30
ESCROW_PAGE: Final = 2_000
MAX_ESCROWS: Final = 10_000
SERIAL_BYTES: Final = (16, 20)
LEASE_DUTY: Final = b"lease"
"""Before a lease's id: the duty to settle it when its meta node is gone."""

UNSPECIFIED, HELD, SETTLED, REFUSED = 0, 1, 2, 3
"""Of ReceiptState."""
_STATES: Final = {State.HELD: HELD, State.IN_WINDOW: HELD, State.SETTLED: SETTLED, State.REFUSED: REFUSED}


class Receipts:
    """The handlers for receipts of the meta node at ``address`` (20 bytes). ``clock`` tells Unix seconds; ``threads`` judge; ``away_ms`` is from when until
    when this meta node took no receipts before this start. ``online`` gives the meta nodes that are there, this one among them (without it, those that are
    active), and ``has_duty(b"lease" + id)`` says whose lease this one settles when its own meta node is not (without it, each)."""

    def __init__(
        self,
        ledger: AnyLedger,
        books: Books,
        registry: Registry,
        chain_id: str,
        address: bytes,
        clock: Callable[[], float],
        *,
        threads: int = 2,
        away_ms: tuple[int, int] = (0, 0),
        online: Callable[[], Sequence[bytes]] | None = None,
        has_duty: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._ledger, self._books, self._registry, self._clock = ledger, books, registry, clock
        self._chain_id, self._address, self._away_ms = chain_id, address, away_ms
        self._online, self._has_duty = online, has_duty
        self._others = Others(books)
        self._judge = Judge()
        self._pool = ThreadPoolExecutor(threads, "receipts")
        self._escrows: dict[int, tuple[float, int]] = {}
        self._helds: dict[bytes, tuple[float, int]] = {}
        self._adding = asyncio.Lock()

    def handlers(self) -> dict[str, Handler]:
        """The methods for ``wire.node.Node``."""
        return {
            asking.NODE_RECEIPTS: handler(self._registry, asking.ReceiptsBatch, self._receipts, in_body=True),
            asking.NODE_SETTLED: handler(self._registry, asking.SerialList, self._settled, in_body=True),
            asking.NODE_EARNINGS: handler(self._registry, None, self._earnings, in_body=False),
        }

    def close(self) -> None:
        self._pool.shutdown()

    # --- what comes in ------------------------------------------------------------------------------------------------------

    async def _receipts(self, batch: Any, row: Node, connection: Connection) -> Any:
        if len(batch.leaves) > asking.MAX_LEAVES:
            raise wire_errors.Refused(asking.BAD_ASK, f"expected at most {asking.MAX_LEAVES} leaves, got {len(batch.leaves)}: send them in parts")
        return await self.take(batch.leaves, row)

    async def take(self, leaves: Any, row: Node) -> Any:
        """Judge and keep leaves of a node → ReceiptAnswers, in the same order; those that say HELD are on the disk."""
        loop = asyncio.get_running_loop()
        asked: list[Asked] = await loop.run_in_executor(self._pool, lambda: [read(leaf) for leaf in leaves])
        found = await self._books.known([one.serial for one in asked])
        # A serial of another node's tells this one nothing: its leaf is judged, as if there were none.
        known = {serial: leaf for serial, leaf in found.items() if _is_of(leaf, row)}
        new = [at for at, one in enumerate(asked) if one.serial not in known or _is_larger(one, known[one.serial])]
        facts = await self._facts({bytes(asked[at].limit.lease_id) for at in new if asked[at].limit is not None}, row)
        pieces = [new[begin : begin + PIECE_LEAVES] for begin in range(0, len(new), PIECE_LEAVES)]
        judged = await asyncio.gather(*(loop.run_in_executor(self._pool, self._judged, [asked[at] for at in piece], facts) for piece in pieces))
        verdicts = dict(zip(new, (verdict for piece in judged for verdict in piece), strict=True))
        good = [(at, verdict.row) for at, verdict in verdicts.items() if verdict.row is not None]
        kept = dict(zip((at for at, _ in good), await self._books.hold([one for _, one in good]), strict=True)) if good else {}
        answers = asking.ReceiptAnswers()
        for at, one in enumerate(asked):
            if at in kept:
                state, reason = _STATES[kept[at].state], kept[at].reason
            elif at in verdicts:
                state, reason = (REFUSED if verdicts[at].is_final else UNSPECIFIED), verdicts[at].reason
            else:
                before = known[one.serial]
                state, reason = _STATES[State(before.state)], before.reason
            answers.answers.add(serial=one.serial, state=state, reason=reason)
        refused = [verdict.reason for verdict in verdicts.values() if verdict.row is None and verdict.is_final]
        if refused:
            log.info("receipts of a node are refused", node=row.number, receipts=len(refused), why=refused[0])
        return answers

    def _judged(self, asked: list[Asked], facts: Facts) -> list[Verdict]:
        return [self._judge.judge(one, facts) for one in asked]

    async def _facts(self, lease_ids: set[bytes], row: Node) -> Facts:
        wanted = [key for key in lease_ids if len(key) == 32]

        def ask(view: ReadView) -> tuple[dict[bytes, Lease], dict[bytes, Meta], dict[bytes, bytes], dict[bytes, tables.Asked], int]:
            leases = {key: lease for key in wanted if (lease := view.get(LEASE, (key,))) is not None}
            taken = {key: one.meta_node for key in leases if (one := view.get(TAKEN, (key,))) is not None}
            asked = {key: found for key in leases if (found := view.get(tables.ASKED, (key,))) is not None}
            return leases, {meta.address: meta for meta in view.scan(META, limit=10_000)}, taken, asked, view.head.time_ms

        leases, metas, taken, asked, ledger_ms = await self._ledger.query(ask)
        now_ms = int(self._clock() * 1_000)
        foreign = {lease.id: lease.meta_node for lease in leases.values() if lease.meta_node != self._address and now_ms >= lease.ends_ms}
        owners = {owner: metas[owner].windows for owner in foreign.values() if owner in metas}
        behind_ms = await self._others.behind(owners, now_ms) if owners else {}
        there = frozenset(self._online()) if self._online is not None else None
        duties = frozenset(key for key in foreign if self._has_duty(LEASE_DUTY + key)) if self._has_duty is not None else None
        return Facts(
            self._chain_id,
            self._address,
            self._books.boot,
            now_ms,
            row,
            leases,
            metas,
            self._away_ms,
            ledger_ms,
            taken,
            there,
            duties,
            behind_ms,
            asked,
        )

    async def _settled(self, asked: Any, row: Node, connection: Connection) -> Any:
        serials = [bytes(one) for one in asked.serials]
        if len(serials) > asking.MAX_LEAVES or any(len(one) not in SERIAL_BYTES for one in serials):
            raise wire_errors.Refused(asking.BAD_ASK, f"expected at most {asking.MAX_LEAVES} serials of 16 bytes, got {len(serials)} or others")
        answers = asking.ReceiptAnswers()
        known = await self._books.known(serials)
        for serial in serials:
            found = known.get(serial)
            if found is None or not _is_of(found, row):
                answers.answers.add(serial=serial, reason="no receipt of this serial is here: hand it in")
            else:
                answers.answers.add(serial=serial, state=_STATES[State(found.state)], reason=found.reason)
        return answers

    # --- what a node earns --------------------------------------------------------------------------------------------------

    async def _earnings(self, asked: Any, row: Node, connection: Connection) -> Any:
        """NodeEarningsReply. Earned and held are those of the node's beneficiary, whose other nodes count too."""

        def ask(view: ReadView) -> int:
            return sum(one.noz for one in view.scan(EARNED, (row.beneficiary,), limit=16))

        earned_noz = await self._ledger.query(ask)
        held_noz = await self._held(row.beneficiary)
        escrow_noz = await self._escrow(row)
        return asking.NodeEarningsReply(escrow_noz=str(escrow_noz), earned_noz=str(earned_noz), held_noz=str(held_noz), shares=row.shares)

    async def _held(self, beneficiary: bytes) -> int:
        """What a beneficiary's receipts bring that are in no window, as of at most 30 s ago. One is added up at a time."""
        async with self._adding:
            before = self._helds.get(beneficiary)
            if before is not None and 0 <= self._clock() - before[0] < HELD_FRESH_S:
                return before[1]
            if len(self._helds) >= MAX_ESCROWS:
                self._helds.clear()
            noz = await self._books.held_noz(beneficiary)
            self._helds[beneficiary] = (self._clock(), noz)
            return noz

    async def _escrow(self, row: Node) -> int:
        """What the escrows of a node's shares have left for it, as of at most ten minutes ago. One node is added up at a time, in pages."""
        async with self._adding:
            before = self._escrows.get(row.number)
            if before is not None and 0 <= self._clock() - before[0] < ESCROW_FRESH_S:
                return before[1]
            first, total = 0, 0
            while True:
                page: tuple[int, int, int] = await self._ledger.query(partial(_escrow_page, node=row.number, first=first))
                noz, count, last = page
                total += noz
                if count < ESCROW_PAGE:
                    break
                first = last + 1
            if len(self._escrows) >= MAX_ESCROWS:
                self._escrows.clear()
            self._escrows[row.number] = (self._clock(), total)
            return total


def _is_larger(asked: Asked, row: LeafRow) -> bool:
    """Whether a leaf may replace the one of the same serial that is here."""
    return row.state == State.HELD and asked.receipt is not None and asked.receipt.bytes_acked > row.acked_bytes


def _is_of(leaf: LeafRow, row: Node) -> bool:
    """Whether a leaf that is here is a node's: it pays the same account, or its order limit names the node."""
    if leaf.beneficiary == row.beneficiary:
        return True
    asked = read(Leaf.FromString(leaf.leaf))
    return asked.limit is not None and node_of(asked.limit.node) == row.address


def _escrow_page(view: ReadView, node: int, first: int) -> tuple[int, int, int]:
    """(noz, shares, last segment) of a page of a node's shares."""
    entries = held_of(view, node, first, MAX_SEGMENT, ESCROW_PAGE)
    objects: dict[bytes, Object | None] = {}
    noz = 0
    for number, index in entries:
        segment = view.get(SEGMENT, (number,))
        if segment is None:
            continue
        if segment.object not in objects:
            objects[segment.object] = view.get(OBJECT, (segment.object,))
        row = objects[segment.object]
        if row is None or row.state not in STORED:
            continue
        escrow = share_escrow(row, number - row.first_segment)
        noz += row.terms * escrow - released_until(escrow, days_of(segment.days)[index], row.term_days)
    return noz, len(entries), entries[-1][0] if entries else first
