"""What a session may read: its wallet's own objects, public ones, and those that a share has opened for it.

Source: docs/adr/0009 (``share.open``); storage-protocol.md 5.
"""

from __future__ import annotations

from sds_node.meta.ledger.tables import View
from sds_node.meta.rules.tables import FILE, GRACE, KEPT, OBJECT, SHARE, File, Object, Share
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
