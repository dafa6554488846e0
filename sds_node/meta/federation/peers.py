"""The other meta nodes: connections to them, who of them is there, where they are reached, and who is let in.

    every 3 s  meta.hello ─► each active meta node of the ledger ─► greeting: endpoint, sequence, height, time ─┐
               meta.hello ◄─ each of them ───────────────────────────────────────────────────────────────────────┴─► online (15 s), contacts, problems

    ask, ask_all ─► the newest connection, whoever made it ─ none ─► dial: network.peers, else what it told          answers as they come
    a request ─► is its caller an active meta node here? ─► a place among its own requests ─► body, bounded ─► work

Source: docs/adr/0010; docs/adr/0009.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from chain.codec.canonical import encode
from sds_node import asking, p2p
from sds_node.endpoints import endpoint_text
from sds_node.meta.books.books import BooksError
from sds_node.meta.ledger import errors as ledger_errors
from sds_node.meta.nodes.hello import BadEndpoint, endpoint_of
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.observe import active_metas
from sds_node.meta.rules.tables import Meta
from sds_node.meta.rules.wire import MAX_METAS
from sds_node.meta.users.roots import RootsError
from sds_node.transfers import parsed
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.limits import Bucket
from sds_node.wire.node import Node as WireNode
from sds_node.wire.node import describe
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream

log = structlog.get_logger("metas")

HELLO_S: Final = 3.0
BEHIND: Final = 1_000
"""A meta node whose ledger has so many operations less has no duties."""
ONLINE_S: Final = 15.0
"""Who greeted, or was greeted, within so long is there."""
GREET_S: Final = 5.0
"""In so long a greeting is answered."""
BODY_S: Final = 30.0
"""In so long a request's body comes in."""
MAX_SKEW_S: Final = 5.0
"""Clocks of meta nodes that are further apart are for their operators to set."""
MAX_GREETING_BYTES: Final = 1_024
MAX_HEAD_BYTES: Final = 1_024


class BadPeer(ValueError):
    """A text that names no meta node; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """A meta node as ``network.peers`` names it. ``address`` has 20 bytes, ``p2p_key`` 32, none where only the address is written."""

    address: bytes
    p2p_key: bytes
    endpoint: str


def known_peer(text: str) -> KnownPeer:
    """The meta node in ``stsdspub1…@host:port`` or ``stsds1…@host:port``. Raises BadPeer."""
    who, _, endpoint = text.rpartition("@")
    try:
        key = p2p.parse_public_key(who) if who.startswith("stsdspub1") else b""
        address = p2p.address_of(key) if key else p2p.parse_address(who)
        host, port = endpoint_of(endpoint)
    except (p2p.P2PError, BadEndpoint) as error:
        raise BadPeer(f"network.peers: expected stsdspub1…@host:port or stsds1…@host:port, got {text[:120]!a}: {error}") from None
    if not host:
        raise BadPeer(f"network.peers: expected a host before the port, got {text[:120]!a}")
    return KnownPeer(address, key, endpoint_text(host, port))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one meta node may ask for by a method: requests at once, bytes of a body; where an answer costs much, requests per second after ``burst`` of them, so
    that one that asks all the time leaves time for the others."""

    at_once: int
    most_bytes: int
    per_s: float | None = None
    burst: int = 1


Work = Callable[[bytes, bytes, bytes], Awaitable[bytes]]
"""(the caller's address, head, body) → the answer. What it raises is told as a refusal."""


@dataclass(slots=True)
class _Other:
    """What is known of another meta node. ``at`` is by the monotonic clock; ``skew_s`` is how far its clock is ahead."""

    known: KnownPeer | None = None
    p2p_key: bytes = b""
    told: str = ""
    at: float = float("-inf")
    sequence: int = 0
    height: int = 0
    is_ready: bool = False
    skew_s: float = 0.0
    why: str = ""
    peer: Peer | None = None
    asked: Counter[str] = field(default_factory=Counter)
    """Its requests here that are under way, by method."""
    rates: dict[str, Bucket] = field(default_factory=dict)
    """Those that it may begin, by method."""

    @property
    def endpoint(self) -> str:
        """Where others reach it: what it told, else what the operator wrote."""
        return self.told or (self.known.endpoint if self.known is not None else "")


