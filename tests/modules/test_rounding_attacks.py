"""Whoever undelegates from a slashed validator can choose amounts that round up. What that takes from others must stay next to nothing, and stop nobody."""

from __future__ import annotations

from typing import Any

import pytest

from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.dec import ONE, Dec
from chain.dec_coins import DecCoin
from chain.testing.validators import ValidatorKey
from modules.staking import shares
from modules.staking.store import cons_of
from tests.modules.rewards import UNBONDING_S, History, _coin, _distribution, _staking, _text

UNIT = 10**15


class Slashed:
    """A validator with 2·10^18 wei that loses 0.02 %, and an attacker who has half of them."""

    def __init__(self) -> None:
        self.world = History(1)
        self.operator, self.other = self.world.operators[:2]
        self.attacker, self.victim = self.world.delegators[:2]
        for at, operator in enumerate((self.operator, self.other)):
            rates = {"rate": str(ONE // 2), "max_rate": str(ONE), "max_change_rate": "0"}
            fields = {
                "pubkey": public_key_to_any(ValidatorKey.numbered(at).public_key),
                "value": _coin(10**18),
                "min_self_delegation": "1",
                "commission": rates,
            }
            self.do(_staking("CreateValidator", validator_address=_validator(operator), description={"moniker": "v"}, **fields))
        self.delegate(self.attacker, 10**18)
        self.block()
        found = self.validator()
        self.slash(found, self.world.height)
        self.block()

    def do(self, message: Any) -> Any:
        return self.world.handlers[message.DESCRIPTOR.full_name].execute(self.world.ctx, self.world.state, message)

    def block(self, step_s: int = 5) -> None:
        self.world.staking.end_block(self.world.ctx, self.world.state)
        self.world.height, self.world.time_s = self.world.height + 1, self.world.time_s + step_s
        self.world.ctx = self.world._context()

    def validator(self) -> Any:
        return self.world.staking.validator(self.world.state, self.operator)

    def slash(self, found: Any, height: int) -> None:
        self.world.staking.slash(self.world.ctx, self.world.state, cons_of(found), height, int(found.tokens) // UNIT, Dec(ONE // 5000))

    def delegate(self, delegator: bytes, amount: int) -> None:
        self.do(_staking("Delegate", delegator_address=_text(delegator), validator_address=_validator(self.operator), amount=_coin(amount)))

    def undelegate(self, delegator: bytes, amount: int) -> None:
        self.do(_staking("Undelegate", delegator_address=_text(delegator), validator_address=_validator(self.operator), amount=_coin(amount)))

    def withdraw(self, delegator: bytes) -> None:
        self.do(_distribution("WithdrawDelegatorReward", delegator_address=_text(delegator), validator_address=_validator(self.operator)))

    def attack(self, times: int) -> None:
        """Undelegate amounts whose shares are worth a little less, and are paid in full."""
        amount = 0
        for _ in range(times):
            while True:
                amount += 1
                found = self.validator()
                taken = shares.shares_from_tokens(found, amount)
                is_less = taken.scaled * int(found.tokens) < amount * int(found.delegator_shares)
                if is_less and shares.tokens_from_shares(found, taken).truncate() == amount:
                    break
            self.undelegate(self.attacker, amount)


def _validator(operator: bytes) -> str:
    return bech32.encode(operator, bech32.VALIDATOR)


def test_undelegations_that_round_up_lock_nobody_in() -> None:
    chain = Slashed()
    chain.delegate(chain.victim, 10**24)
    chain.block()
    chain.attack(60)
    chain.block()
    keeper, state = chain.world.distribution, chain.world.state
    delegation = chain.world.staking.delegation(state, chain.victim, chain.operator)
    now = shares.tokens_from_shares(chain.validator(), Dec(int(delegation.shares)))
    assert keeper.starting_info(state, chain.operator, chain.victim).stake.scaled > now.scaled + 3, "more than the SDK lets pass"
    chain.withdraw(chain.victim)
    chain.undelegate(chain.victim, 10**23)


def test_undelegations_that_round_up_stop_no_slash() -> None:
    """What was redelegated to the attacked validator is unbonded when its source is slashed, at the begin of a block."""
    chain = Slashed()
    moved = {"delegator_address": _text(chain.victim), "validator_dst_address": _validator(chain.operator)}
    chain.do(_staking("Delegate", delegator_address=_text(chain.victim), validator_address=_validator(chain.other), amount=_coin(10**24)))
    chain.block()
    chain.do(_staking("BeginRedelegate", validator_src_address=_validator(chain.other), amount=_coin(10**24), **moved))
    chain.block()
    chain.attack(60)
    chain.block()
    before = int(chain.validator().tokens)
    source = chain.world.staking.validator(chain.world.state, chain.other)
    chain.slash(source, chain.world.height - 3)
    assert int(chain.validator().tokens) < before - 10**20


def short_of_commission() -> Slashed:
    """Rounding has paid the delegators a part of the commission: 10^18 wei too little are outstanding."""
    chain = Slashed()
    keeper, state = chain.world.distribution, chain.world.state
    chain.world._fund(bytes([3]) * 20, 2 * 10**20)
    gift = {"depositor": _text(bytes([3]) * 20), "validator_address": _validator(chain.operator)}
    chain.do(_distribution("DepositValidatorRewardsPool", amount=[_coin(2 * 10**20)], **gift))
    chain.block()
    chain.withdraw(chain.attacker)
    chain.withdraw(chain.operator)
    commission = dict(keeper.commission(state, chain.operator))["wei"]
    keeper.set_outstanding(state, chain.operator, (DecCoin("wei", commission - ONE * 10**18 + 5),))
    return chain


def test_commission_that_rounding_has_paid_to_others_is_withdrawn_as_far_as_it_is_there() -> None:
    chain = short_of_commission()
    keeper, state = chain.world.distribution, chain.world.state
    before = dict(keeper.commission(state, chain.operator))["wei"]
    chain.do(_distribution("WithdrawValidatorCommission", validator_address=_validator(chain.operator)))
    assert keeper.outstanding(state, chain.operator) == (DecCoin("wei", 5),)
    paid = chain.world.bank.balance(state, chain.world.withdraw_to[chain.operator], "wei")
    assert dict(keeper.commission(state, chain.operator))["wei"] == before - (before // ONE - 10**18) * ONE
    assert paid >= before // ONE - 10**18


def test_a_validator_whose_commission_was_paid_to_others_by_rounding_is_removed_at_the_end_of_a_block() -> None:
    chain = short_of_commission()
    for delegator in (chain.attacker, chain.operator):
        found = chain.world.staking.delegation(chain.world.state, delegator, chain.operator)
        chain.world.staking.undelegate(chain.world.ctx, chain.world.state, delegator, chain.operator, Dec(int(found.shares)))
    chain.block(UNBONDING_S)
    chain.block(UNBONDING_S)
    assert chain.validator() is None
    keeper, state = chain.world.distribution, chain.world.state
    assert keeper.outstanding(state, chain.operator) == ()
    held = chain.world.bank.balance(state, bech32.module_address("distribution"), "wei")
    assert held * ONE >= dict(keeper.holdings(state)).get("wei", 0)


@pytest.mark.parametrize("missing", [0, 7 * ONE])
def test_the_rewards_of_a_validator_without_tokens_go_to_the_community_pool_as_far_as_they_are_there(missing: int) -> None:
    chain = Slashed()
    keeper, state = chain.world.distribution, chain.world.state
    keeper.set_current(state, chain.operator, keeper.current(state, chain.operator)._replace(rewards=(DecCoin("wei", 100 * ONE),)))
    keeper.set_outstanding(state, chain.operator, (DecCoin("wei", 100 * ONE - missing),))
    found = chain.validator()
    found.tokens = "0"
    keeper.end_period(state, found)
    assert keeper.community_pool(state) == (DecCoin("wei", 100 * ONE - missing),)
    assert keeper.outstanding(state, chain.operator) == ()
