"""Four meta nodes that keep one ledger, in one process: what users store, what it costs and what is paid does not depend on one of them."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from sds_node.meta.federation.bounds import Sender
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.tables import LEASE, META
from sds_node.testing.network import StorageNetwork

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(400)]
OZONE_WEI = 10**20
METAS = 4


def content(number: int, size_bytes: int) -> bytes:
    return random.Random(number).randbytes(size_bytes)


async def settled(network: StorageNetwork) -> None:
    await network.until(lambda: all(len(one.node.users.leases) == 0 for one in network.metas if one.node), "all leases are settled", 200)


async def equal_ledgers(network: StorageNetwork) -> None:
    """All that run are at one state, and every rule of the ledger holds in it."""

    def heads() -> set[tuple[int, bytes]]:
        return {(one.node.ledger.head.sequence, one.node.ledger.head.app_hash) for one in network.metas if one.node is not None}

    await network.until(lambda: len(heads()) == 1, "all ledgers are at one state")
    await network.meta.ledger.query(check)


async def test_four_meta_nodes_store_bill_and_report_and_one_that_dies_changes_nothing(tmp_path: Path) -> None:
    async with StorageNetwork.started(tmp_path / "network", nodes=6, metas=METAS) as network:
        bought = await network.buy_ozone("alice", OZONE_WEI)
        await network.buy_ozone("bob", OZONE_WEI)
        data = content(1, 3_000_000)
        async with network.storage("alice") as storage:
            stored = await storage.put(data, "report.bin")
            link = await storage.share("report.bin")
        async with network.storage("bob") as storage:
            await storage.get_shared(link.link, tmp_path / "shared")
        assert (tmp_path / "shared").read_bytes() == data
        await settled(network)
        await equal_ledgers(network)
        async with network.storage("alice") as storage:
            assert bought - (await storage.balance()).paid_noz == stored.charged_noz
        befores = [one.node.fetching.before for one in network.metas if one.node]
        assert [one.keepers for one in befores] == [frozenset({network.metas[0].keys.address})] * METAS, "who kept the ledger before its blocks"
        reported = [one.node.reporter.reported for one in network.metas if one.node]
        await network.until(lambda: sum(one.node.reporter.reported for one in network.metas if one.node) >= sum(reported) + 3, "three epochs", 120)


async def test_what_a_window_pays_is_known_to_others_when_its_meta_node_is_killed_right_after_it(tmp_path: Path) -> None:
    async with StorageNetwork.started(tmp_path / "network", nodes=5, metas=METAS, wallets=("alice",)) as network:
        await network.buy_ozone("alice", OZONE_WEI)
        async with network.storage("alice") as storage:
            await storage.put(content(1, 1_000_000), "first.bin")
        [holder] = [one for one in network.metas if one.node is not None and len(one.node.users.leases)]
        assert holder.node is not None
        killed = holder.node
        await network.until(lambda: killed.windows.settled_leaves > 0, "its window is on the ledger")
        await network.kill_meta(holder.number)
        others = [one.node for one in network.metas if one.node is not None]
        assert len(others) == METAS - 1
        windows = (await network.meta.ledger.query(lambda view: view.get(META, (holder.keys.address,)))).windows
        assert windows >= 1
        for _ in range(60):
            behind = [await one.fetching.others.behind({holder.keys.address: windows}, 1) for one in others]
            if not any(one[holder.keys.address] for one in behind):
                break
            await asyncio.sleep(1)
        assert not any(one[holder.keys.address] for one in behind), "all have its leaves"
        assert [one.fetching.bad for one in others] == [0] * len(others)
        reported = sum(one.reporter.reported for one in others)
        await network.until(lambda: sum(one.reporter.reported for one in others) >= reported + 2, "epochs go on", 120)


async def test_a_meta_node_that_has_filled_its_users_part_of_the_day_leaves_users_to_others_and_pays_what_it_owes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with StorageNetwork.started(tmp_path / "network", nodes=5, metas=METAS, wallets=("alice",)) as network:
        await network.buy_ozone("alice", OZONE_WEI)
        async with network.storage("alice") as storage:
            await storage.put(content(1, 1_000_000), "first.bin")
            [full] = [one for one in network.metas if one.node is not None and len(one.node.users.leases)]
            node = full.node
            assert node is not None
            assert (await node.info.now()).is_ready
            assert node.users.sessions.account(bytes(20)).logged.is_bounded, "a wallet has a part of a log that several keep"

            def has_room(sender: Sender, time_ms: int, is_users: bool) -> bool:
                return not is_users or sender.meta.address != full.keys.address

            monkeypatch.setattr(Sender, "has_room", has_room)
        async with network.storage("alice") as storage:
            await storage.put(content(2, 1_000_000), "second.bin")
            [other] = [one for one in network.metas if one.node is not None and one is not full and len(one.node.users.leases)]
        assert not (await node.info.now()).is_ready
        assert any("takes nothing more today (UTC) of what its users ask for" in one for one in node.problems())
        assert node.duties.is_able(), "duties are its own as before"
        assert other.node is not None
        assert not any("today" in one for one in other.node.problems())
        await settled(network)
        assert node.windows.settled_leaves > 0
        await equal_ledgers(network)
        monkeypatch.setattr(Sender, "has_room", lambda sender, *_: sender.meta.address != full.keys.address)
        assert not node.duties.is_able()

        def is_told() -> bool:
            assert other.node is not None
            return full.keys.address not in other.node.peers.able()

        await network.until(is_told, "others have its duties")


class Jumping:
    """A clock that can be set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


