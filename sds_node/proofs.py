"""What a wallet can check against the roots that the chain has of an epoch: its balance, its files, a leaf that pays it. Pure functions.

    balances   address 20 ‖ bought noz 16 ‖ granted noz 16               one leaf a wallet, by address
    debits     the same form: what this epoch's receipts took from leases of each wallet
    files      address 20 ‖ files 8 ‖ root over the wallet's records     a record: the ledger's canonical row of the file ‖ the object's root, by lookup id
    receipts   settlement's leaves, with sums

Numbers are big-endian. The trees are settlement's (``plain_root``, ``sum_root``): leaf SHA-256(0x00 ‖ leaf), node SHA-256(0x01 ‖ …); a node without a
neighbour goes up alone. Source: ADR 5; storage-protocol.md 1.6, 1.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from modules.settlement.trees import EMPTY_ROOT, climb_plain, leaf_hash, plain_node, sum_node

T = TypeVar("T")

ADDRESS_BYTES: Final = 20
NOZ_BYTES: Final = 16
BALANCE_BYTES: Final = ADDRESS_BYTES + 2 * NOZ_BYTES
FILES_BYTES: Final = ADDRESS_BYTES + 8 + 32


@dataclass(frozen=True, slots=True)
class Proof:
    """``leaf`` is number ``index`` of ``count`` leaves; ``path`` leads to the root, from the bottom up."""

    leaf: bytes
    index: int
    count: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class FileProof:
    """A file's record under its wallet's root, and the wallet's entry under the epoch's."""

    record: Proof
    wallet: Proof


def balance_leaf(wallet: bytes, paid_noz: int, promo_noz: int) -> bytes:
    """A leaf of balances or debits, 52 bytes."""
    return wallet + paid_noz.to_bytes(NOZ_BYTES, "big") + promo_noz.to_bytes(NOZ_BYTES, "big")


def files_leaf(wallet: bytes, files: int, root: bytes) -> bytes:
    """A wallet's leaf of files, 60 bytes."""
    return wallet + files.to_bytes(8, "big") + root


# --- trees with their paths ---------------------------------------------------------------------------------------------------------


def plain_levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All hashes of a plain tree, from its leaves up."""
    levels = [[leaf_hash(leaf) for leaf in leaves]]
    while len(levels[-1]) > 1:
        level = levels[-1]
        above = [plain_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        levels.append(above + level[len(above) * 2 :])
    return levels


def sum_levels(hashes: Sequence[tuple[bytes, int]]) -> list[list[tuple[bytes, int]]]:
    """All (hash, sum) of a tree with sums over (a leaf's hash, its noz), from its leaves up."""
    levels = [list(hashes)]
    while len(levels[-1]) > 1:
        level = levels[-1]
        pairs = range(0, len(level) - 1, 2)
        above = [(sum_node(*level[at], *level[at + 1]), level[at][1] + level[at + 1][1]) for at in pairs]
        levels.append(above + level[len(above) * 2 :])
    return levels


def root_of(levels: Sequence[Sequence[bytes]]) -> bytes:
    """A plain tree's root."""
    return levels[-1][0] if levels[0] else EMPTY_ROOT


def sum_root_of(levels: Sequence[Sequence[tuple[bytes, int]]]) -> tuple[bytes, int]:
    """(root, sum) of a tree with sums."""
    return levels[-1][0] if levels[0] else (EMPTY_ROOT, 0)


def path_of(levels: Sequence[Sequence[T]], index: int) -> list[T]:
    """A leaf's siblings, from the bottom up. Raises IndexError when there is no such leaf."""
    if not 0 <= index < len(levels[0]):
        raise IndexError(f"the tree has {len(levels[0])} leaves, numbered from 0: there is no leaf {index}")
    path: list[T] = []
    for level in levels[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        index >>= 1
    return path


# --- for wallets --------------------------------------------------------------------------------------------------------------------


def prove(leaves: Sequence[bytes], index: int) -> Proof:
    """The proof of one of a plain tree's leaves. Raises IndexError."""
    return Proof(leaves[index], index, len(leaves), tuple(path_of(plain_levels(leaves), index)))


def index_of(leaves: Sequence[bytes], start: bytes) -> int | None:
    """The number of the leaf that begins with ``start``, among leaves in order; None when there is none."""
    low, high = 0, len(leaves)
    while low < high:
        middle = (low + high) // 2
        if leaves[middle][: len(start)] < start:
            low = middle + 1
        else:
            high = middle
    return low if low < len(leaves) and leaves[low].startswith(start) else None


def is_proved(root: bytes, proof: Proof) -> bool:
    """Whether a proof leads to ``root``; no argument raises."""
    return climb_plain(proof.leaf, proof.index, proof.count, proof.path) == root


def proved_balance(root: bytes, proof: Proof, wallet: bytes) -> tuple[int, int] | None:
    """(bought, granted) noz of a wallet as the epoch's ``balances_root`` (or ``debits_root``) has it; None for a proof that does not hold."""
    if len(proof.leaf) != BALANCE_BYTES or proof.leaf[:ADDRESS_BYTES] != wallet or not is_proved(root, proof):
        return None
    at = ADDRESS_BYTES + NOZ_BYTES
    return int.from_bytes(proof.leaf[ADDRESS_BYTES:at], "big"), int.from_bytes(proof.leaf[at:], "big")


def is_file_proved(root: bytes, proof: FileProof, wallet: bytes) -> bool:
    """Whether a record is one of a wallet's files under the epoch's ``files_root``; what the record says is its first bytes' and the caller's to read."""
    leaf = proof.wallet.leaf
    if len(leaf) != FILES_BYTES or leaf[:ADDRESS_BYTES] != wallet or not is_proved(root, proof.wallet):
        return False
    files = int.from_bytes(leaf[ADDRESS_BYTES : ADDRESS_BYTES + 8], "big")
    return proof.record.count == files and is_proved(leaf[ADDRESS_BYTES + 8 :], proof.record)
