"""The bank's section of app_state: ``cosmos.bank.v1beta1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain import coins
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.coins import Coins
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.bank import keys
from modules.bank.keeper import BankMint

GenesisState: Final = message_class("cosmos.bank.v1beta1.GenesisState")
PATH: Final = "app_state.bank"


class BankGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: BankMint) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return to_json(GenesisState(params={"default_send_enabled": True}))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis, balances, total = _read(section)
        keeper = self._keeper
        params = genesis.params
        entries = [*genesis.params.send_enabled, *genesis.send_enabled]
        del params.send_enabled[:]
        keeper.set_params(state, params)
        for entry in entries:
            keeper.set_send_enabled(state, entry.denom, entry.enabled)
        for address, amount in balances:
            for denom, each in amount:
                keeper.set_balance(state, address, denom, each)
        for denom, each in total:
            keeper.set_supply(state, denom, each)
        for metadata in genesis.denom_metadata:
            keeper.set_metadata(state, metadata)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        keeper = self._keeper
        genesis = GenesisState(params=keeper.params(state), supply=coins.to_messages(keeper.total_supply(state)))
        last = b""
        for address, coin in keeper.iterate_balances(state):
            if address != last:
                entry = genesis.balances.add(address=bech32.encode(address))
                last = address
            entry.coins.extend(coins.to_messages([coin]))
        store = state.store(keys.STORE)
        for _, raw in store.iterate(keys.METADATA, keys.BALANCES):
            genesis.denom_metadata.add().ParseFromString(raw)
        for key, raw in store.iterate(keys.SEND_ENABLED, keys.PARAMS):
            genesis.send_enabled.add(denom=key[1:].decode(), enabled=bool(raw))
        return to_json(genesis)


def _read(section: Json) -> tuple[Any, list[tuple[bytes, Coins]], Coins]:
    """(GenesisState, balances, total). Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    balances: list[tuple[bytes, Coins]] = []
    seen: set[bytes] = set()
    for at, entry in enumerate(genesis.balances):
        path = f"{PATH}.balances[{at}]"
        try:
            address = bech32.decode(entry.address)
            amount = coins.from_messages(sorted(entry.coins, key=lambda coin: coin.denom))
        except AppError as error:
            raise GenesisError(path, error.detail) from None
        if address in seen:
            raise GenesisError(path, f"duplicate balance for address {entry.address}")
        seen.add(address)
        balances.append((address, amount))
    total = coins.normalise(coin for _, amount in balances for coin in amount)
    if genesis.supply:
        try:
            supply = coins.from_messages(genesis.supply)
        except AppError as error:
            raise GenesisError(f"{PATH}.supply", error.detail) from None
        if supply != total:
            raise GenesisError(
                f"{PATH}.supply", f"genesis supply is incorrect, expected {coins.to_text(total)} (the sum of balances), got {coins.to_text(supply)}"
            )
    return genesis, balances, total
