"""Grants and allowances (grants_scenario.py) on the real simd and on ours: codes, gas to the unit, events, data, and what queries answer."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from chain.api.comet import CometClient
from chain.codec.json import to_json
from chain.codec.registry import POOL, message_class
from chain.crypto import address as bech32
from tests.interop import peers
from tests.interop.grants_scenario import COINS, Player, questions, steps
from tests.interop.test_refusals_beside_simd import speed_up
from tests.support import CHAIN_ID, KEYS, ROOT, ask_until, end, free_ports

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
STEPS = [step.name for step in steps()]


@pytest.fixture(scope="module")
def ours() -> Any:
    done = subprocess.run([sys.executable, "-m", "tests.interop.grants_as_cosmos"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home, binary = tmp_path_factory.mktemp("simd"), peers.simd()
    keyring = ["--keyring-backend", "test"]

    def run(*arguments: str) -> None:
        subprocess.run([binary, "--home", home, *arguments], capture_output=True, text=True, check=True)

    run("init", "v", "--chain-id", CHAIN_ID)
    run("keys", "add", "val", *keyring)
    run("genesis", "add-genesis-account", "val", "100000000000stake", *keyring)
    for private in KEYS:
        coins = ",".join(f"{amount}{denom}" for denom, amount in COINS.items())
        run("genesis", "add-genesis-account", bech32.encode(private.public_key.address, "cosmos"), coins)
    run("genesis", "gentx", "val", "100000000stake", "--chain-id", CHAIN_ID, *keyring)
    run("genesis", "collect-gentxs")
    base = free_ports(3)
    node = f"tcp://127.0.0.1:{base}"
    ports = ["--rpc.laddr", node, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}", "--api.enable=false"]
    speed_up(home / "config" / "config.toml")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([binary, "--home", home, "start", *ports, "--minimum-gas-prices", "0stake"], stdout=log, stderr=log)
    client = CometClient(node)
    try:
        ask_until(lambda: int(client.call("status")["sync_info"]["latest_block_height"]) >= 2)
        yield played(client)
    finally:
        client.close()
        end(process)


def played(client: CometClient) -> Any:
    """Every step's result and every answer of simd, in the form of ``grants_as_cosmos``."""

    def submit(raw: bytes) -> dict[str, Any]:
        sent = client.broadcast(raw)
        if sent["code"]:
            return {"code": sent["code"], "codespace": sent["codespace"], "log": sent["log"]}
        wanted = base64.b64encode(bytes.fromhex(sent["hash"])).decode()
        found = ask_until(lambda: client.call("tx", hash=wanted, prove=False))["tx_result"]
        events = [[event["type"], [[pair["key"], pair["value"]] for pair in event["attributes"]]] for event in found["events"]]
        data = base64.b64decode(found.get("data") or "").hex()
        return {
            "code": int(found.get("code", 0)),
            "codespace": found.get("codespace", ""),
            "log": found.get("log", ""),
            "gas_used": int(found["gas_used"]),
            "data": data,
            "events": events,
        }

    def ask(path: str, request: Any) -> Any:
        service, _, method = path.lstrip("/").partition("/")
        response = message_class(POOL.FindServiceByName(service).FindMethodByName(method).output_type.full_name)
        answer = client.abci_query(path, request.SerializeToString())
        return answer["log"] if answer.get("code") else to_json(response.FromString(base64.b64decode(answer.get("value") or "")))

    def number(address: str) -> int:
        request = message_class("cosmos.auth.v1beta1.QueryAccountInfoRequest")(address=address)
        return int(ask("/cosmos.auth.v1beta1.Query/AccountInfo", request)["info"]["account_number"])

    player = Player(submit, number)
    return {"steps": {step.name: player.play(step) for step in steps()}, "answers": {name: ask(*asked) for name, asked in questions().items()}}


def without_signatures(events: list[Any]) -> list[Any]:
    """Events but for what is signed: account numbers are not the same."""
    return [[kind, [pair for pair in pairs if pair[0] != "signature"]] for kind, pairs in events]


@pytest.mark.parametrize("name", STEPS)
def test_a_step_does_what_it_does_on_simd(ours: Any, theirs: Any, name: str) -> None:
    mine, other = ours["steps"][name], theirs["steps"][name]
    assert (mine["codespace"], mine["code"]) == (other["codespace"], other["code"]), (mine["log"], other["log"])
    assert ("events" in mine) == ("events" in other)
    if "events" in mine:
        assert without_signatures(mine["events"]) == without_signatures(other["events"])
        assert mine["data"] == other["data"]
        assert mine["gas_used"] == other["gas_used"]


@pytest.mark.parametrize("name", questions())
def test_a_query_answers_what_simd_answers(ours: Any, theirs: Any, name: str) -> None:
    assert ours["answers"][name] == theirs["answers"][name]
