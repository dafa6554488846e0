"""What a gateway and a meta node both know of requests by legacy strings: which meta node is asked, and how much a string may spend.

    wallet, meta nodes that are online ─► those in the order of SHA-256(wallet ‖ meta node): the first is the wallet's; when it is away, the next

A lease is a bound, not a price: what nodes did not earn of it comes back. Source: storage-protocol.md 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from sds_node.schemes import RATIO_ONE, Scheme, bill_noz, check_object, segment_count

SLACK: Final = 4
"""A quarter of an upload's bill more may be leased, for shares that have to go to another node."""
READ_SLACK: Final = 8
"""An eighth of a download more, for shares that fail."""
READ_SLACK_BYTES: Final = 1 << 20
"""And leaves at the edges."""
SHARE_EXTRA_NOZ: Final = 2
"""A limit has at least one noz, and its part of the repair fund is rounded up."""
OBJECT_COUNTER: Final = 1
"""A string stores one object, which its session counts as this."""


def ranked(wallet: bytes, metas: Iterable[bytes]) -> list[bytes]:
    """Meta nodes (addresses, 20 bytes each) in the order in which a wallet's (20 bytes) legacy requests go to them."""
    return sorted({*metas}, key=lambda meta: sha256(wallet + meta).digest())


def responsible(wallet: bytes, online: Iterable[bytes]) -> bytes | None:
    """The one whose record counts; None when none is online."""
    return next(iter(ranked(wallet, online)), None)


def upload_bound_noz(scheme: Scheme, size_bytes: int, repair_ratio_e18: int) -> int:
    """The most that the lease of an upload may have: its bill, the governed share on top, and a quarter. Raises SchemeError."""
    bill = bill_noz(scheme, size_bytes)
    least = bill + SHARE_EXTRA_NOZ * scheme.n * segment_count(size_bytes)
    return max(1, least + on_top(least, repair_ratio_e18) + bill // SLACK)


def download_bound_noz(size_bytes: int, repair_ratio_e18: int) -> int:
    """The most that the lease of a download may have: one delivery, whole leaves, the governed share, and an eighth. Raises SchemeError."""
    check_object(size_bytes)
    noz = size_bytes + size_bytes // READ_SLACK + READ_SLACK_BYTES
    return noz + on_top(noz, repair_ratio_e18)


def on_top(noz: int, repair_ratio_e18: int) -> int:
    """The governed share of a charge, rounded up."""
    return -(-noz * repair_ratio_e18 // RATIO_ONE)
