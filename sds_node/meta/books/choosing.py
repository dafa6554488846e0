"""Which leaves an epoch has: those of its wallets in windows up to the close, of this meta node and of the others, that no earlier epoch has.

    ledger: marks ─► windows up to them ─┐
    ledger: lines ─► their wallets ──────┴─► leaves without an epoch ─ Σ by line ══ line? ─► the epoch's, or UnevenBooks
    an epoch that others reported, or a window that came, or came back, after it was made: its wallets' leaves up to its marks are the epoch's, too

An epoch from before there were marks has the windows up to the time of its close. A close takes all that its wallets have earned, so what lies before the
marks and is theirs was reported with it, whether the books here add up or not. Everything here runs within ``Books.do``. Sources: ADR 10; rules/epochs.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson
import structlog

from modules.settlement.commitment import Line
from sds_node.meta.books.books import Books, BooksError, EpochRow, EpochState, Phase
from sds_node.meta.books.others import FIRST_ID, arrived_in, last_numbers
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.relay.reporter import UnevenBooks
from sds_node.meta.rules.call import STATE_KEY
from sds_node.meta.rules.epochs import MAX_META_ROWS, last_window
from sds_node.meta.rules.tables import CLOSED, EPOCH, EPOCH_LINE, EPOCH_MARK, MATURE, META, REPORTED, STATE, VOID, WINDOW, Epoch, Meta
from sds_node.meta.rules.wire import MAX_LINES

log = structlog.get_logger("books")

GIVE_UP_MS: Final = 3_600_000
"""A window that nobody has so long before a close is not waited for: whom it pays is left out."""
MAX_EARLIER: Final = 1_000
_PAGE: Final = 1_000
Key = tuple[bytes, int, int]
"""(wallet, fund, class): settlement's order of leaves."""


@dataclass(frozen=True, slots=True)
class Closing:
    """An epoch as the ledger has it. ``marks``: meta node → (windows before, last window), empty for one from before there were marks. ``lines`` are None
    once the ledger has forgotten them. ``answers_roots``: of the releases between the marks, in order."""

    row: Epoch
    marks: Mapping[bytes, tuple[int, int]]
    lines: list[Line] | None = None
    answers_roots: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Chosen:
    """``last_window`` of this meta node; ``arrived`` is how many windows of others were here."""

    last_window: int
    arrived: int


def closing_of(view: ReadView, number: int) -> Closing | None:
    """An epoch that the ledger closed, with its releases' roots; None where it has none."""
    row = view.get(EPOCH, (number,))
    if row is None:
        return None
    marks = _marks_of(view, number)
    roots: list[bytes] = []
    for meta, (after, last) in sorted(marks.items()):
        page = view.scan(WINDOW, (meta,), after=(after,), end=(last + 1,), limit=_PAGE) if after < last else []
        while page:
            roots += [one.root for one in page if one.is_release]
            page = view.scan(WINDOW, (meta,), after=(page[-1].number,), end=(last + 1,), limit=_PAGE)
    return Closing(row, marks, None, roots)


def earlier_of(view: ReadView, known: Mapping[int, tuple[int, int]]) -> list[Closing]:
    """Epochs of which the books may have to hear: reported ones that are not mature, void ones, and mature ones back to the first that the books have.
    ``known``: number → (state, closed_ms) of the books' epochs."""
    state = view.get(STATE, STATE_KEY)
    found: list[Closing] = []
    for row in view.scan(EPOCH, end=(state.reported_epoch + 1,), reverse=True, limit=MAX_EARLIER) if state is not None else ():
        marks = _marks_of(view, row.number)
        if row.status == MATURE and (not marks or known.get(row.number, (0, 0))[1] == row.closed_ms):
            break
        lines = [Line(*one[1:]) for one in view.scan(EPOCH_LINE, (row.number,), limit=MAX_LINES)]
        if row.status != CLOSED:
            found.append(Closing(row, marks, lines if len(lines) == row.lines_count else None))
    return found[::-1]


