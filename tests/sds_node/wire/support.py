"""What the wire's tests share: two nodes that are connected, a peer that speaks the protocol by hand, and a proxy in the middle.

``Raw`` uses asyncio's own TLS and writes frames byte by byte: a second, independent speaker of the protocol, that may also lie.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sds_node.wire.connection import Connection, Handler
from sds_node.wire.frames import Hello, Kind, encode_hello, frame
from sds_node.wire.identity import Identity, contexts
from sds_node.wire.limits import Limits, Rates
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream

CHAIN = "wire-1"
# Small, so that tests reach them with few bytes.
WINDOW = 64 << 10
CONNECTION_WINDOW = 256 << 10
SMALL = {"stream_window_bytes": WINDOW, "connection_window_bytes": CONNECTION_WINDOW}


async def echo(stream: Stream, _: Connection) -> None:
    """The head, and then whatever comes, back."""
    await stream.send(stream.head)
    while chunk := await stream.receive():
        await stream.send(chunk)


async def count(stream: Stream, _: Connection) -> None:
    """How many bytes came."""
    size = 0
    while chunk := await stream.receive():
        size += len(chunk)
    await stream.send(str(size).encode())


async def who(stream: Stream, connection: Connection) -> None:
    """The caller's address, as the callee sees it."""
    await stream.send(connection.remote.address)


HANDLERS: dict[str, Handler] = {"echo": echo, "count": count, "who": who}


@dataclass
class Pair:
    """A server and one that calls it."""

    callee: Node
    caller: Node
    server: Server
    peer: Peer
    host: str
    port: int

    async def connection(self) -> tuple[Connection, Connection]:
        """(the caller's end, the callee's end)."""
        ours = await self.peer.connect()
        await self.peer.ask("who")
        return ours, self.callee.connections_of(self.caller.address)[0]


@asynccontextmanager
async def pair(
    handlers: Mapping[str, Handler] | None = None,
    *,
    caller_handlers: Mapping[str, Handler] | None = None,
    limits: Limits | None = None,
    caller_limits: Limits | None = None,
    rates: Rates | None = None,
    caller_rates: Rates | None = None,
    connections: int = 1,
) -> AsyncIterator[Pair]:
    callee = Node(Identity.ephemeral(), CHAIN, {**HANDLERS, **(handlers or {})}, limits=limits, rates=rates)
    caller = Node(Identity.ephemeral(), CHAIN, caller_handlers, limits=caller_limits, rates=caller_rates)
    server = Server(callee)
    host, port = await server.listen()
    peer = Peer(caller, callee.address, [Direct(host, port)], connections=connections)
    try:
        yield Pair(callee, caller, server, peer, host, port)
    finally:
        await peer.close()
        await caller.close()
        await server.close()


async def until(holds: Callable[[], Any]) -> Any:
    """Lets the loop go on until something holds, and returns it. No time is waited for: the test's own limit is the only clock."""
    while True:
        if value := holds():
            return value
        await asyncio.sleep(0)


@dataclass
class Raw:
    """A peer made of TLS and struct."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    seen: list[tuple[int, int, int, bytes]] = field(default_factory=list)

    async def read(self) -> tuple[int, int, int, bytes] | None:
        """(stream, kind, flags, payload), None at the end of the connection."""
        try:
            stream, kind, flags, length = struct.unpack(">IBBI", await self.reader.readexactly(10))
            payload = await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return None
        self.seen.append((stream, kind, flags, payload))
        return self.seen[-1]

    async def read_until(self, kind: Kind) -> tuple[int, int, int, bytes] | None:
        while (got := await self.read()) is not None:
            if got[1] == kind:
                return got
        return None

    async def closed_with(self) -> tuple[int, str]:
        """The code and text of the peer's CLOSE; (-1, "") if it ended without."""
        got = await self.read_until(Kind.CLOSE)
        return (-1, "") if got is None else (int.from_bytes(got[3][:2], "big"), got[3][2:].decode())

    async def write(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass

    async def send(self, stream: int, kind: int, payload: bytes = b"", flags: int = 0) -> None:
        await self.write(frame(kind, stream, payload, flags))

    async def open(self, stream: int, method: str = "echo", head: bytes = b"", flags: int = 0) -> None:
        await self.send(stream, Kind.OPEN, bytes([len(method)]) + method.encode() + head, flags)


async def connect(host: str, port: int, identity: Identity | None = None, context: ssl.SSLContext | None = None) -> Raw:
    """TLS, and nothing said yet."""
    context = context or contexts(identity or Identity.ephemeral())[0]
    return Raw(*await asyncio.open_connection(host, port, ssl=context, server_hostname=""))


@asynccontextmanager
async def raw(pair: Pair, identity: Identity | None = None, hello: Hello | None = None) -> AsyncIterator[Raw]:
    """A raw peer that has said its hello and read the callee's."""
    peer = await connect(pair.host, pair.port, identity)
    try:
        await peer.send(0, Kind.HELLO, encode_hello(hello or Hello(CHAIN)))
        got = await peer.read()
        assert got is not None
        assert got[1] == Kind.HELLO
        yield peer
    finally:
        peer.writer.transport.abort()


@asynccontextmanager
async def proxy(port: int, tap: Callable[[bytes, bool], bytes] = lambda data, up: data) -> AsyncIterator[Any]:
    """A TCP proxy in front of a port of 127.0.0.1. ``tap`` sees, and may change, what goes up (to the port) and down. Yields its own port and a cut()."""
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(tap(data, up))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, other_writer))
        await asyncio.gather(pump(reader, other_writer, True), pump(other_reader, writer, False))

    def cut() -> None:
        for writer in writers:
            writer.transport.abort()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], cut
    finally:
        cut()
        listener.close()
        await listener.wait_closed()
