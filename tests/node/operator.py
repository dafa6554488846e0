"""Somebody who types commands on one home, some of them wrong."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chain.api.comet import CometClient
from chain.api.services import handlers
from chain.cli.main import cli
from chain.config import APP_DEFAULTS, Home
from chain.testing.driver import Driver

KEYRING = ("--keyring-backend", "test")
FUNDS, STAKE = "2000000000000000000wei", "1000000000000000000wei"


class Operator:
    """Types commands on one home."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)

    def run(self, *arguments: str, stdin: str = "", **environment: str | None) -> tuple[int, str, str]:
        clean = {name: None for name in os.environ if name.startswith("STCHAIND_")}
        done = CliRunner(env={**clean, **environment}).invoke(cli, ["--home", str(self.home.root), *arguments], input=stdin)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    def ok(self, *arguments: str, stdin: str = "") -> str:
        code, out, err = self.run(*arguments, stdin=stdin)
        assert code == 0, err
        return out.strip()

    def refused(self, *arguments: str, told: str, **environment: str | None) -> None:
        """Raise AssertionError unless the command ends with 1 and one sentence that has ``told`` in it, and changes no file."""
        before = self.files()
        code, out, err = self.run(*arguments, **environment)
        assert (code, out) == (1, ""), err
        assert told in err
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
        assert self.files() == before

    def files(self) -> dict[str, bytes]:
        """Every file of the home but what LevelDB writes when it is opened."""
        found = sorted(path for path in self.home.root.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in found if path.parent.suffix != ".db"}

    def edit_genesis(self, change: Callable[[Any], None]) -> None:
        document = json.loads(self.home.genesis.read_text())
        change(document)
        self.home.genesis.write_text(json.dumps(document))

    def gentx(self) -> Path:
        """The home's only gentx."""
        [path] = (self.home.root / "config" / "gentx").iterdir()
        return path


def operator(root: Path, chain_id: str = "flow-1") -> Operator:
    """A home with a funded key and its gentx."""
    made = Operator(root)
    made.ok("init", "v", "--chain-id", chain_id)
    made.ok("keys", "add", "val", *KEYRING)
    made.ok("genesis", "add-genesis-account", "val", FUNDS, *KEYRING)
    made.ok("genesis", "gentx", "val", STAKE, *KEYRING)
    return made


class InProcess:
    """What CometBFT's RPC says to commands, by a chain in this process: every transaction that it takes gets a block."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def call(self, method: str) -> Any:
        assert method == "status", method
        return {"node_info": {"network": self.driver.chain_id}}

    def abci_query(self, path: str, data: bytes, height: int = 0, prove: bool = False) -> Any:
        answer = self.driver.query(path, data, height=height, prove=prove)
        return {"code": answer.code, "codespace": answer.codespace, "log": answer.log, "value": base64.b64encode(answer.value).decode()}

    def broadcast(self, raw: bytes, mode: str = "sync") -> Any:
        checked = self.driver.check_tx(raw)
        if checked.code == 0:
            self.driver.next_block([raw])
        return {"code": checked.code, "codespace": checked.codespace, "log": checked.log}

    def close(self) -> None:
        """Nothing is open."""


def answered_by(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``driver`` answer every command that asks a node."""
    app: Any = driver.apps[0]
    app.register_queries(handlers(app, CometClient("tcp://127.0.0.1:1"), APP_DEFAULTS))
    monkeypatch.setattr("chain.cli.tx.CometClient", lambda _: InProcess(driver))
