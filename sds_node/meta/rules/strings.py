"""What a legacy string pays for: the lease that is taken by it is for one content, in one direction, and has no more noz than that can cost.

    download           ─ the wallet's own objects of that hash; where it has none, a shared one that is named ─┐
    shared download    ─ objects of the shares that the link leads to ─────────────────────────────────────────┴ the largest ─► one delivery and a little more
    upload             ─ the size that its meta node says, since the string names none ─────────────────────────────────────► its bill and a little more

An upload and a download of a file are one string: of content that the wallet has it pays for a delivery and for nothing else, as nobody stores that again. What
such a lease is for is kept beside it (``asked``) for the commit, and for those who approve windows. Source: storage-protocol.md 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from modules.settlement.leaves import PUT
from sds_node.hashes import is_hash
from sds_node.legacy import MAX_UPLOAD_BYTES, OBJECT_COUNTER, download_bound_noz, legacy_lookup_id, most_upload_noz
from sds_node.meta.ledger.tables import Tables
from sds_node.meta.rules.call import Call, state_of
from sds_node.meta.rules.files import SAME_HASH
from sds_node.meta.rules.objects import SHARES_OF_A_FILE
from sds_node.meta.rules.refusals import BAD_OBJECT, NOT_ASKED, TAKEN, UNKNOWN_FILE, need, refuse, shown
from sds_node.meta.rules.shares import shares_of_link
from sds_node.meta.rules.tables import ASKED, GRACE, KEPT, OBJECT, SHARE, Asked, Lease, Object, Share
from sds_node.meta.rules.wire import identity, whole

_READABLE: Final = (KEPT, GRACE)


def asked_by(call: Call, message: Any, authority: str, lease: bytes) -> Asked:
    """What the lease is for that a TakeLease takes by a string, which was looked at. Refuses more noz than that can cost."""
    tables, ratio_e18, subject = call.tables, state_of(call.tables).repair_ratio_e18, getattr(message, authority).subject
    if authority == "upload":
        size_bytes = whole(message.size_bytes, 0, MAX_UPLOAD_BYTES, "lease.size_bytes")
        own = _own(tables, message.wallet, subject)
        need(
            not own,
            TAKEN,
            f"wallet {shown(message.wallet)} has file {subject} already: it is not stored again, and a string for it pays for reading it",
        )
        made, most_noz = Asked(lease, True, subject, size_bytes), most_upload_noz(size_bytes, ratio_e18)
    else:
        row = _own_or_shared(call, message, subject) if authority == "download" else _largest(_by_link(call, subject))
        if row is None:
            refuse(UNKNOWN_FILE, f"wallet {shown(message.wallet)} has no file {subject[:80]!a}, and none is shared with it: there is nothing to read")
        made, most_noz = Asked(lease, False, row.file_hash, row.size_bytes), download_bound_noz(row.size_bytes, ratio_e18)
    kind = "storing" if made.is_put else "reading"
    need(
        message.noz <= most_noz,
        NOT_ASKED,
        f"{kind} a file of {made.size_bytes} bytes costs at most {most_noz} noz, a lease for it of {message.noz} was asked",
    )
    return made


def _own_or_shared(call: Call, message: Any, file_hash: str) -> Object | None:
    """The largest of the wallet's own objects with that content; where it has none, the one that is named, if anybody shares it."""
    own = _largest(_own(call.tables, message.wallet, file_hash))
    if own is not None or not message.object_id:
        return own
    row = call.tables.get(OBJECT, (identity(message.object_id, "lease.object_id"),))
    if row is None or row.state not in _READABLE or row.file_hash != file_hash or row.size_bytes > MAX_UPLOAD_BYTES:
        return None
    shares = call.tables.scan(SHARE, (row.id,), index="by_object", limit=SHARES_OF_A_FILE)
    return row if any(_is_on(one, call.time_ms) for one in shares) else None


def _by_link(call: Call, link: str) -> list[Object]:
    """What the shares of a link lead to."""
    rows = [call.tables.get(OBJECT, (one.object,)) for one in shares_of_link(call.tables, link) if _is_on(one, call.time_ms)]
    return [row for row in rows if row is not None and row.state in _READABLE]


def _own(tables: Tables, wallet: bytes, file_hash: str) -> list[Object]:
    """The objects of a wallet with that content that can be read."""
    rows = tables.scan(OBJECT, (wallet, file_hash), index="by_hash", limit=SAME_HASH) if is_hash(file_hash) else []
    return [row for row in rows if row.state in _READABLE]


def _largest(rows: Iterable[Object]) -> Object | None:
    return max(rows, key=lambda row: row.size_bytes, default=None)


def _is_on(share: Share, time_ms: int) -> bool:
    return share.ends_ms == 0 or time_ms < share.ends_ms


def check_new(tables: Tables, lease: Lease, new: Any) -> None:
    """Refuses an object in a commit that the string which pays for the lease did not ask for. Another record than its content's own would send the file that it
    is of to the trash."""
    asked = tables.get(ASKED, (lease.id,))
    if asked is None:
        return
    found = (new.counter, new.file_hash, new.size_bytes, bytes(new.file.lookup_id))
    wanted = (OBJECT_COUNTER, asked.file_hash, asked.size_bytes, legacy_lookup_id(lease.wallet, asked.file_hash))
    need(
        found == wanted,
        NOT_ASKED,
        f"the string of lease {shown(lease.id)} stores file {asked.file_hash} of {asked.size_bytes} bytes as object {OBJECT_COUNTER} under its own id, got object "
        f"{new.counter}, {new.file_hash[:40]!a} of {new.size_bytes} bytes",
    )
    need(
        new.file.is_public and not new.file.wrapped_key,
        BAD_OBJECT,
        "what a legacy string stores is public: its clients have no keys for private files",
    )


def fault_of_limit(limit: Any, lease: Lease, asked: Asked | None) -> str | None:
    """Why an order limit is none that its lease may pay for; None for one that it may. ``asked``: what the lease is for, if a string pays for it."""
    if bytes(limit.session_pubkey) != lease.session_pubkey:
        # A string of the wallet proves limits of any session key.
        return "the order limit is for another session key than its lease"
    if asked is not None and (limit.action == PUT) != asked.is_put:
        return f"the string of its lease pays for {'storing' if asked.is_put else 'reading'} alone"
    return None
