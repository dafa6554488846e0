"""Store ``staking``: SDK 0.50's layout. Addresses are length-prefixed by one byte; times are text of 29 bytes that sorts by time."""

from __future__ import annotations

from chain.codec.times import NANOS, rfc3339

STORE = "staking"

LAST_POWERS = b"\x11"
LAST_TOTAL_POWER = b"\x12"
"""→ IntProto of the total power"""
VALIDATORS = b"\x21"
BY_POWER = b"\x23"
DELEGATIONS = b"\x31"
UNBONDINGS = b"\x32"
REDELEGATIONS = b"\x34"
UNBONDING_ID = b"\x37"
"""→ the last unbonding id given out, 8 bytes"""
UNBONDING_QUEUE = b"\x41"
REDELEGATION_QUEUE = b"\x42"
VALIDATOR_QUEUE = b"\x43"
HISTORICAL_INFO = b"\x50"
PARAMS = b"\x51"
"""→ Params"""
VALIDATOR_UPDATES = b"\x61"
"""→ ValidatorUpdates of the latest block"""


def _sized(address: bytes) -> bytes:
    return bytes([len(address)]) + address


def _time(time_ns: int) -> bytes:
    """As ``2026-01-02T03:04:05.000000006``."""
    seconds, nanos = divmod(time_ns, NANOS)
    return f"{rfc3339(seconds)[:-1]}.{nanos:09d}".encode()


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
    """``23 | power, 8 bytes | length | operator with every bit inverted`` → operator: iterating backwards gives the strongest first.

    OverflowError for a power of more than 63 bits, which fails the message that would lead to it.
    """
    return BY_POWER + power.to_bytes(8, "big", signed=True) + bytes([len(operator)]) + bytes(byte ^ 0xFF for byte in operator)


def power_in(key: bytes) -> int:
    """The power in a ``by_power`` key."""
    return int.from_bytes(key[1:9], "big")


def delegations_of(delegator: bytes) -> bytes:
    """``31 | length | delegator``: prefix of a delegator's delegations."""
    return DELEGATIONS + _sized(delegator)


def delegation(delegator: bytes, operator: bytes) -> bytes:
    """``31 | length | delegator | length | operator`` → Delegation."""
    return delegations_of(delegator) + _sized(operator)


def delegations_to(operator: bytes) -> bytes:
    """``71 | length | operator``: prefix of the index of a validator's delegations; the delegator follows without a length."""
    return b"\x71" + _sized(operator)


def delegation_by_validator(operator: bytes, delegator: bytes) -> bytes:
    """``71 | length | operator | delegator`` → empty."""
    return delegations_to(operator) + delegator


def unbondings_of(delegator: bytes) -> bytes:
    """``32 | length | delegator``: prefix of a delegator's unbonding delegations."""
    return UNBONDINGS + _sized(delegator)


def unbonding(delegator: bytes, operator: bytes) -> bytes:
    """``32 | length | delegator | length | operator`` → UnbondingDelegation."""
    return unbondings_of(delegator) + _sized(operator)


def unbondings_from(operator: bytes) -> bytes:
    """``33 | length | operator``: prefix of the index of what unbonds from a validator; the delegator follows with its length."""
    return b"\x33" + _sized(operator)


def unbonding_by_validator(delegator: bytes, operator: bytes) -> bytes:
    """``33 | length | operator | length | delegator`` → empty."""
    return unbondings_from(operator) + _sized(delegator)


def redelegations_of(delegator: bytes) -> bytes:
    """``34 | length | delegator``: prefix of a delegator's redelegations."""
    return REDELEGATIONS + _sized(delegator)


def redelegation(delegator: bytes, source: bytes, destination: bytes) -> bytes:
    """``34 | length | delegator | length | source operator | length | destination operator`` → Redelegation."""
    return redelegations_of(delegator) + _sized(source) + _sized(destination)


def redelegations_from(source: bytes) -> bytes:
    """``35 | length | source operator``: prefix of the index by source; delegator and destination follow with their lengths."""
    return b"\x35" + _sized(source)


def redelegation_by_source(delegator: bytes, source: bytes, destination: bytes) -> bytes:
    """``35 | length | source | length | delegator | length | destination`` → empty."""
    return redelegations_from(source) + _sized(delegator) + _sized(destination)


def redelegations_by(delegator: bytes, destination: bytes) -> bytes:
    """``36 | length | destination | length | delegator``: prefix of what a delegator moved to a validator."""
    return b"\x36" + _sized(destination) + _sized(delegator)


def redelegation_by_destination(delegator: bytes, source: bytes, destination: bytes) -> bytes:
    """``36 | length | destination | length | delegator | length | source`` → empty."""
    return redelegations_by(delegator, destination) + _sized(source)


def split(rest: bytes) -> tuple[bytes, ...]:
    """The addresses in what follows a prefix, each with its length."""
    found = []
    while rest:
        end = 1 + rest[0]
        found.append(rest[1:end])
        rest = rest[end:]
    return tuple(found)


def unbonding_index(unbonding_id: int) -> bytes:
    """``38 | id, 8 bytes`` → key of the record that the id is in."""
    return b"\x38" + unbonding_id.to_bytes(8, "big")


def unbonding_type(unbonding_id: int) -> bytes:
    """``39 | id, 8 bytes`` → kind of that record, 8 bytes: 1 unbonding delegation, 2 redelegation, 3 validator."""
    return b"\x39" + unbonding_id.to_bytes(8, "big")


def unbondings_ending(time_ns: int) -> bytes:
    """``41 | time`` → DVPairs."""
    return UNBONDING_QUEUE + _time(time_ns)


def redelegations_ending(time_ns: int) -> bytes:
    """``42 | time`` → DVVTriplets."""
    return REDELEGATION_QUEUE + _time(time_ns)


def validators_ending(time_ns: int, height: int) -> bytes:
    """``43 | length of the time, 8 bytes | time | height, 8 bytes`` → ValAddresses."""
    time = _time(time_ns)
    return VALIDATOR_QUEUE + len(time).to_bytes(8, "big") + time + height.to_bytes(8, "big")


def height_in(key: bytes) -> int:
    """The height in a ``validators_ending`` key."""
    return int.from_bytes(key[-8:], "big")


def historical_info(height: int) -> bytes:
    """``50 | height, 8 bytes`` → HistoricalInfo."""
    return HISTORICAL_INFO + height.to_bytes(8, "big")
