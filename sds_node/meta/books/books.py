"""A meta node's books: leaves, windows, epochs, messages that nodes are yet to get, maintenance, batches by hash.

    leaf    HELD ─ intent of a window, synced ─► IN_WINDOW ─ the ledger has the window ─► SETTLED (window, epoch)
              ├── never fits ─► REFUSED          └── the ledger refuses it ─► HELD             ▲
              └── another meta node settles its lease ─► gone          its window, fetched (others.py) ┘

What was answered is on the disk. How the file is kept is ``file.py``. Sources: ADR 9; storage-protocol.md 2.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from modules.settlement.leaves import PUT
from sds_node.meta.books.file import (
    EPOCH,
    LEAF,
    TELL,
    WINDOW,
    BooksDamaged,
    BooksError,
    BooksFile,
    BooksLocked,
    BooksUnusable,
    change,
    checksum,
    put,
    told,
)

__all__ = [
    "Answer",
    "Books",
    "BooksDamaged",
    "BooksError",
    "BooksFull",
    "BooksLocked",
    "BooksUnusable",
    "EpochRow",
    "EpochState",
    "Kind",
    "LeafRow",
    "Phase",
    "State",
    "TellRow",
    "WindowRow",
    "open_books",
]

MAX_REASON: Final = 300
MAX_TELLS: Final = 1_000_000
MAX_TELLS_OF_A_NODE: Final = 10_000
MAX_TELL_BYTES: Final = 1 << 20


MERGED_S: Final = 60
"""Maintenance that begins so soon after another is one with it."""
NEVER_MS: Final = (1 << 62) - 1
"""``settles_ms`` of leaves that no lease pays."""
OfLeases = tuple[bool, int, bytes]
"""Where a leaf stands that a lease pays: (whether it is for storing, ``settles_ms``, id)."""
FIRST_OF_LEASES: Final[OfLeases] = (False, -1, b"")
"""Before the first one."""


class BooksFull(BooksError):
    """So many messages wait for a node that no more are kept."""


class State(IntEnum):
    """Where a leaf is. Numbers are on disk and never change their meaning."""

    HELD = 1
    IN_WINDOW = 2
    SETTLED = 3
    REFUSED = 4


class Phase(IntEnum):
    """Where a window is: its intent is on disk, it may be on its way as well, or the ledger has it. Numbers are on disk and never change their meaning."""

    INTENDED = 1
    APPLIED = 2
    PROPOSED = 3


class Kind(IntEnum):
    """Windows and releases share their numbers."""

    WINDOW = 1
    RELEASE = 2


class EpochState(IntEnum):
    """MADE: its leaves are chosen, the chain has not reported it yet, as far as is known here."""

    MADE = 1
    REPORTED = 2
    VOID = 3


class LeafRow(NamedTuple):
    """A leaf that is kept. ``id``: serial (16 bytes) or segment ‖ index ‖ day (20). ``leaf``: its canonical bytes. ``lease``: whose noz it takes, empty for repair
    traffic and releases; ``object``: whose repair fund, empty for the others. ``action``: settlement's, 0 for releases. ``window`` and ``epoch``: 0 for none."""

    id: bytes
    state: int
    beneficiary: bytes
    fund: int
    traffic_class: int
    noz: int
    acked_bytes: int
    lease: bytes
    object: bytes
    action: int
    settles_ms: int
    window: int
    epoch: int
    leaf: bytes
    reason: str


class WindowRow(NamedTuple):
    """A window or release of this meta node. ``sequence`` is 0 where it was found on the ledger after a crash; ``note`` is what a release needs to go on."""

    number: int
    kind: int
    state: int
    root: bytes
    batch_hash: bytes
    items: int
    sequence: int
    time_ms: int
    note: bytes


class EpochRow(NamedTuple):
    """An epoch; ``data`` is what ``epochs.py`` made of it."""

    number: int
    state: int
    closed_ms: int
    data: bytes


