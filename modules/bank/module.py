"""The bank module, declared."""

from __future__ import annotations

from chain.crypto import address as bech32
from chain.module import Module
from chain.store.api import StateReader
from modules.bank import errors, keys, messages, queries
from modules.bank.genesis import BankGenesis
from modules.bank.keeper import Accounts, BankMint


def bank_module(keeper: BankMint, accounts: Accounts) -> Module:
    """Declare the bank over its ``keeper`` and what it knows of ``accounts``."""

    def no_balance_below_one(state: StateReader) -> str | None:
        for address, (denom, amount) in keeper.iterate_balances(state):
            if amount <= 0:
                return f"{bech32.encode(address)} has a balance of {amount}{denom}"
        return None

    def supply_is_the_sum_of_balances(state: StateReader) -> str | None:
        sums: dict[str, int] = {}
        for _, (denom, amount) in keeper.iterate_balances(state):
            sums[denom] = sums.get(denom, 0) + amount
        supply = dict(keeper.total_supply(state))
        return None if supply == sums else f"supply is {supply}, balances sum up to {sums}"

    return Module(
        name="bank",
        stores=(keys.STORE,),
        messages=messages.handlers(keeper),
        queries=queries.handlers(keeper, accounts.locked_coins),
        genesis=BankGenesis(keeper),
        invariants={"nonnegative-outstanding": no_balance_below_one, "total-supply": supply_is_the_sum_of_balances},
        errors=errors.ERRORS,
        consensus_version=4,
    )
