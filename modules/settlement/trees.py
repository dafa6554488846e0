"""The two trees of an epoch: receipts with sums, and lines. Both have RFC 6962's shape.

    receipts   leaf SHA-256(0x00 ‖ leaf), node SHA-256(0x01 ‖ left ‖ its sum ‖ right ‖ its sum), sums in noz, 16 bytes big-endian
    lines      leaf SHA-256(0x00 ‖ line), node SHA-256(0x01 ‖ left ‖ right)

A tree without leaves has the root SHA-256 of nothing. Source: ADR 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

MAX_PATH: Final = 64
MAX_SUM: Final = (1 << 128) - 1
HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf's bytes, in either tree."""
    return sha256(_LEAF + leaf).digest()


def sum_node(left: bytes, left_noz: int, right: bytes, right_noz: int) -> bytes:
    """The hash over two parts of a receipts tree and their sums."""
    return sha256(_NODE + left + left_noz.to_bytes(16, "big") + right + right_noz.to_bytes(16, "big")).digest()


def plain_node(left: bytes, right: bytes) -> bytes:
    """The hash over two parts of a lines tree."""
    return sha256(_NODE + left + right).digest()


def _sides(at: int, last: int) -> Iterator[bool]:
    """Of each step from leaf ``at`` to the root of a tree whose last leaf is ``last``: True if the sibling is on the left."""
    while last:
        if at & 1:
            yield True
        elif at == last:  # the last one, alone on its level: it goes up until it is somebody's right
            while not at & 1:
                at, last = at >> 1, last >> 1
            yield True
        else:
            yield False
        at, last = at >> 1, last >> 1


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a leaf's path leads: the root, the noz of all leaves before it, and of the whole tree."""

    root: bytes
    before_noz: int
    total_noz: int


def climb(leaf: bytes, noz: int, index: int, count: int, path: Sequence[tuple[bytes, int]]) -> Reached | None:
    """From leaf ``index`` of ``count`` up a path of (sibling's hash, its sum in noz). None for a path that such a tree cannot have."""
    if not 0 <= index < count or len(path) > MAX_PATH:
        return None
    node, total, before = leaf_hash(leaf), noz, 0
    turns = list(_sides(index, count - 1))
    if len(turns) != len(path):
        return None
    for is_left, (sibling, sibling_noz) in zip(turns, path, strict=True):
        if len(sibling) != HASH_BYTES or not 0 <= sibling_noz <= MAX_SUM or total + sibling_noz > MAX_SUM:
            return None
        if is_left:
            node, before = sum_node(sibling, sibling_noz, node, total), before + sibling_noz
        else:
            node = sum_node(node, total, sibling, sibling_noz)
        total += sibling_noz
    return Reached(node, before, total)


def climb_plain(line: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """The root that line ``index`` of ``count`` leads to. None for a path that such a tree cannot have."""
    if not 0 <= index < count or len(path) > MAX_PATH:
        return None
    node = leaf_hash(line)
    turns = list(_sides(index, count - 1))
    if len(turns) != len(path):
        return None
    for is_left, sibling in zip(turns, path, strict=True):
        if len(sibling) != HASH_BYTES:
            return None
        node = plain_node(sibling, node) if is_left else plain_node(node, sibling)
    return node


def plain_root(lines: Sequence[bytes]) -> bytes:
    """The root over lines."""
    level = [leaf_hash(line) for line in lines]
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        # Pairing from the left and letting the odd one through gives RFC 6962's shape, whose left part is always full.
        above = [plain_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = above + level[len(above) * 2 :]
    return level[0]


def sum_root(leaves: Sequence[tuple[bytes, int]]) -> tuple[bytes, int]:
    """(root, sum in noz) over (leaf's bytes, its noz)."""
    level = [(leaf_hash(leaf), noz) for leaf, noz in leaves]
    if not level:
        return EMPTY_ROOT, 0
    while len(level) > 1:
        pairs = range(0, len(level) - 1, 2)
        above = [(sum_node(*level[at], *level[at + 1]), level[at][1] + level[at + 1][1]) for at in pairs]
        level = above + level[len(above) * 2 :]
    return level[0]
