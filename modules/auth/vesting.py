"""Vesting accounts: what is locked at a time, what delegations of it are tracked, and what a genesis file may say about them.

Integer arithmetic as the SDK's (LegacyDec, rounded). With V still vesting, DV and DF delegated while vesting and while free:
locked = max(V - DV, 0); a delegation D adds min(max(V - DV, 0), D) to DV and the rest to DF; an undelegation takes from DF first.
"""

from __future__ import annotations

from typing import Any

from chain import coins
from chain.coins import Coin, Coins
from chain.dec import ONE, Dec
from chain.errors import AppError, InsufficientFunds

_CONTINUOUS = "cosmos.vesting.v1beta1.ContinuousVestingAccount"
_DELAYED = "cosmos.vesting.v1beta1.DelayedVestingAccount"
_PERIODIC = "cosmos.vesting.v1beta1.PeriodicVestingAccount"
_PERMANENT = "cosmos.vesting.v1beta1.PermanentLockedAccount"
KINDS = (_CONTINUOUS, _DELAYED, _PERIODIC, _PERMANENT)


def is_vesting(account: Any) -> bool:
    """True for an account message of one of the four vesting kinds."""
    return account.DESCRIPTOR.full_name in KINDS


def vesting_coins(account: Any, time_s: int) -> Coins:
    """The part of the original amount that has not vested at ``time_s`` (Unix seconds)."""
    base = account.base_vesting_account
    original = coins.from_messages(base.original_vesting)
    kind = account.DESCRIPTOR.full_name
    if kind == _PERMANENT:
        return original
    if kind == _DELAYED:
        return () if time_s >= base.end_time else original
    if time_s <= account.start_time:
        return original
    if time_s >= base.end_time:
        return ()
    if kind == _CONTINUOUS:
        share = Dec((time_s - account.start_time) * ONE).quo(Dec((base.end_time - account.start_time) * ONE))
        vested = coins.normalise(Coin(denom, _round(Dec(amount * ONE).mul(share))) for denom, amount in original)
    else:
        vested = _vested_in_periods(account, time_s)
    left = coins.subtract(original, vested)
    assert left is not None, "no more vests than there was"
    return left


def locked_coins(account: Any, time_s: int) -> Coins:
    """What the account may not spend: vesting coins beyond those it has delegated while vesting."""
    delegated = coins.from_messages(account.base_vesting_account.delegated_vesting)
    vesting = vesting_coins(account, time_s)
    return coins.normalise(Coin(denom, max(amount - coins.amount_of(delegated, denom), 0)) for denom, amount in vesting)


def track_delegation(account: Any, time_s: int, balances: Coins, amount: Coins) -> None:
    """Split ``amount``, delegated at ``time_s`` out of ``balances``, between what vests and what is free. Raises InsufficientFunds."""
    base = account.base_vesting_account
    delegated, free = coins.from_messages(base.delegated_vesting), coins.from_messages(base.delegated_free)
    vesting = vesting_coins(account, time_s)
    for coin in amount:
        if coin.amount <= 0 or coins.amount_of(balances, coin.denom) < coin.amount:
            raise InsufficientFunds(f"{coin} cannot be delegated out of {coins.to_text(balances) or 'nothing'}")
    split = [(coin, min(max(coins.amount_of(vesting, coin.denom) - coins.amount_of(delegated, coin.denom), 0), coin.amount)) for coin in amount]
    _set(base.delegated_vesting, coins.normalise((*delegated, *(Coin(coin.denom, part) for coin, part in split))))
    _set(base.delegated_free, coins.normalise((*free, *(Coin(coin.denom, coin.amount - part) for coin, part in split))))


def track_undelegation(account: Any, amount: Coins) -> None:
    """Take ``amount`` off the tracked delegations, free ones first; what exceeds them is not tracked (a bond can grow)."""
    base = account.base_vesting_account
    delegated, free = coins.from_messages(base.delegated_vesting), coins.from_messages(base.delegated_free)
    split = [(denom, each, min(coins.amount_of(free, denom), each)) for denom, each in amount]
    taken = [Coin(denom, -min(coins.amount_of(delegated, denom), each - part)) for denom, each, part in split]
    _set(base.delegated_vesting, coins.normalise((*delegated, *taken)))
    _set(base.delegated_free, coins.normalise((*free, *(Coin(denom, -part) for denom, _, part in split))))


def problem_of(account: Any) -> tuple[str, str] | None:
    """(field, what is wrong) of a vesting account in a genesis file; None when it may be loaded.

    A continuous account may start after its end: MsgCreateVestingAccount makes one for an end in the past, and exports must load.
    """
    base, kind = account.base_vesting_account, account.DESCRIPTOR.full_name
    for name in ("original_vesting", "delegated_free", "delegated_vesting"):
        problem = _coins_problem(getattr(base, name))
        if problem:
            return f"base_vesting_account.{name}", problem
    original = coins.from_messages(base.original_vesting)
    if not original:
        return "base_vesting_account.original_vesting", "expected at least one coin, got none"
    for coin in coins.from_messages(base.delegated_vesting):
        if coin.amount > coins.amount_of(original, coin.denom):
            return "base_vesting_account.delegated_vesting", f"{coin} is more than the original vesting {coins.to_text(original)}"
    if kind == _PERMANENT and base.end_time != 0:
        return "base_vesting_account.end_time", f"a permanently locked account has no end time; expected 0, got {base.end_time}"
    if base.end_time < 0:
        return "base_vesting_account.end_time", f"must not be negative, got {base.end_time}"
    return _periods_problem(account, original) if kind == _PERIODIC else None


def _periods_problem(account: Any, original: Coins) -> tuple[str, str] | None:
    base, end, sums = account.base_vesting_account, account.start_time, dict[str, int]()
    for at, period in enumerate(account.vesting_periods):
        if period.length < 0:
            return f"vesting_periods[{at}].length", f"must not be negative, got {period.length}"
        problem = _coins_problem(period.amount) or ("" if period.amount else "expected at least one coin, got none")
        if problem:
            return f"vesting_periods[{at}].amount", problem
        end += period.length
        for denom, each in coins.from_messages(period.amount):
            sums[denom] = sums.get(denom, 0) + each
    if end != base.end_time or end <= account.start_time:
        return "base_vesting_account.end_time", f"expected {end}, start time and all periods, after the start; got {base.end_time}"
    if sums != dict(original):
        return "base_vesting_account.original_vesting", f"periods sum up to {sums}, got {coins.to_text(original)}"
    return None


def _coins_problem(messages: Any) -> str:
    try:
        coins.from_messages(messages)
    except AppError as error:
        return error.detail
    return ""


def _vested_in_periods(account: Any, time_s: int) -> Coins:
    vested: dict[str, int] = {}
    period_end = account.start_time
    for period in account.vesting_periods:
        period_end += period.length
        if time_s < period_end:
            break
        for coin in period.amount:
            vested[coin.denom] = vested.get(coin.denom, 0) + coins.parse_int(coin.amount)
    return coins.normalise(Coin(denom, amount) for denom, amount in vested.items())


def _set(field: Any, amount: Coins) -> None:
    del field[:]
    field.extend(coins.to_messages(amount))


def _round(value: Dec) -> int:
    # Half to even, as the SDK's RoundInt.
    whole, rest = divmod(value.scaled, ONE)
    return whole + 1 if rest * 2 > ONE or (rest * 2 == ONE and whole & 1) else whole
