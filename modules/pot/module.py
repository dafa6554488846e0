"""The pot module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.pot import errors, invariants, keys, messages, queries
from modules.pot.genesis import PotGenesis
from modules.pot.keeper import PotKeeper


def pot_module(keeper: PotKeeper) -> Module:
    """Declare pot over its ``keeper``."""
    return Module(
        name="pot",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper),
        genesis=PotGenesis(keeper),
        end_block=keeper.end_block,
        invariants=invariants.checks(keeper, keeper.bank),
        errors=errors.ERRORS,
        consensus_version=2,
    )
