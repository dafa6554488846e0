"""Which order limits a node takes: each is checked once, and no part of a lease is taken twice.

    certificate ─ once per lease ─► lease          what is taken of a lease: disjoint ranges [from, to)
    limit + grant ─ every limit ──► Accepted       a second limit for a range that is taken is evidence against its meta node

Prices are floors: a node moves no byte for less than the network's price, whoever asks, since it is paid by the limit's max_noz and nothing else.

    GET   a noz a byte            PUT   the receipt's part of a noz a byte (half, by the default of the governed escrow ratio), at least 1
    REPAIR   a share that comes in: as PUT; one that goes out: 1, since a node that leaves hands its shares over for a noz each

The rules by which a limit is judged are settlement's, so what a node takes can be paid. Time is an argument, never read.
Sources: storage-protocol.md 2 (lease) and 4; storage-interfaces.md 4.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final

from sortedcontainers import SortedDict

from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from modules.settlement.commitment import node_of
from modules.settlement.documents import OrderLimit
from modules.settlement.leaves import AUDIT, GET, REPAIR, faults_of_authority, faults_of_limit
from modules.settlement.leaves import PUT as WRITES
from sds_node.documents import Authority, Lease, Refused, SignedDocument, check_lease, check_signature, is_repair_lease, opened
from sds_node.schemes import ESCROW_RATIO_E18, RATIO_ONE

TrafficEvidence: Final = message_class("stratos.settlement.v1.TrafficEvidence")
CLOCK_SKEW_S: Final = 60
"""How far the clocks of a meta node and of a node may be apart."""
MAX_LEASES: Final = 100_000
MAX_LIMITS_OF_A_LEASE: Final = 100_000
MAX_LIMITS: Final = 1_000_000
"""Of all leases together: about a kilobyte of memory each, until their lease expires."""


class UsedAlready(Refused):
    """The same order limit was taken before."""


class Overlap(Refused):
    """A meta node gave one part of a lease to two. ``first`` and ``second`` are the SignedDocuments of both order limits: a fraud proof."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__("the range of this order limit is taken by another one: its meta node has used the lease twice")
        self.first, self.second = first, second


@dataclass(slots=True)
class _Taken:
    """A lease in use. ``ranges`` maps from_noz to the bytes of the SignedDocument of the limit that begins there."""

    lease: Any
    ranges: SortedDict = field(default_factory=SortedDict)


