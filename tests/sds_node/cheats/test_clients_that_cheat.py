"""Clients that want more than they pay for (storage-interfaces.md 4.3: T4, T7, T8): what they get is bounded, and then they get nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sds_node import asking, transfers
from sds_node.client import Storage, StorageError
from sds_node.client.errors import LeaseGone
from sds_node.client.files import StoredFile
from sds_node.client.get import ShareToGet, get_share, last_receipts
from sds_node.client.placing import GetWanted, NodeFailed, Place
from sds_node.merkle import leaf_count, segment_root, share_root
from sds_node.meta.rules.invariants import check
from sds_node.meta.users import sessions
from sds_node.testing.network import StorageNetwork
from sds_node.transfers import Run, head_bytes, receive_record
from sds_node.wire.errors import WireError
from tests.sds_node.cheats.support import content, started, waited

pytestmark = pytest.mark.asyncio(loop_scope="module")
MIB = 1 << 20
SIZE = 5 * MIB


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    async with started(tmp_path_factory.mktemp("network")) as made:
        for one in made.resources:
            assert one.node is not None
            # A receipt that does not come is not waited for half a minute.
            one.node.service.settings = replace(one.node.service.settings, receipt_s=0.5, sent_s=2.0)
        async with made.storage("alice") as storage:
            await storage.put(content(1, SIZE), "film", public=True)
        yield made


async def place_of(storage: Storage, file: StoredFile, index: int = 0) -> Place:
    """A place to read a whole copy of a file of one segment."""
    wanted = GetWanted(bytes(file.row.object.root), 0, index, file.stored_bytes)
    found = await storage._ways.places.get(file.object_id, wanted)
    assert found is not None
    return found


async def free_ride(storage: Storage, place: Place, size_bytes: int) -> tuple[int, int]:
    """Read, and give no receipt: (bytes that came, the code that the stream ended with)."""
    head = transfers.GetHead(certificate=place.certificate)
    head.evidence.CopyFrom(storage._client.session.evidence(place.order_limit))
    head.runs.add(first=0, leaves=leaf_count(size_bytes))
    count = 0
    try:
        stream = await place.peer.call(transfers.GET, head_bytes(head))
        if await receive_record(stream, transfers.MAX_REPLY_BYTES) is None:
            await stream.result()
        while chunk := await stream.receive():
            count += len(chunk)
    except WireError as error:
        return count, error.code
    return count, 0


async def test_who_gives_no_receipts_gets_four_mebibytes_a_stream_and_sixty_four_a_wallet(network: StorageNetwork) -> None:
    """T4. All at one node, with as many sessions as it takes; the copies of alice's are at three nodes, so in all she may have three times as much."""
    total, endings, sessions_used = 0, list[int](), 0
    first: bytes | None = None
    while sessions_used < 8:
        sessions_used += 1
        async with network.storage("alice") as storage:
            file = await storage.files.find("film")
            of_session = []
            while True:
                places = [await place_of(storage, file, index) for index in range(3)]
                first = first or places[0].peer.address
                place = next(one for one in places if one.peer.address == first)
                count, code = await free_ride(storage, place, file.stored_bytes)
                of_session.append(count)
                total += count
                endings.append(code)
                assert count <= 4 * MIB
                if code != transfers.RECEIPT_REFUSED:
                    break
            assert len(of_session) <= 4, "three final receipts that are missing keep a session out"
    assert endings[0] == transfers.RECEIPT_REFUSED
    assert endings[3] == transfers.RECEIPTS_DUE
    assert total == 64 * MIB
    # Somebody else is served as before, and the free rider everywhere where he owes nothing.
    async with network.storage("bob") as storage:
        file = await storage.files.by_id(file.object_id)
        place = next(one for one in [await place_of(storage, file, index) for index in range(3)] if one.peer.address == first)
        assert (await free_ride(storage, place, file.stored_bytes))[0] == 4 * MIB
    await network.meta.ledger.query(check)