class TellRow(NamedTuple):
    """What a node is yet to be told, in order of ``number``."""

    number: int
    node: int
    method: str
    body: bytes


class Answer(NamedTuple):
    """What became of a leaf that came in, or was asked for."""

    state: State
    reason: str


class Books(BooksFile):
    """Open books; ``open_books`` makes them, ``close`` ends them. ``boot`` is another number at each opening, and a larger one: serials begin with it.

    ``do`` gives other files of this package the database; everything that it is given runs in the one thread that has it, and is on the disk when it
    returns.
    """

    def __init__(self, path: Path, lock: int, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, lock, clock)
        self.numbering = asyncio.Lock()
        """Held from choosing a window's number until the ledger has it: windows and releases share numbers."""

    # --- leaves -------------------------------------------------------------------------------------------------------------

    async def hold(self, rows: Sequence[LeafRow]) -> list[Answer]:
        """Keep leaves; on the disk when it returns. A leaf with more bytes replaces one of the same id until that is in a window. In order of ``rows``."""

        def make(database: sqlite3.Connection) -> list[Answer]:
            answers: list[Answer] = []
            for row in rows:
                before = self.leaf_in(database, row.id)
                if before is None or (before.state == State.HELD and row.acked_bytes > before.acked_bytes):
                    put(database, "leaves", LEAF, row)
                    answers.append(Answer(State.HELD, ""))
                else:
                    answers.append(Answer(State(before.state), before.reason))
            return answers

        return await self.do(make)

    async def answers(self, ids: Sequence[bytes]) -> list[Answer | None]:
        """What became of leaves; None for those that are not here."""

        def make(database: sqlite3.Connection) -> list[Answer | None]:
            found: list[Answer | None] = []
            for key in ids:
                row = self.leaf_in(database, key)
                found.append(None if row is None else Answer(State(row.state), row.reason))
            return found

        return await self.do(make)

    async def known(self, ids: Sequence[bytes]) -> dict[bytes, LeafRow]:
        """The leaves that are here."""
        return await self.do(lambda database: {row.id: row for key in set(ids) if (row := self.leaf_in(database, key)) is not None})

    async def held_of_leases(self, limit: int, after: OfLeases = FIRST_OF_LEASES) -> list[LeafRow]:
        """At most so many leaves that wait for a window and that a lease pays, after one: reads, then puts, which may wait for long; of each those first whose
        lease has to be settled first."""
        which = f"state = 1 AND settles_ms < {NEVER_MS} AND (action = {PUT}) = ? AND (settles_ms, id) > (?, ?)"
        query = f"SELECT {LEAF}, check32 FROM leaves WHERE {which} ORDER BY settles_ms, id LIMIT ?"

        def make(database: sqlite3.Connection) -> list[LeafRow]:
            reads = [] if after[0] else self._leaves(database.execute(query, (*after, limit)))
            begin = after if after[0] else (True, *FIRST_OF_LEASES[1:])
            return reads + self._leaves(database.execute(query, (*begin, limit - len(reads))))

        return await self.do(make)

    async def is_refused(self, ids: Sequence[bytes]) -> bool:
        """Whether one of these leaves was refused for good here."""
        return any(one is not None and one.state == State.REFUSED for one in await self.answers(ids))

    async def held_of_repair(self, limit: int, after: bytes) -> list[LeafRow]:
        """At most so many leaves that wait for a window and that repair funds pay, in order of their ids, after one."""
        query = f"SELECT {LEAF}, check32 FROM leaves WHERE state = 1 AND settles_ms = {NEVER_MS} AND id > ? ORDER BY id LIMIT ?"
        return await self.do(lambda database: self._leaves(database.execute(query, (after, limit))))

    async def has_leaves(self, lease_id: bytes) -> bool:
        """Whether leaves that a lease pays are in no window on the ledger yet: it must not be settled before they are."""
        query = "SELECT 1 FROM leaves WHERE lease = ? AND state < 3 LIMIT 1"
        return await self.do(lambda database: database.execute(query, (lease_id,)).fetchone() is not None)

    async def held_noz(self, beneficiary: bytes) -> int:
        """The noz of a beneficiary's leaves that are in no window on the ledger."""

        def make(database: sqlite3.Connection) -> int:
            query = "SELECT sum(noz >> 32), sum(noz & 4294967295) FROM leaves WHERE beneficiary = ? AND state < 3"
            high, low = database.execute(query, (beneficiary,)).fetchone()
            return ((high or 0) << 32) + (low or 0)

        return await self.do(make)

    async def refuse(self, reasons: Sequence[tuple[bytes, str]]) -> None:
        """These leaves will never be paid, and why. From now on they are as old as those of a lease that is settled now, if they are of none."""
        now_ms = int(self._clock() * 1_000)

        def make(database: sqlite3.Connection) -> None:
            for key, reason in reasons:
                changes = f"state = 4, reason = ?, settles_ms = CASE settles_ms WHEN {NEVER_MS} THEN ? ELSE settles_ms END"
                change(database, changes, "id = ? AND state = 1", (reason[:MAX_REASON], now_ms, key))

        await self.do(make)

    async def drop(self, ids: Sequence[bytes]) -> None:
        """Another meta node settles these: here they are not held any more, as if they had never come."""
        await self.do(lambda database: database.executemany("DELETE FROM leaves WHERE id = ? AND state = 1", [(key,) for key in ids]) and None)

    # --- windows ------------------------------------------------------------------------------------------------------------

    async def intend(self, row: WindowRow, ids: Sequence[bytes]) -> None:
        """Note a window before it is proposed, and which leaves are in it. Raises BooksError where one of them is not held any more: another window has it."""

        def make(database: sqlite3.Connection) -> None:
            put(database, "windows", WINDOW, row)
            for key in ids:
                if not change(database, "state = 2, window = ?", "id = ? AND state = 1", (row.number, key)):
                    raise BooksError(f"leaf {key.hex()} was to be in window {row.number}, and is not held any more: choose anew")

        await self.do(make)

    async def note_intent(self, row: WindowRow) -> None:
        """What an intent is now: INTENDED or PROPOSED, and its note."""

        def make(database: sqlite3.Connection) -> None:
            before = self.window_in(database, row.number)
            if before is not None and before.state != Phase.APPLIED:
                put(database, "windows", WINDOW, row)

        await self.do(make)

    async def applied(self, number: int, sequence: int, time_ms: int) -> None:
        """The ledger has a window: its leaves are settled."""

        def make(database: sqlite3.Connection) -> None:
            row = self.window_in(database, number)
            if row is not None:
                put(database, "windows", WINDOW, row._replace(state=Phase.APPLIED, sequence=sequence, time_ms=time_ms))
                change(database, "state = 3", "window = ? AND state = 2", (number,))

        await self.do(make)

    async def applied_release(self, number: int, sequence: int, time_ms: int, leaves: Sequence[LeafRow]) -> None:
        """The ledger has a release: these leaves are of it, settled."""

        def make(database: sqlite3.Connection) -> None:
            row = self.window_in(database, number)
            if row is None:
                raise BooksError(f"the books have no release {number}: it was never intended here")
            put(database, "windows", WINDOW, row._replace(state=Phase.APPLIED, items=len(leaves), sequence=sequence, time_ms=time_ms, note=b""))
            for leaf in leaves:
                put(database, "leaves", LEAF, leaf)

        await self.do(make)

    async def free(self, number: int) -> None:
        """The ledger has not taken a window and will not: its leaves are held again."""

        def make(database: sqlite3.Connection) -> None:
            change(database, "state = 1, window = 0", "window = ? AND state = 2", (number,))
            database.execute("DELETE FROM windows WHERE number = ? AND state <> 2", (number,))

        await self.do(make)

    async def intended(self) -> WindowRow | None:
        """The window whose intent is here, and of which it is not known yet whether the ledger has it."""
        query = f"SELECT {WINDOW}, check32 FROM windows WHERE state <> 2 ORDER BY number LIMIT 1"
        return await self.do(lambda database: next(iter(self.rows(WindowRow, database.execute(query))), None))

    async def window(self, number: int) -> WindowRow | None:
        """A window of this meta node."""
        return await self.do(lambda database: self.window_in(database, number))

    async def leaves_of_window(self, number: int) -> list[LeafRow]:
        """A window's leaves in order of their ids."""
        query = f"SELECT {LEAF}, check32 FROM leaves WHERE window = ? AND window > 0 ORDER BY id"
        return await self.do(lambda database: self._leaves(database.execute(query, (number,))))

    # --- what nodes are yet to be told, and their maintenance ---------------------------------------------------------------

    async def tell_later(self, node: int, method: str, body: bytes) -> int:
        """Queue a message for a node; on the disk when it returns. Gives its number. Raises BooksFull when too many wait."""

        if len(body) > MAX_TELL_BYTES:
            raise BooksError(f"a message to a node has at most {MAX_TELL_BYTES} bytes, not {len(body)}")

        def make(database: sqlite3.Connection) -> int:
            of_node = database.execute("SELECT count(*) FROM tells WHERE node = ?", (node,)).fetchone()[0]
            if of_node >= MAX_TELLS_OF_A_NODE or database.execute("SELECT count(*) FROM tells").fetchone()[0] >= MAX_TELLS:
                raise BooksFull(f"{of_node} messages wait for node {node}: no more are kept until it takes some")
            number = database.execute("INSERT INTO tells (node, method, body, check32) VALUES (?, ?, ?, 0)", (node, method, body)).lastrowid or 0
            database.execute("UPDATE tells SET check32 = ? WHERE number = ?", (checksum(number, node, method, body), number))
            return number

        return await self.do(make)

    async def tells(self, node: int, limit: int = 100) -> list[TellRow]:
        """What a node is to be told next, in order."""
        query = f"SELECT {TELL}, check32 FROM tells WHERE node = ? ORDER BY number LIMIT ?"
        return await self.do(lambda database: self.rows(TellRow, database.execute(query, (node, limit))))

    async def told(self, numbers: Iterable[int]) -> None:
        """A node took these, or never will."""
        wanted = [(number,) for number in numbers]
        await self.do(lambda database: database.executemany("DELETE FROM tells WHERE number = ?", wanted) and None)

    async def nodes_to_tell(self) -> dict[int, int]:
        """Nodes for which messages wait, and how many."""
        return await self.do(lambda database: dict(database.execute("SELECT node, count(*) FROM tells GROUP BY node ORDER BY node").fetchall()))

    async def note_maintenance(self, node: int, from_s: int, until_s: int, forget_before_s: int, *, is_over: bool = False) -> None:
        """A node's maintenance from then to then; those that ended before a time are forgotten. ``is_over``: it has ended, and is one with the one before,
        if that ended less than MERGED_S earlier."""

        def make(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM maintenance WHERE node = ? AND until_s < ?", (node, forget_before_s))
            begin_s = from_s
            if is_over:
                near = (node, from_s, from_s - MERGED_S)
                query = "SELECT from_s FROM maintenance WHERE node = ? AND from_s < ? AND until_s >= ? ORDER BY from_s LIMIT 1"
                before = database.execute(query, near).fetchone()
                if before is not None:
                    begin_s = before[0]
                    database.execute("DELETE FROM maintenance WHERE node = ? AND from_s > ? AND from_s <= ?", (node, begin_s, from_s))
            put(database, "maintenance", "node, from_s, until_s", (node, begin_s, until_s))

        await self.do(make)

    async def maintenance(self, node: int) -> list[tuple[int, int]]:
        """(from, until) in Unix seconds of a node's maintenance, in order."""
        query = "SELECT from_s, until_s FROM maintenance WHERE node = ? ORDER BY from_s"
        return await self.do(lambda database: [tuple(row) for row in database.execute(query, (node,))])

    # --- batches by their hash ----------------------------------------------------------------------------------------------

    async def keep_batch(self, digest: bytes, data: bytes, made_ms: int) -> None:
        """Keep a batch that the ledger names by its hash (audits' answers)."""
        await self.do(lambda database: database.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?)", (digest, made_ms, data)) and None)

    async def batch(self, digest: bytes) -> bytes | None:
        """A batch by its hash."""

        def make(database: sqlite3.Connection) -> bytes | None:
            row = database.execute("SELECT data FROM batches WHERE hash = ?", (digest,)).fetchone()
            return None if row is None else bytes(row[0])

        return await self.do(make)

    async def forget_batches(self, before_ms: int) -> None:
        """Batches that were made before a time are not kept any more."""
        await self.do(lambda database: database.execute("DELETE FROM batches WHERE made_ms < ?", (before_ms,)) and None)

    # --- for this package, within ``do`` ------------------------------------------------------------------------------------

    def window_in(self, database: sqlite3.Connection, number: int) -> WindowRow | None:
        return next(iter(self.rows(WindowRow, database.execute(f"SELECT {WINDOW}, check32 FROM windows WHERE number = ?", (number,)))), None)

    def epoch_in(self, database: sqlite3.Connection, number: int) -> EpochRow | None:
        return next(iter(self.rows(EpochRow, database.execute(f"SELECT {EPOCH}, check32 FROM epochs WHERE number = ?", (number,)))), None)

    def put_epoch(self, database: sqlite3.Connection, row: EpochRow) -> None:
        put(database, "epochs", EPOCH, row)

    def change_leaves(self, database: sqlite3.Connection, changes: str, where: str, values: Sequence[Any]) -> int:
        """UPDATE leaves, with the rows' checks. How many were changed."""
        return change(database, changes, where, values)

    def leaves_where(self, database: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[LeafRow]:
        """Leaves by a condition, which may order and limit them. Raises BooksDamaged for one that is not what was written."""
        rows = database.execute(f"SELECT {LEAF}, check32 FROM leaves WHERE {where}", values).fetchall()
        found = self._leaves(rows)
        if len(found) != len(rows):
            raise BooksDamaged(f"{len(rows) - len(found)} leaves in {self.path} are not what was written: restore the books from a copy")
        return found

    def leaf_in(self, database: sqlite3.Connection, key: bytes) -> LeafRow | None:
        return next(iter(self._leaves(database.execute(f"SELECT {LEAF}, check32 FROM leaves WHERE id = ?", (key,)))), None)

    def _leaves(self, rows: Iterable[tuple[Any, ...]]) -> list[LeafRow]:
        return self.rows(LeafRow, rows)

    def __enter__(self) -> Books:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_books(path: Path, clock: Callable[[], float] = time.time) -> Books:
    """Open the books at ``path``, or make them; ``clock`` tells Unix seconds. ``boot`` is on the disk: those seconds, or one more than at the last time if
    that is more. So it does not come twice either when an old copy of the file, or a new one, takes its place. Blocks.

    Raises BooksLocked, BooksUnusable, BooksDamaged.
    """
    try:
        lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BooksUnusable(f"the books {path} cannot be opened ({error.strerror}): see that their folder is there and writable") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made = Books(path, lock, clock)
        made.start()
    except BlockingIOError:
        os.close(lock)
        raise BooksLocked(f"the books {path} are open in another process: stop that one, or give this meta node a file of its own") from None
    except BaseException as error:
        os.close(lock)
        raise told(path, error) from error
    return made
