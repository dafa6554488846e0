"""``tx sign --multisig``, ``multi-sign`` and ``multisign-batch`` where a multisig is a member of another, up to the coins that it sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chain.testing.driver import Driver
from tests.node.operator import KEYRING, Operator, answered_by
from tests.support import KEYS, chain

FEES = ("--fees", "200000gwei")
FEE_WEI, FUNDS_WEI = 200_000 * 10**9, 10**18


@pytest.fixture
def net() -> Driver:
    return chain()


@pytest.fixture
def keys(net: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """``inner`` is alice and bob, ``nest`` is inner and carol, who has coins; dave is in neither."""
    answered_by(net, monkeypatch)
    made = Operator(tmp_path / "home")
    for name in ("alice", "bob", "carol", "dave"):
        made.ok("keys", "add", name, *KEYRING)
    for name, members in (("inner", "alice,bob"), ("nest", "inner,carol")):
        made.ok("keys", "add", name, "--multisig", members, "--multisig-threshold", "2", *KEYRING)
    made.ok("keys", "import-hex", "rich", KEYS[1].raw.hex(), *KEYRING)
    made.ok("tx", "bank", "send", "rich", address(made, "nest"), f"{FUNDS_WEI}wei", *FEES, "-y", *KEYRING)
    return made


def address(keys: Operator, name: str) -> str:
    return keys.ok("keys", "show", name, "-a", *KEYRING)


def wei(keys: Operator, name: str) -> int:
    return sum(int(one["amount"]) for one in json.loads(keys.ok("query", "bank", "balances", address(keys, name), "-o", "json"))["balances"])


def unsigned(keys: Operator, amount: str, sender: str = "nest") -> str:
    return keys.ok("tx", "bank", "send", sender, address(keys, "dave"), amount, *FEES, "--generate-only", *KEYRING)


def to_file(keys: Operator, name: str, contents: str) -> str:
    path = keys.home.root.parent / name
    path.write_text(contents + "\n")
    return str(path)


def account(keys: Operator, name: str) -> tuple[str, ...]:
    """The options that stand for asking a node."""
    info = json.loads(keys.ok("query", "auth", "account-info", address(keys, name), "-o", "json"))["info"]
    chain_id = json.loads(keys.ok("status"))["node_info"]["network"]
    return ("--offline", "--chain-id", chain_id, "--account-number", info["account_number"], "--sequence", info["sequence"])


@pytest.mark.parametrize("is_offline", [True, False], ids=["offline", "online"])
def test_a_multisig_within_a_multisig_signs_and_its_coins_move(keys: Operator, is_offline: bool) -> None:
    told = (*(account(keys, "nest") if is_offline else ()), *KEYRING)
    given = to_file(keys, "given.json", unsigned(keys, "5wei"))
    of = {
        name: to_file(keys, f"{name}.json", keys.ok("tx", "sign", given, "--from", name, "--multisig", "nest", *told))
        for name in ("alice", "bob", "carol")
    }
    part = keys.ok("tx", "multisign", given, "inner", of["alice"], of["bob"], "--signature-only", *told)
    [descriptor] = json.loads(part)["signatures"]
    assert descriptor["public_key"]["@type"] == "/cosmos.crypto.multisig.LegacyAminoPubKey"
    assert [set(one) for one in descriptor["data"]["multi"]["signatures"]] == [{"single"}] * 2
    inner = to_file(keys, "inner.json", part)
    whole = to_file(keys, "whole.json", keys.ok("tx", "multisign", given, "nest", inner, of["carol"], *told))
    assert "[OK]" in keys.ok("tx", "validate-signatures", whole, *told)
    assert json.loads(keys.ok("tx", "broadcast", whole, "-o", "json"))["code"] == 0
    assert (wei(keys, "dave"), wei(keys, "nest")) == (5, FUNDS_WEI - 5 - FEE_WEI)


def test_batches_of_a_multisig_within_a_multisig_are_put_together_line_by_line(keys: Operator) -> None:
    batch = to_file(keys, "batch.json", "\n".join(unsigned(keys, one) for one in ("5wei", "6wei")))
    of = {}
    for name in ("alice", "bob", "carol"):
        of[name] = to_file(keys, f"{name}.json", keys.ok("tx", "sign-batch", batch, "--from", name, "--multisig", "nest", *KEYRING))
    inner = to_file(keys, "inner.json", keys.ok("tx", "multisign-batch", batch, "inner", of["alice"], of["bob"], "--signature-only", *KEYRING))
    for line in keys.ok("tx", "multisign-batch", batch, "nest", inner, of["carol"], *KEYRING).splitlines():
        assert json.loads(keys.ok("tx", "broadcast", to_file(keys, "whole.json", line), "-o", "json"))["code"] == 0
    assert wei(keys, "dave") == 11


def test_what_is_no_part_of_a_multisig_or_not_its_signature_is_refused(keys: Operator, net: Driver) -> None:
    def refused(told: str, *arguments: str) -> None:
        keys.refused("tx", *arguments, *KEYRING, told=told)

    given = to_file(keys, "given.json", unsigned(keys, "5wei"))
    for command in ("sign", "sign-batch"):
        refused("signing key is not a part of multisig key: dave is no member of nest", command, given, "--from", "dave", "--multisig", "nest")
    refused("rich is not a multisig key", "sign", given, "--from", "bob", "--multisig", "rich")
    of = {
        name: to_file(keys, f"{name}.json", keys.ok("tx", "sign", given, "--from", name, "--multisig", "nest", *KEYRING)) for name in ("alice", "bob")
    }
    both = (of["alice"], of["bob"])
    refused("use --signature-only to sign as a member", "multisign", given, "inner", *both)
    whole = to_file(keys, "whole.json", given_signed(keys))
    refused("whole.json holds no signatures as", "multisign", given, "inner", whole, of["bob"], "--signature-only")
    refused("bob.json holds 1 signatures", "multisign-batch", to_file(keys, "two.json", "\n".join([unsigned(keys, "1wei")] * 2)), "nest", of["bob"])
    # Over another sequence than the account's, checked unless that is waived.
    later = (*account(keys, "nest")[:-1], "7")
    refused("the signature does not hold", "multisign", given, "inner", *both, "--signature-only", *later)
    keys.ok("tx", "multisign", given, "inner", *both, "--signature-only", "--skip-signature-verification", *later, *KEYRING)
    # A nested signature whose parts do not hold is as wrong as they are.
    part = json.loads(keys.ok("tx", "multisign", given, "inner", *both, "--signature-only", *KEYRING))
    parts = part["signatures"][0]["data"]["multi"]["signatures"]
    parts.reverse()
    refused("the signature does not hold", "multisign", given, "nest", to_file(keys, "inner.json", json.dumps(part)))
    parts.reverse()
    parts[0]["single"]["mode"] = "SIGN_MODE_DIRECT"
    refused("the signature does not hold", "multisign", given, "nest", to_file(keys, "inner.json", json.dumps(part)))


def given_signed(keys: Operator) -> str:
    """A transaction with its signature, where a signature alone is wanted."""
    return keys.ok("tx", "sign", to_file(keys, "rich.json", unsigned(keys, "1wei", "rich")), "--from", "rich", *KEYRING)


def test_a_multisig_that_no_other_of_the_keyring_has_does_not_sign(keys: Operator) -> None:
    given = to_file(keys, "given.json", unsigned(keys, "1wei", "rich"))
    part = to_file(keys, "part.json", '{"signatures":[]}')
    keys.refused("tx", "multisign", given, "inner", part, "--signature-only", *KEYRING, told="nor as a member of a multisig of this keyring")


def test_a_second_signer_keeps_the_signature_of_the_first_unless_it_overwrites(keys: Operator) -> None:
    common = ("--from", "rich", *KEYRING)
    made: dict[str, Any] = json.loads(unsigned(keys, "1wei", "rich"))
    made["body"]["messages"].append({**made["body"]["messages"][0], "from_address": address(keys, "dave")})
    given = to_file(keys, "given.json", json.dumps(made))
    dave = ("--offline", "--chain-id", "test-1", "-a", "9", "-s", "0", "--sign-mode", "amino-json", *KEYRING)
    first = to_file(keys, "first.json", keys.ok("tx", "sign", given, "--from", "dave", *dave))
    for flags, count in (((), 2), (("--overwrite",), 1)):
        signed = json.loads(keys.ok("tx", "sign", first, "--sign-mode", "amino-json", *flags, *common))
        assert (len(signed["signatures"]), len(signed["auth_info"]["signer_infos"])) == (count, count)
