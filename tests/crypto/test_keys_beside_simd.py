"""The same commands given to the real simd: equal output field by field, and one folder that both read and write."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chain.crypto import address

pytestmark = pytest.mark.interop
VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "keys.json").read_text())
MNEMONIC = VECTORS["wallet"]["mnemonic"] + "\n"
MULTI = ("--multisig", "one,two", "--multisig-threshold", "2")
PUBKEY = ("--pubkey", '{"@type":"/cosmos.crypto.secp256k1.PubKey","key":"A4tbJtFeYCUcFgnmbb7OMyL2Avf6Ks+oK9UXo4eKxk2n"}')
PLAIN = ("--key-type", "secp256k1", "--coin-type", "118")
Run = Callable[..., Any]
PREFIXES = {"cosmos": "st", "cosmosvaloper": "stvaloper", "cosmosvalcons": "stvalcons"}


def translated(text: str) -> str:
    """simd's text with its addresses in this chain's prefixes."""

    def swap(match: re.Match[str]) -> str:
        prefix, raw = address.decode_any(match[0])
        suffix = "pub" if prefix.endswith("pub") else ""
        return address.encode(raw, PREFIXES[prefix.removesuffix("pub")] + suffix)

    return re.sub(r"\bcosmos(?:valoper|valcons)?(?:pub)?1[02-9ac-hj-np-z]{8,}", swap, text)


def fill(run: Run, **options: Any) -> None:
    for index, name in enumerate(("one", "two")):
        assert run("keys", "add", name, "--recover", *PLAIN, "--index", str(index), stdin=MNEMONIC, **options).code == 0
    assert run("keys", "add", "both", *MULTI, **options).code == 0
    assert run("keys", "add", "off", *PUBKEY, **options).code == 0


COMMANDS: list[tuple[tuple[str, ...], str]] = [
    (("list",), ""),
    (("list", "--output", "json"), ""),
    (("list", "-n"), ""),
    (("show", "one"), ""),
    (("show", "one", "--output", "json"), ""),
    (("show", "one", "-a"), ""),
    (("show", "one", "-p"), ""),
    (("show", "one", "--bech", "val"), ""),
    (("show", "one", "--bech", "cons", "-a"), ""),
    (("show", "both"), ""),
    (("show", "off"), ""),
    (("show", "two", "one", "--multisig-threshold", "2"), ""),
    (("show", "two", "one", "--output", "json"), ""),
    (("add", "three", "--recover", *PLAIN, "--account", "7", "--output", "json"), MNEMONIC),
    (("add", "three", "--recover", *PLAIN, "--hd-path", "m/44'/118'/1'/0/5"), MNEMONIC),
    (("add", "three", "-i", *PLAIN, "--no-backup"), MNEMONIC + "secret words\nsecret words\n"),
    (("add", "three", "--multisig", "two,one,off", "--nosort", "--output", "json"), ""),
    (("add", "3", "--dry-run", "--recover", *PLAIN, "--account", "8"), MNEMONIC),
    (("export", "one", "--unarmored-hex", "--unsafe"), "y\n"),
    (("export", "one", "--unarmored-hex", "--unsafe"), "n\n"),
    (("rename", "one", "uno", "-y"), ""),
    (("rename", "one", "uno"), "n\n"),
    (("delete", "one", "-y"), ""),
    (("delete", "off", "both", "-y"), ""),
    (("delete", "one"), "\n"),
    (("parse", "0102030405060708090a0b0c0d0e0f1011121314"), ""),
    (("parse", "0102030405060708090a0b0c0d0e0f1011121314", "--output", "json"), ""),
    (("mnemonic", "--unsafe-entropy"), "3" * 100 + "\ny\n"),
    (("migrate",), ""),
    (("import-hex", "hex", "07" * 32, "--key-type", "secp256k1"), ""),
]


@pytest.mark.parametrize(("arguments", "stdin"), COMMANDS, ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "")
def test_a_command_says_what_simd_says(stchaind: Run, simd: Run, arguments: tuple[str, ...], stdin: str) -> None:
    fill(stchaind)
    fill(simd)
    ours, theirs = stchaind("keys", *arguments, stdin=stdin), simd("keys", *arguments, stdin=stdin)
    assert theirs.code == 0, theirs.err
    assert (ours.code, ours.out, ours.err) == (0, translated(theirs.out), translated(theirs.err))
    assert stchaind("keys", "list", "--output", "json").out == translated(simd("keys", "list", "--output", "json").out)


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("show", "nobody"), ""),
        (("show", "one", "-a", "-p"), ""),
        (("show", "one", "-a", "--output", "json"), ""),
        (("show", "one", "--bech", "node"), ""),
        (("show", "one", "two", "--multisig-threshold", "3"), ""),
        (("export", "one"), "short\n"),
        (("export", "one", "--unsafe"), ""),
        (("export", "off"), "password1\n"),
        (("add", "x", "--recover", *PLAIN), "foo bar\n"),
        (("add", "x", "--recover", *PLAIN), ""),
        (("add", "x", "--key-type", "ed25519"), ""),
        (("add", "x", "--multisig", "nobody"), ""),
        (("add", "x", "--multisig", "one", "--multisig-threshold", "2"), ""),
        (("add", "x", "--pubkey", "{"), ""),
        (("add", "one"), "n\n"),
        (("add", "x", "--recover", *PLAIN), MNEMONIC),
        (("rename", "one", "two", "-y"), ""),
        (("rename", "nobody", "x", "-y"), ""),
        (("delete", "nobody", "-y"), ""),
        (("parse", "zz"), ""),
        (("import-hex", "one", "07" * 32, "--key-type", "secp256k1"), ""),
        (("mnemonic", "--unsafe-entropy"), "12345\ny\n"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "",
)
def test_a_command_refuses_what_simd_refuses(stchaind: Run, simd: Run, arguments: tuple[str, ...], stdin: str) -> None:
    fill(stchaind)
    fill(simd)
    ours, theirs = stchaind("keys", *arguments, stdin=stdin), simd("keys", *arguments, stdin=stdin)
    assert (ours.code, theirs.code) == (1, 1)
    assert stchaind("keys", "list", "--output", "json").out == translated(simd("keys", "list", "--output", "json").out)


@pytest.mark.parametrize("backend", ["test", "file"])
def test_keys_made_by_simd_are_read_and_keys_made_here_are_read_by_simd(stchaind: Run, simd: Run, tmp_path: Path, backend: str) -> None:
    home, secret = tmp_path / "shared", "password1\n"
    options = {"home": home, "backend": backend}
    again = secret if backend == "file" else ""
    first = again * 2
    assert simd("keys", "add", "theirs", "--recover", *PLAIN, stdin=MNEMONIC + first, **options).code == 0
    assert stchaind("keys", "add", "ours", "--recover", *PLAIN, "--index", "1", stdin=MNEMONIC + again, **options).code == 0
    assert stchaind("keys", "add", "our-many", "--multisig", "ours,theirs", "--multisig-threshold", "2", stdin=again, **options).code == 0
    assert simd("keys", "add", "their-many", "--multisig", "ours,theirs", stdin=again, **options).code == 0
    listed = stchaind("keys", "list", "--output", "json", stdin=again, **options)
    assert [key["name"] for key in json.loads(listed.out)] == ["our-many", "ours", "their-many", "theirs"]
    assert listed.out == translated(simd("keys", "list", "--output", "json", stdin=again, **options).out)
    # Both find each other's keys by address, and both have each other's private keys.
    raw = {key["name"]: address.decode(key["address"]) for key in json.loads(listed.out)}
    assert simd("keys", "show", address.encode(raw["ours"], "cosmos"), "--output", "json", stdin=again, **options).code == 0
    assert json.loads(stchaind("keys", "show", address.encode(raw["theirs"]), "--output", "json", stdin=again, **options).out)["name"] == "theirs"
    for name in ("ours", "theirs"):
        export = ("keys", "export", name, "--unarmored-hex", "--unsafe")
        assert stchaind(*export, stdin="y\n" + again, **options).out == simd(*export, stdin="y\n" + again, **options).out != ""
    # What either deletes or renames is so for the other.
    assert simd("keys", "rename", "ours", "renamed", "-y", stdin=again, **options).code == 0
    assert stchaind("keys", "delete", "their-many", "-y", stdin=again, **options).code == 0
    assert stchaind("keys", "rename", "theirs", "moved", "-y", stdin=again, **options).code == 0
    names = [run("keys", "list", "-n", stdin=again, **options).out.split() for run in (stchaind, simd)]
    assert names == [["moved", "our-many", "renamed"]] * 2


def test_a_wrong_passphrase_opens_neither_ones_folder(stchaind: Run, simd: Run, tmp_path: Path) -> None:
    options = {"home": tmp_path / "shared", "backend": "file"}
    assert simd("keys", "add", "theirs", stdin="password1\npassword1\n", **options).code == 0
    refused = stchaind("keys", "show", "theirs", stdin="password2\n" * 3, **options)
    assert refused.code == 1
    assert "too many failed passphrase attempts" in refused.err


@pytest.mark.parametrize("direction", ["ours to theirs", "theirs to ours"])
def test_exported_keys_import_on_the_other_side(stchaind: Run, simd: Run, tmp_path: Path, direction: str) -> None:
    giver, taker = (stchaind, simd) if direction == "ours to theirs" else (simd, stchaind)
    assert giver("keys", "add", "one", "--recover", *PLAIN, stdin=MNEMONIC).code == 0
    file = tmp_path / "key.asc"
    file.write_text(giver("keys", "export", "one", stdin="password1\n").out)
    assert taker("keys", "import", "one", str(file), stdin="password2\n").code == 1
    assert taker("keys", "import", "one", str(file), stdin="password1\n").code == 0
    shown = [run("keys", "show", "one", "--output", "json").out for run in (stchaind, simd)]
    assert shown[0] == translated(shown[1])


ODD_NAMES = [
    "off",
    "12",
    "1e5",
    "a: b",
    "it's: so",
    "#1",
    "0x1F",
    "1_000",
    "2001-01-01",
    "~",
    "a #b",
    "a#b",
    "é ü",
    "null",
    "=",
    "x:",
    "1:30",
    ".5",
    ".inf",
    "<&>",
    "[a]",
    "!x",
    "%p",
    "a,b",
    "@a",
    "`",
    "yes",
    "Yes",
    "y",
    '"q"',
    "a\\b",
    "?",
    "+1",
    "0o7",
    "08",
    "1.",
    "..",
    "e5",
    "<<",
    "?x",
    ":x",
    ": x",
    "a:",
    "日本",
    "x" * 100,
]


def test_odd_names_are_shown_as_simd_shows_them(stchaind: Run, simd: Run) -> None:
    for number, name in enumerate(ODD_NAMES, start=1):
        for run in (stchaind, simd):
            assert run("keys", "import-hex", name, f"{number:064x}", "--key-type", "secp256k1").code == 0
    for output in ("text", "json"):
        ours = stchaind("keys", "list", "--output", output).out
        theirs = translated(simd("keys", "list", "--output", output).out)
        assert [pair for pair in zip(ours.splitlines(), theirs.splitlines(), strict=True) if pair[0] != pair[1]] == []
