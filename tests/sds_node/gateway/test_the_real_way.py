"""The whole way: HTTP, the gateway, a meta node with its ledger, resource nodes. A chain, a meta node and four resource nodes run in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chain.crypto import address as bech32
from sds_node import asking
from sds_node.client.errors import StorageError
from sds_node.client.leases import Lease as HeldLease
from sds_node.client.meta import MetaAddress, MetaClient
from sds_node.documents import Lease
from sds_node.gateway.asking import StringClient, TaskLease, legacy_ask
from sds_node.gateway.backend import Ask, BackendError, StringRefused
from sds_node.gateway.network import NetworkBackend
from sds_node.hashes import file_hash
from sds_node.legacy import legacy_lookup_id, ranked, responsible
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.legacy import Legacy
from sds_node.meta.nodes.registry import prefix_of
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.tables import OBJECT, SEGMENT, WALLET
from sds_node.requests import Action, UsedStrings, parse_signature
from sds_node.schemes import THREE_REPLICAS, bill_noz
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import StorageNetwork, key_of, wallet_of
from sds_node.wire.errors import Refused
from tests.sds_node.data.network import content
from tests.sds_node.gateway.memory import Site, signature, site

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALICE, BOB, CAROL = key_of("alice"), key_of("bob"), key_of("carol")


class Wall:
    """The machine's time, and what a test adds so that strings differ."""

    def __init__(self) -> None:
        self._more_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    @property
    def now_s(self) -> float:
        return time.time() + self._more_s

    @now_s.setter
    def now_s(self, value: float) -> None:
        self._more_s = value - time.time()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    async with StorageNetwork.started(tmp_path_factory.mktemp("network"), nodes=4, wallets=("alice", "bob", "carol")) as made:
        meta = made.meta
        if asking.LEGACY_OPEN not in meta.wire.handlers:
            legacy = Legacy(
                meta.proposer, meta.users.sessions, meta.users.lending, meta.registry, made.clock, online=lambda: [], prefix_of=prefix_of,
                used=UsedStrings(),
            )  # fmt: skip
            meta.wire.handlers.update({**meta.users.handlers(), **legacy.handlers()})
        await made.buy_ozone("alice", 10**20)
        await made.buy_ozone("bob", 10**20)
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def here(network: StorageNetwork, tmp_path: Path) -> AsyncIterator[Site]:
    clock: Any = Wall()
    backend = NetworkBackend(CHAIN_ID, [network.meta_address], clock)
    async with site(tmp_path, backend, clock) as made:
        yield made


async def balance(network: StorageNetwork, name: str) -> int:
    row = await network.meta.ledger.query(lambda view: view.get(WALLET, (key_of(name).public_key.address,)))
    return int(row.paid_noz)


async def settled(network: StorageNetwork) -> None:
    await network.until(lambda: len(network.meta.users.leases) == 0, "all leases are settled")
    await network.meta.ledger.query(check)


