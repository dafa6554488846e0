"""A campaign's operators race each other through a real node."""

import pytest

from tests.soak.claims import claims_race


@pytest.mark.timeout(300)
def test_operators_who_race_for_the_same_wallets_give_each_one_claim_and_no_wei_more_than_the_budget() -> None:
    figures = claims_race(2, claims=500, duplicates=100, operators=5, batch=25)
    # For each of the 20 transactions that somebody repeats a part of, it or what repeats it is refused.
    assert figures["refused_as_claimed"] >= 20
    assert figures["refused_for_the_budget"] >= 1
