"""Store ``grant``. Numbers are big-endian, addresses go behind their length, one byte."""

from __future__ import annotations

from typing import Final

STORE: Final = "grant"

PARAMS: Final = b"\x00"
"""→ Params"""
POOLS: Final = b"\x01"
CAMPAIGNS: Final = b"\x02"
CLAIMS: Final = b"\x03"
BY_WALLET: Final = b"\x04"
NEXT_POOL: Final = b"\x05"
"""→ number of the next pool, 8 bytes"""
NEXT_CAMPAIGN: Final = b"\x06"
"""→ number of the next campaign, 8 bytes"""
OUTSTANDING_NOZ: Final = b"\x07"
"""→ Int: granted noz that were neither used nor have expired; absent for 0"""
COST_WEI: Final = b"\x08"
"""→ Int: what they cost; absent for 0"""


def number(value: int) -> bytes:
    """A pool's or campaign's number, 8 bytes."""
    return value.to_bytes(8, "big")


def pool(pool_id: int) -> bytes:
    """``01 | pool`` → Pool."""
    return POOLS + number(pool_id)


def campaign(campaign_id: int) -> bytes:
    """``02 | campaign`` → Campaign."""
    return CAMPAIGNS + number(campaign_id)


def claims_in(campaign_id: int) -> bytes:
    """``03 | campaign``: prefix of a campaign's claims."""
    return CLAIMS + number(campaign_id)


def claims_of(campaign_id: int, wallet: bytes) -> bytes:
    """``03 | campaign | wallet``: prefix of a wallet's claims in a campaign."""
    return claims_in(campaign_id) + _sized(wallet)


def claim(campaign_id: int, promotion_id: int, wallet: bytes) -> bytes:
    """``03 | campaign | wallet | promotion, 4 bytes`` → Claim."""
    return claims_of(campaign_id, wallet) + promotion_id.to_bytes(4, "big")


def by_wallet(wallet: bytes) -> bytes:
    """``04 | wallet``: prefix of the index of a wallet's claims."""
    return BY_WALLET + _sized(wallet)


def index(campaign_id: int, promotion_id: int, wallet: bytes) -> bytes:
    """``04 | wallet | campaign | promotion, 4 bytes`` → empty."""
    return by_wallet(wallet) + number(campaign_id) + promotion_id.to_bytes(4, "big")


def split_index(rest: bytes) -> tuple[int, int]:
    """(campaign, promotion) of what follows ``by_wallet`` in a key of the index."""
    return int.from_bytes(rest[:8], "big"), int.from_bytes(rest[8:], "big")


def _sized(address: bytes) -> bytes:
    return bytes([len(address)]) + address
