"""Nodes behind a relay, connections that are shared, kept, drained and cut, and bandwidth that is limited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from sds_node.wire.connection import Connection, Handler
from sds_node.wire.errors import BadRequest, Busy, Draining, HandshakeFailed, Lost, TooMuch, Unreachable, WireError, WrongPeer
from sds_node.wire.frames import END, Kind
from sds_node.wire.identity import Identity
from sds_node.wire.limits import Limits, Rates
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer, Through
from sds_node.wire.relay import RELAY, RELAYED, RelayLimits, anybody, serve
from sds_node.wire.stream import Stream
from tests.sds_node.wire.support import CHAIN, HANDLERS, SMALL, WINDOW, pair, proxy, raw, until

pytestmark = pytest.mark.asyncio

QUICK = Limits(redial_s=0.01, redial_most_s=0.05)


@dataclass
class Relayed:
    """A target without a port, a relay that it is connected to, and a caller who knows the relay."""

    target: Node
    relay: Node
    caller: Node
    to_relay: Peer  # the caller's
    to_target: Peer  # the caller's, through the relay
    server: Server
    keeping: asyncio.Task[None]
    port: int
    wire: list[bytes]  # what passed between caller and relay


async def _connected(node: Node, address: bytes) -> Connection:
    """Waits until a peer is connected."""
    found: list[Connection] = await until(lambda: node.connections_of(address))
    return found[0]


@asynccontextmanager
async def relayed(
    handlers: dict[str, Handler] | None = None,
    *,
    relay_limits: RelayLimits | None = None,
    may_reach: Callable[[bytes], bool] = anybody,
    limits: Limits = QUICK,
    caller_handlers: dict[str, Handler] | None = None,
) -> AsyncIterator[Relayed]:
    target = Node(Identity.ephemeral(), CHAIN, {**HANDLERS, **(handlers or {})}, capabilities=("reach",), limits=limits)
    relay, caller = Node(Identity.ephemeral(), CHAIN, HANDLERS), Node(Identity.ephemeral(), CHAIN, caller_handlers, limits=limits)
    serve(relay, relay_limits, may_reach)
    server = Server(relay)
    _, port = await server.listen()
    wire: list[bytes] = []

    def tap(data: bytes, up: bool) -> bytes:
        wire.append(data)
        return data

    keeping = asyncio.create_task(Peer(target, relay.address, [Direct("127.0.0.1", port)]).keep(reachable=True))
    await _connected(relay, target.address)
    async with proxy(port, tap) as (middle, _):
        to_relay = Peer(caller, relay.address, [Direct("127.0.0.1", middle)])
        to_target = Peer(caller, target.address, [Through(to_relay)])
        try:
            yield Relayed(target, relay, caller, to_relay, to_target, server, keeping, port, wire)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await to_target.close()
            await caller.close()
            await target.close()
            await server.close()


async def test_a_node_without_a_port_is_called_through_a_relay_as_if_directly() -> None:
    async with relayed() as three:
        assert await three.to_target.ask("echo", b"head ", b"body") == b"head body"
        # Both ends have proved who they are to each other: not the relay's addresses.
        assert await three.to_target.ask("who") == three.caller.address
        inner = await three.to_target.connect()
        assert inner.remote.address == three.target.address
        assert inner.remote.relayed_by == three.relay.address
        size = 3 << 20
        assert await three.to_target.ask("count", body=bytes(size)) == b"%d" % size
        many = await asyncio.gather(*(three.to_target.ask("echo", b"%d" % number) for number in range(100)))
        assert many == [b"%d" % number for number in range(100)]


async def test_the_target_can_call_back_through_the_relay() -> None:
    async def name(stream: Stream, _: Connection) -> None:
        await stream.send(b"caller")

    async def back(stream: Stream, connection: Connection) -> None:
        await stream.send(await connection.ask("name"))

    async with relayed({"back": back}, caller_handlers={"name": name}) as three:
        assert await three.to_target.ask("back") == b"caller"


async def test_the_relay_sees_ciphertext_alone() -> None:
    secret = b"what the relay must not read" * 10
    seen: list[bytes] = []
    async with relayed() as three:
        carry = three.relay.handlers[RELAY]

        async def spying(stream: Stream, connection: Connection) -> None:
            receive = stream.receive

            async def tapped(*args: Any) -> memoryview:
                chunk = await receive(*args)
                seen.append(bytes(chunk))
                return chunk

            stream.receive = tapped  # type: ignore[method-assign]
            await carry(stream, connection)

        three.relay.handlers[RELAY] = spying
        assert await three.to_target.ask("echo", secret) == secret
        assert sum(map(len, seen)) > len(secret)
        assert secret[:28] not in b"".join(seen)
        assert secret[:28] not in b"".join(three.wire)


async def test_a_relay_that_answers_in_the_targets_place_is_found_out() -> None:
    async with relayed() as three:

        async def false(stream: Stream, connection: Connection) -> None:
            """Ends the inner TLS itself, with the relay's own key."""
            from sds_node.wire.relay import StreamLink

            link = StreamLink(stream, "x")
            await link.run(Connection(three.relay, link, dialed=False, relayed_by=b"x"))

        three.relay.handlers[RELAY] = false
        with pytest.raises(WrongPeer, match=three.target.address.hex()):
            await three.to_target.ask("who")


