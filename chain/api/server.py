"""gRPC and REST in one thread with one event loop; handlers run in a small pool, so a slow query blocks neither the loop nor a block."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import structlog
import uvicorn
import uvloop
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer as AsyncReflection

from chain.api.comet import CometClient
from chain.api.heights import HEIGHT_HEADER, asked_height
from chain.api.rest import build_rest
from chain.api.services import handlers
from chain.application import Application
from chain.application_queries import status_of
from chain.codec.canonical import encode
from chain.codec.registry import POOL
from chain.errors import AppError
from chain.metrics import Metrics

log = structlog.get_logger("api")

WORKERS: Final = 8
MAX_CONNECTIONS: Final = 1000
_REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"


class ApiServer:
    """Serves ``app`` at the addresses of app.toml's ``[grpc]`` and ``[api]``."""

    def __init__(self, app: Application, comet: CometClient, config: dict[str, Any], metrics: Metrics | None = None) -> None:
        app.register_queries(handlers(app, comet, config))
        self._app = app
        self._comet = comet
        self._config = config
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="query")
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._error: OSError | None = None

    def start(self) -> None:
        """Listen and return. Raises OSError saying which address is taken."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="api", daemon=True)
        self._thread.start()
        ready.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Let running requests end, then close."""
        if self._loop is not None and self._stopping is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._comet.close()

    def _run(self, ready: threading.Event) -> None:
        uvloop.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        rest = grpc_server = None
        try:
            if self._config["grpc"]["enable"]:
                grpc_server = await self._start_grpc()
            if self._config["api"]["enable"]:
                rest = self._start_rest()
        except Exception as error:
            if grpc_server is not None:
                await grpc_server.stop(None)
            self._error = error if isinstance(error, OSError) else OSError(f"gRPC and REST cannot be served: {error}")
            ready.set()
            return
        ready.set()
        await self._stopping.wait()
        if rest is not None:
            rest[0].should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await rest[1]
        if grpc_server is not None:
            await grpc_server.stop(1)

    async def _start_grpc(self) -> Any:
        section = self._config["grpc"]
        _split(section["address"], "[grpc] address")
        limit = section["max-recv-msg-size"]
        options = [("grpc.max_receive_message_length", limit), ("grpc.so_reuseport", 0)]
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MAX_CONNECTIONS)
        by_service: dict[str, dict[str, Any]] = {}
        for path in self._app.queries.paths:
            service, _, method = path.lstrip("/").partition("/")
            by_service.setdefault(service, {})[method] = self._method(path)
        for service, methods in by_service.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        names = [*by_service, reflection.SERVICE_NAME, _REFLECTION_V1]
        reflection.enable_server_reflection(names, server, pool=POOL)
        server.add_generic_rpc_handlers((_reflection_v1(names),))
        try:
            _probe(section["address"])
            if not server.add_insecure_port(section["address"]):
                raise RuntimeError
        except (RuntimeError, OSError):
            await server.stop(None)
            raise OSError(f"gRPC cannot listen at {section['address']}: is another node running? change [grpc] address in app.toml") from None
        await server.start()
        return server

    def _method(self, path: str) -> Any:
        app, pool = self._app, self._pool

        metrics = self._metrics

        async def answer(request: Any, context: Any) -> Any:
            if metrics is None:
                return await run(request, context)
            started, status = time.perf_counter(), "ERROR"
            try:
                response = await run(request, context)
                status = "OK"
                return response
            finally:
                metrics.request_s.labels("grpc", status).observe(time.perf_counter() - started)

        async def run(request: Any, context: Any) -> Any:
            given = [value for key, value in context.invocation_metadata() or () if key == HEIGHT_HEADER]
            response = failure = None
            heights: list[int] = []
            try:
                height = asked_height(given)
                response, _ = await asyncio.get_running_loop().run_in_executor(pool, app.query_rpc, path, request, height, heights.append)
            except AppError as error:
                failure = grpc_status(error)
            except Exception:
                log.exception("a query failed", path=path)
                app.counts.panicked("grpc")
                failure = grpc.StatusCode.INTERNAL, "internal error: the node's log has the details"
            if heights:  # an error has it, too, once the state was looked at
                await context.send_initial_metadata(((HEIGHT_HEADER, str(heights[0])),))
            if failure is not None:
                await context.abort(*failure)
            return response

        # The request stays bytes until the handler's thread: bytes that do not parse are the caller's mistake, not an internal error.
        return grpc.unary_unary_rpc_method_handler(answer, request_deserializer=None, response_serializer=encode)

    def _start_rest(self) -> Any:
        section = self._config["api"]
        host, port = _split(section["address"], "[api] address")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            raise OSError(
                f"REST cannot listen at {section['address']}: {error.strerror}; is another node running? change [api] address in app.toml"
            ) from None
        rest = build_rest(self._app, self._pool, cors=section["enabled-unsafe-cors"], swagger=section["swagger"], metrics=self._metrics)
        # h11 bounds request line and headers (64 KiB); httptools takes any size.
        settings = uvicorn.Config(
            rest,
            http="h11",
            log_level="warning",
            lifespan="off",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=3,
            server_header=False,
        )
        server = uvicorn.Server(settings)
        server.install_signal_handlers = _nothing  # type: ignore[attr-defined]
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        return server, asyncio.ensure_future(server.serve(sockets=[listener]))


_nothing: Callable[[], None] = lambda: None  # noqa: E731


def _split(address: str, key: str) -> tuple[str, int]:
    """(host, port) of ``tcp://host:port`` or ``host:port``. Raises OSError naming the key of app.toml."""
    host, colon, port = address.removeprefix("tcp://").rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise OSError(f"{address[:100]!r} is no address: expected host:port with a port up to 65535; change {key} in app.toml")
    return host, int(port)


def _reflection_v1(names: list[str]) -> Any:
    """The reflection service under its newer name: the messages are those of v1alpha."""
    method = grpc.stream_stream_rpc_method_handler(
        AsyncReflection(service_names=names, pool=POOL).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": method})


def _probe(address: str) -> None:
    """Raise OSError where an IPv4 address is taken: gRPC would write lines of its own about it to stderr."""
    host, _, port = address.rpartition(":")
    if host.count(":") or not port.isdigit():
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, int(port)))


def grpc_status(error: AppError) -> tuple[Any, str]:
    """The gRPC status of a rule's error, and its text."""
    name, text = status_of(error)
    return getattr(grpc.StatusCode, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()), text
