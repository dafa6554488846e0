"""Files on the gateway's disk that nobody else sees: what is uploaded until it is stored, a segment that is downloaded until it was handed out.

Room (bytes in all) ─ take ─► Spool (an unlinked file: gone with the process) ─ close ─► the room is free again
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from sds_node.gateway.backend import BackendError

PIECE_BYTES: Final = 4 << 20
T = TypeVar("T")


class NoRoom(BackendError):
    """The gateway's disk is full, or as full as its operator lets it be."""


class Room:
    """The disk space that spools share, in ``folder``."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self.taken_bytes = 0

    def take(self, size_bytes: int) -> Spool:
        """A spool of that size. Raises NoRoom."""
        if self.taken_bytes + size_bytes > self.most_bytes:
            raise NoRoom(f"this gateway has no room for {size_bytes} bytes more now: try again later, or another gateway")
        try:
            # It has no name, so a process that is killed leaves nothing behind.
            file: BinaryIO = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
        except OSError as error:
            raise NoRoom(f"this gateway cannot keep what is uploaded now ({error.strerror}): try again later, or another gateway") from None
        self.taken_bytes += size_bytes
        return Spool(self, file, size_bytes)


class Spool:
    """So many bytes of disk."""

    def __init__(self, room: Room, file: BinaryIO, size_bytes: int) -> None:
        self._room, self._file, self.size_bytes = room, file, size_bytes
        self._users = 0
        self._is_closed = False

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put bytes at an offset. Raises NoRoom when the disk is full, BackendError when the spool was given back."""
        await self._do(lambda: _write(self._file.fileno(), offset, data))

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes from an offset on."""
        return await self._do(lambda: os.pread(self._file.fileno(), length, offset))

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, in pieces of 4 MiB."""
        for start in range(0, self.size_bytes, PIECE_BYTES):
            yield await self.read(start, min(PIECE_BYTES, self.size_bytes - start))

    def duplicate(self) -> int:
        """A file descriptor of its own for the same file, for who reads it as a file; the caller closes it."""
        return os.dup(self._file.fileno())

    async def _do(self, work: Callable[[], T]) -> T:
        if self._is_closed:
            raise BackendError("this upload or download was ended: begin again")
        self._users += 1
        # Whoever waits may be cancelled; the thread goes on with the file, which stays open so long.
        task = asyncio.get_running_loop().run_in_executor(None, work)
        task.add_done_callback(self._left)
        try:
            return await asyncio.shield(task)
        except OSError as error:
            raise NoRoom(f"this gateway's disk cannot be used now ({error.strerror}): try again later, or another gateway") from None

    def _left(self, task: asyncio.Future[Any]) -> None:
        self._users -= 1
        self._free()
        if not task.cancelled():
            task.exception()

    def close(self) -> None:
        """Give the room back, at once; what still reads or writes ends with an error or is done first."""
        if not self._is_closed:
            self._is_closed = True
            self._room.taken_bytes -= self.size_bytes
            self._free()

    def _free(self) -> None:
        if self._is_closed and not self._users:
            self._file.close()


def _write(handle: int, offset: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
