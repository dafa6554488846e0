"""A storage network in this process: a chain, a meta node, resource nodes, wallets with ozone.

    async with StorageNetwork.started(folder, nodes=6) as network:
        async with network.storage("alice") as storage:
            await storage.put(b"hello", "greetings/hello.txt")
        await network.until(lambda: network.meta.reporter.reported > 0)

Node i listens at 127.0.i.1, so that each has a network prefix of its own, and has an owner of its own. Epochs are short; time is the machine's, unless a clock
is given. ``stop_meta`` and ``start_meta``, ``stop_resource`` and ``start_resource`` stop a node as its operator does and start it again at the same place;
``kill_meta`` and ``kill_resource`` end one in the middle of what it does. ``wipe`` and ``damage`` are what disks do, ``cut`` and ``heal`` what lines do.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import nacl.signing

from chain.codec.registry import message_class
from chain.coins import CoinMessage
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, PrivateKey, public_key_to_any
from chain.metakeys import MetaKeys
from chain.testing.ports import free_ports
from sds_node.client.meta import MetaAddress
from sds_node.client.storage import Storage
from sds_node.meta.daemon import home as meta_home
from sds_node.meta.daemon.node import MetaNode
from sds_node.meta.federation import genesis as genesis_of_ledger
from sds_node.meta.federation.comet import CometHome
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.operations import Proposer
from sds_node.meta.relay.founding import found_message, founding_height
from sds_node.meta.rules.apply import rules
from sds_node.resource.daemon import config as resource_config
from sds_node.resource.daemon.home import Home as ResourceHome
from sds_node.resource.daemon.node import ResourceNode
from sds_node.resource.store.layout import key_of as copy_of
from sds_node.testing.chain import CHAIN_ID, ChainInProcess, DrivenChain, genesis
from sds_node.testing.order import DrivenOrder
from sds_node.value_chain.authority import ChainAuthority
from sds_node.value_chain.sender import Sender
from sds_node.wire.connection import Connection, Phase
from sds_node.wire.errors import HandshakeFailed
from sds_node.wire.node import Account, Node

FUNDS_WEI: Final = 10**24
DEPOSIT_WEI: Final = 100 * 10**18
STORAGE_TYPE: Final = 4
SHORT: Final = {"pot.epoch_duration_s": "3", "pot.mature_epoch": "1"}
QUICK: Final = meta_home.Times(hello_s=1, status_s=2, window_s=1)
KEPT: Final = ("config.toml", "accounts", "lock")
"""What of a resource node's home outlives a new disk: its settings and keys, which its operator has, and the lock."""


def key_of(name: str) -> PrivateKey:
    """A wallet's key, the same for the same name."""
    return PrivateKey(sha256(f"wallet {name}".encode()).digest(), "eth_secp256k1")


def wallet_of(name: str) -> str:
    return bech32.encode(key_of(name).public_key.address)


@dataclass
class RunningMeta:
    """A meta node and how to start it again. ``port`` is the wire's at 127.0.0.1."""

    number: int
    keys: MetaKeys
    owner: PrivateKey
    home: meta_home.Home
    port: int
    node: MetaNode | None = None

    @property
    def address(self) -> MetaAddress:
        return MetaAddress(self.keys.address, "127.0.0.1", self.port)


@dataclass
class RunningResource:
    """A resource node and how to start it again."""

    number: int
    home: ResourceHome
    config: resource_config.Config
    key: nacl.signing.SigningKey
    owner: PrivateKey
    node: ResourceNode | None = None
    held: contextlib.ExitStack | None = None


class Gate:
    """Lets the wires of one process reach each other, or not: while the network is cut, those of one side have no connection to those of the other one.

    A wire that is on no side, such as a user's, reaches all.
    """

    def __init__(self) -> None:
        self._wires: dict[bytes, Node] = {}
        self._is_far: dict[bytes, bool] = {}

    @property
    def is_cut(self) -> bool:
        return bool(self._is_far)

    def watch(self, wire: Node) -> None:
        """Have a wire obey from now on."""
        admit, joined = wire.admit, wire.joined

        def admitted(connection: Connection, address: bytes) -> Account:
            if self._is_between(wire.address, address):
                raise HandshakeFailed("no TCP connection: the network is cut")
            return admit(connection, address)

        def entered(connection: Connection) -> None:
            # Its handshake may have begun before the cut.
            joined(connection)
            self._break(wire)

        wire.admit, wire.joined = admitted, entered  # type: ignore[method-assign]
        self._wires[wire.address] = wire

    def place(self, wire: Node, *, is_far: bool) -> None:
        """Put a wire on a side, and break what it has with the other one."""
        if wire.address not in self._wires:
            self.watch(wire)
        self._is_far[wire.address] = is_far
        for one in self._wires.values():
            self._break(one)

    def forget(self, *wires: Node) -> None:
        """Their nodes have ended."""
        for wire in wires:
            self._wires.pop(wire.address, None)

    def heal(self) -> None:
        """There are no sides any more."""
        self._is_far.clear()

    def _is_between(self, one: bytes, other: bytes) -> bool:
        return {one, other} <= self._is_far.keys() and self._is_far[one] != self._is_far[other]

    def _break(self, wire: Node) -> None:
        for link in list(wire.links):
            made = link.connection
            if made is not None and made.phase is Phase.OPEN and self._is_between(wire.address, made.remote.address):
                link.abort()


