"""A node's end of the wire: its key, its methods, its limits, everyone it is connected to; and ``Server``, which lets others in.

Node ── identity, handlers, limits, rates ──► shared by ──► Server (accepts)   Peer (dials, peer.py)   relay.py
  └── accounts: what each peer's address has open, over all of its connections
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog

from sds_node.wire.connection import Connection, Handler, Phase
from sds_node.wire.errors import Busy, HandshakeFailed, Lost, WireError
from sds_node.wire.frames import VERSION, Hello, encode_hello
from sds_node.wire.identity import Identity, contexts
from sds_node.wire.limits import Bucket, Budget, Limits, Rates, byte_bucket

log = structlog.get_logger("wire")

RESERVED: Final = "wire."
BUFFER_BYTES: Final = 256 << 10
HIGH_WATER_BYTES: Final = 1 << 20
LOW_WATER_BYTES: Final = 256 << 10
BACKLOG: Final = 512
SPARED_S: Final = 1.0
"""A connection that was unused for less keeps its place: its first call may be on the way."""


@dataclass
class Account:
    """What one address has with us, over all of its connections."""

    opens: Bucket
    small_frames: Bucket
    budget: Budget
    connections: int = 0
    accepted: int = 0
    streams: int = 0


class Node:
    """The state that a node's connections share. ``handlers`` are the methods it serves, by name; names that begin with ``wire.`` are the wire's own.

    ``capabilities``, ``software`` and the chain id are told to every peer. Raises ValueError for a name out of bounds.
    """

    def __init__(
        self,
        identity: Identity,
        chain_id: str,
        handlers: Mapping[str, Handler] | None = None,
        *,
        software: str = "stratos",
        capabilities: Iterable[str] = (),
        limits: Limits | None = None,
        rates: Rates | None = None,
        versions: tuple[int, int] = (VERSION, VERSION),
    ) -> None:
        self.identity, self.address = identity, identity.address
        self.limits, self.rates = limits or Limits(), rates or Rates()
        self.handlers: dict[str, Handler] = dict(handlers or {})
        for name in self.handlers:
            if name.startswith(RESERVED):
                raise ValueError(f"methods that begin with {RESERVED!r} are the wire's own, got {name!r}")
        bounds = self.limits
        self.hello = Hello(
            chain_id,
            software,
            tuple(capabilities),
            *versions,
            bounds.streams_per_connection,
            bounds.stream_window_bytes,
            bounds.connection_window_bytes,
        )
        encode_hello(self.hello)  # says what is wrong with it, now
        self.dialing, self.accepting = contexts(identity)
        self.budget = Budget(bounds.buffered_bytes)
        self.up, self.down = byte_bucket(self.rates.up_bytes_per_s, 0.0), byte_bucket(self.rates.down_bytes_per_s, 0.0)
        self.connections: set[Connection] = set()
        self._leaving: set[TcpLink] = set()  # of the links, those whose place a newcomer has
        self._is_closed = False
        self.links: set[TcpLink] = set()  # sockets, those included that only wait for the peer to take our last words
        # Of all sockets in turn: what came in is copied before the next one is read.
        self.landing = memoryview(bytearray(BUFFER_BYTES))
        self.accounts: dict[bytes, Account] = {}
        self.relays: Counter[bytes] = Counter()  # whose relayed calls are taken
        self.kept: Counter[bytes] = Counter()  # to whom a connection is held open though nothing is on it
        self.relaying = False
        self._by_address: dict[bytes, list[Connection]] = {}
        self._admitted: dict[Connection, bytes] = {}
        self._hosts: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()

    def connections_of(self, address: bytes) -> list[Connection]:
        """The open connections with a peer, whoever dialed; the oldest first."""
        return [one for one in self._by_address.get(address, ()) if one.phase is Phase.OPEN]

    async def close(self) -> None:
        """``end_all``, and nobody is called any more."""
        self._is_closed = True
        await self.end_all()

    async def end_all(self) -> None:
        """Ends every connection, and waits for the handlers that ran on them and, ``flush_s`` at most, for the sockets."""
        ended = list(self.connections)
        for connection in ended:
            connection.close("the node stops")
        for connection in ended:
            await connection.wait_closed()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Bounded: a connection that is over aborts its link after flush_s.
        for link in list(self.links):
            await link.gone.wait()

    def require_open(self) -> None:
        """Raises Lost after ``close``."""
        if self._is_closed:
            raise Lost("this node was closed: it calls nobody any more")

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something of the node's in the background; ``close`` ends it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- for links and connections

    def enter(self, host: str) -> bool:
        """A stranger asks to come in. False if there are too many of them; true is answered by ``leave``."""
        limits = self.limits
        arriving = (
            sum(1 for one in self.connections if not one.dialed and one.phase < Phase.OPEN) if len(self.connections) >= limits.handshakes else 0
        )
        if self._hosts[host] >= limits.connections_per_host or arriving >= limits.handshakes:
            return False
        if self._hosts.total() - len(self._leaving) >= limits.connections and not self._make_room():
            return False
        self._hosts[host] += 1
        return True

    def _make_room(self) -> bool:
        """The table is full: the accepted connection that was without a stream for longest goes, and a newcomer gets its place. False if there is none.

        Its last words may take a moment, so at most ``handshakes`` sockets are there beyond ``connections``.
        """
        if len(self._leaving) >= self.limits.handshakes:
            return False
        longest, since_s = None, asyncio.get_running_loop().time() - SPARED_S
        for link in self.links - self._leaving:
            one = link.connection
            if one is None or one.dialed or one.phase is not Phase.OPEN or self.keeps(one):
                continue
            unused_since_s = one.unused_since_s
            if unused_since_s is not None and unused_since_s < since_s:
                longest, since_s = link, unused_since_s
        if longest is None or longest.connection is None:
            return False
        log.info("as many connections as are taken: the one that is unused for longest ends", address=longest.connection.remote.address.hex())
        self._leaving.add(longest)
        # As for one that was unused for too long: a call that crosses it is told that it was not begun with, and is made elsewhere.
        self.run(longest.connection.drain(self.limits.flush_s))
        return True

    def forget(self, link: TcpLink) -> None:
        """A link is gone that may have given its place away."""
        self._leaving.discard(link)

    def leave(self, host: str) -> None:
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]

    def admit(self, connection: Connection, address: bytes) -> Account:
        """The account of a peer that has proved its address. Raises Busy if it has too many connections."""
        limits = self.limits
        account = self.accounts.get(address)
        if account is None:
            opens, small = limits.opens_per_s, limits.small_frames_per_s
            account = Account(Bucket(opens, opens, connection.now()), Bucket(small, small, connection.now()), Budget(limits.buffered_per_peer_bytes))
        if not connection.dialed:
            if account.accepted >= limits.connections_per_peer:
                raise Busy(f"this peer has {account.accepted} connections here: use those")
            account.accepted += 1
        account.connections += 1
        self.accounts[address] = account
        self._admitted[connection] = address
        return account

    def joined(self, connection: Connection) -> None:
        """A connection is open."""
        self._by_address.setdefault(connection.remote.address, []).append(connection)

    def left(self, connection: Connection) -> None:
        """A connection is over."""
        self.connections.discard(connection)
        address = self._admitted.pop(connection, None)
        if address is None:
            return
        account = self.accounts[address]
        account.connections -= 1
        account.accepted -= not connection.dialed
        self.tidy(address)
        same = self._by_address.get(address, [])
        if connection in same:
            same.remove(connection)
        if not same:
            self._by_address.pop(address, None)

    def tidy(self, address: bytes) -> None:
        """Forgets an account without connections and running handlers: who reconnects does not get rid of what still runs for him."""
        account = self.accounts.get(address)
        if account is not None and not account.connections and not account.streams:
            del self.accounts[address]

    def keeps(self, connection: Connection) -> bool:
        """True if a connection without streams stays: we hold it, or it is how its peer can be reached."""
        return connection.remote.address in self.kept or (self.relaying and "reach" in connection.remote.hello.capabilities)


def prefix_of(host: str) -> str:
    """What connections of one host are counted by: an IPv4 address, the /64 of an IPv6 one, since everybody has all of a /64."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped is not None else str(ipaddress.ip_network((address, 64), strict=False))
    return host


