"""Restart, export and import, and rollback while something of every kind is in flight: nothing is lost, nothing comes twice or late."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Application, Settings
from chain.codec.times import rfc3339
from chain.store.kv import MemoryBackend, open_backend
from chain.testing.driver import Driver
from genesis import build
from tests.app.flight import STRANGER, UNIT, VESTING, Flight, document, who

CHECKED = Settings(invariant_period=1)


def on_disk(folder: Path) -> Application:
    return build_application(open_backend("goleveldb", folder / "application.db"), replace(CHECKED, native_core=False, fast_sends=False))


@pytest.fixture
def flight(tmp_path: Path) -> Iterator[Flight]:
    """Two applications that have to agree, in flight; the second is on disk."""
    driver = Driver([build_application(MemoryBackend(), CHECKED), on_disk(tmp_path)], document())
    driver.start()
    started = Flight(driver)
    started.take_off()
    yield started
    for app in driver.apps:
        app.close()  # type: ignore[attr-defined]


def sections(app: Any) -> dict[str, Any]:
    exported: dict[str, Any] = app.export()
    return exported


def _without(section: dict[str, Any], *names: str) -> None:
    for name in names:
        del section[name]


def test_everything_is_in_flight(flight: Flight) -> None:
    """What the other tests speak of is there before, and at its end after."""
    state = sections(flight.app)
    assert sum(len(one["entries"]) for one in state["staking"]["unbonding_delegations"]) == 5
    assert len(state["staking"]["redelegations"]) == 1
    assert [one["status"] for one in state["gov"]["proposals"]] == ["PROPOSAL_STATUS_VOTING_PERIOD", "PROPOSAL_STATUS_DEPOSIT_PERIOD"]
    assert (len(state["gov"]["votes"]), len(state["gov"]["deposits"])) == (2, 2)
    assert (len(state["authz"]["authorization"]), len(state["feegrant"]["allowances"])) == (2, 3)
    assert flight.missed(2) == 3
    assert (flight.validator(2)["jailed"], flight.validator(3)["jailed"]) == (False, True)
    assert all(one["outstanding_rewards"] for one in state["distribution"]["outstanding_rewards"])
    assert 0 < flight.spendable(VESTING) < 2000 * UNIT
    flight.land()
    landed = sections(flight.app)
    staking, gov = landed["staking"], landed["gov"]
    assert [staking["unbonding_delegations"], staking["redelegations"], gov["deposits"], gov["votes"]] == [[], [], [], []]
    assert [one["status"] for one in gov["proposals"]] == ["PROPOSAL_STATUS_PASSED"], "the other one had too small a deposit"
    assert [one["granter"] for one in landed["authz"]["authorization"]] == [who(4)], "that of 5 has ended"
    assert sorted(one["granter"] for one in landed["feegrant"]["allowances"]) == sorted((who(0), who(2))), "that of 1 has ended"
    assert int(flight.ask("cosmos.bank.v1beta1.Query/Balance", address=STRANGER, denom="wei")["balance"]["amount"]) == 323 * UNIT + 1
    assert flight.validator(2)["jailed"]
    assert not flight.validator(3)["jailed"]


def test_a_restart_changes_nothing(flight: Flight, tmp_path: Path) -> None:
    """Twice: in flight, and again with blocks since. Every answer of the restarted application is compared with the other's, app hashes included."""
    driver = flight.driver
    for _ in range(2):
        driver.apps[1].close()  # type: ignore[attr-defined]
        driver.apps = [driver.apps[0], on_disk(tmp_path)]
        assert driver.handshake(1) == 0
        flight.block()
    flight.land()
    assert sections(driver.apps[1]) == sections(driver.apps[0])


def test_blocks_that_were_rolled_back_come_out_the_same_again(flight: Flight, tmp_path: Path) -> None:
    """One block, and then as many as it takes to be at the beginning of the flight."""
    driver = flight.driver
    for undone in (1, 8):
        app: Any = driver.apps[1]
        app.store.rollback(driver.height - undone)
        app.close()
        driver.apps = [driver.apps[0], on_disk(tmp_path)]
        assert driver.handshake(1) == undone
        assert driver.apps[1].store.app_hash == driver.app_hash  # type: ignore[attr-defined]
        flight.block()
    flight.land()
    assert sections(driver.apps[1]) == sections(driver.apps[0])


def test_an_imported_chain_brings_everything_to_the_same_end(flight: Flight) -> None:
    """The import has the votes of one block less: a validator is jailed one block later. Turns to propose begin anew."""
    exported = sections(flight.app)
    driver = flight.driver
    made = {
        **driver.genesis,
        "app_state": copy.deepcopy(exported),
        "initial_height": driver.height + 1,
        "genesis_time": rfc3339(driver.time_ns // 10**9, 0),
        "consensus": {"params": flight.app.export_consensus_params()},
    }
    app = build_application(MemoryBackend(), CHECKED)
    build.validate(made, app.modules)
    other = Flight(Driver([app], made), flight.sequences)
    other.driver.start()
    assert app._pending_genesis is not None
    again = app._exported(app._check_context(), app._pending_genesis)
    assert again == exported
    for one in (flight, other):
        one.block()
    assert (other.driver.height, other.driver.time_ns) == (driver.height, driver.time_ns)
    for one in (flight, other):
        one.land()
    assert (other.driver.height, other.driver.time_ns) == (driver.height, driver.time_ns)
    assert [(one.address, one.power) for one in other.driver.validators] == [(one.address, one.power) for one in driver.validators]
    ours, theirs = sections(flight.app), sections(other.app)
    for state in (ours, theirs):
        _without(state["distribution"], "previous_proposer")
        _without(state["slashing"], "signing_infos", "missed_blocks")
        for validator in state["staking"]["validators"]:
            _without(validator, "unbonding_height", "unbonding_time")
        for event in state["distribution"]["validator_slash_events"]:
            _without(event, "height")
    for name, section in ours.items():
        assert theirs[name] == section, name
