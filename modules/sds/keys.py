"""Store ``sds``: the original's layout."""

from __future__ import annotations

from typing import Final

STORE: Final = "sds"

FILES: Final = b"\x01"
PARAMS: Final = b"\x20"
"""→ Params, its bytes alone"""


def file(file_hash: str) -> bytes:
    """``01 | text of the CID`` → FileInfo behind its length (uvarint)."""
    return FILES + file_hash.encode()
