"""Peers that lie, flood, trickle or stare. Each loses its own connection, with a reason; a well-behaved caller beside it notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sds_node.wire.connection import Connection, Phase
from sds_node.wire.errors import Busy, HandshakeFailed, Lost, ProtocolViolation, TooSlow, WireError
from sds_node.wire.frames import END, Hello, Kind, encode_hello, frame
from sds_node.wire.identity import Identity, contexts
from sds_node.wire.limits import Limits
from sds_node.wire.node import Node, dial, prefix_of
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream
from tests.sds_node.wire.support import CHAIN, CONNECTION_WINDOW, SMALL, WINDOW, Pair, Raw, connect, pair, raw, until


async def lazy(stream: Stream, _: Connection) -> None:
    """Never reads."""
    await asyncio.Event().wait()


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


OPEN = b"\x04lazy"
# What a peer does after the hello, as (stream, kind, flags, payload), and a word of the reason it is told.
LIES: dict[str, tuple[list[tuple[int, int, int, bytes]], str]] = {
    "an unknown kind": ([(0, 99, 0, b"")], "got 99"),
    "kind zero": ([(0, 0, 0, b"")], "got 0"),
    "a second hello": ([(0, Kind.HELLO, 0, encode_hello(Hello(CHAIN)))], "HELLO first and once"),
    "unknown flags": ([(1, Kind.OPEN, 0x80, OPEN)], "flags"),
    "a short ping": ([(0, Kind.PING, 0, b"1234567")], "7"),
    "a ping on a stream": ([(1, Kind.PING, 0, bytes(8))], "stream 1"),
    "an even stream number": ([(2, Kind.OPEN, 0, OPEN)], "parity"),
    "stream zero": ([(0, Kind.OPEN, 0, OPEN)], "stream 0"),
    "a number used twice": ([(1, Kind.OPEN, 0, OPEN), (1, Kind.OPEN, 0, OPEN)], "above 1"),
    "a number below the last": ([(5, Kind.OPEN, 0, OPEN), (3, Kind.OPEN, 0, OPEN)], "above 5"),
    "data for a stream that never was": ([(7, Kind.DATA, 0, b"x")], "never opened"),
    "a reset of a stream of ours that never was": ([(2, Kind.RESET, 0, b"\0\1")], "never opened"),
    "data after the end": ([(1, Kind.OPEN, END, OPEN), (1, Kind.DATA, 0, b"x")], "after its end"),
    "empty data that ends nothing": ([(1, Kind.OPEN, 0, OPEN), (1, Kind.DATA, 0, b"")], "ends nothing"),
    "a status from the caller": ([(1, Kind.OPEN, 0, OPEN), (1, Kind.STATUS, 0, b"\0\0")], "whose caller"),
    "a window opened by nothing": ([(0, Kind.WINDOW, 0, _u32(0))], "opened by 0"),
    "a stream's window opened by nothing": ([(1, Kind.OPEN, 0, OPEN), (1, Kind.WINDOW, 0, _u32(0))], "opened by 0"),
    "a window beyond 2^31": ([(0, Kind.WINDOW, 0, _u32(2**31 - 1))], "opened by 2147483647"),
    "a stream's window beyond 2^31": ([(1, Kind.OPEN, 0, OPEN), (1, Kind.WINDOW, 0, _u32(2**31 - 1))], "opened by 2147483647"),
    "a method in capitals": ([(1, Kind.OPEN, 0, b"\x04LAZY")], "method"),
    "a method longer than the frame": ([(1, Kind.OPEN, 0, b"\x40lazy")], "method"),
    "a stream's window overrun": ([(1, Kind.OPEN, 0, OPEN), (1, Kind.DATA, 0, bytes(WINDOW)), (1, Kind.DATA, 0, b"x")], "overrun its window"),
    "the connection's window overrun": (
        [frames for number in range(1, 11, 2) for frames in ((number, Kind.OPEN, 0, OPEN), (number, Kind.DATA, 0, bytes(WINDOW)))],
        "connection's window",
    ),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", LIES)
async def test_a_lie_closes_that_connection_with_a_reason_and_nothing_else(name: str) -> None:
    frames, word = LIES[name]
    async with pair({"lazy": lazy}, limits=Limits(**SMALL)) as two:
        beside = await two.peer.call("echo")
        async with raw(two) as peer:
            for stream, kind, flags, payload in frames:
                await peer.send(stream, kind, payload, flags)
            code, text = await peer.closed_with()
            assert code == ProtocolViolation.code
            assert word in text
        await beside.send(b"beside")
        assert bytes(await beside.receive()) == b"beside"
        beside.cancel()
        _, theirs = await two.connection()
        await theirs.quiet.wait()
        await until(lambda: list(two.callee.accounts) == [two.caller.address])
        assert two.callee.budget.used_bytes == 0


@pytest.mark.asyncio
async def test_a_length_beyond_the_window_is_refused_by_the_header_before_a_byte_of_it_came() -> None:
    async with pair({"lazy": lazy}, limits=Limits(**SMALL)) as two, raw(two) as peer:
        await peer.open(1, "lazy")
        await peer.write(struct.pack(">IBBI", 1, Kind.DATA, 0, 1 << 20))
        assert (await peer.closed_with())[0] == ProtocolViolation.code


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "first",
    [frame(Kind.PING, 0, bytes(8)), frame(Kind.OPEN, 1, OPEN), frame(Kind.HELLO, 0, bytes(60)), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
    ids=["ping", "open", "empty hello", "http"],
)
async def test_who_does_not_begin_with_a_hello_is_closed(first: bytes) -> None:
    async with pair() as two:
        peer = await connect(two.host, two.port)
        await peer.write(first)
        assert (await peer.closed_with())[0] == ProtocolViolation.code
        peer.writer.transport.abort()
        assert await two.peer.ask("who") == two.caller.address


FRAMES = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=300),
        st.builds(
            lambda stream, kind, flags, payload: frame(kind, stream, payload, flags),
            st.integers(0, 9), st.integers(0, 12), st.sampled_from([0, 0, 0, 1, 2]), st.one_of(st.binary(max_size=40), st.just(OPEN), st.just(bytes(4)), st.just(b"\x04echo12")),
        ),
    ),
    min_size=1,
    max_size=30,
)  # fmt: skip


class _Standing:
    """One pair of nodes for many examples, on a loop of its own; ``faults`` is what reached the loop's exception handler."""

    def __init__(self) -> None:
        self.runner, self.stack = asyncio.Runner(), contextlib.AsyncExitStack()
        self.faults: list[object] = []
        self.context = contexts(Identity.ephemeral())[0]

    def __enter__(self) -> _Standing:
        self.runner.__enter__()
        self.runner.get_loop().set_exception_handler(lambda _, context: self.faults.append(context))
        self.two = self.runner.run(self.stack.enter_async_context(pair({"lazy": lazy}, limits=Limits(**SMALL))))
        return self

    def __exit__(self, *failure: object) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    async def is_well(self) -> None:
        """The caller beside notices nothing, and nothing is left of the other."""
        two = self.two
        assert await two.peer.ask("echo", b"alive") == b"alive"
        await until(lambda: len(two.callee.connections) == 1 and set(two.callee.accounts) == {two.caller.address})
        assert (two.callee.budget.used_bytes, self.faults) == (0, [])
        assert len(two.caller.connections) == 1


