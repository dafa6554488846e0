"""What computes the next version of one store's tree: the plain Python form here, the native one in ``fast/core.py``.

An engine holds the committed version, and between ``stage`` and ``commit`` the next one. It belongs to the thread that commits;
queries, proofs and snapshots read through ``Tree`` instead. Both forms give the same roots, stored nodes and orphans, byte for byte.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Final, Protocol

from chain.store.errors import CorruptStore
from chain.store.iavl import Change, Load, NodeKey, Tree

_DELETED: Final = 0xFFFFFFFF


class Changes:
    """The net changes of one store in one block: ascending keys, each once, None deletes. Packed for the native core and the commit log."""

    def __init__(self, items: Sequence[Change]) -> None:
        self.items = items

    @cached_property
    def sizes(self) -> array[int]:
        """Key size and value size (all bits set: delete) of each change, 32 bits each."""
        sizes = array("I", bytes(8 * len(self.items)))
        if self.items:
            keys, values = zip(*self.items, strict=True)
            sizes[0::2] = array("I", map(len, keys))
            sizes[1::2] = array("I", map(len, values) if None not in values else [_DELETED if one is None else len(one) for one in values])
        return sizes

    @cached_property
    def data(self) -> bytes:
        """Keys and values, one after the other."""
        return b"".join(filter(None, chain.from_iterable(self.items)))

    def pack(self) -> bytes:
        """Count (4 bytes, little-endian), sizes (little-endian), bytes."""
        sizes = self.sizes
        if sys.byteorder == "big":
            sizes = array("I", sizes)
            sizes.byteswap()
        return len(self.items).to_bytes(4, "little") + len(self.data).to_bytes(8, "little") + sizes.tobytes() + self.data

    @classmethod
    def unpack(cls, raw: bytes, at: int) -> tuple[Changes, int]:
        """The changes packed at ``at`` and where they end. Raises CorruptStore."""
        count, size = int.from_bytes(raw[at : at + 4], "little"), int.from_bytes(raw[at + 4 : at + 12], "little")
        at += 12
        end = at + 8 * count + size
        if end > len(raw):
            raise CorruptStore("a record of the commit log is cut short: the database is damaged; restore a backup or snapshot")
        sizes = array("I", raw[at : at + 8 * count])
        if sys.byteorder == "big":
            sizes.byteswap()
        at += 8 * count
        items: list[Change] = []
        for key_size, value_size in zip(sizes[::2], sizes[1::2], strict=True):
            key, at = raw[at : at + key_size], at + key_size
            if value_size == _DELETED:
                items.append((key, None))
            else:
                items.append((key, raw[at : at + value_size]))
                at += value_size
        return cls(items), end


@dataclass(frozen=True, slots=True)
class Staged:
    """A staged version: its root, its new nodes' stored form by nonce - 1, and the keys (12 bytes each) of the nodes it drops."""

    root_key: NodeKey | None
    root_hash: bytes
    new_nodes: Sequence[bytes]
    orphans: bytes


class Engine(Protocol):
    """The committed version of one tree, and the next one while it is staged."""

    @property
    def root_key(self) -> NodeKey | None: ...
    @property
    def hash(self) -> bytes: ...
    def get(self, key: bytes) -> bytes | None: ...
    def has(self, key: bytes) -> bool: ...
    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...

    def stage(self, changes: Changes, version: int) -> Staged:
        """Compute the next version; what was staged before is forgotten. Raises CorruptStore."""

    def commit(self) -> None:
        """The staged version is now the committed one."""

    def nodes(self) -> int:
        """How many nodes are in memory."""

    def shrink(self, keep_nodes: int) -> None:
        """Forget nodes until about ``keep_nodes`` are in memory; they load again when visited."""


class PlainEngine:
    """The tree in Python."""

    def __init__(self, root_key: NodeKey | None, root_hash: bytes, load: Load) -> None:
        self._loads = 0

        def counted(key: NodeKey) -> bytes | None:
            self._loads += 1
            return load(key)

        self._tree = Tree.at(root_key, root_hash, counted)
        self._staged: Tree | None = None
        self._new = 0

    @property
    def root_key(self) -> NodeKey | None:
        return self._tree.root_key

    @property
    def hash(self) -> bytes:
        return self._tree.hash

    def get(self, key: bytes) -> bytes | None:
        return self._tree.get(key)

    def has(self, key: bytes) -> bool:
        return self._tree.has(key)

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return self._tree.iterate(start, end, reverse=reverse)

    def stage(self, changes: Changes, version: int) -> Staged:
        applied = self._tree.apply(changes.items, version)
        self._staged, self._new = applied.tree, len(applied.new_nodes)
        orphans = b"".join(version.to_bytes(8, "big") + nonce.to_bytes(4, "big") for version, nonce in applied.orphans)
        return Staged(applied.tree.root_key, applied.tree.hash, [raw for _, raw in applied.new_nodes], orphans)

    def commit(self) -> None:
        if self._staged is None:
            raise ValueError("nothing is staged")
        self._tree, self._staged = self._staged, None
        self._loads += self._new

    def nodes(self) -> int:
        return self._loads

    def shrink(self, keep_nodes: int) -> None:
        if self._loads > keep_nodes:
            self._loads = self._tree.collapse(max(keep_nodes.bit_length() - 3, 4))


def open_engine(root_key: NodeKey | None, root_hash: bytes, load: Load, *, native: bool = True) -> Engine:
    """The native engine if it was built and ``native`` asks for it, else the plain one."""
    from chain.store.fast import core

    return core.NativeEngine(root_key, root_hash, load) if native and core.available() else PlainEngine(root_key, root_hash, load)
