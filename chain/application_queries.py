"""Queries of the application: gRPC methods by path, raw store keys with proofs, and the ``/app`` paths (abci-sdk-rules.md section 7).

Every query reads an immutable view, so it neither waits for a block nor holds one up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode
from chain.codec.registry import POOL, message_class
from chain.context import Context, Mode
from chain.errors import AppError, InvalidRequest, IOFailure, KeyNotFound, UnknownRequest
from chain.module import Query
from chain.store import proofs
from chain.store.api import prefix_end
from chain.store.errors import FutureVersion, VersionPruned
from chain.store.multistore import View
from chain.store.state import State
from chain.tx.decode import decode_tx
from chain.tx.execution import BlockInfo
from chain.tx.results import encode_event, failure_of

if TYPE_CHECKING:
    from chain.application import Application

log = structlog.get_logger("query")

ResponseQuery: Final = message_class("tendermint.abci.ResponseQuery")
SimulateResponse: Final = message_class("cosmos.tx.v1beta1.SimulateResponse")
MAX_SUBSPACE_ENTRIES: Final = 10_000


_STATUS: Final = {
    ("sdk", 38): "NotFound",
    ("sdk", 22): "NotFound",
    ("sdk", 9): "NotFound",
    ("sdk", 6): "Unimplemented",
    ("sdk", 4): "PermissionDenied",
    ("sdk", 39): "Unavailable",
    ("sdk", 11): "Unknown",
}
_STATUS_ERRORS: Final[dict[str, type[AppError]]] = {"NotFound": KeyNotFound, "Unimplemented": UnknownRequest, "Unavailable": IOFailure}


def status_of(error: AppError) -> tuple[str, str]:
    """(gRPC status name, its text) of a rule's error: InvalidArgument unless the table names another."""
    name = _STATUS.get((error.codespace, error.code), "InvalidArgument")
    return name, error.detail if name == "NotFound" and error.detail else str(error)


def as_query_error(error: AppError) -> AppError:
    """How the SDK shows a gRPC method's error in an ABCI query: clients look for ``rpc error: code = NotFound``."""
    if error.codespace == "sdk" and error.code in (6, 18, 26) and isinstance(error, FutureVersion | VersionPruned | UnknownRequest):
        return error
    name, text = status_of(error)
    return _STATUS_ERRORS.get(name, InvalidRequest)(f"rpc error: code = {name} desc = {text}")


