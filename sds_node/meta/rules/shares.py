"""Shares: a version of a file that whoever has the link may read. The ledger keeps the file's key as wrapped for the link, never the key.

Source: storage-protocol.md 5; sds.md 2.4 (links) and 8.2; ADR 8.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

from sds_node.handles import HandleError, parse_share_id, parse_share_link
from sds_node.meta.rules.call import Call, enqueue
from sds_node.meta.rules.files import file_of
from sds_node.meta.rules.money import wallet_of
from sds_node.meta.rules.objects import SHARES_OF_A_FILE, remove_share
from sds_node.meta.rules.refusals import BAD_FORM, NOT_FRESH, TAKEN, TOO_MANY, UNKNOWN_SHARE, need, refuse, shown
from sds_node.meta.rules.tables import MAX_LINK_BYTES, MAX_PASSWORD_CHECK_BYTES, MAX_WRAPPED_BYTES, SHARE, SHARE_ENDS, WALLET, File, Share
from sds_node.meta.rules.wire import MAX_FILES, ascending, at_most, listed, printable, seconds

MAX_SHARES_OF_WALLET: Final = 10_000


def share_key(share_id: str) -> bytes:
    """A share's key in its table: SHA-256 of the share id."""
    return sha256(share_id.encode()).digest()


def share(call: Call, wallet: bytes, message: Any) -> None:
    """ShareFile of a wallet."""
    share_file(call, file_of(call.tables, wallet, message.lookup_id), message)


def share_file(call: Call, file: File, message: Any) -> None:
    """Share a file under an id and a link that nobody has."""
    tables = call.tables
    share_id, link = printable(message.share_id, MAX_LINK_BYTES, "share.share_id"), printable(message.link, MAX_LINK_BYTES, "share.link")
    try:
        parse_share_id(share_id)
        parsed = parse_share_link(link)
    except HandleError as error:
        refuse(BAD_FORM, f"share: {error}")
    need(
        (parsed.link, parsed.share_id) == (link, share_id), BAD_FORM, f"expected the link of share {share_id} without prefix and password, got {link}"
    )
    at_most(message.wrapped_key, MAX_WRAPPED_BYTES, "share.wrapped_key")
    at_most(message.password_check, MAX_PASSWORD_CHECK_BYTES, "share.password_check")
    ends_ms = seconds(message.expires_s, "share.expires_s") * 1_000
    need(ends_ms == 0 or ends_ms > call.time_ms, NOT_FRESH, f"a share expires after now ({call.time_ms} ms), or never (0), got {ends_ms} ms")
    key = share_key(share_id)
    is_taken = tables.get(SHARE, (key,)) is not None or tables.find(SHARE, "by_link", (link,)) is not None
    need(not is_taken, TAKEN, f"share {share_id} or its link is there already: make another")
    row = wallet_of(tables, file.wallet)
    need(row.shares < MAX_SHARES_OF_WALLET, TOO_MANY, f"wallet {shown(file.wallet)} has {row.shares} shares, at most {MAX_SHARES_OF_WALLET}: end one")
    others = tables.scan(SHARE, (file.object,), index="by_object", limit=SHARES_OF_A_FILE)
    need(len(others) < SHARES_OF_A_FILE, TOO_MANY, f"a file has at most {SHARES_OF_A_FILE} shares: end one")
    tables.put(SHARE, Share(key, share_id, link, file.wallet, file.object, message.wrapped_key, call.time_ms, ends_ms, message.password_check))
    tables.put(WALLET, row._replace(shares=row.shares + 1))
    if ends_ms:
        enqueue(tables, ends_ms, SHARE_ENDS, key)


def unshare(call: Call, wallet: bytes, message: Any) -> None:
    """UnshareFiles of a wallet."""
    ascending(listed(message.share_ids, MAX_FILES, "unshare.share_ids"), "unshare.share_ids")
    for share_id in message.share_ids:
        unshare_one(call, wallet, share_id)


def unshare_one(call: Call, wallet: bytes, share_id: str) -> None:
    """End a share of a wallet's."""
    row = call.tables.get(SHARE, (share_key(share_id),))
    if row is None or row.wallet != wallet:
        refuse(UNKNOWN_SHARE, f"wallet {shown(wallet)} has no share {share_id[:80]!a}")
    remove_share(call.tables, row)
