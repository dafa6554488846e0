"""RFC-6962 Merkle trees as CometBFT builds them: the map of store roots under an app hash, and its proofs.

Leaf hash ``sha256(00 | leaf)``, inner hash ``sha256(01 | left | right)``, split at the largest power of two below the count; the
root of nothing is SHA-256 of nothing (reference ibc.md 2.4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

_sha256 = hashlib.sha256


def leaf_hash(leaf: bytes) -> bytes:
    return _sha256(b"\x00" + leaf).digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    return _sha256(b"\x01" + left + right).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf contents."""
    return _sha256(b"").digest() if not leaves else _root([leaf_hash(leaf) for leaf in leaves])


def store_leaf(name: str, root: bytes) -> bytes:
    """The leaf of one store: length-prefixed name, length-prefixed hash of its root."""
    raw = name.encode("ascii")
    return bytes([len(raw)]) + raw + b"\x20" + _sha256(root).digest()


def app_hash(roots: Mapping[str, bytes]) -> bytes:
    """The app hash of a version from its stores' root hashes."""
    return root_of([store_leaf(name, roots[name]) for name in sorted(roots)])


def siblings(leaves: Sequence[bytes], index: int) -> list[tuple[bytes, bool]]:
    """From leaf ``index`` up: (the sibling's hash, True where it stands on the left)."""
    return _siblings([leaf_hash(leaf) for leaf in leaves], index)


def _split(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1


def _root(hashes: Sequence[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    at = _split(len(hashes))
    return inner_hash(_root(hashes[:at]), _root(hashes[at:]))


def _siblings(hashes: Sequence[bytes], index: int) -> list[tuple[bytes, bool]]:
    if len(hashes) == 1:
        return []
    at = _split(len(hashes))
    if index < at:
        return [*_siblings(hashes[:at], index), (_root(hashes[at:]), False)]
    return [*_siblings(hashes[at:], index - at), (_root(hashes[:at]), True)]
