"""What a put notes on disk, and what it leaves behind, however it ends: a journal that leads somewhere and its lease, or neither."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import resource
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking, transfers
from sds_node.cli import user_content
from sds_node.client import journal, put
from sds_node.client.errors import SourceChanged, StorageError
from sds_node.client.storage import Storage
from sds_node.wire.errors import Refused
from tests.sds_node.client.network import Network, came, network, noted
from tests.sds_node.client.test_interruptions import MIB, content

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("one_segment_a_question")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of two segments."""
    made = tmp_path / "source"
    made.write_bytes(content(31, 34 * MIB))
    return made


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def left(state: Path) -> list[str]:
    return [one.name for one in (state / "puts").iterdir()]


def held(storage: Storage) -> list[tuple[bool, int]]:
    """Of each open lease, whether it is kept, and its users."""
    return [(bool(one.kept_for), one.users) for one in storage._ways.leases._open]


def stuck_at_the_second_segment(net: Network) -> asyncio.Event:
    """Have no place for a second segment. The event tells that it was asked for."""
    stuck = asyncio.Event()

    async def serve(handler: Any, stream: Any, connection: Any) -> None:
        if net.counts[asking.PLACE_PUT] > 1:
            stuck.set()
            await asyncio.sleep(60)
        await handler(stream, connection)

    net.changes[asking.PLACE_PUT] = serve
    return stuck


async def goes_on(net: Network, source: Path, state: Path) -> None:
    """The same put again sends what is missing alone, under the lease that it had."""
    assert net.counts.get(asking.LEASE_END, 0) == 0
    net.changes.clear()
    net.counts.clear()
    async with net.storage(state=state) as storage:
        stored = await storage.put(source, "big")
        assert (stored.is_resumed, net.counts[asking.PLACE_PUT], net.counts.get(asking.LEASE_TAKE, 0)) == (True, 1, 0)
        await storage.get("big", state / "out")
    assert (state / "out").read_bytes() == source.read_bytes()  # noqa: ASYNC240 - a test's
    assert left(state) == []


