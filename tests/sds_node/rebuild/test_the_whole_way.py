"""A network loses the ledger of its meta node, and has its files back: what nodes keep is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sds_node.meta.daemon.home import Times
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.rules.invariants import check, gap_noz
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.tables import EARNED, EPOCH_LINE, OBJECT, SEGMENT, STORAGE
from sds_node.p2p import address_of
from sds_node.testing.network import RunningResource, StorageNetwork
from tests.sds_node.rebuild.support import content, given, lose_ledgers, made_anew, take
from tests.soak.storage_faults import Jumping, short_periods

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(400)]
OZONE_WEI = 10**20
DAY_S = 86_400


async def names(network: StorageNetwork, name: str) -> set[str]:
    async with network.storage(name) as storage:
        return {entry.path async for entry in storage.walk()}


async def has(network: StorageNetwork, name: str, path: str, data: bytes) -> None:
    async with network.storage(name) as storage:
        found = [bytes(part) async for part in storage.read(path)]
    assert b"".join(found) == data


async def test_files_of_two_users_are_listed_read_audited_repaired_and_paid_after_the_ledger_is_lost(tmp_path: Path) -> None:
    async with StorageNetwork.started(tmp_path / "network", nodes=6) as network:
        for name in ("alice", "bob"):
            await network.buy_ozone(name, OZONE_WEI)
        large, small = content(1, 3_000_000), {f"letters/{one}": content(one + 10, 900 + one) for one in range(5)}
        async with network.storage("alice") as storage:
            await storage.put(large, "films/large.bin")
            for path, data in small.items():
                await storage.put(data, path)
            await storage.put(content(7, 5_000), "twice")
            await storage.put(content(8, 6_000), "twice")
            await storage.rename("letters/0", "letters/renamed")
            await storage.remove("letters/1")
        async with network.storage("bob") as storage:
            await storage.put(content(9, 70_000), "public.bin", public=True)
        await network.until(lambda: len(network.meta.users.leases) == 0, "all leases are settled")
        await given(network)
        before = {name: await names(network, name) for name in ("alice", "bob")}
        old = network.meta.ledger.head
        objects = {row.id: row for row in await network.meta.ledger.query(lambda view: view.scan(OBJECT, limit=100))}
        await lose_ledgers(network)

        file = tmp_path / "ledger.export"
        dry = await made_anew(network, file, is_dry=True)
        assert not file.exists()
        made = await made_anew(network, file)
        told = made.summary()
        assert dry.summary() == {**told, "name": "", "height": dry.standing.height, "owed_noz": dry.summary()["owed_noz"]}
        # Seven files and two folders; what was deleted, and the version that another one took the place of.
        assert (told["files"], told["trash"], told["short_objects"], told["left_out_objects"], told["silent_nodes"]) == (9, 2, 0, 0, [])
        assert made.made.sequence > old.sequence
        await take(network, file)
        await network.until(lambda: network.meta.registry.count() == 6, "all nodes are back")

        await network.meta.ledger.query(check)
        assert await network.meta.ledger.query(gap_noz) >= 0
        for row in await network.meta.ledger.query(lambda view: view.scan(OBJECT, limit=100)):
            was = objects[row.id]
            assert (row.payer, row.root, row.term_noz, row.made_ms, row.first_segment) == (
                was.payer,
                was.root,
                was.term_noz,
                was.made_ms,
                was.first_segment,
            )
        assert {name: await names(network, name) for name in before} == before
        await has(network, "alice", "films/large.bin", large)
        await has(network, "alice", "letters/renamed", small["letters/0"])
        await has(network, "alice", "twice", content(8, 6_000))
        await has(network, "bob", "public.bin", content(9, 70_000))
        async with network.storage("alice") as storage:
            await storage.restore("letters/1")
            # What is stored from now on stands beside what was.
            await storage.put(content(11, 4_000), "after.bin")
        await has(network, "alice", "letters/1", small["letters/1"])
        await has(network, "alice", "after.bin", content(11, 4_000))

        # An epoch is reported, and what was read since is paid.
        await network.until(lambda: network.meta.reporter.reported > 0, "an epoch is reported", 120)
        await network.until(lambda: len(network.meta.users.leases) == 0, "all leases are settled")
        await network.meta.ledger.query(check)


def address(made: RunningResource) -> bytes:
    return address_of(bytes(made.key.verify_key))


def places(view: ReadView) -> list[tuple[int, int, int]]:
    """(segment, share, node's number) of all that is stored."""
    rows = view.scan(SEGMENT, limit=1_000)
    return [(row.number, index, node) for row in rows for index, node in enumerate(nodes_of(row.nodes)) if node]


def paid(view: ReadView) -> int:
    """What nodes have earned for shares that they kept, reported or not."""
    lines: list[Any] = [*view.scan(EARNED, limit=1_000), *view.scan(EPOCH_LINE, limit=1_000)]
    return sum(row.noz for row in lines if row.traffic_class == STORAGE)


async def test_four_meta_nodes_lose_all_ledgers_and_audits_repair_and_epochs_go_on(tmp_path: Path) -> None:
    clock = Jumping()
    times = Times(hello_s=1, status_s=2, window_s=1, audit_day_s=20, lost_s=10)
    with short_periods():
        async with StorageNetwork.started(tmp_path / "network", nodes=5, metas=4, wallets=("alice",), clock=clock, times=times) as network:
            await lost_and_repaired(network, clock, tmp_path)


async def lost_and_repaired(network: StorageNetwork, clock: Jumping, tmp_path: Path) -> None:
    await network.buy_ozone("alice", OZONE_WEI)
    contents = {f"file {number}": content(number, 20_000 + number) for number in range(6)}
    async with network.storage("alice") as storage:
        for name, data in contents.items():
            await storage.put(data, name)
    await network.until(lambda: all(len(one.node.users.leases) == 0 for one in network.metas if one.node), "all leases are settled", 120)
    await given(network)

    # A node with a new file of manifests is given them again when it is compared.
    first = network.resources[0]
    assert first.node is not None
    kept = first.node.service._manifests
    row = next(row for row in network.meta.registry.rows().values() if row.address == address(first))
    before = {key for key, copy, _ in kept.after(b"", 100) if copy[0]}
    kept._do(lambda db: db.execute("DELETE FROM objects").close())
    counts = [
        await one.node.repair.damage.also(row.number) for one in network.metas if one.node is not None and one.node.repair.damage.also is not None
    ]
    assert sorted(counts) == [0, 0, 0, len(before)]  # type: ignore[type-var]
    assert {key for key, _, _ in kept.after(b"", 100)} == before

    await lose_ledgers(network)
    file = tmp_path / "ledger.export"
    made = await made_anew(network, file, number=2)
    assert (made.summary()["files"], made.summary()["short_objects"]) == (6, 0)
    await take(network, file)
    await network.until(lambda: all(one.node.registry.count() == 5 for one in network.metas if one.node), "all nodes are back", 120)
    ledger = network.meta.ledger
    await ledger.query(check)

    # A day of the files' terms passes: those that prove what they have are paid for it.
    clock.ahead_s += DAY_S
    await until_so(network, lambda view: paid(view) > 0, "kept shares are paid")
    # A node is gone for good: its shares are made again.
    gone = max(network.resources[1:], key=lambda one: one.number)
    number = next(row.number for row in network.meta.registry.rows().values() if row.address == address(gone))
    await network.stop_resource(gone)
    await until_so(network, lambda view: all(node != number for _, _, node in places(view)), "what was there is elsewhere")
    for name, data in contents.items():
        await has(network, "alice", name, data)
    reported = sum(one.node.reporter.reported for one in network.metas if one.node)
    await network.until(lambda: sum(one.node.reporter.reported for one in network.metas if one.node) > reported, "another epoch is reported", 120)
    await ledger.query(check)


async def until_so(network: StorageNetwork, is_so: Callable[[ReadView], bool], what: str) -> None:
    try:
        async with asyncio.timeout(120):
            while not await network.meta.ledger.query(is_so):  # noqa: ASYNC110 - the ledger has no event for it
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise TimeoutError(f"waited until {what}; the meta node says {network.meta.status()}") from None
