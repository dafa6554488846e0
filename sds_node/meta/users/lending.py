"""Leases: taken from a wallet's balance for a session, signed, and given back when nothing can come any more.

    lease.take ─► ledger ─► Lease {id, wallet, meta node, noz, fund, times} ─ own signature, others' ─► certificate
    ended or over, no receipt can come ─► what was placed and never stored: a tenth to the repair fund ─► settled, the rest → the wallet

Leases that an earlier process took are in the ledger alone. Commits and receipts under them go on; they are settled when all their limits and the time for
late receipts must be over, and receipts had that time after this start, too. Before the first of them are looked for, what earlier processes took of receipts
goes into windows; a lease of which a receipt waits for a window is not settled. A settlement that fails is tried again at the next look; after its end and
600 s the ledger settles a lease by itself.
Source: storage-protocol.md 2 and 3.3; docs/adr/0009.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import nacl.signing
import structlog

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from modules.settlement.documents import signed_by_key
from sds_node import asking
from sds_node.documents import LEASE_DOMAIN, PACKAGE, Lease, LeaseCertificate, lease_quorum, signature_of
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.leases import SETTLE_S, settles_ms
from sds_node.meta.rules.refusals import NOT_ENOUGH
from sds_node.meta.rules.tables import LEASE, META, WALLET
from sds_node.meta.rules.tables import Lease as LeaseRow
from sds_node.meta.rules.wire import MAX_LEASES, MAX_METAS
from sds_node.meta.users.asked import need, refuse, sized
from sds_node.meta.users.known import Cosign, Settings
from sds_node.meta.users.leases import Held, LeaseBook
from sds_node.meta.users.sessions import BEGUN_BYTES, Session

log = structlog.get_logger("users")

TakeLease: Final = message_class(f"{PACKAGE}.TakeLease")
SettleLeases: Final = message_class(f"{PACKAGE}.SettleLeases")
Commit: Final = message_class(f"{PACKAGE}.Commit")
_PAGE: Final = 1_000

HasLeaves = Callable[[bytes], Awaitable[bool]]
"""A lease's id → whether receipts of it are taken and in no window on the ledger yet."""
Before = Callable[[], Awaitable[object]]
"""Puts what receipts were taken into windows."""


async def no_leaves(lease_id: bytes) -> bool:
    """``HasLeaves`` where nobody takes receipts."""
    return False


async def nothing_before() -> None:
    """``Before`` where nobody takes receipts."""


def lease_document(chain_id: str, row: LeaseRow) -> Any:
    """The Lease of a row that was just taken: what its meta node and others sign."""
    return Lease(
        chain_id=chain_id, lease_id=row.id, wallet=bech32.encode(row.wallet), meta_node=bech32.encode(row.meta_node, bech32.NODE), noz=row.noz, fund=row.fund,
        created_s=row.made_ms // 1_000, expires_s=row.ends_ms // 1_000,
    )  # fmt: skip


