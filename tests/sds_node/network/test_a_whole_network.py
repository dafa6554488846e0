"""A chain, a meta node and resource nodes in one process: what users store is there, what it costs is billed, what nodes did is paid on the chain."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from chain.codec.registry import message_class
from chain.coins import CoinMessage
from chain.crypto import address as bech32
from sds_node.client.errors import StorageError
from sds_node.meta.rules.invariants import check
from sds_node.schemes import THREE_REPLICAS, bill_noz
from sds_node.testing.network import StorageNetwork, key_of, wallet_of
from sds_node.value_chain import views
from sds_node.value_chain.sender import Sender

pytestmark = pytest.mark.asyncio(loop_scope="module")
OZONE_WEI = 10**20


def content(number: int, size_bytes: int) -> bytes:
    return random.Random(number).randbytes(size_bytes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    async with StorageNetwork.started(tmp_path_factory.mktemp("network"), nodes=3, wallets=("alice", "bob", "carol")) as made:
        await made.buy_ozone("alice", OZONE_WEI)
        await made.buy_ozone("bob", OZONE_WEI)
        yield made


async def settled(network: StorageNetwork) -> None:
    """Wait until no lease is open and every receipt is in a window; then every rule of the ledger holds."""
    await network.until(lambda: len(network.meta.users.leases) == 0, "all leases are settled")
    await network.meta.ledger.query(check)


async def test_what_goes_in_comes_out_and_costs_what_the_protocol_says(network: StorageNetwork, tmp_path: Path) -> None:
    data = content(1, 3_000_000)
    async with network.storage("alice") as storage:
        before = (await storage.balance()).paid_noz
        stored = await storage.put(data, "report.bin")
        target = tmp_path / "report.bin"
        await storage.get("report.bin", target)
    assert target.read_bytes() == data
    await settled(network)
    async with network.storage("alice") as storage:
        after = (await storage.balance()).paid_noz
    bill = bill_noz(THREE_REPLICAS, stored.stored_bytes)
    assert stored.charged_noz == bill
    # The bill, and the traffic of one read with the governed share of it.
    assert before - after == bill + stored.stored_bytes + stored.stored_bytes * 5 // 100


async def test_a_folder_of_small_files_is_listed_shared_deleted_and_restored(network: StorageNetwork, tmp_path: Path) -> None:
    files = {f"letters/{number}.txt": content(number, 100 + number) for number in range(20)}
    async with network.storage("alice") as storage:
        for name, data in files.items():
            await storage.put(data, name)
        listed = {entry.path async for entry in storage.list("letters")}
        assert listed == set(files)
        link = await storage.share("letters/3.txt", password="open sesame")
        await storage.remove("letters/4.txt")
        assert "letters/4.txt" not in {entry.path async for entry in storage.list("letters")}
        await storage.restore("letters/4.txt")
        await storage.get("letters/4.txt", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == files["letters/4.txt"]
    async with network.storage("bob") as storage:
        with pytest.raises(StorageError):
            await storage.get_shared(link.link, tmp_path / "stolen", password="a guess")
        await storage.get_shared(link.link, tmp_path / "shared", password="open sesame")
    assert (tmp_path / "shared").read_bytes() == files["letters/3.txt"]
    await settled(network)


async def test_nodes_are_paid_on_the_chain_and_withdraw(network: StorageNetwork) -> None:
    async with network.storage("bob") as storage:
        await storage.put(content(7, 2_000_000), "seven.bin")
    noz, reported = network.meta.windows.settled_noz, network.meta.reporter.reported
    assert noz > 0
    await network.until(lambda: network.meta.reporter.reported >= reported + 3, "three more epochs are reported")
    chain, owner = network.client(), key_of("owner 1")
    rewards = await views.rewards(chain, owner.public_key.address)
    assert rewards.mature_wei > 0
    message = message_class("stratos.pot.v1.MsgWithdraw")(
        amount=[CoinMessage(denom="wei", amount=str(rewards.mature_wei))], wallet_address=wallet_of("owner 1"), target_address=wallet_of("carol")
    )
    before = await chain.balance_wei(wallet_of("carol"))
    await Sender(chain, owner).send([message])
    assert await chain.balance_wei(wallet_of("carol")) - before == rewards.mature_wei
    assert bech32.encode(owner.public_key.address) == wallet_of("owner 1")


async def test_a_wallet_without_ozone_is_told_so(network: StorageNetwork) -> None:
    async with network.storage("carol") as storage:
        with pytest.raises(StorageError, match="noz"):
            await storage.put(content(9, 10_000), "nothing.bin")
