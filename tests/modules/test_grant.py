"""grant: pools, campaigns, claims, what epochs use and let expire; budgets hold whoever claims, and nothing turns granted ozone into coins."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.codec.times import rfc3339
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.module import GenesisError
from chain.ozone import Ozone
from chain.reports import EMPTY_ROOT, draft, draft_of
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from chain.tx.build import Signer, build_tx
from modules.grant import errors, keys
from modules.grant.records import COMMON_POOL
from modules.sds.pricing import cost_wei
from tests.grants import allow, basic, execute, generic, grant, send
from tests.modules import reporting
from tests.modules.granting import (
    GAS,
    GRANT,
    PREPAID,
    REGISTER,
    SDS,
    SEEN,
    STOS,
    Net,
    add_promotion,
    attributes,
    claim,
    create_campaign,
    create_pool,
    end_campaign,
    fund,
    make,
    prepay,
    promotion,
    seen,
    set_operators,
    typed,
    wallet,
    wallets,
)
from tests.support import CHAIN_ID, FEE, GOV, KEYS, key, text

SPONSOR, OPERATOR, OTHER, CAROL = KEYS[2:6]
S, P, T, C = (text(one) for one in KEYS[2:6])
EACH_NOZ = 10**9
DAY_S = 86_400


def code_of(call: Any, *given: Any) -> tuple[str, int]:
    with pytest.raises(AppError) as caught:
        call(*given)
    return seen(caught.value.codespace, caught.value.code)


def opened(**fields: Any) -> Net:
    """A chain whose pool 2, a sponsor's, has 5 stos and one campaign with a budget of 1 stos; OPERATOR may claim."""
    net = Net()
    net.ok(SPONSOR, create_pool(S, 5 * STOS))
    net.ok(SPONSOR, create_campaign(net, S, [P], **fields))
    return net


@pytest.fixture(scope="module")
def shared() -> Net:
    """``opened``, and wallet 0 has claimed; for tests that leave it as they found it."""
    net = opened()
    net.ok(OPERATOR, claim(P, [wallet(0)]))
    return net


# --- pools ------------------------------------------------------------------------------------------------------------------------------------


def test_the_common_pool_is_governances_from_the_beginning_and_anybody_funds_any_pool() -> None:
    net = Net()
    common = net.query(GRANT, "Pool", pool_id=COMMON_POOL).pool
    assert (common.name, common.admin, common.free_wei, common.open_campaigns) == ("common", GOV, "0", 0)
    result = net.ok(OTHER, fund(T, COMMON_POOL, 7))
    assert typed(result, "stratos.grant.v1.EventFundPool") == [{"pool_id": "1", "depositor": T, "amount_wei": "7"}]
    made = net.ok(SPONSOR, create_pool(S, 2, denom="stos"))
    assert typed(made, "stratos.grant.v1.EventCreatePool") == [{"pool_id": "2", "admin": S, "amount_wei": str(2 * STOS)}]
    net.ok(OTHER, fund(T, 2, 3, denom="gwei"))
    assert (net.pool_free(1), net.pool_free(2), net.module_wei("grant")) == (7, 2 * STOS + 3 * 10**9, 2 * STOS + 3 * 10**9 + 7)
    assert [one.pool_id for one in net.query(GRANT, "Pools").pools] == [1, 2]


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (create_pool(S, STOS - 1), ("grant", 16)),
        (create_pool(S, 0), ("grant", 16)),
        (create_pool(S, STOS, denom="stake"), ("grant", 16)),
        (create_pool(S, 2**127), ("grant", 16)),
        (create_pool(S, 10**30), ("sdk", 5)),
        (create_pool(S, STOS, name=""), ("grant", 17)),
        (create_pool(S, STOS, name="é" * 33), ("grant", 17)),
        (create_pool(S, STOS, name="two\nlines"), ("grant", 17)),
        (fund(S, 9, 5), ("grant", 2)),
        (fund(S, 2, 0), ("grant", 16)),
        (fund(S, 2, 5, denom="noz"), ("grant", 16)),
        (fund(S, 2, 10**30), ("sdk", 5)),
    ],
)
def test_funding_that_is_none_and_names_that_are_none_are_refused(shared: Net, made: Any, code: tuple[str, int]) -> None:
    found, log = shared.refused(SPONSOR, made)
    assert found == code, log


# --- campaigns --------------------------------------------------------------------------------------------------------------------------------


def test_a_campaign_reserves_its_budget_and_gives_back_what_is_left() -> None:
    net = opened()
    campaign = net.campaign()
    assert (campaign.pool_id, campaign.status, list(campaign.operators), campaign.budget_wei, campaign.spent_wei) == (2, 1, [P], str(STOS), "0")
    assert (net.pool_free(2), net.module_wei("grant")) == (4 * STOS, 5 * STOS)
    net.ok(OPERATOR, claim(P, wallets(3)))
    spent = int(net.campaign().spent_wei)
    assert spent == 5 * STOS - net.module_wei("grant")
    result = net.ok(SPONSOR, end_campaign(S))
    assert typed(result, "stratos.grant.v1.EventEndCampaign") == [{"campaign_id": "1", "pool_id": "2", "returned_wei": str(STOS - spent)}]
    assert (net.pool_free(2), net.campaign().status) == (5 * STOS - spent, 2)
    assert net.refused(SPONSOR, end_campaign(S))[0] == ("grant", 7)
    assert net.refused(OPERATOR, claim(P, wallets(1, 50)))[0] == ("grant", 7)
    assert net.refused(SPONSOR, add_promotion(S, promotion(net, 2)))[0] == ("grant", 7)
    assert net.refused(SPONSOR, set_operators(S, T))[0] == ("grant", 7)


