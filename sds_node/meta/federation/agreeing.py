"""What a meta node has others sign or tell, and what it signs and tells for them: nobody signs what he has not made himself.

    cosign(lease) ────────┐                 ┌─ this ledger has the lease, byte for byte; one of repair: its own meta node asks, for a payer who stores ─► signature
    gather(observation) ──┼─► all others ───┼─ Observer.countersign: made from the own node of the chain, compared ───────────────────────────────────► signature
    gather_bls(draft) ────┘  (as they come) └─ Reporter.countersign: made from the own ledger and books, compared ────────────────────────────────────► signature
         each checked under its sender's key; enough of them, or time is over ─► back
    fetch_roots(segment) ─► one after the other, who served last first ─► checked against the segment's root in the ledger

Another's block may come a moment later than its question: the answering side waits for that, briefly. A lying, silent or slow meta node costs a bounded time.
Sources: docs/adr/0010; storage-protocol.md 1.7 and 2.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, TypeVar

import nacl.signing
import structlog

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.quorum import quorum
from chain.reports import Draft
from modules.settlement.commitment import wallet_of
from modules.settlement.documents import signed_by_key
from sds_node import asking, p2p
from sds_node.documents import LEASE_DOMAIN, PACKAGE, Lease, Refused, is_repair_lease, lease_quorum, opened, signature_of
from sds_node.meta.books.releases import RootsOf
from sds_node.meta.federation.peers import Bounds, Peers
from sds_node.meta.federation.roots import RootsOfOthers
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import AnyLedger
from sds_node.meta.relay.observer import Behind
from sds_node.meta.relay.reading import ObservingError
from sds_node.meta.relay.reporter import NotYet, Unequal
from sds_node.meta.rules import tables
from sds_node.meta.rules.wire import OBSERVATION_DOMAIN
from sds_node.meta.users.lending import lease_document
from sds_node.transfers import parsed
from sds_node.value_chain.client import ValueChainError
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Handler
from sds_node.wire.limits import Bucket

log = structlog.get_logger("metas")

LedgerSignature: Final = message_class(f"{PACKAGE}.LedgerSignature")

COSIGN_S: Final = 5.0
OBSERVATION_S: Final = 15.0
REPORT_S: Final = 60.0
"""An epoch's trees are made by each that signs it."""
ROOTS_S: Final = 10.0
LEASE_WAIT_S: Final = 2.0
"""How long the answering side waits for its ledger to have a lease; ``WAIT_S``: to be where an observation or a report begins."""
WAIT_S: Final = 3.0
LOOK_S: Final = 0.05
MAX_SIGNATURE_BYTES: Final = 512
COSIGN: Final = Bounds(256, 4_096)
OBSERVATION: Final = Bounds(2, asking.MAX_BODY_BYTES, per_s=10, burst=100)
"""Blocks of the chain are read and looked through for each."""
REPORT: Final = Bounds(2, asking.MAX_BODY_BYTES, per_s=0.25, burst=20)
"""An epoch's trees are made for each."""
ROOTS: Final = Bounds(4, 8_192)
MOST_FETCHED: Final = 16
"""Segments whose roots are asked of others at a time."""
UNKNOWN_S: Final = 60.0
"""A segment whose roots nobody had, and a meta node that failed to tell roots, is not asked again sooner."""
MAX_UNKNOWN: Final = 10_000
REPAIR_LEASES: Final = 1_000
"""Leases of repair that are signed for one meta node at once; one more each ``ONE_MORE_S``. Each is for a payer and a fund, for an hour."""
ONE_MORE_S: Final = 3.0
REPAIR_SKEW_S: Final = 60
"""A lease of repair begins now, by both clocks."""

_is_telling: ContextVar[bool] = ContextVar("is_telling", default=False)
"""Roots are looked up for another meta node: what is not here is not asked of a third one."""
T = TypeVar("T")
BlsKeys = Callable[[], Awaitable[Mapping[bytes, bytes]]]
"""The registered BLS keys (48 bytes) by meta node. Raises ValueChainError."""
Countersign = Callable[[bytes], Awaitable[bytes]]
CountersignReport = Callable[[Draft], Awaitable[bytes]]


