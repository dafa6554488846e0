"""What a resource node offers: three bits and their text (stratos-chain.md 2.1). Tiers by deposit are the meta nodes' business; the chain knows none."""

from __future__ import annotations

from typing import Final

from modules.register.errors import InvalidNodeType

COMPUTATION: Final = 1
DATABASE: Final = 2
STORAGE: Final = 4
_TEXTS: Final = {
    7: "storage/database/computation",
    6: "database/storage",
    5: "computation/storage",
    3: "computation/database",
    4: "storage",
    2: "database",
    1: "computation",
}


def check_node_type(node_type: int) -> None:
    """Raises InvalidNodeType (register/45) unless 1 to 7."""
    if node_type not in _TEXTS:
        raise InvalidNodeType(f"expected 1 to 7, got {node_type}")


def node_type_text(node_type: int) -> str:
    """The text of events; ``UNKNOWN`` for what is no node type."""
    return _TEXTS.get(node_type, "UNKNOWN")
