"""compat-rpc in front of a node that answers as CometBFT 0.38 does: what is rewritten, what passes, what is refused.

httpx, raw sockets ─► compat-rpc on a free port ─► a small HTTP server with canned answers
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from chain.api import compat
from tests.support import free_ports, stchaind

pytestmark = pytest.mark.asyncio


def event(kind: str, **attributes: str) -> dict[str, Any]:
    return {"type": kind, "attributes": [{"key": key, "value": value, "index": True} for key, value in attributes.items()]}


MINT, TALLY, BARE = event("mint", amount="5", mode="BeginBlock"), event("tally", mode="EndBlock"), {"type": "bare"}
ANSWERS: dict[str, Any] = {
    "status": {"node_info": {"network": "test-1", "version": "0.38.25"}, "sync_info": {"latest_block_height": "9"}},
    "block_results": {"height": "7", "txs_results": [{"code": 0}], "finalize_block_events": [MINT, TALLY, BARE], "app_hash": "00"},
    "broadcast_tx_commit": {"check_tx": {"code": 0}, "tx_result": {"code": 5}, "hash": "AB", "height": "8"},
    "health": {},
    "odd": {"node_info": "no object", "finalize_block_events": 5},
}


class Node(BaseHTTPRequestHandler):
    """Answers in the form that its path or its body asks for; notes what it was asked."""

    asked: list[tuple[str, str, bytes]]
    protocol_version = "HTTP/1.1"

    def _answer(self, method: str, call_id: Any) -> dict[str, Any]:
        if method not in ANSWERS:
            return {"jsonrpc": "2.0", "id": call_id, "error": {"code": -32601, "message": "Method not found"}}
        return {"jsonrpc": "2.0", "id": call_id, "result": ANSWERS[method]}

    def do_GET(self) -> None:
        self.asked.append(("GET", self.path, b""))
        self._send(self._answer(self.path[1:].partition("?")[0], -1))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(("POST", self.path, body))
        try:
            given = json.loads(body)
        except ValueError:
            self._send({"jsonrpc": "2.0", "id": -1, "error": {"code": -32700, "message": "Parse error"}}, 500)
            return
        calls = given if isinstance(given, list) else [given]
        answers = [self._answer(one["method"], one["id"]) for one in calls]
        self._send(answers[::-1] if isinstance(given, list) else answers[0])

    def _send(self, told: Any, status: int = 200) -> None:
        raw = json.dumps(told, indent=2).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def node() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """Its address, and what it was asked."""
    asked: list[tuple[str, str, bytes]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Noting", (Node,), {"asked": asked}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@asynccontextmanager
async def served(url: str, *, cors: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    """compat-rpc before ``url``, and a client of it."""
    sock, stopping = compat.listener("127.0.0.1", 0), asyncio.Event()
    base = f"http://127.0.0.1:{sock.getsockname()[1]}"
    serving = asyncio.create_task(compat.serve(url, sock, cors=cors, stopping=stopping))
    try:
        async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client:
            yield client
    finally:
        stopping.set()
        await serving


async def post(client: httpx.AsyncClient, method: str, call_id: Any = 1) -> Any:
    return (await client.post("/", json={"jsonrpc": "2.0", "id": call_id, "method": method, "params": {}})).json()


async def test_status_says_a_version_that_old_clients_know(node: Any) -> None:
    async with served(node[0]) as client:
        for answer in ((await client.get("/status")).json(), await post(client, "status")):
            assert answer["result"] == {"node_info": {"network": "test-1", "version": compat.VERSION}, "sync_info": {"latest_block_height": "9"}}
    assert compat.VERSION.startswith("0.37.")


async def test_a_blocks_events_are_told_in_the_halves_that_the_application_marks(node: Any) -> None:
    async with served(node[0]) as client:
        result = (await client.get("/block_results?height=7")).json()["result"]
    assert (result["begin_block_events"], result["end_block_events"]) == ([MINT], [TALLY, BARE])
    assert (result["height"], result["txs_results"]) == ("7", [{"code": 0}])
    assert node[1] == [("GET", "/block_results?height=7", b"")]


async def test_a_committed_transaction_has_its_delivery(node: Any) -> None:
    async with served(node[0]) as client:
        result = (await post(client, "broadcast_tx_commit", "seven"))["result"]
    assert (result["check_tx"], result["deliver_tx"]) == ({"code": 0}, {"code": 5})


async def test_calls_of_a_batch_are_told_apart_by_their_ids(node: Any) -> None:
    calls: list[Any] = [{"jsonrpc": "2.0", "id": at, "method": name, "params": {}} for at, name in ((1, "health"), ("1", "status"), (2, "nothing"))]
    async with served(node[0]) as client:
        found = (await client.post("/", json=calls)).json()
    by_id = {json.dumps(one["id"]): one for one in found}
    assert by_id['"1"']["result"]["node_info"]["version"] == compat.VERSION
    assert (by_id["1"]["result"], by_id["2"]["error"]["code"]) == ({}, -32601)


async def test_everything_else_passes_byte_for_byte(node: Any) -> None:
    async with served(node[0]) as client, httpx.AsyncClient(base_url=node[0].replace("tcp:", "http:"), trust_env=False) as direct:
        for path in ("/health", "/abci_query?path=%22%2Fa%22&data=0x01", "/"):
            ours, theirs = await client.get(path), await direct.get(path)
            assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)
        ours, theirs = await client.post("/", content=b"{no json"), await direct.post("/", content=b"{no json")
        assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content) == (500, theirs.content)
        assert (await client.get("/odd")).json()["result"] == ANSWERS["odd"]


@pytest.mark.parametrize("call_id", [7, "seven", None])
async def test_a_node_that_is_down_is_told_as_an_answer_to_the_call(call_id: Any) -> None:
    async with served(f"127.0.0.1:{free_ports(1)}") as client:
        for method in ("status", "health"):
            answer = await post(client, method, call_id)
            assert answer["id"] == call_id
            assert "does not answer" in answer["error"]["data"]
        assert (await client.get("/status")).status_code == 502


async def test_a_request_or_an_answer_that_is_too_large_is_refused(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "MAX_BODY_BYTES", 1_000)
    monkeypatch.setattr(compat, "MAX_REWRITTEN_BYTES", 50)
    async with served(node[0]) as client:
        assert (await client.post("/", content=b" " * 1_001)).status_code == 413
        assert node[1] == []
        answer = await client.get("/status")
        assert (answer.status_code, "more than 50 bytes" in answer.json()["error"]["data"]) == (502, True)


@pytest.mark.parametrize(
    "target", ["/%2f@127.0.0.1:1/", "%2f@127.0.0.1:1/status", "@127.0.0.1:1/", "http://127.0.0.1:1/status", "//127.0.0.1:1/", "/a/b"]
)
async def test_no_path_leads_to_another_place_than_the_node(node: Any, target: str) -> None:
    async with served(node[0]) as client:
        port = client.base_url.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.split(b" ")[1] in (b"400", b"404")
    assert node[1] == []


async def test_subscriptions_and_other_verbs_are_refused(node: Any) -> None:
    async with served(node[0]) as client:
        answer = await client.get("/websocket")
        assert (answer.status_code, "subscribe at" in answer.json()["error"]["data"]) == (501, True)
        assert (await client.put("/")).status_code == 405


async def test_an_answer_that_the_node_breaks_off_is_not_taken_for_a_whole_one() -> None:
    def half(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            for _ in range(2):
                half(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        async with served(f"127.0.0.1:{server.getsockname()[1]}") as client:
            assert (await client.get("/status")).status_code == 502
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/health")
        thread.join()


async def test_web_pages_may_ask_only_where_the_operator_says_so(node: Any) -> None:
    for cors, allowed in ((False, None), (True, "*")):
        async with served(node[0], cors=cors) as client:
            answer = await client.get("/status", headers={"Origin": "https://wallet.example"})
            assert answer.headers.get("access-control-allow-origin") == allowed


@pytest.mark.parametrize("laddr", ["nonsense", "127.0.0.1:99999", "tcp://a b:1", "unix:///tmp/x", "127.0.0.1"])
async def test_an_address_that_is_none_is_told_so(tmp_path: Path, laddr: str) -> None:
    code, _, errors = stchaind(tmp_path, "compat-rpc", "--laddr", laddr)
    assert (code, "expected --laddr" in errors) == (1, True)


async def test_an_address_that_is_taken_is_told_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code, _, errors = stchaind(tmp_path, "compat-rpc", "--laddr", f"127.0.0.1:{server.getsockname()[1]}")
    assert (code, "cannot listen" in errors) == (1, True)
