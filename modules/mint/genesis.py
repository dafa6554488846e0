"""Mint's section of app_state: ``cosmos.mint.v1beta1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.context import Context
from chain.dec import DecError, from_wire
from chain.errors import AppError
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.mint.keeper import NAME, MintKeeper
from modules.mint.params import check_params, default_params

GenesisState: Final = message_class("cosmos.mint.v1beta1.GenesisState")
PATH: Final = "app_state.mint"


class Accounts(Protocol):
    """Module accounts."""

    def module_account(self, ctx: Context, state: StateWriter, name: str) -> Any: ...


class MintGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: MintKeeper, accounts: Accounts) -> None:
        self._keeper = keeper
        self._accounts = accounts

    def default(self) -> Json:
        return to_json(GenesisState(params=default_params(), minter={"inflation": "0", "annual_provisions": "0"}))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis = _read(section)
        self._keeper.set_minter(state, genesis.minter)
        self._keeper.set_params(state, genesis.params)
        self._accounts.module_account(ctx, state, NAME)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        return to_json(GenesisState(minter=self._keeper.minter(state), params=self._keeper.params(state)))


def _read(section: Json) -> Any:
    """GenesisState. Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
        check_params(genesis.params)
        inflation, provisions = from_wire(genesis.minter.inflation), from_wire(genesis.minter.annual_provisions)
    except (AppError, DecError) as error:
        raise GenesisError(PATH, error.detail if isinstance(error, AppError) else str(error)) from None
    if inflation.scaled < 0 or provisions.scaled < 0:
        raise GenesisError(f"{PATH}.minter", f"inflation and annual provisions must not be negative, got {inflation} and {provisions}")
    return genesis
