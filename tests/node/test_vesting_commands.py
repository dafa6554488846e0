"""``tx vesting``: each command's transaction, signed and executed, opens the account it names; what is typed wrong is one sentence."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from chain.codec.registry import message_class
from chain.crypto.keyring import open_keyring
from tests.support import CHAIN_ID, KEYS, chain, key, stchaind, text

KEYRING = ("--keyring-backend", "test")
OWNER = text(key(40))
START_S, END_S = 1_800_000_000, 1_900_000_000
PERIODS = {"start_time": START_S, "periods": [{"coins": "10wei", "length_seconds": 5}, {"coins": "7wei", "length_seconds": 9}]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_keyring("test", tmp_path / "home", ask=lambda _: "", notify=lambda _: None).add_private("alice", KEYS[2])
    (tmp_path / "periods.json").write_text(json.dumps(PERIODS))
    return tmp_path


def run(home: Path, *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr); ``PERIODS`` stands for the path of the periods' file."""
    given = [str(home / "periods.json") if one == "PERIODS" else one for one in arguments]
    return stchaind(home / "home", *given)


def vesting(account: Any) -> tuple[int, int]:
    """(coins of an account in wei, its end)."""
    [coin] = account.base_vesting_account.original_vesting
    assert coin.denom == "wei"
    return int(coin.amount), account.base_vesting_account.end_time


@pytest.mark.parametrize(
    ("arguments", "kind", "wanted"),
    [
        (("create-vesting-account", OWNER, "17wei", str(END_S)), "ContinuousVestingAccount", (17, END_S)),
        (("create-vesting-account", OWNER, "17wei", str(END_S), "--delayed"), "DelayedVestingAccount", (17, END_S)),
        (("create-permanent-locked-account", OWNER, "17wei"), "PermanentLockedAccount", (17, 0)),
        (("create-periodic-vesting-account", OWNER, "PERIODS"), "PeriodicVestingAccount", (17, START_S + 14)),
    ],
)
def test_the_commands_transaction_opens_the_account(home: Path, arguments: tuple[str, ...], kind: str, wanted: tuple[int, int]) -> None:
    driver = chain()
    code, unsigned, err = run(
        home, "tx", "vesting", *arguments, "--from", "alice", "--fees", "400000gwei", "--gas", "400000", "--generate-only", *KEYRING
    )
    assert (code, err) == (0, "")
    (home / "unsigned.json").write_text(unsigned)
    offline = ("--offline", "--chain-id", CHAIN_ID, "--account-number", "2", "--sequence", "0")
    (home / "signed.json").write_text(run(home, "tx", "sign", str(home / "unsigned.json"), "--from", "alice", *offline, *KEYRING)[1])
    raw = base64.b64decode(run(home, "tx", "encode", str(home / "signed.json"))[1])
    assert driver.next_block([raw]).results[0].code == 0
    request = message_class("cosmos.auth.v1beta1.QueryAccountRequest")(address=OWNER)
    answer, _ = driver.apps[0].query_rpc("/cosmos.auth.v1beta1.Query/Account", request)  # type: ignore[attr-defined]
    assert answer.account.type_url == f"/cosmos.vesting.v1beta1.{kind}"
    account = message_class(answer.account.type_url[1:]).FromString(answer.account.value)
    assert vesting(account) == wanted
    if kind == "PeriodicVestingAccount":
        assert account.start_time == START_S
        assert [(one.length, one.amount[0].amount) for one in account.vesting_periods] == [(5, "10"), (9, "7")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "holds no vesting periods: expected JSON as"),
        ("[" * 100_000, "holds no vesting periods"),
        (json.dumps({"start_time": START_S}), "holds no vesting periods"),
        (json.dumps({**PERIODS, "start_time": 1 << 63}), "holds no vesting periods"),
        (json.dumps({**PERIODS, "periods": [{"coins": "1wei", "length_seconds": 1.5}]}), "holds no vesting periods"),
        (json.dumps({**PERIODS, "periods": [{"coins": 1, "length_seconds": 1}]}), "holds no vesting periods"),
        (json.dumps({**PERIODS, "periods": [{"coins": "wei", "length_seconds": 1}]}), "invalid coin"),
        (json.dumps({**PERIODS, "periods": [{"coins": "1wei", "length_seconds": -1}]}), "invalid period length of -1 in period 0"),
        (" " * (5 << 20), "has more than 4194304 bytes"),
    ],
)
def test_a_file_that_holds_no_periods_is_refused(home: Path, content: str, told: str) -> None:
    (home / "periods.json").write_text(content)
    code, out, err = run(home, "tx", "vesting", "create-periodic-vesting-account", OWNER, "PERIODS", "--from", "alice", "--generate-only", *KEYRING)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert told in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create-vesting-account", "st1x", "1wei", "5", "--from", "alice"), "st1x"),
        (("create-vesting-account", OWNER, "", "5", "--from", "alice"), "amount is empty"),
        (("create-permanent-locked-account", OWNER, "1"), "invalid coin '1'"),
        (("create-permanent-locked-account", OWNER, "1wei"), "--from must name the key that signs"),
    ],
)
def test_what_is_typed_wrong_is_one_sentence(home: Path, arguments: tuple[str, ...], told: str) -> None:
    code, out, err = run(home, "tx", "vesting", *arguments, "--generate-only", *KEYRING)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert told in err
