"""A meta node for users in one process: a real ledger on SQLite, the real wire, wallets and nodes with real keys. Nodes are candidates in a list that sign acks."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from modules.settlement.documents import OrderLimit
from sds_node import asking
from sds_node.client.session import Session, open_session
from sds_node.documents import Lease, StoreAck, signed
from sds_node.hashes import file_hash
from sds_node.merkle import object_root, segment_root
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.operations import Proposer
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.tables import LEASE, WALLET
from sds_node.meta.rules.tables import Node as NodeRow
from sds_node.meta.rules.wire import ORDER_DOMAIN, sign_observation
from sds_node.meta.users import Settings, Users
from sds_node.meta.users.roots import ShareRoots, open_roots
from sds_node.p2p import address_of
from sds_node.schemes import Scheme, scheme_for, segment_count, segment_size, share_bytes
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.rules.support import CHAIN_ID, PARAMS, START_MS, event, granted, message, meta, meta_key, observed_meta, sold, wallet, wallet_key

QUICK = Settings(block_wait_s=0.02, poll_s=0.01, step_s=0.01, lost_step_s=0.01)
BOUGHT_NOZ = 10**12


@dataclass
class Clock:
    """Unix seconds that stand still until a test moves them; the ledger's and everybody's."""

    now_s: float = START_MS / 1_000

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass(frozen=True)
class Candidate:
    number: int
    owner: bytes
    prefix: bytes
    weight: int
    free_bytes: int


@dataclass(frozen=True)
class Contact:
    number: int
    address: bytes
    p2p_key: bytes
    beneficiary: bytes
    endpoint: str
    relay: Any
    is_online: bool


@dataclass
class Nodes:
    """The registry: nodes 1 to count, each with an owner, a prefix and a key of its own."""

    count_: int
    free_bytes: int = 1 << 40
    away: set[int] = field(default_factory=set)
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)
    heard: dict[int, bytes] = field(default_factory=dict)
    """Node → the network prefix that is heard here, whatever the ledger says."""

    def key(self, number: int) -> nacl.signing.SigningKey:
        return nacl.signing.SigningKey(sha256(b"resource %d" % number).digest())

    def owner(self, number: int) -> bytes:
        return sha256(b"owner %d" % number).digest()[:20]

    def address(self, number: int) -> bytes:
        return address_of(bytes(self.key(number).verify_key))

    def number_of(self, p2p_key: bytes) -> int:
        return next(number for number in range(1, self.count_ + 1) if bytes(self.key(number).verify_key) == p2p_key)

    def candidates(self) -> Sequence[Candidate]:
        there = [number for number in range(1, self.count_ + 1) if number not in self.away]
        made = [Candidate(number, self.owner(number), bytes([127, number >> 8, number & 255]), 1_000, self.free_bytes) for number in there]
        return [replace(one, **self.changes.get(one.number, {})) for one in made]

    def contact(self, number: int) -> Contact | None:
        if not 1 <= number <= self.count_:
            return None
        endpoint = f"127.{number}.0.1:18081"
        key = bytes(self.key(number).verify_key)
        return Contact(number, self.address(number), key, self.owner(number), endpoint, None, number not in self.away)

    def prefix(self, row: NodeRow) -> bytes:
        return self.heard.get(row.number, row.prefix)

    def count(self) -> int:
        candidates = self.candidates()
        return min(len({one.owner for one in candidates}), len({one.prefix for one in candidates}))

    def events(self) -> list[Any]:
        made = []
        for number in range(1, self.count_ + 1):
            node = message(
                "ObservedNode", address=self.address(number), owner=self.owner(number), beneficiary=self.owner(number),
                p2p_key=bytes(self.key(number).verify_key), deposit_wei="1000", standing=1,
            )  # fmt: skip
            made.append(event(node=node))
        return made


@dataclass
class Meta:
    """A running meta node."""

    folder: Path
    clock: Clock
    nodes: Nodes
    ledger: Ledger
    proposer: Proposer
    roots: ShareRoots
    users: Users
    server: Server
    host: str
    port: int
    told: list[tuple[int, str, bytes]]
    failures: list[tuple[int, bytes]]
    callers: list[Node] = field(default_factory=list)
    height: int = 100
    outstanding: int = 0
    metas: int = 1

    async def observe(self, *events: Any, block_hash: bytes = bytes(32), sold_noz: int = 0) -> None:
        """A height of the value chain."""
        self.outstanding += sold_noz
        self.height += 1
        body = encode(
            message(
                "Observation", chain_id=CHAIN_ID, from_height=self.height, to_height=self.height, is_last=True, block_hash=block_hash,
                block_time_s=int(self.clock()), outstanding_noz=str(self.outstanding or ""), events=events,
            )
        )  # fmt: skip
        made = message("Observe", observation=body)
        for number in range(1, self.metas + 1):
            made.signatures.add(meta_node=meta(number), signature=sign_observation(body, meta_key(number)))
        await self.proposer.propose("observe", made)

    async def buys(self, number: int, noz: int = BOUGHT_NOZ) -> None:
        await self.observe(sold(number, noz), sold_noz=noz)

    async def is_granted(self, number: int, noz: int) -> None:
        await self.observe(granted(number, noz, int(self.clock()) + 3 * 86_400), sold_noz=noz)

    async def user(self, number: int = 1, *, is_open: bool = True, **changes: Any) -> User:
        """A wallet with a new session; changes are of the grant."""
        fields: dict[str, Any] = {"max_noz": 10**12, "actions": [1, 2], "life_s": 7_200}
        session = open_session(wallet_key(number), CHAIN_ID, clock=self.clock, **fields | changes)
        node = Node(session.identity, CHAIN_ID)
        self.callers.append(node)
        made = User(self, number, session, Peer(node, self.server_address, [Direct(self.host, self.port)]))
        if is_open:
            await made.open()
        return made

    @property
    def server_address(self) -> bytes:
        return self.server.node.address

    async def get(self, table: Any, *key: Any) -> Any:
        return await self.ledger.query(lambda view: view.get(table, key))

    async def wallet(self, number: int = 1) -> Any:
        return await self.get(WALLET, wallet(number))

    async def lease(self, lease_id: bytes) -> Any:
        return await self.get(LEASE, lease_id)

    async def close(self) -> None:
        for caller in self.callers:
            await caller.close()
        await self.server.close()
        await self.users.close()
        self.ledger.close()
        self.roots.close()


@asynccontextmanager
async def meta_node(
    folder: Path, count: int = 6, *, nodes: Nodes | None = None, settings: Settings = QUICK, clock: Clock | None = None, boot: int = 1,
    params: dict[str, Any] | None = None, is_new: bool = True, metas: int = 1, cosign: Any = None, tell: Any = None, **others: Any,
) -> AsyncIterator[Meta]:  # fmt: skip
    """A meta node with so many nodes; wallet 1 has bought ozone. Every row is checked at the end. ``is_new`` False: the one of before, started again."""
    clock, nodes = clock or Clock(), nodes or Nodes(count)
    ledger = Ledger.open(f"sqlite:///{folder}/ledger.db", rules(CHAIN_ID), CHAIN_ID, now_ms=lambda: int(clock() * 1_000))
    proposer = Proposer(ledger, CHAIN_ID, meta(1), meta_key(1), clock)
    if is_new:
        found = message(
            "Found", height=100, block_hash=bytes(32), metas=[observed_meta(one) for one in range(1, metas + 1)],
            params=message("LedgerParams", **PARAMS | (params or {})),
        )  # fmt: skip
        await proposer.propose("found", found)
    else:
        await proposer.start()
    told: list[tuple[int, str, bytes]] = []
    failures: list[tuple[int, bytes]] = []

    async def note(number: int, method: str, body: bytes) -> None:
        told.append((number, method, body))

    async def nobody(_: bytes) -> list[tuple[bytes, bytes]]:
        return []

    roots = open_roots(folder / "roots.db")
    users = Users(
        proposer, meta_key(1), nodes, roots, clock, boot=boot, cosign=cosign or nobody, tell=tell or note,
        report_failure=lambda number, _, who: failures.append((number, who)), settings=settings, **others,
    )  # fmt: skip
    await users.start()
    server = Server(Node(Identity.ephemeral(), CHAIN_ID, users.handlers()))
    host, port = await server.listen()
    made = Meta(folder, clock, nodes, ledger, proposer, roots, users, server, host, port, told, failures, metas=metas)
    try:
        if is_new:
            await made.observe(*nodes.events())
            await made.buys(1)
        yield made
        await ledger.query(check)
    finally:
        await made.close()


@dataclass
class Stored:
    """An object that nodes acknowledged: what a commit takes."""

    lease_id: bytes
    message: Any
    object_id: bytes = b""

    def ask(self, *others: Stored) -> Any:
        objects = sorted([self.message, *(one.message for one in others)], key=lambda one: one.counter)
        return asking.CommitAsk(lease_id=self.lease_id, objects=objects)


@dataclass
class User:
    """A wallet's session."""

    meta: Meta
    number: int
    session: Session
    peer: Peer

    async def ask(self, method: str, head: Any, reply: Any = None, body: Any = None) -> Any:
        answer = await self.peer.ask(
            method, b"" if head is None else encode(head), b"" if body is None else encode(body), most_bytes=asking.MAX_ANSWER_BYTES
        )
        return answer if reply is None else reply.FromString(answer)

    async def open(self) -> Any:
        return await self.ask(asking.SESSION_OPEN, asking.SessionHead(grant=self.session.grant), asking.WalletRow)

    async def lease(self, noz: int = 10**9, seconds: int = 3_600, fund: int = 1) -> bytes:
        return bytes((await self.certificate(noz, seconds, fund)).lease_id)

    async def certificate(self, noz: int, seconds: int = 3_600, fund: int = 1) -> Any:
        reply = await self.ask(asking.LEASE_TAKE, asking.LeaseHead(noz=noz, seconds=seconds, fund=fund), asking.LeaseReply)
        return Lease.FromString(reply.certificate.body)

    async def end(self, lease_id: bytes) -> None:
        await self.ask(asking.LEASE_END, asking.LeaseEndHead(lease_id=lease_id))

    async def plan(self, size_bytes: int) -> Any:
        return await self.ask(asking.OBJECT_PLAN, asking.PlanHead(size_bytes=size_bytes), asking.Plan)

    async def put_places(self, lease_id: bytes, *asks: Any) -> list[Any]:
        reply = await self.ask(asking.PLACE_PUT, asking.PlacePutHead(lease_id=lease_id, segments=asks), asking.Places)
        return list(reply.places)

    async def another(self, lease_id: bytes, ask: Any, index: int, tried: Sequence[bytes]) -> list[Any]:
        head = asking.PlaceAnotherHead(lease_id=lease_id, segment=ask, index=index, tried=tried)
        return list((await self.ask(asking.PLACE_ANOTHER, head, asking.Places)).places)

    async def get_places(self, lease_id: bytes, *asks: Any) -> list[Any]:
        return list((await self.ask(asking.PLACE_GET, asking.PlaceGetHead(lease_id=lease_id, shares=asks), asking.Places)).places)

    async def commit(self, ask: Any) -> list[Any]:
        return list((await self.ask(asking.OBJECT_COMMIT, None, asking.CommitReply, ask)).objects)

    async def find(self, **head: Any) -> Any:
        return (await self.ask(asking.FILE_FIND, asking.FileFindHead(**head), asking.FileReply)).file

    async def order(self, **kind: Any) -> Any:
        return await self.ask(asking.FILE_ORDER, asking.OrderHead(order=self.signed_order(**kind)))

    def signed_order(self, **kind: Any) -> Any:
        fields = {"chain_id": CHAIN_ID, "wallet": wallet(self.number), "nonce": secrets.token_bytes(16), "expires_s": int(self.meta.clock()) + 600}
        body = encode(message("WalletOrder", **fields | kind))
        key = wallet_key(self.number)
        return {"body": body, "public_key": key.public_key.raw, "signature": key.sign(ORDER_DOMAIN + b"\x00" + body)}

    # --- storing without nodes ---

    async def store(self, lease_id: bytes, counter: int, size_bytes: int, *, missing: Sequence[int] = (), **changes: Any) -> Stored:
        """Place an object and have its nodes acknowledge all shares but those of the ``missing`` indexes."""
        scheme = scheme_for(self.meta.nodes.count(), size_bytes)
        segments = []
        for number in range(segment_count(size_bytes)):
            ask = put_ask(counter, size_bytes, number, scheme)
            places = await self.put_places(lease_id, ask)
            kept = [one for one in places if one.index not in missing]
            segments.append(stored_segment(self.meta.nodes, ask, kept))
        return Stored(lease_id, stored_object(counter, size_bytes, scheme, segments, **changes))

    async def keep(self, lease_id: bytes, counter: int, size_bytes: int, **changes: Any) -> Any:
        """An object in the ledger. Gives the CommittedObject."""
        stored = await self.store(lease_id, counter, size_bytes, **changes)
        return (await self.commit(stored.ask()))[0]


