"""Bytes as gogoproto writes them: what is stored, hashed or compared with a Go peer.

Differences from plain proto3 serialisation (reference stratos-chain.md 1.9): a sub-message declared non-nullable is always
written, even when empty; such a time that is unset is Go's, the start of year 1; an Int or Dec that is zero or unset is written as the text "0";
map entries are sorted by key.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from chain.codec import registry
from chain.codec.times import GO_NO_TIME_S

_NULLABLE: Final = registry.extension("gogoproto.nullable")
_CUSTOM_TYPE: Final = registry.extension("gogoproto.customtype")
_STD_TIME: Final = registry.extension("gogoproto.stdtime")
_NUMBER_TYPES: Final = ("Int", "LegacyDec", "Dec", "Uint")


def is_non_nullable(field: FieldDescriptor) -> bool:
    """True where gogoproto embeds the field by value."""
    return registry.option_of(field, _NULLABLE) is False


def is_number_text(field: FieldDescriptor) -> bool:
    """True where the field (text, or bytes that hold text) is an Int, Uint or Dec."""
    textual = field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    return bool(textual and (registry.option_of(field, _CUSTOM_TYPE) or "") in _NUMBER_TYPES)


def encode(message: Message) -> bytes:
    """Canonical bytes of ``message``. Fills non-nullable parts of ``message`` itself, which does not change its meaning."""
    fill(message)
    return message.SerializeToString(deterministic=True)


def known(message: Any) -> Any:
    """A copy of what the schema names. A message may bring non-critical fields beside it, which mean nothing: no state may hold them."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    return copy


def fill(message: Message) -> Message:
    """Set every non-nullable part that is absent (recursively); returns ``message``."""
    filler = _filler(message.DESCRIPTOR)
    if filler is not None:
        filler(message)
    return message


@cache
def _needs_filling(descriptor: Descriptor) -> bool:
    return _reaches(descriptor, frozenset())


def _reaches(descriptor: Descriptor, seen: frozenset[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen = seen | {descriptor.full_name}
    for field in descriptor.fields:
        if is_number_text(field) and not field.is_repeated:
            return True
        if field.message_type is not None:
            if not field.is_repeated and is_non_nullable(field):
                return True
            if _reaches(field.message_type, seen):
                return True
    return False


@cache
def _filler(descriptor: Descriptor) -> Callable[[Any], None] | None:
    if not _needs_filling(descriptor):
        return None
    numbers: list[tuple[str, str | bytes]] = []
    times: list[str] = []
    singles: list[tuple[str, bool, Descriptor]] = []
    lists: list[tuple[str, Descriptor]] = []
    maps: list[tuple[str, Descriptor]] = []
    for field in descriptor.fields:
        if is_number_text(field):
            # A nullable Int inside a oneof or marked nullable stays absent; repeated ones carry their own text.
            if not field.is_repeated and is_non_nullable(field):
                numbers.append((field.name, "0" if field.type == FieldDescriptor.TYPE_STRING else b"0"))
        elif field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                value = field.message_type.fields_by_name["value"].message_type
                if value is not None and _needs_filling(value):
                    maps.append((field.name, value))
            elif field.is_repeated:
                if _needs_filling(field.message_type):
                    lists.append((field.name, field.message_type))
            elif is_non_nullable(field) and registry.option_of(field, _STD_TIME):
                times.append(field.name)
            elif is_non_nullable(field) or _needs_filling(field.message_type):
                singles.append((field.name, is_non_nullable(field), field.message_type))

    def run(message: Any) -> None:
        for name, zero in numbers:
            if not getattr(message, name):
                setattr(message, name, zero)
        for name in times:
            if not message.HasField(name):
                getattr(message, name).seconds = GO_NO_TIME_S
        for name, always, inner in singles:
            if always or message.HasField(name):
                part = getattr(message, name)
                if always:
                    part.SetInParent()
                fill_inner = _filler(inner)
                if fill_inner is not None:
                    fill_inner(part)
        for name, inner in lists:
            fill_inner = _filler(inner)
            if fill_inner is not None:
                for part in getattr(message, name):
                    fill_inner(part)
        for name, inner in maps:
            fill_inner = _filler(inner)
            if fill_inner is not None:
                for part in getattr(message, name).values():
                    fill_inner(part)

    return run
