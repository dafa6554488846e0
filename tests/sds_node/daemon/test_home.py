"""The home of a resource node: settings, keys, what is remembered, one node at a time."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sds_node import keystore
from sds_node.keystore import Kind, StoredKey
from sds_node.resource.daemon import config as settings
from sds_node.resource.daemon.config import Config, MetaNode
from sds_node.resource.daemon.home import Home, HomeError, HomeLocked, State
from sds_node.settings import SettingsError, changed, write

META = "stsds1v0e40rs9ewwpxllax8a6dl2wu7v2ysnvlrgpuj"


def test_settings_that_are_written_are_read_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    config = changed(changed(Config(), "network.meta_nodes", f"{META}@a.example.org:18080,snode:{META}@[::1]:5"), "storage.capacity", "4TB")
    home.make(config)
    assert home.config() == config
    assert settings.capacity_bytes(config) == 4 * 10**12
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.config_path.stat().st_mode) == 0o600
    with pytest.raises(HomeError, match="there already"):
        home.make(config)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("keys.wallet", "st1nonsense", "keys.wallet"),
        ("keys.p2p", "st18yesadx3t8x3jjsygpqeqzh0j7xh2vh66945zx", "keys.p2p"),
        ("network.meta_nodes", "somebody@somewhere", "stsds1…@host:port"),
        ("network.meta_nodes", f"{META}@host", "host:port"),
        ("network.meta_nodes", f"{META}@host:0", "host:port"),
        ("network.meta_nodes", f"{META}@host:99999", "host:port"),
        ("network.meta_nodes", f"{META}@ho/st:80", "host:port"),
        ("network.listen_host", "localhost", "an IP address"),
        ("network.listen_port", "65536", "65535"),
        ("network.public_endpoint", "a..b:80", "host:port"),
        ("storage.capacity", "lots", "500GiB"),
        ("storage.capacity", "9999999999 PiB", "at most"),
        ("storage.reserve", "-1", "500GiB"),
        ("withdrawal.threshold", "10", ""),
        ("withdrawal.threshold", "10apples", "stos, gwei or wei"),
        ("chain.rpc", "file:///etc/passwd", "a URL"),
        ("network.nonsense", "1", "there is no setting"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_by_name(name: str, text: str, says: str) -> None:
    if not says:
        assert settings.threshold_wei(settings.checked(changed(Config(), name, text))) == 10
        return
    with pytest.raises(SettingsError, match=says):
        settings.checked(changed(Config(), name, text))


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("0", 0), ("12", 12), ("1KiB", 1024), ("1.5 GiB", 3 << 29), ("2tb", 2 * 10**12), ("0.5MB", 500_000)]
)
def test_sizes_are_read_as_people_write_them(text: str, size_bytes: int) -> None:
    assert settings.parse_size("x", text) == size_bytes


def test_a_meta_node_is_named_by_address_or_key() -> None:
    found = settings.parse_meta_node(f"{META}@[2001:db8::1]:18080")
    assert (found.host, found.port) == ("2001:db8::1", 18080)
    assert settings.parse_meta_node(str(found)) == found
    assert isinstance(found, MetaNode)


def test_a_damaged_settings_file_is_a_sentence(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(HomeError, match="ppd init"):
        home.config()
    home.config_path.write_text("[network\n")
    with pytest.raises(SettingsError, match="no TOML"):
        home.config()
    home.config_path.write_text(write(replace(Config())).replace("[network]", "[networks]"))
    with pytest.raises(SettingsError, match="networks"):
        home.config()


def test_keys_of_the_originals_format_are_taken_over(tmp_path: Path) -> None:
    home = Home(tmp_path)
    vectors = json.loads((Path(__file__).parents[2] / "vectors" / "sds.json").read_text())["key_files"]
    for vector in vectors:
        key = keystore.decode(json.dumps(vector["file"]).encode(), vector["password"])
        account = home.add_key(key, "another password")
        assert account.kind.value == vector["kind"]
        assert home.load_key(account.address, "another password").private_key.hex() == vector["private_key"]
        assert stat.S_IMODE(account.path.stat().st_mode) == 0o600
        assert json.loads(account.path.read_text())["scrypt_n"] >= 1 << 17
    assert len(home.key_files()) == 2
    with pytest.raises(keystore.WrongPassword):
        home.load_key(home.key_files()[0].address, "wrong")
    with pytest.raises(HomeError, match="keys import"):
        home.load_key("st1somebody", "any")


def test_a_key_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    home, key = Home(tmp_path), StoredKey(Kind.P2P, b"\x01" * 32)
    home.add_key(key, "first password")
    with pytest.raises(keystore.KeyFileError, match="exists"):
        home.add_key(key, "second password")
    assert home.load_key(key.address_text, "first password") == replace(key, name="")


def test_a_run_that_did_not_end_is_noticed_once_it_was_told(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert not home.begin_run(1).was_killed
    home.end_run()
    assert not home.begin_run(2).was_killed
    assert home.begin_run(3).was_killed
    home.end_run()
    assert home.begin_run(4).was_killed, "nobody was told yet"
    home.end_run()
    home.remember(was_killed=False)
    assert not home.begin_run(5).was_killed


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "[" * 100_000, '{"was_killed": 1, "maintenance_until_s": "x", "more": 3}'])
def test_a_state_that_means_nothing_fails_no_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert Home(tmp_path).state() in (State(was_killed=True), State())


def test_two_processes_do_not_share_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    script = (
        "import sys\nfrom pathlib import Path\nfrom sds_node.resource.daemon.home import Home\n"
        f"with Home(Path({str(tmp_path)!r})).held():\n print('held', flush=True)\n sys.stdin.read()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(HomeLocked, match="stop it first"), home.held():
        pass
    other.stdin.close()
    other.wait(30)
    other.stdout.close()
    with home.held():
        pass


def test_refused_receipts_are_kept_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.resource.daemon.home.MAX_REFUSED_BYTES", 100)
    home = Home(tmp_path)
    kept = [home.note_refused([{"serial": str(number), "reason": "x" * 20}]) for number in range(4)]
    assert kept == [True, True, False, False]
    lines = home.refused_path.read_text().splitlines()
    assert [json.loads(line)["serial"] for line in lines] == ["0", "1"]
