"""A node's tie to one meta node: a connection that is kept, and a hello on it whenever something changed or the meta node wants one.

    changed ─┐
    next_s ──┼─► node.hello ─► NodeWelcome ─► standing, score, why not eligible, other meta nodes
    lost ────┘        └── refused or unreachable: again after a time that doubles, from 1 s to 60 s

Source: docs/adr/0009 (node.hello); storage-interfaces.md 9.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode, known
from sds_node.asking import NODE_HELLO, NodeWelcome
from sds_node.p2p import format_address
from sds_node.resource.daemon.config import MetaNode
from sds_node.wire.errors import WireError
from sds_node.wire.node import Node, describe
from sds_node.wire.peer import Direct, Peer

log = structlog.get_logger("meta")

MAX_WELCOME_BYTES: Final = 64 << 10
MAX_TEXT: Final = 1_000
NEXT_LEAST_S: Final = 1
NEXT_MOST_S: Final = 600
NOT_YET_S: Final = 10
"""A node that gets no new shares asks so soon again whether that has changed."""
RETRY_S: Final = 1.0
RETRY_MOST_S: Final = 60.0
ASK_S: Final = 30.0
MISSED: Final = 3
"""After so many times ``next_s`` without an answer a meta node counts as out of reach."""


class MetaLink:
    """One meta node, as a resource node sees it. ``run`` is its task; ``poke`` has a hello sent at once."""

    def __init__(
        self,
        wire: Node,
        meta: MetaNode,
        say: Callable[[], Any],
        on_welcome: Callable[[MetaLink, Any], None],
        clock: Callable[[], float],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        source_host: str | None = None,
        reachable: bool = False,
    ) -> None:
        self.meta, self.address, self.name = meta, meta.address, format_address(meta.address)
        self.peer = Peer(wire, meta.address, [Direct(meta.host, meta.port, _source(source_host, meta.host))])
        self.welcome: Any | None = None
        """The last NodeWelcome."""
        self.welcome_s: float = 0.0
        """When it came, Unix seconds: for people alone, since a clock may be set."""
        self.welcome_at_s: float = -math.inf
        """The same by the monotonic clock."""
        self.skew_s: float = 0.0
        """By how much the own clock was ahead of the meta node's at its last answer."""
        self.problem = "it has not answered yet"
        """Why there is no answer to the last hello, in words; empty when there is one."""
        self._say, self._on_welcome, self._clock, self._monotonic, self._reachable = say, on_welcome, clock, monotonic, reachable
        self._changed = asyncio.Event()
        self._made = 0
        """Hellos that were made; each has its number."""
        self._heard = 0
        """The number of the last hello that was answered."""
        self._answered = asyncio.Condition()

    @property
    def is_online(self) -> bool:
        """It answered a hello not long ago."""
        return self.welcome is not None and self._monotonic() - self.welcome_at_s <= MISSED * self.next_s

    @property
    def next_s(self) -> int:
        """How often it wants a hello, seconds."""
        wanted_s = 60 if self.welcome is None else int(self.welcome.next_s) or 60
        return min(max(wanted_s, NEXT_LEAST_S), NEXT_MOST_S)

    def poke(self) -> None:
        """Something changed: say hello now."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the connection and say hello, until cancelled. One meta node, whatever it does, does not end the node."""
        keeping = asyncio.get_running_loop().create_task(self._keep())
        failures = 0
        try:
            while True:
                self._changed.clear()
                lost = await self._said()
                failures = 0 if lost is not None else failures + 1
                wait_s: float = min(self.next_s, NOT_YET_S) if self.welcome is not None and self.welcome.why_not_eligible else self.next_s
                if lost is None:
                    wait_s = min(RETRY_S * 2 ** min(failures - 1, 16), RETRY_MOST_S) * (512 + secrets.randbelow(513)) / 1024
                await first_of(wait_s, self._changed, *(() if lost is None else (lost,)))
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await self.peer.close()

    async def _keep(self) -> None:
        while True:
            try:
                await self.peer.keep(reachable=self._reachable)
            except Exception:  # a defect, or an endpoint that nobody thought of: this meta node is away, the node goes on
                log.exception("a connection to a meta node cannot be kept", meta_node=self.name)
            await asyncio.sleep(RETRY_MOST_S)

    async def _said(self) -> asyncio.Event | None:
        """``hello``, of which whatever goes wrong is a failure."""
        try:
            return await self.hello()
        except Exception as error:  # as in _keep
            why = f"an error of this node ({type(error).__name__}): its log has the details"
            if why != self.problem:
                log.exception("a hello failed", meta_node=self.name)
            self._failed(why)
            return None

    async def hello(self) -> asyncio.Event | None:
        """One hello. The event that tells when the connection it went over is lost; None when there was no answer."""
        try:
            async with asyncio.timeout(ASK_S):
                connection = await self.peer.connect()
                self._made += 1
                number = self._made
                raw = await self.peer.ask(NODE_HELLO, encode(known(self._say())), most_bytes=MAX_WELCOME_BYTES)
            welcome = NodeWelcome.FromString(raw)
        except TimeoutError:
            self._failed(f"it did not answer in {ASK_S:g} s")
            return None
        except DecodeError:
            self._failed("its answer is no NodeWelcome: is it a meta node of this version?")
            return None
        except WireError as error:
            self._failed(error.text[:MAX_TEXT] or describe(error))
            return None
        if self.problem:
            log.info("meta node answers", meta_node=self.name, node=welcome.node, score=welcome.score)
        self.welcome, self.welcome_s, self.welcome_at_s, self.problem = welcome, self._clock(), self._monotonic(), ""
        self.skew_s = self.welcome_s - welcome.time_ms / 1_000
        self._on_welcome(self, welcome)
        async with self._answered:
            self._heard = max(self._heard, number)
            self._answered.notify_all()
        return connection.retired

    async def told(self, timeout_s: float) -> bool:
        """Whether a hello that is made from now on is answered in that time."""
        before = self._made  # one that is under way says what was so before
        self.poke()
        try:
            async with asyncio.timeout(timeout_s), self._answered:
                await self._answered.wait_for(lambda: self._heard > before)
        except TimeoutError:
            return False
        return True

    async def ask(self, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int) -> bytes:
        """A request to the meta node and its answer. Raises WireError; TimeoutError after 30 s."""
        async with asyncio.timeout(ASK_S):
            return await self.peer.ask(method, head, body, most_bytes=most_bytes)

    def told_of(self) -> dict[str, Any]:
        """What an operator is told of this meta node."""
        welcome = self.welcome
        return {
            "meta_node": self.name,
            "endpoint": str(self.meta).partition("@")[2],
            "is_online": self.is_online,
            "problem": self.problem,
            "answered_s": int(self.welcome_s),
            "node": 0 if welcome is None else welcome.node,
            "score": 0 if welcome is None else welcome.score,
            "standing": "" if welcome is None else standing_text(welcome.standing),
            "shares": 0 if welcome is None else welcome.shares,
            "seen_host": "" if welcome is None else welcome.seen_host[:MAX_TEXT],
            "why_not_eligible": "" if welcome is None else welcome.why_not_eligible[:MAX_TEXT],
        }

    def _failed(self, why: str) -> None:
        if why != self.problem:
            log.warning("no answer to a hello", meta_node=self.name, why=why)
        self.problem = why


def standing_text(standing: int) -> str:
    """A NodeStanding as people write it: ``active``, ``suspended``, …; ``unknown`` for a number of a later version."""
    names = NodeWelcome.DESCRIPTOR.fields_by_name["standing"].enum_type.values_by_number
    return names[standing].name.removeprefix("NODE_STANDING_").lower() if standing in names else "unknown"


async def first_of(timeout_s: float | None, *events: asyncio.Event) -> None:
    """Return when one of the events is set, or after a time."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _source(own: str | None, theirs: str) -> str | None:
    """The own address to call from, so that the one seen is the one listened at; None where it cannot reach the other end."""
    if own is None:
        return None
    mine = ipaddress.ip_address(own)
    try:
        other = ipaddress.ip_address(theirs)
    except ValueError:
        return own if mine.is_loopback == (theirs == "localhost") else None
    return own if mine.version == other.version and mine.is_loopback == other.is_loopback else None
