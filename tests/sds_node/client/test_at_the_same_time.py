"""Calls that meet: two gets to one target, two puts of one file, a slow node among quick ones, a put that was stopped within a segment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking, transfers
from sds_node.client import locks
from sds_node.client.errors import StorageError
from sds_node.client.journal import OLD_S, Journals
from sds_node.client.leases import Lease, in_use_path
from sds_node.client.meta import parse_endpoint
from sds_node.client.placing import Settings
from sds_node.client.sources import FileSource
from tests.sds_node.client.network import CHAIN_ID, Network, came, network, noted
from tests.sds_node.client.test_interruptions import MIB, content
from tests.sds_node.rules.support import wallet_key


@pytest.mark.parametrize(
    "text",
    [
        "a" * 64 + ".org:1",
        "a..org:1",
        ".org:1",
        "org.:1",
        ":1",
        "x:0",
        "x:65536",
        "x",
        "[::1:1",
        "[nonsense]:1",
        "[1.2.3.4]:1",
        "ä.org:1",
        "a b:1",
        "x:١",
    ],
)
def test_an_endpoint_that_no_resolver_takes_is_refused_before_it_is_called(text: str) -> None:
    with pytest.raises(ValueError, match="<host>:<port>"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[::1]:5", ("::1", 5)),
        ("a" * 63 + ".org:80", ("a" * 63 + ".org", 80)),
        ("my_node:1", ("my_node", 1)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ],
)
def test_an_endpoint_is_taken_apart(text: str, found: tuple[str, int]) -> None:
    assert parse_endpoint(text) == found


def test_a_file_is_held_by_one_at_a_time_and_never_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "part"
    first = locks.opened(path)
    assert first is not None
    first.write(b"content")
    assert locks.opened(path) is None
    os.replace(path, tmp_path / "done")
    second = locks.opened(path)
    assert second is not None, "another file of that name is another one"
    second.close()
    first.close()
    assert (path.read_bytes(), (tmp_path / "done").read_bytes()) == (b"", b"content")


@pytest.mark.asyncio
@pytest.mark.parametrize("is_public", [False, True])
async def test_two_gets_to_one_target_leave_a_whole_file(tmp_path: Path, is_public: bool) -> None:
    data = content(21, 3 * MIB)
    async with network(tmp_path, 3) as net, net.storage() as one, net.storage() as other:
        await one.put(data, "f", public=is_public)
        target = tmp_path / "out"
        results = await asyncio.gather(one.get("f", target), other.get("f", target), return_exceptions=True)
        failed = [found for found in results if isinstance(found, BaseException)]
        assert len(failed) == 1
        assert "is being fetched already" in str(failed[0])
        assert isinstance(failed[0], StorageError)
        assert target.read_bytes() == data
        await other.get("f", target)
        assert target.read_bytes() == data
        assert [found for found in os.listdir(tmp_path) if ".part" in found or ".note" in found] == []


@pytest.mark.asyncio
@pytest.mark.usefixtures("one_segment_a_question")
async def test_a_second_put_of_a_file_does_not_take_the_first_ones_lease(tmp_path: Path) -> None:
    source, state = tmp_path / "source", tmp_path / "state"
    source.write_bytes(content(22, 34 * MIB))
    async with network(tmp_path, 1, is_live=True) as net, net.storage(state=state) as one:
        stuck, go = asyncio.Event(), asyncio.Event()

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            if net.counts[asking.PLACE_PUT] == 2:
                stuck.set()
                await go.wait()
            await handler(stream, connection)

        net.changes[asking.PLACE_PUT] = serve
        first = asyncio.create_task(one.put(source, "big"))
        await came(stuck, first)
        await noted(state / "puts", first)
        async with net.storage(state=state) as other:
            second = await other.put(source, "big")
        assert not second.is_resumed
        assert net.counts[asking.LEASE_TAKE] == 2
        go.set()
        stored = await first
        assert net.counts[asking.LEASE_TAKE] == 2, "the first one's lease lived on"
        assert stored.object_id != second.object_id
        assert list((state / "puts").iterdir()) == []
        assert b"".join([bytes(piece) async for piece in one.read("big")]) == source.read_bytes()


def test_what_crashes_left_of_journals_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    source, state = tmp_path / "source", tmp_path / "puts"
    source.write_bytes(b"x")
    journals = Journals(state, wallet_key(1), CHAIN_ID, time.time)
    for name in ("a.put", "a.12345678.new", "b.lock", "c.lease"):
        (state / name).write_bytes(b"old")
        os.utime(state / name, (1, 1))
    with journals.held(FileSource(source), "f", False) as is_held:
        assert is_held
        [lock] = set(state.glob("*.lock")) - {state / "b.lock"}
        used = Lease(None, b"l" * 32, b"", 1, 1, 1)
        used.keep(state / "d.put")
        for one in (lock, in_use_path(state, b"l" * 32)):
            os.utime(one, (time.time() - OLD_S - 1,) * 2)
        again = Journals(state, wallet_key(1), CHAIN_ID, time.time)
        assert set(state.iterdir()) == {lock, in_use_path(state, b"l" * 32)}
        used.unlock()
        assert list(state.iterdir()) == [lock]
        with again.held(FileSource(source), "f", False) as is_held:
            assert not is_held
    with again.held(FileSource(source), "f", False) as is_held:
        assert is_held


def hang(net: Network, number: int, go: asyncio.Event) -> asyncio.Event:
    """Have one node take no share before ``go``. The event tells that it was asked to."""
    handlers, asked = net.nodes[number].server.node.handlers, asyncio.Event()
    real = handlers[transfers.PUT]

    async def serve(stream: Any, connection: Any) -> None:
        asked.set()
        await go.wait()
        await real(stream, connection)

    handlers[transfers.PUT] = serve
    return asked


@pytest.mark.asyncio
async def test_a_slow_node_does_not_hold_up_a_put_where_another_is_there(tmp_path: Path) -> None:
    go = asyncio.Event()
    settings = Settings(stall_s=600, straggler_s=1.0, hedge_s=0.2)
    async with network(tmp_path, 4) as net, net.storage(settings=settings) as storage:
        asked = hang(net, 0, go)
        try:
            async with asyncio.timeout(60):
                for number in range(30):
                    await storage.put(content(number, 1_000), f"f{number}")
                    if asked.is_set():
                        break
            assert asked.is_set()
            assert net.counts[asking.PLACE_ANOTHER] == 1
            assert b"".join([bytes(piece) async for piece in storage.read(f"f{number}")]) == content(number, 1_000)
        finally:
            go.set()


@pytest.mark.asyncio
async def test_a_slow_node_is_waited_for_where_there_is_no_other(tmp_path: Path) -> None:
    go = asyncio.Event()
    settings = Settings(stall_s=600, straggler_s=1.0, hedge_s=0.1)
    async with network(tmp_path, 3) as net, net.storage(settings=settings) as storage:
        asked = hang(net, 1, go)
        put = asyncio.create_task(storage.put(b"x" * 1_000, "f"))
        await came(asked, put)
        async with asyncio.timeout(60):
            while not net.counts.get(asking.PLACE_ANOTHER):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert not put.done()
        go.set()
        await put


@pytest.mark.asyncio
async def test_a_put_that_was_stopped_within_a_segment_goes_on_where_no_node_is_spare(tmp_path: Path) -> None:
    source, state = tmp_path / "source", tmp_path / "state"
    source.write_bytes(content(23, 34 * MIB))
    async with network(tmp_path, 3, is_live=True) as net:
        go, done = asyncio.Event(), list[int]()
        for number in (0, 1):
            handlers = net.nodes[number].server.node.handlers

            async def serve(stream: Any, connection: Any, real: Any = handlers[transfers.PUT], number: int = number) -> None:
                await real(stream, connection)
                done.append(number)

            handlers[transfers.PUT] = serve
        # The third node takes the first segment, and hangs at the second: a part of a put has to be noted.
        handlers = net.nodes[2].server.node.handlers
        real, calls = handlers[transfers.PUT], list[int]()

        async def third(stream: Any, connection: Any) -> None:
            calls.append(1)
            if len(calls) == 2:
                await go.wait()
            await real(stream, connection)

        handlers[transfers.PUT] = third
        async with net.storage(state=state) as storage:
            put = asyncio.create_task(storage.put(source, "big"))
            async with asyncio.timeout(100):
                while not (len(calls) == 2 and len(done) == 4 and any(b'"stored"' in path.read_bytes() for path in (state / "puts").glob("*.put"))):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            put.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await put
        handlers[transfers.PUT] = real
        net.counts.clear()
        async with net.storage(state=state) as storage:
            stored = await storage.put(source, "big")
            assert stored.is_resumed
            assert net.counts.get(asking.LEASE_TAKE, 0) == 0
            assert b"".join([bytes(piece) async for piece in storage.read("big")]) == source.read_bytes()


@pytest.mark.asyncio
async def test_a_put_that_was_stopped_within_shares_sends_these_again_where_no_node_is_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_SEGMENTS_ASKED", 1)
    source, state = tmp_path / "source", tmp_path / "state"
    source.write_bytes(content(24, 36 * MIB))
    async with network(tmp_path, 3, is_live=True) as net:
        go, halves = asyncio.Event(), [asyncio.Event() for _ in net.nodes]
        reals = [one.server.node.handlers[transfers.PUT] for one in net.nodes]
        for number, one in enumerate(net.nodes):
            calls = list[int]()

            async def serve(stream: Any, connection: Any, number: int = number, calls: list[int] = calls) -> None:
                calls.append(1)
                if len(calls) == 2:
                    receive, got = stream.receive, 0

                    async def half(most_bytes: int = MIB) -> Any:
                        nonlocal got
                        if got >= 2 * MIB:
                            halves[number].set()
                            await go.wait()
                        chunk = await receive(most_bytes)
                        got += len(chunk)
                        return chunk

                    stream.receive = half
                await reals[number](stream, connection)

            one.server.node.handlers[transfers.PUT] = serve
        async with net.storage(state=state) as storage:
            put = asyncio.create_task(storage.put(source, "big"))
            async with asyncio.timeout(100):
                for half in halves:
                    await half.wait()
                while not any(b'"stored"' in path.read_bytes() for path in (state / "puts").glob("*.put")):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            put.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await put
        for one, real in zip(net.nodes, reals, strict=True):
            one.server.node.handlers[transfers.PUT] = real
        net.counts.clear()
        async with net.storage(state=state) as storage, asyncio.timeout(100):
            stored = await storage.put(source, "big")
            assert stored.is_resumed
            assert net.counts.get(asking.LEASE_TAKE, 0) == 0
            assert net.counts.get(asking.PLACE_ANOTHER, 0) == 0
            assert net.failures == []
            assert b"".join([bytes(piece) async for piece in storage.read("big")]) == source.read_bytes()
