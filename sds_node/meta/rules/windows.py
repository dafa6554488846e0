"""Windows: what a meta node's receipts move, every minute. The receipts stay with it; their root and the hash of the batch are here.

    leases, repair funds ── Σ by fund ══ Σ by fund ──► earned (beneficiary, class, fund)        on top: leases ─ governed share of reads ─► common repair fund
      └ over: the first meta node that takes from one then is noted in ``taken``, and no other one may any more
    from four meta nodes on others have approved it, which have its receipts: approvals.py

Source: storage-protocol.md 2, 3.6 and 4; ADR 8, 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sds_node.meta.ledger.tables import View
from sds_node.meta.rules.approvals import check_approvals, check_until
from sds_node.meta.rules.call import Call, state_of
from sds_node.meta.rules.leases import lease_of, settles_ms, takeover_ms
from sds_node.meta.rules.money import change_common_fund, earn, use_allowed
from sds_node.meta.rules.moves import is_word_of_several
from sds_node.meta.rules.objects import STORED
from sds_node.meta.rules.refusals import BAD_FORM, LEASE_TIME, NOT_ENOUGH, NOT_YOURS, UNEVEN, UNKNOWN_FILE, WRONG_NUMBER, need, refuse, shown
from sds_node.meta.rules.tables import LEASE, META, OBJECT, TAKEN, WINDOW, Lease, Taken, WindowRow
from sds_node.meta.rules.wire import MAX_CREDITS, MAX_DEBITS, MAX_REPAIR_DEBITS, address, ascending, count, fund_of, identity, listed, whole

WINDOWS_KEPT: Final = 50_000
"""Of each meta node: about 34 days of one a minute, longer than an epoch can be disputed."""
MAX_ENTRY_NOZ: Final = (1 << 63) - 1
_RATIO_ONE: Final = 10**18


def window(call: Call, message: Any) -> None:
    """Settle what leases and repair funds owe by receipts."""
    tables = call.tables
    debits = listed(message.leases, MAX_DEBITS, "window.leases", 0)
    repairs = listed(message.repairs, MAX_REPAIR_DEBITS, "window.repairs", 0)
    credits = listed(message.credits, MAX_CREDITS, "window.credits", 0)
    ascending((one.lease_id for one in debits), "window.leases")
    ascending(((one.object_id, one.fund) for one in repairs), "window.repairs")
    ascending(((one.beneficiary, one.fund, one.traffic_class) for one in credits), "window.credits")
    check_until(call, message, "window")
    balance = {1: 0, 2: 0}
    for one in credits:
        address(one.beneficiary, "window.credits.beneficiary")
        whole(one.traffic_class, 1, 4, "window.credits.traffic_class")
        balance[fund_of(one.fund, "window.credits")] -= whole(one.noz, 1, MAX_ENTRY_NOZ, "window.credits.noz")
    for one in debits:
        balance[_debit_lease(call, one)] += one.noz
    repaired = {1: 0, 2: 0}
    for one in repairs:
        fund = _debit_repair(call, one)
        balance[fund], repaired[fund] = balance[fund] + one.noz, repaired[fund] + one.noz
    _use_allowed(call, repaired)
    for fund, left in balance.items():
        need(left == 0, UNEVEN, f"fund {fund}: leases and repair funds give {'more' if left > 0 else 'less'} than is earned, by {abs(left)} noz")
    for one in credits:
        earn(tables, one.beneficiary, one.traffic_class, one.fund, one.noz, call.time_ms)
    put_window(call, message.number, False, message.receipts_root, message.receipts_count, message.batch_hash, sum(one.noz for one in credits))
    # Last, so that who tries out a window that nobody has approved yet hears of all else that is wrong with it.
    check_approvals(call, message, "window")


def _debit_lease(call: Call, debit: Any) -> int:
    """lease → earned, and the governed share of what was read → the common repair fund as far as the lease has it. Gives the lease's fund.

    Storing costs its bill and nothing more: of that the failed days are the repair fund's part.
    """
    tables = call.tables
    row = lease_of(tables, debit.lease_id)
    noz = whole(debit.noz, 1, MAX_ENTRY_NOZ, "window.leases.noz")
    read = noz - whole(debit.put_noz, 0, noz, "window.leases.put_noz")
    need(call.time_ms < settles_ms(row), LEASE_TIME, f"lease {shown(row.id)} ended at {row.ends_ms} ms and its time to settle is over")
    _need_own(call, row)
    need(noz <= row.noz, NOT_ENOUGH, f"lease {shown(row.id)} has {row.noz} noz left, its receipts are for {noz}")
    on_top = min(row.noz - noz, read * state_of(tables).repair_ratio_e18 // _RATIO_ONE)
    tables.put(LEASE, row._replace(noz=row.noz - noz - on_top))
    change_common_fund(tables, row.fund, on_top)
    return row.fund


def _need_own(call: Call, row: Lease) -> None:
    """Refuses a lease that another meta node settles. Whoever takes over for one that died settles by the receipts that nodes show, once the lease has ended
    and its own meta node had 300 s; since then it is one meta node alone, so that one that comes back does not settle what another one did."""
    why = why_not_its_own(call.tables, row, call.meta_node, call.time_ms)
    need(not why, NOT_YOURS, why)
    if call.time_ms >= row.ends_ms and call.tables.get(TAKEN, (row.id,)) is None:
        call.tables.put(TAKEN, Taken(row.id, call.meta_node))


def why_not_its_own(view: View, row: Lease, meta_node: bytes, time_ms: int) -> str:
    """Why a meta node may not settle a lease at that time of the ledger; empty where it may."""
    others_ms = takeover_ms(row)
    if row.meta_node != meta_node and time_ms < others_ms:
        return f"lease {shown(row.id)} is settled by meta node {shown(row.meta_node)} until {others_ms} ms"
    taken = view.get(TAKEN, (row.id,)) if time_ms >= row.ends_ms else None
    if taken is not None and taken.meta_node != meta_node:
        return f"lease {shown(row.id)} has ended, and meta node {shown(taken.meta_node)} settles it since"
    return ""


def _debit_repair(call: Call, debit: Any) -> int:
    """A repair fund → earned: an object's, or the common one where no object is named. Gives the fund."""
    tables, fund = call.tables, fund_of(debit.fund, "window.repairs")
    noz = whole(debit.noz, 1, MAX_ENTRY_NOZ, "window.repairs.noz")
    if not debit.object_id:
        change_common_fund(tables, fund, -noz)
        return fund
    row = tables.get(OBJECT, (identity(debit.object_id, "window.repairs.object_id"),))
    if row is None or row.state not in STORED:
        refuse(UNKNOWN_FILE, f"object {shown(debit.object_id)} is not stored")
    need(row.fund == fund, BAD_FORM, f"object {shown(row.id)} was paid from fund {row.fund}, got {fund}")
    need(noz <= row.repair_noz, NOT_ENOUGH, f"the repair fund of object {shown(row.id)} has {row.repair_noz} noz, {noz} are needed")
    tables.put(OBJECT, row._replace(repair_noz=row.repair_noz - noz))
    return fund


