"""How many shares a file gets, how large they are, and what that costs: the table and the sums of the storage protocol, as data and integers.

    N nodes, size ──► Scheme(k of n) ──► segments of 32 MiB, n shares each ──► bill = every stored byte, 1 noz
                                                                                │
                                      each share's bytes = earned by receipt (floor of the half) + escrow (the rest)
                                                                                                   │
                                                                      day d of 365: floor(e·d ÷ 365) - floor(e·(d-1) ÷ 365)

N counts eligible nodes with distinct owner and network prefix. "Size" is always that of the stored stream, which is what the network sees: for a
private file the ciphertext. Sources: storage-protocol.md 3.2, 3.3, 3.6; ADR 7, "what a file becomes".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SEGMENT_BYTES: Final = 32 * 1024 * 1024
"""A segment of the stored stream, which is the original's slice; the last one of an object is shorter."""
ALIGN_BYTES: Final = 16
"""A share of k > 1 has a multiple of this many bytes, and not none."""
SMALL_BYTES: Final = 1024 * 1024
"""Files below this are replicas in every network."""
MAX_OBJECT_BYTES: Final = 1 << 44
"""16 TiB, 524,288 segments."""
MAX_NODES: Final = 1 << 32
RETENTION_DAYS: Final = 365
MAX_RETENTION_DAYS: Final = 3_650
"""As the chain bounds a release's day."""
RATIO_ONE: Final = 10**18
ESCROW_RATIO_E18: Final = RATIO_ONE // 2
"""The default of the governed ``escrow_ratio``, in units of 10^-18."""
REPAIR_FUND_DIVISOR: Final = 10
"""A tenth of a reservation that was not used goes to the repair fund."""
MAX_NOZ: Final = (1 << 128) - 1


class SchemeError(Exception):
    """A number that no scheme, object or share has; the message says what was expected and what came."""


class NoNodes(SchemeError):
    """There is no node that could take a share."""


class NotConfirmed(SchemeError):
    """A segment has fewer confirmed shares than its scheme asks for. ``segment`` is its number."""

    def __init__(self, segment: int, confirmed: int, needed: int) -> None:
        self.segment = segment
        super().__init__(f"segment {segment} has {confirmed} confirmed shares and needs {needed}: store more of its shares before the commit")


@dataclass(frozen=True, slots=True)
class Scheme:
    """Any k of a segment's n shares give it back. k = 1 means replicas.

    Below ``repair_below`` healthy shares it is repaired; with ``confirmed_at`` shares synced and acknowledged it is stored.
    """

    k: int
    n: int
    repair_below: int
    confirmed_at: int

    @property
    def parity(self) -> int:
        """Shares beyond the k that are the segment's own bytes."""
        return self.n - self.k


TEN_OF_THIRTY: Final = Scheme(10, 30, 18, 25)
FIVE_OF_TEN: Final = Scheme(5, 10, 9, 9)
TWO_OF_FIVE: Final = Scheme(2, 5, 4, 4)
THREE_REPLICAS: Final = Scheme(1, 3, 3, 3)
TWO_COPIES: Final = Scheme(1, 2, 2, 2)
ONE_COPY: Final = Scheme(1, 1, 1, 1)
"""The table leaves the repair of one or two copies open; here a lost copy is made again as soon as there is a node for it."""

LARGE: Final = ((36, TEN_OF_THIRTY), (12, FIVE_OF_TEN), (6, TWO_OF_FIVE), (3, THREE_REPLICAS), (2, TWO_COPIES), (1, ONE_COPY))
"""(nodes needed, scheme of files from 1 MiB on), the best first."""
SCHEMES: Final = tuple(scheme for _, scheme in LARGE)


def scheme_for(nodes: int, size_bytes: int) -> Scheme:
    """Eligible nodes and the size of a file's stored stream → its scheme, which it keeps for good (storage-protocol.md 3.2).

    Raises NoNodes when there are none, SchemeError for numbers that are none.
    """
    if not 0 <= nodes <= MAX_NODES:
        raise SchemeError(f"the number of eligible nodes is from 0 to {MAX_NODES}, not {nodes}")
    check_object(size_bytes)
    for needed, scheme in LARGE:
        if nodes >= needed:
            return scheme if size_bytes >= SMALL_BYTES or scheme.k == 1 else THREE_REPLICAS
    raise NoNodes("no node is eligible for a share: wait until one is online, or raise the deposit or free space of one")


