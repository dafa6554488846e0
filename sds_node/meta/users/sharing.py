"""Shares: those that a wallet has made, and links that let a session read an object.

    link or share id, password's check ─► the share, its wrapped key and the file's object; from now on this session may read that object

A CID may be the link of several shares (``rules/shares.py``): the first that leads somewhere is opened. A share that has ended is none, though the ledger may remove it a little later. Passwords are compared in constant time, and a session may try ten shares a
second. Source: storage-protocol.md 5; docs/adr/0009.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, Final

from chain.crypto import address as bech32
from sds_node import asking
from sds_node.handles import HandleError, parse_share_link
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.shares import share_key
from sds_node.meta.rules.tables import MAX_LINK_BYTES, MAX_PASSWORD_CHECK_BYTES, SHARE, File, Object, Share
from sds_node.meta.users.access import link_of, opened, opened_by
from sds_node.meta.users.asked import need, page_limit, refuse
from sds_node.meta.users.files import file_row
from sds_node.meta.users.sessions import Session

_MAX_TEXT: Final = MAX_LINK_BYTES + 128
"""A link may come with its prefix and a password behind it."""


class Sharing:
    """``share.list`` and ``share.open``. ``clock`` tells Unix seconds."""

    def __init__(self, ledger: AnyLedger, clock: Callable[[], float]) -> None:
        self._ledger, self._clock = ledger, clock

    async def listed(self, session: Session, head: Any) -> Any:
        """The SharePage of a ShareListHead: the wallet's shares, in the order of the hashes of their ids."""
        limit = min(page_limit(head.limit), SHARE.most_scanned - 1)
        need(len(head.after) <= MAX_LINK_BYTES, asking.BAD_ASK, f"after: expected a share id of at most {MAX_LINK_BYTES} bytes")
        after = (share_key(head.after),) if head.after else ()

        def look(view: ReadView) -> Any:
            rows = view.scan(SHARE, (session.wallet,), after=after, index="by_wallet", limit=limit + 1)
            return asking.SharePage(shares=[share_row(row, link_of(view, row)) for row in rows[:limit]], has_more=len(rows) > limit)

        return await self._ledger.query(look)

    async def open(self, session: Session, head: Any) -> Any:
        """The OpenedShare of a ShareOpenHead. The session may read its object while the share is there."""
        need(bool(head.share_id) != bool(head.link), asking.BAD_ASK, "expected a share id or a link, one of them")
        text = head.share_id or head.link
        need(
            len(text) <= _MAX_TEXT and len(head.password_check) <= MAX_PASSWORD_CHECK_BYTES,
            asking.BAD_ASK,
            "expected a shorter link or password check",
        )
        session.may_open(self._clock())
        link = _link_of(head.link) if head.link else ""
        now_ms = int(self._clock() * 1_000)

        def look(view: ReadView) -> tuple[Share, File, Object] | None:
            return opened_by(view, link, now_ms) if link else opened(view, view.get(SHARE, (share_key(head.share_id),)), now_ms)

        found = await self._ledger.query(look)
        if found is None:
            refuse(asking.NOT_HELD, "there is no such share, or it has ended")
        share, file, row = found
        if share.password_check and not hmac.compare_digest(share.password_check, bytes(head.password_check)):
            refuse(asking.WRONG_PASSWORD, "this share has a password, and the one that came is another")
        session.note_opened(row.id, share.id)
        return asking.OpenedShare(share=share_row(share, link or share.link), file=file_row(file, row, is_own=row.payer == session.wallet))


def _link_of(text: str) -> str:
    """A link as the ledger has it. Refuses what is none."""
    try:
        return parse_share_link(text).link
    except HandleError as error:
        refuse(asking.BAD_ASK, f"link: {error}")


def share_row(row: Share, link: str) -> Any:
    """The ShareRow of a share, with the one of its links that is to be shown."""
    return asking.ShareRow(
        share_id=row.share_id, link=link, object_id=row.object, wrapped_key=row.wrapped_key, made_ms=row.made_ms, ends_ms=row.ends_ms,
        has_password=bool(row.password_check), wallet=bech32.encode(row.wallet),
    )  # fmt: skip
