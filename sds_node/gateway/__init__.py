"""The gateway for the original's clients: JSON-RPC 2.0 with both of their dialects, in front of the storage network (reference sds.md 5)."""
