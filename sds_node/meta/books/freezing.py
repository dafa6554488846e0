"""Balances and files as they were when an epoch was closed: the same on each meta node of a ledger with blocks.

    block committed ─► on_commit ─ did it close the next epoch? ─ yes: this snapshot is held ─► a thread: trees over all wallets ─► kept under the epoch
                                        └ no: two rows were read, that is all
    epoch() ─► kept for that close? ─ else BooksError: the next close is needed

The hook runs in the ledger's thread between two blocks and raises nothing. At most two snapshots are held. Source: ADR 10.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Lock
from typing import Final, Protocol

import structlog

from sds_node.meta.books.books import Books, BooksError
from sds_node.meta.books.wallets import Before, trees_of
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.rules.call import STATE_KEY
from sds_node.meta.rules.tables import CLOSED, EPOCH, STATE
from sds_node.proofs import BALANCE_BYTES, FILES_BYTES

log = structlog.get_logger("books")

SNAPSHOTS_KEPT: Final = 4
"""Of as many epochs balances and files can be proved."""
MAX_HELD: Final = 2
BALANCES: Final = "balances"
FILES: Final = "files"
SEQUENCE: Final = "sequence"
CLOSE: Final = "closed_ms"
Trees = tuple[list[bytes], list[bytes]]
"""Leaves of balances and of files, by wallet."""


class Committing(Protocol):
    """A ledger that says when a block is committed."""

    @property
    def on_commit(self) -> list[Callable[[], None]]:
        """Called after each commit, before the next block begins."""
        ...

    def snapshot(self) -> AbstractContextManager[ReadView]: ...


def keep_trees(books: Books, view: ReadView, number: int, closed_ms: int) -> Trees:
    """Leaves of balances and files of all wallets at one commit; kept, so that wallets can have them proved. Blocks. Raises BooksError, LedgerError."""
    before = books.submit(_last_files).result()
    sequence = view.head.sequence
    balances, files = trees_of(view, before)
    kept = (
        (BALANCES, b"".join(balances)),
        (FILES, b"".join(files)),
        (SEQUENCE, sequence.to_bytes(8, "big")),
        (CLOSE, closed_ms.to_bytes(8, "big")),
    )

    def keep(database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM snapshots WHERE epoch <= ?", (number - SNAPSHOTS_KEPT,))
        for name, data in kept:
            database.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", (number, name, data))

    books.submit(keep).result()
    return balances, files


class Freezer:
    """Holds the state of closes for ``books``. ``start`` once, before the ledger's first block; ``close`` before the books and the ledger are closed."""

    def __init__(self, ledger: Committing, books: Books) -> None:
        self._ledger, self._books = ledger, books
        self._pool = ThreadPoolExecutor(1, "freezing")
        self._guard = Lock()
        self._held: dict[tuple[int, int], Future[None]] = {}
        self._done: tuple[int, int] = (0, 0)

    def start(self) -> None:
        """Look at the last commit, then at each one that comes."""
        self.look()
        self._ledger.on_commit.append(self.look)

    def look(self) -> None:
        """Hold the last commit if it closed the next epoch. Raises nothing."""
        try:
            with contextlib.ExitStack() as stack:
                view = stack.enter_context(self._ledger.snapshot())
                state = view.get(STATE, STATE_KEY)
                row = view.get(EPOCH, (state.reported_epoch + 1,)) if state is not None else None
                if row is None or row.status != CLOSED or row.closed_ms != view.head.time_ms:
                    return
                key = row.number, row.closed_ms
                with self._guard:
                    if key == self._done or key in self._held:
                        return
                    if len(self._held) >= MAX_HELD:
                        log.error("the state of an epoch's close is not held: those before are not done yet", epoch=row.number)
                        return
                    held = stack.pop_all()
                    self._held[key] = self._pool.submit(self._make, held, view, *key)
        except Exception as error:  # the ledger goes on whatever becomes of this
            log.error("the state of an epoch's close is not held", error=type(error).__name__, why=str(error))

    def _make(self, held: contextlib.ExitStack, view: ReadView, number: int, closed_ms: int) -> None:
        try:
            with held:
                if _trees_in_time(self._books, number, closed_ms) is None:
                    keep_trees(self._books, view, number, closed_ms)
        except Exception as error:
            log.error("the state of an epoch's close is not kept", epoch=number, error=type(error).__name__, why=str(error))
        finally:
            with self._guard:
                self._held.pop((number, closed_ms), None)
                self._done = number, closed_ms

    async def trees(self, number: int, closed_ms: int) -> Trees:
        """Leaves of balances and files as an epoch was closed at that time. Raises BooksError when they were not held."""
        with self._guard:
            waiting = self._held.get((number, closed_ms))
        if waiting is not None:
            await asyncio.shield(asyncio.wrap_future(waiting))
        found = await asyncio.to_thread(_trees_in_time, self._books, number, closed_ms)
        if found is None:
            raise BooksError(f"the state at the close of epoch {number} at {closed_ms} ms is not held here: the next close is needed")
        return found

    def close(self) -> None:
        """End; what is held is done first."""
        with contextlib.suppress(ValueError):
            self._ledger.on_commit.remove(self.look)
        self._pool.shutdown()


def _trees_in_time(books: Books, number: int, closed_ms: int) -> Trees | None:
    """What is kept of an epoch, if it is of that close. Blocks."""
    query = "SELECT name, data FROM snapshots WHERE epoch = ?"
    kept: dict[str, bytes] = books.submit(lambda database: dict(database.execute(query, (number,)).fetchall())).result()
    if kept.get(CLOSE) != closed_ms.to_bytes(8, "big") or BALANCES not in kept or FILES not in kept:
        return None
    return parts(kept[BALANCES], BALANCE_BYTES), parts(kept[FILES], FILES_BYTES)


def parts(data: bytes, size_bytes: int) -> list[bytes]:
    """Leaves of one size that lie behind each other."""
    return [data[at : at + size_bytes] for at in range(0, len(data), size_bytes)]


def _last_files(database: sqlite3.Connection) -> Before | None:
    query = (
        "SELECT f.data, s.data FROM snapshots f JOIN snapshots s ON s.epoch = f.epoch WHERE f.name = ? AND s.name = ? ORDER BY f.epoch DESC LIMIT 1"
    )
    row = database.execute(query, (FILES, SEQUENCE)).fetchone()
    return None if row is None else Before(int.from_bytes(row[1], "big"), bytes(row[0]))
