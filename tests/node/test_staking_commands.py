"""``tx staking``: each command's transaction, signed and executed, does what it says; what is typed wrong is one sentence."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from chain.codec.registry import message_class
from chain.crypto.keyring import open_keyring
from tests.modules.test_staking import UNIT, Net, create, delegate, operator, undelegate
from tests.support import CHAIN_ID, KEYS, stchaind, text

KEYRING = ("--keyring-backend", "test")
VALIDATOR = {
    "pubkey": {"@type": "/cosmos.crypto.ed25519.PubKey", "key": base64.b64encode(bytes(range(32))).decode()},
    "amount": "50gwei",
    "moniker": "mine",
    "security": "write to me",
    "commission-rate": "0.1",
    "commission-max-rate": "0.2",
    "commission-max-change-rate": "0.01",
    "min-self-delegation": "3",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_keyring("test", tmp_path / "home", ask=lambda _: "", notify=lambda _: None).add_private("alice", KEYS[2])
    (tmp_path / "validator.json").write_text(json.dumps(VALIDATOR))
    return tmp_path


def made(home: Path, *arguments: str) -> tuple[int, str, str]:
    given = [str(home / "validator.json") if one == "FILE" else one for one in arguments]
    common = ("--from", "alice", "--fees", "600000gwei", "--gas", "600000", "--generate-only", *KEYRING)
    return stchaind(home / "home", "tx", "staking", *given, *common)


def executed(home: Path, net: Net, *arguments: str) -> Any:
    """The result of a command's transaction in a block."""
    code, unsigned, err = made(home, *arguments)
    assert (code, err) == (0, "")
    (home / "unsigned.json").write_text(unsigned)
    sequence = net.sequences.get(2, 0)
    offline = ("--offline", "--chain-id", CHAIN_ID, "--account-number", "2", "--sequence", str(sequence))
    signing = ("tx", "sign", str(home / "unsigned.json"), "--from", "alice", *offline, *KEYRING)
    (home / "signed.json").write_text(stchaind(home / "home", *signing)[1])
    raw = base64.b64decode(stchaind(home / "home", "tx", "encode", str(home / "signed.json"))[1])
    net.sequences[2] = sequence + 1
    result = net.driver.next_block([raw]).results[0]
    assert result.code == 0, result.log
    return result


def test_delegate_unbond_cancel_and_redelegate(home: Path) -> None:
    net = Net()
    net.ok(1, create(1))
    executed(home, net, "delegate", operator(0), "0.01stos")
    executed(home, net, "unbond", operator(0), f"{4 * UNIT}wei")
    executed(home, net, "cancel-unbond", operator(0), f"{UNIT}wei", str(net.driver.height))
    executed(home, net, "redelegate", operator(0), operator(1), f"{2 * UNIT}wei")
    held = {one["delegation"]["validator_address"]: one["balance"]["amount"] for one in delegations(net)}
    assert held == {operator(0): str(5 * UNIT), operator(1): str(2 * UNIT)}
    net.fine()


def delegations(net: Net) -> Any:
    return net.ask("DelegatorDelegations", delegator_addr=text(KEYS[2]))["delegation_responses"]


def test_create_and_edit_a_validator(home: Path) -> None:
    net = Net()
    executed(home, net, "create-validator", "FILE")
    executed(home, net, "edit-validator", "--details", "more", "--min-self-delegation", "4")
    found = net.ask("Validator", validator_addr=operator(2))["validator"]
    assert found["description"] == {"moniker": "mine", "identity": "", "website": "", "security_contact": "write to me", "details": "more"}
    assert (found["tokens"], found["min_self_delegation"]) == (str(50 * 10**9), "4")
    assert found["commission"]["commission_rates"]["max_rate"] == "0.200000000000000000"


def test_the_memo_of_a_validator_to_be_names_its_node(home: Path) -> None:
    code, out, _ = made(home, "create-validator", "FILE", "--node-id", "ab", "--ip", "1.2.3.4", "--p2p-port", "7")
    assert (code, json.loads(out)["body"]["memo"]) == (0, "ab@1.2.3.4:7")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("delegate", "stvaloper1x", "5wei"), "decoding bech32 failed"),
        (("delegate", text(KEYS[1]), "5wei"), "expected stvaloper"),
        (("delegate", operator(0), "5wei,6abc"), "expected one coin"),
        (("delegate", operator(0), ""), "expected one coin"),
        (("cancel-unbond", operator(0), "5wei", "x"), "not a valid integer"),
        (("edit-validator", "--commission-rate", "much"), "expected a decimal"),
        (("edit-validator", "--min-self-delegation", "1.5"), "whole number"),
    ],
)
def test_what_is_typed_wrong_is_said_in_a_sentence(home: Path, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = made(home, *arguments)
    assert code != 0
    assert out == ""
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"moniker": ""}, "does not have moniker"),
        ({"pubkey": None, "amount": ""}, "does not have pubkey, amount"),
        ({"pubkey": {"@type": "/nothing"}}, "no type"),
        ({"details": 5}, "something else than text"),
        ({"commission-rate": "x"}, "expected a decimal"),
        ({"amount": "5"}, "invalid coin"),
    ],
)
def test_a_validator_file_that_cannot_be_says_why(home: Path, changed: dict[str, Any], words: str) -> None:
    (home / "validator.json").write_text(json.dumps({**VALIDATOR, **changed}))
    code, _, err = made(home, "create-validator", "FILE")
    assert code == 1
    assert words in err
    (home / "validator.json").write_text("[]")
    assert "expected {" in made(home, "create-validator", "FILE")[2]


def test_staking_is_signed_by_ledgers_too() -> None:
    """The amino JSON of each message is Go's: tests/codec holds the sign bytes; here it executes."""
    from chain.coins import Coin
    from chain.tx.build import Signer, build_tx
    from chain.tx.signing import LEGACY_AMINO_JSON

    net = Net()
    messages = [delegate(2, 0, 5 * UNIT), undelegate(2, 0, UNIT)]
    unsigned = build_tx(messages, fee=(Coin("wei", 10**15),), gas_limit=10**6, signers=[Signer(KEYS[2].public_key, 0, 2, LEGACY_AMINO_JSON)])
    result = net.driver.next_block([unsigned.sign([KEYS[2]], CHAIN_ID)]).results[0]
    assert result.code == 0, result.log
    response = message_class("cosmos.base.abci.v1beta1.TxMsgData").FromString(result.data)
    assert [one.type_url.rpartition(".")[2] for one in response.msg_responses] == ["MsgDelegateResponse", "MsgUndelegateResponse"]