def first_needed(view: ReadView, meta: Meta) -> tuple[int, int]:
    """(number, time in ms) of the last window of a meta node of which nobody needs the leaves; (0, 0) for none."""
    row = _last_over(view)
    return (last_window(view, meta, row), row.closed_ms) if row is not None else (0, 0)


def last_over(view: ReadView) -> dict[bytes, int]:
    """Meta node → the number of its last window of which nobody needs the leaves; empty for none."""
    row = _last_over(view)
    return {meta.address: last_window(view, meta, row) for meta in view.scan(META, limit=MAX_META_ROWS)} if row is not None else {}


def _last_over(view: ReadView) -> Epoch | None:
    """The last epoch whose lines are forgotten."""
    return next((row for row in view.scan(EPOCH, reverse=True, limit=MAX_EARLIER) if row.status == MATURE and row.ends_ms == 0), None)


def _marks_of(view: ReadView, number: int) -> dict[bytes, tuple[int, int]]:
    return {one.meta_node: (one.after, one.last) for one in view.scan(EPOCH_MARK, (number,), limit=MAX_META_ROWS)}


def known_epochs(database: sqlite3.Connection) -> dict[int, tuple[int, int]]:
    """Number → (state, closed_ms) of the books' last epochs."""
    query = f"SELECT number, state, closed_ms FROM epochs ORDER BY number DESC LIMIT {MAX_EARLIER}"
    return {number: (state, closed_ms) for number, state, closed_ms in database.execute(query)}


