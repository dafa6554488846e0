"""Requests of resource nodes as handlers: a head or a body in, one message out; what goes wrong comes out as a refusal that says what to do.

    head, body ─ parsed ─► work(message, node's row, connection) ─► answer            no node of the chain ─► UNKNOWN_NODE

Source: docs/adr/0009.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import structlog

from chain.codec.canonical import encode
from sds_node import asking
from sds_node.meta.books.books import BooksError
from sds_node.meta.ledger import errors as ledger_errors
from sds_node.meta.nodes.registry import Registry
from sds_node.meta.rules.tables import Node
from sds_node.transfers import parsed
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.stream import Stream

log = structlog.get_logger("nodes")

Work = Callable[[Any, Node, Connection], Awaitable[Any]]
"""(the message, the row of the node that asks, its connection) → the answer."""


def handler(registry: Registry, kind: Any, work: Work, *, in_body: bool) -> Handler:
    """A handler of requests of resource nodes whose head, or body of at most 8 MiB, is a ``kind``; None for requests that say nothing."""

    async def serve(stream: Stream, connection: Connection) -> None:
        with _told(stream.method):
            row = await node_of(registry, connection)
            raw = await stream.receive_all(asking.MAX_BODY_BYTES) if in_body else stream.head
            answer = await work(None if kind is None else parsed(kind, raw), row, connection)
        await stream.send(encode(answer))

    return serve


async def node_of(registry: Registry, connection: Connection) -> Node:
    """The row of the node at the other end, which proved its key. Raises the refusal UNKNOWN_NODE, and LedgerError."""
    address = connection.remote.address
    row = registry.row_of(address)
    if row is None:
        await registry.refresh()
        row = registry.row_of(address)
    if row is None or row.p2p_key != connection.remote.public_key:
        raise wire_errors.Refused(
            asking.UNKNOWN_NODE,
            "the chain knows no resource node with this P2P key: register it there and activate it, or wait a few blocks if that was just done",
        )
    return row


@contextlib.contextmanager
def _told(method: str) -> Iterator[None]:
    """Have errors come out as the caller shall read them."""
    try:
        yield
    except wire_errors.WireError:
        raise
    except ledger_errors.Busy:
        raise wire_errors.Busy("the ledger of this meta node has too much to do: ask again in a moment, or another meta node") from None
    except (ledger_errors.LedgerError, BooksError) as error:
        log.error("a node's request cannot be served", method=method, why=str(error))
        raise wire_errors.Refused(asking.NOT_READY, "this meta node cannot serve nodes now: ask again later, or another meta node") from None