async def test_without_upload_sign_a_file_is_stored_shared_read_and_deleted(network: StorageNetwork, here: Site) -> None:
    data = content(1, 4_000_000)
    before = await balance(network, "alice")
    first = await here.sequence(ALICE)
    wanted = await here.stored(data, "report.bin", ALICE)
    await settled(network)
    spent = before - await balance(network, "alice")
    bill = bill_noz(THREE_REPLICAS, len(data))
    assert bill <= spent <= bill + bill * 5 // 100  # the bill, and the governed share of what was earned at once
    assert await here.sequence(ALICE) > first

    status = await here.call("user_getFileStatus", **here.file_params(wanted, ALICE))
    assert (status["file_upload_state"], status["user_has_file"], status["replicas"]) == (3, True, 3)
    listed = await here.call("user_requestList", page=0, **here.list_params(ALICE))
    assert [(one["filehash"], one["filesize"], one["filename"]) for one in listed["fileinfo"]] == [(wanted, len(data), "report.bin")]

    here.clock.now_s += 1
    text = signature(ALICE, f"{wanted}{wallet_of('alice')}{await here.sequence(ALICE)}{here.time()}")
    packet = await here.call("user_requestDownload", filehandle=f"sdm://{wallet_of('alice')}/{wanted}", req_time=here.time(), signature=text)
    assert await here.downloaded(packet, wanted) == data

    here.clock.now_s += 1
    shared = await here.call("user_requestShare", duration=0, bool=True, **here.file_params(wanted, ALICE))
    link, time_s, bob = shared["sharelink"], here.time(), wallet_of("bob")
    old = await here.call("user_requestGetShared", sharelink=link, req_time=time_s, signature=signature(BOB, f"{link}{bob}{time_s}"))
    assert old["return"] == "4", old
    assert (old["return"], old["filehash"], old["filesize"]) == ("4", wanted, len(data))
    second = {"filehash": wanted, "reqid": old["reqid"], "req_time": time_s}
    packet = await here.call(
        "user_requestDownloadShared", **second, signature=signature(BOB, f"{wanted}{bob}{old['sequencenumber']}{time_s}")
    )  # fmt: skip
    assert await here.downloaded(packet, wanted) == data
    shares = await here.call("user_requestListShare", page=0, **here.list_params(ALICE))
    assert (shares["totalnumber"], shares["fileinfo"][0]["filename"], shares["fileinfo"][0]["shareid"]) == (1, "report.bin", shared["shareid"])

    await settled(network)
    paid = await balance(network, "bob")
    here.clock.now_s += 1
    bare = shared["shareid"]
    text = signature(BOB, f"{bare}{bob}{await here.sequence(BOB)}{here.time()}")
    packet = await here.call("user_requestGetShared", sharelink=f"sds://{link}", req_time=here.time(), signature=text)
    assert packet["return"] == "2"
    assert await here.downloaded(packet, wanted) == data
    await settled(network)
    # The delivery, and the governed share, which each window rounds down.
    assert 0 <= len(data) + len(data) * 5 // 100 - (paid - await balance(network, "bob")) <= 2

    here.clock.now_s += 1
    stop = {"shareid": bare, "req_time": here.time(), "signature": signature(ALICE, f"{bare}{wallet_of('alice')}{here.time()}")}
    assert (await here.call("user_requestStopShare", **stop))["return"] == "0"
    here.clock.now_s += 1
    deleted = await here.call("user_requestDeleteFile", **here.file_params(wanted, ALICE))
    assert deleted == {"return": "0"}
    here.clock.now_s += 1
    assert (await here.call("user_getFileStatus", **here.file_params(wanted, ALICE)))["file_upload_state"] == 0


async def test_with_upload_sign_and_a_duplicate(network: StorageNetwork, here: Site) -> None:
    data = content(2, 100_000)
    wanted = file_hash(data)
    assert (await here.send(data, "two.bin", BOB))["return"] == "0"
    assert await here.call("user_uploadSign", **await here.upload_params(wanted, BOB)) == {"return": "0"}
    status: dict[str, Any] = {}
    for _ in range(400):
        status = await here.call("user_getFileStatus", **here.file_params(wanted, BOB))
        if status["file_upload_state"] != 1:
            break
        await asyncio.sleep(0.05)
    assert status["file_upload_state"] == 3
    await settled(network)
    paid = await balance(network, "bob")
    here.clock.now_s += 1
    assert (await here.send(data, "again.bin", BOB))["return"] == "0"
    here.clock.now_s += 1
    answer = await here.call("user_uploadSign", **await here.upload_params(wanted, BOB))
    assert answer["return"].startswith("-9, Same file with the name two.bin")
    await settled(network)
    assert await balance(network, "bob") == paid


