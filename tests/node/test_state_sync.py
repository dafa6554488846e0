"""A third way to join: a node with an empty home takes a snapshot through CometBFT's state sync, and follows."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chain import config, nodekeys
from chain.api.comet import CometClient
from chain.config import Home
from tests.support import ROOT, Devnet, devnet, free_ports

pytestmark = pytest.mark.timeout(240)


def test_a_node_joins_by_state_sync_and_follows(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    with devnet(tmp_path / "first") as running:
        running.wait_for(1)
        running.stop()
    first_home = Home(tmp_path / "first" / "home")
    config.update(first_home.app_config, {"state-sync.snapshot-interval": 5})
    with devnet(tmp_path / "first") as first:
        first.wait_for(8)
        until = time.monotonic() + 60
        while not list(first_home.snapshots.glob("*/*/metadata.json")) and time.monotonic() < until:
            time.sleep(0.2)
        comet = CometClient(first.net["rpc"])
        trusted = comet.call("header", height="2")["header"]
        trusted_hash = comet.call("block", height="2")["block_id"]["hash"]
        home = Home(tmp_path / "third")
        nodekeys.create_missing(home)
        config.write_defaults(home, "third")
        shutil.copy(first_home.genesis, home.genesis)
        config.update(
            home.comet_config,
            {
                "statesync.enable": True,
                "statesync.rpc_servers": f"{first.net['rpc']},{first.net['rpc']}",
                "statesync.trust_height": int(trusted["height"]),
                "statesync.trust_hash": trusted_hash,
                "statesync.discovery_time": "5s",
            },
        )
        base = free_ports(3)
        rpc = f"tcp://127.0.0.1:{base}"
        peer_port = int(first.net["rpc"].rpartition(":")[2]) + 1
        flags = ["--rpc.laddr", rpc, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}", "--api.enable", "false"]
        flags += ["--p2p.persistent_peers", f"{nodekeys.node_id(first_home)}@127.0.0.1:{peer_port}"]
        with (tmp_path / "third.log").open("wb") as log:
            command = [sys.executable, "-m", "chain.cli.main", "--home", str(home.root), "start", *flags]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        third = Devnet({"rpc": rpc}, process)
        try:
            height = third.wait_for(first.height() + 2, 120)
            assert b"restored a snapshot" in (tmp_path / "third.log").read_bytes()
            synced = CometClient(rpc)
            earliest = int(synced.call("status")["sync_info"]["earliest_block_height"])
            assert earliest > 1, "the blocks before the snapshot were not fetched"
            for at in range(earliest + 1, height + 1):
                assert synced.call("header", height=str(at)) == comet.call("header", height=str(at))
            theirs, ours = (client.abci_query("/store/bank/key", b"\x00wei", height - 1) for client in (comet, synced))
            assert int(base64.b64decode(ours["value"])) > 0
            assert ours["value"] == theirs["value"]
            synced.close()
            comet.close()
        finally:
            process.terminate()
            assert process.wait(30) == 0
