"""A whole network in one process: a real meta node's handlers for users over a real ledger, real resource nodes, wallets that have bought ozone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from sds_node import asking, transfers
from sds_node.client.meta import MetaAddress
from sds_node.client.placing import Settings as Patience
from sds_node.client.storage import Storage
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.operations import Proposer
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.tables import Node as NodeRow
from sds_node.meta.rules.wire import sign_observation
from sds_node.meta.users import Settings, Users
from sds_node.meta.users.roots import ShareRoots, open_roots
from sds_node.p2p import address_of
from sds_node.resource import store as shares
from sds_node.resource.receipts import open_receipts
from sds_node.resource.service import Service
from sds_node.resource.service import Settings as Serving
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream
from tests.sds_node.data.network import Resource, node_key
from tests.sds_node.rules.support import CHAIN_ID, PARAMS, START_MS, event, message, sold, wallet, wallet_key

BOUGHT_NOZ = 10**11
META = nacl.signing.SigningKey(sha256(b"meta's p2p key").digest())
LEDGER = nacl.signing.SigningKey(sha256(b"meta's ledger key").digest())
META_ADDRESS = address_of(bytes(META.verify_key))
SECOND = nacl.signing.SigningKey(sha256(b"second meta's p2p key").digest())
SECOND_LEDGER = nacl.signing.SigningKey(sha256(b"second meta's ledger key").digest())
SECOND_ADDRESS = address_of(bytes(SECOND.verify_key))
LEDGER_KEYS = {META_ADDRESS: LEDGER, SECOND_ADDRESS: SECOND_LEDGER}
PATIENCE = Patience(stall_s=20.0, straggler_s=1.0, hedge_s=3.0)


@dataclass
class Clock:
    """Unix seconds that stand still until a test moves them; ``is_live``: those of the machine, for commands, which have no other."""

    now_s: float = START_MS / 1_000
    is_live: bool = False

    def __call__(self) -> float:
        return time.time() if self.is_live else self.now_s


class Chain:
    """What nodes know of the value chain: two meta nodes, of which one signs a lease."""

    chain_id = CHAIN_ID

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        key = LEDGER_KEYS.get(meta_node)
        return bytes(key.verify_key) if key is not None else None

    def active_meta_nodes(self) -> list[bytes]:
        return list(LEDGER_KEYS)


@dataclass(frozen=True)
class Candidate:
    number: int
    owner: bytes
    prefix: bytes
    weight: int = 1_000
    free_bytes: int = 1 << 40


@dataclass(frozen=True)
class Contact:
    number: int
    address: bytes
    p2p_key: bytes
    beneficiary: bytes
    endpoint: str
    is_online: bool
    relay: Any = None


@dataclass
class Registry:
    """Nodes by number from 1 on, each of an owner and a prefix of its own; ``away`` are known to be."""

    nodes: list[Resource]
    away: set[int] = field(default_factory=set)

    def candidates(self) -> Sequence[Candidate]:
        return [Candidate(n, _owner(n), bytes([127, 0, n])) for n in range(1, len(self.nodes) + 1) if n not in self.away]

    def contact(self, number: int) -> Contact | None:
        if not 1 <= number <= len(self.nodes):
            return None
        node = self.nodes[number - 1]
        key = bytes(node.key.verify_key)
        return Contact(number, node.address, key, _owner(number), f"{node.host}:{node.port}", number not in self.away)

    def count(self) -> int:
        return len(self.candidates())

    def prefix(self, row: NodeRow) -> bytes:
        return row.prefix


def _owner(number: int) -> bytes:
    return sha256(b"owner %d" % number).digest()[:20]


async def resource(home: Path, clock: Clock, number: int) -> Resource:
    """A resource node that listens."""
    key, chain = node_key(number), Chain()
    store = shares.open_store(home / "shares", shares.Settings(reserve_bytes=0))
    receipts = open_receipts(home / "receipts")
    service = Service(chain, key, bech32.encode(_owner(number)), store, receipts, clock, Serving(threads=1))
    await service.start()
    server = Server(Node(Identity(bytes(key)), CHAIN_ID, service.handlers()))
    host, port = await server.listen()
    return Resource(key, home, store, receipts, service, server, host, port, chain)  # type: ignore[arg-type]


@dataclass
class Network:
    folder: Path
    clock: Clock
    ledger: Ledger
    proposer: Proposer
    roots: ShareRoots
    registry: Registry
    users: Users
    server: Server
    where: MetaAddress
    counts: dict[str, int]
    changes: dict[str, Callable[[Handler, Stream, Connection], Any]]
    """By method: called instead of its handler, which it is given."""
    told: list[tuple[int, str, bytes]]
    failures: list[int]
    height: int = 100
    bought: int = 0
    boot: int = 1
    second: MetaAddress | None = None
    """Another meta node of the same ledger, where there is one."""
    second_users: Users | None = None

    @property
    def nodes(self) -> list[Resource]:
        return self.registry.nodes

    async def observe(self, *events: Any, sold_noz: int = 0) -> None:
        self.bought += sold_noz
        self.height += 1
        body = encode(
            message(
                "Observation", chain_id=CHAIN_ID, from_height=self.height, to_height=self.height, is_last=True, block_hash=bytes(32),
                block_time_s=int(self.clock()), outstanding_noz=str(self.bought or ""), events=events,
            )
        )  # fmt: skip
        made = message("Observe", observation=body)
        for address, key in sorted(LEDGER_KEYS.items()) if self.second is not None else [(META_ADDRESS, LEDGER)]:
            made.signatures.add(meta_node=address, signature=sign_observation(body, key))
        await self.proposer.propose("observe", made)

    async def buys(self, number: int, noz: int = BOUGHT_NOZ) -> None:
        """A wallet buys ozone on the chain."""
        await self.observe(sold(number, noz), sold_noz=noz)

    def wallet(self, number: int = 1) -> PrivateKey:
        return wallet_key(number)

    def storage(self, number: int = 1, **changes: Any) -> Storage:
        """A wallet's client; use it with ``async with``."""
        fields: dict[str, Any] = {"clock": self.clock, "settings": PATIENCE}
        return Storage(wallet_key(number), CHAIN_ID, [self.where], **fields | changes)

    async def restart(self) -> None:
        """The meta node stops and starts: sessions and leases in use are forgotten."""
        await self.users.close()
        self.boot += 1
        self.users = _users(self.proposer, self.registry, self.roots, self.clock, self.told, self.failures, self.boot)
        await self.users.start()
        for name, one in self.users.handlers().items():
            self.server.node.handlers[name] = _counted(self.changes, self.counts, name, one)

    async def confirmed(self) -> None:
        """Have the nodes know what the meta node told them."""
        await self.users.close()
        caller = Node(Identity(bytes(META)), CHAIN_ID)
        try:
            for number, method, body in self.told:
                node = self.nodes[number - 1]
                await Peer(caller, node.address, [Direct(node.host, node.port)]).ask(method, b"", body, most_bytes=transfers.MAX_PAGE_BYTES)
        finally:
            await caller.close()


