"""What a gateway that lies, or somebody who has a wallet's string, cannot do at the wallet's meta node. A whole network runs in this process.

key of its own ─ legacy.open {string} ─► session with the string's task ─ requests that are not the task's ─► refused
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from modules.settlement.leaves import GET, PUT
from sds_node import asking
from sds_node.client.issuing import PutIssuer
from sds_node.client.leases import object_id
from sds_node.client.session import open_session
from sds_node.client.transfer import put_object
from sds_node.gateway.asking import StringClient, legacy_ask
from sds_node.gateway.backend import BackendError, StringRefused
from sds_node.gateway.network import FileRecord, NetworkBackend
from sds_node.hashes import file_hash
from sds_node.legacy import MAX_UPLOAD_BYTES, OBJECT_COUNTER, legacy_lookup_id, responsible
from sds_node.meta.ledger import errors as ledger_errors
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.legacy import Legacy
from sds_node.meta.legacy import service as legacy_service
from sds_node.meta.legacy.strings import Strings
from sds_node.meta.nodes.registry import prefix_of
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.tables import NODE, OBJECT, SEGMENT, WALLET, Wallet
from sds_node.meta.users import commits
from sds_node.requests import FRESH_S, Action, UsedStrings
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import StorageNetwork, key_of, wallet_of
from sds_node.wire.errors import Busy, Refused
from tests.sds_node.data.network import content
from tests.sds_node.gateway.memory import Site, signature, site
from tests.sds_node.gateway.test_the_real_way import Wall, ask_of, settled

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALICE, BOB = key_of("alice"), key_of("bob")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    async with StorageNetwork.started(tmp_path_factory.mktemp("network"), nodes=4, wallets=("alice", "bob")) as made:
        for name in ("alice", "bob"):
            await made.buy_ozone(name, 10**20)
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def here(network: StorageNetwork, tmp_path: Path) -> AsyncIterator[Site]:
    clock: Any = Wall()
    async with site(tmp_path, NetworkBackend(CHAIN_ID, [network.meta_address], clock), clock) as made:
        yield made


def client_of(network: StorageNetwork, here: Site, name: str = "alice") -> tuple[StringClient, Any]:
    """A client with a key of its own, and its connection as a gateway that lies would use it."""
    client = StringClient(wallet_of(name), key_of(name).public_key.address, CHAIN_ID, [network.meta_address], here.clock)
    return client, client._metas[network.meta_address.address].peer


async def row_of(network: StorageNetwork, name: str) -> Wallet:
    row = await network.meta.ledger.query(lambda view: view.get(WALLET, (key_of(name).public_key.address,)))
    assert row is not None
    return row


async def refused(peer: Any, method: str, head: bytes, body: bytes = b"") -> str:
    with pytest.raises((Refused, Busy)) as caught:
        await peer.ask(method, head, body) if body else await peer.ask(method, head)
    return str(caught.value)


@contextlib.asynccontextmanager
async def served(network: StorageNetwork, legacy: Legacy) -> AsyncIterator[None]:
    """Another legacy side in place of the meta node's own."""
    before = dict(network.meta.wire.handlers)
    network.meta.wire.handlers.update(legacy.handlers())
    try:
        yield
    finally:
        network.meta.wire.handlers.update(before)


def legacy_of(network: StorageNetwork, clock: Any = time.time, prefix: Any = prefix_of) -> Legacy:
    meta = network.meta
    return Legacy(
        meta.proposer, meta.users.sessions, meta.users.lending, meta.registry, clock, online=lambda: [], prefix_of=prefix, used=UsedStrings()
    )  # fmt: skip


# --- an upload ---


