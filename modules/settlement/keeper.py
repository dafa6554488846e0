"""Keys, commitments and evidence."""

from __future__ import annotations

from modules.settlement.expected import Bank, CommunityPool, Grant, Pot, Register


class SettlementKeeper:
    """Keys, commitments and evidence."""

    def __init__(self, bank: Bank, community: CommunityPool, register: Register, grant: Grant) -> None:
        self._bank = bank
        self._community = community
        self._register = register
        self._grant = grant
        self._pot: Pot | None = None

    def set_pot(self, pot: Pot) -> None:
        """Who voids an epoch; pot takes this keeper in turn, so it comes after."""
        self._pot = pot
