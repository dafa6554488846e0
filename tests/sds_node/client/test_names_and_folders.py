"""Names, folders, the trash: what a wallet's user does with files that are there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking
from sds_node.client.errors import AlreadyThere, BadName, NotFound, StorageError
from sds_node.client.names import MAX_PARTS, Names, clean
from sds_node.client.storage import Storage
from sds_node.wire.errors import Refused
from tests.sds_node.client.network import came, network


async def paths(storage: Storage, folder: str = "", *, deep: bool = False) -> list[str]:
    source = storage.walk(folder) if deep else storage.list(folder)
    return sorted([f"{one.path}/" if one.is_folder else one.path async for one in source])


@pytest.mark.asyncio
async def test_a_folder_is_listed_by_its_own_entries_alone(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        for name in ("top.txt", "a/one.txt", "a/b/two.txt", "a/b/ünïcödé 文件.txt", "c/three.txt"):
            await storage.put(b"x", name)
        await storage.mkdir("empty/inner")
        assert await paths(storage) == ["a/", "c/", "empty/", "top.txt"]
        assert await paths(storage, "a") == ["a/b/", "a/one.txt"]
        assert await paths(storage, "/a/b/") == ["a/b/two.txt", "a/b/ünïcödé 文件.txt"]
        assert await paths(storage, "empty/inner") == []
        assert await paths(storage, "a", deep=True) == ["a/b/", "a/b/two.txt", "a/b/ünïcödé 文件.txt", "a/one.txt"]
        with pytest.raises(NotFound, match="no folder nowhere"):
            await paths(storage, "nowhere")
        net.counts.clear()
        assert len(await paths(storage, "c")) == 1
        assert net.counts == {"file.list": 1}


@pytest.mark.asyncio
async def test_the_meta_node_sees_neither_names_nor_content_of_private_files(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.put(b"the content of a secret " * 100, "folder of secrets/secret name.txt")
        await storage.put(b"for all to read", "told/everybody.txt", public=True)
    seen = on_disk(tmp_path)
    assert b"secret name" not in seen
    assert b"folder of secrets" not in seen
    assert b"content of a secret" not in seen
    assert b"told/everybody.txt" in seen
    assert b"for all to read" in seen


def on_disk(folder: Path) -> bytes:
    """All that meta node and nodes have written."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.asyncio
