"""Proto JSON as the SDK (gogo jsonpb) writes it: original field names, defaults shown, 64-bit numbers as text.

Special forms: enums by name, bytes as base64, Timestamp as RFC 3339, Duration as ``1.5s``, Any as ``{"@type", …fields}``, Int as text, Dec with
18 decimals; a nil sub-message is ``null``, one that is not nullable is always an object. Reading also takes lowerCamelCase names
and enum numbers, and refuses unknown fields, duplicate keys and nesting deeper than 64. Errors name the path of the field.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from chain.codec import registry
from chain.codec.canonical import is_non_nullable
from chain.codec.times import NANOS, parse_rfc3339, rfc3339
from chain.dec import DecError, dec_text, dec_wire
from chain.errors import JSONUnmarshalError

MAX_DEPTH: Final = 64
_SCALAR: Final = registry.extension("cosmos_proto.scalar")
_CUSTOM_TYPE: Final = registry.extension("gogoproto.customtype")
_BIG: Final = frozenset({FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64})
_SMALL: Final = frozenset({FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32})
_FLOAT: Final = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_DURATION: Final = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s", re.ASCII)


def loads(raw: bytes | str) -> Any:
    """JSON text to Python values. Raises JSONUnmarshalError for bad JSON, duplicate keys, NaN or Infinity, and too deep nesting."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            raise JSONUnmarshalError(f"duplicate key {next(name for name in names if names.count(name) > 1)!r}")
        return found

    def refuse(constant: str) -> Any:
        raise JSONUnmarshalError(f"{constant} is not a JSON number")

    try:
        found = json.loads(raw, object_pairs_hook=unique, parse_constant=refuse)
        # An escape can spell half a character (\\ud800), which no UTF-8 text and no protobuf field can hold.
        json.dumps(found, ensure_ascii=False).encode()
        return found
    except RecursionError:
        raise JSONUnmarshalError("the JSON text nests too deep") from None
    except ValueError as error:
        raise JSONUnmarshalError(f"not JSON: {error}") from None


def to_json(message: Any) -> Any:
    """The JSON value of a message."""
    return _message_to_json(message, 0)


def dumps(message: Any) -> bytes:
    """The JSON text of a message, compact, fields in schema order."""
    return json.dumps(to_json(message), separators=(",", ":"), ensure_ascii=False).encode()


def from_json(cls: Any, value: Any, path: str = "") -> Any:
    """A message of ``cls`` from a JSON value. Raises JSONUnmarshalError (sdk/17) naming the field."""
    message = cls()
    _fill(message, value, path or cls.DESCRIPTOR.name, 0)
    return message


