"""What a meta node corrects of the ledger's word about nodes of which another one tells: all meta nodes hear all nodes, and one that lies shall not be alone to speak.

    the ledger's row ─┐
    heard here ───────┴─ differs ─ for status_s without a break ─► node_statuses of what was seen here, no score       at most one in ten minutes for a node

Corrected is what honest meta nodes cannot see differently for so long:

    offline, or told last half of SILENT_S ago   while the node says hello here, is in no maintenance and does not stop
    in maintenance                               while it says that it is not
    the endpoint, and the prefix of its address  which the node named itself, and which is known here to be its own: dialed, or where it calls from
    the capacity; free bytes by a tenth of it    as the node says. They are told with a round of statuses only, so a difference lasts three intervals more
      and 64 MiB, or that it is full

Left alone is what they may see differently: a host that the node did not name, since several may see it at several, as behind a NAT; any place of a node behind a
relay; a row without an endpoint, since who tells of it may not be able to dial it; the network prefix of a host with a name; and everything, while this meta node
itself has no endpoint of the node, or does not hear it. So two honest ones never contradict each other for ever. A node that says different things to
different meta nodes, and a meta node that says its lie again and again, cost a correction in ten minutes of each meta node. Source: docs/adr/0010; docs/cheating.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import structlog

from chain.codec.registry import message_class
from sds_node.meta.nodes.hello import endpoint_of
from sds_node.meta.nodes.registry import INTERVALS, LEAST_FREE_BYTES, Registry, Seen, prefix_of
from sds_node.meta.rules.nodes import SILENT_S
from sds_node.meta.rules.tables import Node
from sds_node.meta.rules.wire import PACKAGE

log = structlog.get_logger("nodes")

NodeSeen: Final = message_class(f"{PACKAGE}.NodeSeen")

AGAIN_S: Final = 600
"""A node is not corrected again sooner."""
ONLINE, MAINTENANCE, ENDPOINT, PREFIX, SPACE = "online", "maintenance", "endpoint", "prefix", "space"


class Corrections:
    """Of one meta node. ``clock`` tells Unix seconds; ``now`` is always by the clock of ``registry`` that does not jump."""

    def __init__(self, registry: Registry, clock: Callable[[], float], status_s: float) -> None:
        self._registry, self._clock = registry, clock
        self._wait_s = max(status_s, INTERVALS * registry.hello_s)
        self._since: dict[int, dict[str, float]] = {}
        """Node → what the ledger says otherwise, and since when."""
        self._corrected: dict[int, float] = {}

    def forget(self, number: int) -> None:
        """Nothing of a node is to be corrected."""
        self._since.pop(number, None)

    def begin_anew(self) -> None:
        """This process stood still: what differed before may have been put right meanwhile."""
        self._since.clear()

    def of(self, number: int, row: Node, seen: Seen, now: float) -> Any | None:
        """The NodeSeen that corrects a row, counted as told; None where there is nothing to correct, or not yet."""
        differs = self._differing(row, seen)
        if not differs:
            self.forget(number)
            return None
        before = self._since.get(number, {})
        since = self._since[number] = {what: before.get(what, now) for what in differs}
        due = {what for what, since_s in since.items() if now - since_s >= self._wait_of(what)}
        if not due or now - self._corrected.get(number, float("-inf")) < AGAIN_S:
            return None
        self._corrected[number] = now
        self.forget(number)
        log.warning("what the ledger says of a node is not what is heard of it here: it is corrected", node=number, what=sorted(due))
        return _corrected(row, seen, due)

    def _wait_of(self, what: str) -> float:
        return self._wait_s + (INTERVALS * self._registry.hello_s if what == SPACE else 0)

    def _differing(self, row: Node, seen: Seen) -> set[str]:
        now_s = self._clock()
        if not self._registry.is_online(row) or seen.maintenance_until_s > now_s:
            return set()
        found = {
            ONLINE: not row.is_online or now_s * 1_000 - row.seen_ms >= SILENT_S * 500,
            MAINTENANCE: row.maintenance_until_ms > now_s * 1_000,
            SPACE: _is_other_space(row, seen),
        }
        if seen.is_named and seen.endpoint and row.endpoint:
            found[ENDPOINT] = row.endpoint != seen.endpoint
            own_prefix = prefix_of(endpoint_of(seen.endpoint)[0])
            found[PREFIX] = bool(own_prefix) and own_prefix == seen.prefix != row.prefix
        return {what for what, is_so in found.items() if is_so}


def _is_other_space(row: Node, seen: Seen) -> bool:
    is_other = abs(row.free_bytes - seen.free_bytes) > max(LEAST_FREE_BYTES, seen.capacity_bytes // 10)
    is_no_full_one = row.free_bytes < LEAST_FREE_BYTES <= seen.free_bytes
    return row.capacity_bytes != seen.capacity_bytes or is_other or is_no_full_one


def _corrected(row: Node, seen: Seen, due: set[str]) -> Any:
    """What was seen here of what is corrected; for the rest the ledger's word."""
    is_placed = ENDPOINT in due or (ONLINE in due and not row.endpoint and bool(seen.endpoint))
    return NodeSeen(
        node=row.number,
        endpoint=seen.endpoint if is_placed else row.endpoint,
        prefix=seen.prefix if is_placed or PREFIX in due else row.prefix,
        capacity_bytes=seen.capacity_bytes,
        free_bytes=seen.free_bytes,
        is_online=row.is_online or ONLINE in due,
        maintenance_until_s=0 if MAINTENANCE in due else row.maintenance_until_ms // 1_000,
        score_change=0,
    )
