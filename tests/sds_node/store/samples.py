"""Shares for tests: bytes that follow from a number, and the two lines that put them into a store."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from sds_node.merkle import share_root
from sds_node.resource.store import Clock, Copy, Key, Settings, ShareStore, open_store
from sds_node.resource.store.layout import path_in

SMALL = Settings(reserve_bytes=0, max_writers=8, pending_s=100, trash_s=1000, writer_idle_s=50)


def share(number: int, size_bytes: int = 40_000) -> tuple[bytes, bytes]:
    """(bytes, root)"""
    data = random.Random(number).randbytes(size_bytes)
    return data, share_root(data)


def serial(number: int) -> bytes:
    return number.to_bytes(16, "big")


def put(store: ShareStore, number: int, size_bytes: int = 40_000, *, serial_number: int = 1, manifest: bytes = b"manifest") -> Key:
    """Store a share as a whole. Returns its copy's name."""
    data, root = share(number, size_bytes)
    with store.begin(root, size_bytes, serial(serial_number), manifest) as writer:
        writer.write(data)
        return writer.finish().key


def nothing(_label: str) -> None:
    pass


class Time:
    """Clocks that stand still until they are moved."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_800_000_000.0, 50.0

    def pass_s(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic)


def opened(home: Path, settings: Settings = SMALL, time: Time | None = None, at_step: Callable[[str], None] = nothing) -> ShareStore:
    return open_store(home / "store", settings, clock=(time or Time()).clock(), at_step=at_step)


def states(store: ShareStore) -> dict[Key, str]:
    return {copy.key: copy.state.name for copy in store.inventory()}


def files_of(store: ShareStore) -> list[str]:
    """Names of all files below shares/, tmp/ and quarantine/."""
    return sorted(path.name for folder in ("shares", "tmp", "quarantine") for path in (store.home / folder).rglob("*") if path.is_file())


def path(store: ShareStore, key: Key) -> Path:
    return Path(path_in(store.home, key))


def only(copies: list[Copy]) -> Copy:
    [copy] = copies
    return copy
