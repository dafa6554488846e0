"""A validator that is absent, jailed, unjailed and signs twice, on the real simd and on ours: events, codes, gas, stored bytes, and what queries answer."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.api.comet import CometClient
from chain.codec.json import to_json
from chain.codec.registry import POOL, message_class
from chain.testing.validators import ValidatorKey
from tests import double_votes
from tests.interop import peers
from tests.interop.punishments import GENESIS_TIME, LOOK_AT, QUESTIONS, WINDOW, stored_keys
from tests.interop.test_refusals_beside_simd import speed_up
from tests.support import CHAIN_ID, ROOT, ask_until, end, free_ports

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
B = ValidatorKey.numbered(1)
UNJAILS = ("in freedom", "without a validator", "without evidence", "too early", "in time", "tombstoned", "with too little stake")
DEPENDS_ON_TIME = ("too early", "in time", "tombstoned", "with too little stake")


@pytest.fixture(scope="module")
def ours() -> Any:
    done = subprocess.run([sys.executable, "-m", "tests.interop.punishments_as_cosmos"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout[done.stdout.index('{"genesis"') :])


@pytest.fixture(scope="module")
def theirs(ours: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home, binary = tmp_path_factory.mktemp("simd"), peers.simd()
    subprocess.run([binary, "--home", home, "init", "v", "--chain-id", CHAIN_ID, "--default-denom", "wei"], capture_output=True, check=True)
    _write_genesis(home, ours["genesis"])
    base = free_ports(3)
    node = f"tcp://127.0.0.1:{base}"
    ports = ["--rpc.laddr", node, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}", "--api.enable=false"]
    speed_up(home / "config" / "config.toml")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([binary, "--home", home, "start", *ports, "--minimum-gas-prices", "0stake"], stdout=log, stderr=log)
    client = CometClient(node)
    try:
        ask_until(lambda: _height(client) >= 1)
        yield Played(client, ours["txs"]).all()
    finally:
        client.close()
        end(process)


def _write_genesis(home: Path, sections: Any) -> None:
    """Ours, where the modules are the same; no inflation; A's key as the node's."""
    path = home / "config" / "genesis.json"
    made = json.loads(path.read_text())
    made["app_state"].update({name: sections[name] for name in ("bank", "genutil", "slashing")})
    made["app_state"]["auth"]["accounts"] = sections["auth"]["accounts"]
    mint = made["app_state"]["mint"]
    mint["minter"]["inflation"] = "0.000000000000000000"
    mint["params"].update(dict.fromkeys(("inflation_rate_change", "inflation_max", "inflation_min"), "0.000000000000000000"))
    made["genesis_time"] = GENESIS_TIME
    path.write_text(json.dumps(made))
    key = ValidatorKey.numbered(0)
    private, public = (base64.b64encode(raw).decode() for raw in (key.seed + key.public_key.raw, key.public_key.raw))
    stored = {
        "address": key.address.hex().upper(),
        "pub_key": {"type": "tendermint/PubKeyEd25519", "value": public},
        "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": private},
    }
    (home / "config" / "priv_validator_key.json").write_text(json.dumps(stored))


def _height(client: CometClient) -> int:
    return int(client.call("status")["sync_info"]["latest_block_height"])


class Played:
    """The same story on simd, in the form of ``punishments_as_cosmos``."""

    def __init__(self, client: CometClient, txs: dict[str, str]) -> None:
        self.client, self.txs = client, {name: base64.b64decode(raw) for name, raw in txs.items()}
        self.steps: dict[str, Any] = {}

    def all(self) -> Any:
        events = {}
        for name in ("in freedom", "without a validator", "without evidence"):
            self.send(name)
        self.wait(WINDOW + 1)
        events["absent"], events["jailed"] = self.begun(LOOK_AT), self.begun(WINDOW + 1)
        stored = {name: self.stored(key) for name, key in stored_keys().items()}
        self.send("too early")
        self.wait_until_out()
        self.send("in time")
        double_signed = self.double_sign()
        events["double signed"] = self.begun(double_signed)
        for name in ("tombstoned", "less stake", "with too little stake"):
            self.send(name)
        answers = {name: self.ask(path, request()) for name, (path, request) in QUESTIONS.items()}
        return {"steps": self.steps, "events": events, "stored": stored, "answers": answers}

    def wait(self, height: int) -> None:
        ask_until(lambda: _height(self.client) >= height)

    def send(self, name: str) -> Any:
        sent = self.client.broadcast(self.txs[name])
        assert sent["code"] == 0, (name, sent["log"])
        wanted = base64.b64encode(bytes.fromhex(sent["hash"])).decode()
        found = ask_until(lambda: self.client.call("tx", hash=wanted, prove=False))["tx_result"]
        self.steps[name] = {
            "code": int(found.get("code", 0)),
            "codespace": found.get("codespace", ""),
            "log": found.get("log", ""),
            "gas_used": int(found["gas_used"]),
            "events": _events(found["events"]),
        }
        return self.steps[name]

    def wait_until_out(self) -> None:
        """Until a block is later than the time that B's signing info names."""
        [info] = [one for one in self.ask(*_asked("signing infos"))["info"] if one["jailed_until"] > "2000"]
        ask_until(lambda: self.client.call("status")["sync_info"]["latest_block_time"] > info["jailed_until"])

    def begun(self, height: int) -> list[Any]:
        """Events of slashing and evidence at the begin of a block."""
        found = self.client.call("block_results", height=str(height))["finalize_block_events"]
        events = [pairs for one, pairs in zip(found, _events(found), strict=True) if {"key": "mode", "value": "BeginBlock"} in _bare(one)]
        return [[kind, [pair for pair in pairs if pair[0] != "mode"]] for kind, pairs in events]

    def stored(self, key: bytes) -> str:
        answer = self.client.abci_query("/store/slashing/key", key, LOOK_AT, False)
        return base64.b64decode(answer.get("value") or "").hex()

    def ask(self, path: str, request: Any) -> Any:
        service, _, method = path.lstrip("/").partition("/")
        response = message_class(POOL.FindServiceByName(service).FindMethodByName(method).output_type.full_name)
        answer = self.client.abci_query(path, request.SerializeToString())
        return answer["log"] if answer.get("code") else to_json(response.FromString(base64.b64decode(answer.get("value") or "")))

    def double_sign(self) -> int:
        """Two votes of B at LOOK_AT, handed to CometBFT; the height of the block that has them as evidence."""
        start = _height(self.client)
        double_votes.post(self.client, CHAIN_ID, B, LOOK_AT, double_votes.NAMES_0_38_11)
        found: int = ask_until(lambda: double_votes.height_with_evidence(self.client, start, _height(self.client)))
        return found


