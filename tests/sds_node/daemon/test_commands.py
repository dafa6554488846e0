"""Commands of ``ppd`` that need no running node: keys, settings, the machine, the original's terminal lines, the unit."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from chain.crypto.hd import new_mnemonic
from sds_node.cli.node_terminal import UnknownLine, argv_of
from sds_node.cli.output import size_text, span_text, stos_text, table
from sds_node.cli.ppd import cli
from sds_node.monitoring import render
from sds_node.resource.daemon import metrics
from sds_node.resource.daemon.home import Home
from tests.sds_node.daemon.commands import NOWHERE, init, password_file, ppd, told

STOS = 10**18
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "sds.json").read_text())["key_files"]


def test_init_makes_a_home_whose_mnemonic_brings_it_back(tmp_path: Path) -> None:
    made = init(tmp_path / "home")
    assert len(made["mnemonic"].split()) == 24
    (tmp_path / "words").write_text(made["mnemonic"])
    again = init(tmp_path / "again", "--mnemonic-file", str(tmp_path / "words"))
    assert (again["wallet"], again["node"], "mnemonic" in again) == (made["wallet"], made["node"], False)
    third = init(tmp_path / "third", "--mnemonic-file", str(tmp_path / "words"), "--new-node-key")
    assert (third["wallet"] == made["wallet"], third["node"] == made["node"]) == (True, False)
    code, _, err = ppd(tmp_path / "home", "init", "--chain-id", "x")
    assert (code, "there already" in err) == (1, True)


def test_the_mnemonic_is_shown_beside_the_result_and_never_kept_in_the_clear(tmp_path: Path) -> None:
    home = tmp_path / "home"
    code, out, err = ppd(home, "init", "--chain-id", "x-1", "--rpc", NOWHERE)
    assert code == 0
    words = next(line for line in err.splitlines() if len(line.split()) == 24)
    assert words not in out
    assert not [
        path for path in home.rglob("*") if path.is_file() and words.split()[0].encode() + b" " + words.split()[1].encode() in path.read_bytes()
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen", "nowhere"], "host:port"),
        (["--capacity", "much"], "500GiB"),
        (["--meta-node", "x"], "stsds1…@host:port"),
        (["--beneficiary", "st1x"], "keys.beneficiary"),
        (["--rpc", NOWHERE, "--chain-id", ""], "does not answer"),
    ],
)
def test_an_init_that_means_nothing_makes_nothing(tmp_path: Path, arguments: list[str], says: str) -> None:
    home = tmp_path / "home"
    code, _, err = ppd(home, "init", "--chain-id", "x-1", *arguments)
    assert (code, says in err, home.exists()) == (1, True, False), err


def test_a_short_password_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("1234567\n")
    code, _, err = ppd(tmp_path / "home", "init", "--chain-id", "x-1", "--password-file", str(tmp_path / "short"))
    assert (code, "at least 8 characters" in err) == (1, True)


def test_keys_of_the_original_are_imported_listed_and_exported(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    for vector in VECTORS:
        file, secret = tmp_path / "old.json", tmp_path / "old-password"
        file.write_text(json.dumps(vector["file"]))
        secret.write_text(vector["password"] + "\n")
        made = told(home, "keys", "import", str(file), "--key-password-file", str(secret), "--use")
        assert (made["type"], made["is_used"]) == (vector["kind"], True)
        shown = told(home, "keys", "export", made["address"], "--unsafe")
        assert shown["private_key"] == vector["private_key"]
        exported = told(home, "keys", "export", made["address"], "--to", str(tmp_path / "out"))
        assert json.loads(Path(exported["file"]).read_text())["version"] == 3
    listed = told(home, "keys", "list")["keys"]
    assert len(listed) == 4
    config = Home(home).config()
    assert {one["address"] for one in listed if one["is_used"]} == {config.keys.wallet, config.keys.p2p}
    code, _, err = ppd(home, "keys", "import", str(file), stdin="wrong\n")
    assert (code, "does not open it" in err) == (1, True)
    assert ppd(home, "keys", "import")[0] == 2


def test_new_keys_and_mnemonics_have_the_homes_password(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    before = Home(home).config().keys
    added = told(home, "keys", "add", "--type", "p2p")
    assert (added["is_used"], Home(home).config().keys) == (False, before)
    assert told(home, "keys", "import", "--mnemonic", "--type", "wallet", "--use", stdin=new_mnemonic() + "\n")["is_used"]
    (tmp_path / "wrong").write_text("another password\n")
    code, _, err = ppd(home, "keys", "add", "--password-file", str(tmp_path / "wrong"))
    assert (code, "one password" in err) == (1, True)


def test_settings_are_shown_and_changed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    assert ppd(home, "config", "set", "storage.capacity", "4TB")[0] == 0
    assert ppd(home, "config", "get", "storage.capacity")[1] == "4TB\n"
    assert told(home, "config", "get", "network.relay") == {"network.relay": False}
    assert told(home, "config", "show")["storage.capacity"] == "4TB"
    assert "capacity" in ppd(home, "config", "show")[1]
    code, _, err = ppd(home, "config", "set", "storage.capacity", "many")
    assert (code, "storage.capacity" in err) == (1, True)
    assert ppd(home, "config", "get", "storage.capacity")[1] == "4TB\n"
    assert ppd(home, "config", "get", "nonsense.name")[0] == 1


def test_commands_that_need_a_running_node_say_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    for arguments in (["stop"], ["maintenance", "start", "10m"], ["maintenance", "stop"]):
        code, _, err = ppd(home, *arguments)
        assert (code, "ppd start" in err) == (1, True)
    for arguments in (
        ["register", "--deposit", "1stos"],
        ["earnings"],
        ["withdraw"],
        ["deposit", "1stos"],
        ["activate", "--timeout", "0"],
        ["exit", "-y"],
    ):
        code, _, err = ppd(home, *arguments)
        assert (code, "does not answer" in err, "Traceback" in err) == (1, True, False), arguments


def test_a_machine_is_looked_at(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert ppd(home, "config", "set", "network.listen_port", str(other.getsockname()[1]))[0] == 0
        code, out, _ = ppd(home, "check", "-o", "json")
    found = {one["name"]: one for one in json.loads(out)["findings"]}
    assert code == 1
    assert found["disk"]["is_good"]
    assert "network.listen_port" in found["port"]["text"]
    assert not found["chain"]["is_good"]
    assert "none is set" in found["meta node"]["text"]
    assert not list((home).rglob(".probe*"))


def test_the_unit_runs_this_home(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    init(home)
    unit = ppd(home, "systemd", "--user", "stratos", "--password-file", "/etc/ppd/password")[1]
    assert f"start --home '{home}'" in unit
    assert "LoadCredential=password:/etc/ppd/password" in unit
    assert "User=stratos" in unit


def test_no_more_is_withdrawn_than_has_matured_and_the_refusal_says_how_much_that_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    wallet = init(home)["wallet"]
    soonest = {"reward_epoch": 7, "maturity_epoch": 9, "amount_wei": str(STOS // 4), "not_before_s": 1_790_000_000}
    chain = {"wallet": wallet, "mature_wei": str(3 * STOS // 2), "immature_wei": str(STOS), "upcoming": [soonest, soonest], "slashing_debt_wei": "0"}
    sent: list[int] = []
    monkeypatch.setattr("sds_node.cli.node_chain.with_chain", lambda *_: chain)
    monkeypatch.setattr("sds_node.cli.node_chain.send", lambda _, __, messages: sent.append(int(messages[0].amount[0].amount)) or {"height": 5})
    for amount in ("2stos", "1500000001gwei"):
        code, _, err = ppd(home, "withdraw", amount)
        assert code == 1
        assert f"at most 1.5 STOS, which is what has matured for {wallet} (1 STOS maturing, 0.25 STOS of it not before " in err
    assert "2026-09-21 14:13:20 UTC), got 2 STOS: withdraw less" in ppd(home, "withdraw", "2stos")[2]
    soonest["not_before_s"] = 0
    assert "0.25 STOS of it with epoch 9" in ppd(home, "withdraw", "2stos")[2]
    chain["upcoming"], chain["immature_wei"] = [], "0"
    assert "(nothing is maturing)" in ppd(home, "withdraw", "2stos")[2]
    assert sent == []
    assert told(home, "withdraw", "1stos")["amount_wei"] == str(STOS)
    assert told(home, "withdraw")["amount_wei"] == str(3 * STOS // 2)
    assert sent == [STOS, 3 * STOS // 2]
    chain["mature_wei"] = "0"
    for arguments in (["withdraw"], ["withdraw", "1stos"]):
        code, _, err = ppd(home, *arguments)
        assert (code, f"nothing has matured for {wallet} yet (nothing is maturing)" in err) == (1, True)


KNOWN = list(cli.commands)


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("status", [["status"]]),
        ("rp", [["activate", "--timeout", "0"]]),
        ("activate 10stos 0.01stos --gas 300000", [["register", "--deposit", "10stos"], ["activate"]]),
        ("updateDeposit 1stos 0.01stos", [["deposit", "1stos"]]),
        ("deactivate 0.01stos", [["exit", "--yes"]]),
        ("startmining", [["activate", "--timeout", "0"]]),
        ("maintenance start 600", [["maintenance", "start", "600"]]),
        ("maintenance stop", [["maintenance", "stop"]]),
        ("withdraw 3stos 0.01stos --targetAddr st1x --gas=5", [["withdraw", "3stos", "--to", "st1x"]]),
        ("send st1x 5stos 0.01stos", [["send", "st1x", "5stos"]]),
        ("updateinfo 0.01stos --moniker 'my node' --security_contact a@b.c", [["update", "--moniker", "my node", "--security-contact", "a@b.c"]]),
        ("prepay 5stos 0.01stos", [["prepay", "5stos"]]),
        ("wallets", [["keys", "list"]]),
        ("newwallet", [["keys", "add"]]),
        ("config storage.capacity 4TB", [["config", "set", "storage.capacity", "4TB"]]),
        ("config get storage.capacity", [["config", "get", "storage.capacity"]]),
        ("put /tmp/a --isEncrypted=false", [["put", "--public", "/tmp/a"]]),
        ("u /tmp/a", [["put", "/tmp/a"]]),
        ("ls", [["list"]]),
        ("get sdm://a/b saved", [["get", "sdm://a/b", "saved"]]),
        ("rm a", [["rm", "a"]]),
        ("sharefile a 3600 0", [["share", "a", "--expires", "3600s"]]),
        ("cancelshare s", [["unshare", "s"]]),
        ("earnings", [["earnings"]]),
        ("", []),
        ("# a remark", []),
    ],
)
def test_a_line_of_the_originals_terminal_means_one_of_ours(line: str, argv: list[list[str]]) -> None:
    assert argv_of(line, KNOWN) == argv
    for one in argv:
        assert one[0] in KNOWN


@pytest.mark.parametrize("line", ["nonsense", "send st1x", "config", "put", "'", "updateDeposit"])
def test_a_line_that_means_nothing_is_refused(line: str) -> None:
    with pytest.raises(UnknownLine):
        argv_of(line, KNOWN)


def test_the_terminal_reads_lines_and_one_line_is_run_for_scripts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = init(home)
    code, out, _ = ppd(home, "terminal", "exec", "wallets")
    assert (code, made["wallet"] in out) == (0, True)
    assert ppd(home, "terminal", "exec", "config", "get", "network.relay")[1] == "false\n"
    assert ppd(home, "terminal", "exec", "maintenance start 600")[0] == 1
    assert ppd(home, "terminal", "exec", "nonsense")[0] == 1
    code, out, err = ppd(home, "terminal", stdin="help\nconfig get network.relay\nnonsense\nwallets\nexit\nwallets\n")
    assert code == 0
    assert "updateDeposit" in out
    assert "false\n" in out
    assert out.count("ADDRESS") == 1
    assert "no command 'nonsense'" in err


def test_figures_are_written_for_people() -> None:
    assert (size_text(0), size_text(1536), size_text(5 << 40)) == ("0 B", "1.5 KiB", "5.0 TiB")
    assert (stos_text(0), stos_text(10**18), stos_text(1), stos_text(25 * 10**17)) == ("0 STOS", "1 STOS", "0.000000000000000001 STOS", "2.5 STOS")
    assert (span_text(0), span_text(61), span_text(90_000)) == ("0 s", "1 min 1 s", "1 d 1 h")
    assert table(["A", "B"], [["x", 1]]) == "A  B\nx  1"


def test_every_metric_is_declared_once_and_rendered_with_its_labels() -> None:
    assert len({one.name for one in metrics.METRICS}) == len(metrics.METRICS)
    values = {"ppd_score": {("stsds1x",): 5_000}, "ppd_transfers_total": {("get", "done"): 3}, "ppd_transfers": {(): 1}}
    text = bytes(render(metrics.METRICS, values).body).decode()
    assert 'ppd_score{meta_node="stsds1x"} 5000.0' in text
    assert 'ppd_transfers_total{method="get",outcome="done"} 3.0' in text
    assert "ppd_transfers 1.0" in text


def test_a_password_file_that_others_read_is_warned_of(tmp_path: Path) -> None:
    Path(password_file(tmp_path)).chmod(0o644)
    home = tmp_path / "sub" / "home"
    home.parent.mkdir()
    init(home)
    _, _, err = ppd(home, "keys", "add", "--type", "p2p", "--password-file", str(tmp_path / "password"))
    assert "chmod 600" in err