class Agreeing:
    """Of the meta node of ``peers``, whose ledger key is ``key`` and whose BLS key is ``bls_pubkey``. ``roots_of`` tells share roots that are kept here;
    ``bls_keys`` the chain's keys. ``clock`` tells Unix seconds."""

    def __init__(
        self,
        peers: Peers,
        ledger: AnyLedger,
        chain_id: str,
        key: nacl.signing.SigningKey,
        bls_pubkey: bytes,
        roots_of: RootsOf,
        bls_keys: BlsKeys,
        clock: Callable[[], float],
    ) -> None:
        self._peers, self._ledger, self._chain_id, self._key, self._bls_pubkey = peers, ledger, chain_id, key, bls_pubkey
        self._roots_of, self._bls_keys, self._clock = roots_of, bls_keys, clock
        self._fetches = asyncio.Semaphore(MOST_FETCHED)
        self._others = RootsOfOthers(peers, timeout_s=ROOTS_S, failed_s=UNKNOWN_S)
        self._unknown: OrderedDict[int, float] = OrderedDict()
        self._repairs: dict[bytes, Bucket] = {}

    # --- asking -------------------------------------------------------------------------------------------------------------

    async def cosign(self, body: bytes) -> Sequence[tuple[bytes, bytes]]:
        """(meta node, signature) of as many others as the Lease with that body needs; fewer when time is over. Raises LedgerError."""
        metas = await self._metas()
        needed = lease_quorum(max(1, len(metas))) - 1
        found = await self._collected(asking.META_COSIGN, body, needed, COSIGN_S, partial(self._signed, metas, LEASE_DOMAIN, body))
        return list(found.items())

    async def gather(self, observation: bytes) -> Mapping[bytes, bytes]:
        """Signatures of as many others as an Observation needs, by meta node; fewer when time is over. Raises LedgerError."""
        metas = await self._metas()
        needed = quorum(len(metas)) - (self._peers.address in metas)
        judge = partial(self._signed, metas, OBSERVATION_DOMAIN, observation)
        return await self._collected(asking.META_OBSERVATION, observation, needed, OBSERVATION_S, judge)

    async def gather_bls(self, draft: Draft) -> Mapping[bytes, bytes]:
        """BLS signatures of as many others as a report needs, by BLS key; fewer when time is over. Raises LedgerError, ValueChainError."""
        metas = await self._metas()
        needed = quorum(len(metas)) - (self._peers.address in metas)
        if needed <= 0:
            return {}
        keys, message = await self._bls_keys(), draft.message

        async def judge(address: bytes, raw: bytes) -> tuple[bytes, bytes] | None:
            given = parsed(asking.BlsSignature, raw)
            key = keys.get(address, b"")
            # One that gives another's key, or one that is not registered, does not count towards the quorum.
            if not key or given.bls_pubkey != key or not await asyncio.to_thread(bls.verify, key, message, given.signature):
                return None
            return key, given.signature

        body = encode(asking.ReportDraft(commitment=draft.commitment, report=draft.report))
        return dict((await self._collected(asking.META_REPORT, body, needed, REPORT_S, judge)).values())

    async def fetch_roots(self, segment: tables.Segment) -> Sequence[bytes] | None:
        """Roots of the shares of a segment, from whoever has them, checked against the segment's own; None when nobody does. Raises nothing."""
        now_s = asyncio.get_running_loop().time()
        if _is_telling.get() or self._unknown.get(segment.number, 0.0) > now_s:
            return None
        async with self._fetches:
            for address in self._others.in_order():
                roots = (await self._others.ask(address, [segment])).get(segment.number)
                if roots is not None:
                    self._unknown.pop(segment.number, None)
                    return roots
        self._unknown[segment.number] = now_s + UNKNOWN_S
        self._unknown.move_to_end(segment.number)
        if len(self._unknown) > MAX_UNKNOWN:
            self._unknown.popitem(last=False)
        return None

    async def _metas(self) -> Mapping[bytes, bytes]:
        """Ledger keys of the active meta nodes, by address."""
        await self._peers.refresh()
        return {address: row.ledger_key for address, row in self._peers.active().items()}

    async def _collected(
        self, method: str, body: bytes, needed: int, timeout_s: float, judge: Callable[[bytes, bytes], Awaitable[T | None]]
    ) -> dict[bytes, T]:
        """What ``judge`` makes of answers, by meta node, until ``needed`` were good."""
        found: dict[bytes, T] = {}
        if needed <= 0:
            return found
        asked = self._peers.ask_all(method, body, most_bytes=MAX_SIGNATURE_BYTES, timeout_s=timeout_s)
        async with aclosing(asked) as answers:  # type: ignore[type-var]
            async for address, raw in answers:
                try:
                    good = await judge(address, raw)
                except wire_errors.BadRequest:
                    good = None
                if good is None:
                    log.warning("a signature of a meta node does not hold", node=p2p.format_address(address), method=method)
                    continue
                found[address] = good
                if len(found) >= needed:
                    break
        return found

    async def _signed(self, metas: Mapping[bytes, bytes], domain: bytes, body: bytes, address: bytes, raw: bytes) -> bytes | None:
        given = parsed(LedgerSignature, raw)
        is_good = given.meta_node == address and signed_by_key(domain, body, metas.get(address, b""), given.signature)
        return bytes(given.signature) if is_good else None

    # --- answering ----------------------------------------------------------------------------------------------------------

    def handlers(self, observation: Countersign, report: CountersignReport) -> dict[str, Handler]:
        """The methods for ``wire.node.Node``: ``observation`` is ``Observer.countersign``, ``report`` ``Reporter.countersign``."""
        return {
            asking.META_COSIGN: self._peers.guarded(COSIGN, self._cosign),
            asking.META_OBSERVATION: self._peers.guarded(OBSERVATION, partial(self._observation, observation)),
            asking.META_REPORT: self._peers.guarded(REPORT, partial(self._report, report)),
            asking.META_ROOTS: self._peers.guarded(ROOTS, self._roots),
        }

    async def _cosign(self, caller: bytes, head: bytes, body: bytes) -> bytes:
        try:
            lease = opened(Lease, body)
        except Refused as error:
            raise wire_errors.BadRequest(str(error)) from None
        row = await self._lease(bytes(lease.lease_id), LEASE_WAIT_S if not is_repair_lease(lease) else 0.0)
        if row is None and is_repair_lease(lease):
            await self._check_repair(caller, lease)
        elif row is None:
            raise wire_errors.Refused(asking.LEASE_LOST, f"this ledger has no lease {lease.lease_id.hex()[:64]}")
        elif encode(lease_document(self._chain_id, row)) != body:
            raise wire_errors.Refused(asking.NOT_EQUAL, f"this ledger has lease {row.id.hex()} with other terms")
        return encode(LedgerSignature(meta_node=self._peers.address, signature=signature_of(lease, body, self._key)))

    async def _lease(self, lease_id: bytes, wait_s: float) -> tables.Lease | None:
        """The ledger's row, once it is there; None when it is not in ``wait_s``."""
        if len(lease_id) != tables.ID_BYTES:
            raise wire_errors.BadRequest(f"expected a lease id of {tables.ID_BYTES} bytes, got {len(lease_id)}")
        loop = asyncio.get_running_loop()
        until_s, sequence = loop.time() + wait_s, -1
        while True:
            # Many may wait at a time: the ledger is asked when it has moved, no sooner.
            if self._ledger.head.sequence != sequence:
                sequence = self._ledger.head.sequence
                row: tables.Lease | None = await self._ledger.query(lambda view: view.get(tables.LEASE, (lease_id,)))
                if row is not None:
                    return row
            if loop.time() >= until_s:
                return None
            await asyncio.sleep(LOOK_S)

    async def _check_repair(self, caller: bytes, lease: Any) -> None:
        """Raises the refusal unless a lease of repair, which is in no ledger, is what its own meta node may have: now, for one who pays for something."""
        if lease.chain_id != self._chain_id or lease.meta_node != bech32.encode(caller, bech32.NODE):
            raise wire_errors.Refused(asking.NOT_EQUAL, "expected a lease of repair of this chain, asked for by the meta node that it names")
        if abs(lease.created_s - self._clock()) > REPAIR_SKEW_S:
            raise wire_errors.Refused(
                asking.NOT_EQUAL, f"expected a lease of repair that begins now, {int(self._clock())} s, got {lease.created_s} s"
            )
        payer = wallet_of(lease.wallet)
        if payer is None or not await self._ledger.query(lambda view: _stores(view, payer)):
            raise wire_errors.Refused(asking.NOT_EQUAL, "expected a lease of repair for a wallet that pays for an object, this ledger has none of it")
        now = asyncio.get_running_loop().time()
        bucket = self._repairs.setdefault(caller, Bucket(1 / ONE_MORE_S, REPAIR_LEASES - 1, now))
        if bucket.wait_s(now) > 0:
            raise wire_errors.Busy("too many leases of repair were signed for this meta node in the last hour: ask again in some minutes")
        bucket.take(1, now)

    async def _observation(self, countersign: Countersign, caller: bytes, head: bytes, body: bytes) -> bytes:
        try:
            signature = await self._waited(lambda: countersign(body), Behind)
        except ObservingError as error:
            raise wire_errors.Refused(asking.NOT_READY if isinstance(error, Behind) else asking.NOT_EQUAL, str(error)) from None
        except ValueChainError as error:
            raise wire_errors.Refused(asking.NOT_READY, f"the chain's node of this meta node does not tell: {error}") from None
        return encode(LedgerSignature(meta_node=self._peers.address, signature=signature))

    async def _report(self, countersign: CountersignReport, caller: bytes, head: bytes, body: bytes) -> bytes:
        given = parsed(asking.ReportDraft, body)
        draft = Draft(self._chain_id, given.commitment, given.report)
        try:
            signature = await self._waited(lambda: countersign(draft), NotYet)
        except Unequal as error:
            raise wire_errors.Refused(asking.NOT_READY if isinstance(error, NotYet) else asking.NOT_EQUAL, str(error)) from None
        except ValueChainError as error:
            raise wire_errors.Refused(asking.NOT_READY, f"the chain's node of this meta node does not tell: {error}") from None
        return encode(asking.BlsSignature(bls_pubkey=self._bls_pubkey, signature=signature))

    async def _waited(self, ask: Callable[[], Awaitable[bytes]], behind: type[Exception]) -> bytes:
        """What ``ask`` gives, asked again while this meta node is behind, for some seconds."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + WAIT_S
        while True:
            try:
                return await ask()
            except behind:
                if loop.time() >= until_s:
                    raise
            await asyncio.sleep(4 * LOOK_S)

    async def _roots(self, caller: bytes, head: bytes, body: bytes) -> bytes:
        numbers = list(dict.fromkeys(parsed(asking.SegmentList, body).segments))
        if len(numbers) > asking.MAX_ROOTS_ASKED or any(number >= 1 << 63 for number in numbers):
            raise wire_errors.Refused(asking.BAD_ASK, f"expected at most {asking.MAX_ROOTS_ASKED} numbers of segments, got {len(numbers)}")

        def read(view: ReadView) -> list[tables.Segment]:
            return [row for number in numbers if (row := view.get(tables.SEGMENT, (number,))) is not None]

        rows = await self._ledger.query(read)
        token = _is_telling.set(True)
        try:
            known = await self._roots_of(rows)
        finally:
            _is_telling.reset(token)
        answer = asking.SegmentShareRootsList()
        for number in numbers:
            if number in known:
                answer.segments.add(segment=number, roots=b"".join(known[number]))
        return encode(answer)


def _stores(view: ReadView, payer: bytes) -> bool:
    """Whether a wallet pays for an object."""
    return bool(view.scan(tables.OBJECT, (payer,), index="by_hash", limit=1))
