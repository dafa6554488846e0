"""A second node, with its own home and CometBFT, joins by block sync, follows, and has the same app hash at every height."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chain import config, nodekeys
from chain.api.comet import CometClient
from chain.config import Home
from tests.support import ROOT, Devnet, devnet, free_ports

pytestmark = pytest.mark.timeout(180)


def test_a_second_node_joins_by_block_sync_and_agrees_on_every_app_hash(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    with devnet(tmp_path / "first") as first:
        first.wait_for(4)
        home = Home(tmp_path / "second")
        nodekeys.create_missing(home)
        config.write_defaults(home, "second")
        shutil.copy(Home(Path(first.net["home"])).genesis, home.genesis)
        peer = first.net["rpc"].removeprefix("http://").rpartition(":")
        base = free_ports(3)
        rpc = f"tcp://127.0.0.1:{base}"
        flags = ["--rpc.laddr", rpc, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}", "--api.enable", "false"]
        flags += ["--p2p.persistent_peers", f"{nodekeys.node_id(Home(Path(first.net['home'])))}@127.0.0.1:{int(peer[2]) + 1}"]
        with (tmp_path / "second.log").open("wb") as log:
            command = [sys.executable, "-m", "chain.cli.main", "--home", str(home.root), "start", *flags]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        second = Devnet({"rpc": rpc}, process)
        try:
            height = second.wait_for(first.height() + 2, 90)
            clients = [CometClient(net["rpc"]) for net in (first.net, second.net)]
            for at in range(1, height + 1):
                ours, theirs = (client.call("header", height=str(at))["header"] for client in clients)
                assert ours == theirs
            for client in clients:
                found = client.abci_query("/store/bank/key", b"\x00wei", height)
                assert int(base64.b64decode(found["value"])) > 0
                client.close()
        finally:
            process.terminate()
            assert process.wait(30) == 0
