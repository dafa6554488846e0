"""Lines of the acceptance list (docs/gateway.md) that need a whole network behind the gateway: it runs in this process, and parts of it stop.

two wallets ─► one gateway ─► a meta node, four resource nodes         the holders of a file, then everything, stop and start again
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chain.crypto.keys import PrivateKey
from sds_node.gateway.network import NetworkBackend
from sds_node.hashes import file_hash
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.tables import OBJECT, SEGMENT
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import RunningResource, StorageNetwork, key_of, wallet_of
from tests.sds_node.data.network import content
from tests.sds_node.gateway.memory import Site, signature, site
from tests.sds_node.gateway.test_the_real_way import Wall

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALICE, BOB = key_of("alice"), key_of("bob")
NODES = 4
BEYOND_A_SEGMENT = 36_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    async with StorageNetwork.started(tmp_path_factory.mktemp("network"), nodes=NODES, wallets=("alice", "bob")) as made:
        for name in ("alice", "bob"):
            await made.buy_ozone(name, 10**20)
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def here(network: StorageNetwork, tmp_path: Path) -> AsyncIterator[Site]:
    clock: Any = Wall()
    async with site(tmp_path, NetworkBackend(CHAIN_ID, [network.meta_address], clock), clock) as made:
        yield made


async def download(here: Site, wanted: str, key: PrivateKey, name: str) -> dict[str, Any]:
    """The first packet."""
    here.clock.now_s += 1
    text = signature(key, f"{wanted}{wallet_of(name)}{await here.sequence(key)}{here.time()}")
    return await here.call("user_requestDownload", filehandle=f"sdm://{wallet_of(name)}/{wanted}", req_time=here.time(), signature=text)


async def names(here: Site, key: PrivateKey) -> dict[str, str]:
    """A wallet's files: hash → name."""
    here.clock.now_s += 1
    listed = await here.call("user_requestList", page=0, **here.list_params(key))
    return {one["filehash"]: one["filename"] for one in listed.get("fileinfo", [])}


async def settled(network: StorageNetwork) -> None:
    await network.until(lambda: len(network.meta.users.leases) == 0, "all leases are settled")


async def holders_of(network: StorageNetwork, wanted: str) -> list[RunningResource]:
    """The nodes that hold the first segment of alice's file."""

    def look(view: ReadView) -> set[int]:
        row = view.scan(OBJECT, (ALICE.public_key.address, wanted), index="by_hash", limit=1)[0]
        return set(nodes_of(view.scan(SEGMENT, start=(row.first_segment,), limit=1)[0].nodes))

    owners = {network.meta.registry.rows()[number].owner for number in await network.meta.ledger.query(look)}
    return [one for one in network.resources if one.owner.public_key.address in owners]


async def test_two_wallets_send_the_same_content_at_once_and_one_deletion_leaves_the_others(network: StorageNetwork, here: Site) -> None:
    data = content(31, 3_000_000)
    wanted = file_hash(data)
    await asyncio.gather(here.stored(data, "hers.bin", ALICE), here.stored(data, "his.bin", BOB))
    assert (await names(here, ALICE), await names(here, BOB)) == ({wanted: "hers.bin"}, {wanted: "his.bin"})
    here.clock.now_s += 1
    assert (await here.call("user_requestDeleteFile", **here.file_params(wanted, ALICE)))["return"] == "0"
    assert (await names(here, ALICE), await names(here, BOB)) == ({}, {wanted: "his.bin"})
    assert (await download(here, wanted, ALICE, "alice"))["return"] == "-6"
    assert await here.downloaded(await download(here, wanted, BOB, "bob"), wanted) == data
    await settled(network)


async def test_holders_that_stop_during_a_download_are_done_without(network: StorageNetwork, here: Site) -> None:
    data = content(32, BEYOND_A_SEGMENT)
    wanted = await here.stored(data, "large.bin", ALICE)
    holders = await holders_of(network, wanted)
    assert len(holders) == 3
    first = await download(here, wanted, ALICE, "alice")
    assert (first["return"], first["offsetend"] < len(data)) == ("2", True)
    try:
        for one in holders[1:]:
            await network.stop_resource(one)
        assert await here.downloaded(first, wanted) == data
    finally:
        for one in holders[1:]:
            await network.start_resource(one)
    await network.until(lambda: network.meta.registry.count() == NODES, "all nodes are back")
    here.clock.now_s += 1
    assert (await here.call("user_getFileStatus", **here.file_params(wanted, ALICE)))["replicas"] == 3
    await settled(network)


async def test_a_restart_of_everything_loses_no_file_share_balance_or_number(network: StorageNetwork, here: Site, tmp_path: Path) -> None:
    data = content(33, 2_000_000)
    wanted = await here.stored(data, "kept.bin", ALICE)
    here.clock.now_s += 1
    link = (await here.call("user_requestShare", **here.file_params(wanted, ALICE)))["sharelink"]
    await settled(network)
    ozone = [await here.call("user_requestGetOzone", walletaddr=wallet_of(name)) for name in ("alice", "bob")]
    files = await names(here, ALICE)
    assert wanted in files

    await network.stop_meta()
    for one in network.resources:
        await network.stop_resource(one)
    await network.start_meta()
    for one in network.resources:
        await network.start_resource(one)
    await network.until(lambda: network.meta.registry.count() == NODES, "all nodes are back")

    clock: Any = Wall()
    clock.now_s = here.clock.now_s + 1
    (tmp_path / "fresh").mkdir()
    async with site(tmp_path / "fresh", NetworkBackend(CHAIN_ID, [network.meta_address], clock), clock) as fresh:
        assert [await fresh.call("user_requestGetOzone", walletaddr=wallet_of(name)) for name in ("alice", "bob")] == ozone
        assert await names(fresh, ALICE) == files
        assert await fresh.downloaded(await download(fresh, wanted, ALICE, "alice"), wanted) == data
        fresh.clock.now_s += 1
        text = f"{link}{wallet_of('bob')}{await fresh.sequence(BOB)}{fresh.time()}"
        packet = await fresh.call("user_requestGetShared", sharelink=link, req_time=fresh.time(), signature=signature(BOB, text))
        assert await fresh.downloaded(packet, wanted) == data
