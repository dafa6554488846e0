"""Coins: amounts of named denominations, as the SDK's sdk.Coins.

A ``Coins`` is a tuple of (denom, amount) sorted by denom, without zero amounts and without repeats. Amounts are plain ints of
at most 256 bits in the smallest unit of their denom (wei for Stratos).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias

from chain.codec.registry import message_class
from chain.errors import InvalidCoins, PanicError, TxDecodeError

MAX_BITS: Final = 256
MAX_AMOUNT_DIGITS: Final = 78  # 2**256 has 78 digits
_DENOM: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9/:._-]{2,127}", re.ASCII)
_INT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_COIN: Final = re.compile(r"([0-9]+)[ ]*([a-zA-Z][a-zA-Z0-9/:._-]{2,127})", re.ASCII)

CoinMessage: Final = message_class("cosmos.base.v1beta1.Coin")


class Coin(NamedTuple):
    denom: str
    amount: int

    def __str__(self) -> str:
        return f"{self.amount}{self.denom}"


Coins: TypeAlias = tuple[Coin, ...]


def is_denom(text: str) -> bool:
    """True for 3 to 128 characters: a letter, then letters, digits and ``/ : . _ -``."""
    return _DENOM.fullmatch(text) is not None


def parse_int(text: str) -> int:
    """A decimal Int of at most 256 bits. Raises InvalidCoins (sdk/10) for anything else, before any big arithmetic: also for zeros in front, with which Go reads
    octal digits."""
    if len(text) > MAX_AMOUNT_DIGITS + 1 or _INT.fullmatch(text) is None:
        shown = text if len(text) <= 40 else f"{text[:40]}… ({len(text)} characters)"
        raise InvalidCoins(f"amount must be a whole number of at most {MAX_AMOUNT_DIGITS} digits, without zeros in front, got {shown!r}")
    value = int(text)
    if value.bit_length() > MAX_BITS:
        raise InvalidCoins(f"amount must fit {MAX_BITS} bits, got {value.bit_length()}")
    return value


def parse_wire_int(text: str) -> int:
    """An Int inside a message. Raises TxDecodeError (sdk/2) for text that the SDK cannot decode, InvalidCoins (sdk/10) for none at all."""
    try:
        return parse_int(text)
    except InvalidCoins as error:
        if not text:
            raise
        raise TxDecodeError(error.detail) from None


def from_messages(coins: Iterable[Any]) -> Coins:
    """A valid Coins from repeated ``cosmos.base.v1beta1.Coin``. Raises TxDecodeError for a text that is no Int, InvalidCoins unless sorted,
    unique and positive.
    """
    result = tuple(Coin(coin.denom, parse_wire_int(coin.amount)) for coin in coins)
    check(result)
    return result


def to_messages(coins: Iterable[Coin]) -> list[Any]:
    """Repeated ``cosmos.base.v1beta1.Coin``."""
    return [CoinMessage(denom=coin.denom, amount=str(coin.amount)) for coin in coins]


def check(coins: Coins) -> None:
    """Raise InvalidCoins (sdk/10) unless denoms are valid, strictly ascending and every amount is positive."""
    previous = ""
    for coin in coins:
        if not is_denom(coin.denom):
            raise InvalidCoins(f"invalid denom {coin.denom!r}: expected a letter, then 2 to 127 of letters, digits and / : . _ -")
        if coin.amount <= 0:
            raise InvalidCoins(f"coin amount must be positive, got {coin}")
        if coin.denom == previous:
            raise InvalidCoins(f"duplicate denomination {coin.denom}")
        if coin.denom < previous:
            raise InvalidCoins(f"denominations must be in order: {coin.denom} comes after {previous}")
        previous = coin.denom


def normalise(coins: Iterable[Coin]) -> Coins:
    """Sorted, summed per denom, zeros dropped. Raises InvalidCoins when a sum exceeds 256 bits."""
    sums: dict[str, int] = {}
    for denom, amount in coins:
        sums[denom] = sums.get(denom, 0) + amount
    for denom, amount in sums.items():
        if amount.bit_length() > MAX_BITS:
            raise InvalidCoins(f"sum of {denom} exceeds {MAX_BITS} bits")
    return tuple(Coin(denom, sums[denom]) for denom in sorted(sums) if sums[denom])


def add(left: Coins, right: Coins) -> Coins:
    """The sum of two Coins."""
    return normalise((*left, *right))


def subtract(left: Coins, right: Coins) -> Coins | None:
    """``left - right``, or None when some denom would become negative."""
    result = normalise((*left, *(Coin(denom, -amount) for denom, amount in right)))
    return None if any(coin.amount < 0 for coin in result) else result


def subtract_checked(left: Coins, right: Coins) -> Coins | None:
    """``left - right`` as the SDK's SafeSub, for coins that nobody checked yet: None when some denom would become negative.

    ``right`` may come in any order and with zeros. Raises PanicError (undefined/111222), where the SDK panics: ``left`` is not sorted,
    ``right`` names a denom twice, is negative or has a bad denom.
    """
    taken = tuple(sorted(coin for coin in right if coin.amount))
    try:
        check(taken)
    except InvalidCoins as error:
        raise PanicError(error.detail) from None
    if any(one.denom > other.denom for one, other in pairwise(left)):
        raise PanicError("coins to subtract from must be sorted")
    return subtract(left, taken)


def amount_of(coins: Coins, denom: str) -> int:
    """The amount of ``denom``; 0 if it is not among them."""
    for coin in coins:
        if coin.denom == denom:
            return coin.amount
    return 0


def to_text(coins: Coins) -> str:
    """``100wei,5stake``: the form of events and of the command line; empty text for none."""
    return ",".join(map(str, coins))


def parse_coins(text: str) -> Coins:
    """Parse ``100wei,5stake`` (any order, as on the command line). Raises InvalidCoins for bad text, zero or repeated denoms."""
    text = text.strip()
    if not text:
        return ()
    coins = []
    for part in text.split(","):
        match = _COIN.fullmatch(part.strip())
        if match is None:
            shown = part if len(part) <= 60 else f"{part[:60]}…"
            raise InvalidCoins(f"invalid coin {shown!r}: expected an amount and a denom, as 100wei")
        coins.append(Coin(match[2], parse_int(match[1])))
    result = tuple(sorted(coins))
    check(result)
    return result