async def test_an_empty_file_and_one_beyond_a_segment(network: StorageNetwork, here: Site) -> None:
    for data in (b"", content(3, 33_554_433)):
        wanted = await here.stored(data, "size.bin", ALICE)
        text = signature(ALICE, f"{wanted}{wallet_of('alice')}{await here.sequence(ALICE)}{here.time()}")
        packet = await here.call("user_requestDownload", filehandle=f"sdm://{wallet_of('alice')}/{wanted}", req_time=here.time(), signature=text)
        assert await here.downloaded(packet, wanted) == data
    await settled(network)


async def test_a_wallet_without_ozone_stores_and_reads_nothing(here: Site) -> None:
    answer = await here.send(b"x" * 100, "x", CAROL)
    assert (answer["return"], "not enough ozone" in answer["detail"]) == ("-9", True)


async def test_a_status_string_cannot_delete_and_a_deletion_can_do_nothing_else(network: StorageNetwork, here: Site, tmp_path: Path) -> None:
    wanted = await here.stored(content(4, 1_000), "four.bin", ALICE)
    polled = here.file_params(wanted, ALICE)
    assert (await here.call("user_getFileStatus", **polled))["file_upload_state"] == 3
    assert (await here.call("user_requestDeleteFile", **polled))["return"] == "-3"
    # Another gateway, which has not seen the poll: the wallet's meta node has.
    other = NetworkBackend(CHAIN_ID, [network.meta_address], here.clock)
    try:
        given = polled["signature"]
        signed = parse_signature(given["address"], given["pubkey"], given["signature"])
        with pytest.raises(StringRefused):
            await other.delete(Ask(Action.DELETE_FILE, wanted, "", polled["req_time"], signed))
    finally:
        await other.close()
    here.clock.now_s += 1
    deletion = here.file_params(wanted, ALICE)
    assert (await here.call("user_requestDeleteFile", **deletion))["return"] == "0"
    assert (await here.call("user_requestDeleteFile", **deletion))["return"] == "0"  # sent again, it is done
    assert (await here.call("user_requestShare", **deletion))["return"] == "-3"


async def ask_of(here: Site, action: Action, subject: str, key: Any, sequence: str = "", time_s: int = 0) -> Ask:
    time_s = time_s or here.time()
    text = signature(key, f"{subject}{bech32.encode(key.public_key.address)}{sequence}{time_s}")
    return Ask(action, subject, sequence, time_s, parse_signature(text["address"], text["pubkey"], text["signature"]))


async def test_a_string_pays_for_one_task_on_one_file(network: StorageNetwork, here: Site) -> None:
    data, backend = content(5, 5_000), here.gateway.backend
    wanted = await here.stored(data, "five.bin", ALICE)
    other = await here.stored(content(6, 5_000), "six.bin", ALICE)
    here.clock.now_s += 1
    ask = await ask_of(here, Action.DOWNLOAD, wanted, ALICE, await here.sequence(ALICE))
    assert isinstance(backend, NetworkBackend)
    reading = await backend.begin_download(ask)
    try:
        with pytest.raises(StringRefused, match="used before"):
            await backend.begin_download(ask)
        client = StringClient(wallet_of("alice"), ALICE.public_key.address, CHAIN_ID, [network.meta_address], here.clock)
        client.use(ask)
        peer = client._metas[network.meta_address.address].peer  # what a gateway that lies would do

        async def refused(method: str, head: Any) -> str:
            with pytest.raises(Refused) as caught:
                await peer.ask(method, head.SerializeToString())
            return caught.value.text

        await client.ask(asking.WALLET_INFO, None, asking.WalletRow)
        found = await client.ask(asking.FILE_FIND, asking.FileFindHead(file_hash=wanted), asking.FileReply)
        assert "find that one" in await refused(asking.FILE_FIND, asking.FileFindHead(file_hash=other))

        def look(view: ReadView) -> bytes:
            rows = view.scan(OBJECT, (ALICE.public_key.address, other), index="by_hash", limit=1)
            return bytes(rows[0].id)

        another = await network.meta.ledger.query(look)
        share = asking.GetAsk(object_id=another, segment=0, index=0, size_bytes=10)
        assert "another file" in await refused(asking.PLACE_GET, asking.PlaceGetHead(lease_id=bytes(32), shares=[share]))
        assert "1 to" in await refused(asking.LEASE_TAKE, asking.LeaseHead(noz=10**12, seconds=60, fund=1))
        assert "used before" in await refused(asking.LEASE_TAKE, asking.LeaseHead(noz=10, seconds=60, fund=1))
        for method, head in (
            (asking.PLACE_PUT, asking.PlacePutHead(lease_id=bytes(32))), (asking.FILE_LIST, asking.FileListHead(limit=10)),
            (asking.SHARE_LIST, asking.ShareListHead(limit=10)), (asking.FILE_ORDER, asking.OrderHead()), (asking.FILE_HEALTH, asking.HealthHead()),
        ):  # fmt: skip
            assert "sign a string for that" in await refused(method, head)
        assert found.file.object.file_hash == wanted
        await client.close()
        read = b"".join([bytes(piece) async for piece in reading.read(0, 5_000)])
        assert read == data
    finally:
        await reading.close()
    await settled(network)


