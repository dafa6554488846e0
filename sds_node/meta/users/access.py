"""What a session may read: its wallet's own objects, public ones, and those that a share has opened for it.

Source: docs/adr/0009 (``share.open``); storage-protocol.md 5.
"""

from __future__ import annotations

from sds_node.meta.ledger.tables import View
from sds_node.meta.rules.shares import shares_of_link
from sds_node.meta.rules.tables import ALSO, FILE, GRACE, KEPT, OBJECT, SHARE, File, Object, Share
from sds_node.meta.users.sessions import Session

READ_IN = (KEPT, GRACE)
"""What is in the trash is restored before it is read."""


def file_of(view: View, row: Object) -> File | None:
    """The record of an object that is in use."""
    found = view.get(FILE, (row.payer, row.lookup_id))
    return found if found is not None and found.object == row.id else None


def is_over(share: Share, now_ms: int) -> bool:
    """Whether a share has ended, though the ledger may not have removed it yet."""
    return share.ends_ms != 0 and now_ms >= share.ends_ms


def link_of(view: View, share: Share) -> str:
    """The link that a share's owner gives to others: the CID that it has beside its own, else its own."""
    also = view.get(ALSO, (share.id,))
    return share.link if also is None else also.link


def opened_by(view: View, link: str, now_ms: int) -> tuple[Share, File, Object] | None:
    """The share to which a link leads, with its file and object; None where it leads nowhere now. Of several that have it: the first that has not ended and
    whose object is in use. One whose file was made private since they had it together leads to nothing that can be read."""
    found = [one for share in shares_of_link(view, link) if (one := opened(view, share, now_ms)) is not None]
    own = found[0] if found and found[0][0].link == link else None
    return next((one for one in found if one[1].is_public), own)


def opened(view: View, share: Share | None, now_ms: int) -> tuple[Share, File, Object] | None:
    """A share with its file and object; None for one that has ended, or whose object is not in use."""
    if share is None or is_over(share, now_ms):
        return None
    row = view.get(OBJECT, (share.object,))
    file = file_of(view, row) if row is not None and row.state in READ_IN else None
    return None if row is None or file is None else (share, file, row)


def readable(view: View, session: Session, object_id: bytes, now_ms: int) -> Object | None:
    """An object that the session may read now, else None; whether there is none or it may not is not told."""
    row = view.get(OBJECT, (object_id,))
    if row is None or row.state not in READ_IN:
        return None
    if row.payer == session.wallet:
        return row
    key = session.opened.get(object_id)
    share = view.get(SHARE, (key,)) if key is not None else None
    if share is not None and share.object == object_id and not is_over(share, now_ms):
        return row
    file = file_of(view, row)
    return row if file is not None and file.is_public else None
