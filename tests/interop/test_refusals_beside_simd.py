"""The same bad transactions (tests/app/refusals.py) on the real simd: the same codespace and code, or the reason why not."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from chain.api.comet import CometClient
from chain.coins import Coin
from chain.crypto import address as bech32
from tests.app.refusals import CASES, Payer
from tests.interop import peers
from tests.interop.samples import samples
from tests.support import KEYS, ROOT, ask_until, free_ports

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
CHAIN_ID = "test-1"

DIFFERENT: dict[str, tuple[str, int, str]] = {
    "nested 1,000 deep": ("sdk", 11, "simd opens messages to any depth and then has too little gas for their size; here the depth is bounded first"),
    "groups 1,000 deep": ("", 0, "simd skips an unknown non-critical field however deep its groups; here protobuf's parser bounds them"),
    "a critical extension option": ("sdk", 2, "simd knows no type of extension option, so none decodes; here the rule that refuses it is named"),
    "a hexadecimal amount": ("", 0, "Go reads 0x10 as sixteen; here an amount has one spelling, its decimal digits"),
    "an amount with a zero in front": ("", 0, "Go reads 010 as eight, and people as ten"),
}
"""name → (simd's codespace, simd's code, why ours is another)."""


@dataclass
class Simd:
    """A running simd and the account that the cases are built for."""

    client: CometClient
    payer: Payer

    def outcome(self, raw: bytes) -> tuple[str, int]:
        """(codespace, code) of CheckTx, or where that passes, of the block."""
        found = self.send(raw)
        return found.get("codespace", ""), int(found.get("code", 0))

    def send(self, raw: bytes) -> Any:
        """The result of CheckTx, or where that passes, of the block."""
        sent = self.client.call("broadcast_tx_sync", tx=base64.b64encode(raw).decode())
        if sent["code"]:
            return sent
        found = ask_until(lambda: self.client.call("tx", hash=base64.b64encode(bytes.fromhex(sent["hash"])).decode(), prove=False))["tx_result"]
        self.payer = replace(self.payer, sequence=self.payer.sequence + 1)
        return found


@pytest.fixture(scope="module")
def simd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simd]:
    home, binary = tmp_path_factory.mktemp("simd"), peers.simd()
    keyring = ["--keyring-backend", "test"]

    def run(*arguments: str) -> str:
        return subprocess.run([binary, "--home", home, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    run("init", "v", "--chain-id", CHAIN_ID)
    run("keys", "add", "val", *keyring)
    run("genesis", "add-genesis-account", "val", "100000000000stake", *keyring)
    owner, recipient = (bech32.encode(KEYS[number].public_key.address, "cosmos") for number in (2, 3))
    for one in (owner, recipient):
        run("genesis", "add-genesis-account", one, "100000000000stake")
    run("genesis", "gentx", "val", "100000000stake", "--chain-id", CHAIN_ID, *keyring)
    run("genesis", "collect-gentxs")
    base = free_ports(3)
    node = f"tcp://127.0.0.1:{base}"
    ports = ["--rpc.laddr", node, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}", "--api.enable=false"]
    speed_up(home / "config" / "config.toml")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([binary, "--home", home, "start", *ports, "--minimum-gas-prices", "0.01stake"], stdout=log, stderr=log)
    client = CometClient(node)
    try:
        ask_until(lambda: int(client.call("status")["sync_info"]["latest_block_height"]) >= 2)
        number = json.loads(run("query", "auth", "account", owner, "--node", node, "-o", "json"))["account"]["value"].get("account_number", "0")
        yield Simd(client, Payer(KEYS[2], 0, int(number), CHAIN_ID, recipient, "stake", (Coin("stake", 5000),), "cosmos"))
    finally:
        client.close()
        process.terminate()
        process.wait(20)


def speed_up(config: Path) -> None:
    changed = {"timeout_commit": 'timeout_commit = "500ms"', "pprof_laddr": 'pprof_laddr = ""'}
    config.write_text("\n".join(changed.get(line.split(" = ")[0], line) for line in config.read_text().splitlines()) + "\n")


def test_a_good_transaction_of_this_builder_passes(simd: Simd) -> None:
    assert simd.outcome(simd.payer.build()) == ("", 0)


@pytest.mark.parametrize("name", CASES)
def test_simd_refuses_with_the_same_code_or_the_reason_is_written_down(simd: Simd, name: str) -> None:
    build, codespace, code = CASES[name]
    theirs = simd.outcome(build(simd.payer))
    if name in DIFFERENT:
        assert theirs == DIFFERENT[name][:2] != (codespace, code), "the list of differences is no longer right"
    else:
        assert theirs == (codespace, code)


@pytest.fixture(scope="module")
def ours() -> Any:
    done = subprocess.run([sys.executable, "-m", "tests.interop.messages_as_cosmos"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", samples(""))
def test_gas_and_events_of_other_messages_equal_simds(simd: Simd, ours: Any, name: str) -> None:
    theirs = simd.send(simd.payer.build(messages=samples(simd.payer.address)[name]))
    assert int(theirs.get("code", 0)) == 0, theirs["log"]
    assert ours[name]["code"] == 0, ours[name]["log"]
    assert ours[name]["events"] == [[event["type"], [pair["key"] for pair in event["attributes"]]] for event in theirs["events"]]
    assert ours[name]["gas_used"] == int(theirs["gas_used"])
