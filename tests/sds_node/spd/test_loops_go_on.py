"""The meta node's own loops, and what strangers can do to them: nothing that is busy, refused or unknown ends one, and asking often costs the ledger nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from sds_node import asking
from sds_node.meta.daemon import patience, ticker
from sds_node.meta.daemon.activation import Activation
from sds_node.meta.daemon.home import Home, HomeError, Network, Settings, Times
from sds_node.meta.daemon.info import FRESH_S, Info
from sds_node.meta.daemon.patience import OwnProposer, PatientLedger
from sds_node.meta.daemon.ticker import LONGEST_PAUSE_S, LOOK_S, Ticker
from sds_node.meta.ledger.errors import Busy, LedgerError, Unavailable
from sds_node.meta.operations import LedgerRefused
from sds_node.meta.rules import tables
from sds_node.settings import SettingsError, read
from sds_node.value_chain.client import AccountUnknown
from sds_node.wire.errors import Refused
from tests.sds_node.books.world import World, message, until, world

pytestmark = pytest.mark.asyncio


class Taken:
    """A ledger all of whose readers are taken for the next ``times`` questions, or that fails otherwise."""

    def __init__(self, made: World, times: int = 0, error: LedgerError | None = None) -> None:
        self.made, self.times, self.error, self.asked = made, times, error or Busy("all readers are taken"), 0

    @property
    def head(self) -> Any:
        return self.made.ledger.head

    async def propose(self, operation: bytes) -> Any:
        return await self.made.ledger.propose(operation)

    async def query(self, question: Callable[[Any], Any]) -> Any:
        self.asked += 1
        if self.times > 0:
            self.times -= 1
            raise self.error
        return await self.made.ledger.query(question)


def info_of(ledger: Any, made: World) -> Info:
    return Info(ledger, "chain", "stsds1", "test/1", lambda: [], lambda: 3, lambda: True, made.clock)


# --- activation -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Busy("1000 questions wait"), Unavailable("the disk is full"), AccountUnknown("nobody has sent it anything")])
async def test_deposits_are_looked_at_again_whatever_failed(error: Exception) -> None:
    looks = 0

    class Once(Activation):
        def __init__(self) -> None:
            self._every_s = 0.0

        async def step(self) -> list[bytes]:
            nonlocal looks
            looks += 1
            raise error

    task = asyncio.create_task(Once().run())
    await until(lambda: looks > 2)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- meta.info ------------------------------------------------------------------------------------------------------------------


async def test_info_reads_the_ledger_once_for_all_who_ask(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        ledger = Taken(made)
        info = info_of(ledger, made)
        answers = await asyncio.gather(*(info.now() for _ in range(2_000)))
        assert ledger.asked == 1
        assert {(one.sequence, one.eligible_nodes, one.is_ready) for one in answers} == {(made.ledger.head.sequence, 3, True)}
        made.clock.now_s += 5
        assert (await info.now()).time_ms == int(made.clock() * 1_000), "time is not a copy"
        await made.proposer.propose("tick", message("Operation").tick)
        await asyncio.sleep(FRESH_S)
        assert (await info.now()).sequence == made.ledger.head.sequence
        assert ledger.asked == 2


async def test_info_is_told_from_the_last_copy_while_the_ledger_has_no_reader(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        ledger = Taken(made, times=1)
        info = info_of(ledger, made)
        with pytest.raises(Refused) as refused:
            await info.now()
        assert refused.value.code == asking.NOT_READY
        info._looked_s = float("-inf")
        first = encode(await info.now())
        ledger.times, info._looked_s = 1, float("-inf")
        assert encode(await info.now()) == first


async def test_a_caller_who_hangs_up_takes_info_from_nobody_else(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        info = info_of(made.ledger, made)
        gone, stays = asyncio.create_task(info.now()), asyncio.create_task(info.now())
        await asyncio.sleep(0)
        gone.cancel()
        assert (await stays).sequence == made.ledger.head.sequence


# --- patience -------------------------------------------------------------------------------------------------------------------


async def test_a_loop_waits_for_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.001)
    async with world(tmp_path) as made:
        taken = Taken(made, times=5)
        row = await PatientLedger(taken).query(lambda view: view.get(tables.STATE, (1,)))  # type: ignore[arg-type]
        assert row is not None
        assert taken.asked == 6


async def test_a_loop_does_not_wait_for_ever_and_not_for_a_ledger_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(patience, "PATIENCE", 4)
    async with world(tmp_path) as made:
        taken = Taken(made, times=99)
        with pytest.raises(Busy):
            await PatientLedger(taken).query(lambda view: None)  # type: ignore[arg-type]
        assert taken.asked == 4
        broken = Taken(made, times=99, error=Unavailable("the disk is full"))
        with pytest.raises(Unavailable):
            await PatientLedger(broken).query(lambda view: None)  # type: ignore[arg-type]
        assert broken.asked == 1


async def test_loops_and_users_count_one_row_of_nonces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.001)
    async with world(tmp_path) as made:
        taken = Taken(made)
        own = OwnProposer(made.proposer, PatientLedger(taken))  # type: ignore[arg-type]
        tick = message("Operation").tick
        results = await asyncio.gather(*(one.propose("tick", tick) for _ in range(10) for one in (own, made.proposer)))
        assert all(result.is_applied for result in results)
        assert own.address == made.proposer.address
        taken.times = 3
        with pytest.raises(LedgerRefused):
            await own.propose_tried("settle_leases", message("SettleLeases", lease_ids=[bytes(32)]))
        assert taken.asked == 4


# --- ticks ----------------------------------------------------------------------------------------------------------------------


async def test_a_tick_that_is_refused_again_and_again_fills_no_log(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        one = Ticker(made.proposer, made.clock)
        refused: Sequence[Exception] = [LedgerRefused(1, "a bug")] * 20

        errors = iter(refused)

        async def step() -> bool:
            for error in errors:
                raise error
            return False

        one.step = step  # type: ignore[method-assign]
        pauses, pause_s = [], LOOK_S
        for _ in refused:
            pause_s = await one.look(pause_s)
            pauses.append(pause_s)
        assert pauses[:4] == [2.0, 4.0, 8.0, 16.0]
        assert pauses[-1] == LONGEST_PAUSE_S
        assert await one.look(pause_s) == LOOK_S, "it is as before once a tick is taken"
        assert ticker.QUIET_S < LONGEST_PAUSE_S


# --- settings -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_nobody_is_told_to_come_to_every_address_there_is(tmp_path: Path, host: str) -> None:
    with pytest.raises(HomeError, match=r"network\.endpoint"):
        Home(tmp_path, Settings(network=Network(host=host))).check()
    Home(tmp_path, Settings(network=Network(host=host, endpoint="meta.example.org:18881"))).check()
    Home(tmp_path, Settings(network=Network(host="192.0.2.1"))).check()


async def test_windows_come_before_the_noz_of_receipts_are_promised_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", Settings(times=Times(window_s=120)))
    home.make()
    path = home.root / "config.toml"
    assert read(Settings, path).times.window_s == 120
    path.write_text(path.read_text().replace("window_s = 120", "window_s = 180"))
    with pytest.raises(SettingsError, match="window_s"):
        read(Settings, path)
