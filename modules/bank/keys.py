"""Store ``bank``: SDK 0.50's layout. A balance or supply of zero is never stored."""

STORE = "bank"

SUPPLY = b"\x00"
METADATA = b"\x01"
BALANCES = b"\x02"
HOLDERS = b"\x03"
SEND_ENABLED = b"\x04"
PARAMS = b"\x05"
"""→ Params"""


def supply(denom: str) -> bytes:
    """``00 | denom`` → Int as text."""
    return SUPPLY + denom.encode()


def metadata(denom: str) -> bytes:
    """``01 | denom`` → Metadata."""
    return METADATA + denom.encode()


def balances_of(address: bytes) -> bytes:
    """``02 | length | address``: prefix of an account's balances."""
    return BALANCES + bytes([len(address)]) + address


def balance(address: bytes, denom: str) -> bytes:
    """``02 | length | address | denom`` → Int as text."""
    return BALANCES + bytes([len(address)]) + address + denom.encode()


def holders_of(denom: str) -> bytes:
    """``03 | denom | 00``: prefix of a denom's holders."""
    return HOLDERS + denom.encode() + b"\x00"


def holder(denom: str, address: bytes) -> bytes:
    """``03 | denom | 00 | length | address`` → empty."""
    return HOLDERS + denom.encode() + b"\x00" + bytes([len(address)]) + address


def send_enabled(denom: str) -> bytes:
    """``04 | denom`` → BoolValue."""
    return SEND_ENABLED + denom.encode()


def plain_heads(denom: str) -> tuple[bytes, bytes, bytes]:
    """(head, tail) of the balance key and head of the holder key of ``denom`` for an address of 20 bytes: the address stands between."""
    return balance(bytes(20), "")[:2], denom.encode(), holder(denom, bytes(20))[:-20]


def split_balance(key: bytes) -> tuple[bytes, str]:
    """(address, denom) of a balance key."""
    end = 2 + key[1]
    return key[2:end], key[end:].decode()


def split_holder(key: bytes, denom: str) -> bytes:
    """The address of a holder key."""
    return key[len(HOLDERS) + len(denom) + 2 :]
