"""Reading protobuf bytes with exactly the strictness of gogoproto's generated Go code.

Needed where a verdict must equal a Go peer's on any bytes (commitment proofs). upb and gogoproto agree on well-formed messages and
differ on malformed ones: gogoproto refuses a known field in another wire type (upb keeps it as unknown), cuts field numbers to 32
bits, and is lenient about the end of groups it skips. Fields supported: bytes, int32, uint32, enum and messages, which is all that
proofs use.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

MAX_DEPTH = 64
_VARINT, _FIXED64, _BYTES, _START_GROUP, _END_GROUP, _FIXED32 = range(6)
_NUMBERS = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_UINT32)


class WireError(ValueError):
    """The bytes are not a message, by gogoproto's rules."""


def parse_into(message: Any, raw: bytes, depth: int = 0) -> None:
    """Read ``raw`` into ``message`` (merging, as Unmarshal does). Raises WireError."""
    if depth > MAX_DEPTH:
        raise WireError(f"messages nest deeper than {MAX_DEPTH}")
    descriptor: Descriptor = message.DESCRIPTOR
    at = 0
    while at < len(raw):
        start = at
        tag, at = _varint(raw, at)
        number, wire_type = _int32(tag >> 3), tag & 7
        if wire_type == _END_GROUP:
            raise WireError("group ends that did not start")
        if number <= 0:
            raise WireError(f"field number {number}")
        field = descriptor.fields_by_number.get(number)
        if field is None:
            at = _skip(raw, start)
        elif field.type in _NUMBERS:
            at = _read_number(message, field, wire_type, raw, at)
        else:
            if wire_type != _BYTES:
                raise WireError(f"{field.full_name} in wire type {wire_type}")
            end, at = _bounds(raw, at)
            _read_bytes(message, field, raw[at:end], depth)
            at = end


def _read_number(message: Any, field: FieldDescriptor, wire_type: int, raw: bytes, at: int) -> int:
    convert = _uint32 if field.type == FieldDescriptor.TYPE_UINT32 else _int32
    if wire_type == _VARINT:
        value, at = _varint(raw, at)
        if field.is_repeated:
            getattr(message, field.name).append(convert(value))
        else:
            setattr(message, field.name, convert(value))
        return at
    if wire_type == _BYTES and field.is_repeated:
        end, at = _bounds(raw, at)
        while at < end:
            value, at = _varint(raw, at)
            getattr(message, field.name).append(convert(value))
        return at
    raise WireError(f"{field.full_name} in wire type {wire_type}")


def _read_bytes(message: Any, field: FieldDescriptor, content: bytes, depth: int) -> None:
    if field.message_type is None:
        if field.is_repeated:
            getattr(message, field.name).append(content)
        else:
            setattr(message, field.name, content)
    elif field.is_repeated:
        parse_into(getattr(message, field.name).add(), content, depth + 1)
    else:
        if field.containing_oneof is not None:
            message.ClearField(field.name)  # a oneof member is replaced, any other field is merged
        part = getattr(message, field.name)
        part.SetInParent()
        parse_into(part, content, depth + 1)


def _bounds(raw: bytes, at: int) -> tuple[int, int]:
    """(end, start) of a length-delimited field whose length is at ``at``."""
    size, at = _varint(raw, at)
    if size >= 1 << 63 or at + size > len(raw):
        raise WireError("a length reaches beyond the message")
    return at + size, at


def _skip(raw: bytes, at: int) -> int:
    """The position after the unknown field whose tag is at ``at``."""
    groups = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, at = _varint(raw, at)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _BYTES:
            size, at = _varint(raw, at)
            if size >= 1 << 63:
                raise WireError("a length is negative")
            at += size
        elif wire_type == _START_GROUP:
            groups += 1
        elif wire_type == _END_GROUP:
            if groups == 0:
                raise WireError("group ends that did not start")
            groups -= 1
        elif wire_type == _FIXED32:
            at += 4
        else:
            raise WireError(f"wire type {wire_type}")
        if groups == 0:
            if at > len(raw):
                break
            return at
    raise WireError("the message ends inside an unknown field")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(raw):
            raise WireError("the message ends inside a number")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise WireError("a number has more than 64 bits")


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _uint32(value: int) -> int:
    return value & 0xFFFFFFFF
