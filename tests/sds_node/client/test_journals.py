"""What a put notes on disk, and what it leaves behind, however it ends: a journal that leads somewhere and its lease, or neither."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import resource
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking, transfers
from sds_node.cli import user_content
from sds_node.client import journal, put, upload
from sds_node.client.errors import AlreadyThere, MetaRefused, NotEnoughOzone, NotFound, SourceChanged, StorageError, TooFewNodes
from sds_node.client.leases import LEAST_LIFE_S, LONGEST_S
from sds_node.client.meta import MetaClient
from sds_node.client.placing import NotStored
from sds_node.client.storage import Storage
from sds_node.wire.errors import InternalFailure, Refused
from tests.sds_node.client.network import META_ADDRESS, Network, came, network, noted, stuck_after
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


def refused_after_the_first_segment(net: Network, state: Path, times: int) -> list[int]:
    """Have the node refuse so many shares once a segment is noted. What it was asked to take is listed."""
    handlers, calls = net.nodes[0].server.node.handlers, list[int]()
    real = handlers[transfers.PUT]

    async def serve(stream: Any, connection: Any) -> None:
        calls.append(1)
        if 2 <= len(calls) < 2 + times:
            await noted(state / "puts")  # of the other segment
            raise Refused(transfers.STORE_FULL, "full for a moment")
        await real(stream, connection)

    handlers[transfers.PUT] = serve
    return calls


async def test_a_put_whose_segment_is_not_stored_at_once_goes_on_with_the_others(tmp_path: Path, source: Path, state: Path) -> None:
    """What is stored of it was paid for."""
    async with network(tmp_path, 1, is_live=True) as net:
        calls = refused_after_the_first_segment(net, state, 1)
        async with net.storage(state=state) as storage:
            assert (await storage.put(source, "big")).is_resumed
            assert (len(calls), net.counts[asking.LEASE_TAKE]) == (3, 1), "one segment was sent again, under the same lease"
            assert (held(storage), left(state)) == ([(False, 0)], [])
        assert net.counts[asking.LEASE_END] == 1


async def test_a_put_whose_segment_is_not_stored_ends_and_goes_on_when_it_is_run_again(tmp_path: Path, source: Path, state: Path) -> None:
    async with network(tmp_path, 1, is_live=True) as net:
        calls = refused_after_the_first_segment(net, state, upload.ATTEMPTS)
        async with net.storage(state=state) as storage:
            with pytest.raises(NotStored, match="full for a moment"):
                await storage.put(source, "big")
            assert (len(calls), net.counts[asking.LEASE_TAKE]) == (1 + upload.ATTEMPTS, 1)
            assert held(storage) == [(True, 0)]
        await goes_on(net, source, state)


@pytest.mark.parametrize(
    ("code", "final"),
    [
        (asking.ACK_REFUSED, MetaRefused),
        (asking.LEDGER_CODES + 36, MetaRefused),
        (asking.LEDGER_CODES + 31, NotEnoughOzone),
        (asking.LEDGER_CODES + 37, AlreadyThere),
        (asking.NOT_EQUAL, None),
        (None, None),
    ],
)
async def test_only_a_refusal_of_what_is_stored_takes_its_journal(
    tmp_path: Path, source: Path, state: Path, code: int | None, final: type[StorageError] | None
) -> None:
    async with network(tmp_path, 1, is_live=True) as net:

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            if net.counts[asking.OBJECT_COMMIT] > 1:
                await handler(stream, connection)
                return
            await stream.receive_all(8 * MIB)
            raise Refused(code, "no") if code is not None else InternalFailure("a defect of the meta node")

        net.changes[asking.OBJECT_COMMIT] = serve
        async with net.storage(state=state) as storage:
            if final is not None:
                with pytest.raises(final):
                    await storage.put(source, "big")
                assert (held(storage), left(state)) == ([(False, 0)], [])
            else:
                assert (await storage.put(source, "big")).is_resumed
                assert (net.counts[asking.PLACE_PUT], net.counts[asking.LEASE_TAKE]) == (2, 1)


async def ends_soon(net: Network, state: Path) -> None:
    """Have the lease of what is stored live for a minute less than a put begins with."""
    await noted(state / "puts")
    net.clock.now_s += LONGEST_S - LEAST_LIFE_S + 60


async def test_a_put_goes_on_at_once_also_in_the_last_minutes_of_its_lease(tmp_path: Path, source: Path, state: Path) -> None:
    async with network(tmp_path, 1) as net:
        handlers, calls = net.nodes[0].server.node.handlers, list[int]()
        real = handlers[transfers.PUT]

        async def serve(stream: Any, connection: Any) -> None:
            calls.append(1)
            if len(calls) == 2:
                await ends_soon(net, state)
                raise Refused(transfers.STORE_FULL, "full for a moment")
            await real(stream, connection)

        handlers[transfers.PUT] = serve
        async with net.storage(state=state) as storage:
            assert (await storage.put(source, "big")).is_resumed
            assert (len(calls), net.counts[asking.LEASE_TAKE], left(state)) == (3, 1, [])
        assert net.counts[asking.LEASE_END] == 1


async def test_nobody_is_told_to_run_again_what_would_begin_anew_then(tmp_path: Path, source: Path, state: Path) -> None:
    async with network(tmp_path, 1) as net:
        away = list[int]()

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            if net.counts[asking.PLACE_PUT] > 1 and len(away) < 3:
                if not away:
                    await ends_soon(net, state)
                away.append(1)
                raise Refused(asking.NOT_READY, "it starts")
            await handler(stream, connection)

        net.changes[asking.PLACE_PUT] = serve
        async with net.storage(state=state) as storage:
            assert not (await storage.put(source, "big")).is_resumed
            assert (len(away), net.counts[asking.LEASE_TAKE], left(state)) == (3, 2, [])
        assert net.counts[asking.LEASE_END] == 2


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_put_begins_anew_where_the_network_is_too_small_for_its_scheme_by_now(
    tmp_path: Path, source: Path, state: Path, is_stopped: bool
) -> None:
    async with network(tmp_path, 3, is_live=True) as net:

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            if net.counts[asking.PLACE_PUT] == 2:
                await noted(state / "puts")  # of the other segment
                net.registry.away.add(3)
            await handler(stream, connection)

        if is_stopped:
            stuck = stuck_after(net)
            async with net.storage(state=state) as storage:
                task = asyncio.create_task(storage.put(source, "big"))
                await came(stuck, task)
                await noted(state / "puts", task)
            await asyncio.gather(task, return_exceptions=True)
            net.registry.away.add(3)
            net.changes.clear()
        else:
            net.changes[asking.PLACE_PUT] = serve
        async with net.storage(state=state) as storage:
            stored = await storage.put(source, "big")
            assert not stored.is_resumed
            assert "kept in 2 places only" in stored.warning
            assert [kept for kept, _ in held(storage)] == [False]
            assert left(state) == []
        assert net.counts[asking.LEASE_END] == net.counts[asking.LEASE_TAKE]


async def test_a_put_goes_on_when_the_nodes_that_its_scheme_needs_are_there_again(tmp_path: Path, source: Path, state: Path) -> None:
    """What is stored was paid for; and begun anew it would need as many."""
    async with network(tmp_path, 1, is_live=True) as net:

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            if net.counts[asking.PLACE_PUT] > 1:
                await noted(state / "puts")  # of the other segment
                raise Refused(asking.TOO_FEW_NODES, "all others are full")
            await handler(stream, connection)

        net.changes[asking.PLACE_PUT] = serve
        async with net.storage(state=state) as storage:
            with pytest.raises(TooFewNodes, match="all others are full"):
                await storage.put(source, "big")
            assert held(storage) == [(True, 0)]
        await goes_on(net, source, state)


async def test_a_put_whose_lease_is_lost_when_it_goes_on_begins_anew_under_another(tmp_path: Path, source: Path, state: Path) -> None:
    async with network(tmp_path, 1, is_live=True) as net:
        refused_after_the_first_segment(net, state, 1)
        asked = list[bytes]()

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            asked.append(bytes(asking.PlacePutHead.FromString(stream.head).lease_id))
            if len(asked) > 2 and asked[-1] == asked[0]:
                raise Refused(asking.LEASE_LOST, "it is over")
            await handler(stream, connection)

        net.changes[asking.PLACE_PUT] = serve
        async with net.storage(state=state) as storage:
            assert not (await storage.put(source, "big")).is_resumed
            assert (asked[2], len({*asked}), left(state)) == (asked[0], 2, [])


async def test_a_put_that_begins_anew_keeps_no_lease_for_what_it_gave_up(tmp_path: Path, source: Path, state: Path) -> None:
    async with network(tmp_path, 1, is_live=True) as net:

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            if net.counts[asking.PLACE_PUT] == 2:
                await noted(state / "puts")  # of the other segment
                raise Refused(asking.BAD_ASK, "it is stored in another way now")
            await handler(stream, connection)

        net.changes[asking.PLACE_PUT] = serve
        async with net.storage(state=state) as storage:
            assert not (await storage.put(source, "big")).is_resumed
            assert net.counts[asking.PLACE_PUT] == 4, "begun anew, all of it"
            assert (held(storage), left(state)) == ([(False, 0)], [])
        assert net.counts[asking.LEASE_END] == net.counts[asking.LEASE_TAKE] == 1


async def test_puts_that_go_on_under_one_lease_end_it_with_the_last(tmp_path: Path, source: Path, state: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(content(32, 34 * MIB))
    async with network(tmp_path, 1, is_live=True) as net:
        asked, stuck, go = list[int](), asyncio.Event(), asyncio.Event()

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            counter = asking.PlacePutHead.FromString(stream.head).segments[0].counter
            if counter in asked:
                if len({*asked}) == 2:
                    stuck.set()
                await asyncio.sleep(60)
            asked.append(counter)
            await handler(stream, connection)

        async def one_by_one(handler: Any, stream: Any, connection: Any) -> None:
            if asking.PlacePutHead.FromString(stream.head).segments[0].counter == asked[1]:
                await go.wait()
            await handler(stream, connection)

        net.changes[asking.PLACE_PUT] = serve
        async with net.storage(state=state) as storage:
            tasks = [asyncio.create_task(storage.put(file, file.name)) for file in (source, other)]
            await came(stuck, *tasks)
            async with asyncio.timeout(60):
                while sum(b'"stored"' in path.read_bytes() for path in (state / "puts").glob("*.put")) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (net.counts[asking.LEASE_TAKE], net.counts.get(asking.LEASE_END, 0)) == (1, 0)
        net.counts.clear()
        net.changes[asking.PLACE_PUT] = one_by_one
        async with net.storage(state=state) as storage, asyncio.timeout(60):
            tasks = [asyncio.create_task(storage.put(file, file.name)) for file in (source, other)]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert [one.result().is_resumed for one in done] == [True]
            assert net.counts.get(asking.LEASE_END, 0) == 0, "the other one goes on under it"
            go.set()
            assert [one.is_resumed for one in await asyncio.gather(*tasks)] == [True, True]
            assert (net.counts.get(asking.LEASE_TAKE, 0), net.counts[asking.LEASE_END]) == (0, 1)


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
        stuck = stuck_after(net)
        async with net.storage(state=state) as storage:
            task = asyncio.create_task(storage.put(source, "big"))
            await came(stuck, task)
            await noted(state / "puts", task)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        await goes_on(net, source, state)


async def test_a_client_that_closes_begins_no_put_any_more(tmp_path: Path) -> None:
    """Also none that waited for another one with its key."""
    async with network(tmp_path, 1, is_live=True) as net:
        stuck = asyncio.Event()

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            if net.counts[asking.PLACE_PUT] == 1:
                stuck.set()
                await asyncio.sleep(60)
            await handler(stream, connection)

        net.changes[asking.PLACE_PUT] = serve
        async with net.storage() as storage:
            tasks = [asyncio.create_task(storage.put(b"x", "f", idempotency_key="key")) for _ in range(2)]
            await came(stuck, *tasks)
        stopped, waited = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        assert isinstance(stopped, asyncio.CancelledError)
        assert isinstance(waited, StorageError)
        assert str(waited) == "this client is closed: open another one"
        assert net.counts[asking.LEASE_TAKE] == net.counts[asking.LEASE_END] == 1
        for key in (None, "key"):
            with pytest.raises(StorageError, match="this client is closed"):
                await storage.put(b"x", "f", idempotency_key=key)


async def test_an_interrupted_put_of_a_folder_is_over_when_its_command_is(
    tmp_path: Path, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that run are stopped and waited for, while more wait for their turn."""
    monkeypatch.setattr(user_content, "AT_ONCE", 1)
    async with network(tmp_path, 1, is_live=True) as net, net.storage(state=state) as storage:
        stuck, over = stuck_after(net), list[str]()

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


