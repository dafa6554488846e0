"""Refuses fields that the schema does not know (ADR-020).

A non-critical field number (bit 11 set) may be unknown where the caller allows it (TxBody); anywhere else, and for critical numbers
everywhere, an unknown field could carry a meaning that a signer saw and the chain ignores.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from google.protobuf import unknown_fields
from google.protobuf.descriptor import Descriptor

from chain.codec.registry import message_class
from chain.errors import TxDecodeError

NON_CRITICAL_BIT: Final = 1 << 10
MAX_DEPTH: Final = 32
MAX_ANY_DEPTH: Final = 10
_ANY: Final = "google.protobuf.Any"


def reject_unknown(message: Any, *, allow_non_critical: bool) -> bool:
    """Walk a parsed message and everything in it, Anys included. Raises TxDecodeError (sdk/2); True if non-critical ones were seen."""
    return _walk(message, allow_non_critical, 0, 0)


def _walk(message: Any, allow: bool, depth: int, any_depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise TxDecodeError(f"messages nest deeper than {MAX_DEPTH}")
    descriptor: Descriptor = message.DESCRIPTOR
    seen = False
    unknown = unknown_fields.UnknownFieldSet(message)
    for at in range(len(unknown)):
        number = unknown[at].field_number
        if not (allow and number & NON_CRITICAL_BIT and number not in descriptor.fields_by_number):
            raise TxDecodeError(f"errUnknownField: field {number} of /{descriptor.full_name} is unknown or has another wire type")
        seen = True
    if descriptor.full_name == _ANY:
        return _walk_any(message, allow, depth, any_depth) or seen
    for name, repeated, is_map in _parts(descriptor):
        if is_map:
            for part in getattr(message, name).values():
                seen |= _walk(part, allow, depth + 1, any_depth)
        elif repeated:
            for part in getattr(message, name):
                seen |= _walk(part, allow, depth + 1, any_depth)
        elif message.HasField(name):
            seen |= _walk(getattr(message, name), allow, depth + 1, any_depth)
    return seen


def _walk_any(wrapped: Any, allow: bool, depth: int, any_depth: int) -> bool:
    if any_depth >= MAX_ANY_DEPTH:
        raise TxDecodeError(f"Any messages nest deeper than {MAX_ANY_DEPTH}")
    url = wrapped.type_url
    try:
        cls = message_class(url.rsplit("/", 1)[-1])
        inner = cls.FromString(wrapped.value)
    except KeyError:
        raise TxDecodeError(f"no concrete type registered for type URL {url[:200]}") from None
    except Exception as error:  # protobuf's DecodeError has no common base with what upb raises on depth
        raise TxDecodeError(f"bytes of {url[:200]} do not parse: {error}") from None
    return _walk(inner, allow, depth + 1, any_depth + 1)


@cache
def _parts(descriptor: Descriptor) -> tuple[tuple[str, bool, bool], ...]:
    parts = []
    for field in descriptor.fields:
        if field.message_type is None:
            continue
        is_map = field.message_type.GetOptions().map_entry
        if is_map and field.message_type.fields_by_name["value"].message_type is None:
            continue
        parts.append((field.name, field.is_repeated, is_map))
    return tuple(parts)
