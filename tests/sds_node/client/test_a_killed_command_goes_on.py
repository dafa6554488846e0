"""``ppd put`` is killed in the middle; the same command again goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking
from sds_node.client.home import Chain, Network, UserHome, UserSettings, Wallet
from sds_node.keystore import Kind, StoredKey
from tests.sds_node.client.network import network, wallet_key
from tests.sds_node.rules.support import CHAIN_ID
from tests.support import ROOT

MIB = 1 << 20


async def command(home: UserHome, *arguments: str) -> asyncio.subprocess.Process:
    options = ["--home", str(home.root), "--password-file", str(home.root / "password"), "--json"]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sds_node.cli.ppd", arguments[0], *options, *arguments[1:], cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip


def has_stored(folder: Path) -> bool:
    return any(b'"stored"' in path.read_bytes() for path in folder.glob("*.put"))


@pytest.mark.asyncio
async def test_a_put_that_was_killed_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    home, source = UserHome(tmp_path / "home"), tmp_path / "source"
    address = home.add_wallet(StoredKey(Kind.WALLET, wallet_key(1).raw), "correct horse")
    (home.root / "password").write_text("correct horse")
    (home.root / "password").chmod(0o600)
    source.write_bytes(os.urandom(62 * MIB))  # two large segments, which are not ready at the same moment
    async with network(tmp_path, 1, is_live=True) as net:
        home.save(UserSettings(Wallet(address), Chain(CHAIN_ID), Network((str(net.where),))))
        stuck = asyncio.Event()

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            if net.counts[asking.PLACE_PUT] > 1:
                stuck.set()
                await asyncio.sleep(60)
            await handler(stream, connection)

        net.changes[asking.PLACE_PUT] = serve
        process = await command(home, "put", str(source), "big")
        await stuck.wait()
        async with asyncio.timeout(60):
            while not has_stored(home.state / "puts"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        del net.changes[asking.PLACE_PUT]
        net.counts.clear()
        process = await command(home, "put", str(source), "big")
        out, _ = await process.communicate()
        assert process.returncode == 0
        stored = json.loads(out)
        assert stored["is_resumed"]
        assert net.counts[asking.PLACE_PUT] == 1
        process = await command(home, "get", "big", str(tmp_path / "out"))
        await process.communicate()
        assert (tmp_path / "out").read_bytes() == source.read_bytes()