async def test_a_file_of_a_folder_that_fails_unexpectedly_is_told_and_the_others_go_on() -> None:
    async def do(name: str) -> dict[str, Any]:
        if name == "bad":
            raise OSError(errno.EIO, "Input/output error")
        return {"size_bytes": 1}

    async def files() -> AsyncIterator[tuple[str, Callable[[], Awaitable[dict[str, Any]]]]]:
        for name in ("bad", "good"):
            yield name, functools.partial(do, name)

    many = await user_content._each(files(), "x", is_shown=False)
    assert (many.files, many.failed) == (1, [{"name": "bad", "error": "OSError(5, 'Input/output error')"}])


class Held:
    """Has a thread that calls it wait until it may go on."""

    def __init__(self, do: Callable[..., Any]) -> None:
        self._do, self._loop, self.may_go_on = do, asyncio.get_running_loop(), threading.Event()
        self.is_called = asyncio.Event()

    def __call__(self, *given: Any) -> Any:
        self._loop.call_soon_threadsafe(self.is_called.set)
        assert self.may_go_on.wait(60)
        return self._do(*given)


async def test_the_end_of_a_journal_waits_for_its_notes_and_holds_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, append = tmp_path / "a.put", Held(journal._append)
    path.write_bytes(b"{}\n")
    made = journal.Journal(path, *[None] * 2, b"", 1, b"", None, 1)  # type: ignore[arg-type]
    monkeypatch.setattr(journal, "_append", append)
    note = asyncio.create_task(asyncio.to_thread(made._note, {"segment": 0, "stored": ""}))
    await came(append.is_called, note)
    end = asyncio.create_task(made.drop())
    late = asyncio.create_task(asyncio.to_thread(made._note, {"segment": 1, "stored": ""}))
    for _ in range(3):
        await asyncio.sleep(0)
    end.cancel()  # who is stopped waits, too
    for _ in range(3):
        await asyncio.sleep(0)
    assert not end.done()
    append.may_go_on.set()
    await asyncio.wait_for(note, 60)
    await asyncio.wait({end, late}, timeout=60)
    assert end.cancelled()
    assert (made.may_go_on, path.exists()) == (False, False)
    with contextlib.suppress(StorageError):  # the put was stopped before
        await late


