"""How late a receipt may come: one answer for whoever takes receipts (books) and for whoever promises noz again (users).

    limit issued ──── expires ──── + RECEIPTS_S: no receipt of it is taken any more ──── + FREE_S: its noz are promised anew ──── lease ends, + SETTLE_S: settled

Between the two, what was taken just in time comes into a window: a window that comes later than that could find noz that were given to somebody else. So
windows must be closer together than FREE_S - RECEIPTS_S, and each round takes all that can be paid. For storing the noz are kept until
FREE_S after the commit, if that is later. Source: storage-protocol.md 2 and 3.3; docs/adr/0009.
"""

from __future__ import annotations

from typing import Final

RECEIPTS_S: Final = 120
"""After an order limit's end its receipt may still come for so long."""
REPAIR_RECEIPTS_S: Final = 6 * 3_600
"""The same for a limit of repair or an audit, which no lease of the ledger bounds."""
REPAIR_LATEST_S: Final = 6 * 86_400
"""However long this meta node was away: below the week after which the leaf of a receipt that was paid is forgotten (``books/epochs.py``)."""
FREE_S: Final = 300
"""After an order limit's or a lease's end its noz are kept for so long. Below the 600 s after which the ledger settles a lease by itself."""


def is_late_repair(expires_s: int, now_ms: int, away_ms: tuple[int, int] = (0, 0)) -> bool:
    """``is_late`` for a limit of repair or an audit. A receipt that was paid once is known for as long as it is not late."""
    due_ms = (expires_s + REPAIR_RECEIPTS_S) * 1_000
    if away_ms[0] < due_ms:
        due_ms = max(due_ms, min(away_ms[1] + REPAIR_RECEIPTS_S * 1_000, (expires_s + REPAIR_LATEST_S) * 1_000))
    return now_ms >= due_ms


def is_late(expires_s: int, now_ms: int, away_ms: tuple[int, int] = (0, 0)) -> bool:
    """Whether a receipt for a limit that ended at ``expires_s`` comes too late. ``away_ms``: from when until when this meta node took none, the last time: what
    could not be handed in then has as much time after it."""
    due_ms = (expires_s + RECEIPTS_S) * 1_000
    if away_ms[0] < due_ms:
        due_ms = max(due_ms, away_ms[1] + RECEIPTS_S * 1_000)
    return now_ms >= due_ms
