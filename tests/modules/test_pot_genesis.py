"""pot's genesis in the original's shape and in ours, export and import, and what its queries answer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.codec.times import NANOS, rfc3339
from chain.coins import Coin
from chain.crypto.address import module_address
from chain.errors import AppError
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from genesis import build, document
from modules.pot import queries
from tests.modules.reporting import NODE_OWNER, STOS, Net, meta_keys, node_text, wallets
from tests.support import genesis_document, text

A, B, C = wallets(3)


def a_life() -> Net:
    """A chain with rewards that are mature, that are to mature, and approvals."""
    net = Net(pot={"mature_epoch": "2"}, effective_wei=500 * STOS)
    net.buy(100 * STOS)
    net.reported(1, [(A, 10**12), (B, 10**12)])
    net.reported(2, [(A, 10**12), (C, 1)])
    net.reported(3, [(B, 10**12)])
    assert net.slash(7, 0).code == 0
    return net


@pytest.fixture(scope="module")
def lived() -> Net:
    return a_life()


def _genesis() -> Any:
    app = build_application(MemoryBackend(), Settings())
    return next(module.genesis for module in app.modules if module.name == "pot")


@pytest.fixture(scope="module")
def genesis() -> Any:
    return _genesis()


def restarted(net: Net) -> Net:
    """A chain from another's export."""
    exported = net.app.export()
    app = build_application(MemoryBackend(), Settings(invariant_period=1))
    made = genesis_document(app)
    made["app_state"] = exported
    made["initial_height"] = str(net.driver.height + 1)
    made["genesis_time"] = rfc3339(net.driver.time_ns // NANOS)
    again = object.__new__(Net)
    driver = Driver([app], document.normalise(made))
    driver.start()
    again.app, again.driver, again.metas = app, driver, net.metas
    return again


def test_export_import_export_is_identical(lived: Net, genesis: Any) -> None:
    exported = lived.section()
    assert len(exported["maturing_rewards"]) == 11
    assert len(exported["mature_total_info"]) == 6
    assert [len(exported[name]) for name in ("reports", "epoch_economics", "reward_total_info", "slashing_approvals")] == [3, 3, 3, 1]
    assert exported["individual_reward_info"] == []
    genesis.validate(exported)
    again = restarted(lived)
    state = again.app._pending_genesis
    pot = next(module.genesis for module in again.app.modules if module.name == "pot")
    assert pot.export(None, state) == exported


def test_a_chain_goes_on_from_its_export_as_it_would_have() -> None:
    net = a_life()
    again = restarted(net)
    again.driver.next_block()
    net.driver.next_block()
    for one in (net, again):
        one.driver.next_block(time_step_s=10)
        one.reported(4, [(A, 10**9)])
        one.reported(5)
    ours, theirs = net.section(), again.section()
    for name in ("reports", "last_report_time", "epoch_economics", "slashing_approvals"):  # hold hashes, heights and times of the chains
        ours.pop(name), theirs.pop(name)
    assert ours == theirs
    assert ours["maturing_rewards"] != []


def original(**changes: Any) -> dict[str, Any]:
    """A section as the original exports it."""
    section = {name: value for name, value in _genesis().default().items() if name not in OURS}
    for name in ("epoch_duration_s", "mining_cap_ratio", "max_wallets_per_report"):
        del section["params"][name]
    return {**section, **changes}


OURS = ("maturing_rewards", "reports", "last_report_time", "epoch_economics", "slashing_approvals")


def _coins(amount: int) -> list[dict[str, str]]:
    return [{"denom": "wei", "amount": str(amount)}]


def test_the_originals_section_loads_and_every_reward_matures_once() -> None:
    """The original's export lists a wallet's whole immature total as mining and again as traffic."""

    def edit(made: dict[str, Any]) -> None:
        section = original(
            last_distributed_epoch="5",
            matured_epoch="2016",
            immature_total_info=[{"wallet_address": A, "value": _coins(30)}],
            mature_total_info=[{"wallet_address": B, "value": _coins(12)}],
            individual_reward_info=[{"wallet_address": A, "reward_from_mining_pool": _coins(30), "reward_from_traffic_pool": _coins(30)}],
            reward_total_info=[{"epoch": "5", "total_reward": {"mining_reward": _coins(30), "traffic_reward": []}}],
        )
        section["params"]["mature_epoch"] = "2"
        section["matured_epoch"] = "5"
        section["params"]["initial_total_supply"] = made["app_state"]["pot"]["params"]["initial_total_supply"]
        made["app_state"]["pot"] = section
        build.add_account(made, module_address("total_reward_pool"), (Coin("wei", 42),))
        build.pin_supply(made)

    net = Net(edit=edit)
    assert net.section()["params"]["mining_cap_ratio"] == "0.000000000000000000"
    assert (net.immature_wei(A), net.mature_wei(B)) == (30, 12)
    assert net.ask("TotalRewardByEpoch", epoch=5).total_reward.mining_reward[0].amount == "30"
    found = net.ask("Withdrawals", wallet_address=A).upcoming
    assert [(one.reward_epoch, one.maturity_epoch, one.HasField("earliest_time")) for one in found] == [(5, 7, False)]
    net.reported(6)
    net.reported(9)
    assert (net.immature_wei(A), net.mature_wei(A)) == (0, 30)


Edit = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (lambda one: one["params"].update(bond_denom="stos"), "app_state.pot"),
        (lambda one: one["params"].update(mature_epoch="0"), "app_state.pot"),
        (lambda one: one["params"].update(community_tax="1.1"), "app_state.pot"),
        (lambda one: one["params"]["mining_reward_params"].clear(), "app_state.pot"),
        (lambda one: one["params"]["mining_reward_params"][0]["mining_reward"].update(denom="x"), "app_state.pot"),
        (lambda one: one["params"]["mining_reward_params"][0].update(meta_node_percentage_in_bp=""), "app_state.pot"),
        (lambda one: one["params"]["mining_reward_params"][0]["mining_reward"].update(amount=""), "app_state.pot"),
        (lambda one: one["params"]["initial_total_supply"].update(amount="0"), "app_state.pot"),
        (lambda one: one["total_mined_token"].update(denom="stos"), "app_state.pot"),
        (lambda one: one["total_mined_token"].update(amount="-1"), "app_state.pot"),
        (lambda one: one.update(unknown=1), "app_state.pot"),
        (lambda one: one.update(last_distributed_epoch=str(2**62 + 1)), "app_state.pot.last_distributed_epoch"),
        (lambda one: one.update(matured_epoch="6"), "app_state.pot.matured_epoch"),
        (lambda one: one["mature_total_info"].append(one["mature_total_info"][0]), "app_state.pot.mature_total_info[6]"),
        (lambda one: one["mature_total_info"][0].update(wallet_address="st1"), "app_state.pot.mature_total_info[0].wallet_address"),
        (lambda one: one["mature_total_info"][0]["value"][0].update(denom="stos"), "app_state.pot.mature_total_info[0].value"),
        (lambda one: one["immature_total_info"][0]["value"][0].update(amount="1"), "app_state.pot.immature_total_info"),
        (lambda one: one["immature_total_info"].pop(), "app_state.pot.immature_total_info"),
        (lambda one: one["maturing_rewards"].append(one["maturing_rewards"][0]), "app_state.pot.maturing_rewards[11]"),
        (lambda one: one["maturing_rewards"][0].update(maturity_epoch="3"), "app_state.pot.maturing_rewards[0].maturity_epoch"),
        (lambda one: one["maturing_rewards"][0].update(maturity_epoch="6"), "app_state.pot.maturing_rewards[0].maturity_epoch"),
        (
            lambda one: one["maturing_rewards"][0]["reward"].update(reward_from_mining_pool=[], reward_from_traffic_pool=[]),
            "app_state.pot.maturing_rewards[0].reward",
        ),
        (lambda one: one["individual_reward_info"].append(one["maturing_rewards"][0]["reward"]), "app_state.pot.individual_reward_info"),
        (lambda one: one["reports"].reverse(), "app_state.pot.reports[1].epoch"),
        (lambda one: one["reports"][2].update(epoch="4"), "app_state.pot.reports[2].epoch"),
        (lambda one: one["epoch_economics"][0].update(epoch="0"), "app_state.pot.epoch_economics[0].epoch"),
        (lambda one: one["epoch_economics"][1].update(maturity_epoch="3"), "app_state.pot.epoch_economics[1].maturity_epoch"),
        (lambda one: one["epoch_economics"][1].update(height="-1"), "app_state.pot.epoch_economics[1].height"),
        (lambda one: one["reward_total_info"][0].update(epoch="2"), "app_state.pot.reward_total_info[1].epoch"),
        (lambda one: one["slashing_approvals"].append(one["slashing_approvals"][0]), "app_state.pot.slashing_approvals[1]"),
        (lambda one: one["slashing_approvals"][0]["approvers"].clear(), "app_state.pot.slashing_approvals[0]"),
        (lambda one: one["slashing_approvals"][0].update(network_address="stsds1"), "app_state.pot.slashing_approvals[0]"),
        (lambda one: one["slashing_approvals"][0].update(expire_time="1969-01-01T00:00:00Z"), "app_state.pot.slashing_approvals[0].expire_time"),
        (lambda one: one["slashing_approvals"][0].update(expire_time="9999-01-01T00:00:00Z"), "app_state.pot.slashing_approvals[0].expire_time"),
        (lambda one: one["slashing_approvals"][0].update(slashing_noz=""), "app_state.pot.slashing_approvals[0]"),
        (lambda one: one["epoch_economics"][1].update(mining_reward_wei=""), "app_state.pot.epoch_economics[1].mining_reward_wei"),
        (lambda one: one["epoch_economics"][1].update(paid_noz="-1"), "app_state.pot.epoch_economics[1].paid_noz"),
        (lambda one: one["epoch_economics"][0].update(traffic_reward_wei="7"), "app_state.pot.epoch_economics[0]"),
        (lambda one: one["reward_total_info"].pop(), "app_state.pot.epoch_economics[2]"),
        (lambda one: one["reports"].pop(0), "app_state.pot.epoch_economics[0]"),
    ],
)
def test_a_section_that_cannot_be_is_refused_and_named(lived: Net, genesis: Any, edit: Edit, where: str) -> None:
    section = copy.deepcopy(lived.section())
    edit(section)
    with pytest.raises(GenesisError) as refused:
        genesis.validate(section)
    assert refused.value.path == where


