"""Serials that a meta node may give, for tests that make documents and commits by hand."""

from __future__ import annotations

from hashlib import sha256

from modules.settlement.leaves import PREFIX_BYTES, SERIAL_BYTES, serial_prefix

OWN_BYTES = SERIAL_BYTES - PREFIX_BYTES


def own_serial(meta_node: bytes, number: int) -> bytes:
    """The serial of a meta node (20 bytes) with that number, below 2^64."""
    return serial_prefix(meta_node) + number.to_bytes(OWN_BYTES, "big")


def first_serial(meta_node: bytes, seed: bytes) -> bytes:
    """A serial of a meta node that follows from a seed, with room for 256 that follow it."""
    return serial_prefix(meta_node) + sha256(seed).digest()[: OWN_BYTES - 1] + b"\0"