def test_no_bytes_do_more_than_end_their_own_connection() -> None:
    with _Standing() as standing:

        async def one(frames: list[bytes], hello: bool) -> None:
            peer = await connect(standing.two.host, standing.two.port, context=standing.context)
            if hello:
                await peer.send(0, Kind.HELLO, encode_hello(Hello(CHAIN)))
            await peer.write(b"".join(frames) + frame(99, 0))
            await peer.closed_with()
            peer.writer.transport.abort()
            await standing.is_well()

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(frames=FRAMES, hello=st.booleans())
        def check(frames: list[bytes], hello: bool) -> None:
            standing.runner.run(one(frames, hello))

        check()


def test_no_bytes_before_tls_do_more_than_end_their_own_connection() -> None:
    with _Standing() as standing:

        async def one(data: bytes) -> None:
            reader, writer = await asyncio.open_connection(standing.two.host, standing.two.port)
            writer.write(data)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                while await reader.read(65536):
                    pass
            writer.transport.abort()
            await standing.is_well()

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(data=st.one_of(st.binary(min_size=1, max_size=2000), st.binary(max_size=200).map(lambda tail: bytes.fromhex("1603010100") + tail)))
        def check(data: bytes) -> None:
            standing.runner.run(one(data))

        check()


@pytest.mark.asyncio
async def test_who_says_nothing_is_cut_off_after_the_handshake_time() -> None:
    async with pair(limits=Limits(handshake_s=0.1)) as two:
        reader, writer = await asyncio.open_connection(two.host, two.port)
        assert await reader.read() == b""
        writer.close()
    async with pair() as two:
        silent = await connect(two.host, two.port)  # TLS, and no hello; its time is over when the test says so
        await until(lambda: [one for one in two.callee.connections if one.phase is Phase.HELLO])
        next(iter(two.callee.connections))._late()
        assert await silent.closed_with() == (TooSlow.code, "too slow to say hello")
        silent.writer.transport.abort()


