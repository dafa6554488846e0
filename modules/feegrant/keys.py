"""Store ``feegrant``: SDK 0.50's layout. An address goes behind its length, one byte."""

from __future__ import annotations

from typing import Final

from chain.codec.times import sortable

STORE: Final = "feegrant"

ALLOWANCES: Final = b"\x00"
QUEUE: Final = b"\x01"
_TIME_END: Final = 1 + len(sortable(0))


def allowances_to(grantee: bytes) -> bytes:
    """``00 | grantee``: prefix of what an account was granted."""
    return ALLOWANCES + _prefixed(grantee)


def allowance(granter: bytes, grantee: bytes) -> bytes:
    """``00 | grantee | granter`` → Grant."""
    return allowances_to(grantee) + _prefixed(granter)


def queue(expiration: bytes, granter: bytes, grantee: bytes) -> bytes:
    """``01 | expiration, sortable, 29 bytes | grantee | granter`` → empty."""
    return queue_before(expiration) + allowance(granter, grantee)[1:]


def queue_before(expiration: bytes) -> bytes:
    """End of the entries of ``queue`` that lie before a time."""
    return QUEUE + expiration


def queued_allowance(key: bytes) -> bytes:
    """Key of the allowance that a queue entry is for."""
    return ALLOWANCES + key[_TIME_END:]


def granter_of(key: bytes) -> bytes:
    """The granter in an allowance's key."""
    return key[3 + key[1] :]


def _prefixed(address: bytes) -> bytes:
    return bytes([len(address)]) + address