async def test_an_upload_string_stores_its_own_file_alone(network: StorageNetwork, here: Site) -> None:
    wanted = file_hash(b"mine")
    ask = await ask_of(here, Action.UPLOAD, wanted, ALICE, await here.sequence(ALICE))
    backend = here.gateway.backend
    storing = await backend.begin_upload(ask, 4)
    head = asking.LegacySession(wallet=ALICE.public_key.address, size_bytes=4)
    head.upload.CopyFrom(legacy_ask(ask))
    client = StringClient(wallet_of("alice"), ALICE.public_key.address, CHAIN_ID, [network.meta_address], here.clock)
    client.use(ask, 4)
    await client.ask(asking.WALLET_INFO, None, asking.WalletRow)
    peer = client._metas[network.meta_address.address].peer
    right, another = legacy_lookup_id(ALICE.public_key.address, wanted), legacy_lookup_id(ALICE.public_key.address, file_hash(b"theirs"))
    for one in (
        asking.StoredObject(counter=1, file_hash=file_hash(b"theirs"), size_bytes=4, file={"is_public": True, "lookup_id": right}),
        asking.StoredObject(counter=1, file_hash=wanted, size_bytes=5, file={"is_public": True, "lookup_id": right}),
        asking.StoredObject(counter=2, file_hash=wanted, size_bytes=4, file={"is_public": True, "lookup_id": right}),
        asking.StoredObject(counter=1, file_hash=wanted, size_bytes=4, file={"lookup_id": right}),
        # The file that is at that id now would go to the trash.
        asking.StoredObject(counter=1, file_hash=wanted, size_bytes=4, file={"is_public": True, "lookup_id": another}),
        asking.StoredObject(counter=1, file_hash=wanted, size_bytes=4, file={"is_public": True}),
        asking.StoredObject(counter=1, file_hash=wanted, size_bytes=4, file={"is_public": True, "lookup_id": right, "wrapped_key": b"k" * 40}),
    ):
        with pytest.raises(Refused, match="this string stores"):
            await peer.ask(asking.OBJECT_COMMIT, b"", asking.CommitAsk(lease_id=bytes(32), objects=[one]).SerializeToString())
    put = asking.PutAsk(counter=1, object_bytes=400, segment_bytes=400, data_shares=1, total_shares=3)
    with pytest.raises(Refused, match="this string stores"):
        await peer.ask(asking.PLACE_PUT, asking.PlacePutHead(lease_id=bytes(32), segments=[put]).SerializeToString())
    await client.close()
    await storing.close()
    with pytest.raises(StringRefused):
        await backend.begin_upload(ask, 4)
    await settled(network)


