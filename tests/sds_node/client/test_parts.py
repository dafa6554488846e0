"""Parts of the client by themselves: what is kept of earlier puts, questions in one, leases by need, commits in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking
from sds_node.client.commits import MAX_BYTES, parts
from sds_node.client.errors import MetaRefused, NotFound, StorageError
from sds_node.client.issuing import Batch
from sds_node.client.results import MAX_KEY_CHARACTERS, Results
from sds_node.client.room import Room
from sds_node.client.transfer import StoredObject, StoredSegment
from sds_node.hashes import file_hash
from sds_node.merkle import object_root
from sds_node.schemes import SEGMENT_BYTES, TEN_OF_THIRTY
from tests.sds_node.client.network import network
from tests.sds_node.documenting import ack


@pytest.mark.asyncio
async def test_an_idempotency_key_does_the_work_once_also_for_those_who_ask_meanwhile_and_later(tmp_path: Path) -> None:
    done = list[int]()

    async def work() -> dict[str, Any]:
        done.append(1)
        await asyncio.sleep(0)
        return {"number": len(done)}

    async def fails() -> dict[str, Any]:
        raise StorageError("no")

    results = Results(tmp_path / "r", lambda: 1.0)
    assert await asyncio.gather(*(results.once("k", {"a": 1}, work) for _ in range(5))) == [{"number": 1}] * 5
    with pytest.raises(StorageError, match="no"):
        await results.once("other", {}, fails)
    assert await results.once("other", {}, work) == {"number": 2}
    results.close()
    again = Results(tmp_path / "r", lambda: 2.0)
    assert await again.once("k", {"a": 1}, work) == {"number": 1}
    with pytest.raises(StorageError, match="another put"):
        await again.once("k", {"a": 2}, work)
    for wrong in ("", "x" * (MAX_KEY_CHARACTERS + 1)):
        with pytest.raises(StorageError, match="1 to 200"):
            await again.once(wrong, {}, work)
    again.close()


def test_a_file_of_results_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(b"no database" * 1_000)
    with pytest.raises(StorageError, match="move the file away"):
        Results(tmp_path / "r", lambda: 1.0)


@pytest.mark.asyncio
async def test_questions_of_one_moment_go_together_and_a_bad_one_fails_alone() -> None:
    asked = list[list[int]]()

    async def run(numbers: list[int]) -> Sequence[int | Exception]:
        asked.append(numbers)
        if 3 in numbers and len(numbers) > 1:
            raise MetaRefused("one of them is wrong")
        return [NotFound("none") if one == 3 else one * 10 for one in numbers]

    batch: Batch[int, int] = Batch(run, 4)
    answers = await asyncio.gather(*(batch.ask(one) for one in range(6)), return_exceptions=True)
    assert [one for one in answers if isinstance(one, int)] == [0, 10, 20, 40, 50]
    assert isinstance(answers[3], NotFound)
    assert asked[0] == [0, 1, 2, 3]
    assert [4, 5] in asked
    await batch.close()


@pytest.mark.asyncio
async def test_room_is_given_in_order_and_never_twice() -> None:
    room, inside, most = Room(100, 3), list[int](), list[int]()

    async def hold(size: int) -> None:
        async with room.take(size):
            inside.append(size)
            most.append(sum(min(one, 100) for one in inside))
            assert len(inside) <= 3
            await asyncio.sleep(0)
            inside.remove(size)

    sizes = [60, 30, 5, 5, 500, 100, 1, 99, 1]
    tasks = [asyncio.create_task(hold(size)) for size in sizes]
    await asyncio.sleep(0)
    tasks[4].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert max(most) <= 100
    assert len(most) == len(sizes) - 1
    async with room.take(100):
        waiting = asyncio.create_task(hold(1))
        await asyncio.sleep(0)
        assert not inside
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1), room.take(100):
        pass


def test_an_object_that_is_too_large_for_one_commit_goes_in_parts_that_follow() -> None:
    limit = asking.PlacedShare().order_limit
    limit.body = b"l" * 400

    class Placed:
        node_key = b"k" * 32
        order_limit = limit

    roots = tuple(bytes([one]) * 32 for one in range(30))
    segment = StoredSegment(b"r" * 32, SEGMENT_BYTES, roots, {index: (Placed(), ack()) for index in range(30)}, {})  # type: ignore[misc]
    stored = StoredObject(b"i" * 32, object_root([b"r" * 32] * 700), 700 * SEGMENT_BYTES, TEN_OF_THIRTY, (segment,) * 700)
    made = list(parts(5, stored, file_hash(b"x"), None))
    assert len(made) > 1
    assert sum(len(one.segments) for one in made) == 700
    at = 0
    for one in made:
        assert one.first_segment == at
        assert one.ByteSize() < asking.MAX_BODY_BYTES
        assert one.counter == 5
        at += len(one.segments)
    assert made[0].ByteSize() > MAX_BYTES * 9 // 10
    (empty,) = parts(1, StoredObject(b"i" * 32, object_root([]), 0, TEN_OF_THIRTY, ()), file_hash(b""), None)
    assert len(empty.segments) == 0


@pytest.mark.asyncio
async def test_commands_one_after_another_do_not_wait_for_what_earlier_ones_held(tmp_path: Path) -> None:
    """A small balance: each command holds a part of it, which comes back only when its receipts are settled."""
    async with network(tmp_path, 3) as net:
        await net.buys(7, 3_000_000)
        for number in range(5):
            async with net.storage(7) as storage:
                await storage.put(b"x" * 1_000, f"f{number}")


@pytest.mark.asyncio
async def test_leases_live_no_longer_than_the_governed_bound(tmp_path: Path) -> None:
    async with network(tmp_path, 3, params={"longest_lease_s": 100}) as net, net.storage() as storage:
        await storage.put(b"x", "a")
        net.clock.now_s += 50
        await storage.put(b"x", "b")
        assert net.counts[asking.LEASE_TAKE] == 1
        net.clock.now_s += 40
        await storage.put(b"x", "c")
        assert net.counts[asking.LEASE_TAKE] == 2


@pytest.mark.asyncio
async def test_a_session_that_lives_for_days_renews_its_grant(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        for day in range(3):
            await storage.put(b"x%d" % day, f"f{day}")
            assert b"".join([bytes(one) async for one in storage.read(f"f{day}")]) == b"x%d" % day
            net.clock.now_s += 86_400
            await net.observe()
        assert net.counts[asking.SESSION_OPEN] == 3


@pytest.mark.asyncio
async def test_a_read_of_many_segments_takes_one_lease(tmp_path: Path) -> None:
    data = bytes(70 << 20)
    async with network(tmp_path, 1) as net:
        await net.buys(7, 400 << 20)
        async with net.storage(7) as storage:
            await storage.put(data, "f")
            await net.buys(7, 200 << 20)
        net.counts.clear()
        async with net.storage(7) as storage:
            assert sum([len(one) async for one in storage.read("f")]) == len(data)
        assert net.counts[asking.LEASE_TAKE] == 1


@pytest.mark.asyncio
async def test_a_folder_of_more_files_than_a_page_is_listed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.client.files.PAGE", 7)
    async with network(tmp_path, 3) as net, net.storage() as storage:
        await asyncio.gather(*(storage.put(b"x", f"d/{number}") for number in range(30)))
        await storage.put(b"x", "top")
        assert sorted([int(one.name) async for one in storage.list("d")]) == list(range(30))
        assert len([one async for one in storage.files.everything()]) == 32
        await storage.remove("d", recursive=True)
        assert len([one async for one in storage.trash()]) == 31
