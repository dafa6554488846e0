"""Parts of the client by themselves: what is kept of earlier puts, questions in one, leases by need, commits in parts."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from sds_node import asking
from sds_node.client.commits import MAX_BYTES, Committer, parts
from sds_node.client.errors import MetaRefused, NotFound, StorageError
from sds_node.client.issuing import Batch
from sds_node.client.journal import Journals
from sds_node.client.leases import Lease, Leases
from sds_node.client.meta import MetaAddress
from sds_node.client.placing import Settings
from sds_node.client.results import MAX_KEY_CHARACTERS, Results
from sds_node.client.room import Room
from sds_node.client.transfer import StoredObject, StoredSegment, held_bytes, put_object
from sds_node.hashes import file_hash
from sds_node.merkle import object_root
from sds_node.schemes import SCHEMES, SEGMENT_BYTES, TEN_OF_THIRTY, TWO_COPIES, Scheme, bill_noz
from sds_node.threads import in_thread
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from tests.sds_node.client.network import CHAIN_ID, network, wallet_key
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
    await results.close()
    with pytest.raises(StorageError, match="this client is closed: open another one"):
        await results.once("k", {"a": 1}, work)
    again = Results(tmp_path / "r", lambda: 2.0)
    assert await again.once("k", {"a": 1}, work) == {"number": 1}
    with pytest.raises(StorageError, match="another put"):
        await again.once("k", {"a": 2}, work)
    for wrong in ("", "x" * (MAX_KEY_CHARACTERS + 1)):
        with pytest.raises(StorageError, match="1 to 200"):
            await again.once(wrong, {}, work)
    await again.close()


@pytest.mark.asyncio
async def test_a_key_does_the_work_once_also_for_two_processes_at_a_time(tmp_path: Path) -> None:
    done, go = list[int](), asyncio.Event()

    async def slow() -> dict[str, Any]:
        done.append(1)
        await go.wait()
        return {"number": len(done)}

    first, second = Results(tmp_path / "r", lambda: 1.0), Results(tmp_path / "r", lambda: 1.0)
    both = asyncio.gather(first.once("k", {}, slow), second.once("k", {}, slow))
    await asyncio.sleep(0.3)
    assert done == [1]
    other = asyncio.create_task(second.once("other", {}, slow))
    await asyncio.sleep(0.1)
    assert done == [1, 1], "another key waits for nobody"
    go.set()
    assert await both == [{"number": 2}] * 2
    await other
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".key")]
    await first.close()
    await second.close()


@pytest.mark.asyncio
async def test_a_key_is_not_for_another_content_of_the_same_length(tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(b"one")
    async with network(tmp_path, 3) as net, net.storage(state=tmp_path / "state") as storage:
        first = await storage.put(source, "f", idempotency_key="k")
        source.write_bytes(b"one")  # another time, the same content
        assert await storage.put(source, "f", idempotency_key="k") == first
        assert await storage.put(b"one", "f", idempotency_key="k") == first
        source.write_bytes(b"two")
        with pytest.raises(StorageError, match="another put"):
            await storage.put(source, "f", idempotency_key="k")


@pytest.mark.asyncio
async def test_fewer_than_three_copies_are_warned_of_whatever_the_meta_node_says(tmp_path: Path) -> None:
    async with network(tmp_path, 2) as net, net.storage() as storage:

        async def calm(handler: Any, stream: Any, connection: Any) -> None:
            size = asking.PlanHead.FromString(stream.head).size_bytes
            await stream.send(encode(asking.Plan(data_shares=1, total_shares=2, bill_noz=bill_noz(TWO_COPIES, size), warning="")))

        net.changes[asking.OBJECT_PLAN] = calm
        assert "in 2 places only" in (await storage.put(b"x", "f")).warning


@pytest.mark.asyncio
async def test_a_meta_node_that_knows_of_more_nodes_is_told_of(tmp_path: Path) -> None:
    async def plan(stream: Any, _: Any) -> None:
        await stream.send(encode(asking.Plan(data_shares=10, total_shares=30)))

    async def opened(stream: Any, _: Any) -> None:
        stream.end()

    other = Identity(sha256(b"another meta node").digest())
    server = Server(Node(other, CHAIN_ID, {asking.OBJECT_PLAN: plan, asking.SESSION_OPEN: opened}))
    host, port = await server.listen()
    try:
        async with network(tmp_path, 3) as net, net.storage() as storage:
            storage._client._add(MetaAddress(other.address, host, port))
            stored = await storage.put(b"x", "f")
            assert "30 shares" in stored.warning
            assert str(MetaAddress(other.address, host, port)) in stored.warning
            storage._uploads._schemes.clear()
            await server.close()
            assert (await storage.put(b"x", "g")).warning == ""
    finally:
        await server.close()


FULL = sqlite3.OperationalError("database or disk is full")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FULL, r"\(database or disk is full\): if its disk is full, make room there; then run the same command again"),
        (sqlite3.OperationalError("disk I/O error"), r"\(disk I/O error\): if its disk is full, make room there"),
        (None, r"\(file is not a database\): move the file away"),
    ],
    ids=["full", "full beside", "damaged"],
)
async def test_results_that_cannot_be_used_are_told_and_only_to_who_has_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None, says: str
) -> None:
    """SQLite says both of a full disk: of one on which it can make no file beside its own, it is the second."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "results.sqlite").write_bytes(b"no database" * 1_000)

    def full(*_: Any, **__: Any) -> None:
        raise FULL if error is None else error

    async with network(tmp_path, 3) as net:
        if error is not None:
            monkeypatch.setattr(sqlite3, "connect", full)
        async with net.storage(state=state) as storage:
            stored = await storage.put(b"x", "f")
            with pytest.raises(StorageError, match=says):
                await storage.put(b"y", "f", idempotency_key="k")
            assert (await storage.stat("f")).object_id == stored.object_id, "nothing was stored that could not be noted"
        monkeypatch.undo()
    assert not list(state.glob("*.key"))


