"""Which shares are healthy, and which segments need repair: found by walking the lists of nodes that become lost or leave, never all segments.

    node offline ≥ lost_s, or GONE ─► LOST ─┐                              each segment of the page: healthy shares < repair_below ─► queue
    two audits in a row without one proof ──┤
    LEAVING ────────────────────────────────┼─► its list, page by page ──►                           a share at a leaving node ─► queue
    a lost one says hello or proves again ──┘   (where it stands is kept)                            enough again ─► out of the queue
    audits, scrubs, comparisons: a share is damaged or missing ─► mark ─► its segment is looked at

A share is healthy when its node is neither lost nor gone, and nobody marked it as damaged or missing. One at a leaving node is healthy, and is moved; one at a
suspended node is healthy as long as that proves what it has. A node that says hello and proves nothing is lost, and gets no new shares, until it proves one
again; one that has no shares left after UNPROVED_KEPT_S.
After a start, nodes have three intervals' time to say hello before they can be lost. Source: storage-protocol.md 3.2; storage-interfaces.md 3.3 and 9.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

import structlog

from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.nodes.registry import INTERVALS, Registry
from sds_node.meta.operations import AnyLedger
from sds_node.meta.repair.known import Settings
from sds_node.meta.repair.queue import RepairQueue, Walk
from sds_node.meta.rules import tables
from sds_node.meta.rules.objects import STORED, scheme
from sds_node.meta.rules.places import Entry, held_of, nodes_of
from sds_node.meta.rules.wire import MAX_SEGMENT
from sds_node.schemes import Scheme, is_lost, needs_repair, segment_size, share_bytes
from sds_node.transfers import serial_at

log = structlog.get_logger("repair")

PAGE: Final = 500
PAGES_A_STEP: Final = 40
"""Of one node: then the next one has its turn."""
MAX_HEARD: Final = 100_000
UNPROVED_MOST: Final = 2
"""A node is lost after so many audits in a row, of a day each, in which it proved nothing."""
UNPROVED_KEPT_S: Final = 7 * 86_400


class Standing(Enum):
    """What a node's shares count for."""

    HEALTHY = 1
    LEAVING = 2
    LOST = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """A segment and where its shares stand: numbers of shares that are healthy, at leaving nodes (healthy too), lost or damaged, and held by nobody."""

    segment: tables.Segment
    row: tables.Object
    holders: Sequence[int]
    """The node of each share, 0 for none."""
    serials: Sequence[bytes]
    """Of each share's copy."""
    healthy: Sequence[int]
    leaving: Sequence[int]
    lost: Sequence[int]
    marked: Sequence[int]
    """Of the lost ones, those that are known to be damaged or missing at their node."""
    empty: Sequence[int]

    @property
    def scheme(self) -> Scheme:
        return scheme(self.row)

    @property
    def count(self) -> int:
        """How many shares give the segment back now."""
        return len(self.healthy) + len(self.leaving)

    @property
    def spare(self) -> int:
        """Shares beyond the k that are needed; negative when too few are there."""
        return self.count - self.row.k

    @property
    def is_lost(self) -> bool:
        return is_lost(self.scheme, self.count)

    @property
    def is_short(self) -> bool:
        """Whether its missing shares are to be made again."""
        return self.is_lost or needs_repair(self.scheme, self.count)

    @property
    def needs_work(self) -> bool:
        return self.is_short or bool(self.leaving)

    @property
    def at(self) -> int:
        """The segment's number within its object."""
        return self.segment.number - self.row.first_segment

    @property
    def segment_bytes(self) -> int:
        return segment_size(self.row.size_bytes, self.at)

    @property
    def share_bytes(self) -> int:
        return share_bytes(self.scheme, self.segment_bytes)


Read = tuple[tables.Segment, tables.Object, list[bytes]]
"""A segment, its object, and the serials of its copies."""


def read_segments(view: ReadView, numbers: Iterable[int]) -> list[Read]:
    """Segments of objects whose shares are kept; others are left out."""
    found: list[Read] = []
    objects: dict[bytes, tables.Object | None] = {}
    for number in numbers:
        segment = view.get(tables.SEGMENT, (number,))
        if segment is None:
            continue
        if segment.object not in objects:
            objects[segment.object] = view.get(tables.OBJECT, (segment.object,))
        row = objects[segment.object]
        if row is None or row.state not in STORED:
            continue
        serials = [serial_at(segment.first_serial, index) for index in range(row.n)]
        for moved in view.scan(tables.MOVED, (number,), limit=row.n):
            serials[moved.share] = moved.serial
        found.append((segment, row, serials))
    return found