def test_governance_ends_any_campaign_and_anybody_ends_one_that_is_over() -> None:
    net = opened(end_s=1000)
    assert net.refused(OTHER, end_campaign(T))[0] == ("grant", 5)
    net.decide(end_campaign(GOV))
    assert (net.campaign().status, net.pool_free(2)) == (2, 5 * STOS)
    net.ok(SPONSOR, create_campaign(net, S, [P], end_s=500))
    net.driver.next_block(time_step_s=600)
    assert net.refused(OPERATOR, claim(P, wallets(1), campaign_id=2))[0] == ("grant", 7)
    net.ok(OTHER, end_campaign(T, 2))
    assert (net.campaign(2).status, net.pool_free(2), net.query(GRANT, "Pool", pool_id=2).pool.open_campaigns) == (2, 5 * STOS, 0)


def test_governance_gives_from_the_common_pool() -> None:
    net = Net()
    net.ok(OTHER, fund(T, COMMON_POOL, 3 * STOS))
    net.decide(create_campaign(net, GOV, [P], pool_id=COMMON_POOL))
    net.ok(OPERATOR, claim(P, wallets(2)))
    assert net.outstanding()[0] == 2 * EACH_NOZ
    assert net.refused(SPONSOR, create_campaign(net, S, [P], pool_id=COMMON_POOL))[0] == ("grant", 5)


def test_two_campaigns_cannot_have_the_same_money(shared: Net) -> None:
    found, log = shared.refused(SPONSOR, create_campaign(shared, S, [P], budget_wei=str(4 * STOS + 1)))
    assert (found, f"of {4 * STOS}wei that are free in pool 2" in log) == (("grant", 14), True)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"pool_id": 9}, 2),
        ({"admin": T}, 5),
        ({"name": ""}, 17),
        ({"operators": [P, P]}, 18),
        ({"operators": ["st1nobody"]}, 18),
        ({"operators": wallets(33)}, 18),
        ({"budget_wei": "0"}, 20),
        ({"budget_wei": str(2**127)}, 20),
        ({"budget_wei": "-1"}, 20),
        ({"budget_wei": "ten"}, 20),
        ({"max_wei_per_day": "0"}, 20),
        ({"max_wei_per_day": str(STOS + 1)}, 20),
        ({"max_noz_per_wallet": "0"}, 20),
        ({"validity_s": 0}, 20),
        ({"validity_s": 366 * DAY_S + 1}, 20),
        ({"end_s": 0}, 20),
        ({"end_s": -(10**10)}, 20),
    ],
)
def test_terms_that_cannot_be_are_refused(shared: Net, fields: dict[str, Any], code: int) -> None:
    given = {"admin": S, "operators": [P], **fields}
    admin, operators = given.pop("admin"), given.pop("operators")
    made = create_campaign(shared, admin, operators, promotion(shared, end_s=0 if "end_s" in fields else 1000, start_s=-10), **given)
    if "end_s" in fields:
        del made.promotions[:]
    assert shared.refused(OTHER if admin == T else SPONSOR, made)[0] == ("grant", code)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"number": 1}, 19),
        ({"number": 3}, 19),
        ({"noz": 0}, 19),
        ({"noz": 10**10 + 1}, 19),
        ({"start_s": 500, "end_s": 500}, 19),
        ({"start_s": -50, "end_s": -20}, 19),
        ({"end_s": 10**6}, 19),
        ({"name": ""}, 17),
    ],
)
def test_promotions_that_cannot_be_are_refused(shared: Net, fields: dict[str, Any], code: int) -> None:
    made = promotion(shared, **{"number": 2, **fields})
    assert shared.refused(SPONSOR, add_promotion(S, made))[0] == ("grant", code)
    if "number" not in fields:
        made.promotion_id = 1
        assert shared.refused(SPONSOR, create_campaign(shared, S, [P], made))[0] == ("grant", code)


def test_a_pool_has_as_many_open_campaigns_as_parameters_allow_and_a_campaign_16_promotions() -> None:
    net = opened()
    params = net.query(GRANT, "Params").params
    params.max_open_campaigns_per_pool = 2
    net.decide(make("MsgUpdateParams", authority=GOV, params=params))
    net.ok(SPONSOR, create_campaign(net, S, [P]))
    assert net.refused(SPONSOR, create_campaign(net, S, [P]))[0] == ("grant", 15)
    net.ok(SPONSOR, end_campaign(S, 2))
    net.ok(SPONSOR, create_campaign(net, S, [P]))
    for number in range(2, 17):
        net.ok(SPONSOR, add_promotion(S, promotion(net, number, end_s=1000)))
    assert net.refused(SPONSOR, add_promotion(S, promotion(net, 17, end_s=1000)))[0] == ("grant", 19)
    many = [promotion(net, number, end_s=1000) for number in range(1, 18)]
    assert net.refused(SPONSOR, create_campaign(net, S, [P], *many))[0] == ("grant", 19)


def test_only_the_admin_changes_a_campaign(shared: Net) -> None:
    for message, code in (
        (add_promotion(T, promotion(shared, 2)), 5),
        (set_operators(T, T), 5),
        (add_promotion(T, promotion(shared, 2), campaign_id=9), 3),
        (set_operators(T, T, campaign_id=9), 3),
        (end_campaign(T, 9), 3),
    ):
        assert shared.refused(OTHER, message)[0] == ("grant", code)
    assert shared.refused(SPONSOR, set_operators(S, P, P))[0] == ("grant", 18)


# --- claims -----------------------------------------------------------------------------------------------------------------------------------


