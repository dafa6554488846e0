"""Refuses what a transaction may not hold however its parts are read: unknown fields (ADR-020), times out of range, Anys of a wrong kind, too many.

A non-critical field number (bit 11 set) may be unknown where the caller allows it (TxBody); anywhere else, and for critical numbers
everywhere, an unknown field could carry a meaning that a signer saw and the chain ignores.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from google.protobuf import unknown_fields
from google.protobuf.descriptor import Descriptor

from chain.codec.registry import extension, file_descriptors, message_class, option_of
from chain.errors import TxDecodeError

NON_CRITICAL_BIT: Final = 1 << 10
MAX_DEPTH: Final = 32
MAX_ANY_DEPTH: Final = 10
MAX_ANYS: Final = 4000
"""Of one transaction, nested ones included: opening each takes time that nobody has paid for when a transaction is decoded."""
_ANY: Final = "google.protobuf.Any"
_TIMESTAMP: Final = "google.protobuf.Timestamp"
_DURATION: Final = "google.protobuf.Duration"
_FIRST_S, _END_S = -62_135_596_800, 253_402_300_800  # the years 1 to 9999
_NANOS: Final = 1_000_000_000
_ACCEPTS: Final = extension("cosmos_proto.accepts_interface")
_IMPLEMENTS: Final = extension("cosmos_proto.implements_interface")
_SIGNER: Final = extension("cosmos.msg.v1.signer")
_MESSAGES: Final = ("cosmos.base.v1beta1.Msg", "sdk.Msg")


def reject_unknown(message: Any, *, allow_non_critical: bool) -> bool:
    """Walk a parsed message and everything in it, Anys included. Raises TxDecodeError (sdk/2); True if non-critical ones were seen."""
    return _Walk(allow_non_critical).message(message, 0, 0)


class _Walk:
    """One pass over a message. ``anys`` counts the Anys that were opened."""

    def __init__(self, allow: bool) -> None:
        self._allow = allow
        self._anys = 0

    def message(self, message: Any, depth: int, any_depth: int, interface: str | None = None) -> bool:
        if depth > MAX_DEPTH:
            raise TxDecodeError(f"messages nest deeper than {MAX_DEPTH}")
        descriptor: Descriptor = message.DESCRIPTOR
        seen = False
        unknown = unknown_fields.UnknownFieldSet(message)
        for at in range(len(unknown)):
            number = unknown[at].field_number
            if not (self._allow and number & NON_CRITICAL_BIT and number not in descriptor.fields_by_number):
                raise TxDecodeError(f"errUnknownField: field {number} of /{descriptor.full_name} is unknown or has another wire type")
            seen = True
        if descriptor.full_name == _ANY:
            return self._any(message, depth, any_depth, interface) or seen
        if descriptor.full_name in (_TIMESTAMP, _DURATION):
            _check_time(message, descriptor.full_name)
        for name, repeated, is_map, accepts in _parts(descriptor):
            if is_map:
                for part in getattr(message, name).values():
                    seen |= self.message(part, depth + 1, any_depth)
            elif repeated:
                for part in getattr(message, name):
                    seen |= self.message(part, depth + 1, any_depth, accepts)
            elif message.HasField(name):
                seen |= self.message(getattr(message, name), depth + 1, any_depth, accepts)
        return seen

    def _any(self, wrapped: Any, depth: int, any_depth: int, interface: str | None) -> bool:
        if any_depth >= MAX_ANY_DEPTH:
            raise TxDecodeError(f"Any messages nest deeper than {MAX_ANY_DEPTH}")
        self._anys += 1
        if self._anys > MAX_ANYS:
            raise TxDecodeError(f"a transaction has at most {MAX_ANYS} Any messages")
        url = wrapped.type_url
        try:
            cls = message_class(url.rsplit("/", 1)[-1])
            inner = cls.FromString(wrapped.value)
        except KeyError:
            raise TxDecodeError(f"no concrete type registered for type URL {url[:200]}") from None
        except Exception as error:  # protobuf's DecodeError has no common base with what upb raises on depth
            raise TxDecodeError(f"bytes of {url[:200]} do not parse: {error}") from None
        if interface is not None and not implements(inner.DESCRIPTOR, interface):
            raise TxDecodeError(f"no concrete type registered for type URL {url[:200]} against interface {interface}")
        return self.message(inner, depth + 1, any_depth + 1)


def implements(descriptor: Descriptor, interface: str) -> bool:
    """True if a message says so, where the schema has any that says it of ``interface``: public keys, say, do not."""
    if interface in _MESSAGES:
        return bool(option_of(descriptor, _SIGNER))
    known = _implementers().get(interface)
    return known is None or descriptor.full_name in known


@cache
def _implementers() -> dict[str, frozenset[str]]:
    found: dict[str, list[str]] = {}
    for file in file_descriptors():
        for descriptor in file.message_types_by_name.values():
            for interface in option_of(descriptor, _IMPLEMENTS):
                found.setdefault(interface, []).append(descriptor.full_name)
    return {interface: frozenset(names) for interface, names in found.items()}


def _check_time(message: Any, kind: str) -> None:
    """Raise TxDecodeError for what Go reads as no time (the years 1 to 9999) or no duration (64 bits of nanoseconds)."""
    seconds, nanos = message.seconds, message.nanos
    if kind == _TIMESTAMP:
        if not (_FIRST_S <= seconds < _END_S and 0 <= nanos < _NANOS):
            raise TxDecodeError(f"timestamp out of range: {seconds} seconds, {nanos} nanoseconds; expected a time in the years 1 to 9999")
        return
    if seconds * nanos < 0 or abs(nanos) >= _NANOS or not -(1 << 63) <= seconds * _NANOS + nanos < 1 << 63:
        raise TxDecodeError(f"duration out of range: {seconds} seconds, {nanos} nanoseconds; expected at most 64 bits of nanoseconds")


@cache
def _parts(descriptor: Descriptor) -> tuple[tuple[str, bool, bool, str | None], ...]:
    """(name, repeated, is map, interface that an Any must implement) of the fields that hold messages."""
    parts = []
    for field in descriptor.fields:
        if field.message_type is None:
            continue
        is_map = field.message_type.GetOptions().map_entry
        if is_map and field.message_type.fields_by_name["value"].message_type is None:
            continue
        parts.append((field.name, field.is_repeated, is_map, option_of(field, _ACCEPTS)))
    return tuple(parts)
