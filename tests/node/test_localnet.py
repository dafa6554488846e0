"""``make localnet`` with the real CometBFT, and ``testnet init-files``, which makes the same homes for other machines."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain import config, nodekeys
from chain.config import Home
from genesis import document
from tests.support import ROOT, Devnet, ask_until, free_ports, same_headers, stchaind
from tools.localnet import PORTS_PER_NODE

NAMES = ["node0", "node1", "node2", "node3", "full0"]


def init_files(folder: Path, *arguments: str) -> tuple[int, str, str]:
    return stchaind(folder / "unused", "testnet", "init-files", "--output-dir", str(folder / "net"), *arguments)


def test_init_files_makes_homes_for_several_machines(tmp_path: Path) -> None:
    code, out, err = init_files(
        tmp_path, "--v", "3", "--chain-id", "net-1", "--starting-ip-address", "10.0.0.254", "--minimum-gas-prices", "2000000000wei"
    )
    assert (code, out, err) == (0, "", "Successfully initialized 3 node directories\n")
    homes = [Home(tmp_path / "net" / f"node{at}" / "stchaind") for at in range(3)]
    made = {home.genesis.read_bytes() for home in homes}
    assert len(made) == 1, "one genesis file for all"
    code, _, err = stchaind(homes[0].root, "genesis", "validate")
    assert code == 0, err
    hosts = ["10.0.0.254", "10.0.0.255", "10.0.1.0"]
    peers = [f"{nodekeys.node_id(home)}@{host}:26656" for home, host in zip(homes, hosts, strict=True)]
    gentxs = json.loads(made.pop())["app_state"]["genutil"]["gen_txs"]
    assert [tx["body"]["memo"] for tx in gentxs] == peers
    for at, home in enumerate(homes):
        comet = config.read_comet(home)
        assert (comet["moniker"], comet["p2p"]["laddr"], comet["rpc"]["laddr"]) == (f"node{at}", "tcp://0.0.0.0:26656", "tcp://0.0.0.0:26657")
        assert comet["p2p"]["persistent_peers"] == ",".join(peer for peer in peers if peer != peers[at])
        assert comet["p2p"]["addr_book_strict"] is False
        assert config.read_app(home)["minimum-gas-prices"] == "2000000000wei"
        assert json.loads((tmp_path / "net" / "gentxs" / f"node{at}.json").read_text()) == gentxs[at]
        seed = home.root / "key_seed.json"
        assert seed.stat().st_mode & 0o777 == 0o600
        code, address, _ = stchaind(home.root, "keys", "show", f"node{at}", "-a", "--keyring-backend", "test")
        recovered = stchaind(
            tmp_path / f"other{at}", "keys", "add", "again", "--recover", "--keyring-backend", "test", stdin=json.loads(seed.read_text())["secret"]
        )
        assert address.strip() in recovered[1] + recovered[2]


def test_init_files_on_a_single_host_gives_every_node_its_own_ports(tmp_path: Path) -> None:
    assert (
        init_files(tmp_path, "--single-host", "--v", "2", "--node-dir-prefix", "val", "--node-daemon-home", "d", "--commit-timeout", "700ms")[0] == 0
    )
    second = Home(tmp_path / "net" / "val1" / "d")
    comet, app = config.read_comet(second), config.read_app(second)
    assert (comet["rpc"]["laddr"], comet["p2p"]["laddr"]) == ("tcp://127.0.0.1:26658", "tcp://127.0.0.1:16657")
    assert (app["grpc"]["address"], app["api"]["address"]) == ("127.0.0.1:9091", "tcp://127.0.0.1:1318")
    assert comet["consensus"]["timeout_commit"] == "700ms"
    assert comet["p2p"]["persistent_peers"].endswith("@127.0.0.1:16656")


def test_init_files_says_what_is_wrong_before_it_writes(tmp_path: Path) -> None:
    for flags, told in (
        (["--starting-ip-address", "::1"], "--starting-ip-address must be an IPv4 address with room for 4 nodes, got '::1'"),
        (["--starting-ip-address", "255.255.255.254"], "with room for 4 nodes"),
        (["--minimum-gas-prices", "free"], "--minimum-gas-prices: "),
        (["--chain-id", "with space"], "chain_id: expected 1 to 50 letters"),
        (["--v", "0"], "is not in the range"),
        (["--commit-timeout", "soon"], "--commit-timeout: expected a time as 1s or 500ms, got 'soon'"),
    ):
        code, out, err = init_files(tmp_path, *flags)
        assert (code != 0, out) == (True, "")
        assert told in err
        assert not (tmp_path / "net").exists()
    assert init_files(tmp_path, "--v", "1")[0] == 0
    code, _, err = init_files(tmp_path, "--v", "1")
    assert code == 1
    assert "exists: name another --output-dir" in err


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "localnet.json").read_text())
    return found


@contextlib.contextmanager
def localnet(folder: Path, base: int, *flags: str) -> Iterator[Devnet]:
    """``make localnet`` as a process; its nodes' first block is there."""
    command = [sys.executable, "-m", "tools.localnet", "--folder", str(folder), "--ports", str(base), "--block-time", "500ms", *flags]
    with (folder.parent / "out").open("ab") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
    try:
        path = folder / "localnet.json"
        ask_until(lambda: path.exists() or process.poll() is not None)
        running = Devnet(told(folder), process)
        running.wait_for(1, 60)
        yield running
    finally:
        process.kill()
        process.wait()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout


