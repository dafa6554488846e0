"""The feegrant module, declared."""

from __future__ import annotations

from chain.module import Module
from chain.store.api import StateReader
from modules.feegrant import allowances, errors, keys, messages, queries
from modules.feegrant.genesis import FeegrantGenesis
from modules.feegrant.keeper import FeegrantKeeper


def feegrant_module(keeper: FeegrantKeeper) -> Module:
    """Declare feegrant over its ``keeper``."""

    def allowances_make_sense(state: StateReader) -> str | None:
        for grant in keeper.iterate(state):
            try:
                allowances.check(allowances.unpack(grant.allowance))
            except Exception as error:
                return f"the allowance of {grant.granter} to {grant.grantee}: {error}"
        return None

    return Module(
        name="feegrant",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper),
        genesis=FeegrantGenesis(keeper),
        end_block=keeper.prune,
        invariants={"every allowance makes sense": allowances_make_sense},
        errors=errors.ERRORS,
        consensus_version=2,
    )
