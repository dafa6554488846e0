"""Queries of the application: gRPC methods by path, raw store keys with proofs, and the ``/app`` paths (abci-sdk-rules.md section 7).

Every query reads an immutable view, so it neither waits for a block nor holds one up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
MAX_SUBSPACE_BYTES: Final = 16 << 20
_SERVED_BY_ABCI: Final = ("app", "store", "p2p", "custom")

_STATUS: Final = {
    ("sdk", 38): "NotFound",
    ("sdk", 22): "NotFound",
    ("authz", 2): "NotFound",
    ("sdk", 9): "NotFound",
    ("sdk", 6): "Unimplemented",
    ("sdk", 4): "PermissionDenied",
    ("sdk", 39): "Unavailable",
    ("sdk", 11): "Unknown",
    ("undefined", 1): "Internal",
    ("upgrade", 2): "Unknown",
}
_STATUS_ERRORS: Final[dict[str, type[AppError]]] = {
    "NotFound": KeyNotFound,
    "Unimplemented": UnknownRequest,
    "Unavailable": IOFailure,
    "Unknown": UnknownRequest,
}


class SimulationFailed(UnknownRequest):  # type: ignore[valid-type,misc]
    """The transaction would fail: gRPC status Unknown with the transaction's own error as text, which relayers and wallets read."""


class StoreQueryUnknown(AppError):
    """store/4: a raw query for a store or in a way that does not exist."""

    codespace = "store"
    code = 4
    description = "unknown request"


class StoreQueryEmpty(AppError):
    """store/3: a raw query without a key."""

    codespace = "store"
    code = 3
    description = "tx parse error"


ERRORS: Final = (StoreQueryEmpty, StoreQueryUnknown)


def status_of(error: AppError) -> tuple[str, str]:
    """(gRPC status name, its text) of a rule's error: InvalidArgument unless the table names another.

    Texts are in the SDK's forms: the sentence alone for what a request got wrong, ``invalid address: …`` for addresses, and the code in front
    for heights.
    """
    if isinstance(error, SimulationFailed):
        return "Unknown", error.detail
    name = _STATUS.get((error.codespace, error.code), "InvalidArgument")
    if isinstance(error, FutureVersion | VersionPruned) or (name == "Unknown" and error.codespace != "sdk"):
        return name, f"codespace {error.codespace} code {error.code}: {error.description}: {error.detail}"
    if error.detail and error.codespace == "sdk":
        if name == "NotFound" or error.code in (17, 18):
            return name, error.detail
        if error.code == 7:
            return name, f"{error.description}: {error.detail}"
    return name, str(error)