async def test_a_relay_that_changes_a_bit_ends_the_inner_connection() -> None:
    async with relayed() as three:
        carry, spoil = three.relay.handlers[RELAY], asyncio.Event()

        async def false(stream: Stream, connection: Connection) -> None:
            receive = stream.receive

            async def tapped(*args: Any) -> memoryview:
                chunk = bytearray(await receive(*args))
                if spoil.is_set() and chunk:
                    chunk[-1] ^= 1
                return memoryview(chunk)

            stream.receive = tapped  # type: ignore[method-assign]
            await carry(stream, connection)

        three.relay.handlers[RELAY] = false
        assert await three.to_target.ask("echo", b"clean") == b"clean"
        spoil.set()
        with pytest.raises(WireError):
            await three.to_target.ask("echo", b"dirty")


async def test_an_unknown_target_a_wrong_head_and_a_node_that_did_not_ask_to_be_reached_are_refused() -> None:
    async with relayed() as three:
        with pytest.raises(Unreachable, match="holds no connection"):
            await three.to_relay.ask(RELAY, bytes(20))
        with pytest.raises(BadRequest, match="20 bytes, got 3"):
            await three.to_relay.ask(RELAY, b"abc")
        with pytest.raises(Unreachable):  # the caller is connected, without the capability
            await three.to_relay.ask(RELAY, three.caller.address)
        lost = Peer(three.caller, bytes(20), [Through(three.to_relay)])
        with pytest.raises((HandshakeFailed, Unreachable), match="holds no connection"):
            await lost.ask("who")


async def test_a_target_takes_relayed_calls_from_the_relays_it_chose_alone() -> None:
    async with relayed() as three:
        stranger = Node(Identity.ephemeral(), CHAIN)
        server = Server(three.target)
        host, port = await server.listen()
        direct = Peer(stranger, three.target.address, [Direct(host, port)])
        with pytest.raises(BadRequest, match="relays alone"):
            await direct.ask(RELAYED, stranger.address)
        await direct.close()
        server._stop()


async def test_a_relay_carries_no_more_streams_than_its_limits() -> None:
    async with relayed(relay_limits=RelayLimits(streams_per_caller=1)) as three:
        await three.to_target.ask("who")
        with pytest.raises(Busy, match="another one"):
            await three.to_relay.ask(RELAY, three.target.address)
        (await three.to_target.connect()).close()
        while True:
            try:
                assert await three.to_target.ask("who") == three.caller.address
                break
            except (Busy, Lost, HandshakeFailed):
                await asyncio.sleep(0.001)