class Choosing:
    """Gives leaves to epochs in the ``books`` of the meta node at ``address``."""

    def __init__(self, books: Books, address: bytes) -> None:
        self._books, self._address = books, address

    def choose(
        self, database: sqlite3.Connection, number: int, closed_ms: int, lines: Sequence[Line], marks: Mapping[bytes, tuple[int, int]]
    ) -> Chosen:
        """Give the lines' leaves to the epoch. Raises BooksError, UnevenBooks, and nothing is changed then."""
        for (earlier,) in database.execute("SELECT number FROM epochs WHERE state = 1 AND number < ?", (number,)).fetchall():
            # The ledger closes an epoch only when the one before was reported.
            row = self._books.epoch_in(database, earlier)
            if row is not None:
                self._books.put_epoch(database, row._replace(state=EpochState.REPORTED))
        self._free(database, number)
        self._want(database, [line.wallet for line in lines])
        expected: dict[Key, int] = {(line.wallet, line.fund, line.traffic_class): line.noz for line in lines}
        upto = [(self._marked(database, number, closed_ms, marks), _UPTO)] if marks else self._by_time(database, closed_ms)
        sums = [self._sums(database, f"epoch = 0 AND {where} AND {_WANTED}", (last,)) for last, where in upto]
        for (last, where), found in zip(upto, sums, strict=True):
            if found == expected:
                self._books.change_leaves(database, "epoch = ?", f"state = 3 AND epoch = 0 AND {where} AND {_WANTED}", (number, last))
                whole = self._sums(database, "epoch = ?", (number,))
                if whole != expected:
                    raise UnevenBooks(f"{_difference(number, expected, whole)}; some are damaged", _uneven(expected, whole))
                return Chosen(last, arrived_in(database))
        wallets = min((_uneven(expected, found) for found in sums), key=len)
        raise UnevenBooks(_difference(number, expected, sums[0]), wallets)

    def catch_up(self, database: sqlite3.Connection, earlier: Sequence[Closing]) -> None:
        """What became of earlier epochs, as the ledger says: reported or void, also of those that were not made here. Raises BooksError while a window is
        missing that one of them has."""
        for one in earlier:
            number = one.row.number
            own = self._books.epoch_in(database, number)
            if one.row.status == VOID:
                if own is not None:
                    self.void(database, own)
            elif one.row.status in (REPORTED, MATURE) and (own is None or own.state != EpochState.VOID):
                if own is not None and (not one.marks or own.closed_ms == one.row.closed_ms):
                    self._add_late(database, own._replace(state=EpochState.REPORTED), own, one)
                elif one.marks:
                    self._take_over(database, one)

    def void(self, database: sqlite3.Connection, row: EpochRow) -> None:
        """An epoch is void: its leaves are nobody's again."""
        if row.state != EpochState.VOID:
            self._books.put_epoch(database, row._replace(state=EpochState.VOID))
            self._books.change_leaves(database, "epoch = 0", "epoch = ? AND state = 3", (row.number,))

    # --- epochs that were reported ------------------------------------------------------------------------------------------

    def _take_over(self, database: sqlite3.Connection, one: Closing) -> None:
        """An epoch that others reported, or that was made here of an earlier close: which leaves it paid."""
        number = one.row.number
        self._free(database, number)
        last = self._marked(database, number, one.row.closed_ms, one.marks)
        taken, is_whole = self._give(database, one)
        data = orjson.dumps({"last_window": last, "arrived": arrived_in(database), "is_whole": is_whole})
        self._books.put_epoch(database, EpochRow(number, EpochState.REPORTED, one.row.closed_ms, data))
        log.info("an epoch was reported whose data was not made here", epoch=number, receipts=taken, is_whole=is_whole)

    def _add_late(self, database: sqlite3.Connection, row: EpochRow, before: EpochRow, one: Closing) -> None:
        """An epoch that is known here was reported; windows that came since then may have leaves that it paid: those of others, and own ones that came back."""
        fields = orjson.loads(row.data)
        arrived = arrived_in(database)
        is_late = not fields.get("is_whole", True) or fields.get("arrived", arrived) < arrived
        if one.marks and one.lines is not None and is_late:
            late, is_whole = self._give(database, one)
            row = row._replace(data=orjson.dumps(fields | {"arrived": arrived, "is_whole": is_whole}))
            if late:
                log.info("receipts came late for an epoch that was reported", epoch=row.number, receipts=late, is_whole=is_whole)
        if row != before:
            self._books.put_epoch(database, row)

    def _give(self, database: sqlite3.Connection, one: Closing) -> tuple[int, bool]:
        """Give an epoch that was reported what it paid of the leaves here that are nobody's. (How many, whether it has all.)"""
        number = one.row.number
        self._set_marks(database, one.marks)
        where = f"state = 3 AND epoch = 0 AND {_UPTO}"
        if one.lines is not None:
            self._want(database, [line.wallet for line in one.lines])
            where += f" AND {_WANTED}"
        last = one.marks.get(self._address, (0, 0))[1]
        given = self._books.change_leaves(database, "epoch = ?", where, (number, last))
        expected = {(line.wallet, line.fund, line.traffic_class): line.noz for line in one.lines or ()}
        return given, one.lines is not None and self._sums(database, "epoch = ?", (number,)) == expected

    # --- windows ------------------------------------------------------------------------------------------------------------

    def _marked(self, database: sqlite3.Connection, number: int, closed_ms: int, marks: Mapping[bytes, tuple[int, int]]) -> int:
        """Set the windows up to the marks; this meta node's last one. Raises BooksError when one is missing that may still come."""
        self._set_marks(database, marks)
        known = last_numbers(database)
        for meta, (_, last) in sorted(marks.items()):
            if meta != self._address and known.get(meta, 0) < last:
                raise BooksError(_missing(number, meta, known.get(meta, 0) + 1))
        query = (
            "SELECT o.meta, o.number FROM others o JOIN marks m ON m.meta = o.meta AND o.number <= m.last "
            "WHERE o.state = 1 AND o.time_ms > ? ORDER BY o.time_ms, o.meta, o.number LIMIT 1"
        )
        found = database.execute(query, (closed_ms - GIVE_UP_MS,)).fetchone()
        if found is not None:
            raise BooksError(_missing(number, *found))
        return marks.get(self._address, (0, 0))[1]

    def _set_marks(self, database: sqlite3.Connection, marks: Mapping[bytes, tuple[int, int]]) -> None:
        database.execute("CREATE TEMP TABLE IF NOT EXISTS marks (meta BLOB PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID")
        database.execute("DELETE FROM marks")
        database.executemany("INSERT INTO marks VALUES (?, ?)", [(meta, last) for meta, (_, last) in marks.items() if meta != self._address])

    def _by_time(self, database: sqlite3.Connection, closed_ms: int) -> list[tuple[int, str]]:
        """Windows of the very millisecond of the close may be before or after it: the sums say."""
        query = "SELECT number FROM windows WHERE state = ? AND time_ms = ? ORDER BY number DESC"
        earlier = database.execute("SELECT max(number) FROM windows WHERE state = 2 AND time_ms < ?", (closed_ms,)).fetchone()[0] or 0
        lasts = [row[0] for row in database.execute(query, (Phase.APPLIED, closed_ms))] + [earlier]
        return [(int(last), "window <= ?") for last in lasts]

    # --- leaves -------------------------------------------------------------------------------------------------------------

    def _free(self, database: sqlite3.Connection, number: int) -> None:
        """What was chosen for an epoch as it was closed before is nobody's again."""
        self._books.change_leaves(database, "epoch = 0", "epoch = ? AND state = 3", (number,))
        # Damaged ones are left out of every change, so that they stay known as such; in this epoch they must not be.
        database.execute("UPDATE leaves SET epoch = 0 WHERE epoch = ? AND state = 3", (number,))

    def _want(self, database: sqlite3.Connection, wallets: Sequence[bytes]) -> None:
        database.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (wallet BLOB PRIMARY KEY) WITHOUT ROWID")
        database.execute("DELETE FROM wanted")
        database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(one,) for one in wallets])

    def _sums(self, database: sqlite3.Connection, where: str, values: tuple[int, ...]) -> dict[Key, int]:
        query = (
            "SELECT beneficiary, fund, class, sum(noz >> 32), sum(noz & 4294967295) FROM leaves "
            f"WHERE state = 3 AND {where} GROUP BY beneficiary, fund, class"
        )
        return {(wallet, fund, kind): (high << 32) + low for wallet, fund, kind, high, low in database.execute(query, values)}