class QueryRouter:
    """Finds the handler of a path and runs it on the version asked for."""

    def __init__(self, app: Application, handlers: Mapping[str, Query]) -> None:
        self._app = app
        self._handlers = dict(handlers)

    def add(self, handlers: Mapping[str, Query]) -> None:
        self._handlers.update(handlers)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every gRPC method that is answered, sorted."""
        return tuple(sorted(self._handlers))

    def answer(self, request: Any) -> Any:
        """RequestQuery → ResponseQuery; errors become codes."""
        height = request.height
        try:
            if height < 0:
                raise InvalidRequest(f"a height is not negative, got {height}")
            return self._route(request)
        except AppError as error:
            return ResponseQuery(code=error.code, codespace=error.codespace, log=str(error), height=height)
        except Exception as error:
            log.exception("a query failed", path=request.path)
            self._app.counts.panicked("query")
            codespace, code, text = failure_of(error)
            return ResponseQuery(code=code, codespace=codespace, log=text, height=height)

    def rpc(self, path: str, request: Any, height: int | None = None) -> tuple[Any, int]:
        """(response message, height it is of). ``request`` is the message or its bytes. Raises AppError."""
        handler = self._handlers.get(path)
        if handler is None:
            raise UnknownRequest(f"unknown query path: {path[:200]}")
        if isinstance(request, bytes):
            try:
                request = request_class(path).FromString(request)
            except DecodeError:
                raise InvalidRequest(f"the request bytes of {path} do not parse") from None
        with self._view(height) as view:
            state = State(view, self._app.store.names)
            ctx = Context(self._app.chain_id, view.version, self._app.latest_time_ns, Mode.QUERY)
            return handler(ctx, state, request), view.version

    def simulate(self, raw: bytes) -> Any:
        """Run a transaction without fee minimum and signatures on a throwaway overlay. Raises the AppError it would fail with."""
        tx = decode_tx(raw)
        with self._view(None) as view:
            state = State(view, self._app.store.names)
            params = self._app._capabilities.consensus_params(state)
            info = BlockInfo(self._app.chain_id, view.version + 1, self._app.latest_time_ns, b"", params.block.max_gas)
            outcome = self._app.executor.run(state, info, tx, Mode.SIMULATE)
        if outcome.error is not None:
            if isinstance(outcome.error, AppError):
                raise outcome.error
            raise InvalidRequest(str(outcome.error))
        response = SimulateResponse()
        response.gas_info.gas_wanted, response.gas_info.gas_used = outcome.gas_wanted, outcome.gas_used
        response.result.data = outcome.data
        data = message_class("cosmos.base.abci.v1beta1.TxMsgData").FromString(outcome.data)
        response.result.msg_responses.extend(data.msg_responses)
        for event, at in outcome.events:
            extra = () if at is None else (("msg_index", str(at)),)
            response.result.events.add().ParseFromString(encode_event(event, extra))
        return response

    def _route(self, request: Any) -> Any:
        path = request.path
        if path.startswith("/store/"):
            return self._store(request)
        if path == "/app/simulate":
            return ResponseQuery(value=encode(self.simulate(request.data)), height=self._app.latest_height)
        if path == "/app/version":
            return ResponseQuery(value=self._app.settings.version.encode(), height=self._app.latest_height)
        if path.startswith("/p2p/filter/"):
            return ResponseQuery()
        if request.prove:
            raise InvalidRequest("proofs are given for /store/<name>/key alone")
        try:
            response, height = self.rpc(path, bytes(request.data), request.height or None)
        except AppError as error:
            raise as_query_error(error) from None
        return ResponseQuery(value=encode(response), height=height)

    def _store(self, request: Any) -> Any:
        name, _, what = request.path.removeprefix("/store/").partition("/")
        if name not in self._app.store.names:
            raise UnknownRequest(f"no such store: {name[:100]}")
        if what not in ("key", "subspace"):
            raise UnknownRequest(f"unexpected query path: {request.path[:200]}; expected /store/{name}/key or /store/{name}/subspace")
        with self._view(request.height or None) as view:
            if what == "subspace":
                return self._subspace(request, view, name)
            if not request.data:
                raise InvalidRequest("query cannot be zero length")
            value = view.store(name).get(request.data)
            response = ResponseQuery(key=request.data, value=value or b"", height=view.version)
            if request.prove:
                if view.version <= 1:
                    raise InvalidRequest("cannot query with proof when height <= 1; please provide a valid height")
                try:
                    response.proof_ops.CopyFrom(self._app.store.prove(name, request.data, view.version)[1])
                except proofs.NoProof as error:
                    raise InvalidRequest(str(error)) from None
            return response

    def _subspace(self, request: Any, view: View, name: str) -> Any:
        pairs = message_class("cosmos.store.internal.kv.v1beta1.Pairs")()
        for key, value in view.store(name).iterate(request.data or None, prefix_end(request.data)):
            pairs.pairs.add(key=key, value=value)
            if len(pairs.pairs) > MAX_SUBSPACE_ENTRIES:
                raise InvalidRequest(f"the subspace has more than {MAX_SUBSPACE_ENTRIES} entries: ask for a longer prefix")
        return ResponseQuery(key=request.data, value=pairs.SerializeToString(), height=view.version)

    def _view(self, height: int | None) -> View:
        if self._app.latest_height == 0:
            raise FutureVersion("the application is not ready; please wait for the first block")
        return self._app.store.view(height)


def request_class(path: str) -> Any:
    """The request message of a gRPC method ``/package.Service/Method``. Raises UnknownRequest."""
    service, _, method = path.lstrip("/").partition("/")
    try:
        found = POOL.FindServiceByName(service).FindMethodByName(method)
    except KeyError:
        raise UnknownRequest(f"unknown query path: {path[:200]}") from None
    return message_class(found.input_type.full_name)
