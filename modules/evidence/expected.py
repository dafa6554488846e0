"""What evidence needs of staking, slashing and the consensus parameters."""

from __future__ import annotations

from typing import Any, Protocol

from chain.context import Context
from chain.dec import Dec
from chain.store.api import StateReader, StateWriter


class StakingKeeper(Protocol):
    """Who has a consensus key."""

    def validator_by_cons(self, state: StateReader, cons: bytes) -> Any | None: ...


class SlashingKeeper(Protocol):
    """The punishments, and what is known of who gets them."""

    def has_public_key(self, state: StateReader, cons: bytes) -> bool: ...
    def signing_info(self, state: StateReader, cons: bytes) -> Any | None: ...
    def slash_fraction_double_sign(self, state: StateReader) -> Dec: ...
    def slash_with_infraction_reason(
        self, ctx: Context, state: StateWriter, cons: bytes, fraction: Dec, power: int, distribution_height: int, infraction: int
    ) -> None: ...
    def jail(self, ctx: Context, state: StateWriter, cons: bytes) -> None: ...
    def jail_until(self, ctx: Context, state: StateWriter, cons: bytes, time_ns: int) -> None: ...
    def tombstone(self, ctx: Context, state: StateWriter, cons: bytes) -> None: ...


class ConsensusKeeper(Protocol):
    """``tendermint.types.ConsensusParams``."""

    def get(self, state: StateReader) -> Any: ...
