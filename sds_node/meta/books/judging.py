"""Whether a leaf that a node hands in will be paid: every rule of settlement's, and what only this meta node and its ledger know. Runs in threads.

    leaf ─ form ─ whose limit ─ whose node ─ lease, range, time ─ final or over ─ noz and documents ─ signatures ─► HELD, or why not
                                                                                              └ a wallet's on a grant, a key's form: remembered

The order is from cheap to dear. ``leaves.fault`` judges the same documents one by one; here what repeats in a batch is judged once.
Sources: storage-protocol.md 1.9, 2 and 4; modules/settlement/leaves.py.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from threading import Lock
from typing import Any, Final, NamedTuple

import nacl.exceptions
import nacl.signing

from chain.crypto import address as bech32
from modules.settlement.commitment import node_of, wallet_of
from modules.settlement.documents import (
    LIMIT_DOMAIN,
    RECEIPT_DOMAIN,
    SIGNATURE_BYTES,
    OrderLimit,
    Receipt,
    SessionGrant,
    decoded,
    is_ledger_key,
    to_sign,
    wallet_signed,
)
from modules.settlement.leaves import (
    AUDIT,
    PREFIX_BYTES,
    REPAIR,
    SERIAL_BYTES,
    faults_of_authority,
    faults_of_grant,
    faults_of_limit,
    faults_of_receipt,
    leaf_bytes,
    serial_prefix,
)
from sds_node.meta.books.books import NEVER_MS, LeafRow, State
from sds_node.meta.lateness import RECEIPTS_S, REPAIR_RECEIPTS_S, is_late, is_late_repair
from sds_node.meta.rules import tables
from sds_node.meta.rules.leases import settles_ms, takeover_ms
from sds_node.meta.rules.strings import fault_of_limit
from sds_node.meta.rules.tables import Lease, Meta, Node
from sds_node.meta.rules.windows import MAX_ENTRY_NOZ

MAX_LEAF_BYTES: Final = 16_384
MAX_GRANTS: Final = 20_000


class Verdict(NamedTuple):
    """``row`` is set for a leaf that is good. ``is_final``: a refusal that no time changes."""

    serial: bytes
    row: LeafRow | None
    reason: str
    is_final: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What one batch of a node is judged by: the ledger's rows at one commit, and the time."""

    chain_id: str
    meta_node: bytes
    boot: int
    now_ms: int
    node: Node
    leases: Mapping[bytes, Lease]
    metas: Mapping[bytes, Meta]
    away_ms: tuple[int, int] = (0, 0)
    """From when until when this meta node was away before it was started."""
    ledger_ms: int = 0
    """The ledger's time."""
    taken: Mapping[bytes, bytes] = field(default_factory=dict)
    """Leases that ended and the meta nodes that settle them since."""
    there: frozenset[bytes] | None = None
    """Meta nodes that are there; None for those that are active."""
    duties: frozenset[bytes] | None = None
    """Leases of others that are this meta node's to settle once they are over; None for all."""
    behind_ms: Mapping[bytes, int] = field(default_factory=dict)
    """Meta node → when its newest window was made that is not in the books here."""
    asked: Mapping[bytes, tables.Asked] = field(default_factory=dict)
    """What those of the leases are for that legacy strings pay for."""


class Asked(NamedTuple):
    """A leaf whose documents were read. ``limit`` and ``receipt`` are None for one that has none."""

    leaf: Any
    limit: Any
    receipt: Any

    @property
    def serial(self) -> bytes:
        return bytes(self.limit.serial)[:SERIAL_BYTES] if self.limit is not None else b""


def read(leaf: Any) -> Asked:
    """The documents of a leaf of traffic."""
    if leaf.WhichOneof("source") != "traffic":
        return Asked(leaf, None, None)
    return Asked(leaf, decoded(OrderLimit, leaf.traffic.order_limit.body), decoded(Receipt, leaf.traffic.receipt.body))


