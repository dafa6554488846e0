"""JSON-RPC 2.0 over bytes: one request or a batch in, one answer or a list out; nothing of what comes in is larger or deeper than is said here.

    body ─ how many brackets ─ JSON ─ depth ─► requests ─► call(method, params) ─► answers (none for notifications), until a batch has 25 MB of them

Source: sds.md 5.1; JSON-RPC 2.0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from sds_node.gateway import budget
from sds_node.gateway.results import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, SERVER_ERROR, RpcError

MAX_BATCH: Final = 100
MAX_BATCH_BYTES: Final = 25_000_000
"""Of answers: once a batch has so many, what stands behind is not done."""
MAX_DEPTH: Final = 16
MAX_PARTS: Final = 20_000
"""Brackets and commas in a body: a batch of real calls has a few thousand. Base64 has none of them."""
MAX_ID_CHARACTERS: Final = 256
MAX_METHOD_CHARACTERS: Final = 128

Call = Callable[[str, Any], Awaitable[Any]]


async def answered(body: bytes, call: Call) -> bytes:
    """The answer to a body, empty when there is none to give."""
    try:
        asked = _parsed(body)
    except RpcError as error:
        return orjson.dumps(_error(None, error))
    if not isinstance(asked, list):
        one = await _one(asked, call)
        whole = orjson.dumps(one) if one is not None else b""
        budget.settle(len(whole))
        return whole
    if not 1 <= len(asked) <= MAX_BATCH:
        return orjson.dumps(_error(None, RpcError(INVALID_REQUEST, f"a batch has 1 to {MAX_BATCH} requests, got {len(asked)}")))
    # One after another: a client may send what depends on what stands before it.
    answers, size_bytes = list[bytes](), 0
    for request in asked:
        one = await _one(request, call if size_bytes <= MAX_BATCH_BYTES else _no_more)
        if one is not None:
            answers.append(orjson.dumps(one))
            size_bytes += len(answers[-1]) + 1
        budget.settle(size_bytes)
    return b"[" + b",".join(answers) + b"]" if answers else b""


async def _no_more(method: str, params: Any) -> Any:
    raise RpcError(SERVER_ERROR, f"the answers of this batch have more than {MAX_BATCH_BYTES} bytes: send this call in another request")


def _parsed(body: bytes) -> Any:
    if body.count(b"[") + body.count(b"{") + body.count(b",") > MAX_PARTS:
        raise RpcError(INVALID_REQUEST, f"a body has at most {MAX_PARTS} brackets and commas")
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RpcError(PARSE_ERROR, f"the body is no JSON: {str(error)[:200]}") from None
    if _depth_over(asked):
        raise RpcError(INVALID_REQUEST, f"a request is nested at most {MAX_DEPTH} deep")
    return asked


def _depth_over(asked: Any) -> bool:
    level: list[Any] = [asked]
    for _ in range(MAX_DEPTH):
        level = [child for one in level for child in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())]
        if not level:
            return False
    return True


async def _one(request: Any, call: Call) -> dict[str, Any] | None:
    id_ = request.get("id") if isinstance(request, dict) else None
    is_id = id_ is None or isinstance(id_, int | float) or (isinstance(id_, str) and len(id_) <= MAX_ID_CHARACTERS)
    if not isinstance(request, dict) or not is_id or isinstance(id_, bool):
        return _error(None, RpcError(INVALID_REQUEST, "invalid request: expected an object with jsonrpc, id, method and params"))
    method = request.get("method")
    if request.get("jsonrpc") != "2.0" or not isinstance(method, str) or not 0 < len(method) <= MAX_METHOD_CHARACTERS:
        return _error(id_, RpcError(INVALID_REQUEST, 'invalid request: expected jsonrpc "2.0" and the name of a method'))
    params = request.get("params")
    try:
        if params is not None and not isinstance(params, list | dict):
            raise RpcError(INVALID_PARAMS, "non-array args: params is an array of one object")
        answer = {"jsonrpc": "2.0", "id": id_, "result": await call(method, params)}
    except RpcError as error:
        answer = _error(id_, error)
    # What has no id wants no answer.
    return answer if "id" in request else None


def _error(id_: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "error": {"code": error.code, "message": str(error)}}
