"""Several meta nodes in one process: real keys, the real wire on loopback, each with a ledger of its own that has the same operations."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from chain.crypto import bls
from modules.settlement.documents import GRANT_DOMAIN, SessionGrant
from sds_node import asking, p2p
from sds_node.endpoints import endpoint_text
from sds_node.meta.federation.agreeing import Agreeing
from sds_node.meta.federation.peers import Peers
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.tables import LEASE
from sds_node.meta.rules.wire import sign_observation, sign_operation
from sds_node.wire.connection import Handler
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from tests.sds_node.rules.support import CHAIN_ID, HASH, PARAMS, START_MS, event, message, owner, packed, record, sold, wallet, wallet_key
from tests.serials import first_serial

SESSION = b"\x32" * 32


@dataclass
class Clock:
    """Seconds that stand still until a test moves them."""

    now_s: float = START_MS / 1_000

    def __call__(self) -> float:
        return self.now_s


def network_key(number: int) -> p2p.P2PKey:
    return p2p.P2PKey(sha256(b"meta network %d" % number).digest())


def ledger_key(number: int) -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(sha256(b"meta ledger %d" % number).digest())


def bls_secret(number: int) -> int:
    return bls.secret_from_seed(sha256(b"meta bls %d" % number).digest())


def bls_key(number: int) -> bytes:
    return bls.public_key(bls_secret(number))


def address(number: int) -> bytes:
    return network_key(number).address


def observed_meta(number: int, *, is_active: bool = True) -> Any:
    return message(
        "ObservedMeta", address=address(number), owner=owner(90 + number), ledger_key=bytes(ledger_key(number).verify_key), is_active=is_active
    )  # fmt: skip


@dataclass
class Meta:
    """One meta node. ``monotonic`` is its clock that does not jump."""

    number: int
    ledger: Ledger
    wire: Node
    server: Server
    own: Any
    clock: Clock
    monotonic: Clock
    peers: Peers
    agreeing: Agreeing
    roots: dict[int, list[bytes]] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    @property
    def address(self) -> bytes:
        return self.wire.address

    async def listen(self) -> None:
        self.own.endpoint = endpoint_text(*await self.server.listen())

    def run(self) -> None:
        self.task = asyncio.create_task(self.peers.run())

    async def stop(self) -> None:
        """It is gone, as when its process ends; its ledger stays open."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None
        await self.peers.close()
        await self.server.close()

    async def apply(self, *operations: bytes) -> None:
        for one in operations:
            result = await self.ledger.propose(one)
            assert result.is_applied, result.reason


class Metas(list[Meta]):
    """All of them, numbered from 1; ``operations`` are what each ledger has."""

    def __init__(self, count: int, active: Sequence[int]) -> None:
        super().__init__()
        self.active = active
        self.clock = Clock()
        self.operations: list[bytes] = []
        self.height, self.outstanding, self.nonces = 100, 0, dict.fromkeys(range(1, count + 1), 0)

    def operation(self, kind: str, body: Any, sender: int = 1) -> bytes:
        self.nonces[sender] += 1
        fields = {"chain_id": CHAIN_ID, "meta_node": address(sender), "nonce": self.nonces[sender], "until_s": int(self.clock()) + 600, kind: body}
        return sign_operation(message("Operation", **fields), ledger_key(sender))

    async def apply(self, kind: str, body: Any, sender: int = 1, *, but: Sequence[int] = ()) -> bytes:
        """An operation on all ledgers but those of some; its bytes."""
        raw = self.operation(kind, body, sender)
        self.operations.append(raw)
        for one in self:
            if one.number not in but:
                await one.apply(raw)
        return raw

    def observation(self, *events: Any, height: int = 0) -> bytes:
        height = height or self.height + 1
        return encode(
            message(
                "Observation", chain_id=CHAIN_ID, from_height=height, to_height=height, is_last=True, block_hash=bytes(32),
                block_time_s=int(self.clock()), outstanding_noz=str(self.outstanding or ""), events=events,
            )
        )  # fmt: skip

    async def observe(self, *events: Any) -> None:
        body = self.observation(*events)
        self.height += 1
        made = message("Observe", observation=body)
        for number in sorted(self.active, key=address):
            made.signatures.add(meta_node=address(number), signature=sign_observation(body, ledger_key(number)))
        await self.apply("observe", made)

    async def buys(self, number: int, noz: int = 10**12) -> None:
        self.outstanding += noz
        await self.observe(sold(number, noz))

    def lease_request(self, noz: int = 1_000, number: int = 1) -> Any:
        now_s = int(self.clock())
        body = encode(
            SessionGrant(
                chain_id=CHAIN_ID, wallet=bech32.encode(wallet(number)), session_pubkey=SESSION, actions=[1, 2], path_prefix="/", max_noz=10**12,
                not_before_s=now_s - 60, expires_s=now_s + 7_200, nonce=len(self.operations).to_bytes(16, "big"),
            )
        )  # fmt: skip
        key = wallet_key(number)
        grant = {"body": body, "public_key": key.public_key.raw, "signature": key.sign(GRANT_DOMAIN + b"\x00" + body)}
        return message("TakeLease", wallet=wallet(number), session_pubkey=SESSION, fund=1, noz=noz, seconds=3_600, grant=grant)

    async def lease(self, noz: int = 1_000, *, but: Sequence[int] = ()) -> tuple[Any, bytes]:
        """A lease that meta node 1 holds: its row, and the operation."""
        raw = await self.apply("take_lease", self.lease_request(noz), but=but)
        (row,) = [one for one in await self[0].ledger.query(lambda view: view.scan(LEASE, limit=100)) if one.noz == noz]
        return row, raw

    async def store(self, roots: Sequence[bytes]) -> None:
        """Wallet 1 stores an object of a segment for each root, each at nodes 1 and 2."""
        nodes = [
            message(
                "ObservedNode", address=sha256(b"node%d" % one).digest()[:20], owner=owner(one), beneficiary=owner(one),
                p2p_key=sha256(b"p2p%d" % one).digest(), deposit_wei="1000", standing=1,
            )
            for one in (1, 2)
        ]  # fmt: skip
        await self.observe(*(event(node=one) for one in nodes))
        row, _ = await self.lease(10**9)
        objects = [
            message(
                "NewObject", counter=at + 1, root=sha256(b"object%d" % at).digest(), file_hash=HASH, size_bytes=1_000, data_shares=1,
                total_shares=2, file=record(at + 1),
                segments=[message("NewSegment", root=root, first_serial=first_serial(address(1), b"serial%d" % at), nodes=packed([1, 2]))],
            )
            for at, root in enumerate(roots)
        ]  # fmt: skip
        await self.apply("commit", message("Commit", lease_id=row.id, objects=objects))

    async def greeted(self) -> None:
        """Each has greeted each that listens, once."""
        for one in self:
            await one.peers.refresh()
        for one in self:
            await asyncio.gather(*(one.peers.greet(other) for other in one.peers.others()))


