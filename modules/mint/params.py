"""Parameters of mint and their bounds."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from chain.coins import is_denom
from chain.dec import ONE, DecError, from_wire
from chain.errors import TxDecodeError, UndefinedError

Params: Final = message_class("cosmos.mint.v1beta1.Params")
MAX_BLOCKS_PER_YEAR: Final = (1 << 63) - 1
_RATES: Final = (
    ("inflation_rate_change", "inflation rate change"),
    ("inflation_max", "max inflation"),
    ("inflation_min", "min inflation"),
    ("goal_bonded", "goal bonded"),
)


def default_params() -> Any:
    """Stratos' own: no inflation (reference stratos-chain.md 1.7); the rest as the SDK has it."""
    rates = {"inflation_rate_change": "0", "inflation_max": "0", "inflation_min": "0", "goal_bonded": str(67 * ONE // 100)}
    return Params(mint_denom="wei", blocks_per_year=60 * 60 * 8766 // 5, **rates)


def check_params(params: Any) -> None:
    """Raise UndefinedError for a parameter out of range, TxDecodeError (sdk/2) for what is no decimal."""
    if not params.mint_denom.strip():
        raise UndefinedError("mint denom cannot be blank")
    if not is_denom(params.mint_denom):
        raise UndefinedError(f"invalid denom: {params.mint_denom[:128]}")
    try:
        rates = {name: from_wire(getattr(params, name)) for name, _ in _RATES}
    except DecError as error:
        raise TxDecodeError(str(error)) from None
    for name, words in _RATES:
        if not getattr(params, name):
            raise UndefinedError(f"{words} cannot be nil")
        if name == "goal_bonded" and rates[name].scaled <= 0:
            raise UndefinedError(f"goal bonded must be positive: {rates[name]}")
        if rates[name].scaled < 0:
            raise UndefinedError(f"{words} cannot be negative: {rates[name]}")
        if rates[name].scaled > ONE:
            raise UndefinedError(f"{words} too large: {rates[name]}")
    if not 0 < params.blocks_per_year <= MAX_BLOCKS_PER_YEAR:
        raise UndefinedError(f"blocks per year must be positive: {params.blocks_per_year}; at most {MAX_BLOCKS_PER_YEAR}")
    if rates["inflation_max"] < rates["inflation_min"]:
        raise UndefinedError(f"max inflation ({rates['inflation_max']}) must be greater than or equal to min inflation ({rates['inflation_min']})")
