"""``tx upgrade`` and ``tx crisis``: the transactions they make, and what is typed wrong in one sentence."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from chain.crypto.keyring import open_keyring
from tests.support import CHAIN_ID, GOV, KEYS, chain, stchaind, text

KEYRING = ("--keyring-backend", "test")
PROPOSAL = ("--title", "Next", "--summary", "Go on", "--deposit", "5wei", "--metadata", "ipfs://x")
URL = "https://example.org/stchaind.zip"
SUM = f"{URL}?checksum=sha256:aa"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_keyring("test", tmp_path, ask=lambda _: "", notify=lambda _: None).add_private("alice", KEYS[2])
    return tmp_path


def generated(home: Path, *arguments: str) -> Any:
    """The message of the transaction that a command makes."""
    code, out, err = stchaind(home, "tx", *arguments, "--from", "alice", "--generate-only", *KEYRING)
    assert (code, err) == (0, "")
    [message] = json.loads(out)["body"]["messages"]
    return message


def proposal(inner: Any) -> Any:
    return {
        "@type": "/cosmos.gov.v1.MsgSubmitProposal",
        "messages": [inner],
        "initial_deposit": [{"denom": "wei", "amount": "5"}],
        "proposer": text(KEYS[2]),
        "metadata": "ipfs://x",
        "title": "Next",
        "summary": "Go on",
        "expedited": False,
    }


def test_the_commands_make_simds_proposals(home: Path) -> None:
    plan = {"name": "v2", "time": "0001-01-01T00:00:00Z", "height": "70", "info": "", "upgraded_client_state": None}
    found = generated(home, "upgrade", "software-upgrade", "v2", "--upgrade-height", "70", "--no-validate", *PROPOSAL)
    assert found == proposal({"@type": "/cosmos.upgrade.v1beta1.MsgSoftwareUpgrade", "authority": GOV, "plan": plan})
    found = generated(home, "upgrade", "cancel-software-upgrade", *PROPOSAL, "--authority", text(KEYS[3]))
    assert found == proposal({"@type": "/cosmos.upgrade.v1beta1.MsgCancelUpgrade", "authority": text(KEYS[3])})


@pytest.mark.parametrize(
    ("info", "options", "told"),
    [
        ("", (), "plan info must not be blank"),
        ("  ", (), "plan info must not be blank"),
        ("not json", (), "could not parse plan info"),
        ('["binaries"]', (), "could not parse plan info"),
        ('{"binaries":[]}', (), "could not parse plan info"),
        ("[" * 100_000, (), "could not parse plan info"),
        ('{"binaries":{}}', (), 'no "binaries" entries found'),
        ('{"binaries":{"linux":"' + SUM + '"}}', (), 'invalid os/arch format in key "linux"'),
        ('{"binaries":{"linux/amd64":"here"}}', (), 'invalid url "here"'),
        ('{"binaries":{"linux/amd64":"' + URL + '"}}', (), "missing checksum"),
        (URL, (), "missing checksum"),
        (SUM, (), ""),
        ('{"binaries":{"linux/amd64":"' + SUM + '","any":"' + SUM + '"}}', (), ""),
        ('{"binaries":{"linux/amd64":"' + URL + '"}}', ("--no-checksum-required",), ""),
        ("anything", ("--no-validate",), ""),
    ],
)
def test_where_the_next_version_is_must_be_readable_for_cosmovisor(home: Path, info: str, options: tuple[str, ...], told: str) -> None:
    command = ("upgrade", "software-upgrade", "v2", "--upgrade-height", "70", "--upgrade-info", info, *options, *PROPOSAL)
    if not told:
        assert generated(home, *command)["messages"][0]["plan"]["info"] == info
        return
    code, out, err = stchaind(home, "tx", *command, "--from", "alice", "--generate-only", *KEYRING)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert told in err


def test_an_invariant_is_checked_by_a_command(home: Path) -> None:
    driver = chain()
    fees = ("--from", "alice", "--fees", "4000000gwei", "--gas", "2000000", *KEYRING)
    code, out, err = stchaind(home, "tx", "crisis", "invariant-broken", "bank", "total-supply", *fees, "--generate-only")
    assert (code, err) == (0, "")
    (home / "unsigned.json").write_text(out)
    offline = ("--offline", "--chain-id", CHAIN_ID, "--account-number", "2", "--sequence", "0")
    (home / "signed.json").write_text(stchaind(home, "tx", "sign", str(home / "unsigned.json"), "--from", "alice", *offline, *KEYRING)[1])
    raw = base64.b64decode(stchaind(home, "tx", "encode", str(home / "signed.json"))[1])
    assert driver.next_block([raw]).results[0].code == 0


@pytest.mark.parametrize("heights", ["", "x", "1,", "-1", "1.5", "9" * 30])
def test_heights_to_skip_are_numbers(home: Path, heights: str) -> None:
    code, _, err = stchaind(home, "start", "--unsafe-skip-upgrades", heights)
    assert code == 1
    assert "expected block heights as 100,200" in err
