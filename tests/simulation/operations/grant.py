"""Pools of sponsors, campaigns with small budgets, and operators who claim for old and new wallets, at times for too many or the same ones."""

from __future__ import annotations

import random
from typing import Any

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from tests.simulation.world import GOV, Account, Kind, World, coin

PACKAGE = "stratos.grant.v1"
WALLETS = 300
OPEN = 1


def prepare(section: Any, choose: random.Random) -> None:
    section["params"] |= {
        "min_pool_funding_wei": str(10**15),
        "max_open_campaigns_per_pool": choose.choice((1, 3, 10)),
        "longest_validity_s": str(choose.choice((100, 10_000))),
    }


def _message(kind: str, /, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.{kind}")(**fields)


def _pools(world: World) -> list[Any]:
    return list(world.ask(f"{PACKAGE}.Query/Pools", pagination={"limit": 200}).pools)


def _campaign(choose: random.Random, world: World) -> Any | None:
    found = list(world.ask(f"{PACKAGE}.Query/Campaigns", status=OPEN, pagination={"limit": 200}).campaigns)
    return choose.choice(found) if found else None


def _admin(choose: random.Random, world: World, pool_id: int) -> str:
    """Mostly the pool's own, if its key is known."""
    admins = {pool.pool_id: pool.admin for pool in _pools(world)}
    known = world.by_text(admins.get(pool_id, GOV))
    return known.text if known is not None and choose.random() < 0.9 else world.someone().text


def _operators(choose: random.Random, world: World) -> list[str]:
    found: dict[str, Account] = {one.text: one for one in (world.someone() for _ in range(choose.randint(1, 4)))}
    return list(found)


def _promotion(choose: random.Random, world: World, number: int, end_s: int) -> Any:
    made = _message("Promotion", promotion_id=number, name=f"step {number}", noz_per_wallet=str(choose.choice((1, 10**6, 10**9))))
    made.start_time.seconds, made.end_time.seconds = world.now_s + choose.choice((-20, -20, 30)), end_s
    return made


def create_pool(choose: random.Random, world: World) -> Any:
    denom, amount = choose.choice((("wei", 10**18), ("gwei", 10**9), ("stos", 1), ("wei", 10**14)))
    return _message("MsgCreatePool", admin=world.someone().text, name=f"pool {choose.randrange(100)}", funding=coin(amount, denom))


def fund_pool(choose: random.Random, world: World) -> Any:
    pool_id = choose.choice(_pools(world)).pool_id if choose.random() < 0.95 else 10**6
    return _message("MsgFundPool", depositor=world.someone().text, pool_id=pool_id, amount=coin(choose.randint(1, 10**18)))


def create_campaign(choose: random.Random, world: World) -> Any:
    pool = choose.choice(_pools(world))
    budget = max(int(pool.free_wei) * choose.randint(1, 12) // 10, 1)
    end_s = world.now_s + choose.randint(20, 400)
    made = _message(
        "MsgCreateCampaign",
        admin=_admin(choose, world, pool.pool_id),
        pool_id=pool.pool_id,
        name="a campaign",
        operators=_operators(choose, world),
        budget_wei=str(budget),
        max_wei_per_day=str(max(budget // choose.choice((1, 2, 10)), 1)),
        max_noz_per_wallet=str(10**9),
        validity_s=choose.randint(1, 200),
    )
    made.end_time.seconds = end_s
    made.promotions.extend(_promotion(choose, world, number, end_s) for number in range(1, choose.randint(2, 4)))
    return made


def add_promotion(choose: random.Random, world: World) -> Any:
    campaign = _campaign(choose, world)
    number, end_s = (len(campaign.promotions) + 1, campaign.end_time.seconds) if campaign else (1, world.now_s + 100)
    made = _promotion(choose, world, number, end_s)
    campaign_id, pool_id = (campaign.campaign_id, campaign.pool_id) if campaign else (1, 1)
    return _message("MsgAddPromotion", admin=_admin(choose, world, pool_id), campaign_id=campaign_id, promotion=made)


def set_operators(choose: random.Random, world: World) -> Any:
    campaign = _campaign(choose, world)
    campaign_id, pool_id = (campaign.campaign_id, campaign.pool_id) if campaign else (1, 1)
    return _message("MsgSetOperators", admin=_admin(choose, world, pool_id), campaign_id=campaign_id, operators=_operators(choose, world))


def end_campaign(choose: random.Random, world: World) -> Any:
    campaign = _campaign(choose, world)
    campaign_id, pool_id = (campaign.campaign_id, campaign.pool_id) if campaign else (1, 1)
    return _message("MsgEndCampaign", admin=_admin(choose, world, pool_id), campaign_id=campaign_id)


def claim(choose: random.Random, world: World) -> Any:
    campaign = _campaign(choose, world)
    operators = [one for one in (world.by_text(text) for text in campaign.operators) if one is not None] if campaign else []
    operator = choose.choice(operators) if operators and choose.random() < 0.95 else world.someone()
    first, count = choose.randrange(WALLETS), choose.choice((1, 1, 3, 10))
    wallets = [bech32.encode(bech32.module_address(f"wallet {first + at}")) for at in range(count)]
    promotion_id = choose.randint(1, max(len(campaign.promotions), 1)) if campaign else 1
    return _message(
        "MsgClaim", operator=operator.text, campaign_id=campaign.campaign_id if campaign else 1, promotion_id=promotion_id, wallets=wallets
    )


OPERATIONS = (
    Kind("grant pool", 4, create_pool),
    Kind("fund a grant pool", 4, fund_pool),
    Kind("campaign", 8, create_campaign),
    Kind("promotion", 3, add_promotion),
    Kind("operators", 3, set_operators),
    Kind("end of a campaign", 2, end_campaign),
    Kind("claim", 30, claim),
)
