"""What a legacy session may do: one task, on the one file that its string names.

    upload            plan, one lease, places of its one object, its commit             download, download_shared    one lease, places of that file
    read of a file    find it, its health        of nothing: lists        of a link: open it

Source: storage-protocol.md 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from modules.settlement.leaves import GET, PUT
from sds_node import asking
from sds_node.hashes import is_hash

TASKS: Final = ("upload", "download", "download_shared", "read")
ACTIONS: Final = {"upload": (PUT,), "download": (GET,), "download_shared": (GET,), "read": ()}
LIFE_S: Final = 3_600
"""Of a session; its string is used up in its first minutes, its lease ends with it."""
_ALWAYS: Final = frozenset({asking.WALLET_INFO})
_SPENDS: Final = frozenset({asking.LEASE_TAKE, asking.LEASE_END})
_READS: Final = frozenset({asking.FILE_FIND, asking.FILE_SEGMENTS, asking.SHARE_OPEN, asking.PLACE_GET})


@dataclass(slots=True, eq=False)
class Task:
    """A task that a wallet's string opened. ``subject`` is what the string names."""

    kind: str
    wallet: bytes
    subject: str
    ask: Any
    size_bytes: int
    session_key: bytes
    ends_s: int
    leases: int = 0
    lent: tuple[bytes, Any] | None = None
    """The LeaseHead that was asked with, and the reply: sent again, it is answered again."""
    is_over: bool = False
    """Its lease was ended."""
    is_done: bool = False
    """The sequence number went on, or need not."""

    @property
    def file_hash(self) -> str:
        """The content that it is about; empty where the string names none."""
        return self.subject if is_hash(self.subject) else ""

    @property
    def methods(self) -> frozenset[str]:
        """What may be asked of a meta node in it."""
        if self.kind == "upload":
            return _ALWAYS | _SPENDS | {asking.OBJECT_PLAN, asking.FILE_FIND, asking.PLACE_PUT, asking.PLACE_ANOTHER, asking.OBJECT_COMMIT}
        if self.kind in ("download", "download_shared"):
            return _ALWAYS | _SPENDS | _READS
        if not self.subject:
            return _ALWAYS | {asking.FILE_LIST, asking.FILE_FIND, asking.SHARE_LIST}
        return _ALWAYS | ({asking.FILE_FIND, asking.FILE_HEALTH} if self.file_hash else {asking.SHARE_OPEN})
