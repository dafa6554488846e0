"""What register needs of other modules; ``chain/app.py`` hands it in. Addresses are raw bytes, amounts ints in the smallest unit."""

from __future__ import annotations

from typing import Protocol

from chain.coins import Coins
from chain.context import Context
from chain.store.api import StateReader, StateWriter


class Bank(Protocol):
    """Moves coins between accounts and modules."""

    def balance(self, state: StateReader, address: bytes, denom: str) -> int: ...
    def send(self, ctx: Context, state: StateWriter, sender: bytes, recipient: bytes, amount: Coins) -> None:
        """Also to an account that users may not send to: what an owner deposited goes back to him, whoever he is."""

    def send_to_module(self, ctx: Context, state: StateWriter, sender: bytes, module: str, amount: Coins) -> None: ...
    def send_between_modules(self, ctx: Context, state: StateWriter, sender: str, recipient: str, amount: Coins) -> None: ...


class CommunityPool(Protocol):
    """distribution: where slashed coins go."""

    def fund_community_pool(self, ctx: Context, state: StateWriter, amount: Coins, sender: bytes) -> None: ...
