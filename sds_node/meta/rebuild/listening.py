"""How a meta node without a ledger reaches resource nodes: it listens where they say hello, and asks over the connections that they make, or where they listen.

    node ─ node.hello ─► known: connection, endpoint          ask ─► its connection, else its endpoint
         ◄─ NodeWelcome: no new shares, come again in 10 s

The chain tells who is a node, and not where one is. Only nodes of the chain are listened to; nothing else is served.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

import structlog

from chain.codec.canonical import encode
from chain.metakeys import MetaKeys
from sds_node import asking
from sds_node.endpoints import endpoint_text
from sds_node.meta.nodes.hello import BadEndpoint, endpoint_of
from sds_node.transfers import parsed
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream

log = structlog.get_logger("rebuild")

SOFTWARE: Final = "stratos-spd/1"
NEXT_S: Final = 10
LOOK_S: Final = 0.2
IDLE_S: Final = 60.0
WHY: Final = "the meta nodes' ledger is made anew: nothing is stored meanwhile"


class Listener:
    """The wire of the meta node with these keys, for resource nodes by address (20 bytes) → P2P key. ``async with`` it; ``clock`` tells Unix seconds."""

    def __init__(
        self, keys: MetaKeys, chain_id: str, nodes: Mapping[bytes, bytes], host: str, port: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._nodes, self._host, self._port, self._clock = nodes, host, port, clock
        self.wire = Node(Identity(keys.network_seed), chain_id, {asking.NODE_HELLO: self._hello}, software=SOFTWARE)
        self._server = Server(self.wire)
        self._endpoints: dict[bytes, str] = {}
        self._peers: dict[bytes, Peer] = {}

    async def __aenter__(self) -> Listener:
        await self._server.listen(self._host, self._port)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))
        await self._server.close()

    @property
    def heard(self) -> list[bytes]:
        """Addresses of nodes that said hello."""
        return sorted(self._endpoints)

    def know(self, node: bytes, endpoint: str) -> None:
        """A node (20 bytes) listens there, as its operator says."""
        self._endpoints[node] = endpoint

    async def wait(self, wanted: int, timeout_s: float, progress: Callable[[str, int], None]) -> None:
        """Until so many nodes said hello, or for a time."""
        loop, seen = asyncio.get_running_loop(), 0
        until_s = loop.time() + timeout_s
        while True:
            if len(self._endpoints) > seen:
                progress("nodes", len(self._endpoints) - seen)
                seen = len(self._endpoints)
            if seen >= wanted or loop.time() >= until_s:
                return
            await asyncio.sleep(LOOK_S)

    async def ask(self, node: bytes, method: str, head: bytes, most_bytes: int) -> bytes:
        """A request to a node and its answer. Raises WireError."""
        for connection in self.wire.connections_of(node):
            if connection.usable:
                return await connection.ask(method, head, most_bytes=most_bytes, idle_s=IDLE_S)
        endpoint = self._endpoints.get(node)
        if not endpoint:
            raise wire_errors.Unreachable("it has not said hello, or its connection is lost and it has told no endpoint")
        if node not in self._peers:
            self._peers[node] = Peer(self.wire, node, [Direct(*endpoint_of(endpoint))])
        return await self._peers[node].ask(method, head, most_bytes=most_bytes, idle_s=IDLE_S)

    async def _hello(self, stream: Stream, connection: Connection) -> None:
        said: Any = parsed(asking.NodeHello, stream.head)
        remote = connection.remote
        if self._nodes.get(remote.address) != remote.public_key:
            raise wire_errors.Refused(asking.UNKNOWN_NODE, "the chain knows no resource node with this P2P key")
        host = remote.host if remote.relayed_by is None else ""
        endpoint = ""
        if not said.wants_relay:
            try:
                named, port = endpoint_of(said.endpoint)
            except BadEndpoint as error:
                raise wire_errors.Refused(asking.BAD_ASK, str(error)) from None
            endpoint = endpoint_text(named or host, port) if named or host else ""
        self._endpoints[remote.address] = endpoint
        welcome = asking.NodeWelcome(time_ms=int(self._clock() * 1_000), next_s=NEXT_S, seen_host=host, why_not_eligible=WHY)
        await stream.send(encode(welcome))
