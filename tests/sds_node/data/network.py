"""A storage network in one process: resource nodes with real stores and sockets, a meta node's issuer in memory that signs real documents, sessions."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing

from chain.crypto import address as bech32
from modules.settlement.documents import Receipt
from sds_node import transfers
from sds_node.client.session import Session, open_session
from sds_node.client.transfer import GetWanted, ObjectToGet, Place, PutWanted, ShareToPut, StoredObject, last_receipts
from sds_node.documents import LeaseCertificate, signed
from sds_node.merkle import LEAF_BYTES, leaf_count, segment_path, segment_root, share_root
from sds_node.p2p import address_of
from sds_node.resource import store as shares
from sds_node.resource.receipts import ReceiptLog, open_receipts
from sds_node.resource.service import Service, Settings
from sds_node.schemes import ONE_COPY, Scheme
from sds_node.transfers import serial_at
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream
from tests.sds_node.documenting import BENEFICIARY, CHAIN_ID, NOW_S, PAYER, Chain, certificate, limit, meta_address, meta_key
from tests.serials import own_serial

LIFE_S = 600
STORE = shares.Settings(reserve_bytes=0)


@dataclass
class Clock:
    """Unix seconds that stand still until a test moves them."""

    now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


def content(number: int, size_bytes: int) -> bytes:
    """The same bytes for the same number."""
    return random.Random(number).randbytes(size_bytes)


@dataclass
class Resource:
    """A running resource node."""

    key: nacl.signing.SigningKey
    home: Path
    store: shares.ShareStore
    receipts: ReceiptLog
    service: Service
    server: Server
    host: str
    port: int
    chain: Chain

    @property
    def address(self) -> bytes:
        return address_of(bytes(self.key.verify_key))

    def leaves(self, now_s: int = NOW_S) -> list[Any]:
        return self.receipts.pending(now_s)

    async def close(self) -> None:
        self.service.stop()
        await self.server.close()
        self.service.close()
        self.receipts.close()
        self.store.close()


def node_key(number: int) -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(sha256(b"resource %d" % number).digest())


async def resource(
    home: Path,
    clock: Callable[[], float],
    number: int = 1,
    settings: Settings | None = None,
    *,
    chain: Chain | None = None,
    change: Callable[[dict[str, Handler]], None] | None = None,
    port: int = 0,
) -> Resource:
    """A resource node that listens; ``change`` may put a liar's handlers into the place of the good ones."""
    chain, key = chain or Chain(), node_key(number)
    store = shares.open_store(home / "shares", STORE)
    receipts = open_receipts(home / "receipts")
    service = Service(chain, key, BENEFICIARY, store, receipts, clock, settings or Settings(threads=2))
    await service.start()
    handlers = service.handlers()
    if change is not None:
        change(handlers)
    server = Server(Node(Identity(bytes(key)), CHAIN_ID, handlers))
    host, bound = await server.listen(port=port)
    return Resource(key, home, store, receipts, service, server, host, bound, chain)


