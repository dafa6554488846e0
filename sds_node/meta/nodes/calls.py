"""Calls to resource nodes: over the connection that a node made, or to where it listens; and what a node must hear, told until it took it.

    ask ─► the node's own connection, else its endpoint ─► answer
    tell_later ─► books, synced ─► one worker a node, in order ─┬─ took it ─► gone from the books
                                                               └─ not reached ─► again after 1 s, 2 s … 10 min, or when it says hello
                     └─ too many wait for it ─► it gets no new shares until it took them
    answers ─► where users would reach it ─ node.status ─► whether it is there, whatever users say of it

Source: ADR 9, "reaching nodes".
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from sds_node.meta.books.books import MAX_TELLS_OF_A_NODE, Books, BooksError, BooksFull
from sds_node.meta.nodes.hello import BadEndpoint, endpoint_of
from sds_node.meta.nodes.registry import Contact, Registry
from sds_node.meta.rules.tables import GONE
from sds_node.transfers import STATUS
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection
from sds_node.wire.node import Node as WireNode
from sds_node.wire.node import dial
from sds_node.wire.peer import Direct, Peer

log = structlog.get_logger("nodes")

MAX_PEERS: Final = 1_000
MAX_WORKERS: Final = 64
"""Nodes that are told at a time."""
TOLD_AT_ONCE: Final = 100
LOOK_S: Final = 1.0
LONGEST_WAIT_S: Final = 600.0
IDLE_S: Final = 30.0
"""A node that moves nothing for so long has not taken a message."""
TRY_S: Final = 15.0
"""In so long a node of which users complain must answer."""
STATUS_BYTES: Final = 64 << 10


class Calls(Protocol):
    """How nodes are asked: what repair, audits and those who give manifests need of ``NodeCalls``."""

    async def ask(
        self, number: int, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 1 << 20, idle_s: float | None = None
    ) -> bytes: ...


class NodeCalls:
    """How one meta node reaches resource nodes. ``run`` tells what waits in the books; ``close`` ends the connections that were made here."""

    def __init__(self, wire: WireNode, registry: Registry, books: Books, clock: Callable[[], float]) -> None:
        self._wire, self._registry, self._books, self._clock = wire, registry, books, clock
        self._peers: OrderedDict[tuple[int, str], Peer] = OrderedDict()
        self._waits: dict[int, tuple[float, float]] = {}  # node → how long to wait after the last failure, and until when
        self._workers: dict[int, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        registry.on_heard.append(self.came)
        registry.attempt = self.answers

    async def ask(
        self, number: int, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 1 << 20, idle_s: float | None = None
    ) -> bytes:
        """A whole request to a node and its whole answer. Raises Unreachable when there is no way to it, and what the node or the wire says."""
        contact = self._registry.contact(number)
        if contact is None:
            raise wire_errors.Unreachable(f"the ledger has no node {number}")
        for connection in self._wire.connections_of(contact.address):
            if connection.usable:
                return await connection.ask(method, head, body, most_bytes=most_bytes, idle_s=idle_s)
        if not contact.endpoint:
            raise wire_errors.Unreachable(f"node {number} holds no connection to this meta node and has told no endpoint")
        return await self._peer(number, contact.address, contact.endpoint).ask(method, head, body, most_bytes=most_bytes, idle_s=idle_s)

    async def answers(self, number: int) -> bool:
        """Whether a node answers where users are sent: at its endpoint, by a connection made for this, or over the one that it holds for a relay. A refusal
        is an answer; so is that it has too much to do."""
        contact = self._registry.contact(number)
        if contact is None:
            return False
        made: Connection | None = None
        try:
            async with asyncio.timeout(TRY_S):
                connection = made = await self._dialed(contact) if contact.endpoint else None
                if connection is None:
                    connection = next((one for one in self._wire.connections_of(contact.address) if one.usable), None)
                if connection is None:
                    return False
                await connection.ask(STATUS, most_bytes=STATUS_BYTES)
        except (wire_errors.Refused, wire_errors.Busy):
            return True
        except (wire_errors.WireError, BadEndpoint, TimeoutError):
            return False
        finally:
            if made is not None:
                made.close()
        return True

    async def _dialed(self, contact: Contact) -> Connection:
        host, port = endpoint_of(contact.endpoint)
        return await dial(self._wire, host, port, contact.address)

    async def tell_later(self, number: int, method: str, body: bytes) -> None:
        """A node shall hear this, whenever it can be reached; it is on the disk when this returns. Messages to one node keep their order. Raises
        BooksFull when too many wait for it, which the registry hears of, and BooksError."""
        try:
            await self._books.tell_later(number, method, body)
        except BooksFull:
            self._registry.full(number)
            raise
        self._waits.setdefault(number, (0.0, 0.0))

    def came(self, number: int) -> None:
        """A node said hello: what waits for it is told now."""
        if number in self._waits:
            self._waits[number] = 0.0, 0.0

    async def run(self, every_s: float = LOOK_S) -> None:
        """Tell nodes what waits for them, until cancelled."""
        is_remembered = False
        try:
            while True:
                is_remembered = is_remembered or await self._remember()
                now_s = self._clock()
                for number, (_, until_s) in list(self._waits.items()):
                    if until_s <= now_s and number not in self._workers and len(self._workers) < MAX_WORKERS:
                        task = asyncio.get_running_loop().create_task(self._tell(number))
                        self._workers[number] = task
                        task.add_done_callback(lambda _, number=number: self._workers.pop(number, None))  # type: ignore[misc]
                await asyncio.sleep(every_s)
        finally:
            workers = list(self._workers.values())
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _remember(self) -> bool:
        """Whether it was read from the books for which nodes messages wait."""
        try:
            for number, count in (await self._books.nodes_to_tell()).items():
                self._waits.setdefault(number, (0.0, 0.0))
                if count >= MAX_TELLS_OF_A_NODE:
                    self._registry.full(number)
        except BooksError as error:
            log.error("it cannot be read yet what nodes are to be told", why=str(error))
            return False
        return True

    async def close(self) -> None:
        """End the connections that were dialed here."""
        await asyncio.gather(*(peer.close() for peer in self._peers.values()), *self._closing)
        self._peers.clear()

    async def _tell(self, number: int) -> None:
        """Tell a node all that waits, in order, until one is not taken."""
        try:
            while rows := await self._books.tells(number, TOLD_AT_ONCE):
                for row in rows:
                    if not await self._take(number, row.method, row.body):
                        return
                    await self._books.told([row.number])
            del self._waits[number]
            self._registry.emptied(number)
            if await self._books.tells(number, 1):  # one came while the last was told
                self._waits.setdefault(number, (0.0, 0.0))
        except BooksError as error:
            log.error("what nodes are to be told cannot be read", why=str(error))
            self._later(number)

    async def _take(self, number: int, method: str, body: bytes) -> bool:
        """Whether a message needs no more telling."""
        row = self._registry.rows().get(number)
        if row is not None and row.standing == GONE:
            return True
        try:
            await self.ask(number, method, body=body, idle_s=IDLE_S)
        except (wire_errors.BadRequest, wire_errors.UnknownMethod, wire_errors.TooMuch) as error:
            # Said again it would be the same.
            log.error("a node does not understand what it is told", node=number, method=method, why=str(error))
            return True
        except (wire_errors.WireError, BadEndpoint) as error:
            log.debug("a node is told later", node=number, method=method, why=str(error))
            self._later(number)
            return False
        return True

    def _later(self, number: int) -> None:
        wait_s, _ = self._waits.get(number, (0.0, 0.0))
        wait_s = min(max(1.0, wait_s * 2), LONGEST_WAIT_S)
        self._waits[number] = wait_s, self._clock() + wait_s

    def _peer(self, number: int, address: bytes, endpoint: str) -> Peer:
        key = (number, endpoint)
        peer = self._peers.pop(key, None)
        if peer is None:
            host, port = endpoint_of(endpoint)
            peer = Peer(self._wire, address, [Direct(host, port)])
        self._peers[key] = peer
        if len(self._peers) > MAX_PEERS:
            _, oldest = self._peers.popitem(last=False)
            task = asyncio.get_running_loop().create_task(oldest.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return peer
