"""Windows that other meta nodes propose: fetched and checked before they are approved, and kept until the ledger has them.

    Approval {window} ─ the next number of its meta node? earlier ones here? and those of whose leases it takes over? room for it?
         ─► its leaves from that meta node ─► checked against the message (checking.py) ─ its puts stored? (stored.py) ─ no serial is in another window here, or twice in it
         ─► PROPOSED, on disk ─► approved                        the ledger has it: HERE, and others fetch it from here (fetching.py)
    refused with the serials that are bad, so that its meta node goes on without them

A serial has the time in it from which on it can be given (``limits.py``), so books that are newer than a meta node's windows still know of most receipts that they
are in none of those: the ones that are not so sure are left to others for a week. Who approved a window can give its leaves, whatever its meta node does then. No block takes it after its ``until_s``, so what was approved is kept until a
window of that number is here, or, once the ledger's time is beyond that, until another one of the number is to be approved; different ones of one number are
kept beside each other, few of them. One window of each meta node is looked at at a time, to its end, whoever still waits for the answer: so asking again, or
giving requests up, costs this meta node nothing more. Source: ADR 10.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final, NamedTuple

import structlog

from chain.codec.canonical import encode
from modules.settlement.leaves import PREFIX_BYTES, serial_prefix
from sds_node.meta.books.books import NEVER_MS, Books, BooksError, LeafRow
from sds_node.meta.books.checking import NotThatWindow, Wanted, proposed_of, rows_of
from sds_node.meta.books.epochs import KEPT_MS
from sds_node.meta.books.file import PROPOSED, put
from sds_node.meta.books.judging import Judge
from sds_node.meta.books.others import FIRST_ID, BadWindow, Others, Unfinished, UnsureWindow
from sds_node.meta.books.stored import unstored
from sds_node.meta.books.windows import MAX_BATCH_BYTES, MAX_LEAVES, batch_bytes, batch_of
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules import tables
from sds_node.meta.rules.approvals import APPROVED_S
from sds_node.meta.rules.leases import takeover_ms
from sds_node.wire.errors import WireError

log = structlog.get_logger("books")

BEHIND_S: Final = 3.0
"""So long an earlier window may take to come onto this ledger; ``FETCH_S``: the leaves may take to come."""
FETCH_S: Final = 30.0
LOOK_S: Final = 0.05
MAX_OF_A_NUMBER: Final = 8
MAX_KEPT_BYTES: Final = 256 << 20
"""Of one meta node."""
RENEW_MS: Final = 300_000
"""What is approved again is written again when it was so long ago, and not sooner."""
OVER_MS: Final = APPROVED_S * 1_000 + 2 * RENEW_MS
"""So long after it was written no block takes a window, however late it was approved again, and whatever that took."""
CLOCKS_MS: Final = 60_000
"""The clock of a meta node may be so far ahead as it draws the number of a start."""
AT_ONCE: Final = 2
"""Windows that are judged at a time."""
_OVERHEAD_BYTES: Final = 4


class TooManyProposed(BooksError):
    """A meta node has had so many other windows of this number approved here that no more are kept."""


class ProposedRow(NamedTuple):
    """A window that was approved here. ``made_ms``: when it was written, from which on it may be executed for OVER_MS at most; ``data`` is its batch."""

    meta_node: bytes
    number: int
    root: bytes
    batch_hash: bytes
    made_ms: int
    data: bytes


class Proposed:
    """Approved windows in ``books``."""

    def __init__(self, books: Books) -> None:
        self._books, self._others = books, Others(books)

    async def find(self, meta_node: bytes, number: int, root: bytes, batch_hash: bytes) -> list[bytes] | None:
        """The leaves of a window that was approved here; None where it was not."""
        query = f"SELECT {PROPOSED}, check32 FROM proposed WHERE meta = ? AND number = ? AND root = ? AND batch_hash = ?"
        key = meta_node, number, root, batch_hash
        found: list[ProposedRow] = await self._books.do(lambda database: self._books.rows(ProposedRow, database.execute(query, key)))
        return batch_of(found[0].data) if found else None

    async def earlier(self, meta_node: bytes, number: int) -> str:
        """What is not here of a meta node's windows before one; empty where all are."""
        return await self._books.do(lambda database: self._others.earlier_in(database, meta_node, number))

    async def past_ms(self, meta_node: bytes) -> int:
        """Until when nothing is known here of the leaves of a meta node's windows (ms); 0 where all were looked for."""
        return await self._books.do(lambda database: self._others.past_ms_in(database, meta_node))

    async def not_here(self, leases: Sequence[tables.Lease], windows: Mapping[bytes, int], address: bytes) -> str:
        """What is not here of the windows that may have leaves of leases, in words; empty where all are. ``windows``: how many the ledger has of each lease's
        meta node; ``address``: this one's."""
        behind_ms = await self._others.behind({meta: last for meta, last in windows.items() if meta != address}, NEVER_MS)
        own_ms = await self._books.do(partial(_all_here_since, last=windows.get(address, 0)))
        for lease in leases:
            if lease.meta_node == address and own_ms >= lease.made_ms:
                return f"windows of this meta node, whose lease {lease.id.hex()} it takes from, are not all in its books: they are brought back first"
            if lease.meta_node != address and behind_ms.get(lease.meta_node, NEVER_MS) >= lease.made_ms:
                return f"windows of meta node {lease.meta_node.hex()}, whose lease {lease.id.hex()} it takes from, are not all here: they are fetched first"
        return ""

    async def check_room(self, meta_node: bytes, number: int, root: bytes, batch_hash: bytes, ledger_ms: int) -> None:
        """Raises TooManyProposed where ``keep`` would for a window of no size."""
        row = ProposedRow(meta_node, number, root, batch_hash, 0, b"")
        await self._books.do(lambda database: _make_room(database, row, ledger_ms))

    async def keep(self, row: ProposedRow, leaves: Sequence[bytes], ledger_ms: int = 0) -> None:
        """Keep a window with these leaves (their ids) that will be approved; on the disk when it returns. ``ledger_ms``: a time at which the ledger had none of
        that number: those that could be executed until then are forgotten. Raises BadWindow, Unfinished, TooManyProposed."""

        def make(database: sqlite3.Connection) -> None:
            self._others.check_all_free(database, leaves)
            _make_room(database, row, ledger_ms)
            if _written_ms(database, row) + RENEW_MS <= row.made_ms:
                put(database, "proposed", PROPOSED, row)

        await self._books.do(make)

    async def keep_on(self, row: ProposedRow, leaves: Sequence[bytes]) -> bool:
        """``keep`` of a window whose batch need not be given, since it is here. Whether it is. Raises BadWindow, Unfinished."""

        def make(database: sqlite3.Connection) -> bool:
            self._others.check_all_free(database, leaves)
            return _written_ms(database, row) + RENEW_MS > row.made_ms

        return await self._books.do(make)

    async def count(self) -> int:
        """How many are kept."""
        return await self._books.do(lambda database: int(database.execute("SELECT count(*) FROM proposed").fetchone()[0]))


