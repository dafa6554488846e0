"""The ozone pool: the four numbers that set the price of storage traffic, and what traffic is worth when it comes back.

Modules ``register`` (S, Lt), ``sds`` (Lt, Pt) and ``pot`` (Lt, Pt) change these numbers and may not import each other, so the value itself lives here.
Amounts are in wei, ozone in noz (one billionth of an oz). Source: stratos-chain.md 2.3 and 4.3, storage-protocol.md 1.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chain.dec import ONE, Dec, dec_of
from chain.errors import InvalidRequest

MAX_AMOUNT: Final = 2**127 - 1
"""Of wei and of noz. A sum of two such amounts times a third fits a Dec's 315 bits; the whole supply, 10^26 wei, has 87."""
DEFAULT_RATE: Final = Dec(10**6 * ONE)
"""wei per noz of a deposit."""


def bounded(amount: int, what: str) -> int:
    """``amount`` if 0 <= amount <= MAX_AMOUNT. Raises InvalidRequest (sdk/18)."""
    if not 0 <= amount <= MAX_AMOUNT:
        raise InvalidRequest(f"expected {what} from 0 to 2^127 - 1, got {'a negative amount' if amount < 0 else f'{amount.bit_length()} bits'}")
    return amount


@dataclass(frozen=True, slots=True)
class Ozone:
    """State of the pool. Raises InvalidRequest (sdk/18) for amounts out of range and a rate that is not positive.

    ``solvency`` is the switch ``solvency_rules``: off gives the original's numbers, on those of storage-protocol.md 1.4.
    """

    deposit_wei: int
    """S: all deposits that count."""
    remaining_noz: int
    """Lt: what can still be bought."""
    prepaid_wei: int = 0
    """Pt: what was paid for ozone and not yet paid out."""
    rate: Dec = DEFAULT_RATE
    """wei per noz of a deposit."""
    pending_wei: int = 0
    """Part of S that is to go as soon as Lt can go with it; 0 with the rules off."""
    solvency: bool = False
    pending_noz: int = 0
    """Of a void epoch: noz that Lt has yet to give back, before anything else leaves."""

    def __post_init__(self) -> None:
        bounded(self.deposit_wei, "deposits")
        bounded(self.remaining_noz, "a remaining ozone limit")
        bounded(self.prepaid_wei, "prepaid wei")
        if not 0 < self.rate.scaled <= MAX_AMOUNT * ONE:
            raise InvalidRequest("expected a positive rate of wei per noz of at most 2^127 - 1")
        if not 0 <= self.pending_wei <= self.deposit_wei:
            raise InvalidRequest("expected pending deposits between 0 and all deposits")
        bounded(self.pending_noz, "pending noz")

    @property
    def supply_noz(self) -> int:
        """All ozone there is, sold or not: trunc(S ÷ rate)."""
        return dec_of(self.deposit_wei).quo(self.rate).truncate()

    @property
    def outstanding_noz(self) -> int:
        """A: ozone that was sold and not reported yet. Negative only where rules that are off let Lt exceed the supply."""
        return self.supply_noz - self.remaining_noz + self.pending_noz


def traffic_value(pool: Ozone, volume_noz: int) -> Dec:
    """R in wei: what ``volume_noz`` of done traffic is worth, before it returns to the limit (4.3); also the wei of a slash of that many noz.

    (S + Pt)·Y ÷ (Lt + Y), as a Dec rounded half to even. With the solvency rules no more than its part of the prepaid wei, trunc(Pt·Y ÷ A), where A > 0.
    Raises InvalidRequest (sdk/18) for a volume out of range and for Lt + Y = 0, which would divide by zero.
    """
    bounded(volume_noz, "a volume")
    limit = pool.remaining_noz + volume_noz
    if limit == 0:
        raise InvalidRequest("no ozone is left and none comes back: its value divides by zero")
    value = dec_of((pool.deposit_wei + pool.prepaid_wei) * volume_noz).quo(dec_of(limit))
    outstanding = pool.outstanding_noz
    if pool.solvency and outstanding > 0:
        return min(value, dec_of(pool.prepaid_wei * volume_noz // outstanding))
    return value