def _counted(network_changes: dict[str, Any], counts: dict[str, int], name: str, handler: Handler) -> Handler:
    async def serve(stream: Stream, connection: Connection) -> None:
        counts[name] = counts.get(name, 0) + 1
        change = network_changes.get(name)
        await (handler(stream, connection) if change is None else change(handler, stream, connection))

    return serve


@asynccontextmanager
async def network(
    folder: Path, count: int = 6, *, wallets: int = 1, params: dict[str, Any] | None = None, is_live: bool = False, has_second: bool = False
) -> AsyncIterator[Network]:
    """A network of ``count`` nodes; wallets 1 to ``wallets`` have bought ozone. ``has_second``: two meta nodes use one ledger and roots that both have. Its rows are checked at the end."""
    clock, nodes = Clock(is_live=is_live), []  # type: ignore[var-annotated]
    ledger = Ledger.open(f"sqlite:///{folder}/ledger.db", rules(CHAIN_ID), CHAIN_ID, now_ms=lambda: int(clock() * 1_000))
    proposer = Proposer(ledger, CHAIN_ID, META_ADDRESS, LEDGER, clock)
    observed = [
        message("ObservedMeta", address=address, owner=_owner(0), ledger_key=bytes(key.verify_key), is_active=True)
        for address, key in (sorted(LEDGER_KEYS.items()) if has_second else [(META_ADDRESS, LEDGER)])
    ]
    await proposer.propose(
        "found", message("Found", height=100, block_hash=bytes(32), metas=observed, params=message("LedgerParams", **PARAMS | (params or {})))
    )
    registry, told, failures = Registry(nodes), [], []  # type: ignore[var-annotated]

    roots = open_roots(folder / "roots.db")
    users = _users(proposer, registry, roots, clock, told, failures, 1)
    await users.start()
    counts: dict[str, int] = {}
    changes: dict[str, Any] = {}

    async def info(stream: Stream, connection: Connection) -> None:
        made = asking.MetaInfo(
            chain_id=CHAIN_ID, meta_node=bech32.encode(META_ADDRESS, bech32.NODE), time_ms=int(clock() * 1_000), is_ready=True,
            eligible_nodes=registry.count(), params=message("LedgerParams", **PARAMS | (params or {})),
        )  # fmt: skip
        await stream.send(encode(made))
        stream.end()

    handlers = {name: _counted(changes, counts, name, one) for name, one in {**users.handlers(), asking.INFO: info}.items()}
    server = Server(Node(Identity(bytes(META)), CHAIN_ID, handlers))
    host, port = await server.listen()
    made = Network(
        folder, clock, ledger, proposer, roots, registry, users, server, MetaAddress(META_ADDRESS, host, port), counts, changes, told, failures
    )
    loops = asyncio.create_task(users.run())
    second = Server(Node(Identity(bytes(SECOND)), CHAIN_ID))
    try:
        if has_second:
            other = Proposer(ledger, CHAIN_ID, SECOND_ADDRESS, SECOND_LEDGER, clock)
            made.second_users = _users(other, registry, roots, clock, told, failures, 1, SECOND_LEDGER)
            second.node.handlers.update(made.second_users.handlers())
            made.second = MetaAddress(SECOND_ADDRESS, *await second.listen())
        for number in range(1, count + 1):
            nodes.append(await resource(folder / f"node{number}", clock, number))
        await made.observe(*(_observed(number, node) for number, node in enumerate(nodes, 1)))
        for number in range(1, wallets + 1):
            await made.buys(number)
        yield made
        await ledger.query(check)
    finally:
        loops.cancel()
        await asyncio.gather(loops, return_exceptions=True)
        for node in nodes:
            await node.close()
        await server.close()
        await second.close()
        await users.close()
        if made.second_users is not None:
            await made.second_users.close()
        ledger.close()
        roots.close()


