"""The owner's door: a token, no web page, the node's own wallet; against a chain that runs in this process."""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import nacl.signing
import pytest
import pytest_asyncio

from chain.metakeys import MetaKeys
from sds_node.gateway.owner import ChainOwner, OwnerDoor
from sds_node.p2p import address_of
from sds_node.testing.chain import ChainInProcess, DrivenChain, genesis
from sds_node.testing.network import SHORT, key_of, wallet_of
from sds_node.value_chain import views
from sds_node.value_chain.sender import Sender

pytestmark = pytest.mark.asyncio
NODE = bytes(nacl.signing.SigningKey(b"\x21" * 32).verify_key)
WALLET = wallet_of("owner")


class Door:
    """An owner's door that listens at a port and at a socket."""

    def __init__(self, door: OwnerDoor, chain: DrivenChain, http: httpx.AsyncClient, folder: Path) -> None:
        self.door, self.chain, self.http, self.folder = door, chain, http, folder

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        ask = {"jsonrpc": "2.0", "id": 1, "method": method, "params": [params]}
        answer = await self.http.post("/", json=ask, headers={"Authorization": f"Bearer {self.door.token}"})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    operator, owner = key_of("operator"), key_of("owner")
    funds = {operator.public_key.address: 10**24, owner.public_key.address: 10**24}
    meta = MetaKeys.new()
    begin_s = int(time.time()) - 60
    chain = ChainInProcess(lambda app: genesis(app, begin_s, operator, [(meta, operator)], funds, dict(SHORT)), time.time)
    blocks = asyncio.get_running_loop().create_task(chain.run(0.02))
    driven = DrivenChain(chain)
    made = OwnerDoor(ChainOwner(driven, Sender(driven, owner), NODE), tmp_path / "token")
    port = await made.listen()
    socket = await made.listen(path=tmp_path / "owner.sock")
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "owner.sock"))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://owner", timeout=30, trust_env=False) as http:
            yield Door(made, driven, http, tmp_path)
    finally:
        await port.stop()
        await socket.stop()
        blocks.cancel()
        await asyncio.gather(blocks, return_exceptions=True)


async def test_the_owner_registers_pays_sends_and_describes(door: Door) -> None:
    assert await door.call("owner_requestRegisterNewPP") == {"return": "0", "alreadypp": False}
    assert (await door.call("owner_requestStartMining", walletaddr=WALLET))["return"] == "-9"
    assert (await door.call("owner_requestUpdatePPInfo", moniker="x"))["return"] == "-9"
    assert await door.call("owner_requestActivate", walletaddr=WALLET, deposit="100stos", fee="1gwei", gas=0) == {"return": "0", "activationstate": 2}
    assert (await door.call("owner_requestRegisterNewPP"))["alreadypp"] is True
    assert (await door.call("owner_requestActivate", walletaddr=WALLET, deposit="100stos"))["return"] == "-9"
    node = await views.resource_node(door.chain, address_of(NODE))
    assert node is not None
    assert node.tokens_wei == 100 * 10**18
    assert (await door.call("owner_requestUpdatePPInfo", moniker="mine", website="https://example.com"))["return"] == "0"
    assert (await door.call("owner_requestUpdatePPInfo", details="all of it"))["return"] == "0"
    found = (await views.ask(door.chain, "/stratos.register.v1.Query/ResourceNode", network_addr=_text())).node
    assert (found.description.moniker, found.description.website, found.description.details) == ("mine", "https://example.com", "all of it")
    to = wallet_of("somebody")
    assert await door.call("owner_requestSend", amount="5gwei", to=to, fee="", gas=0) == {"return": "0"}
    assert await door.chain.balance_wei(to) == 5 * 10**9
    status = await door.call("owner_requestStatus", walletaddr=WALLET)
    assert "registered" in status["message"]
    assert "wei" in status["message"]


def _text() -> str:
    from chain.crypto import address as bech32

    return bech32.encode(address_of(NODE), bech32.NODE)


async def test_what_makes_no_sense_is_refused_in_words(door: Door) -> None:
    for amount in ("", "5", "abc", "-5gwei", "5btc", "1stos,5btc", "0wei", "9" * 60 + "stos"):
        assert (await door.call("owner_requestSend", amount=amount, to=WALLET))["return"] == "-7", amount
    assert (await door.call("owner_requestSend", amount="5gwei", to="st1nobody"))["return"] == "-7"
    for method in ("owner_requestStatus", "owner_requestStartMining", "owner_requestActivate"):
        assert (await door.call(method, walletaddr=wallet_of("somebody"), deposit="1stos"))["return"] == "-12"
    refused = await door.call("owner_requestWithdraw", amount="5stos", target_address="")
    assert (refused["return"], bool(refused["detail"])) == ("-9", True)  # there is nothing to withdraw
    assert (await door.call("owner_requestSend", amount="9000000stos", to=WALLET))["return"] == "-9"


async def test_without_the_token_or_from_a_web_page_nobody_comes_in(door: Door) -> None:
    ask = {"jsonrpc": "2.0", "id": 1, "method": "owner_requestStatus", "params": [{"walletaddr": WALLET}]}
    token = {"Authorization": f"Bearer {door.door.token}"}
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": door.door.token}, token | {"Origin": "https://evil.example"}):
        answer = await door.http.post("/", json=ask, headers=headers)
        assert answer.status_code == 401
        assert "access-control-allow-origin" not in answer.headers
    assert (await door.http.options("/", headers={"Origin": "https://evil.example"})).status_code == 405
    assert (await door.http.post("/", json=ask, headers=token)).status_code == 200
    file = door.folder / "token"
    assert file.read_text().strip() == door.door.token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((door.folder / "owner.sock").stat().st_mode) == 0o600
    unknown = await door.http.post("/", json=ask | {"method": "user_requestGetOzone"}, headers=token)
    assert unknown.json()["error"]["code"] == -32_601
    found = (await door.http.post("/", json=ask | {"method": "rpc.discover"}, headers=token)).json()["result"]
    assert len(found["methods"]) == 8
