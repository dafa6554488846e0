"""sdubo, unmodified, with a gateway behind it: what one node adds, another one with an empty repository gets by its CID (reference sds.md 9.2).

    sdubo add ─► gateway of node1 ─► nodes 2 to 4 ─► gateway of node1 ─► sdubo get, another repository, another key

sdubo is in no registry: ``STRATOS_SDUBO`` names its binary; without it these tests are skipped. Its nodes know no peers and listen on loopback at most.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from tests.interop.storage import storage_network
from tests.support import ask_until
from tools.network import Network

SDUBO = os.environ.get("STRATOS_SDUBO", "")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not SDUBO, reason="sdubo is in no registry: name its binary by STRATOS_SDUBO"),
]
NODES = 4
"""A gateway does not store with the node that it runs beside, and a file of 3 replicas needs 3 others."""
COMMAND_S = 120


class Repository:
    """One node of sdubo: a repository with a wallet of its own."""

    def __init__(self, folder: Path, gateway: str, *, is_enabled: bool = True) -> None:
        self.key = PrivateKey(random.SystemRandom().randbytes(32), "eth_secp256k1")
        self._environment = {**os.environ, "IPFS_PATH": str(folder / "repository")}
        (folder / "cache").mkdir(parents=True)
        self.run("init", "--profile", "test")
        settings = {"Enabled": is_enabled, "PrivateKey": "0x" + self.key.raw.hex(), "RpcURL": gateway, "CacheFolder": str(folder / "cache")}
        self.run("config", "--json", "Sds", json.dumps(settings))

    @property
    def wallet(self) -> str:
        return bech32.encode(self.key.public_key.address)

    def run(self, *arguments: str | Path) -> str:
        done = subprocess.run([SDUBO, *map(str, arguments)], env=self._environment, capture_output=True, text=True, timeout=COMMAND_S)
        assert done.returncode == 0, done.stderr + done.stdout[-2_000:]
        return done.stdout


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with storage_network(tmp_path_factory.mktemp("sdubo"), NODES) as made:
        yield made


def noz(gateway: str, wallet: str) -> int:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "user_requestGetOzone", "params": [{"walletaddr": wallet}]}
    try:
        return int(httpx.post(gateway, json=asked, timeout=30, trust_env=False).json()["result"]["ozone"])
    except httpx.TransportError:
        return 0


@pytest.fixture(scope="module")
def gateway(network: Network) -> str:
    url: str = network.net["resource_nodes"][0]["gateway"]
    return url


def repository(network: Network, gateway: str, folder: Path) -> Repository:
    """With ozone, which alice paid."""
    made = Repository(folder, gateway)
    home = network.folder.path / "alice"
    command = [sys.executable, "-m", "sds_node.cli.ppd", "prepay", "1stos", "--beneficiary", made.wallet, "--home", str(home)]
    done = subprocess.run(command, env=network.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    ask_until(lambda: noz(gateway, made.wallet))
    return made


def test_what_one_node_adds_another_one_gets_by_its_cid(network: Network, gateway: str, tmp_path: Path) -> None:
    adding, getting = repository(network, gateway, tmp_path / "adding"), repository(network, gateway, tmp_path / "getting")
    plain = Repository(tmp_path / "plain", gateway, is_enabled=False)
    path, folder = tmp_path / "photo.bin", tmp_path / "album"
    path.write_bytes(random.SystemRandom().randbytes(1_500_000))
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"page {number} of {adding.wallet}\n")

    cid = plain.run("add", "--only-hash", "--quieter", path).split()[-1]
    before = noz(gateway, adding.wallet)
    assert "added" in adding.run("add", path)
    assert noz(gateway, adding.wallet) < before
    getting.run("get", cid, "--output", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()

    assert "added" in adding.run("add", path)  # once more: the link is there already

    root = plain.run("add", "--only-hash", "--quieter", "--recursive", folder).split()[-1]
    adding.run("add", "--recursive", folder)
    getting.run("get", root, "--output", tmp_path / "pages")
    assert {one.name: one.read_text() for one in (tmp_path / "pages").iterdir()} == {one.name: one.read_text() for one in folder.iterdir()}
