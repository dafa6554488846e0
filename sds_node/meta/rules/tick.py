"""Time passes: bounded work on what the queue says is due. A meta node sends one when something is, or when nothing else came for a minute.

    (time, kind, id) ─► lease settled · object on to its next state · rows of an ended one removed · granted noz, used strings, shares, lines forgotten

Source: ADR 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sds_node.meta.ledger.errors import BadValue
from sds_node.meta.ledger.tables import Tables
from sds_node.meta.rules.call import Call, dequeue
from sds_node.meta.rules.epochs import forget_lines
from sds_node.meta.rules.files import grace_ended, object_of, term_ended, trash_ended
from sds_node.meta.rules.leases import end_lease, lease_of
from sds_node.meta.rules.money import promo_ended
from sds_node.meta.rules.objects import end, remove_rows, remove_share
from sds_node.meta.rules.tables import (
    ADDRESS_BYTES,
    ENDING,
    EPOCH,
    EPOCH_ENDS,
    GRACE,
    KEPT,
    LEASE_ENDS,
    OPEN,
    PROMO_ENDS,
    QUEUE,
    SHARE,
    SHARE_ENDS,
    TRASHED,
    USED,
    USED_ENDS,
    Object,
    Queue,
)

WORK: Final = 2_000
"""So much is done by one tick: an entry is 1, each share or line that is removed another. What an entry does beside that is counted by the rows it writes, so
that a tick never comes near the bounds of an operation, whatever users made due at one time."""
WRITES: Final = 4
"""So many rows that are written are 1."""
_PAGE: Final = 100


def tick(call: Call) -> bytes:
    """Work on what is due. Gives how much was done (4 bytes): WORK or more means that there may be more."""
    done = 0
    while done < WORK:
        page = call.tables.scan(QUEUE, end=(call.time_ms + 1,), limit=_PAGE)
        for entry in page:
            if call.tables.get(QUEUE, tuple(entry)) is None:
                continue  # what came before it on this page ended it too
            before = call.tables.mark()
            work = _DUE[entry.kind](call.tables, entry, call.time_ms, WORK - done)
            done += max(work, (call.tables.mark() - before) // WRITES)
            if done >= WORK:
                break
        if len(page) == 0:
            break
    return done.to_bytes(4, "big")


def _lease(tables: Tables, entry: Queue, time_ms: int, most: int) -> int:
    end_lease(tables, lease_of(tables, entry.id), time_ms)
    return 1


def _promo(tables: Tables, entry: Queue, time_ms: int, most: int) -> int:
    promo_ended(tables, entry.id[:ADDRESS_BYTES], entry.at_ms)
    return _gone(tables, entry)


def _used(tables: Tables, entry: Queue, time_ms: int, most: int) -> int:
    tables.delete(USED, (entry.id,))
    return _gone(tables, entry)


def _share(tables: Tables, entry: Queue, time_ms: int, most: int) -> int:
    row = tables.get(SHARE, (entry.id,))
    if row is None:
        raise BadValue(f"the queue names share {entry.id.hex()}, which there is not")
    remove_share(tables, row)
    return 1


def _epoch(tables: Tables, entry: Queue, time_ms: int, most: int) -> int:
    number = int.from_bytes(entry.id, "big")
    lines = forget_lines(tables, number, most)
    if lines == most:
        return lines
    row = tables.get(EPOCH, (number,))
    if row is None:
        raise BadValue(f"the queue names epoch {number}, which there is not")
    tables.put(EPOCH, row._replace(ends_ms=0))
    return lines + _gone(tables, entry)


def _ending(tables: Tables, entry: Queue, time_ms: int, most: int) -> int:
    return remove_rows(tables, object_of(tables, entry.id), most)


def _gone(tables: Tables, entry: Queue) -> int:
    dequeue(tables, entry.at_ms, entry.kind, entry.id)
    return 1


def _term(tables: Tables, entry: Queue, time_ms: int, most: int) -> int:
    return 1 + term_ended(tables, object_of(tables, entry.id), time_ms) // WRITES


def _object(rule: Callable[[Tables, Object, int], object]) -> Callable[[Tables, Queue, int, int], int]:
    def run(tables: Tables, entry: Queue, time_ms: int, most: int) -> int:
        rule(tables, object_of(tables, entry.id), time_ms)
        return 1

    return run


_DUE: Final[dict[int, Callable[[Tables, Queue, int, int], int]]] = {
    OPEN: _object(end),
    KEPT: _term,
    GRACE: _object(grace_ended),
    TRASHED: _object(trash_ended),
    ENDING: _ending,
    LEASE_ENDS: _lease,
    PROMO_ENDS: _promo,
    USED_ENDS: _used,
    SHARE_ENDS: _share,
    EPOCH_ENDS: _epoch,
}
