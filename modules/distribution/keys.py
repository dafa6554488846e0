"""Store ``distribution``: SDK 0.50's layout. An address is preceded by its length in one byte."""

from __future__ import annotations

STORE = "distribution"

FEE_POOL = b"\x00"
"""→ FeePool"""
PROPOSER = b"\x01"
"""→ BytesValue: consensus address of the last block's proposer"""
OUTSTANDING = b"\x02"
WITHDRAW_ADDRESSES = b"\x03"
STARTING_INFOS = b"\x04"
HISTORICAL = b"\x05"
CURRENT = b"\x06"
COMMISSIONS = b"\x07"
SLASHES = b"\x08"
PARAMS = b"\x09"
"""→ Params"""


def _sized(address: bytes) -> bytes:
    return bytes((len(address),)) + address


def outstanding(operator: bytes) -> bytes:
    """``02 | length | operator`` → ValidatorOutstandingRewards."""
    return OUTSTANDING + _sized(operator)


def withdraw_address(delegator: bytes) -> bytes:
    """``03 | length | delegator`` → address."""
    return WITHDRAW_ADDRESSES + _sized(delegator)


def starting_info(operator: bytes, delegator: bytes) -> bytes:
    """``04 | length | operator | length | delegator`` → DelegatorStartingInfo."""
    return STARTING_INFOS + _sized(operator) + _sized(delegator)


def historical_of(operator: bytes) -> bytes:
    """``05 | length | operator``: prefix of a validator's ended periods."""
    return HISTORICAL + _sized(operator)


def historical(operator: bytes, period: int) -> bytes:
    """``05 | length | operator | period (8 bytes, little-endian)`` → ValidatorHistoricalRewards."""
    return historical_of(operator) + period.to_bytes(8, "little")


def current(operator: bytes) -> bytes:
    """``06 | length | operator`` → ValidatorCurrentRewards."""
    return CURRENT + _sized(operator)


def commission(operator: bytes) -> bytes:
    """``07 | length | operator`` → ValidatorAccumulatedCommission."""
    return COMMISSIONS + _sized(operator)


def slashes_of(operator: bytes) -> bytes:
    """``08 | length | operator``: prefix of a validator's slashes."""
    return SLASHES + _sized(operator)


def slashes_from(operator: bytes, height: int) -> bytes:
    """``08 | length | operator | height (8 bytes, big-endian)``: prefix of the slashes at a height."""
    return slashes_of(operator) + height.to_bytes(8, "big")


def slash(operator: bytes, height: int, period: int) -> bytes:
    """``08 | length | operator | height | period (8 bytes, big-endian)`` → ValidatorSlashEvent."""
    return slashes_from(operator, height) + period.to_bytes(8, "big")


def address_of(key: bytes) -> bytes:
    """The address that a key starts with."""
    return key[2 : 2 + key[1]]


def after_address(key: bytes) -> bytes:
    """What follows the first address of a key."""
    return key[2 + key[1] :]