@pytest.mark.asyncio
async def test_what_is_stored_and_cannot_be_noted_is_told_with_a_warning_and_not_stored_once_more(tmp_path: Path) -> None:
    done = list[int]()

    async def work() -> dict[str, Any]:
        done.append(1)
        await asyncio.sleep(0)
        return {"number": len(done), "long": "x" * 20_000, "warning": "few nodes"}

    results = Results(tmp_path / "r", lambda: 1.0)
    await results.once("first", {}, work)
    rows = results._opened()
    rows.execute("PRAGMA max_page_count = 1")  # the fewest that it has already: as on a full disk
    given = await asyncio.gather(*(results.once("k", {}, work) for _ in range(3)))
    assert [one["number"] for one in given] == [2] * 3
    assert all(one["warning"].startswith("few nodes; it is stored, but that could not be noted in ") for one in given)
    assert "(database or disk is full): make room there" in given[0]["warning"]
    with pytest.raises(StorageError, match="another put"):
        await results.once("k", {"a": 1}, work)
    rows.execute("PRAGMA max_page_count = 1000000")
    assert (await results.once("later", {}, work))["warning"] == "few nodes"
    await results.close()


def test_a_home_with_no_room_for_journals_is_told(tmp_path: Path) -> None:
    (tmp_path / "puts").write_bytes(b"in their place")
    with pytest.raises(StorageError, match="make room there"):
        Journals(tmp_path / "puts", wallet_key(1), CHAIN_ID, lambda: 1.0)


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
    room, inside, most = Room(100), list[int](), list[int]()

    async def hold(size: int) -> None:
        async with room.take(size):
            inside.append(size)
            most.append(sum(min(one, 100) for one in inside))
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


@pytest.mark.asyncio
@pytest.mark.parametrize("is_given", [True, False])
async def test_who_waits_for_room_is_cancelled_also_in_the_moment_of_its_turn(is_given: bool) -> None:
    room, go = Room(10), asyncio.Event()

    async def hold() -> None:
        async with room.take(10):
            await go.wait()

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(hold()) for _ in range(2)]
    await asyncio.sleep(0)
    if is_given:
        go.set()
        await asyncio.sleep(0)  # the first one that waits has room, and does not run yet
    else:
        holder.cancel()
    for one in waiting:
        one.cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in found] == [asyncio.CancelledError] * 2
    await asyncio.gather(holder, return_exceptions=True)
    async with asyncio.timeout(10), room.take(10):
        pass


@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", [0, 1, 100_000, SEGMENT_BYTES - 1, 5 * SEGMENT_BYTES])
async def test_a_put_takes_room_for_what_it_has_in_memory(scheme: Scheme, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[int]()

    def room(size_bytes: int) -> memoryview:
        made.append(size_bytes)
        return memoryview(b"")

    class Ended(Exception):
        """When its memory is there."""

    class Source:
        async def fill(self, into: memoryview) -> None:
            raise Ended

        async def finish(self) -> None:
            raise Ended

    monkeypatch.setattr("sds_node.client.put.room", room)
    with pytest.raises(Ended):
        await put_object(None, None, scheme, b"", size, Source())  # type: ignore[arg-type]
    assert held_bytes(scheme, size, Settings().segments_at_once) == sum(made)


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", [0, 1, 50])
async def test_who_waits_for_places_is_woken_when_they_are_given_up_whatever_is_under_way(turns: int) -> None:
    async def run(numbers: list[int]) -> Sequence[int | Exception]:
        if len(numbers) > 1:
            raise MetaRefused("one of them is wrong")  # each is asked for alone, the first one for ever
        await asyncio.Event().wait()
        return []

    batch: Batch[int, int] = Batch(run, 16)
    waiting = [asyncio.create_task(batch.ask(one)) for one in range(3)]
    await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    await batch.close()
    async with asyncio.timeout(10):
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in found] == [asyncio.CancelledError] * 3


