"""Where noz are, and how they move. Each function changes one place; a rule calls two of them with equal sums.

    wallets + promo ─ leases ─ escrows ─ repair funds ─ earned + promo that ended      Σ = owed (state), and Σ of granted ones = promo_owed

Granted noz end at a midnight (UTC); where those of several ends are put together, in a lease or an escrow, they end at the mean of these. What comes back to a wallet after that is not the wallet's any more: it waits for the next report as expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sds_node.meta.ledger.tables import Tables
from sds_node.meta.rules.call import change_state, dequeue, enqueue, state_of
from sds_node.meta.rules.refusals import NOT_ENOUGH, TOO_MUCH, need, refuse, shown
from sds_node.meta.rules.tables import ALLOWED, DAY_MS, EARNED, PAID, PROMO, PROMO_ENDS, PROMO_NOZ, STORAGE, WALLET, Allowed, Earned, Promo, Wallet
from sds_node.meta.rules.wire import MAX_AMOUNT

MAX_PROMO_PARTS: Final = 64
"""So many different ends may be among the granted noz that one operation takes."""


def midnight(time_ms: int) -> int:
    """The end of the day (UTC) of a time, or the time itself if it is one."""
    return -(-time_ms // DAY_MS) * DAY_MS


def wallet_of(tables: Tables, address: bytes) -> Wallet:
    """A wallet's row; one that nothing is known of is empty."""
    return tables.get(WALLET, (address,)) or Wallet(address, 0, 0, 0, 0, 0, 0, 0, True)


def promo_id(wallet: bytes, ends_ms: int) -> bytes:
    """What the queue calls a wallet's granted noz of one end."""
    return wallet + ends_ms.to_bytes(8, "big")


def owe(tables: Tables, fund: int, noz: int) -> None:
    """The chain owes so much more: sold, granted, or put back by a void epoch."""
    row = state_of(tables)
    need(row.owed_noz + noz <= MAX_AMOUNT, TOO_MUCH, f"all noz together are at most 2^127 - 1: {row.owed_noz} and {noz} more are not")
    change_state(tables, owed_noz=row.owed_noz + noz, promo_owed_noz=row.promo_owed_noz + (noz if fund == PROMO else 0))


def pay_in(tables: Tables, wallet: bytes, fund: int, noz: int, ends_ms: int, time_ms: int) -> None:
    """noz → wallet. ``ends_ms`` is when granted ones end; without meaning for paid ones."""
    if noz == 0:
        return
    row = wallet_of(tables, wallet)
    if fund == PAID:
        tables.put(WALLET, row._replace(paid_noz=row.paid_noz + noz))
        return
    ends_ms = midnight(ends_ms)
    if ends_ms <= time_ms:
        change_state(tables, promo_expired_noz=state_of(tables).promo_expired_noz + noz)
        return
    part = tables.get(PROMO_NOZ, (wallet, ends_ms))
    if part is None:
        enqueue(tables, ends_ms, PROMO_ENDS, promo_id(wallet, ends_ms))
    tables.put(PROMO_NOZ, Promo(wallet, ends_ms, noz + (part.noz if part else 0)))
    tables.put(WALLET, row._replace(promo_noz=row.promo_noz + noz))


def mean_end(parts: Sequence[tuple[int, int]]) -> int:
    """The end (a midnight) of granted noz that are put together from (end, noz): their mean, so that no noz lasts longer because of another one."""
    noz = sum(one for _, one in parts)
    ends_ms = sum(ends_ms * one for ends_ms, one in parts) // noz if noz else max((ends_ms for ends_ms, _ in parts), default=0)
    return ends_ms // DAY_MS * DAY_MS


