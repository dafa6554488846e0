"""Epochs and rewards."""

from __future__ import annotations

from modules.pot.expected import Bank, CommunityPool, Register, Settlement, Staking


class PotKeeper:
    """Epochs and rewards."""

    def __init__(self, bank: Bank, community: CommunityPool, register: Register, settlement: Settlement, staking: Staking) -> None:
        self._bank = bank
        self._community = community
        self._register = register
        self._settlement = settlement
        self._staking = staking
