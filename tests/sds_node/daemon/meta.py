"""A meta node in memory for tests of resource nodes: what ADR 9 lets nodes ask, and what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from modules.settlement.documents import OrderLimit
from sds_node import asking
from sds_node.documents import Lease, LeaseCertificate, signature_of
from sds_node.p2p import address_of
from sds_node.resource.daemon.config import Config, MetaNode, Monitor, Network, Storage
from sds_node.resource.daemon.home import Home
from sds_node.resource.daemon.node import ResourceNode
from sds_node.wire.connection import Connection
from sds_node.wire.errors import Refused
from sds_node.wire.identity import Identity
from sds_node.wire.limits import Rates
from sds_node.wire.node import Node, Server
from sds_node.wire.stream import Stream
from tests.sds_node.data.network import Clock, Issuer, Resource
from tests.sds_node.documenting import BENEFICIARY, CHAIN_ID, NOW_S, PAYER, WALLET, meta_key

HELD, SETTLED, REFUSED = 1, 2, 3


def meta_seed(number: int) -> bytes:
    return sha256(b"meta node %d" % number).digest()


@dataclass
class Meta:
    """One meta node that listens. ``welcome`` is what it answers to hellos; ``state`` what it makes of receipts; ``refusal`` has it refuse them all."""

    number: int
    welcome: dict[str, Any] = field(default_factory=lambda: {"next_s": 600, "node": 7, "score": 5_000, "standing": 1, "shares": 3})
    state: int = HELD
    reason: str = ""
    refusal: Refused | None = None
    hellos: list[Any] = field(default_factory=list)
    leaves: list[Any] = field(default_factory=list)
    asked_settled: list[bytes] = field(default_factory=list)
    raw_answer: bytes | None = None
    server: Server | None = None
    host: str = ""
    port: int = 0
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def address(self) -> bytes:
        return Identity(meta_seed(self.number)).address

    @property
    def text(self) -> str:
        return bech32.encode(self.address, bech32.NODE)

    @property
    def contact(self) -> str:
        return str(MetaNode(self.address, self.host, self.port))

    async def start(self, port: int = 0) -> None:
        handlers = {
            asking.NODE_HELLO: self._hello,
            asking.NODE_RECEIPTS: self._receipts,
            asking.NODE_SETTLED: self._settled,
            asking.NODE_EARNINGS: self._earnings,
        }
        self.server = Server(Node(Identity(meta_seed(self.number)), CHAIN_ID, handlers))
        self.host, self.port = await self.server.listen(port=port)

    async def close(self) -> None:
        if self.server is not None:
            await self.server.close()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until what was asked makes that true."""
        async with asyncio.timeout(20), self.heard:
            await self.heard.wait_for(is_so)

    async def _told(self) -> None:
        async with self.heard:
            self.heard.notify_all()

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise Refused(self.refusal.code, self.refusal.text)

    async def _hello(self, stream: Stream, _: Connection) -> None:
        self.hellos.append(asking.NodeHello.FromString(stream.head))
        self._refuse()
        await stream.send(self.raw_answer if self.raw_answer is not None else encode(asking.NodeWelcome(time_ms=NOW_S * 1000, **self.welcome)))
        await self._told()

    async def _receipts(self, stream: Stream, _: Connection) -> None:
        batch = asking.ReceiptsBatch.FromString(await stream.receive_all(asking.MAX_BODY_BYTES))
        self._refuse()
        self.leaves += batch.leaves
        serials = [bytes(OrderLimit.FromString(leaf.traffic.order_limit.body).serial) for leaf in batch.leaves]
        await stream.send(self._answers(serials))
        await self._told()

    async def _settled(self, stream: Stream, _: Connection) -> None:
        serials = [bytes(one) for one in asking.SerialList.FromString(await stream.receive_all(asking.MAX_BODY_BYTES)).serials]
        self.asked_settled += serials
        await stream.send(self._answers(serials))
        await self._told()

    async def _earnings(self, stream: Stream, _: Connection) -> None:
        await stream.send(encode(asking.NodeEarningsReply(escrow_noz="10", earned_noz="20", held_noz="30", shares=3)))

    def _answers(self, serials: list[bytes]) -> bytes:
        return encode(asking.ReceiptAnswers(answers=[{"serial": one, "state": self.state, "reason": self.reason} for one in serials]))


