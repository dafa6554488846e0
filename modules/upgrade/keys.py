"""Store ``upgrade``: the layout of SDK 0.50. Numbers are big-endian."""

from __future__ import annotations

STORE = "upgrade"

PLAN = b"\x00"
"""→ Plan"""
DONE = b"\x01"
VERSIONS = b"\x02"
PROTOCOL_VERSION = b"\x03"
"""→ number of upgrades that this chain has applied, 8 bytes"""


def done(name: str, height: int) -> bytes:
    """``01 | height 8 | name`` → 01."""
    return DONE + height.to_bytes(8, "big") + name.encode()


def split_done(key: bytes) -> tuple[str, int]:
    """(name, height) of a done key."""
    return key[9:].decode(), int.from_bytes(key[1:9], "big")


def version(module: str) -> bytes:
    """``02 | module`` → consensus version, 8 bytes."""
    return VERSIONS + module.encode()


def upgraded_client(height: int) -> bytes:
    """``upgradedIBCState/<height>/upgradedClient`` → what IBC peers verify after an upgrade at ``height``."""
    return f"upgradedIBCState/{height}/upgradedClient".encode()


def upgraded_consensus_state(height: int) -> bytes:
    """``upgradedIBCState/<height>/upgradedConsState``, as ``upgraded_client``."""
    return f"upgradedIBCState/{height}/upgradedConsState".encode()
