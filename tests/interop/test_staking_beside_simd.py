"""staking beside simd: commands, the same messages with their codes, events and gas, what matures, and every query."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chain.api.comet import CometClient
from chain.codec.registry import message_class
from chain.crypto.keyring import open_keyring
from chain.crypto.keys import Ed25519PublicKey, public_key_to_any
from tests.interop import peers
from tests.interop.pair import KEYS, WORDS, Side, neutral, pair
from tests.support import ask_until, stchaind

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
KEYRING = ("--keyring-backend", "test")
PACKAGE = "cosmos.staking.v1beta1"
GAS = 600_000
UNIT = 10**15
UNBONDING_S = 60


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    with pair(tmp_path_factory.mktemp("pair"), staking={"unbonding_time": f"{UNBONDING_S}s", "max_entries": 3}) as sides:
        yield sides


class Told:
    """A side with its sequences, and what it said of each message."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.sequences = {"c": 0, "d": 0}
        self.outcomes: list[dict[str, Any]] = []
        self.height_of: dict[str, int] = {}

    def operator(self, name: str) -> str:
        return self.side.address(name, "valoper")

    def send(self, sender: str, message: Any) -> dict[str, Any]:
        sequence = self.sequences[sender]
        self.sequences[sender] += 1
        name = f"{sender} {sequence}"
        self.side.send(name, self.side.signed(message, sender, sequence, gas=GAS))
        self.height_of[name] = self.side.heights[name]
        client = CometClient(self.side.rpc)
        found: dict[str, Any] = client.call("tx", hash=base64.b64encode(bytes.fromhex(self.side.hash(name))).decode(), prove=False)["tx_result"]
        client.close()
        self.outcomes.append(found)
        return found

    def steps(self) -> list[tuple[str, Any]]:
        """(sender, how the message is made) in order: what succeeds, and what does not."""
        me, val, other = self.side.address("d"), self.operator("val"), self.operator("c")

        def wei(amount: int, denom: str = "wei") -> dict[str, str]:
            return {"denom": denom, "amount": str(amount)}

        def make(name: str, **fields: Any) -> Any:
            return lambda: message_class(f"{PACKAGE}.{name}")(**fields)

        def give(operator: str, amount: int, denom: str = "wei") -> Any:
            return make("MsgDelegate", delegator_address=me, validator_address=operator, amount=wei(amount, denom))

        def take(operator: str, amount: int) -> Any:
            return make("MsgUndelegate", delegator_address=me, validator_address=operator, amount=wei(amount))

        def move(source: str, destination: str, amount: int) -> Any:
            addresses = {"validator_src_address": source, "validator_dst_address": destination}
            return make("MsgBeginRedelegate", delegator_address=me, **addresses, amount=wei(amount))

        def back(amount: int, taken: str) -> Any:
            return lambda: message_class(f"{PACKAGE}.MsgCancelUnbondingDelegation")(
                delegator_address=me, validator_address=val, amount=wei(amount), creation_height=self.height_of[taken]
            )

        keep = {name: "[do-not-modify]" for name in ("moniker", "identity", "website", "security_contact", "details")}
        rates = {"rate": str(10**17), "max_rate": str(2 * 10**17), "max_change_rate": str(10**16)}
        create = {
            "description": {"moniker": "c", "details": "d"},
            "commission": rates,
            "min_self_delegation": "5",
            "validator_address": other,
            "pubkey": public_key_to_any(Ed25519PublicKey(bytes(range(32)))),
            "value": wei(100 * UNIT),
        }
        return [
            ("c", make("MsgCreateValidator", **{**create, "commission": {**rates, "rate": str(3 * 10**17)}})),
            ("c", make("MsgCreateValidator", **{**create, "pubkey": public_key_to_any(KEYS["c"].public_key)})),
            ("c", make("MsgCreateValidator", **create)),
            ("c", make("MsgCreateValidator", **create)),
            ("d", give(val, 30 * UNIT + 1)),  # d 0
            ("d", give(other, 5 * UNIT)),
            ("d", take(val, 4 * UNIT)),  # d 2
            ("d", take(val, 3 * UNIT)),
            ("d", back(UNIT, "d 2")),
            ("d", move(val, other, 6 * UNIT)),
            ("d", move(other, val, UNIT)),
            ("d", give(val, 5, "abc")),
            ("d", give(self.operator("b"), 5)),
            ("d", take(val, 10**18)),
            ("d", back(10**18, "d 2")),
            ("d", move(val, self.operator("b"), 5)),
            ("d", move(val, val, 5)),
            ("c", make("MsgEditValidator", description={**keep, "details": "other"}, validator_address=other)),
            ("c", make("MsgEditValidator", description=keep, validator_address=other, min_self_delegation="7")),
            ("c", make("MsgEditValidator", description=keep, validator_address=other, min_self_delegation="7")),
            ("c", make("MsgEditValidator", description=keep, validator_address=other, commission_rate=str(11 * 10**16))),
            ("c", make("MsgEditValidator", description={}, validator_address=other)),
            ("d", make("MsgUpdateParams", authority=me, params={"bond_denom": "wei"})),
            ("d", take(other, 2 * UNIT)),
        ]


