"""What grant needs of other modules; ``chain/app.py`` hands it in. Addresses are raw bytes, amounts ints in the smallest unit."""

from __future__ import annotations

from typing import Protocol

from chain.coins import Coins
from chain.context import Context
from chain.ozone import Ozone as Pool
from chain.store.api import StateReader, StateWriter


class Bank(Protocol):
    """Moves what funds pools."""

    def balance(self, state: StateReader, address: bytes, denom: str) -> int: ...
    def send_to_module(self, ctx: Context, state: StateWriter, sender: bytes, module: str, amount: Coins) -> None: ...
    def send_between_modules(self, ctx: Context, state: StateWriter, sender: str, recipient: str, amount: Coins) -> None: ...


class Ozone(Protocol):
    """sds: buys ozone for a module account and gives it back."""

    def pool(self, state: StateReader) -> Pool:
        """S, Lt, Pt and the rate as they are now."""

    def quote_wei(self, state: StateReader, noz: int) -> int:
        """What ``noz`` cost now. Raises OzoneLimitNotEnough (sds/14), InvalidRequest (sdk/18)."""

    def buy(self, ctx: Context, state: StateWriter, payer_module: str, noz: int) -> int:
        """Exactly ``noz`` bought and paid by a module account, Pt += X, Lt −= noz; returns X in wei. Raises what ``quote_wei`` does and what bank does."""

    def expire(self, ctx: Context, state: StateWriter, recipient_module: str, noz: int, outstanding_noz: int, cost_wei: int) -> int:
        """Granted noz that were not used come back: Lt += noz, and the refund of storage-protocol.md 1.5 goes from Pt to a module account; returns it in wei."""

    def take_back(self, ctx: Context, state: StateWriter, payer_module: str, noz: int, refund_wei: int) -> None:
        """An ``expire`` is undone: ``refund_wei`` go from a module account to Pt, and the noz leave Lt as far as it holds them, the rest when it rises."""