async def test_an_upload_string_sends_no_other_file_to_the_trash(network: StorageNetwork, here: Site) -> None:
    kept = await here.stored(content(1, 5_000), "precious.bin", ALICE)
    here.clock.now_s += 1
    wanted = file_hash(b"mine")
    backend: Any = here.gateway.backend
    storing: Any = await backend.begin_upload(await ask_of(here, Action.UPLOAD, wanted, ALICE, await here.sequence(ALICE)), 4)
    task, lease = storing._task, storing._lease

    async def source() -> AsyncIterator[bytes]:
        yield b"mine"

    issuer = PutIssuer(task.places, lease, OBJECT_COUNTER, 4)
    stored = await put_object(task.client.session, issuer, storing._scheme, object_id(lease.lease_id, 1), 4, source(), backend._settings)
    record = FileRecord(lookup_id=legacy_lookup_id(ALICE.public_key.address, kept), name=b"x", is_public=True)
    with pytest.raises(Exception, match="under its own id"):
        await task.committer.commit(lease, OBJECT_COUNTER, stored, wanted, record)
    await storing.close()
    here.clock.now_s += 1
    assert (await here.call("user_getFileStatus", **here.file_params(kept, ALICE)))["file_upload_state"] == 3
    assert (await row_of(network, "alice")).trash == 0
    await settled(network)


async def test_a_body_that_began_in_another_session_is_judged_by_the_string(network: StorageNetwork, here: Site) -> None:
    wanted, other = file_hash(b"gfile"), file_hash(b"something else")
    ask = await ask_of(here, Action.UPLOAD, wanted, ALICE, await here.sequence(ALICE))
    client, peer = client_of(network, here)
    client.use(ask, 5)
    own = open_session(BOB, CHAIN_ID, max_noz=1 << 60, actions=(GET, PUT), clock=here.clock, seed=client.session.seed)
    await peer.ask(asking.SESSION_OPEN, asking.SessionHead(grant=own.grant).SerializeToString(), most_bytes=1 << 20)
    stalled = await peer.call(asking.OBJECT_COMMIT, b"", ended=False)
    await network.until(lambda: network.meta.users.commits._under_way == 1, "the commit is begun")
    await client.ask(asking.WALLET_INFO, None, asking.WalletRow)  # opens the session by the string
    one = asking.StoredObject(counter=1, file_hash=other, size_bytes=5, file={"lookup_id": b"\x07" * 32, "wrapped_key": b"k" * 40})
    await stalled.send(asking.CommitAsk(lease_id=bytes(32), objects=[one]).SerializeToString())
    stalled.end()
    with pytest.raises(Refused, match="this string stores"):
        await stalled.result()
    await client.close()


async def test_bodies_of_a_legacy_session_count_as_everybodys(network: StorageNetwork, here: Site) -> None:
    ask = await ask_of(here, Action.UPLOAD, file_hash(b"nothing at all"), ALICE, await here.sequence(ALICE))
    client, peer = client_of(network, here)
    client.use(ask, 4)
    await client.ask(asking.WALLET_INFO, None, asking.WalletRow)
    held = [await peer.call(asking.OBJECT_COMMIT, b"", ended=False) for _ in range(commits.MAX_COMMITS_OF_WALLET)]
    for one in held:
        await one.send(bytes(100_000))
    counted = network.meta.users.commits
    await network.until(lambda: counted._under_way == len(held) and counted._bytes == len(held) * 100_000, "the bodies are counted")
    assert "commits of this wallet" in await refused(peer, asking.OBJECT_COMMIT, b"", b"x")
    for one in held:
        one.cancel()
    await network.until(lambda: counted._under_way == 0 and counted._bytes == 0, "nothing is counted")
    # What the task does not need is refused before its body comes.
    client.use(await ask_of(here, Action.LIST_FILES, "", ALICE))
    await client.ask(asking.WALLET_INFO, None, asking.WalletRow)
    assert "sign a string for that" in await refused(peer, asking.OBJECT_COMMIT, b"", bytes(1_000))
    await client.close()


async def test_an_upload_string_pays_for_no_more_than_a_bound(network: StorageNetwork, here: Site) -> None:
    client, _ = client_of(network, here)
    client.use(await ask_of(here, Action.UPLOAD, file_hash(b"four"), ALICE, await here.sequence(ALICE)), MAX_UPLOAD_BYTES + 1)
    with pytest.raises(Exception, match="a string stores at most"):
        await client.ask(asking.WALLET_INFO, None, asking.WalletRow)
    await client.close()