async def test_a_confirmed_segment_is_noted_also_when_its_put_is_stopped_before_there_is_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paid."""
    path, loop, go = tmp_path / "a.put", asyncio.get_running_loop(), threading.Event()
    path.write_bytes(b"{}\n")
    made = journal.Journal(path, *[None] * 2, b"", 1, b"", None, 1)  # type: ignore[arg-type]
    monkeypatch.setattr(journal, "kept", lambda _: b"acknowledgements")
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, go.wait, 60)
    note = asyncio.create_task(made.stored(0, None))  # type: ignore[arg-type]
    for _ in range(3):
        await asyncio.sleep(0)
    note.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    go.set()
    await asyncio.wait({note, busy}, timeout=60)
    assert note.cancelled()
    await made.close()
    assert made.may_go_on
    assert b'"stored"' in path.read_bytes()


@pytest.mark.parametrize("name", ["_write_new", "_read"])
async def test_a_put_that_is_stopped_while_a_thread_has_its_journal_leaves_none(
    tmp_path: Path, source: Path, state: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever puts the same file next may have it to himself."""
    async with network(tmp_path, 1, is_live=True) as net:
        if name == "_read":
            async with net.storage(state=state) as storage:
                stuck = stuck_after(net)
                task = asyncio.create_task(storage.put(source, "big"))
                await came(stuck, task)
                await noted(state / "puts", task)
        where = journal if name == "_write_new" else journal.Journals
        slow = Held(getattr(where, name))
        async with net.storage(state=state) as storage:
            with monkeypatch.context() as patch:
                patch.setattr(where, name, slow if name == "_write_new" else lambda *given: slow(*given))
                task = asyncio.create_task(storage.put(source, "big"))
                await came(slow.is_called, task)
                task.cancel()
                for _ in range(3):
                    await asyncio.sleep(0)
                assert [one for one in left(state) if one.endswith(".lock")], "nobody else has it yet"
                slow.may_go_on.set()
                await asyncio.wait({task}, timeout=60)
            assert task.cancelled()
            assert [Path(one).suffix for one in left(state)] == ([] if name == "_write_new" else [".put"])
        if name == "_read":
            await goes_on(net, source, state)


