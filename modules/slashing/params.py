"""Parameters of slashing: the mainnet's values (reference stratos-chain.md 1.7) and their bounds."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from chain.codec.times import NANOS
from chain.dec import ONE, Dec, DecError, from_wire
from chain.errors import TxDecodeError, UndefinedError

Params: Final = message_class("cosmos.slashing.v1beta1.Params")
FRACTIONS: Final = {
    "min_signed_per_window": "min signed per window",
    "slash_fraction_double_sign": "double sign slash fraction",
    "slash_fraction_downtime": "downtime slash fraction",
}


def default_params() -> Any:
    """10,000 blocks of which 5 % must be signed, six hours in jail; 5 % of the stake for a double sign, 0.02 % for an absence."""
    params = Params(
        signed_blocks_window=10_000,
        min_signed_per_window=_wire(5, 100),
        slash_fraction_double_sign=_wire(5, 100),
        slash_fraction_downtime=_wire(2, 10_000),
    )
    params.downtime_jail_duration.seconds = 21_600
    return params


def _wire(numerator: int, denominator: int) -> bytes:
    return str(numerator * ONE // denominator).encode()


def fraction(params: Any, name: str) -> Dec:
    """One of FRACTIONS. Raises DecError for bytes that are no decimal."""
    return from_wire(getattr(params, name).decode("ascii", "replace"))


def jail_ns(params: Any) -> int:
    """How long an absent validator stays in jail, in nanoseconds."""
    return int(params.downtime_jail_duration.seconds * NANOS + params.downtime_jail_duration.nanos)


def min_signed(params: Any) -> int:
    """How many blocks of a window must be signed, rounded half to even."""
    return Dec(fraction(params, "min_signed_per_window").scaled * params.signed_blocks_window).round()


def check_decimals(params: Any) -> None:
    """Raise TxDecodeError (sdk/2), as decoding does in the SDK, for bytes that are no decimal."""
    for name in FRACTIONS:
        try:
            fraction(params, name)
        except DecError as error:
            raise TxDecodeError(f"params.{name}: {error}") from None


def check_params(params: Any) -> None:
    """Raise UndefinedError (undefined/1, as the SDK's plain errors) naming the parameter that is out of bounds; TxDecodeError."""
    check_decimals(params)
    if params.signed_blocks_window <= 0:
        raise UndefinedError(f"signed blocks window must be positive: {params.signed_blocks_window}")
    _check_fraction(params, "min_signed_per_window")
    if not 0 < jail_ns(params) < 1 << 63:
        raise UndefinedError(f"downtime jail duration must be positive and fit 64 bits of nanoseconds: {jail_ns(params)}ns")
    _check_fraction(params, "slash_fraction_double_sign")
    _check_fraction(params, "slash_fraction_downtime")


def _check_fraction(params: Any, name: str) -> None:
    value = fraction(params, name)
    if not getattr(params, name):
        raise UndefinedError(f"{FRACTIONS[name]} cannot be nil: <nil>")
    if value.scaled < 0:
        raise UndefinedError(f"{FRACTIONS[name]} cannot be negative: {value}")
    if value.scaled > ONE:
        raise UndefinedError(f"{FRACTIONS[name]} too large: {value}")
