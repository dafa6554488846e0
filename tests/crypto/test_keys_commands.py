"""``stchaind keys``: every command's result and every way it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "keys.json").read_text())
WALLET = VECTORS["wallet"]
Run = Callable[..., Any]
PLAIN_JSON = '{"@type":"/cosmos.crypto.secp256k1.PubKey","key":"A4tbJtFeYCUcFgnmbb7OMyL2Avf6Ks+oK9UXo4eKxk2n"}'


def recover(stchaind: Run, name: str, *arguments: str) -> Any:
    answer = stchaind("keys", "add", name, "--recover", *arguments, stdin=WALLET["mnemonic"] + "\n")
    assert answer.code == 0, answer.err
    return answer


def test_the_wallet_vector_is_recovered_from_its_mnemonic(stchaind: Run) -> None:
    answer = recover(stchaind, "alice", "--output", "json")
    made = json.loads(answer.out)
    assert (made["name"], made["type"], made["address"]) == ("alice", "local", WALLET["address"])
    assert json.loads(made["pubkey"])["@type"] == "/stratos.crypto.v1.ethsecp256k1.PubKey"
    assert "mnemonic" not in made
    assert stchaind("keys", "show", "alice", "-a").out == WALLET["address"] + "\n"
    assert stchaind("keys", "show", WALLET["address"], "-p").out == made["pubkey"] + "\n"
    assert stchaind("keys", "export", "alice", "--unarmored-hex", "--unsafe", stdin="y\n").out == WALLET["private_key"] + "\n"


def test_a_new_keys_mnemonic_recovers_it(stchaind: Run) -> None:
    first = json.loads(stchaind("keys", "add", "alice", "-o", "json").out)
    again = stchaind("keys", "add", "bob", "--recover", "--dry-run", "-o", "json", stdin=first["mnemonic"] + "\n")
    assert json.loads(again.out)["address"] == first["address"]
    assert stchaind("keys", "list", "-n").out == "alice\n"


def test_the_mnemonic_goes_to_stderr_and_not_at_all_with_no_backup(stchaind: Run) -> None:
    shown = stchaind("keys", "add", "alice")
    assert "**Important** write this mnemonic phrase" in shown.err
    assert len(shown.err.strip().splitlines()[-1].split()) == 24
    assert shown.out.startswith("- address: st1")
    hidden = stchaind("keys", "add", "bob", "--no-backup")
    assert hidden.err.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ((), "m/44'/606'/0'/0/0"),
        (("--account", "3", "--index", "4"), "m/44'/606'/3'/0/4"),
        (("--coin-type", "118"), "m/44'/118'/0'/0/0"),
        (("--hd-path", "m/44'/60'/0'/0/9"), "m/44'/60'/0'/0/9"),
    ],
)
def test_the_path_options_choose_the_key(stchaind: Run, arguments: tuple[str, ...], path: str) -> None:
    from chain.crypto.address import encode
    from chain.crypto.hd import derive

    made = json.loads(recover(stchaind, "alice", "--algo", "secp256k1", "-o", "json", *arguments).out)
    assert made["address"] == encode(derive(WALLET["mnemonic"], path, "secp256k1").public_key.address)


def test_interactive_asks_for_mnemonic_and_passphrase(stchaind: Run) -> None:
    from chain.crypto.address import encode
    from chain.crypto.hd import derive

    answer = stchaind("keys", "add", "alice", "-i", "-o", "json", stdin=f"{WALLET['mnemonic']}\nsecret\nsecret\n")
    assert json.loads(answer.out)["address"] == encode(derive(WALLET["mnemonic"], passphrase="secret").public_key.address)
    answer = stchaind("keys", "add", "bob", "-i", stdin="\nsecret\nother\n")
    assert (answer.code, answer.err) == (1, "Error: passphrases don't match\n")
    answer = stchaind("keys", "add", "bob", "-i", "-o", "json", stdin="\n\n")
    assert len(json.loads(answer.out)["mnemonic"].split()) == 24


def test_the_mnemonic_may_come_from_a_file(stchaind: Run, tmp_path: Path) -> None:
    source = tmp_path / "words.txt"
    source.write_text(WALLET["mnemonic"].replace(" ", "\n"))
    answer = stchaind("keys", "add", "alice", "--recover", "--source", str(source), "-o", "json")
    assert json.loads(answer.out)["address"] == WALLET["address"]


def test_an_existing_name_is_replaced_only_after_a_yes(stchaind: Run) -> None:
    recover(stchaind, "alice")
    assert stchaind("keys", "add", "alice", stdin="n\n").err == "Error: aborted\n"
    assert stchaind("keys", "add", "alice").code == 1
    assert stchaind("keys", "show", "alice", "-a").out.strip() == WALLET["address"]
    assert stchaind("keys", "add", "alice", stdin="y\n").code == 0
    assert stchaind("keys", "show", "alice", "-a").out.strip() != WALLET["address"]


def test_a_multisig_sorts_its_members_by_address_unless_told_otherwise(stchaind: Run) -> None:
    for name in ("a", "b", "c"):
        stchaind("keys", "add", name, "--algo", "secp256k1" if name == "a" else "eth_secp256k1")
    members = {name: json.loads(stchaind("keys", "show", name, "-p").out) for name in "abc"}
    given = json.loads(
        json.loads(stchaind("keys", "add", "m1", "--multisig", "c,a,b", "--multisig-threshold", "2", "--nosort", "-o", "json").out)["pubkey"]
    )
    assert given["public_keys"] == [members["c"], members["a"], members["b"]]
    assert given["threshold"] == 2
    made = json.loads(stchaind("keys", "add", "m2", "--multisig", "c", "--multisig", "a,b", "--multisig-threshold", "3", "-o", "json").out)
    assert made["type"] == "multi"
    raw = {
        name: bytes.fromhex(json.loads(stchaind("keys", "parse", stchaind("keys", "show", name, "-a").out, "-o", "json").out)["bytes"])
        for name in "abc"
    }
    assert json.loads(made["pubkey"])["public_keys"] == [members[name] for name in sorted("abc", key=raw.__getitem__)]
    shown = json.loads(stchaind("keys", "show", "c", "a", "b", "--multisig-threshold", "2", "-o", "json").out)
    assert json.loads(shown["pubkey"]) == given
    assert shown["name"] == ""


def test_a_public_key_alone_may_be_kept(stchaind: Run) -> None:
    made = stchaind("keys", "add", "seen", "--pubkey", PLAIN_JSON)
    assert made.out.splitlines()[3] == "  type: offline"
    assert stchaind("keys", "export", "seen", stdin="password1\n").code == 1
    assert "only local keys" in stchaind("keys", "export", "seen", stdin="password1\n").err
    short = json.loads(PLAIN_JSON)["key"]
    again = stchaind("keys", "add", "eth", "--pubkey-base64", short, "-o", "json")
    assert json.loads(json.loads(again.out)["pubkey"]) == {"@type": "/stratos.crypto.v1.ethsecp256k1.PubKey", "key": short}


def test_an_exported_key_imports_under_another_name(stchaind: Run, tmp_path: Path) -> None:
    recover(stchaind, "alice")
    armored = stchaind("keys", "export", "alice", stdin="password1\n")
    assert armored.out.startswith("-----BEGIN TENDERMINT PRIVATE KEY-----\n")
    file = tmp_path / "key.asc"
    file.write_text(armored.out)
    elsewhere = tmp_path / "elsewhere"
    wrong = stchaind("keys", "import", "carol", str(file), stdin="password2\n", home=elsewhere)
    assert (wrong.code, wrong.err) == (1, "Error: failed to decrypt private key: invalid account password\n")
    assert stchaind("keys", "import", "carol", str(file), stdin="password1\n", home=elsewhere).code == 0
    assert stchaind("keys", "show", "carol", "-a", home=elsewhere).out.strip() == WALLET["address"]
    again = stchaind("keys", "import", "carol", str(file), stdin="password1\n", home=elsewhere)
    assert "cannot overwrite key 'carol'" in again.err


def test_import_hex_takes_a_private_key_with_or_without_0x(stchaind: Run) -> None:
    assert stchaind("keys", "import-hex", "alice", WALLET["private_key"]).code == 0
    assert stchaind("keys", "show", "alice", "-a").out.strip() == WALLET["address"]
    stchaind("keys", "delete", "alice", "-y")
    assert stchaind("keys", "import-hex", "alice", "0x" + WALLET["private_key"]).code == 0
    assert stchaind("keys", "import-hex", "plain", "0x" + "01" * 32, "--key-type", "secp256k1").code == 0


def test_delete_and_rename_ask_first(stchaind: Run) -> None:
    recover(stchaind, "alice")
    assert stchaind("keys", "delete", "alice", stdin="n\n").err == ""
    assert stchaind("keys", "rename", "alice", "carol", stdin="\n").err == ""
    assert stchaind("keys", "list", "-n").out == "alice\n"
    assert stchaind("keys", "rename", "alice", "carol", stdin="y\n").err == "Key was successfully renamed from alice to carol\n"
    assert stchaind("keys", "delete", "carol", stdin="yes\n").err == "Key deleted forever (uh oh!)\n"
    assert stchaind("keys", "list").out == "No records were found in keyring\n"
    stchaind("keys", "add", "seen", "--pubkey", PLAIN_JSON)
    assert stchaind("keys", "rename", "seen", "other", "-y").err == "Public key reference renamed\n"
    assert stchaind("keys", "delete", "other", "-y").err == "Public key reference deleted\n"


def test_mnemonic_makes_24_words_and_takes_entropy_by_hand(stchaind: Run) -> None:
    assert len(stchaind("keys", "mnemonic").out.split()) == 24
    entropy = "3" * 100
    made = stchaind("keys", "mnemonic", "--unsafe-entropy", stdin=f"{entropy}\ny\n").out
    assert len(made.split()) == 24
    assert made == stchaind("keys", "mnemonic", "--unsafe-entropy", stdin=f"{entropy}\ny\n").out
    assert stchaind("keys", "mnemonic", "--unsafe-entropy", stdin=f"{entropy}\nn\n").out == ""
    assert "You entered 5" in stchaind("keys", "mnemonic", "--unsafe-entropy", stdin="12345\ny\n").err


def test_parse_shows_an_address_in_every_form(stchaind: Run) -> None:
    shown = json.loads(stchaind("keys", "parse", WALLET["address"], "-o", "json").out)
    assert shown == {"human": "st", "bytes": WALLET["address_hex"].upper()}
    formats = json.loads(stchaind("keys", "parse", WALLET["address_hex"], "-o", "json").out)["formats"]
    assert formats[0] == WALLET["address"]
    assert [one.rsplit("1", 1)[0] for one in formats] == ["st", "stpub", "stvaloper", "stvaloperpub", "stvalcons", "stvalconspub"]
    assert stchaind("keys", "parse", "0102").out.startswith("formats:\n- st1")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("off", '"off"'),
        ("12", '"12"'),
        ("1e5", '"1e5"'),
        ("a: b", "'a: b'"),
        ("it's: so", "'it''s: so'"),
        ("plain name", "plain name"),
        ("#1", "'#1'"),
    ],
)
def test_names_that_yaml_would_misread_are_quoted(stchaind: Run, name: str, shown: str) -> None:
    assert stchaind("keys", "add", name).out.splitlines()[1] == f"  name: {shown}"


def test_the_file_backend_reads_its_passphrase_from_standard_input(stchaind: Run) -> None:
    made = stchaind("keys", "add", "alice", "-o", "json", stdin="password1\npassword1\n", backend="file")
    assert made.code == 0
    assert stchaind("keys", "list", "-n", stdin="password1\n", backend="file").out == "alice\n"
    wrong = stchaind("keys", "list", stdin="password2\npassword3\npassword4\n", backend="file")
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err.splitlines()[-1] == "Error: too many failed passphrase attempts: invalid account password"
    assert "no keyring passphrase was given" in stchaind("keys", "list", backend="file").err


def test_client_toml_names_the_backend_and_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from chain.cli.main import cli

    for name in ("STCHAIND_HOME", "STCHAIND_KEYRING_BACKEND", "STCHAIND_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").mkdir()
    config = tmp_path / "config" / "client.toml"
    config.write_text('keyring-backend = "test"\noutput = "json"\n')
    made = CliRunner().invoke(cli, ["--home", str(tmp_path), "keys", "add", "alice"])
    assert json.loads(made.stdout)["name"] == "alice"
    assert (tmp_path / "keyring-test" / "alice.info").exists()
    monkeypatch.setenv("STCHAIND_KEYRING_BACKEND", "memory")
    assert CliRunner().invoke(cli, ["--home", str(tmp_path), "keys", "list"]).stdout == "[]"
    assert CliRunner().invoke(cli, ["--home", str(tmp_path), "keys", "list", "-n", "--keyring-backend", "test"]).stdout == "alice\n"
    config.write_text("keyring-backend = ")
    broken = CliRunner().invoke(cli, ["--home", str(tmp_path), "keys", "list", "--keyring-backend", "test"])
    assert broken.exit_code == 1
    assert "client.toml" in broken.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("show", "nobody"), "", "nobody is not a valid name or address: nobody.info: key not found"),
        (("show", "alice", "-a", "-p"), "", "cannot use both --address and --pubkey"),
        (("show", "alice", "-a", "-o", "json"), "", "cannot use --output with --address or --pubkey"),
        (("show", "alice", "--bech", "node"), "", "invalid Bech32 prefix encoding provided: node"),
        (("show", "alice", "alice", "--multisig-threshold", "3"), "", "threshold k of n multisignature: 2 < 3"),
        (("export", "nobody"), "password1\n", "nobody.info: key not found"),
        (("export", "alice"), "short\n", "password must be at least 8 characters"),
        (("export", "alice"), "", "standard input ended"),
        (("export", "alice", "--unsafe"), "", "must be used together"),
        (("export", "alice", "--unarmored-hex"), "", "must be used together"),
        (("import", "x", "no-such-file"), "password1\n", "cannot read no-such-file: No such file or directory"),
        (("import", "x", "/dev/null"), "password1\n", "no armored key"),
        (("import", "x", "/dev/zero"), "password1\n", "is larger than"),
        (("import-hex", "x", "00" * 32), "", "a number from 1 to the order of secp256k1"),
        (("import-hex", "x", "zz"), "", "64 hexadecimal digits, got 2 characters"),
        (("import-hex", "x", "01" * 31), "", "64 hexadecimal digits, got 62 characters"),
        (("import-hex", "x", "01" * 32, "--key-type", "sr25519"), "", "unsupported signing algo"),
        (("import-hex", "alice", "01" * 32), "", "cannot overwrite key 'alice'"),
        (("add", "x", "--algo", "ed25519"), "", "unsupported signing algo"),
        (("add", "x", "--recover"), "foo bar\n", "invalid mnemonic"),
        (("add", "x", "--recover"), "", "standard input ended"),
        (("add", "x", "--recover"), WALLET["mnemonic"], "duplicated address created"),
        (("add", "x", "--hd-path", "m/44'/x"), "", "derivation path"),
        (("add", "x", "--multisig", "alice", "--multisig-threshold", "0"), "", "threshold must be a positive integer"),
        (("add", "x", "--multisig", "alice", "--multisig-threshold", "2"), "", "threshold k of n multisignature: 1 < 2"),
        (("add", "x", "--multisig", "nobody"), "", "nobody.info: key not found"),
        (("add", "x", "--pubkey", "{"), "", "not JSON"),
        (("add", "x", "--pubkey", '{"x":1}'), "", "@type"),
        (("add", "x", "--pubkey", PLAIN_JSON.replace("A4tb", "BBBB")), "", "compressed curve point"),
        (("add", "x", "--pubkey", PLAIN_JSON, "--pubkey-base64", "AA=="), "", "cannot be used simultaneously"),
        (("add", "x", "--pubkey-base64", "A*"), "", "not base64"),
        (("add", ""), "", "1 to 100 printable characters"),
        (("rename", "alice", "alice", "-y"), "", "key already exists"),
        (("rename", "nobody", "x", "-y"), "", "nobody.info: key not found"),
        (("delete", "nobody", "-y"), "", "nobody.info: key not found"),
        (("parse", "zz"), "", "couldn't find valid bech32 nor hex data"),
        (("parse", " "), "", "couldn't parse empty input"),
        (("parse", "ab" * 256), "", "couldn't find valid bech32 nor hex data"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_said_in_one_sentence(stchaind: Run, arguments: tuple[str, ...], stdin: str, said: str) -> None:
    recover(stchaind, "alice")
    answer = stchaind("keys", *arguments, stdin=stdin)
    assert answer.code == 1
    assert said in answer.err
    assert answer.err.startswith("Error: ")
    assert answer.err.count("\n") == 1
    assert stchaind("keys", "list", "-n").out == "alice\n"


def test_an_unknown_backend_is_refused(stchaind: Run) -> None:
    assert "unknown keyring backend 'kwallet'" in stchaind("keys", "list", backend="kwallet").err


def test_migrate_and_list_key_types_answer_as_simd(stchaind: Run) -> None:
    assert stchaind("keys", "migrate").out == "Keys migration has been successfully executed.\n"
    assert stchaind("keys", "list-key-types").out == 'Supported key types/algos:\n"eth_secp256k1,secp256k1"\n'
