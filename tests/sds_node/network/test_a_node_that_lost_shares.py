"""From the audit to the slash over a whole network: a node that lost shares is found, pays for it once, and what it lost is with others."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from sds_node.meta.daemon import node as meta_daemon
from sds_node.meta.daemon.home import Times
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.relay.penalties import LEAST_SHARES
from sds_node.meta.repair import Settings as RepairSettings
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.tables import NODE, OBJECT, SEGMENT, Node
from sds_node.p2p import address_of
from sds_node.resource.store.layout import key_of
from sds_node.testing.network import DEPOSIT_WEI, RunningResource, StorageNetwork
from sds_node.value_chain.views import resource_node
from tests.soak.storage_faults import REPAIR, Jumping

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(400)]
FILES = 12
DAY_S = 86_400
AUDIT_DAY_S = 20


def address(made: RunningResource) -> bytes:
    return address_of(bytes(made.key.verify_key))


def node_row(view: ReadView, wanted: bytes) -> Node:
    return next(row for row in view.scan(NODE, limit=100) if row.address == wanted)


def places(view: ReadView) -> list[tuple[int, int, int]]:
    """(segment, share, node's number) of all that is stored."""
    rows = view.scan(SEGMENT, limit=1_000)
    return [(row.number, index, node) for row in rows for index, node in enumerate(nodes_of(row.nodes)) if node]


async def test_a_node_that_dropped_its_shares_loses_score_escrow_and_deposit_once_and_they_are_made_again(tmp_path: Path) -> None:
    clock = Jumping()
    times = Times(hello_s=1, status_s=2, window_s=1, audit_day_s=AUDIT_DAY_S)
    # It does not tell what is damaged, and no comparison comes before the audit, though the clock jumps by a day: what is known to be bad is not found as lost.
    quick = REPAIR | {"damage_s": 10 * DAY_S, "compare_s": 365 * DAY_S}
    with mock.patch.object(meta_daemon, "RepairSettings", partial(RepairSettings, **quick)):
        async with StorageNetwork.started(tmp_path / "network", nodes=5, metas=4, wallets=("alice",), clock=clock, times=times) as network:
            await found_and_slashed(network, clock, tmp_path)


async def found_and_slashed(network: StorageNetwork, clock: Jumping, tmp_path: Path) -> None:
    await network.buy_ozone("alice", 10**20)
    contents = {f"file {number}": random.Random(number).randbytes(20_000 + number) for number in range(FILES)}
    async with network.storage("alice") as storage:
        for name, data in contents.items():
            await storage.put(data, name)
    ledger = network.meta.ledger

    held = await ledger.query(places)
    rows = {made.number: await ledger.query(partial(node_row, wanted=address(made))) for made in network.resources}
    bad = max(network.resources, key=lambda made: sum(node == rows[made.number].number for _, _, node in held))
    before = rows[bad.number]
    lost = [(segment, index) for segment, index, node in held if node == before.number]
    assert len(lost) >= LEAST_SHARES
    await network.until(lambda: all(len(one.node.users.leases) == 0 for one in network.metas if one.node), "all leases are settled", 200)
    # It goes on saying that it has them. A day of their term passes before it is asked.
    for path in bad.home.storage_path(bad.config).rglob("*.*"):
        if key_of(path.name) is not None:
            path.unlink()
    clock.ahead_s += DAY_S

    chain = network.client()
    slashed: list[int] = []

    async def look() -> None:
        while not slashed:
            for one in network.metas:
                if one.node is not None:
                    await one.node.penalties.step()
            row = await resource_node(chain, address(bad))
            assert row is not None
            if row.tokens_wei < DEPOSIT_WEI:
                slashed.append(row.tokens_wei)
            await asyncio.sleep(1.0)

    async with asyncio.timeout(100):
        await look()
    after = await ledger.query(lambda view: node_row(view, address(bad)))
    assert after.score < before.score

    def moved(view: ReadView) -> bool:
        """Nothing that it lost is said to be there any more."""
        return not any(node == before.number and (segment, index) in lost for segment, index, node in places(view))

    async with asyncio.timeout(120):
        while not await ledger.query(moved):  # noqa: ASYNC110 - the ledger has no event for it
            await asyncio.sleep(0.5)
    objects = await ledger.query(lambda view: view.scan(OBJECT, limit=1_000))
    assert sum(row.repair_noz for row in objects) > 0
    async with network.storage("alice") as storage:
        for name, data in contents.items():
            target = tmp_path / "back"
            await storage.get(name, target)
            assert target.read_bytes() == data
    # The same day is not slashed again, and the other nodes keep what they have.
    for _ in range(3):
        for one in network.metas:
            if one.node is not None:
                await one.node.penalties.step()
        await asyncio.sleep(1.0)
    for made in network.resources:
        row = await resource_node(chain, address(made))
        assert row is not None
        assert row.tokens_wei == (slashed[0] if made is bad else DEPOSIT_WEI)
    await ledger.query(check)
