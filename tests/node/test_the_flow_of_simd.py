"""simd's own flow, command by command, with only the binary's name, denom, amounts and fees changed."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.api.comet import CometClient, CometRefused, CometUnavailable
from tests.support import ROOT, Cli, free_ports

pytestmark = pytest.mark.timeout(180)
KEYRING = ("--keyring-backend", "test")


@pytest.fixture
def node(tmp_path: Path) -> Cli:
    made = Cli(tmp_path / "home")
    made.ok("init", "validator", "--chain-id", "flow-1")
    for name in ("val", "friend"):
        made.ok("keys", "add", name, *KEYRING)
    made.ok("genesis", "add-genesis-account", "val", "2000000000000000000wei", *KEYRING)
    return made


def test_from_init_to_a_balance(node: Cli) -> None:
    node.ok("genesis", "gentx", "val", "1000000000000000000wei", "--chain-id", "flow-1", *KEYRING)
    node.ok("genesis", "collect-gentxs")
    node.ok("genesis", "validate")
    base = free_ports(4)
    rpc = f"tcp://127.0.0.1:{base}"
    ports = ["--rpc.laddr", rpc, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}"]
    with (node.home / "log").open("wb") as log:
        command = [sys.executable, "-m", "chain.cli.main", "--home", str(node.home), "start", *ports, "--api.address", f"tcp://127.0.0.1:{base + 3}"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        _wait_for(rpc, 2)
        friend = node.ok("keys", "show", "friend", "-a", *KEYRING)
        common = ("--chain-id", "flow-1", "--node", rpc)
        sent = json.loads(
            node.ok("tx", "bank", "send", "val", friend, "5000wei", "--fees", "200000000000000wei", "-y", "-o", "json", *common, *KEYRING)
        )
        assert sent["code"] == 0
        _wait_for(rpc, _height(rpc) + 2)
        balances = json.loads(node.ok("query", "bank", "balances", friend, "--node", rpc, "-o", "json"))
        assert balances["balances"] == [{"denom": "wei", "amount": "5000"}]
        locked = node.run("export")
        assert locked.returncode == 1
        assert "in use by another process" in locked.stderr
    finally:
        process.terminate()
        assert process.wait(30) == 0
    exported = json.loads(node.ok("export"))
    assert {"address": friend, "coins": [{"denom": "wei", "amount": "5000"}]} in exported["app_state"]["bank"]["balances"]
    rolled = node.ok("rollback")
    assert rolled.startswith("Rolled back state to height ")
    _goes_on_from(exported, node)


def _goes_on_from(exported: Any, node: Cli) -> None:
    """A new home with the exported genesis and the same validator makes the next block."""
    second = Cli(node.home.parent / "second")
    second.ok("init", "validator", "--chain-id", "flow-1")
    (second.home / "config" / "genesis.json").write_text(json.dumps(exported))
    key = "config/priv_validator_key.json"
    (second.home / key).write_bytes((node.home / key).read_bytes())
    rpc, start = _start_command()
    with _running(second.home, start):
        _wait_for(rpc, exported["initial_height"] + 1)
    again = json.loads(second.ok("export"))
    for document in (again, exported):
        for info in document["app_state"]["slashing"]["signing_infos"]:
            del info["validator_signing_info"]["index_offset"]  # it counts the blocks that were voted on
    assert again["app_state"] == exported["app_state"]


def test_a_gentx_without_voting_power_is_refused_with_the_reason(node: Cli) -> None:
    done = node.run("genesis", "gentx", "val", "999999999999999wei", "--chain-id", "flow-1", *KEYRING)
    assert done.returncode == 1
    assert "has no voting power: delegate at least 1000000000000000 wei (10^15)" in done.stderr


BROKEN: list[tuple[str, Any, str]] = [
    ("chain_id", "", "chain_id: expected 1 to 50"),
    ("initial_height", "x", "initial_height: expected a positive number"),
    ("genesis_time", "yesterday", "genesis_time: expected a time"),
    ("app_state", [], "app_state: expected an object"),
]


@pytest.mark.parametrize(("field", "value", "told"), BROKEN, ids=[case[0] for case in BROKEN])
def test_a_broken_genesis_names_its_field_and_overwrites_nothing(node: Cli, field: str, value: Any, told: str) -> None:
    path = node.home / "config" / "genesis.json"
    document = {**json.loads(path.read_text()), field: value}
    path.write_text(json.dumps(document))
    for command in (("genesis", "validate"), ("start",)):
        done = node.run(*command)
        assert done.returncode == 1
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    assert json.loads(path.read_text()) == document


def test_a_second_init_and_a_missing_home_are_refused(node: Cli, tmp_path: Path) -> None:
    again = node.run("init", "other")
    assert again.returncode == 1
    assert "already exists" in again.stderr
    nowhere = Cli(tmp_path / "nowhere").run("start")
    assert nowhere.returncode == 1
    assert "run `stchaind init MONIKER` first" in nowhere.stderr


def test_a_genesis_time_in_the_future_is_waited_for_and_ctrl_c_ends_the_wait(node: Cli) -> None:
    path = node.home / "config" / "genesis.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "genesis_time": "2100-01-01T00:00:00Z"}))
    node.ok("genesis", "gentx", "val", "1000000000000000000wei", *KEYRING)
    node.ok("genesis", "collect-gentxs")
    base = free_ports(4)
    ports = ["--rpc.laddr", f"tcp://127.0.0.1:{base}", "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}"]
    log = node.home / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "chain.cli.main", "--home", str(node.home), "start", *ports, "--api.enable", "false"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        until = time.monotonic() + 60
        while "Genesis time is in the future" not in log.read_text():
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()
    assert json.loads(path.read_text())["genesis_time"] == "2100-01-01T00:00:00Z"


def test_a_genesis_that_is_mended_after_a_start_is_read_after_a_reset_and_until_then_that_is_said(node: Cli) -> None:
    path = node.home / "config" / "genesis.json"
    node.ok("genesis", "gentx", "val", "1000000000000000000wei", *KEYRING)
    node.ok("genesis", "collect-gentxs")
    good = path.read_text()
    poor = json.loads(good)
    bank = poor["app_state"]["bank"]
    bank["balances"][0]["coins"][0]["amount"] = bank["supply"][0]["amount"] = "5"
    path.write_text(json.dumps(poor))
    rpc, start = _start_command()
    refused = node.run(*start)
    assert refused.returncode == 1
    assert "insufficient funds" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    path.write_text(good)
    kept = node.run(*start)
    assert kept.returncode == 1
    assert f"`stchaind comet unsafe-reset-all --home {node.home}` makes it forget it" in kept.stderr
    node.ok("comet", "unsafe-reset-all")
    with _running(node.home, start):
        _wait_for(rpc, 1)


def test_a_lost_database_of_cometbft_ends_in_one_sentence(node: Cli) -> None:
    node.ok("genesis", "gentx", "val", "1000000000000000000wei", *KEYRING)
    node.ok("genesis", "collect-gentxs")
    rpc, start = _start_command()
    with _running(node.home, start):
        _wait_for(rpc, 2)
    shutil.rmtree(node.home / "data" / "blockstore.db")
    done = node.run(*start)
    assert done.returncode == 1
    [told] = [line for line in (done.stdout + done.stderr).splitlines() if "stopped" in line and "reason=" in line]
    assert "panic: state" in told
    assert "height mismatch" in told
    assert "run `stchaind comet unsafe-reset-all`" in told


def _start_command() -> tuple[str, list[str]]:
    """(address of the RPC, ``start`` on free ports without REST)."""
    base = free_ports(3)
    rpc = f"tcp://127.0.0.1:{base}"
    ports = ["--rpc.laddr", rpc, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}"]
    return rpc, ["start", *ports, "--api.enable", "false"]


@contextlib.contextmanager
def _running(home: Path, start: list[str]) -> Iterator[None]:
    """A node that is told to stop at the end, and does."""
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "chain.cli.main", "--home", str(home), *start], cwd=ROOT, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _height(rpc: str) -> int:
    client = CometClient(rpc)
    try:
        return int(client.call("status")["sync_info"]["latest_block_height"])
    except (CometUnavailable, CometRefused):
        return 0
    finally:
        client.close()


def _wait_for(rpc: str, height: int) -> None:
    until = time.monotonic() + 60
    while _height(rpc) < height:
        assert time.monotonic() < until, f"block {height} did not come"
        time.sleep(0.2)
