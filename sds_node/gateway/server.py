"""HTTP in front of the gateway: who may ask, how much at a time, from which web pages (reference sds.md 5.1).

    POST / ─ host ─ content type ─ at most 5 MiB, in 30 s ─► rpc.py ─► gzip ─► client            GET / ─► 200, empty            anything else ─► 405
      connections.py: heads, slow readers, hosts                          └ budget.py: answers in memory, until they are read

CORS lets any web page call ``user_*`` methods unless the operator says otherwise: they do nothing that the wallet has not signed, and know no cookies.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sds_node.gateway.budget import Budget, Tab
from sds_node.gateway.connections import BoundedProtocol
from sds_node.gateway.rpc import Call, answered

log = structlog.get_logger("gateway")

MAX_BODY_BYTES: Final = 5 << 20
READ_S: Final = 30.0
WRITE_S: Final = 120.0
"""An answer that was not worked out by then: a transfer that begins may take 60 s."""
IDLE_S: Final = 120
MAX_CONNECTIONS: Final = 2_000
BACKLOG: Final = 512
BODIES_BYTES: Final = 256 << 20
"""Of all requests that are in memory at a time; a client that sends slowly holds no more than it has sent."""
GZIP_BYTES: Final = 1_024
MAX_GZIP_BYTES: Final = 8 << 20
SENT_BYTES: Final = 256 << 10
"""At a time: what a client has not read is not in the connection's buffer, too."""
CONTENT_TYPES: Final = ("application/json", "application/json-rpc", "application/jsonrequest")
_METHODS: Final = ["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"]
_CORS_HEADERS: Final = "Content-Type, Accept, Accept-Encoding"


class Front:
    """The application. ``call`` does a method. ``check`` refuses a request before it is read, with a response; None lets it in."""

    def __init__(
        self,
        call: Call,
        *,
        allowed_hosts: Sequence[str] = ("localhost",),
        allowed_origins: Sequence[str] = (),
        check: Callable[[Request], Response | None] = lambda _: None,
        read_s: float = READ_S,
    ) -> None:
        self._call, self._hosts, self._origins, self._check, self._read_s = (
            call,
            {one.lower() for one in allowed_hosts},
            set(allowed_origins),
            check,
            read_s,
        )
        self._held_bytes = 0
        self.answers = Budget()
        self.app: ASGIApp = Starlette(routes=[Route("/{path:path}", self._serve, methods=_METHODS)])

    async def _serve(self, request: Request) -> Response:
        response = await self._answer(request)
        origin = request.headers.get("origin")
        if origin is not None and self._origins and ("*" in self._origins or origin in self._origins):
            response.headers["Access-Control-Allow-Origin"] = "*" if "*" in self._origins else origin
            response.headers["Vary"] = "Origin"
        return response

    async def _answer(self, request: Request) -> Response:
        if not self._is_host(request.headers.get("host", "")):
            return _text(403, "invalid host specified")
        if request.method == "OPTIONS":
            return self._preflight(request)
        if request.url.path != "/":
            return _text(404, "not found: calls go to /")
        if request.method in ("GET", "HEAD"):
            # As a health check: a GET that asks for something is none.
            return (
                Response(status_code=200) if not request.headers.get("content-length", "0").strip("0") else _text(405, "method not allowed: use POST")
            )
        if request.method != "POST":
            return _text(405, "method not allowed: use POST")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in CONTENT_TYPES:
            return _text(415, f"invalid content type, only {CONTENT_TYPES[0]} is supported")
        refused = self._check(request)
        if refused is not None:
            return refused
        return await self._called(request)

    async def _called(self, request: Request) -> Response:
        body, tab = bytearray(), self.answers.tab()
        answer: bytes | None = None
        try:
            async with asyncio.timeout(self._read_s):
                refused = await self._read(request, body)
            if refused is not None:
                return refused
            async with asyncio.timeout(WRITE_S):
                with tab.open():
                    answer = await answered(bytes(body), self._call)
        except TimeoutError:
            return _text(408 if request.headers.get("content-length") != str(len(body)) else 503, "this took too long: try again")
        except ClientDisconnect:
            return _text(400, "the client is gone")
        finally:
            self._held_bytes -= len(body)
            if answer is None:
                tab.close()
        try:
            headers = {"Content-Type": "application/json"}
            if GZIP_BYTES <= len(answer) <= MAX_GZIP_BYTES and "gzip" in request.headers.get("accept-encoding", "").lower():
                answer = await asyncio.to_thread(gzip.compress, answer, 1)
                headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
            return _Answer(answer, headers, tab)
        except BaseException:
            tab.close()
            raise

    async def _read(self, request: Request, body: bytearray) -> Response | None:
        """The body into ``body``; a refusal as soon as it is seen that it is too large."""
        too_large = _text(413, f"content length too large: a request has at most {MAX_BODY_BYTES} bytes")
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and (len(length) > 9 or int(length) > MAX_BODY_BYTES):
            return too_large
        async for chunk in request.stream():
            if len(body) + len(chunk) > MAX_BODY_BYTES:
                return too_large
            if self._held_bytes + len(chunk) > BODIES_BYTES:
                return _text(503, "too many requests are under way: try again in a moment")
            self._held_bytes += len(chunk)
            body += chunk
        return None

    def _preflight(self, request: Request) -> Response:
        if not self._origins or "origin" not in request.headers:
            return _text(405, "method not allowed: use POST")
        return Response(
            status_code=204,
            headers={"Access-Control-Allow-Methods": "POST, GET", "Access-Control-Allow-Headers": _CORS_HEADERS, "Access-Control-Max-Age": "600"},
        )

    def _is_host(self, given: str) -> bool:
        """A number always passes, a name if it is allowed: a web page cannot make a name of its own lead here."""
        name, colon, port = given.rpartition(":")
        host = (name if colon and port.isdigit() else given).strip("[]").lower()
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return "*" in self._hosts or host in self._hosts
        return True


def _text(status: int, text: str) -> Response:
    return Response(text + "\n", status_code=status, media_type="text/plain")


class _Answer(Response):
    """An answer that is sent as it is read. ``tab`` is closed when all was sent, or the client is gone."""

    def __init__(self, content: bytes, headers: dict[str, str], tab: Tab) -> None:
        super().__init__(content, headers=headers)
        self._tab = tab

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for at in range(0, max(1, len(self.body)), SENT_BYTES):
                end = at + SENT_BYTES
                await send({"type": "http.response.body", "body": bytes(self.body[at:end]), "more_body": end < len(self.body)})
        finally:
            self._tab.close()


class Listener:
    """An application that listens: on a TCP port or, with ``path``, on a unix socket. ``start`` it, and ``stop`` it."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=IDLE_S, limit_concurrency=MAX_CONNECTIONS, http=BoundedProtocol,
            h11_max_incomplete_event_size=32 << 10, server_header=False, loop="none", ws="none", timeout_graceful_shutdown=10,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, path: str | None = None) -> int:
        """Listen, and return the port (0 for a socket). Raises OSError."""
        if path is not None:
            found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            found = socket.socket(family, socket.SOCK_STREAM)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(path if path is not None else (host, port))
            if path is not None:
                os.chmod(path, 0o600)  # before it listens, so nobody comes in between
        except OSError:
            found.close()
            raise
        self._socket = found
        # From here on clients are taken, though nobody serves them yet.
        found.listen(BACKLOG)
        bound = 0 if path is not None else int(found.getsockname()[1])
        # Signals are the process's own business.
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[found]))
        return bound

    async def stop(self) -> None:
        """Take no more, let end what is under way."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