async def test_what_is_sent_again_because_its_answer_was_lost_is_answered_again(network: StorageNetwork, here: Site) -> None:
    wanted = await here.stored(content(11, 300), "eleven.bin", ALICE)
    ask = await ask_of(here, Action.DOWNLOAD, wanted, ALICE, await here.sequence(ALICE))
    client = StringClient(wallet_of("alice"), ALICE.public_key.address, CHAIN_ID, [network.meta_address], here.clock)
    client.use(ask)
    head = asking.LeaseHead(noz=400, seconds=600, fund=1)
    first = await client.ask(asking.LEASE_TAKE, head, asking.LeaseReply)
    assert await client.ask(asking.LEASE_TAKE, head, asking.LeaseReply) == first
    with pytest.raises(StorageError, match="one task"):
        await client.ask(asking.LEASE_TAKE, asking.LeaseHead(noz=401, seconds=600, fund=1), asking.LeaseReply)
    await client.ask(asking.LEASE_END, asking.LeaseEndHead(lease_id=Lease.FromString(first.certificate.body).lease_id), None)
    here.clock.now_s += 1
    order = asking.LegacyOrder(wallet=ALICE.public_key.address, ask=legacy_ask(await ask_of(here, Action.DELETE_FILE, wanted, ALICE)), delete=True)
    for _ in range(2):
        await client.ask(asking.LEGACY_ORDER, order, None, without_session=True)
    await client.close()
    await settled(network)


async def test_forged_strings_are_refused_by_the_meta_node_itself(network: StorageNetwork, here: Site) -> None:
    backend, now_s = here.gateway.backend, here.time()
    wanted = await here.stored(content(8, 100), "eight.bin", ALICE)
    here.clock.now_s += 1
    sequence = await here.sequence(ALICE)
    good = await ask_of(here, Action.DOWNLOAD, wanted, ALICE, sequence)
    forged = Ask(Action.DOWNLOAD, wanted, sequence, good.timestamp_s, (await ask_of(here, Action.DOWNLOAD, wanted, BOB, sequence)).signature)
    stolen = parse_signature(good.signature.wallet, here_pubkey(ALICE), forged.signature.signature.hex())
    old = await ask_of(here, Action.DOWNLOAD, wanted, ALICE, sequence, now_s - 400)
    ahead = await ask_of(here, Action.DOWNLOAD, wanted, ALICE, "SN:0000000000000009999")
    for ask in (Ask(Action.DOWNLOAD, wanted, sequence, good.timestamp_s, stolen), old, ahead):
        with pytest.raises(StringRefused):
            await backend.begin_download(ask)
    with pytest.raises(BackendError):
        await backend.files(Ask(Action.LIST_FILES, "", "", good.timestamp_s, good.signature), 0)
    # A wallet reads no private list of another's, nor deletes what is not its own.
    with pytest.raises(BackendError):
        await backend.delete(await ask_of(here, Action.DELETE_FILE, wanted, BOB))
    assert (await here.call("user_getFileStatus", **here.file_params(wanted, ALICE)))["file_upload_state"] == 3


def here_pubkey(key: Any) -> str:
    return bech32.encode(key.public_key.raw, "stpub")


