"""What the store offers to the rest of the node: the types others may depend on.

    view     an immutable, committed version (reads are free of gas)
    State    an overlay over a view, with nested marks and gas (``chain/store/state.py``)

A module sees ``StateReader`` in queries and ``StateWriter`` in handlers; neither leads to a local index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class KVReader(Protocol):
    """Read access to one store. Keys are 1 to 65535 bytes. A value may be empty (b""), though ICS-23 cannot prove such an entry."""

    def get(self, key: bytes) -> bytes | None:
        """The value at ``key``, or None."""

    def has(self, key: bytes) -> bool:
        """True if ``key`` has a value."""

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start <= key < end`` in key order (or from the end backwards); None means no bound."""


class KVWriter(KVReader, Protocol):
    """Read and write access to one store."""

    def set(self, key: bytes, value: bytes) -> None:
        """Write ``value`` (may be empty) at ``key`` (not empty)."""

    def delete(self, key: bytes) -> None:
        """Remove ``key``; removing what is not there is no error."""


class StateReader(Protocol):
    """All stores of the chain, to read."""

    def store(self, name: str) -> KVReader:
        """The store of that name. Raises KeyError for a name that is not mounted."""


class StateWriter(StateReader, Protocol):
    """All stores of the chain, to read and write, with undo."""

    def store(self, name: str) -> KVWriter:
        """The store of that name. Raises KeyError for a name that is not mounted."""

    def mark(self) -> int:
        """A point to come back to; marks nest."""

    def rollback(self, mark: int) -> None:
        """Undo every write since ``mark``."""


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after every key that starts with ``prefix``; None if there is none (empty or all 0xff)."""
    trimmed = prefix.rstrip(b"\xff")
    if not trimmed:
        return None
    return trimmed[:-1] + bytes([trimmed[-1] + 1])
