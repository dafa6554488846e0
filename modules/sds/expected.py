"""What sds needs of other modules; ``chain/app.py`` hands it in. Addresses are raw bytes, amounts ints in the smallest unit."""

from __future__ import annotations

from typing import Any, Protocol

from chain.coins import Coins
from chain.context import Context
from chain.ozone import Ozone
from chain.store.api import StateReader, StateWriter


class Bank(Protocol):
    """Moves the coins that buy ozone."""

    def balance(self, state: StateReader, address: bytes, denom: str) -> int: ...
    def send_to_module(self, ctx: Context, state: StateWriter, sender: bytes, module: str, amount: Coins) -> None: ...
    def send_between_modules(self, ctx: Context, state: StateWriter, sender: str, recipient: str, amount: Coins) -> None: ...


class Register(Protocol):
    """The pool and the meta nodes."""

    def ozone(self, state: StateReader) -> Ozone:
        """S, Lt, Pt, rate, what is pending, and whether the solvency rules are on."""

    def take_ozone(self, ctx: Context, state: StateWriter, volume_noz: int) -> None:
        """Sold: Lt −= noz. Raises RemainingNozLimit (register/43) for more than Lt."""

    def return_ozone(self, ctx: Context, state: StateWriter, volume_noz: int) -> None:
        """Back: Lt += noz, then what is pending leaves."""

    def void_ozone(self, ctx: Context, state: StateWriter, volume_noz: int) -> tuple[int, int]:
        """What came back is sold after all: Lt −= noz as far as it goes, the rest is pending. Returns (lowered, pending), in noz."""

    def meta_node(self, state: StateReader, address: bytes) -> Any | None:
        """``stratos.register.v1.MetaNode`` of a network address (20 bytes), or None."""

    def active_addresses(self, state: StateReader) -> list[bytes]:
        """Network addresses of the meta nodes that are bonded and not suspended, in order."""
