"""The staking module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.staking import errors, keys, messages, queries
from modules.staking.expected import Bank, Consensus
from modules.staking.genesis import StakingGenesis
from modules.staking.invariants import invariants
from modules.staking.keeper import StakingKeeper
from modules.staking.records import BONDED_POOL, NOT_BONDED_POOL


def staking_module(keeper: StakingKeeper, bank: Bank, consensus: Consensus) -> Module:
    """Declare staking over its ``keeper``, the bank that holds its pools, and what CometBFT accepts of validators."""
    return Module(
        name="staking",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper, consensus),
        queries=queries.handlers(keeper),
        genesis=StakingGenesis(keeper, bank, consensus),
        account_permissions={BONDED_POOL: ("burner", "staking"), NOT_BONDED_POOL: ("burner", "staking")},
        begin_block=keeper.begin_block,
        end_block=keeper.end_block,
        validator_updates=lambda _, state: keeper.validator_updates(state),
        invariants=invariants(keeper),
        errors=errors.ERRORS,
        consensus_version=5,
        zero_height=keeper.forget_heights,
    )