class Lending:
    """``lease.take`` and ``lease.end``, and the settlement of leases. ``forget`` is told which leases are settled; ``has_leaves`` is asked before, and
    ``before_lost`` done once before leases of before this start are looked for."""

    def __init__(
        self,
        proposer: Proposer,
        key: nacl.signing.SigningKey,
        book: LeaseBook,
        clock: Callable[[], float],
        cosign: Cosign,
        settings: Settings,
        forget: Callable[[Held], None],
        has_leaves: HasLeaves = no_leaves,
        before_lost: Before = nothing_before,
    ) -> None:
        self._proposer, self._ledger, self._key, self._clock = proposer, proposer.ledger, key, clock
        self._book, self._cosign, self._settings, self._forget = book, cosign, settings, forget
        self._has_leaves, self._before_lost = has_leaves, before_lost
        self._is_begun = False
        self._start_s = clock()

    async def take(self, session: Session, head: Any) -> Any:
        """A LeaseReply for a LeaseHead, under the session's grant. What a client lost it takes again: the first one is settled when it is over."""
        session.may_propose(self._clock())
        row = await self._ledger.query(lambda view: view.get(WALLET, (session.wallet,)))
        if row is None:
            # Anyone can open a session of a new wallet: what the ledger would refuse anyway does not fill its log.
            refuse(asking.LEDGER_CODES + NOT_ENOUGH, f"{session.wallet_text} has no ozone: buy some first")
        message = TakeLease(
            wallet=session.wallet, session_pubkey=session.public_key, fund=head.fund, noz=head.noz, seconds=head.seconds, grant=session.document
        )  # fmt: skip
        async with session.account.in_turn():
            return await self.lend(session, message)

    async def lend(self, session: Session, message: Any) -> Any:
        """The LeaseReply of a TakeLease, whatever the wallet signed for it. Refuses it where the wallet's day of the log is used: what was stored under it would
        wait for tomorrow. Raises what the ledger refuses."""
        need(not self._book.is_full(), asking.TRY_ANOTHER, "too many leases are in hand here: try another meta node")
        session.account.logged.need_room(self._clock(), BEGUN_BYTES)
        with session.account.logging(message, self._clock()):
            taken = (await self._proposer.propose_tried("take_lease", message)).result
        row, state = await self._ledger.query(lambda view: (view.get(LEASE, (taken,)), state_of(view)))
        if row is None:
            refuse(asking.LEASE_LOST, f"lease {taken.hex()} was settled as soon as it was taken: take another one")
        held = self._book.add(row, state)
        try:
            return asking.LeaseReply(certificate=await self._certificate(row))
        except BaseException:
            held.is_ended = True
            raise

    async def _certificate(self, row: LeaseRow) -> Any:
        """The LeaseCertificate of a lease, signed by enough meta nodes."""
        lease = lease_document(self._proposer.chain_id, row)
        body = encode(lease)
        metas = await self._ledger.query(lambda view: {one.address: one.ledger_key for one in view.scan(META, limit=MAX_METAS) if one.is_active})
        needed = lease_quorum(len(metas))
        signatures = {self._proposer.address: signature_of(lease, body, self._key)}
        if needed > 1:
            for address, signature in await self._cosign(body):
                if len(signatures) < needed and signed_by_key(LEASE_DOMAIN, body, metas.get(address, b""), signature):
                    signatures.setdefault(address, signature)
        need(
            len(signatures) >= needed,
            asking.NOT_READY,
            f"the lease needs the signatures of {needed} meta nodes and has {len(signatures)}: ask again in a moment, or another meta node",
        )
        certificate = LeaseCertificate(body=body)
        for address, signature in signatures.items():
            certificate.signatures.add(meta_node=bech32.encode(address, bech32.NODE), signature=signature)
        return certificate

    async def end(self, session: Session, head: Any) -> None:
        """Nothing more will be asked of a lease. One that is settled, or was taken before this start, needs nothing."""
        held = self._book.get(sized(head.lease_id, "lease_id"))
        if held is None:
            return
        own = (held.row.wallet, held.row.session_pubkey) == (session.wallet, session.public_key)
        need(own, asking.LEASE_LOST, f"lease {held.id.hex()} is another session's: end your own")
        held.is_ended = True

    # --- settlement ---

    async def run(self) -> None:
        """Settle what is due, until it is cancelled."""
        loop = asyncio.get_running_loop()
        search_s = loop.time()
        while True:
            try:
                await self.settle_due()
                if loop.time() >= search_s:
                    await self.settle_lost()
                    search_s = loop.time() + self._settings.lost_step_s
            except Exception as error:
                # The ledger is busy or down, the books are: whatever it is, leases wait.
                log.warning("leases are not settled now; it is tried again", error=type(error).__name__, why=str(error))
            await asyncio.sleep(self._settings.step_s)

    async def settle_due(self) -> int:
        """Settle leases in hand of which nothing more can come. How many were."""
        due = [held for held in self._book if self._book.is_due(held)][:MAX_LEASES]
        for held in due:
            held.is_settling = True
        try:
            waiting = await self._with_leaves([held.id for held in due])
            for held in due:
                held.is_settling = held.id not in waiting
            due = [held for held in due if held.is_settling]
            for held in due:
                await self._give_unused(held)
            await self._settle(held.id for held in due)
        except BaseException:
            for held in due:
                held.is_settling = False
            raise
        for held in due:
            self._book.forget(held.id)
            self._forget(held)
        return len(due)

    async def _give_unused(self, held: Held) -> None:
        """What was reserved for shares that were never committed: its tenth → the repair fund."""
        unused_noz = held.replaced_noz + sum(one.bill_noz for one in held.reserved.values())
        if not unused_noz or self._clock() * 1_000 >= settles_ms(held.row):
            return
        try:
            await self._proposer.propose("commit", Commit(lease_id=held.id, unused_noz=unused_noz))
        except LedgerRefused as error:
            log.info("what a lease did not use is not counted", lease=held.id.hex(), why=str(error))
        held.reserved.clear()
        held.escrow_noz = held.replaced_noz = 0

    async def _with_leaves(self, lease_ids: Iterable[bytes]) -> set[bytes]:
        """Those of which receipts wait for a window."""
        return {one for one in lease_ids if await self._has_leaves(one)}

    async def settle_lost(self) -> int:
        """Settle leases that are not in hand, taken before this start, once they and the time for late receipts are over. How many were."""
        if not self._is_begun:
            await self._before_lost()
            self._is_begun = True
        now_s, free_s = self._clock(), self._settings.free_s
        over_ms = int((now_s - (free_s if now_s >= self._start_s + free_s else SETTLE_S)) * 1_000)
        address, after, count = self._proposer.address, b"", 0
        while True:

            def page(view: ReadView, after: bytes = after) -> list[LeaseRow]:
                return view.scan(LEASE, (address,), after=(after,) if after else (), index="by_meta", limit=_PAGE)

            rows = await self._ledger.query(page)
            lost = [row.id for row in rows if row.ends_ms <= over_ms and self._book.get(row.id) is None]
            waiting = await self._with_leaves(lost)
            lost = [one for one in lost if one not in waiting]
            await self._settle(lost)
            count += len(lost)
            if len(rows) < _PAGE:
                return count
            after = rows[-1].id

    async def _settle(self, lease_ids: Iterable[bytes]) -> None:
        """Settle those of at most 1,000 leases that the ledger still has."""
        wanted = sorted(lease_ids)
        if not wanted:
            return
        there = await self._ledger.query(lambda view: [one for one in wanted if view.get(LEASE, (one,)) is not None])
        if there:
            await self._proposer.propose("settle_leases", SettleLeases(lease_ids=there))
