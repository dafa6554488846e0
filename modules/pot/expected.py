"""What pot needs of other modules; ``chain/app.py`` hands it in. Addresses are raw bytes, amounts ints in the smallest unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from chain.coins import Coins
from chain.context import Context
from chain.dec_coins import DecCoins
from chain.ozone import Ozone
from chain.reports import ReportFacts
from chain.store.api import StateReader, StateWriter


class Bank(Protocol):
    """Pays, and keeps the supply at its level."""

    def balance(self, state: StateReader, address: bytes, denom: str) -> int: ...
    def supply(self, state: StateReader, denom: str) -> int: ...
    def is_blocked(self, address: bytes) -> bool: ...
    def send_to_module(self, ctx: Context, state: StateWriter, sender: bytes, module: str, amount: Coins) -> None: ...
    def send_from_module(self, ctx: Context, state: StateWriter, module: str, recipient: bytes, amount: Coins) -> None: ...
    def send_between_modules(self, ctx: Context, state: StateWriter, sender: str, recipient: str, amount: Coins) -> None: ...
    def mint(self, ctx: Context, state: StateWriter, module: str, amount: Coins) -> None: ...
    def burn(self, ctx: Context, state: StateWriter, module: str, amount: Coins) -> None: ...


class CommunityPool(Protocol):
    """distribution: taxes and slashed coins go there, and the supply is kept from there."""

    def fund_community_pool(self, ctx: Context, state: StateWriter, amount: Coins, sender: bytes) -> None: ...
    def community_pool(self, state: StateReader) -> DecCoins: ...
    def set_community_pool(self, state: StateWriter, pool: DecCoins) -> None: ...


class Register(Protocol):
    """The pool, the nodes and the debts."""

    def ozone(self, state: StateReader) -> Ozone: ...
    def return_ozone(self, ctx: Context, state: StateWriter, volume_noz: int) -> None:
        """Back: Lt += noz, then what is pending leaves."""

    def meta_node(self, state: StateReader, address: bytes) -> Any | None: ...
    def resource_node(self, state: StateReader, address: bytes) -> Any | None: ...
    def active_meta_nodes(self, state: StateReader) -> list[Any]: ...
    def debt_wei(self, state: StateReader, wallet: bytes) -> int: ...
    def add_debt(self, ctx: Context, state: StateWriter, wallet: bytes, amount_wei: int) -> None: ...
    def deduct_debt(self, ctx: Context, state: StateWriter, wallet: bytes, amount_wei: int) -> tuple[int, int]:
        """A reward of ``wallet`` is about to be paid: its own debt first, then debts of owners whose nodes it is the beneficiary of. Returns (left to
        pay, taken)."""

    def slash_deposit(self, ctx: Context, state: StateWriter, node: bytes, amount_wei: int, recipient_module: str) -> int:
        """Take up to ``amount_wei`` of a node's deposit into a module account; returns what was there."""

    def set_suspended(self, ctx: Context, state: StateWriter, node: bytes, suspended: bool) -> None:
        """A resource node's flag; a newly suspended one works with nothing (stratos-chain.md 4.6)."""

    def deposits_wei(self, state: StateReader) -> Mapping[str, int]:
        """Balances of the four deposit pools by account name."""


class Settlement(Protocol):
    """Keys, commitments, roots."""

    def active_keys(self, state: StateReader) -> dict[bytes, bytes]:
        """BLS public key (48 bytes) → network address, of active meta nodes with a registered key."""

    def close(
        self, ctx: Context, state: StateWriter, epoch: int, owner: bytes, reference: str, volumes: Sequence[tuple[bytes, int]]
    ) -> dict[bytes, int]:
        """Take the open commitment of this transaction and hold it against the report: promo noz by wallet. Raises a rule of settlement if there is
        none, if it is another's, or if its lines do not fit ``volumes``. What expired and what promotion moved is settled inside (grant)."""

    def keep(self, ctx: Context, state: StateWriter, facts: ReportFacts) -> None:
        """Keep roots and signers until ``facts.maturity_epoch``."""

    def forget(self, ctx: Context, state: StateWriter, epoch: int) -> None:
        """The rewards of ``epoch`` begin to mature: its evidence is dropped, and its open challenges fail."""


class Staking(Protocol):
    """Totals for the metrics."""

    def total_bonded(self, state: StateReader) -> int: ...
    def total_not_bonded(self, state: StateReader) -> int: ...
    def validators(self, state: StateReader) -> Iterator[Any]: ...
