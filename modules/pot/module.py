"""The pot module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.pot import keys
from modules.pot.keeper import PotKeeper


def pot_module(keeper: PotKeeper) -> Module:
    """Declare pot over its ``keeper``."""
    return Module(name="pot", stores=(keys.STORE,))
