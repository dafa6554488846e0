"""What happens in a history, and the world in which it happens.

A history is a list of operations. The model (``model.py``) and every world apply the same ones: the pure functions (``pure.py``), the keepers over
a memory store (``keepers.py``). Nodes and wallets are numbers; what they are called is the world's business. Amounts in wei, volumes in noz, times in
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Create:
    """A node registers with a deposit. A resource node counts for nothing until it is made effective; a meta node is voted in at once and counts."""

    node: int
    deposit_wei: int
    is_meta: bool = False


@dataclass(frozen=True)
class Add:
    """A node's deposit grows."""

    node: int
    more_wei: int


@dataclass(frozen=True)
class Effective:
    """A resource node is activated, re-activated or resized by the meta nodes."""

    node: int
    effective_wei: int


@dataclass(frozen=True)
class Suspend:
    """A resource node is suspended, without a fine."""

    node: int


@dataclass(frozen=True)
class Slash:
    """A node is fined as much as traffic of ``noz`` is worth; its deposit pays as far as it goes."""

    node: int
    noz: int


@dataclass(frozen=True)
class Leave:
    """A node takes its whole deposit out; it is paid back when unbonding is over."""

    node: int


@dataclass(frozen=True)
class Wait:
    """Time passes, and what has unbonded completes."""

    seconds: int


@dataclass(frozen=True)
class Prepay:
    """A wallet buys ozone."""

    paid_wei: int


@dataclass(frozen=True)
class Claim:
    """The grant pool buys exactly so much ozone for a newcomer."""

    noz: int


@dataclass(frozen=True)
class Report:
    """An epoch: (wallet, all noz, granted noz of them) each, and granted noz that expired.

    ``at_most_wei``: what the traffic may be worth by a promise (deposit, buy, report); None without one. ``twin``: the report just before had the
    same volumes, and nothing happened in between.
    """

    work: tuple[tuple[int, int, int], ...]
    expired_noz: int = 0
    at_most_wei: int | None = None
    twin: bool = False

    @property
    def volume_noz(self) -> int:
        return sum(volume for _, volume, _ in self.work)


Operation = Create | Add | Effective | Suspend | Slash | Leave | Wait | Prepay | Claim | Report


@dataclass(frozen=True)
class Paid:
    """What an operation gave: noz bought, wei paid for a claim, wei that an expiry returned and that a slash took, and of a report what left Pt and the foundation, and
    (mining, traffic) in wei by receiver. Receivers are ``("wallet", n)`` and ``("meta", node)``."""

    noz: int = 0
    cost_wei: int = 0
    refund_wei: int = 0
    slashed_wei: int = 0
    spent_wei: int = 0
    mined_wei: int = 0
    rewards: Mapping[tuple[str, int], tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What can be seen of a world between two operations."""

    deposit_wei: int
    """S."""
    remaining_noz: int
    """Lt."""
    prepaid_wei: int
    """Pt."""
    pending_wei: int
    effective_wei: int
    """Σ of nodes that work, in wei."""
    leaving_wei: int
    """Σ of what counts though it works no more, in wei."""
    tokens_wei: int
    """Σ of what nodes deposited and did not get back."""
    promo_noz: int
    """Granted and neither used nor expired."""
    promo_cost_wei: int


class Refused(Exception):
    """An operation that the rules forbid; nothing has changed."""


class World(Protocol):
    def apply(self, operation: Operation) -> Paid:
        """Raises Refused."""

    def seen(self) -> Seen: ...

    def broken(self) -> list[str]:
        """What the world's own invariants find at the end."""
