"""The bytes of the wire: one header of 10 bytes, ten kinds of frames, each with its bounds. Pure functions; README.md is the specification.

stream (4) │ kind (1) │ flags (1) │ length (4) │ payload (length ≤ 1 MiB)          integers big-endian
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from sds_node.wire.errors import MAX_CODE, MAX_TEXT_BYTES, ProtocolViolation, bounded_text

HEADER: Final = struct.Struct(">IBBI")
MAX_PAYLOAD_BYTES: Final = 1 << 20
MAX_STREAM: Final = (1 << 31) - 1
MAX_WINDOW_BYTES: Final = (1 << 31) - 1
MAX_HEAD_BYTES: Final = 64 << 10
MAX_METHOD_BYTES: Final = 64
MAX_HELLO_BYTES: Final = 4_096
MAX_CHAIN_ID_BYTES: Final = 64
MAX_SOFTWARE_BYTES: Final = 128
MAX_CAPABILITIES: Final = 32
MAX_CAPABILITY_BYTES: Final = 32
MIN_STREAM_WINDOW_BYTES: Final = 1_024
END: Final = 0x01
MAGIC: Final = b"stratosw"
VERSION: Final = 1

_HELLO: Final = struct.Struct(">8sHHIII")
_NAME: Final = re.compile(rb"[a-z0-9][a-z0-9._-]*")
_CHAIN_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]*")
_CODE_BYTES: Final = 2


class Kind(IntEnum):
    """What a frame is. Append-only."""

    HELLO = 1
    OPEN = 2
    DATA = 3
    WINDOW = 4
    STATUS = 5
    RESET = 6
    PING = 7
    PONG = 8
    DRAIN = 9
    CLOSE = 10


# kind: (stream numbers, flags that may be set, fewest and most bytes of payload)
_ZERO, _SOME, _ANY = 0, 1, 2
_RULES: Final[dict[int, tuple[int, int, int, int]]] = {
    Kind.HELLO: (_ZERO, 0, _HELLO.size + 3, MAX_HELLO_BYTES),
    Kind.OPEN: (_SOME, END, 2, 1 + MAX_METHOD_BYTES + MAX_HEAD_BYTES),
    Kind.DATA: (_SOME, END, 0, MAX_PAYLOAD_BYTES),
    Kind.WINDOW: (_ANY, 0, 4, 4),
    Kind.STATUS: (_SOME, 0, _CODE_BYTES, _CODE_BYTES + MAX_TEXT_BYTES),
    Kind.RESET: (_SOME, 0, _CODE_BYTES, _CODE_BYTES + MAX_TEXT_BYTES),
    Kind.PING: (_ZERO, 0, 8, 8),
    Kind.PONG: (_ZERO, 0, 8, 8),
    Kind.DRAIN: (_ZERO, 0, 4, 4),
    Kind.CLOSE: (_ZERO, 0, _CODE_BYTES, _CODE_BYTES + MAX_TEXT_BYTES),
}


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of each side. Windows and ``streams`` are what its sender grants: bytes before it has read any, streams open at once."""

    chain_id: str
    software: str = "stratos"
    capabilities: tuple[str, ...] = ()
    lowest: int = VERSION
    highest: int = VERSION
    streams: int = 256
    stream_window_bytes: int = 4 << 20
    connection_window_bytes: int = 64 << 20


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame's bytes, header and payload."""
    return HEADER.pack(stream, kind, flags, len(payload)) + payload


def check_header(stream: int, kind: int, flags: int, length: int) -> None:
    """Raises ProtocolViolation unless these four can stand in a header."""
    rule = _RULES.get(kind)
    if rule is None:
        raise ProtocolViolation(f"expected a kind of frame from 1 to {max(_RULES)}, got {kind}")
    streams, allowed, fewest, most = rule
    if flags & ~allowed:
        raise ProtocolViolation(f"a frame of kind {Kind(kind).name} has flags within {allowed:#x}, got {flags:#x}")
    if not fewest <= length <= most:
        raise ProtocolViolation(f"a frame of kind {Kind(kind).name} has {fewest} to {most} bytes, got {length}")
    if stream > MAX_STREAM or (streams == _ZERO and stream) or (streams == _SOME and not stream):
        raise ProtocolViolation(f"a frame of kind {Kind(kind).name} cannot be on stream {stream}")
    if kind == Kind.DATA and not length and not flags:
        raise ProtocolViolation("a DATA frame is empty and ends nothing")


def encode_hello(hello: Hello) -> bytes:
    """The payload of a HELLO frame. Raises ValueError for a field out of bounds: it is ours."""
    _require(0 < hello.lowest <= hello.highest <= 0xFFFF, f"versions are 1 to 65535, lowest first, got {hello.lowest} to {hello.highest}")
    _require(len(hello.capabilities) <= MAX_CAPABILITIES, f"at most {MAX_CAPABILITIES} capabilities, got {len(hello.capabilities)}")
    chain, software = hello.chain_id.encode(), hello.software.encode()
    _require(bool(_CHAIN_ID.fullmatch(chain)) and len(chain) <= MAX_CHAIN_ID_BYTES, f"no chain id: {hello.chain_id!r}")
    _require(len(software) <= MAX_SOFTWARE_BYTES, f"software is named in at most {MAX_SOFTWARE_BYTES} bytes, got {len(software)}")
    fixed = _HELLO.pack(MAGIC, hello.lowest, hello.highest, hello.streams, hello.stream_window_bytes, hello.connection_window_bytes)
    parts = [fixed, _short(chain), _short(software), bytes([len(hello.capabilities)])]
    for capability in hello.capabilities:
        raw = capability.encode()
        _require(bool(_NAME.fullmatch(raw)) and len(raw) <= MAX_CAPABILITY_BYTES, f"no capability: {capability!r}")
        parts.append(_short(raw))
    return b"".join(parts)


