"""What can go wrong with the database, as sentences an operator can act on.

StoreError            the database cannot be used
├── StoreLocked       another process holds it
└── CorruptStore      what is read back is not what was written: stops the node
VersionPruned         sdk/18: a version that is no longer kept was asked for
FutureVersion         sdk/26: a version that does not exist yet was asked for
"""

from __future__ import annotations

from chain.errors import InvalidHeight, InvalidRequest


class StoreError(Exception):
    """The database cannot be opened, read or written."""


class StoreLocked(StoreError):
    """Another process has the database open."""


class CorruptStore(StoreError):
    """The database holds something that was never written there."""


class VersionPruned(InvalidRequest):  # type: ignore[valid-type,misc]
    """The version asked for has been pruned."""


class FutureVersion(InvalidHeight):  # type: ignore[valid-type,misc]
    """The version asked for is above the latest one."""