@pytest.mark.asyncio
async def test_a_frame_that_never_becomes_complete_is_cut_off_though_bytes_trickle() -> None:
    async with pair({"lazy": lazy}, limits=Limits(dead_s=0.3, keepalive_s=0.1)) as two, raw(two) as peer:
        await peer.open(1, "lazy")
        await peer.write(struct.pack(">IBBI", 1, Kind.DATA, 0, 100_000))

        async def trickle() -> None:
            while not peer.writer.is_closing():
                await peer.write(b"x")
                await asyncio.sleep(0.01)

        trickler = asyncio.create_task(trickle())
        while await peer.read() is not None:
            pass
        trickler.cancel()
        await asyncio.gather(trickler, return_exceptions=True)
        assert {kind for _, kind, _, _ in peer.seen} == {Kind.HELLO, Kind.PING}


@pytest.mark.asyncio
async def test_a_peer_that_does_not_answer_pings_is_dead_and_one_that_does_lives() -> None:
    limits = Limits(dead_s=0.5, keepalive_s=0.05)
    async with pair(limits=limits, caller_limits=limits) as two:
        ours, _ = await two.connection()
        async with raw(two) as mute:
            while await mute.read() is not None:
                pass
            assert [kind for _, kind, _, _ in mute.seen].count(Kind.PING) == 1
        assert ours.usable


@asynccontextmanager
async def poured_over() -> AsyncIterator[tuple[Pair, Raw, asyncio.Event]]:
    """A peer that grants a window of a gigabyte, is sent 40 MiB, and does not read its socket; the event is set when the sender is done or gives up."""
    ended = asyncio.Event()

    async def pour(stream: Stream, _: Connection) -> None:
        try:
            await stream.send(bytes(40 << 20))
        finally:
            ended.set()

    big = Hello(CHAIN, stream_window_bytes=1 << 30, connection_window_bytes=1 << 30)
    async with pair({"pour": pour}, limits=Limits(stall_s=0.2)) as two, raw(two, hello=big) as peer:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await peer.open(1, "pour")
        yield two, peer, ended


@pytest.mark.asyncio
async def test_a_peer_that_takes_nothing_is_cut_off() -> None:
    async with poured_over() as (two, _, ended):
        await asyncio.wait_for(ended.wait(), 100)
        await until(lambda: not two.callee.accounts)


@pytest.mark.asyncio
async def test_a_peer_that_only_says_that_it_takes_what_it_is_sent_is_cut_off() -> None:
    async with poured_over() as (_, peer, ended):
        told = 0
        while not ended.is_set():
            told += 1
            await peer.write(frame(Kind.WINDOW, 1, (1 << 20).to_bytes(4, "big")))
            await asyncio.sleep(0.05)
        assert told < 40 + 20  # some MiB lie in the sockets' buffers, and no more is believed than was sent


@pytest.mark.asyncio
async def test_pings_that_are_not_taken_back_fill_no_memory() -> None:
    async with pair(limits=Limits(queued_frames=100)) as two:
        identity = Identity.ephemeral()
        async with raw(two, identity) as peer:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            theirs = two.callee.connections_of(identity.address)[0]
            flood = frame(Kind.PING, 0, bytes(8)) * 1000
            while not theirs.closed.is_set() and not peer.writer.is_closing():
                await peer.write(flood)
                assert len(theirs._control) <= 100 + 1 + 16384 // 18
            await theirs.closed.wait()
            assert isinstance(theirs.error, TooSlow | Lost)