_WANTED: Final = "beneficiary IN (SELECT wallet FROM wanted)"
_MARKED: Final = "SELECT o.id FROM others o JOIN marks m ON m.meta = o.meta AND o.number <= m.last WHERE o.state = 2"
_UPTO: Final = f"((window <= ? AND window < {FIRST_ID}) OR window IN ({_MARKED}))"


def _missing(number: int, meta: bytes, window: int) -> str:
    return f"window {window} of meta node {meta.hex()} is not here, and epoch {number} has it: it is fetched as soon as a meta node gives it"


def _uneven(expected: Mapping[Key, int], found: Mapping[Key, int]) -> list[bytes]:
    """Wallets whose lines are not what their leaves add up to, ascending."""
    return sorted({key[0] for key in expected.keys() | found.keys() if expected.get(key, 0) != found.get(key, 0)})


def _difference(number: int, expected: Mapping[Key, int], found: Mapping[Key, int]) -> str:
    """The first line that does not add up, in words."""
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key, 0) != found.get(key, 0):
            wallet, fund, kind = key
            return (
                f"epoch {number}: the ledger has {expected.get(key, 0)} noz for {wallet.hex()}, class {kind}, fund {fund}, the leaves here have "
                f"{found.get(key, 0)}: nothing is reported; leaves are missing here, or a window of another meta node does not hold"
            )
    return f"epoch {number}: the leaves do not add up to the lines"
