"""Share roots are with several meta nodes before the ledger has their segments, and with all soon after: none that dies takes reads with it.

    Commits ─ spread ─► meta.keep ─► others: on disk ─ enough of them (lease_quorum − 1) ─► the commit is proposed; the rest is told meanwhile
                                          │ kept
    every 2 s:  the ledger has it? ◄──────┘ ─ yes ─► numbered         ─ an hour later still not ─► dropped
                new segments of the ledger ─ not here ─► missing ─ meta.roots, 500 at a time, one after the other ─► checked ─► numbered

A meta node that is new looks at the ledger from its first segment on. What others give counts when it lies under the root that the ledger has, so a liar costs a
question. What nobody gives is looked for again and again, with pauses that grow.
Source: docs/adr/0010 (share roots are with several before a commit is proposed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from chain.codec.canonical import encode
from sds_node import asking, p2p
from sds_node.documents import lease_quorum
from sds_node.merkle import segment_root
from sds_node.meta.federation.peers import Bounds, Peers
from sds_node.meta.federation.roots import RootsOfOthers
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules import tables
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.wire import MAX_OBJECTS, MAX_SEGMENT, MAX_SEGMENTS
from sds_node.meta.users.kept import KeptKey, KeptRoots, KeptRow, Looked
from sds_node.meta.users.roots import HASH_BYTES, PAGE, Part, RootsError, ShareRoots
from sds_node.transfers import parsed
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Handler
from sds_node.wire.node import describe

log = structlog.get_logger("metas")

KEEP_S: Final = 5.0
"""In so long another meta node has share roots on its disk."""
AT_ONCE: Final = 8
"""Questions to keep that are under way to one meta node."""
KEEP: Final = Bounds(2 * AT_ONCE, asking.MAX_KEPT_BYTES)
"""Twice as many as are sent: what timed out there may be worked on here."""
MOST_UNDER_WAY: Final = 256
"""Questions that go on when enough others keep the roots; with more, the last ones are given up."""
MOST_KEPT: Final = 50_000
"""Segments that are kept for one meta node and not in the ledger yet; ``MOST_KEPT_BYTES`` of share roots."""
MOST_KEPT_BYTES: Final = 64 << 20
KEPT_S: Final = 3_600
"""By the ledger's time: no operation lasts longer, so what is not in it then will never be."""
EVERY_S: Final = 2.0
CATCH_UP_S: Final = 0.2
"""Between two rounds while there is more to do."""
FETCH_S: Final = 30.0
FRESH_S: Final = 2
"""A new segment is not asked for sooner: its roots are on their way here. The first pause, too."""
LONGEST_PAUSE_S: Final = 60
FAILED_S: Final = 30.0
"""A meta node that lied or did not answer is not asked for roots sooner, by the loop's time."""
LATE_S: Final = 300
"""Operators are told of what is missing for so long."""


