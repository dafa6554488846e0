"""Fractions of coins: sdk.DecCoins, which rewards are counted in until they are paid out in whole units.

A ``DecCoins`` is a tuple of (denom, amount scaled by 10^18) sorted by denom, without zeros and without repeats. Every result has at most
315 bits per amount, as the SDK's LegacyDec; DecError is raised above that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeAlias

from chain.codec.registry import message_class
from chain.coins import Coin, Coins, is_denom
from chain.dec import MAX_BITS, ONE, Dec, DecError, from_wire

DecCoinMessage: Final = message_class("cosmos.base.v1beta1.DecCoin")


class DecCoin(NamedTuple):
    """``scaled`` is the amount times 10^18, in the smallest unit of ``denom``."""

    denom: str
    scaled: int

    def __str__(self) -> str:
        return f"{Dec(self.scaled)}{self.denom}"


DecCoins: TypeAlias = tuple[DecCoin, ...]


def from_coins(coins: Coins) -> DecCoins:
    """Whole coins as DecCoins. Raises DecError above 315 bits."""
    return tuple(DecCoin(denom, _bounded(amount * ONE)) for denom, amount in coins)


def from_messages(messages: Iterable[Any]) -> DecCoins:
    """From repeated ``cosmos.base.v1beta1.DecCoin`` of our own store."""
    return tuple(DecCoin(message.denom, int(message.amount)) for message in messages)


def to_messages(coins: DecCoins) -> list[Any]:
    """Repeated ``cosmos.base.v1beta1.DecCoin``."""
    return [DecCoinMessage(denom=denom, amount=str(scaled)) for denom, scaled in coins]


def parse_messages(messages: Iterable[Any], most_bits: int = MAX_BITS) -> DecCoins:
    """From messages of outside. Raises DecError unless denoms are valid and ascending, and amounts positive and of at most ``most_bits``."""
    found: list[DecCoin] = []
    for message in messages:
        scaled = from_wire(message.amount).scaled
        if not is_denom(message.denom):
            raise DecError(f"expected a denom, got {message.denom[:60]!r}")
        if found and message.denom <= found[-1].denom:
            raise DecError(f"denoms must ascend without repeats: {message.denom} comes after {found[-1].denom}")
        if scaled <= 0:
            raise DecError(f"an amount must be positive, got {Dec(scaled)}{message.denom}")
        if scaled.bit_length() > most_bits:
            raise DecError(f"an amount of {message.denom} has at most {most_bits} bits, scaled by 10^18; got {scaled.bit_length()}")
        found.append(DecCoin(message.denom, scaled))
    return tuple(found)


def add(left: DecCoins, right: DecCoins) -> DecCoins:
    """The sum."""
    if not right:
        return left
    if not left:
        return right
    sums = dict(left)
    for denom, scaled in right:
        sums[denom] = sums.get(denom, 0) + scaled
    return tuple(DecCoin(denom, _bounded(sums[denom])) for denom in sorted(sums) if sums[denom])


def subtract(left: DecCoins, right: DecCoins) -> DecCoins | None:
    """``left - right``, or None when some denom would become negative."""
    result = add(left, tuple(DecCoin(denom, -scaled) for denom, scaled in right))
    return None if any(scaled < 0 for _, scaled in result) else result


def multiply(coins: DecCoins, factor: Dec) -> DecCoins:
    """Every amount times ``factor``, rounded half to even."""
    return _each(coins, lambda amount: amount.mul(factor))


def multiply_truncate(coins: DecCoins, factor: Dec) -> DecCoins:
    """Every amount times ``factor``, cut at 18 places."""
    return _each(coins, lambda amount: amount.mul_truncate(factor))


def divide_truncate(coins: DecCoins, divisor: Dec) -> DecCoins:
    """Every amount by ``divisor`` (not zero), cut at 18 places."""
    return _each(coins, lambda amount: amount.quo_truncate(divisor))


def truncate(coins: DecCoins) -> tuple[Coins, DecCoins]:
    """(whole coins, what is left of them)."""
    whole = tuple(Coin(denom, scaled // ONE) for denom, scaled in coins if scaled >= ONE)
    return whole, tuple(DecCoin(denom, scaled % ONE) for denom, scaled in coins if scaled % ONE)


def intersect(left: DecCoins, right: DecCoins) -> DecCoins:
    """The smaller amount of each denom that both have."""
    other = dict(right)
    return tuple(DecCoin(denom, min(scaled, other[denom])) for denom, scaled in left if other.get(denom, 0))


def to_text(coins: DecCoins) -> str:
    """``1.500000000000000000wei,…``: the form of events; empty text for none."""
    return ",".join(map(str, coins))


def _each(coins: DecCoins, change: Callable[[Dec], Dec]) -> DecCoins:
    changed = [(denom, change(Dec(scaled)).scaled) for denom, scaled in coins]
    return tuple(DecCoin(denom, scaled) for denom, scaled in changed if scaled)


def _bounded(scaled: int) -> int:
    if scaled.bit_length() > MAX_BITS:
        raise DecError(f"a decimal has at most {MAX_BITS} bits, got {scaled.bit_length()}")
    return scaled
