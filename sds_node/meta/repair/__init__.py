"""Repair: shares that nodes lost are made again, those that leave hand theirs over (storage-protocol.md 3.2).

health.py   whose shares are healthy, which segments need repair     worker.py    one segment: judged, paid, read, computed, stored, moved
queue.py    what waits, on disk, by urgency                          funds.py     who pays      placing.py  where to      issuing.py   order limits
damage.py   what nodes have against the ledger                       transfer.py  shares from and to nodes                moves.py     into the ledger
repair.py   all of it
"""

from sds_node.meta.repair.known import Settings
from sds_node.meta.repair.repair import Repair

__all__ = ["Repair", "Settings"]