def take_out(tables: Tables, wallet: bytes, fund: int, noz: int, time_ms: int) -> int:
    """wallet → the caller's place; of granted noz those that end first. Gives their mean end, 0 for paid ones. Refuses what is not there."""
    row = wallet_of(tables, wallet)
    has = row.paid_noz if fund == PAID else row.promo_noz
    name = "bought" if fund == PAID else "granted"
    need(has >= noz, NOT_ENOUGH, f"wallet {shown(wallet)} has {has} {name} noz, {noz} are needed: buy ozone or ask for less")
    if fund == PAID:
        tables.put(WALLET, row._replace(paid_noz=has - noz))
        return 0
    left, taken = noz, []
    for part in tables.scan(PROMO_NOZ, (wallet,), after=(time_ms,), limit=MAX_PROMO_PARTS):
        if left == 0:
            break
        used = min(left, part.noz)
        left -= used
        taken.append((part.ends_ms, used))
        if used == part.noz:
            tables.delete(PROMO_NOZ, (wallet, part.ends_ms))
            dequeue(tables, part.ends_ms, PROMO_ENDS, promo_id(wallet, part.ends_ms))
        else:
            tables.put(PROMO_NOZ, part._replace(noz=part.noz - used))
    if left:
        refuse(
            NOT_ENOUGH,
            f"wallet {shown(wallet)} has {noz - left} granted noz in its first {MAX_PROMO_PARTS} grants that have not ended, {noz} are needed",
        )
    tables.put(WALLET, row._replace(promo_noz=has - noz))
    return mean_end(taken)


def promo_ended(tables: Tables, wallet: bytes, ends_ms: int) -> None:
    """A wallet's granted noz of one end → expired."""
    part = tables.get(PROMO_NOZ, (wallet, ends_ms))
    if part is None:
        return
    tables.delete(PROMO_NOZ, (wallet, ends_ms))
    row = wallet_of(tables, wallet)
    tables.put(WALLET, row._replace(promo_noz=row.promo_noz - part.noz))
    change_state(tables, promo_expired_noz=state_of(tables).promo_expired_noz + part.noz)


def earn(tables: Tables, wallet: bytes, traffic_class: int, fund: int, noz: int, since_ms: int) -> None:
    """noz → earned. The older time counts, so that who waits longest is reported first."""
    if noz == 0:
        return
    row = tables.get(EARNED, (wallet, traffic_class, fund))
    if row is None:
        tables.put(EARNED, Earned(wallet, traffic_class, fund, noz, since_ms))
    else:
        tables.put(EARNED, row._replace(noz=row.noz + noz, since_ms=min(row.since_ms, since_ms)))


def earn_storage(tables: Tables, wallet: bytes, fund: int, noz: int, since_ms: int) -> None:
    """``earn`` for shares that were kept."""
    earn(tables, wallet, STORAGE, fund, noz, since_ms)


def allow_repair(tables: Tables, fund: int, noz: int) -> None:
    """Repair may cost so much more."""
    row = tables.get(ALLOWED, (fund,))
    tables.put(ALLOWED, Allowed(fund, (row.noz if row is not None else 0) + noz))


def use_allowed(tables: Tables, fund: int, noz: int) -> int:
    """Repair has cost so much. Gives what was not allowed of it."""
    row = tables.get(ALLOWED, (fund,))
    has = row.noz if row is not None else 0
    if has > noz:
        tables.put(ALLOWED, Allowed(fund, has - noz))
    elif row is not None:
        tables.delete(ALLOWED, (fund,))
    return max(0, noz - has)


def common_fund(tables: Tables, fund: int) -> int:
    """What the common repair fund has."""
    row = state_of(tables)
    return row.repair_paid_noz if fund == PAID else row.repair_promo_noz


def change_common_fund(tables: Tables, fund: int, change_noz: int) -> None:
    """noz → the common repair fund, or out of it. Refuses more than it has."""
    if change_noz == 0:
        return
    has = common_fund(tables, fund)
    need(has + change_noz >= 0, NOT_ENOUGH, f"the common repair fund has {has} noz, {-change_noz} are needed")
    name = "repair_paid_noz" if fund == PAID else "repair_promo_noz"
    change_state(tables, **{name: has + change_noz})
