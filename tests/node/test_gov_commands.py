"""``tx gov``: the transactions it makes, the files it drafts, and what is typed wrong in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chain.crypto.keyring import open_keyring
from tests.support import GOV, KEYS, stchaind, text

KEYRING = ("--keyring-backend", "test")
PACKAGE = "/cosmos.gov.v1"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_keyring("test", tmp_path, ask=lambda _: "", notify=lambda _: None).add_private("alice", KEYS[2])
    return tmp_path


def generated(home: Path, *arguments: str, stdin: str = "") -> Any:
    """The message of the transaction that a command makes."""
    code, out, err = stchaind(home, "tx", "gov", *arguments, "--from", "alice", "--generate-only", *KEYRING, stdin=stdin)
    assert (code, err) == (0, "")
    [message] = json.loads(out)["body"]["messages"]
    return message


def refused(home: Path, *arguments: str) -> str:
    code, out, err = stchaind(home, "tx", "gov", *arguments, "--from", "alice", "--generate-only", *KEYRING)
    assert (code, out) == (1, "")
    return err


def test_a_drafted_proposal_can_be_submitted(home: Path) -> None:
    wanted = ("draft-proposal", "/cosmos.bank.v1beta1.MsgUpdateParams", "--folder", str(home))
    code, _, _ = stchaind(home, "tx", "gov", *wanted, "--title", "T", "--summary", "S", "--deposit", "5wei")
    assert code == 0
    found = generated(home, "submit-proposal", str(home / "draft_proposal.json"))
    inner = {"@type": "/cosmos.bank.v1beta1.MsgUpdateParams", "authority": GOV, "params": {"send_enabled": [], "default_send_enabled": False}}
    assert found == {
        "@type": f"{PACKAGE}.MsgSubmitProposal",
        "messages": [inner],
        "initial_deposit": [{"denom": "wei", "amount": "5"}],
        "proposer": text(KEYS[2]),
        "metadata": "",
        "title": "T",
        "summary": "S",
        "expedited": False,
    }
    metadata = json.loads((home / "draft_metadata.json").read_text())
    assert metadata == {"title": "T", "authors": [""], "summary": "S", "details": "", "proposal_forum_url": "", "vote_option_context": ""}
    code, _, err = stchaind(home, "tx", "gov", *wanted)
    assert code == 1
    assert "is there already" in err


def test_the_other_commands_make_simds_messages(home: Path) -> None:
    me = text(KEYS[2])
    assert generated(home, "deposit", "7", "5wei,3abc") == {
        "@type": f"{PACKAGE}.MsgDeposit",
        "proposal_id": "7",
        "depositor": me,
        "amount": [{"denom": "abc", "amount": "3"}, {"denom": "wei", "amount": "5"}],
    }
    for typed, name in (
        ("yes", "YES"),
        ("NoWithVeto", "NO_WITH_VETO"),
        ("no_with_veto", "NO_WITH_VETO"),
        ("VOTE_OPTION_ABSTAIN", "ABSTAIN"),
        ("No", "NO"),
    ):
        expected = {"@type": f"{PACKAGE}.MsgVote", "proposal_id": "7", "voter": me, "option": f"VOTE_OPTION_{name}", "metadata": "why"}
        assert generated(home, "vote", "7", typed, "--metadata", "why") == expected
    weighted = generated(home, "weighted-vote", "7", "yes=0.6,no-with-veto=0.4")
    assert [(one["option"], one["weight"]) for one in weighted["options"]] == [
        ("VOTE_OPTION_YES", "0.600000000000000000"),
        ("VOTE_OPTION_NO_WITH_VETO", "0.400000000000000000"),
    ]
    assert generated(home, "cancel-proposal", "7") == {"@type": f"{PACKAGE}.MsgCancelProposal", "proposal_id": "7", "proposer": me}
    old = {
        "@type": "/cosmos.gov.v1beta1.MsgSubmitProposal",
        "content": {"@type": "/cosmos.gov.v1beta1.TextProposal", "title": "T", "description": "D"},
        "initial_deposit": [{"denom": "wei", "amount": "5"}],
        "proposer": me,
    }
    assert generated(home, "submit-legacy-proposal", "--title", "T", "--description", "D", "--type", "Text", "--deposit", "5wei") == old
    file = json.dumps({"title": "T", "description": "D", "type": "text", "deposit": "5wei"})
    assert generated(home, "submit-legacy-proposal", "--proposal", "-", stdin=file) == old


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("[]", "is no JSON object"),
        ('{"title": 5}', "of the wrong kind"),
        ('{"messages": {}}', "of the wrong kind"),
        ('{"expedited": "yes"}', "of the wrong kind"),
        ('{"descripton": "x"}', "'descripton', which no proposal has"),
        ('{"messages": [{"@type": "/no.Such"}]}', "messages[0].@type: no type"),
        ('{"messages": [{"@type": "/cosmos.bank.v1beta1.MsgSend", "form_address": "x"}]}', "no such field"),
        ('{"deposit": "lots"}', "invalid coin"),
        ("{", "not JSON"),
    ],
)
def test_a_file_that_is_no_proposal(home: Path, given: str, told: str) -> None:
    file = home / "proposal.json"
    file.write_text(given)
    assert told in refused(home, "submit-proposal", str(file))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("vote", "7", "maybe"), "available options: yes/abstain/no/no-with-veto"),
        (("weighted-vote", "7", "yes=much"), "expected a decimal"),
        (("weighted-vote", "7", "yes=0.5,perhaps=0.5"), "'perhaps' is not a valid vote option"),
        (("submit-legacy-proposal", "--title", "T", "--description", "D"), "proposal type is required"),
        (("submit-legacy-proposal", "--title", "T", "--description", "D", "--type", "ParameterChange"), "expected Text"),
        (("submit-legacy-proposal", "--title", "T", "--proposal", "-"), "--title flag provided alongside --proposal"),
    ],
)
def test_what_is_typed_wrong(home: Path, arguments: tuple[str, ...], told: str) -> None:
    assert told in refused(home, *arguments)


@pytest.mark.parametrize(("name", "told"), [("/no.Such", "there is no message type"), ("MsgSend", "as /cosmos.bank.v1beta1.MsgSend")])
def test_a_draft_of_what_is_no_message(home: Path, name: str, told: str) -> None:
    code, _, err = stchaind(home, "tx", "gov", "draft-proposal", name, "--folder", str(home))
    assert code == 1
    assert told in err
    assert not list(home.glob("draft_*"))