def test_more_and_fewer_coins_than_the_supply_shall_be_are_warned_of(genesis: Any) -> None:
    """An export may have them, as inflation makes coins between two looks at the supply."""
    told = []

    def edit(made: dict[str, Any]) -> None:
        level = made["app_state"]["pot"]["params"]["initial_total_supply"]
        assert genesis.warnings(made["app_state"]) == []
        level["amount"] = str(int(level["amount"]) + STOS)
        told.extend(genesis.warnings(made["app_state"]))
        level["amount"] = str(int(level["amount"]) - 2 * STOS)
        told.extend(genesis.warnings(made["app_state"]))

    net = Net(edit=edit)
    assert len(told) == 2
    assert "is minted to the community pool in the first block" in told[0]
    assert "is burnt out of the community pool" in told[1]
    level = int(net.section()["params"]["initial_total_supply"]["amount"])
    assert int(net.query("cosmos.bank.v1beta1", "SupplyOf", denom="wei").amount.amount) == level + STOS, "the pool has not so much"


def test_a_cap_that_lets_self_dealers_gain_is_warned_of(genesis: Any) -> None:
    section = genesis.default()
    assert genesis.warnings({"pot": section}) == []
    section["params"]["mining_cap_ratio"] = "0.5"
    assert "in 2 of 6 mining tiers" in genesis.warnings({"pot": section})[0]
    assert "in 6 of 6 mining tiers" in genesis.warnings({"pot": original()})[0]


