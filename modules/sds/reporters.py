"""Who reported a file: a bitmap whose bit i is the i-th meta node by the text of its network address (stratos-chain.md 3.2).

Bits are packed into 64-bit blocks, little-endian, so bit i is bit i mod 8 of byte i ÷ 8: bits 0 to 3 are ``0f 00 00 00 00 00 00 00``.
"""

from __future__ import annotations

from typing import Final

from chain.errors import InvalidRequest

BLOCK_BYTES: Final = 8
MAX_REPORTERS: Final = 1 << 16
"""Positions that a bitmap can have: 8 kB."""


def with_bit(bitmap: bytes, position: int) -> bytes:
    """``bitmap`` with the bit at ``position`` set, longer by whole blocks where it has to be. Raises InvalidRequest (sdk/18) for a position that is
    not from 0 to MAX_REPORTERS - 1."""
    if not 0 <= position < MAX_REPORTERS:
        raise InvalidRequest(f"expected a reporter's position from 0 to {MAX_REPORTERS - 1}, got {position}")
    at, bit = divmod(position, 8)
    grown = bytearray(bitmap)
    needed = (at // BLOCK_BYTES + 1) * BLOCK_BYTES
    grown.extend(bytes(max(needed - len(grown), 0)))
    grown[at] |= 1 << bit
    return bytes(grown)


def positions(bitmap: bytes) -> list[int]:
    """The positions of the bits that are set, ascending."""
    return [at * 8 + bit for at, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1]
