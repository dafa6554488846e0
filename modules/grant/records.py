"""Pools, campaigns, promotions and claims: their messages, and how amounts and times are read from them."""

from __future__ import annotations

from typing import Any, Final

from chain.codec import times
from chain.codec.registry import message_class
from chain.codec.times import NANOS
from chain.coins import parse_wire_int
from chain.errors import InvalidRequest
from chain.ozone import bounded

PACKAGE: Final = "stratos.grant.v1"
ACCOUNT: Final = "grant"
"""The module account: free money of pools and what campaigns have reserved."""
COMMON_POOL: Final = 1
"""Governance's pool, there from genesis on. What expires returns to it."""
OPEN, ENDED = 1, 2
"""CampaignStatus"""
END_S: Final = 253_402_300_800
"""The year 10,000, which no time reaches."""

Pool: Final = message_class(f"{PACKAGE}.Pool")
Campaign: Final = message_class(f"{PACKAGE}.Campaign")
Promotion: Final = message_class(f"{PACKAGE}.Promotion")
Claim: Final = message_class(f"{PACKAGE}.Claim")


def amount(text: str, what: str) -> int:
    """An Int of a message as an amount of wei or noz; none at all is 0. Raises TxDecodeError (sdk/2) for what is no number, InvalidRequest (sdk/18)
    unless it is from 0 to 2^127 - 1."""
    return bounded(parse_wire_int(text or "0"), what)


def ns_of(time: Any, what: str) -> int:
    """Unix nanoseconds of a Timestamp. Raises InvalidRequest (sdk/18) unless it lies between 1970 and the year 10,000."""
    if not (0 <= time.seconds < END_S and 0 <= time.nanos < NANOS):
        raise InvalidRequest(f"expected {what} between 1970 and the year 10000, got {time.seconds} s")
    return times.ns_of(time)


def reserved_wei(campaign: Any) -> int:
    """What a campaign still holds of its budget: nothing once it has ended."""
    return int(campaign.budget_wei) - int(campaign.spent_wei) if campaign.status == OPEN else 0
