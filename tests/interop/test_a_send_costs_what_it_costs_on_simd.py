"""A MsgSend with a fee on the real simd and on ours: the same gas to the unit, the same events and attributes in the same order."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chain.api.comet import CometClient
from tests.interop import peers
from tests.support import ROOT, ask_until, free_ports

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]


def send_on_simd(home: Path) -> Any:
    """The result of one send, as CometBFT's ``tx`` method shows it."""
    simd = peers.simd()
    keyring = ["--keyring-backend", "test"]

    def run(*arguments: str) -> str:
        return subprocess.run([simd, "--home", home, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    run("init", "v", "--chain-id", "test-1")
    for name in ("val", "a", "b"):
        run("keys", "add", name, *keyring)
        run("genesis", "add-genesis-account", name, "100000000000stake", *keyring)
    run("genesis", "gentx", "val", "100000000stake", "--chain-id", "test-1", *keyring)
    run("genesis", "collect-gentxs")
    base = free_ports(4)
    node = f"tcp://127.0.0.1:{base}"
    ports = ["--rpc.laddr", node, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}"]
    ports += ["--minimum-gas-prices", "0stake", "--api.enable=false"]
    config = home / "config" / "config.toml"
    lines = config.read_text().splitlines()
    changed = {"timeout_commit": 'timeout_commit = "1s"', "pprof_laddr": 'pprof_laddr = ""'}
    config.write_text("\n".join(changed.get(line.split(" = ")[0], line) for line in lines) + "\n")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([simd, "--home", home, "start", *ports], stdout=log, stderr=log)
    client = CometClient(node)
    try:
        ask_until(lambda: int(client.call("status")["sync_info"]["latest_block_height"]) >= 2)
        to = run("keys", "show", "b", "-a", *keyring)
        common = ["--chain-id", "test-1", "--node", node, "-y", "-o", "json", *keyring]
        sent = json.loads(run("tx", "bank", "send", "a", to, "1000stake", "--fees", "2000stake", *common))
        found = base64.b64encode(bytes.fromhex(sent["txhash"])).decode()
        return ask_until(lambda: client.call("tx", hash=found, prove=False))
    finally:
        client.close()
        process.terminate()
        process.wait(20)


def test_gas_and_events_of_a_send_equal_simds(tmp_path: Path) -> None:
    theirs = send_on_simd(tmp_path)
    done = subprocess.run([sys.executable, "-m", "tests.interop.send_as_cosmos"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)
    assert ours["code"] == 0
    assert ours["tx_bytes"] == len(base64.b64decode(theirs["tx"]))
    assert ours["gas_used"] == int(theirs["tx_result"]["gas_used"])
    assert ours["events"] == [[event["type"], [pair["key"] for pair in event["attributes"]]] for event in theirs["tx_result"]["events"]]