def put_ask(counter: int, size_bytes: int, number: int, scheme: Scheme, *, is_coded: bool = True) -> Any:
    roots = [share_root_of(counter, number, index) for index in range(scheme.n)] if is_coded else []
    return asking.PutAsk(
        counter=counter, object_bytes=size_bytes, segment=number, segment_bytes=segment_size(size_bytes, number), data_shares=scheme.k,
        total_shares=scheme.n, share_roots=roots,
    )  # fmt: skip


def share_root_of(counter: int, number: int, index: int) -> bytes:
    return sha256(b"share %d %d %d" % (counter, number, index)).digest()


def limit_of(place: Any) -> Any:
    return OrderLimit.FromString(place.order_limit.body)


def ack(nodes: Nodes, place: Any, root: bytes, size_bytes: int, *, key: nacl.signing.SigningKey | None = None, **changes: Any) -> Any:
    """What the node of a place says of a share."""
    key = key or nodes.key(nodes.number_of(place.p2p_key))
    fields: dict[str, Any] = {
        "chain_id": CHAIN_ID, "node": bech32.encode(address_of(bytes(key.verify_key)), bech32.NODE), "serial": limit_of(place).serial,
        "share_root": root, "size_bytes": size_bytes, "stored_s": START_MS // 1_000,
    }  # fmt: skip
    return signed(StoreAck(**fields | changes), key)


