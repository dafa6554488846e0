"""The machine's clock jumps, stands or was never right: the ledger keeps its time, and nothing ends before it is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chain.codec.canonical import encode
from sds_node.meta.daemon.ticker import Ticker
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.operations import Proposer
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.tables import WALLET
from sds_node.meta.rules.wire import Operation, sign_observation
from sds_node.meta.timekeeping import FURTHEST_S, ClockWrong, Timekeeper
from tests.sds_node.rules.support import CHAIN_ID, PARAMS, START_MS, ZEROS, granted, message, meta, meta_key, observed_meta, wallet

START_S = START_MS / 1_000
HOUR_S = 3_600
DAY_S = 86_400


class Machine:
    """Its two clocks, and the chain's blocks, each five seconds older than now when one is heard of."""

    def __init__(self) -> None:
        self.true_s, self.wrong_s, self.since_boot_s = START_S, 0.0, 77.0
        self.keeper = self.booted()

    def booted(self) -> Timekeeper:
        return Timekeeper(lambda: self.true_s + self.wrong_s, lambda: self.since_boot_s)

    def wait(self, seconds: float) -> None:
        self.true_s += seconds
        self.since_boot_s += seconds

    def sleep(self, seconds: float) -> None:
        """The whole machine is suspended, and its monotonic clock with it."""
        self.true_s += seconds

    def block(self) -> None:
        self.keeper.heard(self.true_s - 5)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_clock_that_the_blocks_agree_with_is_followed(machine: Machine) -> None:
    for _ in range(5):
        machine.block()
        assert machine.keeper.now_s() == machine.true_s
        machine.keeper.check()
        machine.wait(60)
    machine.wrong_s = 30
    assert machine.keeper.now_s() == machine.true_s + 30
    assert machine.keeper.problem() == ""


@pytest.mark.parametrize("wrong_s", [8 * DAY_S, HOUR_S, -HOUR_S, FURTHEST_S + 60, 1e15])
def test_a_clock_that_jumps_is_not_followed_and_time_goes_on(machine: Machine, wrong_s: float) -> None:
    machine.block()
    assert machine.keeper.now_s() == machine.true_s
    machine.wrong_s = wrong_s
    for _ in range(3):
        machine.wait(60)
        machine.block()
        assert machine.keeper.now_s() == machine.true_s
        machine.keeper.check()
        assert "set it" in machine.keeper.problem()
    machine.wrong_s = 1
    assert machine.keeper.now_s() == machine.true_s + 1
    assert machine.keeper.problem() == ""


def test_after_the_machine_slept_the_next_block_sets_the_time(machine: Machine) -> None:
    machine.block()
    before_s = machine.keeper.now_s()
    machine.sleep(3 * HOUR_S)
    assert machine.keeper.now_s() == before_s
    machine.block()
    assert machine.keeper.now_s() == machine.true_s
    assert machine.keeper.problem() == ""


def test_a_chain_that_stands_stops_no_clock_that_was_right(machine: Machine) -> None:
    machine.block()
    machine.keeper.now_s()
    machine.wait(30 * DAY_S)
    machine.keeper.check()
    assert (machine.keeper.now_s(), machine.keeper.problem()) == (machine.true_s, "")


def test_a_clock_that_was_never_right_is_taken_for_nothing(machine: Machine) -> None:
    machine.wrong_s = 8 * DAY_S
    with pytest.raises(ClockWrong, match="until the value chain answers"):
        machine.keeper.check()
    machine.block()
    machine.keeper.opened(machine.true_s - HOUR_S)
    with pytest.raises(ClockWrong, match=r"8\.0 days ahead"):
        machine.keeper.check()
    assert machine.keeper.now_s() <= machine.true_s
    machine.wrong_s = 0
    machine.keeper.check()


def test_a_clock_that_is_behind_the_blocks_from_the_start_gives_way_to_theirs(machine: Machine) -> None:
    machine.wrong_s = -HOUR_S
    machine.block()
    machine.keeper.check()
    machine.wait(10)
    assert machine.keeper.now_s() == machine.true_s - 5
    assert "60 minutes behind" in machine.keeper.problem()


def test_a_node_that_is_started_again_beside_a_chain_that_stands_goes_by_its_ledger(machine: Machine) -> None:
    block_s = machine.true_s
    machine.wait(5 * HOUR_S)
    machine.keeper = machine.booted()
    machine.keeper.heard(block_s)
    machine.keeper.opened(machine.true_s - 60)
    machine.keeper.heard(block_s)
    machine.keeper.check()
    assert machine.keeper.now_s() == machine.true_s
    # Its ledger is older: without a block nobody can tell.
    machine.wait(HOUR_S)
    late = machine.keeper = machine.booted()
    late.opened(machine.true_s - HOUR_S)
    late.heard(block_s)
    with pytest.raises(ClockWrong, match="chain stands"):
        late.check()
    machine.block()
    late.check()