class Judge:
    """Judges leaves, and remembers whose signature on which grant holds. Any thread may call it."""

    def __init__(self) -> None:
        self._grants: OrderedDict[bytes, bool] = OrderedDict()
        self._guard = Lock()

    def judge(self, asked: Asked, facts: Facts) -> Verdict:
        """What becomes of a leaf."""
        leaf, limit, receipt = asked
        if limit is None or receipt is None or len(limit.serial) != SERIAL_BYTES or len(limit.lease_id) != 32:
            return Verdict(asked.serial, None, "expected a leaf of traffic with an order limit and a receipt in canonical form")
        serial = asked.serial
        refusal = _by_its_rows(limit, facts)
        if refusal is None and not receipt.is_final and facts.now_ms < limit.expires_s * 1_000:
            refusal = "the receipt is not final, and its order limit has not expired: hand it in again then", False
        if refusal is not None:
            return Verdict(serial, None, *refusal)
        fault = self.fault(asked, facts.chain_id, lambda node: meta.ledger_key if (meta := facts.metas.get(node)) is not None else None)
        if fault is not None:
            return Verdict(serial, None, fault)
        raw = leaf_bytes(leaf)
        if len(raw) > MAX_LEAF_BYTES or max(leaf.noz, receipt.bytes_acked) > MAX_ENTRY_NOZ:
            reason = f"expected a leaf of at most {MAX_LEAF_BYTES} bytes, for at most 2^63 - 1 bytes and noz, got one of {len(raw)} bytes for {leaf.noz} noz"
            return Verdict(serial, None, reason)
        is_repair = limit.action in (REPAIR, AUDIT)
        row = LeafRow(
            serial,
            State.HELD,
            wallet_of(leaf.beneficiary) or b"",
            leaf.fund,
            leaf.traffic_class,
            leaf.noz,
            receipt.bytes_acked,
            b"" if is_repair else bytes(limit.lease_id),
            bytes(limit.object_root) if is_repair else b"",
            limit.action,
            NEVER_MS if is_repair else settles_ms(facts.leases[bytes(limit.lease_id)]),
            0,
            0,
            raw,
            "",
        )
        return Verdict(serial, row, "")

    def fault(self, asked: Asked, chain_id: str, ledger_key: Callable[[bytes], bytes | None]) -> str | None:
        """Settlement's rules of a leaf of traffic whose documents were read, in another order: why it is bad, None for a good one. ``ledger_key`` gives what
        a meta node (20 bytes) registered."""
        leaf, limit, receipt = asked
        traffic = leaf.traffic
        for faults in (faults_of_limit(limit, chain_id), faults_of_receipt(receipt, limit, chain_id)):
            if (fault := next(faults, None)) is not None:
                return fault
        if (leaf.beneficiary, leaf.fund, leaf.traffic_class) != (limit.beneficiary, limit.fund, limit.traffic_class):
            return "beneficiary, fund or class are not those of the order limit"
        if wallet_of(leaf.beneficiary) is None or leaf.fund not in (1, 2) or leaf.traffic_class not in range(1, 5):
            return "beneficiary, fund or class of the order limit are none"
        if leaf.noz != receipt.bytes_acked * limit.max_noz // limit.max_bytes:
            return "the noz are not floor(bytes_acked × max_noz ÷ max_bytes)"
        if leaf.noz == 0:
            return "it pays nothing"
        if (fault := self._fault_of_authority(traffic, limit, chain_id)) is not None:
            return fault
        key = ledger_key(node_of(limit.meta_node) or b"")
        if key is None:
            return "the meta node of the order limit has no keys"
        if not _signed(LIMIT_DOMAIN, traffic.order_limit.body, key, traffic.order_limit.signature):
            return "the meta node has not signed the order limit"
        if not _signed(RECEIPT_DOMAIN, traffic.receipt.body, bytes(limit.session_pubkey), traffic.receipt.signature):
            return "the session key has not signed the receipt"
        return None

    def _fault_of_authority(self, traffic: Any, limit: Any, chain_id: str) -> str | None:
        if traffic.WhichOneof("authority") != "grant":
            return next(faults_of_authority(traffic, limit, chain_id), None)
        given = traffic.grant
        grant = decoded(SessionGrant, given.body)
        if grant is None:
            return "the session grant is no document"
        fault = next(faults_of_grant(grant, limit, chain_id), None)
        if fault is None and not self._is_signed(given, wallet_of(limit.wallet) or b""):
            fault = "the wallet has not signed the session grant"
        return fault

    def _is_signed(self, given: Any, wallet: bytes) -> bool:
        parts = (given.body, given.public_key, given.signature, wallet)
        key = sha256(b"".join([len(part).to_bytes(4, "big") + part for part in parts])).digest()
        with self._guard:
            known = self._grants.get(key)
            if known is not None:
                self._grants.move_to_end(key)
                return known
        holds = wallet_signed(given.body, given.public_key, given.signature, wallet)
        with self._guard:
            self._grants[key] = holds
            if len(self._grants) > MAX_GRANTS:
                self._grants.popitem(last=False)
        return holds


