"""The slashing module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.slashing import errors, invariants, keys, messages, queries
from modules.slashing.expected import StakingKeeper
from modules.slashing.genesis import SlashingGenesis
from modules.slashing.keeper import SlashingKeeper


def slashing_module(keeper: SlashingKeeper, staking: StakingKeeper) -> Module:
    """Declare slashing over its ``keeper`` and what it knows of ``staking``."""
    return Module(
        name="slashing",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper),
        genesis=SlashingGenesis(keeper, staking),
        begin_block=keeper.watch_signatures,
        invariants=invariants.checks(keeper, staking),
        errors=errors.ERRORS,
        consensus_version=4,
        zero_height=keeper.forget_heights,
    )