async def test_a_segments_root_is_on_the_disk_before_a_byte_of_it_goes_out(
    tmp_path: Path, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a put that goes on after a power failure could seal something else under the same key."""
    synced, sent, send = dict[int, str](), list[str](), put.put_share

    class Os:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fsync(self, fd: int) -> None:
            os.fsync(fd)
            number = os.fstat(fd).st_ino
            synced[number] = next(one.read_text() for one in (state / "puts").iterdir() if one.stat().st_ino == number)

    async def put_share(session: Any, place: Any, share: Any, *rest: Any) -> Any:
        sent.append(share.segment_root.hex())
        assert any(f'"segment":{share.segment},"root":"{share.segment_root.hex()}"' in one for one in synced.values())
        return await send(session, place, share, *rest)

    monkeypatch.setattr(journal, "os", Os())
    monkeypatch.setattr(put, "put_share", put_share)
    async with network(tmp_path, 1, is_live=True) as net, net.storage(state=state) as storage:
        await storage.put(source, "big")
    assert len(set(sent)) == 2


async def test_a_disk_that_is_slow_with_notes_holds_up_nobody_else(
    tmp_path: Path, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, written, append, write_new = asyncio.get_running_loop(), list[str](), journal._append, journal._write_new

    def slow(do: Callable[..., None]) -> Callable[..., None]:
        def done(*given: Any) -> None:
            others_go_on = threading.Event()
            loop.call_soon_threadsafe(others_go_on.set)
            assert others_go_on.wait(20), "everything else stood still"
            do(*given)
            written.append(do.__name__)

        return done

    monkeypatch.setattr(journal, "_append", slow(append))
    monkeypatch.setattr(journal, "_write_new", slow(write_new))
    async with network(tmp_path, 1, is_live=True) as net, net.storage(state=state) as storage:
        await storage.put(source, "big")
    assert sorted(written) == ["_append"] * 4 + ["_write_new"]


async def test_a_disk_that_is_full_is_told_with_what_to_do_and_the_same_put_goes_on(
    tmp_path: Path, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, is_full = journal._append, False

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_soon(file: Any, line: bytes) -> None:
        nonlocal is_full
        if is_full:
            full()
        append(file, line)
        is_full = b'"stored"' in line

    async with network(tmp_path, 1, is_live=True) as net:
        async with net.storage(state=state) as storage:
            with monkeypatch.context() as patch:
                patch.setattr(journal, "_write_new", full)
                with pytest.raises(StorageError, match=r"No space left on device\): make room there and run it again"):
                    await storage.put(source, "big")
                assert (held(storage), left(state)) == ([(False, 0)], [])
            with monkeypatch.context() as patch:
                patch.setattr(journal, "_append", full_soon)
                with pytest.raises(StorageError, match=r"No space left on device\): make room there and run it again"):
                    await storage.put(source, "big")
                assert held(storage) == [(True, 0)]
        await goes_on(net, source, state)


async def test_a_note_that_does_not_fit_leaves_no_part_of_it(tmp_path: Path) -> None:
    path, limits = tmp_path / "file", resource.getrlimit(resource.RLIMIT_FSIZE)
    with path.open("ab", buffering=0) as file:
        journal._append(file, b"one\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                journal._append(file, b"two\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == b"one\n"
        journal._append(file, b"three\n")
    assert path.read_bytes() == b"one\nthree\n"


async def test_a_put_that_begins_anew_keeps_no_lease_for_what_it_gave_up(tmp_path: Path, source: Path, state: Path) -> None:
    async with network(tmp_path, 1, is_live=True) as net:
        handlers, calls = net.nodes[0].server.node.handlers, list[int]()
        real = handlers[transfers.PUT]

        async def serve(stream: Any, connection: Any) -> None:
            calls.append(1)
            if len(calls) == 2:
                await noted(state / "puts")  # of the other segment
                raise Refused(transfers.STORE_FULL, "full for a moment")
            await real(stream, connection)

        handlers[transfers.PUT] = serve
        async with net.storage(state=state) as storage:
            assert not (await storage.put(source, "big")).is_resumed
            assert len(calls) == 4, "begun anew, all of it"
            assert (held(storage), left(state)) == ([(False, 0)], [])
        assert net.counts[asking.LEASE_END] == net.counts[asking.LEASE_TAKE] == 1


async def test_a_put_whose_file_changes_leaves_neither_a_journal_nor_a_lease(tmp_path: Path, state: Path) -> None:
    source = tmp_path / "log"
    source.write_bytes(bytes(70 * MIB))
    told = list[int]()

    def grow(done: int, _: int) -> None:
        told.append(done)
        if done > 65 * MIB:  # of the third segment, which is read when one is confirmed
            with source.open("ab") as file:
                file.write(b"one more line")

    async with network(tmp_path, 1, is_live=True) as net:
        async with net.storage(state=state) as storage:
            with pytest.raises(SourceChanged):
                await storage.put(source, "log", progress=grow)
            assert told[-1] < 70 * MIB
            assert (held(storage), left(state)) == ([(False, 0)], [])
        assert net.counts[asking.LEASE_END] == net.counts[asking.LEASE_TAKE] == 1


async def test_a_put_with_nothing_stored_leaves_no_journal_when_it_is_interrupted(tmp_path: Path, source: Path, state: Path) -> None:
    async with network(tmp_path, 1, is_live=True) as net:
        asked = asyncio.Event()

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            asked.set()
            await asyncio.sleep(60)

        net.changes[asking.PLACE_PUT] = serve
        async with net.storage(state=state) as storage:
            task = asyncio.create_task(storage.put(source, "big"))
            await came(asked, task)
            assert [name for name in left(state) if name.endswith(".put")]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (held(storage), left(state)) == ([(False, 0)], [])
        assert net.counts[asking.LEASE_END] == 1


async def test_a_client_that_closes_stops_its_puts_and_leaves_their_leases(tmp_path: Path, source: Path, state: Path) -> None:
    async with network(tmp_path, 1, is_live=True) as net:
        stuck = stuck_at_the_second_segment(net)
        async with net.storage(state=state) as storage:
            task = asyncio.create_task(storage.put(source, "big"))
            await came(stuck, task)
            await noted(state / "puts", task)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        await goes_on(net, source, state)


async def test_an_interrupted_put_of_a_folder_is_over_when_its_command_is(
    tmp_path: Path, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that run are stopped and waited for, while more wait for their turn."""
    monkeypatch.setattr(user_content, "AT_ONCE", 1)
    async with network(tmp_path, 1, is_live=True) as net, net.storage(state=state) as storage:
        stuck, over = stuck_at_the_second_segment(net), list[str]()

        async def do(name: str) -> dict[str, Any]:
            try:
                return (await storage.put(source, name)).as_json()
            finally:
                await asyncio.sleep(0.1)
                over.append(name)

        async def files() -> AsyncIterator[tuple[str, Callable[[], Awaitable[dict[str, Any]]]]]:
            for name in ("big", "other"):
                yield name, functools.partial(do, name)

        command = asyncio.create_task(user_content._each(files(), "x", is_shown=False))
        await came(stuck, command)
        await noted(state / "puts", command)
        command.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(command, 10)
        assert over == ["big"]
        assert held(storage) == [(True, 0)]


class Killed(Exception):
    """Between the commit and the end of the journal."""


@pytest.mark.parametrize("meanwhile", ["nothing", "another file", "removed"])
async def test_a_put_that_was_killed_when_it_was_done_is_done_unless_its_path_has_another_file(
    tmp_path: Path, source: Path, state: Path, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop(_: journal.Journal) -> None:
        raise Killed

    async with network(tmp_path, 1, is_live=True) as net:
        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "drop", drop)
            async with net.storage(state=state) as storage:
                with pytest.raises(Killed):
                    await storage.put(source, "name")
        async with net.storage(state=state) as storage:
            first = await storage.stat("name")
            if meanwhile == "another file":
                await storage.put(b"newer content", "name")
            elif meanwhile == "removed":
                await storage.remove("name")
            stored = await storage.put(source, "name")
            assert stored.is_resumed == (meanwhile == "nothing")
            assert (stored.object_id == first.object_id) == (meanwhile == "nothing")
            assert (await storage.stat("name")).object_id == stored.object_id
            assert len([one async for one in storage.trash()]) == {"nothing": 0, "another file": 2, "removed": 1}[meanwhile]
            assert left(state) == []


async def test_a_put_that_goes_on_does_not_end_a_lease_that_others_use(tmp_path: Path, source: Path, state: Path) -> None:
    async with network(tmp_path, 1, is_live=True) as net:
        stuck = stuck_at_the_second_segment(net)
        async with net.storage(state=state) as storage:
            task = asyncio.create_task(storage.put(source, "big"))
            await came(stuck, task)
            await noted(state / "puts", task)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert held(storage) == [(True, 0)]
            net.changes.clear()
            assert (await storage.put(source, "big")).is_resumed
            assert held(storage) == [(False, 0)], "the same client goes on, and its lease is there for its other puts"
            assert net.counts.get(asking.LEASE_END, 0) == 0
            await storage.put(b"x", "small")
            assert net.counts[asking.LEASE_TAKE] == 1
        assert net.counts[asking.LEASE_END] == 1