async def test_what_is_removed_is_in_the_trash_and_comes_back(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.put(b"one", "d/file")
        second = await storage.put(b"second", "d/file")
        assert [one.path async for one in storage.trash()] == ["d/file"]
        with pytest.raises(StorageError, match="not empty"):
            await storage.remove("d")
        assert await storage.remove("d", recursive=True) == 2
        assert await paths(storage) == []
        with pytest.raises(NotFound):
            await storage.get("d/file", tmp_path / "out")
        restored = await storage.restore(second.object_id)
        assert restored.path == "d/file"
        assert await paths(storage, deep=True) == ["d/", "d/file"]
        await storage.get("d/file", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"second"
        with pytest.raises(AlreadyThere):
            await storage.restore("d/file")
        with pytest.raises(NotFound):
            await storage.restore("d/nothing")


@pytest.mark.asyncio
async def test_files_and_folders_move_with_all_that_is_in_them(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.put(b"1", "a/x")
        await storage.put(b"2", "a/b/y", public=True)
        assert await storage.rename("a/x", "new/deep/z") == 1
        assert await storage.rename("a", "moved/here") == 3
        assert await paths(storage, deep=True) == ["moved/", "moved/here/", "moved/here/b/", "moved/here/b/y", "new/", "new/deep/", "new/deep/z"]
        for name, wanted in (("new/deep/z", b"1"), ("moved/here/b/y", b"2")):
            assert b"".join([bytes(one) async for one in storage.read(name)]) == wanted
        with pytest.raises(BadName, match="cannot become"):
            await storage.rename("moved", "moved/into/itself")
        await storage.put(b"3", "third")
        with pytest.raises(AlreadyThere):
            await storage.rename("third", "new/deep/z")
        with pytest.raises(AlreadyThere, match="there is a file third"):
            await storage.put(b"4", "third/below")


@pytest.mark.asyncio
async def test_a_file_is_found_by_path_handle_hash_and_object(tmp_path: Path) -> None:
    async with network(tmp_path, 3, wallets=2) as net, net.storage() as storage, net.storage(2) as stranger:
        stored = await storage.put(b"content", "f", public=True)
        for name in ("f", "/f", stored.handle, stored.file_hash, stored.object_id):
            assert (await storage.stat(name)).object_id == stored.object_id
        with pytest.raises(NotFound, match="another wallet"):
            await stranger.stat(stored.handle)
        private = await storage.put(b"content", "p")
        with pytest.raises(NotFound):
            await stranger.stat(private.object_id)
        assert (await storage.health("f")).fewest_healthy == 3
        assert await storage.renew(["f", "p"]) == 2
        assert (await storage.stat("f")).terms == 2


def test_a_path_has_one_form_and_bounds() -> None:
    assert clean("/a//b/") == "a/b"
    assert clean("e\u0301") == "é"
    for wrong in ("a/../b", "./a", "a\x00b", "a\nb", "x" * 1_024, "a/" * (MAX_PARTS + 1), "\ud800"):
        with pytest.raises(BadName):
            clean(wrong)


def test_lookup_ids_of_one_folder_begin_alike_and_of_no_other() -> None:
    names, others = Names(b"s" * 32), Names(b"t" * 32)
    ids = {path: names.lookup_id(path) for path in ("a/x", "a/y", "b/x", "x")}
    assert ids["a/x"][:12] == ids["a/y"][:12] == names.folder_tag("a")
    assert len({one[:12] for one in ids.values()}) == 3
    assert len({one[12:] for one in ids.values()}) == 4
    assert names.lookup_id("a") != names.lookup_id("a", is_folder=True)
    assert others.lookup_id("a/x")[:12] != ids["a/x"][:12]


@pytest.mark.asyncio
async def test_a_folder_comes_back_with_all_that_went_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.client.storage.WENT_TOGETHER_S", 60)
    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.mkdir("photos/0")
        await asyncio.gather(*(storage.put(b"x%d" % number, f"photos/{number % 2}/{number}") for number in range(120)))
        await storage.put(b"early", "photos/early")
        await storage.put(b"beside", "photos2/f")
        await storage.remove("photos/early")
        net.clock.now_s += 300
        await storage.put(b"newer", "photos/0/0")
        await storage.remove("photos2", recursive=True)
        assert await storage.remove("photos", recursive=True) == 123
        net.counts.clear()
        restored = await storage.restore("photos/")
        assert (restored.path, restored.count, restored.failed) == ("photos", 123, {})
        assert net.counts[asking.FILE_ORDER] == 3, "folders, and two orders of files"
        there = sorted([entry.path async for entry in storage.walk()])
        assert len(there) == 123
        assert "photos/early" not in there, "it went before"
        assert b"".join([bytes(piece) async for piece in storage.read("photos/0/0")]) == b"newer"
        assert (await storage.restore("photos", recursive=True)).count == 1
        assert b"".join([bytes(piece) async for piece in storage.read("photos/early")]) == b"early"
        again = await storage.restore("photos/")
        assert (again.count, list(again.failed)) == (0, ["photos/0/0"]), "an older version, whose place is taken"
        with pytest.raises(NotFound):
            await storage.restore("nothing/")


@pytest.mark.asyncio
async def test_what_has_lost_its_place_stays_in_the_trash_and_is_told(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        for name in ("d/a", "d/b", "d/c"):
            await storage.put(b"old", name)
        await storage.remove("d", recursive=True)
        await storage.put(b"new", "d/b")
        restored = await storage.restore("d")
        assert restored.count == 3
        assert list(restored.failed) == ["d/b"]
        assert b"".join([bytes(piece) async for piece in storage.read("d/b")]) == b"new"
        assert sorted([entry.path async for entry in storage.list("d")]) == ["d/a", "d/b", "d/c"]
        assert [entry.path async for entry in storage.trash() if not entry.is_folder] == ["d/b"]


@pytest.mark.asyncio
async def test_a_folder_that_could_not_be_made_once_is_made_for_the_next_put(tmp_path: Path) -> None:
    """Also when nobody waited for it any more as it failed."""
    async with network(tmp_path, 3) as net, net.storage() as storage:
        asked, go = asyncio.Event(), asyncio.Event()

        async def fail(handler: Any, stream: Any, connection: Any) -> None:
            asked.set()
            await go.wait()
            raise Refused(asking.BAD_ASK, "a failure of long ago")

        net.changes[asking.OBJECT_COMMIT] = fail
        put = asyncio.create_task(storage.put(b"1", "new/f"))
        await came(asked, put)
        put.cancel()
        await asyncio.gather(put, return_exceptions=True)
        go.set()
        await asyncio.wait([storage._uploads._folders["new"]], timeout=60)
        assert storage._uploads._folders["new"].done()
        net.changes.clear()
        await storage.put(b"1", "new/f")
        assert await paths(storage, "new") == ["new/f"]


@pytest.mark.asyncio
async def test_a_public_file_of_another_wallet_is_read_by_its_object_id(tmp_path: Path) -> None:
    async with network(tmp_path, 3, wallets=2) as net, net.storage() as owner, net.storage(2) as other:
        stored = await owner.put(b"for all", "a/.profile", public=True)
        secret = await owner.put(b"for me", "b")
        got = await other.get(stored.object_id, tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == b"for all"
        assert (got.name, got.is_loose, got.is_public) == (".profile", True, True)
        assert (await other.stat(stored.object_id)).size_bytes == 7
        for unknown in (secret.object_id, stored.file_hash):
            with pytest.raises(NotFound):
                await other.stat(unknown)
        with pytest.raises(NotFound, match="object id"):
            await other.stat(stored.handle)
