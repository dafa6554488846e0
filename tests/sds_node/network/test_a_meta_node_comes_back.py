"""A meta node in a whole network that is stopped, started again, asked too much and told of a second one."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from sds_node import asking
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.tables import NODE
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import StorageNetwork
from sds_node.wire.errors import WireError
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer

pytestmark = pytest.mark.asyncio
OZONE_WEI = 10**20


class Clock:
    """The machine's time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


async def test_a_network_outlives_its_meta_node_strangers_and_a_clock_that_jumps(tmp_path: Path) -> None:
    clock = Clock()
    async with StorageNetwork.started(tmp_path / "network", nodes=3, wallets=("alice",), clock=clock) as network:
        await network.buy_ozone("alice", OZONE_WEI)
        data = random.Random(1).randbytes(300_000)
        async with network.storage("alice") as storage:
            await storage.put(data, "before.bin")
        first, address, boot = network.meta, network.meta_address, network.meta.books.boot

        # What was answered before the stop is settled after it, at the same place.
        await network.stop_meta()
        await network.stop_meta()
        await network.start_meta()
        assert network.meta is not first
        assert network.meta_address == address
        assert network.meta.books.boot > boot
        await network.until(lambda: network.meta.registry.count() == 3, "all nodes are back")
        async with network.storage("alice") as storage:
            await storage.get("before.bin", tmp_path / "back")
            await storage.put(data[:1_000], "after.bin")
        assert (tmp_path / "back").read_bytes() == data
        await network.until(lambda: len(network.meta.users.leases) == 0, "all leases are settled")

        # Six strangers ask for nothing but meta.info, as fast as they can.
        await flooded(network)
        assert network.meta.failed is not None
        assert not network.meta.failed.done()

        # All clocks jump a day ahead, those of the blocks too: no node is less for it.
        scores = await scores_of(network)
        clock.ahead_s = 86_400.0
        await network.until(lambda: network.meta.ledger.head.time_ms / 1_000 > time.time() + 80_000, "the ledger follows the blocks")
        await asyncio.sleep(3)
        assert network.meta.registry.count() == 3
        assert all(after >= before for before, after in zip(scores, await scores_of(network), strict=True))
        await network.meta.ledger.query(check)


async def scores_of(network: StorageNetwork) -> list[int]:
    return [row.score for row in await network.meta.ledger.query(lambda view: view.scan(NODE, limit=10))]


async def flooded(network: StorageNetwork) -> None:
    """1,500 questions at a time."""
    callers = [Node(Identity.ephemeral(), CHAIN_ID) for _ in range(6)]
    peers = [Peer(caller, network.meta_keys.address, [Direct(*(network.meta.listening or ("", 0)))]) for caller in callers]
    seen: dict[str, int] = {}

    async def one(peer: Peer) -> None:
        try:
            await peer.ask(asking.INFO, most_bytes=1 << 20)
            seen["answered"] = seen.get("answered", 0) + 1
        except WireError as error:
            seen[type(error).__name__] = seen.get(type(error).__name__, 0) + 1

    for _ in range(3):
        await asyncio.gather(*(one(peer) for peer in peers for _ in range(250)))
    assert seen == {"answered": 4_500}
    for caller in callers:
        await caller.close()
