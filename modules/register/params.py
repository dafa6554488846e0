"""Parameters of register: the original's defaults (stratos-chain.md 2.2) with the solvency rules on, and what they may be."""

from __future__ import annotations

from typing import Any, Final

from chain import coins
from chain.codec.times import ns_of
from chain.coins import CoinMessage
from chain.errors import AppError, UndefinedError
from chain.ozone import MAX_AMOUNT
from chain.tx.fees import BASE_DENOM
from modules.register.records import Params

_DAY_S: Final = 86_400
_MIN_DEPOSIT_WEI: Final = 10**18
MAX_PERIOD_S: Final = 100 * 365 * _DAY_S
"""A hundred years: what is added to a block's time stays a time that can be written."""


def default_params() -> Any:
    """Parameters of a new chain."""
    params = Params(
        bond_denom=BASE_DENOM,
        max_entries=16,
        resource_node_reg_enabled=True,
        resource_node_min_deposit=CoinMessage(denom=BASE_DENOM, amount=str(_MIN_DEPOSIT_WEI)),
        solvency_rules=True,
    )
    for name, days in (("unbonding_threashold_time", 180), ("unbonding_completion_time", 14), ("voting_period", 7)):
        getattr(params, name).seconds = days * _DAY_S
    return params


def check_params(params: Any) -> None:
    """Raise UndefinedError (undefined/1, as the original's plain errors) naming the parameter that cannot be."""
    if params.bond_denom != BASE_DENOM:
        raise UndefinedError(f"bond_denom: expected {BASE_DENOM}, in which ozone is paid and rewards are, got {params.bond_denom[:60]!r}")
    for name in ("unbonding_threashold_time", "unbonding_completion_time", "voting_period"):
        period = getattr(params, name)
        if not (0 <= period.seconds <= MAX_PERIOD_S and 0 <= period.nanos < 10**9 and ns_of(period) > 0):
            raise UndefinedError(f"{name}: expected more than 0 and at most {MAX_PERIOD_S} s, got {period.seconds} s and {period.nanos} ns")
    if params.max_entries == 0:
        raise UndefinedError("max_entries: expected a positive number, got 0")
    least = params.resource_node_min_deposit
    try:
        amount = coins.parse_int(least.amount or "0")
    except AppError as error:
        raise UndefinedError(f"resource_node_min_deposit: {error.detail}") from None
    if least.denom != params.bond_denom or not 0 <= amount <= MAX_AMOUNT:
        raise UndefinedError(
            f"resource_node_min_deposit: expected from 0 to 2^127 - 1 of {params.bond_denom}, got {least.amount[:60]} of {least.denom[:60]!r}"
        )
