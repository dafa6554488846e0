"""Missed blocks as bits, 1024 to a chunk; a chunk without a stored value has none set.

A stored chunk is what Go's bits-and-blooms/bitset writes: the number of bits (8 bytes), then 16 words of 64 bits, all big-endian; bit ``i``
of a word counts from its low end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CHUNK_BITS: Final = 1024
EMPTY: Final = CHUNK_BITS.to_bytes(8, "big") + bytes(CHUNK_BITS // 8)


def place(index: int) -> tuple[int, int]:
    """(number of the chunk, bit in it) of an index in the window."""
    return divmod(index, CHUNK_BITS)


def is_set(chunk: bytes | None, bit: int) -> bool:
    """True if ``bit`` is set."""
    at, mask = _byte_of(bit)
    return chunk is not None and bool(chunk[at] & mask)


def changed(chunk: bytes | None, bit: int, value: bool) -> bytes:
    """The chunk with ``bit`` set or cleared."""
    found = bytearray(chunk or EMPTY)
    at, mask = _byte_of(bit)
    found[at] = found[at] | mask if value else found[at] & ~mask
    return bytes(found)


def bits(chunk: bytes) -> Iterator[int]:
    """The bits that are set, ascending."""
    words = [chunk[at : at + 8] for at in range(8, len(chunk), 8)]
    left = int.from_bytes(b"".join(reversed(words)), "big")
    while left:
        lowest = left & -left
        yield lowest.bit_length() - 1
        left ^= lowest


def _byte_of(bit: int) -> tuple[int, int]:
    return 8 + bit // 64 * 8 + 7 - bit % 64 // 8, 1 << bit % 8
