"""What feegrant needs of other modules."""

from __future__ import annotations

from typing import Any, Protocol

from chain.context import Context
from chain.store.api import StateReader, StateWriter


class Accounts(Protocol):
    """Accounts: a grantee without one gets one."""

    def get_account(self, ctx: Context, state: StateReader, address: bytes) -> Any: ...
    def new_account(self, ctx: Context, state: StateWriter, address: bytes) -> Any: ...
    def set_account(self, ctx: Context, state: StateWriter, account: Any) -> None: ...


class Bank(Protocol):
    """Which addresses users may not open accounts at."""

    def is_blocked(self, address: bytes) -> bool: ...
