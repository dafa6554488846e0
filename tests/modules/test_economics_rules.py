"""Where the ozone economy differs from the original's numbers on purpose, one by one: first by the original's rules, then by ours.

Differences without a switch are there with the switchable rules off too; none of them touches a number of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from chain.dec import ONE, Dec, dec_of, parse_dec
from chain.errors import AppError
from chain.ozone import Ozone, traffic_value
from chain.resource_nodes import node_type_text
from modules.pot.epochs import check_epoch, first_unmatured, maturity_epoch
from modules.pot.errors import CommunityTax, EpochNotDue, MatureEpoch, MiningCap, MiningRewardParams, VolumeReport
from modules.pot.rewards import Distribution, RewardParams, Work, check_params, distribute, slash_value_wei
from modules.pot.tiers import DEFAULT_TIERS, check_tiers, tier_at
from modules.register.deposits import (
    NodeDeposit,
    complete_leaving,
    initial_limit_noz,
    leave_meta_node,
    lower_deposit,
    ozone_of,
    raise_deposit,
    return_ozone,
    set_effective,
    suspend,
)
from modules.register.errors import InsufficientBalance, InvalidAmount, InvalidEffectiveToken, InvalidNodeType, RemainingNozLimit
from modules.register.node_types import check_node_type
from modules.sds.errors import OzoneLimitNotEnough
from modules.sds.pricing import cost_wei, expiry_refund_wei, prepay, price, purchasable_noz
from tests.modules.economy import STOS, SUPPLY_WEI, Economy

RATE = 10**6
CAP = RewardParams(parse_dec("0.01"), mining_cap=parse_dec("0.4"))
SECOND = 10**9


def mainnet(*, solvency: bool) -> Ozone:
    """Vectors' set B after its three purchases."""
    pool = Ozone(69_300 * STOS, 69_300 * STOS // RATE, solvency=solvency)
    for stos in (1, 100, 10_000):
        pool, _ = prepay(pool, stos * STOS)
    return pool


def paid(pool: Ozone, work: Sequence[Work], params: RewardParams = CAP, mined_wei: int = 0, metas: int = 7) -> Distribution:
    return distribute(pool, mined_wei, SUPPLY_WEI, work, ["m"] * metas, params)


# With solvency_rules


def test_traffic_is_worth_its_part_of_the_prepaid_wei_where_that_is_less_than_the_price() -> None:
    assert traffic_value(mainnet(solvency=False), 10**12).truncate() == 1_312_738_718_504_986_328
    assert traffic_value(mainnet(solvency=True), 10**12) == dec_of(1_145_757_575_757_576_000)


def test_a_slash_of_ozone_has_the_same_bound_and_the_price_alone_while_nothing_is_sold() -> None:
    assert slash_value_wei(mainnet(solvency=False), 10**12) == 1_312_738_718_504_986_328
    assert slash_value_wei(mainnet(solvency=True), 10**12) == 1_145_757_575_757_576_000
    unsold = [Ozone(100 * RATE, 100, solvency=on) for on in (False, True)]
    assert [slash_value_wei(pool, 100) for pool in unsold] == [50 * RATE, 50 * RATE]


def test_parts_are_multiplied_before_they_are_divided_so_no_more_is_paid_than_there_is() -> None:
    six = [Work(f"w{at}", 10**12) for at in range(6)]
    original, ours = [paid(mainnet(solvency=on), six, RewardParams()) for on in (False, True)]
    assert original.mining.resource_wei == ours.mining.resource_wei == 48 * STOS
    assert sum(one.mining_wei for one in original.rewards if one.wallet != "m") == 48 * STOS + 96
    assert sum(one.mining_wei for one in ours.rewards if one.wallet != "m") == 48 * STOS


def test_a_purchase_is_rounded_down_exactly() -> None:
    """1 − 1 ÷ (10^19 + 1) of one noz is so close to 1 that a Dec of 18 places rounds it up."""
    original, ours = [Ozone(1, 1, solvency=on) for on in (False, True)]
    assert (purchasable_noz(original, 10**19), purchasable_noz(ours, 10**19)) == (1, 0)


def test_nothing_is_sold_once_all_is_sold() -> None:
    original, ours = [Ozone(10**12, 0, 10**12, solvency=on) for on in (False, True)]
    after, noz = prepay(original, 10**12)
    assert (noz, after.prepaid_wei) == (0, 2 * 10**12)
    with pytest.raises(OzoneLimitNotEnough):
        prepay(ours, 10**12)


def test_the_first_deposit_makes_ozone() -> None:
    original, ours = [raise_deposit(Ozone(0, 0, solvency=on), 100 * STOS) for on in (False, True)]
    assert (original.deposit_wei, original.remaining_noz) == (100 * STOS, 0)
    assert (ours.deposit_wei, ours.remaining_noz) == (100 * STOS, 100 * STOS // RATE)


def test_a_deposit_that_leaves_takes_its_ozone_along_when_it_has_left_for_good() -> None:
    node = NodeDeposit(100 * STOS, unbonding_wei=100 * STOS, effective_wei=100 * STOS, counted_wei=100 * STOS)
    original, ours = [Ozone(300 * STOS, 300 * STOS // RATE, solvency=on) for on in (False, True)]
    assert complete_leaving(original, node)[0] == original
    after, left = complete_leaving(ours, node)
    assert (after.deposit_wei, after.remaining_noz, left) == (200 * STOS, 200 * STOS // RATE, NodeDeposit(0))
    # A meta node's leaves at once by the original's rules.
    assert leave_meta_node(original, 100 * STOS).remaining_noz == 200 * STOS // RATE
    assert leave_meta_node(ours, 100 * STOS) == ours


def test_a_suspended_deposit_goes_on_counting_until_it_is_active_again_or_has_left() -> None:
    node = NodeDeposit(100 * STOS, effective_wei=100 * STOS, counted_wei=100 * STOS)
    original, ours = [Ozone(300 * STOS, 300 * STOS // RATE, solvency=on) for on in (False, True)]
    after, idle = suspend(original, node)
    assert (after.deposit_wei, after.remaining_noz, idle.effective_wei, idle.counted_wei) == (200 * STOS, 200 * STOS // RATE, 0, 0)
    assert set_effective(after, idle, 60 * STOS)[0].deposit_wei == 260 * STOS
    after, idle = suspend(ours, node)
    assert (after, idle.effective_wei, idle.counted_wei) == (ours, 0, 100 * STOS)
    assert set_effective(after, idle, 100 * STOS)[0] == ours
    assert set_effective(after, idle, 60 * STOS)[0].deposit_wei == 260 * STOS


def test_what_the_limit_cannot_take_is_pending_and_goes_when_ozone_comes_back() -> None:
    node = NodeDeposit(100 * STOS, effective_wei=100 * STOS, counted_wei=100 * STOS)
    tight = [Ozone(100 * STOS, 10, solvency=on) for on in (False, True)]
    # The original lowers the node alone, and S keeps what no node deposits.
    after, smaller = set_effective(tight[0], node, 40 * STOS)
    assert (after, smaller.effective_wei) == (tight[0], 40 * STOS)
    after, smaller = set_effective(tight[1], node, 40 * STOS)
    assert (after.deposit_wei, after.remaining_noz, after.pending_wei) == (100 * STOS - 10 * RATE, 0, 60 * STOS - 10 * RATE)
    assert after.deposit_wei == smaller.counted_wei + after.pending_wei
    after = return_ozone(after, 50)
    assert (after.remaining_noz, after.pending_wei) == (0, 60 * STOS - 60 * RATE)
    after = return_ozone(after, 100 * STOS // RATE)
    assert (after.deposit_wei, after.pending_wei) == (40 * STOS, 0)
    assert return_ozone(tight[0], 50).deposit_wei == 100 * STOS


def test_a_part_of_a_noz_waits_for_the_rest_of_it() -> None:
    original, ours = [lower_deposit(Ozone(100 * RATE, 100, solvency=on), RATE // 2) for on in (False, True)]
    assert (original.deposit_wei, original.remaining_noz) == (100 * RATE - RATE // 2, 99)
    assert (ours.deposit_wei, ours.remaining_noz, ours.pending_wei) == (100 * RATE, 100, RATE // 2)
    assert lower_deposit(ours, RATE // 2) == Ozone(99 * RATE, 99, solvency=True)


def test_at_a_rate_with_decimals_pending_deposits_leave_by_whole_wei() -> None:
    pool = lower_deposit(Ozone(1000, 400, rate=parse_dec("2.5"), solvency=True), 9)
    assert (pool.deposit_wei, pool.remaining_noz, pool.pending_wei) == (995, 398, 4)


# With mining_cap_ratio


def test_mining_is_no_more_than_its_ratio_of_what_traffic_pays() -> None:
    work = [Work("w", 10**12)]
    assert paid(mainnet(solvency=False), work, RewardParams()).reward_wei == 80 * STOS
    assert paid(mainnet(solvency=False), work).reward_wei == 1_312_738_718_504_986_328 * 4 // 10
    assert paid(mainnet(solvency=True), work).reward_wei == 458_303_030_303_030_400
    assert paid(mainnet(solvency=True), work, replace(CAP, mining_cap=dec_of(1000))).reward_wei == 80 * STOS


# With epoch_duration_s


def test_an_epoch_has_a_length() -> None:
    check_epoch(9, 3, 0, 0, 0)
    check_epoch(4, 3, 600 * SECOND, 0, 600)
    check_epoch(1, 0, 0, 0, 600)
    for epoch, now_s, error in ((3, 600, MatureEpoch), (9, 600, EpochNotDue), (4, 599, EpochNotDue)):
        with pytest.raises(error):
            check_epoch(epoch, 3, now_s * SECOND, 0, 600)


# Always


def test_an_epoch_without_volume_pays_nothing_instead_of_dividing_by_zero() -> None:
    assert paid(mainnet(solvency=False), [Work("w", 0)], RewardParams()) == Distribution()


def test_issuance_ends_with_what_is_left_of_it_and_traffic_goes_on_being_paid() -> None:
    end = DEFAULT_TIERS[-1].end_wei
    assert [tier_at(mined).reward_wei for mined in (end - 5 * STOS, end - STOS, end, end + STOS)] == [5 * STOS // 2, STOS, 0, 0]
    over = paid(mainnet(solvency=False), [Work("w", 10**12)], RewardParams(), end)
    assert over.mined_wei == 0
    assert over.traffic.resource_wei == over.value_wei.truncate() * 7 // 10


def test_granted_volume_is_paid_as_traffic_and_mines_nothing() -> None:
    both = paid(mainnet(solvency=True), [Work("a", 10**12), Work("b", 10**12, 10**12)])
    a, b = both.rewards[0], both.rewards[1]
    assert (a.traffic_wei, b.mining_wei) == (b.traffic_wei, 0)
    assert both.reward_wei == both.value_wei.truncate() * 2 // 10
    assert a.mining_wei == both.mining.resource_wei


def test_an_expiry_gives_back_no_more_than_the_grant_cost_though_the_price_rose() -> None:
    pool = mainnet(solvency=False)
    assert expiry_refund_wei(pool, 10**12, 10**12, STOS) == STOS
    assert expiry_refund_wei(pool, 10**12, 10**12, 2 * STOS) == 1_145_757_575_757_576_000
    assert expiry_refund_wei(pool, 10**12, 4 * 10**12, 4 * STOS) == STOS


def test_a_limit_below_zero_and_a_price_without_ozone_are_refused() -> None:
    with pytest.raises(RemainingNozLimit):
        lower_deposit(Ozone(100 * STOS, 5), STOS)
    with pytest.raises(RemainingNozLimit):
        suspend(Ozone(100 * STOS, 5), NodeDeposit(STOS, 0, STOS, STOS))
    with pytest.raises(OzoneLimitNotEnough):
        price(Ozone(100 * STOS, 0))


# What is as in the original


def test_a_volume_without_a_wallet_counts_and_is_not_paid() -> None:
    with_it = paid(mainnet(solvency=False), [Work("w", 10**12), Work(None, 10**12)], RewardParams())
    assert [one.wallet for one in with_it.rewards] == ["m", "w"]
    assert with_it.rewards[1].mining_wei == 24 * STOS


def test_a_wallet_that_works_twice_or_owns_meta_nodes_is_paid_once_with_the_sum() -> None:
    apart = paid(mainnet(solvency=False), [Work("a", 10**12), Work("b", 10**12)], RewardParams())
    together = paid(mainnet(solvency=False), [Work("m", 10**12), Work("m", 10**12)], RewardParams())
    assert together.rewards[0].traffic_wei == sum(one.traffic_wei for one in apart.rewards)
    assert together.rewards[0].mining_wei == sum(one.mining_wei for one in apart.rewards)


def test_effective_deposits_are_taken_from_what_stays() -> None:
    pool = Ozone(300 * STOS, 300 * STOS // RATE)
    for node, effective, error in (
        (NodeDeposit(10), 11, InsufficientBalance),
        (NodeDeposit(10, unbonding_wei=10), 1, InsufficientBalance),
        (NodeDeposit(10), 0, InvalidEffectiveToken),
    ):
        with pytest.raises(error):
            set_effective(pool, node, effective)
    with pytest.raises(InsufficientBalance):
        leave_meta_node(Ozone(300 * STOS, 5), STOS)
    with pytest.raises(InvalidAmount):
        raise_deposit(pool, 0)
    with pytest.raises(InvalidAmount):
        lower_deposit(pool, 301 * STOS)
    assert (ozone_of(pool, RATE * 7 // 2), initial_limit_noz(RATE * 7 // 2, dec_of(RATE))) == (3, 3)


def test_the_price_is_what_a_noz_costs() -> None:
    pool = mainnet(solvency=True)
    assert price(pool).ceil() <= cost_wei(pool, 1) <= price(pool).ceil() + 1


def test_node_types_are_three_bits() -> None:
    assert [node_type_text(one) for one in (7, 3, 1, 0, 8)] == [
        "storage/database/computation",
        "computation/database",
        "computation",
        "UNKNOWN",
        "UNKNOWN",
    ]
    check_node_type(5)
    for one in (0, 8, -1):
        with pytest.raises(InvalidNodeType):
            check_node_type(one)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        (RewardParams(Dec(ONE + 1)), CommunityTax),
        (RewardParams(Dec(-1)), CommunityTax),
        (RewardParams(mining_cap=Dec(-1)), MiningCap),
        (RewardParams(tiers=()), MiningRewardParams),
        (RewardParams(tiers=DEFAULT_TIERS[1:]), MiningRewardParams),
        (RewardParams(tiers=(replace(DEFAULT_TIERS[0], chain_bp=1999),)), MiningRewardParams),
        (RewardParams(tiers=(replace(DEFAULT_TIERS[0], chain_bp=-1, meta_bp=4001),)), MiningRewardParams),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: RewardParams, error: type[AppError]) -> None:
    with pytest.raises(error):
        check_params(params)


def test_default_parameters_are_valid_and_a_report_needs_a_meta_node() -> None:
    check_params(CAP)
    check_tiers(DEFAULT_TIERS)
    with pytest.raises(VolumeReport):
        paid(mainnet(solvency=True), [Work("w", 1)], metas=0)


def test_rewards_mature_with_the_report_of_a_later_epoch() -> None:
    assert maturity_epoch(5, 2016) == 2021
    assert [first_unmatured(0, 2016), first_unmatured(2020, 2016)] == [2017, 2021]


# What the rules do not give


def test_where_the_price_decides_equal_reports_are_paid_less_and_less_and_prepaid_wei_stay() -> None:
    """A tenth of what is sold, ten times. By the original's rules the price falls with each report and the last wei is paid with the last noz. With
    the solvency rules reports are paid alike until the price is below their part; then it falls too, and what was prepaid above it stays."""
    paid_stos = {}
    for on in (False, True):
        economy = Economy(mainnet(solvency=on), replace(CAP, mining_cap=Dec(0)), 0, ["m"] * 7)
        tenth = economy.pool.outstanding_noz // 10
        volumes = [tenth] * 9 + [economy.pool.outstanding_noz - 9 * tenth]
        paid_stos[on] = [economy.report([Work("w", volume)]).value_wei.truncate() // STOS for volume in volumes]
        assert economy.pool.outstanding_noz == 0
        assert economy.pool.prepaid_wei // STOS == (321 if on else 0)
    assert paid_stos[False] == [1140, 1108, 1077, 1047, 1019, 991, 965, 940, 916, 892]
    assert paid_stos[True] == [1010, 1010, 1010, 1010, 1010, 996, 970, 944, 920, 897]


def test_who_bought_before_the_price_rose_can_get_more_than_was_paid_from_those_who_bought_later() -> None:
    """So R <= X, and with it the break-even of a cap, holds for who reports before others buy and while an own deposit counts, not for ever."""
    pool, noz = prepay(Ozone(69_300 * STOS, 69_300 * STOS // RATE, solvency=True), STOS)
    later, _ = prepay(pool, 50_000 * STOS)
    assert (slash_value_wei(pool, noz) * 100 // STOS, slash_value_wei(later, noz) * 100 // STOS) == (99, 172)
    own = paid(later, [Work("w", noz)]).rewards[1]
    assert (own.mining_wei + own.traffic_wei) * 100 // STOS == 143

    before = raise_deposit(mainnet(solvency=True), 1_000_000 * STOS)
    before, noz = prepay(before, 1000 * STOS)
    after = lower_deposit(before, 1_000_000 * STOS)
    assert [slash_value_wei(one, noz) // STOS for one in (before, after)] == [999, 1112]
