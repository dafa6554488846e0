"""Validators made and edited; stake delegated, moved, taken back, and taken back after all."""

from __future__ import annotations

import random
from typing import Any

from chain.codec.registry import message_class
from chain.crypto.keys import public_key_to_any
from chain.testing.validators import ValidatorKey
from tests.simulation.world import Account, Kind, World, coin

PACKAGE = "cosmos.staking.v1beta1"


def prepare(section: Any, choose: random.Random) -> None:
    section["params"]["unbonding_time"] = f"{choose.choice((30, 100, 400))}s"
    section["params"]["max_validators"] = choose.randint(4, 8)
    section["params"]["max_entries"] = choose.randint(2, 7)
    section["params"]["historical_entries"] = choose.choice((0, 5, 20))


def _message(name: str, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.Msg{name}")(**fields)


def validators(world: World) -> list[Any]:
    """All of them, as the chain lists them."""
    found: list[Any] = list(world.ask(f"{PACKAGE}.Query/Validators", pagination={"limit": 200}).validators)
    return found


def _validator(choose: random.Random, world: World) -> Any:
    return choose.choice(validators(world))


def delegations(world: World, one: Account) -> list[Any]:
    """What an account has delegated, each with its worth."""
    asked = world.ask(f"{PACKAGE}.Query/DelegatorDelegations", delegator_addr=one.text, pagination={"limit": 100})
    return list(asked.delegation_responses)


def _some_delegation(choose: random.Random, world: World) -> tuple[Account, Any, int] | None:
    """(who, delegation, an amount of it): rarely all of it, and so seldom the stake that keeps the chain alive."""
    one = world.someone()
    found = [each for each in delegations(world, one) if int(each.balance.amount)]
    if not found:
        return None
    chosen = choose.choice(found)
    worth = int(chosen.balance.amount)
    is_own = chosen.delegation.validator_address == one.operator
    part = worth if not is_own and choose.random() < 0.15 else worth * choose.randint(1, 100 if is_own else 900) // 1000
    return one, chosen.delegation, max(part, 1)


def create_validator(choose: random.Random, world: World) -> Any:
    taken = {one.operator_address for one in validators(world)}
    one = world.someone()
    if world.validator_keys >= world.max_validator_keys or (one.operator in taken and choose.random() < 0.9):
        return None
    number = world.validator_keys
    if choose.random() < 0.1:
        number = choose.randrange(number)  # a key that somebody has
    else:
        world.validator_keys += 1
    maximum = choose.randint(0, 10**18)
    message = _message(
        "CreateValidator",
        description={"moniker": f"validator {number}"},
        validator_address=one.operator,
        pubkey=public_key_to_any(ValidatorKey.numbered(number).public_key),
        min_self_delegation=str(choose.choice((1, 10**15, 10**20))),
        value=coin(choose.randint(10**14, 2 * 10**21)),
    )
    message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = (
        str(choose.randint(0, maximum)),
        str(maximum),
        str(choose.randint(0, maximum)),
    )
    return message


def edit_validator(choose: random.Random, world: World) -> Any:
    one = _validator(choose, world)
    message = _message("EditValidator", validator_address=one.operator_address, description=dict.fromkeys(_DESCRIPTION, "[do-not-modify]"))
    setattr(message.description, choose.choice(_DESCRIPTION), choose.choice(("", "new", "y" * 60)))
    if choose.random() < 0.5:
        message.commission_rate = str(choose.randint(0, 2 * 10**17))
    if choose.random() < 0.3:
        message.min_self_delegation = str(int(one.min_self_delegation) + choose.randint(0, 10**15))
    return message


_DESCRIPTION = ("moniker", "identity", "website", "security_contact", "details")


def delegate(choose: random.Random, world: World) -> Any:
    one = world.someone()
    amount = min(world.part_of(world.spendable(one)), 10**20) or 1
    return _message("Delegate", delegator_address=one.text, validator_address=_validator(choose, world).operator_address, amount=coin(amount))


def undelegate(choose: random.Random, world: World) -> Any:
    found = _some_delegation(choose, world)
    if found is None:
        return None
    one, delegation, amount = found
    return _message("Undelegate", delegator_address=one.text, validator_address=delegation.validator_address, amount=coin(amount))


def redelegate(choose: random.Random, world: World) -> Any:
    found = _some_delegation(choose, world)
    if found is None:
        return None
    one, delegation, amount = found
    return _message(
        "BeginRedelegate",
        delegator_address=one.text,
        validator_src_address=delegation.validator_address,
        validator_dst_address=_validator(choose, world).operator_address,
        amount=coin(amount),
    )


def cancel_unbonding(choose: random.Random, world: World) -> Any:
    one = world.someone()
    asked = world.ask(f"{PACKAGE}.Query/DelegatorUnbondingDelegations", delegator_addr=one.text, pagination={"limit": 100})
    found = [(each.validator_address, entry) for each in asked.unbonding_responses for entry in each.entries if int(entry.balance)]
    if not found:
        return None
    operator, entry = choose.choice(found)
    amount = int(entry.balance) if choose.random() < 0.4 else choose.randint(1, int(entry.balance))
    height = entry.creation_height + (choose.random() < 0.1)
    return _message("CancelUnbondingDelegation", delegator_address=one.text, validator_address=operator, amount=coin(amount), creation_height=height)


OPERATIONS = (
    Kind("create validator", 6, create_validator),
    Kind("edit validator", 5, edit_validator),
    Kind("delegate", 60, delegate),
    Kind("undelegate", 25, undelegate),
    Kind("redelegate", 25, redelegate),
    Kind("cancel unbonding", 15, cancel_unbonding),
)
