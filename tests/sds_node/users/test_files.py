"""Files, orders and shares as a wallet sees them, and what another wallet does not see."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking
from sds_node.handles import new_share_link
from sds_node.hashes import file_hash
from sds_node.merkle import segment_root
from sds_node.meta.lateness import FREE_S
from sds_node.meta.rules.refusals import UNKNOWN_FILE, USED_BEFORE
from sds_node.meta.rules.shares import share_key
from sds_node.wire.errors import Refused
from tests.sds_node.rules.support import event, message, record
from tests.sds_node.users.support import Meta, User, lookup, meta_node, share_root_of
from tests.sds_node.users.test_sessions import refused

pytestmark = pytest.mark.asyncio
MIB = 1 << 20
SIZE = 2 * MIB
CID = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"


async def ready(meta: Meta, noz: int = 10**9) -> tuple[User, bytes]:
    user = await meta.user()
    return user, await user.lease(noz)


async def listed(user: User, after: bytes = b"", limit: int = 100, *, is_trash: bool = False) -> Any:
    return await user.ask(asking.FILE_LIST, asking.FileListHead(after=after, limit=limit, is_trash=is_trash), asking.FilePage)


async def shared(user: User, number: int, **changes: Any) -> str:
    """A link to a file, as its owner makes one."""
    link = new_share_link(secrets.token_bytes(16))
    fields = {"share_id": link, "link": link, "lookup_id": lookup(number), "wrapped_key": b"for the link"}
    await user.order(share=message("ShareFile", **fields | changes))
    return link


async def opened(user: User, **head: Any) -> Any:
    return await user.ask(asking.SHARE_OPEN, asking.ShareOpenHead(**head), asking.OpenedShare)


# --- files ----------------------------------------------------------------------------------------------------------------------------------


async def test_files_are_found_by_name_content_and_object(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        done = await user.keep(lease_id, 1, SIZE)
        found = await user.find(lookup_id=lookup(1))
        assert (found.wrapped_key, found.is_public, found.object.size_bytes) == (b"key1", False, SIZE)
        assert await user.find(object_id=done.object_id) == found
        assert await user.find(file_hash=file_hash(b"content 1")) == found
        for head in ({"lookup_id": lookup(2)}, {"object_id": b"o" * 32}, {"file_hash": file_hash(b"content 2")}):
            await refused(asking.NOT_HELD, user, asking.FILE_FIND, asking.FileFindHead(**head))
        for head in ({}, {"lookup_id": b"short"}, {"file_hash": "x" * 40}, {"lookup_id": lookup(1), "object_id": done.object_id}):
            await refused(asking.BAD_ASK, user, asking.FILE_FIND, asking.FileFindHead(**head))


async def test_a_folder_is_no_file_of_its_content(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        folder = await user.keep(lease_id, 1, 0)
        head = asking.FileFindHead(file_hash=(await user.find(object_id=folder.object_id)).object.file_hash)
        await refused(asking.NOT_HELD, user, asking.FILE_FIND, head)


async def test_a_list_comes_in_pages_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = [await user.store(lease_id, counter, 10) for counter in range(1, 8)]
        await user.commit(stored[0].ask(*stored[1:]))
        found: list[bytes] = []
        while True:
            page = await listed(user, found[-1] if found else b"", 3)
            found += [bytes(one.lookup_id) for one in page.files]
            assert len(page.files) <= 3
            if not page.has_more:
                break
        assert found == sorted(lookup(number) for number in range(1, 8))
        for limit in (0, 1_001):
            await refused(asking.BAD_ASK, user, asking.FILE_LIST, asking.FileListHead(limit=limit))
        await refused(asking.BAD_ASK, user, asking.FILE_LIST, asking.FileListHead(limit=5, after=b"x"))
        assert len((await listed(await meta.user(2))).files) == 0


async def test_a_deleted_file_is_in_the_trash_and_comes_back(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        done = await user.keep(lease_id, 1, SIZE)
        await user.order(delete=message("DeleteFiles", lookup_ids=[lookup(1)]))
        await refused(asking.NOT_HELD, user, asking.FILE_FIND, asking.FileFindHead(lookup_id=lookup(1)))
        (trashed,) = (await listed(user, is_trash=True)).files
        assert (trashed.name, trashed.object.state, trashed.object.object_id) == (b"name1", 4, done.object_id)
        ask = asking.GetAsk(object_id=done.object_id, segment=0, index=0, size_bytes=5)
        await refused(asking.NOT_HELD, user, asking.PLACE_GET, asking.PlaceGetHead(lease_id=lease_id, shares=[ask]))
        await user.order(restore=message("RestoreFiles", object_ids=[done.object_id]))
        assert (await user.find(lookup_id=lookup(1))).object.state == 2
        assert len(await user.get_places(lease_id, ask)) == 1


async def test_a_new_version_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        old = await user.keep(lease_id, 1, SIZE)
        new = await user.keep(lease_id, 2, SIZE, file={"lookup_id": lookup(1)})
        assert (await user.find(lookup_id=lookup(1))).object.object_id == new.object_id
        await refused(asking.NOT_HELD, user, asking.FILE_FIND, asking.FileFindHead(object_id=old.object_id))


async def test_an_order_sent_again_is_done_once_and_orders_of_others_are_not_passed_on(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        await user.keep(lease_id, 1, SIZE)
        order = user.signed_order(delete=message("DeleteFiles", lookup_ids=[lookup(1)]))
        head = asking.OrderHead(order=order)
        await user.ask(asking.FILE_ORDER, head)
        await user.ask(asking.FILE_ORDER, head)
        assert len((await listed(user, is_trash=True)).files) == 1
        other = await meta.user(2)
        await refused(asking.BAD_ASK, other, asking.FILE_ORDER, head)
        meta.users.files._done.clear()  # as after a restart
        await refused(asking.LEDGER_CODES + USED_BEFORE, user, asking.FILE_ORDER, head)
        again = user.signed_order(delete=message("DeleteFiles", lookup_ids=[lookup(1)]))
        await refused(asking.LEDGER_CODES + UNKNOWN_FILE, user, asking.FILE_ORDER, asking.OrderHead(order=again))
        forged = dict(again, signature=bytes(64))
        await refused(asking.BAD_ASK, user, asking.FILE_ORDER, asking.OrderHead(order=forged))
        for body in (b"", b"\xff" * 20, b"x" * 20_000):
            await refused(asking.BAD_ASK, user, asking.FILE_ORDER, asking.OrderHead(order=dict(again, body=body)))


async def test_segment_roots_come_in_pages(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta, 10**10)
        done = await user.keep(lease_id, 1, 3 * 32 * MIB)
        roots = [segment_root([share_root_of(1, number, index) for index in range(5)]) for number in range(3)]

        async def segments(first: int, limit: int) -> list[bytes]:
            head = asking.SegmentRootsHead(object_id=done.object_id, first=first, limit=limit)
            return list((await user.ask(asking.FILE_SEGMENTS, head, asking.SegmentRoots)).roots)

        assert await segments(0, 16_384) == roots
        assert await segments(1, 1) == roots[1:2]
        assert await segments(3, 5) == await segments(1 << 63, 5) == []
        for limit in (0, 16_385):
            head = asking.SegmentRootsHead(object_id=done.object_id, limit=limit)
            await refused(asking.BAD_ASK, user, asking.FILE_SEGMENTS, head)
        await refused(asking.NOT_HELD, await meta.user(2), asking.FILE_SEGMENTS, asking.SegmentRootsHead(object_id=done.object_id, limit=5))


async def test_health_counts_shares_at_nodes_that_are_online_and_active(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta, 10**10)
        stored = await user.store(lease_id, 1, 40 * MIB, missing=[4])
        (done,) = await user.commit(stored.ask())

        async def health(first: int = 0, limit: int = 10) -> Any:
            return await user.ask(asking.FILE_HEALTH, asking.HealthHead(object_id=done.object_id, first=first, limit=limit), asking.HealthReply)

        reply = await health()
        assert (reply.data_shares, reply.total_shares, reply.repair_below, reply.has_more) == (2, 5, 4, False)
        assert [(one.segment, one.healthy, one.placed) for one in reply.segments] == [(0, 4, 4), (1, 4, 4)]
        holders = [meta.nodes.number_of(one.p2p_key) for one in stored.message.segments[1].shares]
        meta.nodes.away.add(holders[0])
        node = meta.nodes.events()[holders[1] - 1].node
        node.standing = 2
        await meta.observe(event(node=node))
        page = await health(1, 1)
        assert [(one.segment, one.healthy, one.placed) for one in page.segments] == [(1, 2, 4)]
        assert (await health(0, 1)).has_more
        await refused(asking.BAD_ASK, user, asking.FILE_HEALTH, asking.HealthHead(object_id=done.object_id, limit=1_001))


# --- shares ---------------------------------------------------------------------------------------------------------------------------------


async def test_a_link_lets_another_wallet_read_until_it_is_withdrawn(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        owner, lease_id = await ready(meta)
        done = await owner.keep(lease_id, 1, SIZE)
        link = await shared(owner, 1)
        await meta.buys(2)
        other = await meta.user(2)
        theirs = await other.lease(10**6)
        ask = asking.GetAsk(object_id=done.object_id, segment=0, index=0, size_bytes=5)
        await refused(asking.NOT_HELD, other, asking.PLACE_GET, asking.PlaceGetHead(lease_id=theirs, shares=[ask]))
        found = await opened(other, link=f"sds://{link}")
        assert (found.share.wrapped_key, found.share.object_id, found.share.has_password) == (b"for the link", done.object_id, False)
        assert (found.file.wrapped_key, found.file.name, found.file.lookup_id, found.file.object.size_bytes) == (b"", b"", b"", SIZE)
        assert len(await other.get_places(theirs, ask)) == 1
        assert (await other.find(object_id=done.object_id)).wrapped_key == b""
        await owner.order(unshare=message("UnshareFiles", share_ids=[link]))
        await refused(asking.NOT_HELD, other, asking.PLACE_GET, asking.PlaceGetHead(lease_id=theirs, shares=[ask]))
        await refused(asking.NOT_HELD, other, asking.SHARE_OPEN, asking.ShareOpenHead(share_id=link))


async def test_what_one_session_opened_another_has_not(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        owner, lease_id = await ready(meta)
        done = await owner.keep(lease_id, 1, SIZE)
        link = await shared(owner, 1)
        await opened(await meta.user(2), share_id=link)
        await refused(asking.NOT_HELD, await meta.user(2), asking.FILE_FIND, asking.FileFindHead(object_id=done.object_id))


async def test_a_password_must_be_right(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        owner, lease_id = await ready(meta)
        done = await owner.keep(lease_id, 1, SIZE)
        link = await shared(owner, 1, password_check=b"p" * 32)
        other = await meta.user(2)
        for check in (b"", b"p" * 31, b"q" * 32):
            await refused(asking.WRONG_PASSWORD, other, asking.SHARE_OPEN, asking.ShareOpenHead(link=link, password_check=check))
        await refused(asking.NOT_HELD, other, asking.FILE_FIND, asking.FileFindHead(object_id=done.object_id))
        assert (await opened(other, link=link, password_check=b"p" * 32)).share.has_password


async def test_a_share_ends_when_its_time_is_over_though_no_tick_came(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        owner, lease_id = await ready(meta)
        done = await owner.keep(lease_id, 1, SIZE)
        link = await shared(owner, 1, expires_s=int(meta.clock()) + 60)
        other = await meta.user(2)
        await opened(other, link=link)
        meta.clock.wait(60)
        await refused(asking.NOT_HELD, other, asking.FILE_FIND, asking.FileFindHead(object_id=done.object_id))
        await refused(asking.NOT_HELD, other, asking.SHARE_OPEN, asking.ShareOpenHead(link=link))


async def test_a_share_of_a_file_in_the_trash_opens_nothing(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        owner, lease_id = await ready(meta)
        await owner.keep(lease_id, 1, SIZE)
        link = await shared(owner, 1)
        await owner.order(delete=message("DeleteFiles", lookup_ids=[lookup(1)]))
        await refused(asking.NOT_HELD, await meta.user(2), asking.SHARE_OPEN, asking.ShareOpenHead(link=link))


async def test_a_cid_of_several_opens_the_first_that_can_be_read(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        reader, users = await meta.user(4), [await meta.user(number) for number in (1, 2, 3)]
        public = {"is_public": True, "wrapped_key": b"", "name": b"n"}
        for number in (2, 3):
            await meta.buys(number, 10**9)
        for user in users:
            await user.keep(await user.lease(10**9), 1, SIZE, file=dict(public))
        ends_s = int(meta.clock()) + 60
        await users[0].order(share=message("ShareFile", share_id=CID, link=CID, lookup_id=lookup(1), expires_s=ends_s))
        for user in users[1:]:
            await shared(user, 1, wrapped_key=b"", also=CID)
        rows = [(await user.ask(asking.SHARE_LIST, asking.ShareListHead(limit=10), asking.SharePage)).shares for user in users]
        assert [[one.link for one in row] for row in rows] == [[CID]] * 3
        ids = [row[0].share_id for row in rows]
        # Behind the share whose own link it is come those that have it too, in the order of the hashes of their ids.
        order = [0, *sorted((1, 2), key=lambda at: share_key(ids[at]))]

        async def found() -> str:
            share = (await opened(reader, link=f"sds://{CID}")).share
            assert share.link == CID
            return str(share.share_id)

        assert await found() == ids[0]
        hidden = message("RenameFile", lookup_id=lookup(1), file=record(1, lookup_id=lookup(1), is_public=False, name=b"n"))
        shown = message("RenameFile", lookup_id=lookup(1), file=record(1, lookup_id=lookup(1), **public))
        await users[0].order(rename=hidden)
        assert await found() == ids[order[1]]
        await users[0].order(rename=shown)
        assert await found() == ids[0]
        meta.clock.wait(60)  # no tick comes
        assert await found() == ids[order[1]]
        await users[order[1]].order(delete=message("DeleteFiles", lookup_ids=[lookup(1)]))
        assert await found() == ids[order[2]]
        assert (await opened(reader, share_id=ids[order[2]])).share.link == ids[order[2]]
        await users[order[2]].order(unshare=message("UnshareFiles", share_ids=[ids[order[2]]]))
        await refused(asking.NOT_HELD, reader, asking.SHARE_OPEN, asking.ShareOpenHead(link=CID))


async def test_shares_are_listed_in_pages_for_their_owner_alone(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        owner, lease_id = await ready(meta)
        await owner.keep(lease_id, 1, SIZE)
        links = {await shared(owner, 1) for _ in range(5)}
        found: list[str] = []
        while True:
            page = await owner.ask(asking.SHARE_LIST, asking.ShareListHead(after=found[-1] if found else "", limit=2), asking.SharePage)
            found += [one.share_id for one in page.shares]
            if not page.has_more:
                break
        assert len(found) == 5
        assert set(found) == links
        assert len((await (await meta.user(2)).ask(asking.SHARE_LIST, asking.ShareListHead(limit=10), asking.SharePage)).shares) == 0
        await refused(asking.BAD_ASK, owner, asking.SHARE_LIST, asking.ShareListHead(limit=10, after="x" * 300))


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"share_id": "0123456789abcdef", "link": "a"},
        {"link": "no link"},
        {"link": "x" * 400},
        {"share_id": "x" * 400},
        {"link": "V1", "password_check": b"x" * 65},
    ],
)
async def test_what_is_no_link_is_refused(tmp_path: Path, head: dict[str, Any]) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        await refused(asking.BAD_ASK, user, asking.SHARE_OPEN, asking.ShareOpenHead(**head))


async def test_granted_ozone_stores_files_too(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        await meta.is_granted(2, 10**8)
        user = await meta.user(2)
        lease_id = await user.lease(10**7, fund=2)
        await user.keep(lease_id, 1, SIZE)
        assert (await user.find(lookup_id=lookup(1))).object.fund == 2
        await user.end(lease_id)
        meta.clock.wait(600 + FREE_S)
        assert await meta.users.lending.settle_due() == 1
        with pytest.raises(Refused):
            await user.lease(10**9, fund=2)
