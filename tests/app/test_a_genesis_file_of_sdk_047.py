"""A genesis file as the mainnet's was made: it is read unchanged, brought over as the README of ``genesis/`` says, and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chain.app import build_application
from chain.codec.json import to_json
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from genesis import document
from genesis.migrate import migrate, read
from tests.soak.mainnet_genesis import run_genesis
from tests.support import FUNDS_WEI, KEYS, genesis_document, stchaind

GOV_PARAMS_047 = {
    "min_deposit": [{"denom": "wei", "amount": "100000000000000000000"}],
    "max_deposit_period": "1209600s",
    "voting_period": "604800s",
    "quorum": "0.334000000000000000",
    "threshold": "0.500000000000000000",
    "veto_threshold": "0.334000000000000000",
    "min_initial_deposit_ratio": "0.000000000000000000",
    "burn_vote_quorum": False,
    "burn_proposal_deposit_prevote": False,
    "burn_vote_veto": True,
}


OURS = {"register": ("solvency_rules",), "pot": ("epoch_duration_s", "mining_cap_ratio", "max_wallets_per_report")}
"""Parameters that the first chain did not have."""


def aged() -> dict[str, Any]:
    """A genesis document of one validator in the shape of SDK 0.47, with sections of modules that came and went."""
    made = json.loads(json.dumps(genesis_document(build_application(MemoryBackend()))))
    params = document.comet_params(made.pop("consensus")["params"])
    params.pop("abci")
    params["block"]["time_iota_ms"], params["version"] = "1000", {}
    state = made["app_state"]
    supply = [{"denom": "wei", "amount": str(FUNDS_WEI * len(KEYS))}]
    state["bank"].update(params={"send_enabled": [{"denom": "old", "enabled": False}], "default_send_enabled": True}, supply=supply)
    state["bank"].pop("send_enabled")
    state["params"] = None
    state["evm"] = {"accounts": [], "params": {"evm_denom": "wei"}}
    for name in ("settlement", "grant"):
        state.pop(name)
    for name, added in OURS.items():
        for parameter in added:
            state[name]["params"].pop(parameter)
    state["pot"]["params"]["initial_total_supply"]["amount"] = supply[0]["amount"]
    state["capability"] = {"index": "1", "owners": []}
    state["gov"] = {"starting_proposal_id": "1", "deposits": [], "votes": [], "proposals": [], "params": GOV_PARAMS_047}
    for name in ("deposit_params", "voting_params", "tally_params"):
        state["gov"][name] = None
    return {
        "genesis_time": "2023-09-08T00:00:00.42539614Z",
        "chain_id": made["chain_id"],
        "initial_height": "1",
        "consensus_params": params,
        "app_hash": "",
        "app_state": state,
    }


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(aged()))
    return path


def test_it_runs_with_every_invariant_in_every_block_and_says_what_the_file_says(old: Path) -> None:
    figures = run_genesis(old, 20)
    assert figures["supply"] == f"{FUNDS_WEI * len(KEYS)}wei"
    assert (figures["validator_powers"], figures["genesis_accounts"]) == ([1000], len(KEYS))
    assert figures["parameters_compared"] >= 10
    assert figures["left_out"] == ["capability", "evm"]


def test_reading_it_and_migrating_it_first_are_the_same(old: Path, tmp_path: Path) -> None:
    modules = build_application(MemoryBackend()).modules
    new = tmp_path / "new.json"
    code, out, err = stchaind(tmp_path, "genesis", "migrate", "v0.50", str(old), "--output-document", str(new))
    assert (code, out) == (0, "")
    assert err.startswith("left out, since this version has no such modules: capability, evm\n")
    assert read(new, modules) == (read(old, modules)[0], [])
    code, out, err = stchaind(tmp_path, "genesis", "validate", str(old))
    assert (code, out) == (0, f"File at {old} is a valid genesis file\n")
    left_out, _, warnings = err.partition("\n")
    assert "evm" in left_out
    assert "no volume report is possible" in warnings
    assert stchaind(tmp_path, "genesis", "validate", str(new)) == (0, f"File at {new} is a valid genesis file\n", warnings)


def test_what_050_added_takes_its_default_and_expedited_proposals_cost_five_times_as_much() -> None:
    modules = build_application(MemoryBackend()).modules
    gov = next(module.genesis for module in modules if module.name == "gov")
    assert gov is not None
    params = migrate(aged(), modules)[0]["app_state"]["gov"]["params"]
    assert {name: params[name] for name in GOV_PARAMS_047} == GOV_PARAMS_047
    assert params["expedited_min_deposit"] == [{"denom": "wei", "amount": "500000000000000000000"}]
    added = set(params) - set(GOV_PARAMS_047) - {"expedited_min_deposit"}
    default = gov.default()["params"]
    assert {name: params[name] for name in added} == {name: default[name] for name in added}
    assert {"expedited_voting_period", "proposal_cancel_ratio"} <= added


def test_what_the_first_chain_did_without_stays_off_and_the_modules_that_it_had_are_kept() -> None:
    given = aged()
    app = build_application(MemoryBackend())
    made = migrate(given, app.modules)[0]
    state = made["app_state"]
    for name in ("register", "pot", "sds"):
        assert state[name] == given["app_state"][name]
    made["consensus"]["params"] = to_json(document.consensus_params(made))
    driver = Driver([app], made)
    driver.start()
    driver.next_block()
    told = app.export()
    assert not told["register"]["params"]["solvency_rules"]
    assert [told["pot"]["params"][name] for name in OURS["pot"]] == ["0", "0.000000000000000000", 0]


def test_switches_per_denom_move_and_the_consensus_params_are_complete() -> None:
    given = aged()
    moved, _ = migrate(given, build_application(MemoryBackend()).modules)
    assert moved["app_state"]["bank"]["send_enabled"] == [{"denom": "old", "enabled": False}]
    assert moved["app_state"]["bank"]["params"]["send_enabled"] == []
    assert "time_iota_ms" not in moved["consensus"]["params"]["block"]
    assert given == aged()


def test_a_section_of_no_module_that_ever_was_is_an_error_not_a_note(old: Path, tmp_path: Path) -> None:
    given = json.loads(old.read_text())
    given["app_state"]["stakng"] = {"params": {}}
    old.write_text(json.dumps(given))
    code, _, err = stchaind(tmp_path, "genesis", "validate", str(old))
    assert (code, err) == (1, "Error: app_state.stakng: this chain has no such module\n")


@pytest.mark.parametrize("deposit", [[{"denom": "wei"}], [{"denom": "wei", "amount": "x"}], ["5wei"], [{"denom": 5, "amount": "1"}], [None]])
def test_a_min_deposit_that_is_no_coins_is_named(deposit: Any) -> None:
    given = aged()
    given["app_state"]["gov"]["params"]["min_deposit"] = deposit
    with pytest.raises(GenesisError, match=r"app_state\.gov\.params\.min_deposit: expected a list of coins"):
        migrate(given, build_application(MemoryBackend()).modules)
