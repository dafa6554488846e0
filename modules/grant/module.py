"""The grant module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.grant import errors, invariants, keys, messages, queries
from modules.grant.genesis import GrantGenesis
from modules.grant.keeper import GrantKeeper


def grant_module(keeper: GrantKeeper) -> Module:
    """Declare grant over its ``keeper``."""
    return Module(
        name="grant",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper),
        genesis=GrantGenesis(keeper, keeper.bank),
        invariants=invariants.checks(keeper, keeper.bank),
        errors=errors.ERRORS,
    )