def test_a_ledger_whose_time_ran_ahead_once_does_not_say_what_time_it_is_where_blocks_do(machine: Machine) -> None:
    machine.keeper.opened(machine.true_s + 8 * DAY_S)
    machine.wrong_s = 8 * DAY_S
    machine.block()
    machine.wait(5)
    machine.block()
    with pytest.raises(ClockWrong):
        machine.keeper.check()
    machine.wrong_s = 0
    machine.keeper.check()
    assert machine.keeper.now_s() == machine.true_s


# --- what a ledger takes ---------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def ledger(machine: Machine, folder: Path) -> AsyncIterator[Proposer]:
    """A ledger that is founded, in which wallet 1 has 30 noz for five days."""
    machine.block()
    keeper = machine.keeper
    with Ledger.open(f"sqlite:///{folder}/ledger.db", rules(CHAIN_ID), CHAIN_ID, now_ms=keeper.now_ms) as opened:
        proposer = Proposer(opened, CHAIN_ID, meta(1), meta_key(1), keeper.now_s, keeper.check)
        await proposer.start()
        params = message("LedgerParams", **PARAMS)
        await proposer.propose("found", message("Found", height=100, block_hash=ZEROS, metas=[observed_meta(1)], params=params))
        observation = encode(
            message(
                "Observation", chain_id=CHAIN_ID, from_height=101, to_height=101, is_last=True, block_hash=ZEROS,
                events=[granted(1, 30, int(START_S) + 5 * DAY_S)],
            )
        )  # fmt: skip
        signed = message("Observe", observation=observation)
        signed.signatures.add(meta_node=meta(1), signature=sign_observation(observation, meta_key(1)))
        await proposer.propose("observe", signed)
        yield proposer


async def noz(proposer: Proposer) -> int:
    row = await proposer.ledger.query(lambda view: view.get(WALLET, (wallet(1),)))
    return int(row.promo_noz)


def test_no_tick_acts_on_a_clock_that_jumps_a_week_ahead(machine: Machine, tmp_path: Path) -> None:
    async def go() -> None:
        async with ledger(machine, tmp_path) as proposer:
            ticker = Ticker(proposer, machine.keeper.now_s)
            machine.wrong_s = 8 * DAY_S
            machine.wait(61)
            await ticker.step()
            assert await noz(proposer) == 30
            assert proposer.ledger.head.time_ms == int(machine.true_s * 1_000)  # it was a minute quiet, and no more
            machine.wrong_s = 0
            machine.wait(6 * DAY_S)
            await ticker.step()
            assert await noz(proposer) == 0

    asyncio.run(go())


def test_a_node_with_a_wrong_clock_from_the_start_proposes_nothing(machine: Machine, tmp_path: Path) -> None:
    async def go() -> None:
        async with ledger(machine, tmp_path) as proposer:
            sequence = proposer.ledger.head.sequence
        machine.wrong_s = 8 * DAY_S
        keeper = machine.keeper = machine.booted()
        machine.block()
        with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", rules(CHAIN_ID), CHAIN_ID, now_ms=keeper.now_ms) as opened:
            keeper.opened(opened.head.time_ms / 1_000)
            proposer = Proposer(opened, CHAIN_ID, meta(1), meta_key(1), keeper.now_s, keeper.check)
            await proposer.start()
            with pytest.raises(ClockWrong):
                await proposer.propose("tick", Operation().tick)
            assert opened.head.sequence == sequence
            machine.wrong_s = 0
            await proposer.propose("tick", Operation().tick)
            assert opened.head.sequence == sequence + 1

    asyncio.run(go())


@pytest.mark.parametrize("back_s", [HOUR_S, 8 * DAY_S])
def test_a_ledger_that_is_ahead_of_the_clock_takes_operations_all_the_same(tmp_path: Path, back_s: int) -> None:
    async def go() -> None:
        now_s = [START_S]
        with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", rules(CHAIN_ID), CHAIN_ID, now_ms=lambda: int(now_s[0] * 1_000)) as opened:
            proposer = Proposer(opened, CHAIN_ID, meta(1), meta_key(1), lambda: now_s[0])
            await proposer.start()
            params = message("LedgerParams", **PARAMS)
            await proposer.propose("found", message("Found", height=100, block_hash=ZEROS, metas=[observed_meta(1)], params=params))
            now_s[0] -= back_s
            assert (await proposer.propose("tick", Operation().tick)).is_applied
            assert opened.head.time_ms == START_MS

    asyncio.run(go())
