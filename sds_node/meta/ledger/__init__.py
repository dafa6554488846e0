"""The meta node's ledger: operations in one order, tables that they change, and a hash of every change (docs/adr/0007).

operation ──► core: apply ──► overlay ──► one database transaction: rows, log, head
               ▲      └─► app hash = SHA-256(previous ‖ SHA-256(rows changed))
engine.py (a local log, group commit)   or   blocks.py (CometBFT's blocks)
"""
