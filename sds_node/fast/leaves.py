"""Hashes of many whole leaves in one call, without the interpreter's lock, the tree over them, and digests of receipts: ``leaves.c`` where it was built and
the processor can, else hashlib.

whole leaves ─┬─ native: two at a time, about twice as fast, and other threads of Python go on meanwhile
              └─ plain:  one by one
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cffi import FFI

from chain.crypto.native import open_library

LIBRARY: Final = Path(__file__).parent.joinpath("build", "leaves.so")
LEAF_BYTES: Final = 16 * 1024
"""The library knows this size alone."""
HASH_BYTES: Final = 32
LEAF_PREFIX: Final = b"\x00"
NODE_PREFIX: Final = b"\x01"
NUMBER_BYTES: Final = 8

Buffer = bytes | bytearray | memoryview

_ffi: Any = FFI()
_ffi.cdef(
    """
    int leaves_ready(void);
    void leaves_hash(const uint8_t *data, size_t count, uint8_t *out);
    void leaves_root(uint8_t *level, size_t count, uint8_t *out);
    void leaves_digests(const uint8_t *digest, uint64_t first, const uint8_t *hashes, size_t count, uint8_t *out);
    """
)


_library: Any = open_library(_ffi, LIBRARY)
# One that an earlier version built has not all of it.
_native: Any = _library if _library is not None and hasattr(_library, "leaves_digests") and _library.leaves_ready() else None


def available() -> bool:
    """True if the library was built and loads, whether or not this processor has the instructions that it needs."""
    return _library is not None


def whole_leaves(data: memoryview) -> bytes:
    """Whole leaves, one after another → their hashes, joined. ``data`` is contiguous bytes; what is behind its last whole leaf is not looked at."""
    count = len(data) // LEAF_BYTES
    if _native is None:
        return plain(data)
    out = bytearray(HASH_BYTES * count)
    _native.leaves_hash(_ffi.from_buffer(data), count, _ffi.from_buffer(out))
    return bytes(out)


def plain(data: memoryview) -> bytes:
    """The same by hashlib."""
    found = []
    for at in range(0, len(data) // LEAF_BYTES * LEAF_BYTES, LEAF_BYTES):
        one = sha256(LEAF_PREFIX)
        one.update(data[at : at + LEAF_BYTES])
        found.append(one.digest())
    return b"".join(found)


def root(hashes: Buffer) -> bytes:
    """Hashes, joined, at least one → the root over them: nodes SHA-256(0x01 ‖ left ‖ right), one without a neighbour goes up alone."""
    if _native is None:
        return plain_root(hashes)
    level, out = bytearray(hashes), bytearray(HASH_BYTES)
    _native.leaves_root(_ffi.from_buffer(level), len(level) // HASH_BYTES, _ffi.from_buffer(out))
    return bytes(out)


def plain_root(hashes: Buffer) -> bytes:
    """The same by hashlib."""
    level = _each(bytes(hashes))
    while len(level) > 1:
        above = [sha256(NODE_PREFIX + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        level = above + level[2 * len(above) :]
    return level[0]


def digests(digest: bytes, first: int, hashes: Buffer) -> list[bytes]:
    """A receipt's digest, and the hashes of more leaves, joined, whose numbers begin with ``first`` → its digest after each of them:
    SHA-256(digest ‖ the leaf's number, 8 bytes big-endian ‖ its hash).
    """
    if _native is None:
        return plain_digests(digest, first, hashes)
    out = bytearray(len(hashes))
    _native.leaves_digests(digest, first, _ffi.from_buffer(hashes), len(hashes) // HASH_BYTES, _ffi.from_buffer(out))
    return _each(bytes(out))


def plain_digests(digest: bytes, first: int, hashes: Buffer) -> list[bytes]:
    """The same by hashlib."""
    found = []
    for number, one in enumerate(_each(bytes(hashes)), first):
        digest = sha256(digest + number.to_bytes(NUMBER_BYTES, "big") + one).digest()
        found.append(digest)
    return found


def _each(joined: bytes) -> list[bytes]:
    return [joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)]
