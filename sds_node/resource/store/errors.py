"""What can go wrong with the share store, as sentences a caller or an operator can act on.

StoreError              the store cannot do what was asked
├── StoreLocked         another process has the folder open
├── StoreFull           no room: capacity, free space, files, or the disk said so
├── StoreUnusable       the disk or the folder refuses, or the store is closed
├── IndexDamaged        the index holds what was never written: rebuild it from the files
├── StoreBusy           too many unfinished writes, or this copy is being written now
├── ShareRefused        what the caller handed in breaks a rule: root, size, serial, manifest, range
├── ShareNotFound       no such share or copy is kept
├── ShareExists         this copy is kept already
└── ShareDamaged        the bytes on disk are not the share's; they were put aside
"""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot do what was asked; nothing that was acknowledged is lost by it."""


class StoreLocked(StoreError):
    """Another process has the folder open."""


class StoreFull(StoreError):
    """There is no room for it."""


class StoreUnusable(StoreError):
    """The disk or the folder refuses, or the store is closed."""


class IndexDamaged(StoreError):
    """The index is missing, or holds what was never written there."""


class StoreBusy(StoreError):
    """As many writes are under way as are allowed, or this very copy is being written."""


class ShareRefused(StoreError):
    """What was handed in breaks a rule; nothing of it is kept."""


class ShareNotFound(StoreError):
    """No such share or copy is kept."""


class ShareExists(StoreError):
    """This copy is kept already."""


class ShareDamaged(StoreError):
    """The bytes on disk are not the share's. They are never served."""
