"""What governance needs of other modules, as narrow as it needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from chain.coins import Coins
from chain.context import Context
from chain.store.api import StateReader, StateWriter


class Accounts(Protocol):
    """The module's own account."""

    def module_account(self, ctx: Context, state: StateWriter, name: str) -> Any: ...


class Bank(Protocol):
    """Deposits come in, go back and are burned."""

    def balances(self, state: StateReader, address: bytes) -> Coins: ...
    def send(self, ctx: Context, state: StateWriter, sender: bytes, recipient: bytes, amount: Coins) -> None: ...
    def send_to_module(self, ctx: Context, state: StateWriter, sender: bytes, module: str, amount: Coins) -> None: ...
    def send_from_module(self, ctx: Context, state: StateWriter, module: str, recipient: bytes, amount: Coins) -> None: ...
    def burn(self, ctx: Context, state: StateWriter, module: str, amount: Coins) -> None: ...


class Stake(Protocol):
    """Whose stake a vote counts for. Validators and delegations are messages of ``cosmos.staking.v1beta1``."""

    def bonded_by_power(self, state: StateReader) -> Iterator[Any]: ...
    def delegations_of(self, state: StateReader, delegator: bytes, limit: int | None = None) -> Iterator[Any]: ...
    def total_bonded(self, state: StateReader) -> int: ...


class CommunityPool(Protocol):
    """Where the charge for a cancelled proposal may go."""

    def fund_community_pool(self, ctx: Context, state: StateWriter, amount: Coins, sender: bytes) -> None: ...


class Router(Protocol):
    """Runs messages: ``chain.inner.MessageRouter``."""

    def knows(self, full_name: str) -> bool: ...
    def check(self, message: Any) -> None: ...
    def run(self, ctx: Context, state: StateWriter, message: Any) -> Any: ...
    def attempt(self, ctx: Context, state: StateWriter, messages: Sequence[Any]) -> tuple[list[Any], int, Exception | None]: ...
