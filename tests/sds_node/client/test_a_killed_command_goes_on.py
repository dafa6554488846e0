"""``ppd put`` is killed in the middle; the same command again goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from sds_node import asking
from sds_node.client.home import Chain, Network, UserHome, UserSettings, Wallet
from sds_node.keystore import Kind, StoredKey
from tests.sds_node.client.network import came, network, noted, stuck_after, wallet_key
from tests.sds_node.rules.support import CHAIN_ID
from tests.support import ROOT

MIB = 1 << 20
ONE_SEGMENT_A_QUESTION = "from sds_node import asking; asking.MAX_SEGMENTS_ASKED = 1; from sds_node.cli.ppd import main; main()"
"""As the fixture of the other tests: segments that are coded at the same moment would be asked for in one question."""


async def command(home: UserHome, *arguments: str) -> asyncio.subprocess.Process:
    options = ["--home", str(home.root), "--password-file", str(home.root / "password"), "--json"]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", ONE_SEGMENT_A_QUESTION, arguments[0], *options, *arguments[1:], cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip


async def out_of(process: asyncio.subprocess.Process) -> bytes:
    """What a command that does its work writes."""
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out


@pytest.mark.asyncio
async def test_a_put_that_was_killed_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    home, source = UserHome(tmp_path / "home"), tmp_path / "source"
    address = home.add_wallet(StoredKey(Kind.WALLET, wallet_key(1).raw), "correct horse")
    (home.root / "password").write_text("correct horse")
    (home.root / "password").chmod(0o600)
    source.write_bytes(os.urandom(34 * MIB))  # two segments
    async with network(tmp_path, 1, is_live=True) as net:
        home.save(UserSettings(Wallet(address), Chain(CHAIN_ID), Network((str(net.where),))))
        stuck = stuck_after(net)
        process = await command(home, "put", str(source), "big")
        running = asyncio.create_task(out_of(process))
        try:
            await came(stuck, running)
            await noted(home.state / "puts", running)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await asyncio.gather(running, return_exceptions=True)
        del net.changes[asking.PLACE_PUT]
        net.counts.clear()
        stored = json.loads(await out_of(await command(home, "put", str(source), "big")))
        assert stored["is_resumed"]
        assert net.counts[asking.PLACE_PUT] == 1
        await out_of(await command(home, "get", "big", str(tmp_path / "out")))
        assert (tmp_path / "out").read_bytes() == source.read_bytes()
