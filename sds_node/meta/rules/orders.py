"""What wallets order, each signed by the wallet and done once: native orders, and the strings of the original's clients with the numbers in them.

Source: storage-protocol.md 5; sds.md 1.4, 7.2; ADR 8.
"""

from __future__ import annotations

from typing import Any, Final

from sds_node.meta.ledger.schema import MAX_INT63
from sds_node.meta.rules.asking import check_legacy, use_legacy, use_order
from sds_node.meta.rules.call import Call
from sds_node.meta.rules.files import delete, file_by_hash, rename, renew, restore, to_trash
from sds_node.meta.rules.leases import LEGACY_ACTIONS
from sds_node.meta.rules.money import wallet_of
from sds_node.meta.rules.refusals import BAD_FORM, NOT_PUBLIC, TOO_MANY, need, refuse, shown
from sds_node.meta.rules.shares import share, share_file, unshare, unshare_one
from sds_node.meta.rules.tables import WALLET
from sds_node.meta.rules.wire import address
from sds_node.requests import Action


def wallet_order(call: Call, message: Any) -> None:
    """Do what a WalletOrder says."""
    wallet, order = use_order(call, message)
    kind = order.WhichOneof("kind")
    if kind is None:
        refuse(BAD_FORM, "order: expected one of the kinds that this ledger knows, got none")
    _ORDERS[kind](call, wallet, getattr(order, kind))


def _allow_legacy(call: Call, wallet: bytes, message: Any) -> None:
    row = wallet_of(call.tables, wallet)
    call.tables.put(WALLET, row._replace(is_legacy_allowed=message.is_allowed))


_ORDERS: Final = {
    "delete": delete,
    "restore": restore,
    "rename": rename,
    "renew": renew,
    "share": share,
    "unshare": unshare,
    "allow_legacy": _allow_legacy,
}


def legacy_order(call: Call, message: Any) -> None:
    """Do what a client of the original signed: delete or share the files of a hash, end a share."""
    wallet = address(message.wallet, "legacy_order.wallet")
    kind = message.WhichOneof("kind")
    if kind is None or (kind != "share" and not getattr(message, kind)):
        refuse(BAD_FORM, "legacy_order: expected delete, share or unshare, got none")
    ask = message.ask
    if kind == "unshare":
        use_legacy(call, ask, wallet, Action.STOP_SHARE)
        unshare_one(call, wallet, ask.subject)
        return
    use_legacy(call, ask, wallet, Action.DELETE_FILE if kind == "delete" else Action.CREATE_SHARE)
    files = file_by_hash(call.tables, wallet, ask.subject)
    if kind == "delete":
        for file in files:
            to_trash(call.tables, file, call.time_ms)
        return
    public = [one for one in files if one.is_public]
    if not public:
        refuse(NOT_PUBLIC, f"file {ask.subject} is private: its key is wrapped for its owner alone; share it with a client that can wrap it")
    share_file(call, public[0], message.share)


def advance_sequence(call: Call, message: Any) -> None:
    """A wallet's number goes on by one, after the task for which its client signed the current one."""
    wallet = address(message.wallet, "advance_sequence.wallet")
    authority = message.WhichOneof("authority")
    if authority is None:
        refuse(BAD_FORM, "advance_sequence.authority: expected a legacy string, got none")
    check_legacy(call, getattr(message, authority), wallet, LEGACY_ACTIONS[authority])
    row = wallet_of(call.tables, wallet)
    need(row.sequence < MAX_INT63, TOO_MANY, f"wallet {shown(wallet)} has used all sequence numbers")
    call.tables.put(WALLET, row._replace(sequence=row.sequence + 1))
