"""What every part that writes files needs of the disk."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(path: str | Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