def test_metrics_and_the_parts_of_the_supply_add_up(lived: Net) -> None:
    metrics = lived.ask("Metrics").metrics
    supply = int(lived.query("cosmos.bank.v1beta1", "SupplyOf", denom="wei").amount.amount)
    assert int(metrics.total_supply) == supply
    assert int(metrics.total_mining_supply) == 40_000_000 * STOS
    assert metrics.total_mined_tokens == lived.ask("TotalMinedToken").total_mined_token.amount
    assert (metrics.meta_node_deposit, metrics.resource_node_deposit) == (str(400 * STOS), str(1000 * STOS))
    assert (metrics.total_resource_nodes_deposit, metrics.total_bonded_delegation) == (str(1000 * STOS), str(STOS))
    assert (metrics.total_unbonded_delegation, metrics.total_unbonding_delegation) == ("0", "0")
    assert [metrics.total_mining_reward, metrics.chain_mining_reward, metrics.resource_mining_reward, metrics.meta_mining_reward] == [
        str(part * STOS) for part in (80, 16, 48, 16)
    ]
    assert int(metrics.unissued_prepay) == lived.held("total_unissued_prepay")
    circulating = sum(int(one.amount) for one in lived.ask("CirculationSupply").circulation_supply)
    assert circulating == int(metrics.circulation_supply) == max(0, supply - 40_000_000 * STOS + int(metrics.total_mined_tokens))
    breakdown = lived.ask("SupplyBreakdown")
    parts = {one.name: int(one.amount_wei) for one in breakdown.parts}
    assert int(breakdown.total_wei) == supply == sum(parts.values())
    assert min(parts.values()) >= 0
    assert parts["rewards_mature"] + parts["rewards_immature"] == lived.held("total_reward_pool")
    assert parts["to_be_mined"] == lived.held("foundation_account")
    assert parts["meta_node_bonded_pool"] == 400 * STOS


