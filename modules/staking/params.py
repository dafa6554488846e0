"""Parameters: the mainnet's defaults and their rules (reference stratos-chain.md 1.7)."""

from __future__ import annotations

from typing import Any, Final

from chain import coins
from chain.codec.times import ns_of
from chain.dec import ONE, from_wire
from chain.errors import UndefinedError
from modules.staking.records import Params

UNBONDING_S: Final = 1_814_400
MAX_DURATION_NS: Final = (1 << 63) - 1


def default_params() -> Any:
    """21 days of unbonding, 100 validators, 7 entries, 10,000 blocks of history."""
    params = Params(max_validators=100, max_entries=7, historical_entries=10000, bond_denom="wei", min_commission_rate="0")
    params.unbonding_time.seconds = UNBONDING_S
    return params


def check_params(params: Any) -> None:
    """Raise UndefinedError (undefined/1, as the SDK has it) naming the parameter that cannot be."""
    unbonding_ns = ns_of(params.unbonding_time)
    if not 0 < unbonding_ns <= MAX_DURATION_NS:
        raise UndefinedError(f"unbonding time must be positive: {unbonding_ns}")
    for name in ("max_validators", "max_entries"):
        if not getattr(params, name):
            raise UndefinedError(f"{name.replace('_', ' ')} must be positive: 0")
    if not params.bond_denom.strip(" "):
        raise UndefinedError("bond denom cannot be blank")
    if not coins.is_denom(params.bond_denom):
        raise UndefinedError(f"invalid denom: {params.bond_denom[:128]}")
    if not params.min_commission_rate:
        raise UndefinedError("minimum commission rate cannot be nil")
    rate = from_wire(params.min_commission_rate)
    if rate.scaled < 0:
        raise UndefinedError(f"minimum commission rate cannot be negative: {rate}")
    if rate.scaled > ONE:
        raise UndefinedError(f"minimum commission rate cannot be greater than 100%: {rate}")
