"""What meta nodes see of nodes: space, prefix, online or not, maintenance, score. The chain's part (deposit, standing) comes by observe.py.

Source: storage-protocol.md 3.3; sds.md 8.1 (status each 300 s); ADR 8.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sds_node.meta.rules.call import Call
from sds_node.meta.rules.observe import MAX_SCORE
from sds_node.meta.rules.refusals import BAD_FORM, UNKNOWN_NODE, need, refuse, shown
from sds_node.meta.rules.tables import ACTIVE, MAX_ENDPOINT_BYTES, NODE, Node
from sds_node.meta.rules.wire import MAX_STATUSES, ascending, count, listed, printable, seconds, whole

SILENT_S: Final = 900
"""A node of which nothing was heard for three times its 300 s is not online."""
MAX_SCORE_CHANGE: Final = 1_000
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
                maintenance_until_ms=seconds(one.maintenance_until_s, "node_statuses.maintenance_until_s") * 1_000,
                score=max(0, min(MAX_SCORE, row.score + change)),
            ),
        )


def is_eligible(row: Node, time_ms: int) -> bool:
    """Whether a node may take new shares: active on chain, heard of, not in maintenance. Space, owner and prefix are the placement's to look at."""
    is_heard = row.is_online and time_ms - row.seen_ms < SILENT_S * 1_000
    return row.standing == ACTIVE and is_heard and time_ms >= row.maintenance_until_ms
