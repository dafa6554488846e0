"""What staking needs of other modules; ``chain/app.py`` hands it in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chain.coins import Coins
from chain.context import Context
from chain.store.api import StateReader, StateWriter


class Bank(Protocol):
    """Moves stake into, between and out of the pools, and burns what is slashed."""

    def balance(self, state: StateReader, address: bytes, denom: str) -> int: ...
    def balances(self, state: StateReader, address: bytes) -> Coins: ...
    def supply(self, state: StateReader, denom: str) -> int: ...
    def delegate_to_module(self, ctx: Context, state: StateWriter, delegator: bytes, module: str, amount: Coins) -> None: ...
    def undelegate_from_module(self, ctx: Context, state: StateWriter, module: str, delegator: bytes, amount: Coins) -> None: ...
    def send_between_modules(self, ctx: Context, state: StateWriter, sender: str, recipient: str, amount: Coins) -> None: ...
    def burn(self, ctx: Context, state: StateWriter, module: str, amount: Coins) -> None: ...


class Consensus(Protocol):
    """What CometBFT accepts of validators. Neither takes gas."""

    def key_types(self, ctx: Context, state: StateReader) -> Sequence[str]:
        """Kinds of keys, named as ``ed25519``."""

    def most_validators(self, ctx: Context, state: StateReader) -> int:
        """How many a block has room for."""
