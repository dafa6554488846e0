"""``tx sign-batch`` and ``multisign-batch``: many transactions, signed where the keys are."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import CHAIN_ID, stchaind

KEYRING = ("--keyring-backend", "test")
OFFLINE = ("--offline", "--chain-id", CHAIN_ID, "--account-number", "7", "--sequence", "0")


def test_batches_are_signed_line_by_line_with_rising_sequences_or_as_one_transaction(tmp_path: Path) -> None:
    def ok(*arguments: str) -> str:
        code, out, err = stchaind(tmp_path / "home", *arguments)
        assert code == 0, err
        return out.strip()

    def refused(told: str, *arguments: str) -> None:
        code, out, err = stchaind(tmp_path / "home", *arguments)
        assert (code, out, told in err) == (1, "", True), err

    for name in ("k1", "k2", "k3"):
        ok("keys", "add", name, *KEYRING)
    ok("keys", "add", "shared", "--multisig", "k1,k2,k3", "--multisig-threshold", "2", *KEYRING)
    k1, shared = (ok("keys", "show", name, "-a", *KEYRING) for name in ("k1", "shared"))

    def batch(sender: str) -> Path:
        path = tmp_path / f"{sender}.json"
        made = [("5wei", "200wei"), ("7wei", "300wei")]
        path.write_text(
            "".join(
                ok("tx", "bank", "send", sender, k1, amount, "--fees", fee, "--generate-only", "--from", sender, *KEYRING) + "\n"
                for amount, fee in made
            )
        )
        return path

    def validated(lines: str, first_sequence: int) -> None:
        for at, line in enumerate(lines.splitlines()):
            assert [one["sequence"] for one in json.loads(line)["auth_info"]["signer_infos"]] == [str(first_sequence + at)]
            (tmp_path / "one.json").write_text(line)
            assert "[OK]" in ok("tx", "validate-signatures", str(tmp_path / "one.json"), *OFFLINE)

    later = (*OFFLINE[:-1], "8")
    own = batch(k1)
    signed = ok("tx", "sign-batch", str(own), "--from", "k1", *later, *KEYRING)
    assert len(signed.splitlines()) == 2
    validated(signed, 8)
    whole = ok("tx", "sign-batch", str(own), str(own), "--from", "k1", "--append", "--note", "all", *later, *KEYRING)
    validated(whole, 8)
    body, fee = json.loads(whole)["body"], json.loads(whole)["auth_info"]["fee"]
    assert [one["amount"][0]["amount"] for one in body["messages"]] == ["5", "7", "5", "7"]
    assert (body["memo"], fee["amount"], fee["gas_limit"]) == ("all", [{"denom": "wei", "amount": "1000"}], "800000")
    refused("does not sign this transaction", "tx", "sign-batch", str(own), "--from", "k2", *later, *KEYRING)

    theirs, parts = batch(shared), []
    for member in ("k3", "k1"):
        parts.append(str(tmp_path / f"{member}-sigs.json"))
        ok("tx", "sign-batch", str(theirs), "--from", member, "--multisig", "shared", "--output-document", parts[-1], *later, *KEYRING)
    joined = ok("tx", "multisign-batch", str(theirs), "shared", *parts, *later, *KEYRING)
    assert len(joined.splitlines()) == 2
    validated(joined, 8)
    # The second is signed over sequence 9.
    refused("sequence 8", "tx", "multisign-batch", str(theirs), "shared", *parts, "--no-auto-increment", *later, *KEYRING)
    short = tmp_path / "short.json"
    short.write_text(Path(parts[0]).read_text().splitlines()[0])
    refused("holds 1 signatures", "tx", "multi-sign-batch", str(theirs), "shared", parts[1], str(short), *later, *KEYRING)
