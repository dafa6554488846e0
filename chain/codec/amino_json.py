"""Legacy amino JSON of messages, derived from their ``amino.*`` options: what LEGACY_AMINO_JSON signatures cover.

Rules (SDK 0.50 x/tx aminojson): registered names wrap messages as ``{"type", "value"}`` at the top and inside Any; fields keep their
proto names; empty fields are left out unless ``amino.dont_omitempty``; 64-bit integers, durations and Ints are text; bytes are base64;
keys sorted, ``& < >`` escaped; a oneof goes by its own name, with the chosen field inside. Decs are shown with 18 decimals as everywhere in JSON.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from chain.codec import registry
from chain.codec.canonical import is_non_nullable
from chain.codec.times import rfc3339
from chain.dec import DecError, dec_text
from chain.errors import InvalidRequest

_NAME: Final = registry.extension("amino.name")
_MESSAGE_ENCODING: Final = registry.extension("amino.message_encoding")
_ENCODING: Final = registry.extension("amino.encoding")
_FIELD_NAME: Final = registry.extension("amino.field_name")
_ONEOF_NAME: Final = registry.extension("amino.oneof_name")
_DONT_OMIT: Final = registry.extension("amino.dont_omitempty")
_SCALAR: Final = registry.extension("cosmos_proto.scalar")
_CUSTOM_TYPE: Final = registry.extension("gogoproto.customtype")
_BIG: Final = frozenset({FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64})
MAX_DEPTH: Final = 32


def message_json(message: Any) -> Any:
    """``{"type": amino name, "value": …}`` of a transaction message. Raises InvalidRequest for a Dec that is none."""
    return _named(message, 0)


def sign_bytes(document: Any) -> bytes:
    """Canonical bytes of a sign document: sorted keys, no spaces, HTML-escaped as Go's encoder does."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character, escape in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(character, escape)
    return text.encode()


def _named(message: Any, depth: int) -> Any:
    # What has no amino name goes by its type URL, as x/tx has it.
    name = registry.option_of(message.DESCRIPTOR, _NAME) or registry.type_url(message)
    return {"type": name, "value": _message(message, depth)}


def _message(message: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"messages nest deeper than {MAX_DEPTH}")
    descriptor: Descriptor = message.DESCRIPTOR
    match descriptor.full_name:
        case "google.protobuf.Any":
            return _named(registry.unpack_any(message), depth + 1)
        case "google.protobuf.Timestamp":
            return rfc3339(message.seconds, message.nanos)
        case "google.protobuf.Duration":
            return str(message.seconds * 1_000_000_000 + message.nanos)
    encoding = registry.option_of(descriptor, _MESSAGE_ENCODING)
    if encoding == "key_field":
        return base64.b64encode(message.key).decode()
    if encoding == "threshold_string":
        return {"threshold": str(message.threshold), "pubkeys": [_message(key, depth + 1) for key in message.public_keys]}
    out: dict[str, Any] = {}
    for field in descriptor.fields:
        name = registry.option_of(field, _FIELD_NAME) or field.name
        value = getattr(message, field.name)
        keep = registry.option_of(field, _DONT_OMIT)
        one_of = registry.option_of(field, _ONEOF_NAME)
        if one_of:
            group = field.containing_oneof
            assert group is not None, f"{field.full_name} has a oneof's name and is in none"
            chosen = message.WhichOneof(group.name)
            if chosen == field.name:
                out[_camel(group.name)] = {"type": one_of, "value": {name: _value(field, value, depth)}}
            elif chosen is None:
                out[_camel(group.name)] = None
            continue
        if field.is_repeated:
            if value or keep:
                items = [_value(field, item, depth) for item in value]
                out[name] = items if items or registry.option_of(field, _ENCODING) == "legacy_coins" else None
        elif field.message_type is not None:
            if message.HasField(field.name) or keep or is_non_nullable(field):
                shown = _message(value, depth + 1)
                if shown or keep or message.HasField(field.name):
                    out[name] = shown
        elif value or keep or (field.containing_oneof is not None and message.HasField(field.name)):
            out[name] = _value(field, value, depth)
    return out


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _value(field: FieldDescriptor, value: Any, depth: int) -> Any:
    if field.message_type is not None:
        return _message(value, depth + 1)
    if field.cpp_type in _BIG:
        return str(value)
    scalar = registry.option_of(field, _SCALAR)
    if scalar == "cosmos.Dec" and not registry.option_of(field, _CUSTOM_TYPE):
        return value  # text in Go, too, as governance's weights and ratios: signed as it stands
    if scalar in ("cosmos.Int", "cosmos.Dec"):
        text = value if isinstance(value, str) else value.decode("ascii", "replace")
        try:
            return (dec_text(text) if scalar == "cosmos.Dec" else text) if text else "0"
        except DecError as error:
            raise InvalidRequest(f"{field.full_name}: {error}") from None
    return base64.b64encode(value).decode() if field.type == FieldDescriptor.TYPE_BYTES else value
