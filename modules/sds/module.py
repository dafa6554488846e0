"""The sds module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.sds import errors, invariants, keys, messages, queries
from modules.sds.genesis import SdsGenesis
from modules.sds.keeper import SdsKeeper


def sds_module(keeper: SdsKeeper) -> Module:
    """Declare sds over its ``keeper``."""
    return Module(
        name="sds",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper),
        genesis=SdsGenesis(keeper),
        invariants=invariants.checks(keeper),
        errors=errors.ERRORS,
    )
