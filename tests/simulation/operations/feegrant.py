"""Allowances of every kind, granted, taken back, left to end and pruned. ``generate.py`` has fees paid from them."""

from __future__ import annotations

import random
from typing import Any

from tests.grants import allow, basic, disallow, only_for, periodic, prune
from tests.simulation.world import Account, Kind, World

PACKAGE = "cosmos.feegrant.v1beta1"


def allowances(world: World, one: Account) -> list[Any]:
    """What an account may spend of others."""
    return list(world.ask(f"{PACKAGE}.Query/Allowances", grantee=one.text, pagination={"limit": 100}).allowances)


def make(choose: random.Random, world: World) -> Any:
    limit = choose.choice((0, choose.randint(10**14, 10**17)))
    end_s = world.now_s + choose.randint(-5, 300) if choose.random() < 0.6 else 0
    kind = choose.randrange(3)
    if kind == 0:
        each = choose.randint(10**14, 10**16)
        allowance = periodic(limit, "wei", each, each, choose.randint(1, 60), end_s)
        allowance.period_reset.seconds = world.now_s + choose.randint(0, 60)
    else:
        allowance = basic(limit, end_s=end_s)
    if kind == 2:
        allowance = only_for(allowance, "/cosmos.bank.v1beta1.MsgSend", "/cosmos.staking.v1beta1.MsgDelegate")
    grantee = world.stranger() if choose.random() < 0.05 else world.someone()
    return allow(world.someone().text, grantee.text, allowance)


def take_back(choose: random.Random, world: World) -> Any:
    one = world.someone()
    found = allowances(world, one)
    if not found:
        return None
    return disallow(choose.choice(found).granter, one.text)


def clear(choose: random.Random, world: World) -> Any:
    return prune(world.someone().text)


OPERATIONS = (Kind("allowance", 15, make), Kind("revoke allowance", 5, take_back), Kind("prune allowances", 2, clear))