async def test_a_relay_carries_to_nobody_that_it_does_not_know() -> None:
    async with relayed(may_reach=lambda target: False) as three:
        with pytest.raises(Unreachable, match="carries nothing"):
            await three.to_relay.ask(RELAY, three.target.address)
        with pytest.raises(WireError):
            await three.to_target.ask("who")


async def test_new_keys_give_a_caller_no_more_streams_of_a_relay() -> None:
    async with relayed(relay_limits=RelayLimits(streams_per_host=1)) as three:
        await three.to_target.ask("who")
        stranger = Node(Identity.ephemeral(), CHAIN)
        to_relay = Peer(stranger, three.relay.address, [Direct("127.0.0.1", three.port)])
        with pytest.raises(Busy, match="from your host"):
            await to_relay.ask(RELAY, three.target.address)
        await stranger.close()


async def test_a_relays_whole_rate_counts_all_streams_and_loses_nothing() -> None:
    async with relayed(relay_limits=RelayLimits(bytes_per_s=2_000_000)) as three:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answers = await asyncio.gather(*(three.to_target.ask("count", body=bytes(400_000)) for _ in range(4)))
        assert answers == [b"400000"] * 4
        assert loop.time() - begun > 0.5, "1.6 MB, half a MB of them at once"


async def test_a_relay_carries_no_more_bytes_than_its_limit() -> None:
    async with relayed(relay_limits=RelayLimits(stream_bytes=100_000)) as three:
        assert await three.to_target.ask("count", body=bytes(10_000)) == b"10000"
        with pytest.raises(WireError, match="100000 bytes for one stream"):
            await three.to_target.ask("count", body=bytes(200_000))
        assert await three.to_target.ask("who") == three.caller.address  # over a new one


async def test_a_relays_rate_slows_and_loses_nothing() -> None:
    async with relayed(relay_limits=RelayLimits(stream_bytes_per_s=2_000_000)) as three:
        assert await three.to_target.ask("count", body=bytes(700_000)) == b"700000"


async def test_a_relayed_writer_stops_at_the_windows_of_those_who_do_not_read() -> None:
    stop = asyncio.Event()

    async def lazy(stream: Stream, _: Connection) -> None:
        await stop.wait()

    async with relayed({"lazy": lazy}, limits=Limits(**SMALL)) as three, await three.to_target.call("lazy") as stream:
        writer = asyncio.create_task(stream.send(bytes(20 * WINDOW)))
        await until(lambda: not stream.credit)
        assert await three.to_target.ask("who") == three.caller.address
        assert stream.out_bytes == 19 * WINDOW
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        stop.set()


async def test_when_the_relay_dies_calls_fail_and_the_target_comes_back_to_a_new_one() -> None:
    async with relayed() as three:
        stream = await three.to_target.call("echo")
        await stream.send(b"x")
        await stream.receive()
        for connection in list(three.relay.connections):
            connection._link.abort()
        with pytest.raises(WireError):
            await stream.receive()
        await _connected(three.relay, three.target.address)
        while True:
            try:
                assert await three.to_target.ask("who") == three.caller.address
                break
            except WireError:
                await asyncio.sleep(0.001)


async def test_one_who_stops_being_reachable_is_not_called() -> None:
    async with relayed() as three:
        three.keeping.cancel()
        await asyncio.gather(three.keeping, return_exceptions=True)
        assert three.target.relays == {}
        assert three.target.kept == {}
        with pytest.raises(WireError, match="relays alone"):
            await three.to_target.ask("who")


async def test_the_next_route_is_tried_when_one_fails_and_all_reasons_are_told() -> None:
    async with pair() as two, proxy(two.port) as (port, _):
        dead = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        nobody = dead.sockets[0].getsockname()[1]
        dead.close()
        await dead.wait_closed()
        peer = Peer(two.caller, two.callee.address, [Direct("127.0.0.1", nobody), Direct("127.0.0.1", port)])
        assert await peer.ask("who") == two.caller.address
        await peer.close()
        wrong = Peer(two.caller, bytes(20), [Direct("127.0.0.1", nobody), Direct("127.0.0.1", port)])
        with pytest.raises(Unreachable, match=r"no TCP connection.*WrongPeer"):
            await wrong.ask("who")
        await wrong.close()