def decode_hello(payload: bytes) -> Hello:
    """The HELLO of a peer. What follows the known fields belongs to later versions and is skipped. Raises ProtocolViolation."""
    try:
        magic, lowest, highest, streams, stream_window, connection_window = _HELLO.unpack_from(payload)
    except struct.error:
        raise ProtocolViolation(f"a HELLO begins with {_HELLO.size} bytes of fixed fields, got {len(payload)}") from None
    if magic != MAGIC:
        raise ProtocolViolation(f"a HELLO begins with {MAGIC!r}, got {magic!r}")
    if not 0 < lowest <= highest:
        raise ProtocolViolation(f"a HELLO has versions from 1 on, lowest first, got {lowest} to {highest}")
    if not (MIN_STREAM_WINDOW_BYTES <= stream_window <= connection_window <= MAX_WINDOW_BYTES) or streams > MAX_STREAM:
        raise ProtocolViolation(f"windows of {stream_window} and {connection_window} bytes and {streams} streams are out of bounds")
    chain, at = _cut(payload, _HELLO.size, MAX_CHAIN_ID_BYTES, "chain id")
    software, at = _cut(payload, at, MAX_SOFTWARE_BYTES, "software")
    if not _CHAIN_ID.fullmatch(chain):
        raise ProtocolViolation(f"a chain id is letters, digits, dots and dashes, got {chain!r}")
    if at >= len(payload) or payload[at] > MAX_CAPABILITIES:
        raise ProtocolViolation(f"a HELLO has a count of at most {MAX_CAPABILITIES} capabilities after the software")
    count, at = payload[at], at + 1
    capabilities = []
    for _ in range(count):
        raw, at = _cut(payload, at, MAX_CAPABILITY_BYTES, "capability")
        if not _NAME.fullmatch(raw):
            raise ProtocolViolation(f"a capability is small letters, digits, dots and dashes, got {raw!r}")
        capabilities.append(raw.decode())
    name = bounded_text(software.decode(errors="replace"))
    return Hello(chain.decode(), name, tuple(capabilities), lowest, highest, streams, stream_window, connection_window)


def encode_open(method: str, head: bytes) -> bytes:
    """The payload of an OPEN frame. Raises ValueError for a method or head out of bounds."""
    raw = method.encode()
    _require(bool(_NAME.fullmatch(raw)) and len(raw) <= MAX_METHOD_BYTES, f"a method is 1 to {MAX_METHOD_BYTES} of a-z 0-9 . _ -, got {method!r}")
    _require(len(head) <= MAX_HEAD_BYTES, f"a request's head has at most {MAX_HEAD_BYTES} bytes, got {len(head)}: send the rest as data")
    return _short(raw) + head


def decode_open(payload: bytes) -> tuple[str, bytes]:
    """(method, head). Raises ProtocolViolation."""
    raw, at = _cut(payload, 0, MAX_METHOD_BYTES, "method")
    if not _NAME.fullmatch(raw):
        raise ProtocolViolation(f"a method is 1 to {MAX_METHOD_BYTES} of a-z 0-9 . _ -, got {raw!r}")
    if len(payload) - at > MAX_HEAD_BYTES:
        raise ProtocolViolation(f"a request's head has at most {MAX_HEAD_BYTES} bytes, got {len(payload) - at}")
    return raw.decode(), bytes(payload[at:])


def encode_status(code: int, text: str) -> bytes:
    """The payload of a STATUS, RESET or CLOSE frame: code (u16), text. The text is cut at 1,024 bytes."""
    _require(0 <= code <= MAX_CODE, f"a code has 16 bits, got {code}")
    return code.to_bytes(_CODE_BYTES, "big") + bounded_text(text).encode()


def decode_status(payload: bytes) -> tuple[int, str]:
    """(code, text). Text that is no UTF-8 or has control characters comes with marks in their place."""
    return int.from_bytes(payload[:_CODE_BYTES], "big"), bounded_text(bytes(payload[_CODE_BYTES:]).decode(errors="replace"))


def _short(raw: bytes) -> bytes:
    return bytes([len(raw)]) + raw


def _cut(payload: bytes, at: int, most: int, what: str) -> tuple[bytes, int]:
    """The short string at an offset, and the offset after it."""
    length = payload[at] if at < len(payload) else 0
    end = at + 1 + length
    if at >= len(payload) or length > most or end > len(payload):
        raise ProtocolViolation(f"a {what} is one byte of length, at most {most}, and so many bytes; got {length} of {max(0, len(payload) - at - 1)}")
    return bytes(payload[at + 1 : end]), end


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
