"""A node of the value chain, asked over CometBFT's RPC: queries, blocks with what happened in them, transactions.

    ValueChain ── HTTP, JSON-RPC ──► CometBFT ── ABCI ──► the chain's application
        query        abci_query of a gRPC path          messages in, a message out, at a height
        block        block, block_results               events of transactions that succeeded, then the block's own
        follow       abci_info, then block after block  by height, without a gap, whatever the node does meanwhile
        broadcast    broadcast_tx_sync, then tx         hash, then the result in its block

Whatever the node answers is bounded in size and time, and judged before it is used. Sources: abci-sdk-rules.md 7, stratos-chain.md 1.9.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, TypeVar

import httpx
import orjson
import structlog
from google.protobuf.message import DecodeError

from chain.codec.registry import message_class
from chain.coins import parse_wire_int
from chain.crypto import address as bech32
from chain.errors import AppError

log = structlog.get_logger("value_chain")

DEFAULT_RPC: Final = "http://127.0.0.1:26657"
HASH_BYTES: Final = 32
MAX_ANSWER_BYTES: Final = 32 << 20
MAX_BLOCK_BYTES: Final = 512 << 20
"""A block of CometBFT's largest size, or its results, as JSON."""
MAX_EVENTS: Final = 1_000_000
"""In one block."""
MAX_ERROR_TEXT: Final = 2_000
BLOCK_PATIENCE: Final = 6
"""A block may take so many times what another answer may take."""
AHEAD: Final = 10
"""Blocks that are fetched at a time while there are many: CometBFT's largest batch of questions."""
LONGEST_PAUSE_S: Final = 10.0
TX_POLL_S: Final = 0.25

_MISSING: Final = ("lowest height", "must be less than or equal", "could not find results", "not persisting")
"""What CometBFT says of a height that it will not have in a moment either."""

T = TypeVar("T")


class ValueChainError(Exception):
    """Something that was asked of the value chain did not work; the text is for people."""


class ChainUnavailable(ValueChainError):
    """The node does not answer, or what answers is no node: the text names its address and what to do."""


class QueryFailed(ValueChainError):
    """The node refused a question. ``codespace`` and ``code`` are the chain's; codespace ``rpc`` is CometBFT's own."""

    def __init__(self, codespace: str, code: int, text: str) -> None:
        self.codespace, self.code, self.text = codespace, code, text
        super().__init__(f"{text} (codespace {codespace}, code {code})")

    @property
    def is_not_found(self) -> bool:
        """There is no such thing on the chain."""
        return "code = NotFound" in self.text or (self.codespace, self.code) in (("sdk", 22), ("sdk", 38))


class HeightMissing(ValueChainError):
    """The node has no longer, or not yet, what happened at a height."""


class AccountUnknown(ValueChainError):
    """The chain knows no account of that address: nobody has sent it anything."""


_AROUND: Final = re.compile(r"rpc error: code = \w+ desc = |failed to execute message; message index: \d+: ")
"""What the SDK's way of simulating and running puts around a reason."""


class TxRefused(ValueChainError):
    """A transaction was refused or failed. ``codespace`` and ``code`` are the chain's, ``text`` its reason."""

    def __init__(self, codespace: str, code: int, text: str) -> None:
        self.codespace, self.code, self.text = codespace, code, text
        super().__init__(f"the transaction was refused: {_AROUND.sub('', text)} (codespace {codespace}, code {code})")


@dataclass(frozen=True, slots=True)
class Status:
    """Where a node stands. ``time_s`` is the time of its last block, Unix seconds."""

    chain_id: str
    height: int
    time_s: int
    block_hash: bytes
    is_catching_up: bool
    earliest_height: int


