"""What an object's numbers mean: its shares' escrow by days, its state and what is due; what commit, releases, moves and files share.

    OPEN ─ last segment ─► KEPT ─ term ends ─► renewed, or GRACE ─ grace ends ─► ENDING ─ rows removed bit by bit ─► gone
                             └── deleted ─► TRASHED ─ restored ─► KEPT or GRACE;  trash ends ─► ENDING

Day d of a term of T days releases floor(e·d ÷ T) − floor(e·(d − 1) ÷ T) of a share's escrow e (storage-protocol.md 3.6). A renewed object has more terms of
the same length and escrow, so days count on.
"""

from __future__ import annotations

from typing import Final

from sds_node.meta.ledger.tables import Tables
from sds_node.meta.rules.call import dequeue, enqueue, state_of
from sds_node.meta.rules.money import change_common_fund, pay_in, wallet_of
from sds_node.meta.rules.places import days_of, nodes_of, remove_held
from sds_node.meta.rules.tables import (
    ALSO,
    COMMITTED,
    DAY_MS,
    ENDING,
    ENDOWED,
    GRACE,
    KEPT,
    MOVED,
    OBJECT,
    SEGMENT,
    SHARE,
    SHARE_ENDS,
    TRASHED,
    WALLET,
    Endowed,
    Object,
    Segment,
    Share,
)
from sds_node.schemes import MAX_RETENTION_DAYS, Scheme, scheme_of, segment_size, share_bytes, share_noz, unreleased_noz

MAX_DAYS: Final = MAX_RETENTION_DAYS
"""So many days all terms of an object have at most: a leaf of a later one is none on chain (``modules/settlement/leaves.py``). A day fits two bytes."""
SHARES_OF_A_FILE: Final = 100
STORED: Final = (KEPT, GRACE, TRASHED)
"""States in which its shares are kept and audited."""


def scheme(row: Object) -> Scheme:
    """The scheme that an object was written with."""
    return scheme_of(row.k, row.n)


def share_escrow(row: Object, at: int) -> int:
    """The escrow in noz of a share of an object's segment ``at`` for one term."""
    return share_noz(share_bytes(scheme(row), segment_size(row.size_bytes, at)), row.escrow_ratio_e18).escrow_noz


def released_until(escrow_noz: int, day: int, term_days: int) -> int:
    """What all days up to ``day`` release together, over as many terms as that takes."""
    terms, rest = divmod(day, term_days)
    return terms * escrow_noz + escrow_noz - unreleased_noz(escrow_noz, rest, term_days)


