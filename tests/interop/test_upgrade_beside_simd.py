"""upgrade and crisis beside simd: proposals as its commands make them, queries, and the messages' codes, events and gas."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chain.api.comet import CometClient
from chain.codec.registry import message_class
from chain.crypto.keyring import open_keyring
from tests.interop import peers
from tests.interop.pair import KEYS, WORDS, Side, neutral, pair
from tests.support import stchaind

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
KEYRING = ("--keyring-backend", "test")
GAS = 500_000


def proposals(*arguments: str) -> tuple[str, ...]:
    return ("tx", "upgrade", *arguments, "--title", "Next", "--summary", "Go on", "--deposit", "5wei", "--metadata", "m")


@pytest.mark.parametrize(
    "arguments",
    [
        proposals("software-upgrade", "v2", "--upgrade-height", "70", "--upgrade-info", "anything", "--no-validate"),
        proposals("software-upgrade", "v2", "--no-validate"),
        proposals("cancel-software-upgrade"),
    ],
)
def test_commands_make_the_transactions_of_simds(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    simd = peers.simd()
    add = [simd, "--home", tmp_path / "simd", "keys", "add", "val", "--recover", "--hd-path", "m/44'/606'/0'/0/0", *KEYRING]
    subprocess.run(add, input=WORDS + "\n", text=True, check=True, capture_output=True)
    open_keyring("test", tmp_path / "ours", ask=lambda _: "", notify=lambda _: None).add_private("val", KEYS["val"])
    common = ("--from", "val", "--chain-id", "x", "--generate-only", *KEYRING)
    theirs = subprocess.run([simd, "--home", tmp_path / "simd", *arguments, *common], capture_output=True, text=True, check=True).stdout
    code, ours, err = stchaind(tmp_path / "ours", *arguments, *common)
    assert (code, err) == (0, "")
    assert json.loads(neutral(ours)) == json.loads(neutral(theirs))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    with pair(tmp_path_factory.mktemp("pair")) as sides:
        yield sides


@pytest.mark.parametrize(
    "path",
    [
        "current_plan",
        "authority",
        "applied_plan/v2",
        "upgraded_consensus_state/5",
        "module_versions?module_name=bank",
        "module_versions?module_name=upgrade",
        "module_versions?module_name=nothing",
    ],
)
def test_queries_answer_as_simds(both: tuple[Side, Side], path: str) -> None:
    theirs, ours = (httpx.get(f"{side.rest}/cosmos/upgrade/v1beta1/{path}") for side in both)
    assert (ours.status_code, json.loads(neutral(ours.text))) == (theirs.status_code, json.loads(neutral(theirs.text)))


def test_modules_of_both_have_the_same_versions(both: tuple[Side, Side]) -> None:
    theirs, ours = (
        {one["name"]: one["version"] for one in httpx.get(f"{side.rest}/cosmos/upgrade/v1beta1/module_versions").json()["module_versions"]}
        for side in both
    )
    assert ours.keys() - theirs.keys() == {"register", "sds", "pot", "settlement", "grant"}
    assert {name: version for name, version in ours.items() if name in theirs}.items() <= theirs.items()


def outcome(side: Side, message: Any, sequence: int) -> dict[str, Any]:
    client = CometClient(side.rpc)
    name = f"d {sequence}"
    side.send(name, side.signed(message, "d", sequence, gas=GAS))
    found = client.call("tx", hash=base64.b64encode(bytes.fromhex(side.hash(name))).decode(), prove=False)["tx_result"]
    client.close()
    result: dict[str, Any] = found
    return result


def test_messages_have_simds_codes_events_and_gas(both: tuple[Side, Side]) -> None:
    def messages(side: Side) -> list[Any]:
        verify = message_class("cosmos.crisis.v1beta1.MsgVerifyInvariant")
        me = side.address("d")
        plan = {"name": "v2", "height": 10**6}
        return [
            verify(sender=me, invariant_module_name="bank", invariant_route="total-supply"),
            verify(sender=me, invariant_module_name="bank", invariant_route="nonnegative-outstanding"),
            verify(sender=me, invariant_module_name="bank", invariant_route="nothing"),
            message_class("cosmos.upgrade.v1beta1.MsgSoftwareUpgrade")(authority=me, plan=plan),
            message_class("cosmos.upgrade.v1beta1.MsgCancelUpgrade")(authority=me),
            message_class("cosmos.crisis.v1beta1.MsgUpdateParams")(authority=me, constant_fee={"denom": "wei", "amount": "1"}),
        ]

    gas = []
    for sequence, (theirs, ours) in enumerate(zip(*(messages(side) for side in both), strict=True)):
        told, said = outcome(both[0], theirs, sequence), outcome(both[1], ours, sequence)
        assert (said.get("codespace", ""), said["code"]) == (told.get("codespace", ""), told["code"]), (said["log"], told["log"])
        events = [
            [(one["type"], [(pair["key"], pair["value"]) for pair in one["attributes"] if pair["key"] != "signature"]) for one in found["events"]]
            for found in (told, said)
        ]
        assert neutral(json.dumps(events[1])) == neutral(json.dumps(events[0]))
        gas.append((int(said["gas_used"]), int(told["gas_used"])))
    # What differs is the length of addresses in a transaction, and what else the two banks hold.
    assert all(0 <= told - said <= told // 100 for said, told in gas), gas