class Limits:
    """What one node has accepted. Not safe for several threads at once.

    ``node`` is its network address, ``beneficiary`` the account (20 bytes as text) that its traffic is paid to, ``escrow_ratio_e18`` the part of an upload's
    price, in units of 10^-18, that its receipt does not pay.
    """

    def __init__(self, authority: Authority, node: bytes, beneficiary: str, escrow_ratio_e18: int = ESCROW_RATIO_E18) -> None:
        self._authority, self._escrow_ratio_e18 = authority, escrow_ratio_e18
        self._node, self._beneficiary = bech32.encode(node, bech32.NODE), beneficiary
        self._leases: dict[bytes, _Taken] = {}
        self._serials: dict[bytes, tuple[bytes, int]] = {}  # serial → its lease and where its range begins
        self._expiries: list[tuple[int, bytes]] = []
        self._again: dict[bytes, int] = {}  # of serials that are in _serials

    def accept(self, certificate: Any, evidence: Any, now_s: int, *, is_put: bool | None = None) -> Any:
        """The OrderLimit of a TrafficEvidence (whose receipt is not looked at) under a LeaseCertificate; from now on its range is taken.

        ``is_put`` says what a limit for repair is used for; None: what its action says. The same limit again is refused: whether a
        transfer goes on under it, its caller decides. Raises Overlap, UsedAlready,
        and Refused with the reason.
        """
        self.expire(now_s)
        limit = self._judged(evidence)
        if limit.node != self._node or limit.beneficiary != self._beneficiary:
            raise Refused(f"expected an order limit for {self._node}, paid to {self._beneficiary}, got {limit.node} and {limit.beneficiary}")
        if not limit.created_s - CLOCK_SKEW_S <= now_s < limit.expires_s:
            raise Refused(f"the order limit holds from {limit.created_s} to {limit.expires_s} s: it is {now_s} s")
        floor_noz = self.floor_noz(limit, limit.action == WRITES if is_put is None else is_put)
        if limit.max_noz < floor_noz:
            raise Refused(f"the order limit pays {limit.max_noz} noz for {limit.max_bytes} bytes: the price is {floor_noz} noz")
        taken = self._leases.get(limit.lease_id) or self._opened(certificate, limit, now_s)
        self._check_lease(taken.lease, limit)
        if limit.serial in self._serials:
            raise self._repeated(taken, evidence.order_limit, limit)
        self._take(taken, evidence.order_limit, limit)
        return limit

    def floor_noz(self, limit: Any, is_put: bool) -> int:
        """The least noz for which a node moves the bytes of an OrderLimit."""
        if is_put:
            return max(1, int(limit.max_bytes) * (RATIO_ONE - self._escrow_ratio_e18) // RATIO_ONE)
        return int(limit.max_bytes) if limit.action == GET else 1

    def restore(self, accepted: Iterable[tuple[Any, Any]], now_s: int) -> None:
        """Take again what was accepted before a restart: (LeaseCertificate, SignedDocument of the limit). Those that have expired are left out.

        They were judged then and are not judged again: who may sign today, and whether the chain answers, changes nothing. Raises Refused for a limit or a
        lease that is no document.
        """
        for certificate, signed in accepted:
            limit = opened(OrderLimit, signed.body)
            if now_s >= limit.expires_s or limit.serial in self._serials:
                continue
            taken = self._leases.get(limit.lease_id)
            self._take(taken or self._used(limit.lease_id, opened(Lease, certificate.body)), signed, limit)

    def expire(self, now_s: int) -> None:
        """Forget leases that have expired, with all that was taken of them."""
        while self._expiries and self._expiries[0][0] <= now_s - CLOCK_SKEW_S:
            _, lease_id = heappop(self._expiries)
            taken = self._leases.pop(lease_id)
            for data in taken.ranges.values():
                serial = OrderLimit.FromString(SignedDocument.FromString(data).body).serial
                self._serials.pop(serial, None)
                self._again.pop(serial, None)

    @property
    def leases(self) -> int:
        """How many leases are in use."""
        return len(self._leases)

    # --- judging ----------------------------------------------------------------------------------------------------------------

    def _judged(self, evidence: Any) -> Any:
        limit = self._signed(evidence.order_limit)
        chain_id = self._authority.chain_id
        for faults in (faults_of_limit(limit, chain_id), faults_of_authority(evidence, limit, chain_id)):
            fault = next(faults, None)
            if fault is not None:
                raise Refused(fault)
        return limit

    def _signed(self, signed: Any) -> Any:
        """The OrderLimit of a SignedDocument, by the ledger key of the meta node that it names."""
        limit = opened(OrderLimit, signed.body)
        key = self._authority.ledger_key(node_of(limit.meta_node) or b"")
        if key is None:
            raise Refused(f"{limit.meta_node[:64]!r} is no meta node with keys")
        check_signature(OrderLimit, signed, key, "its meta node")
        return limit

    def _opened(self, certificate: Any, limit: Any, now_s: int) -> _Taken:
        lease = check_lease(certificate, self._authority)
        if lease.lease_id != limit.lease_id:
            raise Refused(f"expected the certificate of lease {limit.lease_id.hex()}, got that of {lease.lease_id.hex()}")
        if now_s >= lease.expires_s:
            raise Refused(f"the lease expired at {lease.expires_s} s: it is {now_s} s")
        if len(self._leases) >= MAX_LEASES:
            raise Refused(f"{MAX_LEASES} leases are in use here: try another node")
        return self._used(lease.lease_id, lease)

    def _used(self, lease_id: bytes, lease: Any) -> _Taken:
        self._leases[lease_id] = taken = _Taken(lease)
        heappush(self._expiries, (lease.expires_s, lease_id))
        return taken

    @staticmethod
    def _check_lease(lease: Any, limit: Any) -> None:
        if (lease.wallet, lease.meta_node, lease.fund) != (limit.wallet, limit.meta_node, limit.fund):
            raise Refused("expected an order limit of the lease's wallet, meta node and fund")
        if is_repair_lease(lease) and limit.action not in (REPAIR, AUDIT):
            # In no ledger: nothing but repair is ever paid under it.
            raise Refused("expected an order limit for repair under a lease for repair: others are not paid")
        if limit.to_noz > lease.noz:
            raise Refused(f"the order limit ends at {limit.to_noz} noz of a lease of {lease.noz}")
        if limit.expires_s > lease.expires_s:
            raise Refused(f"the order limit holds to {limit.expires_s} s, its lease to {lease.expires_s} s")

    def __contains__(self, serial: bytes) -> bool:
        """Whether a limit with that serial was taken, of a lease that has not expired."""
        return serial in self._serials

    def again(self, serial: bytes) -> int:
        """A limit that was taken here begins once more → how often it did, this time among them."""
        self._again[serial] = self._again.get(serial, 1) + 1
        return self._again[serial]

    def _repeated(self, taken: _Taken, signed: Any, limit: Any) -> Refused:
        lease_id, from_noz = self._serials[limit.serial]
        if SignedDocument.FromString(self._leases[lease_id].ranges[from_noz]).body == signed.body:
            return UsedAlready(f"order limit {limit.serial.hex()} was used already")
        other = self._overlapping(taken, limit)
        return Overlap(other, signed) if other is not None else Refused(f"serial {limit.serial.hex()} is another order limit's")

    def _take(self, taken: _Taken, signed: Any, limit: Any) -> None:
        other = self._overlapping(taken, limit)
        if other is not None:
            raise Overlap(other, signed)
        if len(taken.ranges) >= MAX_LIMITS_OF_A_LEASE:
            raise Refused(f"{MAX_LIMITS_OF_A_LEASE} order limits of this lease were used here: take a new lease")
        if len(self._serials) >= MAX_LIMITS:
            raise Refused(f"{MAX_LIMITS} order limits are in use here: try another node")
        taken.ranges[limit.from_noz] = encode(known(signed))
        self._serials[limit.serial] = limit.lease_id, limit.from_noz

    @staticmethod
    def _overlapping(taken: _Taken, limit: Any) -> Any | None:
        """The SignedDocument of a limit whose range shares a noz with this one's, or None."""
        at = taken.ranges.bisect_right(limit.from_noz)
        for index in (at - 1, at):
            if 0 <= index < len(taken.ranges):
                signed = SignedDocument.FromString(taken.ranges.peekitem(index)[1])
                other = OrderLimit.FromString(signed.body)
                if max(other.from_noz, limit.from_noz) < min(other.to_noz, limit.to_noz):
                    return signed
        return None