def _users(
    proposer: Proposer, registry: Registry, roots: ShareRoots, clock: Clock, told: list[Any], failures: list[int], boot: int,
    key: nacl.signing.SigningKey = LEDGER,
) -> Users:  # fmt: skip
    async def tell(number: int, method: str, body: bytes) -> None:
        told.append((number, method, body))

    async def nobody(_: bytes) -> list[tuple[bytes, bytes]]:
        return []

    return Users(
        proposer, key, registry, roots, clock, boot=boot, cosign=nobody, tell=tell, report_failure=lambda number, _, __: failures.append(number),
        settings=Settings(block_wait_s=0.0, poll_s=0.01),
    )  # fmt: skip


def stuck_after(net: Network, asks: int = 1) -> asyncio.Event:
    """From now on no puts get places once they asked so often. The event tells that one asked again."""
    stuck = asyncio.Event()

    async def serve(handler: Any, stream: Any, connection: Any) -> None:
        if net.counts[asking.PLACE_PUT] > asks:
            stuck.set()
            await asyncio.sleep(60)
        await handler(stream, connection)

    net.changes[asking.PLACE_PUT] = serve
    return stuck


async def came(event: asyncio.Event, *running: asyncio.Task[Any], within_s: float = 60.0) -> None:
    """Wait for an event. Raises when it does not come in time, or when what should bring it ends before, also what ended it."""
    waiting = asyncio.create_task(event.wait())
    try:
        done, _ = await asyncio.wait({waiting, *running}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for one in done - {waiting}:
            one.result()
        assert event.is_set(), "what should bring it ended before" if done else f"it did not come within {within_s} s"
    finally:
        waiting.cancel()


async def noted(folder: Path, *running: asyncio.Task[Any], within_s: float = 60.0) -> None:
    """Wait until a confirmed segment is noted in a folder of journals. Raises as ``came`` does."""
    async with asyncio.timeout(within_s):
        while not any(b'"stored"' in path.read_bytes() for path in folder.glob("*.put")):  # noqa: ASYNC240 - a few small ones
            for one in running:
                if one.done():
                    raise AssertionError(f"it ended before: {one.result()}")
            await asyncio.sleep(0.02)


def _observed(number: int, node: Resource) -> Any:
    fields = {
        "address": node.address, "owner": _owner(number), "beneficiary": _owner(number), "p2p_key": bytes(node.key.verify_key),
        "deposit_wei": "1000", "standing": 1,
    }  # fmt: skip
    return event(node=message("ObservedNode", **fields))


__all__ = ["BOUGHT_NOZ", "Clock", "Network", "came", "network", "noted", "stuck_after", "wallet"]
