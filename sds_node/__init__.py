"""The storage network: resource nodes that keep and serve shares, meta nodes that place, audit and settle (docs/adr/0007)."""
