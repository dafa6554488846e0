"""Whole objects over up to ten nodes and back, while some of them die, lie, stall or are full."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest

from modules.settlement import leaves
from sds_node import transfers
from sds_node.client import get as getting
from sds_node.client import put as putting
from sds_node.client.errors import LeaseGone, MetaUnreachable
from sds_node.client.transfer import (
    GetWanted,
    NodeFailed,
    NotReadable,
    NotStored,
    ObjectReader,
    ObjectToGet,
    Place,
    PutWanted,
    Settings,
    StoredObject,
    TransferFailed,
    WrongSource,
    put_object,
)
from sds_node.merkle import LEAF_BYTES, share_root
from sds_node.schemes import FIVE_OF_TEN, ONE_COPY, SEGMENT_BYTES, TEN_OF_THIRTY, THREE_REPLICAS, TWO_OF_FIVE, Scheme, share_bytes
from sds_node.transfers import Run
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.errors import Busy
from sds_node.wire.stream import Stream
from tests.sds_node.data.network import Network, content, leaf_by_leaf, liar, network, pieces_of, to_get
from tests.sds_node.documenting import CHAIN_ID, NOW_S, Chain

MIB = 1 << 20
PATIENT = Settings(stall_s=100.0, straggler_s=100.0, hedge_s=100.0)
Changes = dict[int, Callable[[dict[str, Handler]], None]]


def run(test: Callable[[Network], Awaitable[None]], folder: Path, count: int, changes: Changes | None = None) -> None:
    async def go() -> None:
        async with network(folder, count, changes=changes) as net:
            await test(net)

    asyncio.run(go())


async def put(net: Network, scheme: Scheme, data: bytes, settings: Settings = PATIENT) -> StoredObject:
    return await put_object(net.session, net.issuer, scheme, b"o" * 32, len(data), pieces_of(data), settings)


async def got(net: Network, wanted: ObjectToGet, offset: int = 0, length: int | None = None, settings: Settings = PATIENT) -> bytes:
    reader = ObjectReader(net.session, net.issuer, wanted, settings)
    return b"".join([bytes(piece) async for piece in reader.read(offset, length)])


def paid(net: Network, now_s: int = NOW_S) -> int:
    """The noz of all leaves of all nodes, each of which the chain would pay."""
    found = [leaf for node in net.nodes for leaf in node.leaves(now_s)]
    assert [leaves.fault(leaf, CHAIN_ID, Chain().ledger_key) for leaf in found] == [None] * len(found)
    return sum(leaf.noz for leaf in found)


async def paid_at_last(net: Network, noz: int) -> int:
    """``paid``, once it is so much: a node takes the last receipt of a get a moment after the client has the bytes."""
    for _ in range(3_000):
        if paid(net) >= noz:
            break
        await asyncio.sleep(0.01)
    return paid(net)


def cost(scheme: Scheme, size: int) -> int:
    """What a put and a get of one segment cost: half of each share, and the leaves that have the segment's own bytes."""
    share, read = share_bytes(scheme, size), 0
    for start in range(0, size, share):
        own = min(share, size - start)
        read += min(-(-own // LEAF_BYTES) * LEAF_BYTES, share)
    return scheme.n * max(1, share // 2) + read


@pytest.mark.parametrize("scheme", [ONE_COPY, THREE_REPLICAS, TWO_OF_FIVE, FIVE_OF_TEN], ids=lambda scheme: f"{scheme.k} of {scheme.n}")
def test_objects_of_every_size_come_back_as_they_went_in(tmp_path: Path, scheme: Scheme) -> None:
    async def test(net: Network) -> None:
        for size in (0, 1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, MIB - 1, MIB + 1):
            data, before = content(size, size), paid(net)
            stored = await put(net, scheme, data)
            assert all(len(one.acknowledged) == scheme.n for one in stored.segments)
            assert len(stored.segments) == (1 if size else 0)
            assert await got(net, to_get(stored)) == data
            noz = before + (cost(scheme, size) if size else 0)
            assert await paid_at_last(net, noz) == noz

    run(test, tmp_path, scheme.n)


def test_an_object_of_two_segments_comes_back_whole_and_in_ranges_over_their_border(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(1, MIB) * 32 + b"!"
        stored = await put(net, TWO_OF_FIVE, data)
        assert [one.segment_bytes for one in stored.segments] == [32 * MIB, 1]
        assert await got(net, to_get(stored)) == data
        before = await paid_at_last(net, sum(cost(TWO_OF_FIVE, size) for size in (32 * MIB, 1)))
        assert await got(net, to_get(stored), 32 * MIB - 5, 6) == data[-6:]
        # One leaf of the first segment's second share, and the share of 16 bytes.
        assert await paid_at_last(net, before + LEAF_BYTES + 16) == before + LEAF_BYTES + 16

    run(test, tmp_path, 5)


def test_ranges_read_their_leaves_and_nothing_more_though_a_holder_is_gone(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(2, 5 * 20 * LEAF_BYTES)
        wanted = to_get(await put(net, FIVE_OF_TEN, data))
        share = 20 * LEAF_BYTES
        reader = ObjectReader(net.session, net.issuer, wanted, PATIENT)
        before = await paid_at_last(net, 10 * share // 2)
        for offset, length, cost in ((7, 100, 1), (share - 1, 2, 2), (LEAF_BYTES, LEAF_BYTES, 1), (3 * share + 5, 2 * LEAF_BYTES, 3)):
            assert b"".join([bytes(piece) async for piece in reader.read(offset, length)]) == data[offset : offset + length]
            before += cost * LEAF_BYTES
            assert await paid_at_last(net, before) == before
        await net.nodes[1].close()
        before = paid_without(net, 1)
        assert b"".join([bytes(piece) async for piece in reader.read(share + 9, 50)]) == data[share + 9 : share + 59]
        for _ in range(3_000):
            if paid_without(net, 1) - before >= 5 * LEAF_BYTES:
                break
            await asyncio.sleep(0.01)
        assert paid_without(net, 1) - before == 5 * LEAF_BYTES
        assert b"".join([bytes(piece) async for piece in reader.read()]) == data
        with pytest.raises(TransferFailed, match="are not among them"):
            await got(net, wanted, len(data), 1)

    run(test, tmp_path, 10)


def paid_without(net: Network, gone: int) -> int:
    return sum(leaf.noz for number, node in enumerate(net.nodes) if number != gone for leaf in node.leaves())


# --- nodes that fail -------------------------------------------------------------------------------------------------------------------


async def _stall(stream: Stream, connection: Connection) -> None:
    await connection.closed.wait()


def stalling(*methods: str) -> Callable[[dict[str, Handler]], None]:
    return lambda handlers: handlers.update(dict.fromkeys(methods, _stall))


def corrupting(handlers: dict[str, Handler]) -> None:
    honest = handlers[transfers.GET]

    async def get(stream: Stream, connection: Connection) -> None:
        send, count = stream.send, 0

        async def changed(data: Any) -> None:
            nonlocal count
            count += 1
            await send(bytes(data) if count == 1 else bytes(reversed(bytes(data))))

        stream.send = changed  # type: ignore[method-assign]
        await honest(stream, connection)

    handlers[transfers.GET] = get


def test_a_put_is_confirmed_without_a_node_that_is_dead_and_not_before_enough_acknowledged(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(3, 600_000)
        await net.nodes[4].server.close()
        stored = await put(net, FIVE_OF_TEN, data)
        assert sorted(stored.segments[0].acknowledged) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
        assert set(stored.segments[0].failures) == {4}
        assert await got(net, to_get(stored)) == data
        await net.nodes[5].server.close()
        with pytest.raises(NotStored, match="segment 0 has 8 acknowledged shares and needs 9") as caught:
            await put(net, FIVE_OF_TEN, data)
        assert set(caught.value.failures) == {4, 5}

    run(test, tmp_path, 10)


def test_a_put_goes_to_another_node_when_one_refuses(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(4, 50_000)
        net.issuer.nodes, net.issuer.spare = net.nodes[:3], net.nodes[3:]
        await net.nodes[1].server.close()
        stored = await put(net, THREE_REPLICAS, data)
        assert sorted(stored.segments[0].acknowledged) == [0, 1, 2]
        assert stored.segments[0].acknowledged[1][0].peer.address == net.nodes[3].address
        assert await got(net, to_get(stored)) == data

    run(test, tmp_path, 4)


def test_a_node_that_stalls_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(5, 3 * MIB)
        quick = Settings(straggler_s=0.0, hedge_s=0.05)
        stored = await put(net, FIVE_OF_TEN, data, quick)
        assert 2 not in stored.segments[0].acknowledged
        assert await got(net, to_get(stored), settings=quick) == data

    run(test, tmp_path, 10, {3: stalling(transfers.PUT), 1: stalling(transfers.GET)})


def flow(begun_s: float, wanted_bytes: int, *heard_bytes: int, done_s: float | None = None) -> Any:
    """A share as it was looked at each 5 s from its beginning on; the last number is what has come by now."""
    found = getting._Flow(begun_s, wanted_bytes, heard_bytes[-1], done_s)
    found.looks.extend((begun_s + 5 * (at + 1), one) for at, one in enumerate(heard_bytes[:-1]))
    return found


SHARE = 32 * MIB // 5


@pytest.mark.parametrize(
    ("flows", "now_s", "known", "late"),
    [
        pytest.param([flow(0, SHARE, 2 * MIB)] * 5, 5, 0, set(), id="all come"),
        pytest.param([flow(0, SHARE, 0), *[flow(0, SHARE, 2 * MIB)] * 4], 5, 0, {0}, id="one has nothing, the others come"),
        pytest.param([flow(0, SHARE, MIB), *[flow(0, SHARE, 2 * MIB)] * 4], 5, 0, set(), id="one comes at half their pace"),
        pytest.param([flow(0, SHARE, MIB // 2), *[flow(0, SHARE, 2 * MIB)] * 4], 5, 0, {0}, id="one comes at a quarter of it"),
        pytest.param([flow(0, SHARE, 0), flow(5, SHARE, 0), *[flow(0, SHARE, 2 * MIB)] * 4], 6, 0, {0}, id="one more was just begun"),
        pytest.param([flow(0, SHARE, 2 * MIB)] * 4 + [flow(0, SHARE, SHARE, done_s=1)], 5, 0, set(), id="one was four times nearer"),
        pytest.param([flow(0, SHARE, SHARE, done_s=10)] * 4 + [flow(0, SHARE, MIB, 2 * MIB, 3 * MIB, 7 * MIB // 2)], 20, 0, set(), id="slowed down"),
        pytest.param([flow(0, SHARE, SHARE, done_s=10)] * 4 + [flow(0, SHARE, *[3 * MIB] * 4)], 20, 0, {4}, id="stopped, the others are done"),
        pytest.param(
            [flow(0, SHARE, *[3 * MIB] * 4), *[flow(0, SHARE, MIB, 2 * MIB, 3 * MIB, 4 * MIB)] * 4], 20, 0, {0}, id="stopped, the others go on"
        ),
        pytest.param([flow(0, 16_384, 16_384, done_s=1), flow(0, 2 * MIB, MIB)], 5, 0, set(), id="a leaf took a second, a MiB takes more"),
        pytest.param([flow(0, SHARE, 0)], 5, 0, {0}, id="the only one has nothing"),
        pytest.param([flow(0, SHARE, 700_000)], 5, 0, set(), id="the only one takes a minute"),
        pytest.param([flow(0, 16 * MIB, 100_000)], 5, 0, {0}, id="the only one takes a quarter of an hour"),
        pytest.param([flow(0, 32 * MIB, 2 * MIB)], 5, 400_000, set(), id="the only one is as fast as those before it"),
        pytest.param([flow(0, SHARE, MIB // 2)], 5, 400_000, {0}, id="the only one is slower than those before it"),
        pytest.param([flow(0, SHARE, 0), flow(5, SHARE, 0)], 10, 0, {0, 1}, id="two have nothing"),
        pytest.param([flow(0, SHARE, 0)] * 5, 4.9, 0, set(), id="not yet"),
        pytest.param([flow(0, SHARE, 400_000)] * 5, 5, 0, set(), id="a slow line"),
        pytest.param([flow(0, SHARE, 2 * MIB), *[flow(0, SHARE, 400_000)] * 4], 5, 0, set(), id="a slow line to all but one"),
        pytest.param([flow(0, SHARE, 0)] * 5, 10, 0, set(), id="nothing comes of any: the line, it seems"),
        pytest.param([flow(0, SHARE, 0, 0, 0)] * 5, 15, 0, {0, 1, 2, 3, 4}, id="nothing comes of any, for long"),
    ],
)
def test_what_is_behind_is_to_be_had_elsewhere_and_not_what_comes_over_a_slow_line(
    flows: list[Any], now_s: float, known: float, late: set[int]
) -> None:
    reader = Scripted()
    reader._settings, reader._pace = Settings(hedge_s=5.0), known
    needed = dict.fromkeys(range(min(len(flows), 5) if len(flows) > 2 else 1), Run(0, 400))
    reading = getting._Reading(0, 32 * MIB, SHARE, needed, getting._Progress(), flows=dict(enumerate(flows)))
    reading.running = {cast(Any, object()): at for at, one in enumerate(flows) if one.done_s is None}
    assert reader._late(reading, now_s) == late


@contextlib.contextmanager
def places_asked(net: Network) -> Iterator[list[int]]:
    """The shares for which a get asks for a place, in order."""
    asked, for_get = [], net.issuer.for_get

    async def noted(wanted: GetWanted) -> Place | None:
        asked.append(wanted.index)
        return await for_get(wanted)

    with mock.patch.object(net.issuer, "for_get", noted):
        yield asked


def test_a_small_range_asks_for_all_that_replace_what_is_late_at_once(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(45, 2 * MIB)
        stored = await put(net, FIVE_OF_TEN, data)
        with places_asked(net) as asked:
            assert await got(net, to_get(stored), 1_000, 500, settings=Settings(hedge_s=0.5)) == data[1_000:1_500]
        assert sorted(asked) == [0, 1, 2, 3, 4, 5]

    run(test, tmp_path, 10, {1: stalling(transfers.GET)})


def test_a_get_whose_shares_come_slowly_asks_for_no_more_of_them(tmp_path: Path) -> None:
    """Each takes several times as long as they are looked at."""

    async def test(net: Network) -> None:
        data = content(43, 2 * MIB)
        stored = await put(net, FIVE_OF_TEN, data)
        with places_asked(net) as asked:
            assert await got(net, to_get(stored), settings=Settings(hedge_s=1.5)) == data
        assert len(asked) == 5

    run(test, tmp_path, 10, dict.fromkeys(range(1, 11), leaf_by_leaf(0.2)))


def test_a_holder_too_many_that_has_no_place_ends_no_get(tmp_path: Path) -> None:
    held = asyncio.Event()
    refused: list[int] = []
    is_failing = False

    async def late(stream: Stream, connection: Connection, honest: Handler) -> None:
        await held.wait()
        if is_failing:
            raise Busy("not now")
        await honest(stream, connection)

    async def test(net: Network) -> None:
        nonlocal is_failing
        data = content(44, 300_000)
        stored = await put(net, FIVE_OF_TEN, data)
        for_get = net.issuer.for_get

        async def spent(wanted: GetWanted) -> Place | None:
            if wanted.index in denied:
                refused.append(wanted.index)
                held.set()
                raise LeaseGone("the lease has too few noz left for this")
            return await for_get(wanted)

        with mock.patch.object(net.issuer, "for_get", spent):
            denied = {5, 6, 7, 8, 9}
            assert await got(net, to_get(stored), settings=Settings(hedge_s=0.05)) == data
            assert refused == [5]
            # The late one fails in the end: another one takes its place, whatever became of the one too many.
            held.clear()
            is_failing, denied = True, {5}
            assert await got(net, to_get(stored), settings=Settings(hedge_s=0.05)) == data
            is_failing, denied = False, {5, 6, 7, 8, 9}
            # Asked for again when it is needed; and one that is needed and has no place ends it.
            held.clear()
            await net.nodes[1].server.close()
            with pytest.raises(LeaseGone, match="too few noz"):
                await got(net, to_get(stored), settings=Settings(hedge_s=0.05))
            held.set()
            denied = {3}
            with pytest.raises(LeaseGone, match="too few noz"):
                await got(net, to_get(stored))

    run(test, tmp_path, 10, {1: liar(transfers.GET, late)})


def test_wrong_shares_are_left_out_and_too_many_of_them_are_told(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(6, 300_000)
        stored = await put(net, TWO_OF_FIVE, data)
        assert await got(net, to_get(stored)) == data
        for number in (3, 4):
            await net.nodes[number].server.close()
        with pytest.raises(NotReadable, match="segment 0 needs 2 good shares") as caught:
            await got(net, to_get(stored))
        assert set(caught.value.failures) == {0, 1, 3, 4}
        assert "has another hash" in caught.value.failures[0]

    run(test, tmp_path, 5, {1: corrupting, 2: corrupting})


def test_a_share_that_nobody_holds_is_computed_from_others(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        data = content(7, 400_000)
        stored = await put(net, FIVE_OF_TEN, data)
        for index in (0, 2, 3):
            del net.issuer.roots[0, index]
        assert await got(net, to_get(stored)) == data
        assert await got(net, to_get(stored), 170_000, 90_000) == data[170_000:260_000]

    run(test, tmp_path, 10)


# --- callers and issuers that are wrong ------------------------------------------------------------------------------------------------


def test_a_stream_of_another_length_is_refused(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        for said in (999, 1_001):
            with pytest.raises(WrongSource, match="say its right length"):
                await put_object(net.session, net.issuer, ONE_COPY, b"o" * 32, said, pieces_of(content(8, 1_000)), PATIENT)

    run(test, tmp_path, 1)


def test_an_object_with_other_segments_is_not_begun(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        stored = await put(net, ONE_COPY, content(9, 1_000))
        wanted = to_get(stored)
        for wrong in (
            ObjectToGet(b"x" * 32, 1_000, ONE_COPY, wanted.segment_roots),
            ObjectToGet(wanted.root, 1_000, ONE_COPY, ()),
            ObjectToGet(wanted.root, 1_000, ONE_COPY, (b"s" * 32,)),
        ):
            with pytest.raises(TransferFailed, match="segment roots of object"):
                ObjectReader(net.session, net.issuer, wrong)
        longer = ObjectReader(net.session, net.issuer, ObjectToGet(wanted.root, 1_001, ONE_COPY, wanted.segment_roots), PATIENT)
        with pytest.raises(NotReadable, match="expected a share of 1001 bytes, got one of 1000"):
            [piece async for piece in longer.read()]

    run(test, tmp_path, 1)


class Deaf:
    """An issuer that fails."""

    async def for_put(self, wanted: PutWanted) -> Sequence[Place]:
        raise TransferFailed("the meta node is not there")

    async def another(self, wanted: PutWanted, index: int, tried: Collection[bytes]) -> Place | None:
        return None

    async def for_get(self, wanted: GetWanted) -> Place | None:
        raise TransferFailed("the meta node is not there")


def test_what_the_issuer_raises_reaches_the_caller(tmp_path: Path) -> None:
    async def test(net: Network) -> None:
        with pytest.raises(TransferFailed, match="meta node is not there"):
            await put_object(net.session, Deaf(), ONE_COPY, b"o" * 32, 10, pieces_of(b"0123456789"), PATIENT)
        stored = await put(net, ONE_COPY, b"0123456789")
        reader = ObjectReader(net.session, Deaf(), to_get(stored), PATIENT)
        with pytest.raises(TransferFailed, match="meta node is not there"):
            [piece async for piece in reader.read()]

    run(test, tmp_path, 1)


# --- who is sent what, by nodes that do as they are told -------------------------------------------------------------------------------


class Script:
    """An issuer as the meta node is: whoever asks for another place gets the share's present one while he does not name it as tried. ``send`` is what a put
    to a node does; ``sent`` are (share, node) in order, a first node being (0, index), another one (1, number)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, send: Callable[[int, bytes, Any], Awaitable[None]]) -> None:
        self.sent: list[tuple[int, bytes]] = []
        self.asked: list[int] = []
        self.now: dict[int, bytes] = {}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_away = False
        """The meta node does not answer when it may."""

        async def put_share(session: Any, place: Any, share: Any, data: Any, settings: Any = None) -> str:
            self.sent.append((share.index, place.peer.address))
            await send(share.index, place.peer.address, data)
            return "acknowledged"

        monkeypatch.setattr(putting, "put_share", put_share)

    async def for_put(self, wanted: PutWanted) -> Sequence[Any]:
        self.now = {index: bytes([0, index]) for index in range(wanted.scheme.n)}
        return [self._place(index) for index in range(wanted.scheme.n)]

    async def another(self, wanted: PutWanted, index: int, tried: Collection[bytes]) -> Any:
        self.asked.append(index)
        await self.may_answer.wait()
        if self.is_away:
            raise MetaUnreachable("nobody answers")
        if self.now[index] in tried:
            self.now[index] = bytes([1, len(self.asked)])
        return self._place(index)

    def _place(self, index: int) -> Any:
        return SimpleNamespace(peer=SimpleNamespace(address=self.now[index]))

    async def for_get(self, wanted: GetWanted) -> Place | None:
        return None

    async def put(self, scheme: Scheme, data: bytes, settings: Settings) -> StoredObject:
        async with asyncio.timeout(60):
            return await put_object(None, self, scheme, b"o" * 32, len(data), pieces_of(data, MIB), settings)  # type: ignore[arg-type]


async def turns(count: int = 200) -> None:
    """Whatever is ready runs."""
    for _ in range(count):
        await asyncio.sleep(0)


HEDGING = Settings(stall_s=100.0, straggler_s=0.0, hedge_s=0.01)


class Rounds:
    """How often a put waited for its senders in vain. It waits without an end when ``has_end`` is no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.has_end, wait = 0, True, asyncio.wait

        async def counted(given: Any, **named: Any) -> Any:
            found = await wait(given, **(named if self.has_end else named | {"timeout": None}))
            self.count += not found[0]
            return found

        monkeypatch.setattr(asyncio, "wait", counted)

    async def are(self, count: int) -> None:
        """Wait for so many."""
        async with asyncio.timeout(60):
            while self.count < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


def test_no_more_shares_are_sent_to_a_second_node_than_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        hedges, last, rest = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def send(index: int, node: bytes, _: Any) -> None:
            if len(script.asked) == 5:
                hedges.set()
            if node[0] == 1 or 20 <= index < 29:
                await rest.wait()
            elif index == 29:
                await last.wait()

        script = Script(monkeypatch, send)
        rounds = Rounds(monkeypatch)
        putting_it = asyncio.create_task(script.put(TEN_OF_THIRTY, content(40, 16_000), HEDGING))
        await hedges.wait()
        last.set()  # slow, not hedged, and there after all: four are missing now, and five are on their way
        await turns()
        await rounds.are(rounds.count + 3)
        assert script.asked == [20, 21, 22, 23, 24]
        rest.set()
        await putting_it

    asyncio.run(asyncio.wait_for(test(), 120))


@pytest.mark.parametrize("is_hedge_failing", [False, True])
def test_a_share_that_is_on_its_way_to_a_second_node_goes_to_a_third_only_when_that_one_fails(
    monkeypatch: pytest.MonkeyPatch, is_hedge_failing: bool
) -> None:
    async def test() -> None:
        hedged, first, second = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def send(index: int, node: bytes, _: Any) -> None:
            if index == 0 and node[0] == 0:
                await first.wait()
                raise NodeFailed(node, "is full")
            if index == 0 and node[1] == 1:
                hedged.set()
                await second.wait()
                if is_hedge_failing:
                    raise NodeFailed(node, "is full, too")

        script = Script(monkeypatch, send)
        putting_it = asyncio.create_task(script.put(THREE_REPLICAS, b"data", HEDGING))
        await hedged.wait()
        first.set()
        await turns()
        assert [node for index, node in script.sent if index == 0] == [b"\0\0", b"\1\1"]
        second.set()
        stored = await putting_it
        wanted = [b"\0\0", b"\1\1", b"\1\2"] if is_hedge_failing else [b"\0\0", b"\1\1"]
        assert [node for index, node in script.sent if index == 0] == wanted
        assert stored.segments[0].acknowledged[0][0].peer.address == wanted[-1]

    asyncio.run(asyncio.wait_for(test(), 120))


def test_a_share_whose_first_node_fails_while_a_second_is_asked_for_goes_to_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        rest = asyncio.Event()

        async def send(index: int, node: bytes, _: Any) -> None:
            if index == 0 and node[0] == 0:
                raise NodeFailed(node, "is full")
            if index == 0:
                await rest.wait()

        script = Script(monkeypatch, send)
        script.may_answer.clear()
        rounds = Rounds(monkeypatch)
        putting_it = asyncio.create_task(script.put(THREE_REPLICAS, b"data", HEDGING))
        await rounds.are(1)
        await turns()
        script.may_answer.set()
        await turns()
        rest.set()
        await putting_it
        assert len({*script.sent}) == len(script.sent)

    asyncio.run(asyncio.wait_for(test(), 120))


def test_a_place_that_was_not_to_be_had_ends_no_put_that_needs_it_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        first, rest = asyncio.Event(), asyncio.Event()

        async def send(index: int, node: bytes, _: Any) -> None:
            if index < 2:
                await (rest if index else first).wait()

        script = Script(monkeypatch, send)
        script.may_answer.clear()
        script.is_away = True
        putting_it = asyncio.create_task(script.put(THREE_REPLICAS, b"data", HEDGING))
        async with asyncio.timeout(60):
            while sorted(script.asked) != [0, 1]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        first.set()
        await turns()
        script.may_answer.set()
        await turns()
        assert not putting_it.done()
        rest.set()
        stored = await putting_it
        assert len(stored.segments[0].acknowledged) == 3

    asyncio.run(asyncio.wait_for(test(), 120))


@pytest.mark.parametrize("failing", [1, 2])
def test_a_share_without_another_place_ends_a_put_only_when_it_is_needed(monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    async def test() -> None:
        rest = asyncio.Event()

        async def send(index: int, node: bytes, _: Any) -> None:
            if index < failing:
                raise NodeFailed(node, "is full")
            await rest.wait()

        script = Script(monkeypatch, send)
        script.is_away = True
        putting_it = asyncio.create_task(script.put(FIVE_OF_TEN, content(41, 16_000), PATIENT))
        async with asyncio.timeout(60):
            while len(script.asked) < failing:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        if failing == 1:
            await turns()
            assert not putting_it.done()
            rest.set()
            assert sorted((await putting_it).segments[0].acknowledged) == list(range(1, 10))
        else:
            with pytest.raises(MetaUnreachable, match="nobody answers"):
                await putting_it

    asyncio.run(asyncio.wait_for(test(), 120))


def test_a_slow_share_that_failed_at_all_its_nodes_keeps_no_other_one_from_going_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        hedged, never = asyncio.Event(), asyncio.Event()

        async def send(index: int, node: bytes, _: Any) -> None:
            if index == 7:
                await hedged.wait()
                raise NodeFailed(node, "is full")
            if index >= 8 and node[0] == 0:
                await never.wait()
            if index == 8:
                hedged.set()

        stored = await Script(monkeypatch, send).put(FIVE_OF_TEN, content(42, 16_000), HEDGING)
        assert sorted(stored.segments[0].acknowledged) == [0, 1, 2, 3, 4, 5, 6, 8, 9]

    asyncio.run(asyncio.wait_for(test(), 120))


def test_a_share_that_asks_for_its_next_node_is_not_asked_for_by_a_second_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        rest = asyncio.Event()

        async def send(index: int, node: bytes, _: Any) -> None:
            if index == 0 and node[0] == 0:
                raise NodeFailed(node, "is full")
            if index == 0:
                await rest.wait()

        script = Script(monkeypatch, send)
        script.may_answer.clear()
        rounds = Rounds(monkeypatch)
        putting_it = asyncio.create_task(script.put(THREE_REPLICAS, b"data", HEDGING))
        await rounds.are(3)
        rounds.has_end = False
        # The round that waits now still has its limit.
        await rounds.are(4)
        script.may_answer.set()
        await turns()
        assert script.asked == [0]
        rest.set()
        await putting_it

    asyncio.run(asyncio.wait_for(test(), 120))


def test_what_is_being_sent_is_not_overwritten_by_the_next_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        kept = list[bool]()

        async def send(index: int, node: bytes, data: memoryview) -> None:
            if index:
                return
            before = bytes(data[:MIB])
            try:
                await asyncio.Event().wait()
            finally:
                await turns()  # the socket lets go of it a moment later
                kept.append(before == data[:MIB])

        script = Script(monkeypatch, send)
        await script.put(TWO_OF_FIVE, content(41, SEGMENT_BYTES + 5 * MIB), replace(PATIENT, straggler_s=0.0, segments_at_once=1))
        assert kept == [True, True]

    asyncio.run(asyncio.wait_for(test(), 120))


def test_behind_the_last_segment_are_zeros_though_its_memory_was_used_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async def send(index: int, node: bytes, _: Any) -> None:
            pass

        tail = content(42, 100_001)
        stored = await Script(monkeypatch, send).put(TWO_OF_FIVE, b"\xff" * SEGMENT_BYTES + tail, replace(PATIENT, segments_at_once=1))
        size = share_bytes(TWO_OF_FIVE, len(tail))
        padded = tail.ljust(2 * size, b"\0")
        assert len(padded) > len(tail)
        assert stored.segments[1].share_roots[:2] == (share_root(padded[:size]), share_root(padded[size:]))

    asyncio.run(asyncio.wait_for(test(), 120))


# --- memory ----------------------------------------------------------------------------------------------------------------------------

MEASURED = """
import asyncio, resource, sys
from pathlib import Path
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr))
from sds_node.client.transfer import ObjectReader, Settings, put_object
from sds_node.schemes import ONE_COPY, SEGMENT_BYTES
from tests.sds_node.data.network import network, to_get

async def zeros(size):
    piece = bytes(1 << 20)
    for _ in range(size >> 20):
        yield piece

async def main():
    async with network(Path(sys.argv[1])) as net:
        for segments in (2, int(sys.argv[2])):
            size = segments * SEGMENT_BYTES
            stored = await put_object(net.session, net.issuer, ONE_COPY, bytes([segments]) * 32, size, zeros(size), Settings(straggler_s=60.0))
            count = 0
            async for piece in ObjectReader(net.session, net.issuer, to_get(stored)).read():
                count += len(piece)
            assert count == size
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)

asyncio.run(main())
"""


def test_the_memory_of_a_put_and_a_get_does_not_grow_with_the_object(tmp_path: Path) -> None:
    """A node and the client in one process: an object of five segments takes no more than one of two did, but for the allocator's noise."""
    child = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path), "5"], capture_output=True, text=True, check=True)
    few, many = (int(line) for line in child.stdout.split())
    assert many - few < 48 * 1024  # KiB; three segments more are 96 MiB, on either side


def test_a_late_share_holds_up_what_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants the order, as the hash of a public file does, has no more than two segments in memory."""

    async def test(net: Network) -> None:
        data = content(8, 3 * SEGMENT_BYTES)
        stored = await put(net, ONE_COPY, data)
        late, honest = asyncio.Event(), getting.get_share

        async def get_share(session: Any, place: Any, share: Any, *rest: Any) -> bytes:
            if share.segment_root == to_get(stored).segment_roots[0]:
                await late.wait()
            return await honest(session, place, share, *rest)

        monkeypatch.setattr(getting, "get_share", get_share)
        monkeypatch.setattr(getting._Progress, "came", lambda self, *_: (self.quarter.set(), self.half.set()))
        reader = ObjectReader(net.session, net.issuer, to_get(stored), PATIENT)
        found = bytearray(len(data))
        told: set[int] = set()

        async def read() -> None:
            async for stretch in reader.stretches():
                told.add(stretch.offset // SEGMENT_BYTES)
                found[stretch.offset : stretch.offset + stretch.proved_bytes] = stretch.data[: stretch.proved_bytes]

        reading = asyncio.create_task(read())
        await asyncio.sleep(1.0)
        assert told <= {1}
        late.set()
        await reading
        assert told == {0, 1, 2}
        assert found == data

    run(test, tmp_path, 1)


class Scripted(ObjectReader):
    """Two segments of 8 bytes: the second is there at once, the first when it may be."""

    def __init__(self) -> None:
        self._settings, self.may = PATIENT, asyncio.Event()

    def _ranges(self, offset: int, length: int | None) -> list[tuple[int, int, int]]:
        return [(0, 0, 8), (1, 0, 8)]

    async def _in_turn(self, before: Any, progress: Any, segment: int, offset: int, length: int, tell: Any = None) -> list[memoryview]:
        if segment == 0:
            await self.may.wait()
        for at in range(segment * 8, segment * 8 + 8, 2):
            tell(getting.Stretch(at, memoryview(b"xx"), 2, 2))
        return []


def test_all_stretches_are_told_however_slow_their_reader_is() -> None:
    async def read() -> list[int]:
        reader, found = Scripted(), []
        async for stretch in reader.stretches():
            found.append(stretch.offset)
            reader.may.set()
            await asyncio.sleep(0.01)
        return found

    assert asyncio.run(read()) == [*range(8, 16, 2), *range(0, 8, 2)]
