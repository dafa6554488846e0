"""What slashing does when staking changes a validator."""

from __future__ import annotations

from typing import Any

from chain.context import Context
from chain.store.api import StateWriter
from modules.slashing.expected import StakingKeeper
from modules.slashing.keeper import SlashingKeeper


class SlashingHooks:
    """Staking's hooks: keys are remembered while a validator exists, signatures are counted from its bonding on."""

    def __init__(self, keeper: SlashingKeeper, staking: StakingKeeper) -> None:
        self._keeper, self._staking = keeper, staking

    def after_validator_created(self, ctx: Context, state: StateWriter, operator: bytes) -> None:
        validator = self._staking.validator(state, operator)
        assert validator is not None, "staking calls this for a validator it has just written"
        self._keeper.add_public_key(state, validator.consensus_pubkey)

    def after_validator_removed(self, ctx: Context, state: StateWriter, cons: bytes, operator: bytes) -> None:
        self._keeper.remove_public_key(state, cons)

    def after_validator_bonded(self, ctx: Context, state: StateWriter, cons: bytes, operator: bytes) -> None:
        self._keeper.start_watching(ctx, state, cons)

    def _nothing(self, ctx: Context, state: StateWriter, *_: Any) -> None:
        """Of no concern here."""

    before_validator_modified = after_validator_begin_unbonding = before_validator_slashed = after_unbonding_initiated = _nothing
    before_delegation_created = before_delegation_shares_modified = before_delegation_removed = after_delegation_modified = _nothing