class Peers:
    """The other meta nodes of the one whose end of the wire is ``wire`` and whose MetaContact is ``own``. ``peers`` are texts of ``network.peers``; ``standing``
    tells the own ledger's height of the value chain and whether this meta node is ready; ``clock`` tells Unix seconds. Run ``run`` as a task; ``close`` ends
    the connections that were made here. Raises BadPeer.
    """

    def __init__(
        self,
        wire: WireNode,
        ledger: AnyLedger,
        own: Any,
        clock: Callable[[], float],
        *,
        peers: Sequence[str] = (),
        standing: Callable[[], tuple[int, bool]] = lambda: (0, False),
        monotonic: Callable[[], float] = time.monotonic,
        hello_s: float = HELLO_S,
        online_s: float = ONLINE_S,
    ) -> None:
        self._wire, self._ledger, self._own, self._clock, self._standing = wire, ledger, own, clock, standing
        self._monotonic, self._hello_s, self._online_s = monotonic, hello_s, online_s
        self.address: Final = wire.address
        self._others: dict[bytes, _Other] = {}
        for one in map(known_peer, peers):
            if one.address != self.address:
                self._others[one.address] = _Other(one, one.p2p_key)
        self._active: dict[bytes, Meta] = {}
        self._sequence = -1
        self._refreshing = asyncio.Lock()
        self._greeting: dict[bytes, asyncio.Task[None]] = {}
        self._started = monotonic()

    # --- who is there -------------------------------------------------------------------------------------------------------

    def active(self) -> Mapping[bytes, Meta]:
        """The ledger's active meta nodes by address, as of the last ``refresh``."""
        return self._active

    def others(self) -> list[bytes]:
        """Addresses of the active meta nodes but this one, sorted."""
        return sorted(address for address in self._active if address != self.address)

    def online(self) -> list[bytes]:
        """Those of ``others_online``, and the own one, sorted."""
        return sorted([self.address, *self.others_online()])

    def others_online(self) -> list[bytes]:
        """Addresses of the other active meta nodes that greeted or were greeted within 15 s, sorted."""
        now = self._monotonic()
        return [address for address in self.others() if now - self._of(address).at <= self._online_s]

    def able(self) -> list[bytes]:
        """Those online that say that they follow the chain and are not far behind in the ledger; all that are online while nobody says so. The own one is
        among them."""
        there = self.others_online()
        able = [one for one in there if self._of(one).is_ready and self._of(one).sequence + BEHIND >= self._ledger.head.sequence]
        return sorted([self.address, *(able or there)])

    def contacts(self) -> list[Any]:
        """MetaContacts of this meta node and of the others whose key and endpoint are known, this one first."""
        found = [self._own]
        for address in self.others():
            other = self._of(address)
            if other.p2p_key and other.endpoint:
                found.append(asking.MetaContact(p2p_key=other.p2p_key, endpoint=other.endpoint))
        return found

    def problems(self) -> list[str]:
        """What is wrong with the others, in sentences."""
        found = []
        now = self._monotonic()
        for address in self.others():
            other, text = self._of(address), p2p.format_address(address)
            silent_s = now - max(other.at, self._started)
            if silent_s > self._online_s:
                why = f" ({other.why})" if other.why else ""
                found.append(
                    f"nothing was heard of meta node {text} for {silent_s:.0f} s{why}: see that it runs, and that network.peers here or there names the other"
                )
            elif abs(other.skew_s) > MAX_SKEW_S:
                found.append(f"the clock of meta node {text} is {other.skew_s:+.1f} s from the one here: have both set by NTP")
        return found

    def status(self) -> list[dict[str, Any]]:
        """What an operator is told of each other active meta node."""
        online = set(self.online())
        return [
            {
                "node": p2p.format_address(address),
                "endpoint": other.endpoint,
                "is_online": address in online,
                "is_ready": other.is_ready,
                "sequence": other.sequence,
                "height": other.height,
                "clock_ahead_s": round(other.skew_s, 3),
            }
            for address, other in ((one, self._of(one)) for one in self.others())
        ]

    async def refresh(self) -> None:
        """Read the ledger's meta nodes, if it has moved. Raises LedgerError."""
        async with self._refreshing:
            if self._ledger.head.sequence == self._sequence:
                return
            sequence, rows = await self._ledger.query(lambda view: (view.head.sequence, active_metas(view)))
            self._sequence, self._active = sequence, {row.address: row for row in rows[:MAX_METAS]}
            kept = self._active.keys() | {address for address, other in self._others.items() if other.known is not None or other.peer is not None}
            self._others = {address: other for address, other in self._others.items() if address in kept}

    async def run(self) -> None:
        """Greet the others until cancelled."""
        try:
            while True:
                try:
                    await self.refresh()
                except ledger_errors.LedgerError as error:
                    log.warning("the ledger's meta nodes cannot be read", why=str(error))
                for address in self.others():
                    if address not in self._greeting:
                        task = asyncio.get_running_loop().create_task(self.greet(address))
                        self._greeting[address] = task
                        task.add_done_callback(lambda _, address=address: self._greeting.pop(address, None))  # type: ignore[misc]
                await asyncio.sleep(self._hello_s)
        finally:
            tasks = list(self._greeting.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """End the connections that were made here."""
        await asyncio.gather(*(other.peer.close() for other in self._others.values() if other.peer is not None))

    # --- greetings ----------------------------------------------------------------------------------------------------------

    async def greet(self, address: bytes) -> None:
        """Say hello to an active meta node once. What goes wrong is noted."""
        other = self._of(address)
        height, is_ready = self._standing()
        hello = asking.MetaHello(endpoint=self._own.endpoint, sequence=self._ledger.head.sequence, height=height, is_ready=is_ready)
        try:
            async with asyncio.timeout(GREET_S):
                connection = await self._connection(address)
                before_s = self._clock()
                raw = await connection.ask(asking.META_HELLO, encode(hello), most_bytes=MAX_GREETING_BYTES, idle_s=GREET_S)
                said = parsed(asking.MetaGreeting, raw)
        except (wire_errors.WireError, TimeoutError) as error:
            other.why = describe(error) if isinstance(error, wire_errors.WireError) else f"no answer in {GREET_S:g} s"
            log.debug("a meta node is not greeted", node=p2p.format_address(address), why=other.why)
            return
        # Its clock was read somewhere between: an answer that took long says little, and is not held against it.
        after_s = self._clock()
        ahead_s = said.time_ms / 1_000 - (before_s + after_s) / 2
        unsure_s = abs(after_s - before_s) / 2
        other.skew_s = 0.0 if abs(ahead_s) <= unsure_s else ahead_s - unsure_s if ahead_s > 0 else ahead_s + unsure_s
        self._heard(address, connection, said)

    async def _hello(self, caller: bytes, head: bytes, body: bytes, connection: Connection) -> bytes:
        self._heard(caller, connection, parsed(asking.MetaHello, head))
        height, is_ready = self._standing()
        return encode(
            asking.MetaGreeting(
                endpoint=self._own.endpoint,
                sequence=self._ledger.head.sequence,
                height=height,
                is_ready=is_ready,
                time_ms=int(self._clock() * 1_000),
            )
        )

    def _heard(self, address: bytes, connection: Connection, said: Any) -> None:
        """Another meta node said something in a MetaHello or MetaGreeting."""
        other, remote = self._of(address), connection.remote
        if other.at == float("-inf"):
            log.info("a meta node is there", node=p2p.format_address(address), endpoint=said.endpoint[:100])
        other.at, other.p2p_key, other.why = self._monotonic(), remote.public_key, ""
        other.sequence, other.height, other.is_ready = said.sequence, said.height, said.is_ready
        other.told = _told_endpoint(said.endpoint, remote.host if remote.relayed_by is None else "") or other.told
        if other.peer is not None:
            other.peer.routes = tuple(self._routes(other))

    # --- asking -------------------------------------------------------------------------------------------------------------

    async def ask(
        self, address: bytes, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 1 << 20, timeout_s: float = 10.0
    ) -> bytes:
        """A whole request to a meta node and its whole answer, of at most ``most_bytes``, within ``timeout_s``. Raises TimedOut, Unreachable, and what the
        other or the wire says (WireError)."""
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    connection = await self._connection(address)
                    return await connection.ask(method, head, body, most_bytes=most_bytes, idle_s=timeout_s)
                except wire_errors.Draining:
                    # It did not begin with this request; another connection is as good.
                    connection = await self._connection(address)
                    return await connection.ask(method, head, body, most_bytes=most_bytes, idle_s=timeout_s)
        except TimeoutError:
            raise wire_errors.TimedOut(f"meta node {p2p.format_address(address)} has not answered {method} in {timeout_s:g} s") from None

    async def ask_all(
        self,
        method: str,
        body: bytes = b"",
        *,
        head: bytes = b"",
        most_bytes: int = 1 << 20,
        timeout_s: float = 10.0,
        addresses: Iterable[bytes] | None = None,
    ) -> AsyncIterator[tuple[bytes, bytes]]:
        """(address, answer) of the other active meta nodes, or of some, as answers come; those that fail are logged and left out. Whoever leaves early gives
        up what is still asked: iterate under ``contextlib.aclosing``."""

        async def one(address: bytes) -> tuple[bytes, bytes] | None:
            try:
                return address, await self.ask(address, method, head, body, most_bytes=most_bytes, timeout_s=timeout_s)
            except wire_errors.WireError as error:
                log.info("a meta node does not give what is asked", node=p2p.format_address(address), method=method, why=describe(error))
                return None

        tasks = [asyncio.get_running_loop().create_task(one(address)) for address in (self.others() if addresses is None else addresses)]
        try:
            for done in asyncio.as_completed(tasks):
                answer = await done
                if answer is not None:
                    yield answer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, address: bytes) -> Connection:
        """The newest connection with a meta node, whoever made it; a new one if there is none. Raises Unreachable, and what dialing raises."""
        usable = [one for one in self._wire.connections_of(address) if one.usable]
        if usable:
            # Of a machine that vanished and is back, an older one may still look open.
            return usable[-1]
        other = self._of(address)
        routes = self._routes(other)
        if not routes:
            raise wire_errors.Unreachable(
                f"no endpoint of meta node {p2p.format_address(address)} is known, and it has not called: name it in network.peers"
            )
        if other.peer is None:
            other.peer = Peer(self._wire, address, routes)
        return await other.peer.connect()

    def _routes(self, other: _Other) -> list[Direct]:
        texts = dict.fromkeys(text for text in (other.known.endpoint if other.known is not None else "", other.told) if text)
        return [Direct(*endpoint_of(text)) for text in texts]

    def _of(self, address: bytes) -> _Other:
        return self._others.setdefault(address, _Other())

    # --- who asks here ------------------------------------------------------------------------------------------------------

    def handlers(self) -> dict[str, Handler]:
        """``meta.hello``, for ``wire.node.Node``."""
        return {asking.META_HELLO: self._serve(Bounds(4, 0), self._hello)}

    def guarded(self, bounds: Bounds, work: Work) -> Handler:
        """A handler for active meta nodes of this ledger alone, each within bounds of its own."""
        return self._serve(bounds, lambda caller, head, body, _: work(caller, head, body))

    def _serve(self, bounds: Bounds, work: Callable[[bytes, bytes, bytes, Connection], Awaitable[bytes]]) -> Handler:
        async def serve(stream: Stream, connection: Connection) -> None:
            with _told(stream.method):
                caller = await self._caller(connection)
                if len(stream.head) > MAX_HEAD_BYTES:
                    raise wire_errors.BadRequest(f"expected a head of at most {MAX_HEAD_BYTES} bytes, got {len(stream.head)}")
                with self._place(caller, stream.method, bounds):
                    try:
                        async with asyncio.timeout(BODY_S):
                            body = await stream.receive_all(bounds.most_bytes)
                    except TimeoutError:
                        raise wire_errors.TimedOut(f"expected the whole body within {BODY_S:g} s") from None
                    answer = await work(caller, stream.head, body, connection)
            await stream.send(answer)

        return serve

    async def _caller(self, connection: Connection) -> bytes:
        """The address of a meta node that may ask. Raises the refusal, and LedgerError."""
        address = connection.remote.address
        if address not in self._active:
            await self.refresh()
        if address not in self._active:
            raise wire_errors.Refused(
                asking.UNKNOWN_NODE,
                "only active meta nodes of this ledger are answered, and this P2P key is none of theirs: register it on the chain, or wait a few blocks",
            )
        return address

    @contextlib.contextmanager
    def _place(self, caller: bytes, method: str, bounds: Bounds) -> Iterator[None]:
        other, now = self._of(caller), self._monotonic()
        asked, rate = other.asked, other.rates.get(method)
        if rate is None:
            rate = other.rates[method] = Bucket(bounds.per_s, bounds.burst - 1, now)
        if asked[method] >= bounds.at_once:
            raise wire_errors.Busy(f"{bounds.at_once} requests of this meta node for {method} are under way here: ask again in a moment")
        if (wait_s := rate.wait_s(now)) > 0:
            raise wire_errors.Busy(f"this meta node asks for {method} more often than {bounds.per_s:g} times a second: ask again in {wait_s:.1f} s")
        rate.take(1, now)
        asked[method] += 1
        try:
            yield
        finally:
            asked[method] -= 1


def _told_endpoint(text: str, seen_host: str) -> str:
    """An endpoint as others can use it; empty for a text that is none. A host that stands for all addresses is the one that was seen."""
    try:
        host, port = endpoint_of(text)
    except BadEndpoint:
        return ""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_multicast:
            return ""
        if address.is_unspecified:
            host = ""
    host = host or seen_host
    return endpoint_text(host, port) if host else ""


@contextlib.contextmanager
def _told(method: str) -> Iterator[None]:
    """Have errors come out as the caller shall read them."""
    try:
        yield
    except wire_errors.WireError:
        raise
    except ledger_errors.Busy:
        raise wire_errors.Busy("the ledger of this meta node has too much to do: ask again in a moment") from None
    except (ledger_errors.LedgerError, BooksError, RootsError) as error:
        log.error("another meta node's request cannot be served", method=method, why=str(error))
        raise wire_errors.Refused(asking.NOT_READY, "this meta node cannot read its ledger or books now: ask again later") from None
