"""Four meta nodes whose order is CometBFT's: real processes, the storage rules, SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from chain.testing.ports import free_ports
from sds_node.meta.daemon.home import Comet
from sds_node.meta.federation.application import OrderError
from sds_node.meta.federation.comet import CometHome, CometOrder, parse_peer
from sds_node.meta.federation.genesis import READING, genesis_of
from sds_node.meta.ledger.engine import snapshot
from sds_node.meta.ledger.errors import Unavailable
from sds_node.p2p import format_address, format_public_key
from tests.sds_node.federation.orders import (
    FIRST_SCORE,
    Party,
    comet_settings,
    counted,
    exported,
    keys_of,
    meta_event,
    observed,
    score_of,
    until,
    with_comet,
)
from tests.sds_node.rules.support import event
from tests.support import ROOT

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(240)]


@asynccontextmanager
async def federation(folder: Path, count: int, standby: int = 0) -> AsyncIterator[list[Party]]:
    """Parties that run; those that are closed already are left alone."""
    path, _ = await exported(folder, count, time.time, standby)
    base = free_ports(2 * (count + standby + 1))
    parties = [await with_comet(folder, path, number, base, time.time) for number in range(count + standby)]
    try:
        for one in parties:
            await one.order.start()
        yield parties
    finally:
        for one in parties:
            await one.close()


async def restarted(parties: list[Party], number: int) -> None:
    one = parties[number]
    order = CometOrder(one.order.home.root, one.order._settings, keys_of(number))
    parties[number] = await Party.opened(number, one.url, one.clock, order)
    await order.start()


async def validators(party: Party) -> set[str]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{party.order._settings.rpc_port}/validators")
    return {one["pub_key"]["value"] for one in answer.json()["result"]["validators"]}


async def test_four_meta_nodes_keep_one_ledger_through_kills_restarts_and_a_lost_quorum(tmp_path: Path) -> None:
    async with federation(tmp_path, 4) as parties:
        first = parties[0].ledger.head
        result = await parties[0].propose("node_statuses", counted())
        assert (result.is_applied, result.sequence) == (True, first.sequence + 1)  # sequence and app hash of the log go on
        assert result.app_hash != first.app_hash
        for one in parties:
            await one.reached(result.sequence)
        assert {one.ledger.head.app_hash for one in parties} == {result.app_hash}

        # Races from two members, each numbered by itself.
        results = await asyncio.gather(*(parties[at % 2].propose("node_statuses", counted()) for at in range(400)))
        assert all(one.is_applied for one in results)
        assert len({one.sequence for one in results}) == 400

        # One is killed as a machine that loses its power: the others go on, and it catches up.
        pid = parties[3].order.process_id
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await parties[3].close()
        for _ in range(3):
            last = await parties[1].propose("node_statuses", counted())
        assert parties[3].ledger.head.sequence < last.sequence
        await restarted(parties, 3)
        await parties[3].reached(last.sequence)
        assert parties[3].ledger.head.app_hash == last.app_hash

        # Two are gone: operations wait, and go on when one is back.
        await parties[2].close()
        await parties[3].close()
        proposed = asyncio.create_task(parties[0].propose("node_statuses", counted()))
        done, _ = await asyncio.wait([proposed], timeout=5)
        assert not done
        assert await score_of(parties[0].ledger) == FIRST_SCORE + 404
        await restarted(parties, 2)
        assert (await proposed).is_applied
        await restarted(parties, 3)
        for one in parties:
            await one.reached(first.sequence + 405)
        assert {one.ledger.head.app_hash for one in parties} == {parties[0].ledger.head.app_hash}
        assert [one.order.problem() for one in parties] == [""] * 4


async def test_a_meta_node_that_is_observed_to_leave_or_come_is_a_validator_less_or_more(tmp_path: Path) -> None:
    async with federation(tmp_path, 2, standby=1) as parties:
        await parties[0].propose("observe", observed(102, [0, 1], event(meta=meta_event(2))))
        await parties[2].reached(parties[0].ledger.head.sequence)

        async def votes(count: int) -> None:
            """Blocks go on until so many vote."""
            async with asyncio.timeout(60):
                while len(await validators(parties[0])) != count:
                    await parties[0].propose("node_statuses", counted())

        await votes(3)
        assert (await parties[2].propose("node_statuses", counted())).is_applied
        await parties[0].propose("observe", observed(103, [0, 1, 2], event(meta=meta_event(1, is_active=False))))
        await votes(2)


async def test_whoever_is_no_meta_node_of_the_ledger_gets_no_block(tmp_path: Path) -> None:
    async with federation(tmp_path, 1) as parties:
        stranger = await with_comet(tmp_path, tmp_path / "ledger.export", 1, parties[0].order._settings.port, time.time)
        try:
            await stranger.order.start()
            ends_s = time.monotonic() + 6
            while time.monotonic() < ends_s:
                await parties[0].propose("node_statuses", counted())
            assert parties[0].ledger.head.height > 3
            assert stranger.ledger.head.height == 0
            assert stranger.order.process_id is not None
        finally:
            await stranger.close()


async def test_a_meta_node_killed_in_the_midst_of_blocks_goes_on_where_it_was(tmp_path: Path) -> None:
    path, _ = await exported(tmp_path, 4, time.time)
    base = free_ports(8)
    parties = [await with_comet(tmp_path, path, number, base, time.time) for number in range(3)]
    proposing: list[asyncio.Task[None]] = []

    async def go_on(party: Party) -> None:
        while True:
            await party.propose("node_statuses", counted())

    async def begun() -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "tests.sds_node.federation.killed", str(tmp_path), "3", str(base))
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    def height() -> int:
        with snapshot(f"sqlite:///{tmp_path}/m3/ledger.db", READING) as view:
            return view.head.height

    try:
        for one in parties:
            await one.order.start()
        proposing = [asyncio.create_task(go_on(parties[at % 3])) for at in range(6)]
        last = 0
        for _ in range(3):
            process = await begun()
            await until(lambda least=last + 3: height() >= least)  # type: ignore[misc]
            process.kill()
            await process.wait()
            last = height()
            await until(lambda: is_free(base + 6) and is_free(base + 7))  # its CometBFT has gone with it
    finally:
        for task in proposing:
            task.cancel()
        await asyncio.gather(*proposing, return_exceptions=True)
    try:
        final = await parties[0].propose("node_statuses", counted())
        parties.append(await with_comet(tmp_path, path, 3, base, time.time))
        await parties[3].order.start()
        await parties[3].reached(final.sequence)
        with parties[3].ledger.snapshot() as other:
            await parties[0].reached(other.head.sequence)
            with parties[0].ledger.snapshot() as mine:
                hashes = {entry.sequence: entry.app_hash for entry in mine.entries(0, 1_000_000)}
            assert hashes[other.head.sequence] == other.head.app_hash
    finally:
        for one in parties:
            await one.close()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def test_cometbft_that_dies_alone_is_started_again(tmp_path: Path) -> None:
    async with federation(tmp_path, 1) as parties:
        order = parties[0].order
        await parties[0].propose("node_statuses", counted())
        pid = order.process_id
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: order.problem() != "")
        assert "started again" in order.problem()
        with pytest.raises(Unavailable):
            await order.broadcast(b"x")
        assert (await parties[0].propose("node_statuses", counted())).is_applied
        assert order.problem() == ""


async def test_cometbft_that_the_machine_cannot_start_is_tried_again(tmp_path: Path) -> None:
    async with federation(tmp_path, 1) as parties:
        order = parties[0].order
        await parties[0].propose("node_statuses", counted())
        command, order._command = order._command, [str(tmp_path / "gone"), "start"]
        pid = order.process_id
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: "cannot be started" in order.problem())
        assert str(tmp_path / "gone") in order.problem()
        order._command = command
        assert (await parties[0].propose("node_statuses", counted())).is_applied
        assert order.problem() == ""


async def test_a_cometbft_that_cannot_be_executed_is_named_at_the_start(tmp_path: Path) -> None:
    path, _ = await exported(tmp_path, 1, time.time)
    party = await with_comet(tmp_path, path, 0, free_ports(2), time.time)
    binary = tmp_path / "cometbft"
    binary.write_text("no program")
    party.order._binary = binary
    try:
        with pytest.raises(OrderError, match="may be executed"):
            await party.order.start()
    finally:
        await party.close()


async def test_an_order_that_cannot_go_on_says_why_and_ends(tmp_path: Path) -> None:
    path, _ = await exported(tmp_path, 1, time.time)
    base = free_ports(2)
    party = await with_comet(tmp_path, path, 0, base, time.time)
    genesis = party.order.home.genesis
    document = json.loads(genesis.read_bytes())
    document["app_state"]["export"] = bytes(32).hex()
    genesis.write_text(json.dumps(document))
    try:
        await party.order.start()
        with pytest.raises(OrderError, match="is not the export"):
            await party.order.watch()
        assert "is not the export" in party.order.problem()
        assert party.order.process_id is None
    finally:
        await party.close()


async def test_a_home_is_made_once_and_never_of_other_keys_or_another_genesis(tmp_path: Path) -> None:
    _, state = await exported(tmp_path, 1, time.time)
    home, genesis = CometHome(tmp_path / "comet"), genesis_of(state)
    assert not home.is_made
    home.make(genesis, keys_of(0))
    home.make(genesis, keys_of(0))
    assert home.is_made
    for name in ("priv_validator_key.json", "node_key.json"):
        assert stat.S_IMODE((home.root / "config" / name).stat().st_mode) == 0o600
    with pytest.raises(OrderError, match="another ledger's blocks"):
        home.make(genesis + b" ", keys_of(0))
    with pytest.raises(OrderError, match="other content"):
        home.make(genesis, keys_of(1))
    with pytest.raises(OrderError, match="not made of this meta node's keys"):
        home.check(keys_of(1))
    assert home.genesis.read_bytes() == genesis
    home.check(keys_of(0))


async def test_a_start_says_what_is_missing(tmp_path: Path) -> None:
    order = CometOrder(tmp_path / "comet", Comet(), keys_of(0))
    with pytest.raises(OrderError, match="open the ledger first"):
        await order.start()
    path, _ = await exported(tmp_path, 1, time.time)
    base = free_ports(2)
    party = await with_comet(tmp_path, path, 0, base, time.time)
    try:
        taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", base + 1)
        async with taken:
            with pytest.raises(OrderError, match=r"comet\.rpc_port"):
                await party.order.start()
        settings = replace(comet_settings(base, 0), peers=("nobody@127.0.0.1:1",))
        broken = CometOrder(party.order.home.root, settings, keys_of(0))
        broken.attach(party.ledger.application)
        with pytest.raises(OrderError, match=r"comet\.peers"):
            await broken.start()
        await broken.stop()
    finally:
        with contextlib.suppress(OrderError):
            await party.close()


async def test_peers_are_named_as_meta_nodes_are(tmp_path: Path) -> None:
    own = keys_of(3)
    wanted = f"{own.address.hex()}@meta.example.org:18883"
    assert parse_peer(f"{format_address(own.address)}@meta.example.org:18883") == wanted
    assert parse_peer(f"{format_public_key(own.network_key.raw)}@meta.example.org:18883") == wanted
    assert parse_peer(f"{format_address(own.address)}@[::1]:18883") == f"{own.address.hex()}@[::1]:18883"
    for text in (
        "",
        "@",
        "stsds1@a:1",
        f"{format_address(own.address)}@a",
        f"{format_address(own.address)}@a:0",
        f"{format_address(own.address)}@a,b:1",
    ):
        with pytest.raises(OrderError, match=r"comet\.peers"):
            parse_peer(text)
