"""Epochs: what is to be reported, what was reported, what is void.

    earned ─ close: a copy of the oldest wallets' rows ─► epoch CLOSED ─ the chain's report ─► REPORTED, earned less that ─► MATURE, lines forgotten
                  │                                       └ closed again if no report comes        └ void: back into earned
                  └─ of each meta node the number of its last window ─► epoch_mark: whose receipts are behind the lines

Lines are those of settlement's commitment, in its order and with its root. Sources: storage-protocol.md 1.2, 1.5, 1.6, 1.9; ADR 8.
"""

from __future__ import annotations

from typing import Any, Final

from modules.settlement.commitment import Line, line_bytes
from modules.settlement.trees import plain_root
from sds_node.meta.ledger.schema import MAX_INT63
from sds_node.meta.ledger.tables import Tables, View
from sds_node.meta.rules.approvals import check_approvals
from sds_node.meta.rules.call import Call, change_state, enqueue, state_of
from sds_node.meta.rules.money import earn, owe
from sds_node.meta.rules.refusals import TOO_EARLY, UNKNOWN_LINES, WRONG_EPOCH, need, shown
from sds_node.meta.rules.tables import (
    CLOSED,
    EARNED,
    EPOCH,
    EPOCH_ENDS,
    EPOCH_LINE,
    EPOCH_MARK,
    MATURE,
    MAX_REFERENCE_BYTES,
    META,
    PAID,
    PROMO,
    REPORTED,
    VOID,
    WINDOW,
    Earned,
    Epoch,
    EpochLine,
    EpochMark,
    Meta,
)
from sds_node.meta.rules.windows import WINDOWS_KEPT
from sds_node.meta.rules.wire import MAX_LINES, MAX_U32, address, amount, ascending, count, fund_of, identity, listed, printable, whole

MAX_REPORT_WALLETS: Final = 1_000
LINES_OF_A_WALLET: Final = 8
MAX_LEFT_OUT: Final = 1_000
"""Wallets that an epoch may be closed without: those whose leaves a meta node's books cannot show. What they earned stays earned."""
REOPEN_S: Final = 60
"""A closed epoch may be closed again after the epoch's length, and not before this: signatures on the first form are being gathered."""
MAX_EPOCHS_AT_ONCE: Final = 100
MAX_META_ROWS: Final = 10_000
_PAGE: Final = 1_000


def close(call: Call, message: Any) -> bytes:
    """Fix the lines of the next epoch: those of the wallets that wait longest, but for those that it is closed without, which others have approved. Gives
    their root (32 bytes)."""
    tables, state = call.tables, state_of(call.tables)
    listed(message.without, MAX_LEFT_OUT, "close_epoch.without", 0)
    without = [address(one, "close_epoch.without") for one in message.without]
    ascending(without, "close_epoch.without")
    if without:
        check_approvals(call, message, "close_epoch")
    else:
        listed(message.approvals, 0, "close_epoch.approvals", 0)
    number = state.reported_epoch + 1
    need(message.epoch == number, WRONG_EPOCH, f"epoch {number} is the next one to be reported, got {message.epoch}")
    opens_ms = (state.reported_s + state.epoch_duration_s) * 1_000
    need(call.time_ms >= opens_ms, TOO_EARLY, f"an epoch has {state.epoch_duration_s} s: the next one ends at {opens_ms} ms, it is {call.time_ms} ms")
    before = tables.get(EPOCH, (number,))
    if before is not None:
        again_ms = before.closed_ms + max(state.epoch_duration_s, REOPEN_S) * 1_000
        need(
            call.time_ms >= again_ms,
            TOO_EARLY,
            f"epoch {number} is closed already, and may be closed again at {again_ms} ms; it is {call.time_ms} ms",
        )
        _forget(tables, number)
    lines = _oldest(tables, min(state.max_wallets_per_report or MAX_REPORT_WALLETS, MAX_REPORT_WALLETS), frozenset(without))
    for line in lines:
        tables.put(EPOCH_LINE, EpochLine(number, *line))
    _mark(tables, number)
    root = plain_root([line_bytes(line) for line in lines])
    promo = sum(line.noz for line in lines if line.fund == PROMO)
    tables.put(
        EPOCH,
        Epoch(number, CLOSED, call.time_ms, root, len(lines), sum(line.noz for line in lines), promo, state.promo_expired_noz, "", 0, 0),
    )
    return root