class Keeping:
    """Of the meta node of ``peers``, whose share roots are ``roots``. ``clock`` tells Unix seconds. Run ``run`` as a task; ``close`` gives up what is being told
    to others."""

    def __init__(self, peers: Peers, ledger: AnyLedger, roots: ShareRoots, clock: Callable[[], float], *, every_s: float = EVERY_S) -> None:
        self._peers, self._ledger, self._kept, self._clock, self._every_s = peers, ledger, KeptRoots(roots), clock, every_s
        self._places: dict[bytes, asyncio.Semaphore] = {}
        self._telling: set[asyncio.Task[bool]] = set()
        self._others = RootsOfOthers(peers, timeout_s=FETCH_S, failed_s=FAILED_S)
        self._after: KeptKey | None = None
        self._grown = b""
        self._sequence = -1
        """Of the ledger, when all of it was looked at."""
        self._late = (0, 0)

    # --- before a commit ----------------------------------------------------------------------------------------------------

    async def spread(self, parts: Sequence[Part]) -> int:
        """Have other meta nodes keep share roots that will be proposed. How many have them on disk: as many as, beside this one, sign a lease; the others are
        told meanwhile. Raises Refused (NOT_READY) when too few have them within some seconds, LedgerError."""
        await self._peers.refresh()
        others, needed = self._peers.others(), lease_quorum(max(1, len(self._peers.active()))) - 1
        online = self._peers.others_online()
        asked = online if len(online) >= needed else others
        body = encode(
            asking.KeptRootsList(
                objects=[
                    asking.KeptRoots(object_id=one.object_id, first=one.first, segments=[b"".join(roots) for roots in one.roots]) for one in parts
                ]
            )
        )
        tasks = [asyncio.get_running_loop().create_task(self._tell(address, body)) for address in asked]
        for task in tasks:
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        done = await self._enough(tasks, needed)
        if len(self._telling) > MOST_UNDER_WAY:
            for task in tasks:
                task.cancel()
        if done < needed:
            raise wire_errors.Refused(
                asking.NOT_READY, f"expected {needed} other meta nodes to keep the share roots of this commit, {done} do: ask again in a moment"
            )
        return done

    async def _enough(self, tasks: Sequence[asyncio.Task[bool]], needed: int) -> int:
        """How many have told so, once it is as many as needed or all are asked."""
        done = 0
        if needed:
            for one in asyncio.as_completed(tasks):
                done += await one
                if done >= needed:
                    break
        return done

    async def _tell(self, address: bytes, body: bytes) -> bool:
        """Whether a meta node has the share roots on its disk."""
        try:
            async with asyncio.timeout(KEEP_S), self._places.setdefault(address, asyncio.Semaphore(AT_ONCE)):
                await self._peers.ask(address, asking.META_KEEP, body=body, most_bytes=0, timeout_s=KEEP_S)
        except (wire_errors.WireError, TimeoutError) as error:
            why = describe(error) if isinstance(error, wire_errors.WireError) else f"no answer in {KEEP_S:g} s"
            log.info("a meta node does not keep share roots", node=p2p.format_address(address), why=why)
            return False
        return True

    async def close(self) -> None:
        """Give up what is being told to others: they find it in the ledger."""
        tasks = list(self._telling)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- keeping for others -------------------------------------------------------------------------------------------------

    def handlers(self) -> dict[str, Handler]:
        """``meta.keep``, for ``wire.node.Node``."""
        return {asking.META_KEEP: self._peers.guarded(KEEP, self._keep)}

    async def _keep(self, caller: bytes, head: bytes, body: bytes) -> bytes:
        rows = await asyncio.to_thread(_rows_of, parsed(asking.KeptRootsList, body))
        if not await self._kept.keep(caller, rows, int(self._clock()), MOST_KEPT, MOST_KEPT_BYTES):
            raise wire_errors.Busy(
                f"share roots of at most {MOST_KEPT} segments in {MOST_KEPT_BYTES} bytes are kept for a meta node until they are in the ledger: "
                "ask again in a moment"
            )
        return b""

    # --- having all ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Have the share roots of all segments here, until cancelled."""
        while True:
            is_more = False
            try:
                is_more = await self.step()
            except (LedgerError, RootsError) as error:
                log.warning("share roots of the ledger's segments are not looked for", why=str(error))
            await asyncio.sleep(CATCH_UP_S if is_more else self._every_s)

    async def step(self) -> bool:
        """One round: what is kept, what is new in the ledger, what is missing. Whether there is more to do at once. Raises RootsError, LedgerError."""
        await self._peers.refresh()
        now_s = int(self._clock())
        is_more = await self._settle_kept()
        due = await self._kept.due(now_s)
        # Nothing is gained by knowing of more than can be fetched.
        if len(due) < PAGE:
            is_more = await self._look(now_s) or is_more
        is_more = await self._find(due, now_s) or is_more
        self._late = await self._kept.missing(now_s - LATE_S)
        return is_more

    def problems(self) -> list[str]:
        """What is wrong, in sentences, as of the last round."""
        count, first = self._late
        if not count:
            return []
        return [
            f"the share roots of {count} segments (of segment {first} first) are missing for over {LATE_S // 60} minutes and no meta node gives them: "
            "start the ones that have them; until then these segments cannot be read here"
        ]

    async def _settle_kept(self) -> bool:
        """Number what is kept and in the ledger, drop what never will be. Whether there may be more."""
        page = await self._kept.page(self._after)

        def look(view: ReadView) -> tuple[list[tuple[int, KeptKey]], list[KeptKey]]:
            taken: list[tuple[int, KeptKey]] = []
            dropped: list[KeptKey] = []
            found = {key: view.get(tables.OBJECT, (key,)) for key in {one.object for one in page}}
            for one in page:
                row = found[one.object]
                number = row.first_segment + one.at if row is not None and one.at < row.segments else -1
                segment = view.get(tables.SEGMENT, (number,)) if number >= 0 else None
                if segment is not None and (segment.object, segment.root) == (one.object, one.root):
                    taken.append((number, one))
                elif view.head.time_ms > (one.made_s + KEPT_S) * 1_000:
                    dropped.append(one)
            return taken, dropped

        taken, dropped = await self._ledger.query(look) if page else ([], [])
        if taken or dropped:
            await self._kept.settle(taken, dropped)
        self._after = page[-1] if len(page) == PAGE else None
        return len(page) == PAGE and bool(taken)

    async def _look(self, now_s: int) -> bool:
        """Note a page of what is new in the ledger and not here. Whether there is more."""
        if self._ledger.head.sequence == self._sequence:
            return False
        first, growing = await self._kept.looked(), await self._kept.growing(self._grown)
        sequence, is_all, found = await self._ledger.query(lambda view: _new(view, first, growing))
        await self._kept.note(found, now_s, now_s + FRESH_S)
        self._grown = growing[-1][0] if len(growing) == PAGE else b""
        is_all = is_all and not self._grown
        if is_all:
            self._sequence = sequence
        return not is_all

    async def _find(self, due: Sequence[tuple[int, int]], now_s: int) -> bool:
        """Fetch what is missing. Whether there is more, and it can be had."""
        if not due:
            return False

        def read(view: ReadView) -> list[tables.Segment]:
            return [row for number, _ in due if (row := view.get(tables.SEGMENT, (number,))) is not None]

        wanted = {row.number: row for row in await self._ledger.query(read)}
        gone = [number for number, _ in due if number not in wanted]
        found = await self._kept.here(list(wanted.values()))
        for address in self._others.in_order():
            left = [row for row in wanted.values() if row.number not in found]
            if not left:
                break
            found |= await self._others.ask(address, left)
        await self._kept.put(found, gone)
        since = {number: since_s for number, since_s in due if number in wanted and number not in found}
        pauses = {number: now_s + min(max(FRESH_S, now_s - since_s), LONGEST_PAUSE_S) for number, since_s in since.items()}
        await self._kept.later(pauses)
        if pauses:
            log.info("share roots are missing and no meta node gives them yet", segments=len(pauses), first=min(pauses))
        return len(due) == PAGE and bool(found or gone)


