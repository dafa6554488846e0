"""What a resource node keeps on disk: shares by Merkle root and copy, each in a file that tells everything about it, and an index over them.

    layout ◄─ index ◄─ shares ◄─ upkeep            bytes of a file · rows and commits · the store · trash, scrubbing, rebuild, verify

``open_store`` begins; the README says what is promised, what is on disk and why.
"""

from sds_node.resource.store.clock import Clock
from sds_node.resource.store.errors import (
    IndexDamaged,
    ShareDamaged,
    ShareExists,
    ShareNotFound,
    ShareRefused,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnusable,
)
from sds_node.resource.store.index import Copy, Kept, Totals
from sds_node.resource.store.layout import Key, State
from sds_node.resource.store.shares import Reader, Settings, ShareStore, Writer, open_store
from sds_node.resource.store.upkeep import Collected, Rebuilt, Scrubbed, collect, rebuild, scrub, verify

__all__ = [
    "Clock",
    "Collected",
    "Copy",
    "IndexDamaged",
    "Kept",
    "Key",
    "Reader",
    "Rebuilt",
    "Scrubbed",
    "Settings",
    "ShareDamaged",
    "ShareExists",
    "ShareNotFound",
    "ShareRefused",
    "ShareStore",
    "State",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreUnusable",
    "Totals",
    "Writer",
    "collect",
    "open_store",
    "rebuild",
    "scrub",
    "verify",
]
