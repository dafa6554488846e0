"""Counting votes against a slow reference, for random stakes, delegations and votes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.dec import ONE, Dec
from chain.store.state import EmptyView, State
from modules.gov.keeper import GovKeeper, Proposal, Vote
from modules.gov.params import default_params
from modules.gov.tally import tally

_Validator = message_class("cosmos.staking.v1beta1.Validator")
_Delegation = message_class("cosmos.staking.v1beta1.Delegation")
WEIGHTS = st.lists(st.integers(1, ONE), min_size=1, max_size=4).map(lambda parts: [part * ONE // sum(parts) for part in parts])


@dataclass
class Stake:
    """Validator number → wei; (delegator, validator) → shares, scaled. People below 100 are validators."""

    tokens: dict[int, int]
    shares: dict[tuple[int, int], int] = field(default_factory=dict)

    def all_shares(self, validator: int) -> int:
        return sum(shares for (_, one), shares in self.shares.items() if one == validator)

    def bonded_by_power(self, state: Any) -> Iterator[Any]:
        for number, tokens in self.tokens.items():
            yield _Validator(operator_address=operator(number), tokens=str(tokens), delegator_shares=str(self.all_shares(number)))

    def delegations_of(self, state: Any, delegator: bytes, limit: int | None = None) -> Iterator[Any]:
        for (who, validator), shares in self.shares.items():
            if person(who) == delegator:
                yield _Delegation(delegator_address=bech32.encode(delegator), validator_address=operator(validator), shares=str(shares))

    def total_bonded(self, state: Any) -> int:
        return sum(self.tokens.values())


def person(number: int) -> bytes:
    return number.to_bytes(20, "big")


def operator(number: int) -> str:
    return bech32.encode(person(number), bech32.VALIDATOR)


def rounded(exact: Fraction) -> int:
    """A decimal of 18 places, scaled, as LegacyDec divides: cut at 36 places, then half to even."""
    return round(Fraction(int(exact * ONE * ONE), ONE))


def reference(stake: Stake, votes: dict[int, list[tuple[int, int]]]) -> tuple[dict[int, int], int]:
    """(power per option, scaled; all of it): every share is asked who speaks for it."""
    powers, total = dict.fromkeys((1, 2, 3, 4), 0), 0
    spoken: dict[int, int] = {}
    blocks: list[tuple[int, int, int]] = []  # who speaks, shares, validator
    for (who, validator), shares in stake.shares.items():
        if who in votes:
            blocks.append((who, shares, validator))
            spoken[validator] = spoken.get(validator, 0) + shares
    blocks += [(number, stake.all_shares(number) - spoken.get(number, 0), number) for number in stake.tokens if number in votes]
    for who, shares, validator in blocks:
        power = rounded(Fraction(shares * stake.tokens[validator], stake.all_shares(validator)))
        total += power
        for option, weight in votes[who]:
            powers[option] += round(Fraction(power * weight, ONE))
    return powers, total


@st.composite
def histories(draw: st.DrawFn) -> tuple[Stake, dict[int, list[tuple[int, int]]]]:
    validators = range(1, draw(st.integers(1, 4)) + 1)
    stake = Stake({number: draw(st.integers(1, 10**26)) for number in validators})
    for validator in validators:
        stake.shares[validator, validator] = draw(st.integers(1, 10**44))
        for delegator in draw(st.sets(st.integers(1, 106), max_size=5)) - {validator}:
            stake.shares[delegator, validator] = draw(st.integers(1, 10**44))
    voters = draw(st.sets(st.sampled_from([*validators, *range(100, 107)]), max_size=8))
    return stake, {voter: list(zip(draw(st.permutations([1, 2, 3, 4])), draw(WEIGHTS), strict=False)) for voter in sorted(voters)}


@settings(max_examples=150, deadline=None)
@given(histories())
def test_counts_are_the_references(history: tuple[Stake, dict[int, list[tuple[int, int]]]]) -> None:
    stake, votes = history
    unused: Any = None
    keeper = GovKeeper(unused, unused, stake, unused, unused)
    state = State(EmptyView(), ("gov",))
    keeper.set_params(state, default_params())
    for voter, options in votes.items():
        listed = [{"option": option, "weight": str(Dec(weight))} for option, weight in options]
        keeper.set_vote(state, Vote(proposal_id=1, voter=bech32.encode(person(voter)), options=listed), person(voter))
    before = dict(state.net_changes())
    found = tally(keeper, state, Proposal(id=1))
    assert dict(state.net_changes()) == before, "counting writes nothing"
    powers, total = reference(stake, votes)
    counts = found.result
    assert [int(one) for one in (counts.yes_count, counts.abstain_count, counts.no_count, counts.no_with_veto_count)] == [
        powers[option] // ONE for option in (1, 2, 3, 4)
    ]
    assert found.entries == len(votes) + sum(len(list(stake.delegations_of(unused, person(voter)))) for voter in votes)
    assert abs(total - sum(powers.values())) <= 4 * total // ONE + 200, "weights that do not quite add up to 1 lose no more than their rest"
    if Fraction(total, stake.total_bonded(state) * ONE) < Fraction(333, 1000):
        assert (found.passes, found.burn) == (False, False)
    elif Fraction(total, stake.total_bonded(state) * ONE) > Fraction(335, 1000) and total > powers[2]:
        vetoes, ayes = Fraction(powers[4], total), Fraction(powers[1], total - powers[2])
        if abs(vetoes - Fraction(334, 1000)) > Fraction(1, 10**6) and abs(ayes - Fraction(1, 2)) > Fraction(1, 10**6):
            assert found.burn == (vetoes > Fraction(334, 1000))
            assert found.passes == (not found.burn and ayes > Fraction(1, 2))
