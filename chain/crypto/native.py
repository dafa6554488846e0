"""A native part that ``make setup`` builds, and that nothing needs to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_library(ffi: Any, path: Path) -> Any | None:
    """The library at ``path`` for cffi's ``ffi``, in ABI mode; None where it was not built, or does not load."""
    if not path.is_file():
        return None
    try:
        return ffi.dlopen(str(path))
    except OSError:
        return None
