"""Who may change parameters: the account of the gov module (reference stratos-chain.md 1.9)."""

from __future__ import annotations

from typing import Final

from chain.crypto import address as bech32
from chain.errors import AppError

GOV_ADDRESS: Final = bech32.module_address("gov")


class InvalidSigner(AppError):
    """gov/13: somebody other than the gov account tried to change parameters."""

    codespace = "gov"
    code = 13
    description = "expected gov account as only signer for proposal message"


def require_gov(authority: str) -> None:
    """Raise InvalidSigner (gov/13) unless ``authority`` is the gov account."""
    if bech32.decode(authority) != GOV_ADDRESS:
        raise InvalidSigner(f"invalid authority; expected {bech32.encode(GOV_ADDRESS)}, got {authority}")