async def test_after_a_restart_what_has_a_lease_is_opened_by_its_old_string_and_nothing_else(network: StorageNetwork, here: Site) -> None:
    ask = await ask_of(here, Action.UPLOAD, file_hash(b"slow"), ALICE, await here.sequence(ALICE))
    storing: Any = await here.gateway.backend.begin_upload(ask, 4)
    head = asking.LegacySession(wallet=ALICE.public_key.address, size_bytes=4)
    head.upload.CopyFrom(legacy_ask(ask))
    stranger, other = client_of(network, here)
    peer = storing._task.client._metas[network.meta_address.address].peer
    async with served(network, legacy_of(network, lambda: time.time() + FRESH_S + 60)):
        assert "within 300 s" in await refused(other, asking.LEGACY_OPEN, head.SerializeToString())
        await peer.ask(asking.LEGACY_OPEN, head.SerializeToString(), most_bytes=1 << 20)
        lease = asking.LeaseHead(noz=10, seconds=60, fund=1)
        assert "one task" in await refused(peer, asking.LEASE_TAKE, lease.SerializeToString())
        forged = asking.LegacySession.FromString(head.SerializeToString())
        forged.upload.subject = file_hash(b"another")
        assert "signature is not" in await refused(peer, asking.LEGACY_OPEN, forged.SerializeToString())
        assert "there is no lease" in await refused(
            peer, asking.OBJECT_COMMIT, b"",
            asking.CommitAsk(
                lease_id=bytes(32),
                objects=[
                    asking.StoredObject(
                        counter=1, file_hash=ask.subject, size_bytes=4,
                        file={"is_public": True, "lookup_id": legacy_lookup_id(ALICE.public_key.address, ask.subject)},
                    )
                ],
            ).SerializeToString(),
        )  # fmt: skip
    await storing.close()
    await stranger.close()
    await settled(network)


# --- orders ---


async def test_an_order_that_comes_again_and_again_is_in_the_ledger_once(network: StorageNetwork, here: Site) -> None:
    wanted = await here.stored(content(2, 100), "d", BOB)
    here.clock.now_s += 1
    client, peer = client_of(network, here)
    order = asking.LegacyOrder(wallet=BOB.public_key.address, ask=legacy_ask(await ask_of(here, Action.DELETE_FILE, wanted, BOB)), delete=True)
    made: list[str] = []
    propose = network.meta.proposer.propose

    def counted(kind: str, message: Any) -> Any:
        made.append(kind)
        return propose(kind, message)

    network.meta.proposer.propose = counted  # type: ignore[method-assign]
    try:
        await asyncio.gather(*(peer.ask(asking.LEGACY_ORDER, order.SerializeToString()) for _ in range(20)))
        none = await ask_of(here, Action.DELETE_FILE, file_hash(b"none"), BOB)
        bad = asking.LegacyOrder(wallet=BOB.public_key.address, ask=legacy_ask(none), delete=True)
        answers = [await refused(peer, asking.LEGACY_ORDER, bad.SerializeToString()) for _ in range(30)]
        assert "too many" not in answers[0]
        assert "things a second" in answers[-1]  # each that is refused counts as ten
        assert made.count("legacy_order") == 1
    finally:
        network.meta.proposer.propose = propose  # type: ignore[method-assign]
    await client.close()


async def test_one_string_is_used_by_a_few_keys_at_most(network: StorageNetwork, here: Site) -> None:
    head = asking.LegacySession(wallet=ALICE.public_key.address)
    head.read.CopyFrom(legacy_ask(await ask_of(here, Action.LIST_FILES, "", ALICE)))
    before, opened, clients = len(network.meta.users.sessions), 0, []
    for _ in range(legacy_service.SESSIONS_OF_A_STRING + 4):
        client, peer = client_of(network, here)
        clients.append(client)
        with contextlib.suppress(Refused):
            await peer.ask(asking.LEGACY_OPEN, head.SerializeToString(), most_bytes=1 << 20)
            opened += 1
    assert opened == len(network.meta.users.sessions) - before == legacy_service.SESSIONS_OF_A_STRING
    for client in clients:
        await client.close()


# --- numbers ---


