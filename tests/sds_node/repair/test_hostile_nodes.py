"""Nodes that answer without end, byte by byte, or not at all cost repair a bounded time; nothing is paid that was not asked for; two that repair do it once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from modules.settlement.trees import leaf_hash
from sds_node import transfers
from sds_node.merkle import LEAF_BYTES, share_root
from sds_node.meta.rebuild.lagging import LaggingError
from sds_node.meta.repair import damage as damages
from sds_node.meta.repair import transfer
from sds_node.meta.repair.damage import DAMAGED_PAGES, SPARE_PAGES, Damage, WrongInventory
from sds_node.meta.repair.funds import repair_noz
from sds_node.meta.repair.health import Health, Judged, Standing
from sds_node.meta.repair.known import Later, Settings, together
from sds_node.meta.repair.queue import RepairQueue, open_queue
from sds_node.meta.repair.transfer import NodeFailed, Transfers
from sds_node.meta.repair.worker import FAILED_S, Worker, _Job
from sds_node.transfers import GET, CopyRow, InventoryHead, InventoryPage
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.stream import Stream
from tests.sds_node.repair.test_parts import NOW_S, Clock, Nodes, OneMeta, contact_of, issuer, judged, ledger_state, node_row, object_row
from tests.sds_node.rules.support import CHAIN_ID

pytestmark = pytest.mark.asyncio
PAGE = transfers.MAX_COPIES_ASKED


@pytest.fixture
def queue(tmp_path: Path) -> Any:
    made = open_queue(tmp_path / "repairs.db")
    yield made
    made.close()


# --- sources ------------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def dripping(data: bytes) -> AsyncIterator[Any]:
    """A node that sends a share's head, and then a byte now and then. Gives how to reach it."""

    async def drip(stream: Stream, connection: Connection) -> None:
        hashes = b"".join(leaf_hash(data[at : at + LEAF_BYTES]) for at in range(0, len(data), LEAF_BYTES))
        await stream.send(transfers.record(encode(transfers.GetReply(size_bytes=len(data), leaf_hashes=hashes))))
        for at in range(len(data)):
            await stream.send(data[at : at + 1])
            await asyncio.sleep(0.005)

    server = Server(Node(Identity(b"D" * 32), CHAIN_ID, {GET: drip}))
    host, port = await server.listen()
    try:
        yield replace(contact_of(1), address=server.node.address, endpoint=f"{host}:{port}")
    finally:
        await server.close()


