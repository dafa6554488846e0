"""The gov module, declared."""

from __future__ import annotations

from functools import partial

from chain.module import Module
from modules.gov import errors, invariants, keys, messages, queries
from modules.gov.end_block import end_block
from modules.gov.genesis import GovGenesis
from modules.gov.keeper import GovKeeper


def gov_module(keeper: GovKeeper) -> Module:
    """Declare governance over its ``keeper``."""
    return Module(
        name="gov",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper),
        genesis=GovGenesis(keeper),
        account_permissions={"gov": ("burner",)},
        end_block=partial(end_block, keeper),
        invariants={
            "module-account": partial(invariants.account_holds_the_deposits, keeper),
            "open-proposals": partial(invariants.open_proposals_are_queued, keeper),
        },
        errors=errors.ERRORS,
        consensus_version=5,
    )
