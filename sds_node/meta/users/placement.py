"""Which nodes get the shares of a segment: drawn by weight, one for each owner and network prefix, the same for whoever draws again.

    seed = SHA-256(block hash ‖ lease id ‖ object's counter, 8 bytes)         block: the first of the value chain that was observed after the lease
    segment's seed = SHA-256(seed ‖ segment, 4 bytes ‖ choice, 4 bytes)
    draw i: SHA-256(segment's seed ‖ i, 4 bytes) mod Σ weights ─► the candidate in whose part of the line it falls; one that may not is drawn again

Drawing again what may not be taken gives the same chances as drawing among the rest. Integers alone. Neither the uploader nor the meta node knows the block
when the lease is made, so neither chooses the nodes. Source: storage-protocol.md 3.3.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate
from typing import Final

from sds_node.meta.users.known import Candidate

MISSES: Final = 32
"""After so many draws in a row that may not be taken, those are sorted out first."""
ATTEMPTS: Final = 16
"""Owners and prefixes may block each other, so that a draw ends early: it is begun again so often."""


def seed_of(block_hash: bytes, lease_id: bytes, counter: int) -> bytes:
    """The seed (32 bytes) of an object's placement."""
    return sha256(block_hash + lease_id + counter.to_bytes(8, "big")).digest()


def segment_seed(seed: bytes, segment: int, choice: int) -> bytes:
    """The seed of the ``choice``-th choice of nodes for a segment."""
    return sha256(seed + segment.to_bytes(4, "big") + choice.to_bytes(4, "big")).digest()


@dataclass(slots=True)
class Barred:
    """Who may not be chosen: owners, prefixes and numbers of nodes. An empty prefix is known of nobody and bars nobody."""

    owners: set[bytes] = field(default_factory=set)
    prefixes: set[bytes] = field(default_factory=set)
    numbers: set[int] = field(default_factory=set)

    def copy(self) -> Barred:
        return Barred(set(self.owners), set(self.prefixes), set(self.numbers))

    def add(self, owner: bytes, prefix: bytes, number: int) -> None:
        """A node has a share: its owner and prefix get no other."""
        self.owners.add(owner)
        self.numbers.add(number)
        if prefix:
            self.prefixes.add(prefix)

    def allows(self, one: Candidate) -> bool:
        return one.number not in self.numbers and one.owner not in self.owners and one.prefix not in self.prefixes


class Pool:
    """The candidates of one moment. ``room`` says how many bytes a node still has for new shares."""

    def __init__(self, candidates: Collection[Candidate], room: Callable[[Candidate], int]) -> None:
        self._all = sorted((one for one in candidates if one.weight > 0), key=lambda one: one.number)
        self._line = list(accumulate(one.weight for one in self._all))
        self._room = room

    def choose(self, count: int, size_bytes: int, seed: bytes, barred: Barred) -> list[Candidate] | None:
        """``count`` nodes with room for ``size_bytes`` each, in the order in which they were drawn; None when there are not so many."""
        for attempt in range(ATTEMPTS):
            chosen = self._draw(count, size_bytes, seed if attempt == 0 else sha256(seed + bytes([attempt])).digest(), barred.copy())
            if len(chosen) == count:
                return chosen
        return None

    def _draw(self, count: int, size_bytes: int, seed: bytes, barred: Barred) -> list[Candidate]:
        chosen: list[Candidate] = []
        pool: Sequence[Candidate] = self._all
        line: Sequence[int] = self._line
        misses = number = 0
        while len(chosen) < count and line:
            one = pool[bisect_right(line, int.from_bytes(sha256(seed + number.to_bytes(4, "big")).digest(), "big") % line[-1])]
            number += 1
            if barred.allows(one) and self._room(one) >= size_bytes:
                chosen.append(one)
                barred.add(one.owner, one.prefix, one.number)
                misses = 0
                continue
            misses += 1
            if misses == MISSES:
                pool = [other for other in pool if barred.allows(other) and self._room(other) >= size_bytes]
                line = list(accumulate(other.weight for other in pool))
                misses = 0
        return chosen


class Promises:
    """Bytes of shares that were placed and may be on their way: a node's free space is not given to two. Kept for ``life_s``, or until they are released."""

    def __init__(self, clock: Callable[[], float], life_s: float) -> None:
        self._clock, self._life_s = clock, life_s
        self._kept: OrderedDict[Hashable, tuple[float, int, int]] = OrderedDict()
        self._bytes: dict[int, int] = {}

    def add(self, key: Hashable, node: int, size_bytes: int) -> None:
        """So many bytes of a node are promised; in place of what was promised under the same key."""
        self.release(key)
        self._kept[key] = self._clock() + self._life_s, node, size_bytes
        self._bytes[node] = self._bytes.get(node, 0) + size_bytes

    def release(self, key: Hashable) -> None:
        """They are stored, or will not be."""
        found = self._kept.pop(key, None)
        if found is not None:
            _, node, size_bytes = found
            self._bytes[node] -= size_bytes
            if not self._bytes[node]:
                del self._bytes[node]

    def expire(self) -> None:
        """Forget those that are over; they end in the order in which they were made."""
        now_s = self._clock()
        while self._kept:
            key = next(iter(self._kept))
            if self._kept[key][0] > now_s:
                return
            self.release(key)

    def of(self, node: int) -> int:
        """How many bytes of a node are promised."""
        return self._bytes.get(node, 0)
