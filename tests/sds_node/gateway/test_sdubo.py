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


CIDS = [cid_of(number) for number in range(5)]


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


async def test_the_same_content_again_has_the_same_link_for_its_wallet_and_none_for_others(network: StorageNetwork, here: Site) -> None:
    data = content(22, 50_000)
    for _ in range(2):
        assert (await add(here, data, CIDS[1], ALICE))["return"] == "0"
    # Bob's link would be dead as soon as Alice ends hers, so he is told that there is one.
    answer = await add(here, data, CIDS[1], BOB)
    assert (answer["return"], "already" in answer["detail"]) == ("-9", True)
    assert await here.downloaded(await get(here, CIDS[1], BOB, "bob"), file_hash(data)) == data


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
    assert (await add(here, data, CIDS[3], ALICE))["return"] == "-9"


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