def _oldest(tables: Tables, most_wallets: int, without: frozenset[bytes]) -> list[Line]:
    """The lines of at most so many wallets, the longest waiting first, none of them in ``without``; in the commitment's order."""
    wallets: dict[bytes, None] = {}
    page = tables.scan(EARNED, index="by_since", limit=_PAGE)
    while page and len(wallets) < most_wallets:
        for row in page:
            if len(wallets) < most_wallets and row.wallet not in without:
                wallets[row.wallet] = None
        last = page[-1]
        page = tables.scan(EARNED, index="by_since", after=(last.since_ms, last.wallet, last.traffic_class, last.fund), limit=_PAGE)
    return [Line(*row[:4]) for wallet in sorted(wallets) for row in tables.scan(EARNED, (wallet,), limit=LINES_OF_A_WALLET)]


def _lines_of(tables: Tables, number: int) -> list[EpochLine]:
    return tables.scan(EPOCH_LINE, (number,), limit=MAX_LINES)


def _mark(tables: Tables, number: int) -> None:
    """Note the last window of each meta node, and up to which one the last epoch that holds has them."""
    earlier = tables.scan(EPOCH, end=(number,), reverse=True, limit=MAX_EPOCHS_AT_ONCE)
    # Of very many void ones in a row the oldest that is looked at is where releases are counted from.
    base = next((row for row in earlier if row.status in (REPORTED, MATURE)), earlier[-1] if len(earlier) == MAX_EPOCHS_AT_ONCE else None)
    for meta in tables.scan(META, limit=MAX_META_ROWS):
        if meta.windows or meta.is_active:
            after = 0 if base is None else last_window(tables, meta, base)
            tables.put(EPOCH_MARK, EpochMark(number, meta.address, min(after, meta.windows), meta.windows))


def last_window(view: View, meta: Meta, epoch: Epoch) -> int:
    """The number of a meta node's last window as an epoch was closed. Of one that has no marks, the last that is not younger than its close."""
    mark = view.get(EPOCH_MARK, (epoch.number, meta.address))
    if mark is not None:
        return mark.last
    low, high = max(0, meta.windows - WINDOWS_KEPT), meta.windows
    while low < high:
        middle = (low + high + 1) // 2
        row = view.get(WINDOW, (meta.address, middle))
        low, high = (middle, high) if row is None or row.made_ms <= epoch.closed_ms else (low, middle - 1)
    return low


def _forget(tables: Tables, number: int) -> None:
    """Lines and marks of an epoch that is closed again, or was passed over."""
    for line in _lines_of(tables, number):
        tables.delete(EPOCH_LINE, line[:4])
    for mark in tables.scan(EPOCH_MARK, (number,), limit=MAX_META_ROWS):
        tables.delete(EPOCH_MARK, mark[:2])


def reported(call: Call, event: Any, block_time_s: int) -> None:
    """The chain accepted an epoch's report: its lines leave earned. With lines of its own it may be another one than this ledger closed; what it has
    beyond what was earned here is kept as shortfall."""
    tables, state = call.tables, state_of(call.tables)
    number = state.reported_epoch + 1
    need(event.epoch >= number, WRONG_EPOCH, f"expected the report of epoch {number} or a later one, got {event.epoch}")
    if event.epoch > number:
        # Epochs without a length follow one another with gaps: what was closed here is not what was reported.
        _forget(tables, number)
        if tables.get(EPOCH, (number,)) is not None:
            tables.delete(EPOCH, (number,))
        number = whole(event.epoch, number, MAX_INT63 - 1, "report.epoch")
    reference = printable(event.reference, MAX_REFERENCE_BYTES, "report.reference")
    root, lines_count = identity(event.lines_root, "report.lines_root"), whole(event.lines_count, 0, MAX_U32, "report.lines_count")
    expired, maturity = amount(event.promo_expired_noz, "report.promo_expired_noz"), count(event.maturity_epoch, "report.maturity_epoch")
    own = tables.get(EPOCH, (number,))
    if own is not None and (own.lines_root, own.lines_count) == (root, lines_count):
        lines = [Line(*row[1:]) for row in _lines_of(tables, number)]
    else:
        lines = _given_lines(event, number, root, lines_count)
        for old in _lines_of(tables, number):
            tables.delete(EPOCH_LINE, old[:4])
        for line in lines:
            tables.put(EPOCH_LINE, EpochLine(number, *line))
    since_ms = own.closed_ms if own is not None else call.time_ms
    for line in lines:
        _take(tables, line, since_ms)
    gone = min(expired, state_of(tables).promo_expired_noz)
    noz, promo = sum(line.noz for line in lines), sum(line.noz for line in lines if line.fund == PROMO)
    state = state_of(tables)
    change_state(
        tables,
        reported_epoch=number,
        reported_s=block_time_s,
        promo_expired_noz=state.promo_expired_noz - gone,
        shortfall_noz=state.shortfall_noz + expired - gone,
        promo_shortfall_noz=state.promo_shortfall_noz + expired - gone,
    )
    _owe_less(tables, noz + expired, promo + expired)
    tables.put(EPOCH, Epoch(number, REPORTED, since_ms, root, len(lines), noz, promo, expired, reference, maturity, 0))
    _mature(call, number)


