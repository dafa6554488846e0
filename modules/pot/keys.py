"""Store ``pot``: the original's layout, and ours from 0x65 on.

A value of the original is a message behind its length (a varint), but for the parameters; ours are so as well. Numbers in keys of the original are
decimal, so they sort as text; ours are 8 bytes, big-endian, so they sort as numbers.
"""

from __future__ import annotations

from typing import Final

STORE: Final = "pot"

TOTAL_MINED: Final = b"\x01"
"""→ Coin: mined so far"""
LAST_EPOCH: Final = b"\x02"
"""→ Int: the last epoch that was reported"""
REWARDS: Final = b"\x03"
MATURE: Final = b"\x04"
IMMATURE: Final = b"\x05"
REPORTS: Final = b"\x06"
MATURED_EPOCH: Final = b"\x07"
"""→ Int: everything that matures with this epoch or an earlier one has matured"""
TOTAL_REWARDS: Final = b"\x08"
PARAMS: Final = b"\x20"
"""→ Params, without a length"""
MATURITY: Final = b"\x65"
LAST_REPORT_TIME: Final = b"\x66"
"""→ Timestamp: block time of the last report"""
ECONOMICS: Final = b"\x67"
APPROVALS: Final = b"\x68"
EXPIRIES: Final = b"\x69"
DUE: Final = b"\x6a"

NUMBER_BYTES: Final = 8
TIME_BYTES: Final = 8
MAX_TIME_NS: Final = (1 << 63) - 1
"""Of a time in a key."""
NODE_BYTES: Final = 20
MAX_EPOCH: Final = 1 << 62
"""Of an epoch that is reported; with any ``mature_epoch`` its maturity fits the 8 bytes of a key and the 64 bits of a message."""


def _number(value: int) -> bytes:
    return value.to_bytes(NUMBER_BYTES, "big")


def reward(maturity_epoch: int, wallet: bytes) -> bytes:
    """``03 | decimal maturity epoch | _ | address`` → Reward."""
    return REWARDS + b"%d_" % maturity_epoch + wallet


def rewards_at(maturity_epoch: int) -> bytes:
    """``03 | decimal maturity epoch | _``: prefix of what matures with an epoch."""
    return reward(maturity_epoch, b"")


def mature(wallet: bytes) -> bytes:
    """``04 | address`` → Coins that the wallet may withdraw."""
    return MATURE + wallet


def immature(wallet: bytes) -> bytes:
    """``05 | address`` → Coins that are to mature."""
    return IMMATURE + wallet


def report(epoch: int) -> bytes:
    """``06 | decimal epoch`` → VolumeReportRecord."""
    return REPORTS + b"%d" % epoch


def total_reward(epoch: int) -> bytes:
    """``08 | decimal epoch`` → TotalReward."""
    return TOTAL_REWARDS + b"%d" % epoch


def decimal_epoch(key: bytes) -> int:
    """The epoch in a key of ``report`` or ``total_reward``."""
    return int(key[1:])


def maturity(maturity_epoch: int, wallet: bytes = b"") -> bytes:
    """``65 | maturity epoch, 8 bytes | address`` → empty: the index of ``reward``. Without an address the prefix of an epoch."""
    return MATURITY + _number(maturity_epoch) + wallet


def split_maturity(key: bytes) -> tuple[int, bytes]:
    """(maturity epoch, address) of a key of ``maturity``."""
    end = 1 + NUMBER_BYTES
    return int.from_bytes(key[1:end], "big"), key[end:]


def economics(epoch: int) -> bytes:
    """``67 | epoch, 8 bytes`` → EpochEconomics."""
    return ECONOMICS + _number(epoch)


def approvals(node: bytes, content: bytes = b"") -> bytes:
    """``68 | network address, 20 bytes | SHA-256 of what is approved`` → SlashingApprovals. Without a content the prefix of a node."""
    return APPROVALS + node + content


def expiry(time_ns: int, node: bytes = b"", content: bytes = b"") -> bytes:
    """``69 | Unix nanoseconds, 8 bytes | network address | SHA-256`` → empty: when approvals end. Without a node the end of what is earlier."""
    return EXPIRIES + time_ns.to_bytes(TIME_BYTES, "big") + node + content


def expiring(key: bytes) -> bytes:
    """The key of the approvals that a key of ``expiry`` is for."""
    return APPROVALS + key[1 + TIME_BYTES :]


def due(maturity_epoch: int) -> bytes:
    """``6a | maturity epoch, 8 bytes`` → the epoch whose rewards mature then, 8 bytes; gone as soon as they begin to."""
    return DUE + _number(maturity_epoch)


def split_due(key: bytes, value: bytes) -> tuple[int, int]:
    """(maturity epoch, epoch) of an entry of ``due``."""
    return int.from_bytes(key[1:], "big"), int.from_bytes(value, "big")


def due_value(epoch: int) -> bytes:
    """The value of an entry of ``due``."""
    return _number(epoch)
