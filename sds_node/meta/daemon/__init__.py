"""``spd`` as a process: its home, its parts put together, started and stopped in order.

config.toml, keys ─► MetaNode ─┬─ value chain: observer, reporter, activation
                               ├─ ledger, books
                               └─ wire: users, nodes, info, relay
"""