async def test_a_gateway_beside_a_node_does_not_store_with_it(network: StorageNetwork, here: Site) -> None:
    meta = network.meta
    legacy = Legacy(
        meta.proposer, meta.users.sessions, meta.users.lending, meta.registry, network.clock, online=lambda: [],
        prefix_of=lambda _: prefix_of("127.0.2.7"), used=UsedStrings(),
    )  # fmt: skip
    barred = await legacy._barred("127.0.0.1")
    assert (barred.prefixes, barred.owners) == ({bytes([127, 0, 2])}, {key_of("owner 2").public_key.address})
    # What a meta node says in the ledger of nodes that are heard here changes nothing.
    rows, before_rows = meta.registry.rows(), dict(meta.registry.rows())
    rows.update({number: row._replace(prefix=bytes([127, 0, 2])) for number, row in before_rows.items()})
    try:
        assert await legacy._barred("127.0.0.1") == barred
    finally:
        rows.update(before_rows)
    before = dict(meta.wire.handlers)
    meta.wire.handlers.update({**meta.users.handlers(), **legacy.handlers()})
    holders = set()
    try:
        for number in range(3):
            wanted = await here.stored(b"beside %d" % number, f"beside{number}", ALICE)

            def look(view: ReadView, wanted: str = wanted) -> set[int]:
                row = view.scan(OBJECT, (ALICE.public_key.address, wanted), index="by_hash", limit=1)[0]
                return set(nodes_of(view.scan(SEGMENT, start=(row.first_segment,), limit=1)[0].nodes))

            holders |= await meta.ledger.query(look)
    finally:
        meta.wire.handlers.update(before)
    beside = {number for number, row in meta.registry.rows().items() if row.owner == key_of("owner 2").public_key.address}
    assert len(holders) == 3
    assert len(beside) == 1
    assert not holders & beside


async def test_a_task_that_lasts_moves_the_number_before_its_string_is_too_old(network: StorageNetwork, here: Site, tmp_path: Path) -> None:
    meta = network.meta
    legacy = Legacy(
        meta.proposer, meta.users.sessions, meta.users.lending, meta.registry, network.clock, online=lambda: [], prefix_of=prefix_of, used=UsedStrings()
    )  # fmt: skip
    before = dict(meta.wire.handlers)
    meta.wire.handlers.update({**meta.users.handlers(), **legacy.handlers()})
    try:
        sequence, backend = await here.sequence(ALICE), here.gateway.backend
        young = await backend.begin_upload(await ask_of(here, Action.UPLOAD, file_hash(b"young"), ALICE, sequence), 5)
        await legacy.step()
        assert await here.sequence(ALICE) == sequence
        old = await backend.begin_upload(await ask_of(here, Action.UPLOAD, file_hash(b"old"), ALICE, sequence, int(time.time()) - 275), 3)
        await legacy.step()
        moved = await here.sequence(ALICE)
        assert moved > sequence
        await legacy.step()
        await old.close()
        await young.close()  # its number is gone: that is no error
        assert await here.sequence(ALICE) == moved
        await settled(network)
    finally:
        meta.wire.handlers.update(before)


async def test_another_meta_node_keeps_the_record_of_some_wallets(network: StorageNetwork) -> None:
    meta, other = network.meta, b"\x01" * 20
    legacy = Legacy(
        meta.proposer, meta.users.sessions, meta.users.lending, meta.registry, network.clock, online=lambda: [other], prefix_of=prefix_of
    )  # fmt: skip
    wallets = [bytes([number]) * 20 for number in range(64)]
    ours = [one for one in wallets if responsible(one, [other, meta.keys.address]) == meta.keys.address]
    assert 8 < len(ours) < 56
    for one in wallets:
        if one in ours:
            legacy.strings.check_responsible(one)
            continue
        with pytest.raises(Refused) as caught:
            legacy.strings.check_responsible(one)
        assert caught.value.code == asking.TRY_ANOTHER
    assert ranked(wallets[0], [other, meta.keys.address]) == ranked(wallets[0], [meta.keys.address, other, other])


async def test_a_wallets_calls_go_to_its_meta_node_first(network: StorageNetwork) -> None:
    others = [MetaAddress(bytes([number]) * 20, "127.0.0.1", 1) for number in range(1, 6)]
    client = StringClient(wallet_of("alice"), ALICE.public_key.address, CHAIN_ID, [*others, network.meta_address], time.time)
    order = [one.where.address for one in client._in_turn(None)]
    assert order == ranked(ALICE.public_key.address, [*(one.address for one in others), network.meta_address.address])
    assert [one.where.address for one in client._in_turn(others[2].address)] == [others[2].address]
    await client.close()