@pytest.fixture(scope="module")
def told(both: tuple[Side, Side]) -> tuple[Told, Told]:
    sides = Told(both[0]), Told(both[1])
    for (sender, theirs), (_, ours) in zip(*(side.steps() for side in sides), strict=True):
        for side, make in zip(sides, (theirs, ours), strict=True):
            side.send(sender, make())
    return sides


VARIES = ("completion_time", "creation_height", "signature")


def events(found: dict[str, Any]) -> list[Any]:
    """Without times and heights, and without the amounts of rewards: they depend on how many blocks there were."""
    rewards = {pair["value"] for one in found["events"] if one["type"] == "withdraw_rewards" for pair in one["attributes"] if pair["key"] == "amount"}
    listed = [
        (one["type"], [(pair["key"], "" if pair["key"] in VARIES or pair["value"] in rewards else pair["value"]) for pair in one["attributes"]])
        for one in found["events"]
    ]
    return json.loads(re.sub(r"update_time:<[^>]*>", "update_time:<>", neutral(json.dumps(listed))))  # type: ignore[no-any-return]


def test_messages_have_simds_codes_and_events(told: tuple[Told, Told]) -> None:
    for theirs, ours in zip(told[0].outcomes, told[1].outcomes, strict=True):
        assert (ours.get("codespace", ""), ours["code"]) == (theirs.get("codespace", ""), theirs["code"]), (ours["log"], theirs["log"])
        assert events(ours) == events(theirs)


