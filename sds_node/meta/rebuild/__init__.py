"""What outlives the loss of all ledgers: manifests that nodes keep, and the ledger that is made of them (docs/meta-nodes.md, "When all ledgers are lost").

stating.py   rows of the ledger ─► an object's manifest              gathering.py  nodes ─► pages, judged ─► found.py, on disk
giving.py    manifests ─► the nodes that hold the object's shares    balances.py   the value chain ─► what is owed, to whom
compared.py  what a node keeps of them, against the ledger           making.py     both ─► rows ─► an export
"""
