"""The attack with a resource node, one of seven meta nodes and one of seven validators, on a whole chain: what he bought with, what he withdrew, and what
staking paid him, to the wei.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from chain.codec.registry import message_class
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.dec import ONE
from chain.testing.validators import ValidatorKey
from genesis import build
from modules.pot.tiers import DEFAULT_TIERS
from tests.economics.chain import KEYS, PRIVATE, TEXTS, ChainWorld
from tests.economics.messages import POT, REGISTER, coin, message, text
from tests.economics.model import Rules
from tests.economics.operations import Create, Prepay, Report
from tests.support import FEE, key
from tests.support import KEYS as GENESIS_KEYS
from tools import economics
from tools.economics import DEPOSIT_WEI, META_NODES, ROLES, RULES, VALIDATORS

ATTACKER = KEYS["buyer"]
OTHERS = [key(200 + number, "eth_secp256k1") for number in range(VALIDATORS - 1)]
WITH_A_VALIDATOR = ROLES[2]
FEE_WEI = FEE[0].amount
GOVERNANCE = text(bech32.module_address("gov"))


class AttackChain(ChainWorld):
    """The attacker is paid for wallet 0 and for meta node 1."""

    def worker(self, number: int) -> bytes:
        return ATTACKER.public_key.address if number == 0 else super().worker(number)

    def beneficiary(self, number: int) -> bytes:
        return ATTACKER.public_key.address if number == 1 else super().beneficiary(number)

    def edit(self, document: dict[str, Any]) -> None:
        """No coins but those of the report reach the validators: no inflation, no tax of staking's."""
        sections = document["app_state"]
        sections["distribution"]["params"]["community_tax"] = "0.000000000000000000"
        sections["mint"]["minter"]["inflation"] = "0.000000000000000000"
        sections["mint"]["params"].update(dict.fromkeys(("inflation_rate_change", "inflation_max", "inflation_min"), "0.000000000000000000"))
        for private in OTHERS:
            build.add_account(document, private.public_key.address, (Coin("wei", 10**20),))

    def join(self, number: int) -> None:
        """A validator as large as the first one."""
        private = OTHERS[number]
        created = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
            description={"moniker": "other"},
            validator_address=bech32.encode(private.public_key.address, bech32.VALIDATOR),
            pubkey=public_key_to_any(ValidatorKey.numbered(number + 1).public_key),
            min_self_delegation="1",
            value={"denom": "wei", "amount": str(10**18)},
        )
        created.commission.rate, created.commission.max_rate, created.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
        PRIVATE[private.public_key.address] = private
        self.run([created])

    def balance(self) -> int:
        return int(self.keepers.bank.balance(self.reader, ATTACKER.public_key.address, "wei"))

    def of_validators(self) -> list[int]:
        """What staking owes each validator and its delegators, in 10^-18 wei."""
        return [dict(coins).get("wei", 0) for coins in self.owed()]

    def owed(self) -> list[Any]:
        keepers = self.keepers
        return [keepers.distribution.outstanding(self.reader, address) for address in self.validators()]

    def validators(self) -> list[bytes]:
        return [GENESIS_KEYS[0].public_key.address, *(private.public_key.address for private in OTHERS)]


@pytest.mark.parametrize("tier", [DEFAULT_TIERS[0], DEFAULT_TIERS[5]], ids=["tier 1", "tier 6"])
@pytest.mark.parametrize("rules", [RULES[0], RULES[-1]], ids=lambda one: one.name)
def test_on_a_chain_of_seven_validators_the_attacker_gets_what_the_table_says_to_the_wei(rules: economics.Rules, tier: Any) -> None:
    tax, cap = (Fraction(one.scaled, ONE) for one in (economics.TAX, rules.cap))
    world = AttackChain(Rules(tax, cap, foundation_wei=economics.FOUNDATION_WEI, mined_wei=tier.start_wei))
    for number in range(1, META_NODES + 1):
        world.apply(Create(number, DEPOSIT_WEI // META_NODES, True))
    for number in range(len(OTHERS)):
        world.join(number)
    params = world.keepers.register.params(world.reader)
    params.solvency_rules = rules.solvency
    world.govern(message(f"{REGISTER}.MsgUpdateParams", authority=GOVERNANCE, params=params))
    told = economics.own_traffic(economics.untouched(rules.solvency), rules, WITH_A_VALIDATOR, tier.start_wei)

    began = world.balance()
    noz = world.apply(Prepay(told.paid_wei)).noz
    assert world.balance() == began - told.paid_wei - FEE_WEI
    world.wait(1)
    owed = world.of_validators()
    world.apply(Report(((0, noz, 0),)))
    world.wait(1)
    chain_wei = told.epoch.traffic.chain_wei + told.epoch.mining.chain_wei
    gained = [after - before for before, after in zip(owed, world.of_validators(), strict=True)]
    assert max(gained) - min(gained) <= VALIDATORS
    validator_wei = gained[0] // ONE - FEE_WEI // VALIDATORS
    # A seventh of the power is rounded at 18 places.
    assert abs(validator_wei - chain_wei // VALIDATORS) <= chain_wei // ONE + 1

    while world.keepers.pot.immature_wei(world.reader, ATTACKER.public_key.address):
        world.apply(Report(((1, 0, 0),)))
    mature_wei = world.keepers.pot.mature_wei(world.reader, ATTACKER.public_key.address)
    before = world.balance()
    world.run([message(f"{POT}.MsgWithdraw", amount=[coin(mature_wei)], wallet_address=TEXTS["buyer"], target_address=TEXTS["buyer"])])
    assert world.balance() == before + mature_wei - FEE_WEI
    assert mature_wei + chain_wei // VALIDATORS == WITH_A_VALIDATOR.back_wei(told.epoch)
    assert not world.broken()
