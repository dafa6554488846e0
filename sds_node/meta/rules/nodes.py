"""What meta nodes see of nodes: space, prefix, online or not, maintenance, score. The chain's part (deposit, standing) comes by observe.py.

    node_statuses ─ seen ──────────────────────────────────────────────────────────────► node
                  ├ maintenance ─ until four hours from now at most
                  └ score change ─ several meta nodes: what its sender may still take or give on this day (told) ─┘

Where the word of one meta node moves nothing (``moves.is_word_of_several``), it moves a score by so much a day; what is beyond is cut off, not refused, since
a batch is of many nodes.

Source: storage-protocol.md 3.3; sds.md 8.1 (status each 300 s); ADR 8.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sds_node.meta.rules.call import Call
from sds_node.meta.rules.moves import is_word_of_several
from sds_node.meta.rules.observe import MAX_SCORE
from sds_node.meta.rules.refusals import BAD_FORM, UNKNOWN_NODE, need, refuse, shown
from sds_node.meta.rules.tables import ACTIVE, DAY_MS, MAX_ENDPOINT_BYTES, NODE, TOLD, Node, Told
from sds_node.meta.rules.wire import MAX_STATUSES, ascending, count, listed, printable, seconds, whole

SILENT_S: Final = 900
"""A node of which nothing was heard for three times its 300 s is not online."""
MAX_SCORE_CHANGE: Final = 1_000
MOST_LOST: Final = 1_000
"""What one meta node of several takes from a node's score within a day (UTC) of the ledger: about what the worst honest day costs."""
MOST_GAINED: Final = 300
"""What it gives: 24 hours online, and the audits of a day."""
LONGEST_MAINTENANCE_S: Final = 4 * 3_600
"""No maintenance lasts longer (``meta/nodes/maintenance.py``): what is told beyond is cut off."""
CLOCKS_S: Final = 60
"""So much later than the ledger's time may be that of who tells."""
PREFIX_BYTES: Final = (0, 3, 6)
"""None known, IPv4 /24, IPv6 /48."""


_ENDPOINT: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s\[\]:]*):([0-9]{1,5})", re.ASCII)


def _endpoint(text: str, what: str) -> str:
    """host:port, with an IPv6 address in brackets, or nothing: whoever dials a node reads it from here."""
    printable(text, MAX_ENDPOINT_BYTES, what)
    found = _ENDPOINT.fullmatch(text)
    is_one = not text or (found is not None and 1 <= int(found[2]) <= 65_535)
    need(is_one, BAD_FORM, f"{what}: expected host:port with a port from 1 to 65535, or nothing, got {text[:60]!a}")
    return text


def statuses(call: Call, message: Any) -> None:
    """Note what was seen of nodes."""
    listed(message.nodes, MAX_STATUSES, "node_statuses.nodes")
    ascending((one.node for one in message.nodes), "node_statuses.nodes")
    most_ms = call.time_ms + (LONGEST_MAINTENANCE_S + CLOCKS_S) * 1_000
    is_bounded = any(one.score_change for one in message.nodes) and is_word_of_several(call.tables)
    for one in message.nodes:
        row = call.tables.get(NODE, (one.node,))
        if row is None:
            refuse(UNKNOWN_NODE, f"there is no node {one.node}: observe its registration first")
        need(len(one.prefix) in PREFIX_BYTES, BAD_FORM, f"node_statuses.prefix: expected 3 bytes (IPv4), 6 (IPv6) or none, got {shown(one.prefix)}")
        capacity = count(one.capacity_bytes, "node_statuses.capacity_bytes")
        change = whole(one.score_change, -MAX_SCORE_CHANGE, MAX_SCORE_CHANGE, "node_statuses.score_change")
        call.tables.put(
            NODE,
            row._replace(
                endpoint=_endpoint(one.endpoint, "node_statuses.endpoint"),
                prefix=one.prefix,
                capacity_bytes=capacity,
                free_bytes=whole(one.free_bytes, 0, capacity, "node_statuses.free_bytes"),
                is_online=one.is_online,
                seen_ms=call.time_ms if one.is_online else row.seen_ms,
                maintenance_until_ms=min(seconds(one.maintenance_until_s, "node_statuses.maintenance_until_s") * 1_000, most_ms),
                score=_scored(call, row, change, is_bounded),
            ),
        )


def _scored(call: Call, row: Node, change: int, is_bounded: bool) -> int:
    """The node's score after a change, as far as its sender may still change it on this day. What the score's own bounds leave out is not counted."""
    score = max(0, min(MAX_SCORE, row.score + change))
    if not is_bounded or score == row.score:
        return score
    key, day = (row.number, call.meta_node), call.time_ms // DAY_MS
    told = call.tables.get(TOLD, key)
    if told is None or told.day != day:
        told = Told(*key, day, 0, 0)
    made = max(told.lost - MOST_LOST, min(MOST_GAINED - told.gained, score - row.score))
    if made:
        call.tables.put(TOLD, told._replace(lost=told.lost + max(0, -made), gained=told.gained + max(0, made)))
    return row.score + made


def is_eligible(row: Node, time_ms: int) -> bool:
    """Whether a node may take new shares: active on chain, heard of, not in maintenance. Space, owner and prefix are the placement's to look at."""
    is_heard = row.is_online and time_ms - row.seen_ms < SILENT_S * 1_000
    return row.standing == ACTIVE and is_heard and time_ms >= row.maintenance_until_ms
