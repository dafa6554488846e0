"""Store ``slashing``: SDK 0.50's layout. Addresses are consensus addresses, length-prefixed by one byte."""

STORE = "slashing"

PARAMS = b"\x00"
"""→ Params"""
SIGNING_INFOS = b"\x01"
CHUNKS = b"\x02"
PUBLIC_KEYS = b"\x03"


def _sized(address: bytes) -> bytes:
    return bytes([len(address)]) + address


def signing_info(cons: bytes) -> bytes:
    """``01 | length | address`` → ValidatorSigningInfo."""
    return SIGNING_INFOS + _sized(cons)


def chunks_of(cons: bytes) -> bytes:
    """``02 | length | address``: prefix of a validator's missed blocks."""
    return CHUNKS + _sized(cons)


def chunk(cons: bytes, number: int) -> bytes:
    """``02 | length | address | number, 8 bytes, little-endian`` → 1024 bits (``bitmap.py``)."""
    return chunks_of(cons) + number.to_bytes(8, "little")


def public_key(cons: bytes) -> bytes:
    """``03 | length | address`` → Any of the consensus key."""
    return PUBLIC_KEYS + _sized(cons)


def split_signing_info(key: bytes) -> bytes:
    """The address of a signing info's key."""
    return key[2:]