@pytest.mark.parametrize("why", ["rate", "limit"])
async def test_a_source_that_drips_bytes_fails_by_its_rate_and_at_the_limits_end(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    monkeypatch.setattr(transfer, "LET_GO_S", 0.05)
    if why == "rate":
        monkeypatch.setattr(transfer, "MEBIBYTE_S", 0.2)
    clock, data = Clock(), bytes(100_000)
    async with dripping(data) as contact:
        limit = await issuer(OneMeta(), clock).limit(object_row(2, 5), contact, share_root(data), len(data), 500)
        if why == "limit":
            clock.now_s = limit.expires_s - 0.2
        made = Transfers(CHAIN_ID, clock, 60.0)  # bytes come all the time: that alone ends nothing
        try:
            async with asyncio.timeout(30):
                with pytest.raises(NodeFailed, match="nothing moved in time"):
                    await made.get(limit, bytes(32))
        finally:
            await made.close()


def worker_of(queue: RepairQueue, clock: Clock, found: Judged | None, funds_noz: int, **parts: Any) -> Worker:
    class Parts:
        def is_online(self, number: int) -> bool:
            return True

        async def look(self, number: int) -> Judged | None:
            return found

        def available(self, state: Any, row: Any) -> int:
            return funds_noz

        async def query(self, question: Any) -> Any:
            return ledger_state(funds_noz)

    one: Any = Parts()
    for name, part in parts.items():
        setattr(one, name, part)
    return Worker(one, one, queue, one, one, one, one, one, one, one, clock, Settings(), lambda object_id: True)


async def test_a_node_that_failed_is_read_from_last_for_ten_minutes(queue: RepairQueue) -> None:
    clock, found = Clock(), judged(object_row(2, 4), [1, 2, 3, 4])
    made = worker_of(queue, clock, found, 0)
    assert made._sources(found) == [0, 1, 2, 3]
    made._failed[1] = clock.now_s + FAILED_S
    assert made._sources(found) == [1, 2, 3, 0]
    clock.now_s += FAILED_S
    assert made._sources(found) == [0, 1, 2, 3]


async def test_shares_that_a_leaving_node_does_not_hand_over_are_computed_only_if_the_funds_pay_the_reads(queue: RepairQueue) -> None:
    found = judged(object_row(2, 5), [1, 2, 3, 4, 5], {3: Standing.LEAVING})
    needed = repair_noz(found, 1)
    asked: list[int] = []

    async def made(job: Any, wanted: Sequence[int]) -> dict[int, bytes]:
        asked.extend(wanted)
        return {}

    async def not_given(job: Any, index: int, noz: int) -> bool:
        return False

    for has, is_made in ((needed - 1, False), (needed, True)):
        one = worker_of(queue, Clock(), found, has)
        one._read, one._made = not_given, made  # type: ignore[method-assign, assignment]
        job = _Job(found, [bytes(32)] * 5, ledger_state(has))
        if is_made:
            await one._handed(job, [2])
        else:
            with pytest.raises(Later, match=f"can pay {has} noz, {needed} are needed"):
                await one._handed(job, [2])
        assert asked == ([2] if is_made else [])


async def test_a_segment_that_another_one_repaired_meanwhile_is_not_read(queue: RepairQueue) -> None:
    row = object_row(1, 3)
    before = judged(row, [1, 2, 3], {2: Standing.LOST, 3: Standing.LOST})
    read: list[int] = []

    class Roots:
        async def of(self, segments: Any) -> dict[int, list[bytes]]:
            return {1: [bytes(32)] * 3}

    for now in (judged(row, [1, 4, 3], {3: Standing.LOST}), judged(row, [1, 2, 3]), None):
        one = worker_of(queue, Clock(), now, 10**9, shares_to_make=lambda *_: read.append(1))
        one._roots = Roots()  # type: ignore[assignment]
        with pytest.raises(Later, match="in the meantime"):
            await one._repair(before)
    assert not read


async def test_when_one_of_several_fails_none_of_the_others_goes_on_by_itself() -> None:
    ended: list[str] = []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("no disk")

    async def goes_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    with pytest.raises(ValueError, match="no disk"):
        await together([goes_on(), fails(), goes_on()])
    assert ended == ["ended", "ended"]

    async def gives(number: int) -> int:
        return number

    assert await together(gives(number) for number in range(3)) == [0, 1, 2]


# --- inventories --------------------------------------------------------------------------------------------------------------


class Telling:
    """Nodes' answers to INVENTORY: ``page(number, after)`` gives copies, or waits."""

    def __init__(self, page: Callable[[int, int], Any]) -> None:
        self.page, self.asked = page, list[tuple[int, int]]()

    async def ask(self, number: int, method: str, head: bytes = b"", body: bytes = b"", **bounds: Any) -> bytes:
        after = int.from_bytes(InventoryHead.FromString(head).after.share_root, "big")
        self.asked.append((number, after))
        found = self.page(number, after)
        if asyncio.iscoroutine(found):
            found = await found
        return encode(InventoryPage(copies=found))


def trash(number: int, after: int) -> list[Any]:
    """A page of copies in the trash, all of one serial, without end."""
    return [
        CopyRow(share_root=(after + at).to_bytes(32, "big"), serial=b"s" * 16, size_bytes=1, state=3, is_damaged=True) for at in range(1, PAGE + 1)
    ]


class Empty:
    """A ledger in which nobody has anything."""

    async def query(self, question: Any) -> Any:
        return [], None


class Moves:
    async def drop(self, node: int, copies: Any) -> None:
        return

    async def keep(self, node: int, method: str, copies: Any) -> None:
        return


async def damage_of(queue: RepairQueue, nodes: Nodes, calls: Telling, clock: Clock, **settings: Any) -> Damage:
    chosen = Settings(compare_pause_s=0.0, **settings)
    health = Health(Empty(), nodes, queue, clock, chosen)  # type: ignore[arg-type]
    await health.start()
    return Damage(Empty(), nodes, calls, queue, health, Moves(), None, clock, chosen)  # type: ignore[arg-type]


async def test_damaged_copies_without_end_are_asked_for_a_few_pages_at_a_time(queue: RepairQueue) -> None:
    clock, calls = Clock(), Telling(trash)
    made = await damage_of(queue, Nodes(node_row(1)), calls, clock)
    await made.ask_due()
    assert len(calls.asked) == DAMAGED_PAGES
    clock.now_s += 600
    await made.ask_due()
    assert calls.asked[DAMAGED_PAGES] == (1, DAMAGED_PAGES * PAGE), "the next time goes on where this one ended"
    assert len(calls.asked) == 2 * DAMAGED_PAGES


async def test_a_node_that_does_not_tell_is_asked_later_and_later_and_after_the_others(queue: RepairQueue) -> None:
    clock = Clock()

    def page(number: int, after: int) -> list[Any]:
        if number < 9:
            raise wire_errors.Unreachable("nobody there")
        return []

    calls = Telling(page)
    made = await damage_of(queue, Nodes(*(node_row(number) for number in range(1, 10))), calls, clock)
    asked = []
    for _ in range(4):
        calls.asked.clear()
        await made.ask_due()
        asked.append([number for number, _ in calls.asked])
        clock.now_s += 600
    assert sorted(asked[0]) == list(range(1, 10))
    assert asked[1] == [9]
    assert asked[2][0] == 9
    assert len(asked[2]) == 1 + damages.AT_ONCE
    assert all(9 in numbers for numbers in asked)


async def test_an_inventory_without_end_ends_a_comparison_and_nothing_is_missing(queue: RepairQueue) -> None:
    calls = Telling(trash)
    made = await damage_of(queue, Nodes(node_row(1)), calls, Clock())
    with pytest.raises(WrongInventory, match=f"more than {SPARE_PAGES} pages"):
        await made.compare(1)
    assert len(calls.asked) == SPARE_PAGES


async def test_a_node_that_stalls_its_comparison_holds_up_no_other_question(queue: RepairQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, is_asked = Clock(), asyncio.Event()

    async def for_ever() -> list[Any]:
        is_asked.set()
        await asyncio.Event().wait()
        return []

    stalls = False

    def page(number: int, after: int) -> Any:
        return for_ever() if stalls else []

    calls = Telling(page)
    made = await damage_of(queue, Nodes(node_row(1)), calls, clock)
    await queue.set_compared(1, 0)
    stalls = True
    comparing = asyncio.create_task(made.compare_due())
    await is_asked.wait()
    stalls = False
    await made.ask_due()
    assert calls.asked == [(1, 0), (1, 0)]
    assert not comparing.done()
    comparing.cancel()
    await asyncio.gather(comparing, return_exceptions=True)
    monkeypatch.setattr(damages, "COMPARE_S", 0.01)
    stalls = True
    await queue.set_compared(1, 0)
    await made.compare_due()
    assert (await queue.compared())[1] == NOW_S, "its next one is due in a week"


@pytest.mark.parametrize("error", [LaggingError("given.db cannot be used (disk I/O error)"), sqlite3.OperationalError("database or disk is full")])
async def test_a_disk_that_fails_what_else_is_compared_ends_nothing(queue: RepairQueue, error: Exception) -> None:
    asked = []

    async def also(number: int) -> None:
        asked.append(number)
        raise error

    clock = Clock()
    made = await damage_of(queue, Nodes(node_row(1)), Telling(lambda number, after: []), clock)
    made.also = also
    await queue.set_compared(1, 0)
    await made.compare_due()
    assert asked == [1]
    assert (await queue.compared())[1] == clock.now_s