@dataclass
class Issuer:
    """Meta node 1 with one lease: it chooses nodes in order and remembers who holds what."""

    session: Session
    caller: Node
    nodes: Sequence[Resource]
    numbers: Any = field(default_factory=lambda: itertools.count(1))
    noz: int = 0
    roots: dict[tuple[int, int], tuple[Resource, bytes]] = field(default_factory=dict)
    """(segment, share's number) → its holder and root."""
    peers: dict[bytes, Peer] = field(default_factory=dict)
    spare: list[Resource] = field(default_factory=list)
    issued: int = 0
    changes: dict[str, Any] = field(default_factory=dict)
    giver: bytes = field(default_factory=lambda: meta_address(1))
    """The meta node whose serials these are."""

    def peer(self, node: Resource) -> Peer:
        return self.peers.setdefault(node.address, Peer(self.caller, node.address, [Direct(node.host, node.port)]))

    def limit(self, node: bytes, action: int, max_bytes: int, max_noz: int, serial: bytes | None = None, **changes: Any) -> Any:
        """A SignedDocument of an order limit for the node with that address, that takes the next part of the lease."""
        fields: dict[str, Any] = {
            "serial": serial if serial is not None else own_serial(self.giver, next(self.numbers)),
            "node": bech32.encode(node, bech32.NODE),
            "session_pubkey": self.session.public_key,
            "wallet": self.session.wallet,
            "action": action,
            "max_bytes": max_bytes,
            "max_noz": max_noz,
            "from_noz": self.noz,
            "to_noz": self.noz + max_noz,
            "created_s": NOW_S - 5,
            "expires_s": NOW_S + LIFE_S,
        }
        self.issued += 1
        self.noz += max_noz
        return signed(limit(0, **fields | changes | self.changes), meta_key(1))

    def place(self, node: Resource, order_limit: Any) -> Place:
        return Place(self.peer(node), bytes(node.key.verify_key), order_limit, self.certificate)

    @property
    def certificate(self) -> Any:
        return LeaseCertificate.FromString(_CERTIFICATE)

    def for_share(self, node: Resource, root: bytes, size_bytes: int, **changes: Any) -> Place:
        """A place for a put of one share."""
        return self.place(node, self.limit(node.address, 2, size_bytes, max(1, size_bytes // 2), share_root=root, object_root=b"o" * 32, **changes))

    def to_read(self, node: Resource, root: bytes, max_bytes: int, **changes: Any) -> Place:
        return self.place(node, self.limit(node.address, 1, max_bytes, max_bytes, share_root=root, object_root=b"O" * 32, **changes))

    async def for_put(self, wanted: PutWanted) -> Sequence[Place]:
        first = own_serial(self.giver, next(self.numbers))
        for _ in range(wanted.scheme.n - 1):
            next(self.numbers)
        return [self._put_place(wanted, index, self.nodes[index], serial_at(first, index)) for index in range(wanted.scheme.n)]

    def _put_place(self, wanted: PutWanted, index: int, node: Resource, serial: bytes | None = None) -> Place:
        size = wanted.share_bytes
        self.roots[wanted.segment, index] = node, wanted.share_roots[index]
        changes = {"object_root": wanted.object_id, "share_root": wanted.share_roots[index]}
        return self.place(node, self.limit(node.address, 2, size, max(1, size // 2), serial, **changes))

    async def another(self, wanted: PutWanted, index: int, tried: Collection[bytes]) -> Place | None:
        for node in self.spare:
            if node.address not in tried:
                self.spare.remove(node)
                return self._put_place(wanted, index, node)
        return None

    async def for_get(self, wanted: GetWanted) -> Place | None:
        held = self.roots.get((wanted.segment, wanted.index))
        return None if held is None else self.to_read(held[0], held[1], wanted.size_bytes)


_CERTIFICATE = certificate(noz=10**12).SerializeToString()


@dataclass
class Network:
    """Nodes, a session and its issuer."""

    clock: Clock
    nodes: list[Resource]
    session: Session
    issuer: Issuer
    callers: list[Node]

    def another_client(self) -> Node:
        """Another client of the session."""
        self.callers.append(Node(self.session.identity, CHAIN_ID))
        return self.callers[-1]

    def another_session(self, **changes: Any) -> Issuer:
        """Somebody else's session with the same lease: its limits begin a billion noz further."""
        session = open_session(PAYER, CHAIN_ID, max_noz=10**12, actions=[1, 2], clock=self.clock, **changes)
        caller = Node(session.identity, CHAIN_ID)
        self.callers.append(caller)
        start = len(self.callers) * 10**9
        return Issuer(session, caller, self.nodes, itertools.count(start), start)


@asynccontextmanager
async def network(
    folder: Path, count: int = 1, settings: Settings | None = None, changes: dict[int, Callable[[dict[str, Handler]], None]] | None = None
) -> AsyncIterator[Network]:
    """``count`` nodes, numbered from 1; ``changes`` makes liars of some."""
    clock, made, callers = Clock(), [], []  # type: ignore[var-annotated]
    try:
        for number in range(1, count + 1):
            made.append(await resource(folder / f"node{number}", clock, number, settings, change=(changes or {}).get(number)))
        session = open_session(PAYER, CHAIN_ID, max_noz=10**12, actions=[1, 2], clock=clock)
        callers.append(Node(session.identity, CHAIN_ID))
        yield Network(clock, made, session, Issuer(session, callers[0], made), callers)
    finally:
        for caller in callers:
            await last_receipts(caller, 0.0)
            await caller.close()
        for node in made:
            await node.close()


def liar(method: str, change: Callable[[Stream, Connection, Handler], Awaitable[None]]) -> Callable[[dict[str, Handler]], None]:
    """For ``changes``: a node's handler of a method is given to another one, which calls it or not."""

    def put_in(handlers: dict[str, Handler]) -> None:
        honest = handlers[method]

        async def handler(stream: Stream, connection: Connection) -> None:
            await change(stream, connection, honest)

        handlers[method] = handler

    return put_in


def leaf_by_leaf(pause_s: float) -> Callable[[dict[str, Handler]], None]:
    """For ``changes``: a node that sends a leaf of what is read at a time, and pauses after it."""

    async def get(stream: Stream, connection: Connection, honest: Handler) -> None:
        send = stream.send

        async def sent(data: Any) -> None:
            for at in range(0, len(data), LEAF_BYTES):
                await send(bytes(data[at : at + LEAF_BYTES]))
                await asyncio.sleep(pause_s)

        stream.send = sent  # type: ignore[method-assign]
        await honest(stream, connection)

    return liar(transfers.GET, get)


def lone(data: bytes, scheme: Scheme = ONE_COPY, object_id: bytes = b"o" * 32) -> ShareToPut:
    """A segment of one copy: the share that is the segment."""
    root = share_root(data)
    roots = [root] * scheme.n
    return ShareToPut(object_id, 0, len(data), 0, scheme, root, segment_root(roots), segment_path(roots, 0))


async def pieces_of(data: bytes, size_bytes: int = 300_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size_bytes):
        yield data[start : start + size_bytes]


def to_get(stored: StoredObject) -> ObjectToGet:
    return ObjectToGet(stored.root, stored.size_bytes, stored.scheme, tuple(one.root for one in stored.segments))


def leaves_of(data: bytes) -> Iterable[bytes]:
    return (data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES] for index in range(leaf_count(len(data))))


def raw_receipt(session: Session, place: Place, **fields: Any) -> bytes:
    """A receipt's record, as a liar may make it."""
    times = {"first_ms": NOW_S * 1000, "last_ms": NOW_S * 1000}
    base = {"chain_id": CHAIN_ID, "serial": place.limit.serial, "sequence": 1, "bytes_acked": 0, "chunks_digest": b"d" * 32, "is_final": True}
    key = fields.pop("key", session.key)
    data = signed(Receipt(**{**base, **times, **fields}), key).SerializeToString()
    return len(data).to_bytes(4, "big") + data
