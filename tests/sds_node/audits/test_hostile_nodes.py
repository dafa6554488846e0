"""Nodes, meta nodes and disks that do not play along: who proves nothing is lost for repair, who lost a share is not paid for it, who stalls stalls himself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from modules.settlement.leaves import release_identity
from sds_node.merkle import segment_root, share_root
from sds_node.meta.audits import auditor as auditors
from sds_node.meta.audits.auditor import Auditor
from sds_node.meta.audits.challenges import Item, challenges
from sds_node.meta.audits.memory import packed, unpacked
from sds_node.meta.books.releases import NodeResult
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.nodes.hello import BadEndpoint
from sds_node.meta.nodes.registry import Seen
from sds_node.meta.operations import LedgerRefused
from sds_node.meta.repair import Repair, Settings
from sds_node.meta.repair.health import UNPROVED_KEPT_S, Standing
from sds_node.meta.repair.moves import Mover
from sds_node.meta.repair.queue import Put, open_queue
from sds_node.meta.rules import tables
from sds_node.meta.rules.places import days_of
from sds_node.p2p import address_of
from sds_node.resource.store.errors import StoreUnusable
from sds_node.schemes import released_noz
from sds_node.transfers import AUDIT
from sds_node.wire import errors as wire_errors
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.audits.test_audits_find_what_is_missing import SIZE, Audits, audits
from tests.sds_node.books.world import (
    CHAIN_ID,
    DAY_S,
    message,
    meta_address,
    meta_key,
    node_key,
    observed_meta,
    observed_node,
    public,
    signing_key,
    until,
)
from tests.sds_node.data.network import content

pytestmark = pytest.mark.asyncio
ESCROW = SIZE - SIZE // 2


async def nobody(body: bytes) -> list[tuple[bytes, bytes]]:
    return []


@asynccontextmanager
async def remembered(folder: Path) -> AsyncIterator[tuple[Audits, Repair]]:
    """Audits beside the repair that keeps what they remember; nothing is repaired unless a test does."""
    async with audits(folder) as one:
        repair = made(one, folder)
        await repair.start()
        try:
            yield one, repair
        finally:
            await repair.close()


def made(one: Audits, folder: Path) -> Repair:
    world = one.world
    repair = Repair(
        world.proposer, meta_key(), world.registry, one.calls, world.books, None, folder / "repairs.db", world.clock,  # type: ignore[arg-type]
        boot=1, cosign=nobody, tell=one.calls.tell_later, settings=Settings(),
    )  # fmt: skip

    def lost(segment: int, index: int) -> None:
        one.lost.append((segment, index))
        repair.share_lost(segment, index)

    one.auditor._memory, one.auditor._on_lost = repair, lost
    return repair


async def segment_of(one: Audits, counter: int) -> tables.Segment:
    root = segment_root([share_root(content(counter, SIZE))] * 3)
    found = await one.world.ledger.query(lambda view: [row for row in view.scan(tables.SEGMENT, limit=1_000) if row.root == root])
    (row,) = found
    assert isinstance(row, tables.Segment)
    return row


def breaks(one: Audits, number: int) -> None:
    """The disk of a node is dead; its process says hello."""

    def broken(*_: Any) -> Any:
        raise StoreUnusable("input/output error")

    for name in ("leaf", "has", "inventory", "damaged"):
        setattr(one.nodes[number].store, name, broken)


# --- nothing is proved -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_wiped", [False, True])
async def test_a_node_that_says_hello_and_proves_nothing_is_lost_after_two_days_and_gets_no_shares(tmp_path: Path, is_wiped: bool) -> None:
    async with remembered(tmp_path) as (one, repair):
        for counter in (1, 2):
            await one.put(counter, holders=(2, 3) if is_wiped else (1, 2, 3))
        if not is_wiped:
            breaks(one, 1)
        await one.day()
        await repair.health.step()
        assert repair.health.standing(1) is Standing.HEALTHY, "one bad day is none"
        await one.day()
        await repair.health.step()
        assert repair.health.standing(1) is Standing.LOST
        assert repair.health.standing(2) is Standing.HEALTHY
        assert 1 in await repair.queue.walks()
        await one.world.registry.refresh()
        assert "proved" in one.world.registry.why_not(1)
        assert "proved" not in one.world.registry.why_not(2)
        again = made(one, tmp_path)
        await again.start()
        assert again.health.standing(1) is Standing.LOST, "a start changes nothing"
        await again.close()


async def test_one_proof_makes_it_a_node_again(tmp_path: Path) -> None:
    async with remembered(tmp_path) as (one, repair):
        serials = await one.put(1, holders=(2, 3))
        for _ in range(3):
            await one.day()
            await repair.health.step()
        assert repair.health.standing(1) is Standing.LOST
        one.nodes[1].keep(content(1, SIZE), serials[0])
        await one.day()
        await repair.health.step()
        assert repair.health.standing(1) is Standing.HEALTHY
        assert (await repair.queue.marked_at(1, 10), await repair.queue.unproved()) == ({}, {})


async def test_a_node_whose_shares_are_all_elsewhere_may_get_new_ones_after_a_week(tmp_path: Path) -> None:
    async with remembered(tmp_path) as (one, repair):
        await one.put(1, holders=(2, 3))
        for _ in range(2):
            await one.day()
        await one.world.observe(observed_node(4))
        moved = message("MovedShare", segment=(await segment_of(one, 1)).number, index=0, from_node=1, to_node=4, serial=one.world.serial())
        await one.world.proposer.propose("move", message("Move", shares=[moved]))
        await one.hello(1)
        await repair.health.step()
        assert repair.health.standing(1) is Standing.LOST
        one.world.clock.now_s += UNPROVED_KEPT_S
        await one.hello(1)
        await repair.health.step()
        assert repair.health.standing(1) is Standing.HEALTHY


async def test_a_meta_node_that_hears_nobody_takes_no_node_for_lost(tmp_path: Path) -> None:
    async with remembered(tmp_path) as (one, repair):
        await one.put(1)
        for number in (1, 2, 3):
            breaks(one, number)
        for _ in range(3):
            await one.day()
        await repair.health.step()
        assert [repair.health.standing(number) for number in (1, 2, 3)] == [Standing.HEALTHY] * 3


# --- shares that are known to be bad -------------------------------------------------------------------------------------------


async def test_a_share_that_is_known_to_be_lost_is_paid_for_no_later_day_until_it_is_proved(tmp_path: Path) -> None:
    async with remembered(tmp_path) as (one, repair):
        serials = await one.put(1, holders=(2, 3))
        for counter in range(2, 5):
            await one.put(counter)
        number = (await segment_of(one, 1)).number
        await one.day()
        await repair.health.step()
        assert one.lost == [(number, 0)]
        failed = (await one.world.row(tables.OBJECT, (await segment_of(one, 1)).object)).repair_noz
        assert failed == released_noz(ESCROW, 1)
        paid = await one.earned(1)
        for _ in range(3):
            await one.day()
            await repair.health.step()
        assert one.lost == [(number, 0)], "it is found once"
        assert days_of((await segment_of(one, 1)).days)[0] == 1, "neither paid nor failed again"
        assert await one.earned(1) > paid, "the others are paid"
        assert (await one.world.row(tables.OBJECT, (await segment_of(one, 1)).object)).repair_noz == failed
        one.nodes[1].keep(content(1, SIZE), serials[0])
        await one.day()
        assert days_of((await segment_of(one, 1)).days)[0] == days_of((await segment_of(one, 2)).days)[0]
        assert await repair.queue.marked_at(1, 10) == {}


async def test_a_node_with_too_many_bad_shares_is_paid_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditors, "MARKED_MOST", 1)
    async with remembered(tmp_path) as (one, repair):
        for counter in range(1, 5):
            await one.put(counter)
        numbers = [(await segment_of(one, counter)).number for counter in (1, 2)]
        await repair.health.mark([(number, 0, 1, "damaged") for number in numbers])

        async def kept(node: int, shares: Sequence[tuple[int, int]]) -> None:
            return

        one.auditor._memory.proved = kept  # type: ignore[method-assign]
        await one.day()
        assert await one.earned(1) == 0
        assert await one.earned(2) > 0


# --- moves between an audit and its release -----------------------------------------------------------------------------------


async def test_a_failed_share_that_was_moved_before_the_release_drops_nobodys_verdict(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        await one.put(2, holders=(2, 3))
        await one.world.observe(observed_node(4))
        await one.day(is_second=False)
        one.world.clock.now_s += DAY_S // 48
        for number in one.nodes:
            await one.hello(number)
        # The others are audited in the same round, so one release has all three.
        one.auditor._audited.pop(2)
        one.auditor._audited.pop(3)
        one.world.clock.now_s += DAY_S
        for number in one.nodes:
            await one.hello(number)
        propose, number = one.world.proposer.propose, (await segment_of(one, 2)).number
        moves = [message("MovedShare", segment=number, index=0, from_node=1, to_node=4, serial=one.world.serial())]

        async def moved_first(kind: str, body: Any) -> Any:
            if kind == "release" and moves:
                await propose("move", message("Move", shares=[moves.pop()]))
            return await propose(kind, body)

        one.world.proposer.propose = moved_first  # type: ignore[method-assign,assignment]
        before = [await one.earned(number) for number in (1, 2, 3)]
        await one.auditor.step()
        assert not moves
        assert all(after > old for after, old in zip([await one.earned(number) for number in (1, 2, 3)], before, strict=True))


async def test_a_node_whose_release_is_refused_for_good_ends_nobody_elses(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        release, heard = one.auditor._releases.release, []

        async def refused(results: Sequence[Any], **fields: Any) -> Any:
            heard.append([result.node for result in results])
            if any(result.node == 2 for result in results):
                raise LedgerRefused(1, "no")
            return await release(results, **fields)

        one.auditor._releases.release = refused  # type: ignore[method-assign,assignment]
        await one.day(is_second=False)
        assert (await one.earned(1) > 0, await one.earned(2), await one.earned(3) > 0) == (True, 0, True)
        assert heard == [[1, 2, 3], [1], [2], [2], [2], [3]]


async def test_what_is_lost_is_told_once_the_release_is_made(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1, holders=(2, 3))
        order: list[str] = []
        release = one.auditor._releases.release

        async def noted(results: Sequence[NodeResult], **fields: Any) -> Any:
            order.append("release")
            return await release(results, **fields)

        one.auditor._releases.release = noted  # type: ignore[method-assign,assignment]
        one.auditor._on_lost = lambda segment, index: order.append("lost")
        await one.day()
        assert order[-2:] == ["release", "lost"]


# --- second chances outlive a stop ----------------------------------------------------------------------------------------------


async def test_a_stop_gives_no_node_another_first_chance(tmp_path: Path) -> None:
    async with remembered(tmp_path) as (one, repair):
        await one.put(1, holders=(2, 3))
        await one.day(is_second=False)
        old = one.auditor
        again = Auditor(
            old._ledger, old._books, old._releases, old._registry, old._calls, old._roots_of, CHAIN_ID, one.world.me, meta_key(), one.world.clock,
            on_lost=old._on_lost, memory=repair,
        )  # fmt: skip
        assert await again.step() == 0, "all were audited today"
        one.world.clock.now_s += DAY_S // 48
        for number in one.nodes:
            await one.hello(number)
        assert await again.step() == 1
        assert [index for _, index in one.lost] == [0]
        assert (await repair.queue.all_audited())[0].second_s is None


async def test_a_second_chance_is_kept_as_it_is() -> None:
    items = [Item(1 << 40, 3, b"s" * 16, b"r" * 32, 1 << 33, 77), Item(1, 0, b"t" * 16, b"q" * 32, 1, 0)]
    for records, has_proved in (([b"", b"abc"], True), ([], False)):
        assert unpacked(packed(items, records, has_proved=has_proved)) == (items, records, has_proved)
    assert unpacked(packed([], [], has_proved=False)) == ([], [], False)


# --- who stalls, who is busy, who cannot be dialed -------------------------------------------------------------------------------


async def test_a_meta_node_that_does_not_take_its_answers_keeps_no_other_one_from_asking(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        serials = await one.put(1)
        await one.world.observe(message("ObservedEvent", meta=observed_meta(2)))
        node, liar = one.nodes[1], signing_key(b"meta2")
        chain: Any = node.service._authority
        chain.active_meta_nodes = lambda: [meta_address(1), meta_address(2)]
        chain.ledger_key = lambda address: public(meta_key(2 if address == meta_address(2) else 1))
        root = one.roots[(await segment_of(one, 1)).root]
        items = [Item(1, 0, serials[0], root, SIZE, leaf) for leaf in range(7)]
        to = address_of(public(node_key(1)))
        ((head, _),) = challenges(items, CHAIN_ID, meta_address(2), to, 5, bytes(32), int(one.world.clock()) + 10**6, meta_key(2))
        end = Node(Identity(bytes(liar)), CHAIN_ID)
        peer = Peer(end, to, [Direct("127.0.0.1", node.port)])
        # Sends its answers to nobody: as if this end took none of them.
        stuck = asyncio.Event()
        waiting: list[bytes] = []

        async def never(stream: Any, answer: bytes) -> None:
            waiting.append(answer)
            await stuck.wait()

        node.service._sent_in_time, sent_in_time = never, node.service._sent_in_time  # type: ignore[method-assign]
        streams = [await peer.call(AUDIT, encode(head), ended=True) for _ in range(2)]
        # Both answers are made and held: one that was only counted yet would be sent the real way from here on.
        await until(lambda: len(waiting) == 2)
        assert node.service._audits[end.address] == 2
        node.service._sent_in_time = sent_in_time  # type: ignore[method-assign]
        with pytest.raises(wire_errors.Busy):
            await peer.ask(AUDIT, encode(head))
        await one.day(is_second=False)
        assert await one.earned(1) == await one.earned(2) > 0
        for stream in streams:
            stream.cancel()
        stuck.set()
        await until(lambda: not node.service._audits)
        await peer.close()
        await end.close()


async def test_a_challenge_that_asks_for_one_thing_twice_is_refused(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        serials = await one.put(1)
        item = Item(1, 0, serials[0], one.roots[(await segment_of(one, 1)).root], SIZE)
        node = one.nodes[1]
        end = Node(Identity(bytes(signing_key(b"meta1"))), CHAIN_ID)
        to = address_of(public(node_key(1)))
        peer = Peer(end, to, [Direct("127.0.0.1", node.port)])
        due_s = int(one.world.clock()) + 60
        ((head, _),) = challenges([item, item], CHAIN_ID, meta_address(), to, 5, bytes(32), due_s, meta_key())
        with pytest.raises(wire_errors.Refused, match="each item once"):
            await peer.ask(AUDIT, encode(head))
        await peer.close()
        await end.close()


async def test_a_busy_node_is_asked_again_and_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditors, "BUSY_S", 0.001)
    async with audits(tmp_path) as one:
        await one.put(1)
        handlers, answer, refusals = one.nodes[1].server.node.handlers, one.nodes[1].service.audit, 3

        async def busy(stream: Any, connection: Any) -> None:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise wire_errors.Busy("ask again in a moment")
            await answer(stream, connection)

        handlers[AUDIT] = busy
        await one.day(is_second=False)
        assert refusals == 0
        assert await one.earned(1) == await one.earned(2) > 0


async def test_an_endpoint_that_is_none_ends_no_audit_but_its_nodes(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        ask = one.calls.ask

        async def dialed(number: int, method: str, *arguments: Any, **bounds: Any) -> bytes:
            if number == 1 and method == AUDIT:
                raise BadEndpoint("nowhere")
            return await ask(number, method, *arguments, **bounds)

        one.calls.ask = dialed  # type: ignore[method-assign]
        await one.day()
        assert await one.earned(1) == 0
        assert await one.earned(2) > 0


async def test_what_a_node_lost_before_it_said_hello_here_is_not_forgotten(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        registry = one.world.registry
        await registry.refresh()
        registry.score(1, -50)
        registry.score(1, -70)
        registry.score(99, -50)  # there is no such node
        assert registry.seen_of(1) is None
        registry.heard(1, Seen(one.world.clock()))
        seen = registry.seen_of(1)
        assert seen is not None
        assert seen.score_change == -120
        registry.heard(99, Seen(one.world.clock()))
        assert registry.seen_of(99).score_change == 0  # type: ignore[union-attr]
        await one.hello(1)
        assert registry.seen_of(1).score_change == -120  # type: ignore[union-attr]


# --- moves between a release's intent and its place in the log ------------------------------------------------------------------------


def moving(segment: int, from_node: int, to_node: int, serial: bytes) -> Any:
    return message("Move", shares=[message("MovedShare", segment=segment, index=0, from_node=from_node, to_node=to_node, serial=serial)])


async def cut_off(one: Audits, node: int) -> None:
    """A release of all that a node has is intended, and does not reach the ledger."""
    propose = one.world.proposer.propose

    def down(kind: str, body: Any) -> Any:
        async def never() -> Any:
            raise LedgerError("the ledger takes nothing now")

        return never()

    one.world.proposer.propose = down  # type: ignore[method-assign,assignment]
    with pytest.raises(LedgerError):
        await one.auditor._releases.release([NodeResult(node=node, first_segment=1, last_segment=(1 << 48) - 1)], bytes(32), 0, bytes(32))
    one.world.proposer.propose = propose  # type: ignore[method-assign]


async def test_a_share_that_came_after_a_releases_making_is_settled_with_it_and_stops_nothing(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        await one.put(2)
        await one.world.observe(observed_node(4))
        first, second = (await segment_of(one, 1)).number, (await segment_of(one, 2)).number
        one.world.clock.now_s += DAY_S + DAY_S // 2
        await one.world.proposer.propose("move", moving(first, 1, 4, one.world.serial()))
        await cut_off(one, 4)
        # Both as another meta node would move them: one more comes to the node, and one that it had goes and comes back under another serial.
        await one.world.proposer.propose("move", moving(second, 1, 4, one.world.serial()))
        await one.world.proposer.propose("move", moving(first, 4, 1, one.world.serial()))
        await one.world.proposer.propose("move", moving(first, 1, 4, one.world.serial()))
        one.world.clock.now_s += DAY_S
        await one.world.windows.settle()
        assert await one.earned(4) > 0
        leaves = await one.world.books.leaves_of_window(1)
        assert sorted(leaf.id[:16] for leaf in leaves) == [release_identity(first, 0, 0)[:16], release_identity(second, 0, 0)[:16]]
        assert sum(leaf.noz for leaf in leaves) == await one.earned(4)
        await one.put(3)
        assert await one.world.books.intended() is None


async def test_a_move_waits_until_a_release_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        await one.put(2)
        await one.world.observe(observed_node(4))
        first, second = (await segment_of(one, 1)).number, (await segment_of(one, 2)).number
        one.world.clock.now_s += DAY_S + DAY_S // 2
        await one.world.proposer.propose("move", moving(first, 1, 4, one.world.serial()))
        await cut_off(one, 4)
        one.world.clock.now_s += DAY_S
        queue = open_queue(tmp_path / "moves.db")
        told: list[int] = []

        async def tell(node: int, method: str, body: bytes) -> None:
            told.append(node)

        mover = Mover(one.world.proposer, queue, tell, 0.0, one.world.books.numbering, one.world.windows.finish_intended)
        running = asyncio.create_task(mover.run())
        put = Put(one.world.serial(), second, 0, 1, 4, b"r" * 32, (await one.world.row(tables.SEGMENT, second)).first_serial, is_acked=True)
        assert await mover.move(put) == ""
        assert await one.world.books.intended() is None
        assert [leaf.id[:16] for leaf in await one.world.books.leaves_of_window(1)] == [release_identity(first, 0, 0)[:16]], "the release came first"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert sorted(told) == [1, 4]
        queue.close()


async def test_a_node_that_hands_its_share_over_is_paid_up_to_that_day(tmp_path: Path) -> None:
    async with remembered(tmp_path) as (one, repair):
        await one.put(1)
        await one.put(2)
        await one.world.observe(observed_node(4))
        repair.pays(one.auditor._releases)
        running = asyncio.create_task(repair.mover.run())
        one.world.clock.now_s += 3 * DAY_S
        for counter, is_handed in ((1, True), (2, False)):
            segment = await segment_of(one, counter)
            before = await one.earned(1)
            put = Put(one.world.serial(), segment.number, 0, 1, 4, b"r" * 32, segment.first_serial, is_acked=True)
            assert await repair.mover.move(put, is_handed=is_handed) == ""
            paid, failed = await one.earned(1) - before, (await one.world.row(tables.OBJECT, segment.object)).repair_noz
            due = sum(released_noz(ESCROW, day) for day in (1, 2, 3))
            assert (paid, failed) == ((due, 0) if is_handed else (0, due))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
