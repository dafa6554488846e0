"""Settings files: what is written is read again, and what does not belong there is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sds_node import settings
from sds_node.meta.daemon.home import Home, HomeError
from sds_node.meta.daemon.home import Settings as MetaSettings
from sds_node.settings import SettingsError, value


@dataclass(frozen=True)
class Network:
    port: int = value(18_081, "TCP port.", least=0, most=65_535)
    share: float = value(0.5, "A part.", least=0, most=1)
    is_open: bool = value(False, "Open or not.")
    peers: tuple[str, ...] = value((), "Who else is there.")
    name: str = value("", "A name.")


@dataclass(frozen=True)
class Settings:
    network: Network = field(default_factory=Network)


def parsed(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return settings.read(Settings, path)


def test_what_is_written_is_read_again_and_each_value_is_explained(tmp_path: Path) -> None:
    made = Settings(Network(7, 0.25, True, ("a", "b,c"), 'quoted " name'))
    text = settings.write(made)
    assert parsed(tmp_path, text) == made
    assert "# Who else is there.\npeers" in text


def test_what_a_file_leaves_out_has_its_default(tmp_path: Path) -> None:
    assert parsed(tmp_path, "[network]\nport = 1\n") == Settings(Network(port=1))
    assert parsed(tmp_path, "") == Settings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[netwrok]\nport = 1", "sections named network"),
        ("port = 1", "sections named network"),
        ("[network]\nprot = 1", "expected port, share"),
        ("[network]\nport = '1'", "network.port: expected a whole number, got '1'"),
        ("[network]\nport = true", "network.port: expected a whole number"),
        ("[network]\nport = 65536", "from 0 to 65535, got 65536"),
        ("[network]\nshare = nan", "from 0 to 1"),
        ("[network]\nis_open = 1", "true or false"),
        ("[network]\npeers = [1]", "a list of at most"),
        ("[network]\npeers = 'a'", "a list of texts"),
        ("[network", "is no TOML"),
    ],
)
def test_what_does_not_belong_there_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        parsed(tmp_path, text)


def test_a_file_that_is_missing_or_huge_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        settings.read(Settings, tmp_path / "none.toml")
    (tmp_path / "huge.toml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(SettingsError, match="expected a settings file"):
        settings.read(Settings, tmp_path / "huge.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is no TOML"):
        settings.read(Settings, tmp_path / "bytes.toml")


def test_a_person_changes_one_value(tmp_path: Path) -> None:
    made = settings.changed(Settings(), "network.peers", "a, b")
    made = settings.changed(made, "network.is_open", "true")
    made = settings.changed(made, "network.share", "1")
    assert (made.network.peers, made.network.is_open, made.network.share) == (("a", "b"), True, 1.0)
    assert settings.get(made, "network.share") == 1.0
    for name, text in (("network.port", "70000"), ("network.port", "x"), ("network.is_open", "yes"), ("network.none", "1"), ("port", "1")):
        with pytest.raises(SettingsError):
            settings.changed(made, name, text)


def test_a_home_of_a_meta_node_is_made_once_and_run_by_one(tmp_path: Path) -> None:
    home = Home(tmp_path / "spd")
    home.make()
    assert Home.open(tmp_path / "spd").settings == MetaSettings()
    with pytest.raises(HomeError, match="nothing was changed"):
        home.make()
    home.lock()
    with pytest.raises(HomeError, match="runs in"):
        home.lock()
    with pytest.raises(HomeError, match="spd init"):
        Home.open(tmp_path / "other")
