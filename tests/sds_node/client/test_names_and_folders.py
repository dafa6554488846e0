"""Names, folders, the trash: what a wallet's user does with files that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sds_node.client.errors import AlreadyThere, BadName, NotFound, StorageError
from sds_node.client.names import MAX_PARTS, Names, clean
from sds_node.client.storage import Storage
from tests.sds_node.client.network import network


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
