"""The distribution module, declared."""

from __future__ import annotations

from chain.context import Context
from chain.module import Module
from chain.store.api import StateWriter
from modules.distribution import errors, keys, messages, queries
from modules.distribution.expected import Accounts, Bank, Staking
from modules.distribution.genesis import DistributionGenesis
from modules.distribution.invariants import invariants
from modules.distribution.keeper import NAME, DistributionKeeper
from modules.distribution.zero_height import start_anew


def distribution_module(keeper: DistributionKeeper, accounts: Accounts, bank: Bank, staking: Staking) -> Module:
    """Declare distribution over its ``keeper`` and what it knows of other modules."""

    def begin_block(ctx: Context, state: StateWriter) -> None:
        """Share out the fees of the block before, and remember who proposes this one."""
        if ctx.height > 1:
            keeper.allocate(ctx, state)
        keeper.set_previous_proposer(state, ctx.proposer_address)

    return Module(
        name=NAME,
        stores=(keys.STORE,),
        messages=messages.handlers(keeper, bank),
        queries=queries.handlers(keeper, staking),
        genesis=DistributionGenesis(keeper, accounts),
        begin_block=begin_block,
        invariants=invariants(keeper, staking),
        errors=errors.ERRORS,
        consensus_version=3,
        zero_height=lambda ctx, state: start_anew(ctx, state, keeper, staking),
    )
