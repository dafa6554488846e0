"""Penalties: a resource node whose score is too low is suspended, one that lost shares is slashed; meta nodes do both together, each by its own ledger.

    ledger: score below 2,000 ───────────────────────► {0 noz, suspend}      ─┐ is it open on the chain, is mine among it?
    ledger's log of a day that is over: audits ──────► {noz of that day,      ├─ no ─► MsgSlashingResourceNode of this meta node
      that named 3 shares of a node or more as lost     flag as it stands}   ─┘        the chain gathers a quorum, for an hour

The ledger is the same on all of them, and so are node, owner and noz: approvals of one content gather. What the chain shows (suspended, open approvals) is not
done again. Only days are slashed that ended in this run, so a slash that was executed before a restart cannot be sent after it.

Sources: storage-protocol.md 1.8; README of pot, "Slashing"; sds.md 3.4 (a score that is too low suspends); docs/cheating.md says what it costs and why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog

from chain.codec.registry import message_class
from chain.coins import parse_wire_int
from chain.crypto import address as bech32
from chain.errors import AppError
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.observe import active_metas
from sds_node.meta.rules.tables import ACTIVE, META, NODE, WINDOW, Meta, Node
from sds_node.meta.rules.wire import open_operation
from sds_node.schemes import SEGMENT_BYTES
from sds_node.value_chain.client import ChainUnavailable, Status, TxRefused, ValueChain, ValueChainError
from sds_node.value_chain.sender import Sender
from sds_node.value_chain.views import BondStatus, ResourceNode, ask, resource_node

log = structlog.get_logger("penalties")

MsgSlashingResourceNode: Final = message_class("stratos.pot.v1.MsgSlashingResourceNode")

DAY_S: Final = 86_400
SUSPEND_BELOW: Final = 2_000
"""A working node with a lower score is suspended. One is made effective again from 3,000 on (``nodes.least_score``), so it does not come and go."""
LEAST_SHARES: Final = 3
"""Lost shares of a node in a day that are slashed: a disk that rots loses one now and then, which costs its escrow and score alone."""
MOST_SHARES: Final = 100
"""More of them in a day cost no more: it is one meta node at a time that audits a node, and this bounds what its word can take."""
SLASH_NOZ: Final = 10 * 2 * SEGMENT_BYTES
"""For each lost share, ten times what it costs at most to make it again: a segment is read, a share written, for a noz a byte. Asked for 100 shares a day, a node
that drops a twentieth or more loses more so than that part is paid for being kept, up to some 50 TB in all."""
FEWEST_VOTERS: Final = 2
APPROVAL_S: Final = 3_600
"""As long approvals of one content gather on the chain (``modules/pot/slashing.py``)."""
AGAIN_S: Final = 600.0
"""After a refusal."""
KEPT_DAYS: Final = 3
"""A slash that no quorum approved is tried again until its day is so long over."""
MAX_SENT: Final = 10
"""Transactions of one step: reports wait for the same sender."""
MAX_NAMED: Final = 5
"""Nodes that a problem names."""
_ALREADY_APPROVED: Final = ("pot", 107)
_SLASHED: Final = "stratos.pot.v1.EventSlashing"
_PAGE: Final = 1_000
_TIMES: Final = 20
"""Releases that one question to the ledger looks up."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What is to be approved: node (network address) and owner, 20 bytes each, noz of the slash, and whether it shall be suspended afterwards."""

    node: bytes
    owner: bytes
    noz: int
    suspend: bool


@dataclass(frozen=True, slots=True)
class Gathering:
    """Approvals of one content that are open on the chain until ``until_s`` (Unix seconds). ``approvers`` are network addresses as text."""

    charge: Charge
    approvers: frozenset[str]
    until_s: int


@dataclass(slots=True)
class _Given:
    """A slash that this meta node approved. ``stood``: deposit and debt in wei when it was open last."""

    charge: Charge
    until_s: int
    stood: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Look:
    """What the ledger says now: the number of the day it is in, active meta nodes, nodes whose score is too low."""

    today: int
    metas: list[Meta]
    low: list[Node]


