"""Store ``authz``: SDK 0.50's layout. An address goes behind its length, one byte."""

from __future__ import annotations

from typing import Final

from chain.codec.times import sortable

STORE: Final = "authz"

GRANTS: Final = b"\x01"
QUEUE: Final = b"\x02"
_TIME_END: Final = 1 + len(sortable(0))


def grants_by(granter: bytes) -> bytes:
    """``01 | granter``: prefix of what an account granted."""
    return GRANTS + _prefixed(granter)


def grants_of(granter: bytes, grantee: bytes) -> bytes:
    """``01 | granter | grantee``: prefix of what one account granted another."""
    return grants_by(granter) + _prefixed(grantee)


def grant(granter: bytes, grantee: bytes, type_url: str) -> bytes:
    """``01 | granter | grantee | type URL of the messages`` → Grant."""
    return grants_of(granter, grantee) + type_url.encode()


def queue(expiration: bytes, granter: bytes, grantee: bytes) -> bytes:
    """``02 | expiration, sortable, 29 bytes | granter | grantee`` → GrantQueueItem: the type URLs whose grants end then."""
    return QUEUE + expiration + _prefixed(granter) + _prefixed(grantee)


def queue_before(expiration: bytes) -> bytes:
    """End of the entries of ``queue`` that lie before a time."""
    return QUEUE + expiration


def split_grant(key: bytes) -> tuple[bytes, bytes, str]:
    """(granter, grantee, type URL) of a grant's key."""
    granter, at = _address(key, 1)
    grantee, at = _address(key, at)
    return granter, grantee, key[at:].decode()


def split_queue(key: bytes) -> tuple[bytes, bytes]:
    """(granter, grantee) of a queue entry's key."""
    granter, at = _address(key, _TIME_END)
    return granter, _address(key, at)[0]


def _prefixed(address: bytes) -> bytes:
    return bytes([len(address)]) + address


def _address(key: bytes, at: int) -> tuple[bytes, int]:
    end = at + 1 + key[at]
    return key[at + 1 : end], end