@pytest.mark.asyncio
async def test_a_flood_of_small_frames_is_read_no_faster_than_the_limit() -> None:
    async with pair(limits=Limits(small_frames_per_s=50)) as two:
        identity = Identity.ephemeral()
        async with raw(two, identity) as peer:
            theirs = two.callee.connections_of(identity.address)[0]
            await peer.write(frame(Kind.PING, 0, bytes(8)) * 60)
            for _ in range(50):
                assert (await peer.read_until(Kind.PONG)) is not None
            assert theirs._holds == {"rate"}
            for _ in range(10):  # it is slow, and nothing is lost
                assert (await peer.read_until(Kind.PONG)) is not None


@pytest.mark.asyncio
async def test_streams_opened_faster_than_the_limit_wait_and_pass() -> None:
    async with pair(limits=Limits(opens_per_s=20)) as two:
        answers = await asyncio.gather(*(two.peer.ask("echo", b"%d" % number) for number in range(30)))
        assert answers == [b"%d" % number for number in range(30)]


@pytest.mark.asyncio
async def test_streams_beyond_what_was_granted_are_refused_one_by_one() -> None:
    async with pair({"lazy": lazy}, limits=Limits(streams_per_connection=2)) as two, raw(two) as peer:
        for number in (1, 3, 5):
            await peer.open(number, "lazy")
        got = await peer.read_until(Kind.STATUS)
        assert got is not None
        assert (got[0], got[3][:2]) == (5, Busy.code.to_bytes(2, "big"))
        await peer.send(1, Kind.RESET, b"\0\1")
        # The handler has to be gone, too: one that was reset at once leaves no room before.
        number = 7
        while True:
            await peer.open(number, "echo", b"in", END)
            got = await peer.read()
            assert got is not None
            if got[1] == Kind.DATA:
                break
            number += 2
        assert got[3] == b"in"


@pytest.mark.asyncio
async def test_rapid_resets_do_not_run_more_handlers_than_streams_are_allowed() -> None:
    running = most = 0

    async def slow_to_die(stream: Stream, _: Connection) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                running -= 1

    async with pair({"slow": slow_to_die}, limits=Limits(streams_per_connection=4)) as two, raw(two) as peer:
        data = b"".join(frame(Kind.OPEN, number, b"\x04slow") + frame(Kind.RESET, number, b"\0\1") for number in range(1, 2001, 2))
        await peer.write(data)
        await peer.open(2001, "echo", b"after", END)
        while (got := await peer.read()) is not None and got[0] != 2001:
            pass
        assert got is not None
        assert most <= 4


@pytest.mark.asyncio
async def test_streams_of_one_peer_are_counted_over_all_of_its_connections() -> None:
    async with pair({"lazy": lazy}, limits=Limits(streams_per_peer=3)) as two:
        identity = Identity.ephemeral()
        async with raw(two, identity) as one, raw(two, identity) as other:
            for number in (1, 3):
                await one.open(number, "lazy")
                await other.open(number, "lazy")
            refused = [asyncio.create_task(peer.read_until(Kind.STATUS)) for peer in (one, other)]
            done, pending = await asyncio.wait(refused, return_when=asyncio.FIRST_COMPLETED)
            got = next(iter(done)).result()
            assert got is not None
            assert got[3][:2] == Busy.code.to_bytes(2, "big")
            assert two.callee.accounts[identity.address].streams == 3
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)


@pytest.mark.asyncio
async def test_connections_of_one_peer_are_bounded_and_it_is_told() -> None:
    async with pair(limits=Limits(connections_per_peer=2)) as two:
        node = Node(Identity.ephemeral(), CHAIN)
        kept = [await dial(node, two.host, two.port, two.callee.address) for _ in range(2)]
        with pytest.raises(Busy, match="use those"):
            await dial(node, two.host, two.port, two.callee.address)
        assert await two.peer.ask("who") == two.caller.address
        kept[0].close()
        await two.callee.connections_of(node.address)[0].closed.wait()
        (await dial(node, two.host, two.port, two.callee.address)).close()
        await node.close()


