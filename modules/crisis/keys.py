"""Store ``crisis``: SDK 0.50's layout."""

STORE = "crisis"

CONSTANT_FEE = b"\x01"
"""→ Coin"""
