"""Services that are not a module's: transactions, CometBFT as the SDK shows it, and the node itself.

Handlers have a query's signature, so one handler serves gRPC, REST and ``abci_query``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError

from chain.api import blocks
from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.context import Context
from chain.errors import InvalidRequest, IOFailure, NotFound, TxDecodeError
from chain.module import Query
from chain.store.api import StateReader

TX: Final = "/cosmos.tx.v1beta1.Service/"
COMET: Final = "/cosmos.base.tendermint.v1beta1.Service/"
NODE: Final = "/cosmos.base.node.v1beta1.Service/"
MAX_PAGE: Final = 100
_MODES: Final = {2: "sync", 3: "async"}


class Target(Protocol):
    """What the services need of the application."""

    chain_id: str
    settings: Any

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


def handlers(app: Target, comet: CometClient) -> Mapping[str, Query]:
    """Every service method by path."""
    return {**_tx_service(app, comet), **_comet_service(app, comet), **_node_service(app)}


def _tx_service(app: Target, comet: CometClient) -> dict[str, Query]:
    def simulate(ctx: Context, state: StateReader, request: Any) -> Any:
        raw = request.tx_bytes or (_raw(request.tx) if request.HasField("tx") else b"")
        if not raw:
            raise InvalidRequest("empty txBytes is not allowed")
        return app.simulate(raw)

    def get_tx(ctx: Context, state: StateReader, request: Any) -> Any:
        text = request.hash.removeprefix("0x")
        try:
            wanted = bytes.fromhex(text)
        except ValueError:
            raise InvalidRequest(f"a transaction hash is 64 hex digits, got {request.hash[:80]!r}") from None
        if len(wanted) != 32:
            raise InvalidRequest(f"a transaction hash is 64 hex digits, got {request.hash[:80]!r}")
        try:
            found = _ask(comet, "tx", hash=base64.b64encode(wanted).decode(), prove=False)
        except (NotFound, InvalidRequest):
            raise NotFound(f"tx not found: {text.upper()}") from None
        return _tx("GetTxResponse")(tx=blocks.tx_of(base64.b64decode(found["tx"])), tx_response=_with_time(found))

    def get_txs_event(ctx: Context, state: StateReader, request: Any) -> Any:
        query = request.query or " AND ".join(request.events)
        if not query:
            raise InvalidRequest("query cannot be empty")
        page = request.page or 1
        limit = min(request.limit or MAX_PAGE, MAX_PAGE)
        order = "desc" if request.order_by == 2 else "asc"
        found = _ask(comet, "tx_search", query=query, prove=False, page=str(page), per_page=str(limit), order_by=order)
        response = _tx("GetTxsEventResponse")(total=int(found["total_count"]))
        for one in found["txs"]:
            response.txs.append(blocks.tx_of(base64.b64decode(one["tx"])))
            response.tx_responses.append(_with_time(one))
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
            if "already exists in cache" in str(error):
                answer = {"code": 19, "codespace": "sdk", "log": "tx already in mempool"}
            else:
                raise InvalidRequest(str(error)) from None
        return _tx("BroadcastTxResponse")(tx_response=blocks.broadcast_response(answer, request.tx_bytes))

    def block_with_txs(ctx: Context, state: StateReader, request: Any) -> Any:
        if not 1 <= request.height <= app.latest_height:
            raise InvalidRequest(f"requested height {request.height}, blocks 1 to {app.latest_height} exist")
        found = _ask(comet, "block", height=str(request.height))
        block = blocks.block(found["block"])
        response = _tx("GetBlockWithTxsResponse")(block_id=blocks.block_id(found["block_id"]), block=block)
        offset, limit = request.pagination.offset, request.pagination.limit or MAX_PAGE
        chosen = list(block.data.txs)[offset : offset + limit]
        response.txs.extend(blocks.tx_of(raw) for raw in chosen)
        response.pagination.total = len(block.data.txs)
        return response

    def decode(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.tx_bytes:
            raise InvalidRequest("invalid empty tx bytes")
        try:
            return _tx("TxDecodeResponse")(tx=blocks.tx_of(request.tx_bytes))
        except DecodeError:
            raise TxDecodeError("the bytes are not a transaction") from None

    def encode_tx(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.HasField("tx"):
            raise InvalidRequest("invalid empty tx")
        return _tx("TxEncodeResponse")(tx_bytes=_raw(request.tx))

    def _with_time(found: Any) -> Any:
        header = _ask(comet, "header", height=found["height"])["header"]
        return blocks.tx_response(found, header["time"].split(".")[0].rstrip("Z") + "Z")

    return {
        TX + "Simulate": simulate,
        TX + "GetTx": get_tx,
        TX + "GetTxsEvent": get_txs_event,
        TX + "BroadcastTx": broadcast,
        TX + "GetBlockWithTxs": block_with_txs,
        TX + "TxDecode": decode,
        TX + "TxEncode": encode_tx,
    }


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
        if not 1 <= request.height <= app.latest_height:
            raise InvalidRequest("requested block height is bigger then the chain length")
        return _block("GetBlockByHeightResponse", request.height)

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
        return _validators("GetValidatorSetByHeightResponse", request.height, request.pagination)

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
        found = comet.abci_query(request.path, request.data, request.height, request.prove)
        response = _comet("ABCIQueryResponse")(
            code=int(found.get("code") or 0),
            log=found.get("log") or "",
            info=found.get("info") or "",
            index=int(found.get("index") or 0),
            key=base64.b64decode(found.get("key") or ""),
            value=base64.b64decode(found.get("value") or ""),
            height=int(found.get("height") or 0),
            codespace=found.get("codespace") or "",
        )
        for op in (found.get("proofOps") or {}).get("ops") or []:
            response.proof_ops.ops.add(type=op["type"], key=base64.b64decode(op["key"]), data=base64.b64decode(op["data"]))
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


def _node_service(app: Target) -> dict[str, Query]:
    def config(ctx: Context, state: StateReader, request: Any) -> Any:
        return message_class("cosmos.base.node.v1beta1.ConfigResponse")(minimum_gas_price=app.settings.min_gas_prices)

    def status(ctx: Context, state: StateReader, request: Any) -> Any:
        response = message_class("cosmos.base.node.v1beta1.StatusResponse")(height=ctx.height)
        response.timestamp.seconds, response.timestamp.nanos = divmod(app.latest_time_ns, 10**9)
        return response

    return {NODE + "Config": config, NODE + "Status": status}
