"""Where shares that are made again go: drawn by weight as for an upload, of other owners and prefixes than all that hold a share of the segment.

    seed = SHA-256(``stratos/repair-seed/v1`` ‖ 0x00 ‖ newest observed block hash ‖ segment, 8 bytes ‖ share, 1 byte ‖ try, 2 bytes) ─► placement.Pool

Source: storage-protocol.md 3.3; rules/moves.py (owners).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from hashlib import sha256
from typing import Final

from sds_node.meta.nodes.registry import Registry
from sds_node.meta.repair.health import Health, Judged, Standing
from sds_node.meta.users.known import Candidate
from sds_node.meta.users.placement import Barred, Pool, Promises

_SEED: Final = b"stratos/repair-seed/v1\0"


class Placing:
    """Chooses nodes. Bytes of a choice are promised for ``life_s``, or until ``release``."""

    def __init__(self, registry: Registry, health: Health, clock: Callable[[], float], life_s: float) -> None:
        self._registry, self._health = registry, health
        self.promises = Promises(clock, life_s)

    def choose(self, judged: Judged, index: int, block_hash: bytes, taken: Collection[Candidate], tried: Collection[int]) -> Candidate | None:
        """A node for a share of a segment; None when there is none. ``taken`` are those that get its other shares, ``tried`` failed."""
        self.promises.expire()
        pool = Pool([one for one in self._registry.candidates() if self._health.standing(one.number) is Standing.HEALTHY], self._room)
        seed = sha256(_SEED + block_hash + judged.segment.number.to_bytes(8, "big") + bytes([index]) + len(tried).to_bytes(2, "big")).digest()
        found = pool.choose(1, judged.share_bytes, seed, self._barred(judged, index, taken, tried))
        if found is None:
            return None
        self.promises.add((judged.segment.number, index), found[0].number, judged.share_bytes)
        return found[0]

    def release(self, judged: Judged, index: int) -> None:
        """A share was stored, or will not be."""
        self.promises.release((judged.segment.number, index))

    def _room(self, one: Candidate) -> int:
        return one.free_bytes - self.promises.of(one.number)

    def _barred(self, judged: Judged, index: int, taken: Collection[Candidate], tried: Collection[int]) -> Barred:
        """Owners of all other holders, as the ledger has it, prefixes of those whose shares stay; no node twice."""
        barred = Barred(numbers={*tried, *(node for node in judged.holders if node)})
        rows = self._registry.rows()
        for at, node in enumerate(judged.holders):
            row = rows.get(node)
            if row is None or at == index:
                continue
            barred.owners.add(row.owner)
            if at in judged.healthy:
                seen = self._registry.seen_of(node)
                barred.prefixes.add(seen.prefix if seen is not None else row.prefix)
        for one in taken:
            barred.add(one.owner, one.prefix, one.number)
        barred.prefixes.discard(b"")
        return barred