def judge(read: Read, standing_of: Callable[[int], Standing], marks: Mapping[tuple[int, int], int]) -> Judged:
    """Where the shares of a segment stand. ``marks``: (segment, share) → the node whose copy is damaged or missing."""
    segment, row, serials = read
    holders = nodes_of(segment.nodes)
    healthy: list[int] = []
    leaving: list[int] = []
    lost: list[int] = []
    marked: list[int] = []
    empty: list[int] = []
    for index, node in enumerate(holders):
        if not node:
            empty.append(index)
        elif marks.get((segment.number, index)) == node:
            lost.append(index)
            marked.append(index)
        else:
            standing = standing_of(node)
            (healthy if standing is Standing.HEALTHY else leaving if standing is Standing.LEAVING else lost).append(index)
    return Judged(segment, row, holders, serials, healthy, leaving, lost, marked, empty)


class Health:
    """Judges the nodes and shares of one ledger, and keeps ``queue`` filled. ``clock`` tells Unix seconds. Call ``start`` first, then ``step`` often."""

    def __init__(self, ledger: AnyLedger, registry: Registry, queue: RepairQueue, clock: Callable[[], float], settings: Settings) -> None:
        self._ledger, self._registry, self._queue, self._clock, self._settings = ledger, registry, queue, clock, settings
        self._started_s = clock()
        self._unproved: dict[int, tuple[int, int]] = {}
        self._heard: deque[tuple[int, int, str]] = deque(maxlen=MAX_HEARD)

    async def start(self) -> None:
        """Read who proves nothing."""
        self._started_s = self._clock()
        self._unproved = await self._queue.unproved()

    # --- nodes --------------------------------------------------------------------------------------------------------------

    def standing(self, number: int) -> Standing:
        """What the shares of a node count for now."""
        row = self._registry.rows().get(number)
        if row is None or row.standing == tables.GONE or self.proves_nothing(number) or self._is_silent(row):
            return Standing.LOST
        return Standing.LEAVING if row.standing == tables.LEAVING else Standing.HEALTHY

    def proves_nothing(self, number: int) -> bool:
        """Whether the last audits of a node ended without one proof."""
        return self._unproved.get(number, (0, 0))[0] >= UNPROVED_MOST

    async def not_proved(self, number: int) -> None:
        """An audit of a node ended without one proof, its second chance included."""
        await self._queue.not_proved(number, int(self._clock()))
        self._unproved = await self._queue.unproved()
        if self.proves_nothing(number):
            log.warning("a node proves nothing that it has: its shares are made again elsewhere", node=number, audits=self._unproved[number][0])

    async def proved(self, number: int, shares: Sequence[tuple[int, int]]) -> None:
        """A node proved these shares (segment, index): they are neither damaged nor missing there."""
        await self._queue.proved(number, shares)
        self._unproved.pop(number, None)

    async def _forgive(self) -> None:
        """Who has lost all of its shares cannot prove one: after a time it may get new ones."""
        for number, (_, at_s) in list(self._unproved.items()):
            row = self._registry.rows().get(number)
            if (row is None or not row.shares) and self._clock() - at_s >= UNPROVED_KEPT_S:
                await self._queue.forget_unproved(number)
                del self._unproved[number]

    def _is_silent(self, row: tables.Node) -> bool:
        if self._registry.is_online(row):
            return False
        seen, now_s = self._registry.seen_of(row.number), self._clock()
        heard_s = max(seen.heard_s if seen is not None else 0.0, row.seen_ms / 1_000)
        if seen is None and now_s - self._started_s < min(self._settings.lost_s, INTERVALS * self._registry.hello_s):
            return False
        return now_s - heard_s >= self._settings.lost_s

    def is_online(self, number: int) -> bool:
        """Whether a node can be asked now."""
        row = self._registry.rows().get(number)
        return row is not None and row.standing != tables.GONE and self._registry.is_online(row)

    # --- shares -------------------------------------------------------------------------------------------------------------

    def share_lost(self, segment: int, index: int, why: str = "not proved") -> None:
        """A share is damaged or missing at the node that the ledger names: it is marked at the next step."""
        self._heard.append((segment, index, why))

    async def look(self, number: int) -> Judged | None:
        """A segment as it stands now; None when it needs no shares any more."""
        return next(iter(await self._judged([number])), None)

    async def _judged(self, numbers: Sequence[int]) -> list[Judged]:
        found: list[Read] = await self._ledger.query(partial(read_segments, numbers=numbers))
        marks = await self._queue.marked(segment.number for segment, _, _ in found)
        return [judge(one, self.standing, marks) for one in found]

    async def mark(self, found: Sequence[tuple[int, int, int, str]]) -> None:
        """(segment, share, node, why): these copies are damaged or missing, so far as the ledger still names those nodes; segments in need are queued."""
        for at in range(0, len(found), PAGE):
            await self._mark(found[at : at + PAGE])

    async def _mark(self, found: Sequence[tuple[int, int, int, str]]) -> None:
        judged = {one.segment.number: one for one in await self._judged(sorted({segment for segment, _, _, _ in found}))}
        fit = []
        for segment, share, node, why in found:
            one = judged.get(segment)
            if one is not None and share < len(one.holders) and one.holders[share] == node:
                fit.append((segment, share, node, why))
                log.warning("a share is to be repaired", segment=segment, share=share, node=node, why=why)
        await self._queue.mark(fit)
        await self._note(sorted({segment for segment, _, _, _ in fit}))

    async def _note(self, numbers: Sequence[int]) -> None:
        judged = await self._judged(numbers)
        await self._queue.note([(one.segment.number, one.spare) for one in judged if one.needs_work], int(self._clock()))

    # --- walks --------------------------------------------------------------------------------------------------------------

    async def step(self) -> list[int]:
        """Look at all nodes, walk the lists of those that need it, take in what was heard of shares. Numbers of nodes that came back.

        Raises LedgerError, QueueError.
        """
        await self._registry.refresh()
        await self._take_heard()
        await self._forgive()
        walks = await self._queue.walks()
        came_back: list[int] = []
        for number, row in sorted(self._registry.rows().items()):
            kind = walks[number][0] if number in walks else None
            wanted = {Standing.LOST: Walk.LOST, Standing.LEAVING: Walk.LEAVING}.get(self.standing(number))
            if wanted is None and kind in (Walk.LOST, Walk.LEAVING):
                if kind == Walk.LOST:
                    came_back.append(number)
                wanted = Walk.BACK
                log.info("a node is back", node=number, shares=row.shares)
            elif wanted is not None and kind is not None and not row.shares:
                await self._queue.end_walk(number)
                del walks[number]
                continue
            elif wanted is None or wanted == kind or not row.shares:
                continue
            else:
                log.warning("a node's shares are to be made or placed again", node=number, shares=row.shares, why=wanted.name.lower())
            await self._queue.begin_walk(number, wanted)
            walks[number] = wanted, 0
        for number, (kind, cursor) in walks.items():
            await self._walk(number, kind, cursor)
        return came_back

    async def _walk(self, node: int, kind: Walk, cursor: int) -> None:
        """Go on with a node's list. A lost or leaving node's goes on for as long as it is that: commits may have been on their way."""
        for _ in range(PAGES_A_STEP):
            entries: list[Entry] = await self._ledger.query(partial(held_of, node=node, first=cursor, last=MAX_SEGMENT, most=PAGE))
            if not entries:
                if kind == Walk.BACK:
                    await self._queue.end_walk(node)
                return
            judged = await self._judged([number for number, _ in entries])
            cursor = entries[-1][0] + 1
            await self._queue.walked(node, cursor, [(one.segment.number, one.spare) for one in judged if one.needs_work], int(self._clock()))
            if kind == Walk.BACK:
                await self._queue.remove([one.segment.number for one in judged if not one.needs_work])

    async def _take_heard(self) -> None:
        """What audits told: whose copies these are is looked up once."""
        heard = [self._heard.popleft() for _ in range(min(len(self._heard), PAGE))]
        while heard:
            holders = {one.segment.number: one.holders for one in await self._judged(sorted({segment for segment, _, _ in heard}))}
            found = [
                (segment, index, holders[segment][index], why)
                for segment, index, why in heard
                if segment in holders and index < len(holders[segment])
            ]
            await self.mark(found)
            heard = [self._heard.popleft() for _ in range(min(len(self._heard), PAGE))]
