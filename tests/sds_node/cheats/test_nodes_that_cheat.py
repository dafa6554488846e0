"""Resource nodes that want to be paid for what they did not do (storage-interfaces.md 4.3: T1, T7), and what one can do whose receipts are left out (T5)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import nacl.signing
import pytest
import pytest_asyncio

from chain.codec.canonical import encode, known
from modules.settlement.documents import OrderLimit, Receipt
from modules.settlement.leaves import GET, Leaf, identity, leaf_bytes
from sds_node import asking, transfers
from sds_node.client import TransferFailed
from sds_node.documents import signed
from sds_node.meta.books.books import State
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.tables import EARNED
from sds_node.testing.network import RunningResource, StorageNetwork, key_of, wallet_of
from sds_node.transfers import check_receipt
from sds_node.wire.errors import Refused
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.cheats.support import content, rewards_wei, started, waited

pytestmark = pytest.mark.asyncio(loop_scope="module")
HELD, SETTLED, REFUSED = 1, 2, 3
"""Of ReceiptState."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    async with started(tmp_path_factory.mktemp("network")) as made:
        yield made


@contextlib.contextmanager
def paused(network: StorageNetwork) -> Iterator[None]:
    """Within, the meta node makes no windows: what is handed in is held."""
    windows: Any = network.meta.windows

    async def nothing() -> int:
        return 0

    windows.settle = nothing
    try:
        yield
    finally:
        del windows.settle


@contextlib.contextmanager
def not_handed_in(made: RunningResource) -> Iterator[None]:
    """Within, a node hands in what the test says, and nothing by itself."""
    assert made.node is not None
    hander: Any = made.node.hander
    takers = hander._takers
    hander._takers = lambda issuer: []
    try:
        yield
    finally:
        hander._takers = takers


async def hand_in(network: StorageNetwork, by: RunningResource, leaf: Any) -> Any:
    """What the meta node answers when a node hands in a leaf."""
    assert by.node is not None
    where = network.meta_address
    peer = Peer(by.node.wire, where.address, [Direct(where.host, where.port)])
    try:
        raw = await peer.ask(asking.NODE_RECEIPTS, body=encode(asking.ReceiptsBatch(leaves=[known(leaf)])))
    finally:
        await peer.close()
    return asking.ReceiptAnswers.FromString(raw).answers[0]


async def earned_noz(network: StorageNetwork, owner: str) -> int:
    """What a wallet has earned or will: in the ledger, and held for it."""
    wallet = key_of(owner).public_key.address
    rows = await network.meta.ledger.query(lambda view: view.scan(EARNED, (wallet,), limit=16))
    return sum(row.noz for row in rows) + await network.meta.books.held_noz(wallet)


async def rows_of(network: StorageNetwork, leaf: Any) -> list[Any]:
    """What the books have of a leaf's serial."""
    books, serial = network.meta.books, identity(leaf)
    return await books.do(lambda database: books.leaves_where(database, "id = ?", [serial]))


def pending(made: RunningResource) -> list[Any]:
    assert made.node is not None
    return made.node.receipts.pending(int(made.node._clock()))


async def fresh(network: StorageNetwork, made: RunningResource) -> Any:
    """A leaf that the meta node has not seen."""
    found = pending(made)
    answers = await network.meta.books.answers(serials_of(made))
    return next(leaf for leaf, answer in zip(found, answers, strict=True) if answer is None)


def serials_of(made: RunningResource) -> list[bytes]:
    return [bytes(OrderLimit.FromString(leaf.traffic.order_limit.body).serial) for leaf in pending(made)]


async def held(network: StorageNetwork, made: RunningResource) -> set[bytes]:
    """Serials of a node that the meta node holds and has not settled."""
    found = serials_of(made)
    answers = await network.meta.books.answers(found)
    return {serial for serial, answer in zip(found, answers, strict=True) if answer is not None and answer.state == State.HELD}


def inflated(leaf: Any) -> Any:
    """More bytes than the client signed for."""
    return _other_receipt(leaf, lambda receipt: setattr(receipt, "bytes_acked", receipt.bytes_acked + 1), None)


def dearer(leaf: Any) -> Any:
    """More noz than the bytes are worth."""
    changed = Leaf.FromString(leaf_bytes(leaf))
    changed.noz += 1
    return changed