def _asked(name: str) -> tuple[str, Any]:
    path, request = QUESTIONS[name]
    return path, request()


def _bare(event: Any) -> list[dict[str, str]]:
    return [{"key": pair["key"], "value": pair["value"]} for pair in event["attributes"]]


def _events(found: Any) -> list[Any]:
    return [[event["type"], [[pair["key"], pair["value"]] for pair in event["attributes"]]] for event in found]


def punishments(events: list[Any], *, liveness: bool = True) -> list[Any]:
    """What slashing and evidence told, with power in units of our chain: simd's unit is a million of the smallest coin, ours 10^15."""
    kinds = ("slash", "burn", "liveness") if liveness else ("slash", "burn")
    return [[kind, [[name, _power(value) if name == "power" else value] for name, value in pairs]] for kind, pairs in events if kind in kinds]


def _power(text: str) -> str:
    return text.removesuffix("0" * 9)


def test_codes_are_simds(ours: Any, theirs: Any) -> None:
    outcomes = [{name: (step["codespace"], step["code"], step["log"]) for name, step in side["steps"].items()} for side in (ours, theirs)]
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", UNJAILS)
def test_gas_and_events_of_an_unjail_are_simds(ours: Any, theirs: Any, name: str) -> None:
    mine, other = ours["steps"][name], theirs["steps"][name]
    assert mine["events"] == other["events"]
    # Times of blocks are stored, and a nanosecond takes 1 to 5 bytes.
    assert abs(mine["gas_used"] - other["gas_used"]) <= (other["gas_used"] // 100 if name in DEPENDS_ON_TIME else 0)


@pytest.mark.parametrize(("name", "liveness"), [("absent", True), ("jailed", True), ("double signed", False)])
def test_a_block_tells_of_punishments_as_simds_does(ours: Any, theirs: Any, name: str, liveness: bool) -> None:
    mine, other = (punishments(side["events"][name], liveness=liveness) for side in (ours, theirs))
    assert mine == other != []


def test_stored_bytes_are_simds(ours: Any, theirs: Any) -> None:
    assert ours["stored"] == theirs["stored"]
    assert all(theirs["stored"].values())


def test_queries_answer_as_simds(ours: Any, theirs: Any) -> None:
    mine, other = ours["answers"], theirs["answers"]
    assert mine["slashing params"] == other["slashing params"]
    for side in (mine, other):
        for info in side["signing infos"]["info"]:
            for name in ("start_height", "index_offset", "missed_blocks_counter"):  # when blocks came is another matter
                assert int(info.pop(name)) >= 0
        for one in side["evidence"]["evidence"]:
            one["power"] = _power(one["power"])
            assert one.pop("time").startswith("20")
    assert mine == other
