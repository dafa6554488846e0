"""What a resource node gives to those who pay little, late or nothing, and what one meta node alone may have it do."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import nacl.signing
import pytest

from modules.settlement.documents import Receipt
from sds_node import transfers
from sds_node.client.session import Receipts
from sds_node.client.transfer import put_share
from sds_node.documents import signed
from sds_node.merkle import LEAF_BYTES, share_root
from sds_node.resource import store as shares
from sds_node.resource.service import LEAST_BYTES, Settings, hands_in
from sds_node.resource.votes import VOTE_S, Votes
from sds_node.transfers import head_bytes, receive_record, record
from sds_node.wire.errors import Busy, CallCancelled, WireError
from sds_node.wire.identity import Identity
from sds_node.wire.limits import Limits
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream
from tests.sds_node.data.network import Issuer, Network, Resource, content, lone, resource
from tests.sds_node.data.test_shares_go_in_and_out import (
    MIB,
    QUICK,
    assert_payable,
    code_of,
    fetched,
    leaf_hash_of,
    opened_get,
    refusal,
    run,
    stored,
    taken,
)
from tests.sds_node.documenting import CHAIN_ID, NOW_S, Chain, meta_address
from tests.sds_node.wire.support import until


def test_neither_a_get_nor_a_put_below_the_price_moves_a_byte(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(1, 3 * MIB), net.nodes[0]
        root = await stored(net, data)
        cheap = {"share_root": root, "object_root": b"o" * 32}
        for noz in (1, len(data) - 1):
            assert await code_of(fetched(net.issuer, net.issuer.place(node, net.issuer.limit(node.address, 1, len(data), noz, **cheap)), data)) == (
                transfers.LIMIT_REFUSED
            )
        other = content(2, 50_000)
        for noz in (1, len(other) // 2 - 1):
            limit = net.issuer.limit(node.address, 2, len(other), noz, share_root=share_root(other), object_root=b"o" * 32)
            assert await code_of(put_share(net.session, net.issuer.place(node, limit), lone(other), other, QUICK)) == transfers.LIMIT_REFUSED
        assert not node.store.has(share_root(other))
        assert await fetched(net.issuer, net.issuer.to_read(node, root, len(data)), data) == data
        assert_payable(node, len(data) // 2, len(data))

    run(test, tmp_path)


# --- files that are being opened when nobody wants them any more ---------------------------------------------------------------------


def open_files() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


class Held:
    """A function of a store that waits in its thread until a test lets it go on."""

    def __init__(self, work: Any) -> None:
        self.work, self.entered, self.free = work, threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self.entered.set()
        self.free.wait()
        return self.work(*arguments)


async def cancelled(node: Resource) -> None:
    """Waits until the only transfer's handler has been told to stop."""
    (transfer,) = node.service._active.values()
    assert transfer.task is not None
    await until(transfer.task.cancelling)


async def cancelled_while_held(node: Resource, held: Held, stream: Stream) -> None:
    await asyncio.to_thread(held.entered.wait)
    stream.cancel()
    await cancelled(node)
    (transfer,) = node.service._active.values()
    held.free.set()
    await transfer.over.wait()
    await asyncio.sleep(0)


