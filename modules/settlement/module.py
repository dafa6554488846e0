"""The settlement module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.settlement import keys
from modules.settlement.keeper import SettlementKeeper


def settlement_module(keeper: SettlementKeeper) -> Module:
    """Declare settlement over its ``keeper``."""
    return Module(name="settlement", stores=(keys.STORE,))
