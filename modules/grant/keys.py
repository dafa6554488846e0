"""Store ``grant``."""

from __future__ import annotations

from typing import Final

STORE: Final = "grant"
