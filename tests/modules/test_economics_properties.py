"""What must hold of the ozone economy whatever amounts come in, with the switchable rules on unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from chain.dec import ONE, Dec, dec_of, parse_dec
from chain.errors import AppError, InvalidCoins, InvalidRequest
from chain.ozone import MAX_AMOUNT, Ozone, traffic_value
from modules.pot.epochs import due, mature, withdraw
from modules.pot.errors import InsufficientMatureTotal, VolumeReport
from modules.pot.rewards import RewardParams, Work, break_even_cap, capped_too_high, distribute, slash_value_wei
from modules.pot.tiers import DEFAULT_TIERS
from modules.register.deposits import (
    NodeDeposit,
    collect,
    complete_leaving,
    deduct,
    lower_deposit,
    raise_deposit,
    return_ozone,
    set_effective,
    suspend,
)
from modules.register.errors import RemainingNozLimit
from modules.sds.errors import OzoneLimitNotEnough
from modules.sds.pricing import claim, cost_wei, expiry_refund_wei, prepay, price, purchasable_noz
from tests.modules.economy import STOS, SUPPLY_WEI, Economy

OURS = RewardParams(mining_cap=Dec(2 * ONE // 5))
# Small payments, which are of interest, often buy nothing.
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
DEPOSITS = st.integers(10**6, 10**8 * STOS)
PAYMENTS = st.integers(1, 10**7 * STOS)
VOLUMES = st.lists(st.integers(0, 10**16), min_size=1, max_size=30)


def fresh(deposit_wei: int, *, solvency: bool = True) -> Ozone:
    return replace(raise_deposit(Ozone(0, 0, solvency=True), deposit_wei), solvency=solvency)


@st.composite
def sold(draw: st.DrawFn, *, solvency: bool = True) -> Ozone:
    """A pool of which a part is sold, after deposits came and went."""
    pool = fresh(draw(DEPOSITS), solvency=solvency)
    for _ in range(draw(st.integers(1, 4))):
        pool, _ = prepay(pool, draw(PAYMENTS))
        if draw(st.booleans()):
            pool = raise_deposit(pool, draw(DEPOSITS))
    assume(pool.outstanding_noz > 0)
    return pool


def work_of(pool: Ozone, volumes: list[int]) -> list[Work]:
    """The volumes, scaled down to what is sold where they are more."""
    total, most = sum(volumes), pool.outstanding_noz
    scaled = volumes if total <= most else [volume * most // total for volume in volumes]
    return [Work(f"w{at:02d}", volume) for at, volume in enumerate(scaled)]


@EXAMPLES
@given(sold(), VOLUMES, st.integers(1, 20), st.sampled_from([OURS, RewardParams()]))
def test_what_a_report_pays_and_what_rounding_leaves_is_what_it_is_worth(pool: Ozone, volumes: list[int], metas: int, params: RewardParams) -> None:
    work = work_of(pool, volumes)
    paid = distribute(pool, 0, SUPPLY_WEI, work, [f"m{at}" for at in range(metas)], params)
    value = paid.value_wei.truncate()
    left = value - paid.spent_wei
    # Each of: three kinds, one traffic payment per worker and meta node, the community's sum.
    assert 0 <= left <= 3 + len(work) + metas + 1
    assert 0 <= paid.reward_wei - paid.mined_wei <= 3 + len(work) + metas
    assert sum(one.traffic_wei for one in paid.rewards) + paid.traffic.chain_wei + paid.community_wei + left == value


@EXAMPLES
@given(sold(), VOLUMES)
def test_no_report_lowers_what_is_prepaid_per_noz_sold(pool: Ozone, volumes: list[int]) -> None:
    economy = Economy(pool, OURS)
    for _ in range(3):
        work = work_of(economy.pool, volumes)
        before = economy.pool
        economy.report(work)
        after = economy.pool
        assert after.prepaid_wei * before.outstanding_noz >= before.prepaid_wei * after.outstanding_noz


def test_with_the_original_s_rules_early_reports_starve_the_prepaid_wei() -> None:
    pool = raise_deposit(prepay(fresh(1000 * STOS, solvency=False), 100 * STOS)[0], 1)
    economy = Economy(pool)
    per_noz = Fraction(pool.prepaid_wei, pool.outstanding_noz)
    economy.report([Work("w", pool.outstanding_noz // 2)])
    assert Fraction(economy.pool.prepaid_wei, economy.pool.outstanding_noz) < per_noz


@EXAMPLES
@given(sold(), VOLUMES, DEPOSITS)
def test_a_leaving_takes_nothing_from_a_report(pool: Ozone, volumes: list[int], leaving: int) -> None:
    """A stays as it is, also by a leaving that does not fit, and with it a report's part of the prepaid wei; the price can only rise."""
    volume = sum(one.volume_noz for one in work_of(pool, volumes))
    assume(volume > 0)
    after = lower_deposit(pool, min(leaving, pool.deposit_wei))
    assert (after.outstanding_noz, after.prepaid_wei) == (pool.outstanding_noz, pool.prepaid_wei)
    assert traffic_value(pool, volume) <= traffic_value(after, volume) <= dec_of(pool.prepaid_wei * volume // pool.outstanding_noz)


@EXAMPLES
@given(sold(), st.integers(1, 10**16), DEPOSITS)
def test_two_equal_reports_after_a_leaving_are_paid_equally_within_rounding_while_their_part_of_the_prepaid_wei_decides(
    pool: Ozone, volume: int, leaving: int
) -> None:
    economy = Economy(lower_deposit(pool, min(leaving, pool.deposit_wei)), OURS)
    volume = min(volume, economy.pool.outstanding_noz // 2)
    assume(volume > 0)
    parts = []
    paid = []
    for _ in range(2):
        parts.append(economy.pool.prepaid_wei * volume // economy.pool.outstanding_noz)
        paid.append(economy.report([Work("w", volume)]).value_wei)
    # What a report leaves (wei that rounding took, and where the price is below its part the difference) is spread over the noz that are still out.
    assert paid[1] <= dec_of(parts[1])
    if paid == [dec_of(one) for one in parts]:
        assert 0 <= paid[1].truncate() - paid[0].truncate() <= 8


@EXAMPLES
@given(sold(), DEPOSITS, PAYMENTS, st.integers(1, 100))
def test_who_deposits_buys_and_reports_gets_no_more_than_was_paid(pool: Ozone, deposit: int, paid: int, percent: int) -> None:
    pool = raise_deposit(pool, deposit)
    pool, noz = prepay(pool, paid)
    volume = noz * percent // 100
    assume(volume > 0)
    assert traffic_value(pool, volume) <= dec_of(paid)
    assert slash_value_wei(pool, volume) <= paid


@EXAMPLES
@given(sold(solvency=False), PAYMENTS)
def test_who_buys_and_reports_by_the_original_s_rules_gains_no_more_than_the_rounding_of_what_was_bought(pool: Ozone, paid: int) -> None:
    """The original rounds a purchase half to even: up to half a noz too much."""
    pool, noz = prepay(pool, paid)
    assume(noz > 0)
    assert traffic_value(pool, noz).truncate() <= paid + paid // noz


STEPS = st.lists(
    st.tuples(st.sampled_from(["buy", "report", "raise", "lower", "idle", "suspend", "leave", "again"]), st.integers(1, 10**26)), max_size=40
)


@settings(EXAMPLES, max_examples=100)
@given(DEPOSITS, STEPS)
def test_over_any_history_the_limit_is_not_negative_and_the_supply_accounts_for_every_noz(deposit: int, steps: list[tuple[str, int]]) -> None:
    """Against a plain model: S = Σ counted + pending; 0 <= S ÷ rate − Lt − (sold − reported) <= deposit changes."""
    economy = Economy(Ozone(0, 0, solvency=True), OURS)
    node, changes, out_noz, base = NodeDeposit(10**26), 1, 0, deposit
    economy.pool = raise_deposit(economy.pool, deposit)
    for kind, amount in steps:
        pool = economy.pool
        match kind:
            case "buy" if pool.remaining_noz:
                out_noz += economy.buy(amount % (10**7 * STOS) + 1)
            case "report" if out_noz:
                volume = amount % out_noz + 1
                economy.report([Work("w", volume)])
                out_noz -= volume
            case "idle":
                economy.report([Work("w", 0)])
            case "raise":
                economy.pool, base, changes = raise_deposit(pool, amount), base + amount, changes + 1
            case "lower" if base:
                gone = amount % base + 1
                economy.pool, base = lower_deposit(pool, gone), base - gone
            case "suspend":
                economy.pool, node = suspend(pool, node)
            case "leave":
                economy.pool, node = complete_leaving(pool, replace(node, unbonding_wei=node.tokens_wei))
                node = replace(node, tokens_wei=10**26)
            case "again":
                economy.pool, node = set_effective(pool, node, amount)
                changes += 1
        pool = economy.pool
        assert pool.remaining_noz >= 0
        assert pool.deposit_wei == base + node.counted_wei + pool.pending_wei
        gap = Fraction(pool.deposit_wei, 10**6) - pool.remaining_noz - out_noz
        assert 0 <= gap <= changes


@EXAMPLES
@given(sold(), st.integers(1, 10**17))
def test_what_a_grant_pays_buys_at_least_what_it_grants_and_its_expiry_gives_back_no_more(pool: Ozone, noz: int) -> None:
    assume(noz < pool.remaining_noz)
    assert purchasable_noz(pool, cost_wei(pool, noz)) >= noz
    after, cost = claim(pool, noz)
    assert (after.prepaid_wei - pool.prepaid_wei, pool.remaining_noz - after.remaining_noz) == (cost, noz)
    refund = expiry_refund_wei(after, noz, noz, cost)
    assert 0 <= refund <= cost
    returned = return_ozone(replace(after, prepaid_wei=after.prepaid_wei - refund), noz)
    assert returned.prepaid_wei * after.outstanding_noz >= after.prepaid_wei * returned.outstanding_noz


@EXAMPLES
@given(sold(), VOLUMES, st.integers(0, 100))
def test_mining_stays_below_its_cap_and_granted_volume_mines_nothing(pool: Ozone, volumes: list[int], percent: int) -> None:
    work = [replace(one, promo_noz=one.volume_noz * percent // 100) for one in work_of(pool, volumes)]
    volume = sum(one.volume_noz for one in work)
    assume(volume > 0)
    granted = sum(one.promo_noz for one in work)
    paid = distribute(pool, 0, SUPPLY_WEI, work, ["m"], OURS)
    assert paid.mined_wei <= Fraction(2, 5) * Fraction(paid.value_wei.scaled, ONE) * (volume - granted) / volume
    by_wallet = {one.wallet: one.mining_wei for one in paid.rewards}
    assert all(by_wallet[one.wallet or ""] == 0 for one in work if one.promo_noz == one.volume_noz)


@EXAMPLES
@given(st.sampled_from(DEFAULT_TIERS), st.integers(10**15, 10**9 * STOS), st.integers(0, 20))
def test_with_a_cap_below_break_even_a_resource_node_loses_by_buying_its_own_traffic(tier: object, paid: int, tax_percent: int) -> None:
    start = next(one for one in DEFAULT_TIERS if one == tier)
    tax = Dec(tax_percent * ONE // 100)
    below = Dec(break_even_cap(start.resource_bp, tax).scaled - ONE // 1000)
    pool = fresh(paid * 3)
    pool, noz = prepay(pool, paid)
    assume(noz > 0)
    got = distribute(pool, start.start_wei, SUPPLY_WEI, [Work("own", noz)], ["other"], RewardParams(tax, mining_cap=below))
    own = next(one for one in got.rewards if one.wallet == "own")
    assert own.mining_wei + own.traffic_wei < paid


def test_parameters_that_let_a_resource_node_gain_are_told() -> None:
    assert capped_too_high(OURS) == ()
    assert capped_too_high(RewardParams()) == DEFAULT_TIERS
    assert capped_too_high(RewardParams(parse_dec("0.01"), mining_cap=parse_dec("0.5"))) == DEFAULT_TIERS[4:]
    # 10000 ÷ 6250 − 1 = 0.6 without a tax: at that very cap nothing is lost.
    tier = replace(DEFAULT_TIERS[0], resource_bp=6250, meta_bp=1750)
    for cap, told in ((Dec(6 * ONE // 10 - 1), ()), (Dec(6 * ONE // 10), (tier,))):
        assert capped_too_high(RewardParams(Dec(0), (tier,), cap)) == told


@EXAMPLES
@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(1, 2**62), st.integers(1, 2**62), st.integers(1, 2**62))
def test_nothing_overflows_with_amounts_up_to_2_to_the_62(deposit: int, left: int, paid: int, prepaid: int, volume: int) -> None:
    for solvency in (False, True):
        pool = Ozone(deposit, left, prepaid, solvency=solvency)
        if left:
            bought, noz = prepay(pool, paid)
            assert 0 <= noz <= left
            assert (bought.remaining_noz == 0) or price(bought) >= price(pool)
        exact = Fraction((deposit + prepaid) * volume, left + volume)
        outstanding = deposit // 10**6 - left
        if solvency and outstanding > 0:
            exact = min(exact, Fraction(prepaid * volume // outstanding))
        assert abs(Fraction(traffic_value(pool, volume).scaled, ONE) - exact) <= Fraction(1, ONE)


@EXAMPLES
@given(st.lists(st.integers(MAX_AMOUNT - 10**6, MAX_AMOUNT), min_size=4, max_size=4))
def test_nothing_overflows_at_the_largest_amounts(amounts: list[int]) -> None:
    deposit, left, prepaid, volume = amounts
    for solvency in (False, True):
        pool = Ozone(deposit, left, prepaid, solvency=solvency)
        assert purchasable_noz(pool, volume) > 0
        assert traffic_value(pool, volume).scaled > 0
        assert price(pool).scaled > 0


@given(st.integers(0, 2**70), st.integers(0, 2**70), st.integers(0, 2**70))
def test_a_debt_is_taken_once_and_in_order(debt: int, first: int, second: int) -> None:
    assert sum(deduct(debt, first)) == first
    given_, rest = collect(debt, (first, second))
    assert sum(given_) + rest == debt
    assert given_[1] == 0 or given_[0] == first
    got = mature(first, debt)
    assert (got.mature_wei, got.slashed_wei) == deduct(debt, first)


def refused(error: type[AppError], code: int, act: Callable[[], object]) -> None:
    with pytest.raises(error) as caught:
        act()
    assert caught.value.code == code


def test_what_would_divide_by_zero_is_refused() -> None:
    empty = Ozone(0, 0)
    refused(OzoneLimitNotEnough, 14, lambda: price(empty))
    refused(InvalidRequest, 18, lambda: traffic_value(empty, 0))
    refused(InvalidRequest, 18, lambda: slash_value_wei(empty, 0))
    refused(InvalidCoins, 10, lambda: prepay(empty, 0))
    refused(OzoneLimitNotEnough, 14, lambda: prepay(Ozone(0, 0, solvency=True), 1))
    refused(OzoneLimitNotEnough, 14, lambda: claim(Ozone(0, 10), 1))
    refused(OzoneLimitNotEnough, 14, lambda: claim(fresh(10**7), 10))
    refused(InvalidRequest, 18, lambda: claim(fresh(10**7), 0))
    refused(InvalidRequest, 18, lambda: expiry_refund_wei(fresh(10**7), 1, 0, 1))
    refused(InvalidRequest, 18, lambda: expiry_refund_wei(fresh(10**7), 0, 0, 0))
    refused(VolumeReport, 32, lambda: distribute(fresh(10**7), 0, 0, [Work("w", 0)], [], OURS))
    refused(VolumeReport, 32, lambda: break_even_cap(0, Dec(0)))
    refused(InvalidRequest, 18, lambda: Ozone(1, 1, rate=Dec(0)))


def test_amounts_out_of_range_are_refused() -> None:
    pool = fresh(10**20)
    for amount in (-1, MAX_AMOUNT + 1, 2**300):
        refused(InvalidRequest, 18, lambda amount=amount: Ozone(amount, 0))
        refused(InvalidRequest, 18, lambda amount=amount: traffic_value(pool, amount))
        refused(InvalidRequest, 18, lambda amount=amount: raise_deposit(pool, amount))
        refused(InvalidRequest, 18, lambda amount=amount: distribute(pool, 0, 0, [Work("w", amount)], ["m"], OURS))
        refused(InvalidRequest, 18, lambda amount=amount: withdraw(amount, 0))
    refused(InvalidRequest, 18, lambda: distribute(pool, 0, 0, [Work("w", MAX_AMOUNT)] * 2, ["m"], OURS))
    refused(VolumeReport, 32, lambda: distribute(pool, 0, 0, [Work("w", 1, 2)], ["m"], OURS))
    refused(InsufficientMatureTotal, 7, lambda: withdraw(1, 2))
    refused(RemainingNozLimit, 43, lambda: lower_deposit(Ozone(10**20, 5), 10**20))


def test_a_report_of_more_than_was_sold_or_than_the_pools_hold_is_refused() -> None:
    pool, noz = prepay(fresh(1000 * STOS), STOS)
    refused(VolumeReport, 32, lambda: distribute(pool, 0, SUPPLY_WEI, [Work("w", noz + 1)], ["m"], OURS))
    refused(VolumeReport, 32, lambda: distribute(pool, 0, 0, [Work("w", noz)], ["m"], OURS))
    starved = replace(pool, prepaid_wei=1, solvency=False)
    refused(VolumeReport, 32, lambda: distribute(starved, 0, SUPPLY_WEI, [Work("w", noz)], ["m"], RewardParams()))


def test_maturity_reads_no_more_than_a_block_may_do_however_far_the_epochs_are() -> None:
    read = 0

    def records() -> object:
        nonlocal read
        for at in range(10_000):
            read += 1
            yield 2**62 + at // 300, at.to_bytes(20, "big")

    assert len(list(due(records(), 2**62 + 5))) == 100  # type: ignore[arg-type]
    assert read == 101
    assert list(due([(4, b"a"), (5, b"b"), (9, b"c")], 5)) == [(4, b"a"), (5, b"b")]