def _new(view: ReadView, first: int, growing: Sequence[tuple[bytes, int]]) -> tuple[int, bool, Looked]:
    """(the ledger's sequence, whether this is all, what there is from a number on and of objects that were not complete)."""
    end = state_of(view).next_segment
    rows = view.scan(tables.SEGMENT, start=(first if first <= end else 0,), limit=PAGE)
    is_all = len(rows) < PAGE
    numbers = [row.number for row in rows]
    goes_on: dict[bytes, int] = {}
    for key in {row.object for row in rows}:
        row = view.get(tables.OBJECT, (key,))
        if row is not None and row.state == tables.OPEN:
            goes_on[key] = row.first_segment + row.committed
    complete = []
    for key, number in growing:
        row = view.get(tables.OBJECT, (key,))
        there = row.first_segment + row.committed if row is not None else 0
        more = view.scan(tables.SEGMENT, start=(number,), end=(there,), limit=PAGE) if number < there else []
        numbers += [one.number for one in more]
        if len(more) == PAGE:
            goes_on[key], is_all = more[-1].number + 1, False
        elif row is not None and row.state == tables.OPEN:
            goes_on[key] = max(number, there)
        else:
            complete.append(key)
    return view.head.sequence, is_all, Looked(end if len(rows) < PAGE else rows[-1].number + 1, numbers, goes_on, complete)


def _rows_of(given: Any) -> list[KeptRow]:
    """What another meta node asks to keep, with the roots of the segments. Raises Refused for what no commit has."""
    segments = sum(len(one.segments) for one in given.objects)
    if not 1 <= len(given.objects) <= MAX_OBJECTS or not 1 <= segments <= MAX_SEGMENTS:
        raise wire_errors.Refused(
            asking.BAD_ASK,
            f"expected 1 to {MAX_OBJECTS} objects with 1 to {MAX_SEGMENTS} segments, got {len(given.objects)} with {segments}",
        )
    rows = []
    for one in given.objects:
        if len(one.object_id) != tables.ID_BYTES or one.first + len(one.segments) > MAX_SEGMENT:
            raise wire_errors.Refused(
                asking.BAD_ASK,
                f"expected an object id of {tables.ID_BYTES} bytes and segments below 2^48, got {len(one.object_id)} bytes, segments from {one.first} on",
            )
        for at, flat in enumerate(one.segments, one.first):
            if not 1 <= len(flat) // HASH_BYTES <= tables.MAX_SHARES or len(flat) % HASH_BYTES:
                raise wire_errors.Refused(
                    asking.BAD_ASK, f"expected 1 to {tables.MAX_SHARES} share roots of {HASH_BYTES} bytes for a segment, got {len(flat)} bytes"
                )
            root = segment_root(flat[place : place + HASH_BYTES] for place in range(0, len(flat), HASH_BYTES))
            rows.append(KeptRow(bytes(one.object_id), root, at, bytes(flat)))
    return rows