def _use_allowed(call: Call, repaired: Mapping[int, int]) -> None:
    """Refuses repair that costs more than moves have allowed, where there are several meta nodes."""
    for fund, noz in repaired.items():
        beyond = use_allowed(call.tables, fund, noz) if noz else 0
        if beyond:
            reason = f"repair may cost {noz - beyond} noz of fund {fund} by the moves that were made, {noz} are asked for"
            need(not is_word_of_several(call.tables), NOT_ENOUGH, reason)


def put_window(call: Call, number: int, is_release: bool, root: bytes, items: int, batch_hash: bytes, noz: int) -> None:
    """Note a window or release of the sender; its numbers have no gap."""
    tables = call.tables
    meta = tables.get(META, (call.meta_node,))
    assert meta is not None
    need(number == meta.windows + 1, WRONG_NUMBER, f"expected window {meta.windows + 1} of this meta node, got {number}")
    identity(root, "window's root")
    identity(batch_hash, "window's batch_hash")
    tables.put(META, meta._replace(windows=number))
    tables.put(WINDOW, WindowRow(call.meta_node, number, is_release, call.time_ms, root, count(items, "window's count"), batch_hash, noz))
    if number > WINDOWS_KEPT:
        tables.delete(WINDOW, (call.meta_node, number - WINDOWS_KEPT))
