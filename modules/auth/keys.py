"""Store ``acc``: SDK 0.50's layout."""

STORE = "acc"

PARAMS = b"\x00"
"""→ Params"""
NEXT_ACCOUNT_NUMBER = b"\x02"
"""→ the next account number, 8 bytes big-endian"""
_ACCOUNT = b"\x01"
_NUMBER = b"accountNumber"
ACCOUNTS = _ACCOUNT


def account(address: bytes) -> bytes:
    """``01 | address`` → the account, as Any."""
    return _ACCOUNT + address


def by_number(number: int) -> bytes:
    """``"accountNumber" | number, 8 bytes big-endian`` → address."""
    return _NUMBER + number.to_bytes(8, "big")
