"""The original's published numbers and those that its formulas give (tests/vectors/economics.json), to the last unit, with the switchable
rules off; and the same state with them on (economics_rules_on.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chain.dec import parse_dec
from chain.ozone import Ozone
from modules.pot.rewards import RewardParams, Work, slash_value_wei
from modules.pot.tiers import circulating_wei, tier_at
from modules.register.deposits import NodeDeposit, initial_limit_noz, raise_deposit, set_effective, suspend
from modules.sds.pricing import price, purchasable_noz
from tests.modules.economy import Economy

FOLDER = Path(__file__).parent.parent / "vectors"
VECTORS = json.loads((FOLDER / "economics.json").read_text())
RULES_ON = json.loads((FOLDER / "economics_rules_on.json").read_text())


class Run:
    """A set's state; ``step`` takes one step and returns everything that can be expected of it, as text."""

    def __init__(self, given: dict[str, Any]) -> None:
        rate = parse_dec(given["rate"])
        deposit = int(given["deposit_wei"])
        self.economy = Economy(
            Ozone(deposit, initial_limit_noz(deposit, rate), rate=rate, solvency=given.get("solvency_rules", False)),
            RewardParams(parse_dec(given["community_tax"]), mining_cap=parse_dec(given.get("mining_cap_ratio", "0"))),
            int(given["mined_wei"]),
            given["meta_wallets"],
        )
        self.node = NodeDeposit(0)

    def seen(self) -> dict[str, Any]:
        pool = self.economy.pool
        state = {"deposit_wei": pool.deposit_wei, "remaining_noz": pool.remaining_noz, "prepaid_wei": pool.prepaid_wei}
        return {**state, "price": price(pool), "mined_wei": self.economy.mined_wei}

    def step(self, step: dict[str, Any]) -> dict[str, Any]:
        economy, told = self.economy, dict[str, Any]()
        match step:
            case {"prepay_wei": paid}:
                told["noz"] = economy.buy(int(paid))
            case {"simulate_prepay_wei": paid}:
                told["noz"] = purchasable_noz(economy.pool, int(paid))
            case {"slash_noz": noz}:
                told["debt_wei"] = slash_value_wei(economy.pool, int(noz))
            case {"raise_wei": amount}:
                before, economy.pool = economy.pool, raise_deposit(economy.pool, int(amount))
                told.update(self.seen())
                if step.get("then_forget"):
                    economy.pool = before
                return texts(told)
            case {"activate_wei": amount}:
                economy.pool, self.node = set_effective(economy.pool, NodeDeposit(int(amount)), int(amount))
            case {"suspend": True}:
                economy.pool, self.node = suspend(economy.pool, self.node)
            case {"report": volumes}:
                paid = economy.report([Work(wallet, int(volume)) for wallet, volume in sorted(volumes.items())])
                told["value_wei"], told["community_wei"] = paid.value_wei, paid.community_wei
                for name in ("traffic", "mining"):
                    part = getattr(paid, name)
                    told[name] = {"chain_wei": part.chain_wei, "resource_wei": part.resource_wei, "meta_wei": part.meta_wei}
                told["rewards"] = {one.wallet: {"mining_wei": one.mining_wei, "traffic_wei": one.traffic_wei} for one in paid.rewards}
                told["mining_to_wallets_wei"], told["traffic_to_wallets_wei"] = paid.mining_to_wallets_wei, paid.traffic_to_wallets_wei
            case _:
                raise AssertionError(f"unknown step {step}")
        return texts({**self.seen(), **told})


def texts(value: Any) -> Any:
    return {key: texts(one) for key, one in value.items()} if isinstance(value, dict) else str(value)


@pytest.mark.parametrize("given", VECTORS["sets"] + RULES_ON["sets"], ids=lambda one: one["name"])
def test_every_number_of_the_set_comes_out_to_the_last_unit(given: dict[str, Any]) -> None:
    run = Run(given)
    start = {**texts(run.seen()), "initial_limit_noz": str(run.economy.pool.remaining_noz)}
    assert start == {**start, **given["expect"]}
    compared = 0
    for number, step in enumerate(given["steps"]):
        for _ in range(step.get("times", 1)):
            found = run.step(step)
        assert found == {**found, **step["expect"]}, f"step {number}"
        compared += len(step["expect"])
    assert compared >= 15
    end = given.get("end", {})
    if end:
        assert str(run.economy.mined_wei) == end["mined_wei"]
        assert {wallet: str(run.economy.earned_wei[wallet]) for wallet in end["earned_wei"]} == end["earned_wei"]


@pytest.mark.parametrize("given", VECTORS["tiers"], ids=lambda one: one["mined_wei"])
def test_the_mining_reward_follows_what_was_mined(given: dict[str, str]) -> None:
    assert str(tier_at(int(given["mined_wei"])).reward_wei) == given["reward_wei"]


@pytest.mark.parametrize("given", VECTORS["circulating"], ids=lambda one: one["mined_wei"])
def test_coins_that_wait_to_be_mined_do_not_circulate(given: dict[str, str]) -> None:
    assert str(circulating_wei(int(given["supply_wei"]), int(given["mined_wei"]))) == given["circulating_wei"]