@pytest.mark.asyncio
async def test_who_waits_for_a_commit_is_woken_when_it_is_given_up_whatever_is_under_way() -> None:
    alone = asyncio.Event()

    class Client:
        async def ask(self, *_: Any, body: bytes, **__: Any) -> Any:
            if len(asking.CommitAsk.FromString(body).objects) > 1:
                raise MetaRefused("one of them is wrong")
            alone.set()
            await asyncio.Event().wait()

    committer, lease = Committer(Client()), Lease(None, b"l" * 32, b"", 1, 1, 1)  # type: ignore[arg-type]
    empty = StoredObject(b"i" * 32, object_root([]), 0, TEN_OF_THIRTY, ())
    waiting = [asyncio.create_task(committer.commit(lease, number, empty, file_hash(b""), None)) for number in (1, 2, 3)]
    async with asyncio.timeout(10):
        await alone.wait()
        await committer.close()
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in found] == [asyncio.CancelledError] * 3


@pytest.mark.asyncio
async def test_no_put_begins_under_a_lease_that_is_to_be_ended(tmp_path: Path) -> None:
    ended, is_asked, go = list[bytes](), asyncio.Event(), asyncio.Event()

    class Client:
        def clock(self) -> float:
            return 0.0

        async def ask(self, method: str, head: Any, *_: Any, **__: Any) -> None:
            assert method == asking.LEASE_END
            ended.append(bytes(head.lease_id))
            is_asked.set()
            await go.wait()

    leases = Leases(Client())  # type: ignore[arg-type]
    leases._open = [Lease(None, bytes([number]) * 32, b"", 100, 100, 10_000) for number in (1, 2, 3, 4)]
    leases._open[2].users = 1
    (tmp_path / "a.put").touch()
    leases._open[3].keep(tmp_path / "a.put")
    used = leases._open[2]
    ending = asyncio.create_task(leases._end_idle())
    async with asyncio.timeout(10):
        await is_asked.wait()
        hold = await leases.hold(50)
        assert hold.lease is used, "the second idle one is to be ended when the first one is"
        go.set()
        await ending
        assert ended == [b"\1" * 32, b"\2" * 32]
        leases.give_back(hold)
        await asyncio.gather(leases.close(), leases.close())
    assert ended[2:] == [b"\3" * 32], "each once, and none that a put goes on under"


@pytest.mark.asyncio
async def test_a_lease_is_kept_for_journals_that_are_there_while_it_lives_and_leaves_no_file(tmp_path: Path) -> None:
    ended, now_s = list[int](), 0.0

    class Client:
        def clock(self) -> float:
            return now_s

        async def ask(self, _: str, head: Any, *__: Any, **___: Any) -> None:
            ended.append(head.lease_id[0])

    def in_use() -> set[int]:
        return {bytes.fromhex(one.stem)[0] for one in tmp_path.glob("*.lease")}

    journals = [tmp_path / f"{number}.put" for number in (1, 2, 3, 4)]
    leases = Leases(Client())  # type: ignore[arg-type]
    leases._open = [Lease(None, bytes([number]) * 32, b"", 100, 100, 10_000 if number < 4 else 10) for number in (1, 2, 3, 4)]
    for one, path in zip(leases._open, journals, strict=True):
        path.touch()
        one.keep(path)
    assert in_use() == {1, 2, 3, 4}
    journals[0].unlink()  # another process went on with it
    leases.forget(journals[1])
    await leases._end_idle()
    assert ended == [1, 2]
    now_s = 11.0
    await leases._end_idle()
    assert ended == [1, 2, 4], "its time is over"
    assert in_use() == {3}
    await leases.close()
    assert (ended, in_use()) == ([1, 2, 4], set())


def test_work_in_a_thread_is_waited_for_also_when_its_loop_ends() -> None:
    """What it uses is closed after it."""
    done, go = list[str](), threading.Event()

    def work(is_begun: Callable[[], object]) -> None:
        is_begun()
        assert go.wait(60)
        done.append("work")

    async def waits(is_begun: Callable[[], object]) -> None:
        try:
            await in_thread(work, is_begun)
        finally:
            done.append("waited")

    async def main() -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        task = loop.create_task(waits(lambda: loop.call_soon_threadsafe(begun.set)))
        async with asyncio.timeout(60):
            await begun.wait()
        loop.call_later(0.1, go.set)
        assert not task.done()  # and the end of the loop cancels it

    asyncio.run(main())
    assert done == ["work", "waited"]


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
