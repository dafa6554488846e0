"""Approvals: windows, and epochs closed without wallets, are the word of several meta nodes, as leases are.

    Window ─────────────────┐
    CloseEpoch, without ≠ ∅ ─┴─► Approval {chain id, sender, what, without its approvals} ─ ledger keys of floor((n − 1) ÷ 3) others ─► approvals

The sender counts as one of floor((n − 1) ÷ 3) + 1, so up to three meta nodes need no approvals. Those who approve a window have its leaves on disk and
checked them, so while fewer than a third lie an honest one has them (federation/approving.py). A window says until when it may be executed: after that no
block takes it, and who approved it need not keep it. Source: ADR 10.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import nacl.signing

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from modules.settlement.documents import signed_by_key, to_sign
from sds_node.documents import lease_quorum
from sds_node.meta.ledger.tables import View
from sds_node.meta.rules.call import Call
from sds_node.meta.rules.refusals import NO_QUORUM, OUT_OF_TIME, need
from sds_node.meta.rules.tables import META
from sds_node.meta.rules.wire import MAX_METAS, PACKAGE, ascending, listed

Approval: Final = message_class(f"{PACKAGE}.Approval")
APPROVAL_DOMAIN: Final = b"stratos/ledger-approval/v1"
APPROVED_S: Final = 900
"""Who approves a window does it for so long at most, by the ledger's time or the own clock where that is ahead: as long as an operation holds, and what clocks
may differ."""
_MOST_METAS: Final = 10_000
_KINDS: Final = {"Window": "window", "CloseEpoch": "close_epoch"}


def approval_bytes(chain_id: str, meta_node: bytes, message: Any) -> bytes:
    """What is signed to approve a Window or CloseEpoch of a meta node (20 bytes): the canonical Approval."""
    made = Approval(chain_id=chain_id, meta_node=meta_node)
    part = getattr(made, _KINDS[message.DESCRIPTOR.name])
    part.CopyFrom(message)
    part.ClearField("approvals")
    part.SetInParent()
    return encode(made)


def sign_approval(body: bytes, key: nacl.signing.SigningKey) -> bytes:
    """A meta node's signature (64 bytes) on the canonical bytes of an Approval."""
    return bytes(key.sign(to_sign(APPROVAL_DOMAIN, body)).signature)


def approved(message: Any, signatures: Iterable[tuple[bytes, bytes]]) -> Any:
    """A Window or CloseEpoch with these approvals, (meta node, signature) of each."""
    made = type(message)()
    made.CopyFrom(message)
    made.ClearField("approvals")
    for meta_node, signature in sorted(signatures):
        made.approvals.add(meta_node=meta_node, signature=signature)
    return made


def approvals_needed(view: View) -> int:
    """How many others have to approve what a meta node sends."""
    return lease_quorum(max(1, sum(one.is_active for one in view.scan(META, limit=_MOST_METAS)))) - 1


def check_until(call: Call, message: Any, what: str) -> None:
    """Refuses what may be executed no more. One that says no time has no end; nobody approves such a window."""
    need(
        message.until_s == 0 or call.time_ms <= message.until_s * 1_000,
        OUT_OF_TIME,
        f"this {what} was approved until {message.until_s} s, the ledger is at {call.time_ms} ms: have it approved again",
    )


def check_approvals(call: Call, message: Any, what: str) -> None:
    """Refuses a Window or CloseEpoch that too few other active meta nodes approved. What is signed by others than those does not count."""
    listed(message.approvals, MAX_METAS, f"{what}.approvals", 0)
    ascending((one.meta_node for one in message.approvals), f"{what}.approvals")
    keys = {one.address: one.ledger_key for one in call.tables.scan(META, limit=_MOST_METAS) if one.is_active}
    needed, good = lease_quorum(max(1, len(keys))) - 1, 0
    if needed == 0:
        return
    keys.pop(call.meta_node, None)
    body = approval_bytes(call.chain_id, call.meta_node, message)
    for one in message.approvals:
        if good == needed:
            break
        good += signed_by_key(APPROVAL_DOMAIN, body, keys.get(one.meta_node, b""), one.signature)
    need(
        good == needed,
        NO_QUORUM,
        f"expected {needed} other active meta nodes to have approved this {what}, got {good}: ask them for their approval (meta.approve)",
    )