class TcpLink(asyncio.BufferedProtocol):
    """A TCP socket under a connection (``connection.Link``)."""

    def __init__(self, node: Node, make: Callable[[TcpLink], Connection], *, accepted: bool) -> None:
        self._node, self._make, self._accepted = node, make, accepted
        self._transport: asyncio.Transport | None = None
        self._view = node.landing
        self._held = self._ending = self._entered = False
        self.connection: Connection | None = None
        self.gone = asyncio.Event()
        self.host, self.full = "", False

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._node.links.add(self)
        name = self._transport.get_extra_info("peername")
        self.host = str(name[0]) if name else ""
        if self._accepted and not self._node.enter(prefix_of(self.host)):
            self._transport.abort()
            return
        self._entered = self._accepted
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=LOW_WATER_BYTES)
        self.connection = self._make(self)
        self._node.connections.add(self.connection)
        self.connection.started()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        if self.connection is not None:
            self.connection.arrived(self._view[:nbytes])

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._node.links.discard(self)
        self._node.forget(self)
        self.gone.set()
        if self._entered:
            self._entered = False
            self._node.leave(prefix_of(self.host))
        if self.connection is not None:
            self.connection.ended(str(exc) if exc else "the peer closed its socket")

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self.connection is not None:
            self.connection.writable()

    # ---- the connection's side

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._ending:
            self._transport.write(data)

    def hold(self) -> None:
        if self._transport is not None and not self._held and not self._transport.is_closing():
            self._held = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self._held and not self._transport.is_closing():
            self._held = False
            self._transport.resume_reading()

    def close(self) -> None:
        # What arrives is still read, and dropped: to close a socket with unread bytes resets it, and the peer loses our last words.
        if self._transport is not None and not self._ending and not self._transport.is_closing():
            self.resume()
            self._ending = True
            try:
                self._transport.write_eof()
            except OSError:  # the peer's end is gone already
                self._transport.abort()

    def abort(self) -> None:
        self._ending = True
        if self._transport is not None:
            self._transport.abort()