async def test_a_limit_moves_bytes_once_and_for_its_own_session(network: StorageNetwork, tmp_path: Path) -> None:
    data = content(2, 100_000)
    async with network.storage("bob") as storage, network.storage("mallory") as thief:
        await storage.put(data, "letter", public=True)
        file = await storage.files.find("letter")
        place = await place_of(storage, file)
        # Stolen on its way: the thief's key is not the limit's.
        stolen = Place(thief._client.peer(place.node_key, _endpoint(network, place), None), place.node_key, place.order_limit, place.certificate)
        assert await free_ride(thief, stolen, len(data)) == (0, transfers.LIMIT_REFUSED)
        root = share_root(data)
        share = ShareToGet(segment_root([root] * 3), 0, 3, len(data))
        buffer = bytearray(len(data))
        await get_share(storage._client.session, place, share, [Run(0, leaf_count(len(data)))], memoryview(buffer))
        assert bytes(buffer) == data
        await last_receipts(storage._client.node, 5.0)
        count, code = await free_ride(storage, place, len(data))
        assert (count, code) == (0, transfers.LIMIT_USED)
        with pytest.raises(NodeFailed, match="was used already"):
            await get_share(storage._client.session, place, share, [Run(0, leaf_count(len(data)))], memoryview(bytearray(len(data))))


def _endpoint(network: StorageNetwork, place: Place) -> str:
    for made in network.resources:
        if made.node is not None and made.node.address == place.peer.address:
            assert made.node.listening is not None
            return ":".join(map(str, made.node.listening))
    raise AssertionError("no such node")


async def test_another_sessions_lease_gives_nothing(network: StorageNetwork) -> None:
    async with network.storage("alice") as victim, network.storage("bob") as thief:
        hold = await victim._ways.leases.hold(1_000_000)
        try:
            file = await thief.files.by_id((await victim.files.find("film")).object_id)
            head = asking.PlaceGetHead(lease_id=hold.lease.lease_id)
            head.shares.add(object_id=file.object_id, segment=0, index=0, size_bytes=file.stored_bytes)
            with pytest.raises(LeaseGone, match="another session's"):
                await thief._client.ask(asking.PLACE_GET, head, asking.Places, meta=hold.lease.meta)
            with pytest.raises(LeaseGone, match="another session's"):
                await thief._client.ask(asking.LEASE_END, asking.LeaseEndHead(lease_id=hold.lease.lease_id), None, meta=hold.lease.meta)
        finally:
            victim._ways.leases.give_back(hold)


async def test_acknowledgements_that_no_node_gave_bring_no_file_into_the_ledger(network: StorageNetwork) -> None:
    async with network.storage("alice") as storage:
        client: Any = storage._client
        ask = client.ask

        async def lying(method: str, head: Any, answer: Any, *, body: bytes = b"", **more: Any) -> Any:
            if method == asking.OBJECT_COMMIT:
                asked = asking.CommitAsk.FromString(body)
                share = asked.objects[0].segments[0].shares[0]
                share.ack.signature = bytes(64)
                body = asked.SerializeToString(deterministic=True)
            return await ask(method, head, answer, body=body, **more)

        client.ask = lying
        with pytest.raises(StorageError, match="has not signed"):
            await storage.put(content(3, 50_000), "never")
        client.ask = ask
        assert "never" not in {entry.path async for entry in storage.list()}
    await network.meta.ledger.query(check)


async def test_sessions_of_a_wallet_have_an_end(network: StorageNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them take the place of his own, and of nobody else's."""
    monkeypatch.setattr(sessions, "MAX_SESSIONS_OF_WALLET", 3)
    async with network.storage("alice") as victim:
        await victim.balance()
        kept = len(network.meta.users.sessions)
        for _ in range(12):
            async with network.storage("bob") as storage:
                await storage.balance()
        assert len(network.meta.users.sessions) <= kept + 3
        await victim.balance()


async def test_a_read_is_paid_by_who_reads_however_often_he_reads_it(network: StorageNetwork, tmp_path: Path) -> None:
    """T8: loops over one file cost what they move, and the same again each time."""
    async with network.storage("bob") as storage:
        link = await storage.share("letter")
    before_noz = await network.buy_ozone("finder", 10**18)
    async with network.storage("finder") as storage:
        for number in range(3):
            found = await storage.get_shared(link.link, tmp_path / f"letter{number}")

    async def settled() -> int:
        async with network.storage("finder") as storage:
            balance = await storage.balance()
            return balance.paid_noz if balance.open_leases == 0 else 0

    size_bytes = found.file.stored_bytes
    assert await waited(settled) == before_noz - 3 * size_bytes - 3 * size_bytes * 5 // 100
