"""Releases: what audits decided is proposed to the ledger, and each share's day that is paid becomes a leaf in the books.

    results ─► the shares of those stretches: serial, escrow, term, share root ─► intent, synced ─► release ─► result: days of each share, passed or not
                                                                                                                  │
    a leaf for each share that passed and day with noz ◄───────── Σ ══ what the ledger moved into earned ─────────┘

A release whose answer was lost is looked for on the ledger, and its result in the ledger's log; if it is not there, the same one is proposed again. Moves
that came before it in the log are read from there: what was moved to its nodes is settled for them, under the new serial.
Sources: rules/releases.py; storage-protocol.md 1.9, 3.5, 3.6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson
import structlog

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from modules.settlement.leaves import Leaf, leaf_bytes
from sds_node.meta.books.books import NEVER_MS, Books, BooksError, Kind, LeafRow, Phase, State, WindowRow
from sds_node.meta.books.windows import Windows
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import AnyLedger, LedgerRefused, Proposer
from sds_node.meta.rules import tables
from sds_node.meta.rules.objects import STORED, released_until, share_escrow
from sds_node.meta.rules.places import held_of
from sds_node.meta.rules.releases import Settled, settled_of
from sds_node.meta.rules.wire import MAX_RELEASED_SHARES, PACKAGE, open_operation
from sds_node.transfers import serial_at

log = structlog.get_logger("books")

Release: Final = message_class(f"{PACKAGE}.Release")
NodeResult: Final = message_class(f"{PACKAGE}.NodeResult")
ENTRIES_READ: Final = 100
DAY_BYTES: Final = 4

RootsOf = Callable[[Sequence[tables.Segment]], Awaitable[Mapping[int, Sequence[bytes]]]]
"""Segments of the ledger → by number, the roots of their shares in order; those that are not known are left out."""


class _Share(NamedTuple):
    """What a share's leaves need, as it was before the release."""

    segment: int
    place: int
    """Its index in the segment."""
    node: int
    beneficiary: bytes
    fund: int
    escrow_noz: int
    term_days: int
    serial: bytes
    root: bytes


@dataclass(frozen=True, slots=True)
class Released:
    """What came of a release."""

    number: int
    settled: list[Settled]
    noz: int