async def test_strangers_leave_no_trace(network: StorageNetwork, here: Site) -> None:
    stranger = key_of("nobody at all")
    wanted = file_hash(b"nothing")
    status = await here.call("user_getFileStatus", **here.file_params(wanted, stranger))
    assert (status["return"], status["file_upload_state"]) == ("0", 0)
    assert (await here.call("user_requestDeleteFile", **here.file_params(wanted, stranger)))["return"] == "-6"
    assert (await here.call("user_requestUpload", filename="x", filesize=0, **await here.upload_params(wanted, stranger)))["return"] == "-9"
    assert len(here.gateway.used) == 0
    assert await here.gateway.backend.file(await ask_of(here, Action.FILE_STATUS, wanted, stranger)) is None
    with pytest.raises(BackendError, match="nothing is known"):
        await here.gateway.backend.files(await ask_of(here, Action.LIST_FILES, "", stranger), 0)


async def test_many_files_are_listed_page_by_page(network: StorageNetwork, here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.gateway.network.PAGE", 3)
    for number in range(5):
        here.clock.now_s += 1
        await here.stored(b"file %d" % number, f"{number}.txt", BOB)

    async def names(page: int) -> list[str]:
        here.clock.now_s += 1
        found = await here.call("user_requestList", page=page, **here.list_params(BOB))
        assert 5 <= found["totalnumber"] <= 6
        return [one["filename"] for one in found.get("fileinfo", [])]

    newest = await names(0)
    assert newest == ["4.txt", "3.txt", "2.txt"]
    everything = {*newest, *await names(1)}
    assert await names(2) == []
    monkeypatch.setattr("sds_node.gateway.network.MAX_SORTED", 3)  # as for a wallet with very many
    last = await names(1)
    assert {*await names(0), *last} == everything
    assert await names(1) == last
    assert await names(700) == []


async def test_folders_and_private_files_of_the_same_wallet_do_not_break_its_list(network: StorageNetwork, here: Site) -> None:
    await network.buy_ozone("carol", 10**20)
    async with network.storage("carol") as storage:
        await storage.mkdir("folder")
        await storage.put(b"nothing", "folder/secret")
        secret = await storage.files.find("folder/secret")
    size_bytes, wanted = secret.stored_bytes, secret.row.object.file_hash
    listed = await here.call("user_requestList", page=0, **here.list_params(CAROL))
    assert (listed["return"], listed["totalnumber"]) == ("0", 1)
    assert [(one["filehash"], one["filesize"]) for one in listed["fileinfo"]] == [(wanted, size_bytes)]
    # Clients read as many bytes as the list says, and compare them with the hash that it says: of what is stored, which is what a gateway can give.
    here.clock.now_s += 1
    text = signature(CAROL, f"{wanted}{wallet_of('carol')}{await here.sequence(CAROL)}{here.time()}")
    packet = await here.call("user_requestDownload", filehandle=f"sdm://{wallet_of('carol')}/{wanted}", req_time=here.time(), signature=text)
    assert packet["filesize"] == size_bytes
    read = await here.downloaded(packet, wanted)
    assert (len(read), file_hash(read)) == (size_bytes, wanted)


async def test_the_lease_of_a_task_stays_though_a_share_too_many_is_refused_under_it() -> None:
    client = MetaClient(key_of("carol"), CHAIN_ID, [MetaAddress(bytes(20), "127.0.0.1", 1)], clock=time.time)
    lease = HeldLease(certificate=None, lease_id=bytes(32), meta=bytes(20), noz=10, left_noz=10, expires_s=1 << 40)
    leases = TaskLease(client)
    leases.lease = lease
    leases.lost(lease)
    assert (await leases.hold(5)).lease is lease
