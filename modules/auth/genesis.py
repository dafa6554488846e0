"""The section ``auth`` of app_state: parameters and accounts. Numbers are kept when they are distinct, else given anew in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class, pack_any, unpack_any
from chain.context import Context
from chain.errors import AppError
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.auth import vesting
from modules.auth.keeper import Account, AuthKeeper
from modules.auth.params import DEFAULT_PARAMS, check_params

GenesisState: Final = message_class("cosmos.auth.v1beta1.GenesisState")
PATH: Final = "app_state.auth"
MAX_ACCOUNT_NUMBER: Final = (1 << 63) - 1


class AuthGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: AuthKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return to_json(GenesisState(params=DEFAULT_PARAMS))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis, accounts = _read(section)
        keeper = self._keeper
        keeper.set_params(state, genesis.params)
        numbers = {account.account_number for account in accounts}
        if len(numbers) == len(accounts):
            accounts.sort(key=lambda account: account.account_number)
            if accounts:
                keeper.set_next_number(state, accounts[-1].account_number + 1)
        else:
            for account in accounts:
                account.base.account_number = keeper.next_number(state)
        for account in accounts:
            keeper.set_account(ctx, state, account)
        for name in sorted(keeper.permissions):
            keeper.module_account(ctx, state, name)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        keeper = self._keeper
        accounts = sorted(keeper.iterate(state), key=lambda account: account.account_number)
        return to_json(GenesisState(params=keeper.params(ctx, state), accounts=[pack_any(account.message) for account in accounts]))


def _read(section: Json) -> tuple[Any, list[Account]]:
    """(GenesisState, accounts). Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
        check_params(genesis.params)
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    accounts: list[Account] = []
    seen: set[bytes] = set()
    for at, wrapped in enumerate(genesis.accounts):
        try:
            account = Account(unpack_any(wrapped))
        except AppError as error:
            raise GenesisError(f"{PATH}.accounts[{at}]", error.detail) from None
        if account.account_number > MAX_ACCOUNT_NUMBER:
            raise GenesisError(f"{PATH}.accounts[{at}].account_number", f"expected at most {MAX_ACCOUNT_NUMBER}, got {account.account_number}")
        problem = vesting.problem_of(account.message) if vesting.is_vesting(account.message) else None
        if problem is not None:
            raise GenesisError(f"{PATH}.accounts[{at}].{problem[0]}", problem[1])
        if account.address in seen:
            raise GenesisError(f"{PATH}.accounts[{at}]", f"duplicate account {account.base.address}")
        seen.add(account.address)
        accounts.append(account)
    return genesis, accounts
