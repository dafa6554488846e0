"""Many secp256k1 signatures at once, on both cores: libsecp256k1 runs without the GIL."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from chain.crypto.keys import check_digest

MIN_PER_WORKER = 16


class Item(NamedTuple):
    """One check: compressed key (33 bytes), digest (32), signature R‖S (64)."""

    public_key: bytes
    digest: bytes
    signature: bytes


class BatchVerifier:
    """Verifies lists of items with ``workers`` extra threads; 0 checks in the calling thread. The result is the same."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="verify") if workers else None

    def verify(self, items: Sequence[Item]) -> list[bool]:
        """One verdict per item, in order."""
        if self._pool is None or len(items) < 2 * MIN_PER_WORKER:
            return _run(items)
        size = max(-(-len(items) // (self._workers + 1)), MIN_PER_WORKER)
        parts = [items[at : at + size] for at in range(0, len(items), size)]
        others = [self._pool.submit(_run, part) for part in parts[1:]]
        verdicts = _run(parts[0])
        for other in others:
            verdicts += other.result()
        return verdicts


def _run(items: Sequence[Item]) -> list[bool]:
    return [check_digest(*item) for item in items]
