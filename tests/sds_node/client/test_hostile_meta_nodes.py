"""A meta node that lies, or answers nonsense, gets nothing signed, nothing written, and ends as one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from modules.settlement.documents import OrderLimit
from sds_node import asking
from sds_node.client.errors import MetaLied, MetaUnreachable, StorageError
from sds_node.client.meta import MetaAddress, parse_endpoint, parse_meta
from sds_node.client.storage import Storage
from sds_node.client.transfer import NotReadable, TransferFailed
from sds_node.documents import Lease, LeaseCertificate, signed
from tests.sds_node.client.network import LEDGER, Network, network
from tests.serials import own_serial


class _Tap:
    """A stream whose answer is changed before it goes out."""

    def __init__(self, stream: Any, change: Callable[[bytes], bytes]) -> None:
        self._stream, self._change = stream, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def send(self, data: Any) -> None:
        await self._stream.send(self._change(bytes(data)))


def lie(net: Network, method: str, kind: Any, change: Callable[[Any], None]) -> None:
    """From now on answers to ``method`` are changed."""

    def changed(data: bytes) -> bytes:
        message = kind.FromString(data)
        change(message)
        return encode(message)

    async def serve(handler: Any, stream: Any, connection: Any) -> None:
        await handler(_Tap(stream, changed), connection)

    net.changes[method] = serve


def limit_with(**changes: Any) -> Callable[[Any], None]:
    """Order limits with other fields, signed as they should be."""

    def change(places: Any) -> None:
        for one in places.places:
            limit = OrderLimit.FromString(one.order_limit.body)
            for name, value in changes.items():
                setattr(limit, name, value)
            one.order_limit.CopyFrom(signed(limit, LEDGER))

    return change


def twice(places: Any) -> None:
    places.places.add().CopyFrom(places.places[0])


def first_node_for_all(places: Any) -> None:
    for one in places.places[1:]:
        one.p2p_key = places.places[0].p2p_key


def many(places: Any) -> None:
    for number in range(2_000):
        places.places.add(ask=number, index=1)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "change",
    [
        limit_with(max_noz=10**9),
        limit_with(max_bytes=1),
        limit_with(object_root=b"x" * 32),
        limit_with(share_root=b"x" * 32),
        limit_with(lease_id=b"x" * 32),
        limit_with(session_pubkey=b"x" * 32),
        limit_with(action=1),
        limit_with(chain_id="other"),
        limit_with(serial=b"short"),
        limit_with(serial=b"\xff" * 16),
        limit_with(serial=own_serial(b"m" * 20, 5)),
        twice,
        first_node_for_all,
        many,
        lambda places: places.places.pop(),
        lambda places: setattr(places.places[0], "endpoint", "nowhere"),
        lambda places: setattr(places.places[0], "p2p_key", b"k"),
        lambda places: setattr(places.places[0].order_limit, "body", b"\xff"),
    ],
)
async def test_places_that_are_not_what_was_asked_for_are_refused_before_anything_is_signed(tmp_path: Path, change: Any) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        lie(net, asking.PLACE_PUT, asking.Places, change)
        with pytest.raises(StorageError, match=r"meta node|needs 3 places"):
            await storage.put(b"content", "f")
        assert all(not node.leaves() for node in net.nodes)


@pytest.mark.asyncio
async def test_places_to_read_at_a_higher_price_are_refused(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.put(b"content", "f")
        lie(net, asking.PLACE_GET, asking.Places, limit_with(max_noz=10**6))
        with pytest.raises(MetaLied, match="another price"):
            await storage.get("f", tmp_path / "out")


def left(folder: Path) -> list[str]:
    """Names of what is there."""
    return [one.name for one in folder.iterdir()]


@pytest.mark.asyncio
async def test_another_content_than_asked_for_is_seen_and_not_left_on_disk(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        for public in (False, True):
            await storage.put(b"the right one", "right", public=public)
            await storage.put(b"the wrong one", "wrong", public=public)
            wrong = (await storage.files.find("wrong")).row.object

            def swap(reply: Any, wrong: Any = wrong) -> None:
                file_hash = reply.file.object.file_hash
                reply.file.object.CopyFrom(wrong)
                reply.file.object.file_hash = file_hash

            lie(net, asking.FILE_FIND, asking.FileReply, swap)
            with pytest.raises(StorageError, match=r"cannot be opened|key cannot|another content"):
                await storage.get("right", tmp_path / "out")
            assert not (tmp_path / "out").exists()
            assert not [one for one in left(tmp_path) if one.endswith(".part")]
            del net.changes[asking.FILE_FIND]


@pytest.mark.asyncio
async def test_wrong_roots_sizes_and_schemes_of_a_file_are_seen(tmp_path: Path) -> None:
    def root(reply: Any) -> None:
        reply.file.object.root = b"r" * 32

    def size(reply: Any) -> None:
        reply.file.object.size_bytes = 1 << 50

    def scheme(reply: Any) -> None:
        reply.file.object.total_shares = 77

    def other_name(reply: Any) -> None:
        reply.file.name = b"\x00" * 100

    def short_id(reply: Any) -> None:
        reply.file.object.object_id = b"x"

    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.put(b"content", "f")
        for change in (root, size, scheme, other_name, short_id):
            lie(net, asking.FILE_FIND, asking.FileReply, change)
            with pytest.raises((StorageError, TransferFailed)):
                await storage.get("f", tmp_path / "out")
        del net.changes[asking.FILE_FIND]

        def no_roots(reply: Any) -> None:
            del reply.roots[:]

        lie(net, asking.FILE_SEGMENTS, asking.SegmentRoots, no_roots)
        with pytest.raises(MetaLied, match="segment roots"):
            await storage.get("f", tmp_path / "out")


@pytest.mark.asyncio
async def test_lists_without_end_or_order_are_given_up(tmp_path: Path) -> None:
    def again(page: Any) -> None:
        page.has_more = True

    def huge(page: Any) -> None:
        for _ in range(2_000):
            page.files.add()

    async with network(tmp_path, 3) as net, net.storage() as storage:
        for name in ("a", "b"):
            await storage.put(b"x", name)

        async def same_page(handler: Any, stream: Any, connection: Any) -> None:
            row = (await storage.files.find("a")).row
            await stream.send(encode(asking.FilePage(files=[row], has_more=True)))
            stream.end()

        net.changes[asking.FILE_LIST] = same_page
        with pytest.raises(MetaLied, match="not in order"):
            _ = [one async for one in storage.files.everything()]
        lie(net, asking.FILE_LIST, asking.FilePage, huge)
        with pytest.raises(MetaLied, match="in a page"):
            _ = [one async for one in storage.list()]
        lie(net, asking.FILE_LIST, asking.FilePage, again)
        assert len([one async for one in storage.files.everything()]) == 2


@pytest.mark.asyncio
async def test_a_lease_that_is_another_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    def change(**fields: Any) -> Callable[[Any], None]:
        def done(reply: Any) -> None:
            lease = Lease.FromString(reply.certificate.body)
            for name, value in fields.items():
                setattr(lease, name, value)
            reply.certificate.CopyFrom(LeaseCertificate(body=encode(lease)))

        return done

    def crowd(reply: Any) -> None:
        for _ in range(1_000):
            reply.certificate.signatures.add()

    for number, one in enumerate(
        (change(noz=1), change(wallet="st1other"), change(chain_id="x"), change(meta_node="stsds1x"), change(expires_s=5), crowd)
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with network(folder, 1) as net, net.storage() as storage:
            lie(net, asking.LEASE_TAKE, asking.LeaseReply, one)
            with pytest.raises(MetaLied, match="lease"):
                await storage.put(b"x", "f")


@pytest.mark.asyncio
async def test_bytes_that_are_no_answer_and_bills_that_are_too_high_are_refused(tmp_path: Path) -> None:
    async def garbage(handler: Any, stream: Any, connection: Any) -> None:
        await stream.send(b"\xff" * 1_000)
        stream.end()

    def bill(plan: Any) -> None:
        plan.bill_noz = 10**15

    async with network(tmp_path, 3) as net, net.storage() as storage:
        lie(net, asking.OBJECT_PLAN, asking.Plan, bill)
        with pytest.raises(MetaLied, match="a bill of"):
            await storage.put(b"x", "f")
        for method, ask in ((asking.WALLET_INFO, storage.balance), (asking.FILE_FIND, lambda: storage.stat("f"))):
            net.changes[method] = garbage
            with pytest.raises(MetaLied, match="that are none"):
                await ask()


@pytest.mark.asyncio
async def test_a_network_of_another_chain_and_meta_nodes_that_are_away_are_told(tmp_path: Path) -> None:
    async with network(tmp_path, 1) as net:
        away = MetaAddress(b"a" * 20, "127.0.0.1", 1)
        with pytest.raises(MetaUnreachable, match="no meta node answers"):
            async with _storage(net, [away]):
                raise AssertionError
        async with _storage(net, [away, net.where]) as storage:
            await storage.put(b"x", "f")
            assert storage.metas[0] == net.where
        another = MetaAddress(b"b" * 20, net.where.host, net.where.port)
        with pytest.raises(MetaUnreachable):
            async with _storage(net, [another]):
                raise AssertionError


def _storage(net: Network, metas: list[MetaAddress]) -> Any:
    return Storage(net.wallet(), "stratos-test-1", metas, clock=net.clock)


@pytest.mark.asyncio
async def test_shares_that_a_node_keeps_badly_are_done_without_and_too_few_are_told(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.put(b"content" * 10_000, "f")
        for node in net.nodes[:2]:
            damage(node.home)
        assert b"".join([bytes(one) async for one in storage.read("f")]) == b"content" * 10_000
        damage(net.nodes[2].home)
        with pytest.raises((NotReadable, StorageError)):
            await storage.get("f", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def damage(home: Path) -> None:
    """Change a byte of all that a node has on disk of shares."""
    for path in (home / "shares").rglob("*"):
        if path.is_file() and path.stat().st_size > 60_000 and "index" not in path.name:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)


def test_meta_nodes_are_written_in_one_form() -> None:
    assert parse_endpoint("[::1]:80") == ("::1", 80)
    for wrong in ("", "host", "host:", "host:0", "host:65536", ":80", "host:x", "h" * 200 + ":1"):
        with pytest.raises(ValueError, match="endpoint"):
            parse_endpoint(wrong)
    for wrong in ("host:80", "stsds1x@host:80", "stsdspub1x@host:80"):
        with pytest.raises(ValueError):
            parse_meta(wrong)
