"""Store ``mint``: SDK 0.50's layout."""

STORE = "mint"

MINTER = b"\x00"
"""→ Minter"""
PARAMS = b"\x01"
"""→ Params"""