class Penalties:
    """``meta_node`` is this one's network address (text), ``sender`` its owner's wallet. Days have ``day_s`` seconds of the ledger's time, the same on all meta
    nodes: as long as a day of audits. ``clock`` tells Unix seconds."""

    def __init__(
        self,
        chain: ValueChain,
        sender: Sender,
        ledger: AnyLedger,
        meta_node: str,
        *,
        clock: Callable[[], float],
        every_s: float = 60.0,
        day_s: int = DAY_S,
    ) -> None:
        self._chain, self._sender, self._ledger, self._meta_node = chain, sender, ledger, meta_node
        self._address, self._owner = bech32.decode(meta_node, bech32.NODE), bech32.decode(sender.address)
        self._clock, self._every_s, self._day_ms = clock, every_s, day_s * 1_000
        self._first_day = -1
        """The day in which this run began: days before it may have been slashed already."""
        self._lost: dict[int, dict[int, int]] = {}
        """Day → node → how many of its shares were found lost."""
        self._given: dict[tuple[int, int], _Given] = {}
        """(day, node) → what was approved, and of what nothing more is known."""
        self._over: set[tuple[int, int]] = set()
        """(day, node) that were slashed, or cannot be."""
        self._again: dict[tuple[bytes, int, bool], float] = {}
        """Charges that the chain refused → when they are tried again."""
        self._undecided: dict[bytes, int] = {}
        """Nodes on which too few may vote → how many do."""
        self._uncounted = ""

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.step()
            except (LedgerError, ValueChainError) as error:
                log.warning("penalties could not be looked at", why=str(error))
            await asyncio.sleep(self._every_s)

    async def step(self) -> list[Charge]:
        """Look at all nodes once. Returns what this meta node approved. Raises LedgerError, ValueChainError."""
        look = await self._ledger.query(self._look)
        if self._first_day < 0:
            self._first_day = look.today
        await self._count_days(look.today)
        sent: list[Charge] = []
        undecided: dict[bytes, int] = {}
        for row in look.low:
            if len(sent) < MAX_SENT and self._may_vote(row, look.metas, undecided):
                sent.extend(await self._suspend(row))
        busy: set[int] = set()
        for day, number in self._due():
            accused: Node | None = await self._ledger.query(partial(_node, number=number))
            if number in busy or accused is None or len(sent) >= MAX_SENT or not self._may_vote(accused, look.metas, undecided):
                continue
            sent.extend(await self._slash(day, accused))
            if (day, number) not in self._over:
                busy.add(number)
        self._undecided = undecided
        return sent

    def problems(self) -> list[str]:
        """What is wrong, in sentences."""
        found = [self._uncounted] if self._uncounted else []
        if self._undecided:
            nodes = sorted(self._undecided)
            named = ", ".join(bech32.encode(one, bech32.NODE) for one in nodes[:MAX_NAMED])
            more = f" and {len(nodes) - MAX_NAMED} more" if len(nodes) > MAX_NAMED else ""
            found.append(
                f"{len(nodes)} resource nodes should be suspended or slashed, and fewer than {FEWEST_VOTERS} meta nodes may vote on that: {named}{more}; "
                "governance decides: a proposal with MsgSlashingResourceNode"
            )
        return found

    # --- what the ledger says -----------------------------------------------------------------------------------------------------

    def _look(self, view: ReadView) -> _Look:
        low: list[Node] = []
        page = view.scan(NODE, limit=_PAGE)
        while page:
            low.extend(row for row in page if row.standing == ACTIVE and row.score < SUSPEND_BELOW)
            page = view.scan(NODE, after=(page[-1].number,), limit=_PAGE)
        return _Look(view.head.time_ms // self._day_ms, active_metas(view), low)

    def _may_vote(self, row: Node, metas: Iterable[Meta], undecided: dict[bytes, int]) -> bool:
        """Whether this meta node's approval of a penalty can count. Notes nodes on which too few may vote."""
        voters = [one.address for one in metas if one.owner != row.owner]
        if len(voters) < FEWEST_VOTERS:
            if row.address not in self._undecided and row.address not in undecided:
                log.warning(
                    "too few meta nodes may vote on a penalty: governance decides", node=bech32.encode(row.address, bech32.NODE), voters=len(voters)
                )
            undecided[row.address] = len(voters)
            return False
        return self._address in voters

    async def _count_days(self, today: int) -> None:
        """Count the shares that were found lost on days that ended, and forget what is long over."""
        first = max(self._first_day, today - KEPT_DAYS)
        self._lost = {day: found for day, found in self._lost.items() if day >= first}
        self._given = {key: given for key, given in self._given.items() if key[0] >= first}
        self._over = {key for key in self._over if key[0] >= first}
        self._again = {key: at_s for key, at_s in self._again.items() if at_s > self._clock()}
        for day in range(first, today):
            if day in self._lost:
                continue
            counted = await lost_shares(self._ledger, day * self._day_ms, (day + 1) * self._day_ms)
            if counted is None:
                self._uncounted = (
                    f"the ledger's log does not reach back to day {day}: nobody is slashed for it here; keep more of it (ledger.keep_days)"
                )
                log.warning("shares that were lost cannot be counted: the log was pruned", day=day)
            else:
                self._uncounted = ""
            self._lost[day] = counted or {}

    def _due(self) -> list[tuple[int, int]]:
        """(day, node) that are to be slashed and of which it is not known that they were, in order of days."""
        due = ((day, node) for day, counted in self._lost.items() for node, shares in counted.items() if shares >= LEAST_SHARES)
        return sorted(key for key in due if key not in self._over)

    # --- what is done --------------------------------------------------------------------------------------------------------------

    async def _suspend(self, row: Node) -> list[Charge]:
        node = await resource_node(self._chain, row.address)
        if node is None or node.is_suspended or node.status != BondStatus.BONDED:
            return []
        charge = Charge(row.address, row.owner, 0, True)
        open_now = _of(await gatherings(self._chain, row.address), charge)
        if open_now is not None and self._meta_node in open_now.approvers:
            return []
        return [charge] if await self._send(charge) else []

    async def _slash(self, day: int, row: Node) -> list[Charge]:
        """Approve a node's slash of a day, unless that was done; look whether it was executed."""
        key = day, row.number
        # All of one height, of which the time is not later than the status tells: what is gone there before its hour was executed.
        height = await self._chain.committed_height()
        status = await self._chain.status()
        node = await resource_node(self._chain, row.address, height)
        if node is None:
            self._over.add(key)
            return []
        open_now = await gatherings(self._chain, row.address, height)
        stood = node.tokens_wei, await debt_wei(self._chain, row.owner, height)
        if key in self._given and not self._has_expired(key, open_now, stood, status):
            return []
        charge = _charge(row, min(self._lost[day][row.number], MOST_SHARES) * SLASH_NOZ, node, open_now)
        there = _of(open_now, charge)
        if there is not None and self._meta_node in there.approvers:
            return []  # of another day with as many shares: this one's turn comes after it
        if not await self._send(charge, key):
            return []
        if key not in self._over:
            self._given[key] = _Given(charge, there.until_s if there is not None else status.time_s + APPROVAL_S, stood)
        return [charge]

    def _has_expired(self, key: tuple[int, int], open_now: Sequence[Gathering], stood: tuple[int, int], status: Status) -> bool:
        """Whether what was approved ended without a quorum, and is to be approved anew. Approvals go when they are executed or their hour is over; a slash
        takes of the deposit or makes a debt. In doubt it was executed: no node is slashed twice for a day."""
        given = self._given[key]
        there = _of(open_now, given.charge)
        if there is not None and self._meta_node in there.approvers:
            given.until_s, given.stood = there.until_s, stood
            return False
        del self._given[key]
        if status.time_s < given.until_s or stood != given.stood:
            self._over.add(key)
            return False
        log.info(
            "a slash found no quorum in its hour: it is approved again", node=bech32.encode(given.charge.node, bech32.NODE), noz=given.charge.noz
        )
        return True

    async def _send(self, charge: Charge, key: tuple[int, int] | None = None) -> bool:
        """Send this meta node's approval. False when the chain refused it; ``key`` (day, node) is over when this one was the last that was needed."""
        refused = charge.node, charge.noz, charge.suspend
        if self._again.get(refused, float("-inf")) > self._clock():
            return False
        node = bech32.encode(charge.node, bech32.NODE)
        message = MsgSlashingResourceNode(
            reporters=[self._meta_node],
            reporter_owner=[self._sender.address],
            network_address=node,
            wallet_address=bech32.encode(charge.owner),
            slashing=str(charge.noz),
            suspend=charge.suspend,
        )
        try:
            result = await self._sender.send([message])
        except TxRefused as error:
            if (error.codespace, error.code) == _ALREADY_APPROVED:
                return True  # by a transaction of before, whose answer was lost
            self._again[refused] = self._clock() + AGAIN_S
            log.warning("the chain refused a penalty", node=node, noz=charge.noz, suspend=charge.suspend, why=str(error))
            return False
        is_done = any(event.kind == _SLASHED and event.text("network_address") == node for event in result.events)
        if is_done and key is not None:
            self._over.add(key)
        log.warning("penalty approved", node=node, noz=charge.noz, suspend=charge.suspend, is_executed=is_done, height=result.height)
        return True


def _charge(row: Node, noz: int, node: ResourceNode, open_now: Sequence[Gathering]) -> Charge:
    """A slash with the flag as it stands, so that it neither suspends a node nor lifts a suspension. One that others began a moment before, when a suspension was
    not there yet, is joined: a node that comes back so and has too low a score is suspended again."""
    charge = Charge(row.address, row.owner, noz, node.is_suspended)
    lifting = Charge(row.address, row.owner, noz, False)
    return lifting if _of(open_now, charge) is None and _of(open_now, lifting) is not None else charge


def _of(open_now: Iterable[Gathering], charge: Charge) -> Gathering | None:
    return next((one for one in open_now if one.charge == charge), None)


def _node(view: ReadView, number: int) -> Node | None:
    return view.get(NODE, (number,))


# --- from the chain -------------------------------------------------------------------------------------------------------------------


async def gatherings(chain: ValueChain, node: bytes, height: int = 0) -> list[Gathering]:
    """Open approvals against a node (20 bytes). Raises ChainUnavailable, QueryFailed."""
    found: list[Gathering] = []
    key = b""
    while len(found) < _PAGE:
        name = bech32.encode(node, bech32.NODE)
        answer = await ask(chain, "/stratos.pot.v1.Query/SlashingApprovals", height, network_address=name, pagination={"key": key, "limit": 100})
        found.extend(_read(chain, partial(_gathering, node), one) for one in answer.approvals)
        key = answer.pagination.next_key
        if not key:
            break
    return found


async def debt_wei(chain: ValueChain, wallet: bytes, height: int = 0) -> int:
    """What an owner (20 bytes) still owes for slashes. Raises ChainUnavailable, QueryFailed."""
    answer = await ask(chain, "/stratos.pot.v1.Query/SlashingByOwner", height, wallet_address=bech32.encode(wallet))
    owed: int = _read(chain, lambda one: parse_wire_int(one.slashing or "0"), answer)
    return owed


def _gathering(node: bytes, pool: Any) -> Gathering:
    charge = Charge(node, bech32.decode(pool.wallet_address), parse_wire_int(pool.slashing_noz or "0"), bool(pool.suspend))
    return Gathering(charge, frozenset(pool.approvers), int(pool.expire_time.seconds))


def _read(chain: ValueChain, read: Callable[[Any], Any], message: Any) -> Any:
    try:
        return read(message)
    except (ValueError, AppError) as error:
        raise ChainUnavailable(
            f"{chain.url} gives an answer that the value chain does not give ({error}): is it a node of the right version?"
        ) from None


# --- from the ledger ------------------------------------------------------------------------------------------------------------------


async def lost_shares(ledger: AnyLedger, from_ms: int, to_ms: int) -> dict[int, int] | None:
    """Node → how many of its shares audits named as lost between two of the ledger's times: asked for twice and not proved. A node that gave no answer at all
    lost nothing that is known of. None when the log no longer reaches back so far. Raises LedgerError."""
    times = await ledger.query(lambda view: _release_times(view, from_ms, to_ms))
    if times is None:
        return None
    lost: set[tuple[int, int]] = set()
    for at in range(0, len(times), _TIMES):
        found = await ledger.query(partial(_lost_at, times=times[at : at + _TIMES], from_ms=from_ms))
        if found is None:
            return None
        lost |= found
    counted: dict[int, int] = {}
    for node, _ in sorted(lost):
        counted[node] = counted.get(node, 0) + 1
    return counted


def _is_whole(view: ReadView, from_ms: int) -> bool:
    return not view.head.base_sequence or view.head.base_time_ms < from_ms


def _release_times(view: ReadView, from_ms: int, to_ms: int) -> list[int] | None:
    """The ledger's times at which releases were applied."""
    if not _is_whole(view, from_ms):
        return None
    times: set[int] = set()
    for meta in view.scan(META, limit=10_000):
        page = view.scan(WINDOW, (meta.address,), limit=_PAGE, reverse=True)
        while page:
            times.update(row.made_ms for row in page if row.is_release and from_ms <= row.made_ms < to_ms)
            last = page[-1]
            if last.made_ms < from_ms:
                break
            page = view.scan(WINDOW, (meta.address,), end=(last.number,), limit=_PAGE, reverse=True)
            if not page and last.number > 1:
                return None
    return sorted(times)


def _lost_at(view: ReadView, times: Collection[int], from_ms: int) -> set[tuple[int, int]] | None:
    """(node, segment) of the shares that releases at these times named."""
    if not _is_whole(view, from_ms):
        return None
    lost: set[tuple[int, int]] = set()
    for time_ms in times:
        sequence, is_past = view.sequence_at(time_ms) - 1, False
        while not is_past:
            page = view.entries(sequence, _TIMES)
            is_past = not page
            for entry in page:
                sequence, is_past = entry.sequence, entry.time_ms > time_ms
                if is_past:
                    break
                if entry.code == 0:
                    operation = open_operation(entry.operation)[0]
                    if operation.WhichOneof("kind") == "release":
                        lost.update((result.node, segment) for result in operation.release.results for segment in result.failed_segments)
    return lost
