"""Calls to a node that has no open port, through a relay to which it holds a connection.

    caller ══ wire.relay(target) ══► relay ══ wire.relayed(caller) ══► target          outer streams: the relay counts bytes
       └────────── inner connection: TLS, HELLO, frames, end to end ───────┘           the relay sees ciphertext

The inner connection is the same as over TCP: both prove their keys to each other, so a relay can lose bytes and delay them, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

from sds_node.p2p import ADDRESS_BYTES
from sds_node.wire.connection import Connection
from sds_node.wire.errors import BadRequest, Busy, TooMuch, Unreachable, WireError
from sds_node.wire.limits import Bucket, byte_bucket
from sds_node.wire.node import HIGH_WATER_BYTES, LOW_WATER_BYTES, Node, opened
from sds_node.wire.stream import Stream

RELAY: Final = "wire.relay"
RELAYED: Final = "wire.relayed"
REACH: Final = "reach"
CHUNK_BYTES: Final = 64 << 10


@dataclass(frozen=True)
class RelayLimits:
    """What a relay carries for others."""

    streams: int = 256
    streams_per_target: int = 32
    streams_per_caller: int = 8
    streams_per_host: int = 64  # from one IP address, whoever calls: addresses of callers cost nothing
    stream_bytes: int = 64 << 30  # both ways together
    stream_bytes_per_s: float | None = None  # each way
    bytes_per_s: float | None = None  # all streams, both ways together

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value >= 1:
                raise ValueError(f"{field.name} is at least 1, got {value}")


class StreamLink:
    """A stream under a connection (``connection.Link``)."""

    def __init__(self, stream: Stream, host: str) -> None:
        self._stream, self.host, self.full = stream, host, False
        self._connection: Connection | None = None
        self._out: deque[bytes] = deque()
        self._out_bytes = 0
        self._closing = False
        self._more, self._reading = asyncio.Event(), asyncio.Event()
        self._reading.set()

    async def run(self, connection: Connection) -> None:
        """Carries the connection until the stream is over."""
        self._connection = connection
        connection.started()
        writer = asyncio.get_running_loop().create_task(self._write_all())
        try:
            why = "the stream under it ended"
            try:
                while True:
                    await self._reading.wait()
                    chunk = await self._stream.receive(CHUNK_BYTES)
                    if not chunk:
                        break
                    connection.arrived(chunk)
                if self._stream.ours:
                    await self._stream.result()
            except WireError as error:
                why = str(error)
            connection.ended(why)
        finally:
            writer.cancel()
            connection.ended("the stream under it was given up")
            await asyncio.gather(writer, return_exceptions=True)
            if self._stream.ours:
                self._stream.cancel("the connection on it ended")

    async def _write_all(self) -> None:
        assert self._connection is not None
        try:
            while True:
                while self._out:
                    data = self._out.popleft()
                    await self._stream.send(data)
                    self._out_bytes -= len(data)
                    if self.full and self._out_bytes <= LOW_WATER_BYTES:
                        self.full = False
                        self._connection.writable()
                if self._closing:
                    self._stream.end()
                    return
                self._more.clear()
                await self._more.wait()
        except WireError as error:
            self._connection.ended(str(error))

    def write(self, data: bytes) -> None:
        if not self._closing:
            self._out.append(data)
            self._out_bytes += len(data)
            self.full = self._out_bytes > HIGH_WATER_BYTES
            self._more.set()

    def hold(self) -> None:
        self._reading.clear()

    def resume(self) -> None:
        self._reading.set()

    def close(self) -> None:
        self._closing = True
        self._more.set()
        self._reading.set()

    def abort(self) -> None:
        self.close()
        self._out.clear()
        self._stream.cancel("the connection on it ended")


def anybody(target: bytes) -> bool:
    """``may_reach`` of a relay for all who ask it."""
    return True


def serve(node: Node, limits: RelayLimits | None = None, may_reach: Callable[[bytes], bool] = anybody) -> None:
    """Makes a node a relay: it carries streams to peers that are connected to it and have the capability ``reach``. ``may_reach`` says of a peer's address
    whether others are carried there at all."""
    bounds = limits or RelayLimits()
    targets: Counter[bytes] = Counter()
    callers: Counter[bytes] = Counter()
    hosts: Counter[str] = Counter()
    whole: list[Bucket] = []

    async def relay(stream: Stream, connection: Connection) -> None:
        target, caller, host = stream.head, connection.remote.address, connection.remote.host
        if len(target) != ADDRESS_BYTES:
            raise BadRequest(f"expected the address of the node to reach, {ADDRESS_BYTES} bytes, got {len(target)}")
        if connection.relayed_by is not None:
            raise BadRequest("this call came through a relay: one is all that is carried")
        if not may_reach(target):
            raise Unreachable(f"this relay carries nothing to {target.hex()}: it is no node that it relays for")
        ways = [one for one in node.connections_of(target) if one.usable and one.relayed_by is None and REACH in one.remote.hello.capabilities]
        if not ways:
            raise Unreachable(f"the node {target.hex()} holds no connection to this relay")
        if targets.total() >= bounds.streams or targets[target] >= bounds.streams_per_target or callers[caller] >= bounds.streams_per_caller:
            raise Busy("this relay carries as many streams as it may: try another one")
        if hosts[host] >= bounds.streams_per_host:
            raise Busy("this relay carries as many streams from your host as it may: end some, or try another one")
        if not whole:
            whole.append(byte_bucket(bounds.bytes_per_s, asyncio.get_running_loop().time()))
        counted: tuple[tuple[Counter[Any], Any], ...] = ((targets, target), (callers, caller), (hosts, host))
        for count, key in counted:
            count[key] += 1
        try:
            async with await min(ways, key=lambda one: one.calls).call(RELAYED, caller) as other:
                await _carry(stream, other, bounds, whole[0])
        finally:
            for count, key in counted:
                count[key] -= 1
                if not count[key]:
                    del count[key]

    node.handlers[RELAY] = relay
    node.relaying = True


async def _carry(stream: Stream, other: Stream, bounds: RelayLimits, whole: Bucket) -> None:
    """Both ways, until the target's side ends or one of them fails."""
    loop = asyncio.get_running_loop()
    left_bytes = bounds.stream_bytes

    async def copy(source: Stream, to: Stream) -> None:
        nonlocal left_bytes
        bucket = byte_bucket(bounds.stream_bytes_per_s, loop.time())
        while chunk := await source.receive():
            left_bytes -= len(chunk)
            if left_bytes < 0:
                raise TooMuch(f"this relay carries {bounds.stream_bytes} bytes for one stream")
            wait_s = max(bucket.take(len(chunk), loop.time()), whole.take(len(chunk), loop.time()))
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await to.send(chunk)
        to.end()

    up, down = loop.create_task(copy(stream, other)), loop.create_task(copy(other, stream))
    try:
        done, _ = await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if down not in done:
            up.result()  # raises what ended it, if that was no end of the caller's
            await down
        down.result()
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