@pytest.mark.asyncio
async def test_a_full_table_drains_the_connection_that_is_unused_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.wire.node.SPARED_S", 0.0)
    async with pair(limits=Limits(connections=3)) as two:
        idlers = Node(Identity.ephemeral(), CHAIN)
        used, first, second = [await dial(idlers, two.host, two.port, two.callee.address) for _ in range(3)]
        stream = await used.call("echo", b"x")
        assert bytes(await stream.receive()) == b"x"
        # Who comes takes the place of the one that waits longest, and so does who comes then; never that of one with a stream.
        other = Node(Identity.ephemeral(), CHAIN)
        served = await dial(other, two.host, two.port, two.callee.address)
        await first.closed.wait()
        assert second.usable
        busy = await served.call("echo", b"y")
        assert bytes(await busy.receive()) == b"y"
        await two.peer.connect()
        await second.closed.wait()
        kept_busy = await (await two.peer.connect()).call("echo", b"z")
        assert bytes(await kept_busy.receive()) == b"z"
        # All have streams: nobody goes, and the newcomer is not let in.
        with pytest.raises(HandshakeFailed):
            await dial(other, two.host, two.port, two.callee.address)
        assert used.usable
        await stream.send(b"still here")
        assert bytes(await stream.receive()) == b"still here"
        await idlers.close()
        await other.close()


@pytest.mark.asyncio
async def test_a_connection_that_just_opened_or_is_kept_does_not_go_for_a_newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(limits=Limits(connections=1)) as two:
        other = Node(Identity.ephemeral(), CHAIN)
        fresh = await two.peer.connect()
        monkeypatch.setattr("sds_node.wire.node.SPARED_S", 60.0)
        with pytest.raises(HandshakeFailed):
            await dial(other, two.host, two.port, two.callee.address)
        monkeypatch.setattr("sds_node.wire.node.SPARED_S", 0.0)
        two.callee.kept[two.caller.address] += 1
        with pytest.raises(HandshakeFailed):
            await dial(other, two.host, two.port, two.callee.address)
        assert fresh.usable
        assert await two.peer.ask("who") == two.caller.address
        await other.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("limits", [Limits(connections=2), Limits(connections_per_host=2), Limits(handshakes=2)])
