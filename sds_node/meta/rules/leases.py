"""Leases: a wallet's noz in the hands of one meta node, for a time.

    wallet ─ take ─► lease ─ commit, window ─► objects, earned        what is left ─ settle ─► wallet
               └ by a legacy string: what it is for, and no more noz than that can cost (strings.py)

Source: storage-protocol.md 2 (lease), 4 and 5; ADR 8.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

from modules.settlement.legacy import TASK_S
from sds_node.meta.ledger.tables import Tables
from sds_node.meta.rules.asking import use_grant, use_legacy
from sds_node.meta.rules.call import Call, dequeue, enqueue, state_of
from sds_node.meta.rules.money import pay_in, take_out, wallet_of
from sds_node.meta.rules.refusals import BAD_FORM, LEASE_TIME, NOT_YOURS, TOO_MANY, UNKNOWN_LEASE, need, refuse, shown
from sds_node.meta.rules.strings import asked_by
from sds_node.meta.rules.tables import ASKED, LEASE, LEASE_ENDS, TAKEN, WALLET, Lease
from sds_node.meta.rules.wire import MAX_LEASES, address, ascending, fund_of, identity, listed, whole
from sds_node.requests import FRESH_S, Action

MAX_OPEN_LEASES: Final = 64
SETTLE_S: Final = 600
"""After a lease's end its receipts may still be settled so long; then what is left goes back."""
TAKEOVER_S: Final = 300
"""After a lease's end its own meta node alone settles it so long; then another one may, which takes over for it."""
MAX_LEASE_NOZ: Final = (1 << 63) - 1
_LEASE_ID: Final = b"stratos/lease-id/v1\0"
LEGACY_ACTIONS: Final = {"upload": Action.UPLOAD, "download": Action.DOWNLOAD, "download_shared": Action.DOWNLOAD_SHARED}


def lease_id(meta_node: bytes, nonce: int) -> bytes:
    """The id (32 bytes) of the lease that an operation takes. A nonce is used once, so an id is, too."""
    return sha256(_LEASE_ID + meta_node + nonce.to_bytes(8, "big")).digest()


def takeover_ms(lease: Lease) -> int:
    """From when on another meta node than its own may settle what it owes."""
    return lease.ends_ms + TAKEOVER_S * 1_000


def settles_ms(lease: Lease) -> int:
    """From when on anyone may settle it."""
    return lease.ends_ms + SETTLE_S * 1_000


def take(call: Call, message: Any) -> bytes:
    """wallet → lease. Gives the lease's id."""
    tables = call.tables
    wallet, session = address(message.wallet, "lease.wallet"), identity(message.session_pubkey, "lease.session_pubkey")
    fund, noz = fund_of(message.fund, "lease"), whole(message.noz, 1, MAX_LEASE_NOZ, "lease.noz")
    longest_s = state_of(tables).longest_lease_s
    whole(message.seconds, 1, longest_s, "lease.seconds")
    row = wallet_of(tables, wallet)
    need(row.open_leases < MAX_OPEN_LEASES, TOO_MANY, f"wallet {shown(wallet)} has {row.open_leases} open leases, at most {MAX_OPEN_LEASES}: end one")
    ends_s = call.time_ms // 1_000 + message.seconds
    authority = message.WhichOneof("authority")
    if authority is None:
        refuse(BAD_FORM, "lease.authority: expected a session grant or a legacy string, got none")
    if authority == "grant":
        may_put = use_grant(call, message.grant, wallet, session, noz, ends_s)
    else:
        ask = getattr(message, authority)
        use_legacy(call, ask, wallet, LEGACY_ACTIONS[authority])
        most_s = ask.timestamp_s + FRESH_S + TASK_S
        need(
            ends_s <= most_s,
            LEASE_TIME,
            f"a lease that a legacy string pays for ends by {most_s} s, {FRESH_S + TASK_S} s after the string's time, got {ends_s}",
        )
        may_put = authority == "upload"
    key = lease_id(call.meta_node, call.nonce)
    if authority != "grant":
        tables.put(ASKED, asked_by(call, message, authority, key))
    promo_ends_ms = take_out(tables, wallet, fund, noz, call.time_ms)
    made = Lease(key, wallet, call.meta_node, session, fund, noz, noz, call.time_ms, ends_s * 1_000, promo_ends_ms, may_put)
    tables.put(LEASE, made)
    row = wallet_of(tables, wallet)
    tables.put(WALLET, row._replace(open_leases=row.open_leases + 1))
    enqueue(tables, settles_ms(made), LEASE_ENDS, key)
    return key


def lease_of(tables: Tables, key: bytes) -> Lease:
    """A lease that is not settled. Refuses any other."""
    row = tables.get(LEASE, (identity(key, "lease_id"),))
    if row is None:
        refuse(UNKNOWN_LEASE, f"there is no lease {shown(key)}: it was settled, or never taken")
    return row


def held_lease(call: Call, key: bytes) -> Lease:
    """A lease that the sender holds, before its time to settle is over. Refuses any other."""
    row = lease_of(call.tables, key)
    need(row.meta_node == call.meta_node, NOT_YOURS, f"lease {shown(key)} is held by meta node {shown(row.meta_node)}")
    need(call.time_ms < settles_ms(row), LEASE_TIME, f"lease {shown(key)} ended at {row.ends_ms} ms and its time to settle is over")
    return row


def settle(call: Call, message: Any) -> None:
    """What is left of leases → their wallets: by their meta node at any time, by anyone once they are over. One that ended and that another meta node
    settles stays until it is over: receipts may wait there."""
    ascending(listed(message.lease_ids, MAX_LEASES, "settle_leases.lease_ids"), "settle_leases.lease_ids")
    rows = [lease_of(call.tables, key) for key in message.lease_ids]
    for row in rows:
        is_over = call.time_ms >= settles_ms(row)
        need(
            is_over or row.meta_node == call.meta_node, NOT_YOURS, f"lease {shown(row.id)} is not over, and held by meta node {shown(row.meta_node)}"
        )
    for row in rows:
        taken = call.tables.get(TAKEN, (row.id,))
        if taken is None or taken.meta_node == call.meta_node or call.time_ms >= settles_ms(row):
            end_lease(call.tables, row, call.time_ms)


def end_lease(tables: Tables, row: Lease, time_ms: int) -> None:
    """A lease is no more: the rest → its wallet."""
    tables.delete(LEASE, (row.id,))
    if tables.get(TAKEN, (row.id,)) is not None:
        tables.delete(TAKEN, (row.id,))
    if tables.get(ASKED, (row.id,)) is not None:
        tables.delete(ASKED, (row.id,))
    dequeue(tables, settles_ms(row), LEASE_ENDS, row.id)
    pay_in(tables, row.wallet, row.fund, row.noz, row.promo_ends_ms, time_ms)
    wallet = wallet_of(tables, row.wallet)
    tables.put(WALLET, wallet._replace(open_leases=wallet.open_leases - 1))