def signed_by_itself(leaf: Any) -> Any:
    """A receipt by a key that the node made."""
    return _other_receipt(leaf, lambda receipt: None, nacl.signing.SigningKey.generate())


def with_a_limit_it_made(leaf: Any) -> Any:
    """Limit, receipt and session by the node's own keys: a client that never was."""
    key = nacl.signing.SigningKey.generate()
    limit = OrderLimit.FromString(leaf.traffic.order_limit.body)
    limit.session_pubkey, limit.serial = bytes(key.verify_key), limit.serial[:8] + b"\xff" * 8
    changed = Leaf.FromString(leaf_bytes(leaf))
    changed.traffic.order_limit.CopyFrom(signed(limit, key))
    return _other_receipt(changed, lambda receipt: setattr(receipt, "serial", limit.serial), key)


def for_another_beneficiary(leaf: Any) -> Any:
    changed = Leaf.FromString(leaf_bytes(leaf))
    changed.beneficiary = wallet_of("mallory")
    return changed


def _other_receipt(leaf: Any, change: Callable[[Any], None], key: nacl.signing.SigningKey | None) -> Any:
    changed = Leaf.FromString(leaf_bytes(leaf))
    receipt = Receipt.FromString(leaf.traffic.receipt.body)
    change(receipt)
    if key is None:
        changed.traffic.receipt.body = encode(known(receipt))
    else:
        changed.traffic.receipt.CopyFrom(signed(receipt, key))
    return changed


async def test_receipts_that_nobody_signed_are_refused_for_good_and_pay_nothing(network: StorageNetwork) -> None:
    first, second = network.resources[:2]
    with paused(network), not_handed_in(first):
        async with network.storage("alice") as storage:
            await storage.put(content(1, 200_000), "one")
        leaf = await fresh(network, first)
        before_noz = await earned_noz(network, "owner 1"), await earned_noz(network, "mallory")
        for lie in (inflated, dearer, signed_by_itself, with_a_limit_it_made, for_another_beneficiary):
            answer = await hand_in(network, first, lie(leaf))
            assert (answer.state, bool(answer.reason)) == (REFUSED, True), lie.__name__
        stolen = await hand_in(network, second, leaf)
        assert (stolen.state, "not for the node that hands it in" in stolen.reason) == (REFUSED, True)
        assert (await earned_noz(network, "owner 1"), await earned_noz(network, "mallory")) == before_noz
        # After all of that the honest one is held.
        assert (await hand_in(network, first, leaf)).state == HELD
        assert await earned_noz(network, "owner 1") == before_noz[0] + leaf.noz


async def test_a_receipt_that_is_handed_in_again_and_again_is_in_one_window(network: StorageNetwork) -> None:
    first = network.resources[0]
    with not_handed_in(first):
        async with network.storage("alice") as storage:
            await storage.put(content(2, 150_000), "two")
        leaf = await fresh(network, first)
        with paused(network):
            before_noz = await earned_noz(network, "owner 1")
            assert [(await hand_in(network, first, leaf)).state for _ in range(3)] == [HELD] * 3
            assert await earned_noz(network, "owner 1") == before_noz + leaf.noz
        await network.meta.windows.settle()
        settled = await rows_of(network, leaf)
        assert [row.noz for row in settled] == [leaf.noz]
        assert [(await hand_in(network, first, leaf)).state for _ in range(3)] == [SETTLED] * 3
        assert (await hand_in(network, first, inflated(leaf))).state == SETTLED
        await network.meta.windows.settle()
        assert [(row.window, row.noz, row.leaf) for row in await rows_of(network, leaf)] == [(row.window, row.noz, row.leaf) for row in settled]
    await network.meta.ledger.query(check)


async def test_a_node_that_takes_shares_with_their_receipts_and_says_that_it_failed_is_paid_for_none(tmp_path: Path) -> None:
    async with started(tmp_path, nodes=4) as network:
        await _steals(network)