def _message_to_json(message: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise JSONUnmarshalError(f"messages nest deeper than {MAX_DEPTH}")
    descriptor = message.DESCRIPTOR
    match descriptor.full_name:
        case "google.protobuf.Any":
            if not message.type_url:
                return None
            inner = _message_to_json(registry.unpack_any(message), depth + 1)
            return {"@type": message.type_url, **(inner if isinstance(inner, dict) else {"value": inner})}
        case "google.protobuf.Timestamp":
            return rfc3339(message.seconds, message.nanos)
        case "google.protobuf.Duration":
            return duration_text(message.seconds, message.nanos)
        case "cosmos.staking.v1beta1.RedelegationResponse":
            return _plain_json(message)
    out: dict[str, Any] = {}
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            out[field.name] = {_map_key(key): _value_to_json(inner, value[key], depth) for key in sorted(value)}
        elif field.is_repeated:
            out[field.name] = [_value_to_json(field, item, depth) for item in value]
        elif _is_nil(message, field, value):
            out[field.name] = None
        else:
            out[field.name] = _value_to_json(field, value, depth)
    return out


def _plain_json(message: Any) -> Any:
    """As Go's encoding/json writes a message, which the SDK has for this one: what is zero left out, numbers as numbers, an empty list null."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        return rfc3339(message.seconds, message.nanos)
    out: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            out[field.name] = [_plain_json(one) for one in value] or None
        elif field.message_type is not None:
            out[field.name] = _plain_json(value)
        elif is_dec(field) or is_int(field):
            out[field.name] = _value_to_json(field, value, 0)
        elif value:
            out[field.name] = value
    return out


def _is_nil(message: Any, field: FieldDescriptor, value: Any) -> bool:
    """True where Go holds a nil pointer: a message, or a number (MsgEditValidator's, say) that was not given."""
    if is_non_nullable(field):
        return False
    if field.message_type is not None:
        return not message.HasField(field.name)
    return not value and (is_dec(field) or is_int(field))


def _map_key(key: Any) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


def _value_to_json(field: FieldDescriptor, value: Any, depth: int) -> Any:
    if field.message_type is not None:
        return _message_to_json(value, depth + 1)
    if field.type == FieldDescriptor.TYPE_BYTES:
        if is_int(field):  # a few old fields keep the text of an Int or a Dec in bytes
            return value.decode("ascii", "replace") or "0"
        if is_dec(field):
            return dec_text(value.decode("ascii", "replace"))
        # CometBFT's HexBytes and the SDK's evidence hashes keep their own text form. Go's nil bytes are null, except in lists.
        if not value and not field.is_repeated:
            return None
        return base64.b64encode(value).decode() if registry.option_of(field, _CUSTOM_TYPE) != "HexBytes" else value.hex().upper()
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if field.cpp_type in _BIG:
        return str(value)
    if field.type == FieldDescriptor.TYPE_STRING:
        if is_dec(field):
            return dec_text(value)
        if is_int(field):
            return value or "0"
    return value


def is_dec(field: FieldDescriptor) -> bool:
    """True for a field (of text, or of bytes that hold it) whose Go type is LegacyDec: scaled on the wire, decimal in JSON."""
    return (registry.option_of(field, _CUSTOM_TYPE) or "").endswith("Dec")


def is_int(field: FieldDescriptor) -> bool:
    """True for a text field whose Go type is Int."""
    return registry.option_of(field, _CUSTOM_TYPE) in ("Int", "Uint")


def duration_text(seconds: int, nanos: int) -> str:
    """``1814400s``, ``1.500s``: fractions of 3, 6 or 9 digits."""
    sign = "-" if seconds < 0 or nanos < 0 else ""
    text = f"{sign}{abs(seconds)}.{abs(nanos):09d}"
    for _ in range(3):
        text = text.removesuffix("000")
    return text.removesuffix(".") + "s"


def _fill(message: Any, value: Any, path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise JSONUnmarshalError(f"{path}: nests deeper than {MAX_DEPTH}")
    descriptor = message.DESCRIPTOR
    match descriptor.full_name:
        case "google.protobuf.Timestamp":
            message.seconds, message.nanos = _parsed(parse_rfc3339, value, path)
            return
        case "google.protobuf.Duration":
            message.seconds, message.nanos = _parsed(_duration, value, path)
            return
        case "google.protobuf.Any":
            _fill_any(message, value, path, depth)
            return
    if not isinstance(value, dict):
        raise JSONUnmarshalError(f"{path}: expected an object, got {_shown(value)}")
    for name, item in value.items():
        field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
        where = f"{path}.{name}"
        if field is None:
            raise JSONUnmarshalError(f"{where}: {descriptor.full_name} has no such field")
        if item is None:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(message, field, item, where, depth)
        elif field.is_repeated:
            if not isinstance(item, list):
                raise JSONUnmarshalError(f"{where}: expected a list, got {_shown(item)}")
            target = getattr(message, field.name)
            for at, one in enumerate(item):
                if field.message_type is not None:
                    _fill(target.add(), one, f"{where}[{at}]", depth + 1)
                else:
                    target.append(_scalar(field, one, f"{where}[{at}]"))
        elif field.message_type is not None:
            part = getattr(message, field.name)
            part.SetInParent()
            _fill(part, item, where, depth + 1)
        else:
            setattr(message, field.name, _scalar(field, item, where))


def _fill_any(message: Any, value: Any, path: str, depth: int) -> None:
    if not isinstance(value, dict) or not isinstance(value.get("@type"), str):
        raise JSONUnmarshalError(f"{path}: expected an object with @type, got {_shown(value)}")
    url = value["@type"]
    try:
        inner = registry.message_class(url.removeprefix("/"))()
    except KeyError:
        raise JSONUnmarshalError(f"{path}.@type: no type {url[:100]!r}") from None
    rest = {name: item for name, item in value.items() if name != "@type"}
    special = inner.DESCRIPTOR.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration")
    _fill(inner, rest.get("value") if special else rest, path, depth + 1)
    message.CopyFrom(registry.pack_any(inner))


def _fill_map(message: Any, field: FieldDescriptor, value: Any, path: str, depth: int) -> None:
    if not isinstance(value, dict):
        raise JSONUnmarshalError(f"{path}: expected an object, got {_shown(value)}")
    entry = field.message_type
    assert entry is not None, "a map field has an entry type"
    key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
    target = getattr(message, field.name)
    for key, item in value.items():
        parsed = _scalar(key_field, key, path)
        if value_field.message_type is not None:
            _fill(target[parsed], item, f"{path}[{key}]", depth + 1)
        else:
            target[parsed] = _scalar(value_field, item, f"{path}[{key}]")


def _scalar(field: FieldDescriptor, value: Any, path: str) -> Any:
    if field.type == FieldDescriptor.TYPE_BOOL:
        if isinstance(value, bool):
            return value
        raise JSONUnmarshalError(f"{path}: expected true or false, got {_shown(value)}")
    if field.enum_type is not None:
        if isinstance(value, str) and value in field.enum_type.values_by_name:
            return field.enum_type.values_by_name[value].number
        if isinstance(value, int) and not isinstance(value, bool) and value in field.enum_type.values_by_number:
            return value
        raise JSONUnmarshalError(f"{path}: expected one of {', '.join(field.enum_type.values_by_name)}, got {_shown(value)}")
    if field.cpp_type in _BIG or field.cpp_type in _SMALL:
        return _integer(field, value, path)
    if field.cpp_type in _FLOAT:
        raise JSONUnmarshalError(f"{path}: floating point numbers are not used on this chain")
    if not isinstance(value, str):
        raise JSONUnmarshalError(f"{path}: expected text, got {_shown(value)}")
    if field.type == FieldDescriptor.TYPE_BYTES and is_int(field):
        if not value.isascii():
            raise JSONUnmarshalError(f"{path}: expected a whole number as text, got {_shown(value)}")
        return value.encode()
    if field.type == FieldDescriptor.TYPE_BYTES and is_dec(field):
        return _parsed(dec_wire, value, path).encode()
    if field.type == FieldDescriptor.TYPE_BYTES:
        try:
            text = value.replace("-", "+").replace("_", "/")
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise JSONUnmarshalError(f"{path}: expected base64, got {_shown(value)}") from None
    if is_dec(field):
        return _parsed(dec_wire, value, path)
    return value


def _integer(field: FieldDescriptor, value: Any, path: str) -> int:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise JSONUnmarshalError(f"{path}: expected a whole number, got {_shown(value)}")
    bits = 64 if field.cpp_type in _BIG else 32
    signed = field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_INT32)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise JSONUnmarshalError(f"{path}: expected a number from {low} to {high}, got {value}")
    return value


def _duration(text: str) -> tuple[int, int]:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a duration as 1.5s, got {text[:60]!r}")
    sign = -1 if match[1] else 1
    total = sign * (int(match[2]) * NANOS + int((match[3] or "").ljust(9, "0")))
    seconds = abs(total) // NANOS * sign
    return seconds, total - seconds * NANOS


def _parsed(parse: Any, value: Any, path: str) -> Any:
    if not isinstance(value, str):
        raise JSONUnmarshalError(f"{path}: expected text, got {_shown(value)}")
    try:
        return parse(value)
    except (ValueError, DecError, DecodeError) as error:
        raise JSONUnmarshalError(f"{path}: {error}") from None


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:60] + "…"
