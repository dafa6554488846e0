"""Vesting accounts of every kind, for strangers who act like anybody else from then on."""

from __future__ import annotations

import random
from typing import Any

from chain.codec.registry import message_class
from tests.simulation.world import Account, Kind, World, coin

PACKAGE = "cosmos.vesting.v1beta1"


def _parties(choose: random.Random, world: World) -> tuple[Account, Account]:
    """Who pays and who gets the account; the latter has one already at times."""
    return world.someone(), world.someone() if choose.random() < 0.2 else world.stranger()


def create(choose: random.Random, world: World) -> Any:
    sender, recipient = _parties(choose, world)
    return message_class(f"{PACKAGE}.MsgCreateVestingAccount")(
        from_address=sender.text,
        to_address=recipient.text,
        amount=[coin(choose.randint(10**17, 10**20))],
        end_time=world.now_s + choose.randint(1, 1000),
        delayed=choose.random() < 0.5,
    )


def create_permanent(choose: random.Random, world: World) -> Any:
    sender, recipient = _parties(choose, world)
    amount = [coin(choose.randint(10**17, 10**20))]
    return message_class(f"{PACKAGE}.MsgCreatePermanentLockedAccount")(from_address=sender.text, to_address=recipient.text, amount=amount)


def create_periodic(choose: random.Random, world: World) -> Any:
    sender, recipient = _parties(choose, world)
    periods = [{"length": choose.randint(1, 100), "amount": [coin(choose.randint(10**16, 10**19))]} for _ in range(choose.randint(1, 5))]
    return message_class(f"{PACKAGE}.MsgCreatePeriodicVestingAccount")(
        from_address=sender.text, to_address=recipient.text, start_time=world.now_s + choose.randint(-100, 100), vesting_periods=periods
    )


OPERATIONS = (Kind("vesting account", 2, create), Kind("permanent account", 1, create_permanent), Kind("periodic account", 2, create_periodic))
