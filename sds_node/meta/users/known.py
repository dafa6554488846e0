"""What the parts for users need of others: the nodes that are there, whom to tell, whom to ask for a signature, and an operator's settings.

    registry ─► candidates, contacts        cosign ─► signatures on a lease        tell ─► a node, later        report_failure ─► the registry

Source: docs/adr/0009; storage-protocol.md 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sds_node.meta.lateness import FREE_S, RECEIPTS_S
from sds_node.meta.rules.leases import SETTLE_S
from sds_node.meta.rules.tables import Node


class Candidate(Protocol):
    """A node that may take new shares now."""

    @property
    def number(self) -> int: ...
    @property
    def owner(self) -> bytes: ...
    @property
    def prefix(self) -> bytes:
        """As the meta nodes see it: 3 bytes (IPv4), 6 (IPv6), none when it is not known."""
        ...

    @property
    def weight(self) -> int: ...
    @property
    def free_bytes(self) -> int: ...


class Contact(Protocol):
    """How a node is reached, and who is paid for what it does."""

    @property
    def number(self) -> int: ...
    @property
    def address(self) -> bytes: ...
    @property
    def p2p_key(self) -> bytes: ...
    @property
    def beneficiary(self) -> bytes: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def relay(self) -> Any:
        """A MetaContact, None for a node that listens."""
        ...

    @property
    def is_online(self) -> bool: ...


class Registry(Protocol):
    """Which nodes are there."""

    def candidates(self) -> Sequence[Candidate]:
        """Those that may take new shares now."""
        ...

    def contact(self, number: int) -> Contact | None:
        """How to reach a node, by its number in the ledger."""
        ...

    def prefix(self, row: Node) -> bytes:
        """The network prefix of a node of the ledger as it is heard here, else as the ledger says."""
        ...

    def count(self) -> int:
        """N of storage-protocol.md 3.2: candidates with distinct owner and prefix."""
        ...


Cosign = Callable[[bytes], Awaitable[Sequence[tuple[bytes, bytes]]]]
"""The body of a Lease → (meta node's address, signature) of others that sign it."""
Tell = Callable[[int, str, bytes], Awaitable[None]]
"""(node's number, method, body): noted to be told, and told again until the node took it."""
ReportFailure = Callable[[int, str, bytes], None]
"""(node's number, what is said of it, the wallet that says so)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides, in seconds."""

    limit_s: int = 600
    """How long an order limit holds, within its lease and grant."""
    free_s: int = FREE_S
    """After a limit or lease is over its noz are kept for so long: its receipt may come for RECEIPTS_S, and then needs a window."""
    block_wait_s: float = 3.0
    """How long the first placement of a lease waits for a block of the value chain."""
    poll_s: float = 0.1
    step_s: float = 5.0
    """How often leases are looked at."""
    lost_step_s: float = 60.0
    """How often the ledger is searched for leases that were taken before this start."""

    def __post_init__(self) -> None:
        if not (1 <= self.limit_s <= 86_400 and RECEIPTS_S < self.free_s < SETTLE_S):
            raise ValueError(
                f"expected limits that hold 1 to 86,400 s, and noz that are kept for more than the {RECEIPTS_S} s in which receipts come and less than the "
                f"{SETTLE_S} s after which anyone may settle a lease"
            )
        if not (self.block_wait_s >= 0 and self.poll_s > 0 and self.step_s > 0 and self.lost_step_s > 0):
            raise ValueError("expected times above 0")
