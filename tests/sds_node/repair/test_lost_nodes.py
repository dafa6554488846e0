"""Nodes die: what they held is made again, of other owners and prefixes, paid by the repair funds; who comes back loses his copies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import nacl.signing
import pytest
import pytest_asyncio

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from sds_node import transfers
from sds_node.merkle import share_root
from sds_node.meta.audits.challenges import Item, challenges, with_leaves
from sds_node.meta.audits.challenges import judged as judged_answer
from sds_node.meta.books.books import State as LeafState
from sds_node.meta.daemon import node as meta_daemon
from sds_node.meta.repair import Settings
from sds_node.meta.repair.funds import read_noz, store_noz
from sds_node.meta.repair.queue import Owed
from sds_node.meta.rules import moves
from sds_node.meta.rules.objects import scheme
from sds_node.meta.rules.places import nodes_of
from sds_node.resource import store as shares
from sds_node.schemes import share_bytes
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import RunningResource, StorageNetwork, wallet_of
from sds_node.transfers import GetReply, receive_record, record
from sds_node.value_chain.sender import Sender
from sds_node.wire.connection import Connection
from sds_node.wire.stream import Stream
from tests.sds_node.repair.support import (
    OZONE_WEI,
    address,
    all_running,
    by_number,
    content,
    fill_common_fund,
    has_copies,
    holders,
    is_sound,
    is_whole,
    made,
    new_segments,
    reads_back,
    running,
    segments,
    short_of,
    state,
    store,
    until,
    wipe,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
NODES = 8


def own_repair_rests() -> Any:
    """The meta node's own repair looks once, at its start: later it would do what a test's repair is to do."""
    return mock.patch.object(meta_daemon, "RepairSettings", partial(Settings, look_s=86_400.0))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    with own_repair_rests():
        async with StorageNetwork.started(tmp_path_factory.mktemp("repair"), nodes=NODES, wallets=("alice", "bob")) as one:
            await one.buy_ozone("alice", OZONE_WEI)
            await one.buy_ozone("bob", OZONE_WEI)
            yield one


@pytest_asyncio.fixture(loop_scope="module")
async def clean_network(tmp_path: Path) -> AsyncIterator[StorageNetwork]:
    """One that no other test used: what tests leave at nodes would be counted."""
    with own_repair_rests():
        async with StorageNetwork.started(tmp_path, nodes=NODES, wallets=("alice",)) as one:
            await one.buy_ozone("alice", OZONE_WEI)
            yield one


async def busiest(network: StorageNetwork, of: Sequence[int], count: int) -> list[int]:
    """The nodes that hold most of some segments, so that these are in need when they are lost."""
    held = [node for number, nodes in (await holders(network)).items() if number in of for node in nodes]
    return sorted(set(held), key=lambda node: (-held.count(node), node))[:count]


async def stop(network: StorageNetwork, numbers: Sequence[int], *, wiped: bool = False) -> None:
    nodes = await by_number(network)
    await asyncio.gather(*(network.stop_resource(nodes[number]) for number in numbers))
    if wiped:
        for number in numbers:
            wipe(nodes[number])


async def test_what_wiped_nodes_held_is_made_again_read_back_and_paid_by_the_common_fund(network: StorageNetwork, tmp_path: Path) -> None:
    files = {f"large/{number}": content(number, 1_200_000 + number) for number in range(3)} | {"small": content(9, 5_000)}
    made_now = await new_segments(network, files)
    await fill_common_fund(network, "bob", 2 * 10**7)
    two = set(await busiest(network, made_now, 2))
    short = await short_of(network, two)
    before = {segment.number: (segment, row) for segment, row, _ in await segments(network)}
    fund_noz = (await state(network)).repair_paid_noz
    async with running(network) as repair:
        await stop(network, sorted(two), wiped=True)
        await until(network, lambda: is_whole(network, short, two), "all shares are at others")
        expected_noz = 0
        for number in short:
            segment, row = before[number]
            size = share_bytes(scheme(row), row.size_bytes)
            lost = sum(node in two for node in nodes_of(segment.nodes))
            expected_noz += row.k * read_noz(size) + lost * store_noz(row, size)
        assert repair.status()["total_credits"] == 0
        await network.until(lambda: repair.funds.owed == 0, "the receipts of repair are in windows")
        spent_noz = fund_noz - (await state(network)).repair_paid_noz
    assert spent_noz == expected_noz > 0
    assert await unproved(network, short) == []
    await reads_back(network, files, tmp_path)
    await is_sound(network)
    await all_running(network)
    await until(network, lambda: has_copies(network, short), "nodes have their copies")


async def unproved(network: StorageNetwork, of: set[int]) -> list[tuple[int, int]]:
    """(segment, share) of those shares that their nodes cannot prove when they are audited."""
    meta, failed = network.meta, []
    seed, head = bytes(32), await state(network)
    for segment, row, serials in await segments(network):
        if segment.number not in of:
            continue
        roots = (await meta.roots.of([segment]))[segment.number]
        size = share_bytes(scheme(row), row.size_bytes)
        for index, holder in enumerate(nodes_of(segment.nodes)):
            items = with_leaves([Item(segment.number, index, serials[index], roots[index], size)], seed)
            address_, due_s = meta.registry.rows()[holder].address, int(network.clock()) + 60
            key = nacl.signing.SigningKey(meta.keys.ledger_seed)
            ((ask, part),) = challenges(items, CHAIN_ID, meta.keys.address, address_, head.height, head.block_hash, due_s, key)
            raw = await meta.calls.ask(holder, transfers.AUDIT, encode(ask), most_bytes=transfers.MAX_AUDIT_BYTES)
            failed += [(item.segment, item.index) for item in judged_answer(ask, part, raw)[0]]
    return failed


async def test_a_node_that_comes_back_after_its_shares_were_moved_drops_its_copies(network: StorageNetwork) -> None:
    (number,) = await new_segments(network, {"replica": content(20, 9_000)})
    away = (await holders(network))[number][0]
    node = (await by_number(network))[away]
    serial = next(bytes(serials[0]) for segment, _, serials in await segments(network) if segment.number == number)
    async with running(network):
        await stop(network, [away])
        await until(network, lambda: is_whole(network, {number}, {away}), "the share is at another node")
        await network.start_resource(node)
        await until(network, lambda: has_copies(network, {number}), "nodes have exactly their copies")
        await network.until(lambda: serial in trash_of(node), "its copy is in the trash")
    await all_running(network)


def trash_of(node: RunningResource) -> set[bytes]:
    return {bytes(copy.serial) for copy in node.node.store.inventory() if copy.state is shares.State.TRASH} if node.node is not None else set()


async def test_a_share_that_comes_back_before_its_repair_is_not_made_again(network: StorageNetwork) -> None:
    (number,) = await new_segments(network, {"back soon": content(21, 9_000)})
    away = (await holders(network))[number][0]
    repair = made(network)
    try:
        await repair.start()
        await stop(network, [away])

        async def is_waiting() -> bool:
            await repair.look()
            return bool(repair.status()["waiting"])

        await until(network, is_waiting, "its segment waits")
        assert number in {row.number for row in await repair.queue.take(100, (), int(network.clock()) + 1)}
        await network.start_resource((await by_number(network))[away])

        async def is_empty() -> bool:
            return not await is_waiting()

        await until(network, is_empty, "nothing waits any more")
    finally:
        await repair.close()
    assert (await holders(network))[number][0] == away
    await all_running(network)


async def test_a_segment_with_too_few_shares_is_reported_and_repaired_when_a_node_returns(network: StorageNetwork, tmp_path: Path) -> None:
    files = {"nearly lost": content(22, 1_100_000)}
    (number,) = await new_segments(network, files)
    away = (await holders(network))[number][:4]
    async with running(network, retry_s=600.0, retry_most_s=600.0) as repair:
        await stop(network, away)
        await network.until(lambda: repair.status()["lost"] > 0, "it is reported")
        assert number in await repair.lost()
        back = away[3]
        await network.start_resource((await by_number(network))[back])
        await until(network, lambda: is_whole(network, {number}, set(away) - {back}), "it is repaired")
        assert number not in await repair.lost()
    await reads_back(network, files, tmp_path)
    await is_sound(network)
    await all_running(network)


async def test_a_scrub_finds_a_damaged_share_and_it_is_made_again_elsewhere(network: StorageNetwork, tmp_path: Path) -> None:
    files = {"rotten": content(23, 40_000)}
    (number,) = await new_segments(network, files)
    holder = (await holders(network))[number][1]
    node = (await by_number(network))[holder].node
    assert node is not None
    _, _, serials = next(one for one in await segments(network) if one[0].number == number)
    flip_a_byte((await by_number(network))[holder], bytes(serials[1]))
    async with running(network, damage_s=0.5):
        for _ in range(2):  # a scrub goes on where the last one ended
            while not (await asyncio.to_thread(shares.scrub, node.store)).is_round:
                pass
        await until(network, lambda: is_whole(network, {number}, {holder}), "the share is at another node")
    await reads_back(network, files, tmp_path)
    await is_sound(network)


def flip_a_byte(node: RunningResource, serial: bytes) -> None:
    """A share's file rots."""
    (path,) = Path(node.home.storage_path(node.config)).rglob(f"*{serial.hex()}*")
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(raw)


