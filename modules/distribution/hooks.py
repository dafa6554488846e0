"""What distribution does when staking tells of a change: it implements staking's hooks."""

from __future__ import annotations

from typing import Final

from chain import dec_coins
from chain.context import Context
from chain.dec import Dec
from chain.store.api import StateWriter, prefix_end
from modules.distribution import keys
from modules.distribution.keeper import DistributionKeeper, SlashEvent, less


class DistributionHooks:
    """Ends periods before stake changes, and starts records after."""

    def __init__(self, keeper: DistributionKeeper) -> None:
        self._keeper: Final = keeper

    def after_validator_created(self, ctx: Context, state: StateWriter, operator: bytes) -> None:
        self._keeper.require_validator(state, operator)
        self._keeper.start_validator(state, operator)

    def before_validator_modified(self, ctx: Context, state: StateWriter, operator: bytes) -> None:
        """Commission is taken when rewards come in, so that a new rate needs nothing."""

    def after_validator_removed(self, ctx: Context, state: StateWriter, cons: bytes, operator: bytes) -> None:
        """Pay the last commission, leave the rest to the community pool, and forget the validator. It has no delegations any more."""
        keeper = self._keeper
        outstanding = keeper.outstanding(state, operator)
        # What rounding paid delegators too much came out of the commission: no end of a block may stop for it.
        commission = dec_coins.intersect(keeper.commission(state, operator), outstanding)
        if commission:
            outstanding = less(outstanding, commission)
            whole, rest = dec_coins.truncate(commission)
            keeper.add_to_pool(state, rest)
            if whole:
                keeper.pay(ctx, state, operator, whole)
        keeper.add_to_pool(state, outstanding)
        store = state.store(keys.STORE)
        store.delete(keys.outstanding(operator))
        store.delete(keys.commission(operator))
        for prefix in (keys.slashes_of(operator), keys.historical_of(operator)):
            for key in [key for key, _ in store.iterate(prefix, prefix_end(prefix))]:
                store.delete(key)
        store.delete(keys.current(operator))

    def after_validator_bonded(self, ctx: Context, state: StateWriter, cons: bytes, operator: bytes) -> None:
        """Rewards follow votes, not status."""

    def after_validator_begin_unbonding(self, ctx: Context, state: StateWriter, cons: bytes, operator: bytes) -> None:
        """As above."""

    def before_delegation_created(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes) -> None:
        self._keeper.end_period(state, self._keeper.require_validator(state, operator))

    def before_delegation_shares_modified(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes) -> None:
        validator = self._keeper.require_validator(state, operator)
        self._keeper.settle(ctx, state, validator, self._keeper.require_delegation(state, delegator, operator))

    def before_delegation_removed(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes) -> None:
        """Its shares changed before, which has paid it."""

    def after_delegation_modified(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes) -> None:
        self._keeper.start_earning(ctx, state, operator, delegator)

    def before_validator_slashed(self, ctx: Context, state: StateWriter, operator: bytes, fraction: Dec) -> None:
        """Remember by how much the stakes of delegations shrink from here on."""
        keeper = self._keeper
        period = keeper.end_period(state, keeper.require_validator(state, operator))
        keeper.refer(state, operator, period)
        keeper.set_slash(state, operator, ctx.height, period, SlashEvent(validator_period=period, fraction=str(fraction.scaled)))

    def after_unbonding_initiated(self, ctx: Context, state: StateWriter, unbonding_id: int) -> None:
        """Coins that unbond earn nothing."""
