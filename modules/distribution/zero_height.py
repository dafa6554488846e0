"""What becomes of rewards when a new chain begins from this one's state, as ``export --for-zero-height`` makes it.

Everything is paid out; what rounding leaves goes to the community pool. Then every validator and delegation starts anew at height 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.store.api import StateWriter, prefix_end
from modules.distribution import keys
from modules.distribution.expected import Staking
from modules.distribution.hooks import DistributionHooks
from modules.distribution.keeper import DistributionKeeper, operator_of

log = structlog.get_logger("distribution")


def start_anew(ctx: Context, state: StateWriter, keeper: DistributionKeeper, staking: Staking) -> None:
    """Pay out at the height of ``ctx`` and reset. What cannot be paid to its owner goes to the community pool."""
    operators = [operator_of(validator) for validator in staking.validators(state)]
    pairs = [(bech32.decode(one.delegator_address), bech32.decode(one.validator_address, bech32.VALIDATOR)) for one in staking.delegations(state)]
    for operator in operators:
        if keeper.commission(state, operator):
            _try(ctx, state, keeper.withdraw_commission, operator)
    for delegator, operator in pairs:
        _try(ctx, state, keeper.withdraw_rewards, delegator, operator)
    store = state.store(keys.STORE)
    for prefix in (keys.SLASHES, keys.HISTORICAL):
        for key, _ in list(store.iterate(prefix, prefix_end(prefix))):
            store.delete(key)
    hooks, start = DistributionHooks(keeper), replace(ctx, height=0)
    for operator in operators:
        keeper.add_to_pool(state, keeper.outstanding(state, operator))
        hooks.after_validator_created(start, state, operator)
    for delegator, operator in pairs:
        hooks.before_delegation_created(start, state, delegator, operator)
        hooks.after_delegation_modified(start, state, delegator, operator)


def _try(ctx: Context, state: StateWriter, withdraw: Callable[..., Any], *addresses: bytes) -> None:
    mark = state.mark()
    try:
        withdraw(ctx, state, *addresses)
    except AppError as error:
        state.rollback(mark)
        log.error("rewards cannot be paid out and go to the community pool", to=bech32.encode(addresses[0]), error=str(error))