async def differences(network: StorageNetwork, node: int) -> tuple[int, int, int]:
    """(missing, dropped, restored) copies of a node, as a comparison finds them."""
    first = made(network, orphan_s=-60)
    await first.start()
    compared = await first.damage.compare(node)
    await first.close()
    return compared.missing, compared.dropped, compared.restored


async def test_a_comparison_finds_what_a_node_lost_and_drops_what_nobody_knows(clean_network: StorageNetwork) -> None:
    network = clean_network
    # Nine copies at eight nodes: one has two of them.
    stored = await new_segments(network, {f"compared {at}": content(40 + at, 30_000) for at in range(3)})
    (holder,) = await busiest(network, stored, 1)
    now = await holders(network)
    numbers = [number for number in stored if holder in now[number]][:2]
    node = (await by_number(network))[holder].node
    assert node is not None
    await until(network, lambda: has_copies(network, set(numbers)), "nodes know that their copies count")
    read = {segment.number: (nodes_of(segment.nodes), serials) for segment, _, serials in await segments(network)}
    gone = read[numbers[0]][1][read[numbers[0]][0].index(holder)]
    kept = read[numbers[1]][1][read[numbers[1]][0].index(holder)]
    for copy in list(node.store.inventory()):
        if copy.serial == gone:
            node.store.trash([copy.key])
            node.store.purge([copy.key])
        if copy.serial == kept:
            node.store.trash([copy.key])
    stray = node.store.begin(share_root(b"nobody's"), 8, bytes(16), b"kept")
    stray.write(b"nobody's")
    stray.finish()
    assert await differences(network, holder) == (1, 1, 1)
    async with running(network):
        await until(network, lambda: is_whole(network, {numbers[0]}, {holder}), "what was lost is at another node")
        await until(network, lambda: has_copies(network, set(numbers)), "nodes have exactly their copies")
    assert holder in (await holders(network))[numbers[1]]