class StorageNetwork:
    """Make one with ``started``."""

    def __init__(
        self,
        folder: Path,
        wallets: tuple[str, ...],
        nodes: int,
        params: dict[str, Any],
        clock: Callable[[], float] = time.time,
        metas: int = 1,
        times: meta_home.Times = QUICK,
    ) -> None:
        self.folder, self.clock, self._times = folder, clock, times
        self.gate = Gate()
        self._far_metas: frozenset[int] = frozenset()
        self._far_nodes: frozenset[int] = frozenset()
        self.metas = self._new_metas(metas)
        operator = key_of("operator")
        names = ["operator", *wallets, *(f"owner {number}" for number in range(1, nodes + 1))]
        funds = {key.public_key.address: FUNDS_WEI for key in [*map(key_of, names), *(one.owner for one in self.metas)]}
        begin_s = int(clock()) - 60
        self.chain = ChainInProcess(
            lambda app: genesis(app, begin_s, operator, [(one.keys, one.owner) for one in self.metas], funds, {**SHORT, **params}), self.clock
        )
        self.order = DrivenOrder(metas, self.clock) if metas > 1 else None
        self.resources: list[RunningResource] = []
        self._last: MetaNode
        self._stack = contextlib.AsyncExitStack()

    @property
    def meta(self) -> MetaNode:
        """The first meta node that runs; the last one that did, where none does."""
        return next((one.node for one in self.metas if one.node is not None), None) or self._last

    @property
    def meta_keys(self) -> MetaKeys:
        """Of the first one."""
        return self.metas[0].keys

    @classmethod
    @contextlib.asynccontextmanager
    async def started(
        cls,
        folder: Path,
        *,
        nodes: int = 3,
        wallets: tuple[str, ...] = ("alice", "bob"),
        params: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
        metas: int = 1,
        times: meta_home.Times = QUICK,
    ) -> AsyncIterator[StorageNetwork]:
        """A network whose nodes are all at work. ``clock`` tells Unix seconds to all of it. Several ``metas`` keep one ledger together; ``times`` are theirs."""
        network = cls(folder, wallets, nodes, params or {}, clock, metas, times)
        async with network._stack:
            await network._start(nodes)
            yield network

    async def _start(self, nodes: int) -> None:
        blocks = asyncio.get_running_loop().create_task(self.chain.run())
        self._stack.push_async_callback(_ended, blocks)
        if self.order is not None:
            await self._federate()
        for meta in self.metas:
            self._stack.push_async_callback(self.stop_meta, meta.number)
            await self.start_meta(meta.number)
        for number in range(1, nodes + 1):
            await self.add_resource(number)
        await self.until(lambda: all(one.node.registry.count() == nodes for one in self.metas if one.node), f"all {nodes} nodes are eligible", 120)

    def client(self) -> DrivenChain:
        """A client of the chain."""
        return DrivenChain(self.chain)

    def _new_metas(self, count: int) -> list[RunningMeta]:
        """Keys and homes of meta nodes that know of each other."""
        keys, first_port = [MetaKeys.new() for _ in range(count)], free_ports(count)
        named = [f"{one.network_pubkey}@127.0.0.1:{first_port + at}" for at, one in enumerate(keys)]
        made = []
        for at, own in enumerate(keys):
            settings = meta_home.Settings(
                network=meta_home.Network(port=first_port + at, peers=tuple(one for one in named if one != named[at])),
                metrics=meta_home.Metrics(port=0),
                times=self._times,
            )
            home = meta_home.Home(self.folder / (f"meta{at}" if at else "meta"), settings)
            made.append(RunningMeta(at, own, key_of(f"meta owner {at}" if at else "meta owner"), home, first_port + at))
        return made

    async def _federate(self) -> None:
        """Have the first one found a ledger, and all begin with what it exported."""
        assert self.order is not None
        self._stack.push_async_callback(self.order.close)
        for made in self.metas:
            made.home.make()
        first, export = self.metas[0], self.folder / "ledger.export"
        chain = self.client()
        with Ledger.open(first.home.ledger_url, rules(CHAIN_ID), CHAIN_ID) as ledger:
            proposer = Proposer(ledger, CHAIN_ID, first.keys.address, nacl.signing.SigningKey(first.keys.ledger_seed), self.clock)
            await proposer.propose("found", await found_message(chain, await founding_height(chain)))
        await asyncio.to_thread(genesis_of_ledger.write_export, first.home.ledger_url, export)
        for made in self.metas:
            await asyncio.to_thread(genesis_of_ledger.join, made.home.ledger_url, CometHome(made.home.comet), made.keys, export)

    async def start_meta(self, number: int = 0) -> None:
        """Start a meta node, at 127.0.0.1; again at the same port."""
        made = self.metas[number]
        if not (made.home.root / "config.toml").exists():
            made.home.make()
        chain = self.client()
        sender = Sender(chain, made.owner, clock=self.clock)
        order = self.order.member(number) if self.order is not None else None
        node = MetaNode(made.home, made.keys, made.owner.public_key.address, chain, sender, CHAIN_ID, self.clock, order)
        await node.start()
        made.node = self._last = node
        for wire in (node.wire, node.repair.transfers._wire):
            self.gate.watch(wire)
            if self.gate.is_cut:
                self.gate.place(wire, is_far=number in self._far_metas)

    async def stop_meta(self, number: int = 0) -> None:
        """Stop a meta node as its operator does; nothing, when it does not run."""
        made = self.metas[number]
        if made.node is not None:
            node, made.node = made.node, None
            await node.stop()
            self.gate.forget(node.wire, node.repair.transfers._wire)

    async def kill_meta(self, number: int) -> None:
        """End a meta node in the middle of what it does, as far as one process can: no block reaches it any more, its connections break at once, and only
        then does it end."""
        made = self.metas[number]
        if made.node is not None:
            if made.node.order is not None:
                await made.node.order.stop()
            _abort(made.node.wire, made.node.repair.transfers._wire)
            await self.stop_meta(number)

    @property
    def meta_address(self) -> MetaAddress:
        """Of the first one."""
        return self.metas[0].address

    @property
    def meta_addresses(self) -> list[MetaAddress]:
        """All, whether they run or not."""
        return [one.address for one in self.metas]

    async def add_resource(self, number: int) -> RunningResource:
        """A resource node: registered, with a deposit, and started."""
        key = nacl.signing.SigningKey(sha256(f"node {number}".encode()).digest())
        owner = key_of(f"owner {number}")
        address = Ed25519PublicKey(bytes(key.verify_key))
        wallet, name = bech32.encode(owner.public_key.address), bech32.encode(address.address, bech32.NODE)
        config = resource_config.Config(
            keys=resource_config.Keys(wallet=wallet, p2p=name),
            chain=resource_config.ChainSettings(id=CHAIN_ID),
            network=resource_config.Network(listen_host=f"127.0.{number}.1", listen_port=0, meta_nodes=tuple(map(str, self.meta_addresses))),
            storage=resource_config.Storage(capacity="4GiB", reserve="64MiB"),
        )
        home = ResourceHome(self.folder / f"node{number}")
        home.make(config)
        message = message_class("stratos.register.v1.MsgCreateResourceNode")(
            network_address=name,
            pubkey=public_key_to_any(address),
            value=CoinMessage(denom="wei", amount=str(DEPOSIT_WEI)),
            owner_address=wallet,
            beneficiary_address=wallet,
            description={"moniker": f"node {number}"},
            node_type=STORAGE_TYPE,
        )
        await Sender(self.client(), owner, clock=self.clock).send([message])
        made = RunningResource(number, home, config, key, owner)
        self.resources.append(made)
        await self.start_resource(made)
        self._stack.push_async_callback(self.stop_resource, made)
        return made

    async def start_resource(self, made: RunningResource) -> None:
        """Start a node that does not run."""
        authority = ChainAuthority(self.client(), CHAIN_ID, refresh_s=2.0, clock=self.clock)
        await authority.refresh()
        made.held = contextlib.ExitStack()
        made.held.enter_context(made.home.held())
        config = replace(made.config, network=replace(made.config.network, meta_nodes=tuple(map(str, self.meta_addresses))))
        made.node = ResourceNode(
            made.home, config, made.key, config.keys.wallet, authority, self.clock, background=[authority.run], hand_every_s=0.5, held_s=1.0
        )
        await made.node.start()
        self.gate.watch(made.node.wire)
        if self.gate.is_cut:
            self.gate.place(made.node.wire, is_far=made.number in self._far_nodes)

    async def stop_resource(self, made: RunningResource) -> None:
        """Stop a node as its operator does."""
        if made.node is not None and made.held is not None:
            await made.node.stop(drain_s=2.0)
            self._ended(made, made.node, made.held)

    async def kill_resource(self, made: RunningResource) -> None:
        """End a node in the middle of what it does, as far as one process can: its connections break at once, nobody hears that it stops, no receipt is handed
        in, and its home says that it runs."""
        if made.node is not None and made.held is not None:
            _abort(made.node.wire)
            marker = made.home.root / "running"
            says = marker.read_bytes()
            await made.node.abandon()
            marker.write_bytes(says)
            self._ended(made, made.node, made.held)

    def _ended(self, made: RunningResource, node: ResourceNode, held: contextlib.ExitStack) -> None:
        self.gate.forget(node.wire)
        held.close()
        made.node = made.held = None

    # --- what breaks ------------------------------------------------------------------------------------------------------------------

    def wipe(self, made: RunningResource, *, all_of_it: bool = False) -> None:
        """A stopped node's disk is replaced by an empty one: that of its shares, or all of its home but settings and keys."""
        assert made.node is None, "stop the node first"
        folder = made.home.root if all_of_it else made.home.storage_path(made.config)
        for path in folder.iterdir():
            if all_of_it and path.name in KEPT:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def damage(self, made: RunningResource, choose: random.Random, part: float) -> set[bytes]:
        """Flip bytes of some share files of a node, about ``part`` of all, whether it runs or not. Gives the serials of those copies."""
        found: set[bytes] = set()
        for path in sorted(made.home.storage_path(made.config).rglob("*.*")):
            key = copy_of(path.name)
            if key is None or choose.random() >= part:
                continue
            # The data come first in a file, and are most of it.
            with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
                half = path.stat().st_size // 2
                for at in {choose.randrange(half) for _ in range(choose.randint(1, 5))} if half else ():
                    file.seek(at)
                    was = file.read(1)[0]
                    file.seek(at)
                    file.write(bytes([was ^ choose.randint(1, 255)]))
                    found.add(key[1])
        return found

    async def cut(self, far_metas: Collection[int], far_nodes: Collection[int]) -> None:
        """Cut the network in two: these meta nodes (0, 1, …) and resource nodes (1, 2, …) from all others. The side with fewer meta nodes gets no blocks, nor
        does the other one without more than two thirds of them. Users reach both, unless they are placed (``gate``)."""
        self._far_metas, self._far_nodes = frozenset(far_metas), frozenset(far_nodes)
        for meta in self.metas:
            if meta.node is not None:
                for wire in (meta.node.wire, meta.node.repair.transfers._wire):
                    self.gate.place(wire, is_far=meta.number in self._far_metas)
        for made in self.resources:
            if made.node is not None:
                self.gate.place(made.node.wire, is_far=made.number in self._far_nodes)
        is_far_smaller = 2 * len(self._far_metas) <= len(self.metas)
        for meta in self.metas:
            if meta.node is not None and meta.node.order is not None and (meta.number in self._far_metas) == is_far_smaller:
                await meta.node.order.stop()

    async def heal(self) -> None:
        """Whoever was cut off is reached again, and gets the blocks that it missed."""
        self.gate.heal()
        for meta in self.metas:
            if meta.node is not None and self.order is not None and not self.order.member(meta.number).is_there:
                await self.order.member(meta.number).start()
        self._far_metas = self._far_nodes = frozenset()

    async def buy_ozone(self, name: str, amount_wei: int) -> int:
        """A wallet prepays for itself. Gives its noz in the ledger once they are there."""
        key = key_of(name)
        wallet = bech32.encode(key.public_key.address)
        message = message_class("stratos.sds.v1.MsgPrepay")(
            sender=wallet, beneficiary=wallet, amount=[CoinMessage(denom="wei", amount=str(amount_wei))]
        )
        result = await Sender(self.client(), key, clock=self.clock).send([message])
        await self.until(
            lambda: all(one.node.observer.height >= result.height for one in self.metas if one.node is not None), "the prepay is observed"
        )
        async with self.storage(name) as storage:
            return (await storage.balance()).paid_noz

    def storage(self, name: str, **options: Any) -> Storage:
        """A wallet's client."""
        return Storage(key_of(name), CHAIN_ID, self.meta_addresses, clock=self.clock, **options)

    async def until(self, is_so: Callable[[], bool], what: str = "it is so", timeout_s: float = 60.0) -> None:
        """Wait until something is so. Raises TimeoutError with what was waited for."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_so():
                    for one in self.metas:
                        if one.node is not None and one.node.failed is not None and one.node.failed.done():
                            one.node.failed.result()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"waited {timeout_s:g} s until {what}; the meta node says {self.meta.status()}") from None


def _abort(*wires: Node) -> None:
    for wire in wires:
        for link in list(wire.links):
            link.abort()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