def as_query_error(error: AppError) -> AppError:
    """How the SDK shows a gRPC method's error in an ABCI query: clients look for ``rpc error: code = NotFound``."""
    if isinstance(error, FutureVersion | VersionPruned) or type(error) is UnknownRequest:
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
                raise InvalidRequest("cannot query with height < 0; please provide a valid height")
            return self._route(request)
        except AppError as error:
            return ResponseQuery(code=error.code, codespace=error.codespace, log=str(error), height=height)
        except Exception as error:
            log.exception("a query failed", path=request.path)
            self._app.counts.panicked("query")
            codespace, code, text = failure_of(error)
            return ResponseQuery(code=code, codespace=codespace, log=text, height=height)

    def rpc(self, path: str, request: Any, height: int | None = None, told: Callable[[int], None] | None = None) -> tuple[Any, int]:
        """(response message, height it is of). ``request`` is the message or its bytes. Raises AppError.

        ``told`` is given the height before the handler runs: a caller that shows it beside an error, too, has it from there.
        """
        handler = self._handlers.get(path)
        if handler is None:
            raise UnknownRequest(f"unknown query path: {path[:200]}")
        if isinstance(request, bytes):
            try:
                request = request_class(path).FromString(request)
            except DecodeError:
                raise InvalidRequest(f"the request bytes of {path} do not parse") from None
        with self._view(height) as view:
            if told is not None:
                told(view.version)
            state = State(view, self._app.store.names)
            ctx = Context(self._app.chain_id, view.version, self._app.time_ns_at(view.version), Mode.QUERY)
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
        # The SDK simulates on a meter without limit and shows that limit.
        response.gas_info.gas_wanted, response.gas_info.gas_used = (1 << 64) - 1, outcome.gas_used
        response.result.data = outcome.data
        data = message_class("cosmos.base.abci.v1beta1.TxMsgData").FromString(outcome.data)
        response.result.msg_responses.extend(data.msg_responses)
        for event, at in outcome.events:
            extra = () if at is None else (("msg_index", str(at)),)
            added = response.result.events.add()
            added.ParseFromString(encode_event(event, extra))
            for attribute in added.attributes:
                attribute.index = False  # nothing is indexed before it is in a block
        return response

    def raw(self, request: Any) -> Any:
        """RequestQuery → ResponseQuery for the ``ABCIQuery`` method: raw stores and ``/app`` only, as the SDK has it. Raises InvalidRequest."""
        if not request.path:
            raise InvalidRequest("empty query path")
        if _split(request.path)[0] not in _SERVED_BY_ABCI:
            raise InvalidRequest(f"unsupported ABCI query path: {request.path[:200]}")
        return self.answer(request)

    def _route(self, request: Any) -> Any:
        match _split(request.path):
            case ["store", *rest]:
                return self._store(request, rest)
            case ["app", "simulate", *_]:
                return ResponseQuery(codespace="sdk", value=encode(self.simulate(request.data)), height=self._app.latest_height)
            case ["app", "version", *_]:
                return ResponseQuery(codespace="sdk", value=self._app.settings.version.encode(), height=self._app.latest_height)
            case ["p2p", "filter", "addr" | "id", _, *_]:
                return ResponseQuery()
        if request.prove:
            raise InvalidRequest("proofs are given for /store/<name>/key alone")
        try:
            response, height = self.rpc(request.path, bytes(request.data), request.height or None)
        except AppError as error:
            raise as_query_error(error) from None
        return ResponseQuery(value=encode(response), height=height)

    def _store(self, request: Any, rest: Sequence[str]) -> Any:
        name, what = rest[0] if rest else "", "/".join(rest[1:])
        if name not in self._app.store.names:
            raise StoreQueryUnknown(f"no such store: {name[:100]}")
        if what not in ("key", "subspace"):
            raise StoreQueryUnknown(f"unexpected query path: {request.path[:200]}; expected /store/{name}/key or /store/{name}/subspace")
        with self._view(request.height or None) as view:
            if what == "subspace":
                return self._subspace(request, view, name)
            if not request.data:
                raise StoreQueryEmpty("query cannot be zero length")
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
        size = 0
        for key, value in view.store(name).iterate(request.data or None, prefix_end(request.data)):
            pairs.pairs.add(key=key, value=value)
            size += len(key) + len(value)
            if len(pairs.pairs) > MAX_SUBSPACE_ENTRIES or size > MAX_SUBSPACE_BYTES:
                raise InvalidRequest(
                    f"the subspace has more than {MAX_SUBSPACE_ENTRIES} entries or {MAX_SUBSPACE_BYTES} bytes: ask for a longer prefix"
                )
        return ResponseQuery(key=request.data, value=pairs.SerializeToString(), height=view.version)

    def _view(self, height: int | None) -> View:
        if self._app.latest_height == 0:
            raise FutureVersion("the application is not ready; please wait for the first block")
        try:
            return self._app.store.view(height)
        except FutureVersion:
            latest = self._app.latest_height
            raise FutureVersion(f"cannot query with height in the future; please provide a valid height, at most {latest}") from None


def _split(path: str) -> list[str]:
    """The parts of a path that is no gRPC method's. Its first slash may be missing: relayers ask for ``store/<name>/key``."""
    return path.removeprefix("/").split("/")


def request_class(path: str) -> Any:
    """The request message of a gRPC method ``/package.Service/Method``. Raises UnknownRequest."""
    service, _, method = path.lstrip("/").partition("/")
    try:
        found = POOL.FindServiceByName(service).FindMethodByName(method)
    except KeyError:
        raise UnknownRequest(f"unknown query path: {path[:200]}") from None
    return message_class(found.input_type.full_name)
