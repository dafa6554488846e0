"""``node.hello``: a resource node says where it listens and what room it has; it hears when to come again, and why it gets no new shares, if it does not.

    hello ─ form ─► host seen by the connection ─┬─ said the same, or none ─► endpoint
                                                  └─ another one ─ dialed once in the background, it must prove the node's key ─► endpoint, or none
          ─ maintenance ─ budget (books) ─► until when      ─ was killed ─► costs score       ─► registry

Source: ADR 9; storage-protocol.md 3.3; sds.md 3.5 and 8.1.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog

from sds_node import asking
from sds_node.meta.books.books import Books
from sds_node.meta.nodes.handling import handler
from sds_node.meta.nodes.maintenance import WINDOW_S, Span, allowed_until_s
from sds_node.meta.nodes.registry import Registry, Seen, prefix_of
from sds_node.meta.rules.tables import GONE, MAX_ENDPOINT_BYTES, Node
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.node import Node as WireNode
from sds_node.wire.node import dial

log = structlog.get_logger("nodes")

MAX_SOFTWARE: Final = 128
MAX_BYTES: Final = (1 << 63) - 1
MAX_SECONDS: Final = 1 << 40
MAX_PROBES: Final = 16
"""Endpoints that are dialed at a time, over all nodes."""
PROBE_S: Final = 600
"""An endpoint that could not be reached is not dialed again for so long."""
MAX_PROBED: Final = 20_000
KILLED_SCORE: Final = -200
"""An improper stop; at most one in KILLED_S counts, since a node says so at each hello of its run."""
KILLED_S: Final = 3_600

Probe = Callable[[str, int, bytes], Awaitable[bool]]
"""(host, port, address) → whether the node with that address answers there."""


class BadEndpoint(ValueError):
    """A text that is no endpoint; the message says what was expected."""


def endpoint_of(text: str) -> tuple[str, int]:
    """(host, port) of ``host:port``, ``[IPv6]:port`` or ``:port``; the host may be empty. Raises BadEndpoint."""
    if len(text) > MAX_ENDPOINT_BYTES or not text.isascii() or not text.isprintable() or " " in text:
        raise BadEndpoint(f"endpoint: expected host:port of at most {MAX_ENDPOINT_BYTES} printable ASCII characters, got {len(text)} characters")
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise BadEndpoint(f"endpoint: expected an IPv6 address in brackets, got {text[:60]!a}")
    if not (port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise BadEndpoint(f"endpoint: expected a port from 1 to 65535 after the last colon, got {text[:60]!a}")
    return host, int(port)


def endpoint_text(host: str, port: int) -> str:
    """The one spelling of an endpoint."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def same_host(left: str, right: str) -> bool:
    """Whether two texts are the same host; IP addresses in any spelling."""
    try:
        return ipaddress.ip_address(left) == ipaddress.ip_address(right)
    except ValueError:
        return left.lower() == right.lower()


