"""What sdubo does (reference sds.md 9.2): it shares at once what it has sent, by a CID, and reads by that CID elsewhere. A whole network runs in this process.

add:  getOzone ─ requestUpload ─ uploadData… ─ requestShare(ipfs_cid), no poll and no uploadSign
get:  getOzone ─ requestGetShared(sds://CID) ─ downloadData… ─ downloadedFileInfo
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chain.crypto.keys import PrivateKey
from sds_node.gateway.network import NetworkBackend
from sds_node.hashes import file_hash
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import StorageNetwork, key_of, wallet_of
from tests.sds_node.data.network import content
from tests.sds_node.gateway.memory import KEY, Site, signature, site
from tests.sds_node.gateway.memory import wallet_of as wallet_of_key
from tests.sds_node.gateway.test_the_real_way import Wall

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALICE, BOB = key_of("alice"), key_of("bob")
LONG_S = 300.0
"""A grace that no test waits for."""
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def cid_of(number: int) -> str:
    """A CID of version 0, of something."""
    value, text = int.from_bytes(b"\x12\x20" + sha256(bytes([number])).digest()), ""
    while value:
        value, digit = divmod(value, 58)
        text = _BASE58[digit] + text
    return text


CIDS = [cid_of(number) for number in range(8)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageNetwork]:
    async with StorageNetwork.started(tmp_path_factory.mktemp("network"), nodes=4, wallets=("alice", "bob")) as made:
        for name in ("alice", "bob"):
            await made.buy_ozone(name, 10**20)
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def here(network: StorageNetwork, tmp_path: Path) -> AsyncIterator[Site]:
    clock: Any = Wall()
    async with site(tmp_path, NetworkBackend(CHAIN_ID, [network.meta_address], clock), clock, grace_s=LONG_S) as made:
        yield made


async def add(here: Site, data: bytes, cid: str, key: PrivateKey) -> dict[str, Any]:
    """What sdubo's ``add`` does with a CAR; the answer to its last call."""
    here.clock.now_s += 1
    assert (await here.send(data, "0123456789abcdef.txt", key))["return"] == "0"
    here.clock.now_s += 1
    return await here.call("user_requestShare", ipfs_cid=cid, **here.file_params(file_hash(data), key))


async def get(here: Site, cid: str, key: PrivateKey, name: str) -> dict[str, Any]:
    here.clock.now_s += 1
    text = f"{cid}{wallet_of(name)}{await here.sequence(key)}{here.time()}"
    return await here.call("user_requestGetShared", sharelink=f"sds://{cid}", req_time=here.time(), signature=signature(key, text))


async def test_what_was_just_sent_is_shared_by_its_cid_and_read_by_another(network: StorageNetwork, here: Site) -> None:
    data = content(21, 4_000_000)
    shared = await asyncio.wait_for(add(here, data, CIDS[0], ALICE), LONG_S / 2)
    assert (shared["return"], shared["sharelink"]) == ("0", CIDS[0])
    first = await get(here, CIDS[0], BOB, "bob")
    assert first["return"] == "2"
    assert await here.downloaded(first, file_hash(data)) == data


async def listed(here: Site, key: PrivateKey, cid: str) -> list[str]:
    """The ids of a wallet's shares that have a CID as their link."""
    here.clock.now_s += 1
    found = await here.call("user_requestListShare", page=0, **here.list_params(key))
    return [one["shareid"] for one in found.get("fileinfo") or [] if one["sharelink"] == cid]


async def stop(here: Site, share_id: str, key: PrivateKey, name: str) -> str:
    here.clock.now_s += 1
    signed = signature(key, f"{share_id}{wallet_of(name)}{here.time()}")
    return str((await here.call("user_requestStopShare", shareid=share_id, req_time=here.time(), signature=signed))["return"])


