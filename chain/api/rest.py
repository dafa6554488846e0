"""REST as the SDK's gateway serves it: routes, parameters and bodies come from the ``google.api.http`` options of the services."""

from __future__ import annotations

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import orjson
import structlog
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from chain.api.heights import HEIGHT_HEADER, asked_height
from chain.application_queries import status_of
from chain.codec.json import dumps, from_json, loads
from chain.codec.registry import POOL, extension, message_class, option_of
from chain.errors import AppError, InvalidRequest
from chain.metrics import CONTENT_TYPE, Metrics

log = structlog.get_logger("rest")

OUT_HEIGHT_HEADER: Final = f"grpc-metadata-{HEIGHT_HEADER}"
MAX_BODY_BYTES: Final = 4 << 20
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}", re.ASCII)
_HTTP: Final = extension("google.api.http")
_HTTP_OF: Final = {
    "InvalidArgument": (3, 400),
    "NotFound": (5, 404),
    "PermissionDenied": (7, 403),
    "Unimplemented": (12, 501),
    "Unavailable": (14, 503),
    "Unknown": (2, 500),
    "Internal": (13, 500),
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
            described.setdefault(template, {})[verb] = (method, one.body)
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
        document = orjson.dumps(openapi_document(described))

        async def openapi(request: Request) -> Response:
            return _json(document)

        async def page(request: Request) -> Response:
            return HTMLResponse(_page(described))

        routes += [Route("/swagger/openapi.json", openapi), Route("/swagger/", page), Route("/swagger", page)]
    middleware = [] if metrics is None else [Middleware(_Timed, metrics=metrics)]
    middleware += [Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])] if cors else []
    served = Starlette(routes=routes, middleware=middleware, exception_handlers={404: _not_implemented, 405: _not_implemented})
    served.router.redirect_slashes = False
    return served


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
        heights: list[int] = []  # once the state was looked at, an error has its height, too
        try:
            message = await _body(request, cls) if body else cls()
            for name, value in request.path_params.items():
                _set(message, name, [value])
            if not body:
                given: dict[str, list[str]] = {}
                for name, value in request.query_params.multi_items():
                    if name.partition(".")[0] in request.path_params:
                        continue  # what the path says stands
                    given.setdefault(name, []).append(value)
                for name, values in given.items():
                    _set(message, name, values)
            height = asked_height(request.headers.getlist(HEIGHT_HEADER) + request.headers.getlist(OUT_HEIGHT_HEADER))
            answer, _ = await asyncio.get_running_loop().run_in_executor(pool, app.query_rpc, path, message, height, heights.append)
            return _json(dumps(answer), headers=_height(heights))
        except AppError as error:
            name, text = status_of(error)
            code, status = _HTTP_OF[name]
            return _error(code, text, status, {"connection": "close"} if isinstance(error, _BodyTooLarge) else _height(heights))
        except Exception:
            log.exception("a request failed", path=request.url.path)
            app.counts.panicked("rest")
            return _error(13, "internal error: the node's log has the details", 500, _height(heights))

    return endpoint


def _height(heights: list[int]) -> dict[str, str]:
    return {OUT_HEIGHT_HEADER: str(heights[0])} if heights else {}


class _BodyTooLarge(InvalidRequest):  # type: ignore[valid-type,misc]
    """The rest of the body is not read: the connection is closed."""


async def _body(request: Request, cls: Any) -> Any:
    """The message that a JSON body holds; names it does not know at the top are left aside, as the gateway does. Raises InvalidRequest."""
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > MAX_BODY_BYTES:
            raise _BodyTooLarge(f"a body has at most {MAX_BODY_BYTES} bytes")
    value = loads(bytes(raw)) if raw.strip() else {}
    if isinstance(value, dict):
        by_name, by_camelcase_name = cls.DESCRIPTOR.fields_by_name, cls.DESCRIPTOR.fields_by_camelcase_name
        value = {name: item for name, item in value.items() if name in by_name or name in by_camelcase_name}
    return from_json(cls, {} if value is None else value)


def _set(message: Any, name: str, texts: list[str]) -> None:
    """Set ``a.b.c`` from a path or query parameter: all ``texts`` of a repeated field, the first of any other. Raises AppError."""
    *parents, last = name.split(".")
    if len(parents) > 8:
        raise InvalidRequest(f"parameter {name[:100]!r} nests too deep")
    target = message
    for part in parents:
        field = target.DESCRIPTOR.fields_by_name.get(part) or target.DESCRIPTOR.fields_by_camelcase_name.get(part)
        if field is None:
            return
        if field.message_type is None or field.is_repeated:
            raise InvalidRequest(f"parameter {name[:100]!r}: {part} has no fields")
        target = getattr(target, field.name)
    field = target.DESCRIPTOR.fields_by_name.get(last) or target.DESCRIPTOR.fields_by_camelcase_name.get(last)
    if field is None:
        return  # the gateway ignores parameters it does not know
    if field.message_type is not None and not field.message_type.full_name.startswith("google.protobuf."):
        fields = ", ".join(f"{name}.{one.name}" for one in field.message_type.fields)
        raise InvalidRequest(f"parameter {name[:100]!r} has no value of its own: expected one of {fields}")
    values = [_parameter(field, name, text) for text in (texts if field.is_repeated else texts[:1])]
    parsed = from_json(type(target), {field.name: values if field.is_repeated else values[0]}, ".".join(parents))
    target.MergeFrom(parsed)
    if not field.is_repeated and field.message_type is None:
        setattr(target, field.name, getattr(parsed, field.name))


