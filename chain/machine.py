"""What stops a node. One list, so that no layer takes for a transaction's fault what another stops for."""

from __future__ import annotations

from typing import Final

from chain.errors import Halt, InvariantBroken
from chain.store.errors import StoreError

MACHINE_ERRORS: Final = (Halt, InvariantBroken, StoreError, MemoryError, RecursionError, OSError)
"""Errors of the machine, of the store, of our own promises, or on purpose: not the transaction's, whatever ran when they came."""
