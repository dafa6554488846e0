"""Fractions of coins against rational numbers, and at their bounds."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain import dec_coins
from chain.coins import Coin
from chain.dec import ONE, Dec, DecError
from chain.dec_coins import DecCoin, DecCoinMessage

DENOMS = ("abc", "stos", "wei")
some_coins = st.dictionaries(st.sampled_from(DENOMS), st.integers(1, 10**45), max_size=3).map(
    lambda found: tuple(DecCoin(denom, found[denom]) for denom in sorted(found))
)
rates = st.integers(0, ONE).map(Dec)


@given(some_coins, some_coins)
def test_sums_differences_and_intersections_are_those_of_each_denom(left: dec_coins.DecCoins, right: dec_coins.DecCoins) -> None:
    one, other = dict(left), dict(right)
    assert dict(dec_coins.add(left, right)) == {denom: one.get(denom, 0) + other.get(denom, 0) for denom in {*one, *other}}
    assert dec_coins.subtract(dec_coins.add(left, right), right) == left
    enough = all(one.get(denom, 0) >= amount for denom, amount in right)
    assert (dec_coins.subtract(left, right) is not None) == enough
    assert dict(dec_coins.intersect(left, right)) == {denom: min(one[denom], other[denom]) for denom in one if denom in other}


@given(some_coins, rates, st.integers(1, 10**30))
def test_products_and_quotients_round_as_said(coins: dec_coins.DecCoins, rate: Dec, divisor: int) -> None:
    for denom, scaled in coins:
        exact = Fraction(scaled * rate.scaled, ONE)
        assert dict(dec_coins.multiply_truncate(coins, rate)).get(denom, 0) == exact.__floor__()
        assert dict(dec_coins.multiply(coins, rate)).get(denom, 0) == round(exact)  # Python rounds halves to even, too
        assert dict(dec_coins.divide_truncate(coins, Dec(divisor))).get(denom, 0) == scaled * ONE // divisor
    assert all(scaled for _, scaled in dec_coins.multiply(coins, rate))


@given(some_coins)
def test_whole_coins_and_the_rest_make_the_amount_again(coins: dec_coins.DecCoins) -> None:
    whole, rest = dec_coins.truncate(coins)
    assert dec_coins.add(dec_coins.from_coins(whole), rest) == coins
    assert all(0 < scaled < ONE for _, scaled in rest)
    assert all(amount > 0 for _, amount in whole)
    assert dec_coins.parse_messages(dec_coins.to_messages(coins)) == dec_coins.from_messages(dec_coins.to_messages(coins)) == coins


def test_text_has_18_decimals() -> None:
    assert dec_coins.to_text((DecCoin("abc", ONE * 3 // 2), DecCoin("wei", 1))) == "1.500000000000000000abc,0.000000000000000001wei"
    assert dec_coins.to_text(()) == ""


def test_an_amount_of_more_than_315_bits_is_refused_and_one_of_315_is_not() -> None:
    largest = (1 << 315) - 1
    assert dec_coins.add((DecCoin("wei", largest - 1),), (DecCoin("wei", 1),)) == (DecCoin("wei", largest),)
    with pytest.raises(DecError, match="315 bits"):
        dec_coins.add((DecCoin("wei", largest),), (DecCoin("wei", 1),))
    with pytest.raises(DecError, match="315 bits"):
        dec_coins.from_coins((Coin("wei", (1 << 256) - 1),))


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([("wei", "0")], "positive"),
        ([("wei", "-5")], "positive"),
        ([("wei", "1.5")], "scaled integer"),
        ([("w", "1")], "expected a denom"),
        ([("wei", "1"), ("abc", "1")], "ascend"),
        ([("wei", "1"), ("wei", "1")], "ascend"),
        ([("wei", "256")], "at most 8 bits"),
    ],
)
def test_messages_from_outside_are_checked(messages: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(DecError, match=words):
        dec_coins.parse_messages([DecCoinMessage(denom=denom, amount=amount) for denom, amount in messages], 8)