def accept_from(node: Node, relay: bytes) -> None:
    """Takes relayed calls from a relay's address (20 bytes). As often as it was called, ``refuse_from`` ends it."""
    node.relays[relay] += 1
    node.handlers.setdefault(RELAYED, lambda stream, connection: _relayed(node, stream, connection))


def refuse_from(node: Node, relay: bytes) -> None:
    node.relays[relay] -= 1
    if node.relays[relay] <= 0:
        del node.relays[relay]


async def _relayed(node: Node, stream: Stream, outer: Connection) -> None:
    """At the target: the accepting end of an inner connection."""
    relay = outer.remote.address
    if relay not in node.relays or outer.relayed_by is not None:
        raise BadRequest("this node takes relayed calls from relays alone that it has chosen")
    link = StreamLink(stream, f"relay {relay.hex()}")
    if not node.enter(link.host):
        raise Busy("this node has as many connections as it takes")
    try:
        connection = Connection(node, link, dialed=False, relayed_by=relay)
        node.connections.add(connection)
        await link.run(connection)
    finally:
        node.leave(link.host)


async def dial_through(node: Node, relayed: Stream, relay: bytes, address: bytes) -> Connection:
    """An open connection to a node, over a stream that a relay carries to it. Raises what ``node.dial`` raises."""
    link = StreamLink(relayed, f"relay {relay.hex()}")
    connection = Connection(node, link, dialed=True, expect=address, relayed_by=relay)
    node.connections.add(connection)
    node.run(link.run(connection))
    return await opened(connection)
