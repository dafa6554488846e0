"""Meta nodes that report what is not so: whoever fetches the epoch finds it, and what he finds the chain accepts (storage-interfaces.md 4.3: T5, T7)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chain.crypto import address as bech32
from modules.settlement import leaves as rules
from modules.settlement.documents import OrderLimit, Receipt, decoded
from sds_node.meta.relay.answering import Answers
from sds_node.meta.rules.invariants import check
from sds_node.testing.network import StorageNetwork, key_of, wallet_of
from sds_node.value_chain import views
from sds_node.value_chain.client import TxRefused
from sds_node.value_chain.sender import Sender
from sds_node.verifying import Batch, overlap_finding
from tests.sds_node.cheats.support import (
    Change,
    Lie,
    checked,
    content,
    deposit_wei,
    last_epoch,
    proved,
    reported_after,
    rewards_wei,
    started,
    status_of,
    traffic,
    waited,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module")]
OWNERS = ("owner 1", "owner 2", "owner 3")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    async with started(tmp_path_factory.mktemp("network")) as made:
        yield made


def written(folder: Path) -> list[Any]:
    """The proofs that a command wrote."""
    return [json.loads(one.read_text()) for one in folder.iterdir()]


def double(leaves: list[Any]) -> list[Any] | None:
    """The second leaf of a line gives way to the first, once more."""
    for at in range(len(leaves) - 1):
        if rules.line_key(leaves[at]) == rules.line_key(leaves[at + 1]) and leaves[at].noz == leaves[at + 1].noz:
            return [*leaves[: at + 1], leaves[at], *leaves[at + 2 :]]
    return None


def swapped(leaves: list[Any]) -> list[Any] | None:
    return None if len(leaves) < 2 else [leaves[1], leaves[0], *leaves[2:]]


def forged(leaves: list[Any]) -> list[Any] | None:
    """A receipt for a byte less than was signed, paid as before."""
    if not leaves:
        return None
    changed = rules.Leaf.FromString(rules.leaf_bytes(leaves[0]))
    receipt = Receipt.FromString(changed.traffic.receipt.body)
    receipt.sequence += 1
    changed.traffic.receipt.body = receipt.SerializeToString(deterministic=True)
    return [changed, *leaves[1:]]


def left_out(leaves: list[Any]) -> list[Any] | None:
    return None if len(leaves) < 2 else leaves[1:]


@pytest.mark.parametrize(
    ("number", "change", "kind"),
    [(1, double, "double_entry"), (2, swapped, "wrong_order"), (3, forged, "bad_leaf"), (4, left_out, "bad_leaf")],
    ids=["a leaf twice", "leaves out of order", "a receipt that nobody signed", "a leaf left out"],
)
async def test_a_batch_that_lies_is_found_its_proof_voids_the_epoch_and_honest_receipts_are_paid_later(
    network: StorageNetwork, tmp_path: Path, number: int, change: Change, kind: str
) -> None:
    before = [await rewards_wei(network, owner) for owner in OWNERS]
    staked_wei = await deposit_wei(network)
    async with Lie(network, change) as lie:
        await traffic(network, number)
        epoch = await lie.told()
        code, told = await checked(network, epoch, "--proof-dir", tmp_path)
        assert code == 1
        found = next(one for one in told["findings"] if one["kind"] == kind)
        assert found["proof"] in written(tmp_path)
        await proved(network, found["proof"])
        assert await status_of(network, epoch) == 2
        assert await deposit_wei(network) == staked_wei - staked_wei // 10
        with pytest.raises(TxRefused, match="void"):
            await proved(network, found["proof"])
    identities = {rules.identity(leaf) for leaf in lie.honest_leaves}
    again = await reported_after(network, epoch, lambda leaves: identities <= {rules.identity(leaf) for leaf in leaves})
    code, told = await checked(network, again)
    assert (code, told["findings"]) == (0, [])
    await network.meta.ledger.query(check)
    # The void epoch paid nothing; the same receipts are paid once, by the later one.
    after = [await rewards_wei(network, owner) for owner in OWNERS]
    assert all(now_wei > then_wei for now_wei, then_wei in zip(after, before, strict=True))


async def test_an_epoch_whose_data_nobody_shows_is_void_when_a_challenge_is_over(network: StorageNetwork) -> None:
    async with Lie(network, lambda leaves: leaves or None) as lie:
        lie.is_withheld = True
        await traffic(network, 12)
        epoch = await lie.told()
        code, told = await checked(network, epoch)
        assert code == 2
        assert f"stchaind tx settlement challenge {epoch} " in told
        await proved(network, {"withheld_leaf": {"epoch": str(epoch), "leaf_index": "0"}})
        answers = Answers(network.client(), Sender(network.client(), key_of("bob"), clock=network.clock), network.meta.epochs, network.clock)
        assert await answers.step() == 0  # the leaf that the books have is not under the root
        await waited(lambda: is_void(network, epoch))
    assert await views.challenges(network.client()) == []


async def test_a_challenge_of_an_honest_epoch_is_answered_and_costs_the_doubter_his_bond(
    network: StorageNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The meta node's own may be faster, by one or both.
    monkeypatch.setattr(network.meta.answers, "step", no_step)
    last = await last_epoch(network)
    await traffic(network, 13)
    epoch = await reported_after(network, last, lambda leaves: len(leaves) >= 3)
    answers = Answers(network.client(), Sender(network.client(), key_of("bob"), clock=network.clock), network.meta.epochs, network.clock)
    for index in (0, 2):
        await proved(network, {"withheld_leaf": {"epoch": str(epoch), "leaf_index": str(index)}})
    before_wei = await network.client().balance_wei(wallet_of("bob"))
    assert await answers.step() == 2
    assert await answers.step() == 0
    assert await views.challenges(network.client()) == []
    assert await status_of(network, epoch) == 1
    # Half of two bonds of a stos, less the fees.
    assert 0 < before_wei + 10**18 - await network.client().balance_wei(wallet_of("bob")) < 10**17


async def no_step() -> int:
    return 0


@contextlib.contextmanager
def ranges_from_zero(network: StorageNetwork) -> Iterator[None]:
    """Within, the meta node gives the first part of each lease to everybody."""
    book: Any = network.meta.users.leases
    issue = book.issue

    def again(held: Any, serial: bytes, noz: int, expires_s: int, **kind: Any) -> tuple[int, int]:
        held.issued_noz = 0
        taken: tuple[int, int] = issue(held, serial, noz, expires_s, **kind)
        return taken

    book.issue = again
    try:
        yield
    finally:
        book.issue = issue


def limit_of(leaf: Any) -> Any:
    return decoded(OrderLimit, leaf.traffic.order_limit.body) if leaf.WhichOneof("source") == "traffic" else None


async def is_void(network: StorageNetwork, epoch: int) -> bool:
    return await status_of(network, epoch) == 2


async def test_a_node_that_was_given_a_range_twice_has_the_proof(network: StorageNetwork) -> None:
    staked_wei = await deposit_wei(network)
    with ranges_from_zero(network):
        async with network.storage("alice") as storage:
            puts = (storage.put(content(1_400 + at, 30_000), f"twice/{at}") for at in range(2))
            stored = await asyncio.gather(*puts, return_exceptions=True)
    assert any(isinstance(one, Exception) for one in stored)
    proofs = [pair for one in network.resources if one.node is not None for pair in one.node.receipts.proofs()]
    finding = overlap_finding(*proofs[0])
    assert finding.accused == network.meta_keys.network_address
    assert finding.proof is not None
    await proved(network, finding.proof)
    assert await deposit_wei(network) == staked_wei - staked_wei // 10
    with pytest.raises(TxRefused, match="was punished"):
        await proved(network, finding.proof)


async def test_a_range_given_to_two_nodes_is_found_in_the_batch(network: StorageNetwork) -> None:
    staked_wei, last = await deposit_wei(network), await last_epoch(network)
    with ranges_from_zero(network):
        async with network.storage("alice") as storage:
            stored = await storage.put(content(1_500, 70_001), "once")

    def of_object(leaves: list[Any]) -> list[Any]:
        return [limit for leaf in leaves if (limit := limit_of(leaf)) is not None and limit.object_root.hex() == stored.object_id]

    epoch = await reported_after(network, last, lambda leaves: len(of_object(leaves)) == 3)
    lease_id = of_object(Batch(epoch, await network.meta.epochs.batch(epoch)).leaves)[0].lease_id.hex()
    code, told = await checked(network, epoch)
    found = [one for one in told["findings"] if one["kind"] == "overlapping_ranges" and lease_id in one["text"]]
    assert code == 1
    assert found[0]["accused"] == network.meta_keys.network_address
    await proved(network, found[0]["proof"])
    assert await deposit_wei(network) < staked_wei
    assert await status_of(network, epoch) == 1, "the receipts are honest: only the meta node pays"
    assert bech32.decode(found[0]["accused"], bech32.NODE) == network.meta_keys.address
