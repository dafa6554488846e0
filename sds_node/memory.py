"""Memory of programs that move much content: what was freed is kept for the next piece, and large room is made of large pages.

pieces of 256 KiB to 1 MiB come and go ─► glibc would give each back to the system, and the system clears every page of the next one
rooms for shares and segments ─► used again as soon as nobody has a view of them
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import threading
from typing import Final

KEPT_BYTES: Final = 32 << 20
"""Of freed memory as much stays with the process."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt."""
_LARGE_PAGE_BYTES: Final = 2 << 20


KEPT_ROOM_BYTES: Final = 132 << 20
"""Of rooms that nobody uses as much stays with a process that keeps freed memory: two segments of 32 MiB, rounded up to whole shares, with what 5 of 10 adds to them."""


class _Rooms:
    """Rooms that were made, for the next one of the same size. A view of a room holds it, so a room that only this list holds is free."""

    def __init__(self) -> None:
        self.most_bytes = 0
        self._made: list[mmap.mmap] = []
        self._lock = threading.Lock()
        # References to something that a list holds, counted as below: the list's, and what counting itself takes in this Python.
        for one in [object()]:
            self._of_nobody = sys.getrefcount(one)

    def free(self, size_bytes: int) -> mmap.mmap | None:
        """One of that size that nobody uses."""
        with self._lock:
            for made in self._made:
                if len(made) == size_bytes and sys.getrefcount(made) == self._of_nobody:
                    return made
        return None

    def keep(self, new: mmap.mmap) -> None:
        """Remember one; those that nobody uses go, the oldest first, when all are more than may be kept."""
        if len(new) > self.most_bytes:
            return
        with self._lock:
            left_bytes = sum(map(len, self._made)) + len(new) - self.most_bytes
            for made in list(self._made):
                if left_bytes <= 0:
                    break
                if sys.getrefcount(made) == self._of_nobody + 1:  # this loop's list has it, too
                    self._made.remove(made)
                    left_bytes -= len(made)
            if left_bytes <= 0:
                self._made.append(new)


_rooms: Final = _Rooms()


def keep_freed_memory() -> bool:
    """From now on freed memory stays with this process: up to 32 MiB, and 132 MiB of rooms. False where the C library has no such setting; then only
    rooms are kept.
    """
    _rooms.most_bytes = KEPT_ROOM_BYTES
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, KEPT_BYTES) and mallopt(_TRIM_THRESHOLD, KEPT_BYTES))


def room(size_bytes: int) -> memoryview:
    """Memory that can be written to; what is in it may be anything. It is free again when nobody has a view of it."""
    if size_bytes < 2 * _LARGE_PAGE_BYTES:
        return memoryview(bytearray(size_bytes))
    found = _rooms.free(size_bytes)
    if found is not None:
        return memoryview(found)
    made = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A kernel or system without large pages gives the memory all the same.
    with contextlib.suppress(OSError, AttributeError):
        made.madvise(mmap.MADV_HUGEPAGE)
    _rooms.keep(made)
    return memoryview(made)
