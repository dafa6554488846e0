"""A validator's key must not sign a block twice: what a node refuses before it starts, what CometBFT refuses, and how a node halts on purpose."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chain import config, nodekeys
from chain.config import Home
from chain.light.double_sign import require_signing_state
from tests.node.operator import Operator
from tests.support import ROOT, Cli, devnet


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The home of a validator that signed five blocks or more, and is stopped."""
    folder = tmp_path_factory.mktemp("validator")
    with devnet(folder) as running:
        running.wait_for(5)
    return Home(folder / "home")


def start(home: Home, *flags: str, timeout_s: float = 60) -> tuple[int, str]:
    """(exit code, everything it wrote) of a node that ends by itself."""
    command = [sys.executable, "-m", "chain.cli.main", "start", "--home", str(home.root), *flags]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s)
    return done.returncode, done.stdout


def height_of(home: Home) -> int:
    document = json.loads(Cli(home.root).ok("export"))
    return int(document["initial_height"]) - 1


def test_a_state_file_that_does_not_fit_is_told(home: Home, tmp_path: Path) -> None:
    node = Operator(home.root)
    path = home.validator_state
    kept = path.read_text()
    state = json.loads(kept)
    signed = int(state["height"])
    try:
        path.write_text(json.dumps({"height": "2", "round": 0, "step": 3}))
        node.refused("start", told=f"says that this validator signed block 2 last, but block {signed} has its vote: the file is an old copy")
        assert json.loads(path.read_text())["height"] == "2"
        require_signing_state(home, 2)
        path.write_text(json.dumps({**state, "height": str(signed)}))
        require_signing_state(home, signed)
        another = Home(tmp_path)
        nodekeys.create_missing(another)
        key = home.validator_key.read_bytes()
        home.validator_key.write_bytes(another.validator_key.read_bytes())
        node.refused("start", told=f"{path} was written by another key than {home.validator_key}: the two files belong together")
        path.write_text('{"height":"0","round":0,"step":0}')
        require_signing_state(home, signed)  # this key is no validator: nothing to protect
        home.validator_key.write_bytes(key)
        for text in ("", "[]", '{"height":"x"}', '{"height":"1","signature":"?","signbytes":"zz"}'):
            path.write_text(text)
            node.refused("start", told=f"{path} is not what CometBFT writes: expected height, round and step")
        path.unlink()
        node.refused("start", told=f"{path} cannot be read (No such file or directory): it says what this validator signed last")
    finally:
        path.write_text(kept)


def test_cometbft_looks_back_where_it_is_asked_to(home: Home) -> None:
    code, out = start(home, "--consensus.double_sign_check_height", "10")
    assert code == 1
    assert "double sign" in out.lower() or "found signature" in out.lower(), out[-2000:]
    assert "CometBFT ends at once" in out


def test_a_node_halts_at_its_height_and_at_its_time_and_goes_on(home: Home) -> None:
    height = height_of(home) + 2
    config.update(home.app_config, {"halt-height": height})
    code, out = start(home)
    assert code == 1
    assert f"halt-height {height} is reached: the node stops before block {height + 1}; unset halt-height to go on" in out
    at_s = int(time.time()) + 6
    code, out = start(home, "--halt-height", "0", "--halt-time", str(at_s))
    assert code == 1
    told = re.search(rf"halt-time {at_s} is reached: the node stops before block ([0-9]+); unset halt-time to go on", out)
    assert told is not None
    assert height_of(home) == int(told[1]) - 1 > height
    config.update(home.app_config, {"halt-height": 0})


def test_a_clock_that_is_behind_the_chain_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.node.time.time", lambda: 1_700_000_000)
    Operator(home.root).refused("start", told="this machine's clock says 2023-11-14T22:13:20Z, but block")
