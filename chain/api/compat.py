"""CometBFT 0.38's RPC as 0.37 spoke it, for clients that choose how to read answers by the node's version (CosmJS before 0.32, stratos-sdk 2.0.0).

    client ─ GET /method?…, POST / ─► this ─► CometBFT's RPC
           ◄────────── answer ──────┘  status               node_info.version is 0.37.5
                                       block_results        finalize_block_events told as begin_block_events and end_block_events
                                       broadcast_tx_commit  tx_result told as deliver_tx, too

Everything else passes as it is, also methods and parameters that are not known here. Subscriptions (websocket) are not forwarded.
Sources: CosmJS 0.31.1 reads a node as 0.34, where events are base64, unless its version begins with 0.37.; CometBFT's UPGRADING.md for 0.38.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import httpx
import orjson
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

log = structlog.get_logger("compat")

VERSION: Final = "0.37.5"
"""What ``status`` says: the version of the original's chain."""
MAX_BODY_BYTES: Final = 4 << 20
MAX_REWRITTEN_BYTES: Final = 256 << 20
"""An answer that is rewritten is held in memory; all others stream."""
MAX_CONNECTIONS: Final = 200
READ_S: Final = 30.0
ANSWER_S: Final = 60.0
"""``broadcast_tx_commit`` waits for a block."""
BACKLOG: Final = 128
_METHOD: Final = re.compile(r"[A-Za-z_]{0,64}")
"""Nothing else becomes part of the address that is asked."""
_INTERNAL: Final = -32603
_INVALID: Final = -32600


def _status(result: dict[str, Any]) -> None:
    result["node_info"]["version"] = VERSION


def _block_results(result: dict[str, Any]) -> None:
    """The application marks each event with the half of the block that it is of; an event without a mark counts as of its end."""
    events = result.pop("finalize_block_events", None) or []
    begin = [one for one in events if any((two.get("key"), two.get("value")) == ("mode", "BeginBlock") for two in one.get("attributes") or [])]
    result["begin_block_events"] = begin or None
    result["end_block_events"] = [one for one in events if one not in begin] or None


def _broadcast_tx_commit(result: dict[str, Any]) -> None:
    result["deliver_tx"] = result["tx_result"]


_REWRITES: Final[dict[str, Callable[[dict[str, Any]], None]]] = {
    "status": _status,
    "block_results": _block_results,
    "broadcast_tx_commit": _broadcast_tx_commit,
}


def rewritten(answer: Any, method: str) -> Any:
    """One JSON-RPC answer of 0.38 to ``method``, as 0.37 would have given it. What has another form than 0.38's passes as it is."""
    rewrite = _REWRITES.get(method)
    if rewrite is not None and isinstance(answer, dict) and isinstance(answer.get("result"), dict):
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            rewrite(answer["result"])
    return answer