@asynccontextmanager
async def metas(
    folder: Path, count: int = 4, *, active: Sequence[int] | None = None, names: Callable[[int, str], Sequence[str]] | None = None, noz: int = 10**12
) -> AsyncIterator[Metas]:
    """Meta nodes that know of each other from ``network.peers``, unless ``names`` (number, number → endpoint) says otherwise; nobody has greeted yet."""
    made = Metas(count, active or range(1, count + 1))
    async with contextlib.AsyncExitStack() as stack:
        servers: list[Server] = []
        for number in range(1, count + 1):
            server = Server(Node(Identity(network_key(number).seed), CHAIN_ID))
            endpoint = endpoint_text(*await server.listen())
            stack.push_async_callback(server.close)
            servers.append(server)
            server.endpoint = endpoint  # type: ignore[attr-defined]
        texts = [f"{p2p.format_public_key(network_key(at + 1).public_key)}@{one.endpoint}" for at, one in enumerate(servers)]  # type: ignore[attr-defined]
        for number, server in enumerate(servers, 1):
            ledger = Ledger.open(
                f"sqlite:///{folder}/ledger{number}.db", rules(CHAIN_ID), CHAIN_ID, now_ms=lambda: int(made.clock() * 1_000)
            )  # fmt: skip
            stack.callback(ledger.close)
            one = _meta(number, ledger, server, texts if names is None else names(number, texts[number - 1]), made.clock)
            stack.push_async_callback(one.stop)
            made.append(one)
        found = message(
            "Found", height=100, block_hash=bytes(32), params=message("LedgerParams", **PARAMS),
            metas=[observed_meta(one, is_active=one in made.active) for one in sorted(range(1, count + 1), key=address)],
        )  # fmt: skip
        await made.apply("found", found)
        if noz:
            await made.buys(1, noz)
        yield made


def _meta(number: int, ledger: Ledger, server: Server, peers: Sequence[str], clock: Clock) -> Meta:
    own = asking.MetaContact(p2p_key=network_key(number).public_key, endpoint=server.endpoint)  # type: ignore[attr-defined]
    roots: dict[int, list[bytes]] = {}
    monotonic = Clock(0.0)
    made = Peers(server.node, ledger, own, clock, peers=peers, standing=lambda: (number, True), monotonic=monotonic, hello_s=0.05)

    async def roots_of(rows: Sequence[Any]) -> Mapping[int, Sequence[bytes]]:
        return {row.number: roots[row.number] for row in rows if row.number in roots}

    async def bls_keys() -> Mapping[bytes, bytes]:
        return {address(one): bls_key(one) for one in range(1, 10)}

    agreeing = Agreeing(made, ledger, CHAIN_ID, ledger_key(number), bls_key(number), roots_of, bls_keys, clock)
    server.node.handlers.update(made.handlers())
    return Meta(number, ledger, server.node, server, own, clock, monotonic, made, agreeing, roots)


def answering(raw: bytes) -> Handler:
    """A method that answers everything with these bytes."""

    async def serve(stream: Any, connection: Any) -> None:
        await stream.receive_all(1 << 23)
        await stream.send(raw)

    return serve


async def silent(stream: Any, connection: Any) -> None:
    """A method that takes a request and says nothing."""
    await asyncio.Event().wait()


async def until(holds: Callable[[], Any]) -> Any:
    """Lets the loop go on until something holds. The test's own limit is the only clock."""
    while True:
        if value := holds():
            return value
        await asyncio.sleep(0.005)