def test_a_claim_is_a_prepay_by_the_pool_at_the_price_of_a_purchase_and_told_as_a_claim() -> None:
    net = opened()
    cost = cost_wei(_pool(net), 3 * EACH_NOZ)
    assert net.query(GRANT, "SimClaim", granted_noz=str(3 * EACH_NOZ)).cost_wei == str(cost)
    before = net.limit_noz(), net.module_wei(PREPAID), net.module_wei("grant")
    result = net.ok(OPERATOR, claim(P, wallets(3)))
    assert (net.limit_noz(), net.module_wei(PREPAID), net.module_wei("grant")) == (before[0] - 3 * EACH_NOZ, before[1] + cost, before[2] - cost)
    assert net.outstanding() == (3 * EACH_NOZ, cost)
    told = typed(result, "stratos.grant.v1.EventClaim")
    assert attributes(result, "stratos.sds.v1.EventPrePay") == []
    assert [one["wallet"] for one in told] == wallets(3)
    assert sum(int(one["cost_wei"]) for one in told) == cost
    assert max(int(one["cost_wei"]) for one in told) - min(int(one["cost_wei"]) for one in told) <= 1
    common = {"campaign_id": "1", "promotion_id": "1", "operator": P, "granted_noz": str(EACH_NOZ), "expire_time": rfc3339(net.now_s + 3600)}
    assert told[0] == {**common, "wallet": wallet(0), "cost_wei": told[0]["cost_wei"]}
    (first,) = net.query(GRANT, "ClaimsByWallet", wallet=wallet(0)).claims
    assert (first.campaign_id, first.promotion_id, first.granted_noz, first.cost_wei) == (1, 1, str(EACH_NOZ), told[0]["cost_wei"])
    assert net.campaign().claims == 3


def _pool(net: Net) -> Any:
    """The pool of ozone as it is now."""
    supply = net.query(SDS, "NozSupply")
    return Ozone(400 * STOS, int(supply.remaining), net.module_wei(PREPAID), solvency=True)


def test_a_wallet_without_coins_or_account_is_given_ozone_and_needs_neither(shared: Net) -> None:
    assert shared.wei(wallet(0)) == 0
    assert code_of(lambda: shared.query("cosmos.auth.v1beta1", "Account", address=wallet(0))) == ("sdk", 38)
    assert len(shared.query(GRANT, "ClaimsByWallet", wallet=wallet(0)).claims) == 1


def test_a_wallet_claims_a_promotion_once_and_the_whole_claim_is_refused_that_names_it_again(shared: Net) -> None:
    found, log = shared.refused(OPERATOR, claim(P, [wallet(1), wallet(0), wallet(2)]))
    assert (found, wallet(0) in log) == (("grant", 9), True)
    found, log = shared.refused(OPERATOR, claim(P, [wallet(1), wallet(2), wallet(1)]))
    assert (found, wallet(1) in log) == (("grant", 10), True)
    assert shared.refused(OPERATOR, claim(P, [wallet(1), wallet(1).upper()]))[0] == ("grant", 10), "the same wallet in capitals"
    assert shared.refused(OPERATOR, claim(P, [wallet(0).upper()]))[0] == ("grant", 9)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (claim(P, []), 10),
        (claim(P, wallets(101, 100)), 10),
        (claim(P, ["st1nobody"]), 10),
        (claim(P, [wallet(1)], campaign_id=9), 3),
        (claim(P, [wallet(1)], promotion_id=2), 4),
        (claim(P, [wallet(1)], promotion_id=0), 4),
        (claim(S, [wallet(1)]), 6),
        (claim(T, [wallet(1)]), 6),
    ],
)
def test_claims_that_cannot_be_are_refused(shared: Net, message: Any, code: int) -> None:
    signer = {P: OPERATOR, S: SPONSOR, T: OTHER}[message.operator]
    assert shared.refused(signer, message)[0] == ("grant", code)


def test_a_promotion_opens_and_closes_and_granted_ozone_lives_as_long_as_the_campaign_says() -> None:
    net = Net()
    net.ok(SPONSOR, create_pool(S, 5 * STOS))
    net.ok(SPONSOR, create_campaign(net, S, [P], promotion(net, start_s=100, end_s=200)))
    found, log = net.refused(OPERATOR, claim(P, wallets(1)))
    assert (found, "is open from" in log) == (("grant", 8), True)
    net.ok(OPERATOR, claim(P, wallets(1)), step_s=100)
    assert net.query(GRANT, "ClaimsByWallet", wallet=wallet(0)).claims[0].expire_time.seconds == net.now_s + 3600
    assert net.refused(OPERATOR, claim(P, wallets(1, 1)), step_s=100)[0] == ("grant", 8)


def test_a_later_promotion_counts_towards_what_a_wallet_may_get() -> None:
    net = opened(max_noz_per_wallet=str(2 * EACH_NOZ))
    net.ok(SPONSOR, add_promotion(S, promotion(net, 2, end_s=1000)))
    net.ok(SPONSOR, add_promotion(S, promotion(net, 3, noz=1, end_s=1000)))
    net.ok(OPERATOR, claim(P, wallets(2)))
    net.ok(OPERATOR, claim(P, [wallet(0)], promotion_id=2))
    found, log = net.refused(OPERATOR, claim(P, [wallet(1), wallet(0)], promotion_id=3))
    assert (found, f"{wallet(0)} would have {2 * EACH_NOZ + 1} noz, of {2 * EACH_NOZ} noz" in log) == (("grant", 11), True)
    net.ok(OPERATOR, claim(P, [wallet(1)], promotion_id=3))
    assert [one.promotion_id for one in net.query(GRANT, "ClaimsByWallet", wallet=wallet(0)).claims] == [1, 2]