@dataclass(frozen=True, slots=True)
class ChainEvent:
    """An event; ``kind`` is its type, such as ``stratos.sds.v1.EventPrePay``. Of attributes with one name the last one counts."""

    kind: str
    attributes: dict[str, str]

    def text(self, name: str) -> str:
        """An attribute of a typed event without the quotes of its JSON; empty if there is none."""
        raw = self.attributes.get(name, "")
        if not raw.startswith('"'):
            return raw
        try:
            value = json.loads(raw)
        except ValueError:
            return raw
        return value if isinstance(value, str) else raw


@dataclass(frozen=True, slots=True)
class BlockEvents:
    """What happened at a height: events of transactions with code 0, in order, then those of the block. ``time_s`` is the block's, Unix seconds."""

    height: int
    block_hash: bytes
    time_s: int
    events: list[ChainEvent]


@dataclass(frozen=True, slots=True)
class TxResult:
    """A transaction in a block. ``code`` 0 is success."""

    hash: bytes
    height: int
    code: int
    codespace: str
    log: str
    events: list[ChainEvent]
    gas_used: int


class ValueChain:
    """A client for one event loop. ``rpc_url`` is ``http://host:port``, ``tcp://host:port`` or ``host:port``; an answer may take ``timeout_s``."""

    def __init__(self, rpc_url: str = DEFAULT_RPC, *, timeout_s: float = 10.0) -> None:
        """Raises ValueError for what is no such address."""
        url = rpc_url if "://" in rpc_url else f"http://{rpc_url}"
        url = url.replace("tcp://", "http://", 1).replace("//0.0.0.0", "//127.0.0.1", 1)
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"expected CometBFT's RPC as http://host:port, got {rpc_url[:200]!r}")
        self.url, self._timeout_s = url, timeout_s
        self.tip = 0
        """The last height that was there when ``committed_height`` or ``follow`` asked."""
        # Reading the certificates that TLS trusts takes longer than most questions: a node on loopback needs none.
        self._http = httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=parsed.scheme == "https")

    async def __aenter__(self) -> ValueChain:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    # --- questions --------------------------------------------------------------------------------------------------------------------

    async def status(self) -> Status:
        """Where the node stands. Raises ChainUnavailable."""
        found = await self._ask("status")
        with _Reading(self.url):
            at = found["sync_info"]
            return Status(
                chain_id=_text(found["node_info"]["network"]),
                height=_whole(at["latest_block_height"]),
                time_s=_seconds(at["latest_block_time"]),
                block_hash=_hash(at["latest_block_hash"]) if at["latest_block_hash"] else b"",
                is_catching_up=bool(at["catching_up"]),
                earliest_height=_whole(at["earliest_block_height"]),
            )

    async def query(self, path: str, request: Any, response: Any, height: int = 0) -> Any:
        """The ``response`` (a message class) of a gRPC method ``/package.Query/Method``; ``height`` 0 is the last one. Raises ChainUnavailable, QueryFailed."""
        found = await self._ask("abci_query", path=path, data=request.SerializeToString().hex(), height=str(height), prove=False)
        with _Reading(self.url):
            answer = found["response"]
            code = _whole(answer.get("code") or 0)
            if code:
                raise QueryFailed(_text(answer.get("codespace") or ""), code, _text(answer.get("log") or "")[:MAX_ERROR_TEXT])
            return response.FromString(_base64(answer.get("value") or ""))

    async def committed_height(self) -> int:
        """The last height that can be asked: its block, results and state are there. Raises ChainUnavailable."""
        found = await self._ask("abci_info")
        with _Reading(self.url):
            self.tip = _whole(found["response"].get("last_block_height") or 0)
        return self.tip

    async def block(self, height: int) -> BlockEvents:
        """What happened at a height, from 1. Raises ChainUnavailable, HeightMissing."""
        try:
            told, results = await asyncio.gather(self._told(height), self._rpc("block_results", MAX_BLOCK_BYTES, BLOCK_PATIENCE, height=str(height)))
        except QueryFailed as error:
            raise self._missing(height, error) from None
        with _Reading(self.url):
            return self._assembled(height, told["block_id"], told["block"]["header"], results)

    async def _blocks(self, heights: range) -> list[BlockEvents | BaseException]:
        """Several heights in two questions, or one by one where that does not work; exceptions of ``block`` in place of what cannot be had."""
        if len(heights) > 1:
            try:
                return list(await self._many(heights))
            except (ChainUnavailable, QueryFailed):
                pass  # it is too large in one, or the node takes no batches
        return await asyncio.gather(*map(self.block, heights), return_exceptions=True)

    async def _many(self, heights: range) -> list[BlockEvents]:
        metas = await self._rpc("blockchain", minHeight=str(heights[0]), maxHeight=str(heights[-1]))
        asked = [{"jsonrpc": "2.0", "id": at, "method": "block_results", "params": {"height": str(at)}} for at in heights]
        answers = await self._answer(asked, MAX_BLOCK_BYTES, BLOCK_PATIENCE)
        with _Reading(self.url):
            headers = {_whole(one["header"]["height"]): one for one in metas["block_metas"]}
            results = {one["id"]: one["result"] for one in answers}
            return [self._assembled(at, headers[at]["block_id"], headers[at]["header"], results[at]) for at in heights]

    def _assembled(self, height: int, block_id: Any, header: Any, results: Any) -> BlockEvents:
        if (_whole(header["height"]), _whole(results["height"])) != (height, height):
            raise ChainUnavailable(f"{self.url} answers with another height than {height}, which was asked for: is it CometBFT's RPC?")
        events: list[ChainEvent] = []
        for tx in results["txs_results"] or ():
            if not _whole(tx.get("code") or 0):
                _read_events(events, tx.get("events"))
        _read_events(events, results.get("finalize_block_events"))
        return BlockEvents(height, _hash(block_id["hash"]), _seconds(header["time"]), events)

    async def raw_txs(self, height: int) -> list[bytes]:
        """The transactions of a block, good and bad, as they were signed. Raises ChainUnavailable, HeightMissing."""
        try:
            told = await self._told(height)
        except QueryFailed as error:
            raise self._missing(height, error) from None
        with _Reading(self.url):
            return [_base64(one) for one in told["block"]["data"]["txs"] or ()]

    async def _told(self, height: int) -> Any:
        return await self._rpc("block", MAX_BLOCK_BYTES, BLOCK_PATIENCE, height=str(height))

    def _missing(self, height: int, error: QueryFailed) -> ValueChainError:
        text = f"{self.url} does not tell what happened at height {height}: {error.text}"
        if any(words in error.text for words in _MISSING):
            return HeightMissing(f"{text}; ask a node that keeps all blocks and their results")
        return ChainUnavailable(text)

    async def follow(self, after: int, *, poll_s: float = 0.5) -> AsyncGenerator[BlockEvents, None]:
        """Every height from ``after`` + 1 on, as it comes, without an end. Goes on when the node was away. Raises HeightMissing where the node has
        forgotten a height.
        """
        height, is_away, pause_s = after + 1, False, poll_s
        while True:
            try:
                tip = await self.committed_height()
                wanted = range(height, min(tip, height + AHEAD - 1) + 1)
                found = await self._blocks(wanted)
                if found and isinstance(found[0], BaseException):
                    raise found[0]
            except ChainUnavailable as error:
                if not is_away:
                    log.warning("the value chain does not answer", height=height, reason=str(error))
                is_away, pause_s = True, min(2 * pause_s, LONGEST_PAUSE_S)
                await asyncio.sleep(pause_s)
                continue
            if is_away:
                log.info("the value chain answers again", height=height)
            is_away, pause_s = False, poll_s
            for block in found:
                if isinstance(block, BaseException):
                    break
                yield block
                height += 1
            if not found:
                await asyncio.sleep(poll_s)

    # --- accounts and transactions ----------------------------------------------------------------------------------------------------

    async def account(self, address: str) -> tuple[int, int]:
        """(account number, sequence) of ``st1…``. Raises AccountUnknown, ChainUnavailable, QueryFailed."""
        request = message_class("cosmos.auth.v1beta1.QueryAccountInfoRequest")(address=address)
        try:
            answer = await self.query(
                "/cosmos.auth.v1beta1.Query/AccountInfo", request, message_class("cosmos.auth.v1beta1.QueryAccountInfoResponse")
            )
        except QueryFailed as error:
            if error.is_not_found:
                raise AccountUnknown(f"the chain knows no account {address}: send it coins for fees first") from None
            raise
        return int(answer.info.account_number), int(answer.info.sequence)

    async def balance_wei(self, address: str | bytes) -> int:
        """What an account (``st1…`` or 20 bytes) has, locked coins included. Raises ChainUnavailable, QueryFailed."""
        text = address if isinstance(address, str) else bech32.encode(address)
        request = message_class("cosmos.bank.v1beta1.QueryBalanceRequest")(address=text, denom="wei")
        answer = await self.query("/cosmos.bank.v1beta1.Query/Balance", request, message_class("cosmos.bank.v1beta1.QueryBalanceResponse"))
        with _Reading(self.url):
            return parse_wire_int(answer.balance.amount or "0")

    async def broadcast(self, raw: bytes) -> bytes:
        """The hash of a transaction that the node took, or had taken before. Raises TxRefused, ChainUnavailable: then it may have taken it all the same."""
        try:
            answer = await self._rpc("broadcast_tx_sync", tx=base64.b64encode(raw).decode())
        except QueryFailed as error:
            if "already exists in cache" in error.text:
                return tx_hash(raw)
            raise TxRefused("rpc", error.code, error.text) from None
        with _Reading(self.url):
            code, codespace = _whole(answer.get("code") or 0), _text(answer.get("codespace") or "")
            if code and (codespace, code) != ("sdk", 19):
                raise TxRefused(codespace, code, _text(answer.get("log") or "")[:MAX_ERROR_TEXT])
        return tx_hash(raw)

    async def find(self, hash_: bytes) -> TxResult | None:
        """A transaction that is in a block, or None. Raises ChainUnavailable, QueryFailed."""
        try:
            found = await self._rpc("tx", MAX_BLOCK_BYTES, hash=base64.b64encode(hash_).decode(), prove=False)
        except QueryFailed as error:
            if "not found" in error.text:
                return None
            raise
        with _Reading(self.url):
            result = found["tx_result"]
            if _hash(found["hash"]) != hash_:
                raise ChainUnavailable(f"{self.url} answers with another transaction than was asked for: is it CometBFT's RPC?")
            events: list[ChainEvent] = []
            _read_events(events, result.get("events"))
            return TxResult(
                hash=hash_,
                height=_whole(found["height"]),
                code=_whole(result.get("code") or 0),
                codespace=_text(result.get("codespace") or ""),
                log=_text(result.get("log") or "")[:MAX_ERROR_TEXT],
                events=events,
                gas_used=_whole(result.get("gas_used") or 0),
            )

    async def wait(self, hash_: bytes, timeout_s: float = 60.0) -> TxResult:
        """The transaction's result, once it is in a block, be it good or bad. Raises ChainUnavailable when it is not there in time, QueryFailed."""
        failure: ChainUnavailable | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        found = await self.find(hash_)
                        if found is not None:
                            return found
                        failure = None
                    except ChainUnavailable as error:
                        failure = error
                    await asyncio.sleep(TX_POLL_S)
        except TimeoutError:
            raise failure or ChainUnavailable(
                f"transaction {hash_.hex().upper()} is in no block after {timeout_s:g} s: it may still come in; see `stchaind query tx {hash_.hex().upper()}`"
            ) from None

    # --- the wire ---------------------------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, **params: Any) -> Any:
        """``_rpc`` of a method that CometBFT refuses only when it, or the application behind it, is in trouble."""
        try:
            return await self._rpc(method, **params)
        except QueryFailed as error:
            raise ChainUnavailable(f"the value chain's node at {self.url} cannot answer {method}: {error.text}; look at its log") from None

    async def _rpc(self, method: str, max_bytes: int = MAX_ANSWER_BYTES, patience: int = 1, /, **params: Any) -> Any:
        """The result of a method of CometBFT, an object. Raises ChainUnavailable, QueryFailed with codespace ``rpc``."""
        answer = await self._answer({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, max_bytes, patience)
        refusal = answer.get("error") if isinstance(answer, dict) else None
        if isinstance(refusal, dict):
            code = refusal.get("code")
            raise QueryFailed("rpc", code if isinstance(code, int) else 1, str(refusal.get("data") or refusal.get("message"))[:MAX_ERROR_TEXT])
        if not isinstance(answer, dict) or not isinstance(answer.get("result"), dict):
            raise ChainUnavailable(
                f"{self.url} answers, but it is not CometBFT's RPC: name the address of a value chain node's RPC, as {DEFAULT_RPC}"
            )
        return answer["result"]

    async def _answer(self, asked: Any, max_bytes: int, patience: int) -> Any:
        """The JSON that answers a question, or a list of them. Raises ChainUnavailable."""
        try:
            async with asyncio.timeout(self._timeout_s * patience):
                return orjson.loads(await self._post(orjson.dumps(asked), max_bytes))
        except (httpx.HTTPError, httpx.InvalidURL, orjson.JSONDecodeError, TimeoutError) as error:
            raise ChainUnavailable(
                f"the value chain's node at {self.url} does not answer ({type(error).__name__}): is it running, and is this its CometBFT RPC?"
            ) from None

    async def _post(self, body: bytes, max_bytes: int) -> bytes:
        found = bytearray()
        async with self._http.stream("POST", self.url, content=body, headers={"content-type": "application/json"}) as response:
            # CometBFT answers its own refusals with status 500 and JSON.
            async for part in response.aiter_bytes():
                found += part
                if len(found) > max_bytes:
                    raise ChainUnavailable(f"{self.url} answers with more than {max_bytes} bytes: is it CometBFT's RPC?")
        return bytes(found)


def tx_hash(raw: bytes) -> bytes:
    """What CometBFT calls a transaction by: SHA-256, 32 bytes."""
    return hashlib.sha256(raw).digest()


class _Reading:
    """Turns whatever an answer of another form raises into ChainUnavailable."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError | OverflowError | DecodeError | AppError):
            raise ChainUnavailable(f"{self._url} gives an answer that CometBFT does not give ({type(error).__name__}): is it its RPC?") from None


def _read_events(into: list[ChainEvent], given: Any) -> None:
    for event in given or ():
        if len(into) >= MAX_EVENTS:
            raise ValueError("too many events")
        attributes = {_text(one["key"]): _text(one.get("value") or "") for one in event.get("attributes") or ()}
        into.append(ChainEvent(_text(event["type"]), attributes))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _whole(value: Any) -> int:
    """A number of CometBFT, which is text where it has 64 bits."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        return int(value)
    raise ValueError("not a number")


def _seconds(value: Any) -> int:
    """Unix seconds, rounded down, of a time as ``2026-01-01T00:00:00.123456789Z``."""
    text = _text(value)
    return int(datetime.fromisoformat(text[:19] + "+00:00").timestamp())


def _hash(value: Any) -> bytes:
    raw = bytes.fromhex(_text(value))
    if len(raw) != HASH_BYTES:
        raise ValueError("not a hash")
    return raw


def _base64(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


async def until_answered(ask: Callable[[], Awaitable[T]], pause_s: float = 0.5) -> T:
    """What the coroutine function ``ask`` gives, asked again, with longer pauses, while the chain does not answer."""
    is_told = False
    while True:
        try:
            return await ask()
        except ChainUnavailable as error:
            if not is_told:
                log.warning("the value chain does not answer", reason=str(error))
            is_told = True
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