async def test_tasks_that_were_begun_with_one_number_all_go_through(network: StorageNetwork, here: Site) -> None:
    number = await here.sequence(ALICE)
    names = [file_hash(b"%d side by side" % one) for one in range(3)]
    asks = [await ask_of(here, Action.UPLOAD, one, ALICE, number, here.time() - at) for at, one in enumerate(names)]
    for at, ask in enumerate(asks):

        async def source(at: int = at) -> AsyncIterator[bytes]:
            yield b"%d side by side" % at

        storing = await here.gateway.backend.begin_upload(ask, 14)
        await storing.store("x", source())
        await storing.close()
    assert await here.sequence(ALICE) > number
    # Over HTTP: what was signed with the number of before is taken, and read.
    here.clock.now_s += 5
    params = await here.upload_params(file_hash(b"late"), ALICE, sequence=number)
    assert (await here.call("user_requestUpload", filename="x", filesize=4, **params))["return"] == "1"
    signed = signature(ALICE, f"{names[0]}{wallet_of('alice')}{number}{here.time()}")
    packet = await here.call("user_requestDownload", filehandle=f"sdm://{wallet_of('alice')}/{names[0]}", req_time=here.time(), signature=signed)
    assert await here.downloaded(packet, names[0]) == b"0 side by side"
    with pytest.raises(StringRefused, match="used for an upload before"):
        await here.gateway.backend.begin_download(await ask_of(here, Action.DOWNLOAD, names[0], ALICE, number, asks[0].timestamp_s))


async def test_a_number_goes_on_later_when_the_ledger_was_busy_at_the_tasks_end(network: StorageNetwork, here: Site) -> None:
    legacy = legacy_of(network)
    propose = network.meta.proposer.propose_tried

    async def busy(kind: str, message: Any) -> Any:
        if kind == "advance_sequence":
            raise ledger_errors.Busy("too much")
        return await propose(kind, message)

    async with served(network, legacy):
        number = await here.sequence(ALICE)
        storing = await here.gateway.backend.begin_upload(await ask_of(here, Action.UPLOAD, file_hash(b"busy"), ALICE, number), 4)
        network.meta.proposer.propose_tried = busy  # type: ignore[method-assign]
        try:
            await storing.close()
        finally:
            network.meta.proposer.propose_tried = propose  # type: ignore[method-assign]
        assert await here.sequence(ALICE) == number
        await legacy.step()
        assert await here.sequence(ALICE) > number
        assert not legacy._under_way
    await settled(network)


# --- downloads ---


async def test_a_download_string_pays_for_a_delivery_or_two_of_a_small_file(network: StorageNetwork, here: Site) -> None:
    wanted = await here.stored(b"hello small!!", "s", BOB)
    here.clock.now_s += 1
    reading: Any = await here.gateway.backend.begin_download(await ask_of(here, Action.DOWNLOAD, wanted, BOB, await here.sequence(BOB)))
    task, lease = reading._task, reading._task.lease.lease
    found = await task.client.ask(asking.FILE_FIND, asking.FileFindHead(file_hash=wanted), asking.FileReply)
    head = asking.PlaceGetHead(lease_id=lease.lease_id)
    head.shares.add(object_id=found.file.object.object_id, segment=0, index=0, size_bytes=13)
    limits = 0
    with contextlib.suppress(Exception):
        while limits < 100:
            limits += len((await task.client.ask(asking.PLACE_GET, head, asking.Places, meta=lease.meta)).places)
    assert 1 <= limits <= 5
    await reading.close()


async def test_what_a_session_opened_by_one_string_is_not_open_by_the_next(network: StorageNetwork, here: Site) -> None:
    large, small = await here.stored(content(3, 200_000), "large", ALICE), await here.stored(content(4, 300), "small", ALICE)
    links = {}
    for wanted in (large, small):
        here.clock.now_s += 1
        links[wanted] = (await here.call("user_requestShare", **here.file_params(wanted, ALICE)))["sharelink"]
    client, peer = client_of(network, here, "bob")
    for wanted in (large, small):
        here.clock.now_s += 1
        client.use(await ask_of(here, Action.DOWNLOAD_SHARED, links[wanted], BOB, await here.sequence(BOB)))
        await client.ask(asking.SHARE_OPEN, asking.ShareOpenHead(link=links[wanted]), asking.OpenedShare)
    assert "leased 1 to" in await refused(peer, asking.LEASE_TAKE, asking.LeaseHead(noz=10_000, seconds=60, fund=1).SerializeToString())
    await client.close()


