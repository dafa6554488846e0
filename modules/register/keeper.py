"""Deposits, nodes, votes and debts."""

from __future__ import annotations

from modules.register.expected import Bank, CommunityPool


class RegisterKeeper:
    """Deposits, nodes, votes and debts."""

    def __init__(self, bank: Bank, community: CommunityPool) -> None:
        self._bank = bank
        self._community = community