def test_a_get_that_is_cancelled_while_its_share_is_opened_leaves_no_file_open(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(3, 1_000), net.nodes[0]
        root = await stored(net, data)
        place = net.issuer.to_read(node, root, len(data))
        node.store.open_share = held = Held(node.store.open_share)  # type: ignore[method-assign,assignment]
        head = transfers.GetHead(certificate=place.certificate, evidence=net.session.evidence(place.order_limit))
        head.runs.add(first=0, leaves=1)
        await cancelled_while_held(node, held, await place.peer.call(transfers.GET, head_bytes(head)))
        assert [name for name in open_files() if name.startswith(str(node.store.home)) and root.hex()[:8] in name] == []
        assert await fetched(net.issuer, net.issuer.to_read(node, root, len(data)), data) == data

    run(test, tmp_path)


def test_a_put_that_is_cancelled_while_its_write_begins_leaves_no_file_and_no_room_taken(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(4, 1_000), net.nodes[0]
        place = net.issuer.for_share(node, share_root(data), len(data))
        node.store.begin = held = Held(node.store.begin)  # type: ignore[method-assign,assignment]
        task = asyncio.create_task(put_share(net.session, place, lone(data), data, QUICK))
        await asyncio.to_thread(held.entered.wait)
        (transfer,) = node.service._active.values()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cancelled(node)
        held.free.set()
        await transfer.over.wait()
        await asyncio.sleep(0)
        assert node.store.writers() == []
        assert [name for name in open_files() if name.startswith(str(node.store.home / "tmp"))] == []

    run(test, tmp_path)


# --- a restart while the chain does not answer ---------------------------------------------------------------------------------------


def test_what_was_taken_stays_taken_when_the_chain_does_not_answer_at_the_start(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        chain, data = Chain(), content(5, 1_000)
        node = await resource(tmp_path / "again", net.clock, 7, chain=chain)
        place = net.issuer.for_share(node, share_root(data), len(data))
        await put_share(net.session, place, lone(data), data, QUICK)
        await node.close()
        net.issuer.peers.clear()
        chain.metas = 0
        node = await resource(tmp_path / "again", net.clock, 7, chain=chain)
        try:
            chain.metas = 4
            used = place.limit
            overlapping = net.issuer.to_read(node, share_root(data), 500, from_noz=used.from_noz, to_noz=used.from_noz + 500)
            assert await code_of(fetched(net.issuer, overlapping, data)) == transfers.LIMIT_REFUSED
            assert len(await asyncio.to_thread(node.receipts.proofs)) == 1
        finally:
            await node.close()

    run(test, tmp_path)


# --- a part for each wallet ----------------------------------------------------------------------------------------------------------


def test_a_wallet_has_a_part_of_the_transfers_over_all_of_its_sessions(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(6, 1_000), net.nodes[0]
        root = await stored(net, data)
        streams = []
        for _ in range(3):
            other = net.another_session()
            streams.append((other, place := other.to_read(node, root, 1_000), await opened_get(other, place, 1_000)))
        fourth = net.another_session()
        place = fourth.to_read(node, root, 1_000)
        assert await code_of(fetched(fourth, place, data)) == Busy.code
        # A final receipt is taken all the same, and the limit that was refused is not used up.
        issuer, first, stream = streams[0]
        receipts = Receipts(issuer.session, first.order_limit, root)
        receipts.moved.leaves(0, leaf_hash_of(data, 0), 1_000)
        head = transfers.GetHead(evidence=issuer.session.evidence(first.order_limit, receipts.so_far(is_final=True)))
        await first.peer.ask(transfers.GET, head_bytes(head))
        assert (await taken(stream))[0] == 1_000
        assert await fetched(fourth, place, data) == data
        for _, _, stream in streams[1:]:
            stream.cancel()

    run(test, tmp_path, settings=Settings(threads=2, transfers_of_wallet=3))


@pytest.mark.parametrize("size", [MIB, 6 * MIB])
def test_a_get_that_is_acknowledged_a_leaf_at_a_time_ends(tmp_path: Path, size: int) -> None:
    """Each receipt comes before the time for one is over; together they are too few bytes."""

    async def test(net: Network) -> None:
        data, node = content(7, size), net.nodes[0]
        root = await stored(net, data)
        place = net.issuer.to_read(node, root, size)
        stream = await opened_get(net.issuer, place, size)
        receipts = Receipts(net.session, place.order_limit, root)
        assert len(await stream.receive_exactly(MIB)) == MIB
        reading = asyncio.create_task(taken(stream))
        for index in range(size // LEAF_BYTES):
            receipts.moved.leaves(index, leaf_hash_of(data, index), LEAF_BYTES)
            try:
                await stream.send(record(receipts.so_far().SerializeToString()))
            except WireError:
                break
            await asyncio.wait({reading}, timeout=0.3)
            if reading.done():
                break
        count, code = await reading
        assert (count, code) == (min(size, 4 * MIB) - MIB, transfers.RECEIPT_REFUSED)
        # Ended in two periods or so, long before everything was acknowledged.
        assert receipts.moved.bytes < 8 * LEAST_BYTES

    run(test, tmp_path, settings=Settings(threads=2, receipt_s=0.5, sent_s=1.0))


def test_a_peer_that_takes_nothing_of_what_it_asked_for_does_not_keep_the_transfer(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(8, 6 * MIB), net.nodes[0]
        root = await stored(net, data)
        # A window of 64 KiB that is never read from: nothing is ahead of receipts, the node just cannot send.
        place = net.issuer.to_read(node, root, len(data))
        narrow = Node(net.session.identity, CHAIN_ID, limits=Limits(stream_window_bytes=64 << 10))
        try:
            peer = Peer(narrow, node.address, [Direct(node.host, node.port)])
            head = transfers.GetHead(certificate=place.certificate, evidence=net.session.evidence(place.order_limit))
            head.runs.add(first=0, leaves=len(data) // LEAF_BYTES)
            stream = await peer.call(transfers.GET, head_bytes(head))
            assert await receive_record(stream, transfers.MAX_REPLY_BYTES)
            (transfer,) = node.service._active.values()
            await transfer.over.wait()
            assert (await taken(stream))[1] == CallCancelled.code
        finally:
            await narrow.close()

    run(test, tmp_path, settings=Settings(threads=2, sent_s=0.3))


# --- final receipts that do not pay --------------------------------------------------------------------------------------------------


async def ended_early(issuer: Issuer, node: Resource, root: bytes, data: bytes, leaves: int) -> int:
    """Takes what comes within the window, gives a final receipt for the first leaves → the code that the get ended with."""
    place = issuer.to_read(node, root, len(data))
    stream = await opened_get(issuer, place, len(data))
    await stream.receive_exactly(min(len(data), 4 * MIB))
    receipts = Receipts(issuer.session, place.order_limit, root)
    for index in range(leaves):
        receipts.moved.leaves(index, leaf_hash_of(data, index), LEAF_BYTES)
    await stream.send(record(receipts.so_far(is_final=True).SerializeToString()))
    return (await taken(stream))[1]


def test_final_receipts_that_pay_nothing_of_what_came_close_the_session(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(9, 4 * MIB), net.nodes[0]
        root = await stored(net, data)
        liar = net.another_session()
        codes = [await ended_early(liar, node, root, data, 0) for _ in range(5)]
        assert codes == [0] * 5
        assert await code_of(fetched(liar, liar.to_read(node, root, len(data)), data)) == transfers.SESSION_CLOSED
        assert await asyncio.to_thread(node.receipts.closed_sessions, NOW_S) == [(liar.session.public_key, NOW_S + 3_600)]
        assert await fetched(net.issuer, net.issuer.to_read(node, root, len(data)), data) == data

    run(test, tmp_path)


def test_a_session_that_ends_gets_early_now_and_then_stays_open(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(10, 4 * MIB), net.nodes[0]
        root = await stored(net, data)
        reader = net.another_session()
        for _ in range(8):
            assert await ended_early(reader, node, root, data, 128) == 0  # half of it
            assert await fetched(reader, reader.to_read(node, root, len(data)), data) == data
            assert await fetched(reader, reader.to_read(node, root, len(data)), data) == data

    run(test, tmp_path)


def test_only_a_final_receipt_without_runs_counts_as_handed_in() -> None:
    def head(is_final: bool, *, with_runs: bool = False, body: bytes | None = None) -> bytes:
        made = transfers.GetHead()
        made.evidence.receipt.CopyFrom(signed(Receipt(chain_id="c", sequence=1, is_final=is_final), nacl.signing.SigningKey.generate()))
        if body is not None:
            made.evidence.receipt.body = body
        if with_runs:
            made.runs.add(first=0, leaves=1)
        return bytes(made.SerializeToString())

    assert hands_in(transfers.GET, head(True))
    for method, other in (
        (transfers.PUT, head(True)),
        (transfers.GET, head(False)),
        (transfers.GET, head(True, with_runs=True)),
        (transfers.GET, head(True, body=b"\xff\xff")),
        (transfers.GET, b""),
        (transfers.GET, b"\xff" * 40),
    ):
        assert not hands_in(method, other)


# --- the word of one meta node -------------------------------------------------------------------------------------------------------


class Metas(Chain):
    """A chain whose active meta nodes are the given ones."""

    def __init__(self, addresses: list[bytes]) -> None:
        super().__init__()
        self.addresses = addresses

    def active_meta_nodes(self) -> list[bytes]:
        return [meta_address(1), meta_address(2), *self.addresses]


@pytest.mark.parametrize(("metas", "words"), [(1, 1), (2, 2)])
def test_a_confirmed_copy_goes_when_enough_meta_nodes_have_asked_for_it(tmp_path: Path, metas: int, words: int) -> None:
    """With 3 meta nodes one word is enough, with 4 it takes two."""

    async def test(net: Network) -> None:
        callers = [Node(Identity.ephemeral(), CHAIN_ID) for _ in range(metas)]
        net.callers.extend(callers)
        node = await resource(tmp_path / "metas", net.clock, 9, chain=Metas([caller.address for caller in callers]))
        net.nodes.append(node)
        data = content(11, 1_000)
        place = net.issuer.for_share(node, share_root(data), len(data))
        await put_share(net.session, place, lone(data), data, QUICK)
        key = share_root(data), bytes(place.limit.serial)
        asked = transfers.CopyList(copies=[transfers.CopyKey(share_root=key[0], serial=key[1])]).SerializeToString()
        peers = [Peer(caller, node.address, [Direct(node.host, node.port)]) for caller in callers]

        def state() -> shares.State:
            copy = node.store.index.get(key)
            assert copy is not None
            return copy.state

        await peers[0].ask(transfers.CONFIRM, b"", asked)
        for word in range(words):
            assert state() is shares.State.CONFIRMED
            for _ in range(2):  # the same one's word counts once
                assert transfers.CopyList.FromString(await peers[word].ask(transfers.DROP, b"", asked)) == transfers.CopyList()
                if word < words - 1:
                    assert state() is shares.State.CONFIRMED
        assert state() is shares.State.TRASH

    run(test, tmp_path)


def test_what_nobody_confirmed_goes_by_one_word_and_wrong_keys_are_refused(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        callers = [Node(Identity.ephemeral(), CHAIN_ID) for _ in range(2)]
        net.callers.extend(callers)
        node = await resource(tmp_path / "metas", net.clock, 9, chain=Metas([caller.address for caller in callers]))
        net.nodes.append(node)
        data = content(12, 1_000)
        place = net.issuer.for_share(node, share_root(data), len(data))
        await put_share(net.session, place, lone(data), data, QUICK)
        peer = Peer(callers[0], node.address, [Direct(node.host, node.port)])
        asked = transfers.CopyList(copies=[transfers.CopyKey(share_root=share_root(data), serial=place.limit.serial)])
        assert transfers.CopyList.FromString(await peer.ask(transfers.DROP, b"", asked.SerializeToString())) == transfers.CopyList()
        assert not node.store.has(share_root(data))
        asked.copies[0].serial = b"short"
        assert await refusal(peer.ask(transfers.DROP, b"", asked.SerializeToString())) == transfers.SHARE_REFUSED

    run(test, tmp_path)


def test_words_for_a_deletion_come_a_week_apart_and_are_forgotten_after_two_and_with_who_has_left() -> None:
    key, (a, b, c, d) = (b"r" * 32, b"s" * 16), (b"a", b"b", b"c", b"d")
    votes = Votes()
    assert votes.cast(a, [key], (a, b, c, d), 1_000) == []
    assert votes.cast(a, [key], (a, b, c, d), 1_000) == [], "one alone asks twice"
    assert votes.cast(b, [key], (a, b, c, d), 1_000 + 8 * 86_400) == [key]
    assert votes.cast(a, [key], (a, b, c, d), 1_000) == []
    assert votes.cast(b, [key], (a, b, c, d), 1_000 + VOTE_S + 1) == []
    assert votes.cast(a, [key], (a, b, c, d), 1_000 + VOTE_S + 2) == [key]
    assert votes.cast(a, [key], (a, b, c, d), 1_000 + VOTE_S + 3) == []  # it begins again
    assert votes.cast(b, [key], (b, c, d, b"e"), 1_000 + VOTE_S + 4) == []
    assert votes.cast(c, [key], (b, c, d, b"e"), 1_000 + VOTE_S + 5) == [key]


def test_one_meta_node_does_not_push_out_what_another_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.resource.votes.MAX_VOTES", 3)
    votes, active = Votes(), (b"a", b"b", b"c", b"d")
    keys = [(bytes([number]) * 32, bytes(16)) for number in range(9)]
    assert votes.cast(b"a", keys[:1], active, 5) == []
    assert votes.cast(b"b", keys[1:], active, 5) == []
    assert votes.cast(b"c", [keys[0], keys[1], keys[8]], active, 6) == [keys[0], keys[8]]