async def test_callers_who_come_at_once_share_one_dial_and_one_connection() -> None:
    async with pair(connections=3) as two:
        await asyncio.gather(*(two.peer.ask("who") for _ in range(50)))
        assert len(two.callee.connections_of(two.caller.address)) == 1


async def test_callers_who_come_at_once_share_the_failure_of_the_dial() -> None:
    async with pair() as two:
        wrong = Peer(two.caller, bytes(20), [Direct(two.host, two.port)])
        results = await asyncio.gather(*(wrong.ask("who") for _ in range(20)), return_exceptions=True)
        assert {type(result) for result in results} == {WrongPeer}
        assert len({id(result) for result in results}) == 20


async def test_many_open_calls_spread_over_more_connections_up_to_the_bound() -> None:
    async with pair(connections=2) as two:
        streams = []
        while len(two.caller.connections) < 2:
            streams.append(await two.peer.call("echo"))
            await asyncio.sleep(0)
        for _ in range(100):
            streams.append(await two.peer.call("echo"))
        assert len(two.caller.connections) == 2
        for stream in streams:
            stream.cancel()


async def test_a_cancelled_caller_does_not_cancel_the_dial_of_the_others() -> None:
    async with pair() as two:
        first, second = asyncio.create_task(two.peer.ask("who")), asyncio.create_task(two.peer.ask("who"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == two.caller.address


async def test_a_drain_lets_open_requests_end_refuses_new_ones_and_closes() -> None:
    async with pair() as two:
        old = await two.peer.call("echo")
        await old.send(b"begun")
        assert bytes(await old.receive()) == b"begun"
        ours, theirs = await two.connection()
        draining = asyncio.create_task(two.server.drain(60))
        await until(lambda: not ours.usable)
        with pytest.raises(Draining):
            await ours.call("echo")
        with pytest.raises(HandshakeFailed):  # a new connection is not let in
            await two.peer.ask("echo")
        await old.send(b"and finished")
        old.end()
        assert await old.receive_all(100) == b"and finished"
        await old.result()
        await draining
        assert theirs.closed.is_set()
        await ours.closed.wait()


async def test_a_drain_cuts_off_what_is_open_after_its_time() -> None:
    async with pair() as two:
        old = await two.peer.call("echo")
        await two.connection()
        await two.server.drain(0.01)
        with pytest.raises(Lost):
            await old.receive()


async def test_a_request_that_crossed_a_drain_is_told_that_it_was_not_begun() -> None:
    ran: list[bytes] = []

    async def note(stream: Stream, _: Connection) -> None:
        ran.append(stream.head)

    async with pair({"note": note}) as two, raw(two) as peer:
        theirs = next(one for one in two.callee.connections if one.remote.address != two.caller.address)
        await peer.open(1)
        await peer.send(1, Kind.DATA, b"x")
        await peer.read_until(Kind.DATA)
        draining = asyncio.create_task(theirs.drain(60))
        await asyncio.sleep(0)
        await peer.open(3, "note", b"late", END)
        drain = await peer.read_until(Kind.DRAIN)
        assert drain is not None
        assert drain[3] == (1).to_bytes(4, "big")
        refused = await peer.read_until(Kind.STATUS)
        assert refused is not None
        assert (refused[0], refused[3][:2]) == (3, Draining.code.to_bytes(2, "big"))
        await peer.send(1, Kind.DATA, b"", END)
        ended = await peer.read_until(Kind.STATUS)
        assert ended is not None
        assert (ended[0], ended[3]) == (1, b"\0\0")
        assert (await peer.closed_with())[0] == 0
        await draining
        assert ran == []


async def test_a_request_that_a_draining_peer_did_not_begin_with_is_made_again_elsewhere() -> None:
    async with pair() as two:
        ours, _ = await two.connection()
        # The peer's DRAIN arrives when the request is on its way: as if it was below the request's number.
        asking = asyncio.create_task(two.peer.ask("echo", b"again"))
        await until(lambda: ours._streams)
        ours._take_drain(0)
        assert await asking == b"again"
        assert len(two.callee.connections_of(two.caller.address)) == 2


async def test_a_kept_connection_that_is_lost_is_made_again() -> None:
    async with pair(caller_limits=QUICK) as two:
        keeping = asyncio.create_task(two.peer.keep())
        for _ in range(3):
            theirs = await _connected(two.callee, two.caller.address)
            theirs.close()
            await theirs.closed.wait()
        await _connected(two.callee, two.caller.address)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_a_connection_without_use_ends_and_one_that_is_kept_does_not() -> None:
    limits = Limits(unused_s=0.2)
    async with pair(caller_limits=limits) as two, pair(caller_limits=limits) as other:
        keeping = asyncio.create_task(other.peer.keep())
        await _connected(other.callee, other.caller.address)
        ours, _ = await two.connection()
        await ours.closed.wait()
        kept = await other.peer.connect()
        assert kept.usable
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_a_cut_connection_fails_every_call_on_it_and_leaves_nothing_behind() -> None:
    async with pair() as two, proxy(two.port) as (port, cut):
        peer = Peer(two.caller, two.callee.address, [Direct("127.0.0.1", port)])
        streams = [await peer.call("echo") for _ in range(50)]
        for stream in streams:
            await stream.send(b"x")
            await stream.receive()
        cut()
        for stream in streams:
            with pytest.raises(Lost):
                await stream.receive()
        await until(lambda: not two.callee.accounts)
        assert two.callee.connections == set()
        assert two.caller.budget.used_bytes == two.callee.budget.used_bytes == 0
        await peer.close()


@pytest.mark.parametrize("side", ["connection_up_bytes_per_s", "up_bytes_per_s", "connection_down_bytes_per_s", "down_bytes_per_s"])
async def test_a_bandwidth_limit_holds_over_the_clock_of_the_loop_and_loses_nothing(side: str) -> None:
    rate, size = 2_000_000.0, 1_200_000
    up = "up" in side
    limited = Rates(**{side: rate})
    async with pair(rates=None if up else limited, caller_rates=limited if up else None) as two:
        await two.peer.ask("who")
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await two.peer.ask("count", body=bytes(size)) == b"%d" % size
        # A lower bound, which a busy machine can only raise: all but the burst, and one read or frame that overdraws, waits for the rate.
        assert loop.time() - began >= (size - rate * 0.25 - (256 << 10)) / rate


async def test_a_callers_limit_on_the_size_of_an_answer_holds_through_a_relay() -> None:
    async with relayed() as three:
        with pytest.raises(TooMuch):
            await three.to_target.ask("echo", bytes(2000), most_bytes=1000)
        assert await three.to_target.ask("who") == three.caller.address


@pytest.mark.parametrize("bad", [{"address": bytes(19)}, {"routes": []}, {"connections": 0}])
async def test_a_peer_out_of_bounds_is_refused(bad: dict[str, Any]) -> None:
    node = Node(Identity.ephemeral(), CHAIN)
    given = {"address": bytes(20), "routes": [Direct("127.0.0.1", 1)], "connections": 1, **bad}
    with pytest.raises(ValueError, match=r"20 bytes|routes"):
        Peer(node, given["address"], given["routes"], connections=given["connections"])


async def test_the_wires_own_methods_are_not_for_handlers() -> None:
    with pytest.raises(ValueError, match="the wire's own"):
        Node(Identity.ephemeral(), CHAIN, {"wire.relay": HANDLERS["echo"]})
