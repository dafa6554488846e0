"""Shares: a version of a file that whoever has the link may read. The ledger keeps the file's key as wrapped for the link, never the key.

    link ─► the share whose own it is ─► object          a CID ─┬► the share whose own it is (``share.link``) ─► object ┐ the same public content,
                                                                └► shares that have it, too (``also.link``) ──► objects ┘ none with a password

A link is one share's own. Wallets that share the same public content by its CID have it together: each has a share with a link of its own, and the CID beside
it, so that none ends when another one's does. Source: storage-protocol.md 5; sds.md 2.4 (links), 8.2 and 9.2 (sdubo); ADR 8.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

from sds_node.handles import HandleError, LinkKind, parse_share_id, parse_share_link
from sds_node.meta.ledger.tables import Tables, View
from sds_node.meta.rules.call import Call, enqueue
from sds_node.meta.rules.files import file_of, object_of
from sds_node.meta.rules.money import wallet_of
from sds_node.meta.rules.objects import SHARES_OF_A_FILE, remove_share
from sds_node.meta.rules.refusals import BAD_FORM, NOT_FRESH, TAKEN, TOO_MANY, UNKNOWN_SHARE, need, refuse, shown
from sds_node.meta.rules.tables import (
    ALSO,
    MAX_LINK_BYTES,
    MAX_PASSWORD_CHECK_BYTES,
    MAX_WRAPPED_BYTES,
    SHARE,
    SHARE_ENDS,
    TRASHED,
    WALLET,
    Also,
    File,
    Share,
)
from sds_node.meta.rules.wire import MAX_FILES, ascending, at_most, listed, printable, seconds

MAX_SHARES_OF_WALLET: Final = 10_000
ALSO_OF_A_LINK: Final = 64
"""So many shares have a link beside the one whose own it is, each of another wallet: none can use them up."""


def share_key(share_id: str) -> bytes:
    """A share's key in its table: SHA-256 of the share id."""
    return sha256(share_id.encode()).digest()


def shares_of_link(view: View, link: str) -> list[Share]:
    """The shares that a link stands for, ended ones too while they are there: the one whose own it is, then those that have it beside their own."""
    own = view.find(SHARE, "by_link", (link,))
    also = [view.get(SHARE, (row.share,)) for row in view.scan(ALSO, (link,), index="by_link", limit=ALSO_OF_A_LINK)]
    return [one for one in (own, *also) if one is not None]


def is_for_all(row: Share) -> bool:
    """Whether who has a share's link needs nothing else: no password, and no key of a private file."""
    return not row.password_check and not row.wrapped_key


def share(call: Call, wallet: bytes, message: Any) -> None:
    """ShareFile of a wallet."""
    share_file(call, file_of(call.tables, wallet, message.lookup_id), message)


def share_file(call: Call, file: File, message: Any) -> None:
    """Share a file under an id and a link that nobody has; ``also`` by a CID by which others share the same content."""
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
    also, theirs = _other_link(message.also, link), list[Share]()
    at_most(message.wrapped_key, MAX_WRAPPED_BYTES, "share.wrapped_key")
    at_most(message.password_check, MAX_PASSWORD_CHECK_BYTES, "share.password_check")
    ends_ms = seconds(message.expires_s, "share.expires_s") * 1_000
    need(ends_ms == 0 or ends_ms > call.time_ms, NOT_FRESH, f"a share expires after now ({call.time_ms} ms), or never (0), got {ends_ms} ms")
    key = share_key(share_id)
    is_taken = tables.get(SHARE, (key,)) is not None or tables.find(SHARE, "by_link", (link,)) is not None
    need(not is_taken, TAKEN, f"share {share_id} or its link is there already: make another")
    made = Share(key, share_id, link, file.wallet, file.object, message.wrapped_key, call.time_ms, ends_ms, message.password_check)
    _check_fits(tables, made, file, shares_of_link(tables, link), link)
    if also:
        held = shares_of_link(tables, also)
        need(bool(held), UNKNOWN_SHARE, f"nobody shares by {also}: make it the share's own link")
        _check_fits(tables, made, file, held, also)
        theirs = [one for one in held if one.link != also and one.wallet == file.wallet]
        is_free = all(object_of(tables, one.object).state == TRASHED for one in theirs)
        need(is_free, TAKEN, f"wallet {shown(file.wallet)} has link {also} beside a share of another file already: it needs no other by it")
        beside = sum(1 for one in held if one.link != also and one.wallet != file.wallet)
        need(beside < ALSO_OF_A_LINK, TOO_MANY, f"{beside} shares have link {also} beside their own, at most {ALSO_OF_A_LINK}: share by another link")
    row = wallet_of(tables, file.wallet)
    need(row.shares < MAX_SHARES_OF_WALLET, TOO_MANY, f"wallet {shown(file.wallet)} has {row.shares} shares, at most {MAX_SHARES_OF_WALLET}: end one")
    others = tables.scan(SHARE, (file.object,), index="by_object", limit=SHARES_OF_A_FILE)
    need(len(others) < SHARES_OF_A_FILE, TOO_MANY, f"a file has at most {SHARES_OF_A_FILE} shares: end one")
    tables.put(SHARE, made)
    if also:
        for one in theirs:
            tables.delete(ALSO, (one.id,))  # a deleted file's share keeps its own link
        tables.put(ALSO, Also(key, also))
    tables.put(WALLET, row._replace(shares=row.shares + 1))
    if ends_ms:
        enqueue(tables, ends_ms, SHARE_ENDS, key)


def _other_link(also: str, link: str) -> str:
    """The link that a share has beside its own; empty for none. Refuses what is no CID, and its own."""
    if not also:
        return ""
    try:
        parsed = parse_share_link(printable(also, MAX_LINK_BYTES, "share.also"))
    except HandleError as error:
        refuse(BAD_FORM, f"share.also: {error}")
    is_cid = parsed.kind is LinkKind.CID and parsed.link == also
    need(
        is_cid and also != link,
        BAD_FORM,
        f"share.also: expected a CID without prefix and password, another one than the share's own link, got {also}",
    )
    return also


def _check_fits(tables: Tables, made: Share, file: File, others: list[Share], link: str) -> None:
    """Refuses a link under which other shares are, unless all of them and the new one lead everybody to the same content."""
    row = object_of(tables, file.object)
    for other in others:
        need(other.object != file.object, TAKEN, f"this file has link {link} already: it needs no other share by it")
        shared = object_of(tables, other.object)
        is_same = (shared.file_hash, shared.size_bytes) == (row.file_hash, row.size_bytes)
        need(
            is_same and file.is_public and is_for_all(made) and is_for_all(other),
            TAKEN,
            f"link {link} is there already: it is shared only with public files of the same content and without passwords; make another",
        )


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
