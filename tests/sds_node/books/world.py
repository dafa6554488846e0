"""A meta node's ledger, books and end of the wire for tests, with nodes and wallets that have real keys and sign real receipts."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from modules.settlement.documents import GRANT_DOMAIN, OrderLimit, Receipt, SessionGrant
from sds_node import asking
from sds_node.documents import SignedDocument, signed
from sds_node.hashes import file_hash
from sds_node.meta.books.books import Books, open_books
from sds_node.meta.books.receipts import Receipts
from sds_node.meta.books.windows import Windows
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.nodes.registry import Registry
from sds_node.meta.operations import Proposer, Said
from sds_node.meta.rules import tables
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.approvals import approval_bytes, sign_approval
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.wire import ORDER_DOMAIN, sign_observation
from sds_node.p2p import address_of
from sds_node.resource.receipts import leaf_of
from sds_node.schemes import segment_count
from sds_node.transfers import TrafficEvidence
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from tests.serials import own_serial

CHAIN_ID = "stratos-test-1"
DAY_S = 86_400
WalletDocument = message_class("stratos.settlement.v1.WalletDocument")
START_S = 1_800_000_000 - 1_800_000_000 % DAY_S
PARAMS = {
    "bytes_per_stos": 10**10,
    "escrow_ratio_e18": 5 * 10**17,
    "repair_ratio_e18": 5 * 10**16,
    "retention_days": 365,
    "grace_days": 90,
    "trash_days": 7,
    "longest_lease_s": 3_600,
    "audits_per_day": 4,
    "max_wallets_per_report": 1_000,
    "epoch_duration_s": 600,
}
WEI = 10**18
FREE = 10**9


def message(name: str, /, **fields: Any) -> Any:
    return message_class(f"stratos.storage.v1.{name}")(**fields)


def signing_key(name: bytes) -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(sha256(name).digest())


def public(key: nacl.signing.SigningKey) -> bytes:
    return bytes(key.verify_key)


def meta_key(number: int = 1) -> nacl.signing.SigningKey:
    return signing_key(b"ledger%d" % number)


def meta_address(number: int = 1) -> bytes:
    return address_of(public(signing_key(b"meta%d" % number)))


def node_key(number: int) -> nacl.signing.SigningKey:
    return signing_key(b"node%d" % number)


def owner(number: int) -> bytes:
    return sha256(b"owner%d" % number).digest()[:20]


def wallet_key(number: int = 1) -> PrivateKey:
    return PrivateKey(sha256(b"wallet%d" % number).digest(), "eth_secp256k1")


def wallet(number: int = 1) -> bytes:
    return bytes(wallet_key(number).public_key.address)


def session_key(number: int = 1) -> nacl.signing.SigningKey:
    return signing_key(b"session%d" % number)


@dataclass
class Clock:
    """Unix seconds that stand still until a test moves them."""

    now_s: float = START_S

    def __call__(self) -> float:
        return self.now_s


def observed_node(number: int, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "address": address_of(public(node_key(number))), "owner": owner(number), "beneficiary": owner(number), "p2p_key": public(node_key(number)),
        "deposit_wei": str(WEI), "standing": 1,
    }  # fmt: skip
    return message("ObservedEvent", node=message("ObservedNode", **fields | changes))


def observed_meta(number: int, **changes: Any) -> Any:
    fields = {"address": meta_address(number), "owner": owner(90 + number), "ledger_key": public(meta_key(number)), "is_active": True}
    return message("ObservedMeta", **fields | changes)


def sold(number: int, noz: int) -> Any:
    return message("ObservedEvent", sold=message("SoldOzone", wallet=wallet(number), noz=str(noz)))


class World:
    """One meta node: ledger, books, registry, its server, and what it makes of receipts."""

    def __init__(self, folder: Path, ledger: Any, books: Books, clock: Clock, metas: int, number: int = 1, **receipts: Any) -> None:
        self.folder, self.ledger, self.books, self.clock, self.metas = folder, ledger, books, clock, metas
        self.me, self.key = meta_address(number), meta_key(number)
        self.proposer = Proposer(ledger, CHAIN_ID, self.me, self.key, clock)
        self.wire = Node(Identity(bytes(signing_key(b"meta%d" % number))), CHAIN_ID)
        self.registry = Registry(ledger, clock, hello_s=5, is_connected=lambda address: bool(self.wire.connections_of(address)))
        self.done: list[tuple[bytes, bytes, int]] = []
        self.ended: set[bytes] = set()
        """Leases under which nothing is committed any more."""
        self.windows = Windows(
            ledger,
            self.proposer,
            books,
            self.me,
            clock,
            on_done=lambda *one: self.done.append(one),
            approve=self.approve,
            may_commit=lambda lease_id: lease_id not in self.ended,
        )
        self.receipts = Receipts(ledger, books, self.registry, CHAIN_ID, self.me, clock, **receipts)
        self.wire.handlers.update(self.receipts.handlers())
        self.server = Server(self.wire)
        self.height, self.outstanding, self.deposits = 100, 0, 0
        self.serials = itertools.count(1)
        self.nonces = itertools.count(1)
        self.port = 0
        self.callers: list[Node] = []

    async def approve(self, message: Any) -> Said:
        """Approvals of all others, whatever it is."""
        body = approval_bytes(CHAIN_ID, self.me, message)
        numbers = [number for number in range(1, self.metas + 1) if meta_address(number) != self.me]
        return Said([(meta_address(number), sign_approval(body, meta_key(number))) for number in numbers])

    async def start(self, nodes: int, noz: int) -> None:
        await self.proposer.start()
        if self.ledger.head.sequence == 0:
            metas = [observed_meta(number) for number in range(1, self.metas + 1)]
            metas.sort(key=lambda one: one.address)
            await self.proposer.propose(
                "found", message("Found", height=100, block_hash=bytes(32), metas=metas, params=message("LedgerParams", **PARAMS))
            )
            await self.observe(*(observed_node(number) for number in range(1, nodes + 1)), sold(1, noz))
        else:
            self.height = (await self.row(tables.STATE, 1)).height
        await self.registry.refresh()
        _, self.port = await self.server.listen()

    async def observe(self, *events: Any, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "chain_id": CHAIN_ID, "from_height": self.height + 1, "to_height": self.height + 1, "is_last": True,
            "block_hash": sha256(b"block%d" % (self.height + 1)).digest(), "block_time_s": int(self.clock()), "outstanding_noz": "", "events": events,
        }  # fmt: skip
        body = encode(message("Observation", **fields | changes))
        signers = sorted((meta_address(number), number) for number in range(1, self.metas + 1))
        signatures = [message("LedgerSignature", meta_node=who, signature=sign_observation(body, meta_key(number))) for who, number in signers]
        await self.proposer.propose("observe", message("Observe", observation=body, signatures=signatures))
        self.height += 1
        await self.registry.refresh()

    async def row(self, table: Any, *key: Any) -> Any:
        return await self.ledger.query(lambda view: view.get(table, key))

    async def check(self) -> None:
        """The ledger's invariants hold."""
        await self.ledger.query(check)

    # --- wallets --------------------------------------------------------------------------------------------------------------

    def grant(self, number: int = 1, session: int = 1, **changes: Any) -> dict[str, Any]:
        now_s = int(self.clock())
        fields: dict[str, Any] = {
            "chain_id": CHAIN_ID, "wallet": bech32.encode(wallet(number)), "session_pubkey": public(session_key(session)), "actions": [1, 2],
            "path_prefix": "/", "max_noz": 10**13, "not_before_s": now_s - 60, "expires_s": now_s + 7_200, "nonce": next(self.nonces).to_bytes(16, "big"),
        }  # fmt: skip
        body = encode(SessionGrant(**fields | changes))
        key = wallet_key(number)
        return {"body": body, "public_key": key.public_key.raw, "signature": key.sign(GRANT_DOMAIN + b"\x00" + body)}

    async def lease(self, noz: int, number: int = 1, session: int = 1, seconds: int = 3_600) -> Lease:
        grant = self.grant(number, session)
        take = message("TakeLease", wallet=wallet(number), session_pubkey=public(session_key(session)), fund=1, noz=noz, seconds=seconds, grant=grant)
        result = await self.proposer.propose("take_lease", take)
        return Lease(result.result, number, session, grant)

    async def order(self, number: int, **kind: Any) -> None:
        """A WalletOrder that a wallet signed."""
        fields: dict[str, Any] = {
            "chain_id": CHAIN_ID, "wallet": wallet(number), "nonce": next(self.nonces).to_bytes(16, "big"), "expires_s": int(self.clock()) + 600
        }  # fmt: skip
        body = encode(message("WalletOrder", **fields | kind))
        key = wallet_key(number)
        document = WalletDocument(body=body, public_key=key.public_key.raw, signature=key.sign(ORDER_DOMAIN + b"\x00" + body))
        await self.proposer.propose("wallet_order", document)

    # --- documents ------------------------------------------------------------------------------------------------------------

    def serial(self, boot: int | None = None) -> bytes:
        boot = self.books.boot if boot is None else boot
        return own_serial(self.me, boot << 32 | next(self.serials))

    def limit(self, lease: Lease, node: int, noz: int, **changes: Any) -> Any:
        now_s = int(self.clock())
        fields: dict[str, Any] = {
            "chain_id": CHAIN_ID, "serial": self.serial(), "meta_node": bech32.encode(self.me, bech32.NODE), "lease_id": lease.id,
            "from_noz": lease.used_noz, "to_noz": lease.used_noz + noz, "wallet": bech32.encode(wallet(lease.number)),
            "session_pubkey": public(session_key(lease.session)), "node": bech32.encode(address_of(public(node_key(node))), bech32.NODE),
            "beneficiary": bech32.encode(owner(node)), "action": 1, "traffic_class": 1, "fund": 1, "object_root": b"O" * 32, "share_root": b"S" * 32,
            "max_bytes": noz, "max_noz": noz, "created_s": now_s, "expires_s": now_s + 600,
        }  # fmt: skip
        lease.used_noz += noz
        return OrderLimit(**fields | changes)

    def evidence(self, lease: Lease, limit: Any, acked: int | None = None, *, signer: Any = None, receipt: Any = None) -> Any:
        made = TrafficEvidence(grant=lease.grant) if limit.action in (1, 2) else TrafficEvidence()
        made.order_limit.CopyFrom(signed(limit, signer or self.key))
        made.receipt.CopyFrom(receipt if receipt is not None else self.receipt(lease, limit, limit.max_bytes if acked is None else acked))
        return made

    def receipt(self, lease: Lease, limit: Any, acked: int, *, key: Any = None, **changes: Any) -> Any:
        now_ms = limit.created_s * 1_000
        fields: dict[str, Any] = {
            "chain_id": CHAIN_ID, "serial": limit.serial, "sequence": 1, "bytes_acked": acked, "chunks_digest": b"d" * 32, "first_ms": now_ms,
            "last_ms": now_ms, "is_final": True,
        }  # fmt: skip
        document: SignedDocument = signed(Receipt(**fields | changes), key or session_key(lease.session))
        return document

    def leaf(self, lease: Lease, node: int, noz: int, acked: int | None = None, **changes: Any) -> Any:
        """A leaf that a node earned with a limit of ``noz`` bytes and noz."""
        return leaf_of(self.evidence(lease, self.limit(lease, node, noz, **changes), acked))

    async def store(
        self, lease: Lease, counter: int, size_bytes: int, nodes: Sequence[int], first_serial: bytes, k: int = 1, **changes: Any
    ) -> None:  # fmt: skip
        """An object of one segment is committed: its shares at these nodes (0 for none), under serials from ``first_serial`` on."""
        made = new_object(counter, size_bytes, nodes, k, [first_serial])
        made.segments[0].MergeFrom(message("NewSegment", **changes))
        await self.proposer.propose("commit", message("Commit", lease_id=lease.id, objects=[made]))

    def puts(self, lease: Lease, counter: int, noz: int, nodes: Sequence[int]) -> list[Any]:
        """Leaves for shares of an object of one segment, one for each node, whose serials follow one another."""
        return [self.leaf(lease, node, noz, action=2, object_root=object_id(lease.id, counter)) for node in nodes]

    # --- the wire -------------------------------------------------------------------------------------------------------------

    def peer(self, number: int = 1, key: nacl.signing.SigningKey | None = None, source_host: str | None = None) -> Peer:
        """The meta node, as a resource node calls it."""
        caller = Node(Identity(bytes(key or node_key(number))), CHAIN_ID)
        self.callers.append(caller)
        return Peer(caller, self.me, [Direct("127.0.0.1", self.port, source_host)])

    async def hand_in(self, peer: Peer, *leaves: Any) -> list[Any]:
        body = encode(asking.ReceiptsBatch(leaves=leaves))
        answers = asking.ReceiptAnswers.FromString(await peer.ask(asking.NODE_RECEIPTS, body=body, most_bytes=asking.MAX_ANSWER_BYTES))
        return list(answers.answers)

    async def states(self, peer: Peer, *leaves: Any) -> list[int]:
        return [one.state for one in await self.hand_in(peer, *leaves)]

    async def close(self) -> None:
        for caller in self.callers:
            await caller.close()
        await self.server.close()
        self.receipts.close()
        self.books.close()
        self.ledger.close()