def _by_its_rows(limit: Any, facts: Facts) -> tuple[str, bool] | None:
    """(why, for good) of a limit that this node may not be paid by, as the ledger stands."""
    if limit.node != bech32.encode(facts.node.address, bech32.NODE):
        return f"the order limit is for {limit.node[:64]}, not for the node that hands it in", True
    meta_node = node_of(limit.meta_node)
    meta = facts.metas.get(meta_node) if meta_node is not None else None
    if meta_node is None or meta is None:
        return f"the ledger knows no meta node {limit.meta_node[:64]!r}", True
    is_own = meta_node == facts.meta_node
    if is_own:
        boot = int.from_bytes(limit.serial[PREFIX_BYTES : PREFIX_BYTES + 4], "big")
        if not limit.serial.startswith(serial_prefix(meta_node)) or not 1 <= boot <= facts.boot:
            return "this meta node has never given such a serial", True
    if limit.action in (REPAIR, AUDIT):
        if is_late_repair(limit.expires_s, facts.now_ms, facts.away_ms):
            # No lease says that it is settled, and once its leaf is forgotten nothing else would.
            return (
                f"the order limit ended at {limit.expires_s} s, and its receipt may come for {REPAIR_RECEIPTS_S} s after that: hand receipts in sooner",
                True,
            )
        return None if is_own else (f"meta node {limit.meta_node} is responsible for this: hand it in there", False)
    row = facts.leases.get(bytes(limit.lease_id))
    taker = facts.taken.get(row.id) if row is not None else None
    if taker is not None and taker != facts.meta_node:
        return f"meta node {bech32.encode(taker, bech32.NODE)} settles this lease since it ended: hand it in there", False
    if not is_own and taker is None and (refusal := _of_another(row, meta, facts)) is not None:
        return refusal, False
    if row is None:
        return "the lease of this order limit is settled: what was not handed in by then is not paid", True
    if row.meta_node != meta_node or wallet_of(limit.wallet) != row.wallet or limit.fund != row.fund:
        return "the lease of this order limit has another meta node, wallet or fund", True
    if facts.now_ms >= settles_ms(row):
        return f"the lease ended at {row.ends_ms} ms, and its time to settle is over", True
    if is_own and is_late(limit.expires_s, facts.now_ms, facts.away_ms):
        # Its noz are promised to other nodes by now. What an absent meta node promised is promised no more, and could not be handed in before.
        return f"the order limit ended at {limit.expires_s} s, and its receipt may come for {RECEIPTS_S} s after that: hand receipts in sooner", True
    if (fault := fault_of_limit(limit, row, facts.asked.get(row.id))) is not None:
        return fault, True
    if limit.to_noz > row.given_noz:
        return f"the lease has {row.given_noz} noz, the order limit is for those up to {limit.to_noz}", True
    if not is_own and wallet_of(limit.beneficiary) != facts.node.beneficiary:
        # This meta node's own limits name whom the chain named then; of another one's only the chain is believed.
        return "the order limit pays another account than the chain names for this node", True
    return None


def _of_another(row: Lease | None, meta: Meta, facts: Facts) -> str | None:
    """Why a receipt of another meta node's lease is not taken now."""
    name = bech32.encode(meta.address, bech32.NODE)
    is_there = meta.is_active if facts.there is None else meta.is_active and meta.address in facts.there
    if is_there or row is None or facts.now_ms < takeover_ms(row):
        return f"meta node {name} is responsible for this lease: hand it in there, or here once that one is gone and the lease is over for 300 s"
    if facts.duties is not None and row.id not in facts.duties:
        return f"meta node {name} is gone, and another one settles its lease: hand it in there"
    # What that one settled while the lease ran must be known: after its end the ledger lets one of the two take from it.
    if facts.ledger_ms < takeover_ms(row) or facts.behind_ms.get(meta.address, 0) >= row.made_ms:
        return f"windows of meta node {name} are not all known here yet: hand it in again in a moment"
    return None


@lru_cache(maxsize=20_000)
def _key(raw: bytes) -> nacl.signing.VerifyKey | None:
    return nacl.signing.VerifyKey(raw) if is_ledger_key(raw) else None


def _signed(domain: bytes, body: bytes, raw_key: bytes, signature: bytes) -> bool:
    """``documents.signed_by_key``, with the key's form looked at once."""
    key = _key(raw_key)
    if key is None or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        key.verify(to_sign(domain, body), signature)
    except (nacl.exceptions.BadSignatureError, ValueError):
        return False
    return True
