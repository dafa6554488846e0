"""``export`` and ``export --for-zero-height`` of the real simd, and of ours after the same blocks: every section that both have.

The validator withdraws once before: simd pays out at height 0, as if what was delegated at genesis had begun in that very block.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import pytest

from chain.api.comet import CometClient
from chain.codec.registry import message_class
from tests.interop import peers
from tests.interop.pair import Side, simd_alone
from tests.support import ROOT, ask_until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]
GAS = 400_000


def scenario(side: Side) -> list[tuple[str, str, Any]]:
    """(name, who signs, message) of each transaction, in order."""
    addresses = {"delegator_address": side.address("c"), "validator_address": side.address("val", "valoper")}

    def staking(name: str, amount: int) -> Any:
        return message_class(f"cosmos.staking.v1beta1.Msg{name}")(**addresses, amount={"denom": "wei", "amount": str(amount)})

    def deposit(amount: int) -> Any:
        coins = [{"denom": "wei", "amount": str(amount)}]
        return message_class("cosmos.gov.v1.MsgSubmitProposal")(
            proposer=side.address("a"), initial_deposit=coins, title="t", summary="s", metadata="m"
        )

    withdraw = message_class("cosmos.distribution.v1beta1.MsgWithdrawDelegatorReward")
    return [
        ("of genesis", "val", withdraw(delegator_address=side.address("val"), validator_address=side.address("val", "valoper"))),
        ("delegated", "c", staking("Delegate", 3 * 10**17 + 7)),
        ("taken back", "c", staking("Undelegate", 10**17)),
        ("taken back again", "c", staking("Undelegate", 10**16)),
        ("proposed", "a", deposit(1000)),
    ]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Any]]:
    """(ours, simd's) app_state: as it is, and for height zero."""
    folder = tmp_path_factory.mktemp("exported")
    with simd_alone(folder / "simd", {"mint": {"inflation_max": "0.20"}}) as side:
        ask_until(lambda: side.height() >= 3, 90)
        sequences = {"val": 1, "a": 0, "c": 0}  # the validator's gentx
        for name, sender, message in scenario(side):
            side.send(name, side.signed(message, sender, sequences[sender], gas=GAS, memo=name))
            sequences[sender] += 1
        last = max(side.heights.values()) + 2
        ask_until(lambda: side.height() > last)
        client = CometClient(side.rpc)
        times = [client.call("header", height=str(height))["header"]["time"] for height in range(1, last + 1)]
        client.close()
    txs = {height: [base64.b64encode(side.raw[name]).decode()] for name, height in side.heights.items()}
    asked = folder / "asked.json"
    asked.write_text(json.dumps({"txs": txs, "times": times, "stores": [], "queries": []}))
    command = [sys.executable, "-m", "tests.interop.replay_as_cosmos", str(side.home), str(asked)]
    ours = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ours.returncode == 0, ours.stderr
    return list(zip(json.loads(ours.stdout)["exports"], [_exported(side, last), _exported(side, last, "--for-zero-height")], strict=True))


def _exported(side: Side, height: int, *flags: str) -> Any:
    path = side.home / "exported.json"
    command = [str(peers.simd()), "export", "--home", str(side.home), "--height", str(height), "--output-document", str(path), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = json.loads(path.read_text())
    assert made["initial_height"] == (0 if flags else height + 1)
    return made["app_state"]


@pytest.mark.parametrize("zero_height", [False, True], ids=["as it is", "for zero height"])
def test_every_section_is_simds(exports: list[tuple[Any, Any]], zero_height: bool) -> None:
    ours, theirs = exports[zero_height]
    assert [len(one["entries"]) for one in ours["staking"]["unbonding_delegations"]] == [2]
    for state, unit in ((ours, 10**15), (theirs, 10**6)):
        powers = state["staking"]["last_validator_powers"]
        assert state["staking"]["last_total_power"] == powers[0]["power"]
        powers[0]["power"] = state["staking"]["last_total_power"] = str(int(powers[0]["power"]) * unit // 10**15)
        del state["auth"]["accounts"]  # simd has more modules, whose accounts are numbered, too; ours are in the order of numbers
    for name in ours:
        if name in theirs:
            assert ours[name] == theirs[name], name