def test_the_supply_is_told_in_bounded_work_however_many_wallets_wait_for_rewards(lived: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_WALK", 3)
    parts = {one.name: int(one.amount_wei) for one in lived.ask("SupplyBreakdown").parts}
    assert parts["rewards"] == lived.held("total_reward_pool")
    assert "rewards_mature" not in parts


def test_queries_page_and_say_what_is_not_there(lived: Net) -> None:
    assert [one.epoch for one in lived.ask("PriceHistory", from_epoch=2).epochs] == [2, 3]
    assert [one.epoch for one in lived.ask("PriceHistory", to_epoch=2, pagination={"reverse": True}).epochs] == [2, 1]
    page = lived.ask("PriceHistory", pagination={"limit": 1, "count_total": True})
    assert ([one.epoch for one in page.epochs], page.pagination.total) == ([1], 3)
    rest = lived.ask("PriceHistory", pagination={"key": page.pagination.next_key, "limit": 9})
    assert [one.epoch for one in rest.epochs] == [2, 3]
    first = lived.ask("RewardsByEpoch", epoch=2, pagination={"limit": 4})
    second = lived.ask("RewardsByEpoch", epoch=2, pagination={"key": first.pagination.next_key})
    assert len(first.rewards) + len(second.rewards) == 6
    assert lived.ask("VolumeReport", epoch=2).report_info.epoch == 2
    assert lived.ask("VolumeReport").report_info.epoch == 3
    assert not lived.ask("RewardsByWalletAndEpoch", wallet_address=C, epoch=3).rewards
    assert not lived.ask("RewardsByEpoch", epoch=2**62).rewards
    assert [list(one.approvers) for one in lived.ask("SlashingApprovals", network_address=node_text()).approvals] == [[meta_keys(0).network_address]]
    assert lived.ask("SlashingByOwner", wallet_address=text(NODE_OWNER)).slashing == "0"
    assert lived.ask("Params").params.mature_epoch == 2
    for method, fields, wanted in (
        ("VolumeReport", {"epoch": 9}, 38),
        ("VolumeReport", {"epoch": -1}, 38),
        ("TotalRewardByEpoch", {"epoch": 9}, 38),
        ("TotalRewardByEpoch", {"epoch": 0}, 18),
        ("RewardsByEpoch", {"epoch": -(2**63)}, 18),
        ("RewardsByEpoch", {"epoch": 2**63 - 1}, 18),
        ("RewardsByWallet", {}, 18),
        ("RewardsByWallet", {"wallet_address": "st1"}, 7),
        ("PriceHistory", {"from_epoch": 3, "to_epoch": 2}, 18),
        ("PriceHistory", {"from_epoch": -1}, 18),
        ("PriceHistory", {"to_epoch": 2**62 + 1}, 18),
        ("Withdrawals", {"wallet_address": A, "pagination": {"key": b"1", "offset": 1}}, 18),
        ("SlashingApprovals", {"network_address": "st1"}, 7),
    ):
        with pytest.raises(AppError) as refused:
            lived.ask(method, **fields)
        assert (refused.value.codespace, refused.value.code) == ("sdk", wanted), (method, fields)


def test_before_the_first_report_every_query_has_an_answer_or_says_so() -> None:
    net = Net()
    assert not net.ask("PriceHistory").epochs
    assert not net.ask("Withdrawals", wallet_address=A).upcoming
    assert net.ask("TotalMinedToken").total_mined_token.amount == "0"
    with pytest.raises(AppError, match="there is no report of epoch 0"):
        net.ask("VolumeReport")
