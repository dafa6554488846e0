"""A user begins: a wallet, a home, ozone bought on a real chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sds_node.cli.output import Commands
from sds_node.cli.user import add_user_commands
from sds_node.client.home import Chain, Network, UserHome, UserSettings, Wallet
from sds_node.keystore import Kind, StoredKey
from sds_node.p2p import format_address, format_public_key, new_key
from sds_node.settings import SettingsError
from tests.sds_node.value_chain.support import CHAIN_ID, running

META = f"{format_address(b'm' * 20)}@127.0.0.1:18881"


@click.group(cls=Commands)
def root() -> None:
    """As ``ppd``."""


add_user_commands(root)


def run(folder: Path, *arguments: str, code: int = 0) -> Any:
    (folder / "password").write_text("correct horse")
    (folder / "password").chmod(0o600)
    options = ["--home", str(folder / "home"), "--password-file", str(folder / "password")]
    result = CliRunner().invoke(root, [arguments[0], *options, *arguments[1:]])
    assert result.exit_code == code, (result.exit_code, result.output)
    return json.loads(result.stdout) if "--json" in arguments and not code else result


def test_a_new_wallet_is_made_and_its_words_give_it_again_elsewhere(tmp_path: Path) -> None:
    made = run(tmp_path, "setup", "--new", "--meta-node", META, "--chain-id", "x-1", "--json")
    assert len(made["mnemonic"].split()) == 24
    home = UserHome(tmp_path / "home")
    assert home.settings() == UserSettings(Wallet(made["wallet"]), Chain("x-1"), Network((META,)))
    assert home.settings_path.stat().st_mode & 0o077 == 0
    key = home.wallet_key(made["wallet"], "correct horse")
    (tmp_path / "words").write_text(made["mnemonic"])
    (tmp_path / "elsewhere").mkdir()
    again = run(tmp_path / "elsewhere", "setup", "--mnemonic-file", str(tmp_path / "words"), "--meta-node", META, "--chain-id", "x-1", "--json")
    assert again["wallet"] == made["wallet"]
    assert UserHome(tmp_path / "elsewhere" / "home").wallet_key(made["wallet"], "correct horse").raw == key.raw


def test_settings_that_mean_nothing_are_told_by_name(tmp_path: Path) -> None:
    assert "one of --wallet" in run(tmp_path, "setup", "--meta-node", META, "--chain-id", "x", code=2).stderr
    assert "network.meta_nodes" in run(tmp_path, "setup", "--new", "--meta-node", "host:1", "--chain-id", "x", code=1).stderr
    assert "wallet.address" in run(tmp_path, "setup", "--wallet", "me", "--meta-node", META, "--chain-id", "x", code=1).stderr
    home = UserHome(tmp_path / "home")
    home.settings_path.write_text("[wallet]\naddress = 5\n")
    with pytest.raises(SettingsError, match=r"wallet\.address"):
        home.settings()
    home.settings_path.write_text("")
    with pytest.raises(SettingsError):
        home.settings()
    key = format_public_key(new_key().public_key)
    run(tmp_path, "setup", "--new", "--meta-node", f"{key}@[::1]:5", "--chain-id", "x")
    assert home.settings().network.meta_nodes == (f"{key}@[::1]:5",)


@pytest.mark.timeout(300)
def test_ozone_is_bought_on_the_chain(tmp_path: Path) -> None:
    with running(tmp_path) as chain:
        home = UserHome(tmp_path / "home")
        address = home.add_wallet(StoredKey(Kind.WALLET, chain.key("alice").raw), "correct horse")
        made = run(tmp_path, "setup", "--wallet", address, "--meta-node", META, "--rpc", chain.rpc, "--json")
        assert made["chain_id"] == CHAIN_ID
        bought = run(tmp_path, "prepay", "1stos", "--json")
        assert bought["beneficiary"] == address
        assert int(bought["purchased_noz"]) > 0
        refused = run(tmp_path, "prepay", "999999999999stos", code=1)
        assert "Traceback" not in refused.output
        home.save(UserSettings(Wallet(address), Chain("another-1", chain.rpc), Network((META,))))
        assert "nothing was sent" in run(tmp_path, "prepay", "1stos", code=1).stderr
