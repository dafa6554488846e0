"""The register module, declared."""

from __future__ import annotations

from chain.module import Module
from modules.register import keys
from modules.register.keeper import RegisterKeeper


def register_module(keeper: RegisterKeeper) -> Module:
    """Declare register over its ``keeper``."""
    return Module(name="register", stores=(keys.STORE,))