def test_messages_take_simds_gas(told: tuple[Told, Told]) -> None:
    """What differs is the length of addresses: our prefix has four characters less, in transactions and in what is stored."""
    gas = [(int(ours["gas_used"]), int(theirs["gas_used"])) for theirs, ours in zip(told[0].outcomes, told[1].outcomes, strict=True)]
    assert all(0 <= theirs - ours <= theirs // 50 for ours, theirs in gas), gas


QUERIES = [
    "validators",
    "validators?status=BOND_STATUS_BONDED",
    "validators?status=BOND_STATUS_NOTHING",
    "validators?pagination.limit=1",
    "validators/OTHER",
    "validators/NOBODY",
    "validators/OTHER/delegations",
    "validators/VAL/unbonding_delegations",
    "validators/VAL/delegations/ME",
    "validators/NOBODY/delegations/ME",
    "validators/VAL/delegations/ME/unbonding_delegation",
    "validators/NOBODY/delegations/ME/unbonding_delegation",
    "delegations/ME",
    "delegations/ME?pagination.limit=1&pagination.count_total=true",
    "delegators/ME/unbonding_delegations",
    "delegators/ME/redelegations",
    "delegators/ME/redelegations?src_validator_addr=VAL&dst_validator_addr=OTHER",
    "delegators/ME/redelegations?src_validator_addr=OTHER&dst_validator_addr=VAL",
    "delegators/ME/validators",
    "delegators/ME/validators/OTHER",
    "delegators/ME/validators/NOBODY",
    "historical_info/3",
    "historical_info/1000000",
    "pool",
    "params",
]


def answers(side: Told, path: str) -> tuple[int, Any]:
    for word, text in (
        ("OTHER", side.operator("c")),
        ("NOBODY", side.operator("b")),
        ("VAL", side.operator("val")),
        ("/ME", "/" + side.side.address("d")),
    ):
        path = path.replace(word, text)
    found = httpx.get(f"{side.side.rest}/cosmos/staking/v1beta1/{path}")
    text = neutral(found.text)
    for name in ("completion_time", "creation_height", "update_time", "unbonding_time", "key", "next_key", "time", "app_hash", "proposer_address"):
        text = re.sub(rf'"{name}":("[^"]*"|[0-9]+)', f'"{name}":""', text)
    for name in ("last_commit_hash", "next_validators_hash", "chain_id"):
        text = re.sub(rf'"{name}":"[^"]+"', f'"{name}":"x"', text)
    return found.status_code, json.loads(text)


@pytest.mark.parametrize("path", QUERIES)
def test_queries_answer_as_simds(told: tuple[Told, Told], path: str) -> None:
    assert answers(told[1], path) == answers(told[0], path)


def test_the_header_of_history_is_the_blocks(told: tuple[Told, Told]) -> None:
    """Of each side against its own blocks: the hashes are its own."""
    for one in told:
        client = CometClient(one.side.rpc)
        found = httpx.get(f"{one.side.rest}/cosmos/staking/v1beta1/historical_info/5").json()["hist"]["header"]
        header = client.call("block", height="5")["block"]["header"]
        client.close()
        for name in ("app_hash", "next_validators_hash", "proposer_address"):
            assert base64.b64decode(found[name]).hex().upper() == header[name]
        assert found["time"] == header["time"]
        empty = {name for name, value in found.items() if not value}
        assert empty == {"last_commit_hash", "data_hash", "validators_hash", "consensus_hash", "last_results_hash", "evidence_hash"}


def test_what_matures_is_told_alike(told: tuple[Told, Told]) -> None:
    found = []
    for one in told:
        client = CometClient(one.side.rpc)
        first = min(one.side.heights.values())

        def matured(client: CometClient = client, first: int = first, one: Told = one) -> list[Any] | None:
            seen = []
            for height in range(first, one.side.height() + 1):
                results = client.call("block_results", height=str(height))
                seen += [event for event in results["finalize_block_events"] or () if event["type"].startswith("complete_")]
            return seen if len(seen) >= 4 else None

        until = time.monotonic() + 3 * UNBONDING_S
        seen = matured()
        while seen is None and time.monotonic() < until:
            time.sleep(1)
            seen = matured()
        client.close()
        found.append(json.loads(neutral(json.dumps(seen))))
    assert found[1] == found[0]
    ask_until(lambda: answers(told[1], "delegators/ME/unbonding_delegations") == answers(told[0], "delegators/ME/unbonding_delegations"), 30)


VALIDATOR_JSON = {
    "pubkey": {"@type": "/cosmos.crypto.ed25519.PubKey", "key": base64.b64encode(bytes(range(32))).decode()},
    "amount": "1000000wei",
    "moniker": "m",
    "security": "s",
    "commission-rate": "0.1",
    "commission-max-rate": "0.25",
    "commission-max-change-rate": "0.01",
    "min-self-delegation": "1",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ("create-validator", "FILE"),
        ("create-validator", "FILE", "--node-id", "abc", "--ip", "1.2.3.4"),
        ("edit-validator",),
        ("edit-validator", "--new-moniker", "n", "--website", "w", "--commission-rate", "0.12", "--min-self-delegation", "7"),
        ("delegate", "VAL", "5wei"),
        ("redelegate", "VAL", "OTHER", "5wei"),
        ("unbond", "VAL", "5wei"),
        ("cancel-unbond", "VAL", "5wei", "7"),
    ],
)
def test_commands_make_the_transactions_of_simds(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    simd = peers.simd()
    add = [simd, "--home", tmp_path / "simd", "keys", "add", "val", "--recover", "--hd-path", "m/44'/606'/0'/0/0", *KEYRING]
    subprocess.run(add, input=WORDS + "\n", text=True, check=True, capture_output=True)
    open_keyring("test", tmp_path / "ours", ask=lambda _: "", notify=lambda _: None).add_private("val", KEYS["val"])
    (tmp_path / "validator.json").write_text(json.dumps(VALIDATOR_JSON))
    common = ("--from", "val", "--chain-id", "x", "--generate-only", *KEYRING)

    def filled(prefix: str) -> list[str]:
        side = Side("", prefix, tmp_path, 0)
        words = {"FILE": str(tmp_path / "validator.json"), "VAL": side.address("val", "valoper"), "OTHER": side.address("a", "valoper")}
        return ["tx", "staking", *(words.get(one, one) for one in arguments), *common]

    theirs = subprocess.run([simd, "--home", tmp_path / "simd", *filled("cosmos")], capture_output=True, text=True, check=True).stdout
    code, ours, err = stchaind(tmp_path / "ours", *filled("st"))
    assert (code, err) == (0, "")
    assert json.loads(neutral(ours)) == json.loads(neutral(theirs))
