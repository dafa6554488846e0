"""``epoch.batch``, ``epoch.proof`` and the commands over them: what comes is what the chain committed to, and strangers get clean refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from chain.codec.canonical import encode
from sds_node import asking
from sds_node.cli.output import Commands
from sds_node.cli.spd_epochs import meta_peer, or_cannot
from sds_node.cli.user_proofs import add_proof_commands
from sds_node.client.home import Chain, Network, UserHome, UserSettings, Wallet
from sds_node.epoch_data import EpochDataError, ReportedEpoch, fetch_batch, reported_epoch
from sds_node.keystore import Kind, StoredKey
from sds_node.meta.books import serving
from sds_node.proofs import Proof, proved_balance
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import StorageNetwork, key_of, wallet_of
from sds_node.value_chain import views
from sds_node.wire import errors as wire_errors
from tests.sds_node.cheats.support import last_epoch, reported_after, rpc, spd, started, traffic

pytestmark = pytest.mark.asyncio(loop_scope="module")
PASSWORD = "correct horse"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    async with started(tmp_path_factory.mktemp("network")) as made:
        await traffic(made, 1)
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def epoch(network: StorageNetwork) -> ReportedEpoch:
    """One with receipts."""
    number = await reported_after(network, 0, lambda leaves: len(leaves) >= 3)
    return await reported_epoch(network.client(), number)


async def test_a_batch_comes_page_by_page_and_has_the_hash_on_chain(
    network: StorageNetwork, epoch: ReportedEpoch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meta_peer(CHAIN_ID, network.meta_address) as peer:
        whole = await fetch_batch(peer, epoch)
        assert f"sha256:{sha256(whole).hexdigest()}" == epoch.roots.data_ref
        monkeypatch.setattr(serving, "PAGE_LEAVES", 2)
        assert await fetch_batch(peer, epoch) == whole
        monkeypatch.setattr(serving, "PAGE_BYTES", 1)
        assert await fetch_batch(peer, epoch) == whole


@pytest.mark.parametrize(
    ("method", "head", "code"),
    [
        (asking.EPOCH_BATCH, asking.EpochBatchHead(epoch=10**9), asking.NOT_HELD),
        (asking.EPOCH_BATCH, asking.EpochBatchHead(epoch=-1), asking.NOT_HELD),
        (asking.EPOCH_BATCH, asking.EpochBatchHead(epoch=(1 << 63) - 1), asking.NOT_HELD),
        (asking.EPOCH_BATCH, asking.EpochBatchHead(epoch=1, after=b"x"), asking.BAD_ASK),
        (asking.EPOCH_BATCH, asking.EpochBatchHead(epoch=1, after=b"x" * 60_000), asking.BAD_ASK),
        (asking.EPOCH_BATCH, b"\xff", wire_errors.BadRequest.code),
        (asking.EPOCH_PROOF, asking.EpochProofHead(epoch=10**9, wallet=wallet_of("alice")), asking.NOT_HELD),
        (asking.EPOCH_PROOF, asking.EpochProofHead(epoch=-3, wallet=wallet_of("alice")), asking.NOT_HELD),
        (asking.EPOCH_PROOF, asking.EpochProofHead(wallet="st1nobody"), asking.BAD_ASK),
        (asking.EPOCH_PROOF, asking.EpochProofHead(wallet=wallet_of("alice"), lookup_id=b"short"), asking.BAD_ASK),
        (asking.EPOCH_PROOF, b"\x0a", wire_errors.BadRequest.code),
    ],
)
async def test_what_makes_no_sense_is_refused_in_words(network: StorageNetwork, method: str, head: Any, code: int) -> None:
    async with meta_peer(CHAIN_ID, network.meta_address) as peer:
        with pytest.raises(wire_errors.WireError) as caught:
            await peer.ask(method, head if isinstance(head, bytes) else encode(head))
    assert caught.value.code == code
    assert "/" not in caught.value.text


async def test_a_cursor_of_the_right_length_with_any_bytes_gives_what_follows_it(network: StorageNetwork, epoch: ReportedEpoch) -> None:
    async with meta_peer(CHAIN_ID, network.meta_address) as peer:
        raw = await peer.ask(asking.EPOCH_BATCH, encode(asking.EpochBatchHead(epoch=epoch.number, after=b"\xff" * 38)))
    assert asking.EpochBatchPage.FromString(raw) == asking.EpochBatchPage()


class Liar:
    """A meta node that answers with the same pages again and again."""

    def __init__(self, *pages: Any) -> None:
        self.pages = pages
        self.asked = 0

    async def ask(self, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 0) -> bytes:
        self.asked += 1
        page = self.pages[min(self.asked, len(self.pages)) - 1]
        return page if isinstance(page, bytes) else encode(page)


@pytest.mark.parametrize(
    ("pages", "text"),
    [
        ([asking.EpochBatchPage(data=b"x", next=b"n")], "without an end"),
        ([asking.EpochBatchPage(next=b"n")], "without an end"),
        ([asking.EpochBatchPage(data=b"x", next=b"n" * 100)], "without an end"),
        ([asking.EpochBatchPage(data=bytes(1 << 20), next=b"%c" % one) for one in range(200)], "gives more than"),
        ([b"\xff\xff"], "that are none"),
    ],
)
async def test_a_meta_node_that_gives_too_much_or_nonsense_is_given_up(epoch: ReportedEpoch, pages: list[Any], text: str) -> None:
    liar = Liar(*pages)
    with pytest.raises(EpochDataError, match=text):
        await fetch_batch(liar, epoch)
    assert liar.asked < 200


async def test_a_wallets_balance_is_under_the_root_on_chain(network: StorageNetwork) -> None:
    wallet = key_of("alice").public_key.address
    async with meta_peer(CHAIN_ID, network.meta_address) as peer:
        raw = await peer.ask(asking.EPOCH_PROOF, encode(asking.EpochProofHead(wallet=wallet_of("alice"))))
        found = asking.EpochProof.FromString(raw)
        root = bytes((await views.committed_epoch(network.client(), found.epoch)).roots.balances_root)
        proof = Proof(found.balance.leaf, found.balance.index, found.balance.count, tuple(found.balance.path))
        noz = proved_balance(root, proof, wallet)
        assert noz is not None
        assert noz[0] > 0
        raw = await peer.ask(asking.EPOCH_PROOF, encode(asking.EpochProofHead(wallet=wallet_of("a stranger"))))
        assert not asking.EpochProof.FromString(raw).HasField("balance")


async def test_the_commands_tell_by_their_exit_codes(network: StorageNetwork, epoch: ReportedEpoch, tmp_path: Path) -> None:
    number, batch, where = str(epoch.number), tmp_path / "epoch.batch", str(network.meta_address)
    async with rpc(network) as url:
        ended = await spd("epoch-batch", number, "--from", where, "--rpc", url, "--out", batch)
        assert ended.code == 0, ended.err
        ended = await spd("verify-epoch", number, "--batch", batch, "--rpc", url)
        assert (ended.code, "all is right" in ended.out) == (0, True)
        damaged = tmp_path / "damaged.batch"
        data = bytearray(batch.read_bytes())
        data[200] ^= 1
        damaged.write_bytes(data)
        ended = await spd("verify-epoch", number, "--batch", damaged, "--rpc", url, "-o", "json")
        assert (ended.code, json.loads(ended.out)["findings"][0]["kind"]) == (1, "withheld_leaf")
        ended = await spd("epoch-batch", number, "--from", where, "--rpc", url, "--out", tmp_path / "no folder" / "batch")
        assert (ended.code, "cannot be read or written" in ended.err, "Traceback" in ended.err) == (2, True, False), ended.err
        nowhere = where.rpartition(":")[0] + ":1"
        for arguments, text in (
            (("999999", "--from", where), "keeps no epoch 999999"),
            ((number, "--from", nowhere), f"stchaind tx settlement challenge {number} "),
            ((number, "--from", "nobody"), "a meta node is written"),
        ):
            ended = await spd("verify-epoch", *arguments, "--rpc", url)
            assert (ended.code, text in ended.err, "Traceback" in ended.err) == (2, True, False), ended.err
    ended = await spd("verify-epoch", number, "--from", where, "--rpc", "http://127.0.0.1:1")
    assert (ended.code, "does not answer" in ended.err) == (2, True)
    ended = await spd("verify-epoch", number, "--home", tmp_path / "none")
    assert (ended.code, "no home of a meta node" in ended.err) == (2, True)


async def test_a_batch_with_another_hash_than_the_chain_names_is_not_written(
    network: StorageNetwork, epoch: ReportedEpoch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, out = network.meta.wire.handlers[asking.EPOCH_BATCH], tmp_path / "epoch.batch"

    async def lying(stream: Any, connection: Any) -> None:
        send = stream.send

        async def changed(data: bytes) -> None:
            page = asking.EpochBatchPage.FromString(data)
            page.data = page.data[:-1] + bytes([page.data[-1] ^ 1])
            await send(encode(page))

        stream.send = changed
        await honest(stream, connection)

    network.meta.wire.handlers[asking.EPOCH_BATCH] = lying
    try:
        async with rpc(network) as url:
            ended = await spd("epoch-batch", str(epoch.number), "--from", str(network.meta_address), "--rpc", url, "--out", out)
    finally:
        network.meta.wire.handlers[asking.EPOCH_BATCH] = honest
    assert (ended.code, "names the batch" in ended.err, out.exists()) == (2, True, False), ended.err


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), RuntimeError("a fault"), EpochDataError("no data"), TimeoutError()])
async def test_no_fault_of_the_checker_says_that_an_epoch_is_wrong(fault: Exception) -> None:
    with pytest.raises(click.ClickException) as caught, or_cannot():
        raise fault
    assert caught.value.exit_code == 2
    for passed in (click.exceptions.Exit(1), click.UsageError("x"), BrokenPipeError()):
        with pytest.raises(type(passed)), or_cannot():
            raise passed


@click.group(cls=Commands)
def ppd() -> None:
    """As ``ppd``."""


add_proof_commands(ppd)


async def test_a_wallet_compares_its_balance_and_a_file_with_the_chain(network: StorageNetwork, tmp_path: Path) -> None:
    home, password = UserHome(tmp_path / "home"), tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    address = home.add_wallet(StoredKey(Kind.WALLET, key_of("alice").raw), PASSWORD)
    # The next epoch has all files of now.
    await reported_after_now(network)

    async def run(*arguments: str) -> Result:
        options = ["check-balance", "--home", str(home.root), "--password-file", str(password), "--json", *arguments]
        result: Result = await asyncio.to_thread(CliRunner().invoke, ppd, options)
        return result

    async with rpc(network) as url:
        home.save(UserSettings(Wallet(address), Chain(CHAIN_ID, url), Network((str(network.meta_address),))))
        equal = await run("--file", "files/1-0")
        assert equal.exit_code == 0, equal.output
        told = json.loads(equal.stdout)
        assert (told["is_equal"], told["proved"]["files"], told["proved"]["file"]) == (True, told["now"]["files"], "files/1-0")
        assert (await run("--epoch", "999999")).exit_code == 2
        # A meta node that shows another balance than the chain has.
        honest = network.meta.wire.handlers[asking.EPOCH_PROOF]

        async def lying(stream: Any, connection: Any) -> None:
            send = stream.send

            async def changed(data: bytes) -> None:
                made = asking.EpochProof.FromString(data)
                made.balance.leaf = made.balance.leaf[:-1] + b"\x07"
                await send(encode(made))

            stream.send = changed
            await honest(stream, connection)

        network.meta.wire.handlers[asking.EPOCH_PROOF] = lying
        try:
            different = await run()
        finally:
            network.meta.wire.handlers[asking.EPOCH_PROOF] = honest
        assert (different.exit_code, json.loads(different.stdout)["is_equal"]) == (1, False)


async def reported_after_now(network: StorageNetwork) -> None:
    last = await last_epoch(network)
    await network.until(lambda: network.meta.reporter.reported >= last + 2, "two more epochs are reported")