@pytest.mark.parametrize("name", ["_close", "_let_go"])
async def test_a_put_that_goes_on_and_is_stopped_when_it_is_done_ends_its_lease(
    tmp_path: Path, source: Path, state: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody comes back to it: its journal is gone."""
    async with network(tmp_path, 1, is_live=True) as net:
        stuck = stuck_after(net)
        async with net.storage(state=state) as storage:
            task = asyncio.create_task(storage.put(source, "big"))
            await came(stuck, task)
            await noted(state / "puts", task)
        await asyncio.gather(task, return_exceptions=True)
        net.changes.clear()
        where = journal.Journal if name == "_close" else journal.Journals
        slow = Held(real := getattr(where, name))
        async with net.storage(state=state) as storage:
            with monkeypatch.context() as patch:
                # A journal that is dropped is closed then, and once more at the end.
                patch.setattr(where, name, lambda *given: (real if given[-1] is True else slow)(*given))
                task = asyncio.create_task(storage.put(source, "big"))
                await came(slow.is_called, task)
                task.cancel()
                for _ in range(3):
                    await asyncio.sleep(0)
                slow.may_go_on.set()
                await asyncio.wait({task}, timeout=60)
            assert task.cancelled()
            assert (left(state), net.counts[asking.LEASE_TAKE], net.counts.get(asking.LEASE_END)) == ([], 1, 1)


class Killed(Exception):
    """Between the commit and the end of the journal."""


async def killed_when_done(net: Network, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put whose process ends when it is committed, and its journal is still there."""

    async def drop(_: journal.Journal) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "drop", drop)
        async with net.storage(state=state) as storage:
            with pytest.raises(Killed):
                await storage.put(source, "name")