class Compat:
    """The ASGI application, over the RPC at ``url`` (``tcp://``, ``http://`` or ``https://``). ``close`` it at the end.

    ``cors``: whether web pages of any origin may ask."""

    def __init__(self, url: str, *, cors: bool = False) -> None:
        url = url if "://" in url else f"http://{url}"
        self.url = url.replace("tcp://", "http://").replace("//0.0.0.0", "//127.0.0.1").rstrip("/")
        self._http = httpx.AsyncClient(
            timeout=ANSWER_S, trust_env=False, verify=self.url.lower().startswith("https:"), limits=httpx.Limits(max_connections=MAX_CONNECTIONS)
        )
        middleware = [Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET", "POST"], allow_headers=["*"])] if cors else []
        routes = [
            Route("/websocket", self._no_websocket),
            Route("/", self._posted, methods=["POST"]),
            Route("/{method:path}", self._asked, methods=["GET"]),
        ]
        self.app = Starlette(routes=routes, middleware=middleware)
        self.app.router.redirect_slashes = False

    async def close(self) -> None:
        """End the connections to the node."""
        await self._http.aclose()

    async def _no_websocket(self, request: Request) -> Response:
        return _refusal(501, _INTERNAL, f"no subscriptions here: subscribe at {self.url}/websocket", -1)

    async def _asked(self, request: Request) -> Response:
        """``GET /method?parameter=…``."""
        method = request.path_params["method"]
        if not _METHOD.fullmatch(method):
            return _refusal(404, _INVALID, f"expected /method with a method of CometBFT's RPC, got /{method[:60]}", -1)
        query = request.scope["query_string"].decode("latin-1")
        return await self._forward("GET", f"/{method}?{query}" if query else f"/{method}", None, {None: method}, -1)

    async def _posted(self, request: Request) -> Response:
        """A JSON-RPC call, or several."""
        raw = bytearray()
        try:
            async with asyncio.timeout(READ_S):
                async for part in request.stream():
                    raw += part
                    if len(raw) > MAX_BODY_BYTES:
                        return _refusal(413, _INVALID, f"a request has at most {MAX_BODY_BYTES} bytes", -1, {"connection": "close"})
        except ClientDisconnect:
            return Response(status_code=400)
        except TimeoutError:
            return _refusal(408, _INVALID, f"the request did not come within {READ_S:.0f} s", -1, {"connection": "close"})
        try:
            given = orjson.loads(bytes(raw))
        except orjson.JSONDecodeError:
            given = None  # CometBFT says what is wrong with it
        calls = given if isinstance(given, list) else [given]
        methods: dict[bytes | None, str] = {
            orjson.dumps(one.get("id")) if isinstance(given, list) else None: one["method"]
            for one in calls
            if isinstance(one, dict) and isinstance(one.get("method"), str)
        }
        return await self._forward("POST", "/", bytes(raw), methods, given.get("id", -1) if isinstance(given, dict) else -1)

    async def _forward(self, verb: str, path: str, body: bytes | None, methods: dict[bytes | None, str], call_id: Any) -> Response:
        """``methods``: the id of a call, None for an only one, and its method."""
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        try:
            answer = await self._http.send(self._http.build_request(verb, self.url + path, content=body, headers=headers), stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self._silent(error, call_id)
        kept = {"content-type": answer.headers.get("content-type", "application/json")}
        if not any(method in _REWRITES for method in methods.values()):
            return StreamingResponse(_pieces(answer), answer.status_code, kept, background=BackgroundTask(answer.aclose))
        found = bytearray()
        try:
            async for part in answer.aiter_raw():
                found += part
                if len(found) > MAX_REWRITTEN_BYTES:
                    return _refusal(
                        502, _INTERNAL, f"the node's answer has more than {MAX_REWRITTEN_BYTES} bytes: ask it itself at {self.url}", call_id
                    )
        except httpx.HTTPError as error:
            return self._silent(error, call_id)
        finally:
            await answer.aclose()
        return Response(await asyncio.to_thread(_rewrite, bytes(found), methods), answer.status_code, kept)

    def _silent(self, error: Exception, call_id: Any) -> Response:
        log.warning("the node does not answer", url=self.url, error=type(error).__name__)
        return _refusal(502, _INTERNAL, f"CometBFT's RPC at {self.url} does not answer ({type(error).__name__}): is the node running?", call_id)


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes. When the node breaks off, so does this: the client's connection is closed before the answer is whole."""
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()


def _rewrite(raw: bytes, methods: dict[bytes | None, str]) -> bytes:
    """An answer, or an array of them, with those rewritten that have to be."""
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw
    if None in methods:
        return orjson.dumps(rewritten(answer, methods[None]))
    if isinstance(answer, list):
        answer = [rewritten(one, methods.get(orjson.dumps(one.get("id")), "")) if isinstance(one, dict) else one for one in answer]
    return orjson.dumps(answer)


def _refusal(status: int, code: int, text: str, call_id: Any, headers: dict[str, str] | None = None) -> Response:
    told = {
        "jsonrpc": "2.0",
        "id": call_id,
        "error": {"code": code, "message": "Internal error" if code == _INTERNAL else "Invalid Request", "data": text},
    }
    return Response(orjson.dumps(told), status, headers, media_type="application/json")


def listener(host: str, port: int) -> socket.socket:
    """A socket that takes clients at once. Raises OSError."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise OSError(f"cannot listen at {host}:{port}: {error.strerror or error}; name another address with --laddr") from None
    return found


async def serve(url: str, sock: socket.socket, *, cors: bool = False, stopping: asyncio.Event | None = None) -> None:
    """Serve at ``sock`` until SIGINT or SIGTERM come, or until ``stopping`` is set (then signals are the caller's business)."""
    compat = Compat(url, cors=cors)
    settings = uvicorn.Config(
        compat.app, http="h11", ws="none", loop="none", log_config=None, access_log=False, lifespan="off", limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=3, server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(settings)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    if stopping is None:
        stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    ending = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        ending.cancel()
        sock.close()
        await compat.close()
