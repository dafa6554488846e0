"""The application's own pool: transactions that passed CheckTx, picked by priority with each sender's sequences in order.

CometBFT 0.38 keeps its own first-in mempool and knows no priority; it fills this pool through CheckTx and it empties with each block.

What CometBFT asks about it need not hold: its own mempool was full, or somebody called /check_tx, which promises that nothing comes of it. So a transaction is
proposed from here only while CometBFT is known to hold it: it gave it for this proposal, or it has rechecked it since the last block. What it has not rechecked
by the block after leaves the pool, and comes back with a recheck.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, NamedTuple

DEFAULT_MAX_TXS: Final = 100_000
MAX_BYTES: Final = 256 << 20


class Pooled(NamedTuple):
    """A transaction waiting for a block."""

    raw: bytes
    hash: bytes
    sender: bytes
    sequence: int
    priority: int
    gas_limit: int


class Pool:
    """At most ``max_txs`` transactions of ``max_bytes`` in all; 0 keeps none, so that proposals take CometBFT's order."""

    def __init__(self, max_txs: int = DEFAULT_MAX_TXS, max_bytes: int = MAX_BYTES) -> None:
        self._max_txs, self._max_bytes, self._bytes = max_txs, max_bytes, 0
        self._by_hash: dict[bytes, Pooled] = {}
        self._by_sender: dict[bytes, dict[int, Pooled]] = {}
        self._held: set[bytes] = set()
        self._fresh: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._by_hash)

    def __contains__(self, tx_hash: bytes) -> bool:
        return tx_hash in self._by_hash

    def is_full(self, more_bytes: int = 0) -> bool:
        """True if a transaction of ``more_bytes`` finds no place."""
        return len(self._by_hash) >= self._max_txs or self._bytes + more_bytes > self._max_bytes

    def add(self, tx: Pooled) -> None:
        """Keep ``tx``; it takes the place of one with the same sender and sequence."""
        if self._max_txs == 0:
            return
        self.used_up(tx.sender, tx.sequence)
        self._by_hash[tx.hash] = tx
        self._fresh.add(tx.hash)
        self._bytes += len(tx.raw)
        self._by_sender.setdefault(tx.sender, {})[tx.sequence] = tx

    def remove(self, tx_hash: bytes) -> bool:
        """Forget a transaction; False for an unknown one."""
        tx = self._by_hash.pop(tx_hash, None)
        if tx is None:
            return False
        self._held.discard(tx_hash)
        self._fresh.discard(tx_hash)
        self._bytes -= len(tx.raw)
        mine = self._by_sender[tx.sender]
        del mine[tx.sequence]
        if not mine:
            del self._by_sender[tx.sender]
        return True

    def rechecked(self, tx_hash: bytes) -> None:
        """CometBFT holds a transaction of the pool."""
        if tx_hash in self._by_hash:
            self._held.add(tx_hash)

    def is_held(self, tx_hash: bytes) -> bool:
        """Whether CometBFT has rechecked it since the last block."""
        return tx_hash in self._held

    def next_block(self) -> None:
        """A block is committed: what CometBFT holds it rechecks now. What was here before the last block, and was not rechecked after it, goes."""
        for tx_hash in self._by_hash.keys() - self._held - self._fresh:
            self.remove(tx_hash)
        self._held, self._fresh = set(), set()

    def used_up(self, sender: bytes, sequence: int) -> None:
        """Forget the transaction whose place in ``sender``'s order has gone to another."""
        mine = self._by_sender.get(sender)
        tx = None if mine is None else mine.get(sequence)
        if tx is not None:
            self.remove(tx.hash)

    def by_priority(self) -> Iterator[Pooled]:
        """The best next transaction of any sender, again and again; a sender's own stay in sequence."""
        queues = {sender: sorted(mine.values(), key=lambda tx: tx.sequence, reverse=True) for sender, mine in self._by_sender.items()}
        heap = [(-queue[-1].priority, queue[-1].hash, sender) for sender, queue in queues.items()]
        heapq.heapify(heap)
        while heap:
            _, _, sender = heapq.heappop(heap)
            queue = queues[sender]
            yield queue.pop()
            if queue:
                heapq.heappush(heap, (-queue[-1].priority, queue[-1].hash, sender))