async def test_a_gateways_own_nodes_deliver_nothing_while_others_can(network: StorageNetwork, here: Site) -> None:
    owner = key_of("owner 2").public_key.address

    def holders(view: ReadView, wanted: str) -> tuple[bytes, list[bytes]]:
        row = view.scan(OBJECT, (ALICE.public_key.address, wanted), index="by_hash", limit=1)[0]
        found = [view.get(NODE, (number,)) for number in nodes_of(view.scan(SEGMENT, start=(row.first_segment,), limit=1)[0].nodes)]
        return bytes(row.id), [one.owner for one in found if one is not None]

    for number in range(20):
        wanted = await here.stored(b"held %d" % number, f"held{number}", ALICE)
        key, owners = await network.meta.ledger.query(partial(holders, wanted=wanted))
        if owner in owners:
            break
    assert owner in owners
    async with served(network, legacy_of(network, prefix=lambda _: prefix_of("127.0.2.7"))):
        ask = await ask_of(here, Action.DOWNLOAD, wanted, ALICE, await here.sequence(ALICE))
        reading: Any = await here.gateway.backend.begin_download(ask)
        task, lease = reading._task, reading._task.lease.lease
        head = asking.PlaceGetHead(lease_id=lease.lease_id)
        for index in range(3):
            head.shares.add(object_id=key, segment=0, index=index, size_bytes=5)
        places = (await task.client.ask(asking.PLACE_GET, head, asking.Places, meta=lease.meta)).places
        assert sorted(one.index for one in places) == [at for at, one in enumerate(owners) if one != owner]
        await reading.close()


# --- lists ---


async def test_a_share_whose_file_is_in_the_trash_stops_no_list(network: StorageNetwork, here: Site) -> None:
    names = [await here.stored(b"shared %d" % number, f"{number}", BOB) for number in range(2)]
    for wanted in names:
        here.clock.now_s += 1
        assert (await here.call("user_requestShare", **here.file_params(wanted, BOB)))["return"] == "0"
    here.clock.now_s += 1
    assert (await here.call("user_requestDeleteFile", **here.file_params(names[0], BOB)))["return"] == "0"
    here.clock.now_s += 1
    listed = await here.call("user_requestListShare", page=0, **here.list_params(BOB))
    assert (listed["return"], names[0] in str(listed), names[1] in str(listed)) == ("0", False, True)
    here.clock.now_s += 1
    assert (await here.call("user_requestClearExpiredShareLinks", **here.list_params(BOB)))["return"] == "0"


# --- several meta nodes ---


async def test_wallets_that_come_from_another_meta_node_delete_nothing_by_strings_of_before(network: StorageNetwork, here: Site) -> None:
    """The other one may have seen the string as a poll."""
    meta, there, now_s = network.meta, [bytes(20)], [float(int(time.time()))]
    mine = ALICE.public_key.address
    others = (number.to_bytes(20, "big") for number in itertools.count(1))
    other = next(one for one in others if responsible(mine, [one, meta.keys.address]) == one)
    there[0] = other
    strings = Strings(meta.ledger, meta.keys.address, lambda: [one for one in there if any(one)], lambda: now_s[0], UsedStrings())
    wanted = file_hash(b"gone over")

    async def delete(time_s: float, key: Any = ALICE) -> None:
        ask = await ask_of(here, Action.DELETE_FILE, wanted, key, "", int(time_s))
        await strings.accepted(key.public_key.address, legacy_ask(ask), Action.DELETE_FILE)

    with pytest.raises(Refused) as caught:
        await delete(now_s[0])
    assert caught.value.code == asking.TRY_ANOTHER
    there[0] = bytes(20)  # the other one is gone
    strings.look()
    changed_s = now_s[0]
    with pytest.raises(Refused, match="does not know what strings were used for"):
        await delete(changed_s + 60)
    now_s[0] += 60
    with pytest.raises(Refused, match="does not know what strings were used for"):
        await delete(changed_s + FRESH_S)
    await delete(changed_s + FRESH_S + 1)
    # A wallet that was here all the time has no gap.
    if responsible(BOB.public_key.address, [other, meta.keys.address]) == meta.keys.address:
        await delete(now_s[0], BOB)


async def test_a_list_of_somebody_elses_is_still_refused(here: Site) -> None:
    here.clock.now_s += 1
    good = await ask_of(here, Action.LIST_FILES, "", ALICE)
    forged = type(good)(good.action, good.subject, "", good.timestamp_s + 1, good.signature)
    with pytest.raises(BackendError):
        await here.gateway.backend.files(forged, 0)
