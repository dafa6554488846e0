"""Bounds on what a transaction may be made of, before anything is computed with it."""

from typing import Final

MAX_TX_BYTES: Final = 8 << 20
MAX_MESSAGES: Final = 1000
MAX_SIGNATURES: Final = 1000
MAX_FEE_COINS: Final = 100
