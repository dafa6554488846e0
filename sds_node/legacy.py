"""What a gateway and a meta node both know of requests by legacy strings: which meta node is asked, how much a string may spend, where its file is kept.

    wallet, meta nodes that are online ─► those in the order of SHA-256(wallet ‖ meta node): the first is the wallet's; when it is away, the next

A lease is a bound, not a price: what nodes did not earn of it comes back. Source: storage-protocol.md 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from sds_node.schemes import RATIO_ONE, SCHEMES, SMALL_BYTES, Scheme, bill_noz, check_object, segment_count

SLACK: Final = 4
"""A quarter of an upload's bill more may be leased, for shares that have to go to another node."""
READ_SLACK: Final = 8
"""An eighth of a download more, for shares that fail."""
READ_SLACK_BYTES: Final = 1 << 20
"""And leaves at the edges, of which a small file has no more than itself."""
READ_EXTRA_NOZ: Final = 32
"""Shares are whole bytes, and what is taken on top of each limit is rounded up."""
SHARE_EXTRA_NOZ: Final = 2
"""A limit has at least one noz, and its part of the repair fund is rounded up."""
OBJECT_COUNTER: Final = 1
"""A string stores one object, which its session counts as this."""
MAX_UPLOAD_BYTES: Final = 64 << 30
"""A string names no size: this is what it can be made to pay for at most."""
SEQUENCES_BACK: Final = 63
"""So many numbers before a wallet's current one are taken as well: tasks that go on at once end one after another. A string is used once and lives five minutes."""
_LOOKUP: Final = b"stratos/legacy-file/v1\0"
_IS_SEQUENCE: Final = re.compile(r"SN:([0-9]{19})").fullmatch


def legacy_lookup_id(wallet: bytes, file_hash: str) -> bytes:
    """Where a wallet's record of a file of the original's clients is: one for each content, whatever its name."""
    return sha256(_LOOKUP + wallet + file_hash.encode()).digest()


def sequence_text(number: int) -> str:
    """A wallet's sequence number as clients sign it."""
    return f"SN:{number:019d}"


def sequence_number(text: str) -> int:
    """The number in a text that ``sequence_text`` made; -1 for another one."""
    found = _IS_SEQUENCE(text)
    return -1 if found is None else int(found[1])


def is_recent(text: str, current: int) -> bool:
    """Whether a sequence number that was signed is the wallet's current one or one of those before it."""
    found = _IS_SEQUENCE(text)
    return found is not None and max(0, current - SEQUENCES_BACK) <= int(found[1]) <= current


def recent_sequences(current: str, count: int) -> list[str]:
    """The current number (as text) and those before it, ``count`` at most; only the given one where it is no number."""
    found = _IS_SEQUENCE(current)
    return [current] if found is None else [sequence_text(one) for one in range(int(found[1]), max(-1, int(found[1]) - count), -1)]


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


def most_upload_noz(size_bytes: int, repair_ratio_e18: int) -> int:
    """``upload_bound_noz`` of the dearest scheme that so many bytes can have, however many nodes there are. Raises SchemeError."""
    check_object(size_bytes)
    schemes = [one for one in SCHEMES if size_bytes >= SMALL_BYTES or one.k == 1]
    return max(upload_bound_noz(one, size_bytes, repair_ratio_e18) for one in schemes)


def download_bound_noz(size_bytes: int, repair_ratio_e18: int) -> int:
    """The most that the lease of a download may have: one delivery, an eighth, whole leaves, the governed share. Raises SchemeError."""
    check_object(size_bytes)
    noz = size_bytes + size_bytes // READ_SLACK + min(size_bytes, READ_SLACK_BYTES) + READ_EXTRA_NOZ
    return noz + on_top(noz, repair_ratio_e18)


def on_top(noz: int, repair_ratio_e18: int) -> int:
    """The governed share of a charge, rounded up."""
    return -(-noz * repair_ratio_e18 // RATIO_ONE)