def _given_lines(event: Any, number: int, root: bytes, lines_count: int) -> list[Line]:
    """The lines that the report brings. Refuses none, and those that are not under its root."""
    listed(event.lines, MAX_LINES, "report.lines", 0)
    lines = [
        Line(
            address(one.wallet, "report.lines.wallet"),
            whole(one.traffic_class, 1, 4, "report.lines.traffic_class"),
            fund_of(one.fund, "report.lines"),
            amount(one.noz, "report.lines.noz"),
        )
        for one in event.lines
    ]
    ascending((line[:3] for line in lines), "report.lines")
    fits = len(lines) == lines_count and plain_root([line_bytes(line) for line in lines]) == root
    need(
        fits,
        UNKNOWN_LINES,
        f"epoch {number} was reported with {lines_count} lines under root {shown(root)}, which are not those that this ledger closed: "
        "observe it again with all lines of the report",
    )
    return lines


def _take(tables: Tables, line: Line, since_ms: int) -> None:
    """earned → the chain; what is not there becomes shortfall."""
    row = tables.get(EARNED, line[:3]) or Earned(*line[:3], 0, 0)
    taken = min(row.noz, line.noz)
    if taken < row.noz:
        tables.put(EARNED, row._replace(noz=row.noz - taken, since_ms=since_ms))
    elif taken:
        tables.delete(EARNED, line[:3])
    if short := line.noz - taken:
        state = state_of(tables)
        change_state(
            tables,
            shortfall_noz=state.shortfall_noz + short,
            promo_shortfall_noz=state.promo_shortfall_noz + (short if line.fund == PROMO else 0),
        )


def _owe_less(tables: Tables, noz: int, promo: int) -> None:
    """What was reported is owed no more. The chain is right also where it paid more than was sold here, as before the founding: then what is beyond was
    never part of the sums, and is no shortfall."""
    state = state_of(tables)
    paid_owed = state.owed_noz - state.promo_owed_noz
    paid_beyond, promo_beyond = max(0, noz - promo - paid_owed), max(0, promo - state.promo_owed_noz)
    beyond = paid_beyond + promo_beyond
    change_state(
        tables,
        owed_noz=state.owed_noz - noz + beyond,
        promo_owed_noz=state.promo_owed_noz - promo + promo_beyond,
        shortfall_noz=state.shortfall_noz - beyond,
        promo_shortfall_noz=state.promo_shortfall_noz - promo_beyond,
    )


def _mature(call: Call, number: int) -> None:
    """Epochs that cannot become void any more: the queue forgets their lines."""
    for row in call.tables.scan(EPOCH, (REPORTED,), end=(number + 1,), index="by_maturity", limit=MAX_EPOCHS_AT_ONCE):
        if row.number < number:
            call.tables.put(EPOCH, row._replace(status=MATURE, ends_ms=call.time_ms))
            enqueue(call.tables, call.time_ms, EPOCH_ENDS, row.number.to_bytes(8, "big"))


def voided(call: Call, event: Any) -> None:
    """An epoch is void on chain: what it reported is earned again, and can be reported in another one."""
    tables = call.tables
    number = count(event.epoch, "voided.epoch")
    row = tables.get(EPOCH, (number,))
    if row is None and 0 < number <= state_of(tables).reported_epoch:
        return  # from before this ledger was founded: who earned it, it does not know
    need(row is not None and row.status == REPORTED, WRONG_EPOCH, f"epoch {number} is not one that was reported, and not mature")
    assert row is not None
    noz = row.noz + row.promo_expired_noz
    owe(tables, PROMO, row.promo_noz + row.promo_expired_noz)
    owe(tables, PAID, noz - row.promo_noz - row.promo_expired_noz)
    for line in _lines_of(tables, number):
        earn(tables, line.wallet, line.traffic_class, line.fund, line.noz, row.closed_ms)
        tables.delete(EPOCH_LINE, line[:4])
    change_state(tables, promo_expired_noz=state_of(tables).promo_expired_noz + row.promo_expired_noz)
    tables.put(EPOCH, row._replace(status=VOID))


def forget_lines(tables: Tables, number: int, most: int) -> int:
    """Forget at most so many lines of a mature epoch. How many were forgotten."""
    lines = tables.scan(EPOCH_LINE, (number,), limit=most)
    for line in lines:
        tables.delete(EPOCH_LINE, line[:4])
    return len(lines)
