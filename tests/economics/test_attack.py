"""The attacks of docs/economics.md, done on the modules: what comes back is what the tables' arithmetic says, to the last wei.

The attacker buys ozone (or has it granted), has a report pay his wallet for serving it, waits until the rewards mature, and withdraws them. His part of
what validators get is taken of what the report gave the fee collector; ``test_attack_on_a_chain.py`` has it paid by staking.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from chain.coins import Coin
from chain.crypto import address as bech32
from chain.crypto.address import module_address
from chain.dec import ONE
from modules.pot.tiers import DEFAULT_TIERS, STOS_WEI
from tests.economics.keepers import KeeperWorld
from tests.economics.messages import coin, node_account, worker
from tests.economics.model import Rules
from tests.economics.operations import Claim, Create, Prepay, Report, Wait
from tools import economics
from tools.economics import DEPOSIT_WEI, EPOCH_NOZ, META_NODES, ROLES, RULES, Outcome, Role

ATTACKER = bytes([5]) * 20
RULES_OF_GRANTS = RULES[-1]


class Attack:
    """A chain like the one of the tables, and the attacker's account on it."""

    def __init__(self, rules: economics.Rules, mined_wei: int) -> None:
        tax, cap = (Fraction(one.scaled, ONE) for one in (economics.TAX, rules.cap))
        self.world = KeeperWorld(Rules(tax, cap, foundation_wei=economics.FOUNDATION_WEI, mined_wei=mined_wei))
        for number in range(1, META_NODES + 1):
            self.world.apply(Create(number, DEPOSIT_WEI // META_NODES, True))
        self.world.set_solvency(rules.solvency)

    def balance(self, account: bytes) -> int:
        return self.world.keepers.bank.balance(self.world.state, account, "wei")

    def buy(self, paid_wei: int) -> int:
        """With money of his own."""
        self.world.mint(ATTACKER, paid_wei)
        before = self.world.seen().remaining_noz
        text = bech32.encode(ATTACKER)
        self.world.execute("stratos.sds.v1.MsgPrepay", sender=text, beneficiary=text, amount=[coin(paid_wei)])
        assert self.balance(ATTACKER) == 0
        return before - self.world.seen().remaining_noz

    def serve(self, noz: int, role: Role, granted: int = 0) -> int:
        """Report, mature and withdraw; returns the wei that he then has, his validators' part of the fees included."""
        fees = self.balance(module_address("fee_collector"))
        self.world.apply(Report(((0, noz, granted),)))
        fees = self.balance(module_address("fee_collector")) - fees
        wallets = [worker(0), *(node_account(number) for number in range(1, role.meta_nodes + 1))]
        while any(self.world.keepers.pot.immature_wei(self.world.state, one) for one in wallets):
            self.world.apply(Report(((1, 0, 0),)))
            self.world.apply(Wait(1))
        for one in wallets:
            amount = self.world.keepers.pot.mature_wei(self.world.state, one)
            fields = {"wallet_address": bech32.encode(one), "target_address": bech32.encode(ATTACKER)}
            self.world.execute("stratos.pot.v1.MsgWithdraw", amount=[coin(amount)], **fields)
        return self.balance(ATTACKER) + fees * role.validators // economics.VALIDATORS


def agrees(told: Outcome, role: Role, paid_wei: int, back_wei: int) -> bool:
    return (told.paid_wei, role.back_wei(told.epoch)) == (paid_wei, back_wei)


@pytest.mark.parametrize("rules", RULES, ids=lambda one: one.name)
@pytest.mark.parametrize("role", ROLES, ids=lambda one: one.name)
def test_buying_own_traffic_gives_back_on_the_modules_what_the_table_says_in_every_tier(rules: economics.Rules, role: Role) -> None:
    for tier in DEFAULT_TIERS:
        attack = Attack(rules, tier.start_wei)
        told = economics.own_traffic(economics.untouched(rules.solvency), rules, role, tier.start_wei)
        back_wei = attack.serve(attack.buy(told.paid_wei), role)
        assert agrees(told, role, told.paid_wei, back_wei), (tier.start_wei, back_wei)


@pytest.mark.parametrize("rules", RULES, ids=lambda one: one.name)
def test_the_example_after_sales_is_what_the_modules_pay(rules: economics.Rules) -> None:
    for role in ROLES:
        attack = Attack(rules, economics.MINED_WEI)
        for stos in (1, 100, 10_000):
            attack.world.apply(Prepay(stos * STOS_WEI))
        told = economics.own_traffic(economics.after_sales(rules.solvency), rules, role, economics.MINED_WEI)
        assert agrees(told, role, told.paid_wei, attack.serve(attack.buy(told.paid_wei), role))


@pytest.mark.parametrize("role", ROLES, ids=lambda one: one.name)
def test_serving_one_s_own_grant_leaks_on_the_modules_what_the_table_says_in_every_tier(role: Role) -> None:
    for tier in DEFAULT_TIERS:
        attack = Attack(RULES_OF_GRANTS, tier.start_wei)
        told = economics.own_grant(economics.untouched(True), RULES_OF_GRANTS, role, tier.start_wei)
        claimed = attack.world.apply(Claim(EPOCH_NOZ))
        back_wei = attack.serve(EPOCH_NOZ, role, granted=EPOCH_NOZ)
        assert agrees(told, role, claimed.cost_wei, back_wei)
        assert back_wei < claimed.cost_wei


def test_with_our_rules_the_attacker_with_a_resource_node_ends_with_less_than_he_had_and_with_the_original_s_with_far_more() -> None:
    for rules, most in ((RULES[-1], (0, 1)), (RULES[0], (2, 50))):
        for tier in DEFAULT_TIERS:
            attack = Attack(rules, tier.start_wei)
            paid_wei = STOS_WEI
            back_wei = attack.serve(attack.buy(paid_wei), ROLES[0])
            assert most[0] * paid_wei < back_wei < most[1] * paid_wei


def test_an_attack_repeated_with_what_came_back_goes_on_losing() -> None:
    attack = Attack(RULES[-1], 0)
    has_wei = 1000 * STOS_WEI
    for _ in range(3):
        back_wei = attack.serve(attack.buy(has_wei), ROLES[0])
        assert back_wei < has_wei * 84 // 100
        has_wei = back_wei
        attack.world.keepers.bank.send(attack.world.ctx, attack.world.state, ATTACKER, bytes([6]) * 20, (Coin("wei", has_wei),))
