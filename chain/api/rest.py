"""REST as the SDK's gateway serves it: routes, parameters and bodies come from the ``google.api.http`` options of the services."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import orjson
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from chain.application_queries import status_of
from chain.codec.json import dumps, from_json, loads
from chain.codec.registry import POOL, extension, message_class, option_of
from chain.errors import AppError, InvalidRequest
from chain.metrics import CONTENT_TYPE, Metrics

log = structlog.get_logger("rest")

HEIGHT_HEADER: Final = "x-cosmos-block-height"
OUT_HEIGHT_HEADER: Final = "grpc-metadata-x-cosmos-block-height"
MAX_BODY_BYTES: Final = 4 << 20
_HTTP: Final = extension("google.api.http")
_HTTP_OF: Final = {
    "InvalidArgument": (3, 400),
    "NotFound": (5, 404),
    "PermissionDenied": (7, 403),
    "Unimplemented": (12, 501),
    "Unavailable": (14, 503),
    "Unknown": (2, 500),
}
"""gRPC status name → (its number, HTTP status), as the SDK's gateway answers."""


def build_rest(app: Any, pool: ThreadPoolExecutor, *, cors: bool, swagger: bool, metrics: Metrics | None = None) -> Starlette:
    """The ASGI application over ``app.query_rpc`` for every method that ``app.queries`` answers and that has an HTTP route."""
    routes = []
    described: dict[str, Any] = {}
    for path in app.queries.paths:
        service, _, name = path.lstrip("/").partition("/")
        method = POOL.FindServiceByName(service).FindMethodByName(name)
        rule = option_of(method, _HTTP)
        for one in [] if rule is None else [rule, *rule.additional_bindings]:
            verb = one.WhichOneof("pattern")
            template = getattr(one, verb)
            endpoint = _endpoint(app, pool, path, method, one.body)
            routes.append(Route(_starlette_path(template), endpoint, methods=[verb.upper()]))
            described.setdefault(template, {})[verb] = _describe(method)
    # A literal segment wins over a parameter at the same place.
    routes.sort(key=lambda route: [(part.startswith("{"), part) for part in route.path.split("/")])

    async def health(request: Request) -> Response:
        return _json(b'{"status":"ok","height":"%d"}' % app.latest_height)

    routes.append(Route("/health", health))
    if metrics is not None:
        shown = metrics

        async def show_metrics(request: Request) -> Response:
            return Response(shown.render(), media_type=CONTENT_TYPE)

        routes.append(Route("/metrics", show_metrics))
    if swagger:
        document = _openapi(described)

        async def openapi(request: Request) -> Response:
            return _json(document)

        async def page(request: Request) -> Response:
            return HTMLResponse(_page(described))

        routes += [Route("/swagger/openapi.json", openapi), Route("/swagger/", page), Route("/swagger", page)]
    middleware = [] if metrics is None else [Middleware(_Timed, metrics=metrics)]
    middleware += [Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])] if cors else []
    return Starlette(routes=routes, middleware=middleware, exception_handlers={404: _not_implemented, 405: _not_implemented})


class _Timed:
    """Observes the time and the HTTP status of each request."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.request_s.labels("rest", str(status)).observe(time.perf_counter() - started)


def _endpoint(app: Any, pool: ThreadPoolExecutor, path: str, method: Any, body: str) -> Any:
    cls = message_class(method.input_type.full_name)

    async def endpoint(request: Request) -> Response:
        try:
            message = cls()
            if body:
                raw = await request.body()
                if len(raw) > MAX_BODY_BYTES:
                    raise InvalidRequest(f"a body has at most {MAX_BODY_BYTES} bytes")
                message = from_json(cls, loads(raw or b"{}"))
            for name, value in request.path_params.items():
                _set(message, name, value)
            if not body:
                for name, value in request.query_params.multi_items():
                    _set(message, name, value)
            height = request.headers.get(HEIGHT_HEADER) or request.headers.get(OUT_HEIGHT_HEADER) or "0"
            if not height.isascii() or not height.isdigit() or len(height) > 19:
                raise InvalidRequest(f"{HEIGHT_HEADER} must be a height, got {height[:40]!r}")
            answer, at = await asyncio.get_running_loop().run_in_executor(pool, app.query_rpc, path, message, int(height) or None)
            return _json(dumps(answer), headers={OUT_HEIGHT_HEADER: str(at)})
        except AppError as error:
            name, text = status_of(error)
            code, status = _HTTP_OF[name]
            return _error(code, text, status)
        except Exception:
            log.exception("a request failed", path=request.url.path)
            app.counts.panicked("rest")
            return _error(13, "internal error: the node's log has the details", 500)

    return endpoint


def _set(message: Any, name: str, text: str) -> None:
    """Set ``a.b.c`` from a path or query parameter, appending to repeated fields."""
    *parents, last = name.split(".")
    if len(parents) > 8:
        raise InvalidRequest(f"parameter {name[:100]!r} nests too deep")
    target = message
    for part in parents:
        field = target.DESCRIPTOR.fields_by_name.get(part) or target.DESCRIPTOR.fields_by_camelcase_name.get(part)
        if field is None or field.message_type is None or field.is_repeated:
            return
        target = getattr(target, field.name)
    field = target.DESCRIPTOR.fields_by_name.get(last) or target.DESCRIPTOR.fields_by_camelcase_name.get(last)
    if field is None or (field.message_type is not None and field.message_type.full_name.startswith("google.protobuf.") is False):
        return  # the gateway ignores parameters it does not know
    value: Any = text
    if field.type == field.TYPE_BOOL:
        if text not in ("true", "false", "1", "0", ""):
            raise InvalidRequest(f"type mismatch, parameter: {name}: expected true or false, got {text[:40]!r}")
        value = text in ("true", "1", "")
    elif field.enum_type is not None and text.isascii() and text.isdigit():
        value = int(text)
    parsed = from_json(type(target), {field.name: [value] if field.is_repeated else value}, name)
    target.MergeFrom(parsed)
    if not field.is_repeated and field.message_type is None:
        setattr(target, field.name, getattr(parsed, field.name))


def _starlette_path(template: str) -> str:
    return template.replace("=**}", ":path}")


def _json(raw: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(raw, status, headers, media_type="application/json")


def _error(code: int, message: str, status: int) -> Response:
    return _json(orjson.dumps({"code": code, "message": message, "details": []}), status)


async def _not_implemented(request: Request, error: Exception) -> Response:
    return _error(12, "Not Implemented", 501)


def _describe(method: Any) -> dict[str, Any]:
    return {
        "operationId": method.full_name,
        "tags": [method.containing_service.full_name],
        "responses": {"200": {"description": method.output_type.full_name}},
    }


def _openapi(described: dict[str, Any]) -> bytes:
    paths = {}
    for template, verbs in sorted(described.items()):
        names = [part.strip("{}").removesuffix("=**") for part in template.split("/") if part.startswith("{")]
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        paths[template.replace("=**", "")] = {verb: {**entry, "parameters": parameters} for verb, entry in verbs.items()}
    return orjson.dumps({"openapi": "3.0.3", "info": {"title": "Stratos", "version": "1"}, "paths": paths})


def _page(described: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{verb.upper()}</td><td><code>{template}</code></td><td>{entry['operationId']}</td></tr>"
        for template, verbs in sorted(described.items())
        for verb, entry in verbs.items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Stratos REST</title><h1>Stratos REST</h1>"
        f"<p>Machine-readable: <a href=openapi.json>openapi.json</a></p><table>{rows}</table></html>"
    )
