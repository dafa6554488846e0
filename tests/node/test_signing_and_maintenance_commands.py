"""``tx sign``, ``multi-sign``, ``validate-signatures``, ``prune``, ``config`` and ``snapshots`` as an operator types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.config import Home
from chain.store.kv import open_backend
from chain.testing.driver import Driver
from tests.support import CHAIN_ID, Cli, genesis_document

KEYRING = ("--keyring-backend", "test")
OFFLINE = ("--offline", "--chain-id", CHAIN_ID, "--account-number", "7", "--sequence", "0")


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    made = Cli(tmp_path / "home")
    made.ok("init", "v", "--chain-id", CHAIN_ID)
    return made


@pytest.mark.timeout(120)
def test_a_transaction_made_offline_is_signed_checked_and_put_together_for_a_multisig(cli: Cli, tmp_path: Path) -> None:
    addresses = {}
    for name in ("k1", "k2", "k3"):
        addresses[name] = json.loads(cli.ok("keys", "add", name, *KEYRING, "--output", "json"))["address"]
    cli.ok("keys", "add", "shared", "--multisig", "k1,k2,k3", "--multisig-threshold", "2", *KEYRING)
    shared = cli.ok("keys", "show", "shared", "-a", *KEYRING)
    unsigned = tmp_path / "unsigned.json"
    for sender, name in ((addresses["k1"], "k1"), (shared, "shared")):
        unsigned.write_text(
            cli.ok("tx", "bank", "send", sender, addresses["k2"], "5wei", "--fees", "200000gwei", "--generate-only", "--from", sender, *KEYRING)
        )
        if name == "k1":
            for mode in ("direct", "amino-json"):
                signed = tmp_path / f"{mode}.json"
                signed.write_text(cli.ok("tx", "sign", str(unsigned), "--from", "k1", "--sign-mode", mode, *OFFLINE, *KEYRING))
                assert "[OK]" in cli.ok("tx", "validate-signatures", str(signed), *OFFLINE)
                wrong = cli.run("tx", "validate-signatures", str(signed), *OFFLINE[:-4], "--account-number", "8", "--sequence", "0")
                assert wrong.returncode == 1
                assert "does not hold" in wrong.stdout
            stranger = cli.run("tx", "sign", str(unsigned), "--from", "k2", *OFFLINE, *KEYRING)
            assert stranger.returncode == 1
            assert "does not sign this transaction" in stranger.stderr
            continue
        parts = []
        for member in ("k3", "k1"):
            part = tmp_path / f"{member}.json"
            part.write_text(cli.ok("tx", "sign", str(unsigned), "--from", member, "--multisig", "shared", *OFFLINE, *KEYRING))
            parts.append(str(part))
        few = cli.run("tx", "multisign", str(unsigned), "shared", parts[0], *OFFLINE, *KEYRING)
        assert (few.returncode, "needs 2 signatures, got 1" in few.stderr) == (1, True)
        signed = tmp_path / "whole.json"
        signed.write_text(cli.ok("tx", "multi-sign", str(unsigned), "shared", *parts, *OFFLINE, *KEYRING))
        assert "[OK]" in cli.ok("tx", "validate-signatures", str(signed), *OFFLINE)
        assert cli.ok("tx", "encode", str(signed))


@pytest.mark.timeout(120)
def test_a_stopped_node_is_pruned_and_snapshots_go_to_another_home(cli: Cli, tmp_path: Path) -> None:
    home = Home(cli.home)
    app = build_application(open_backend("", home.database), Settings())
    driver = Driver([app], genesis_document(app))
    driver.start()
    for _ in range(20):
        driver.next_block()
    app_hash = driver.app_hash
    app.close()
    assert cli.ok("snapshots", "list") == ""
    assert "Snapshot created at height 20, format 1, chunks 1" in cli.ok("snapshots", "export")
    assert cli.ok("snapshots", "list") == "height: 20 format: 1 chunks: 1"
    archive = tmp_path / "snapshot.tar.gz"
    cli.ok("snapshots", "dump", "20", "1", "-o", str(archive))
    assert cli.ok("prune", "everything").startswith("pruned heights 1 to 17; 18 is the oldest now")
    assert cli.run("export", "--height", "5").returncode == 1
    other = Cli(tmp_path / "other")
    other.ok("init", "o", "--chain-id", CHAIN_ID)
    assert other.run("snapshots", "restore", "20", "1").returncode == 1
    assert other.ok("snapshots", "load", str(archive)) == "height: 20 format: 1 chunks: 1"
    assert other.ok("snapshots", "restore", "20", "1") == f"Restored height 20, app hash {app_hash.hex().upper()}"
    assert json.loads(other.ok("export"))["app_state"] == json.loads(cli.ok("export"))["app_state"]
    other.ok("snapshots", "delete", "20", "1")
    assert other.ok("snapshots", "list") == ""
    archive.write_bytes(archive.read_bytes()[:-40])
    damaged = other.run("snapshots", "load", str(archive))
    assert (damaged.returncode, "Traceback" in damaged.stderr) == (1, False)


def test_files_of_the_home_are_read_and_changed_by_key(cli: Cli) -> None:
    assert cli.ok("config", "home") == str(cli.home)
    assert json.loads(cli.ok("config", "get", "app", "api.enable")) is True
    cli.ok("config", "set", "app", "api.enable", "false")
    cli.ok("config", "set", "app", "state-sync.snapshot-interval", "100")
    assert json.loads(cli.ok("config", "get", "app", "state-sync.snapshot-interval")) == 100
    assert set(cli.ok("config", "diff").splitlines()) == {"api.enable: true -> false", "state-sync.snapshot-interval: 0 -> 100"}
    assert "snapshot-interval = 100" in cli.ok("config", "view", "app")
    for wrong in (("app", "no.such", "1"), ("app", "api.enable", "perhaps"), ("other", "a", "1"), ("app", "mempool.max-txs", "many")):
        refused = cli.run("config", "set", *wrong)
        assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
