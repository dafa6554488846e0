"""Pools, campaigns, claims, and granted ozone that is not used yet."""

from __future__ import annotations

from modules.grant.expected import Bank, Ozone


class GrantKeeper:
    """Pools, campaigns, claims, and granted ozone that is not used yet."""

    def __init__(self, bank: Bank, ozone: Ozone) -> None:
        self._bank = bank
        self._ozone = ozone