@dataclass
class Metas:
    """What resource nodes know of the chain in these tests: the meta nodes with these numbers are active."""

    numbers: tuple[int, ...] = (1,)
    chain_id: str = CHAIN_ID

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        return next((bytes(meta_key(one).verify_key) for one in self.numbers if Identity(meta_seed(one)).address == meta_node), None)

    def active_meta_nodes(self) -> list[bytes]:
        return [Identity(meta_seed(one)).address for one in self.numbers]


class LeasedIssuer(Issuer):
    """An Issuer whose limits are of meta node 1 of these tests."""

    @property
    def certificate(self) -> Any:
        text = bech32.encode(Identity(meta_seed(1)).address, bech32.NODE)
        lease = Lease(
            chain_id=CHAIN_ID,
            lease_id=b"L" * 32,
            wallet=WALLET,
            meta_node=text,
            noz=10**12,
            fund=1,
            created_s=NOW_S - 10,
            expires_s=NOW_S + 3_600,
        )
        body = encode(lease)
        made = LeaseCertificate(body=body)
        made.signatures.add(meta_node=text, signature=signature_of(lease, body, meta_key(1)))
        return made


def issuer(node: ResourceNode, up_bytes_per_s: float | None = None) -> LeasedIssuer:
    """A session that puts to and gets from a running node, under a lease of meta node 1."""
    from sds_node.client.session import open_session

    assert node.listening is not None
    session = open_session(PAYER, CHAIN_ID, max_noz=10**12, actions=[1, 2], clock=Clock())
    host, port = node.listening
    held = Resource(node._key, node.home.root, node.store, node.receipts, node.service, node.server, host, port, node._authority)
    made = LeasedIssuer(session, Node(session.identity, CHAIN_ID, rates=Rates(up_bytes_per_s)), [held])
    made.giver = Identity(meta_seed(1)).address
    made.changes = {"meta_node": bech32.encode(made.giver, bech32.NODE)}
    return made


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something becomes true that nobody tells of."""
    async with asyncio.timeout(30):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.01)


NODE_KEY = nacl.signing.SigningKey(sha256(b"the node under test").digest())


def settings(*metas: Meta, **network: Any) -> Config:
    fields: dict[str, Any] = {"listen_port": 0, "meta_nodes": tuple(meta.contact for meta in metas)}
    return Config(network=Network(**fields | network), storage=Storage(reserve="0"), monitor=Monitor(port=0))


@asynccontextmanager
async def running(
    home: Path, *metas: Meta, clock: Callable[[], float] | None = None, authority: Metas | None = None, config: Config | None = None, **options: Any
) -> AsyncIterator[ResourceNode]:
    """A resource node that has started; the test stops it, or it is stopped at the end."""
    made = Home(home)
    config = config or settings(*metas)
    if not made.is_made:
        made.make(config)
    timing = {"hand_every_s": 3_600.0, "held_s": 3_600.0}
    node = ResourceNode(made, config, NODE_KEY, BENEFICIARY, authority or Metas(), clock or Clock(), **timing | options)
    await node.start()
    try:
        yield node
    finally:
        if not node.is_draining:
            await node.stop(drain_s=1.0)


@asynccontextmanager
async def meta_nodes(count: int = 1) -> AsyncIterator[list[Meta]]:
    made = [Meta(number) for number in range(1, count + 1)]
    try:
        for meta in made:
            await meta.start()
        yield made
    finally:
        for meta in made:
            await meta.close()


def node_address() -> bytes:
    return address_of(bytes(NODE_KEY.verify_key))
