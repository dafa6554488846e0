"""Fees: units, minimum gas prices, priority (reference stratos-chain.md 1.2 and 1.6)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeAlias

from chain.coins import Coin, Coins, amount_of, check, is_denom, normalise, parse_coins
from chain.dec import ONE, Dec, DecError, parse_dec
from chain.errors import InsufficientFee, InvalidCoins

BASE_DENOM: Final = "wei"
UNITS: Final = {"wei": 1, "gwei": 10**9, "stos": 10**18}
MAX_PRIORITY: Final = (1 << 63) - 1
_DECIMAL: Final = re.compile(r"([0-9]{1,60}\.[0-9]{1,18}) *(wei|gwei|stos)", re.ASCII)


class GasPrice(NamedTuple):
    """Price of one unit of gas in ``denom``."""

    denom: str
    price: Dec

    def __str__(self) -> str:
        return f"{self.price}{self.denom}"


GasPrices: TypeAlias = tuple[GasPrice, ...]


def to_base(fee: Coins) -> Coins:
    """Fee coins in wei: gwei and stos are converted, other denoms stay. Raises InvalidCoins for invalid coins."""
    converted = normalise(Coin(BASE_DENOM, amount * UNITS[denom]) if denom in UNITS else Coin(denom, amount) for denom, amount in fee)
    check(converted)
    return converted


def parse_amounts(text: str) -> Coins:
    """Amounts as people type them, ``1.5stos,3ibc/…``, in base units: nothing on chain is held in gwei or stos. Raises InvalidCoins, also for
    a part of one wei.
    """
    whole, parts = [], []
    for part in text.split(","):
        match = _DECIMAL.fullmatch(part.strip())
        if match is None:
            whole.append(part)
            continue
        amount_wei, rest = divmod(parse_dec(match[1]).scaled * UNITS[match[2]], parse_dec("1").scaled)
        if rest:
            raise InvalidCoins(f"{part.strip()} is not a whole number of wei")
        parts.append(Coin(BASE_DENOM, amount_wei))
    return to_base(normalise((*parse_coins(",".join(whole)), *parts)))


def parse_gas_prices(text: str) -> GasPrices:
    """``1000000000wei,0.1ibc/…`` sorted by denom. Raises ValueError naming the part that is wrong."""
    prices = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        digits = len(part) - len(part.lstrip("0123456789."))
        number, denom = part[:digits], part[digits:]
        if not is_denom(denom):
            raise ValueError(f"expected a price and a denom as 1000000000wei, got {part[:60]!r}")
        try:
            price = parse_dec(number)
        except DecError as error:
            raise ValueError(f"{part[:60]!r}: {error}") from None
        if denom in UNITS:
            price, denom = Dec(price.scaled * UNITS[denom]), BASE_DENOM
        prices.append(GasPrice(denom, price))
    prices.sort()
    if len({price.denom for price in prices}) != len(prices):
        raise ValueError(f"a denom appears twice in {text[:60]!r}")
    return tuple(prices)


def with_floor(prices: GasPrices, floor_wei: int) -> GasPrices:
    """``prices`` with at least ``floor_wei`` per gas in wei: what every node of this chain asks for (reference stratos-chain.md 1.6)."""
    floor = GasPrice(BASE_DENOM, Dec(floor_wei * ONE))
    if any(price.denom == BASE_DENOM and price.price >= floor.price for price in prices):
        return prices
    return tuple(sorted((*(price for price in prices if price.denom != BASE_DENOM), floor)))


def require_minimum(fee: Coins, gas_limit: int, prices: GasPrices) -> None:
    """Raise InsufficientFee (sdk/13) unless ``fee`` (in base units) covers price × gas in at least one denom; zero prices ask nothing."""
    if not prices or all(price.price.scaled == 0 for price in prices):
        return
    required = [Coin(price.denom, Dec(price.price.scaled * gas_limit).ceil()) for price in prices]
    if any(amount_of(fee, coin.denom) >= coin.amount for coin in required):
        return
    raise InsufficientFee(f"insufficient fees; got: {','.join(map(str, fee))} required: {','.join(map(str, required))}")


def priority_of(fee: Coins, gas_limit: int) -> int:
    """The least amount per gas among the fee's coins; 0 without a fee."""
    if not fee or not gas_limit:
        return 0
    return min(min(amount // gas_limit for _, amount in fee), MAX_PRIORITY)