class Releases:
    """Makes the releases of the meta node at ``address``, and finishes one that a crash cut off."""

    def __init__(self, ledger: AnyLedger, proposer: Proposer, books: Books, windows: Windows, address: bytes, roots_of: RootsOf) -> None:
        self._ledger, self._proposer, self._books, self._windows, self._address, self._roots_of = ledger, proposer, books, windows, address, roots_of
        windows.finish_release = self._finish

    async def release(self, results: Sequence[Any], answers_root: bytes, answers_count: int, batch_hash: bytes) -> Released:
        """Propose results of audits (NodeResult, ascending by node and first segment, at most 5,000 shares). Raises LedgerRefused, LedgerError; BooksError
        when a share's root is not known: nothing is released then."""
        async with self._books.numbering:
            await self._windows.finish_intended()
            shares, number, sequence = await self._shares(results)
            message = Release(number=number, answers_root=answers_root, answers_count=answers_count, batch_hash=batch_hash, results=results)
            note = orjson.dumps(
                {
                    "sequence": sequence,
                    "message": message.SerializeToString(deterministic=True).hex(),
                    "shares": [[one.hex() if isinstance(one, bytes) else one for one in share] for share in shares],
                }
            )
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
        """Segments among a node's first ``most`` of a stretch whose share roots are not known: a release has to leave them out."""
        segments: list[tables.Segment] = await self._ledger.query(lambda view: _segments(view, node, first, last, most))
        known = await self._roots_of(segments)
        return [segment.number for segment in segments if segment.number not in known]

    # --- one release --------------------------------------------------------------------------------------------------------

    async def _shares(self, results: Sequence[Any]) -> tuple[list[_Share], int, int]:
        """(the shares of some results, the release's number, the ledger's sequence)."""

        def read(view: ReadView) -> tuple[list[_Share], list[tables.Segment], int, int]:
            shares: list[_Share] = []
            segments: dict[int, tables.Segment] = {}
            for one in results:
                for share, segment in _of_result(view, one, MAX_RELEASED_SHARES + 1 - len(shares)):
                    shares.append(share)
                    segments[segment.number] = segment
            meta = view.get(tables.META, (self._address,))
            return shares, list(segments.values()), (meta.windows if meta is not None else 0) + 1, view.head.sequence

        found: tuple[list[_Share], list[tables.Segment], int, int] = await self._ledger.query(read)
        shares, segments, number, sequence = found
        if len(shares) > MAX_RELEASED_SHARES:
            raise BooksError(f"a release has at most {MAX_RELEASED_SHARES} shares, these results have more: split them")
        roots = await self._roots_of(segments)
        missing = [segment.number for segment in segments if segment.number not in roots]
        if missing:
            raise BooksError(f"the share roots of {len(missing)} segments are not known, {missing[0]} among them: get them from their holders first")
        return [share._replace(root=bytes(roots[share.segment][share.place])) for share in shares], number, sequence

    async def _done(self, intent: WindowRow, sequence: int, time_ms: int, result: bytes) -> Released:
        note = orjson.loads(intent.note)
        shares = {(one[0], one[1]): _share(one) for one in note["shares"]}
        settled = settled_of(result)
        shares |= await self._moved(settled, shares, note["sequence"], sequence)
        changed = await self._new_beneficiaries(shares.values(), note["sequence"], sequence)
        leaves: list[LeafRow] = []
        for one in settled:
            share = shares.get((one.segment, one.index))
            if share is None:
                raise BooksError(
                    f"release {intent.number} settled share {one.index} of segment {one.segment}, which came after it was made: tell the authors"
                )
            share = share._replace(beneficiary=changed.get(share.node, share.beneficiary))
            leaves.extend(_leaves(share, one, intent.number))
        noz = sum(leaf.noz for leaf in leaves)
        row = await self._ledger.query(lambda view: view.get(tables.WINDOW, (self._address, intent.number)))
        if row is not None and row.noz != noz:
            raise BooksError(f"release {intent.number} moved {row.noz} noz, its leaves have {noz}: nothing more is settled until that is understood")
        await self._books.applied_release(intent.number, sequence, time_ms, leaves)
        log.info("a release is on the ledger", number=intent.number, shares=len(settled), noz=noz)
        return Released(intent.number, settled, noz)

    async def _moved(
        self, settled: Sequence[Settled], known: Mapping[tuple[int, int], _Share], before: int, after: int
    ) -> dict[tuple[int, int], _Share]:
        """Of settled shares those that moves brought to their nodes between a release's making and its place in the log: another meta node's, or this one's
        before a start. Raises BooksError when the root of one is not known."""
        wanted = {(one.segment, one.index) for one in settled}

        def read(view: ReadView) -> list[tuple[_Share, tables.Segment]]:
            there: dict[tuple[int, int], tuple[int, bytes]] = {}
            for entry in _entries(view, before, after - 1):
                operation, _, _ = open_operation(entry.operation)
                if entry.code == 0 and operation.WhichOneof("kind") == "move":
                    there |= {(one.segment, one.index): (one.to_node, bytes(one.serial)) for one in operation.move.shares}
            found = []
            for (number, index), (node, serial) in there.items():
                segment = view.get(tables.SEGMENT, (number,)) if (number, index) in wanted else None
                row = view.get(tables.OBJECT, (segment.object,)) if segment is not None else None
                holder = view.get(tables.NODE, (node,))
                if segment is not None and row is not None and holder is not None:
                    escrow, root = share_escrow(row, number - row.first_segment), known[number, index].root if (number, index) in known else b""
                    found.append((_Share(number, index, node, holder.beneficiary, row.fund, escrow, row.term_days, serial, root), segment))
            return found

        found: list[tuple[_Share, tables.Segment]] = await self._ledger.query(read)
        unknown = [segment for share, segment in found if not share.root]
        roots = await self._roots_of(unknown) if unknown else {}
        if len(roots) < len({segment.number for segment in unknown}):
            raise BooksError(
                f"the share roots of {len(unknown) - len(roots)} segments are not known, whose shares were moved: get them from their holders first"
            )
        return {
            (share.segment, share.place): share if share.root else share._replace(root=bytes(roots[share.segment][share.place])) for share, _ in found
        }  # fmt: skip

    async def _new_beneficiaries(self, shares: Any, before: int, after: int) -> dict[int, bytes]:
        """Nodes whose beneficiary was changed between a release's making and its place in the log, and to whom."""
        nodes = {share.node: share.beneficiary for share in shares}

        def read(view: ReadView) -> dict[int, bytes]:
            found: dict[int, bytes] = {}
            rows = {number: view.get(tables.NODE, (number,)) for number in nodes}
            if all(row is None or row.beneficiary == nodes[number] for number, row in rows.items()):
                return found
            for entry in _entries(view, before, after - 1):
                operation, _, _ = open_operation(entry.operation)
                if entry.code or operation.WhichOneof("kind") != "observe":
                    continue
                observation = message_class(f"{PACKAGE}.Observation").FromString(operation.observe.observation)
                for event in observation.events:
                    for number, row in rows.items():
                        if event.WhichOneof("event") == "node" and row is not None and event.node.address == row.address:
                            found[number] = event.node.beneficiary
            return found

        changed: dict[int, bytes] = await self._ledger.query(read)
        return changed

    async def _finish(self, intent: WindowRow) -> None:
        """Bring a release to its end, of which it is not known whether the ledger has it."""
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
        """Take over a release that the ledger has; None where it has not. Raises BooksError when its log has it no more."""
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
            raise BooksError(f"release {intent.number} is on the ledger, and not in its log any more: import the log of another meta node")
        return await self._done(intent, *logged)

    def _logged(self, view: ReadView, after: int, message: Any) -> tuple[int, int, bytes] | None:
        """(sequence, time, result) of a release in the ledger's log."""
        for entry in _entries(view, after, view.head.sequence):
            if entry.code == 0:
                operation, _, _ = open_operation(entry.operation)
                if operation.meta_node == self._address and operation.WhichOneof("kind") == "release" and operation.release == message:
                    return entry.sequence, entry.time_ms, entry.result
        return None


