"""Results and events in CometBFT's wire form, written by hand where it pays: protobuf objects cost ten times as much."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from chain.codec.registry import message_class
from chain.codec.varint import uvarint
from chain.errors import PANIC_CODE, UNDEFINED_CODESPACE, AppError
from chain.events import Attribute, Event

ExecTxResult: Final = message_class("tendermint.abci.ExecTxResult")


@lru_cache(maxsize=1024)
def _text_field(tag: int, text: str) -> bytes:
    raw = text.encode()
    return bytes((tag,)) + uvarint(len(raw)) + raw if raw else b""


def encode_event(event: Event, extra: Iterable[Attribute] = ()) -> bytes:
    """One ``tendermint.abci.Event`` with every attribute indexed (``index-events = []`` means all)."""
    kind, attributes = event
    parts = [_text_field(0x0A, kind)]
    for key, value in (*attributes, *extra):
        raw = value.encode()
        body = _text_field(0x0A, key)
        if raw:
            body += b"\x12" + uvarint(len(raw)) + raw
        body += b"\x18\x01"
        parts.append(b"\x12" + uvarint(len(body)) + body)
    return b"".join(parts)


def encode_result(*, code: int, data: bytes, log: str, gas_wanted: int, gas_used: int, events: Iterable[bytes], codespace: str) -> bytes:
    """One ``tendermint.abci.ExecTxResult`` from encoded events."""
    parts = []
    if code:
        parts.append(b"\x08" + uvarint(code))
    if data:
        parts.append(b"\x12" + uvarint(len(data)) + data)
    if log:
        raw = log.encode()
        parts.append(b"\x1a" + uvarint(len(raw)) + raw)
    if gas_wanted:
        parts.append(b"\x28" + uvarint(gas_wanted))
    if gas_used:
        parts.append(b"\x30" + uvarint(gas_used))
    for event in events:
        parts.append(b"\x3a" + uvarint(len(event)) + event)
    if codespace:
        raw = codespace.encode()
        parts.append(b"\x42" + uvarint(len(raw)) + raw)
    return b"".join(parts)


def failure_of(error: BaseException) -> tuple[str, int, str]:
    """(codespace, code, log) of what a transaction failed with; an exception no rule raised shows no detail to users."""
    if isinstance(error, AppError):
        return error.codespace, error.code, str(error)
    return UNDEFINED_CODESPACE, PANIC_CODE, "recovered: the node's log has the details: panic"


def event_message(event: Event) -> Any:
    """The same event as a protobuf object, for responses off the hot path."""
    return message_class("tendermint.abci.Event").FromString(encode_event(event))
