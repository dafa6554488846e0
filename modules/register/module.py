"""The register module, declared."""

from __future__ import annotations

from functools import partial

from chain.module import Module
from modules.register import errors, keys, messages, queries, records, unbonding
from modules.register.genesis import RegisterGenesis
from modules.register.invariants import invariants
from modules.register.keeper import RegisterKeeper


def register_module(keeper: RegisterKeeper) -> Module:
    """Declare register over its ``keeper``."""
    return Module(
        name="register",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper),
        genesis=RegisterGenesis(keeper),
        account_permissions=dict.fromkeys(records.POOLS, ("minter",)),
        end_block=partial(unbonding.end_block, keeper),
        invariants=invariants(keeper),
        errors=errors.ERRORS,
        zero_height=partial(unbonding.forget_heights, keeper),
    )