@pytest.mark.parametrize("meanwhile", ["nothing", "another file", "removed"])
async def test_a_put_that_was_killed_when_it_was_done_is_done_unless_its_path_has_another_file(
    tmp_path: Path, source: Path, state: Path, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network(tmp_path, 1, is_live=True) as net:
        await killed_when_done(net, source, state, monkeypatch)
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
        stuck = stuck_after(net)
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


async def test_a_put_that_goes_on_in_another_process_does_not_end_a_lease_that_puts_without_a_journal_use(
    tmp_path: Path, source: Path, state: Path
) -> None:
    go, data = asyncio.Event(), content(33, 70 * MIB)

    async def stream() -> AsyncIterator[bytes]:
        yield data[: 40 * MIB]
        await go.wait()
        yield data[40 * MIB :]

    async with network(tmp_path, 1, is_live=True) as net:
        async with net.storage(state=state) as first:
            streaming = asyncio.create_task(first.put(stream(), "stream", size_bytes=len(data)))
            async with asyncio.timeout(60):
                while not net.counts.get(asking.PLACE_PUT):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            stuck = stuck_after(net, 2)
            task = asyncio.create_task(first.put(source, "big"))
            await came(stuck, task, streaming)
            await noted(state / "puts", task)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            net.changes.clear()
            async with net.storage(state=state) as other:
                assert (await other.put(source, "big")).is_resumed
            assert (net.counts[asking.LEASE_TAKE], net.counts.get(asking.LEASE_END, 0)) == (1, 0)
            go.set()
            await asyncio.wait_for(streaming, 60)
        assert net.counts[asking.LEASE_END] == 1, "no journal leads to it when the one who took it is done"
        assert left(state) == []


async def test_a_put_that_has_no_attempt_left_when_its_path_is_gone_is_told_what_to_do(
    tmp_path: Path, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network(tmp_path, 1, is_live=True) as net:
        await killed_when_done(net, source, state, monkeypatch)
        async with net.storage(state=state) as storage:
            await storage.remove("name")
            with monkeypatch.context() as patch:
                patch.setattr(upload, "ATTEMPTS", 1)
                with pytest.raises(StorageError, match="meanwhile it was removed, or another file took its place: run it again"):
                    await storage.put(source, "name")
            assert not (await storage.put(source, "name")).is_resumed


async def test_whether_a_path_has_its_file_is_asked_of_the_meta_node_that_committed_it(
    tmp_path: Path, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = MetaClient.ask

    async def lags(self: MetaClient, method: str, *given: Any, meta: bytes | None = None, **more: Any) -> Any:
        if method == asking.FILE_FIND and meta != META_ADDRESS:
            raise NotFound("another meta node does not know of it yet")
        return await ask(self, method, *given, meta=meta, **more)

    async with network(tmp_path, 1, is_live=True) as net:
        await killed_when_done(net, source, state, monkeypatch)
        async with net.storage(state=state) as storage:
            monkeypatch.setattr(MetaClient, "ask", lags)
            assert (await storage.put(source, "name")).is_resumed
        assert net.counts[asking.LEASE_TAKE] == 1
