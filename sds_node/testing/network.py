"""A storage network in this process: a chain, a meta node, resource nodes, wallets with ozone.

    async with StorageNetwork.started(folder, nodes=6) as network:
        async with network.storage("alice") as storage:
            await storage.put(b"hello", "greetings/hello.txt")
        await network.until(lambda: network.meta.reporter.reported > 0)

Node i listens at 127.0.i.1, so that each has a network prefix of its own, and has an owner of its own. Epochs are short; time is the machine's, unless a clock
is given. ``stop_meta`` and ``start_meta``, ``stop_resource`` and ``start_resource`` stop a node as its operator does and start it again at the same place.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
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
from sds_node.client.meta import MetaAddress
from sds_node.client.storage import Storage
from sds_node.meta.daemon import home as meta_home
from sds_node.meta.daemon.node import MetaNode
from sds_node.resource.daemon import config as resource_config
from sds_node.resource.daemon.home import Home as ResourceHome
from sds_node.resource.daemon.node import ResourceNode
from sds_node.testing.chain import CHAIN_ID, ChainInProcess, DrivenChain, genesis
from sds_node.value_chain.authority import ChainAuthority
from sds_node.value_chain.sender import Sender

FUNDS_WEI: Final = 10**24
DEPOSIT_WEI: Final = 100 * 10**18
STORAGE_TYPE: Final = 4
SHORT: Final = {"pot.epoch_duration_s": "3", "pot.mature_epoch": "1"}


def key_of(name: str) -> PrivateKey:
    """A wallet's key, the same for the same name."""
    return PrivateKey(sha256(f"wallet {name}".encode()).digest(), "eth_secp256k1")


def wallet_of(name: str) -> str:
    return bech32.encode(key_of(name).public_key.address)


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


class StorageNetwork:
    """Make one with ``started``."""

    def __init__(self, folder: Path, wallets: tuple[str, ...], nodes: int, params: dict[str, Any], clock: Callable[[], float] = time.time) -> None:
        self.folder, self.clock = folder, clock
        self.meta_keys = MetaKeys.new()
        self.meta_owner = key_of("meta owner")
        operator = key_of("operator")
        names = ["operator", "meta owner", *wallets, *(f"owner {number}" for number in range(1, nodes + 1))]
        funds = {key_of(name).public_key.address: FUNDS_WEI for name in names}
        begin_s = int(clock()) - 60
        self.chain = ChainInProcess(
            lambda app: genesis(app, begin_s, operator, [(self.meta_keys, self.meta_owner)], funds, {**SHORT, **params}), self.clock
        )
        self.meta: MetaNode
        self._meta_port = 0
        self._meta_runs = False
        self.resources: list[RunningResource] = []
        self._stack = contextlib.AsyncExitStack()

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
    ) -> AsyncIterator[StorageNetwork]:
        """A network whose nodes are all at work. ``clock`` tells Unix seconds to all of it."""
        network = cls(folder, wallets, nodes, params or {}, clock)
        async with network._stack:
            await network._start(nodes)
            yield network

    async def _start(self, nodes: int) -> None:
        blocks = asyncio.get_running_loop().create_task(self.chain.run())
        self._stack.push_async_callback(_ended, blocks)
        self._stack.push_async_callback(self.stop_meta)
        await self.start_meta()
        for number in range(1, nodes + 1):
            await self.add_resource(number)
        await self.until(lambda: self.meta.registry.count() == nodes, f"all {nodes} nodes are eligible")

    def client(self) -> DrivenChain:
        """A client of the chain."""
        return DrivenChain(self.chain)

    async def start_meta(self) -> None:
        """Start the meta node, at 127.0.0.1; again at the same port."""
        root = self.folder / "meta"
        settings = meta_home.Settings(
            network=meta_home.Network(port=self._meta_port),
            metrics=meta_home.Metrics(port=0),
            times=meta_home.Times(hello_s=1, status_s=2, window_s=1),
        )
        home = meta_home.Home(root, settings)
        if not (root / "config.toml").exists():
            home.make()
        chain = self.client()
        sender = Sender(chain, self.meta_owner, clock=self.clock)
        self.meta = MetaNode(home, self.meta_keys, self.meta_owner.public_key.address, chain, sender, CHAIN_ID, self.clock)
        await self.meta.start()
        self._meta_runs = True
        self._meta_port = self.meta_address.port

    async def stop_meta(self) -> None:
        """Stop the meta node as its operator does; nothing, when it does not run."""
        if self._meta_runs:
            self._meta_runs = False
            await self.meta.stop()

    @property
    def meta_address(self) -> MetaAddress:
        assert self.meta.listening is not None
        return MetaAddress(self.meta_keys.address, *self.meta.listening)

    async def add_resource(self, number: int) -> RunningResource:
        """A resource node: registered, with a deposit, and started."""
        key = nacl.signing.SigningKey(sha256(f"node {number}".encode()).digest())
        owner = key_of(f"owner {number}")
        address = Ed25519PublicKey(bytes(key.verify_key))
        wallet, name = bech32.encode(owner.public_key.address), bech32.encode(address.address, bech32.NODE)
        config = resource_config.Config(
            keys=resource_config.Keys(wallet=wallet, p2p=name),
            chain=resource_config.ChainSettings(id=CHAIN_ID),
            network=resource_config.Network(listen_host=f"127.0.{number}.1", listen_port=0, meta_nodes=(str(self.meta_address),)),
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
        config = replace(made.config, network=replace(made.config.network, meta_nodes=(str(self.meta_address),)))
        made.node = ResourceNode(
            made.home, config, made.key, config.keys.wallet, authority, self.clock, background=[authority.run], hand_every_s=0.5, held_s=1.0
        )
        await made.node.start()

    async def stop_resource(self, made: RunningResource) -> None:
        """Stop a node as its operator does."""
        if made.node is not None and made.held is not None:
            await made.node.stop(drain_s=2.0)
            made.held.close()
            made.node = made.held = None

    async def buy_ozone(self, name: str, amount_wei: int) -> int:
        """A wallet prepays for itself. Gives its noz in the ledger once they are there."""
        key = key_of(name)
        wallet = bech32.encode(key.public_key.address)
        message = message_class("stratos.sds.v1.MsgPrepay")(
            sender=wallet, beneficiary=wallet, amount=[CoinMessage(denom="wei", amount=str(amount_wei))]
        )
        result = await Sender(self.client(), key, clock=self.clock).send([message])
        await self.until(lambda: self.meta.observer.height >= result.height, "the prepay is observed")
        async with self.storage(name) as storage:
            return (await storage.balance()).paid_noz

    def storage(self, name: str, **options: Any) -> Storage:
        """A wallet's client."""
        return Storage(key_of(name), CHAIN_ID, [self.meta_address], clock=self.clock, **options)

    async def until(self, is_so: Callable[[], bool], what: str = "it is so", timeout_s: float = 60.0) -> None:
        """Wait until something is so. Raises TimeoutError with what was waited for."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_so():
                    if self.meta.failed is not None and self.meta.failed.done():
                        self.meta.failed.result()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"waited {timeout_s:g} s until {what}; the meta node says {self.meta.status()}") from None


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
