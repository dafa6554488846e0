"""Which resource nodes are there: the ledger's rows and what nodes say in their hellos, as one picture that placement and reads ask.

    ledger, NODE rows ─ refresh ─┐
    hello (hello.py) ─ heard ────┼─► why_not(node) ─► candidates (take new shares), count (N), contact (how to reach it)
    users' failures ─ failed ────┤ several wallets ─► this meta node tries the node itself ─ in vain ─► out for a time
    messages it does not take ───┘ full

A node is eligible that is active on chain, was heard of within three intervals, is in no maintenance, does not stop, can be reached, has room, takes its
messages, and did not fail a try that several wallets' complaints began. Weight = min(free bytes, deposit × bytes per stos) × score. Everything runs in one
event loop; time comes from ``clock``, how long ago something was from ``monotonic``, which does not jump. Source: storage-protocol.md 3.2, 3.3; ADR 9.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.nodes import SILENT_S
from sds_node.meta.rules.tables import ACTIVE, GONE, LEAVING, NODE, STATE, SUSPENDED, Node

log = structlog.get_logger("nodes")

LEAST_FREE_BYTES: Final = 64 << 20
INTERVALS: Final = 3
"""A node of which nothing was heard for so many intervals is offline."""
COMPLAINTS_OUT: Final = 3
"""Once so many different wallets complained within COMPLAINT_S, this meta node tries the node itself; that alone takes it out, for OUT_S."""
COMPLAINT_S: Final = 600
OUT_S: Final = 300
TRY_S: Final = 60
"""A node is not tried again sooner."""
MAX_TRIES: Final = 16
"""Nodes that are tried at a time; complaints that find no room are kept."""
FULL_SCORE: Final = -100
"""For not taking messages until no more are kept for it; again each FULL_S."""
FULL_S: Final = 3_600
MAX_COMPLAINTS: Final = 64
"""Wallets whose complaints about one node are remembered."""
MAX_PENDING_SCORE: Final = 10_000
FRESH_S: Final = 1.0
"""Candidates are at most so old."""
WEI_PER_STOS: Final = 10**18
_PAGE: Final = 1_000
_STANDINGS: Final = {SUSPENDED: "suspended", LEAVING: "leaving", GONE: "gone"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may take new shares. ``prefix``: 3 bytes (IPv4 /24) or 6 (IPv6 /48). ``weight`` is without a unit."""

    number: int
    owner: bytes
    prefix: bytes
    weight: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Contact:
    """How to reach a node. ``address`` and ``beneficiary`` have 20 bytes, ``p2p_key`` 32; ``endpoint`` is host:port, empty for a node behind ``relay``
    (a MetaContact, or None)."""

    number: int
    address: bytes
    p2p_key: bytes
    beneficiary: bytes
    endpoint: str
    relay: Any | None
    is_online: bool


@dataclass(slots=True)
class Seen:
    """What a node said in its hellos, and what is to be told of it. ``heard_s`` is by the wall clock, for what the ledger says beside it; ``heard_at`` by
    the monotonic one, for how long ago that was."""

    heard_s: float
    heard_at: float = 0.0
    endpoint: str = ""
    prefix: bytes = b""
    capacity_bytes: int = 0
    free_bytes: int = 0
    is_stopping: bool = False
    is_relayed: bool = False
    is_named: bool = False
    """The node itself named the endpoint's host, so all meta nodes that know one know the same."""
    maintenance_until_s: int = 0
    is_over_budget: bool = False
    """It is in maintenance beyond what it may: that counts as offline."""
    score_change: int = 0
    """Events that no status has told yet."""
    killed_at: float = float("-inf")
    """When an improper stop was counted last, by the monotonic clock."""
    told_ms: int = 0
    """The ledger's time when this meta node told last that it is online."""


@dataclass(slots=True)
class _Complaints:
    by_wallet: dict[bytes, float] = field(default_factory=dict)
    out_until_s: float = 0.0
    tried_s: float = float("-inf")
    is_tried: bool = False


