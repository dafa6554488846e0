"""Gas: what a transaction may use up and what it has used.

Costs are the Cosmos SDK's (store/types/gas.go): charged by logical access, never by what a cache happens to hold.
"""

from __future__ import annotations

from typing import Final

from chain.errors import OutOfGas

HAS_COST: Final = 1000
DELETE_COST: Final = 1000
READ_COST_FLAT: Final = 1000
READ_COST_PER_BYTE: Final = 3
WRITE_COST_FLAT: Final = 2000
WRITE_COST_PER_BYTE: Final = 30
ITER_NEXT_COST_FLAT: Final = 30

CIRCUIT_LOOKUP_COST: Final = HAS_COST
"""The reference chain looks each message up in its circuit breaker, once in the ante chain and once before it runs. This chain has no
breaker; it charges the same, so that gas estimates made for the reference hold here to the unit."""

UNLIMITED: Final = 1 << 256


class GasMeter:
    """Counts gas up to ``limit``; ``consumed`` may end above it, as in the SDK, by the charge that broke it."""

    __slots__ = ("consumed", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.consumed = 0

    def consume(self, amount: int, descriptor: str) -> None:
        """Add ``amount`` gas. Raises OutOfGas (sdk/11) naming ``descriptor`` when the limit is passed."""
        consumed = self.consumed + amount
        self.consumed = consumed
        if consumed > self.limit:
            raise OutOfGas(f"out of gas in location: {descriptor}; gasWanted: {self.limit}, gasUsed: {consumed}")

    @property
    def remaining(self) -> int:
        return max(self.limit - self.consumed, 0)


class InfiniteGasMeter(GasMeter):
    """Counts without a limit that anything could reach: genesis, block hooks, simulation."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(UNLIMITED)
