"""Unsigned varints, protobuf's and iavl's: seven bits a byte, the lowest first, in the shortest form."""

from __future__ import annotations

from typing import Final


def _encode(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT: Final = [_encode(value) for value in range(1 << 14)]


def uvarint(value: int) -> bytes:
    """``value``, not negative, of any size."""
    return _SHORT[value] if value < 1 << 14 else _encode(value)


def delimited(raw: bytes) -> bytes:
    """``raw`` with its length in front."""
    return uvarint(len(raw)) + raw


def undelimited(raw: bytes) -> bytes:
    """What ``delimited`` had. ``raw`` is our own: a length that does not fit is not looked for."""
    start = 0
    while raw[start] & 0x80:
        start += 1
    return raw[start + 1 :]


def field_size(size: int) -> int:
    """What ``size`` bytes take as a field of a message with a tag of one byte: a transaction in a block, as CometBFT counts it."""
    return 1 + len(uvarint(size)) + size