def scheme_of(k: int, n: int) -> Scheme:
    """The scheme of k of n shares, as an index row names it. Raises SchemeError for one that is not in the table."""
    for scheme in SCHEMES:
        if (scheme.k, scheme.n) == (k, n):
            return scheme
    raise SchemeError(f"no scheme has {k} of {n} shares: there are {', '.join(f'{one.k} of {one.n}' for one in SCHEMES)}")


def warning(scheme: Scheme) -> str | None:
    """What an uploader is told about a scheme that keeps a file in fewer than three places; None for the others."""
    if scheme.n >= THREE_REPLICAS.n:
        return None
    places, them = ("1 place", "it") if scheme.n == 1 else (f"{scheme.n} places", "them")
    return f"the network has too few nodes: this file is kept in {places} only and is lost with {them}"


def needs_repair(scheme: Scheme, healthy: int) -> bool:
    """Whether a segment with that many healthy shares is to be repaired. One that is lost cannot be: see ``is_lost``."""
    return scheme.k <= healthy < scheme.repair_below


def is_lost(scheme: Scheme, healthy: int) -> bool:
    """Whether fewer shares are healthy than give the segment back."""
    return healthy < scheme.k


def legacy_replicas(scheme: Scheme, healthy: int) -> int:
    """What the original's clients are told as ``replicas``: how often the healthy shares would give the segment (storage-protocol.md 5)."""
    return max(healthy, 0) // scheme.k


def check_object(size_bytes: int) -> None:
    """Raises SchemeError for a size in bytes that no object has."""
    if not 0 <= size_bytes <= MAX_OBJECT_BYTES:
        raise SchemeError(f"an object has from 0 to {MAX_OBJECT_BYTES} bytes, not {size_bytes}")