async def _steals(network: StorageNetwork) -> None:
    made = network.resources[0]
    assert made.node is not None
    service, taken = made.node.service, list[bytes]()

    async def steal(stream: Any, transfer: Any, manifest: Any, kept: bytes) -> None:
        left = manifest.size_bytes
        while left:
            left -= len(await stream.receive(left))
        given = await service._next_receipt(stream, 60.0)
        await service._finish(transfer, given, check_receipt(given, transfer.limit, None))
        taken.append(transfer.serial)
        raise Refused(transfers.STORE_FULL, "expected room for the share, there is none: ask another node")

    async def is_settled() -> bool:
        async with network.storage("alice") as storage:
            return (await storage.balance()).leased_noz == 0

    await waited(is_settled)
    service._take_share = steal  # type: ignore[method-assign]
    try:
        before_noz = await earned_noz(network, "owner 1")
        async with network.storage("alice") as storage:
            balance = await storage.balance()
            stored = [await storage.put(content(20 + number, 100_000), f"stolen {number}") for number in range(4)]
        assert taken

        async def are_refused() -> bool:
            answers = await network.meta.books.answers(taken)
            return all(one is not None and one.state == State.REFUSED for one in answers)

        await waited(are_refused)
    finally:
        del service._take_share
    assert await earned_noz(network, "owner 1") == before_noz

    await waited(is_settled)
    async with network.storage("alice") as storage:
        now = await storage.balance()
    # What was reserved for the shares that it stole was not used: of that a tenth goes to the repair fund.
    beyond_noz = balance.paid_noz - now.paid_noz - sum(one.charged_noz for one in stored)
    assert 0 <= beyond_noz <= len(taken) * 10_100
    await network.meta.ledger.query(check)


async def test_who_serves_other_bytes_gets_no_receipt(network: StorageNetwork, tmp_path: Path) -> None:
    data = content(3, 300_000)
    async with network.storage("alice") as storage:
        await storage.put(data, "three")
    honest = []
    for made in network.resources:
        assert made.node is not None
        honest.append(made.node.wire.handlers[transfers.GET])
        made.node.wire.handlers[transfers.GET] = lying(honest[-1])
    try:
        async with network.storage("alice") as storage:
            before = [reads(made) for made in network.resources]
            with pytest.raises(TransferFailed):
                await storage.get("three", tmp_path / "three")
            assert [reads(made) for made in network.resources] == before
    finally:
        for made, handler in zip(network.resources, honest, strict=True):
            assert made.node is not None
            made.node.wire.handlers[transfers.GET] = handler
    async with network.storage("alice") as storage:
        await storage.get("three", tmp_path / "three")
    assert (tmp_path / "three").read_bytes() == data
    await network.meta.ledger.query(check)


def lying(handler: Any) -> Any:
    """A handler of gets whose leaves have a wrong bit each."""

    async def serve(stream: Any, connection: Any) -> None:
        send, sent = stream.send, 0

        async def changed(data: Any) -> None:
            nonlocal sent
            raw = bytearray(data)
            if sent:
                raw[0] ^= 1
            sent += 1
            await send(bytes(raw))

        stream.send = changed
        await handler(stream, connection)

    return serve


def reads(made: RunningResource) -> int:
    """Bytes for which a node has receipts of gets that are not settled."""
    return sum(
        Receipt.FromString(leaf.traffic.receipt.body).bytes_acked
        for leaf in pending(made)
        if OrderLimit.FromString(leaf.traffic.order_limit.body).action == GET
    )


async def test_a_node_whose_receipts_are_left_out_keeps_them_and_is_paid_as_soon_as_they_are_taken(network: StorageNetwork) -> None:
    first = network.resources[0]
    with paused(network):
        paid_wei = await rewards_wei(network, "owner 1")
        async with network.storage("alice") as storage:
            await storage.put(content(4, 250_000), "four")
        serials = await waited(lambda: held(network, first))
        reported = network.meta.reporter.reported
        await network.until(lambda: network.meta.reporter.reported > reported, "an epoch without them is reported")
        # It sees that they are not settled, and has the meta node's word that they are held.
        assert serials <= set(serials_of(first))
        assert serials <= await held(network, first)

    def is_settled() -> bool:
        return not serials & set(serials_of(first))

    await network.until(is_settled, "its receipts are settled")

    async def is_paid() -> bool:
        return await rewards_wei(network, "owner 1") > paid_wei

    await waited(is_paid)