def stored_segment(nodes: Nodes, ask: Any, places: Sequence[Any], change: Callable[[Any, Any], Any] | None = None) -> Any:
    """A StoredSegment whose shares the places' nodes acknowledge."""
    scheme = next(
        one for one in (scheme_for(n, ask.object_bytes) for n in (1, 2, 3, 6, 12, 36)) if (one.k, one.n) == (ask.data_shares, ask.total_shares)
    )
    roots = [share_root_of(ask.counter, ask.segment, index) for index in range(scheme.n)]
    size = share_bytes(scheme, ask.segment_bytes)
    made = asking.StoredSegment(share_roots=roots)
    for place in sorted(places, key=lambda one: one.index):
        share = asking.StoredShare(
            index=place.index, p2p_key=place.p2p_key, order_limit=place.order_limit, ack=ack(nodes, place, roots[place.index], size)
        )  # fmt: skip
        made.shares.append(change(place, share) if change is not None else share)
    return made


def stored_object(counter: int, size_bytes: int, scheme: Scheme, segments: Sequence[Any], **changes: Any) -> Any:
    root = object_root(segment_root([bytes(root) for root in one.share_roots]) for one in segments)
    record = {"lookup_id": lookup(counter), "name": b"name%d" % counter, "wrapped_key": b"key%d" % counter} | changes.pop("file", {})
    fields: dict[str, Any] = {
        "counter": counter, "root": root, "file_hash": file_hash(b"content %d" % counter), "size_bytes": size_bytes, "data_shares": scheme.k,
        "total_shares": scheme.n, "segments": segments, "file": message("FileRecord", **record),
    }  # fmt: skip
    return asking.StoredObject(**fields | changes)


def lookup(number: int) -> bytes:
    return sha256(b"lookup %d" % number).digest()


def resigned(document: Any, kind: Any, domain_key: nacl.signing.SigningKey, **changes: Any) -> Any:
    """A SignedDocument of a changed document, signed by whoever."""
    made = kind.FromString(document.body)
    for name, value in changes.items():
        setattr(made, name, value)
    return signed(made, domain_key)
