"""Whatever answers at the address of the value chain's RPC: ValueChain refuses in a sentence, soon, and reads no more than it needs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from chain.codec.registry import message_class
from sds_node.value_chain import ChainUnavailable, HeightMissing, QueryFailed, TxRefused, ValueChain, client, views

Answer = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]
HASH = "AB" * 32


@contextlib.asynccontextmanager
async def serving(answer: Answer, timeout_s: float = 1.0) -> AsyncIterator[ValueChain]:
    """A client of a server that answers each request (JSON-RPC) by ``answer``."""

    handlers: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                await answer(json.loads(await reader.readexactly(length)), writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with ValueChain(f"127.0.0.1:{port}", timeout_s=timeout_s) as chain:
            yield chain
    finally:
        server.close()
        await asyncio.gather(*(one for one in handlers if one is not None))


def raw(body: bytes, status: str = "200 OK") -> Answer:
    async def answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)

    return answer


def results(**by_method: Any) -> Answer:
    """A server with these results by method."""

    async def answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": by_method[request["method"]]}).encode()
        await raw(body)(request, writer)

    return answer


def failing(data: str) -> Answer:
    return raw(json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "Internal error", "data": data}}).encode(), "500 Internal")


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"<html>not found</html>", "404 Not Found"),
        raw(b"oops", "500 Internal Server Error"),
        raw(b""),
        raw(b"[" * 100_000),
        raw(b"[]"),
        raw(b'{"jsonrpc": "2.0"}'),
        raw(b'{"result": []}'),
        raw(b'{"result": {}}'),
        raw(b'{"result": {"sync_info": 7, "node_info": null}}'),
        results(status={"node_info": {"network": "x"}, "sync_info": {"latest_block_height": "-4"}}),
        results(
            status={
                "node_info": {"network": "x"},
                "sync_info": {
                    "latest_block_height": "1" * 400,
                    "latest_block_time": "2026-01-01T00:00:00Z",
                    "latest_block_hash": HASH,
                    "catching_up": False,
                    "earliest_block_height": "1",
                },
            }
        ),
    ],
)
def test_an_answer_that_is_none_is_refused_by_name(answer: Answer) -> None:
    async def go() -> None:
        async with serving(answer) as chain:
            with pytest.raises(ChainUnavailable, match=chain.url):
                await chain.status()

    asyncio.run(go())


def test_a_body_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [0]

    async def endless(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            sent[0] += 65_536
            await writer.drain()

    async def go() -> None:
        async with serving(endless, timeout_s=30) as chain:
            with pytest.raises(ChainUnavailable, match="more than"):
                await chain.status()

    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 1 << 20)
    asyncio.run(go())
    assert sent[0] < 64 << 20


def test_a_body_that_trickles_is_given_up() -> None:
    async def trickle(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def go() -> None:
        async with serving(trickle, timeout_s=0.3) as chain:
            with pytest.raises(ChainUnavailable, match="does not answer"):
                await chain.status()

    asyncio.run(go())


def test_nobody_listens_is_said_with_the_address() -> None:
    async def go() -> None:
        async with ValueChain("tcp://127.0.0.1:1") as chain:
            with pytest.raises(ChainUnavailable, match=r"http://127\.0\.0\.1:1 does not answer .* is it running"):
                await chain.status()

    asyncio.run(go())


@pytest.mark.parametrize("address", ["", "ftp://127.0.0.1", "http://", "http://127.0.0.1:port", "://x"])
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(ValueError, match="expected CometBFT's RPC"):
        ValueChain(address)


def test_a_block_of_another_height_is_not_taken() -> None:
    block = {"block_id": {"hash": HASH}, "block": {"header": {"height": "6", "time": "2026-01-01T00:00:00Z"}}}
    answer = results(block=block, block_results={"height": "6", "txs_results": None, "finalize_block_events": None})

    async def go() -> None:
        async with serving(answer) as chain:
            assert (await chain.block(6)).events == []
            with pytest.raises(ChainUnavailable, match="another height than 5"):
                await chain.block(5)

    asyncio.run(go())


@pytest.mark.parametrize(
    "events",
    [
        7,
        [7],
        [{"type": 1, "attributes": []}],
        [{"type": "x", "attributes": [{"key": None}]}],
        [{"attributes": []}],
        [{"type": "x", "attributes": [{"key": "a", "value": {}}, 5]}],
    ],
)
def test_events_of_another_form_are_no_block(events: Any) -> None:
    block = {"block_id": {"hash": HASH}, "block": {"header": {"height": "6", "time": "2026-01-01T00:00:00Z"}}}
    answer = results(block=block, block_results={"height": "6", "txs_results": [{"code": 0, "events": events}]})

    async def go() -> None:
        async with serving(answer) as chain:
            with pytest.raises(ChainUnavailable, match="CometBFT does not give"):
                await chain.block(6)

    asyncio.run(go())


def test_a_block_with_too_many_events_is_no_block(monkeypatch: pytest.MonkeyPatch) -> None:
    block = {"block_id": {"hash": HASH}, "block": {"header": {"height": "6", "time": "2026-01-01T00:00:00Z"}}}
    answer = results(block=block, block_results={"height": "6", "txs_results": [], "finalize_block_events": [{"type": "x"}] * 11})

    async def go() -> None:
        async with serving(answer) as chain:
            with pytest.raises(ChainUnavailable):
                await chain.block(6)

    monkeypatch.setattr(client, "MAX_EVENTS", 10)
    asyncio.run(go())


def test_a_pruned_height_is_told_from_a_node_in_trouble() -> None:
    async def go(data: str, kind: type[Exception]) -> None:
        async with serving(failing(data)) as chain:
            with pytest.raises(kind, match=data):
                await chain.block(6)

    asyncio.run(go("height 6 is not available, lowest height is 40", HeightMissing))
    asyncio.run(go("too many open files", ChainUnavailable))


@pytest.mark.parametrize(
    "batch",
    [
        b"[]",
        b"{}",
        b'{"jsonrpc": "2.0", "error": {"code": -32600, "message": "batch too large"}}',
        b'[{"id": 2}, 7, null]',
        json.dumps([{"id": at, "result": {"height": "1", "txs_results": None}} for at in range(10)]).encode(),
        json.dumps([{"id": [], "result": {}}]).encode(),
    ],
)
def test_followers_skip_no_height_when_some_are_refused_for_a_while_and_batches_are_nonsense(batch: bytes) -> None:
    refusals = {3: 2, 5: 1}
    header = {"time": "2026-01-01T00:00:00Z"}

    async def answer(request: Any, writer: asyncio.StreamWriter) -> None:
        if isinstance(request, list):
            await raw(batch)(request, writer)  # type: ignore[arg-type]
            return
        at = int(request["params"].get("height", 0))
        if request["method"] == "abci_info":
            await results(abci_info={"response": {"last_block_height": "9"}})(request, writer)
        elif request["method"] == "blockchain":
            metas = [{"block_id": {"hash": HASH}, "header": {"height": str(one), **header}} for one in range(9, 0, -1)]
            await results(blockchain={"block_metas": metas})(request, writer)
        elif request["method"] == "block" and refusals.get(at):
            refusals[at] -= 1
            await failing("busy")(request, writer)
        elif request["method"] == "block":
            await results(block={"block_id": {"hash": HASH}, "block": {"header": {"height": str(at), **header}}})(request, writer)
        else:
            await results(block_results={"height": str(at), "txs_results": None})(request, writer)

    async def go() -> list[int]:
        seen = []
        async with serving(answer) as chain:
            async for block in chain.follow(1, poll_s=0.01):
                seen.append(block.height)
                if block.height == 9:
                    break
        return seen

    assert asyncio.run(go()) == list(range(2, 10))


@pytest.mark.parametrize("value", ["!!", "AAA", 7, "/////w=="])
def test_an_answer_that_does_not_decode_is_no_answer(value: Any) -> None:
    request = message_class("cosmos.bank.v1beta1.QueryBalanceRequest")()

    async def go() -> None:
        async with serving(results(abci_query={"response": {"value": value}})) as chain:
            with pytest.raises(ChainUnavailable):
                await chain.query("/x.Query/Y", request, message_class("cosmos.bank.v1beta1.QueryBalanceResponse"))

    asyncio.run(go())


def test_a_node_record_with_a_wrong_address_is_no_answer() -> None:
    answer = message_class("stratos.register.v1.QueryResourceNodeResponse")(node={"network_address": "stsds1x", "owner_address": "st1x"})

    async def go() -> None:
        value = base64.b64encode(answer.SerializeToString()).decode()
        async with serving(results(abci_query={"response": {"value": value}})) as chain:
            with pytest.raises(ChainUnavailable, match="does not give"):
                await views.resource_node(chain, bytes(20))

    asyncio.run(go())


def test_pages_without_an_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = message_class("stratos.settlement.v1.QueryAllMetaKeysResponse")(pagination={"next_key": b"again"})

    async def go() -> None:
        value = base64.b64encode(answer.SerializeToString()).decode()
        async with serving(results(abci_query={"response": {"value": value}})) as chain:
            with pytest.raises(ChainUnavailable, match="more than 3 pages"):
                await views.meta_keys(chain)

    monkeypatch.setattr(views, "MAX_PAGES", 3)
    asyncio.run(go())


def test_a_refused_broadcast_keeps_its_code_and_a_known_transaction_is_no_refusal() -> None:
    async def go() -> None:
        refused = {"code": 13, "codespace": "sdk", "log": "insufficient fee", "hash": HASH}
        async with serving(results(broadcast_tx_sync=refused)) as chain:
            with pytest.raises(TxRefused, match="insufficient fee") as error:
                await chain.broadcast(b"tx")
            assert (error.value.codespace, error.value.code) == ("sdk", 13)
        async with serving(failing("tx already exists in cache")) as chain:
            assert await chain.broadcast(b"tx") == client.tx_hash(b"tx")
        async with serving(failing("mempool is full")) as chain:
            with pytest.raises(TxRefused, match="mempool is full"):
                await chain.broadcast(b"tx")

    asyncio.run(go())


def test_a_query_refusal_is_shown_in_bounded_length() -> None:
    async def go() -> None:
        async with serving(results(abci_query={"response": {"code": 18, "codespace": "sdk", "log": "x" * 1_000_000}})) as chain:
            with pytest.raises(QueryFailed) as error:
                await chain.query("/x.Query/Y", message_class("cosmos.bank.v1beta1.QueryBalanceRequest")(), None)
            assert len(str(error.value)) < 3_000

    asyncio.run(go())
