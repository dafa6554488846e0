"""One share to one node and back: what both ends promise each other, and what happens when one of them breaks it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import nacl.signing
import pytest

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from modules.settlement import leaves
from modules.settlement.documents import OrderLimit, Receipt, to_sign
from modules.settlement.trees import leaf_hash
from sds_node import transfers
from sds_node.client import get as getting
from sds_node.client import placing
from sds_node.client.session import Receipts, open_session
from sds_node.client.transfer import NodeFailed, NodeLied, Place, ShareToGet, ShareToPut, get_share, last_receipts, put_share
from sds_node.client.transfer import Settings as Patience
from sds_node.documents import ShareManifest, SignedDocument, StoreAck, signed
from sds_node.merkle import LEAF_BYTES, leaf_count, leaf_proved, segment_path, segment_root, share_root
from sds_node.resource import service as module
from sds_node.resource import store as shares
from sds_node.resource.receipts import ReceiptsUnusable
from sds_node.resource.service import Settings
from sds_node.resource.store.layout import path_in
from sds_node.resource.store.shares import Writer
from sds_node.schemes import TWO_OF_FIVE
from sds_node.transfers import Run, head_bytes, receive_record, record, runs_bytes, whole
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.errors import Busy, CallCancelled, InternalFailure, Refused, WireError
from sds_node.wire.limits import Limits
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream
from tests.sds_node.data.network import LIFE_S, Issuer, Network, Resource, content, leaf_by_leaf, liar, lone, network, node_key, raw_receipt, resource
from tests.sds_node.documenting import CHAIN_ID, NOW_S, Chain

MIB = 1 << 20
LEDGER = nacl.signing.SigningKey(b"\x77" * 32)
QUICK = Patience(stall_s=20.0, attempts=2)


def node_text(address: bytes) -> str:
    return bech32.encode(address, bech32.NODE)


def leaf_hash_of(data: bytes, index: int) -> bytes:
    return leaf_hash(data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES])


def run(test: Callable[[Network], Awaitable[None]], folder: Path, count: int = 1, settings: Settings | None = None, **more: Any) -> None:
    async def go() -> None:
        async with network(folder, count, settings, **more) as net:
            await test(net)

    asyncio.run(go())


async def stored(net: Network, data: bytes, node: int = 0) -> bytes:
    """Puts a share and returns its root."""
    place = net.issuer.for_share(net.nodes[node], share_root(data), len(data))
    await put_share(net.session, place, lone(data), data, QUICK)
    return share_root(data)


def asked(data: bytes) -> ShareToGet:
    return ShareToGet(lone(data).segment_root, 0, 1, len(data))


async def fetched(issuer: Issuer, place: Place, data: bytes, *runs: Run) -> bytes:
    wanted = runs or (whole(len(data)),)
    into = memoryview(bytearray(runs_bytes(wanted, len(data))))
    await get_share(issuer.session, place, asked(data), wanted, into, None, QUICK)
    await last_receipts(issuer.caller, 5.0)
    return bytes(into)


def assert_payable(node: Resource, *noz: int, now_s: int = NOW_S) -> None:
    """The node's receipts pay exactly this, by the chain's own rules."""
    found = node.leaves(now_s)
    assert [leaf.noz for leaf in found] == list(noz)
    assert [leaves.fault(leaf, CHAIN_ID, Chain().ledger_key) for leaf in found] == [None] * len(found)


async def code_of(call: Awaitable[Any]) -> int | None:
    with pytest.raises(NodeFailed) as caught:
        await call
    return caught.value.code


# --- honest ends ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 3])
def test_a_share_comes_back_as_it_went_in_and_both_ways_are_paid(tmp_path: Path, size: int) -> None:
    async def test(net: Network) -> None:
        data = content(size, size)
        root = await stored(net, data)
        assert await fetched(net.issuer, net.issuer.to_read(net.nodes[0], root, size), data) == data
        assert_payable(net.nodes[0], max(1, size // 2), size)

    run(test, tmp_path)


def test_the_largest_share_passes_through_windows_many_times(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = bytes(32 * MIB)
        root = await stored(net, data)
        assert await fetched(net.issuer, net.issuer.to_read(net.nodes[0], root, len(data)), data) == data
        assert_payable(net.nodes[0], 16 * MIB, 32 * MIB)

    run(test, tmp_path)


def test_a_node_that_gives_no_more_than_a_mebibyte_ahead_is_read(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(26, 3 * MIB)
        root = await stored(net, data)
        assert await fetched(net.issuer, net.issuer.to_read(net.nodes[0], root, len(data)), data) == data

    run(test, tmp_path, settings=Settings(threads=2, stream_window_bytes=MIB))


def test_gets_that_are_not_confirmed_yet_do_not_fill_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(net: Network) -> None:
        data, service = content(27, 50_000), net.nodes[0].service
        root = await stored(net, data)
        honest = service._finish

        async def slow(*given: Any) -> None:
            await asyncio.sleep(0.05)
            await honest(*given)

        monkeypatch.setattr(service, "_finish", slow)

        async def caller() -> None:
            for _ in range(4):
                into = memoryview(bytearray(len(data)))
                await get_share(net.session, net.issuer.to_read(net.nodes[0], root, len(data)), asked(data), [whole(len(data))], into)
                assert into == data

        await asyncio.gather(*(caller() for _ in range(64)))
        await last_receipts(net.issuer.caller, 20.0)
        assert len(net.nodes[0].leaves(NOW_S)) == 1 + 4 * 64

    run(test, tmp_path)


def test_runs_of_leaves_come_without_the_others_and_only_they_are_paid(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(3, 10 * LEAF_BYTES + 5)
        root = await stored(net, data)
        runs = Run(0, 1), Run(3, 4), Run(10, 1)
        size = runs_bytes(runs, len(data))
        assert size == 5 * LEAF_BYTES + 5
        found = await fetched(net.issuer, net.issuer.to_read(net.nodes[0], root, size), data, *runs)
        assert found == data[:LEAF_BYTES] + data[3 * LEAF_BYTES : 7 * LEAF_BYTES] + data[10 * LEAF_BYTES :]
        assert_payable(net.nodes[0], len(data) // 2, size)

    run(test, tmp_path)


def test_a_share_that_two_segments_have_in_common_is_proved_for_each(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(23, 40_000), net.nodes[0]
        root = share_root(data)
        wanted = []
        for other in (b"1" * 32, b"2" * 32):
            roots = [root, other, root, other, other]
            share = ShareToPut(b"o" * 32, 0, 80_000, 0, TWO_OF_FIVE, root, segment_root(roots), segment_path(roots, 0))
            place = net.issuer.for_share(node, root, len(data))
            await put_share(net.session, place, share, data, QUICK)
            wanted.append(ShareToGet(share.segment_root, 0, 5, len(data)))
        for share_to_get in wanted:
            into = memoryview(bytearray(len(data)))
            place = net.issuer.to_read(node, root, len(data))
            await get_share(net.session, place, share_to_get, [whole(len(data))], into, None, QUICK)
            assert bytes(into) == data

    run(test, tmp_path)


def test_many_transfers_of_one_session_run_side_by_side(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        many = [content(number, 200_000 + number) for number in range(12)]
        roots = await asyncio.gather(*(stored(net, data) for data in many))
        places = [net.issuer.to_read(net.nodes[0], root, len(data)) for root, data in zip(roots, many, strict=True)]
        assert list(await asyncio.gather(*(fetched(net.issuer, place, data) for place, data in zip(places, many, strict=True)))) == many

    run(test, tmp_path)


def test_an_acknowledgement_that_was_lost_is_given_again(tmp_path: Path) -> None:
    def change(handlers: dict[str, Handler]) -> None:
        honest = handlers[transfers.PUT]
        seen: list[bytes] = []

        async def put(stream: Stream, connection: Connection) -> None:
            if not seen:
                seen.append(stream.head)
                send, stream.send = stream.send, lose  # type: ignore[method-assign]
                await honest(stream, connection)
                stream.send = send  # type: ignore[method-assign]
                connection.close("broken")
                return
            await honest(stream, connection)

        async def lose(data: Any) -> None:
            pass

        handlers[transfers.PUT] = put

    async def test(net: Network) -> None:
        data = content(1, 50_000)
        root = await stored(net, data)
        assert net.nodes[0].store.has(root)
        assert_payable(net.nodes[0], 25_000)

    run(test, tmp_path, changes={1: change})


def cut_at(number: int, stream: Stream, connection: Connection, cuts: list[int]) -> None:
    """Have a node's connection lost at its ``number``-th send on a stream, and noted in ``cuts``."""
    send, count = stream.send, 0

    async def sent(data: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            cuts.append(number)
            connection.close("cut")
        await send(data)

    stream.send = sent  # type: ignore[method-assign]


def cutting(number: int, times: int, cuts: list[int]) -> Callable[[dict[str, Handler]], None]:
    """A node that loses the connection of a get at its ``number``-th send (0: before it has looked at its head), and so many of them."""

    async def get(stream: Stream, connection: Connection, honest: Handler) -> None:
        if len(cuts) < times:
            if not number:
                cuts.append(number)
                connection.close("cut")
                return
            cut_at(number, stream, connection, cuts)
        await honest(stream, connection)

    return liar(transfers.GET, get)


def test_a_get_whose_connection_is_lost_goes_on_under_the_same_limit(tmp_path: Path) -> None:
    broken: list[int] = []

    async def test(net: Network) -> None:
        data = content(2, 3 * MIB + 17)
        root = await stored(net, data)
        into = memoryview(bytearray(len(data)))
        place = net.issuer.to_read(net.nodes[0], root, len(data))
        await get_share(net.session, place, asked(data), [whole(len(data))], into, None, Patience(attempts=3))
        await last_receipts(net.issuer.caller, 5.0)
        assert broken
        assert bytes(into) == data
        assert_payable(net.nodes[0], len(data) // 2, len(data))
        assert await fetched(net.issuer, net.issuer.to_read(net.nodes[0], root, len(data)), data) == data

    run(test, tmp_path, changes={1: cutting(4, 2, broken)})


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_get_that_is_cut_before_anything_came_of_it_goes_on_with_the_same_node(tmp_path: Path, number: int, times: int) -> None:
    """Whether the node had its limit or not, had sent the reply only or bytes, too."""
    cuts: list[int] = []

    async def test(net: Network) -> None:
        data, node = content(43, 3 * MIB + 17), net.nodes[0]
        place = net.issuer.to_read(node, await stored(net, data), len(data))
        into = memoryview(bytearray(len(data)))
        await get_share(net.session, place, asked(data), [whole(len(data))], into, None, Patience(attempts=3))
        await last_receipts(net.issuer.caller, 5.0)
        assert cuts == [number] * times
        assert bytes(into) == data
        assert not any(one.missing for one in node.service._sessions.values())
        assert_payable(node, len(data) // 2, len(data))

    run(test, tmp_path, changes={1: cutting(number, times, cuts)})


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_receipt_of_nothing_goes_on_with_a_get_or_begins_it_and_no_limit_is_used_twice(tmp_path: Path, is_restarted: bool) -> None:
    async def test(net: Network) -> None:
        data, node = content(44, 50_000), net.nodes[0]
        root = await stored(net, data)
        place = net.issuer.to_read(node, root, len(data))
        receipts = Receipts(net.session, place.order_limit, root)
        assert len(await (await opened_get(net.issuer, place, len(data))).receive_exactly(len(data))) == len(data)
        if is_restarted:
            await node.close()
            net.nodes[0] = node = await resource(node.home, net.clock, 1, port=node.port)
        nothing = receipts.so_far()
        async with await gone_on(net.issuer, place, nothing, len(data)) as stream:
            assert await receive_record(stream, transfers.MAX_REPLY_BYTES)
            assert await stream.receive_exactly(len(data)) == data
            receipts.moved.leaves(0, b"".join(leaf_hash_of(data, index) for index in range(leaf_count(len(data)))), len(data))
            await stream.send(record(receipts.so_far(is_final=True).SerializeToString()))
            await stream.result()
        async with await gone_on(net.issuer, place, nothing, len(data)) as stream:
            assert await taken(stream) == (0, transfers.LIMIT_USED)
        # A limit that the node has never seen has to be one all the same.
        forged = net.issuer.to_read(node, root, len(data))
        receipt = Receipts(net.session, forged.order_limit, root).so_far()
        forged.order_limit.signature = bytes(64)
        async with await gone_on(net.issuer, forged, receipt, len(data)) as stream:
            assert await taken(stream) == (0, transfers.LIMIT_REFUSED)
        assert_payable(node, len(data) // 2, len(data))

    run(test, tmp_path)


def test_a_get_that_went_on_in_vain_owes_its_receipt_though_nothing_came(tmp_path: Path) -> None:
    calls: list[int] = []

    async def get(stream: Stream, connection: Connection, honest: Handler) -> None:
        calls.append(len(transfers.GetHead.FromString(stream.head).runs))
        if len(calls) == 1:
            cut_at(2, stream, connection, [])
        elif len(calls) == 2:
            raise Busy("something else has to be done here")
        await honest(stream, connection)

    async def test(net: Network) -> None:
        data, node = content(45, 50_000), net.nodes[0]
        place = net.issuer.to_read(node, await stored(net, data), len(data))
        with pytest.raises(NodeFailed, match="Busy"):
            await get_share(net.session, place, asked(data), [whole(len(data))], memoryview(bytearray(len(data))), None, QUICK)
        assert [len(one.missing) for one in node.service._sessions.values()] == [1]
        await last_receipts(net.issuer.caller, 20.0)
        assert calls == [1, 1, 0]
        assert not node.service._sessions

    run(test, tmp_path, changes={1: liar(transfers.GET, get)})


def test_a_share_that_is_proved_is_kept_whatever_the_node_says_then(tmp_path: Path) -> None:
    told: list[int] = []

    async def get(stream: Stream, connection: Connection, honest: Handler) -> None:
        send, most_bytes = stream.send, 3 * LEAF_BYTES

        async def sent(data: Any) -> None:
            nonlocal most_bytes
            await send(data)
            most_bytes -= len(data) if len(data) > LEAF_BYTES else 0
            if not most_bytes and not told:
                told.append(1)
                raise Busy("something else has to be done here")

        stream.send = sent  # type: ignore[method-assign]
        await honest(stream, connection)

    async def test(net: Network) -> None:
        data = content(26, 3 * LEAF_BYTES)
        root = await stored(net, data)
        assert await fetched(net.issuer, net.issuer.to_read(net.nodes[0], root, len(data)), data) == data
        assert told
        assert_payable(net.nodes[0], len(data) // 2, len(data))

    run(test, tmp_path, changes={1: liar(transfers.GET, get)})


def test_on_a_slow_line_receipts_are_signed_by_time_and_a_node_that_drips_is_given_up(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(27, MIB), net.nodes[0]
        root = await stored(net, data)
        noted: list[bytes] = []
        note = node.receipts.note
        with mock.patch.object(node.receipts, "note", lambda serial, given: (noted.append(serial), note(serial, given))):
            assert await fetched(net.issuer, net.issuer.to_read(node, root, len(data)), data) == data
            assert len(noted) == 1  # that of a whole MiB
            with mock.patch.object(getting, "RECEIPT_S", 0.2):
                assert await fetched(net.issuer, net.issuer.to_read(node, root, len(data)), data) == data
            assert len(noted) > 4
        with mock.patch.object(placing, "SLOW_TIMES", 0.02), pytest.raises(NodeFailed, match="nothing moved in time"):
            await fetched(net.issuer, net.issuer.to_read(node, root, len(data)), data)

    run(test, tmp_path, changes={1: leaf_by_leaf(0.05)})


def test_the_hashes_of_a_share_are_known_though_the_node_goes_after_its_last_receipt(tmp_path: Path) -> None:
    def change(handlers: dict[str, Handler]) -> None:
        honest = handlers[transfers.GET]

        async def get(stream: Stream, connection: Connection) -> None:
            await honest(stream, connection)  # the final receipt is here
            connection.close("broken")

        handlers[transfers.GET] = get

    async def test(net: Network) -> None:
        data = content(25, 2 * LEAF_BYTES)
        root = await stored(net, data)
        for node, runs in ((0, [Run(0, 1)]), (0, [Run(0, 2)])):
            into = memoryview(bytearray(runs_bytes(runs, len(data))))
            place = net.issuer.to_read(net.nodes[node], root, len(data))
            hashes = await get_share(net.session, place, asked(data), runs, into, None, Patience(attempts=1))
            await last_receipts(net.issuer.caller, 5.0)
            assert hashes == leaf_hash_of(data, 0) + leaf_hash_of(data, 1)

    run(test, tmp_path, changes={1: change})


def test_a_session_goes_on_with_a_serial_while_its_old_stream_still_waits(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(24, 3 * LEAF_BYTES), net.nodes[0]
        root = await stored(net, data)
        place = net.issuer.to_read(node, root, len(data))
        old = await opened_get(net.issuer, place, len(data))
        receipts = Receipts(net.session, place.order_limit, root)
        got = await old.receive_exactly(2 * LEAF_BYTES)
        for index in range(2):
            receipts.moved.leaves(index, leaf_hash_of(got, index), LEAF_BYTES)
        head = transfers.GetHead(evidence=net.session.evidence(place.order_limit, receipts.so_far()))
        head.runs.add(first=2, leaves=1)
        new = await place.peer.call(transfers.GET, head_bytes(head))
        assert await receive_record(new, transfers.MAX_REPLY_BYTES)
        assert got + await new.receive_exactly(LEAF_BYTES) == data
        receipts.moved.leaves(2, leaf_hash_of(data, 2), LEAF_BYTES)
        await new.send(record(receipts.so_far(is_final=True).SerializeToString()))
        await new.result()
        assert (await taken(old))[1] == CallCancelled.code
        assert_payable(node, len(data) // 2, len(data))

    run(test, tmp_path)


# --- nodes that lie ------------------------------------------------------------------------------------------------------------------


def sending(change: Callable[[int, bytes], bytes | None]) -> Callable[[Stream, Connection, Handler], Awaitable[None]]:
    """A handler whose sends are changed: ``change(number of the send, data)``; None sends nothing."""

    async def handler(stream: Stream, connection: Connection, honest: Handler) -> None:
        send, count = stream.send, 0

        async def changed(data: Any) -> None:
            nonlocal count
            made = change(count, bytes(data))
            count += 1
            if made is not None:
                await send(made)

        stream.send = changed  # type: ignore[method-assign]
        await honest(stream, connection)

    return handler


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def other_size(data: bytes) -> bytes:
    reply = transfers.GetReply.FromString(data[4:])
    reply.size_bytes += 1
    return record(reply.SerializeToString())


def other_hashes(data: bytes) -> bytes:
    reply = transfers.GetReply.FromString(data[4:])
    reply.leaf_hashes = flipped(reply.leaf_hashes, 40)
    return record(reply.SerializeToString())


@pytest.mark.parametrize(
    ("change", "text", "stall_s"),
    [
        (lambda count, data: flipped(data, 20_000) if count == 1 else data, "leaf 1 has another hash", 60.0),
        (lambda count, data: data[:-1] if count == 1 else data, "nothing moved in time", 0.5),
        (lambda count, data: other_size(data) if count == 0 else data, "expected a share of 50000 bytes, got one of 50001", 60.0),
        (lambda count, data: other_hashes(data) if count == 0 else data, "the hashes of the leaves lead to", 60.0),
        (lambda count, data: None if count == 0 else data, "record|GetReply|size", 60.0),
    ],
)
def test_a_node_that_serves_other_bytes_is_found_out_before_they_are_used(
    tmp_path: Path, change: Callable[[int, bytes], bytes | None], text: str, stall_s: float
) -> None:
    async def test(net: Network) -> None:
        data = content(4, 50_000)
        root = await stored(net, data)
        place = net.issuer.to_read(net.nodes[0], root, len(data))
        with pytest.raises(NodeFailed, match=text):
            await get_share(net.session, place, asked(data), [whole(len(data))], memoryview(bytearray(len(data))), None, Patience(stall_s=stall_s))

    run(test, tmp_path, changes={1: liar(transfers.GET, sending(change))})


def test_a_share_of_another_segment_is_not_taken_for_this_one(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, other = content(5, 40_000), content(6, 40_000)
        await stored(net, data)
        root = await stored(net, other)
        with pytest.raises(NodeLied, match="expected a path"):
            await fetched(net.issuer, net.issuer.to_read(net.nodes[0], root, len(data)), data)

    run(test, tmp_path)


@pytest.mark.parametrize("field", ["serial", "share_root", "size_bytes", "node", "signature"])
def test_an_acknowledgement_of_something_else_counts_for_nothing(tmp_path: Path, field: str) -> None:
    def change(count: int, data: bytes) -> bytes:
        document = SignedDocument.FromString(data[4:])
        ack = StoreAck.FromString(document.body)
        if field == "signature":
            document.signature = flipped(document.signature, 9)
        elif field == "size_bytes":
            ack.size_bytes += 1
        else:
            value = getattr(ack, field)
            setattr(ack, field, value[:-1] + ("q" if isinstance(value, str) else b"q"))
        if field != "signature":
            document = signed(ack, node_key(1))
        return record(document.SerializeToString())

    async def test(net: Network) -> None:
        with pytest.raises(NodeLied, match=r"acknowledges|has not signed"):
            await stored(net, content(7, 1_000))

    run(test, tmp_path, changes={1: liar(transfers.PUT, sending(change))})


def rot(path: Path, at: int = LEAF_BYTES + 5) -> None:
    path.write_bytes(flipped(path.read_bytes(), at))


def test_a_corrupt_share_is_told_and_never_served(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(8, 3 * LEAF_BYTES), net.nodes[0]
        root = await stored(net, data)
        (copy,) = node.store.copies(root)
        rot(Path(path_in(node.store.home, copy.key)))
        code = await code_of(fetched(net.issuer, net.issuer.to_read(node, root, len(data)), data))
        assert code == transfers.SHARE_DAMAGED
        assert [one.key for one in node.store.damaged()] == [copy.key]
        assert await code_of(fetched(net.issuer, net.issuer.to_read(node, root, len(data)), data)) == transfers.SHARE_DAMAGED
        assert os.listdir(node.store.home / "quarantine")

    run(test, tmp_path)


def test_a_node_that_stalls_is_given_up(tmp_path: Path) -> None:
    async def stall(stream: Stream, connection: Connection, honest: Handler) -> None:
        await connection.closed.wait()

    async def test(net: Network) -> None:
        data = content(9, 1_000)
        place = net.issuer.to_read(net.nodes[0], share_root(data), len(data))
        with pytest.raises(NodeFailed, match="nothing moved in time"):
            await get_share(net.session, place, asked(data), [whole(1_000)], memoryview(bytearray(1_000)), None, Patience(stall_s=0.05))

    run(test, tmp_path, changes={1: liar(transfers.GET, stall)})


# --- clients that lie ----------------------------------------------------------------------------------------------------------------


async def raw_put(
    issuer: Issuer, place: Place, data: bytes, receipt: bytes | None, announced: bytes | None = None, *, ended: bool = True, **manifest: Any
) -> None:
    """A put by hand: any bytes, any receipt. Raises what the node answers with."""
    async with await begun(issuer, place, announced if announced is not None else data, **manifest) as stream:
        await stream.send(data)
        if receipt is not None:
            await stream.send(receipt)
        if ended:
            stream.end()
        assert await receive_record(stream, transfers.MAX_ACK_BYTES)
        await stream.result()


async def begun(issuer: Issuer, place: Place, announced: bytes, **manifest: Any) -> Stream:
    """A put of which nothing but the head has gone out."""
    share = lone(announced)
    session, limit = issuer.session, place.limit
    fields = {
        "chain_id": CHAIN_ID,
        "wallet": session.wallet,
        "object_id": share.object_id,
        "segment_bytes": share.segment_bytes,
        "data_shares": 1,
        "total_shares": 1,
        "share_root": share.share_root,
        "size_bytes": share.segment_bytes,
        "serial": limit.serial,
    }
    document = signed(ShareManifest(**fields | manifest), session.key)
    head = transfers.PutHead(certificate=place.certificate, evidence=session.evidence(place.order_limit), segment_root=share.segment_root)
    head.manifest.body, head.manifest.signature, head.manifest.session_pubkey = document.body, document.signature, session.public_key
    return await place.peer.call(transfers.PUT, head_bytes(head))


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what a node does by itself."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def cut(issuer: Issuer, place: Place, node: Resource, data: bytes, sent: int) -> None:
    """A put that its client gives up after so many bytes, which the node has taken."""
    serial = bytes(place.limit.serial)
    async with await begun(issuer, place, data) as stream:
        await stream.send(data[:sent])
        await until(lambda: serial in node.service._active and bool(node.store.writers()))
        if sent == len(data):
            await until(lambda: serial in node.service._active and node.service._active[serial].is_due)
    await until(lambda: serial not in node.service._active)


async def refusal(call: Awaitable[Any]) -> int:
    with pytest.raises(WireError) as caught:
        await call
    return caught.value.code


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, None),
        ({"bytes_acked": 999}, transfers.RECEIPT_REFUSED),
        ({"is_final": False}, transfers.RECEIPT_REFUSED),
        ({"serial": b"x" * 16}, transfers.RECEIPT_REFUSED),
        ({"chunks_digest": b"x" * 32}, transfers.RECEIPT_REFUSED),
        ({"last_ms": (NOW_S + LIFE_S + 1) * 1000}, transfers.RECEIPT_REFUSED),
        ({"first_ms": 1}, transfers.RECEIPT_REFUSED),
        ({"chain_id": "other-1"}, transfers.RECEIPT_REFUSED),
        ({"bytes_acked": 1_001}, transfers.RECEIPT_REFUSED),
    ],
)
def test_a_put_is_kept_only_with_a_final_receipt_that_the_chain_pays(tmp_path: Path, fields: dict[str, Any], code: int | None) -> None:
    async def test(net: Network) -> None:
        data, node = content(10, 1_000), net.nodes[0]
        place = net.issuer.for_share(node, share_root(data), 1_000)
        receipt = raw_receipt(net.session, place, **{"bytes_acked": 1_000, "chunks_digest": share_root(data)} | fields)
        if code is None:
            await raw_put(net.issuer, place, data, receipt)
            assert_payable(node, 500)
        else:
            assert await refusal(raw_put(net.issuer, place, data, receipt)) == code
            assert not node.store.has(share_root(data))
            assert_payable(node, now_s=NOW_S + LIFE_S)

    run(test, tmp_path)


def test_a_put_without_a_receipt_by_another_key_or_of_other_bytes_is_refused(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(11, 1_000), net.nodes[0]
        root = share_root(data)
        issuers = [net.another_session() for _ in range(3)]
        places = [issuer.for_share(node, root, 1_000) for issuer in issuers]
        good = [raw_receipt(one.session, place, bytes_acked=1_000, chunks_digest=root) for one, place in zip(issuers, places, strict=True)]
        assert await refusal(raw_put(issuers[0], places[0], data, None)) == transfers.RECEIPT_REFUSED
        forged = raw_receipt(issuers[1].session, places[1], bytes_acked=1_000, chunks_digest=root, key=net.session.key)
        assert await refusal(raw_put(issuers[1], places[1], data, forged)) == transfers.RECEIPT_REFUSED
        assert await refusal(raw_put(issuers[2], places[2], flipped(data, 5), good[2], announced=data)) == transfers.SHARE_REFUSED
        assert not node.store.has(root)
        assert_payable(node, now_s=NOW_S + LIFE_S)

    run(test, tmp_path)


@pytest.mark.parametrize("sent", [0, 999])
def test_a_put_that_comes_too_slowly_or_ends_early_is_given_up(tmp_path: Path, sent: int) -> None:
    async def test(net: Network) -> None:
        data, node = content(22, 1_000), net.nodes[0]
        early, slow = (net.issuer.for_share(node, share_root(data), 1_000) for _ in range(2))
        assert await refusal(raw_put(net.issuer, early, data[:sent], None, announced=data)) == transfers.LIMIT_REFUSED
        assert await refusal(raw_put(net.issuer, slow, data[:sent], None, announced=data, ended=False)) == transfers.LIMIT_REFUSED
        assert node.store.writers() == []
        # Their session was there all the while: it owes them.
        assert [len(one.missing) for one in node.service._sessions.values()] == [2]

    run(test, tmp_path, settings=Settings(threads=2, mebibyte_s=0.1))


@pytest.mark.parametrize(
    ("manifest", "limit"),
    [
        ({"size_bytes": 999}, {}),
        ({"serial": b"y" * 16}, {}),
        ({"object_id": b"y" * 32}, {}),
        ({"share_root": b"y" * 32}, {}),
        ({"total_shares": 2}, {}),
        ({"segment_bytes": 1_001}, {}),
        ({"chain_id": "other-1"}, {}),
        ({}, {"max_bytes": 999}),
        ({}, {"share_root": b"y" * 32}),
        ({}, {"action": 1}),
        ({}, {"expires_s": NOW_S}),
        ({}, {"meta_node": "none"}),
        ({}, {"max_noz": 5}),
        ({}, {"session_pubkey": b"k" * 32}),
    ],
)
def test_a_put_that_its_limit_or_manifest_does_not_cover_is_refused_before_a_byte_is_kept(
    tmp_path: Path, manifest: dict[str, Any], limit: dict[str, Any]
) -> None:
    async def test(net: Network) -> None:
        data, node = content(12, 1_000), net.nodes[0]
        net.issuer.changes = limit
        place = net.issuer.place(node, net.issuer.limit(node.address, 2, 1_000, 500, share_root=share_root(data), object_root=b"o" * 32))
        receipt = raw_receipt(net.session, place, bytes_acked=1_000, chunks_digest=share_root(data))
        assert await refusal(raw_put(net.issuer, place, data, receipt, **manifest)) == transfers.LIMIT_REFUSED
        assert not node.store.has(share_root(data))
        assert node.store.writers() == []

    run(test, tmp_path)


@pytest.mark.parametrize("sent", [0, 30_000, 50_000])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_put_that_was_cut_is_done_under_its_limit_and_paid_once(tmp_path: Path, sent: int, is_restarted: bool) -> None:
    async def test(net: Network) -> None:
        data, node = content(30, 50_000), net.nodes[0]
        place = net.issuer.for_share(node, share_root(data), len(data))
        await cut(net.issuer, place, node, data, sent)
        assert node.store.writers() == []
        assert not node.store.has(share_root(data))
        if is_restarted:
            await node.close()
            net.nodes[0] = node = await resource(node.home, net.clock, 1, port=node.port)
        for _ in range(2):  # the second time it is acknowledged again
            await put_share(net.session, place, lone(data), data, QUICK)
            assert node.store.read(share_root(data)) == data
            assert_payable(node, 25_000)
            assert_payable(node, 25_000, now_s=NOW_S + LIFE_S)

    run(test, tmp_path)


def test_a_put_that_was_cut_begins_again_neither_after_its_limit_nor_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PUT_TRIES", 3)

    async def test(net: Network) -> None:
        data, node = content(31, 50_000), net.nodes[0]
        late, often = (net.issuer.for_share(node, share_root(data), len(data)) for _ in range(2))
        await cut(net.issuer, late, node, data, 30_000)
        for _ in range(3):
            await cut(net.issuer, often, node, data, 30_000)
        receipt = raw_receipt(net.session, often, bytes_acked=len(data), chunks_digest=share_root(data))
        assert await refusal(raw_put(net.issuer, often, data, receipt)) == transfers.LIMIT_USED
        net.clock.now_s += LIFE_S
        receipt = raw_receipt(net.session, late, bytes_acked=len(data), chunks_digest=share_root(data))
        assert await refusal(raw_put(net.issuer, late, data, receipt)) == transfers.LIMIT_REFUSED
        assert not node.store.has(share_root(data))

    run(test, tmp_path)


def test_a_put_on_another_connection_ends_the_one_before_and_no_stranger_does(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(32, 50_000), net.nodes[0]
        place, thief = net.issuer.for_share(node, share_root(data), len(data)), net.another_session()
        async with await begun(net.issuer, place, data) as first:
            await first.send(data[:30_000])
            await until(lambda: bool(node.store.writers()))
            # The same serial in a limit that the thief has written himself.
            forged = thief.limit(node.address, 2, len(data), 25_000, bytes(place.limit.serial), share_root=share_root(data), object_root=b"o" * 32)
            forged.signature = bytes(64)
            stolen = Place(thief.peer(node), place.node_key, forged, place.certificate)
            assert await refusal(raw_put(thief, stolen, data, None)) == transfers.LIMIT_USED
            assert not first.over
            await put_share(net.session, place, lone(data), data, QUICK)
            with pytest.raises(CallCancelled):
                await receive_record(first, transfers.MAX_ACK_BYTES)
        assert_payable(node, 25_000)

    run(test, tmp_path)


def test_a_share_whose_receipt_is_here_is_kept_and_paid_though_its_client_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(net: Network) -> None:
        data, node = content(33, 50_000), net.nodes[0]
        place = net.issuer.for_share(node, share_root(data), len(data))
        go, begins, finish = threading.Event(), threading.Event(), Writer.finish

        def slow(writer: Writer) -> Any:
            begins.set()
            assert go.wait(60)
            return finish(writer)

        monkeypatch.setattr(Writer, "finish", slow)
        try:
            async with await begun(net.issuer, place, data) as stream:
                await stream.send(data + raw_receipt(net.session, place, bytes_acked=len(data), chunks_digest=share_root(data)))
                assert await asyncio.to_thread(begins.wait, 60)
                task = node.service._active[bytes(place.limit.serial)].task
                assert task is not None
            await until(lambda: task.cancelling() > 0)
            task.cancel()  # once more: the session is back on another connection
        finally:
            go.set()
        await until(lambda: not node.service._active)
        assert node.store.read(share_root(data)) == data
        assert_payable(node, 25_000)
        assert not node.service._sessions

    run(test, tmp_path)


def test_a_copy_that_was_kept_before_its_receipt_is_stored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(net: Network) -> None:
        data, node = content(34, 50_000), net.nodes[0]
        place = net.issuer.for_share(node, share_root(data), len(data))
        failing: Future[None] = Future()
        failing.set_exception(ReceiptsUnusable("the disk refuses"))
        with monkeypatch.context() as patch:
            patch.setattr(node.receipts, "finish", lambda *_: failing)
            assert await code_of(put_share(net.session, place, lone(data), data, QUICK)) == InternalFailure.code
        assert node.store.has(share_root(data), bytes(place.limit.serial))
        await put_share(net.session, place, lone(data), data, QUICK)
        assert node.store.read(share_root(data)) == data
        assert_payable(node, 25_000)

    run(test, tmp_path)


def test_a_share_that_was_sent_and_did_not_arrive_is_sent_once_more(tmp_path: Path) -> None:
    calls: list[bool] = []

    def change(handlers: dict[str, Handler]) -> None:
        honest = handlers[transfers.PUT]

        async def put(stream: Stream, connection: Connection) -> None:
            calls.append(transfers.PutHead.FromString(stream.head).again)
            if len(calls) == 1:
                receive = stream.receive

                async def lost(most_bytes: int = MIB) -> memoryview:
                    await asyncio.sleep(0)
                    await until(lambda: stream.in_ended)
                    connection.close("broken")
                    return await receive(most_bytes)

                stream.receive = lost  # type: ignore[method-assign]
            await honest(stream, connection)

        handlers[transfers.PUT] = put

    async def test(net: Network) -> None:
        data = content(35, 50_000)
        assert net.nodes[0].store.has(await stored(net, data))
        assert calls == [False, True, False]
        assert_payable(net.nodes[0], 25_000)

    run(test, tmp_path, changes={1: change})


def test_a_limit_for_another_node_or_a_grant_that_the_wallet_did_not_sign_is_refused(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, (first, second) = content(13, 1_000), net.nodes
        root = share_root(data)
        elsewhere = net.issuer.place(second, net.issuer.limit(first.address, 2, 1_000, 500, share_root=root, object_root=b"o" * 32))
        assert await code_of(put_share(net.session, elsewhere, lone(data), data, QUICK)) == transfers.LIMIT_REFUSED
        net.session.grant.signature = flipped(net.session.grant.signature, 3)
        place = net.issuer.for_share(first, root, 1_000)
        assert await code_of(put_share(net.session, place, lone(data), data, QUICK)) == transfers.LIMIT_REFUSED

    run(test, tmp_path, 2)


def test_a_limit_works_once_and_for_its_own_session_alone(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(14, 1_000), net.nodes[0]
        root = await stored(net, data)
        place = net.issuer.to_read(node, root, 1_000)
        assert await fetched(net.issuer, place, data) == data
        assert await code_of(fetched(net.issuer, place, data)) == transfers.LIMIT_USED
        thief, fresh = net.another_session(), net.issuer.to_read(node, root, 1_000)
        stolen = Place(thief.peer(node), fresh.node_key, fresh.order_limit, fresh.certificate)
        assert await code_of(fetched(thief, stolen, data)) == transfers.LIMIT_REFUSED
        assert await fetched(net.issuer, fresh, data) == data

    run(test, tmp_path)


def test_two_limits_for_one_part_of_a_lease_are_kept_as_a_proof(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(15, 1_000), net.nodes[0]
        root = await stored(net, data)
        first, second = net.issuer.to_read(node, root, 1_000), net.issuer.to_read(node, root, 1_000, from_noz=600, to_noz=1_600)
        assert await fetched(net.issuer, first, data) == data
        assert await code_of(fetched(net.issuer, second, data)) == transfers.LIMIT_REFUSED
        ((one, other),) = await asyncio.to_thread(node.receipts.proofs)
        assert (one, other) == (first.order_limit, second.order_limit)

    run(test, tmp_path)


@pytest.mark.parametrize(
    "runs", [[(0, 9)], [(8, 1)], [(0, 0)], [(0, 2), (1, 1)], [(1, 1), (0, 1)], [(0, 1)] * 65, [(0, 8)], [(2**32 - 1, 2**32 - 1)]]
)
def test_requests_beyond_the_share_or_the_limit_are_refused(tmp_path: Path, runs: list[tuple[int, int]]) -> None:
    async def test(net: Network) -> None:
        data = content(16, 8 * LEAF_BYTES)
        root = await stored(net, data)
        place = net.issuer.to_read(net.nodes[0], root, 7 * LEAF_BYTES)
        head = transfers.GetHead(certificate=place.certificate, evidence=net.session.evidence(place.order_limit))
        for first, count in runs:
            head.runs.add(first=first, leaves=count)
        assert await refusal(place.peer.ask(transfers.GET, head_bytes(head))) == transfers.LIMIT_REFUSED

    run(test, tmp_path)


# --- bytes ahead of receipts, and what is owed ---------------------------------------------------------------------------------------


async def opened_get(issuer: Issuer, place: Place, size: int) -> Stream:
    """A get by hand of a whole share, without hashes; the reply is read."""
    head = transfers.GetHead(certificate=place.certificate, evidence=issuer.session.evidence(place.order_limit))
    head.runs.add(first=0, leaves=leaf_count(size))
    stream = await place.peer.call(transfers.GET, head_bytes(head))
    assert await receive_record(stream, transfers.MAX_REPLY_BYTES)
    return stream


async def gone_on(issuer: Issuer, place: Place, receipt: Any, size: int) -> Stream:
    """A get by hand of a whole share that goes on with a receipt."""
    head = transfers.GetHead(certificate=place.certificate, evidence=issuer.session.evidence(place.order_limit, receipt))
    head.runs.add(first=0, leaves=leaf_count(size))
    return await place.peer.call(transfers.GET, head_bytes(head))


async def taken(stream: Stream) -> tuple[int, int]:
    """Reads until the node says no more → how many bytes came, and the code that it ended with."""
    count = 0
    try:
        while chunk := await stream.receive():
            count += len(chunk)
    except WireError as error:
        return count, error.code
    return count, 0


async def without_receipt(issuer: Issuer, place: Place) -> None:
    """A share of 1,000 bytes is taken, and no receipt given."""
    stream = await opened_get(issuer, place, 1_000)
    assert await stream.receive_exactly(1_000)
    stream.end()
    assert await taken(stream) == (0, transfers.RECEIPT_REFUSED)


def test_without_receipts_a_stream_gets_four_mebibytes_and_no_more(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(17, 6 * MIB), net.nodes[0]
        root = await stored(net, data)
        stream = await opened_get(net.issuer, net.issuer.to_read(node, root, len(data)), len(data))
        assert await taken(stream) == (4 * MIB, transfers.RECEIPT_REFUSED)
        assert_payable(node, 3 * MIB, now_s=NOW_S + LIFE_S)

    run(test, tmp_path, settings=Settings(threads=2, receipt_s=0.3, sent_s=2.0))


@pytest.mark.parametrize("size", [MIB, 3 * MIB])
def test_a_reader_whose_line_is_slow_may_sign_as_late_as_what_it_signs_may_come(tmp_path: Path, size: int) -> None:
    """The node waits for its last receipt; and before, while it can send nothing more."""

    async def test(net: Network) -> None:
        data, node = content(46, size), net.nodes[0]
        root = await stored(net, data)
        place = net.issuer.to_read(node, root, size)
        stream, receipts = await opened_get(net.issuer, place, size), Receipts(net.session, place.order_limit, root)
        for _ in range(size // MIB):
            got = await stream.receive_exactly(MIB)
            await asyncio.sleep(0.5)
            await sign_next(stream, receipts, got, size)
        await stream.result()
        assert_payable(node, size // 2, size)

    run(test, tmp_path, settings=Settings(threads=2, receipt_s=0.1, sent_s=60.0, stream_window_bytes=MIB))


def test_a_reader_whose_line_is_slow_is_waited_for_after_each_receipt_until_everything_came(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(47, 2 * MIB), net.nodes[0]
        root = await stored(net, data)
        place = net.issuer.to_read(node, root, len(data))
        stream, receipts = await opened_get(net.issuer, place, len(data)), Receipts(net.session, place.order_limit, root)
        got = await stream.receive_exactly(len(data))
        await asyncio.sleep(0.3)
        await sign_next(stream, receipts, got[:MIB], len(data))
        await asyncio.sleep(3.3)  # into the second period
        await sign_next(stream, receipts, got[MIB:], len(data))
        await stream.result()
        assert_payable(node, MIB, len(data))

    run(test, tmp_path, settings=Settings(threads=2, receipt_s=0.1, sent_s=3.0))


def test_a_reader_that_has_acknowledged_everything_is_not_waited_for_as_if_something_were_on_its_way(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(48, MIB), net.nodes[0]
        root = await stored(net, data)
        place = net.issuer.to_read(node, root, len(data))
        stream, receipts = await opened_get(net.issuer, place, len(data)), Receipts(net.session, place.order_limit, root)
        got = await stream.receive_exactly(MIB)
        await asyncio.sleep(0.3)
        await sign_next(stream, receipts, got, 1 << 40)  # not the final one
        with pytest.raises(WireError, match=r"expected the final receipt.* within 0\.1 s, got 0"):
            await stream.result()

    run(test, tmp_path, settings=Settings(threads=2, receipt_s=0.1, sent_s=2.0))


async def sign_next(stream: Stream, receipts: Receipts, data: bytes, size: int) -> None:
    """Sign the next MiB of a get by hand: as final when so many bytes are there."""
    first = receipts.moved.bytes // LEAF_BYTES
    receipts.moved.leaves(first, b"".join(leaf_hash_of(data, index) for index in range(MIB // LEAF_BYTES)), MIB)
    await stream.send(record(receipts.so_far(is_final=receipts.moved.bytes == size).SerializeToString()))


def test_a_wallet_has_one_window_over_all_of_its_streams_until_its_limits_expire(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(18, 3 * MIB), net.nodes[0]
        root = await stored(net, data)
        others = [net.another_session() for _ in range(3)]
        counts = []
        for issuer in others:
            stream = await opened_get(issuer, issuer.to_read(node, root, len(data)), len(data))
            counts.append(await taken(stream))
        assert counts == [(3 * MIB, transfers.RECEIPT_REFUSED), (MIB, Busy.code), (0, Busy.code)]
        net.clock.now_s += LIFE_S
        node.service.settings = replace(node.service.settings, receipt_s=60.0)
        fresh = net.another_session()
        place = fresh.to_read(node, root, len(data), created_s=NOW_S + LIFE_S, expires_s=NOW_S + 2 * LIFE_S)
        assert await fetched(fresh, place, data) == data

    run(test, tmp_path, settings=Settings(threads=2, receipt_s=0.3, sent_s=1.0, stream_window_bytes=3 * MIB, wallet_window_bytes=4 * MIB))


@pytest.mark.parametrize("kind", ["smaller", "more than came", "other digest", "other serial", "within a leaf"])
def test_a_wrong_receipt_ends_the_stream_and_the_last_good_one_is_paid(tmp_path: Path, kind: str) -> None:
    async def test(net: Network) -> None:
        data, node = content(19, 2 * MIB), net.nodes[0]
        root = await stored(net, data)
        place = net.issuer.to_read(node, root, len(data))
        stream = await opened_get(net.issuer, place, len(data))
        ledger = Receipts(net.session, place.order_limit, root)
        got = await stream.receive_exactly(3 * LEAF_BYTES)
        for index in range(3):
            ledger.moved.leaves(index, leaf_hash_of(got, index), LEAF_BYTES)
        good = ledger.so_far()
        await stream.send(record(good.SerializeToString()))
        fields = {"sequence": 2, "bytes_acked": 3 * LEAF_BYTES, "chunks_digest": ledger.moved.digest, "is_final": False}
        wrong: dict[str, dict[str, Any]] = {
            "smaller": {"bytes_acked": 2 * LEAF_BYTES},
            "more than came": {"bytes_acked": 2 * MIB + 1},
            "other digest": {"chunks_digest": b"e" * 32},
            "other serial": {"serial": b"q" * 16},
            "within a leaf": {"bytes_acked": 3 * LEAF_BYTES + 1},
        }
        await stream.send(raw_receipt(net.session, place, **fields | wrong[kind]))
        count, code = await taken(stream)
        assert count <= 2 * MIB
        assert code == transfers.RECEIPT_REFUSED
        assert_payable(node, MIB, 3 * LEAF_BYTES, now_s=NOW_S + LIFE_S)

    run(test, tmp_path)


def test_final_receipts_that_are_missing_keep_a_session_out_and_close_it_when_they_expire(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(20, 1_000), net.nodes[0]
        root = await stored(net, data)
        liar, places = net.another_session(), []
        for _ in range(3):
            places.append(liar.to_read(node, root, 1_000))
            await without_receipt(liar, places[-1])
        assert await code_of(fetched(liar, liar.to_read(node, root, 1_000), data)) == transfers.RECEIPTS_DUE
        # One is handed in: the next limit is taken.
        late = Receipts(liar.session, places[0].order_limit, root)
        late.moved.leaves(0, leaf_hash_of(data, 0), 1_000)
        head = transfers.GetHead(evidence=liar.session.evidence(places[0].order_limit, late.so_far(is_final=True)))
        await places[0].peer.ask(transfers.GET, head_bytes(head))
        await without_receipt(liar, liar.to_read(node, root, 1_000))
        net.clock.now_s += LIFE_S
        times = {"created_s": NOW_S + LIFE_S, "expires_s": NOW_S + LIFE_S + 10}
        assert await code_of(fetched(liar, liar.to_read(node, root, 1_000, **times), data)) == transfers.SESSION_CLOSED
        assert await asyncio.to_thread(node.receipts.closed_sessions, NOW_S) == [(liar.session.public_key, NOW_S + 3_600)]
        # Others are served as before.
        assert await fetched(net.issuer, net.issuer.to_read(node, root, 1_000, **times), data) == data

    run(test, tmp_path)


@pytest.mark.parametrize(
    ("why", "code", "then"),
    [
        ("busy", Busy.code, transfers.RECEIPTS_DUE),
        ("gone", transfers.SHARE_MISSING, transfers.RECEIPTS_DUE),
        ("rotten", transfers.SHARE_DAMAGED, None),
    ],
)
def test_what_is_owed_stays_owed_when_a_get_goes_on_in_vain_unless_by_a_fault_of_the_node(
    tmp_path: Path, why: str, code: int, then: int | None
) -> None:
    async def test(net: Network) -> None:
        data, other, node = content(49, 1_000), content(50, 1_000), net.nodes[0]
        root, _ = await stored(net, data), await stored(net, other)
        owing, filler, fills = net.another_session(), net.another_session(), list[Stream]()
        places = [owing.to_read(node, root, 1_000) for _ in range(3)]
        for place in places:
            await without_receipt(owing, place)
        (copy,) = node.store.copies(root)
        look = node.service._entry

        async def filled(serial: bytes) -> Any:
            # Meanwhile another session of the wallet has the last transfer that it may have.
            if why == "busy":
                fills.append(await opened_get(filler, filler.to_read(node, root, 1_000), 1_000))
            return await look(serial)

        if why == "gone":
            assert node.store.purge_if([copy], shares.State.PENDING)
        elif why == "rotten":
            rot(Path(path_in(node.store.home, copy.key)), 5)
        with mock.patch.object(node.service, "_entry", filled):
            nothing = Receipts(owing.session, places[0].order_limit, root).so_far()
            async with await gone_on(owing, places[0], nothing, 1_000) as stream:
                assert (await taken(stream))[1] == code
        for stream in fills:
            stream.cancel()
        await until(lambda: not node.service._active)
        assert len(node.service._sessions[owing.session.public_key].missing) == (3 if then else 2)
        fresh = owing.to_read(node, share_root(other), 1_000)
        if then is None:
            assert await fetched(owing, fresh, other) == other
            return
        assert await code_of(fetched(owing, fresh, other)) == then
        # Nor does a receipt of nothing help, under a limit that the node has never seen.
        nothing = Receipts(owing.session, fresh.order_limit, share_root(other)).so_far()
        async with await gone_on(owing, fresh, nothing, 1_000) as stream:
            assert await taken(stream) == (0, then)

    run(test, tmp_path, settings=Settings(threads=2, transfers_of_wallet=1))


@pytest.mark.parametrize("sent", [0, 30_000, 50_000])
def test_puts_that_their_client_cuts_owe_nothing(tmp_path: Path, sent: int) -> None:
    async def test(net: Network) -> None:
        data, node = content(36, 50_000), net.nodes[0]
        for _ in range(4):
            await cut(net.issuer, net.issuer.for_share(node, share_root(data), len(data)), node, data, sent)
        await stored(net, data)
        net.clock.now_s += LIFE_S
        times = {"created_s": NOW_S + LIFE_S, "expires_s": NOW_S + LIFE_S + 10}
        place = net.issuer.to_read(node, share_root(data), len(data), **times)
        assert await fetched(net.issuer, place, data) == data

    run(test, tmp_path)


def test_puts_without_their_final_receipt_are_owed_until_they_come_with_it(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node, places = content(37, 50_000), net.nodes[0], list[Place]()
        for _ in range(3):
            places.append(net.issuer.for_share(node, share_root(data), len(data)))
            assert await refusal(raw_put(net.issuer, places[-1], data, None)) == transfers.RECEIPT_REFUSED
        fresh = net.issuer.for_share(node, share_root(data), len(data))
        assert await code_of(put_share(net.session, fresh, lone(data), data, QUICK)) == transfers.RECEIPTS_DUE
        await cut(net.issuer, places[0], node, data, 30_000)  # that hands nothing in
        assert await code_of(put_share(net.session, fresh, lone(data), data, QUICK)) == transfers.RECEIPTS_DUE
        await put_share(net.session, places[0], lone(data), data, QUICK)
        await put_share(net.session, fresh, lone(data), data, QUICK)
        assert_payable(node, 25_000, 25_000)
        # Of the three two are owed for good.
        net.clock.now_s += LIFE_S
        node.service._thaw()
        assert [lapsed for lapsed, _ in node.service._lapsed.values()] == [2]

    run(test, tmp_path)


def test_a_put_over_a_slow_line_is_waited_for_longer_than_a_node_that_moves_nothing(tmp_path: Path) -> None:
    async def later(stream: Stream, connection: Connection, honest: Handler) -> None:
        await asyncio.sleep(0.6)
        await honest(stream, connection)

    async def test(net: Network) -> None:
        data = content(39, 50_000)
        place = net.issuer.for_share(net.nodes[0], share_root(data), len(data))
        await put_share(net.session, place, lone(data), data, Patience(stall_s=0.3))

    run(test, tmp_path, changes={1: liar(transfers.PUT, later)})


def test_puts_whose_network_is_gone_owe_nothing_and_go_on_when_it_is_back(tmp_path: Path) -> None:
    assert Settings().mebibyte_s > Limits().dead_s + Limits().sweep_s, "a silent connection is to be over before a share is given up"
    data = content(37, 3 * MIB)

    async def test(net: Network) -> None:
        node = net.nodes[0]
        node.server.node.limits = replace(node.server.node.limits, dead_s=0.5, keepalive_s=0.2)
        gone, over = asyncio.Event(), asyncio.Event()

        async def line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Carries the first MiB, and then nothing, though both ends stay open."""
            there = await asyncio.open_connection(node.host, port)
            back = asyncio.create_task(carry(there[0], writer))
            try:
                await carry(reader, there[1], MIB)
                gone.set()
                back.cancel()
                await over.wait()
            finally:
                back.cancel()
                writer.close()
                there[1].close()

        port = node.port
        async with await asyncio.start_server(line, node.host, 0) as server:
            node.port = server.sockets[0].getsockname()[1]
            places = [net.issuer.for_share(node, share_root(data), len(data)) for _ in range(4)]
            puts = [asyncio.create_task(put_share(net.session, place, lone(data), data, QUICK)) for place in places]
            async with asyncio.timeout(20):
                await gone.wait()
                while node.service._active:  # noqa: ASYNC110 - a node has no event for it
                    await asyncio.sleep(0.02)
            over.set()
            assert [type(one) for one in await asyncio.gather(*puts, return_exceptions=True)] == [NodeFailed] * len(puts)
        assert not any(one.missing for one in node.service._sessions.values())
        node.port = port
        net.issuer.peers.clear()
        for place in places:
            await put_share(net.session, net.issuer.place(node, place.order_limit), lone(data), data, QUICK)
        assert_payable(node, *[len(data) // 2] * 4)

    run(test, tmp_path, settings=Settings(threads=2, mebibyte_s=10.0))


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most_bytes: int = 1 << 40) -> None:
    while most_bytes > 0 and (data := await reader.read(min(most_bytes, 1 << 16))):
        most_bytes -= len(data)
        writer.write(data)
        await writer.drain()


async def lost_three_gets(net: Network, data: bytes) -> bytes:
    """Store a share and read it three times in vain; returns its root."""
    root = await stored(net, data)
    for _ in range(3):
        into, place = memoryview(bytearray(len(data))), net.issuer.to_read(net.nodes[0], root, len(data))
        with pytest.raises(NodeFailed):
            await get_share(net.session, place, asked(data), [whole(len(data))], into, None, Patience(attempts=1))
    return root


@pytest.mark.parametrize("fails", [lambda connection: connection.close("cut"), lambda connection: 1 // 0])
def test_gets_that_lost_their_network_hand_their_receipts_in_when_the_node_is_there_again(
    tmp_path: Path, fails: Callable[[Connection], None]
) -> None:
    cuts: list[int] = []

    async def get(stream: Stream, connection: Connection, honest: Handler) -> None:
        if len(cuts) == 3:
            # The first that hands something in.
            cuts.append(0)
            fails(connection)
        elif len(cuts) < 3:
            cut_at(3, stream, connection, cuts)
        await honest(stream, connection)

    async def test(net: Network) -> None:
        data, node = content(38, 3 * MIB), net.nodes[0]
        root = await lost_three_gets(net, data)
        assert len(cuts) == 3
        # Another client of the session, as a put that goes on is one, ends: these are not its.
        other = net.another_client()
        await last_receipts(other, 1.0)
        await last_receipts(net.issuer.caller, 20.0)
        assert len(cuts) > 3
        assert not any(one.missing for one in node.service._sessions.values())
        assert await fetched(net.issuer, net.issuer.to_read(node, root, len(data)), data) == data

    with mock.patch.object(getting, "OWED_PAUSE_S", 0.05):
        run(test, tmp_path, changes={1: liar(transfers.GET, get)})


def test_a_get_on_a_line_that_is_there_again_waits_until_what_is_owed_was_handed_in(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(39, 3 * MIB)
        root = await lost_three_gets(net, data)
        assert await fetched(net.issuer, net.issuer.to_read(net.nodes[0], root, len(data)), data) == data

    with mock.patch.object(getting, "OWED_PAUSE_S", 3_600.0):
        run(test, tmp_path, changes={1: cutting(3, 3, [])})


def test_what_is_owed_under_a_limit_that_is_over_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(42, 1_000), net.nodes[0]
        place = net.issuer.to_read(node, await stored(net, data), len(data))
        net.clock.now_s += LIFE_S
        async with getting._line(place) as line:
            line.owe(getting._Debt(net.session, place, Receipts(net.session, place.order_limit, share_root(data)), True))
            await asyncio.sleep(0)
            assert line._trying
            await last_receipts(net.issuer.caller, 5.0)
            assert not line._trying

    run(test, tmp_path)


@pytest.mark.parametrize("is_full", [False, True])
def test_a_receipt_whose_handing_in_failed_here_is_taken_the_next_time(tmp_path: Path, is_full: bool) -> None:
    cuts: list[int] = []
    failed: list[bytes] = []

    async def test(net: Network) -> None:
        data, node = content(40, 3 * MIB), net.nodes[0]
        look, finish = node.service._entry, node.receipts.finish

        async def lost(serial: bytes) -> Any:
            if serial not in failed and not is_full:
                failed.append(serial)
                for link in list(node.server.node.links):
                    link.abort()
                await asyncio.sleep(3_600)
            return await look(serial)

        def full(serial: bytes, given: Any) -> Future[None]:
            if serial in failed or not is_full or len(cuts) < 3:
                return finish(serial, given)
            failed.append(serial)
            future: Future[None] = Future()
            future.set_exception(ReceiptsUnusable("the disk is full"))
            return future

        with mock.patch.object(node.service, "_entry", lost), mock.patch.object(node.receipts, "finish", full):
            root = await lost_three_gets(net, data)
            await last_receipts(net.issuer.caller, 20.0)
        assert failed
        assert not node.service._sessions
        assert not node.service._lapsed
        assert await fetched(net.issuer, net.issuer.to_read(node, root, len(data)), data) == data

    with mock.patch.object(getting, "OWED_PAUSE_S", 0.05):
        run(test, tmp_path, changes={1: cutting(3, 3, cuts)})


def test_a_final_receipt_is_here_though_its_connection_is_lost_while_it_is_written(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(41, 3 * LEAF_BYTES), net.nodes[0]
        root = await stored(net, data)
        finish = node.receipts.finish

        def slow(serial: bytes, given: Any) -> Future[None]:
            late: Future[None] = Future()
            finish(serial, given).add_done_callback(lambda done: threading.Timer(0.2, late.set_result, [done.result()]).start())
            for link in list(node.server.node.links):
                link.abort()
            return late

        place = net.issuer.to_read(node, root, len(data))
        with mock.patch.object(node.receipts, "finish", slow):
            assert await fetched(net.issuer, place, data) == data
        assert not node.service._sessions  # it owes nothing
        assert_payable(node, len(data) // 2, len(data))
        # Handed in once more it is as good; another one is none.
        entry = await node.service._entry(bytes(place.limit.serial))
        assert entry is not None
        receipts = Receipts(net.session, place.order_limit, root)
        receipts.moved.leaves(0, b"".join(leaf_hash_of(data, index) for index in range(3)), len(data))
        receipts.so_far()
        for given, code in ((entry.evidence.receipt, 0), (receipts.so_far(is_final=True), transfers.LIMIT_USED)):
            head = transfers.GetHead(certificate=place.certificate, evidence=net.session.evidence(place.order_limit, given))
            async with await place.peer.call(transfers.GET, head_bytes(head), ended=True) as stream:
                assert await taken(stream) == (0, code)
        assert not node.service._sessions
        assert not node.service._frozen

    run(test, tmp_path)


def test_a_final_receipt_that_came_too_late_is_handed_in_once_more(tmp_path: Path) -> None:
    late: list[int] = []

    async def get(stream: Stream, connection: Connection, honest: Handler) -> None:
        receive = stream.receive

        async def waited(most_bytes: int = MIB) -> memoryview:
            if not late:
                late.append(1)
                await asyncio.sleep(3_600)
            return await receive(most_bytes)

        stream.receive = waited  # type: ignore[method-assign]
        await honest(stream, connection)

    async def test(net: Network) -> None:
        data, node = content(51, 50_000), net.nodes[0]
        assert await fetched(net.issuer, net.issuer.to_read(node, await stored(net, data), len(data)), data) == data
        assert late
        assert not node.service._sessions
        assert_payable(node, len(data) // 2, len(data))

    run(test, tmp_path, settings=Settings(threads=2, receipt_s=0.1, sent_s=1.0), changes={1: liar(transfers.GET, get)})


def test_a_get_that_is_given_up_twice_while_it_judges_pays_what_came(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node = content(52, MIB), net.nodes[0]
        place = net.issuer.to_read(node, await stored(net, data), len(data))
        judges, go, honest = asyncio.Event(), asyncio.Event(), getting.aside

        async def slow(size_bytes: int, work: Callable[..., Any], *given: object) -> Any:
            judges.set()
            await go.wait()
            return await honest(size_bytes, work, *given)

        with mock.patch.object(getting, "aside", slow):
            into = memoryview(bytearray(len(data)))
            task = asyncio.create_task(get_share(net.session, place, asked(data), [whole(len(data))], into, None, QUICK))
            await judges.wait()
            for _ in range(2):
                task.cancel()
                await asyncio.sleep(0.05)
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
        await last_receipts(net.issuer.caller, 5.0)
        assert not node.service._sessions
        assert_payable(node, len(data) // 2, len(data))

    run(test, tmp_path)


def test_a_final_receipt_that_its_client_fails_to_send_is_handed_in(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data, node, told = content(53, 50_000), net.nodes[0], list[str]()
        place = net.issuer.to_read(node, await stored(net, data), len(data))
        asyncio.get_running_loop().set_exception_handler(lambda _, said: told.append(repr(said.get("exception"))))

        async def failing(debt: Any, stream: Stream) -> None:
            stream.cancel()
            patch.stop()
            raise RuntimeError("another send waits on this stream")

        patch = mock.patch.object(getting._Debt, "confirmed", failing)
        patch.start()
        assert await fetched(net.issuer, place, data) == data
        assert not node.service._sessions
        assert_payable(node, len(data) // 2, len(data))

    run(test, tmp_path)


def test_a_closed_session_stays_closed_over_a_restart(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        node = await resource(tmp_path / "restarted", net.clock, 7)
        node.receipts.close_session(net.session.public_key, NOW_S + 60)
        await node.close()
        node = await resource(tmp_path / "restarted", net.clock, 7)
        try:
            assert await code_of(fetched(net.issuer, net.issuer.to_read(node, b"r" * 32, 10), b"data")) == transfers.SESSION_CLOSED
        finally:
            await node.close()

    run(test, tmp_path, 1)


# --- meta nodes ----------------------------------------------------------------------------------------------------------------------


class Metas(Chain):
    """A chain on which the caller's own key is that of an active meta node."""

    def __init__(self, address: bytes) -> None:
        super().__init__(gone={3, 4})  # of three meta nodes each one's word is enough
        self.address = address

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        return bytes(LEDGER.verify_key) if meta_node == self.address else super().ledger_key(meta_node)

    def active_meta_nodes(self) -> list[bytes]:
        return [*super().active_meta_nodes(), self.address]


def test_a_meta_node_gets_proofs_of_what_is_kept_and_lists_confirms_and_drops_it(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        meta = net.issuer.caller.address
        node = await resource(tmp_path / "audited", net.clock, 8, chain=Metas(meta))
        net.nodes.append(node)  # closed with the others
        data = content(21, 5 * LEAF_BYTES + 9)
        root, place = share_root(data), net.issuer.for_share(node, share_root(data), len(data))
        await put_share(net.session, place, lone(data), data, QUICK)
        serial, peer = bytes(place.limit.serial), net.issuer.peer(node)

        challenge = transfers.AuditChallenge(
            chain_id=CHAIN_ID, meta_node=node_text(meta), node=node.service.address, height=7, block_hash=b"b" * 32, due_s=NOW_S + 60
        )
        for one, index in ((serial, 2), (serial, 5), (serial, 6), (b"z" * 16, 0)):
            challenge.items.add(serial=one, share_root=root, leaf_index=index)
        body = transfers.audit_body(challenge)
        signature = bytes(LEDGER.sign(to_sign(transfers.AUDIT_DOMAIN, body)).signature)
        head = transfers.AuditHead(body=body, signature=signature)
        answer = transfers.AuditAnswer.FromString(await peer.ask(transfers.AUDIT, head_bytes(head), most_bytes=transfers.MAX_AUDIT_BYTES))
        assert answer.challenge_hash == sha256(body).digest()
        proved = [leaf_proved(root, one.leaf, index, 6, list(one.path)) for one, index in zip(answer.proofs, (2, 5, 6, 0), strict=True)]
        assert proved == [True, True, False, False]
        assert [bool(one.leaf) for one in answer.proofs] == [True, True, False, False]
        head.signature = flipped(signature, 1)
        assert await refusal(peer.ask(transfers.AUDIT, head_bytes(head))) == transfers.LIMIT_REFUSED
        net.clock.now_s += 61
        assert await refusal(peer.ask(transfers.AUDIT, head_bytes(transfers.AuditHead(body=body, signature=signature)))) == transfers.LIMIT_REFUSED

        async def listed() -> list[tuple[bytes, int]]:
            page = transfers.InventoryPage.FromString(await peer.ask(transfers.INVENTORY, head_bytes(transfers.InventoryHead(limit=1_000))))
            return [(copy.serial, copy.state) for copy in page.copies]

        assert await listed() == [(serial, 1)]
        both = transfers.CopyList(copies=[transfers.CopyKey(share_root=root, serial=one) for one in (serial, b"z" * 16)]).SerializeToString()
        missing = transfers.CopyList(copies=[transfers.CopyKey(share_root=root, serial=b"z" * 16)])
        for method, state in ((transfers.CONFIRM, 2), (transfers.DROP, 3), (transfers.RESTORE, 2)):
            assert transfers.CopyList.FromString(await peer.ask(method, b"", both)) == missing
            assert await listed() == [(serial, state)]
        report = transfers.NodeReport.FromString(await peer.ask(transfers.STATUS))
        assert (report.copies, report.kept_bytes, report.pending_receipts, report.damaged_copies) == (1, len(data), 1, 0)

    run(test, tmp_path)


def test_nobody_else_may_ask_what_meta_nodes_may(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        peer = net.issuer.peer(net.nodes[0])
        for method in (transfers.AUDIT, transfers.CONFIRM, transfers.DROP, transfers.RESTORE, transfers.INVENTORY, transfers.STATUS):
            assert await refusal(peer.ask(method)) == transfers.NOT_ALLOWED
        for method in (transfers.PUT, transfers.GET):
            assert await refusal(peer.ask(method)) == transfers.LIMIT_REFUSED
            assert await refusal(peer.ask(method, b"\xff" * 40)) == 3

    run(test, tmp_path)


def test_whoever_guesses_a_serial_stands_in_nobodys_way(tmp_path: Path) -> None:
    """A head that goes on with a transfer is looked up before it counts: its limit is anybody's word until then."""

    async def test(net: Network) -> None:
        data, node = content(61, 50_000), net.nodes[0]
        root = await stored(net, data)
        place = net.issuer.to_read(node, root, len(data))
        stranger = open_session(PrivateKey(b"\5" * 32, "eth_secp256k1"), CHAIN_ID, max_noz=1, actions=[1], clock=net.clock)
        caller = Node(stranger.identity, CHAIN_ID)
        net.callers.append(caller)
        peer = Peer(caller, node.address, [Direct(node.host, node.port)])
        limit = OrderLimit(serial=place.limit.serial, session_pubkey=stranger.public_key, action=leaves.GET, max_bytes=1, expires_s=NOW_S + 600)
        looked, may_end, find = asyncio.Event(), asyncio.Event(), node.service._entry

        async def slow(serial: bytes) -> Any:
            looked.set()
            await may_end.wait()
            return await find(serial)

        node.service._entry = slow  # type: ignore[method-assign]
        refusals = []
        for is_final in (False, True):
            looked.clear()
            may_end.clear()
            head = transfers.GetHead(runs=[] if is_final else [{"first": 0, "leaves": 1}])
            head.evidence.order_limit.body = encode(limit)
            head.evidence.receipt.body = encode(Receipt(chain_id=CHAIN_ID, serial=limit.serial, sequence=1, bytes_acked=1, is_final=is_final))

            async def squat(head: Any = head) -> None:
                async with await peer.call(transfers.GET, head_bytes(head), ended=True) as stream:
                    await stream.result()

            squatting = asyncio.create_task(squat())
            await looked.wait()
            assert stranger.public_key not in {one.session for one in node.service._active.values()}
            into = memoryview(bytearray(len(data)))
            if not is_final:
                await get_share(net.session, place, asked(data), [whole(len(data))], into, None, QUICK)
                assert into == data
            may_end.set()
            with pytest.raises(Refused) as caught:
                await squatting
            refusals.append(caught.value.code)
        assert refusals == [transfers.LIMIT_USED] * 2

    run(test, tmp_path)
