"""``node.hello``: a resource node says where it listens and what room it has; it hears when to come again, and why it gets no new shares, if it does not.

    hello ─ form ─► host seen by the connection ─┬─ said the same, or none ─► endpoint
                                                  └─ another one ─ dialed once in the background, it must prove the node's key ─► endpoint and prefix
          ─ maintenance ─ budget (books) ─► until when      ─ was killed ─► costs score       ─► registry

Source: ADR 9; storage-protocol.md 3.3; sds.md 3.5 and 8.1.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from sds_node import asking
from sds_node.endpoints import endpoint_text
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
MAX_PROBES: Final = 64
"""Endpoints that are dialed at a time, over all nodes."""
PROBE_S: Final = 5.0
"""In so long an endpoint must have proved the node's key."""
PROBE_AGAIN_S: Final = 60
"""A node's endpoint is not dialed again sooner, whatever the node says; one that could not be reached not for FAILED_S."""
FAILED_S: Final = 600
MOST_BEGUN: Final = 16
"""Maintenances that may begin within a day; what is more counts as offline."""
DAY_S: Final = 86_400
OWN_NETWORKS: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)
"""Networks that are not the internet's: an address there is dialed only for a node that is seen in the same one."""
KILLED_SCORE: Final = -200
"""An improper stop; at most one in KILLED_S counts, since a node says so at each hello of its run."""
KILLED_S: Final = 3_600

Probe = Callable[[str, int, bytes, str], Awaitable[str]]
"""(host, port, a node's address, where the node is seen) → the IP address at which that node answers; empty where it does not."""


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


def same_host(left: str, right: str) -> bool:
    """Whether two texts are the same host; IP addresses in any spelling."""
    try:
        return ipaddress.ip_address(left) == ipaddress.ip_address(right)
    except ValueError:
        return left.lower() == right.lower()


def may_dial(host: str, seen_host: str) -> bool:
    """Whether an IP address may be dialed on the word of a node that is seen at ``seen_host``."""
    try:
        address = _plain(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return False
    if address.is_multicast or address.is_unspecified:
        return False
    networks = [network for network in OWN_NETWORKS if address in network]
    if not networks:
        return address.is_global
    try:
        seen = _plain(ipaddress.ip_address(seen_host.partition("%")[0]))
    except ValueError:
        return False
    return any(seen in network for network in networks)


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@dataclass(frozen=True, slots=True)
class _Probed:
    """What came of a node's last probe: ``host`` is the IP address where it answered, empty where it did not."""

    endpoint: str
    at: float
    host: str


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
        self._probing: dict[int, asyncio.Task[None]] = {}
        self._probed: dict[int, _Probed] = {}
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
        if not said.wants_relay:
            seen.endpoint, dialed_host = self._endpoint(said.endpoint, host, row)
            seen.is_named = bool(endpoint_of(said.endpoint)[0])
            # Where users are sent counts, not where the node calls from: addresses to call from cost nothing.
            seen.prefix = prefix_of(dialed_host) or seen.prefix
        await self._maintain(seen, said, row, int(now_s))
        after = self._registry.seen_of(row.number)
        if after is not None:
            # As it is now: another hello of this node, or a status, may have come in between, and nothing of the score is lost or counted twice.
            seen.score_change, seen.killed_at, seen.told_ms = after.score_change, after.killed_at, after.told_ms
        if said.was_killed and self._registry.monotonic() - seen.killed_at >= KILLED_S:
            seen.score_change, seen.killed_at = seen.score_change + KILLED_SCORE, self._registry.monotonic()
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

    def _endpoint(self, text: str, seen_host: str, row: Node) -> tuple[str, str]:
        """(the endpoint that others are told, the IP address there); both empty while it is not known to be the node's."""
        try:
            host, port = endpoint_of(text)
        except BadEndpoint as error:
            raise wire_errors.Refused(asking.BAD_ASK, f"{error}: name one, or ask for a relay (wants_relay)") from None
        if not host and not seen_host:
            raise wire_errors.Refused(asking.BAD_ASK, "endpoint: expected a host, since this connection came through a relay and shows none")
        endpoint = endpoint_text(host or seen_host, port)
        if not host or (seen_host and same_host(host, seen_host)):
            return endpoint, host or seen_host
        number, before = row.number, self._probed.get(row.number)
        if before is not None and before.host and before.endpoint == endpoint:
            return endpoint, before.host
        # Who is dialed is the node's word alone, so it has one dial in a while.
        wait_s = float("-inf") if before is None else before.at + (FAILED_S if before.endpoint == endpoint else PROBE_AGAIN_S)
        if number not in self._probing and len(self._probing) < MAX_PROBES and self._registry.monotonic() >= wait_s:
            task = asyncio.get_running_loop().create_task(self._probe_it(row, endpoint, host, port, seen_host))
            self._probing[number] = task
            task.add_done_callback(lambda _: self._probing.pop(number, None))
        return "", ""

    async def _probe_it(self, row: Node, endpoint: str, host: str, port: int, seen_host: str) -> None:
        number = row.number
        found = await self._probe(host, port, row.address, seen_host)
        self._probed[number] = _Probed(endpoint, self._registry.monotonic(), found)
        log.info("a node's endpoint was dialed", node=number, endpoint=endpoint, is_reached=bool(found))
        seen = self._registry.seen_of(number)
        if found and seen is not None and not seen.endpoint and not seen.is_relayed:
            seen.endpoint, seen.prefix = endpoint, prefix_of(found) or seen.prefix
            self._registry.found()

    async def _dial(self, host: str, port: int, address: bytes, seen_host: str) -> str:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PROBE_S):
                # The address is chosen here, so that a name leads nowhere else than what was looked at.
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                chosen = next((str(one[4][0]) for one in found if may_dial(str(one[4][0]), seen_host)), "")
                if not chosen:
                    return ""
                connection = await dial(self._wire, chosen, port, address)
        except (wire_errors.WireError, OSError, UnicodeError):  # TimeoutError is an OSError
            return ""
        connection.close()
        return chosen

    # --- maintenance --------------------------------------------------------------------------------------------------------

    async def _maintain(self, seen: Seen, said: Any, row: Node, now_s: int) -> None:
        """Set until when the node is in maintenance, as far as its budget goes. What it used is in the books."""
        begun = self._begun.get(row.number)
        if said.maintenance_until_s <= now_s:
            if begun is not None:
                del self._begun[row.number]
                await self._books.note_maintenance(row.number, begun[0], min(now_s, begun[1]), now_s - WINDOW_S, is_over=True)
            return
        spans: list[Span] = await self._books.maintenance(row.number)
        if begun is None:
            # A span that goes on belongs to a maintenance that began before this meta node was started again.
            begun = next((span for span in spans if span[1] > now_s), (now_s, now_s))
        from_s = begun[0]
        if (from_s, begun[1]) not in spans and sum(span[0] > now_s - DAY_S for span in spans if span[0] != from_s) >= MOST_BEGUN:
            seen.is_over_budget = True
            return
        allowed_s = allowed_until_s([span for span in spans if span[0] != from_s], from_s, now_s)
        until_s = min(said.maintenance_until_s, allowed_s)
        self._begun[row.number] = from_s, until_s
        if (from_s, until_s) not in spans:
            await self._books.note_maintenance(row.number, from_s, until_s, now_s - WINDOW_S)
        seen.is_over_budget = until_s <= now_s
        seen.maintenance_until_s = 0 if seen.is_over_budget else until_s
