"""What a node shows on its own machine over HTTP: metrics for Prometheus, health, status. ``ppd`` and ``spd`` say what.

    LocalPages ── GET path ─► a function's Response            declared metrics + values ─ render ─► Prometheus' text

Nothing here changes anything. Only requests that name this machine are answered, so that a website in the owner's browser reads nothing by a name of
its own that leads here; other sites' scripts get no permission to read either. Source: storage-interfaces.md 9 (observability).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

log = structlog.get_logger("monitor")

MAX_CONNECTIONS: Final = 100
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Values = dict[str, dict[tuple[str, ...], float]]
"""Of each metric, its value for each set of labels; the empty tuple where it has none."""
Handler = Callable[[], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric: ``kind`` is counter or gauge; ``name`` as Prometheus shows it."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


def render(metrics: Sequence[Declared], values: Values) -> Response:
    """The values as Prometheus reads them; what has none is left out."""
    registry = CollectorRegistry()
    registry.register(_Collector(metrics, values))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE)


class _Collector:
    def __init__(self, metrics: Sequence[Declared], values: Values) -> None:
        self._metrics, self._values = metrics, values

    def collect(self) -> Iterator[Metric]:
        for declared in self._metrics:
            family: Any
            if declared.kind == "counter":
                family = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
            else:
                family = GaugeMetricFamily(declared.name, declared.help, labels=declared.labels)
            for labels, value in self._values.get(declared.name, {}).items():
                family.add_metric(labels, value)
            yield family


def health(problems: Sequence[str]) -> Response:
    """200 when there are none, else 503; JSON with them."""
    return JSONResponse({"is_healthy": not problems, "problems": list(problems)}, 503 if problems else 200)


class LocalPages:
    """Serves ``paths``. ``setting`` is what an operator changes when the port is taken."""

    def __init__(self, paths: Mapping[str, Handler], setting: str) -> None:
        self._paths, self._setting = paths, setting
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.host, self.port = "", 0

    async def start(self, host: str, port: int) -> None:
        """Listen at an IP address and a port, 0 for a free one. Raises OSError."""
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            raise OSError(f"metrics cannot be served at {host}:{port}: {error.strerror}; change {self._setting}") from None
        self.host, self.port = host, listener.getsockname()[1]
        app = Starlette(routes=[Route(path, self._guarded(handler)) for path, handler in self._paths.items()])
        settings = uvicorn.Config(
            app, http="h11", log_level="warning", lifespan="off", limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=2, server_header=False
        )
        self._server = uvicorn.Server(settings)
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        self._task = asyncio.ensure_future(self._server.serve(sockets=[listener]))
        log.info("monitor listens", url=f"http://{host}:{self.port}/")

    async def close(self) -> None:
        """Let running requests end, and close."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.gather(self._task, return_exceptions=True)

    def _guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if not _is_here(request.headers.get("host", "")):
                return Response("this page is for its own machine\n", 403)
            response = await handler()
            response.headers.update(_HEADERS)
            return response

        return guarded


def _is_here(host: str) -> bool:
    """Whether a request names an IP address or localhost; a name may be anybody's who lets it lead here."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    if name == "localhost":
        return True
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name.strip("[]"))
        return True
    return False