def _parameter(field: Any, name: str, text: str) -> Any:
    if field.type == field.TYPE_BOOL:
        if text not in _TRUE and text not in _FALSE:
            raise InvalidRequest(f"type mismatch, parameter: {name}: expected true or false, got {text[:40]!r}")
        return text in _TRUE
    if field.type == field.TYPE_BYTES and (len(text) % 4 or not _BASE64.fullmatch(text)):
        raise InvalidRequest(f"type mismatch, parameter: {name}: expected base64 with its padding, got {text[:40]!r}")
    if field.enum_type is not None and text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    return text


class _LastSegment(StringConvertor):
    regex = "[^/]*"


register_url_convertor("last", _LastSegment())


def _starlette_path(template: str) -> str:
    """A parameter at the end may be empty: its method says what it expects there."""
    return re.sub(r"(\{\w+)\}$", r"\1:last}", template.replace("=**}", ":path}"))


def _json(raw: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(raw, status, headers, media_type="application/json")


def _error(code: int, message: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return _json(orjson.dumps({"code": code, "message": message, "details": []}), status, headers)


async def _not_implemented(request: Request, error: Exception) -> Response:
    return _error(12, "Not Implemented", 501)


def openapi_document(described: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI 3 of the routes: template → verb → (method descriptor, body rule), with every message as a schema."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for template, verbs in sorted(described.items()):
        names = [part.strip("{}").removesuffix("=**") for part in template.split("/") if part.startswith("{")]
        for verb, (method, body) in verbs.items():
            parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
            entry: dict[str, Any] = {
                "operationId": f"{method.full_name}.{len(paths)}",
                "summary": method.full_name,
                "tags": [method.containing_service.full_name],
                "responses": {
                    "200": {"description": "the answer", "content": _content(method.output_type, schemas)},
                    "default": {"description": "an error", "content": {"application/json": {"schema": _ERROR_SCHEMA}}},
                },
            }
            if body:
                entry["requestBody"] = {"content": _content(method.input_type, schemas)}
            else:
                parameters += _query_parameters(method.input_type, frozenset(names))
            entry["parameters"] = parameters
            paths.setdefault(template.replace("=**", ""), {})[verb] = entry
    return {"openapi": "3.0.3", "info": {"title": "Stratos", "version": "1"}, "paths": paths, "components": {"schemas": schemas}}


_ERROR_SCHEMA: Final = {
    "type": "object",
    "properties": {"code": {"type": "integer"}, "message": {"type": "string"}, "details": {"type": "array", "items": {"type": "object"}}},
}


def _content(descriptor: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": _schema(descriptor, schemas)}}


def _schema(descriptor: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    name = descriptor.full_name
    if name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        return {"type": "string"}
    if name == "google.protobuf.Any":
        return {"type": "object", "properties": {"@type": {"type": "string"}}, "additionalProperties": True}
    if name not in schemas:
        schemas[name] = {}
        schemas[name] = {"type": "object", "properties": {field.name: _field_schema(field, schemas) for field in descriptor.fields}}
    return {"$ref": f"#/components/schemas/{name}"}


def _field_schema(field: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    one = _schema(field.message_type, schemas) if field.message_type is not None else _scalar_schema(field)
    return {"type": "array", "items": one} if field.is_repeated else one


def _scalar_schema(field: Any) -> dict[str, Any]:
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.type == field.TYPE_BOOL:
        return {"type": "boolean"}
    if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32):
        return {"type": "integer"}
    return {"type": "string", **({"format": "byte"} if field.type == field.TYPE_BYTES else {})}


def _query_parameters(descriptor: Any, named: frozenset[str], prefix: str = "") -> list[dict[str, Any]]:
    found = []
    for field in descriptor.fields:
        if field.message_type is not None:
            if not field.is_repeated and field.message_type.full_name == "cosmos.base.query.v1beta1.PageRequest":
                found += _query_parameters(field.message_type, named, f"{field.name}.")
        elif prefix + field.name not in named:
            schema = _scalar_schema(field)
            schema = {"type": "array", "items": schema} if field.is_repeated else schema
            found.append({"name": prefix + field.name, "in": "query", "required": False, "schema": schema})
    return found


def _page(described: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{verb.upper()}</td><td><code>{template}</code></td><td>{method.full_name}</td></tr>"
        for template, verbs in sorted(described.items())
        for verb, (method, _) in verbs.items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Stratos REST</title><h1>Stratos REST</h1>"
        f"<p>Machine-readable: <a href=openapi.json>openapi.json</a></p><table>{rows}</table></html>"
    )
