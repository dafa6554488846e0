"""Which node types a resource node may have."""

from __future__ import annotations

from chain.resource_nodes import TEXTS
from modules.register.errors import InvalidNodeType


def check_node_type(node_type: int) -> None:
    """Raises InvalidNodeType (register/45) unless 1 to 7."""
    if node_type not in TEXTS:
        raise InvalidNodeType(f"expected 1 to 7, got {node_type}")
