"""Node statuses: what the ledger is told of nodes, in few large operations, and only what changed.

    registry ─ changed ─ 1 s ─┐                       online or not, endpoint, prefix, maintenance: at once, a few times, then once a minute for a node
    every status_s ───────────┴─► what differs ─► node_statuses (≤ 2,000 nodes)        free space, score: with the next round

Where there are several meta nodes, each hears all nodes, and one tells of a node: what the others noted of its score is dropped each round, so that nothing
counts twice when the duty passes on. They correct what stays wrong for minutes (``correcting.py``). Who has just taken the duty over tells of silence only after
three intervals, unless the node said itself that it goes.
An online node is told again before the ledger takes it for silent (``rules.nodes.SILENT_S``), once in half of that. A node loses score when it goes
offline without a word, and gains some for each hour in which it was heard of; both by a clock that does not jump. Source: rules/README.md; ADR 8, 10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from chain.codec.registry import message_class
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.nodes.correcting import Corrections
from sds_node.meta.nodes.registry import INTERVALS, Registry, Seen
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.rules.nodes import MAX_SCORE_CHANGE, SILENT_S
from sds_node.meta.rules.observe import MAX_SCORE
from sds_node.meta.rules.tables import GONE, Node
from sds_node.meta.rules.wire import MAX_STATUSES, PACKAGE
from sds_node.wire.limits import Bucket

log = structlog.get_logger("nodes")

NodeSeen: Final = message_class(f"{PACKAGE}.NodeSeen")
NodeStatuses: Final = message_class(f"{PACKAGE}.NodeStatuses")

BATCH_S: Final = 1.0
AT_ONCE: Final = 3
"""Changes of a node that are told at once: each operation stays in the ledger's log, and a node changes as often as it likes."""
AT_ONCE_S: Final = 60
"""After so long it has one more of them."""
ONLINE_SCORE: Final = 10
"""For each hour in which a node was always heard of."""
ONLINE_S: Final = 3_600
OFFLINE_SCORE: Final = -100
"""For going offline without a word; who says that it stops, or is in maintenance, loses nothing."""


@dataclass(slots=True)
class _Known:
    """What is watched of a node between two rounds."""

    is_online: bool
    since: float
    at_once: Bucket
    """Changes that may be told at once."""