class Registry:
    """The nodes of one meta node. ``own`` is its MetaContact, told as relay of nodes behind NAT; ``is_connected`` tells of an address whether a connection
    with it is open. ``hello_s``: seconds between a node's hellos. ``monotonic`` is the clock that does not jump; ``clock``, where there is none."""

    def __init__(
        self,
        ledger: AnyLedger,
        clock: Callable[[], float],
        *,
        hello_s: int = 60,
        own: Any | None = None,
        is_connected: Callable[[bytes], bool] = lambda _: False,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self._ledger, self._clock, self.hello_s = ledger, clock, hello_s
        self.monotonic = monotonic or clock
        self._own, self._is_connected = own, is_connected
        self._rows: dict[int, Node] = {}
        self._numbers: dict[bytes, int] = {}
        self._bytes_per_stos = 0
        self._sequence = -1
        self._seen: dict[int, Seen] = {}
        self._complaints: dict[int, _Complaints] = {}
        self._tries: set[asyncio.Task[None]] = set()
        self._full: dict[int, float] = {}  # nodes that do not take their messages → when that cost score last
        self.attempt: Callable[[int], Awaitable[bool]] | None = None
        """Tries whether a node answers (calls.py); without it complaints change nothing."""
        self._candidates: list[Candidate] = []
        self._count = 0
        self._made_s = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self.proves_nothing: Callable[[int], bool] = lambda number: False
        """Whether audits of a node end without one proof (repair/health.py): it gets no new shares."""
        self._scores: dict[int, int] = {}
        """What nodes cost or brought that have not said hello since this meta node runs: told once they do."""
        self.changed = asyncio.Event()
        """Something that the ledger shall know at once."""
        self.on_heard: list[Callable[[int], None]] = []
        """Who is told of each hello."""

    # --- from the ledger ----------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Read the ledger's nodes, if it has moved; once for all who ask. Raises LedgerError."""
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)
        await asyncio.shield(self._refreshing)

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # who waited has it

    async def _refresh(self) -> None:
        known = self._sequence

        def read(view: ReadView) -> tuple[int, int, list[Node]] | None:
            if view.head.sequence == known:
                return None
            state = view.get(STATE, (1,))
            rows: list[Node] = []
            page = view.scan(NODE, limit=_PAGE)
            while page:
                rows.extend(page)
                page = view.scan(NODE, after=(page[-1].number,), limit=_PAGE)
            return view.head.sequence, state.bytes_per_stos if state else 0, rows

        found = await self._ledger.query(read)
        if found is not None:
            self._sequence, self._bytes_per_stos, rows = found
            self._rows = {row.number: row for row in rows}
            self._numbers = {row.address: row.number for row in rows}
            self._made_s = float("-inf")

    async def run(self, every_s: float = 1.0) -> None:
        """Follow the ledger until cancelled."""
        while True:
            try:
                await self.refresh()
            except LedgerError as error:
                log.warning("the ledger's nodes cannot be read", why=str(error))
            await asyncio.sleep(every_s)

    # --- who asks -----------------------------------------------------------------------------------------------------------

    def candidates(self) -> Sequence[Candidate]:
        """Nodes that may take new shares now, by number."""
        self._remake()
        return self._candidates

    def count(self) -> int:
        """N of storage-protocol.md 3.2: candidates of different owners and prefixes, taken in order of their numbers."""
        self._remake()
        return self._count

    def contact(self, number: int) -> Contact | None:
        """How to reach a node; None for one that the ledger does not have."""
        row = self._rows.get(number)
        if row is None:
            return None
        seen = self.current(row)
        relay = self._own if seen is not None and seen.is_relayed else None
        endpoint = "" if relay is not None else self._endpoint(row, seen)
        return Contact(row.number, row.address, row.p2p_key, row.beneficiary, endpoint, relay, self.is_online(row))

    def row_of(self, address: bytes) -> Node | None:
        """The ledger's row of a node by its network address."""
        return self._rows.get(self._numbers.get(address, 0))

    def rows(self) -> dict[int, Node]:
        """The ledger's rows by number."""
        return self._rows

    def seen_of(self, number: int) -> Seen | None:
        """What a node said here since this meta node runs."""
        return self._seen.get(number)

    def current(self, row: Node) -> Seen | None:
        """What a node said here, unless it is silent here and another meta node has heard of it since."""
        seen = self._seen.get(row.number)
        is_later = seen is not None and row.seen_ms > max(seen.told_ms, (seen.heard_s + (INTERVALS + 1) * self.hello_s) * 1_000)
        if row.is_online and is_later:
            return None
        return seen

    def prefix(self, row: Node) -> bytes:
        """The network prefix of a node as it is heard here; as the ledger says where it is not heard."""
        seen = self.current(row)
        return row.prefix if seen is None else seen.prefix

    def maintenance_until_s(self, row: Node) -> int:
        """Until when a node is in maintenance, as it says here; as the ledger says where it is not heard."""
        seen = self.current(row)
        return row.maintenance_until_ms // 1_000 if seen is None else seen.maintenance_until_s

    def is_online(self, row: Node) -> bool:
        """Whether a node was heard of: here within three intervals, or by another meta node, as the ledger says."""
        seen = self.current(row)
        if seen is None:
            return row.is_online and self._clock() * 1_000 - row.seen_ms < SILENT_S * 1_000
        return not seen.is_stopping and not seen.is_over_budget and self.monotonic() - seen.heard_at <= INTERVALS * self.hello_s

    def weight(self, row: Node) -> int:
        """min(free bytes, deposit in wei × bytes per stos ÷ 10^18) × score."""
        return min(self._free_bytes(row), row.deposit_wei * self._bytes_per_stos // WEI_PER_STOS) * row.score

    def why_not(self, number: int) -> str:
        """Why a node gets no new shares, and what to do; empty for one that does."""
        row = self._rows.get(number)
        if row is None:
            return "the ledger does not know this node yet: wait until its registration is observed"
        seen, now_s = self.current(row), self._clock()
        complaints = self._complaints.get(number)
        if row.standing != ACTIVE:
            return f"it is {_STANDINGS.get(row.standing, 'not active')} on the chain: activate it, or wait until its suspension is lifted"
        if seen is not None and seen.is_stopping:
            return "it said that it stops"
        if seen is not None and seen.is_over_budget:
            return "its maintenance is longer than 4 hours, or than 8 hours in 30 days: that counts as offline"
        until_s = self.maintenance_until_s(row)
        if until_s > now_s:
            return f"it is in maintenance until {until_s} s"
        if not self.is_online(row):
            return f"nothing was heard of it for {INTERVALS} × {self.hello_s} s"
        if seen is not None and seen.is_relayed:
            if self._own is None:
                return "it wants to be reached through this meta node, which relays for nobody: listen at a port that others can dial"
            if not self._is_connected(row.address):
                return "it wants to be reached through this meta node and holds no connection to it"
        elif not self._endpoint(row, seen):
            return "its endpoint is not known or could not be reached: name a host and port that others can dial, or ask for a relay"
        if not self.prefix(row):
            return "its network prefix was not seen: it must connect to a meta node without a relay"
        if self._free_bytes(row) < LEAST_FREE_BYTES:
            return f"it has {self._free_bytes(row)} free bytes, at least {LEAST_FREE_BYTES} are needed: make room"
        if self.weight(row) == 0:
            return "its deposit or its score is 0: raise the deposit, or wait until its score is better"
        if number in self._full:
            return "it does not take what this meta node has to tell it, and no more is kept for it: see that it answers"
        if self.proves_nothing(number):
            return "it has not proved one of its shares in its last audits: see to its disk, then wait for an audit that it passes"
        if complaints is not None and complaints.out_until_s > now_s:
            return f"several users could not use it, and this meta node could not reach it: it is left out until {int(complaints.out_until_s)} s"
        return ""

    # --- what is told -------------------------------------------------------------------------------------------------------

    def heard(self, number: int, seen: Seen) -> None:
        """A node said hello; what it said replaces what it said before. One that is out, as it did not answer when it was tried, is tried again."""
        seen.heard_at = self.monotonic()
        seen.score_change += self._scores.pop(number, 0)
        self._seen[number] = seen
        self._made_s = float("-inf")
        noted = self._complaints.get(number)
        if noted is not None and noted.out_until_s > self._clock():
            self._try(number, noted)
        for listener in self.on_heard:
            listener(number)

    def found(self) -> None:
        """Something of what nodes said became known as true or false: the picture is made anew, and the ledger hears of it soon."""
        self._made_s = float("-inf")
        self.changed.set()

    def full(self, number: int) -> None:
        """No more messages are kept for a node, since it took none: it gets no new shares, and loses score."""
        now_at = self.monotonic()
        if now_at - self._full.get(number, float("-inf")) >= FULL_S:
            self.score(number, FULL_SCORE)
            self._full[number] = now_at
            log.warning("a node does not take what it is told: it gets no new shares", node=number)
        self._made_s = float("-inf")

    def emptied(self, number: int) -> None:
        """A node took its messages."""
        if self._full.pop(number, None) is not None:
            self._made_s = float("-inf")

    def score(self, number: int, change: int) -> None:
        """Something that a node did costs or brings score; the next round of statuses tells it, for a node that has not said hello here the first one after
        it does."""
        seen = self._seen.get(number)
        before = seen.score_change if seen is not None else self._scores.get(number, 0)
        after = max(-MAX_PENDING_SCORE, min(MAX_PENDING_SCORE, before + change))
        if seen is not None:
            seen.score_change = after
        elif number in self._rows:
            self._scores[number] = after

    def failed(self, number: int, why: str, wallet: bytes = b"") -> None:
        """A user's session could not use a node. After complaints of three different wallets (20 bytes; none is one more) within ten minutes the node is tried
        by this meta node; if it does not answer, it is out for five minutes, or until it said hello again and answers. Each complaint counts once."""
        if number not in self._rows:
            return
        now_s = self._clock()
        noted = self._complaints.setdefault(number, _Complaints())
        noted.by_wallet = {who: at_s for who, at_s in noted.by_wallet.items() if now_s - at_s < COMPLAINT_S}
        if wallet not in noted.by_wallet and len(noted.by_wallet) < MAX_COMPLAINTS:
            noted.by_wallet[wallet] = now_s
        log.info("a user could not use a node", node=number, why=why[:200], complaints=len(noted.by_wallet))
        if len(noted.by_wallet) >= COMPLAINTS_OUT:
            self._try(number, noted)

    def _try(self, number: int, noted: _Complaints) -> None:
        """Begin to try a node, unless that is under way, was just done, or too many others are tried."""
        if self.attempt is None or noted.is_tried or len(self._tries) >= MAX_TRIES or self.monotonic() - noted.tried_s < TRY_S:
            return
        noted.by_wallet.clear()
        noted.is_tried = True
        task = asyncio.get_running_loop().create_task(self._tried(number, noted, self.attempt(number)))
        self._tries.add(task)
        task.add_done_callback(self._tries.discard)

    async def _tried(self, number: int, noted: _Complaints, attempt: Awaitable[bool]) -> None:
        try:
            has_answered = await attempt
        finally:
            noted.is_tried, noted.tried_s = False, self.monotonic()
        noted.out_until_s = 0.0 if has_answered else self._clock() + OUT_S
        self._made_s = float("-inf")
        log.info("a node of which users complained was tried", node=number, has_answered=has_answered)

    async def close(self) -> None:
        """End the tries that are under way."""
        tries = list(self._tries)
        for task in tries:
            task.cancel()
        await asyncio.gather(*tries, return_exceptions=True)

    # --- making it ----------------------------------------------------------------------------------------------------------

    def _endpoint(self, row: Node, seen: Seen | None) -> str:
        return row.endpoint if seen is None else seen.endpoint

    def _free_bytes(self, row: Node) -> int:
        seen = self.current(row)
        return row.free_bytes if seen is None else seen.free_bytes

    def _remake(self) -> None:
        now_s = self._clock()
        if 0 <= now_s - self._made_s < FRESH_S:
            return
        self._made_s = now_s
        made: list[Candidate] = []
        owners: set[bytes] = set()
        prefixes: set[bytes] = set()
        self._count = 0
        for number in sorted(self._rows):
            if self.why_not(number):
                continue
            row = self._rows[number]
            prefix = self.prefix(row)
            made.append(Candidate(number, row.owner, prefix, self.weight(row), self._free_bytes(row)))
            if row.owner not in owners and prefix not in prefixes:
                self._count += 1
                owners.add(row.owner)
                prefixes.add(prefix)
        self._candidates = made


def prefix_of(host: str) -> bytes:
    """The network prefix of an IP address as text: the /24 of IPv4 (3 bytes), the /48 of IPv6 (6 bytes); nothing for what is no address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return b""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return address.packed[:6]
        address = address.ipv4_mapped
    return address.packed[:3]
