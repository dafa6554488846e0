"""One of the meta nodes that are there has a duty; when it goes silent another one takes it over, and nothing counts twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sds_node.meta.daemon import ticker
from sds_node.meta.daemon.ticker import Ticker
from sds_node.meta.federation.duties import CURRENT_S, HEIGHT, LEASE, NODE, OBJECT, Duties, is_current
from sds_node.meta.nodes.registry import Registry, Seen
from sds_node.meta.nodes.statuses import OFFLINE_SCORE, ONLINE_SCORE, Statuses
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.relay import observer
from sds_node.meta.relay.observer import Observer
from sds_node.meta.relay.reporter import Reporter
from sds_node.meta.repair import worker
from sds_node.meta.repair.damage import Damage
from sds_node.meta.repair.health import Health, Judged, Standing
from sds_node.meta.repair.known import Settings
from sds_node.meta.repair.queue import open_queue
from sds_node.meta.repair.worker import Worker
from sds_node.meta.rules import tables
from sds_node.meta.rules.refusals import NO_QUORUM, WRONG_HEIGHT
from sds_node.transfers import InventoryPage
from tests.sds_node.audits.test_audits_find_what_is_missing import audits
from tests.sds_node.books import world as books_world
from tests.sds_node.books.world import world
from tests.sds_node.federation.metas import Metas, address, ledger_key, metas, until
from tests.sds_node.repair.test_parts import Clock, Nodes, judged, node_row, object_row
from tests.sds_node.rules.support import CHAIN_ID

pytestmark = pytest.mark.asyncio


def nobody(node: int) -> bool:
    return False


# --- whose duty it is ----------------------------------------------------------------------------------------------------------


async def test_all_agree_and_each_has_about_as_much_to_do() -> None:
    everybody = [address(number) for number in range(1, 5)]
    each = [Duties(one, lambda: everybody) for one in everybody]
    holders: Counter[bytes] = Counter()
    for at in range(400):
        duty = NODE + at.to_bytes(20, "big")
        assert [one.has(duty) for one in each].count(True) == 1
        assert len({one.first(duty) for one in each}) == 1
        assert sorted(one.place(duty) for one in each) == [0, 1, 2, 3]
        assert each[0].order(duty) == each[3].order(duty)
        assert each[0].order(duty)[0] == each[1].first(duty)
        holders[each[0].first(duty)] += 1
    assert min(holders.values()) > 60


async def test_a_nodes_duties_pass_on_in_turns_so_that_no_meta_node_audits_the_same_ones_for_ever() -> None:
    everybody, clock, week_s = [address(number) for number in range(1, 5)], Clock(), 7 * 86_400
    each = [Duties(one, lambda: everybody).of_nodes(week_s, clock) for one in everybody]
    nodes = range(1, 51)
    weeks: list[list[int]] = []
    for _ in range(40):
        weeks.append([[has(node) for has in each].index(True) for node in nodes])
        assert all([has(node) for has in each].count(True) == 1 for node in nodes)
        clock.now_s += week_s
    for node in zip(*weeks, strict=True):
        assert set(node) == {0, 1, 2, 3}
        assert max(Counter(node).values()) < 25
    before = [[has(node) for has in each] for node in nodes]
    clock.now_s += week_s / 2
    after = [[has(node) for has in each] for node in nodes]
    assert 5 < sum(left != right for left, right in zip(before, after, strict=True)) < 35, "each node's turn ends at a time of its own"


async def test_with_one_that_is_gone_only_its_own_duties_move() -> None:
    everybody = [address(number) for number in range(1, 5)]
    before, after = Duties(everybody[0], lambda: everybody), Duties(everybody[0], lambda: everybody[:3])
    for at in range(200):
        duty = OBJECT + at.to_bytes(32, "big")
        if before.first(duty) == everybody[3]:
            assert after.first(duty) == before.order(duty)[1]
        else:
            assert after.first(duty) == before.first(duty)


async def test_who_is_alone_has_every_duty_whatever_it_knows_of_itself() -> None:
    alone = Duties(address(1), list)
    assert alone.has(LEASE + bytes(32))
    assert alone.of_nodes(60, Clock())(1)
    assert alone.height_place(7) == alone.tick_place() == 0


async def test_who_is_behind_has_no_duties_until_it_has_caught_up(tmp_path: Path) -> None:
    async with metas(tmp_path, 1) as made:
        one = Duties(address(1), list, is_current(made[0].ledger, made.clock))
        made.clock.now_s += CURRENT_S
        assert one.has(NODE + bytes(20))
        made.clock.now_s += 1
        assert not one.has(NODE + bytes(20))
        assert not one.of(OBJECT)(bytes(32))
        await made.observe()
        assert one.has(NODE + bytes(20))


async def test_kinds_of_duties_are_told_apart() -> None:
    everybody = [address(number) for number in range(1, 5)]
    one = Duties(everybody[0], lambda: everybody)
    assert any(one.first(NODE + bytes([at]) * 20) != one.first(OBJECT + bytes([at]) * 20) for at in range(20))
    assert {one.order(HEIGHT + height.to_bytes(8, "big")).index(everybody[0]) for height in range(50)} == {0, 1, 2, 3}


async def test_duties_move_when_a_meta_node_goes_silent(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        await made.greeted()
        duties = [Duties(one.address, one.peers.online) for one in made]
        duty = next(NODE + bytes([at]) * 20 for at in range(200) if duties[0].first(NODE + bytes([at]) * 20) == address(4))
        assert [one.has(duty) for one in duties] == [False, False, False, True]
        await made[3].stop()
        for one in made[:3]:
            one.monotonic.now_s += 16
        await asyncio.gather(*(one.peers.greet(other.address) for one in made[:3] for other in made[:3] if other is not one))
        assert [one.has(duty) for one in duties[:3]].count(True) == 1
        assert duties[0].first(duty) == duties[1].first(duty) == duties[2].first(duty)


# --- statuses ------------------------------------------------------------------------------------------------------------------


class Two:
    """Two meta nodes that hear node 1 and tell one ledger of it; ``holder`` has the duty."""

    def __init__(self, made: books_world.World) -> None:
        self.world, self.holder = made, 0
        self.registries = [Registry(made.ledger, made.clock, hello_s=5) for _ in range(2)]
        self.statuses = [Statuses(one, made.proposer, made.clock, is_ours=self.is_ours(at)) for at, one in enumerate(self.registries)]

    def is_ours(self, at: int) -> Callable[[int], bool]:
        return lambda node: self.holder == at

    async def hello(self, *, by: tuple[int, ...] = (0, 1), **changes: Any) -> None:
        for at in by:
            await self.registries[at].refresh()
            fields: dict[str, Any] = {"endpoint": "127.1.0.1:9000", "prefix": bytes([127, 1, 0]), "capacity_bytes": 10**9, "free_bytes": 10**9}
            before = self.registries[at].seen_of(1)
            kept = {} if before is None else {"score_change": before.score_change, "told_ms": before.told_ms}
            self.registries[at].heard(1, Seen(self.world.clock(), **fields | kept | changes))

    async def tell(self, **how: Any) -> list[int]:
        return [await one.tell(**how) for one in self.statuses]

    async def node(self) -> tables.Node:
        row: tables.Node = await self.world.row(tables.NODE, 1)
        return row


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[Two]:
    async with world(folder, nodes=1) as made:
        yield Two(made)


async def test_one_of_two_tells_of_a_node_and_its_score_counts_once(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello()
        assert await made.tell() == [1, 0]
        score = (await made.node()).score
        made.world.clock.now_s += 16
        assert await made.tell() == [1, 0]
        row = await made.node()
        assert (row.is_online, row.score) == (False, score + OFFLINE_SCORE)
        made.holder = 1
        for _ in range(4):
            made.world.clock.now_s += 5
            await made.tell()
        assert (await made.node()).score == score + OFFLINE_SCORE, "who takes the duty over has seen it go, too, and does not count it again"


async def test_hours_that_one_has_told_are_not_told_by_the_next(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello()
        await made.tell()
        score = (await made.node()).score
        for _ in range(2 * 3_600 // 5):
            made.world.clock.now_s += 5
            await made.hello()
        await made.tell()
        assert (await made.node()).score == score + 2 * ONLINE_SCORE
        made.holder = 1
        await made.hello()
        await made.tell()
        assert (await made.node()).score == score + 2 * ONLINE_SCORE


async def test_what_both_heard_of_a_killed_process_costs_its_score_once(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello()
        await made.tell()
        score = (await made.node()).score
        for one in made.registries:
            one.score(1, -200)
        await made.tell()
        made.holder = 1
        await made.tell()
        assert (await made.node()).score == score - 200


async def test_who_takes_over_tells_of_silence_only_after_three_intervals(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello()
        await made.tell()
        score = (await made.node()).score
        # The node says hello to the first alone; that one dies, and the second one's picture is old.
        made.world.clock.now_s += 16
        await made.hello(by=(0,))
        await made.statuses[0].tell()
        made.holder = 1
        assert await made.statuses[1].tell() == 0
        made.world.clock.now_s += 14
        assert await made.statuses[1].tell() == 0
        assert (await made.node()).is_online
        made.world.clock.now_s += 1
        assert await made.statuses[1].tell() == 1
        row = await made.node()
        assert (row.is_online, row.score) == (False, score), "its going was not seen here: that costs nothing"


async def test_who_takes_over_and_hears_the_node_says_that_it_is_there(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello()
        await made.tell()
        made.holder = 1
        await made.hello(by=(1,), endpoint="127.1.0.1:9001")
        assert await made.statuses[1].tell() == 1
        assert (await made.node()).endpoint == "127.1.0.1:9001"
        await made.hello(by=(1,), is_stopping=True)
        assert await made.statuses[1].tell() == 1, "a node that says that it stops is believed at once"
        assert not (await made.node()).is_online


async def test_a_node_that_a_fresh_meta_node_never_heard_is_not_told_of(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello(by=(0,))
        await made.tell()
        made.holder = 1
        made.world.clock.now_s += 60
        assert await made.statuses[1].tell() == 0
        assert (await made.node()).is_online


# --- audits --------------------------------------------------------------------------------------------------------------------


async def test_only_who_has_the_duty_audits_a_node_and_a_second_chance_ends_with_it(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1, holders=(2, 3))
        one.auditor._is_ours = nobody
        await one.day()
        assert [await one.earned(number) for number in (1, 2, 3)] == [0, 0, 0]
        one.auditor._is_ours = lambda node: True
        await one.day(is_second=False)
        assert 1 in one.auditor._seconds
        one.auditor._is_ours = nobody
        one.world.clock.now_s += 30 * 60
        assert await one.auditor.step() == 0
        one.auditor._is_ours = lambda node: True
        assert await one.auditor.step() == 0, "the audit of before is not gone on with"
        assert one.lost == []
        await one.day()
        assert one.lost != [], "the next day's audits find it"


# --- ticks ---------------------------------------------------------------------------------------------------------------------


async def test_the_second_one_ticks_only_when_the_first_has_not_for_some_seconds(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        places = [0, 1, 2]
        first, second, third = (Ticker(made.proposer, made.clock, lambda at=at: places[at]) for at in range(3))  # type: ignore[misc]
        made.clock.now_s += ticker.QUIET_S
        before = made.ledger.head.sequence
        assert not await second.step()
        assert not await third.step()
        assert made.ledger.head.sequence == before
        made.clock.now_s += ticker.TURN_S
        await third.step()
        assert made.ledger.head.sequence == before
        await second.step()
        assert made.ledger.head.sequence == before + 1
        await first.step()
        assert made.ledger.head.sequence == before + 1, "what one has done the others find done"
        places[2] = 0
        made.clock.now_s += ticker.QUIET_S
        await third.step()
        assert made.ledger.head.sequence == before + 2


# --- observations and reports --------------------------------------------------------------------------------------------------


def observing(made: Metas, place: Callable[[int], int], gather: observer.Gather = observer.nobody) -> Observer:
    proposer = Proposer(made[0].ledger, CHAIN_ID, address(1), ledger_key(1), made.clock)
    proposer._nonce = 100
    return Observer(None, proposer, ledger_key(1), gather, made.clock, place=place)  # type: ignore[arg-type]


async def test_another_ones_turn_is_waited_for_until_it_has_observed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "TURN_S", 3_600.0)
    monkeypatch.setattr(observer, "LOOK_S", 0.01)
    async with metas(tmp_path, 1) as made:
        asked: list[int] = []

        def place(height: int) -> int:
            asked.append(height)
            return 1

        task = asyncio.create_task(observing(made, place)._proposed(made.observation()))
        await until(lambda: asked)
        assert asked[0] == made.height + 1
        await made.observe()
        with pytest.raises(LedgerRefused) as refused:
            await task
        assert refused.value.code == WRONG_HEIGHT, "which has the observer go on from there"


async def test_when_the_first_does_nothing_the_next_one_observes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "LOOK_S", 0.01)
    async with metas(tmp_path, 1) as made:
        places = iter([2, 2, 0])
        one = observing(made, lambda height: next(places))
        await one._proposed(made.observation())
        assert one.observed == 1, "it was gone, and so it was this one's turn"
        monkeypatch.setattr(observer, "TURN_S", 0.02)
        made.height += 1
        one = observing(made, lambda height: 3)
        one._proposer._nonce = 200
        await one._proposed(made.observation())
        assert one.observed == 1


async def test_an_observation_that_too_few_signed_goes_into_no_log(tmp_path: Path) -> None:
    async with metas(tmp_path, 4) as made:
        before = made[0].ledger.head.sequence

        async def one_other(body: bytes) -> dict[bytes, bytes]:
            return {address(2): bytes(64)}

        with pytest.raises(LedgerRefused) as refused:
            await observing(made, lambda height: 0, one_other)._proposed(made.observation())
        assert refused.value.code == NO_QUORUM
        assert made[0].ledger.head.sequence == before


async def test_the_turn_to_report_leaves_out_who_is_not_there() -> None:
    everybody = sorted(address(number) for number in range(1, 5))
    one = Reporter.__new__(Reporter)
    one._keys = type("Keys", (), {"address": everybody[1]})()
    for online in (None, lambda: everybody):
        one._online = online
        assert [one._is_turn(everybody, number, 0.0) for number in range(4)] == [False, True, False, False]
    one._online = lambda: everybody[1:3]
    assert [one._is_turn(everybody, number, 0.0) for number in range(4)] == [True, False, True, False]
    assert one._is_turn(everybody, 1, 61.0), "and passes on after a minute"


# --- repair --------------------------------------------------------------------------------------------------------------------


class Judging:
    """Health of one segment, and moves of none."""

    def __init__(self, found: Judged) -> None:
        self.found = found

    async def look(self, number: int) -> Judged:
        return self.found

    async def recover(self, segment: int | None = None) -> int:
        return 0

    def proves_nothing(self, number: int) -> bool:
        return False


async def test_who_does_not_have_an_object_repairs_only_what_is_known_here_alone_and_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "OTHERS_PAUSE_S", 0.0)
    clock, settings, repaired = Clock(), Settings(others_s=600.0), []
    queue = open_queue(tmp_path / "repairs.db")
    row = object_row(1, 3)
    lost = judged(row, [1, 2, 3], {1: Standing.LOST, 2: Standing.LOST})
    marked = judged(row, [1, 2, 3], {1: Standing.LOST}, {(1, 1): 2})
    ours = False

    async def repair(found: Judged) -> None:
        repaired.append(found)

    def made(found: Judged) -> Worker:
        parts: Any = Judging(found)
        one = Worker(parts, parts, queue, parts, parts, parts, parts, parts, parts, parts, clock, settings, lambda object_id: ours)
        one._repair = repair  # type: ignore[method-assign, assignment]
        return one

    assert lost.needs_work
    assert marked.needs_work
    await queue.note([(1, 0)], int(clock()))
    for found, passed_s in ((marked, 0), (lost, 600)):
        clock.now_s += passed_s
        (waiting,) = await queue.take(1, (), int(clock()))
        one = made(found)
        await one._one(waiting)
        assert not repaired
        assert (one.count["later_others"], one._in_vain) == (1, 0)
        assert await queue.take(1, (), int(clock()) + 599) == []
    assert not repaired, "a lost node is known to all: whose the object is will see to it"
    clock.now_s += 600
    (waiting,) = await queue.take(1, (), int(clock()))
    await made(marked)._one(waiting)
    assert len(repaired) == 1
    ours = True
    await made(lost)._one(waiting)
    assert len(repaired) == 2
    queue.close()


class Asked:
    """Nodes that have nothing, and say so."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    async def ask(self, number: int, method: str, head: bytes = b"", body: bytes = b"", **bounds: Any) -> bytes:
        self.numbers.append(number)
        return bytes(InventoryPage().SerializeToString())


async def test_each_node_is_asked_what_it_found_damaged_by_each_meta_node(tmp_path: Path) -> None:
    clock, settings, calls, queue = Clock(), Settings(), Asked(), open_queue(tmp_path / "repairs.db")
    nodes: Any = Nodes(node_row(1), node_row(2), node_row(3))
    health = Health(None, nodes, queue, clock, settings)  # type: ignore[arg-type]
    one = Damage(None, nodes, calls, queue, health, None, None, clock, settings)  # type: ignore[arg-type]
    await one.step()
    assert sorted(calls.numbers) == [1, 2, 3], "who repairs a segment has to know of all its damaged copies"
    assert set(await queue.compared()) == {1, 2, 3}, "a node drops a copy on the word of several, so each of them compares"
    queue.close()
