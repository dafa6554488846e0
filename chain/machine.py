"""What stops a node. One list, so that no layer takes for a transaction's fault what another stops for."""

from __future__ import annotations

from typing import Final

from chain.errors import Halt
from chain.store.errors import StoreError

MACHINE_ERRORS: Final = (Halt, StoreError, MemoryError, RecursionError, OSError)
"""Errors of the machine, of the store, or on purpose: not the transaction's, whatever ran when they came. A broken promise of our own
(InvariantBroken) stops the node in a block's hooks; in a transaction it fails that one alone, so that nobody can stop the chain with it."""
