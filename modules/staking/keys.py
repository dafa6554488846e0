"""Store ``staking``: SDK 0.50's layout of what this module keeps. Addresses are length-prefixed by one byte."""

STORE = "staking"

LAST_POWERS = b"\x11"
LAST_TOTAL_POWER = b"\x12"
"""→ IntProto of the total power"""
VALIDATORS = b"\x21"
BY_POWER = b"\x23"
DELEGATIONS = b"\x31"
PARAMS = b"\x51"
"""→ Params"""


def _sized(address: bytes) -> bytes:
    return bytes([len(address)]) + address


def last_power(operator: bytes) -> bytes:
    """``11 | length | operator`` → Int64Value of the power CometBFT knows."""
    return LAST_POWERS + _sized(operator)


def validator(operator: bytes) -> bytes:
    """``21 | length | operator`` → Validator."""
    return VALIDATORS + _sized(operator)


def by_consensus_address(address: bytes) -> bytes:
    """``22 | length | consensus address`` → operator."""
    return b"\x22" + _sized(address)


def by_power(power: int, operator: bytes) -> bytes:
    """``23 | power, 8 bytes | length | operator with every bit inverted`` → operator: iterating backwards gives the strongest first."""
    return BY_POWER + power.to_bytes(8, "big") + bytes([len(operator)]) + bytes(byte ^ 0xFF for byte in operator)


def delegation(delegator: bytes, operator: bytes) -> bytes:
    """``31 | length | delegator | length | operator`` → Delegation."""
    return DELEGATIONS + _sized(delegator) + _sized(operator)


def delegation_by_validator(operator: bytes, delegator: bytes) -> bytes:
    """``71 | length | operator | delegator`` → empty."""
    return b"\x71" + _sized(operator) + delegator
