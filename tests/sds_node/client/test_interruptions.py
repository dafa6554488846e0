"""What goes wrong on the way: nodes die, meta nodes start anew, commands are interrupted, leases end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import random
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking, transfers
from sds_node.client import download
from sds_node.client import get as getting
from sds_node.client.errors import NotEnoughOzone, SourceChanged, StorageError
from sds_node.client.sources import FileSource
from sds_node.merkle import LeafCheck
from sds_node.wire.errors import Refused
from tests.sds_node.client.network import Network, came, network, noted, stuck_after

MIB = 1 << 20


def content(number: int, size_bytes: int) -> bytes:
    return random.Random(number).randbytes(size_bytes)


class Stopped(Exception):
    """As an interrupt."""


async def interrupted_put(net: Network, source: Path, state: Path, name: str, asks: int = 1) -> None:
    """A put of which ``asks`` segments are stored and no other is placed, when it is cancelled."""
    stuck = stuck_after(net, asks)
    async with net.storage(state=state) as storage:
        put = asyncio.create_task(storage.put(source, name))
        await came(stuck, put)
        await noted(state / "puts", put)
        put.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await put
    del net.changes[asking.PLACE_PUT]
    net.counts.clear()


@pytest.mark.asyncio
@pytest.mark.usefixtures("one_segment_a_question")
async def test_an_interrupted_put_goes_on_with_what_is_stored(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(content(1, 70 * MIB))
    async with network(tmp_path, 1, is_live=True) as net:
        await interrupted_put(net, source, tmp_path / "state", "big")
        async with net.storage(state=tmp_path / "state") as storage:
            stored = await storage.put(source, "big")
            assert stored.is_resumed
            assert net.counts[asking.PLACE_PUT] == 2  # of three segments
            assert net.counts.get(asking.LEASE_TAKE, 0) <= 1  # for the folder's check there is none; the lease is the old one
            await storage.get("big", tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == source.read_bytes()
            assert list((tmp_path / "state" / "puts").iterdir()) == []


@pytest.mark.asyncio
@pytest.mark.usefixtures("one_segment_a_question")
async def test_a_put_of_a_file_that_changed_or_whose_lease_is_gone_begins_anew_under_another_key(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(content(2, 34 * MIB))
    async with network(tmp_path, 1, is_live=True) as net:
        await interrupted_put(net, source, tmp_path / "state", "big")
        await net.restart()
        async with net.storage(state=tmp_path / "state") as storage:
            stored = await storage.put(source, "big")
            assert not stored.is_resumed
            assert net.counts[asking.LEASE_TAKE] == 1
            assert b"".join([bytes(one) async for one in storage.read("big")]) == source.read_bytes()


@pytest.mark.asyncio
@pytest.mark.usefixtures("one_segment_a_question")
async def test_no_segment_goes_out_twice_under_one_key_with_other_content(tmp_path: Path) -> None:
    """A file whose times lie: the journal finds it, and its segments have other roots than those that went out."""
    source = tmp_path / "source"
    source.write_bytes(content(3, 34 * MIB))
    async with network(tmp_path, 1, is_live=True) as net:
        await interrupted_put(net, source, tmp_path / "state", "big")
        (journal,) = (tmp_path / "state" / "puts").glob("*.put")
        before = journal.read_bytes()
        data = bytearray(source.read_bytes())
        data[5] ^= 1
        source.write_bytes(data)
        async with net.storage(state=tmp_path / "state") as storage:
            # As if the file had kept its times: the journal says those that it has now, and is where they lead.
            new, journals = FileSource(source), storage._uploads._journals
            assert journals is not None
            journal.unlink()
            head, _, rest = before.partition(b"\n")
            said = json.loads(head)
            assert said["identity"] != new.identity
            journals._path(new, "big", False).write_bytes(json.dumps(said | {"identity": new.identity}).encode() + b"\n" + rest)
            stored = await storage.put(source, "big")
            assert not stored.is_resumed
            assert b"".join([bytes(one) async for one in storage.read("big")]) == bytes(data)


@pytest.mark.asyncio
async def test_an_interrupted_get_goes_on_where_it_was(tmp_path: Path) -> None:
    data = content(4, 70 * MIB)
    for public in (False, True):
        folder = tmp_path / str(public)
        folder.mkdir()
        async with network(folder, 1) as net, net.storage() as storage:
            await storage.put(data, "big", public=public)
            target = folder / "out"

            def stop(done: int, total: int) -> None:
                if done > 66 * MIB:
                    raise Stopped

            with pytest.raises(Stopped):
                await storage.get("big", target, progress=stop)
            assert not target.exists()
            net.counts.clear()
            (note,) = folder.glob(".*.note")
            there = json.loads(note.read_bytes())["bytes"]
            begun = list[int]()
            await storage.get("big", target, progress=lambda done, _, begun=begun: begun.append(done))  # type: ignore[misc]
            assert begun[0] == there > 32 * MIB
            assert net.counts.get(asking.PLACE_GET, 0) <= 2  # of three segments
            assert target.read_bytes() == data
            assert [one.name for one in folder.iterdir() if ".part" in one.name or ".note" in one.name] == []
            fresh = list[int]()
            await storage.get("big", folder / "again", progress=lambda done, _, fresh=fresh: fresh.append(done))  # type: ignore[misc]
            assert fresh[0] == 0


def part_of(folder: Path, size_bytes: int) -> bool:
    """Whether there is a part as long as that."""
    return any(one.stat().st_size == size_bytes for one in folder.glob(".*.part"))


def fail_once(patch: pytest.MonkeyPatch, write: int, sync: int) -> None:
    """The disk takes half of one write, or loses one sync and what was written last before it, and works again after that."""
    written, synced, last = 0, 0, (0, 0)
    honest_write, honest_sync = download._pwrite, download._sync

    def pwrite(fd: int, data: Any, at: int) -> None:
        nonlocal written, last
        written += 1
        if written == write:
            honest_write(fd, memoryview(data)[: len(data) // 2], at)
            raise OSError(errno.ENOSPC, "No space left on device")
        honest_write(fd, data, at)
        last = at, len(data)

    def fsync(out: Any) -> None:
        nonlocal synced
        synced += 1
        if synced == sync:
            honest_write(out.fileno(), bytes(last[1]), last[0])
            raise OSError(errno.EIO, "Input/output error")
        honest_sync(out)

    patch.setattr(download, "_pwrite", pwrite)
    patch.setattr(download, "_sync", fsync)


@pytest.mark.asyncio
@pytest.mark.parametrize(("write", "sync"), [(2, 0), (0, 2)])
@pytest.mark.parametrize("public", [False, True])
async def test_a_get_whose_disk_failed_once_leaves_no_hole(
    tmp_path: Path, write: int, sync: int, public: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(5, 40 * MIB)
    async with network(tmp_path, 1) as net, net.storage() as storage:
        await storage.put(data, "big", public=public)
        with monkeypatch.context() as patch:
            fail_once(patch, write, sync)
            with pytest.raises(StorageError, match="cannot be written"):
                # The disk is at work while the next pieces come, so it has some of them before the failure is heard of.
                await storage.get("big", tmp_path / "out", progress=lambda *_: time.sleep(0.005))
        assert not (tmp_path / "out").exists()
        await storage.get("big", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == data


@pytest.mark.asyncio
async def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.put(b"x", "f")
        with pytest.raises(StorageError, match="is no file"):
            await storage.get("f", fifo)
        with pytest.raises(StorageError, match=r"there is no folder .*nowhere"):
            await storage.get("f", tmp_path / "nowhere" / "f")
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.asyncio
@pytest.mark.parametrize("public", [False, True])
async def test_a_note_that_outlived_its_part_vouches_for_no_other(tmp_path: Path, public: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(6, 20 * MIB)
    async with network(tmp_path, 10) as net, net.storage() as storage:
        await storage.put(data, "f", public=public)
        target = tmp_path / "out"
        _, note = download._parts(target, await storage.files.find("f"), True)
        note.write_text(json.dumps({"object": (await storage.files.find("f")).object_id.hex(), "bytes": len(data)}))
        honest, last = getting.get_share, asyncio.Event()

        async def late(session: Any, place: Any, share: Any, *rest: Any) -> bytes:
            if share.index == 0:
                await last.wait()
            return await honest(session, place, share, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(getting, "get_share", late)
            get = asyncio.create_task(storage.get("f", target))
            # The end of the file is there, its beginning is not, when the call ends.
            async with asyncio.timeout(60):
                while not part_of(tmp_path, len(data)):
                    assert not get.done()
                    await asyncio.sleep(0.01)
            get.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await get
        await storage.get("f", target)
        assert target.read_bytes() == data
        assert not note.exists()


@pytest.mark.asyncio
async def test_what_is_judged_when_its_connection_is_lost_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(7, 3 * MIB)
    async with network(tmp_path, 1) as net, net.storage() as storage:
        await storage.put(data, "f", public=True)
        handlers = net.nodes[0].server.node.handlers
        honest, cut = handlers[transfers.GET], asyncio.Event()
        loop, update = asyncio.get_running_loop(), LeafCheck.update

        async def get(stream: Any, connection: Any) -> None:
            send, sent = stream.send, 0

            async def changed(piece: Any) -> None:
                nonlocal sent
                sent += len(piece)
                await send(piece)
                if sent > len(data) and not cut.is_set():
                    await asyncio.sleep(0.2)
                    connection._link.abort()
                    cut.set()

            stream.send = changed
            await honest(stream, connection)

        def slow(self: LeafCheck, part: Any) -> int:
            if not cut.is_set():
                asyncio.run_coroutine_threadsafe(cut.wait(), loop).result(30)  # a busy machine
                time.sleep(0.1)
            return update(self, part)

        handlers[transfers.GET] = get
        monkeypatch.setattr(LeafCheck, "update", slow)
        await storage.get("f", tmp_path / "out")
        assert cut.is_set()
        assert (tmp_path / "out").read_bytes() == data


@pytest.mark.asyncio
async def test_a_meta_node_that_starts_anew_costs_no_more_than_another_session_and_lease(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.put(b"before", "a")
        await net.restart()
        assert b"".join([bytes(one) async for one in storage.read("a")]) == b"before"
        await net.restart()
        await storage.put(b"after", "b")
        assert sorted([one.path async for one in storage.list()]) == ["a", "b"]


@pytest.mark.asyncio
async def test_nodes_that_die_are_done_without(tmp_path: Path) -> None:
    data = content(5, 3 * MIB)
    async with network(tmp_path, 8) as net, net.storage() as storage:
        await net.nodes[2].server.close()
        stored = await storage.put(data, "f")
        assert stored.charged_noz > 0
        for number in (4, 5, 6):
            await net.nodes[number].server.close()
        assert b"".join([bytes(one) async for one in storage.read("f")]) == data


@pytest.mark.asyncio
async def test_a_wallet_without_ozone_is_told_to_buy_some(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage(5) as storage:
        with pytest.raises(NotEnoughOzone, match="buy ozone"):
            await storage.put(b"x", "f")
        await net.buys(5, 300_000)
        await storage.put(b"x", "f")
        warned = await storage.warnings(charged_noz=10**6)
        assert "buy more" in warned[0]


@pytest.mark.asyncio
async def test_what_earlier_leases_hold_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.client.leases.LOOK_S", 0.05)
    async with network(tmp_path, 3) as net:
        await net.buys(6, 400_000)
        async with net.storage(6) as first, net.storage(6) as second:
            await first.put(b"x" * 100_000, "f")  # holds all there is
            waiting = asyncio.create_task(second.put(b"y" * 40_000, "g"))
            async with asyncio.timeout(60):
                while net.counts[asking.WALLET_INFO] < 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert not waiting.done()
            await net.buys(6, 300_000)
            await waiting
        monkeypatch.setattr("sds_node.client.leases.SETTLED_S", 0.2)
        async with net.storage(6) as third:
            with pytest.raises(NotEnoughOzone, match="comes back within the hour"):
                await third.put(b"z" * 200_000, "h")


@pytest.mark.asyncio
async def test_leases_are_ended_and_what_is_left_comes_back(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net:
        async with net.storage() as storage:
            await storage.put(b"x" * 1_000, "f")
            assert (await storage.balance()).open_leases == 1
        assert net.counts[asking.LEASE_END] == 1


@pytest.mark.asyncio
async def test_a_source_that_is_not_as_long_as_was_said_is_refused(tmp_path: Path) -> None:
    async def stream(*pieces: bytes) -> Any:
        for piece in pieces:
            yield piece

    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.put(stream(b"ab", b"cd"), "right", size_bytes=4)
        for size in (3, 5):
            with pytest.raises(SourceChanged):
                await storage.put(stream(b"ab", b"cd"), "wrong", size_bytes=size)
        with pytest.raises(StorageError, match="give size_bytes"):
            await storage.put(stream(b"ab"), "wrong")
        assert [one.path async for one in storage.list()] == ["right"]


@pytest.mark.asyncio
async def test_one_refused_object_does_not_take_the_others_of_its_commit_along(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            if net.counts[asking.OBJECT_COMMIT] == 1:
                await stream.receive_all(1 << 20)
                raise Refused(asking.ACK_REFUSED, "an acknowledgement does not hold")
            await handler(stream, connection)

        await storage.put(b"warm", "warm")
        net.counts.clear()
        net.changes[asking.OBJECT_COMMIT] = serve
        results = await asyncio.gather(*(storage.put(b"x%d" % n, f"f{n}") for n in range(5)), return_exceptions=True)
        assert sum(isinstance(one, BaseException) for one in results) <= 1
        assert len([one async for one in storage.list()]) >= 5
