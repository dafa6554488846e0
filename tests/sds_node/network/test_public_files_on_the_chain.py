"""What users store for everybody is on the chain once, through the library and through the gateway, and what they store for themselves is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from modules.sds.reporters import positions
from sds_node.gateway.network import NetworkBackend
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import StorageNetwork, key_of
from sds_node.value_chain import views
from tests.sds_node.data.network import content
from tests.sds_node.gateway.memory import site
from tests.sds_node.gateway.test_the_real_way import Wall

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALICE = key_of("alice")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    async with StorageNetwork.started(tmp_path_factory.mktemp("network"), nodes=3, wallets=("alice",)) as made:
        await made.buy_ozone("alice", 10**20)
        yield made


def told(network: StorageNetwork, file_hash: str) -> int:
    """How often a block has that a file was uploaded."""
    blocks = network.chain.driver.blocks
    return sum(
        event.type == "stratos.sds.v1.EventFileUpload" and any(file_hash in pair.value for pair in event.attributes)
        for block in blocks.values()
        for result in block.response.tx_results
        for event in result.events
    )


async def reported(network: StorageNetwork, file_hash: str) -> views.UploadedFile:
    """What the chain has of a file, once it has it."""
    await network.until(lambda: told(network, file_hash) > 0, "the file is on the chain")
    found = await views.uploaded_file(network.client(), file_hash)
    assert found is not None
    return found


async def test_a_public_put_is_on_the_chain_with_reporter_and_uploader_and_a_private_one_is_not(network: StorageNetwork) -> None:
    async with network.storage("alice") as storage:
        private = await storage.put(content(1, 50_000), "diary.txt")
        public = await storage.put(content(2, 50_000), "news.txt", public=True)
    found = await reported(network, public.file_hash)
    assert found.uploader == ALICE.public_key.address
    assert positions(found.reporters) == [0]
    await network.until(lambda: network.meta.uploads.reported == 1 and network.meta.uploads.waiting == 0, "it is noted")
    assert told(network, public.file_hash) == 1
    assert await views.uploaded_file(network.client(), private.file_hash) is None
    assert told(network, private.file_hash) == 0
    async with network.storage("alice") as storage:
        await storage.remove("news.txt")
    assert await views.uploaded_file(network.client(), public.file_hash) == found
    values = network.meta.values()
    assert (values["spd_files_reported_total"], values["spd_files_unreported"]) == ({(): 1.0}, {(): 0.0})


async def test_what_a_client_of_the_original_stores_through_the_gateway_is_public(network: StorageNetwork, tmp_path: Path) -> None:
    clock: Any = Wall()
    async with site(tmp_path, NetworkBackend(CHAIN_ID, [network.meta_address], clock), clock) as here:
        file_hash = await here.stored(content(3, 200_000), "report.bin", ALICE)
    assert (await reported(network, file_hash)).uploader == ALICE.public_key.address
    assert told(network, file_hash) == 1


async def test_killed_between_the_block_and_the_note_of_it_a_meta_node_does_not_report_again(
    network: StorageNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = network.meta
    await network.until(lambda: meta.uploads.waiting == 0, "what was stored before is noted")
    never = asyncio.Event()

    async def hangs(objects: Any) -> None:
        if list(objects):
            await never.wait()

    monkeypatch.setattr(meta.unreported, "remove", hangs)
    async with network.storage("alice") as storage:
        public = await storage.put(content(4, 50_000), "once.txt", public=True)
    found = await reported(network, public.file_hash)
    await network.kill_meta(0)
    await network.start_meta(0)
    assert network.meta is not meta
    await network.until(lambda: network.meta.uploads.waiting == 0 and network.meta.observer.is_ready, "nothing is unreported")
    again = network.meta.reporter.reported
    await network.until(lambda: network.meta.reporter.reported > again, "an epoch is reported")
    assert told(network, public.file_hash) == 1
    assert await views.uploaded_file(network.client(), public.file_hash) == found
    assert network.meta.uploads.reported == 0


async def test_switched_off_nothing_is_reported_and_switched_on_again_all_is(network: StorageNetwork) -> None:
    made = network.metas[0]
    assert made.home.settings.uploads.reports, "the default"
    await network.stop_meta()
    with_it = made.home
    made.home = replace(with_it, settings=replace(with_it.settings, uploads=replace(with_it.settings.uploads, reports=False)))
    await network.start_meta()
    async with network.storage("alice") as storage:
        public = await storage.put(content(5, 50_000), "later.txt", public=True)
    assert "uploads" not in {task.get_name() for task in asyncio.all_tasks()}
    assert told(network, public.file_hash) == 0
    await network.stop_meta()
    made.home = with_it
    await network.start_meta()
    await reported(network, public.file_hash)
    assert told(network, public.file_hash) == 1
