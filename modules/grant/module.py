"""The grant module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.grant import keys
from modules.grant.keeper import GrantKeeper


def grant_module(keeper: GrantKeeper) -> Module:
    """Declare grant over its ``keeper``."""
    return Module(name="grant", stores=(keys.STORE,))
