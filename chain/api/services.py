"""Services that are not a module's: transactions, CometBFT as the SDK shows it, and the node itself.

Handlers have a query's signature, so one handler serves gRPC, REST and ``abci_query``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final, Protocol

from chain.api import blocks, describe
from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.application_queries import SimulationFailed
from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.unknown_fields import reject_unknown
from chain.context import Context
from chain.errors import AppError, InvalidHeight, InvalidRequest, IOFailure, NotFound, TxDecodeError
from chain.module import Query
from chain.store.api import StateReader
from chain.tx.fees import parse_gas_prices

TX: Final = "/cosmos.tx.v1beta1.Service/"
COMET: Final = "/cosmos.base.tendermint.v1beta1.Service/"
NODE: Final = "/cosmos.base.node.v1beta1.Service/"
MAX_PAGE: Final = 100
MAX_QUERY_CHARACTERS: Final = 4096
MAX_BLOCK_PAGE: Final = 10_000
_MODES: Final = {2: "sync", 3: "async"}
_REFUSED_AT_THE_DOOR: Final = (
    ("already exists in cache", 19, "tx already in mempool"),
    ("mempool is full", 20, "mempool is full"),
    ("too large", 21, "tx too large"),
)
"""What CometBFT's mempool says before it asks the application → the SDK's code and log of it."""


class Target(Protocol):
    """What the services need of the application."""

    chain_id: str
    settings: Any
    queries: Any
    modules: Any
    store: Any

    @property
    def latest_height(self) -> int: ...
    @property
    def latest_time_ns(self) -> int: ...
    def simulate(self, raw: bytes) -> Any: ...


def _tx(name: str) -> Any:
    return message_class(f"cosmos.tx.v1beta1.{name}")


def _comet(name: str) -> Any:
    return message_class(f"cosmos.base.tendermint.v1beta1.{name}")


def _ask(comet: CometClient, method: str, **params: Any) -> Any:
    try:
        return comet.call(method, **params)
    except CometUnavailable as error:
        raise IOFailure(str(error)) from None
    except CometRefused as error:
        text = str(error)
        if "not found" in text:
            raise NotFound(text) from None
        raise InvalidRequest(text) from None


def handlers(app: Target, comet: CometClient, config: Mapping[str, Any]) -> Mapping[str, Query]:
    """Every service method by path. ``config`` is app.toml."""
    return {**_tx_service(app, comet), **_comet_service(app, comet), **_node_service(app, comet, config), **describe.handlers(app)}


def _tx_service(app: Target, comet: CometClient) -> dict[str, Query]:
    def simulate(ctx: Context, state: StateReader, request: Any) -> Any:
        raw = request.tx_bytes or (_raw(request.tx) if request.HasField("tx") else b"")
        if not raw:
            raise InvalidRequest("empty txBytes is not allowed")
        try:
            return app.simulate(raw)
        except AppError as error:
            raise SimulationFailed(str(error)) from None

    def get_tx(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.hash:
            raise InvalidRequest("tx hash cannot be empty")
        try:
            wanted = bytes.fromhex(request.hash.removeprefix("0x"))
        except ValueError:
            raise InvalidRequest(f"a transaction hash is 64 hex digits, got {request.hash[:80]!r}") from None
        missing = NotFound(f"tx not found: {request.hash[:80]}")
        if len(wanted) != 32:
            raise missing
        try:
            found = _ask(comet, "tx", hash=base64.b64encode(wanted).decode(), prove=False)
        except (NotFound, InvalidRequest):
            raise missing from None
        return _tx("GetTxResponse")(tx=_decoded(base64.b64decode(found["tx"])), tx_response=blocks.tx_response(found, _time_at(found["height"])))

    def get_txs_event(ctx: Context, state: StateReader, request: Any) -> Any:
        query = request.query or " AND ".join(request.events)
        if not query:
            raise InvalidRequest("query cannot be empty")
        if len(query) > MAX_QUERY_CHARACTERS:
            raise InvalidRequest(f"a query has at most {MAX_QUERY_CHARACTERS} characters, got {len(query)}")
        limit = min(request.limit or MAX_PAGE, MAX_PAGE)
        order = "desc" if request.order_by == 2 else "asc"
        found = _ask(comet, "tx_search", query=query, prove=False, page=str(request.page or 1), per_page=str(limit), order_by=order)
        response = _tx("GetTxsEventResponse")(total=int(found["total_count"]))
        times: dict[str, str] = {}
        for one in found["txs"]:
            height = one["height"]
            if height not in times:
                times[height] = _time_at(height)
            response.txs.append(_decoded(base64.b64decode(one["tx"])))
            response.tx_responses.append(blocks.tx_response(one, times[height]))
        return response

    def broadcast(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.tx_bytes:
            raise InvalidRequest("invalid empty tx")
        mode = _MODES.get(request.mode)
        if mode is None:
            raise InvalidRequest("unsupported broadcast mode: expected BROADCAST_MODE_SYNC or BROADCAST_MODE_ASYNC")
        try:
            answer = comet.broadcast(request.tx_bytes, mode)
        except CometUnavailable as error:
            raise IOFailure(str(error)) from None
        except CometRefused as error:
            known = [(code, log) for text, code, log in _REFUSED_AT_THE_DOOR if text in str(error)]
            if not known:
                raise InvalidRequest(str(error)) from None
            answer = {"code": known[0][0], "codespace": "sdk", "log": known[0][1]}
        return _tx("BroadcastTxResponse")(tx_response=blocks.broadcast_response(answer, request.tx_bytes))

    def block_with_txs(ctx: Context, state: StateReader, request: Any) -> Any:
        if not 1 <= request.height <= app.latest_height:
            raise InvalidHeight(f"requested height {request.height}: blocks 1 to {app.latest_height} exist")
        found = _ask(comet, "block", height=str(request.height))
        block = blocks.block(found["block"])
        response = _tx("GetBlockWithTxsResponse")(block_id=blocks.block_id(found["block_id"]), block=block)
        offset, limit, count = request.pagination.offset, min(request.pagination.limit or MAX_PAGE, MAX_BLOCK_PAGE), len(block.data.txs)
        if offset >= count and count:
            raise InvalidRequest(f"out of range: cannot paginate {count} txs with offset {offset} and limit {limit}")
        ordered = list(block.data.txs)[:: -1 if request.pagination.reverse else 1]
        response.txs.extend(tx for raw in ordered[offset : offset + limit] if (tx := blocks.tx_of(raw)) is not None)
        response.pagination.total = count
        return response

    def decode(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.tx_bytes:
            raise InvalidRequest("invalid empty tx bytes")
        return _tx("TxDecodeResponse")(tx=_decoded(request.tx_bytes))

    def encode_tx(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.HasField("tx"):
            raise InvalidRequest("invalid empty tx")
        return _tx("TxEncodeResponse")(tx_bytes=_raw(request.tx))

    def _time_at(height: str) -> str:
        time: str = _ask(comet, "header", height=height)["header"]["time"]
        return time.split(".")[0].rstrip("Z") + "Z"

    return {
        TX + "Simulate": simulate,
        TX + "GetTx": get_tx,
        TX + "GetTxsEvent": get_txs_event,
        TX + "BroadcastTx": broadcast,
        TX + "GetBlockWithTxs": block_with_txs,
        TX + "TxDecode": decode,
        TX + "TxEncode": encode_tx,
    }


def _decoded(raw: bytes) -> Any:
    """``cosmos.tx.v1beta1.Tx``. Raises TxDecodeError for bytes that are none, or that hold fields nobody knows."""
    tx = blocks.tx_of(raw)
    if tx is None:
        raise TxDecodeError("the bytes are not a transaction")
    reject_unknown(tx.body, allow_non_critical=True)
    reject_unknown(tx.auth_info, allow_non_critical=False)
    return tx


def _raw(tx: Any) -> bytes:
    message = _tx("TxRaw")(body_bytes=encode(tx.body), auth_info_bytes=encode(tx.auth_info), signatures=tx.signatures)
    raw: bytes = message.SerializeToString()
    return raw


def _comet_service(app: Target, comet: CometClient) -> dict[str, Query]:
    def _block(name: str, height: int | None) -> Any:
        found = _ask(comet, "block", **({} if height is None else {"height": str(height)}))
        block = blocks.block(found["block"])
        return _comet(name)(block_id=blocks.block_id(found["block_id"]), block=block, sdk_block=blocks.sdk_block(block))

    def latest_block(ctx: Context, state: StateReader, request: Any) -> Any:
        return _block("GetLatestBlockResponse", None)

    def block_by_height(ctx: Context, state: StateReader, request: Any) -> Any:
        return _block("GetBlockByHeightResponse", _known(request.height))

    def _known(height: int) -> int:
        if height < 1:
            raise InvalidRequest(f"height must be greater than 0, but got {height}")
        if height > app.latest_height:
            raise InvalidRequest(f"requested block height {height} is above the chain's, {app.latest_height}")
        return height

    def _validators(name: str, height: int | None, pagination: Any) -> Any:
        limit = min(pagination.limit or MAX_PAGE, MAX_PAGE)
        page = pagination.offset // limit + 1
        params = {"page": str(page), "per_page": str(limit), **({} if height is None else {"height": str(height)})}
        found = _ask(comet, "validators", **params)
        response = _comet(name)(block_height=int(found["block_height"]))
        response.validators.extend(blocks.validator(one) for one in found["validators"])
        response.pagination.total = int(found["total"])
        return response

    def latest_validators(ctx: Context, state: StateReader, request: Any) -> Any:
        return _validators("GetLatestValidatorSetResponse", None, request.pagination)

    def validators_by_height(ctx: Context, state: StateReader, request: Any) -> Any:
        return _validators("GetValidatorSetByHeightResponse", _known(request.height), request.pagination)

    def syncing(ctx: Context, state: StateReader, request: Any) -> Any:
        return _comet("GetSyncingResponse")(syncing=_ask(comet, "status")["sync_info"]["catching_up"])

    def node_info(ctx: Context, state: StateReader, request: Any) -> Any:
        info = _ask(comet, "status")["node_info"]
        response = _comet("GetNodeInfoResponse")()
        shown = response.default_node_info
        shown.default_node_id, shown.listen_addr, shown.network = info["id"], info["listen_addr"], info["network"]
        shown.version, shown.moniker, shown.channels = info["version"], info["moniker"], bytes.fromhex(info["channels"])
        shown.protocol_version.p2p, shown.protocol_version.block, shown.protocol_version.app = (
            int(info["protocol_version"][name]) for name in ("p2p", "block", "app")
        )
        shown.other.tx_index, shown.other.rpc_address = info["other"]["tx_index"], info["other"]["rpc_address"]
        version = response.application_version
        version.name, version.app_name, version.version = "stratos", "stchaind", app.settings.version
        version.cosmos_sdk_version = "v0.50.9"
        return response

    def abci_query(ctx: Context, state: StateReader, request: Any) -> Any:
        # Straight to the application: through CometBFT a query that asks for a query would wait for itself.
        asked = message_class("tendermint.abci.RequestQuery")(path=request.path, data=request.data, height=request.height, prove=request.prove)
        found = app.queries.raw(asked)
        response = _comet("ABCIQueryResponse")(
            code=found.code,
            log=found.log,
            info=found.info,
            index=found.index,
            key=found.key,
            value=found.value,
            height=found.height,
            codespace=found.codespace,
        )
        for op in found.proof_ops.ops:
            response.proof_ops.ops.add(type=op.type, key=op.key, data=op.data)
        return response

    return {
        COMET + "GetLatestBlock": latest_block,
        COMET + "GetBlockByHeight": block_by_height,
        COMET + "GetLatestValidatorSet": latest_validators,
        COMET + "GetValidatorSetByHeight": validators_by_height,
        COMET + "GetSyncing": syncing,
        COMET + "GetNodeInfo": node_info,
        COMET + "ABCIQuery": abci_query,
    }


def _node_service(app: Target, comet: CometClient, settings: Mapping[str, Any]) -> dict[str, Query]:
    def config(ctx: Context, state: StateReader, request: Any) -> Any:
        prices = ",".join(str(price) for price in parse_gas_prices(app.settings.min_gas_prices))
        return message_class("cosmos.base.node.v1beta1.ConfigResponse")(
            minimum_gas_price=prices,
            pruning_keep_recent=settings["pruning-keep-recent"],
            pruning_interval=settings["pruning-interval"],
            halt_height=settings["halt-height"],
        )

    def status(ctx: Context, state: StateReader, request: Any) -> Any:
        response = message_class("cosmos.base.node.v1beta1.StatusResponse")(earliest_store_height=app.store.oldest_version(), height=ctx.height)
        response.timestamp.seconds, response.timestamp.nanos = divmod(app.latest_time_ns, 10**9)
        header = _ask(comet, "header", height=str(ctx.height))["header"]
        response.app_hash, response.validator_hash = bytes.fromhex(header["app_hash"]), bytes.fromhex(header["next_validators_hash"])
        return response

    return {NODE + "Config": config, NODE + "Status": status}