@pytest.mark.timeout(180)
def test_five_nodes_agree_stop_together_and_go_on(tmp_path: Path) -> None:
    folder, base = tmp_path / "net", free_ports(5 * PORTS_PER_NODE)
    with localnet(folder, base, "--param", "staking.max_entries=3") as running:
        nodes = ask_until(lambda: (found := told(folder)["nodes"]) and all(one["comet_pid"] for one in found) and found)
        assert [node["name"] for node in nodes] == NAMES
        assert [node["validator"] for node in nodes] == [True] * 4 + [False]
        pids = [node[kind] for node in nodes for kind in ("app_pid", "comet_pid")]
        assert len(set(pids)) == 10
        assert all(map(is_alive, pids))
        for node in nodes:
            assert nodekeys.node_id(Home(Path(node["home"]))) == node["node_id"]
        validators = running.rpc("validators")["validators"]
        assert [one["voting_power"] for one in validators] == ["1000000"] * 4
        kinds = [one["key_type"] for one in running.net["accounts"]]
        assert (kinds.count("eth_secp256k1") >= 2, kinds.count("secp256k1") >= 2) == (True, True)
        staking = document.load(Path(nodes[0]["home"]) / "config" / "genesis.json")["app_state"]["staking"]["params"]
        assert (staking["unbonding_time"], staking["max_entries"]) == ("60s", "3")

        others = [Devnet({"rpc": node["rpc"]}, running.process) for node in nodes]
        others[1].wait_for(1)
        bob = running.net["accounts"][5]["address"]
        sent = ["tx", "bank", "send", "alice", bob, "7wei", "--fees", "200000gwei", "-y", "-o", "json", "--keyring-backend", "test"]
        code, out, err = stchaind(Path(running.net["home"]), *sent, "--node", nodes[1]["rpc"])
        assert code == 0, err
        hash_ = base64.b64encode(bytes.fromhex(json.loads(out)["txhash"])).decode()
        heights = [int(ask_until(lambda one=one: one.rpc("tx", hash=hash_))["height"]) for one in others]
        assert len(set(heights)) == 1
        for other in others[1:]:
            other.wait_for(heights[0] + 1)
            same_headers(running, other, heights[0] + 1)

        os.kill(nodes[4]["app_pid"], signal.SIGKILL)
        ask_until(lambda: told(folder)["nodes"][4]["app_pid"] is None)
        height = running.wait_for(running.height() + 2)
        second = subprocess.run([sys.executable, "-m", "tools.localnet", "--folder", str(folder)], cwd=ROOT, capture_output=True, text=True)
        assert (second.returncode, second.stderr) == (
            1,
            f"make localnet: the localnet in {folder} is running already: stop it with Ctrl-C there first\n",
        )
        assert running.stop() == 0
        assert not any(map(is_alive, pids))
        assert [node["app_pid"] for node in told(folder)["nodes"]] == [None] * 5
    assert "full0 ended with exit code -9; the others go on" in (tmp_path / "out").read_text()

    with localnet(folder, base) as running:
        running.wait_for(height + 2)
        full = Devnet({"rpc": nodes[4]["rpc"]}, running.process)
        full.wait_for(height + 2)
        same_headers(running, full, height + 2)
        pids = [one["app_pid"] for one in told(folder)["nodes"]]
        running.process.kill()
        until = time.monotonic() + 30
        while any(map(is_alive, pids)) and time.monotonic() < until:
            time.sleep(0.2)
        assert not any(map(is_alive, pids)), "nodes end with the process that started them"


def test_a_parameter_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.localnet", "--folder", str(tmp_path / "net"), "--param"]
    for param, words in (
        ("staking.unbonding=60s", "staking.unbonding is no parameter of this chain's genesis file"),
        ("a", "takes MODULE.NAME=VALUE"),
    ):
        done = subprocess.run([*command, param], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert words in done.stderr
        assert not (tmp_path / "net" / "localnet.json").exists()