def segment_count(size_bytes: int) -> int:
    """How many segments an object of ``size_bytes`` has: none if it is empty. Raises SchemeError."""
    check_object(size_bytes)
    return -(-size_bytes // SEGMENT_BYTES)


def segment_size(size_bytes: int, segment: int) -> int:
    """How many bytes segment number ``segment`` of an object of ``size_bytes`` has. Raises SchemeError when there is no such segment."""
    count = segment_count(size_bytes)
    if not 0 <= segment < count:
        raise SchemeError(f"an object of {size_bytes} bytes has {count} segments, numbered from 0; there is no segment {segment}")
    return min(SEGMENT_BYTES, size_bytes - segment * SEGMENT_BYTES)


def share_bytes(scheme: Scheme, segment_bytes: int) -> int:
    """Size of each share of a segment: the segment's with k = 1, else a k-th of it padded to a multiple of k × 16 that is not none.

    Raises SchemeError for a size that no segment has.
    """
    if not 0 <= segment_bytes <= SEGMENT_BYTES:
        raise SchemeError(f"a segment has from 0 to {SEGMENT_BYTES} bytes, not {segment_bytes}")
    if scheme.k == 1:
        return segment_bytes
    return max(1, -(-segment_bytes // (scheme.k * ALIGN_BYTES))) * ALIGN_BYTES


def _share_sizes(scheme: Scheme, size_bytes: int) -> list[tuple[int, int]]:
    """(how many segments, the size of their shares) of the full segments and of the last one."""
    check_object(size_bytes)
    full, rest = divmod(size_bytes, SEGMENT_BYTES)
    sizes = [(full, share_bytes(scheme, SEGMENT_BYTES))] if full else []
    return [*sizes, (1, share_bytes(scheme, rest))] if rest else sizes


def stored_bytes(scheme: Scheme, size_bytes: int) -> int:
    """What all shares of an object of ``size_bytes`` take on the nodes' disks. Raises SchemeError."""
    return scheme.n * sum(count * size for count, size in _share_sizes(scheme, size_bytes))


def bill_noz(scheme: Scheme, size_bytes: int) -> int:
    """What storing an object costs: one noz for each stored byte, for the whole term (storage-protocol.md 3.6). Raises SchemeError."""
    return stored_bytes(scheme, size_bytes)


@dataclass(frozen=True, slots=True)
class ShareNoz:
    """A confirmed share's part of the bill: what its node earns by the upload's receipt, and what it earns day by day."""

    receipt_noz: int
    escrow_noz: int


def share_noz(size_bytes: int, escrow_ratio_e18: int = ESCROW_RATIO_E18) -> ShareNoz:
    """A share's size → its two parts, which together are one noz for each byte. The receipt's is rounded down: with one half floor(bytes ÷ 2).

    ``escrow_ratio_e18`` is the governed ratio times 10^18. Raises SchemeError for a size or ratio that is none.
    """
    if not 0 <= size_bytes <= SEGMENT_BYTES:
        raise SchemeError(f"a share has from 0 to {SEGMENT_BYTES} bytes, not {size_bytes}")
    if not 0 <= escrow_ratio_e18 <= RATIO_ONE:
        raise SchemeError(f"the escrow's ratio is from 0 to 10^18, in units of 10^-18, not {escrow_ratio_e18}")
    receipt = size_bytes * (RATIO_ONE - escrow_ratio_e18) // RATIO_ONE
    return ShareNoz(receipt, size_bytes - receipt)


def receipt_noz(bytes_acked: int, max_noz: int, max_bytes: int) -> int:
    """What a receipt of ``bytes_acked`` pays under an order limit: floor(bytes_acked × max_noz ÷ max_bytes).

    The chain pays a receipt's leaf by the same formula. Raises SchemeError when the receipt has more bytes than the limit or the limit allows
    nothing.
    """
    if not 0 <= bytes_acked <= max_bytes or max_bytes < 1:
        raise SchemeError(f"a receipt has from 0 to the order limit's {max_bytes} bytes, and the limit at least 1; {bytes_acked} came")
    _check_noz(max_noz)
    return bytes_acked * max_noz // max_bytes


def _check_noz(noz: int) -> None:
    if not 0 <= noz <= MAX_NOZ:
        raise SchemeError(f"an amount of noz is from 0 to 2^128 - 1, not {noz}")


def released_noz(escrow_noz: int, day: int, days: int = RETENTION_DAYS) -> int:
    """What day ``day`` (from 1 on) of ``days`` releases of a share's escrow for passed audits. All days together release all of it.

    Raises SchemeError for a day outside the term or an amount that is none.
    """
    _check_noz(escrow_noz)
    if not 1 <= day <= days <= MAX_RETENTION_DAYS:
        raise SchemeError(f"a day is from 1 to the term's, which is at most {MAX_RETENTION_DAYS}; day {day} of {days} came")
    return escrow_noz * day // days - escrow_noz * (day - 1) // days


def unreleased_noz(escrow_noz: int, day: int, days: int = RETENTION_DAYS) -> int:
    """What is left of a share's escrow after day ``day`` of ``days`` (0: before the first); it goes back to the payer with a deletion.

    Raises SchemeError for a day outside the term or an amount that is none.
    """
    _check_noz(escrow_noz)
    if not 0 <= day <= days <= MAX_RETENTION_DAYS or days < 1:
        raise SchemeError(f"a day is from 0 to the term's, which is from 1 to {MAX_RETENTION_DAYS}; day {day} of {days} came")
    return escrow_noz - escrow_noz * day // days


@dataclass(frozen=True, slots=True)
class Committed:
    """Where the bill of a committed object goes. The three together are the bill."""

    receipts_noz: int
    escrow_noz: int
    refunded_noz: int
    """For shares that were not confirmed; all of it goes back."""


def committed(scheme: Scheme, size_bytes: int, confirmed: Sequence[int], escrow_ratio_e18: int = ESCROW_RATIO_E18) -> Committed:
    """An object and how many shares of each of its segments, in order, are confirmed → where its bill goes (storage-protocol.md 3.6).

    Raises NotConfirmed for a segment with too few, SchemeError for numbers that do not fit the object.
    """
    count = segment_count(size_bytes)
    if len(confirmed) != count:
        raise SchemeError(f"an object of {size_bytes} bytes has {count} segments; numbers of confirmed shares came for {len(confirmed)}")
    receipts = escrow = 0
    for segment, shares in enumerate(confirmed):
        if shares > scheme.n:
            raise SchemeError(f"segment {segment} has {scheme.n} shares; {shares} cannot be confirmed")
        if shares < scheme.confirmed_at:
            raise NotConfirmed(segment, shares, scheme.confirmed_at)
        each = share_noz(share_bytes(scheme, segment_size(size_bytes, segment)), escrow_ratio_e18)
        receipts += shares * each.receipt_noz
        escrow += shares * each.escrow_noz
    return Committed(receipts, escrow, bill_noz(scheme, size_bytes) - receipts - escrow)


@dataclass(frozen=True, slots=True)
class Returned:
    """Where a reservation goes that was not committed. The two together are the reservation."""

    payer_noz: int
    repair_fund_noz: int


def returned(uncommitted_noz: int) -> Returned:
    """A reservation that ended without a commit → what the payer gets back, and the tenth that the repair fund gets (storage-protocol.md 3.3).

    The tenth is rounded up, so that small reservations are not free. Raises SchemeError for an amount that is none.
    """
    _check_noz(uncommitted_noz)
    fund = -(-uncommitted_noz // REPAIR_FUND_DIVISOR)
    return Returned(uncommitted_noz - fund, fund)
