"""Rewards and commission withdrawn, to other addresses too; the community pool and validators' rewards pools funded."""

from __future__ import annotations

import random
from typing import Any

from chain.codec.registry import message_class
from tests.simulation.operations.staking import delegations, validators
from tests.simulation.world import Kind, World, coin

PACKAGE = "cosmos.distribution.v1beta1"


def prepare(section: Any, choose: random.Random) -> None:
    section["params"]["community_tax"] = choose.choice(("0.000000000000000000", "0.020000000000000000", "0.333333333333333333"))


def _message(name: str, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.Msg{name}")(**fields)


def withdraw_rewards(choose: random.Random, world: World) -> Any:
    one = world.someone()
    found = [each.delegation.validator_address for each in delegations(world, one)]
    if not found:
        return None
    return _message("WithdrawDelegatorReward", delegator_address=one.text, validator_address=choose.choice(found))


def withdraw_all(choose: random.Random, world: World) -> Any:
    one = world.someone()
    return [
        _message("WithdrawDelegatorReward", delegator_address=one.text, validator_address=each.delegation.validator_address)
        for each in delegations(world, one)
    ] or None


def withdraw_commission(choose: random.Random, world: World) -> Any:
    return _message("WithdrawValidatorCommission", validator_address=choose.choice(validators(world)).operator_address)


def set_withdraw_address(choose: random.Random, world: World) -> Any:
    return _message("SetWithdrawAddress", delegator_address=world.someone().text, withdraw_address=world.someone().text)


def fund_community_pool(choose: random.Random, world: World) -> Any:
    one = world.someone()
    amount = min(world.part_of(world.spendable(one)), 10**20) or 1
    return _message("FundCommunityPool", depositor=one.text, amount=[coin(amount)])


def deposit_rewards(choose: random.Random, world: World) -> Any:
    validator = choose.choice(validators(world)).operator_address
    amount = [coin(choose.randint(1, 10**18))]
    return _message("DepositValidatorRewardsPool", depositor=world.someone().text, validator_address=validator, amount=amount)


OPERATIONS = (
    Kind("withdraw rewards", 30, withdraw_rewards),
    Kind("withdraw all rewards", 5, withdraw_all),
    Kind("withdraw commission", 10, withdraw_commission),
    Kind("set withdraw address", 10, set_withdraw_address),
    Kind("fund community pool", 3, fund_community_pool),
    Kind("deposit rewards", 5, deposit_rewards),
)
