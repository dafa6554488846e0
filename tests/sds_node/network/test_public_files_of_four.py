"""Four meta nodes that keep one ledger: each public file is on the chain once, by one of them, also when one of them is away."""

from __future__ import annotations

from pathlib import Path

import pytest

from sds_node.testing.network import StorageNetwork, key_of
from tests.sds_node.data.network import content
from tests.sds_node.network.test_public_files_on_the_chain import reported, told

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(400)]


async def test_one_of_four_meta_nodes_reports_each_public_file_and_the_others_those_of_one_that_is_gone(tmp_path: Path) -> None:
    async with StorageNetwork.started(tmp_path, nodes=3, wallets=("alice",), metas=4) as network:
        await network.buy_ozone("alice", 10**20)
        async with network.storage("alice") as storage:
            names = [(await storage.put(content(at, 20_000), f"{at}.txt", public=True)).file_hash for at in range(8)]
        for name in names:
            assert (await reported(network, name)).uploader == key_of("alice").public_key.address
        await network.until(lambda: sum(one.node.uploads.reported for one in network.metas if one.node) == len(names), "all are noted")
        assert [told(network, name) for name in names] == [1] * len(names)
        await network.kill_meta(3)
        async with network.storage("alice") as storage:
            later = [(await storage.put(content(at, 20_000), f"{at}.txt", public=True)).file_hash for at in range(10, 18)]
        for name in later:
            await reported(network, name)
        assert [told(network, name) for name in later] == [1] * len(later)
