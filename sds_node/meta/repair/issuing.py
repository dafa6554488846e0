"""Order limits of repair: under leases that are in no ledger, since nobody's balance pays them.

    (payer, fund) ─► Lease {id, payer, this meta node, a session key of its own} ─ signed by the meta nodes' quorum ─► certificate ─► limits, disjoint ranges

A node takes a repair's limit as any other: a certificate, a range that nobody had, the session key at the other end. It is paid for it as rules/windows.py
says: from the repair fund of ``object_root``, then from the common one. Lease id = SHA-256(``stratos/repair-lease/v1`` ‖ 0x00 ‖ meta node ‖ 32 random bytes);
serials are those of the boot's counter that are left to repair: none is an upload's. Source: storage-protocol.md 2, 3.6 and 4; ADR 9.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import nacl.signing

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from modules.settlement.documents import signed_by_key
from modules.settlement.leaves import REPAIR, SERIAL_BYTES
from sds_node.documents import LEASE_DOMAIN, REPAIR_LEASE_NOZ, REPAIR_LEASE_S, Lease, LeaseCertificate, lease_quorum, signature_of
from sds_node.meta.operations import AnyLedger
from sds_node.meta.repair.known import Later
from sds_node.meta.rules import tables
from sds_node.meta.rules.wire import MAX_METAS
from sds_node.meta.users.known import Contact, Cosign
from sds_node.meta.users.leases import Held
from sds_node.meta.users.limits import COUNTERS, REPAIR_FROM, Another, LimitSigner, SerialsUsedUp

_LEASE_ID: Final = b"stratos/repair-lease/v1\0"
_RANDOM_BITS: Final = 27
"""Half of what repair has."""
MAX_LEASES: Final = 10_000
MAX_LIMITS: Final = 50_000
"""Of a lease; a node takes 100,000."""


@dataclass(frozen=True, slots=True)
class Limit:
    """An order limit (SignedDocument) for a node, with its lease's certificate. ``payer`` is the wallet's address as text."""

    contact: Contact
    serial: bytes
    payer: str
    document: Any
    certificate: Any
    noz: int
    share_root: bytes
    size_bytes: int
    expires_s: int


@dataclass(slots=True)
class _Lease:
    held: Held
    certificate: Any
    issued_noz: int = 0
    limits: int = 0


class Issuer:
    """Issues limits of the meta node at ``address`` with its ledger key, for the session whose public key is ``session``. ``boot`` is a number that no
    earlier process had, and ``another_boot`` draws one more; ``cosign`` asks other meta nodes to sign a lease."""

    def __init__(
        self,
        ledger: AnyLedger,
        chain_id: str,
        address: bytes,
        key: nacl.signing.SigningKey,
        boot: int,
        session: bytes,
        cosign: Cosign,
        clock: Callable[[], float],
        limit_s: int,
        another_boot: Another | None = None,
    ) -> None:
        self._ledger, self._chain_id, self._address, self._key = ledger, chain_id, address, key
        self._session, self._cosign, self._clock, self._limit_s = session, cosign, clock, limit_s
        self._text = bech32.encode(address, bech32.NODE)
        # From a random place on: where two repairs of one boot ever ran at once, they would not give the same ones.
        self._signer = LimitSigner(chain_id, address, key, boot, range(REPAIR_FROM + secrets.randbits(_RANDOM_BITS), COUNTERS), another_boot)
        self._leases: OrderedDict[tuple[bytes, int], _Lease] = OrderedDict()

    async def limit(self, row: tables.Object, contact: Contact, share_root: bytes, size_bytes: int, noz: int) -> Limit:
        """A limit for moving a share of an object from or to a node. Raises Later when too few meta nodes sign the lease, LedgerError."""
        lease = await self._lease(row.payer, row.fund, noz)
        now_s = int(self._clock())
        serial = self._serial()
        taken = (lease.issued_noz, lease.issued_noz + noz)
        lease.issued_noz, lease.limits = taken[1], lease.limits + 1
        expires_s = min(now_s + self._limit_s, lease.held.row.ends_ms // 1_000)
        document = self._signer.sign(lease.held, contact, REPAIR, serial, taken, row.id, share_root, max(1, size_bytes), (now_s, expires_s))
        payer = bech32.encode(row.payer)
        return Limit(
            contact, serial.to_bytes(SERIAL_BYTES, "big"), payer, document, lease.certificate, noz, share_root, size_bytes, expires_s
        )  # fmt: skip

    def _serial(self) -> int:
        try:
            return self._signer.serials(1)
        except SerialsUsedUp as error:
            raise Later("serials", str(error)) from None

    async def _lease(self, payer: bytes, fund: int, noz: int) -> _Lease:
        found = self._leases.get((payer, fund))
        is_good = (
            found is not None
            and found.issued_noz + noz <= REPAIR_LEASE_NOZ
            and found.limits < MAX_LIMITS
            and found.held.row.ends_ms >= (self._clock() + self._limit_s) * 1_000
        )
        if found is None or not is_good:
            found = await self._take(payer, fund)
            self._leases[payer, fund] = found
        self._leases.move_to_end((payer, fund))
        if len(self._leases) > MAX_LEASES:
            self._leases.popitem(last=False)
        return found

    async def _take(self, payer: bytes, fund: int) -> _Lease:
        lease_id = sha256(_LEASE_ID + self._address + secrets.token_bytes(32)).digest()
        now_s = int(self._clock())
        ends_s = now_s + REPAIR_LEASE_S
        lease = Lease(
            chain_id=self._chain_id,
            lease_id=lease_id,
            wallet=bech32.encode(payer),
            meta_node=self._text,
            noz=REPAIR_LEASE_NOZ,
            fund=fund,
            created_s=now_s,
            expires_s=ends_s,
        )
        body = encode(lease)
        metas = await self._ledger.query(
            lambda view: {one.address: one.ledger_key for one in view.scan(tables.META, limit=MAX_METAS) if one.is_active}
        )
        needed = lease_quorum(len(metas))
        signatures = {self._address: signature_of(lease, body, self._key)}
        if needed > 1:
            for address, signature in await self._cosign(body):
                if len(signatures) < needed and signed_by_key(LEASE_DOMAIN, body, metas.get(address, b""), signature):
                    signatures.setdefault(address, signature)
        if len(signatures) < needed:
            raise Later("lease", f"a lease for repair needs the signatures of {needed} meta nodes and has {len(signatures)}")
        certificate = LeaseCertificate(body=body)
        for address, signature in signatures.items():
            certificate.signatures.add(meta_node=bech32.encode(address, bech32.NODE), signature=signature)
        row = tables.Lease(
            lease_id, payer, self._address, self._session, fund, REPAIR_LEASE_NOZ, REPAIR_LEASE_NOZ, now_s * 1_000, ends_s * 1_000, 0, is_put_allowed=True
        )  # fmt: skip
        return _Lease(Held(row, REPAIR_LEASE_NOZ, 0, 0), certificate)
