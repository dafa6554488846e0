"""What a meta node does for clients of the original: sessions and orders by the strings that their wallets sign (docs/adr/0009)."""

from sds_node.meta.legacy.service import Legacy

__all__ = ["Legacy"]
