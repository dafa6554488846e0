"""What a meta node does for resource nodes: who is there, what they say, what is told to them.

hello ─► registry ─► candidates, contacts (users/)          registry ─ changes ─► node_statuses ─► ledger          calls ─► the nodes
"""
