"""The bank module, declared."""

from __future__ import annotations

from chain.module import Module
from chain.store.api import StateReader
from modules.bank import errors, keys, messages, queries
from modules.bank.genesis import BankGenesis
from modules.bank.keeper import Accounts, BankMint


def bank_module(keeper: BankMint, accounts: Accounts) -> Module:
    """Declare the bank over its ``keeper`` and what it knows of ``accounts``."""

    def supply_is_the_sum_of_balances(state: StateReader) -> str | None:
        sums: dict[str, int] = {}
        for _, (denom, amount) in keeper.iterate_balances(state):
            if amount <= 0:
                return f"a balance of {amount}{denom} is stored"
            sums[denom] = sums.get(denom, 0) + amount
        supply = dict(keeper.total_supply(state))
        return None if supply == sums else f"supply is {supply}, balances sum up to {sums}"

    return Module(
        name="bank",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper, accounts.locked_coins),
        genesis=BankGenesis(keeper),
        invariants={"supply is the sum of balances": supply_is_the_sum_of_balances},
        errors=errors.ERRORS,
        consensus_version=4,
    )
