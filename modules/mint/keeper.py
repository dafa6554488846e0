"""Inflation: how fast it moves with the bonded ratio, and the coins of each block.

inflation'  = inflation + (1 - bonded ratio / goal) · rate change / blocks per year, kept within min and max
provisions  = inflation' · supply of the staking denom, a year
a block     = provisions / blocks per year, in whole units
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.coins import Coin, Coins
from chain.context import Context
from chain.dec import MAX_BITS, ONE, Dec, from_wire
from chain.store.api import StateReader, StateWriter
from modules.mint import keys
from modules.mint.params import Params

NAME: Final = "mint"
FEE_COLLECTOR: Final = "fee_collector"
MAX_SUPPLY: Final = (1 << 255) - 1
"""Minting stops here: above, sums of this denom would leave the 256 bits of an Int, and a block must not stop for it."""

Minter: Final = message_class("cosmos.mint.v1beta1.Minter")


class Bank(Protocol):
    """Makes coins and hands them on."""

    def supply(self, state: StateReader, denom: str) -> int: ...
    def mint(self, ctx: Context, state: StateWriter, module: str, amount: Coins) -> None: ...
    def send_between_modules(self, ctx: Context, state: StateWriter, sender: str, recipient: str, amount: Coins) -> None: ...


class Staking(Protocol):
    """How much of the supply is bonded."""

    def staking_supply(self, state: StateReader) -> int: ...
    def bonded_ratio(self, state: StateReader) -> Dec: ...


class MintKeeper:
    """Keeps the minter, and mints."""

    def __init__(self, bank: Bank, staking: Staking) -> None:
        self._bank = bank
        self._staking = staking

    def params(self, state: StateReader) -> Any:
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def set_params(self, state: StateWriter, params: Any) -> None:
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    def minter(self, state: StateReader) -> Any:
        """The inflation and the annual provisions of the last block."""
        return Minter.FromString(state.store(keys.STORE).get(keys.MINTER) or b"")

    def set_minter(self, state: StateWriter, minter: Any) -> None:
        state.store(keys.STORE).set(keys.MINTER, encode(minter))

    def mint_block(self, ctx: Context, state: StateWriter) -> None:
        """Mint this block's coins for the fee collector, from where distribution shares them out."""
        params = self.params(state)
        supply, bonded = self._staking.staking_supply(state), self._staking.bonded_ratio(state)
        inflation = next_inflation(from_wire(self.minter(state).inflation), bonded, params)
        provisions = annual_provisions(inflation, supply)
        self.set_minter(state, Minter(inflation=str(inflation.scaled), annual_provisions=str(provisions.scaled)))
        amount = block_provision(provisions, params.blocks_per_year)
        amount = max(min(amount, MAX_SUPPLY - self._bank.supply(state, params.mint_denom)), 0)
        minted: Coins = (Coin(params.mint_denom, amount),) if amount else ()
        if minted:
            self._bank.mint(ctx, state, NAME, minted)
        self._bank.send_between_modules(ctx, state, NAME, FEE_COLLECTOR, minted)
        ctx.events.emit(
            "mint",
            ("bonded_ratio", str(bonded)),
            ("inflation", str(inflation)),
            ("annual_provisions", str(provisions)),
            ("amount", str(amount)),
        )


def next_inflation(inflation: Dec, bonded_ratio: Dec, params: Any) -> Dec:
    """The inflation one block later."""
    distance = Dec(ONE - bonded_ratio.quo(from_wire(params.goal_bonded)).scaled)
    a_year = distance.mul(from_wire(params.inflation_rate_change))
    moved = Dec(inflation.scaled + a_year.quo(Dec(params.blocks_per_year * ONE)).scaled)
    return max(min(moved, from_wire(params.inflation_max)), from_wire(params.inflation_min))


def annual_provisions(inflation: Dec, supply: int) -> Dec:
    """Coins of a year at this inflation; at most what a Dec can hold."""
    return Dec(min(inflation.scaled * supply, (1 << MAX_BITS) - 1))


def block_provision(provisions: Dec, blocks_per_year: int) -> int:
    """Whole coins of one block."""
    return Dec(provisions.scaled // blocks_per_year).truncate()