class Hellos:
    """The handler of ``node.hello`` of the meta node whose end of the wire is ``wire``. ``metas`` gives the MetaContacts that nodes are told."""

    def __init__(
        self,
        registry: Registry,
        books: Books,
        wire: WireNode,
        clock: Callable[[], float],
        metas: Callable[[], Sequence[Any]] = tuple,
        probe: Probe | None = None,
    ) -> None:
        self._registry, self._books, self._wire, self._clock, self._metas = registry, books, wire, clock, metas
        self._probe = probe or self._dial
        self._probing: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._probed: dict[tuple[int, str], tuple[float, bool]] = {}  # (node, endpoint) → when, and whether it was reached
        self._begun: dict[int, Span] = {}  # node in maintenance → since when, and until when it is allowed

    def handlers(self) -> dict[str, Handler]:
        """The method for ``wire.node.Node``."""
        return {asking.NODE_HELLO: handler(self._registry, asking.NodeHello, self._hello, in_body=False)}

    async def close(self) -> None:
        """End the dials that are under way."""
        tasks = list(self._probing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _hello(self, said: Any, row: Node, connection: Connection) -> Any:
        if row.standing == GONE:
            raise wire_errors.Refused(asking.UNKNOWN_NODE, "this resource node is gone on the chain: register and activate it again")
        self._check(said)
        now_s = self._clock()
        remote = connection.remote
        is_direct = remote.relayed_by is None
        host = remote.host if is_direct else ""
        before = self._registry.seen_of(row.number)
        was_online = before is not None and self._registry.is_online(row)
        seen = Seen(now_s, capacity_bytes=said.capacity_bytes, free_bytes=min(said.free_bytes, said.capacity_bytes), is_stopping=said.is_stopping)
        seen.prefix = prefix_of(host) or (before.prefix if before is not None else row.prefix)
        seen.is_relayed = said.wants_relay
        if before is not None:
            seen.score_change, seen.killed_s = before.score_change, before.killed_s
        if said.was_killed and now_s - seen.killed_s >= KILLED_S:
            seen.score_change, seen.killed_s = seen.score_change + KILLED_SCORE, now_s
        if not said.wants_relay:
            seen.endpoint = self._endpoint(said.endpoint, host, row)
        await self._maintain(seen, said, row, int(now_s))
        after = self._registry.seen_of(row.number)
        if after is not None and after is not before:
            # Another hello of this node, or a status, came in between: nothing of the score is lost or counted twice.
            seen.score_change, seen.killed_s = after.score_change, max(seen.killed_s, after.killed_s)
        self._registry.heard(row.number, seen)
        is_new = before is None or (before.endpoint, before.prefix, before.is_stopping, before.maintenance_until_s, before.is_over_budget) != (
            seen.endpoint, seen.prefix, seen.is_stopping, seen.maintenance_until_s, seen.is_over_budget
        )  # fmt: skip
        if is_new or not was_online:
            self._registry.changed.set()
        return asking.NodeWelcome(
            time_ms=int(now_s * 1_000),
            next_s=self._registry.hello_s,
            seen_host=host,
            node=row.number,
            score=row.score,
            standing=row.standing,
            shares=row.shares,
            why_not_eligible=self._registry.why_not(row.number),
            metas=self._metas(),
        )

    def _check(self, said: Any) -> None:
        for name in ("capacity_bytes", "free_bytes", "kept_bytes"):
            if getattr(said, name) > MAX_BYTES:
                raise wire_errors.Refused(asking.BAD_ASK, f"{name}: expected at most 2^63 - 1, got {getattr(said, name)}")
        if not 0 <= said.maintenance_until_s <= MAX_SECONDS:
            raise wire_errors.Refused(asking.BAD_ASK, f"maintenance_until_s: expected Unix seconds or 0, got {said.maintenance_until_s}")
        if len(said.software) > MAX_SOFTWARE:
            raise wire_errors.Refused(asking.BAD_ASK, f"software: expected at most {MAX_SOFTWARE} characters, got {len(said.software)}")

    # --- where it listens ---------------------------------------------------------------------------------------------------

    def _endpoint(self, text: str, seen_host: str, row: Node) -> str:
        """The endpoint that others are told; empty while it is not known to be the node's."""
        try:
            host, port = endpoint_of(text)
        except BadEndpoint as error:
            raise wire_errors.Refused(asking.BAD_ASK, f"{error}: name one, or ask for a relay (wants_relay)") from None
        if not host and not seen_host:
            raise wire_errors.Refused(asking.BAD_ASK, "endpoint: expected a host, since this connection came through a relay and shows none")
        endpoint = endpoint_text(host or seen_host, port)
        if not host or (seen_host and same_host(host, seen_host)):
            return endpoint
        key = (row.number, endpoint)
        at_s, is_reached = self._probed.get(key, (float("-inf"), False))
        # One dial at a time for a node, since who is dialed is its word alone.
        is_dialing = len(self._probing) >= MAX_PROBES or any(number == row.number for number, _ in self._probing)
        if not is_reached and not is_dialing and self._clock() - at_s >= PROBE_S:
            task = asyncio.get_running_loop().create_task(self._probe_it(key, host, port, row.address))
            self._probing[key] = task
            task.add_done_callback(lambda _: self._probing.pop(key, None))
        return endpoint if is_reached else ""

    async def _probe_it(self, key: tuple[int, str], host: str, port: int, address: bytes) -> None:
        number, endpoint = key
        is_reached = await self._probe(host, port, address)
        if len(self._probed) >= MAX_PROBED:
            self._probed.clear()
        self._probed[key] = self._clock(), is_reached
        log.info("a node's endpoint was dialed", node=number, endpoint=endpoint, is_reached=is_reached)
        seen = self._registry.seen_of(number)
        if is_reached and seen is not None and not seen.endpoint and not seen.is_relayed:
            seen.endpoint = endpoint
            self._registry.heard(number, seen)
            self._registry.changed.set()

    async def _dial(self, host: str, port: int, address: bytes) -> bool:
        try:
            connection = await dial(self._wire, host, port, address)
        except wire_errors.WireError:
            return False
        connection.close()
        return True

    # --- maintenance --------------------------------------------------------------------------------------------------------

    async def _maintain(self, seen: Seen, said: Any, row: Node, now_s: int) -> None:
        """Set until when the node is in maintenance, as far as its budget goes. What it used is in the books."""
        begun = self._begun.get(row.number)
        if said.maintenance_until_s <= now_s:
            if begun is not None:
                del self._begun[row.number]
                await self._books.note_maintenance(row.number, begun[0], min(now_s, begun[1]), now_s - WINDOW_S)
            return
        spans: list[Span] = await self._books.maintenance(row.number)
        if begun is None:
            # A span that goes on belongs to a maintenance that began before this meta node was started again.
            begun = next((span for span in spans if span[1] > now_s), (now_s, now_s))
        from_s = begun[0]
        allowed_s = allowed_until_s([span for span in spans if span[0] != from_s], from_s, now_s)
        until_s = min(said.maintenance_until_s, allowed_s)
        self._begun[row.number] = from_s, until_s
        if (from_s, until_s) not in spans:
            await self._books.note_maintenance(row.number, from_s, until_s, now_s - WINDOW_S)
        seen.is_over_budget = until_s <= now_s
        seen.maintenance_until_s = 0 if seen.is_over_budget else until_s
