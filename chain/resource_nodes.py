"""What a resource node offers: three bits and their text (stratos-chain.md 2.1). Tiers by deposit are the meta nodes' business; the chain knows none."""

from __future__ import annotations

from typing import Final

TEXTS: Final = {
    7: "storage/database/computation",
    6: "database/storage",
    5: "computation/storage",
    3: "computation/database",
    4: "storage",
    2: "database",
    1: "computation",
}
"""1 is computation, 2 database, 4 storage."""


def node_type_text(node_type: int) -> str:
    """The text of events; ``UNKNOWN`` for what is no node type."""
    return TEXTS.get(node_type, "UNKNOWN")
