"""The authz module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.authz import errors, invariants, keys, messages, queries
from modules.authz.genesis import AuthzGenesis
from modules.authz.keeper import AuthzKeeper


def authz_module(keeper: AuthzKeeper) -> Module:
    """Declare authz over its ``keeper``."""
    return Module(
        name="authz",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper),
        genesis=AuthzGenesis(keeper),
        begin_block=keeper.prune,
        invariants={"the queue holds every grant that ends, once": invariants.queue_holds_what_ends(keeper)},
        errors=errors.ERRORS,
        consensus_version=2,
    )
