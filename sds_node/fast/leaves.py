"""Hashes of many whole leaves in one call, without the interpreter's lock: ``leaves.c`` where it was built and the processor can, else hashlib.

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

_ffi: Any = FFI()
_ffi.cdef("int leaves_ready(void); void leaves_hash(const uint8_t *data, size_t count, uint8_t *out);")


_library: Any = open_library(_ffi, LIBRARY)
_native: Any = _library if _library is not None and _library.leaves_ready() else None


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