def _written_ms(database: sqlite3.Connection, row: ProposedRow) -> int:
    """When a window was written here; long ago where it never was."""
    query = "SELECT made_ms FROM proposed WHERE meta = ? AND number = ? AND root = ? AND batch_hash = ?"
    found = database.execute(query, row[:4]).fetchone()
    return int(found[0]) if found is not None else -RENEW_MS


def _make_room(database: sqlite3.Connection, row: ProposedRow, ledger_ms: int) -> None:
    """Forget what can be executed no more of a number, and raise TooManyProposed where there is still no room for one more."""
    over = row.meta_node, row.number, ledger_ms - OVER_MS
    database.execute("DELETE FROM proposed WHERE meta = ? AND number = ? AND made_ms < ?", over)
    others = "FROM proposed WHERE meta = ? AND NOT (number = ? AND root = ? AND batch_hash = ?)"
    query = f"SELECT count(*) FILTER (WHERE number = ?), count(*), coalesce(sum(length(data)), 0) {others}"
    of_number, count, size_bytes = database.execute(query, (row.number, *row[:4])).fetchone()
    if of_number >= MAX_OF_A_NUMBER or (count and size_bytes + len(row.data) > MAX_KEPT_BYTES):
        raise TooManyProposed(
            f"{count} other windows of this meta node were approved here and are not in the books yet, {of_number} of them with this number: "
            "propose one of those, or ask another meta node"
        )


Fetch = Callable[[bytes, bytes, int], AsyncIterator[bytes]]
Need = Callable[[Mapping[bytes, int]], Awaitable[None]]


class _Good(NamedTuple):
    """A window that was judged and held: the digest of its message, and the ids of its leaves."""

    digest: bytes
    leaves: Sequence[bytes]