class Statuses:
    """Proposes ``node_statuses`` of one meta node. ``run`` does it until cancelled; ``tell`` once. ``is_ours`` says of a node's number whether this meta
    node tells of it; None where it is alone."""

    def __init__(
        self,
        registry: Registry,
        proposer: Proposer,
        clock: Callable[[], float],
        *,
        status_s: float = 300.0,
        is_ours: Callable[[int], bool] | None = None,
    ) -> None:
        self._registry, self._proposer, self._clock, self.status_s = registry, proposer, clock, status_s
        self._is_ours = is_ours
        self._corrections = Corrections(registry, clock, status_s)
        self._known: dict[int, _Known] = {}
        self._taken: dict[int, float] = {}
        """Nodes of which this meta node tells → since when, by the clock that does not jump."""

    async def run(self) -> None:
        """Tell changes that matter within a second, the others every ``status_s``."""
        loop = asyncio.get_running_loop()
        round_at = told_at = loop.time()
        while True:
            # Going offline makes no event: it is looked for once in an interval of hellos.
            wait_s = min(self.status_s, self._registry.hello_s)
            try:
                async with asyncio.timeout(wait_s):
                    await self._registry.changed.wait()
                await asyncio.sleep(BATCH_S)
            except TimeoutError:
                pass
            self._registry.changed.clear()
            is_round = loop.time() >= round_at
            # Time in which this process itself stood still is not held against nodes.
            was_away = loop.time() - told_at > wait_s + BATCH_S + self._registry.hello_s
            told_at = loop.time()
            try:
                await self.tell(with_space=is_round, was_away=was_away)
                if is_round:
                    round_at = loop.time() + self.status_s
            except (LedgerError, LedgerRefused) as error:
                log.warning("node statuses are not told", why=str(error))
                await asyncio.sleep(BATCH_S)

    async def tell(self, *, with_space: bool = True, was_away: bool = False) -> int:
        """Propose what changed; ``with_space``: free bytes and score, too; ``was_away``: silence of nodes costs no score, since this process did not listen.
        How many nodes were told. Raises LedgerError, LedgerRefused."""
        await self._registry.refresh()
        now = self._registry.monotonic()
        changed: list[tuple[Any, Seen, int]] = []
        if was_away:
            self._corrections.begin_anew()
        for number, row in sorted(self._registry.rows().items()):
            seen = self._registry.current(row)
            if seen is None or row.standing == GONE:
                self._corrections.forget(number)
                continue
            is_ours, is_settled = self._duty(number, row, now)
            known = self._score(number, row, seen, now, was_away or not is_settled)
            if not is_ours:
                seen.score_change = 0
                if (correction := self._corrections.of(number, row, seen, now)) is not None:
                    changed.append((correction, seen, 0))
                continue
            self._corrections.forget(number)
            if not (is_settled or self._registry.is_online(row) or seen.is_stopping or seen.is_over_budget):
                continue
            made = self._status(number, row, seen)
            is_changed = _is_changed(row, made)
            if is_changed and not with_space and known.at_once.wait_s(now) > 0:
                continue
            if is_changed or self._differs(row, made, with_space):
                changed.append((made, seen, made.score_change))
                if is_changed:
                    known.at_once.take(1, now)
        for at in range(0, len(changed), MAX_STATUSES):
            part = changed[at : at + MAX_STATUSES]
            result = await self._proposer.propose("node_statuses", NodeStatuses(nodes=[made for made, _, _ in part]))
            for made, seen, change in part:
                seen = self._registry.seen_of(made.node) or seen  # a hello may have come in between
                seen.score_change -= change
                if made.is_online:
                    seen.told_ms = result.time_ms
        if changed:
            await self._registry.refresh()
        return len(changed)

    def _duty(self, number: int, row: Node, now: float) -> tuple[bool, bool]:
        """(whether this meta node tells of a node, whether it has done so for long enough to have heard of it)."""
        if self._is_ours is None:
            return True, True
        if not self._is_ours(row.number):
            self._taken.pop(number, None)
            return False, False
        return True, now - self._taken.setdefault(number, now) >= INTERVALS * self._registry.hello_s

    def _score(self, number: int, row: Node, seen: Seen, now: float, was_away: bool) -> _Known:
        """What a node's going and staying does to its score."""
        is_online = self._registry.is_online(row)
        known = self._known.get(number)
        if known is None:
            known = self._known[number] = _Known(row.is_online if not is_online else True, now, Bucket(1 / AT_ONCE_S, AT_ONCE - 1, now))
        if known.is_online and not is_online:
            if not (seen.is_stopping or was_away or seen.maintenance_until_s > self._clock()):
                seen.score_change += OFFLINE_SCORE
            known.is_online, known.since = False, now
        elif is_online and not known.is_online:
            known.is_online, known.since = True, now
        elif is_online:
            hours = int((now - known.since) // ONLINE_S)
            if hours > 0:
                known.since += hours * ONLINE_S
                seen.score_change += hours * ONLINE_SCORE
        return known

    def _status(self, number: int, row: Node, seen: Seen) -> Any:
        change = max(-MAX_SCORE_CHANGE, min(MAX_SCORE_CHANGE, seen.score_change))
        if not 0 <= row.score + change <= MAX_SCORE:
            change = max(0, min(MAX_SCORE, row.score + change)) - row.score
            seen.score_change = change
        return NodeSeen(
            node=number,
            endpoint=seen.endpoint,
            prefix=seen.prefix,
            capacity_bytes=seen.capacity_bytes,
            free_bytes=seen.free_bytes,
            is_online=self._registry.is_online(row),
            maintenance_until_s=seen.maintenance_until_s,
            score_change=change,
        )

    def _differs(self, row: Node, made: Any, with_space: bool) -> bool:
        if made.is_online and self._clock() * 1_000 - row.seen_ms >= SILENT_S * 500:
            return True
        return with_space and (made.score_change != 0 or (made.capacity_bytes, made.free_bytes) != (row.capacity_bytes, row.free_bytes))


def _is_changed(row: Node, made: Any) -> bool:
    """Whether something is told that the ledger shall know at once."""
    at_once = (made.is_online, made.endpoint, made.prefix, made.maintenance_until_s * 1_000)
    return at_once != (row.is_online, row.endpoint, row.prefix, row.maintenance_until_ms)
