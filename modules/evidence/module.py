"""The evidence module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.evidence import errors, keys, messages, queries
from modules.evidence.genesis import EvidenceGenesis
from modules.evidence.keeper import EvidenceKeeper


def evidence_module(keeper: EvidenceKeeper) -> Module:
    """Declare evidence over its ``keeper``."""
    return Module(
        name="evidence",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper),
        genesis=EvidenceGenesis(keeper),
        begin_block=keeper.take_misbehavior,
        errors=errors.ERRORS,
    )