@dataclass
class Lease:
    id: bytes
    number: int
    session: int
    grant: dict[str, Any]
    used_noz: int = field(default=0)


@asynccontextmanager
async def world(folder: Path, *, nodes: int = 3, noz: int = 10**12, metas: int = 1, clock: Clock | None = None) -> AsyncIterator[World]:
    """A World on files in ``folder``; opened again there, it goes on."""
    clock = clock or Clock()
    now_ms: Callable[[], int] = partial(_ms, clock)
    made = World(
        folder,
        Ledger.open(f"sqlite:///{folder}/ledger.db", rules(CHAIN_ID), CHAIN_ID, now_ms=now_ms),
        open_books(folder / "books", clock),
        clock,
        metas,
    )
    await made.start(nodes, noz)
    try:
        yield made
        await made.check()
    finally:
        await made.close()


async def until(holds: Callable[[], Any]) -> None:
    """Waits for something that comes of itself; the test's time limit bounds it. ``holds`` gives a truth, or something to await that gives one."""
    while True:
        found = holds()
        if await found if inspect.isawaitable(found) else found:
            return
        await asyncio.sleep(0.01)


def _ms(clock: Clock) -> int:
    return int(clock() * 1_000)


def new_object(counter: int, size_bytes: int, nodes: Sequence[int], k: int, first_serials: Sequence[bytes]) -> Any:
    """A NewObject with the same nodes for each segment."""
    packed = b"".join(node.to_bytes(4, "big") for node in nodes)
    segments = [
        message("NewSegment", root=sha256(b"segment%d %d" % (counter, at)).digest(), first_serial=first_serials[at], nodes=packed)
        for at in range(segment_count(size_bytes))
    ]
    record = message("FileRecord", lookup_id=sha256(b"lookup%d" % counter).digest(), name=b"name%d" % counter, wrapped_key=b"key")
    return message(
        "NewObject", counter=counter, root=sha256(b"root%d" % counter).digest(), file_hash=file_hash(b"hello stratos\n"), size_bytes=size_bytes,
        data_shares=k, total_shares=len(nodes), segments=segments, file=record,
    )  # fmt: skip
