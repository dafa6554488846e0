"""The sds module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.sds import keys
from modules.sds.keeper import SdsKeeper


def sds_module(keeper: SdsKeeper) -> Module:
    """Declare sds over its ``keeper``."""
    return Module(name="sds", stores=(keys.STORE,))
