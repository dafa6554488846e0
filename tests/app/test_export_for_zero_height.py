"""``stchaind export --for-zero-height``: a new chain that begins at height 1 from a chain in flight. Nobody's coins are lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.codec.json import to_json
from chain.codec.times import rfc3339
from chain.config import Home
from chain.crypto import address as bech32
from chain.store.kv import MemoryBackend, open_backend
from chain.testing.driver import Driver
from genesis import build
from genesis import document as documents
from tests.app.flight import CHAIN_ID, PEOPLE, STAKES, STRANGER, UNIT, VESTING, Flight, cons, document, operator, undelegate, unjail, who
from tests.support import stchaind

DISTRIBUTION = "cosmos.distribution.v1beta1.Query"


@pytest.fixture
def flight(tmp_path: Path) -> Flight:
    """A chain in flight, in the home folder ``tmp_path``."""
    assert stchaind(tmp_path, "init", "zero", "--chain-id", CHAIN_ID)[0] == 0
    made = document()
    documents.save(made, Home(tmp_path).genesis)
    driver = Driver([build_application(open_backend("goleveldb", Home(tmp_path).database))], made)
    driver.start()
    started = Flight(driver)
    started.take_off()
    return started


def exported(home: Path, *flags: str) -> dict[str, Any]:
    code, out, error = stchaind(home, "export", "--for-zero-height", *flags)
    assert code == 0, error
    made: dict[str, Any] = json.loads(out)
    return made


def new_chain(made: dict[str, Any], flight: Flight) -> Flight:
    """Begins at the time that the old one has come to, from what the command printed; every block checks every invariant."""
    app = build_application(MemoryBackend(), Settings(invariant_period=1))
    made = documents.normalise({**made, "genesis_time": rfc3339(*divmod(flight.driver.time_ns, 10**9))})
    build.validate(made, app.modules)
    made["consensus"]["params"] = to_json(documents.consensus_params(made))
    driver = Driver([app], made)
    driver.start()
    return Flight(driver, flight.sequences)


def whole(coins: list[dict[str, str]]) -> int:
    return sum(int(coin["amount"].partition(".")[0]) for coin in coins if coin["denom"] == "wei")


def parts(coins: list[dict[str, str]]) -> int:
    """Of 10^-18 wei."""
    return sum(int(coin["amount"].replace(".", "")) for coin in coins)


def balances(state: dict[str, Any]) -> dict[str, int]:
    return {one["address"]: whole(one["coins"]) for one in state["bank"]["balances"]}


def test_a_new_chain_has_what_everybody_had_and_was_owed(flight: Flight, tmp_path: Path) -> None:
    before = flight.app.export()
    earned = {who(number): 0 for number in range(len(PEOPLE))}
    for number in range(len(PEOPLE)):
        for one in flight.ask(f"{DISTRIBUTION}/DelegationTotalRewards", delegator_address=who(number))["rewards"]:
            earned[who(number)] += whole(one["reward"])
    for number in range(len(STAKES)):
        commission = flight.ask(f"{DISTRIBUTION}/ValidatorCommission", validator_address=operator(number))["commission"]["commission"]
        earned[who(number)] += whole(commission)
    assert min(earned[who(number)] for number in (0, 1, 2, 4, 5, VESTING)) > 10**12
    flight.app.close()
    made = exported(tmp_path)
    assert made["initial_height"] == 0
    state = made["app_state"]
    assert state["bank"]["supply"] == before["bank"]["supply"]
    distributor = bech32.encode(bech32.module_address("distribution"))
    expected = {address: amount + earned.get(address, 0) for address, amount in balances(before).items()}
    expected[distributor] -= sum(earned.values())
    assert balances(state) == expected
    owed = sum(parts(one["outstanding_rewards"]) for one in before["distribution"]["outstanding_rewards"])
    pools = [parts(one["distribution"]["fee_pool"]["community_pool"]) for one in (before, state)]
    assert pools[1] - pools[0] == owed - sum(earned.values()) * 10**18, "what rounding leaves"
    assert 0 < pools[1] - pools[0] < 100 * 10**18
    assert [one["outstanding_rewards"] for one in state["distribution"]["outstanding_rewards"]] == [[]] * len(STAKES)
    for name in ("gov", "authz", "feegrant", "mint", "auth"):
        assert state[name] == before[name]


def test_heights_are_those_of_a_chain_that_begins_and_everything_in_flight_comes_to_its_end(flight: Flight, tmp_path: Path) -> None:
    flight.app.close()
    state = (made := exported(tmp_path))["app_state"]
    staking, distribution = state["staking"], state["distribution"]
    for records in (staking["unbonding_delegations"], staking["redelegations"]):
        assert {entry["creation_height"] for one in records for entry in one["entries"]} == {"0"}
    assert {one["unbonding_height"] for one in staking["validators"]} == {"0"}
    assert {one["starting_info"]["height"] for one in distribution["delegator_starting_infos"]} == {"0"}
    assert distribution["validator_slash_events"] == []
    assert {one["validator_signing_info"]["start_height"] for one in state["slashing"]["signing_infos"]} == {"0"}
    new = new_chain(made, flight)
    new.block()
    assert new.driver.height == 1
    assert [one.power for one in new.driver.validators] == [one.power for one in flight.driver.validators]
    new.land()
    landed = new.app.export()
    assert [landed["staking"]["unbonding_delegations"], landed["staking"]["redelegations"], landed["gov"]["deposits"]] == [[], [], []]
    assert balances(landed)[STRANGER] == 323 * UNIT + 1
    burned = int(state["bank"]["supply"][0]["amount"]) - int(landed["bank"]["supply"][0]["amount"])
    assert burned == 11 * UNIT, "a hundredth of validator 2, to which 100 units have moved"


def test_validators_that_are_not_named_are_jailed_and_may_come_back(flight: Flight, tmp_path: Path) -> None:
    flight.app.close()
    new = new_chain(exported(tmp_path, "--jail-allowed-addrs", operator(0)), flight)
    new.block()
    assert [one.address for one in new.driver.validators] == [cons(0)]
    assert [new.validator(number)["jailed"] for number in range(4)] == [False, True, True, True]
    new.block((1, unjail(1)))
    new.block((5, undelegate(5, 1, 1)), step_s=3000)
    new.block()
    assert [one.power for one in new.driver.next_validators] == [7640, 2639]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--for-zero-height", "--jail-allowed-addrs", "stvaloper1qqq"), "--jail-allowed-addrs: "),
        (("--for-zero-height", "--jail-allowed-addrs", operator(5)), f"there is no validator {operator(5)}"),
        (("--for-zero-height", "--jail-allowed-addrs", operator(3)), "no validator would be left to make blocks"),
        (("--jail-allowed-addrs", operator(0)), "--jail-allowed-addrs goes with --for-zero-height"),
    ],
)
def test_an_operators_mistake_gets_a_sentence(flight: Flight, tmp_path: Path, flags: tuple[str, ...], sentence: str) -> None:
    flight.app.close()
    code, out, error = stchaind(tmp_path, "export", *flags)
    assert (code, out) == (1, "")
    assert sentence in error
