"""Requests: data both ways, windows, ends, cancellation, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random

import pytest

from sds_node.wire.connection import Connection
from sds_node.wire.errors import (
    BadRequest,
    Busy,
    CallCancelled,
    InternalFailure,
    Lost,
    Refused,
    TimedOut,
    TooMuch,
    UnknownMethod,
)
from sds_node.wire.limits import Limits
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import SMALL_SEND_BYTES, Stream
from tests.sds_node.wire.support import CONNECTION_WINDOW, SMALL, WINDOW, pair, until

pytestmark = pytest.mark.asyncio


async def test_a_head_and_data_come_back_unchanged() -> None:
    async with pair() as two:
        assert await two.peer.ask("echo", b"head ", b"body") == b"head body"


async def test_megabytes_arrive_unchanged_through_small_windows_both_ways_at_once() -> None:
    data = b"".join(hashlib.sha256(bytes([i])).digest() * 2048 for i in range(48))
    async with pair(limits=Limits(**SMALL), caller_limits=Limits(**SMALL)) as two, await two.peer.call("echo") as stream:

        async def write() -> None:
            for at in range(0, len(data), 100_001):
                await stream.send(data[at : at + 100_001])
            stream.end()

        _, back = await asyncio.gather(write(), stream.receive_all(len(data)))
        await stream.result()
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()


async def test_what_is_sent_may_be_changed_when_send_returns() -> None:
    async with pair() as two, await two.peer.call("echo") as stream:
        buffer = bytearray(b"a" * 5000)
        for letter in b"abcdef":
            buffer[:] = bytes([letter]) * 5000
            await stream.send(buffer)
        stream.end()
        assert await stream.receive_all(30_000) == b"".join(bytes([letter]) * 5000 for letter in b"abcdef")


async def test_ten_thousand_calls_of_which_none_is_lost_or_mixed_up() -> None:
    async with pair() as two:
        answers: set[bytes] = set()

        async def some(worker: int) -> None:
            for number in range(100):
                head = b"%d/%d" % (worker, number)
                answer = await two.peer.ask("echo", head)
                assert answer == head
                answers.add(answer)

        await asyncio.gather(*(some(worker) for worker in range(100)))
        assert len(answers) == 10_000
        ours, theirs = await two.connection()
        await ours.quiet.wait()
        await theirs.quiet.wait()
        assert two.callee.accounts[two.caller.address].streams == 0
        assert theirs.unread_bytes == ours.unread_bytes == 0


async def test_two_hundred_streams_are_open_at_once_and_each_has_its_own_data() -> None:
    async with pair() as two:
        streams = [await two.peer.call("echo") for _ in range(200)]
        for number, stream in enumerate(streams):
            await stream.send(b"%d" % number)
        for number, stream in reversed(list(enumerate(streams))):
            assert bytes(await stream.receive()) == b"%d" % number
            stream.end()
            assert not await stream.receive()
            await stream.result()


async def test_a_call_beyond_the_peers_streams_waits_for_one_to_end() -> None:
    async with pair(limits=Limits(streams_per_connection=2)) as two:
        first, second = await two.peer.call("echo"), await two.peer.call("echo")
        third = asyncio.create_task(two.peer.call("echo", b"third", ended=True))
        await first.send(b"x")
        await first.receive()
        assert not third.done()
        second.end()
        await second.result()
        assert await (await third).receive_all(100) == b"third"
        first.cancel()


async def test_calls_that_wait_for_a_stream_are_bounded() -> None:
    async with pair(limits=Limits(streams_per_connection=1), caller_limits=Limits(waiting_calls=1)) as two:
        first = await two.peer.call("echo")
        waiting = asyncio.create_task(two.peer.call("echo"))
        connection = await two.peer.connect()
        await until(lambda: connection.calls >= 2)
        with pytest.raises(Busy):
            await two.peer.call("echo")
        first.cancel()
        (await waiting).cancel()


async def test_a_cancelled_wait_for_a_stream_leaves_its_place_to_the_next() -> None:
    async with pair(limits=Limits(streams_per_connection=1)) as two:
        first = await two.peer.call("echo")
        connection = await two.peer.connect()
        one, two_ = asyncio.create_task(two.peer.call("echo")), asyncio.create_task(two.peer.call("echo", b"2", ended=True))
        await until(lambda: connection.calls >= 3)
        first.cancel()  # wakes the first that waits
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        assert await (await two_).receive_all(10) == b"2"


async def test_a_writer_to_a_reader_that_does_not_read_holds_at_most_the_window() -> None:
    stop, holding = asyncio.Event(), asyncio.Event()
    held: list[Stream] = []

    async def lazy(stream: Stream, _: Connection) -> None:
        held.append(stream)
        holding.set()
        await stop.wait()

    async with pair({"lazy": lazy}, limits=Limits(**SMALL), caller_limits=Limits(**SMALL)) as two:
        stream = await two.peer.call("lazy")
        await holding.wait()
        writer = asyncio.create_task(stream.send(bytes(10 * WINDOW)))
        await until(lambda: held[0].in_bytes >= WINDOW)
        # A whole request on the same connection passes, and the writer still stands where the window ended.
        assert await two.peer.ask("echo", b"past it") == b"past it"
        assert not writer.done()
        assert held[0].in_bytes == WINDOW
        assert stream.out_bytes == 9 * WINDOW
        _ours, theirs = await two.connection()
        assert theirs.unread_bytes == WINDOW
        assert two.callee.budget.used_bytes == WINDOW
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
        stop.set()
        await theirs.quiet.wait()
        assert theirs.unread_bytes == two.callee.budget.used_bytes == 0


async def test_small_sends_wait_when_more_than_64_kib_of_them_are_queued() -> None:
    stop = asyncio.Event()

    async def lazy(stream: Stream, _: Connection) -> None:
        await stop.wait()

    async with pair({"lazy": lazy}, limits=Limits(**SMALL)) as two, await two.peer.call("lazy") as stream:
        sent = 0

        async def write() -> None:
            nonlocal sent
            while True:
                await stream.send(bytes(1000))
                sent += 1000

        writer = asyncio.create_task(write())
        await until(lambda: stream.out_bytes > SMALL_SEND_BYTES)
        await two.peer.ask("echo", b"x")
        assert sent <= WINDOW + SMALL_SEND_BYTES + 1000
        assert stream.out_bytes <= SMALL_SEND_BYTES + 1000
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        stop.set()


async def test_streams_that_nobody_reads_stop_the_connection_at_its_window_and_reading_lets_it_go_on() -> None:
    go = asyncio.Event()
    held: list[Stream] = []

    async def lazy(stream: Stream, _: Connection) -> None:
        held.append(stream)
        await go.wait()
        await stream.send(b"%d" % len(await stream.receive_all(1 << 20)))

    async with pair({"lazy": lazy}, limits=Limits(**SMALL)) as two:

        async def put() -> bytes:
            return await two.peer.ask("lazy", body=bytes(WINDOW))

        puts = [asyncio.create_task(put()) for _ in range(8)]
        await until(lambda: sum(stream.in_bytes for stream in held) >= CONNECTION_WINDOW)
        assert await two.peer.ask("who") == two.caller.address
        assert sum(stream.in_bytes for stream in held) == CONNECTION_WINDOW
        go.set()
        assert await asyncio.gather(*puts) == [b"%d" % WINDOW] * 8


async def test_the_end_of_one_side_leaves_the_other_open() -> None:
    async def talk(stream: Stream, _: Connection) -> None:
        question = await stream.receive_all(100)
        await stream.send(b"first " + question)
        stream.end()
        await stream.receive()

    async def after(stream: Stream, _: Connection) -> None:
        await stream.send(b"data")
        stream.end()  # no more data; the status comes when the receipt did
        if await stream.receive_all(100) != b"receipt":
            raise BadRequest("no receipt")

    async with pair({"talk": talk, "after": after}) as two:
        assert await two.peer.ask("talk", body=b"question") == b"first question"
        async with await two.peer.call("after") as stream:
            assert await stream.receive_all(100) == b"data"
            assert stream.status is None
            await stream.send(b"receipt")
            stream.end()
            await stream.result()


@pytest.mark.parametrize("error", [BadRequest("why"), Busy("why"), TooMuch("why"), Refused(1234, "why")])
async def test_a_handlers_error_is_the_callers_error(error: BadRequest) -> None:
    async def fail(stream: Stream, _: Connection) -> None:
        await stream.send(b"half")
        raise error

    async with pair({"fail": fail}) as two, await two.peer.call("fail") as stream:
        assert bytes(await stream.receive()) == b"half"
        with pytest.raises(type(error)) as caught:
            await stream.receive()
        assert (caught.value.code, caught.value.text) == (error.code, "why")
        with pytest.raises(type(error)):
            await stream.send(b"more")


async def test_a_fault_of_a_handler_tells_the_caller_nothing_of_its_inside() -> None:
    async def broken(stream: Stream, _: Connection) -> None:
        raise KeyError("secret")

    async with pair({"broken": broken}) as two:
        with pytest.raises(InternalFailure) as caught:
            await two.peer.ask("broken")
        assert "secret" not in caught.value.text
        assert await two.peer.ask("echo", b"on") == b"on"


async def test_an_unknown_method_is_refused_and_the_connection_lives_on() -> None:
    async with pair() as two:
        with pytest.raises(UnknownMethod, match="nothing"):
            await two.peer.ask("nothing")
        assert await two.peer.ask("echo", b"on") == b"on"


async def test_an_answer_longer_than_the_caller_takes_is_refused_by_the_caller() -> None:
    async def endless(stream: Stream, _: Connection) -> None:
        while True:
            await stream.send(bytes(10_000))

    async with pair({"endless": endless}) as two:
        with pytest.raises(TooMuch):
            await two.peer.ask("endless", most_bytes=100_000)
        _, theirs = await two.connection()
        await theirs.quiet.wait()


async def test_a_status_that_comes_before_the_data_was_read_ends_the_sender() -> None:
    async def hasty(stream: Stream, _: Connection) -> None:
        return

    async with pair({"hasty": hasty}, limits=Limits(**SMALL)) as two, await two.peer.call("hasty") as stream:
        with pytest.raises(CallCancelled, match="before it had read"):
            await stream.send(bytes(10 * WINDOW))
        await stream.result()
        assert await two.peer.ask("count", body=bytes(3 * CONNECTION_WINDOW)) == b"%d" % (3 * CONNECTION_WINDOW)


async def _cancelled_handler() -> tuple[asyncio.Event, asyncio.Event, dict[str, object]]:
    began, ended = asyncio.Event(), asyncio.Event()

    async def wait(stream: Stream, _: Connection) -> None:
        began.set()
        try:
            if stream.head == b"send":
                await stream.send(bytes(100 * WINDOW))
            elif stream.head == b"receive":
                await stream.receive()
            else:
                await asyncio.Event().wait()
        finally:
            ended.set()

    return began, ended, {"wait": wait}


@pytest.mark.parametrize("state", [b"send", b"receive", b"think"])
async def test_a_cancelled_call_cancels_its_handler_whatever_it_does(state: bytes) -> None:
    began, ended, handlers = await _cancelled_handler()
    async with pair(handlers, limits=Limits(**SMALL), caller_limits=Limits(**SMALL)) as two:  # type: ignore[arg-type]
        stream = await two.peer.call("wait", state)
        await began.wait()
        stream.cancel("no longer wanted")
        await ended.wait()
        with pytest.raises(CallCancelled):
            await stream.receive()
        with pytest.raises(CallCancelled):
            await stream.send(b"x")
        ours, theirs = await two.connection()
        await theirs.quiet.wait()
        assert two.callee.accounts[two.caller.address].streams == 0
        assert ours.unread_bytes == 0
        assert await two.peer.ask("count", body=bytes(2 * CONNECTION_WINDOW)) == b"%d" % (2 * CONNECTION_WINDOW)


async def test_a_call_cancelled_before_its_handler_began_runs_no_handler() -> None:
    async with pair() as two:
        await two.peer.ask("who")
        stream = await two.peer.call("echo")
        stream.cancel()
        _, theirs = await two.connection()
        await theirs.quiet.wait()
        assert two.callee.accounts[two.caller.address].streams == 0


async def test_a_cancelled_sender_cancels_its_stream_and_nothing_else() -> None:
    began, ended, handlers = await _cancelled_handler()
    async with pair(handlers, limits=Limits(**SMALL)) as two:  # type: ignore[arg-type]
        stream = await two.peer.call("wait", b"think")
        other = await two.peer.call("echo")
        sender = asyncio.create_task(stream.send(bytes(10 * WINDOW)))
        await began.wait()
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        await ended.wait()
        await other.send(b"alive")
        assert bytes(await other.receive()) == b"alive"
        other.cancel()


async def test_a_cancelled_receiver_loses_nothing() -> None:
    async with pair() as two, await two.peer.call("echo") as stream:
        receiver = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)
        await stream.send(b"still there")
        assert bytes(await stream.receive()) == b"still there"


async def test_a_request_that_ended_is_not_changed_by_cancelling_it() -> None:
    async with pair() as two:
        stream = await two.peer.call("echo", b"x", ended=True)
        assert await stream.receive_all(10) == b"x"
        stream.cancel()
        await stream.result()


async def test_a_stream_on_which_nothing_moves_times_out_on_both_sides() -> None:
    _began, ended, handlers = await _cancelled_handler()
    async with pair(handlers) as two:  # type: ignore[arg-type]
        stream = await two.peer.call("wait", b"receive", idle_s=0.05)
        with pytest.raises(TimedOut):
            await asyncio.wait_for(stream.receive(), 60)
        await ended.wait()


@pytest.mark.parametrize("state", [b"receive", b"send"])
async def test_a_handler_whose_caller_does_nothing_times_out(state: bytes) -> None:
    _began, ended, handlers = await _cancelled_handler()
    async with pair(handlers, limits=Limits(idle_s=0.05), caller_limits=Limits(**SMALL)) as two:  # type: ignore[arg-type]
        stream = await two.peer.call("wait", state)
        await ended.wait()
        with pytest.raises(TimedOut):
            await stream.receive_all(1 << 20)


async def test_data_that_an_owner_never_reads_is_dropped_after_the_idle_time() -> None:
    async with pair() as two:
        stream = await two.peer.call("echo", b"data", ended=True, idle_s=0.05)
        await until(lambda: stream.error is not None)
        ours, _ = await two.connection()
        assert ours.unread_bytes == two.caller.budget.used_bytes == 0
        with pytest.raises(TimedOut):
            await stream.receive()


async def test_many_tiny_frames_do_not_become_many_objects() -> None:
    stop, full = asyncio.Event(), asyncio.Event()
    held: list[Stream] = []

    async def lazy(stream: Stream, _: Connection) -> None:
        held.append(stream)
        full.set()
        await stop.wait()

    async with pair({"lazy": lazy}) as two, await two.peer.call("lazy") as stream:
        await full.wait()
        for _ in range(3000):
            await stream.send(b"x")
        await until(lambda: held[0].in_bytes >= 3000)
        assert len(held[0]._in) == 1
        stop.set()


async def test_two_tasks_cannot_send_or_receive_on_one_stream() -> None:
    async with pair(limits=Limits(**SMALL)) as two, await two.peer.call("echo") as stream:
        receiver = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one task receives"):
            await stream.receive()
        await stream.send(b"x")
        await receiver


async def test_both_sides_of_a_connection_can_call() -> None:
    async def name(stream: Stream, _: Connection) -> None:
        await stream.send(b"the caller's own method")

    async def call_back(stream: Stream, connection: Connection) -> None:
        await stream.send(await connection.ask("name"))

    async with pair({"call-back": call_back}, caller_handlers={"name": name}) as two:
        assert await two.peer.ask("call-back") == b"the caller's own method"


async def test_a_peer_that_dies_fails_its_calls_and_the_next_call_dials_anew() -> None:
    began, ended, handlers = await _cancelled_handler()
    async with pair(handlers) as two:  # type: ignore[arg-type]
        stream = await two.peer.call("wait", b"think")
        await began.wait()
        ours, theirs = await two.connection()
        theirs._link.abort()
        with pytest.raises(Lost):
            await stream.receive()
        with pytest.raises(Lost):
            await stream.result()
        await ended.wait()
        assert await two.peer.ask("who") == two.caller.address
        assert not ours.usable


async def test_an_answer_that_is_complete_can_be_read_after_its_connection_ended() -> None:
    async with pair() as two:
        stream = await two.peer.call("echo", b"answer", ended=True)
        await until(lambda: stream.status is not None)
        ours, theirs = await two.connection()
        theirs.close()
        await ours.closed.wait()
        assert await stream.receive_all(100) == b"answer"
        await stream.result()
        assert two.caller.budget.used_bytes == 0


@pytest.mark.parametrize("method", ["", "Upper", "space d", "x" * 65, ".dot"])
async def test_a_method_out_of_bounds_is_refused_before_anything_is_sent(method: str) -> None:
    async with pair() as two:
        with pytest.raises(ValueError, match="a method is 1 to 64"):
            await two.peer.call(method)


async def test_a_head_of_64_kib_passes_and_one_byte_more_does_not() -> None:
    async with pair() as two:
        assert len(await two.peer.ask("echo", bytes(64 << 10))) == 64 << 10
        with pytest.raises(ValueError, match="at most 65536"):
            await two.peer.call("echo", bytes((64 << 10) + 1))


# --- into the reader's own memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(), Limits(**SMALL)])
async def test_what_comes_is_written_where_the_reader_says_and_is_the_same(limits: Limits) -> None:
    data = random.Random(1).randbytes(2_000_003)
    async with pair(limits=limits, caller_limits=limits) as two, await two.peer.call("echo") as stream:

        async def write() -> None:
            made = random.Random(2)
            at = 0
            while at < len(data):
                size = made.choice([1, 700, 20_000, 300_000])
                await stream.send(data[at : at + size])
                at += size
            stream.end()

        writing = asyncio.create_task(write())
        made, got = random.Random(3), bytearray()
        while len(got) < len(data):
            if made.random() < 0.3:
                got += await stream.receive(made.choice([1, 5_000, 1 << 20]))
                continue
            memory = memoryview(bytearray(min(made.choice([1, 3_000, 400_000]), len(data) - len(got))))
            stream.place(memory)
            at = 0
            while at < len(memory) and made.random() < 0.98:
                chunk = await stream.receive(made.choice([10, 100_000, 1 << 20]))
                assert chunk.obj is memory.obj
                assert chunk == memory[at : at + len(chunk)]
                at += len(chunk)
            got += memory[:at]
            if made.random() < 0.5:
                stream.place(memoryview(b""))
        await writing
        await stream.result()
    assert bytes(got) == data


async def test_nothing_is_written_into_memory_that_was_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    displaced = 0
    honest = Connection.displaced

    def counted(self: Connection, stream: Stream) -> None:
        nonlocal displaced
        was = self._payload
        honest(self, stream)
        displaced += was is not self._payload

    monkeypatch.setattr(Connection, "displaced", counted)
    data = b"\x01" * (6 << 20)
    async with pair() as two:
        for number in range(12):
            stream = await two.peer.call("echo")
            writing = asyncio.create_task(stream.send(data))
            memory = bytearray(4 << 20)
            with memoryview(memory) as view:
                stream.place(view)
                for _ in range(1 + number % 4):
                    (await stream.receive(100_000)).release()
                if number % 2:
                    stream.cancel()
                else:
                    stream.place(memoryview(b""))
            memory[:] = bytes(len(memory))
            for _ in range(3 if number % 2 else 0):
                await two.peer.ask("echo", b"", b"x" * 100_000)
            if number % 2 == 0:
                while len(await stream.receive()) < 100_000:
                    pass
                stream.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            assert not any(memory)
    assert displaced


async def test_a_slow_line_that_moves_is_no_dead_peer() -> None:
    """A window comes after 2 s, a PING's answer behind all data, the socket has room again after longer: each is more than a silent peer has."""
    rate, size = 512 << 10, 3 << 20

    async def take(stream: Stream, _: Connection) -> None:
        await stream.send(len(await stream.receive_all(size)).to_bytes(4, "big"))

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause_s: float) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(16 << 10):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(pause_s * len(data))
        writer.close()

    quick = Limits(dead_s=1.2, stall_s=1.2, keepalive_s=0.6)
    async with pair({"take": take}, limits=quick, caller_limits=quick) as two:

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            other_reader, other_writer = await asyncio.open_connection(two.host, two.port)
            await asyncio.gather(slow(reader, other_writer, 1 / rate), slow(other_reader, writer, 0))

        listener = await asyncio.start_server(accept, "127.0.0.1", 0, limit=16 << 10)
        peer = Peer(two.caller, two.callee.address, [Direct("127.0.0.1", listener.sockets[0].getsockname()[1])])
        try:
            assert await peer.ask("take", body=bytes(size)) == size.to_bytes(4, "big")
        finally:
            await peer.close()
            listener.close()
            await listener.wait_closed()


async def test_a_full_socket_waits_for_a_peer_that_says_what_it_read_and_not_for_more_than_was_sent() -> None:
    async with pair() as two:
        ours, _ = await two.connection()
        stream = await ours.call("echo", b"head")
        ours._sent_bytes = 160 << 10
        believed = []
        for _ in range(6):
            ours._full_since = -1.0
            ours._take_window(stream.number, stream, 40 << 10)
            believed.append(ours._full_since > 0)
        ours._full_since = None
        assert believed == [False, True, False, True, False, False]
        stream.cancel()


async def test_a_node_that_was_closed_calls_nobody() -> None:
    async with pair() as two:
        await two.peer.ask("who")
        await two.caller.close()
        with pytest.raises(Lost, match="this node was closed"):
            await two.peer.ask("who")
        assert not two.caller.links
