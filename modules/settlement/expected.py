"""What settlement needs of other modules; ``chain/app.py`` hands it in. Addresses are raw bytes, amounts ints in the smallest unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from chain.coins import Coins
from chain.context import Context
from chain.store.api import StateReader, StateWriter


class Bank(Protocol):
    """Holds the bonds of challenges."""

    def is_blocked(self, address: bytes) -> bool: ...
    def balance(self, state: StateReader, address: bytes, denom: str) -> int: ...
    def send_to_module(self, ctx: Context, state: StateWriter, sender: bytes, module: str, amount: Coins) -> None: ...
    def send_from_module(self, ctx: Context, state: StateWriter, module: str, recipient: bytes, amount: Coins) -> None: ...
    def send_between_modules(self, ctx: Context, state: StateWriter, sender: str, recipient: str, amount: Coins) -> None: ...


class CommunityPool(Protocol):
    """distribution: where what is left of a slash goes."""

    def fund_community_pool(self, ctx: Context, state: StateWriter, amount: Coins, sender: bytes) -> None: ...


class Register(Protocol):
    """Meta nodes and their deposits."""

    def meta_node(self, state: StateReader, address: bytes) -> Any | None:
        """``stratos.register.v1.MetaNode`` of a network address (20 bytes), or None."""

    def resource_node(self, state: StateReader, address: bytes) -> Any | None:
        """``stratos.register.v1.ResourceNode`` of a network address (20 bytes), or None."""

    def meta_nodes(self, state: StateReader) -> Iterator[Any]:
        """Every MetaNode, in the order of addresses."""

    def active_meta_nodes(self, state: StateReader) -> list[Any]:
        """Those that are bonded and not suspended, in the order of addresses: the n of every quorum."""

    def slash_deposit(self, ctx: Context, state: StateWriter, node: bytes, amount_wei: int, recipient_module: str) -> int:
        """Take up to ``amount_wei`` of a node's deposit (what stays first, then what is leaving) into a module account; returns what was there. S and
        Lt fall as for a deposit that has left."""

    def void_ozone(self, ctx: Context, state: StateWriter, volume_noz: int) -> tuple[int, int]:
        """An epoch is void: Lt −= noz as far as it goes, the rest is pending. Returns (lowered, pending), in noz."""


@dataclass(frozen=True, slots=True)
class PromoMoved:
    """What an epoch did to granted ozone: the cost (wei) that left the outstanding sum with what was used and expired, and what went back to the pool."""

    cost_wei: int = 0
    returned_wei: int = 0


class Grant(Protocol):
    """Granted ozone that is not used yet."""

    def require_sold(self, state: StateReader, paid_noz: int) -> None:
        """An epoch is about to report ``paid_noz`` that were not granted. Raises NotSold (a code of grant) for more than was sold, not granted and not
        reported: the granted noz would have nothing behind them."""

    def use(self, ctx: Context, state: StateWriter, epoch: int, used_noz: int, expired_noz: int) -> tuple[int, int]:
        """An epoch used and let expire so many granted noz (Lt += expired happens here, through sds; Lt += used is the report's). Returns (cost_wei,
        returned_wei). Raises PromoOutstanding (a code of grant) for more than is outstanding."""

    def restore(self, ctx: Context, state: StateWriter, epoch: int, used_noz: int, cost_wei: int, expired_noz: int, returned_wei: int) -> None:
        """The epoch is void: what was used is outstanding again, at its cost."""


@dataclass(frozen=True, slots=True)
class Voided:
    """What a void epoch gives back, in wei: unpaid traffic rewards to Pt, unpaid mining to the foundation; and the gap, what was paid out already (chain's
    and community's parts) and is missing in Pt and in the foundation."""

    prepay_returned_wei: int
    foundation_returned_wei: int
    prepay_gap_wei: int
    foundation_gap_wei: int


class Pot(Protocol):
    """Epochs and their rewards."""

    def void_epoch(self, ctx: Context, state: StateWriter, epoch: int) -> Voided:
        """Cancel the immature rewards of ``epoch`` and send them back where they came from; mark its economics void. Lt is the caller's."""

    def repay(self, ctx: Context, state: StateWriter, module: str, prepay_wei: int, foundation_wei: int) -> None:
        """A module account makes a gap good: to total_unissued_prepay and to foundation_account (total mined falls by the latter)."""

    def is_maturing(self, state: StateReader, epoch: int) -> bool:
        """True while no reward of ``epoch`` has matured and some may: the time in which it can be voided."""