async def test_a_meta_node_that_dies_takes_nothing_with_it(tmp_path: Path) -> None:
    """Its leases are settled by the receipts that nodes show to the others; users go on with another one; it comes back and catches up."""
    clock = Jumping()
    params = {"settlement.longest_lease_s": 120}
    async with StorageNetwork.started(tmp_path / "network", nodes=5, metas=METAS, wallets=("alice",), params=params, clock=clock) as network:
        bought = await network.buy_ozone("alice", OZONE_WEI)
        first, second = content(1, 2_500_000), content(2, 1_500_000)
        async with network.storage("alice") as storage:
            stored = await storage.put(first, "first.bin")
            [holder] = [one for one in network.metas if one.node is not None and len(one.node.users.leases)]
            await network.stop_meta(holder.number)
            again = await storage.put(second, "second.bin")
            await storage.get("first.bin", tmp_path / "first")
        assert (tmp_path / "first").read_bytes() == first
        others = [one for one in network.metas if one.node is not None]
        assert len(others) == METAS - 1
        await network.until(lambda: sum(one.node.windows.settled_leaves for one in others if one.node) >= 4, "what the living owe is in windows", 60)
        # The dead one's lease ends, and nodes show what it owes them to the others.
        clock.ahead_s += 450
        owed = len(await network.meta.ledger.query(lambda view: view.scan(LEASE, (holder.keys.address,), index="by_meta", limit=10)))
        assert owed == 1
        await network.until(
            lambda: sum(one.node.windows.settled_leaves for one in others if one.node) >= 7, "receipts of both puts are in windows", 120
        )
        # 600 s after its end the ledger gives back what is left.
        clock.ahead_s += 600
        async with network.storage("alice") as storage:
            for _ in range(90):
                if (await storage.balance()).open_leases == 0:
                    break
                await asyncio.sleep(1)
            assert (await storage.balance()).open_leases == 0
        await network.start_meta(holder.number)
        await equal_ledgers(network)
        async with network.storage("alice") as storage:
            left = (await storage.balance()).paid_noz
        read = stored.stored_bytes + stored.stored_bytes * 5 // 100
        assert bought - left == stored.charged_noz + again.charged_noz + read
        reported = sum(one.node.reporter.reported for one in network.metas if one.node)
        await network.until(lambda: sum(one.node.reporter.reported for one in network.metas if one.node) >= reported + 2, "epochs go on", 120)
