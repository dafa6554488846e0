"""A client in JavaScript that knows docs/gateway.md alone, against the gateway of a node of a real network.

client.mjs ─► JSON-RPC ─► gateway of node1 ─► nodes 2 to 4
the test   ◄─ JSON of each command, files, what `balance` tells
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from chain.comet import tools_folder
from chain.crypto import address as bech32
from chain.crypto import hd
from sds_node.schemes import THREE_REPLICAS, bill_noz
from tests.interop.storage import serves, storage_network
from tests.support import ask_until
from tools.network import Network

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]
HERE = Path(__file__).parent / "gateway_js"
NODES = 4
"""A gateway does not store with the node that it runs beside, and a file of 3 replicas needs 3 others."""
EMPTY = "v05j1m555fu587j6jih6c1k0uheu1g2o8stakpm0"
STORED = 3
SIGNATURE_FAILURE = -3
COMMAND_S = 120
SETTLED_S = 60
LARGE_BYTES = 5_000_000


@pytest.fixture(scope="module")
def installed() -> Path:
    """A folder with the client and its libraries, from the lock file beside it."""
    folder = tools_folder() / "gateway_js"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "client.mjs", "replay.mjs"):
        shutil.copy(HERE / name, folder / name)
    if not (folder / "node_modules").exists():
        subprocess.run(["npm", "ci", "--silent"], cwd=folder, check=True)
    return folder


@dataclass
class Wallet:
    """Words in a file, used by the client alone."""

    client: Path
    url: str
    words: Path

    @cached_property
    def address(self) -> str:
        return bech32.encode(hd.derive(self.words.read_text(), hd.DEFAULT_PATH, "eth_secp256k1").public_key.address)

    def script(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = ["node", str(self.client / name), self.url, str(self.words), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)

    def run(self, *arguments: str | Path) -> Any:
        done = self.script("client.mjs", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *arguments: str | Path) -> str:
        done = self.script("client.mjs", *arguments)
        assert done.returncode == 1, done.stdout
        return done.stderr

    def noz(self) -> int:
        return int(self.run("balance")["ozone"])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with storage_network(tmp_path_factory.mktemp("gateway"), NODES) as made:
        yield made


def fresh(network: Network, installed: Path, folder: Path) -> Wallet:
    """A new wallet that has ozone, which alice paid."""
    url = network.net["resource_nodes"][0]["gateway"]
    ask_until(lambda: serves(url))
    (folder / "words").write_text(hd.new_mnemonic() + "\n")
    wallet = Wallet(installed, url, folder / "words")
    home = network.folder.path / "alice"
    command = [sys.executable, "-m", "sds_node.cli.ppd", "prepay", "1stos", "--beneficiary", wallet.address, "--home", str(home)]
    done = subprocess.run(command, env=network.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    ask_until(lambda: wallet.noz() or None)
    return wallet


@pytest.fixture(scope="module")
def owner(network: Network, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Wallet:
    return fresh(network, installed, tmp_path_factory.mktemp("owner"))


@pytest.fixture(scope="module")
def reader(network: Network, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Wallet:
    return fresh(network, installed, tmp_path_factory.mktemp("reader"))


@dataclass(frozen=True)
class Stored:
    """A file of 5 MB and what ``put`` told of it."""

    content: bytes
    filehash: str
    replicas: int
    paid_noz: int


def settled_noz(wallet: Wallet, before: int, bill: int) -> int:
    """What ``wallet`` has paid, once nothing is held beyond the bill and the 5 % on what nodes earned."""
    until = time.monotonic() + SETTLED_S
    while not bill <= (paid := before - wallet.noz()) <= bill + bill * 5 // 100:
        assert time.monotonic() < until, f"expected a bill of {bill} noz and at most 5 % more, {paid} noz are gone"
        time.sleep(0.5)
    return paid


@pytest.fixture(scope="module")
def stored(owner: Wallet, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    content = random.Random(1).randbytes(LARGE_BYTES)
    path = tmp_path_factory.mktemp("files") / "five.bin"
    path.write_bytes(content)
    before = owner.noz()
    told = owner.run("put", path)
    paid = settled_noz(owner, before, bill_noz(THREE_REPLICAS, len(content)))
    return Stored(content, told["filehash"], told["replicas"], paid)


def test_an_upload_is_stored_three_times_and_paid_as_billed(owner: Wallet, stored: Stored) -> None:
    assert stored.replicas == 3
    assert 3 * LARGE_BYTES <= stored.paid_noz <= 3 * LARGE_BYTES * 105 // 100
    [found] = owner.run("list")["fileinfo"]
    assert (found["filehash"], found["filename"], found["filesize"]) == (stored.filehash, "five.bin", LARGE_BYTES)


def test_the_owner_reads_it_back_and_pays_a_noz_a_byte(owner: Wallet, stored: Stored, tmp_path: Path) -> None:
    before = owner.noz()
    assert owner.run("get", stored.filehash, tmp_path / "back")["size"] == LARGE_BYTES
    assert (tmp_path / "back").read_bytes() == stored.content
    settled_noz(owner, before, LARGE_BYTES)


@pytest.mark.parametrize("words", [(), ("private",)])
def test_another_wallet_reads_a_shared_file_and_pays_for_it(
    owner: Wallet, reader: Wallet, stored: Stored, tmp_path: Path, words: tuple[str, ...]
) -> None:
    link = owner.run("share", stored.filehash, *words)["sharelink"]
    before, of_owner = reader.noz(), owner.noz()
    reader.run("get-shared", link, tmp_path / "shared")
    assert (tmp_path / "shared").read_bytes() == stored.content
    settled_noz(reader, before, LARGE_BYTES)
    assert owner.noz() == of_owner


def test_a_private_share_needs_its_password_and_a_file_its_owner(owner: Wallet, reader: Wallet, stored: Stored, tmp_path: Path) -> None:
    link, _, password = owner.run("share", stored.filehash, "private")["sharelink"].partition("/")
    wrong = "a" * len(password) if password != "a" * len(password) else "b" * len(password)
    assert "-6" in reader.refused("get-shared", f"{link}/{wrong}", tmp_path / "out")
    assert "-6" in reader.refused("get", stored.filehash, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_empty_file_comes_and_goes(owner: Wallet, tmp_path: Path) -> None:
    (tmp_path / "nothing").touch()
    before = owner.noz()
    assert owner.run("put", tmp_path / "nothing")["filehash"] == EMPTY
    assert owner.run("get", EMPTY, tmp_path / "back")["size"] == 0
    assert (tmp_path / "back").read_bytes() == b""
    owner.run("rm", EMPTY)
    settled_noz(owner, before, 0)


def test_a_file_that_is_there_already_is_not_paid_again(owner: Wallet, stored: Stored, tmp_path: Path) -> None:
    (tmp_path / "again.bin").write_bytes(stored.content)
    before = owner.noz()
    assert owner.run("put", tmp_path / "again.bin")["filehash"] == stored.filehash
    settled_noz(owner, before, 0)
    assert len(owner.run("list")["fileinfo"]) == 1


def test_a_poll_does_not_delete_but_a_deletion_does(owner: Wallet, stored: Stored, tmp_path: Path) -> None:
    done = owner.script("replay.mjs", stored.filehash)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["poll"]["file_upload_state"], told["deletion"]["return"]) == (STORED, SIGNATURE_FAILURE)
    assert told["again"]["user_has_file"] is True
    time.sleep(1.1)  # a deletion in the second of a poll is the same signed string, and refused
    owner.run("rm", stored.filehash)
    assert owner.run("list")["fileinfo"] == []
    assert "-6" in owner.refused("get", stored.filehash, tmp_path / "gone")


def test_the_demo_uploads_shares_reads_and_deletes(owner: Wallet) -> None:
    told = owner.run("demo")
    assert told["is_equal"] is True
    assert told["sharelink"]
    assert owner.run("list")["fileinfo"] == []


def test_a_command_that_is_not_understood_is_told_how(owner: Wallet) -> None:
    assert owner.refused("put").startswith("node client.mjs GATEWAY")