async def dial(node: Node, host: str, port: int, address: bytes, source_host: str | None = None) -> Connection:
    """An open connection to the node with that address at a TCP endpoint; ``source_host`` is the own IP address to call from.

    Raises HandshakeFailed if there is none in ``handshake_s``, WrongPeer, WrongChain, NoCommonVersion, Busy as the peer says, Lost
    of a node that was closed.
    """
    node.require_open()
    link = TcpLink(node, lambda made: Connection(node, made, dialed=True, expect=address), accepted=False)
    source = None if source_host is None else (source_host, 0)
    try:
        async with asyncio.timeout(node.limits.handshake_s):
            await asyncio.get_running_loop().create_connection(lambda: link, host, port, local_addr=source)
    except TimeoutError:
        raise HandshakeFailed(f"no TCP connection to {host}:{port} in {node.limits.handshake_s:g} s") from None
    except OSError as error:
        raise HandshakeFailed(f"no TCP connection to {host}:{port}: {error}") from None
    except (ValueError, OverflowError):
        # What the resolver raises for a name with a label of 64 letters or a NUL, and for a port beyond 65,535.
        raise HandshakeFailed(f"no TCP connection to {host[:256]!a}:{port}: expected a host's name or IP address, and a port of 1 to 65535") from None
    try:
        node.require_open()
    except Lost:
        link.abort()
        raise
    assert link.connection is not None
    return await opened(link.connection)


async def opened(connection: Connection) -> Connection:
    """Waits until a dialed connection is open. Raises its error; cancelled, it closes it."""
    try:
        await connection.opened
    except asyncio.CancelledError:
        connection.close()
        raise
    return connection


class Server:
    """Lets peers in: TCP listeners of a node. Their requests go to the node's handlers."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._listeners: list[asyncio.Server] = []

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Listens at an IP address and a port, 0 for a free one; returns both. Raises OSError if it is taken."""
        node = self.node

        def accept() -> TcpLink:
            return TcpLink(node, lambda link: Connection(node, link, dialed=False), accepted=True)

        listener = await asyncio.get_running_loop().create_server(accept, host, port, backlog=BACKLOG)
        self._listeners.append(listener)
        name = listener.sockets[0].getsockname()
        log.info("wire listens", host=name[0], port=name[1], address=node.address.hex())
        return str(name[0]), int(name[1])

    async def drain(self, timeout_s: float) -> None:
        """Lets nobody in any more, lets requests end for ``timeout_s``, and closes."""
        self._stop()
        await asyncio.gather(*(connection.drain(timeout_s) for connection in list(self.node.connections)))
        await self.close()

    async def close(self) -> None:
        """Closes the listeners and every connection of the node, which may call others still: it ends what it has begun."""
        self._stop()
        await self.node.end_all()
        for listener in self._listeners:
            await listener.wait_closed()
        self._listeners.clear()

    def _stop(self) -> None:
        for listener in self._listeners:
            listener.close()


def describe(error: BaseException) -> str:
    """An error in a line: its class, for a WireError, says as much as its text."""
    return f"{type(error).__name__}: {error}" if isinstance(error, WireError) else repr(error)
