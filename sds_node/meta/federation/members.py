"""Who keeps the ledger together, as the ledger itself says: whose operations are taken, who votes on blocks, who may connect.

    META, SENT rows ─► senders ─► signer, admit: an operation's envelope        ─► validator keys, one vote each

An operation's envelope (form, chain, sender, signature, nonce, time) is all that a mempool looks at. Whether its rules refuse it is found out where it stands
in a block: so one that was broadcast ends in a block, unless its nonce was used by another one or its time is over. A block has none without a right signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modules.settlement.documents import signed_by_key
from sds_node.meta.federation.bounds import Sender, is_of_users
from sds_node.meta.ledger.errors import Refused
from sds_node.meta.ledger.schema import MAX_INT63
from sds_node.meta.ledger.tables import View
from sds_node.meta.rules.apply import MAX_UNTIL_S, with_nonce
from sds_node.meta.rules.refusals import BAD_SIGNATURE, OUT_OF_TIME, UNKNOWN_SENDER, WRONG_CHAIN, need, refuse, shown
from sds_node.meta.rules.tables import META, SENT, Meta
from sds_node.meta.rules.wire import OPERATION_DOMAIN, open_operation, whole

MAX_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Sketch:
    """What an operation says of itself: who sends it (20 bytes), the Unix second after which no block can apply it, whether a user asked for it."""

    sender: bytes
    until_s: int
    is_users: bool


def sketch_of(operation: bytes) -> Sketch | None:
    """None for what is no operation. Nothing is checked."""
    try:
        found, _, _ = open_operation(operation)
    except Refused:
        return None
    return Sketch(bytes(found.meta_node), int(found.until_s), is_of_users(found))


def senders_of(view: View) -> dict[bytes, bytes]:
    """Active meta nodes that have a ledger key: address (20 bytes) → key (32 bytes)."""
    return {row.address: row.ledger_key for row in _active(view)}


def keepers_of(view: View) -> tuple[bytes, ...]:
    """Those of them whose operations the ledger has: whom it rested on until now. One that was one meta node's alone knows others, too."""
    return tuple(sorted(row.address for row in _active(view) if row.nonce))


def standings_of(view: View) -> dict[bytes, Sender]:
    """The same with their rows: address (20 bytes) → Sender."""
    return {row.address: Sender(row, view.get(SENT, (row.address,))) for row in _active(view)}


def _active(view: View) -> list[Meta]:
    """Active meta nodes that have a ledger key."""
    return [row for row in view.scan(META, limit=MAX_ROWS) if row.is_active and row.ledger_key]


def keys_of(senders: Mapping[bytes, Sender]) -> dict[bytes, bytes]:
    """Address → ledger key, as ``senders_of``."""
    return {address: one.key for address, one in senders.items()}


def validators_of(senders: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """The keys that vote on blocks, each once, in order."""
    return tuple(sorted(set(senders.values())))


def knows(view: View, address: bytes) -> bool:
    """Whether the ledger ever had a meta node of that address (20 bytes)."""
    return view.get(META, (address,)) is not None


def signer(senders: Mapping[bytes, Sender], chain_id: str, operation: bytes) -> tuple[Sender, Any]:
    """(who has signed it, the Operation). Raises Refused for what no active meta node has signed as an operation on this chain."""
    found, body, signature = open_operation(operation)
    need(found.chain_id == chain_id, WRONG_CHAIN, f"expected an operation on {chain_id}, got one on {found.chain_id[:50]!a}")
    sender = senders.get(found.meta_node)
    if sender is None:
        refuse(UNKNOWN_SENDER, f"{shown(found.meta_node)} is no active meta node with a ledger key")
    is_signed = signed_by_key(OPERATION_DOMAIN, body, sender.key, signature)
    need(is_signed, BAD_SIGNATURE, f"meta node {shown(found.meta_node)} has not signed this operation")
    return sender, found


def admit(senders: Mapping[bytes, Sender], chain_id: str, operation: bytes, time_ms: int) -> tuple[Sender, Any]:
    """As ``signer``. Raises Refused for an operation that no rule has to be asked about: its nonce was used, or its time is not now, too."""
    sender, found = signer(senders, chain_id, operation)
    need_time(int(found.until_s), time_ms)
    need_nonce(sender, int(found.nonce))
    return sender, found


def need_nonce(sender: Sender, nonce: int) -> None:
    """Raises Refused for the nonce of an operation that no block can apply any more: it was used in one, or is too far behind."""
    with_nonce(sender.meta, whole(nonce, 1, MAX_INT63, "operation.nonce"))


def need_time(until_s: int, time_ms: int) -> None:
    """Raises Refused for an operation whose time is over, or longer than any may last."""
    now_s = time_ms // 1_000
    need(
        now_s <= until_s <= now_s + 2 * MAX_UNTIL_S,
        OUT_OF_TIME,
        f"an operation until {until_s} is out of time, the ledger is at {now_s}: send it again",
    )
