"""Releases: what audits decided is proposed to the ledger, and each share's day that is paid becomes a leaf in the books.

    results ─► intent, synced ─► release ─► result: days of each share, passed or not, and what it was then
                                               │
    a leaf for each share that passed and day with noz ◄── Σ ══ what the ledger moved into earned         released.py: those of any meta node

A release whose answer was lost is looked for on the ledger, and its result in the ledger's log; if it is not there, the same one is proposed again. Of one that the
ledger has, and whose result does not tell here what its leaves are (its log is gone, or it is of a version before), the leaves come from the others (restoring.py).
Sources: rules/releases.py; storage-protocol.md 1.9, 3.5, 3.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from chain.codec.registry import message_class
from sds_node.meta.books.books import Books, BooksError, Kind, Phase, WindowRow
from sds_node.meta.books.released import leaf_rows
from sds_node.meta.books.windows import Windows
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import AnyLedger, LedgerRefused, Proposer
from sds_node.meta.rules import tables
from sds_node.meta.rules.places import held_of
from sds_node.meta.rules.releases import Settled, settled_of
from sds_node.meta.rules.wire import PACKAGE, open_operation

log = structlog.get_logger("books")

Release: Final = message_class(f"{PACKAGE}.Release")
NodeResult: Final = message_class(f"{PACKAGE}.NodeResult")
ENTRIES_READ: Final = 100

RootsOf = Callable[[Sequence[tables.Segment]], Awaitable[Mapping[int, Sequence[bytes]]]]
"""Segments of the ledger → by number, the roots of their shares in order; those that are not known are left out."""


@dataclass(frozen=True, slots=True)
class Released:
    """What came of a release."""

    number: int
    settled: list[Settled]
    noz: int


class _Untold(BooksError):
    """The ledger has a release, and what its leaves are is not told here."""


class Releases:
    """Makes the releases of the meta node at ``address``, and finishes one that a crash cut off."""

    def __init__(self, ledger: AnyLedger, proposer: Proposer, books: Books, windows: Windows, address: bytes, roots_of: RootsOf) -> None:
        self._ledger, self._proposer, self._books, self._windows, self._address, self._roots_of = ledger, proposer, books, windows, address, roots_of
        windows.finish_release = self._finish

    async def release(self, results: Sequence[Any], answers_root: bytes, answers_count: int, batch_hash: bytes) -> Released:
        """Propose results of audits (NodeResult, ascending by node and first segment, at most MAX_RELEASED_SHARES shares). Raises LedgerRefused, LedgerError,
        BooksError."""
        async with self._books.numbering:
            await self._windows.make_way()
            number, sequence = await self._next()
            message = Release(number=number, answers_root=answers_root, answers_count=answers_count, batch_hash=batch_hash, results=results)
            note = orjson.dumps({"sequence": sequence, "message": message.SerializeToString(deterministic=True).hex()})
            intent = WindowRow(number, Kind.RELEASE, Phase.INTENDED, answers_root, batch_hash, 0, 0, 0, note)
            await self._books.intend(intent, ())
            try:
                result = await self._proposer.propose("release", message)
            except LedgerRefused:
                found = await self._if_there(intent, message)
                if found is not None:
                    return found
                await self._books.free(number)
                raise
            return await self._done(intent, result.sequence, result.time_ms, result.result)

    async def missing(self, node: int, first: int, last: int, most: int) -> list[int]:
        """Segments among a node's first ``most`` of a stretch whose share roots are not known: nobody could audit them, so a release leaves them out."""
        segments: list[tables.Segment] = await self._ledger.query(lambda view: _segments(view, node, first, last, most))
        known = await self._roots_of(segments)
        return [segment.number for segment in segments if segment.number not in known]

    # --- one release --------------------------------------------------------------------------------------------------------

    async def _next(self) -> tuple[int, int]:
        """(the number of the next release, the ledger's sequence)."""

        def read(view: ReadView) -> tuple[int, int]:
            meta = view.get(tables.META, (self._address,))
            return (meta.windows if meta is not None else 0) + 1, view.head.sequence

        found: tuple[int, int] = await self._ledger.query(read)
        return found

    async def _done(self, intent: WindowRow, sequence: int, time_ms: int, result: bytes) -> Released:
        settled = settled_of(result)
        if settled is None:
            raise _Untold(f"the result of release {intent.number} is of a version before, and does not tell what its leaves are")
        leaves = await asyncio.to_thread(leaf_rows, settled, intent.number)
        noz = sum(leaf.noz for leaf in leaves)
        row = await self._ledger.query(lambda view: view.get(tables.WINDOW, (self._address, intent.number)))
        if row is not None and row.noz != noz:
            raise BooksError(f"release {intent.number} moved {row.noz} noz, its leaves have {noz}: nothing more is settled until that is understood")
        await self._books.applied_release(intent.number, sequence, time_ms, leaves)
        log.info("a release is on the ledger", number=intent.number, shares=len(settled), noz=noz)
        return Released(intent.number, settled, noz)

    async def _finish(self, intent: WindowRow) -> None:
        """Bring a release to its end, of which it is not known whether the ledger has it."""
        try:
            await self._finished(intent)
        except _Untold as error:
            # From now on it is one that these books have lost. Nothing that comes after it waits for that.
            await self._books.free(intent.number)
            log.warning("a release is on the ledger: its leaves are asked of the others", number=intent.number, why=str(error))

    async def _finished(self, intent: WindowRow) -> None:
        message = Release.FromString(bytes.fromhex(orjson.loads(intent.note)["message"]))
        if await self._if_there(intent, message) is not None:
            return
        meta = await self._ledger.query(lambda view: view.get(tables.META, (self._address,)))
        if meta is not None and meta.windows >= intent.number:
            await self._books.free(intent.number)
            return
        try:
            result = await self._proposer.propose("release", message)
        except LedgerRefused as error:
            # What was sent before a stop may have been on its way still.
            if await self._if_there(intent, message) is None:
                log.error("the ledger refuses a release: it is dropped", number=intent.number, why=str(error))
                await self._books.free(intent.number)
            return
        await self._done(intent, result.sequence, result.time_ms, result.result)

    async def _if_there(self, intent: WindowRow, message: Any) -> Released | None:
        """Take over a release that the ledger has; None where it has not. Raises _Untold."""
        after = int(orjson.loads(intent.note)["sequence"])

        def look(view: ReadView) -> tuple[bool, tuple[int, int, bytes] | None]:
            row = view.get(tables.WINDOW, (self._address, intent.number))
            is_there = row is not None and row.is_release and (row.root, row.batch_hash) == (intent.root, intent.batch_hash)
            return is_there, self._logged(view, after, message) if is_there else None

        found: tuple[bool, tuple[int, int, bytes] | None] = await self._ledger.query(look)
        is_there, logged = found
        if not is_there:
            return None
        if logged is None:
            raise _Untold(f"release {intent.number} is on the ledger, and not in its log any more")
        return await self._done(intent, *logged)

    def _logged(self, view: ReadView, after: int, message: Any) -> tuple[int, int, bytes] | None:
        """(sequence, time, result) of a release in the ledger's log."""
        while page := view.entries(after, ENTRIES_READ):
            for entry in page:
                after = entry.sequence
                operation = open_operation(entry.operation)[0] if entry.code == 0 else None
                if operation is None or (operation.meta_node, operation.WhichOneof("kind")) != (self._address, "release"):
                    continue
                if operation.release == message:
                    return entry.sequence, entry.time_ms, entry.result
        return None


def _segments(view: ReadView, node: int, first: int, last: int, most: int) -> list[tables.Segment]:
    found = [view.get(tables.SEGMENT, (number,)) for number, _ in held_of(view, node, first, last, most)]
    return [segment for segment in found if segment is not None]