def test_a_campaign_spends_its_daily_sum_and_the_next_day_again() -> None:
    net = opened(max_wei_per_day=str(25 * 10**14), end_s=3 * DAY_S)
    net.ok(OPERATOR, claim(P, wallets(2)))
    assert net.refused(OPERATOR, claim(P, wallets(1, 2)))[0] == ("grant", 12)
    to_midnight = DAY_S - net.now_s % DAY_S
    net.driver.next_block(time_step_s=to_midnight - 1 - 1)
    assert net.refused(OPERATOR, claim(P, wallets(1, 2)), step_s=1)[0] == ("grant", 12), "the last second of the day"
    net.ok(OPERATOR, claim(P, wallets(2, 2)), step_s=1)
    campaign = net.campaign()
    assert (campaign.day, int(campaign.spent_today_wei) < int(campaign.spent_wei)) == (net.now_s // DAY_S, True)
    assert net.refused(OPERATOR, claim(P, wallets(1, 9)))[0] == ("grant", 12)


def test_an_empty_budget_gives_nothing() -> None:
    net = opened(budget_wei=str(25 * 10**14), max_wei_per_day=str(25 * 10**14))
    net.ok(OPERATOR, claim(P, wallets(2)))
    left = 25 * 10**14 - int(net.campaign().spent_wei)
    found, log = net.refused(OPERATOR, claim(P, wallets(1, 2)))
    assert (found, f"of {left}wei that are left of campaign 1" in log) == (("grant", 13), True)


def test_a_revoked_operator_claims_nothing_and_without_operators_nobody_does() -> None:
    net = opened()
    result = net.ok(SPONSOR, set_operators(S, T, C))
    assert typed(result, "stratos.grant.v1.EventSetOperators") == [{"campaign_id": "1", "operators": f"{T},{C}"}]
    assert net.refused(OPERATOR, claim(P, wallets(1)))[0] == ("grant", 6)
    net.ok(OTHER, claim(T, wallets(1)))
    net.ok(SPONSOR, set_operators(S))
    assert net.refused(OTHER, claim(T, wallets(1, 1)))[0] == ("grant", 6)


def test_ozone_that_is_not_there_is_not_given() -> None:
    net = Net((STOS,))
    net.ok(SPONSOR, create_pool(S, 5 * STOS))
    all_noz = net.limit_noz()
    net.ok(SPONSOR, create_campaign(net, S, [P], promotion(net, noz=all_noz), max_noz_per_wallet=str(all_noz)))
    assert net.refused(OPERATOR, claim(P, wallets(1)))[0] == ("sds", 14)
    assert net.refused(OPERATOR, claim(P, wallets(2)))[0] == ("sds", 14)
    empty = Net(())
    assert code_of(lambda: empty.query(GRANT, "SimClaim", granted_noz="1")) == ("sds", 14)
    assert code_of(lambda: empty.query(GRANT, "SimClaim", granted_noz="0")) == ("sdk", 18)


def test_operators_race_for_a_budget_and_it_is_never_exceeded() -> None:
    """Several operators claim for the same wallets in the same blocks, until the budget is spent: each wallet once, every wei accounted for."""
    operators = [KEYS[number] for number in (1, 3, 4, 5)]
    net = opened(budget_wei=str(25 * 10**16), max_wei_per_day=str(25 * 10**16))
    net.ok(SPONSOR, set_operators(S, *map(text, operators)))
    choose = random.Random(5)
    given: dict[str, int] = {}
    codes: dict[tuple[str, int], int] = {}
    for _ in range(12):
        raws, asked = [], []
        for one in operators:
            number, sequence = net.account(one)
            for ahead in range(2):
                message = claim(text(one), wallets(choose.choice((1, 10, 20)), 20 * choose.randrange(30)))
                signer = Signer(one.public_key, sequence + ahead, number)
                raws.append(build_tx([message], fee=FEE, gas_limit=GAS, signers=[signer]).sign([one], CHAIN_ID))
                asked.append(message)
        for message, result in zip(asked, net.driver.next_block(raws, process=False).results, strict=True):
            codes[result.codespace, result.code] = codes.get((result.codespace, result.code), 0) + 1
            if result.code == 0:
                for one in message.wallets:
                    given[one] = given.get(one, 0) + 1
    assert set(given.values()) == {1}
    campaign = net.campaign()
    assert int(campaign.spent_wei) <= 25 * 10**16
    assert (campaign.claims, net.outstanding()) == (len(given), (len(given) * EACH_NOZ, int(campaign.spent_wei)))
    assert net.module_wei(PREPAID) == int(campaign.spent_wei)
    assert {("", 0), ("grant", 9), ("grant", 13)} <= set(codes), codes
    listed = net.query(GRANT, "ClaimsByCampaign", campaign_id=1, pagination={"limit": 1000}).claims
    assert sorted(one.wallet for one in listed) == sorted(given)


def test_a_thousand_claims_in_ten_transactions_cost_what_one_purchase_would_but_for_a_wei_each() -> None:
    net = opened(budget_wei=str(4 * STOS), max_wei_per_day=str(4 * STOS))
    expected = cost_wei(_pool(net), 1000 * EACH_NOZ)
    for at in range(10):
        net.ok(OPERATOR, claim(P, wallets(100, 100 * at)))
    assert expected <= net.outstanding()[1] <= expected + 10
    assert net.outstanding()[0] == 1000 * EACH_NOZ


# --- what epochs use and let expire -----------------------------------------------------------------------------------------------------------


def keeper_of(net: Net) -> Any:
    """The chain's own grant keeper."""
    (module,) = (one for one in net.app.modules if one.name == "grant")
    return module.genesis._keeper


def test_what_an_epoch_lets_expire_gives_its_noz_back_and_no_more_than_they_cost() -> None:
    """storage-protocol.md 1.5: trunc of the least of the value, the part of the prepaid wei and the part of the cost; to the common pool."""
    net = opened()
    net.ok(OPERATOR, claim(P, wallets(50)))
    net.ok(OTHER, prepay(T, Coin("wei", 3 * STOS)))
    pool, (outstanding, cost) = _pool(net), net.outstanding()
    ctx, state = net.scratch()
    keeper = keeper_of(net)
    expired = 20 * EACH_NOZ
    cost_gone, returned = keeper.use(ctx, state, 1, 0, expired)
    value = (pool.deposit_wei + pool.prepaid_wei) * expired // (pool.remaining_noz + expired)
    assert returned == min(value, pool.prepaid_wei * expired // pool.outstanding_noz, cost * expired // outstanding)
    assert 0 < returned <= cost_gone == cost * expired // outstanding
    assert (keeper.outstanding_noz(state), keeper.cost_wei(state)) == (outstanding - expired, cost - cost_gone)
    assert int(keeper.require_pool(state, COMMON_POOL).free_wei) == returned
    after = keeper.pool_of_ozone(state)
    assert (after.remaining_noz, after.prepaid_wei) == (pool.remaining_noz + expired, pool.prepaid_wei - returned)
    assert after.prepaid_wei * pool.outstanding_noz >= pool.prepaid_wei * after.outstanding_noz, "Pt ÷ A has not fallen"
    assert ctx.events.events[-1] == (
        "stratos.grant.v1.EventPromoExpired",
        (("epoch", '"1"'), ("promo_noz", f'"{expired}"'), ("returned_wei", f'"{returned}"')),
    )
    assert net.broken(state) == []


def test_what_an_epoch_uses_leaves_with_its_part_of_the_cost_and_moves_no_coins() -> None:
    net = opened()
    net.ok(OPERATOR, claim(P, wallets(3)))
    outstanding, cost = net.outstanding()
    ctx, state = net.scratch()
    keeper = keeper_of(net)
    before = keeper.pool_of_ozone(state)
    assert keeper.use(ctx, state, 7, EACH_NOZ, 0) == (cost * EACH_NOZ // outstanding, 0)
    assert keeper.pool_of_ozone(state) == before
    assert [name for name, _ in ctx.events.events] == ["stratos.grant.v1.EventPromoReported"]
    assert keeper.use(ctx, state, 8, 2 * EACH_NOZ, 0)[0] == cost - cost * EACH_NOZ // outstanding, "the last ones take all that is left of the cost"
    assert (keeper.outstanding_noz(state), keeper.cost_wei(state)) == (0, 0)
    assert keeper.use(ctx, state, 9, 0, 0) == (0, 0)


def test_more_than_is_outstanding_is_neither_used_nor_expires() -> None:
    net = opened()
    net.ok(OPERATOR, claim(P, wallets(3)))
    ctx, state = net.scratch()
    keeper = keeper_of(net)
    for used, expired in ((3 * EACH_NOZ + 1, 0), (0, 3 * EACH_NOZ + 1), (2 * EACH_NOZ, EACH_NOZ + 1), (2**127 - 1, 2**127 - 1)):
        assert code_of(keeper.use, ctx, state, 1, used, expired) == ("grant", 22)
    assert code_of(keeper.use, ctx, state, 1, -1, 0) == ("sdk", 18)
    assert code_of(keeper.use, ctx, state, 1, 0, 2**127) == ("sdk", 18)
    assert (keeper.outstanding_noz(state), keeper.cost_wei(state)) == net.outstanding()


def test_an_epoch_cannot_report_granted_ozone_as_bought() -> None:
    """What was bought is A less what was granted; a quorum that says more would leave the granted noz with nothing behind them."""
    net = reporting.Net()
    net.buy(STOS)
    net.ok(SPONSOR, create_pool(S, 5 * STOS))
    net.ok(SPONSOR, create_campaign(net, S, [P]))
    net.ok(OPERATOR, claim(P, wallets(10)))
    supply = net.query(SDS, "NozSupply")
    sold = int(supply.total) - int(supply.remaining) - 10 * EACH_NOZ
    (worker,) = reporting.wallets(1)
    assert seen(*net.refused_report(net.signed(net.draft(1, [(worker, sold + 1)])))) == ("grant", 23)
    net.reported(1, [(worker, sold)])
    assert net.refused_report(net.signed(net.draft(2, [(worker, 1)]))) == ("grant", 23)


def report_of(net: reporting.Net, epoch: int, bought: int, granted: int, expired: int) -> list[Any]:
    """The signed messages of an epoch in which one wallet earned so many bought and granted noz, and so many granted ones expired."""
    (worker,) = reporting.wallets(1)
    receipts = (1, reporting.A_ROOT) if bought + granted else (0, EMPTY_ROOT)
    volumes = [(worker, bought + granted)]
    shown = draft(CHAIN_ID, epoch, reporting.meta_keys(0).network_address, text(reporting.owner_of(0)), volumes, receipts)
    if granted:
        shown["lines"] = [{"wallet": worker, "traffic_class": 1, "fund": 2, "volume_noz": str(granted)}]
    shown["promo_expired_noz"] = str(expired)
    return net.signed(draft_of(shown))


def test_a_signed_report_uses_granted_ozone_lets_some_expire_and_refunds_the_common_pool() -> None:
    net = reporting.Net()
    net.buy(STOS)
    net.ok(SPONSOR, create_pool(S, 5 * STOS))
    net.ok(SPONSOR, create_campaign(net, S, [P]))
    net.ok(OPERATOR, claim(P, wallets(10)))
    cost = int(net.query(GRANT, "Outstanding").promo_cost_wei)
    supply = net.query(SDS, "NozSupply")
    prepaid = net.held(PREPAID)
    sold = int(supply.total) - int(supply.remaining)
    expired, used = 4 * EACH_NOZ, 5 * EACH_NOZ
    result = net.ok(reporting.owner_of(0), *report_of(net, 1, EACH_NOZ, used, expired), step_s=reporting.REPORT_S)
    (told,) = typed(result, "stratos.grant.v1.EventPromoExpired")
    returned = int(told["returned_wei"])
    value_wei = (int(supply.total) * 10**6 + prepaid) * expired // (int(supply.remaining) + expired)
    assert returned == min(value_wei, prepaid * expired // sold, cost * expired // (10 * EACH_NOZ))
    assert 0 < returned <= cost * expired // (10 * EACH_NOZ)
    assert typed(result, "stratos.grant.v1.EventPromoReported") == [
        {"epoch": "1", "promo_noz": str(used), "cost_wei": str(cost * used // (10 * EACH_NOZ))}
    ]
    left = net.query(GRANT, "Outstanding")
    assert (int(left.promo_outstanding_noz), int(left.promo_cost_wei)) == (EACH_NOZ, cost - cost * 9 // 10)
    assert int(net.query(GRANT, "Pool", pool_id=COMMON_POOL).pool.free_wei) == returned
    after = net.query(SDS, "NozSupply")
    assert int(after.remaining) == int(supply.remaining) + used + EACH_NOZ + expired
    left_noz = int(after.total) - int(after.remaining)
    assert net.held(PREPAID) * sold >= prepaid * left_noz, "Pt ÷ A has not fallen"
    for bad, code in ((report_of(net, 2, 0, EACH_NOZ, 1), 22), (report_of(net, 2, 0, 0, EACH_NOZ + 1), 22)):
        assert net.refused_report(bad) == ("grant", code)


def test_a_void_epoch_makes_what_it_used_and_let_expire_outstanding_again() -> None:
    net = opened()
    net.ok(OPERATOR, claim(P, wallets(10)))
    ctx, state = net.scratch()
    keeper = keeper_of(net)
    before = keeper.pool_of_ozone(state), keeper.outstanding_noz(state), keeper.cost_wei(state)
    moved = keeper.use(ctx, state, 1, 3 * EACH_NOZ, 2 * EACH_NOZ)
    keeper.restore(ctx, state, 1, 3 * EACH_NOZ, moved[0], 2 * EACH_NOZ, moved[1])
    assert (keeper.pool_of_ozone(state), keeper.outstanding_noz(state), keeper.cost_wei(state)) == before
    assert int(keeper.require_pool(state, COMMON_POOL).free_wei) == 0
    assert net.broken(state) == []


def test_a_refund_that_the_common_pool_has_spent_stays_spent_and_is_not_refunded_again() -> None:
    net = opened()
    net.ok(OPERATOR, claim(P, wallets(10)))
    ctx, state = net.scratch()
    keeper = keeper_of(net)
    cost = keeper.cost_wei(state)
    moved = keeper.use(ctx, state, 1, 0, 4 * EACH_NOZ)
    keeper.create_campaign(
        ctx, state, bech32.decode(GOV), create_campaign(net, GOV, [P], pool_id=COMMON_POOL, budget_wei=str(moved[1] - 5), max_wei_per_day="1")
    )
    keeper.restore(ctx, state, 1, 0, moved[0], 4 * EACH_NOZ, moved[1])
    assert int(keeper.require_pool(state, COMMON_POOL).free_wei) == 0
    assert (keeper.outstanding_noz(state), keeper.cost_wei(state)) == (10 * EACH_NOZ, cost - (moved[1] - 5))
    assert net.broken(state) == []


def test_whatever_is_claimed_used_and_expires_the_pools_get_back_no_more_than_they_paid() -> None:
    """Random histories on the real keepers, with others buying between: refunds ≤ costs, and every invariant after each step."""
    for seed in range(3):
        choose = random.Random(seed)
        net = opened(budget_wei=str(3 * STOS), max_wei_per_day=str(3 * STOS), max_noz_per_wallet=str(10**12))
        ctx, state = net.scratch()
        keeper = keeper_of(net)
        paid = refunded = 0
        for step in range(60):
            what = choose.randrange(3)
            outstanding = keeper.outstanding_noz(state)
            if what == 0:
                count = choose.randrange(1, 40)
                _, cost = keeper.claim(ctx, state, OPERATOR.public_key.address, 1, 1, [bech32.decode(one) for one in wallets(count, 1000 * step)])
                paid += cost
            elif what == 1:
                (sds,) = (one for one in net.app.modules if one.name == "sds")
                sds.genesis._keeper.prepay(ctx, state, OTHER.public_key.address, choose.randrange(10**15, 10**19))
            elif outstanding:
                used, expired = choose.randrange(outstanding // 2 + 1), choose.randrange(outstanding // 2 + 1)
                before = keeper.pool_of_ozone(state)
                cost, returned = keeper.use(ctx, state, step, used, expired)
                after = keeper.pool_of_ozone(state)
                assert returned <= cost
                assert after.prepaid_wei * before.outstanding_noz >= before.prepaid_wei * after.outstanding_noz
                refunded += returned
            assert net.broken(state) == []
        assert 0 < refunded <= paid


# --- nothing turns granted ozone into coins -----------------------------------------------------------------------------------------------------


def test_no_message_of_the_chain_takes_coins_out_of_a_pool_or_hands_granted_ozone_on() -> None:
    """A pool's wei leave it for the prepay account alone; the chain keeps no balance of noz, so a wallet has nothing to sell, send or be refunded."""
    net = opened()
    net.ok(OPERATOR, claim(P, wallets(5)))
    types = sorted(name for name in net.app.executor._handlers if name.startswith((f"{GRANT}.", f"{SDS}.")))
    assert types == [
        f"{GRANT}.MsgAddPromotion",
        f"{GRANT}.MsgClaim",
        f"{GRANT}.MsgCreateCampaign",
        f"{GRANT}.MsgCreatePool",
        f"{GRANT}.MsgEndCampaign",
        f"{GRANT}.MsgFundPool",
        f"{GRANT}.MsgSetOperators",
        f"{GRANT}.MsgUpdateParams",
        f"{SDS}.MsgFileUpload",
        f"{SDS}.MsgPrepay",
        f"{SDS}.MsgUpdateParams",
    ]
    pool_account = bech32.encode(bech32.module_address("grant"))
    assert net.refused(SPONSOR, send(S, pool_account, 5))[0] == ("sdk", 4), "nobody sends to it past the books"
    before = net.module_wei("grant")
    net.ok(SPONSOR, end_campaign(S))
    assert net.module_wei("grant") == before, "an ended campaign pays its pool, not its admin"


def test_authz_and_fee_allowances_reach_neither_a_pool_nor_granted_ozone() -> None:
    net = opened()
    newcomer = key(90)
    n = text(newcomer)
    net.ok(OPERATOR, claim(P, [n]))
    net.ok(SPONSOR, allow(S, n, basic(10 * FEE[0].amount)))
    pool_account, prepaid = (bech32.encode(bech32.module_address(name)) for name in ("grant", PREPAID))
    held = net.module_wei("grant"), net.module_wei(PREPAID)
    for thief in (send(pool_account, n, 5), send(prepaid, n, 5), execute(n, send(pool_account, n, 5)), execute(n, send(prepaid, n, 5))):
        signed = execute(n, thief) if thief.DESCRIPTOR.name == "MsgSend" else thief
        assert net.run(newcomer, signed, granter=S, gas=200_000).code != 0
    assert net.run(newcomer, prepay(n, Coin("wei", 10**15)), granter=S, gas=200_000).code != 0, "an allowance pays fees, not ozone"
    assert (net.module_wei("grant"), net.module_wei(PREPAID), net.wei(n)) == (*held, 0)


def test_an_operator_lends_his_right_by_authz_within_the_same_limits() -> None:
    net = opened()
    net.ok(OPERATOR, grant(P, T, generic("/stratos.grant.v1.MsgClaim"), net.now_s + 1000))
    net.ok(OTHER, execute(T, claim(P, wallets(2))))
    assert net.refused(OTHER, execute(T, claim(P, wallets(2, 1))))[0] == ("grant", 9)
    assert net.refused(CAROL, execute(C, claim(P, wallets(2, 5))))[0] == ("authz", 2)


def test_a_prepay_with_ones_own_coins_does_not_touch_granted_ozone() -> None:
    net = opened()
    net.ok(OPERATOR, claim(P, wallets(2)))
    outstanding = net.outstanding()
    net.ok(OTHER, prepay(T, Coin("stos", 2), beneficiary=wallet(0)))
    assert net.outstanding() == outstanding


def test_the_solvency_rules_are_not_switched_on_where_granted_ozone_has_nothing_behind_it() -> None:
    """Without them a quorum may report more than was bought; with them every granted noz is part of what is outstanding, or an export cannot be loaded."""
    net = Net(solvency=False)
    net.ok(SPONSOR, create_pool(S, 5 * STOS))
    net.ok(SPONSOR, create_campaign(net, S, [P]))
    net.ok(OPERATOR, claim(P, wallets(3)))
    ctx, state = net.scratch()
    (register,) = (module.end_block.args[0] for module in net.app.modules if module.name == "register")
    params = net.query(REGISTER, "Params").params
    params.solvency_rules = True
    switch = make("MsgUpdateParams", REGISTER, authority=GOV, params=params)
    handler = net.app.executor._handlers[f"{REGISTER}.MsgUpdateParams"]
    register.return_ozone(ctx, state, 1)
    with pytest.raises(AppError, match="3000000000 granted ones are outstanding: the solvency rules cannot hold"):
        handler.execute(ctx, state, switch)
    register.take_ozone(ctx, state, 1)
    handler.execute(ctx, state, switch)
    assert net.broken(state) == []


def test_a_campaign_keeps_nothing_of_a_message_that_the_schema_does_not_name(shared: Net) -> None:
    """A field with bit 11 set may be there, and means nothing."""
    made = create_campaign(shared, S, [P], budget_wei="1", max_wei_per_day="1")
    for part in (made, made.end_time, made.promotions[0], made.promotions[0].end_time):
        part.MergeFromString(b"\x82\x40\x08unheard!")
    net = opened()
    net.ok(SPONSOR, made)
    with net.app.store.view() as view:
        stored = view.store("grant").get(keys.campaign(2))
    assert stored is not None
    assert b"unheard!" not in stored


# --- parameters, queries, genesis ---------------------------------------------------------------------------------------------------------------


def test_only_governance_changes_parameters_and_within_their_bounds(shared: Net) -> None:
    params = shared.query(GRANT, "Params").params
    assert shared.refused(SPONSOR, make("MsgUpdateParams", authority=S, params=params))[0] == ("gov", 13)
    for name, value in (
        ("min_pool_funding_wei", "0"),
        ("min_pool_funding_wei", "-5"),
        ("min_pool_funding_wei", str(2**127)),
        ("max_open_campaigns_per_pool", 0),
        ("max_open_campaigns_per_pool", 10_001),
        ("longest_validity_s", 0),
        ("longest_validity_s", 2**63),
    ):
        changed = make("Params")
        changed.CopyFrom(params)
        setattr(changed, name, value)
        assert code_of(shared.decide, make("MsgUpdateParams", authority=GOV, params=changed)) == ("grant", 21), name


def test_campaigns_are_listed_by_pool_and_status_page_by_page() -> None:
    net = opened()
    net.ok(OTHER, create_pool(T, 5 * STOS))
    net.ok(OTHER, create_campaign(net, T, [P], pool_id=3))
    net.ok(SPONSOR, create_campaign(net, S, [P]))
    net.ok(SPONSOR, end_campaign(S, 1))

    def numbers(**fields: Any) -> list[int]:
        return [one.campaign_id for one in net.query(GRANT, "Campaigns", **fields).campaigns]

    assert numbers() == [1, 2, 3]
    assert (numbers(pool_id=2), numbers(pool_id=3), numbers(pool_id=9)) == ([1, 3], [2], [])
    assert (numbers(status=1), numbers(status=2), numbers(pool_id=2, status=2)) == ([2, 3], [1], [1])
    page = net.query(GRANT, "Campaigns", pagination={"limit": 2})
    assert [one.campaign_id for one in net.query(GRANT, "Campaigns", pagination={"key": page.pagination.next_key}).campaigns] == [3]
    for method, fields, code in (("Pool", {"pool_id": 9}, 2), ("Campaign", {"campaign_id": 9}, 3)):
        assert code_of(lambda method=method, fields=fields: net.query(GRANT, method, **fields)) == ("grant", code)


def test_claims_are_listed_by_campaign_page_by_page(shared: Net) -> None:
    net = opened()
    net.ok(OPERATOR, claim(P, wallets(7)))
    seen: list[str] = []
    page: dict[str, Any] = {"limit": 3}
    while True:
        found = net.query(GRANT, "ClaimsByCampaign", campaign_id=1, pagination=page)
        seen += [one.wallet for one in found.claims]
        if not found.pagination.next_key:
            break
        page = {"limit": 3, "key": found.pagination.next_key}
    assert sorted(seen) == sorted(wallets(7))
    assert list(shared.query(GRANT, "ClaimsByCampaign", campaign_id=2).claims) == []


def test_what_is_exported_starts_a_chain_that_exports_the_same_and_goes_on() -> None:
    net = opened()
    net.ok(SPONSOR, add_promotion(S, promotion(net, 2, end_s=1000)))
    net.ok(OPERATOR, claim(P, wallets(4)))
    net.ok(OPERATOR, claim(P, wallets(2), promotion_id=2))
    net.ok(SPONSOR, create_campaign(net, S, [P]))
    net.ok(SPONSOR, end_campaign(S, 2))
    exported = net.app.export()
    app: Any = build_application(MemoryBackend(), Settings(invariant_period=1))
    driver = Driver([app], {**net.document, "app_state": exported, "genesis_time": rfc3339(net.now_s)})
    driver.start()
    driver.next_block()
    assert app.export()["grant"] == exported["grant"]
    net.driver, net.app = driver, app
    assert net.refused(OPERATOR, claim(P, wallets(1)))[0] == ("grant", 9)
    net.ok(OPERATOR, claim(P, wallets(1, 9)))


def test_a_genesis_section_that_cannot_be_is_refused_by_its_path() -> None:
    net = opened()
    net.ok(OPERATOR, claim(P, wallets(2)))
    (module,) = (one for one in net.app.modules if one.name == "grant")
    good = net.app.export()["grant"]
    module.genesis.validate(good)

    def at(*path: str | int, value: Any) -> Any:
        changed = json.loads(json.dumps(good))
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return changed

    for changed, where in (
        (at("params", "longest_validity_s", value="0"), "app_state.grant"),
        (at("promo_outstanding_noz", value="0"), "app_state.grant"),
        (at("promo_outstanding_noz", value="-1"), "app_state.grant"),
        (at("next_pool_id", value="2"), "app_state.grant.pools[1].pool_id"),
        (at("next_campaign_id", value="0"), "app_state.grant.next_campaign_id"),
        (at("pools", value=[]), "app_state.grant.pools"),
        (at("pools", 0, "admin", value=S), "app_state.grant.pools"),
        (at("pools", 1, "pool_id", value="1"), "app_state.grant.pools[1].pool_id"),
        (at("pools", 1, "open_campaigns", value=0), "app_state.grant.pools[1]"),
        (at("pools", 1, "free_wei", value="-5"), "app_state.grant.pools[1]"),
        (at("campaigns", 0, "pool_id", value="9"), "app_state.grant.campaigns[0]"),
        (at("campaigns", 0, "status", value=0), "app_state.grant.campaigns[0]"),
        (at("campaigns", 0, "spent_wei", value=str(2 * STOS)), "app_state.grant.campaigns[0]"),
        (at("campaigns", 0, "day", value="-1"), "app_state.grant.campaigns[0]"),
        (at("campaigns", 0, "validity_s", value=str(10**11)), "app_state.grant.campaigns[0]"),
        (at("campaigns", 0, "promotions", 0, "promotion_id", value=2), "app_state.grant.campaigns[0]"),
        (at("campaigns", 0, "claims", value="1"), "app_state.grant.claims"),
        (at("claims", 0, "promotion_id", value=2), "app_state.grant.claims[0]"),
        (at("claims", 0, "wallet", value="st1"), "app_state.grant.claims[0]"),
        (at("claims", 1, "wallet", value=good["claims"][0]["wallet"]), "app_state.grant.claims[1]"),
    ):
        with pytest.raises(GenesisError) as caught:
            module.genesis.validate(changed)
        assert caught.value.path == where, caught.value
    app: Any = build_application(MemoryBackend(), Settings())
    state = {**net.app.export(), "grant": at("pools", 1, "free_wei", value="5")}
    with pytest.raises(GenesisError, match="which the account grant has"):
        Driver([app], {**net.document, "app_state": state}).start()


def test_every_error_of_grant_has_a_code_from_2_on_and_was_seen_above() -> None:
    """Runs last; alone it has nothing to look at."""
    assert [one.code for one in errors.ERRORS] == list(range(2, 24))
    if ("grant", 15) not in SEEN:
        pytest.skip("needs the tests above")
    assert [one.code for one in errors.ERRORS if ("grant", one.code) not in SEEN] == []
