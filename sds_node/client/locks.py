"""A file that one call holds at a time, also among processes: the part of a download, the journal of a put, a lease.

opened(path) ─► opened or made, locked ─► it is still the file of that path ─ no (its holder has just moved or removed it) ─► once more
                   └─ held by another call: None

The lock is the kernel's, and goes with the process that holds it; so a kill leaves none. On a disk that knows no locks there are none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def opened(path: Path, mode: int = 0o666) -> BinaryIO | None:
    """The file, made if it is not there, opened to read and write, and held until it is closed; None while another call holds it. Raises OSError."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    os.close(fd)
                    return None
                if error.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL):
                    raise
            if _is_at(fd, path):
                return os.fdopen(fd, "r+b")
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Have what a file stands for, which is made, and goes at the end: whether one has it, and not another call. Raises OSError when it cannot be made."""
    lock = opened(path, 0o600)
    if lock is None:
        yield False
        return
    with lock:
        try:
            yield True
        finally:
            # One that stays is nobody's.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
