"""``tx distribution``: the transaction of each command, executed; several transactions of all rewards; and what is typed wrong."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from chain.cli.query import query
from chain.cli.tx import Remote
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto.keyring import open_keyring
from tests.support import CHAIN_ID, KEYS, chain, send, stchaind, text

KEYRING = ("--keyring-backend", "test")
OPERATOR = bech32.encode(KEYS[0].public_key.address, bech32.VALIDATOR)
FEE = ("--fees", "600000gwei", "--gas", "600000")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The validator's key, as ``alice``."""
    open_keyring("test", tmp_path / "home", ask=lambda _: "", notify=lambda _: None).add_private("alice", KEYS[0])
    return tmp_path


def run(home: Path, *arguments: str) -> tuple[int, str, str]:
    return stchaind(home / "home", "tx", *arguments, *KEYRING)


@pytest.mark.parametrize(
    ("arguments", "events"),
    [
        (("withdraw-rewards", OPERATOR), ["withdraw_rewards"]),
        (("withdraw-rewards", OPERATOR, "--commission"), ["withdraw_rewards", "withdraw_commission"]),
        (("set-withdraw-addr", text(KEYS[5])), ["set_withdraw_address"]),
        (("fund-community-pool", "5gwei"), ["transfer"]),
        (("fund-validator-rewards-pool", OPERATOR, "1stos"), ["commission", "rewards"]),
    ],
)
def test_the_commands_transaction_does_what_it_says(home: Path, arguments: tuple[str, ...], events: list[str]) -> None:
    driver = chain()
    code, unsigned, err = run(home, "distribution", *arguments, "--from", "alice", *FEE, "--generate-only")
    assert (code, err) == (0, "")
    (home / "unsigned.json").write_text(unsigned)
    offline = ("--offline", "--chain-id", CHAIN_ID, "--account-number", "0", "--sequence", "1")
    (home / "signed.json").write_text(run(home, "sign", str(home / "unsigned.json"), "--from", "alice", *offline)[1])
    raw = base64.b64decode(stchaind(home / "home", "tx", "encode", str(home / "signed.json"))[1])
    driver.next_block([send(2, 3)])  # its fee is what there is to withdraw
    [result] = driver.next_block([raw]).results
    assert result.code == 0, result.log
    found = [kind for kind, _ in result.events]
    assert [one for one in events if one in found] == events


@pytest.mark.parametrize(
    ("most", "sizes", "sequences"), [(0, [3], [None]), (2, [2, 1], ["7", "8"]), (1, [1, 1, 1], ["7", "8", "9"]), (5, [3], [None])]
)
def test_all_rewards_are_withdrawn_in_as_many_transactions_as_asked(
    home: Path, monkeypatch: pytest.MonkeyPatch, most: int, sizes: list[int], sequences: list[str | None]
) -> None:
    validators = [bech32.encode(bytes([number]) * 20, bech32.VALIDATOR) for number in range(1, 4)]
    answer = message_class("cosmos.distribution.v1beta1.QueryDelegatorValidatorsResponse")(validators=validators)
    monkeypatch.setattr(Remote, "rpc", lambda *_: answer)
    monkeypatch.setattr(Remote, "account", lambda *_: (0, 7))
    sent: list[tuple[int, Any]] = []
    monkeypatch.setattr("chain.cli.distribution.send", lambda ctx, messages, sender: sent.append((len(messages), ctx.params["sequence"])))
    code, _, err = run(home, "distribution", "withdraw-all-rewards", "--max-msgs", str(most), "--from", "alice", *FEE)
    assert (code, err) == (0, "")
    assert [size for size, _ in sent] == sizes
    assert [None if sequence is None else str(sequence) for _, sequence in sent] == sequences


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("withdraw-rewards", text(KEYS[0])), "expected stvaloper"),
        (("set-withdraw-addr", "st1"), "bech32"),
        (("fund-community-pool", "5"), "invalid coin"),
        (("withdraw-all-rewards", "--offline"), "offline"),
    ],
)
def test_what_is_typed_wrong_is_one_sentence(home: Path, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run(home, "distribution", *arguments, "--from", "alice", *FEE)
    assert (code, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1


def test_queries_have_simds_names() -> None:
    assert sorted(query.commands["distribution"].commands) == [  # type: ignore[attr-defined]
        "commission",
        "community-pool",
        "delegator-validators",
        "delegator-withdraw-address",
        "params",
        "rewards",
        "rewards-by-validator",
        "slashes",
        "validator-distribution-info",
        "validator-outstanding-rewards",
    ]
    assert sorted(query.commands["mint"].commands) == ["annual-provisions", "inflation", "params"]  # type: ignore[attr-defined]
