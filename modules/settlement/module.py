"""The settlement module, declared."""

from __future__ import annotations

from functools import partial

from chain.module import Module
from modules.settlement import challenges, errors, invariants, keys, messages, queries
from modules.settlement.genesis import SettlementGenesis
from modules.settlement.keeper import SettlementKeeper


def settlement_module(keeper: SettlementKeeper) -> Module:
    """Declare settlement over its ``keeper``."""
    return Module(
        name="settlement",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper),
        genesis=SettlementGenesis(keeper),
        end_block=partial(challenges.end_block, keeper),
        invariants={
            "the account holds the bonds": invariants.account_holds_the_bonds(keeper),
            "open challenges are indexed": invariants.challenges_are_indexed(keeper),
            "epochs are whole": invariants.epochs_are_whole(keeper),
            "keys have one holder": invariants.keys_have_one_holder(keeper),
        },
        errors=errors.ERRORS,
    )
