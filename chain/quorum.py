"""How many of the active meta nodes decide (storage-protocol.md: quorum)."""

from __future__ import annotations


def quorum(voters: int) -> int:
    """floor(2n / 3) + 1 of n voters."""
    return 2 * voters // 3 + 1
