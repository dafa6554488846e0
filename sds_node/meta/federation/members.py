"""Who keeps the ledger together, as the ledger itself says: whose operations are taken, who votes on blocks, who may connect.

    META rows ─► senders: address → ledger key ─► admit: an operation's envelope        ─► validator keys, one vote each

An operation's envelope (form, chain, sender, signature, time) is all that a mempool looks at. Whether its rules refuse it is found out where it stands in
a block: so one that was broadcast ends in a block, unless its time is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modules.settlement.documents import signed_by_key
from sds_node.meta.ledger.errors import Refused
from sds_node.meta.ledger.tables import View
from sds_node.meta.rules.apply import MAX_UNTIL_S
from sds_node.meta.rules.refusals import BAD_SIGNATURE, OUT_OF_TIME, UNKNOWN_SENDER, WRONG_CHAIN, need, shown
from sds_node.meta.rules.tables import META
from sds_node.meta.rules.wire import OPERATION_DOMAIN, open_operation

MAX_ROWS: Final = 10_000


def deadline_of(operation: bytes) -> int | None:
    """The Unix second after which no block can apply the operation; None for what is no operation."""
    try:
        found, _, _ = open_operation(operation)
    except Refused:
        return None
    return int(found.until_s)


def senders_of(view: View) -> dict[bytes, bytes]:
    """Active meta nodes that have a ledger key: address (20 bytes) → key (32 bytes)."""
    return {row.address: row.ledger_key for row in view.scan(META, limit=MAX_ROWS) if row.is_active and row.ledger_key}


def validators_of(senders: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """The keys that vote on blocks, each once, in order."""
    return tuple(sorted(set(senders.values())))


def knows(view: View, address: bytes) -> bool:
    """Whether the ledger ever had a meta node of that address (20 bytes)."""
    return view.get(META, (address,)) is not None


def admit(senders: Mapping[bytes, bytes], chain_id: str, operation: bytes, time_ms: int) -> None:
    """Raises Refused for an operation that no rule has to be asked about."""
    found, body, signature = open_operation(operation)
    need(found.chain_id == chain_id, WRONG_CHAIN, f"expected an operation on {chain_id}, got one on {found.chain_id[:50]!a}")
    key = senders.get(found.meta_node, b"")
    need(bool(key), UNKNOWN_SENDER, f"{shown(found.meta_node)} is no active meta node with a ledger key")
    need(signed_by_key(OPERATION_DOMAIN, body, key, signature), BAD_SIGNATURE, f"meta node {shown(found.meta_node)} has not signed this operation")
    need_time(int(found.until_s), time_ms)


def need_time(until_s: int, time_ms: int) -> None:
    """Raises Refused for an operation whose time is over, or longer than any may last."""
    now_s = time_ms // 1_000
    need(
        now_s <= until_s <= now_s + 2 * MAX_UNTIL_S,
        OUT_OF_TIME,
        f"an operation until {until_s} is out of time, the ledger is at {now_s}: send it again",
    )
