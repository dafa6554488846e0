"""What the auditor remembers of nodes from one day, and from one start, to the next. ``Repair`` keeps it on disk, beside what is to be repaired.

    auditor ─ not proved ─► marked (repair) ─ asked again each day ─ proved ─► unmarked, paid for all its days
            ├ audited, second chance ─► on disk ─► gone on with after a start
            └ not one proof ─► counted ─ twice in a row ─► lost for repair (repair/health.py)

A second chance is kept as the shares that are asked again, 72 bytes each (segment 8, index 4, size 8, leaf 4, serial 16, root 32), and the records of the first
answers behind them. Source: storage-protocol.md 3.5.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Protocol

from sds_node.meta.audits.challenges import Item, framed

_ITEM: Final = struct.Struct(">QIQI16s32s")
_HEAD: Final = struct.Struct(">?I")
_COUNT: Final = struct.Struct(">I")


class Memory(Protocol):
    """``Repair``, or ``Forgetful``."""

    async def marked(self, node: int, most: int) -> dict[int, int]: ...
    async def proved(self, node: int, shares: Sequence[tuple[int, int]]) -> None: ...
    async def not_proved(self, node: int) -> None: ...
    async def audited(self, node: int, day: int, second_s: float | None, items: bytes) -> None: ...
    async def all_audited(self) -> list[tuple[int, int, float | None, bytes]]: ...


class Forgetful:
    """Remembers nothing: for a meta node without repair."""

    async def marked(self, node: int, most: int) -> dict[int, int]:
        return {}

    async def proved(self, node: int, shares: Sequence[tuple[int, int]]) -> None:
        return

    async def not_proved(self, node: int) -> None:
        return

    async def audited(self, node: int, day: int, second_s: float | None, items: bytes) -> None:
        return

    async def all_audited(self) -> list[tuple[int, int, float | None, bytes]]:
        return []


def packed(items: Sequence[Item], records: Sequence[bytes], *, has_proved: bool) -> bytes:
    """A second chance as bytes. ``has_proved``: the first time something was proved."""
    fields = [_ITEM.pack(one.segment, one.index, one.size_bytes, one.leaf, one.serial, one.share_root) for one in items]
    return b"".join([_HEAD.pack(has_proved, len(fields)), *fields, *map(framed, records)])


def unpacked(raw: bytes) -> tuple[list[Item], list[bytes], bool]:
    """The reverse of ``packed``."""
    has_proved, count = _HEAD.unpack_from(raw)
    at = _HEAD.size + count * _ITEM.size
    items = [
        Item(segment, index, serial, root, size_bytes, leaf)
        for segment, index, size_bytes, leaf, serial, root in _ITEM.iter_unpack(raw[_HEAD.size : at])
    ]
    records = []
    while at < len(raw):
        (size,) = _COUNT.unpack_from(raw, at)
        records.append(raw[at + _COUNT.size : at + _COUNT.size + size])
        at += _COUNT.size + size
    return items, records, has_proved