def day_of(row: Object, time_ms: int) -> int:
    """Whole days since an object was made, at most those of its terms."""
    return min((time_ms - row.made_ms) // DAY_MS, row.terms * row.term_days)


def term_ends_ms(row: Object) -> int:
    """When its last term is over."""
    return row.made_ms + row.terms * row.term_days * DAY_MS


def due(tables: Tables, row: Object, state: int, due_ms: int) -> Object:
    """Write an object in a state, and its place in the queue."""
    dequeue(tables, row.due_ms, row.state, row.id)
    row = row._replace(state=state, due_ms=due_ms)
    enqueue(tables, due_ms, state, row.id)
    tables.put(OBJECT, row)
    return row


def keep(tables: Tables, row: Object, time_ms: int) -> Object:
    """An object is kept on: in its term, or after it in grace."""
    ends_ms = term_ends_ms(row)
    if time_ms < ends_ms:
        return due(tables, row, KEPT, ends_ms)
    return due(tables, row, GRACE, max(time_ms, ends_ms + state_of(tables).grace_days * DAY_MS))


def remove_share(tables: Tables, share: Share) -> None:
    """A share of a file is no more, nor is what it has another one's link for."""
    tables.delete(SHARE, (share.id,))
    if tables.get(ALSO, (share.id,)) is not None:
        tables.delete(ALSO, (share.id,))
    if share.ends_ms:
        dequeue(tables, share.ends_ms, SHARE_ENDS, share.id)
    wallet = wallet_of(tables, share.wallet)
    tables.put(WALLET, wallet._replace(shares=wallet.shares - 1))


def end(tables: Tables, row: Object, time_ms: int) -> Object:
    """An object is not kept any more: escrow and repair fund → its payer, but for what the common repair fund gave; its shares with others end. Its rows go
    bit by bit."""
    for share in tables.scan(SHARE, (row.id,), index="by_object", limit=SHARES_OF_A_FILE):
        remove_share(tables, share)
    left = row.escrow_noz + row.repair_noz
    back = from_common(tables, row)
    if back:
        change_common_fund(tables, row.fund, back)
    if tables.get(ENDOWED, (row.id,)) is not None:
        tables.delete(ENDOWED, (row.id,))
    pay_in(tables, row.payer, row.fund, left - back, row.promo_ends_ms, time_ms)
    return due(tables, row._replace(escrow_noz=0, repair_noz=0), ENDING, time_ms)


def remove_rows(tables: Tables, row: Object, most_shares: int) -> int:
    """Remove the last segments of an ENDING object, of at most about ``most_shares`` shares, and the object with the last one. How many shares it were."""
    most = min(row.committed, max(1, most_shares // row.n))
    segments = tables.scan(SEGMENT, start=(row.first_segment + row.committed - most,), end=(row.first_segment + row.committed,), limit=most or 1)
    by_node: dict[int, list[int]] = {}
    for segment in segments:
        for node in nodes_of(segment.nodes):
            if node:
                by_node.setdefault(node, []).append(segment.number)
        for moved in tables.scan(MOVED, (segment.number,), limit=row.n):
            tables.delete(MOVED, (segment.number, moved.share))
            if tables.get(COMMITTED, (segment.number, moved.share)) is not None:
                tables.delete(COMMITTED, (segment.number, moved.share))
        tables.delete(SEGMENT, (segment.number,))
    for node in sorted(by_node):
        remove_held(tables, node, by_node[node])
    left = row.committed - most
    if left:
        tables.put(OBJECT, row._replace(committed=left))
    else:
        dequeue(tables, row.due_ms, row.state, row.id)
        tables.delete(OBJECT, (row.id,))
    return max(1, most * row.n)


def to_repair(row: Object, noz: int) -> Object:
    """A share's failed days: escrow → the object's repair fund. Gives the row, not written."""
    return row._replace(escrow_noz=row.escrow_noz - noz, repair_noz=row.repair_noz + noz)


def settle_share(row: Object, segment: Segment, index: int, day: int) -> tuple[int, Segment]:
    """What a share's escrow releases from its last settled day up to ``day``, and its segment with that day; nothing is written."""
    days = days_of(segment.days)
    before = days[index]
    if day <= before:
        return 0, segment
    escrow = share_escrow(row, segment.number - row.first_segment)
    days[index] = day
    noz = released_until(escrow, day, row.term_days) - released_until(escrow, before, row.term_days)
    return noz, segment._replace(days=b"".join([one.to_bytes(2, "big") for one in days]))


def endow(tables: Tables, row: Object, noz: int) -> Object:
    """The escrow of a share that nobody held: out of the object's own repair fund, then the common one, which gets back what is left of its part when the object
    ends. Gives the row, not written; refuses what both have not."""
    own = min(row.repair_noz, noz)
    change_common_fund(tables, row.fund, own - noz)
    note_common(tables, row, noz - own, noz - own)
    return row._replace(repair_noz=row.repair_noz - own, escrow_noz=row.escrow_noz + noz)


def from_common(tables: Tables, row: Object) -> int:
    """What is left in an object of what the common repair fund gave it: its part of what is left of all."""
    given = tables.get(ENDOWED, (row.id,))
    return 0 if given is None else given.noz * (row.escrow_noz + row.repair_noz) // given.of_noz


def note_common(tables: Tables, row: Object, given_noz: int, added_noz: int) -> None:
    """``added_noz`` come to an object, ``given_noz`` of them from the common repair fund; ``row`` is the object before."""
    noz = from_common(tables, row) + given_noz
    if noz:
        tables.put(ENDOWED, Endowed(row.id, noz, row.escrow_noz + row.repair_noz + added_noz))
