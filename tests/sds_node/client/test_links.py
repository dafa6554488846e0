"""Links: another wallet reads one version of a file, with a password or without."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking
from sds_node.client.errors import BadName, NotFound, StorageError, WrongPassword
from sds_node.client.names import local_name
from sds_node.client.orders import send_order
from sds_node.client.pace import Pace
from sds_node.client.sharing import parse_link
from sds_node.handles import new_share_link
from tests.sds_node.client.network import network

CID = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"


@pytest.mark.asyncio
async def test_many_links_are_opened_at_once_as_fast_as_meta_nodes_allow(tmp_path: Path) -> None:
    async with network(tmp_path, 3, wallets=2) as net, net.storage() as owner, net.storage(2) as other:
        await owner.put(b"for many", "f")
        link = (await owner.share("f")).link
        loop, base_s = asyncio.get_running_loop(), net.clock.now_s
        begun_s = loop.time()

        async def later(handler: Any, stream: Any, connection: Any) -> None:
            net.clock.now_s = base_s + loop.time() - begun_s
            await handler(stream, connection)

        net.changes[asking.SHARE_OPEN] = later
        opened = await asyncio.gather(*(other.open_shared(link) for _ in range(30)))
        assert {one.size_bytes for one in opened} == {8}


@pytest.mark.asyncio
async def test_a_pace_is_kept_whatever_comes_at_once() -> None:
    pace, begun, under_way = Pace(20, 3), list[float](), list[int]()
    now = 0

    async def one() -> None:
        nonlocal now
        async with pace.turn():
            now += 1
            under_way.append(now)
            begun.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(one() for _ in range(30)))
    assert max(under_way) <= 3
    assert all(at - begun[0] >= (number - 20) / 20 - 0.01 for number, at in enumerate(sorted(begun)))


@pytest.mark.asyncio
async def test_who_has_the_link_reads_the_file_and_nobody_else(tmp_path: Path) -> None:
    async with network(tmp_path, 3, wallets=2) as net, net.storage() as owner, net.storage(2) as other:
        await owner.put(b"for a friend", "letters/to a friend.txt")
        link = await owner.share("letters/to a friend.txt", expires_s=3_600)
        found = await other.get_shared(link.link, tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == b"for a friend"
        assert (found.name, found.owner) == ("to a friend.txt", owner.wallet)
        assert [one.link async for one in owner.shares()] == [link.link]
        with pytest.raises(BadName, match="lost what stood after"):
            await other.open_shared(link.link.partition("#")[0])
        other_secret = link.link[:-4] + ("AAAA" if link.link[-4:] != "AAAA" else "BBBB")
        with pytest.raises(StorageError):
            await other.open_shared(other_secret)
        net.clock.now_s += 3_700
        with pytest.raises(NotFound):
            await other.open_shared(link.link)


@pytest.mark.asyncio
async def test_a_password_is_needed_where_there_is_one(tmp_path: Path) -> None:
    async with network(tmp_path, 3, wallets=2) as net, net.storage() as owner, net.storage(2) as other:
        await owner.put(b"private", "p")
        await owner.put(b"public", "q", public=True)
        for name, wanted in (("p", b"private"), ("q", b"public")):
            link = (await owner.share(name, password="pässwörd")).link
            for wrong in (None, "another"):
                with pytest.raises(WrongPassword):
                    await other.open_shared(link, wrong)
            await other.get_shared(link, tmp_path / name, password="pässwörd")
            assert (tmp_path / name).read_bytes() == wanted
            await owner.unshare(link)
            with pytest.raises(NotFound):
                await other.open_shared(link, "pässwörd")


@pytest.mark.asyncio
async def test_a_link_leads_to_the_version_it_was_made_for_and_ends_with_it(tmp_path: Path) -> None:
    async with network(tmp_path, 3, wallets=2) as net, net.storage() as owner, net.storage(2) as other:
        await owner.put(b"first", "f")
        link = (await owner.share("f")).link
        await other.get_shared(link, tmp_path / "first")
        await owner.put(b"second", "f")
        with pytest.raises(NotFound):
            await other.open_shared(link)
        assert (tmp_path / "first").read_bytes() == b"first"


@pytest.mark.asyncio
async def test_a_cid_that_two_wallets_have_is_listed_read_and_ended_by_each(tmp_path: Path) -> None:
    async with network(tmp_path, 3, wallets=2) as net, net.storage() as owner, net.storage(2) as other:
        for storage in (owner, other):
            await storage.put(b"the same", "same", public=True)
        own = {"share_id": CID, "link": CID}
        text = new_share_link(bytes(16))
        also = {"share_id": text, "link": text, "also": CID}
        for storage, fields in ((owner, own), (other, also)):
            row = (await storage.files.find("same")).row
            await send_order(storage._client, share=fields | {"lookup_id": row.lookup_id})
            assert [(one.link, one.share_id) async for one in storage.shares()] == [(f"sds://{CID}", fields["share_id"])]
        assert (await other.open_shared(f"sds://{CID}")).owner == owner.wallet
        await owner.unshare(f"sds://{CID}")
        found = await owner.get_shared(CID, tmp_path / "got")
        assert ((tmp_path / "got").read_bytes(), found.owner) == (b"the same", other.wallet)
        assert (await owner.open_shared(text)).owner == other.wallet
        await other.unshare(CID)
        assert [one async for one in other.shares()] == []
        for link in (CID, text):
            with pytest.raises(NotFound):
                await owner.open_shared(link)
        with pytest.raises(NotFound):
            await other.unshare(CID)


def test_a_name_of_somebody_else_stays_in_its_folder() -> None:
    for given, wanted in (
        ("../../etc/passwd", "passwd"), ("..", "file"), ("/", "file"), ("a\\b\\c.txt", "c.txt"), ("-rf", "file"), ("x\x1b[2J.txt", "x[2J.txt"), ("ok", "ok"),
    ):  # fmt: skip
        assert local_name(given, "file") == wanted
    assert len(local_name("é" * 500, "file").encode()) <= 200


def test_a_link_is_read_in_one_form() -> None:
    text = "sds://0123456789abcdef_0123456789_abcdef"
    assert parse_link(text)[0].secret == b""
    assert parse_link(f"{text}/pass")[1] == "pass"
    assert len(parse_link(f"{text}#{'A' * 43}")[0].secret) == 32
    for wrong in (f"{text}#", f"{text}#short", f"{text}#{'A' * 42}B", f"{text}#{'!' * 43}", "sds://nothing", "x" * 500):
        with pytest.raises(BadName):
            parse_link(wrong)