async def test_sockets_beyond_a_limit_are_closed_unread(limits: Limits) -> None:
    async with pair(limits=limits) as two:
        open_ones = [await asyncio.open_connection(two.host, two.port) for _ in range(2)]
        await until(lambda: len(two.callee.connections) >= 2)
        reader, writer = await asyncio.open_connection(two.host, two.port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.transport.abort()
        for _, other in open_ones:
            other.transport.abort()
        await until(lambda: not two.callee.connections)
        assert await two.peer.ask("who") == two.caller.address


@pytest.mark.asyncio
@pytest.mark.parametrize("bound", ["buffered_bytes", "buffered_per_peer_bytes"])
async def test_a_node_that_holds_too_much_unread_data_reads_no_more_until_some_is_read(bound: str) -> None:
    go = asyncio.Event()

    async def later(stream: Stream, _: Connection) -> None:
        await go.wait()
        await stream.send(b"%d" % len(await stream.receive_all(1 << 22)))

    limit = 100_000
    async with pair({"later": later}, limits=Limits(**{bound: limit})) as two:
        puts = [asyncio.create_task(two.peer.ask("later", body=bytes(1 << 20))) for _ in range(4)]
        _, theirs = await _both(two)
        await until(lambda: "budget" in theirs._holds)
        assert limit < two.callee.budget.used_bytes <= limit + (1 << 20)
        go.set()
        assert await asyncio.gather(*puts) == [b"%d" % (1 << 20)] * 4
        assert two.callee.budget.used_bytes == 0


async def _both(two: object) -> tuple[Connection, Connection]:
    """Both ends, without a request: the callee may not be reading."""
    ours = await two.peer.connect()  # type: ignore[attr-defined]
    theirs = await until(lambda: two.callee.connections_of(two.caller.address))  # type: ignore[attr-defined]
    return ours, theirs[0]


@pytest.mark.asyncio
async def test_a_peer_that_fills_the_node_does_not_stop_the_small_requests_of_another() -> None:
    async with pair({"lazy": lazy}, limits=Limits(buffered_bytes=300_000)) as two:
        greedy = Node(Identity.ephemeral(), CHAIN)
        hog = Peer(greedy, two.callee.address, [Direct(two.host, two.port)])
        stream = await hog.call("lazy")
        sending = asyncio.create_task(stream.send(bytes(4 << 20)))
        await until(lambda: two.callee.budget.full)
        assert await two.peer.ask("echo", b"small ", body=bytes(10_000)) == b"small " + bytes(10_000)
        assert two.callee.budget.full
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        two.callee.connections_of(greedy.address)[0].close()
        assert two.callee.budget.used_bytes == 0
        await greedy.close()


@pytest.mark.asyncio
async def test_who_reconnects_does_not_get_rid_of_the_handlers_that_still_run_for_him() -> None:
    die = asyncio.Event()

    async def stubborn(stream: Stream, _: Connection) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await die.wait()

    async with pair({"stubborn": stubborn}, limits=Limits(streams_per_peer=2)) as two:
        identity = Identity.ephemeral()
        async with raw(two, identity) as peer:
            for number in (1, 3):
                await peer.open(number, "stubborn")
            await until(lambda: two.callee.accounts[identity.address].streams == 2)
        await until(lambda: not two.callee.connections_of(identity.address))
        async with raw(two, identity) as peer:
            await peer.open(1, "echo")
            got = await peer.read_until(Kind.STATUS)
            assert got is not None
            assert got[3][:2] == Busy.code.to_bytes(2, "big")
        die.set()
        await until(lambda: identity.address not in two.callee.accounts)


@pytest.mark.parametrize(
    ("host", "prefix"),
    [("127.0.0.1", "127.0.0.1"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"), ("::ffff:10.0.0.1", "10.0.0.1"), ("", "")],
)  # fmt: skip
def test_hosts_are_counted_by_what_one_person_has(host: str, prefix: str) -> None:
    assert prefix_of(host) == prefix


@pytest.mark.asyncio
async def test_data_for_streams_that_ended_gives_its_window_back() -> None:
    async with pair(limits=Limits(**SMALL)) as two, raw(two) as peer:
        await peer.open(1, "echo", b"", END)
        assert await peer.read_until(Kind.STATUS) is not None
        await peer.open(3, "nothing")
        for _ in range(3 * CONNECTION_WINDOW // WINDOW):
            await peer.send(3, Kind.DATA, bytes(WINDOW))
            if len(peer.seen) < 4:
                continue
        credit = 0
        while credit < 2 * CONNECTION_WINDOW:
            got = await peer.read_until(Kind.WINDOW)
            if got is None:
                break
            assert got[0] == 0
            credit += int.from_bytes(got[3], "big")
        assert credit >= 2 * CONNECTION_WINDOW


@pytest.mark.asyncio
async def test_a_fault_in_a_handler_or_a_hostile_text_reaches_no_log_line_unescaped() -> None:
    async with pair({"lazy": lazy}) as two:
        stream_seen: list[str] = []

        async def ask_raw(stream: Stream, connection: Connection) -> None:
            try:
                await connection.ask("x")
            except WireError as error:
                stream_seen.append(str(error))

        two.callee.handlers["ask-raw"] = ask_raw
        async with raw(two) as peer:
            await peer.open(1, "ask-raw", b"", END)
            got = await peer.read_until(Kind.OPEN)
            assert got is not None
            await peer.send(got[0], Kind.STATUS, b"\x00\x04" + b"\x1b[31m\nforged line \xff")
            assert await peer.read_until(Kind.STATUS) is not None
        assert stream_seen == ["�[31m�forged line �"]


@pytest.mark.asyncio
async def test_a_callee_that_lies_loses_the_caller_with_a_typed_error() -> None:
    """The caller's side is no softer: a false server answers a call with data on a stream that was never opened."""
    identity = Identity.ephemeral()

    async def false(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(Kind.HELLO, 0, encode_hello(Hello(CHAIN))))
        await reader.readexactly(10)
        writer.write(frame(Kind.DATA, 77, b"x"))
        while await reader.read(65536):
            pass
        writer.close()

    listener = await asyncio.start_server(false, "127.0.0.1", 0, ssl=contexts(identity)[1])
    port = listener.sockets[0].getsockname()[1]
    node = Node(Identity.ephemeral(), CHAIN)
    peer = Peer(node, identity.address, [Direct("127.0.0.1", port)])
    with pytest.raises(ProtocolViolation, match="never opened"):
        await peer.ask("echo")
    await peer.close()
    await node.close()
    listener.close()
    await listener.wait_closed()
