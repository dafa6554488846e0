"""Files and folders that survive a power cut: made private, written whole, made durable; what the system refuses becomes a sentence."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sds_node.files import sync_folder
from sds_node.resource.store.errors import StoreError, StoreFull, StoreLocked, StoreUnusable

FREE_FILES: Final = 1024
"""As many more files must fit on the disk, where it has a limit of them."""

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED: Final = {errno.EROFS, errno.EACCES, errno.EPERM}


def told(error: OSError, home: Path) -> StoreError:
    """What an operator should read when the system refuses."""
    text = error.strerror or str(error)
    if error.errno in _FULL:
        return StoreFull(f"the disk of the share store in {home} is full ({text}): free some space, or lower the node's capacity; nothing is lost")
    if error.errno in _REFUSED:
        return StoreUnusable(f"the share store in {home} may not be written ({text}): see that its folder belongs to the node's user and is writable")
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return StoreUnusable(f"the share store in {home} cannot open more files ({text}): raise the limit of open files of the node")
    return StoreUnusable(f"the disk of the share store in {home} failed ({text}): see that it works, then start again")


@contextlib.contextmanager
def disk_errors(home: Path) -> Iterator[None]:
    """Have an OSError come out as a StoreError."""
    try:
        yield
    except OSError as error:
        raise told(error, home) from error


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of it at the file's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def lock_folder(home: Path) -> int:
    """Hold ``home`` for this process; the descriptor that holds it. Raises StoreLocked when another one does."""
    fd = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreLocked(f"the share store in {home} is open in another process: stop that one, or give this node a folder of its own") from None
    except OSError:
        os.close(fd)
        raise
    return fd


def check_room(home: Path, wanted_bytes: int, reserve_bytes: int) -> None:
    """Raises StoreFull unless ``wanted_bytes`` fit on the disk with ``reserve_bytes`` left over."""
    disk = os.statvfs(home)
    free_bytes = disk.f_bavail * disk.f_frsize
    if free_bytes - wanted_bytes < reserve_bytes:
        raise StoreFull(
            f"the disk of the share store in {home} has {free_bytes} bytes free, of which {reserve_bytes} are kept free, "
            f"and {wanted_bytes} are wanted: free some space, or lower the node's capacity"
        )
    if disk.f_files and disk.f_favail < FREE_FILES:
        raise StoreFull(f"the disk of the share store in {home} has room for {disk.f_favail} more files, fewer than {FREE_FILES}: free some")


class Folders:
    """The two levels of folders below ``shares/``, made when they are first needed."""

    def __init__(self, home: Path) -> None:
        self._shares = f"{home}/shares"
        self._durable: set[str] = set()  # at most 65,536 short names
        self._lock = threading.Lock()

    def make(self, folder: str) -> None:
        """See that ``folder`` ("ab/cd") is there, and private."""
        if folder not in self._durable or not os.path.isdir(f"{self._shares}/{folder}"):
            with self._lock:
                self._durable.discard(folder)
                for path in (f"{self._shares}/{folder[:2]}", f"{self._shares}/{folder}"):
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(path, 0o700)

    def sync(self, folder: str) -> None:
        """Make the names in ``folder`` durable, and its own name when that is not known to be. A folder that is not there is left alone."""
        try:
            sync_folder(f"{self._shares}/{folder}")
        except FileNotFoundError:
            return
        if folder not in self._durable:
            sync_folder(f"{self._shares}/{folder[:2]}")
            sync_folder(self._shares)
            self._durable.add(folder)