class Approvals:
    """Which windows of others the meta node at ``address`` with these books approves. ``fetch`` gives leaves, ``need`` brings windows that are on the ledger
    (fetching.py); ``clock`` tells Unix seconds. ``close`` ends what is still looked at."""

    def __init__(self, ledger: AnyLedger, books: Books, chain_id: str, address: bytes, fetch: Fetch, need: Need, clock: Callable[[], float]) -> None:
        self._ledger, self._chain_id, self._address, self._fetch, self._need, self._clock = ledger, chain_id, address, fetch, need, clock
        self._proposed, self._judge, self._slots = Proposed(books), Judge(), asyncio.Semaphore(AT_ONCE)
        self._looked_at: dict[bytes, tuple[bytes, asyncio.Task[None]]] = {}
        """Meta node → (digest of the message, the work on it)."""
        self._good: dict[bytes, _Good] = {}
        """The last of each meta node."""

    async def check_window(self, meta_node: bytes, message: Any) -> None:
        """Returns once a Window of a meta node is good and its leaves are on disk here. Raises Unfinished where this meta node is not that far, BadWindow for a
        window that does not hold, TooManyProposed; BooksError, LedgerError."""
        if not 1 <= message.number < FIRST_ID or not 1 <= message.receipts_count <= MAX_LEAVES:
            raise BadWindow(f"expected a window from 1 on with 1 to {MAX_LEAVES} leaves, got number {message.number} with {message.receipts_count}")
        self._has_end(message)
        digest = _digest(message)
        while (before := self._looked_at.get(meta_node)) is not None and before[0] != digest:
            await asyncio.wait([before[1]])
        if before is None:
            # What was begun goes to its end when the request is given up: its thread would go on anyway, and whoever asks again finds it done.
            before = self._looked_at[meta_node] = digest, asyncio.ensure_future(self._look_at(meta_node, message, digest))
            before[1].add_done_callback(partial(self._done, meta_node))
        await asyncio.shield(before[1])

    def _done(self, meta_node: bytes, task: asyncio.Task[None]) -> None:
        del self._looked_at[meta_node]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone

    async def close(self) -> None:
        """Nothing is looked at any more."""
        tasks = [task for _, task in self._looked_at.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_at(self, meta_node: bytes, message: Any, digest: bytes) -> None:
        ledger_ms = self._ledger.head.time_ms  # before it is looked whether the ledger has that number
        await self._is_next(meta_node, message.number)
        await self._has_earlier(meta_node, message.number)
        time_ms = max(self._ledger.head.time_ms, int(self._clock() * 1_000))
        wanted = await self._ledger.query(partial(proposed_of, meta_node=meta_node, message=message, time_ms=time_ms))
        await self._has_those_of(wanted)
        key = meta_node, message.number, message.receipts_root, message.batch_hash
        good = self._good.get(meta_node)
        if good is not None and good.digest == digest and await self._proposed.keep_on(ProposedRow(*key, time_ms, b""), good.leaves):
            return
        await self._proposed.check_room(*key, ledger_ms)
        raws = await self._proposed.find(*key)
        if raws is None:
            raws = await self._leaves(meta_node, message)
        try:
            async with self._slots:
                # Its message may take something else than when its leaves were judged before: they are judged against each.
                leaves = await asyncio.to_thread(rows_of, raws, wanted, self._judge, self._chain_id)
        except NotThatWindow as error:
            raise BadWindow(f"the leaves that it gives are not those of the window that it proposes: {error}") from None
        ids = [leaf.id for leaf in leaves]
        await self._has_stored(leaves)
        _check_times(meta_node, ids, await self._proposed.past_ms(meta_node), time_ms)
        await self._proposed.keep(ProposedRow(*key, time_ms, batch_bytes(raws)), ids, ledger_ms)
        self._good[meta_node] = _Good(digest, ids)
        log.info("a window of another meta node is approved", number=message.number, meta_node=meta_node.hex(), leaves=len(ids))

    async def _has_those_of(self, wanted: Wanted) -> None:
        """Raises Unfinished where it takes over a lease, and what the lease's own meta node settled of it is not known here."""
        taken_over = [lease for lease in (wanted.leases or {}).values() if lease.meta_node != wanted.row.meta_node]
        if not taken_over:
            return

        def read(view: ReadView) -> tuple[int, dict[bytes, int]]:
            rows = {owner: view.get(tables.META, (owner,)) for owner in {lease.meta_node for lease in taken_over}}
            return view.head.time_ms, {owner: row.windows for owner, row in rows.items() if row is not None}

        found: tuple[int, dict[bytes, int]] = await self._ledger.query(read)
        ledger_ms, windows = found
        if early := [lease for lease in taken_over if ledger_ms < takeover_ms(lease)]:
            raise Unfinished(
                f"the ledger here is at {ledger_ms} ms, and lease {early[0].id.hex()} is its own meta node's until {takeover_ms(early[0])} ms"
            )
        if why := await self._proposed.not_here(taken_over, windows, self._address):
            await self._need({owner: last for owner, last in windows.items() if owner != self._address})
            why = await self._proposed.not_here(taken_over, windows, self._address)
        if why:
            raise Unfinished(why)

    def _has_end(self, message: Any) -> None:
        """Raises BadWindow for a window that may be executed at any time, or whose time is over."""
        ledger_ms = self._ledger.head.time_ms
        latest_ms = max(ledger_ms, int(self._clock() * 1_000)) + APPROVED_S * 1_000
        if not ledger_ms <= message.until_s * 1_000 <= latest_ms:
            raise BadWindow(f"expected a window that holds until {ledger_ms // 1_000} to {latest_ms // 1_000} s, got {message.until_s}")

    async def _is_next(self, meta_node: bytes, number: int) -> None:
        """Waits, briefly, for the ledger to have the window before."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + BEHIND_S
        while True:
            row: tables.Meta | None = await self._ledger.query(lambda view: view.get(tables.META, (meta_node,)))
            windows = row.windows if row is not None else 0
            if windows == number - 1:
                return
            if windows >= number:
                raise BadWindow(f"the ledger has {windows} windows of this meta node, and this one is to be number {number}")
            if loop.time() >= until_s:
                raise Unfinished(f"the ledger here has {windows} windows of this meta node, and this one is to be number {number}")
            await asyncio.sleep(LOOK_S)

    async def _has_earlier(self, meta_node: bytes, number: int) -> None:
        if number == 1 or not await self._proposed.earlier(meta_node, number):
            return
        await self._need({meta_node: number - 1})
        why = await self._proposed.earlier(meta_node, number)
        if why:
            raise Unfinished(f"{why}: it is fetched first")

    async def _has_stored(self, leaves: Sequence[LeafRow]) -> None:
        """Waits, briefly, for the ledger to have the shares that its puts stored. Raises UnsureWindow where it has not all of them."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + BEHIND_S
        while missing := await self._ledger.query(partial(unstored, rows=leaves)):
            if loop.time() >= until_s:
                raise UnsureWindow(f"{len(missing)} of its receipts are for shares of which the ledger here has no commit", missing)
            await asyncio.sleep(LOOK_S)

    async def _leaves(self, meta_node: bytes, message: Any) -> list[bytes]:
        """The leaves that a meta node gives for its window. Raises BadWindow, Unfinished."""
        raws: list[bytes] = []
        size_bytes = 0
        try:
            async with asyncio.timeout(FETCH_S):
                async for raw in self._fetch(meta_node, meta_node, message.number):
                    raws.append(raw)
                    size_bytes += len(raw) + _OVERHEAD_BYTES
                    if len(raws) > message.receipts_count or size_bytes > MAX_BATCH_BYTES:
                        raise BadWindow(f"expected {message.receipts_count} leaves in {MAX_BATCH_BYTES} bytes, it gives more")
        except NotThatWindow as error:
            raise BadWindow(f"what it gives are no leaves: {error}") from None
        except (WireError, TimeoutError, OSError) as error:
            raise Unfinished(f"its meta node does not give the window's leaves: {error or type(error).__name__}") from None
        return raws


def _all_here_since(database: sqlite3.Connection, last: int) -> int:
    """The time (ms) of the first of the own windows up to ``last`` that are here without a gap; NEVER_MS where that one is not here, -1 where all are."""
    if not last:
        return -1
    query = (
        "SELECT number, time_ms FROM windows w WHERE state = 2 AND number <= ? "
        "AND NOT EXISTS (SELECT 1 FROM windows b WHERE b.number = w.number - 1 AND b.state = 2) ORDER BY number DESC LIMIT 1"
    )
    found = database.execute(query, (last,)).fetchone()
    is_there = database.execute("SELECT 1 FROM windows WHERE state = 2 AND number = ?", (last,)).fetchone() is not None
    if found is None or not is_there:
        return NEVER_MS
    return -1 if found[0] == 1 else int(found[1])


def _check_times(meta_node: bytes, serials: Sequence[bytes], past_ms: int, time_ms: int) -> None:
    """Raises UnsureWindow for serials of a meta node that by the clock here it cannot give yet, and, while others know leaves of earlier windows of it that
    these books, which are newer, never had, for those that could be in one. ``past_ms``: when the last of those windows was, 0 for none."""
    own = serial_prefix(meta_node)
    times = {one: 1_000 * int.from_bytes(one[PREFIX_BYTES : PREFIX_BYTES + 4], "big") for one in serials if one.startswith(own)}
    if early := [one for one, from_ms in times.items() if from_ms > time_ms + CLOCKS_MS]:
        raise UnsureWindow(f"{len(early)} of its serials are of a start that is still to come: see that the clocks are right", early)
    if not past_ms or time_ms >= past_ms + KEPT_MS:
        return
    if unsure := [one for one, from_ms in times.items() if from_ms <= past_ms + CLOCKS_MS]:
        raise UnsureWindow(
            f"{len(unsure)} of its receipts may be in windows until {past_ms} ms, whose leaves the books here do not know: others can know them, for "
            f"{KEPT_MS // 86_400_000} days: ask another meta node, or start yours again",
            unsure,
        )


def _digest(message: Any) -> bytes:
    """Of what is judged of a Window: all but until when it holds."""
    judged = type(message)()
    judged.CopyFrom(message)
    judged.ClearField("until_s")
    judged.ClearField("approvals")
    return sha256(encode(judged)).digest()
