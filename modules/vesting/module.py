"""The vesting module, declared: it has messages alone; vesting accounts themselves are auth's."""

from __future__ import annotations

from chain.module import Module
from modules.vesting import messages


def vesting_module(accounts: messages.Accounts, bank: messages.Bank) -> Module:
    """Declare vesting over what it needs of accounts and of the bank."""
    return Module(name="vesting", messages=messages.handlers(accounts, bank))
