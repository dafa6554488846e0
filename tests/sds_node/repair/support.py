"""A network in one process with repair: what tests look at, and what they break."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nacl.signing

from sds_node.client.session import open_session
from sds_node.meta.repair import Repair, Settings
from sds_node.meta.repair.health import Read, read_segments
from sds_node.meta.rules import tables
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.objects import scheme
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.wire import Operation
from sds_node.p2p import address_of
from sds_node.resource import store as shares
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import RunningResource, StorageNetwork, key_of

OZONE_WEI = 10**20
QUICK = {
    "lost_s": 4.0, "look_s": 0.3, "retry_s": 0.5, "retry_most_s": 1.0, "batch_s": 0.1, "stall_s": 5.0, "damage_s": 3_600.0, "compare_s": 86_400.0,
    "compare_pause_s": 0.0,
}  # fmt: skip


def content(number: int, size_bytes: int) -> bytes:
    return random.Random(number).randbytes(size_bytes)


async def nobody(body: bytes) -> list[tuple[bytes, bytes]]:
    return []


def made(network: StorageNetwork, **changed: Any) -> Repair:
    """The repair of a network's meta node, not started."""
    meta = network.meta
    return Repair(
        meta.proposer,
        nacl.signing.SigningKey(meta.keys.ledger_seed),
        meta.registry,
        meta.calls,
        meta.books,
        meta.roots,
        network.folder / "repairs.db",
        network.clock,
        boot=meta.books.boot,
        cosign=nobody,
        tell=meta.calls.tell_later,
        settings=Settings(**{**QUICK, **changed}),
    )


@asynccontextmanager
async def running(network: StorageNetwork, **changed: Any) -> AsyncIterator[Repair]:
    """Repair that runs until the block ends."""
    repair = made(network, **changed)
    await repair.start()
    task = asyncio.create_task(repair.run())
    try:
        yield repair
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await repair.close()


async def segments(network: StorageNetwork) -> list[Read]:
    """All segments that are stored."""
    return await network.meta.ledger.query(lambda view: read_segments(view, [one.number for one in view.scan(tables.SEGMENT, limit=1_000)]))


async def holders(network: StorageNetwork) -> dict[int, list[int]]:
    return {segment.number: nodes_of(segment.nodes) for segment, _, _ in await segments(network)}


async def number_of(network: StorageNetwork, node: RunningResource) -> int:
    """The ledger's number of a node."""
    row = network.meta.registry.row_of(address(node))
    assert row is not None
    return row.number


def address(node: RunningResource) -> bytes:
    return address_of(bytes(node.key.verify_key))


async def by_number(network: StorageNetwork) -> dict[int, RunningResource]:
    return {await number_of(network, node): node for node in network.resources}


async def state(network: StorageNetwork) -> tables.State:
    row = await network.meta.ledger.query(lambda view: view.get(tables.STATE, (1,)))
    assert row is not None
    return row


async def until(network: StorageNetwork, is_so: Any, what: str, timeout_s: float = 40.0) -> None:
    """``network.until`` with a question that waits."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await is_so():
                if network.meta.failed is not None and network.meta.failed.done():
                    network.meta.failed.result()
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise TimeoutError(f"waited {timeout_s:g} s until {what}") from None


async def short_of(network: StorageNetwork, lost: set[int]) -> set[int]:
    """Segments that are to be repaired when these nodes are lost."""
    return {
        segment.number
        for segment, row, _ in await segments(network)
        if sum(node not in lost for node in nodes_of(segment.nodes) if node) < scheme(row).repair_below
    }


async def is_whole(network: StorageNetwork, wanted: set[int], without: set[int]) -> bool:
    """Whether each of these segments has all its shares, at nodes that are not among those."""
    now = await holders(network)
    return all(all(node and node not in without for node in now[number]) for number in wanted)


async def has_copies(network: StorageNetwork, of: set[int] | None = None) -> bool:
    """Whether each node that runs has, confirmed and whole, the copies that the ledger names (all, or those of some segments), and no others."""
    nodes = await by_number(network)
    named: dict[int, set[bytes]] = {number: set() for number in nodes}
    wanted: dict[int, set[bytes]] = {number: set() for number in nodes}
    for segment, _, serials in await segments(network):
        for index, holder in enumerate(nodes_of(segment.nodes)):
            if holder:
                named[holder].add(serials[index])
                if of is None or segment.number in of:
                    wanted[holder].add(serials[index])
    for number, one in nodes.items():
        if one.node is not None:
            copies = list(one.node.store.inventory())
            confirmed = {bytes(copy.serial) for copy in copies if copy.state is shares.State.CONFIRMED and copy.kept is not shares.Kept.DAMAGED}
            if not wanted[number] <= confirmed <= named[number]:
                return False
    return True


async def is_sound(network: StorageNetwork) -> None:
    """Every rule of the ledger holds, and no segment has two shares of one owner or prefix."""
    await network.meta.ledger.query(check)
    rows = network.meta.registry.rows()
    for nodes in (await holders(network)).values():
        there = [rows[node] for node in nodes if node]
        assert len({row.owner for row in there}) == len(there) == len({row.prefix for row in there})


def wipe(node: RunningResource) -> None:
    """The disk with a stopped node's shares is lost."""
    assert node.node is None
    path = node.home.storage_path(node.config)
    for part in Path(path).iterdir():
        shutil.rmtree(part) if part.is_dir() else part.unlink()


async def fill_common_fund(network: StorageNetwork, name: str, noz: int) -> None:
    """A wallet reserves ten times as much and uses nothing of it: a tenth is the common repair fund's."""
    key, operation = key_of(name), Operation()
    session = open_session(key, CHAIN_ID, max_noz=10 * noz, actions=[1, 2], clock=network.clock)
    lease = operation.take_lease
    lease.wallet, lease.session_pubkey, lease.fund, lease.noz, lease.seconds = key.public_key.address, session.public_key, tables.PAID, 10 * noz, 600
    lease.grant.CopyFrom(session.grant)
    lease_id = (await network.meta.proposer.propose("take_lease", lease)).result
    commit = Operation().commit
    commit.lease_id, commit.unused_noz = lease_id, 10 * noz
    await network.meta.proposer.propose("commit", commit)


async def all_running(network: StorageNetwork) -> None:
    """Every node runs and takes part."""
    for node in network.resources:
        if node.node is None:
            await network.start_resource(node)
    await network.until(lambda: network.meta.registry.count() == len(network.resources), "all nodes are eligible")


async def store(network: StorageNetwork, files: dict[str, bytes]) -> None:
    async with network.storage("alice") as storage:
        for name, data in files.items():
            await storage.put(data, name)


async def reads_back(network: StorageNetwork, files: dict[str, bytes], folder: Path) -> None:
    async with network.storage("alice") as storage:
        for name, data in files.items():
            await storage.get(name, folder / "back")
            assert (folder / "back").read_bytes() == data


async def new_segments(network: StorageNetwork, files: dict[str, bytes]) -> list[int]:
    """Store files; the numbers of their segments."""
    before = set(await holders(network))
    await store(network, files)
    return sorted(set(await holders(network)) - before)