async def test_a_liar_among_the_sources_is_left_out_and_his_share_counts_as_lost(network: StorageNetwork, tmp_path: Path) -> None:
    await all_running(network)
    files = {"believed": content(26, 1_300_000)}
    (number,) = await new_segments(network, files)
    nodes, known = (await holders(network))[number], await by_number(network)
    liar, lost = known[nodes[0]], nodes[3:]
    assert liar.node is not None
    liar.node.wire.handlers[transfers.GET] = lying(liar)
    async with running(network) as repair:
        await stop(network, lost)
        await until(network, lambda: is_whole(network, {number}, set(lost)), "what was lost is at other nodes")
        judged = await repair.health.look(number)
        assert judged is not None
        assert list(judged.marked) == [0]
    await reads_back(network, files, tmp_path)
    await is_sound(network)
    await network.stop_resource(liar)
    await all_running(network)


async def test_a_ledger_of_several_meta_nodes_takes_what_nodes_acknowledged(network: StorageNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    await all_running(network)
    (number,) = await new_segments(network, {"shown": content(27, 1_300_000)})
    lost = (await holders(network))[number][3:]
    asked: list[int] = []

    def several(view: Any) -> bool:
        asked.append(1)
        return True

    monkeypatch.setattr(moves, "is_word_of_several", several)
    async with running(network):
        await stop(network, lost)
        await until(network, lambda: is_whole(network, {number}, set(lost)), "what was lost is at other nodes")
    assert asked
    await is_sound(network)
    await all_running(network)


def lying(node: RunningResource) -> Any:
    """``share.get`` with the right hashes and wrong bytes."""

    async def get(stream: Stream, connection: Connection) -> None:
        assert node.node is not None
        head = transfers.parsed(transfers.GetHead, stream.head)
        root = message_class("stratos.settlement.v1.OrderLimit").FromString(head.evidence.order_limit.body).share_root
        with node.node.store.open_share(root) as reader:
            await stream.send(record(encode(GetReply(size_bytes=reader.size_bytes, leaf_hashes=reader.leaf_hashes))))
            await stream.send(bytes(reader.size_bytes))
            while await receive_record(stream, 1_024) is not None:
                pass

    return get


@pytest.mark.parametrize("is_acked", [True, False])
async def test_a_stop_between_put_and_move_neither_doubles_nor_loses_a_share(network: StorageNetwork, tmp_path: Path, is_acked: bool) -> None:
    await all_running(network)
    files = {f"cut off {is_acked}": content(27 + is_acked, 9_000)}
    (number,) = await new_segments(network, files)
    away = (await holders(network))[number][2]
    first = made(network, at_once=64)
    await first.start()
    if not is_acked:

        async def never(serial: bytes, evidence: bytes = b"") -> None:
            await asyncio.Event().wait()

        first.queue.acked = never  # type: ignore[method-assign]
    # Moves are never proposed: the process ends before.
    tasks = [asyncio.create_task(first.worker.run())]
    await stop(network, [away])

    async def is_put() -> bool:
        await first.look()
        found = await first.queue.puts(number)
        if not found or found[0].is_acked != is_acked:
            return False
        there = (await by_number(network))[found[0].to_node].node
        return there is not None and there.store.has(found[0].root, found[0].serial)

    await until(network, is_put, "the new copy is stored")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await first.close()
    assert (await holders(network))[number][2] == away
    async with running(network):
        await until(network, lambda: is_whole(network, {number}, {away}), "the share is at another node")
        await until(network, lambda: has_copies(network, {number}), "nodes have exactly their copies")
    await reads_back(network, files, tmp_path)
    await is_sound(network)
    await all_running(network)


async def test_what_an_audit_does_not_find_is_made_again(network: StorageNetwork) -> None:
    (number,) = await new_segments(network, {"audited": content(30, 9_000)})
    holder = (await holders(network))[number][1]
    async with running(network) as repair:
        repair.share_lost(number, 1)
        repair.share_lost(1 << 40, 0)
        repair.share_lost(number, 200)
        await until(network, lambda: is_whole(network, {number}, {holder}), "the share is at another node")


async def test_a_node_that_leaves_the_chain_hands_its_shares_over_for_a_noz_each(network: StorageNetwork, tmp_path: Path) -> None:
    await all_running(network)
    files = {"handed over": content(31, 1_400_000), "and this": content(32, 3_000)}
    made_now = await new_segments(network, files)
    await fill_common_fund(network, "bob", 2 * 10**7)
    (leaver,) = await busiest(network, made_now, 1)
    node = (await by_number(network))[leaver]
    message = message_class("stratos.register.v1.MsgRemoveResourceNode")(
        resource_node_address=node.config.keys.p2p, owner_address=wallet_of(f"owner {node.number}")
    )
    result = await Sender(network.client(), node.owner, clock=network.clock).send([message])
    await network.until(lambda: network.meta.observer.height >= result.height, "the ledger knows that it leaves")
    expected_noz = sum(
        1 + store_noz(row, share_bytes(scheme(row), row.size_bytes))
        for segment, row, _ in await segments(network)
        if leaver in nodes_of(segment.nodes)
    )
    issued: list[Owed] = []
    async with running(network) as repair:
        owe = repair.funds.owe

        async def noted(rows: Sequence[Owed]) -> None:
            issued.extend(rows)
            await owe(rows)

        repair.funds.owe = noted  # type: ignore[method-assign]
        await network.until(lambda: (row := network.meta.registry.row_of(address(node))) is not None and row.shares == 0, "it has no shares")
        assert repair.status()["total_failed_nodes"] == 0

    async def is_paid() -> bool:
        answers = await network.meta.books.answers([row.serial for row in issued])
        return all(answer is not None and answer.state is LeafState.SETTLED for answer in answers)

    await until(network, is_paid, "the receipts of repair are in windows")
    assert sum(row.noz for row in issued) == expected_noz
    await reads_back(network, files, tmp_path)
    await is_sound(network)


async def test_shares_stay_where_they_are_while_nothing_is_lost(network: StorageNetwork) -> None:
    await store(network, {"calm": content(33, 9_000)})
    before = await holders(network)
    async with running(network, lost_s=60.0) as repair:
        await asyncio.sleep(1.5)
        assert repair.status()["moved_shares"] == 0
    assert await holders(network) == before
