"""Which order limits a node takes: each is checked once, and no part of a lease is taken twice.

    certificate ─ once per lease ─► lease          what is taken of a lease: disjoint ranges [from, to)
    limit + grant ─ every limit ──► Accepted       a second limit for a range that is taken is evidence against its meta node

The rules by which a limit is judged are settlement's, so what a node takes can be paid. Time is an argument, never read.
Sources: storage-protocol.md 2 (lease) and 4; storage-interfaces.md 4.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final

from sortedcontainers import SortedDict

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from modules.settlement.commitment import node_of
from modules.settlement.documents import OrderLimit
from modules.settlement.leaves import faults_of_authority, faults_of_limit
from sds_node.documents import Authority, Refused, check_lease, check_signature, opened

TrafficEvidence: Final = message_class("stratos.settlement.v1.TrafficEvidence")
CLOCK_SKEW_S: Final = 60
"""How far the clocks of a meta node and of a node may be apart."""
MAX_LEASES: Final = 100_000
MAX_LIMITS_OF_A_LEASE: Final = 100_000


class Overlap(Refused):
    """A meta node gave one part of a lease to two. ``first`` and ``second`` are the SignedDocuments of both order limits: a fraud proof."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__("the range of this order limit is taken by another one: its meta node has used the lease twice")
        self.first, self.second = first, second


@dataclass(slots=True)
class _Taken:
    """A lease in use. ``ranges`` maps from_noz to the SignedDocument of the limit that begins there."""

    lease: Any
    ranges: SortedDict = field(default_factory=SortedDict)


class Limits:
    """What one node has accepted. Not safe for several threads at once.

    ``node`` is its network address, ``beneficiary`` the account (20 bytes as text) that its traffic is paid to.
    """

    def __init__(self, authority: Authority, node: bytes, beneficiary: str) -> None:
        self._authority = authority
        self._node, self._beneficiary = bech32.encode(node, bech32.NODE), beneficiary
        self._leases: dict[bytes, _Taken] = {}
        self._serials: dict[bytes, bytes] = {}
        self._expiries: list[tuple[int, bytes]] = []

    def accept(self, certificate: Any, evidence: Any, now_s: int) -> Any:
        """The OrderLimit of a TrafficEvidence (whose receipt is not looked at) under a LeaseCertificate; from now on its range is taken.

        The same limit again is refused, as nothing is moved twice under one serial. Raises Overlap, and Refused with the reason.
        """
        self.expire(now_s)
        limit = self._judged(evidence)
        if limit.node != self._node or limit.beneficiary != self._beneficiary:
            raise Refused(f"expected an order limit for {self._node}, paid to {self._beneficiary}, got {limit.node} and {limit.beneficiary}")
        if not limit.created_s - CLOCK_SKEW_S <= now_s < limit.expires_s:
            raise Refused(f"the order limit holds from {limit.created_s} to {limit.expires_s} s: it is {now_s} s")
        taken = self._leases.get(limit.lease_id) or self._opened(certificate, limit, now_s)
        self._check_lease(taken.lease, limit)
        if limit.serial in self._serials:
            raise self._repeated(taken, evidence.order_limit, limit)
        self._take(taken, evidence.order_limit, limit)
        return limit

    def restore(self, accepted: Iterable[tuple[Any, Any]], now_s: int) -> None:
        """Take again what was accepted before a restart: (LeaseCertificate, SignedDocument of the limit). Those that have expired are left out.

        Raises Refused for a limit that is no document.
        """
        for certificate, signed in accepted:
            limit = self._signed(signed)
            if now_s >= limit.expires_s or limit.serial in self._serials:
                continue
            self._take(self._leases.get(limit.lease_id) or self._opened(certificate, limit, now_s), signed, limit)

    def expire(self, now_s: int) -> None:
        """Forget leases that have expired, with all that was taken of them."""
        while self._expiries and self._expiries[0][0] <= now_s - CLOCK_SKEW_S:
            _, lease_id = heappop(self._expiries)
            taken = self._leases.pop(lease_id)
            for signed in taken.ranges.values():
                self._serials.pop(OrderLimit.FromString(signed.body).serial, None)

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
        self._leases[lease.lease_id] = taken = _Taken(lease)
        heappush(self._expiries, (lease.expires_s, lease.lease_id))
        return taken

    @staticmethod
    def _check_lease(lease: Any, limit: Any) -> None:
        if (lease.wallet, lease.meta_node, lease.fund) != (limit.wallet, limit.meta_node, limit.fund):
            raise Refused("expected an order limit of the lease's wallet, meta node and fund")
        if limit.to_noz > lease.noz:
            raise Refused(f"the order limit ends at {limit.to_noz} noz of a lease of {lease.noz}")
        if limit.expires_s > lease.expires_s:
            raise Refused(f"the order limit holds to {limit.expires_s} s, its lease to {lease.expires_s} s")

    def _repeated(self, taken: _Taken, signed: Any, limit: Any) -> Refused:
        if self._serials[limit.serial] == signed.body:
            return Refused(f"order limit {limit.serial.hex()} was used already")
        other = self._overlapping(taken, limit)
        return Overlap(other, signed) if other is not None else Refused(f"serial {limit.serial.hex()} is another order limit's")

    def _take(self, taken: _Taken, signed: Any, limit: Any) -> None:
        other = self._overlapping(taken, limit)
        if other is not None:
            raise Overlap(other, signed)
        if len(taken.ranges) >= MAX_LIMITS_OF_A_LEASE:
            raise Refused(f"{MAX_LIMITS_OF_A_LEASE} order limits of this lease were used here: take a new lease")
        taken.ranges[limit.from_noz] = signed
        self._serials[limit.serial] = signed.body

    @staticmethod
    def _overlapping(taken: _Taken, limit: Any) -> Any | None:
        """The SignedDocument of a limit whose range shares a noz with this one's, or None."""
        at = taken.ranges.bisect_right(limit.from_noz)
        for index in (at - 1, at):
            if 0 <= index < len(taken.ranges):
                _, signed = taken.ranges.peekitem(index)
                other = OrderLimit.FromString(signed.body)
                if max(other.from_noz, limit.from_noz) < min(other.to_noz, limit.to_noz):
                    return signed
        return None
