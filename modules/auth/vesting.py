"""How much of a vesting account's original amount is still locked at a time. Integer arithmetic as the SDK's (LegacyDec, rounded)."""

from __future__ import annotations

from typing import Any

from chain import coins
from chain.coins import Coin, Coins
from chain.dec import ONE, Dec

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
        vested = ()
        period_end = account.start_time
        for period in account.vesting_periods:
            period_end += period.length
            if time_s < period_end:
                break
            vested = coins.add(vested, coins.from_messages(period.amount))
    left = coins.subtract(original, vested)
    assert left is not None, "no more vests than there was"
    return left


def locked_coins(account: Any, time_s: int) -> Coins:
    """What the account may not spend: vesting coins beyond those it has delegated while vesting."""
    delegated = coins.from_messages(account.base_vesting_account.delegated_vesting)
    vesting = vesting_coins(account, time_s)
    return coins.normalise(Coin(denom, max(amount - coins.amount_of(delegated, denom), 0)) for denom, amount in vesting)


def _round(value: Dec) -> int:
    # Half to even, as the SDK's RoundInt.
    whole, rest = divmod(value.scaled, ONE)
    return whole + 1 if rest * 2 > ONE or (rest * 2 == ONE and whole & 1) else whole
