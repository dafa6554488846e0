"""Many secp256k1 signatures at once, beside the interpreter: a batch is started, and its verdicts are asked for later.

    native  threads of ``fast/verify.c``, which never need the GIL: they check while Python goes on, and whoever waits helps
    plain   threads of Python's; libsecp256k1 runs without the GIL, but each item waits for it twice

Both give the same verdicts as ``check_digest`` one by one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from cffi import FFI
from coincurve._libsecp256k1 import ffi as curve_ffi
from coincurve._libsecp256k1 import lib as curve
from coincurve.context import GLOBAL_CONTEXT

from chain.crypto.keys import check_digest, parsed_point
from chain.crypto.native import open_library

LIBRARY: Final = Path(__file__).parent.joinpath("fast", "build", "verify.so")
MIN_PER_WORKER: Final = 16
_SOME_POINT: Final = parsed_point(bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")) or b""
"""Stands where a key is no point: libsecp256k1 ends the process when it is handed none."""

Pending: TypeAlias = Callable[[], list[bool]]
"""A started batch: call it once for one verdict per item, in order."""

_ffi: Any = FFI()
_ffi.cdef(
    """
    typedef struct pool pool;
    typedef struct job job;
    pool *verify_open(uint32_t threads, const void *context, uintptr_t parse, uintptr_t check);
    job *verify_start(pool *p, const uint8_t *items, uint32_t count, uint8_t *verdicts);
    void verify_wait(pool *p, job *j);
    void verify_close(pool *p);
    """
)


class Item(NamedTuple):
    """One check: compressed key (33 bytes), digest (32), R‖S (64)."""

    public_key: bytes
    digest: bytes
    signature: bytes


_lib: Any = open_library(_ffi, LIBRARY)


def available() -> bool:
    """True if the native form was built and loads."""
    return _lib is not None


class BatchVerifier:
    """Checks lists of items with ``workers`` extra threads; 0 checks in the calling thread. The verdicts are the same."""

    def __init__(self, workers: int, *, native: bool = True) -> None:
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="verify") if workers and not (native and available()) else None
        self._pool: Any = None
        if native and available():
            parse, check = (
                int(_ffi.cast("uintptr_t", int(curve_ffi.cast("uintptr_t", curve_ffi.addressof(curve, name)))))
                for name in ("secp256k1_ecdsa_signature_parse_compact", "secp256k1_ecdsa_verify")
            )
            context = _ffi.cast("void *", int(curve_ffi.cast("uintptr_t", GLOBAL_CONTEXT.ctx)))
            self._pool = _lib.verify_open(workers, context, parse, check)
            if self._pool == _ffi.NULL:
                raise MemoryError("no memory for checking signatures")
            self._end = weakref.finalize(self, _lib.verify_close, self._pool)

    def verify(self, items: Sequence[Item]) -> list[bool]:
        """One verdict per item, in order."""
        return self.start(items)()

    def start(self, items: Sequence[Item]) -> Pending:
        """Begin to check; the answer waits for the verdicts and must be called."""
        if not items:
            return list
        if self._pool is not None:
            return self._start_native(items)
        if self._threads is None or len(items) < 2 * MIN_PER_WORKER:
            return lambda: _run(items)
        size = max(-(-len(items) // (self._workers + 1)), MIN_PER_WORKER)
        parts = [items[at : at + size] for at in range(0, len(items), size)]
        others = [self._threads.submit(_run, part) for part in parts[1:]]
        return lambda: _run(parts[0]) + [verdict for other in others for verdict in other.result()]

    def _start_native(self, items: Sequence[Item]) -> Pending:
        packed: list[bytes] = []
        refused = set()
        for at, (key, digest, signature) in enumerate(items):
            point = parsed_point(key)
            if point is None or len(digest) != 32 or len(signature) != 64:
                refused.add(at)
                packed += (_SOME_POINT, bytes(96))
            else:
                packed += (point, digest, signature)
        return _Job(self, b"".join(packed), len(items), refused)


class _Job:
    """A batch that the native threads work on. Its buffers live until it has been waited for, whatever happens."""

    def __init__(self, verifier: BatchVerifier, items: bytes, count: int, refused: set[int]) -> None:
        self._verifier = verifier
        self._refused = refused
        self._verdicts = bytearray(count)
        self._buffers = _ffi.from_buffer("uint8_t[]", items), _ffi.from_buffer("uint8_t[]", self._verdicts)
        self._job = _lib.verify_start(verifier._pool, self._buffers[0], count, self._buffers[1])
        if self._job == _ffi.NULL:
            raise MemoryError("no memory for checking signatures")

    def __call__(self) -> list[bool]:
        self._wait()
        refused = self._refused
        return [bool(verdict) and at not in refused for at, verdict in enumerate(self._verdicts)]

    def _wait(self) -> None:
        job, self._job = self._job, _ffi.NULL
        if job != _ffi.NULL:
            _lib.verify_wait(self._verifier._pool, job)

    def __del__(self) -> None:
        self._wait()


def _run(items: Sequence[Item]) -> list[bool]:
    return [check_digest(*item) for item in items]