def _entries(view: ReadView, after: int, up_to: int) -> Iterator[Any]:
    """The log's entries after a sequence up to another."""
    while after < up_to:
        page = view.entries(after, min(ENTRIES_READ, up_to - after))
        if not page:
            return
        yield from page
        after = page[-1].sequence


def _segments(view: ReadView, node: int, first: int, last: int, most: int) -> list[tables.Segment]:
    found = [view.get(tables.SEGMENT, (number,)) for number, _ in held_of(view, node, first, last, most)]
    return [segment for segment in found if segment is not None]


def _of_result(view: ReadView, result: Any, most: int) -> Iterator[tuple[_Share, tables.Segment]]:
    """The shares that a result is about, without their roots."""
    node = view.get(tables.NODE, (result.node,))
    if node is None:
        return  # the ledger will refuse it
    objects: dict[bytes, tables.Object | None] = {}
    for number, index in held_of(view, result.node, result.first_segment, result.last_segment, most):
        segment = view.get(tables.SEGMENT, (number,))
        if segment is None:
            continue
        if segment.object not in objects:
            objects[segment.object] = view.get(tables.OBJECT, (segment.object,))
        row = objects[segment.object]
        if row is None or row.state not in (*STORED, tables.OPEN):
            continue
        moved = view.get(tables.MOVED, (number, index))
        serial = moved.serial if moved is not None else serial_at(segment.first_serial, index)
        escrow = share_escrow(row, number - row.first_segment)
        yield _Share(number, index, result.node, node.beneficiary, row.fund, escrow, row.term_days, serial, b""), segment


def _share(packed: Sequence[Any]) -> _Share:
    fields: list[Any] = [bytes.fromhex(one) if isinstance(one, str) else one for one in packed]
    return _Share(*fields)


def _leaves(share: _Share, settled: Settled, window: int) -> Iterator[LeafRow]:
    """A leaf for each day that a passed share is paid for."""
    if not settled.has_passed:
        return
    before = released_until(share.escrow_noz, settled.first_day - 1, share.term_days)
    for day in range(settled.first_day, settled.last_day + 1):
        until = released_until(share.escrow_noz, day, share.term_days)
        noz, before = until - before, until
        if noz == 0:
            continue
        leaf = Leaf(beneficiary=bech32.encode(share.beneficiary), fund=share.fund, traffic_class=tables.STORAGE, noz=noz)
        leaf.release.share_root, leaf.release.day, leaf.release.serial = share.root, day, share.serial
        yield LeafRow(
            share.serial + day.to_bytes(DAY_BYTES, "big"), State.SETTLED, share.beneficiary, share.fund, tables.STORAGE, noz, 0, b"", b"", 0, NEVER_MS, window,
            0, leaf_bytes(leaf), "",
        )  # fmt: skip
