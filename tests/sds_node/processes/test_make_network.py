"""``make network`` as a newcomer uses it: real processes, a file put, read back by another wallet, a node killed, rewards, an orderly stop, and on again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import ROOT, free_ports

pytestmark = pytest.mark.timeout(600)
NODES = 4
UP_S = 240.0


class Made:
    """The network of a folder, started by ``tools.network``."""

    def __init__(self, folder: Path, first_port: int) -> None:
        self.folder, self.first_port = folder, first_port
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tools.network", "--folder", str(self.folder), "--ports", str(self.first_port), "--nodes", str(NODES)]
        with (self.folder.parent / "network.log").open("a") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, text=True, start_new_session=True)
        until(lambda: self.is_up(), UP_S, self.told)

    def is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.told()
        return "try:" in self.told()

    def told(self) -> str:
        return (self.folder.parent / "network.log").read_text()

    @property
    def net(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "network.json").read_text())
        return found

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(120)

    def run(self, module: str, *arguments: Any) -> str:
        password = str(self.folder / "password")
        done = subprocess.run(
            [sys.executable, "-m", f"sds_node.cli.{module}", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "PPD_PASSWORD_FILE": password, "SPD_PASSWORD_FILE": password},
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ppd(self, *arguments: Any, home: str) -> Any:
        return json.loads(self.run("ppd", *arguments, "--home", self.folder / home, "--json"))


def until(is_so: Callable[[], bool], timeout_s: float, told: Callable[[], str]) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, told()
        time.sleep(0.5)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    made = Made(tmp_path_factory.mktemp("made") / "net", free_ports(80))
    try:
        made.start()
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.stop()


def test_each_stage_of_the_start_is_told(network: Made) -> None:
    told = network.told()
    stages = (
        "starting a chain", "the chain is up", "meta nodes made: 1 of 1", "meta nodes that serve: 1 of 1", "resource nodes started: 1 of 4",
        "resource nodes started: 4 of 4", "resource nodes at work: 4 of 4", "users with ozone: alice and bob", "try:",
    )  # fmt: skip
    found = [told.find(f"  {one}") for one in stages]
    assert -1 not in found, told
    assert found == sorted(found), told


def test_what_one_wallet_stores_another_one_reads_and_a_killed_node_does_not_matter(network: Made, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(5_000_000)
    (tmp_path / "video.bin").write_bytes(data)
    before = int(network.ppd("balance", home="alice")["paid_noz"])
    stored = network.ppd("put", tmp_path / "video.bin", "video.bin", home="alice")

    def is_billed() -> bool:
        found = network.ppd("balance", home="alice")
        return (found["open_leases"], before - int(found["paid_noz"])) == (0, stored["charged_noz"])

    # Before a node is killed: what a killed node has not shown yet keeps its lease open until it is too late for it.
    until(is_billed, 60, lambda: str(network.ppd("balance", home="alice")))
    link = network.ppd("share", "video.bin", home="alice")["link"]
    victim = next(one for one in network.net["resource_nodes"])
    os.kill(victim["pid"], signal.SIGKILL)
    network.ppd("get-shared", link, tmp_path / "again.bin", home="bob")
    assert (tmp_path / "again.bin").read_bytes() == data


def test_every_node_answers_the_originals_clients(network: Made) -> None:
    wallet = next(one["wallet"] for one in network.net["users"] if one["name"] == "alice")
    asked = {"jsonrpc": "2.0", "id": 1, "method": "user_requestGetOzone", "params": [{"walletaddr": wallet}]}
    for one in network.net["resource_nodes"][1:]:
        answer = httpx.post(one["gateway"], json=asked, timeout=30).json()["result"]
        assert (answer["return"], answer["sequencynumber"]) == ("0", "SN:0000000000000000000")
        assert int(answer["ozone"]) > 0


def test_the_chain_pays_the_nodes(network: Made) -> None:
    def is_paid(name: str) -> bool:
        told = json.loads(network.run("ppd", "earnings", "--home", network.folder / name, "-o", "json"))
        return int(told["chain"]["immature_wei"]) + int(told["chain"]["mature_wei"]) > 0

    # Three of the four hold the file, and the one that was killed may be one of them.
    running = [one["name"] for one in network.net["resource_nodes"][1:]]
    until(lambda: sum(map(is_paid, running)) >= 2, 150, network.told)


def test_it_stops_in_order_and_goes_on_with_everything_there(network: Made, tmp_path: Path) -> None:
    assert network.stop() == 0
    pids = [one["pid"] for one in (*network.net["meta_nodes"], *network.net["resource_nodes"])]
    assert pids == [None] * (NODES + 1)
    (network.folder.parent / "network.log").write_text("")
    network.start()
    network.ppd("get", "video.bin", tmp_path / "video.bin", home="alice")
    assert (tmp_path / "video.bin").stat().st_size == 5_000_000