async def test_wallets_that_add_the_same_content_have_the_same_link_and_each_ends_its_own(network: StorageNetwork, here: Site) -> None:
    data = content(22, 50_000)
    ids: dict[str, set[str]] = {"alice": set(), "bob": set()}
    for _ in range(2):
        for name, key in (("alice", ALICE), ("bob", BOB)):
            answer = await add(here, data, CIDS[1], key)
            assert (answer["return"], answer["sharelink"]) == ("0", CIDS[1])
            ids[name].add(answer["shareid"])
    # What is added again is no other share.
    assert ids["alice"] == {CIDS[1]}
    assert len(ids["bob"]) == 1
    assert (await listed(here, ALICE, CIDS[1]), await listed(here, BOB, CIDS[1])) == ([*ids["alice"]], [*ids["bob"]])
    assert await stop(here, CIDS[1], BOB, "bob") != "0"
    assert await stop(here, CIDS[1], ALICE, "alice") == "0"
    assert (await listed(here, ALICE, CIDS[1]), await listed(here, BOB, CIDS[1])) == ([], [*ids["bob"]])
    for name, key in (("alice", ALICE), ("bob", BOB)):
        assert await here.downloaded(await get(here, CIDS[1], key, name), file_hash(data)) == data
    assert (await add(here, data, CIDS[1], ALICE))["shareid"] == CIDS[1]
    for name, key in (("alice", ALICE), ("bob", BOB)):
        assert await stop(here, next(iter(ids[name])), key, name) == "0"
    assert (await get(here, CIDS[1], BOB, "bob"))["return"] == "-6"


async def test_a_link_of_two_leads_to_the_file_that_is_not_deleted(network: StorageNetwork, here: Site) -> None:
    data = content(26, 20_000)
    for key in (ALICE, BOB):
        assert (await add(here, data, CIDS[5], key))["return"] == "0"
    here.clock.now_s += 1
    assert (await here.call("user_requestDeleteFile", **here.file_params(file_hash(data), ALICE)))["return"] == "0"
    for name, key in (("bob", BOB), ("alice", ALICE)):
        assert await here.downloaded(await get(here, CIDS[5], key, name), file_hash(data)) == data
    assert (await add(here, data, CIDS[5], ALICE))["return"] == "0"
    here.clock.now_s += 1
    assert (await here.call("user_requestDeleteFile", **here.file_params(file_hash(data), BOB)))["return"] == "0"
    assert await here.downloaded(await get(here, CIDS[5], BOB, "bob"), file_hash(data)) == data


async def test_wallets_that_share_by_one_cid_at_the_same_moment_both_have_it(network: StorageNetwork, here: Site) -> None:
    data = content(27, 2_000)
    wanted = file_hash(data)
    for key in (ALICE, BOB):
        here.clock.now_s += 1
        assert (await here.send(data, "x", key))["return"] == "0"
    here.clock.now_s += 1
    backend: Any = here.gateway.backend
    first, wait = backend._ordered, asyncio.Barrier(2)
    tried: list[bool] = []

    async def together(ask: Any, answer: Any, **kind: Any) -> Any:
        tried.append(bool(kind["share"].also))
        if not kind["share"].also:
            await wait.wait()
        return await first(ask, answer, **kind)

    backend._ordered = together
    try:
        answers = await asyncio.gather(*(here.call("user_requestShare", ipfs_cid=CIDS[6], **here.file_params(wanted, key)) for key in (ALICE, BOB)))
    finally:
        backend._ordered = first
    assert [(one["return"], one["sharelink"]) for one in answers] == [("0", CIDS[6])] * 2
    assert sorted(tried) == [False, False, True]
    assert len({one["shareid"] for one in answers}) == 2
    assert (len(await listed(here, ALICE, CIDS[6])), len(await listed(here, BOB, CIDS[6]))) == (1, 1)


