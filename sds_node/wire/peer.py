"""A peer as those see it who call it: an address, the routes to it, a few connections that are made when they are needed.

Peer.call ─► a connection with room ─► Stream             routes: Direct(host, port) or Through(relay), tried in order
      └── none: dial, once for all who wait
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog

from sds_node.p2p import ADDRESS_BYTES
from sds_node.wire.connection import Connection
from sds_node.wire.errors import Draining, Lost, Unreachable, WireError, error_of
from sds_node.wire.node import Node, describe, dial
from sds_node.wire.relay import RELAY, accept_from, dial_through, refuse_from
from sds_node.wire.stream import Stream, exchange

log = structlog.get_logger("wire")

MAX_ROUTES: Final = 16
# Another connection is made when all of them carry so many calls.
SPREAD_CALLS: Final = 64
ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Direct:
    """A TCP endpoint. ``source_host`` is the own IP address to call from, None for any."""

    host: str
    port: int
    source_host: str | None = None


@dataclass(frozen=True, eq=False)
class Through:
    """By a relay that the peer is connected to."""

    relay: Peer


Route: TypeAlias = Direct | Through


class Peer:
    """A node that is called. ``address`` is 20 bytes; who answers at a route and cannot prove it is refused (WrongPeer)."""

    def __init__(self, node: Node, address: bytes, routes: Sequence[Route], *, connections: int = 2) -> None:
        if len(address) != ADDRESS_BYTES:
            raise ValueError(f"an address has {ADDRESS_BYTES} bytes, got {len(address)}")
        if not 0 < len(routes) <= MAX_ROUTES or connections < 1:
            raise ValueError(f"a peer has 1 to {MAX_ROUTES} routes and at least one connection, got {len(routes)} and {connections}")
        self.node, self.address, self.routes, self._most = node, address, tuple(routes), connections
        self._connections: list[Connection] = []
        self._dialing: asyncio.Task[Connection] | None = None

    async def call(self, method: str, head: bytes = b"", *, ended: bool = False, idle_s: float | None = None) -> Stream:
        """Opens a stream to the peer: ``async with await peer.call(…) as stream``. ``ended``: no data follows the head.

        Raises ValueError for a method or head out of bounds, what dialing raises, Busy, TimedOut, Draining.
        """
        for attempt in range(ATTEMPTS):
            connection = await self.connect()
            try:
                return await connection.call(method, head, ended=ended, idle_s=idle_s)
            except (Draining, Lost):
                # Nothing of this call was sent: another connection is as good.
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def ask(self, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 1 << 20, idle_s: float | None = None) -> bytes:
        """A whole request and its whole answer, of at most ``most_bytes``. Raises what ``call`` raises and what the callee ended with.

        A request that a draining peer did not begin with is made once more; no other is ever sent twice.
        """
        try:
            return await exchange(await self.call(method, head, ended=not body, idle_s=idle_s), body, most_bytes)
        except Draining:
            return await exchange(await self.call(method, head, ended=not body, idle_s=idle_s), body, most_bytes)

    async def connect(self) -> Connection:
        """A connection that takes calls: the least busy one, a new one if there is none. Raises what dialing raises."""
        self._connections = [one for one in self._connections if one.usable]
        best = min(self._connections, key=lambda one: one.calls, default=None)
        if best is not None:
            if best.calls >= SPREAD_CALLS and len(self._connections) < self._most:
                self._begin()
            return best
        task = self._begin()
        try:
            return await asyncio.shield(task)
        except WireError as error:
            # The task's own error is shared by all who wait.
            raise error_of(error.code, error.text) from None

    async def keep(self, *, reachable: bool = False) -> None:
        """Holds a connection to the peer until it is cancelled, and makes a new one when it is lost, after a time that doubles with each failure.

        ``reachable``: the peer is a relay, and calls that it carries here are taken (the node needs the capability ``reach``).
        """
        limits, failures = self.node.limits, 0
        self.node.kept[self.address] += 1
        if reachable:
            accept_from(self.node, self.address)
        try:
            while True:
                try:
                    connection = await self.connect()
                    failures = 0
                    await connection.retired.wait()
                except WireError as error:
                    failures += 1
                    log.info("peer is not reached", address=self.address.hex(), failures=failures, why=describe(error))
                # From half to the whole of it: nodes that lost a relay together do not come back together.
                wait_s = min(limits.redial_s * 2 ** min(failures, 16), limits.redial_most_s)
                await asyncio.sleep(wait_s * (512 + secrets.randbelow(513)) / 1024)
        finally:
            self.node.kept[self.address] -= 1
            if self.node.kept[self.address] <= 0:
                del self.node.kept[self.address]
            if reachable:
                refuse_from(self.node, self.address)

    async def close(self) -> None:
        """Ends the peer's connections that were dialed here."""
        if self._dialing is not None:
            self._dialing.cancel()
            await asyncio.gather(self._dialing, return_exceptions=True)
        for connection in self._connections:
            connection.close()
        for connection in self._connections:
            await connection.wait_closed()
        self._connections.clear()

    def _begin(self) -> asyncio.Task[Connection]:
        if self._dialing is None:
            self._dialing = asyncio.get_running_loop().create_task(self._dial())
            self._dialing.add_done_callback(self._dialed)
        return self._dialing

    def _dialed(self, task: asyncio.Task[Connection]) -> None:
        self._dialing = None
        if not task.cancelled() and task.exception() is None:
            self._connections.append(task.result())

    async def _dial(self) -> Connection:
        failures: list[WireError] = []
        for route in self.routes:
            try:
                if isinstance(route, Direct):
                    return await dial(self.node, route.host, route.port, self.address, route.source_host)
                relayed = await route.relay.call(RELAY, self.address)
                return await dial_through(self.node, relayed, route.relay.address, self.address)
            except WireError as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        raise Unreachable(f"no route to {self.address.hex()}: {'; '.join(describe(error) for error in failures)}")
