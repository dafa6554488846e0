"""Leases: noz that a meta node holds for a session's transfers. They are taken when they are needed, used by many transfers, and ended.

    need noz ─► an open lease with so many left and time enough ─ none ─► lease.take, for all who wait together, and some more
                   └─ held (counts the objects of puts) ─► given back ─► lease.end when the client closes

What is left of a lease is an estimate: order limits that ended otherwise are known to the meta node alone, and when it says that a lease is spent or lost,
it is. Source: storage-protocol.md 2 and 4; ADR 9 ("what a meta node keeps by itself").
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import structlog

from chain.crypto import address as bech32
from chain.errors import InvalidAddress
from sds_node import asking
from sds_node.client import locks
from sds_node.client.errors import LeaseGone, MetaLied, NotEnoughOzone, StorageError
from sds_node.client.meta import MetaClient
from sds_node.documents import Lease as LeaseDocument
from sds_node.documents import Refused, opened

log = structlog.get_logger("client")

PAID: Final = 1
PROMO: Final = 2
GENEROUS_NOZ: Final = 1 << 30
"""Taken at least, but at most a part of what the wallet has: what is not used comes back, though not before the last receipts are settled."""
GENEROUS_PART: Final = 8
SETTLED_S: Final = 180.0
"""So long what earlier leases hold is waited for: they are settled with the last receipts, about a minute after their end."""
LOOK_S: Final = 5.0
LEAST_LIFE_S: Final = 900
"""A lease with less time is not begun with."""
LONGEST_S: Final = 3_600
MAX_SIGNATURES: Final = 100
_TOO_MANY: Final = asking.LEDGER_CODES + 32
_NOT_ENOUGH: Final = asking.LEDGER_CODES + 31
_OBJECT_DOMAIN: Final = b"stratos/object/v1\x00"


def object_id(lease_id: bytes, counter: int) -> bytes:
    """The id (32 bytes) of the object that a lease's session counts as ``counter`` (ADR 7)."""
    return sha256(_OBJECT_DOMAIN + lease_id + counter.to_bytes(8, "big")).digest()


def in_use_path(folder: Path, lease_id: bytes) -> Path:
    """What the client that took a lease holds in a folder of journals as long as one of them leads to it."""
    return folder / f"{lease_id.hex()}.lease"


@dataclass(eq=False)
class Lease:
    """A lease that was taken. ``meta`` is the P2P address of the node that holds it."""

    certificate: Any
    lease_id: bytes
    meta: bytes
    noz: int
    left_noz: int
    expires_s: int
    counted: int = 0
    users: int = 0
    is_over: bool = False
    kept_for: set[Path] = field(default_factory=set)
    """Journals of puts that were interrupted and go on under it later: it is not ended here while one of them is there."""
    is_lent: bool = False
    """Another client took it, and may use it: it is not ended here."""
    _in_use: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def next_counter(self) -> int:
        """The number of the next object, from 1 on."""
        self.counted += 1
        return self.counted

    def keep(self, journal: Path) -> None:
        """Leave it to a put that was interrupted. Whoever goes on with that, also in another process, sees from now on that this client uses it, too."""
        if not self.kept_for:
            try:
                self._in_use.enter_context(locks.claimed(in_use_path(journal.parent, self.lease_id)))
            except OSError as error:
                log.warning("other processes cannot be told that a lease is in use", lease=self.lease_id.hex(), why=str(error))
        self.kept_for.add(journal)

    def unlock(self) -> None:
        """This client uses it no more."""
        self._in_use.close()


@dataclass(eq=False)
class Expected:
    """What a transfer that is under way will still need, so that one lease is taken for all of it."""

    left_noz: int


@dataclass(eq=False)
class Hold:
    """A part of a lease that one transfer uses."""

    lease: Lease
    noz: int


