"""Sells ozone, and records files."""

from __future__ import annotations

from modules.sds.expected import Bank, Register


class SdsKeeper:
    """Sells ozone, and records files."""

    def __init__(self, bank: Bank, register: Register) -> None:
        self._bank = bank
        self._register = register
