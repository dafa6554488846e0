"""Runs one transaction: ante chain, then its messages, with marks so that failing messages leave fee, sequence and ante events.

mark 0 ─► ante ─► mark 1 (after ante) ─► message 0 ─► message 1 … ─► kept
  ▲ a failure in ante      ▲ a failure in a message goes back here: data empty, ante's events and gas stay
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import structlog

from chain.codec.canonical import encode
from chain.codec.registry import message_class, pack_any
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.crypto.batch import Item
from chain.errors import AppError, OutOfGas, PanicError, UnknownRequest, with_detail
from chain.events import Event, EventList
from chain.gas import CIRCUIT_LOOKUP_COST, GasMeter, InfiniteGasMeter
from chain.machine import MACHINE_ERRORS
from chain.module import MessageHandler
from chain.store.state import State
from chain.tx.ante import Ante
from chain.tx.decode import Tx, Verdict
from chain.tx.results import encode_event, encode_result, failure_of

log = structlog.get_logger("tx")

TxMsgData: Final = message_class("cosmos.base.abci.v1beta1.TxMsgData")


@dataclass(slots=True)
class Outcome:
    """What became of one transaction. ``events`` are (event, message index or None) pairs."""

    error: BaseException | None
    data: bytes
    gas_wanted: int
    gas_used: int
    events: list[tuple[Event, int | None]]
    priority: int = 0
    encoded: bytes | None = None

    def encode(self) -> bytes:
        """``tendermint.abci.ExecTxResult`` bytes."""
        if self.encoded is not None:
            return self.encoded
        codespace, code, text = failure_of(self.error) if self.error is not None else ("", 0, "")
        events = [encode_event(event, () if at is None else (("msg_index", str(at)),)) for event, at in self.events]
        return encode_result(
            code=code, data=self.data, log=text, gas_wanted=self.gas_wanted, gas_used=self.gas_used, events=events, codespace=codespace
        )


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """What every transaction of a block sees."""

    chain_id: str
    height: int
    time_ns: int
    proposer_address: bytes
    max_gas: int


class Twin(Protocol):
    """A faster way for one kind of transaction: the same outcome as the plain path, or None with nothing written."""

    def run(self, state: State, block: BlockInfo, tx: Tx, mode: Mode, block_gas_left: int | None) -> Outcome | None: ...
    def read(self, raw: bytes, tx_hash: bytes) -> Tx | None:
        """The transaction in ``raw``, whose hash is given, if its bytes have the one shape the twin reads itself."""

    def item(self, state: State, tx: Tx, chain_id: str) -> tuple[Tx, Item, Verdict] | None:
        """The signature check of a transaction that ``read`` gave, and what it is good for if it holds."""


class Executor:
    """Runs transactions against a State. ``panics`` counts the exceptions that no rule raised."""

    def __init__(self, ante: Ante, handlers: Mapping[str, MessageHandler], twin: Twin | None = None) -> None:
        self._ante = ante
        self._handlers = handlers
        self._twin = twin
        self.panics = 0

    def run(self, state: State, block: BlockInfo, tx: Tx, mode: Mode, block_gas_left: int | None = None) -> Outcome:
        """Run ``tx`` in ``mode``; check modes stop after the ante chain. Raises only errors of the machine."""
        return self.run_fast(state, block, tx, mode, block_gas_left) or self.run_plain(state, block, tx, mode, block_gas_left)

    def run_plain(self, state: State, block: BlockInfo, tx: Tx, mode: Mode, block_gas_left: int | None = None) -> Outcome:
        """``run`` without asking the twin: for whoever has asked it."""
        unlimited = mode in (Mode.SIMULATE, Mode.GENESIS)
        meter = InfiniteGasMeter() if unlimited else GasMeter(tx.gas_limit)
        events = EventList()
        ctx = Context(block.chain_id, block.height, block.time_ns, mode, meter, events, block.proposer_address, tx_hash=tx.hash)
        state.meter = meter
        start = state.mark()
        outcome = Outcome(None, b"", tx.gas_limit, 0, [])
        try:
            if block_gas_left is not None and block_gas_left <= 0:
                raise OutOfGas("no block gas left to run tx")
            for message in tx.messages:
                self._handler(message).check_stateless(message)
            outcome.priority = self._ante.run(ctx, state, tx, block.max_gas)
        except MACHINE_ERRORS:
            raise
        except Exception as error:
            state.rollback(start)
            outcome.error = self._told(error, tx)
            outcome.gas_used = meter.consumed
            return outcome
        outcome.events = [(event, None) for event in events.events]
        if mode in (Mode.CHECK, Mode.RECHECK, Mode.PROPOSE):
            outcome.gas_used = meter.consumed
            return outcome
        after_ante = state.mark()
        try:
            found, responses = self._run_messages(ctx, state, tx)
            if block_gas_left is not None and meter.consumed > block_gas_left:
                raise OutOfGas("out of gas in location: block gas meter; the transaction does not fit the block's gas")
            outcome.data = encode(TxMsgData(msg_responses=responses))
            outcome.events += found
        except MACHINE_ERRORS:
            raise
        except Exception as error:
            state.rollback(after_ante)
            outcome.error = self._told(error, tx)
        outcome.gas_used = meter.consumed
        return outcome

    def run_fast(self, state: State, block: BlockInfo, tx: Tx, mode: Mode, block_gas_left: int | None = None) -> Outcome | None:
        """The outcome if the fast twin has one, else None with nothing written."""
        if self._twin is None:
            return None
        try:
            return self._twin.run(state, block, tx, mode, block_gas_left)
        except MACHINE_ERRORS:
            raise
        except Exception as error:  # it writes last and cannot fail there, so nothing is written: the plain path decides
            self._told(error, tx)
            return None

    def _run_messages(self, ctx: Context, state: State, tx: Tx) -> tuple[list[tuple[Event, int | None]], list[Any]]:
        found: list[tuple[Event, int | None]] = []
        responses = []
        for at, message in enumerate(tx.messages):
            mark = ctx.events.mark()
            ctx.gas.consume(CIRCUIT_LOOKUP_COST, "Has")
            own = replace(ctx, next_message=tx.messages[at + 1]) if at + 1 < len(tx.messages) else ctx
            try:
                responses.append(pack_any(self._handler(message).execute(own, state, message)))
            except OutOfGas:
                raise  # a panic in the SDK, which is caught around all messages and so names none
            except AppError as error:
                raise with_detail(error, f"failed to execute message; message index: {at}: {error.detail}") from error
            emitted = ctx.events.events[mark:]
            found.append((_message_event(message, tx, at, emitted), at))
            found.extend((event, at) for event in emitted)
        return found, responses

    def _handler(self, message: Any) -> MessageHandler:
        handler = self._handlers.get(message.DESCRIPTOR.full_name)
        if handler is None:
            raise UnknownRequest(f"no message handler found for /{message.DESCRIPTOR.full_name}")
        return handler

    def _told(self, error: Exception, tx: Tx) -> Exception:
        if isinstance(error, AppError):
            return error
        self.panics += 1
        log.error("a transaction raised what no rule raises", tx=tx.hash.hex(), exc_info=error)
        return PanicError("recovered: the node's log has the details")


def _message_event(message: Any, tx: Tx, at: int, emitted: list[Event]) -> Event:
    url = "/" + message.DESCRIPTOR.full_name
    attributes = [("action", url)]
    signers = tx.message_signers[at]
    if signers:
        attributes.append(("sender", bech32.encode(signers[0])))
    if not any(key == "module" for _, pairs in emitted for key, _ in pairs):
        attributes.append(("module", url.split(".")[1]))
    return "message", tuple(attributes)