class Leases:
    """The leases of a client."""

    def __init__(self, client: MetaClient, *, generous_noz: int = GENEROUS_NOZ) -> None:
        self._client, self._generous_noz = client, generous_noz
        self.longest_s = LONGEST_S
        """How long a lease lives: the governed bound, if that is lower."""
        self._open: list[Lease] = []
        self._taking = asyncio.Lock()
        self._waiting_noz = 0
        self._no_wait_until_s = 0.0
        self._expected: list[Expected] = []

    @contextlib.contextmanager
    def expect(self, noz: int) -> Iterator[Expected]:
        """A transfer will need so many noz, bit by bit; it says how many are left."""
        made = Expected(noz)
        self._expected.append(made)
        try:
            yield made
        finally:
            self._expected.remove(made)

    async def hold(self, noz: int, least_noz: int | None = None) -> Hold:
        """A part of ``noz`` of a lease; of a wallet that has less, what it has, down to ``least_noz``. Raises NotEnoughOzone, what ``MetaClient.ask``
        raises.
        """
        noz = max(1, noz)
        least = noz if least_noz is None else max(1, least_noz)
        found = self._fitting(noz)
        if found is None:
            self._waiting_noz += noz
            try:
                async with self._taking:
                    found = self._fitting(noz)
                    if found is None:
                        found = await self._take(noz, least, self._waiting_noz)
            finally:
                self._waiting_noz -= noz
        noz = min(noz, found.left_noz)
        found.left_noz -= noz
        found.users += 1
        return Hold(found, noz)

    def give_back(self, hold: Hold, unused_noz: int = 0) -> None:
        """A transfer is over; of what it held so many noz were not used."""
        hold.lease.users -= 1
        hold.lease.left_noz += min(unused_noz, hold.noz)

    def lost(self, lease: Lease) -> None:
        """The meta node issues nothing under it any more."""
        lease.is_over = True

    def full(self, meta: bytes) -> None:
        """Nothing more is begun under leases of a meta node, by its address; what is under way goes on."""
        for one in self._open:
            one.is_over = one.is_over or one.meta == meta

    def _fitting(self, noz: int) -> Lease | None:
        begins_s = self._client.clock() + min(LEAST_LIFE_S, self.longest_s // 4)
        for one in self._open:
            if not one.is_over and one.left_noz >= noz and one.expires_s > begins_s:
                return one
        return None

    async def _take(self, noz: int, least_noz: int, waiting_noz: int) -> Lease:
        loop = asyncio.get_running_loop()
        # Who waited in vain a moment ago has not to wait once for each of many files.
        until_s = loop.time() + (0 if loop.time() < self._no_wait_until_s else SETTLED_S)
        is_told = False
        while True:
            await self._end_idle()
            row = await self._client.ask(asking.WALLET_INFO, None, asking.WalletRow)
            paid, promo = amount(row.paid_noz), amount(row.promo_noz)
            # Granted noz end some day, so they are used first.
            fund, balance = (PROMO, promo) if promo >= noz or promo > paid else (PAID, paid)
            may_wait = row.open_leases > 0 and loop.time() < until_s
            if balance < least_noz and not may_wait:
                self._no_wait_until_s = loop.time() + SETTLED_S
                held = f"; what {row.open_leases} leases hold comes back within the hour" if row.open_leases else ""
                raise NotEnoughOzone(
                    f"this needs {least_noz} noz, and the wallet has {paid} and {promo} granted ones{held}: buy ozone (ppd prepay) and try again"
                )
            if balance >= least_noz:
                expected = sum(one.left_noz for one in self._expected)
                wanted = min(balance, max(noz, waiting_noz + expected, min(self._generous_noz, balance // GENEROUS_PART)))
                try:
                    return await self._taken(wanted, min(wanted, noz), fund)
                except StorageError as error:
                    if error.code not in (_TOO_MANY, _NOT_ENOUGH) or not may_wait:
                        raise
            if not is_told:
                log.warning("waiting for earlier leases of this wallet to be settled", leases=row.open_leases, paid_noz=paid, needed_noz=least_noz)
                is_told = True
            await asyncio.sleep(LOOK_S)
            if (found := self._fitting(noz)) is not None:
                return found

    async def _taken(self, wanted_noz: int, least_noz: int, fund: int) -> Lease:
        """A lease of so many noz; or of as few as will do under a fresh grant, when another lease was faster, or the grant has less left."""
        try:
            return await self._asked(wanted_noz, fund)
        except NotEnoughOzone:
            self._client.renew()
            return await self._asked(least_noz, fund)

    async def _asked(self, noz: int, fund: int) -> Lease:
        head = asking.LeaseHead(noz=noz, seconds=self.longest_s, fund=fund)
        reply = await self._client.ask(asking.LEASE_TAKE, head, asking.LeaseReply)
        lease = self._checked(reply.certificate, noz, fund)
        self._open.append(lease)
        return lease

    def _checked(self, certificate: Any, noz: int, fund: int) -> Lease:
        """Whether enough meta nodes signed it is for the nodes to judge, who take no order limit else."""
        if len(certificate.signatures) > MAX_SIGNATURES:
            raise MetaLied(f"expected a lease with at most {MAX_SIGNATURES} signatures, got {len(certificate.signatures)}")
        try:
            document = opened(LeaseDocument, certificate.body)
            meta = bech32.decode(document.meta_node, bech32.NODE)
        except (Refused, InvalidAddress) as error:
            raise MetaLied(f"the meta node's lease is none: {error}") from None
        said = (document.chain_id, document.wallet, document.noz, document.fund, len(document.lease_id))
        wanted = (self._client.chain_id, self._client.address, noz, fund, 32)
        if said != wanted or document.expires_s <= self._client.clock():
            raise MetaLied(f"expected a lease of {noz} noz of fund {fund} for {self._client.address}, got another one: ask another meta node")
        holder = self._client.holder(meta)
        return Lease(certificate, bytes(document.lease_id), holder, noz, noz, document.expires_s)

    def known(self, lease_id: bytes) -> Lease | None:
        """One of this client's that was not ended."""
        return next((one for one in self._open if one.lease_id == lease_id), None)

    def forget(self, journal: Path) -> None:
        """No lease is kept for a journal, which leads to it no more."""
        for one in self._open:
            one.kept_for.discard(journal)
            if not one.kept_for:
                one.unlock()

    def adopt(self, certificate: Any, meta: bytes, counted: int) -> Lease:
        """A lease of a session that goes on, lent; what is left of it the meta node knows."""
        document = opened(LeaseDocument, certificate.body)
        lease = Lease(certificate, bytes(document.lease_id), meta, document.noz, document.noz, document.expires_s, counted, is_lent=True)
        self._open.append(lease)
        return lease

    def _is_kept(self, lease: Lease) -> bool:
        """Whether somebody else uses it, or a put goes on under it later."""
        return lease.is_lent or (lease.expires_s > self._client.clock() and any(os.path.exists(one) for one in lease.kept_for))

    async def _end_idle(self) -> None:
        idle = [one for one in self._open if one.users == 0 and not self._is_kept(one)]
        # Nobody begins to use one while those before it are ended.
        for one in idle:
            one.is_over = True
        for one in idle:
            await self._end(one)

    async def close(self) -> None:
        """End all leases that nobody goes on with: what is left goes back to the wallet when the last receipts are there."""
        # Before it is looked who has a journal: one of two that are done at the same time ends what both used, or each does.
        for one in self._open:
            one.unlock()
        await asyncio.gather(*(self._end(one) for one in list(self._open) if not self._is_kept(one)))

    async def _end(self, lease: Lease) -> None:
        if lease not in self._open:
            return  # another call ends it
        lease.is_over = True
        self._open.remove(lease)
        lease.unlock()
        try:
            async with asyncio.timeout(10):
                await self._client.ask(asking.LEASE_END, asking.LeaseEndHead(lease_id=lease.lease_id), None, meta=lease.meta)
        except LeaseGone:
            pass
        except (StorageError, TimeoutError) as error:
            log.info("a lease ends by itself", lease=lease.lease_id.hex(), why=str(error) or "no answer in time")


def amount(text: str) -> int:
    """A number of noz as a meta node writes it, empty for 0. Raises MetaLied."""
    if len(text) > 40 or (text and not (text.isascii() and text.isdigit())):
        raise MetaLied(f"expected a number of noz from a meta node, got {text[:50]!a}")
    return int(text or 0)
