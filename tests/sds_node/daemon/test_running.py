"""A whole node, from its home to its last word, without a chain that answers: what it follows of the chain, and what a closed terminal is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from sds_node.cli.node_chain import register_node
from sds_node.control import ask
from sds_node.p2p import address_of, format_address
from sds_node.resource.daemon.config import Config, Keys
from sds_node.resource.daemon.home import Home
from sds_node.resource.daemon.running import LOOKS, Running
from sds_node.value_chain import views
from tests.sds_node.daemon.commands import NOWHERE, PASSWORD, ROOT, init, password_file, started
from tests.sds_node.daemon.meta import NODE_KEY, settings, until
from tests.sds_node.documenting import CHAIN_ID

OWNER = PrivateKey(b"\2" * 32, "eth_secp256k1")
PAID = bech32.encode(b"p" * 20)


def there(beneficiary: bytes = OWNER.public_key.address, status: views.BondStatus = views.BondStatus.BONDED) -> views.ResourceNode:
    key = bytes(NODE_KEY.verify_key)
    return views.ResourceNode(address_of(key), OWNER.public_key.address, beneficiary, key, 10, 10, False, status)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Home, Running]]:
    home, made = Home(folder), settings()
    keys = Keys(bech32.encode(OWNER.public_key.address), format_address(address_of(bytes(NODE_KEY.verify_key))))
    config: Config = replace(made, keys=keys, chain=replace(made.chain, id=CHAIN_ID, rpc=NOWHERE))
    home.make(config)
    with home.held():
        node = Running(home, config, NODE_KEY)
        task = asyncio.create_task(node.run(with_signals=False))
        try:
            await asyncio.wait_for(node.is_up.wait(), 30)
            yield home, node
        finally:
            node.stop()
            await asyncio.wait_for(task, 60)


@pytest.mark.asyncio
async def test_a_node_that_is_registered_again_takes_shares_again(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as (home, running_node):
        node: Any = running_node.node
        running_node.compare(node, there(status=views.BondStatus.UNBONDING))
        assert node.state.is_leaving, "it was unbonded from elsewhere"
        for _ in range(LOOKS - 1):
            running_node.compare(node, there())
        running_node.compare(node, there(status=views.BondStatus.UNBONDING))
        for _ in range(LOOKS - 1):
            running_node.compare(node, there())
        assert node.state.is_leaving, "an answer that is late is not believed at once"
        running_node.compare(node, None)
        running_node.compare(node, there())
        assert not node.state.is_leaving
        assert not home.state().is_leaving


@pytest.mark.asyncio
async def test_a_registration_has_the_home_take_shares_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sends: list[Any] = []
    monkeypatch.setattr("sds_node.cli.node_chain.node_on_chain", lambda config: None)

    def send(config: Any, key: Any, messages: list[Any]) -> dict[str, Any]:
        sends.append(messages)
        return {"height": 5}

    monkeypatch.setattr("sds_node.cli.node_chain.send", send)
    home = tmp_path / "home"
    await asyncio.to_thread(init, home)
    made = Home(home)
    made.remember(is_leaving=True)
    await asyncio.to_thread(register_node, made, made.config(), PASSWORD, 5, {})
    assert len(sends) == 1
    assert not made.state().is_leaving
    async with running(tmp_path / "other") as (other, running_node):
        node: Any = running_node.node
        node.leave()
        assert (await ask(other.socket_path, "stay")) == {"is_leaving": False}
        assert not node.state.is_leaving


@pytest.mark.asyncio
async def test_a_node_whose_beneficiary_changed_starts_anew_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as (home, running_node):
        first: Any = running_node.node
        running_node.compare(first, there(beneficiary=b"p" * 20))
        await until(lambda: running_node.node is not first and running_node.node is not None and running_node.node.started_s > 0)
        second: Any = running_node.node
        assert (first.beneficiary != PAID, second.beneficiary) == (True, PAID)
        await until(lambda: home.socket_path.exists())
        running_node.compare(second, there(beneficiary=b"p" * 20))
        assert (await ask(home.socket_path, "status"))["beneficiary"] == PAID
    assert not (home.root / "running").exists()
    assert not home.state().was_killed


def test_a_closed_terminal_stops_a_node_as_it_should(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    # As from a terminal: tests that run under nohup would give the node their deaf ear.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with started(home) as node:
            assert node.end(signal.SIGHUP) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not (home / "running").exists()
    assert not Home(home).state().was_killed


def test_under_nohup_a_closed_terminal_is_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    environment = {**os.environ, "PPD_PASSWORD_FILE": password_file(tmp_path)}
    shell = f"trap '' HUP; exec {sys.executable} -m sds_node.cli.ppd start --home {home} --log-format json"
    process = subprocess.Popen(["sh", "-c", shell], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if '"node runs"' in line:
            break
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.stderr.close()