async def test_a_link_that_its_wallet_ended_in_between_is_taken(network: StorageNetwork, here: Site) -> None:
    data = content(28, 2_000)
    assert (await add(here, data, CIDS[7], ALICE))["return"] == "0"
    here.clock.now_s += 1
    assert (await here.send(data, "x", BOB))["return"] == "0"
    here.clock.now_s += 1
    backend: Any = here.gateway.backend
    ordered, ended = backend._ordered, list[str]()

    async def late(ask: Any, answer: Any, **kind: Any) -> Any:
        if "share" in kind and kind["share"].also:
            ended.append(await stop(here, CIDS[7], ALICE, "alice"))
        return await ordered(ask, answer, **kind)

    backend._ordered = late
    try:
        answer = await here.call("user_requestShare", ipfs_cid=CIDS[7], **here.file_params(file_hash(data), BOB))
    finally:
        backend._ordered = ordered
    assert (answer["return"], answer["shareid"], ended) == ("0", CIDS[7], ["0"])


async def test_a_cid_that_leads_to_other_content_is_not_taken_over(network: StorageNetwork, here: Site) -> None:
    data, other = content(23, 1_000), content(24, 1_000)
    assert (await add(here, data, CIDS[2], ALICE))["return"] == "0"
    for key in (ALICE, BOB):
        answer = await add(here, other, CIDS[2], key)
        assert (answer["return"], "already" in answer["detail"]) == ("-9", True)
    assert await here.downloaded(await get(here, CIDS[2], BOB, "bob"), file_hash(data)) == data


async def test_a_link_with_a_password_is_no_answer_for_one_without(network: StorageNetwork, here: Site) -> None:
    data = content(25, 1_000)
    assert (await here.send(data, "x", ALICE))["return"] == "0"
    here.clock.now_s += 1
    assert (await here.call("user_requestShare", ipfs_cid=CIDS[3], bool=True, **here.file_params(file_hash(data), ALICE)))["return"] == "0"
    for key in (ALICE, BOB):
        answer = await add(here, data, CIDS[3], key)
        assert (answer["return"], "already" in answer["detail"]) == ("-9", True)


async def test_a_share_does_not_wait_for_bytes_that_never_come(network: StorageNetwork, here: Site) -> None:
    wanted = file_hash(b"x" * 100)
    here.clock.now_s += 1
    begun = await here.call("user_requestUpload", filename="x", filesize=100, **await here.upload_params(wanted, ALICE))
    assert begun["return"] == "1"
    answer = await here.call("user_requestShare", ipfs_cid=CIDS[4], **here.file_params(wanted, ALICE))
    assert answer["return"] == "-6"


async def test_a_share_of_what_cannot_be_paid_says_so(tmp_path: Path) -> None:
    async with site(tmp_path, grace_s=LONG_S) as here:
        here.memory.noz[wallet_of_key(KEY)] = 20
        assert (await here.send(b"x" * 20))["return"] == "0"
        answer = await here.call("user_requestShare", **here.file_params(file_hash(b"x" * 20)))
        assert (answer["return"], "not enough ozone" in answer["detail"]) == ("-9", True)


async def test_a_time_that_was_read_from_the_clock_twice_is_taken_and_another_is_not(tmp_path: Path) -> None:
    async with site(tmp_path, grace_s=LONG_S) as here:
        data, wanted = b"x" * 20, file_hash(b"x" * 20)

        async def call(method: str, late_s: int, **params: Any) -> str:
            """Signed so many seconds after its req_time, as when the clock moves on between the two looks at it."""
            signed = await here.upload_params(wanted, KEY, here.time() + late_s)
            return str((await here.call(method, **params, **{**signed, "req_time": here.time()}))["return"])

        assert await call("user_requestUpload", 2, filename="x", filesize=20) == "-3"
        assert await call("user_requestUpload", 1, filename="x", filesize=20) == "1"
        here.clock.now_s += 1
        # The string of this second is known by now, and this call is signed over the next one.
        assert await call("user_uploadData", 1, data="eHh4eHh4eHh4eHh4eHh4eHh4eHg=") == "0"
        time_s = here.time()
        text = signature(KEY, f"{wanted}{signature(KEY, 'x' * 40)['address']}{time_s + 1}")
        shared = await here.call("user_requestShare", ipfs_cid=CIDS[0], filehash=wanted, req_time=time_s, signature=text)
        assert (shared["return"], here.memory.files_of[text["address"]][wanted].content) == ("0", data)
