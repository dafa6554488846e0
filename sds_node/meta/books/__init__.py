"""What a meta node keeps by itself: receipts that it holds, the windows they went into, the data of epochs, what nodes are yet to be told (ADR 9).

node.receipts ─ judged ─► held ─ windows ─► settled ─ epochs ─► reported          books.py has the file, the others what it means
"""
