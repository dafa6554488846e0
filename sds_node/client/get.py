"""Shares and whole objects from nodes: every byte checked against its root before the receipt that covers it is signed.

    k shares, those with the segment's own bytes first ─► checked leaf by leaf ─► in order
        └── one is slow, wrong or gone: others are asked, and its leaves are computed from theirs

A segment under way holds its shares, and two are under way; so memory does not grow with the object.
Source: storage-protocol.md 3.1 to 3.4 and 4; ADR 7 and 8.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sds_node import transfers
from sds_node.client.placing import GetWanted, Issuer, NodeFailed, NotReadable, Place, Settings, TransferFailed, of_node
from sds_node.client.session import Receipts, Session
from sds_node.coding import NotEnoughShares, locate, recreate
from sds_node.documents import Refused
from sds_node.merkle import LEAF_BYTES, LeafCheck, leaf_size, object_root, segment_root, share_proved
from sds_node.schemes import SEGMENT_BYTES, Scheme, segment_count, segment_size, share_bytes
from sds_node.transfers import RECEIPT_BYTES, Run, head_bytes, receive_record, record, runs_bytes
from sds_node.wire.errors import ConnectionFailed, WireError
from sds_node.wire.stream import Stream

_HASH_BYTES: Final = 32
_CACHED_HASHES: Final = 256
"""Lists of leaf hashes that a reader keeps, of at most 64 KiB each."""
_LET_GO_S: Final = 30.0

# --- one share out ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShareToGet:
    """A share of a segment whose root is known: what a node's bytes are proved against."""

    segment_root: bytes
    index: int
    total_shares: int
    size_bytes: int


def check_seat(share: ShareToGet, share_root: bytes, path: Sequence[bytes]) -> None:
    """Raises Refused unless a share root is that of its segment's share. Where all shares are alike, their number needs no path."""
    if share_proved(share.segment_root, share_root, share.index, share.total_shares, path):
        return
    if segment_root([share_root] * share.total_shares) != share.segment_root:
        raise Refused(f"expected a path from {share_root.hex()} to the segment {share.segment_root.hex()} as share {share.index}")


async def get_share(
    session: Session,
    place: Place,
    share: ShareToGet,
    runs: Sequence[Run],
    into: memoryview,
    hashes: bytes | None = None,
    settings: Settings | None = None,
) -> bytes:
    """Leaves of a share → ``into``, which has exactly their bytes, one run after another; the hashes of all leaves are returned, for the next time.

    Each leaf is checked before the receipt that covers it is signed. A connection that is lost is made again, and the rest comes under the same limit.
    ``hashes``: what an earlier call for the same root returned. Raises NodeFailed, NodeLied.
    """
    patience = settings or Settings()
    if len(into) != runs_bytes(runs, share.size_bytes):
        raise ValueError(f"the runs have {runs_bytes(runs, share.size_bytes)} bytes, and into {len(into)}")
    with of_node(place):
        root = bytes(place.limit.share_root)
        receipts = Receipts(session, place.order_limit, root)
        for attempt in range(patience.attempts):
            is_resumed = attempt > 0
            head = transfers.GetHead(certificate=place.certificate, with_hashes=hashes is None, segment_root=share.segment_root)
            head.evidence.CopyFrom(session.evidence(place.order_limit, receipts.so_far() if is_resumed else None))
            left = _left(runs, share.size_bytes, receipts.moved.bytes)
            head.runs.extend(transfers.LeafRun(first=run.first, leaves=run.leaves) for run in left)
            try:
                async with asyncio.timeout(patience.stall_s):
                    stream = await place.peer.call(transfers.GET, head_bytes(head))
                hashes = await _receive(stream, receipts, share, root, left, into[receipts.moved.bytes :], hashes, patience.stall_s)
                return hashes
            except ConnectionFailed:
                if receipts.is_final:
                    return hashes or b""  # all came; whether the last receipt did is the node's loss, and it has the one before
                if attempt + 1 == patience.attempts:
                    raise
        raise AssertionError("unreachable")


def _left(runs: Sequence[Run], size_bytes: int, done_bytes: int) -> list[Run]:
    """What is left of runs when so many bytes of them, which end with a leaf, are there."""
    left = []
    for run in runs:
        start, stop = run.bounds(size_bytes)
        taken = min(done_bytes, stop - start)
        done_bytes -= taken
        leaves = -(-taken // LEAF_BYTES)
        if leaves < run.leaves:
            left.append(Run(run.first + leaves, run.leaves - leaves))
    return left


async def _receive(
    stream: Stream, receipts: Receipts, share: ShareToGet, root: bytes, runs: Sequence[Run], into: memoryview, hashes: bytes | None, stall_s: float
) -> bytes:
    """The reply and the leaves of one connection; the final receipt goes out, and the node's success comes back."""
    try:
        async with asyncio.timeout(stall_s):
            data = await receive_record(stream, transfers.MAX_REPLY_BYTES)
        if data is None:
            await stream.result()
        reply = transfers.parsed(transfers.GetReply, data or b"")
        if reply.size_bytes != share.size_bytes:
            raise Refused(f"expected a share of {share.size_bytes} bytes, got one of {reply.size_bytes}")
        if hashes is None:
            hashes = bytes(reply.leaf_hashes)
            check_seat(share, root, [bytes(one) for one in reply.segment_path])
        for run in runs:
            check = LeafCheck(root, share.size_bytes, hashes, run.first, run.leaves)
            size = check.missing_bytes
            await _receive_run(stream, receipts, check, share.size_bytes, run, into[:size], hashes, stall_s)
            into = into[size:]
        await stream.send(record(receipts.so_far(is_final=True).SerializeToString()))
        stream.end()
        async with asyncio.timeout(stall_s):
            await stream.result()
        return hashes
    except BaseException as error:
        if isinstance(error, ConnectionFailed):
            stream.cancel()
        else:
            _let_go(stream, receipts)
        raise


async def _receive_run(
    stream: Stream, receipts: Receipts, check: LeafCheck, size_bytes: int, run: Run, into: memoryview, hashes: bytes, stall_s: float
) -> None:
    at, leaf = 0, run.first
    while check.missing_bytes:
        async with asyncio.timeout(stall_s):
            chunk = await stream.receive(min(check.missing_bytes, RECEIPT_BYTES))
        if not chunk:
            await stream.result()
            raise Refused(f"expected {check.missing_bytes} bytes more of the share, got the end")
        into[at : at + len(chunk)] = chunk
        at += len(chunk)
        try:
            check.update(chunk)
        finally:
            proved = run.first + -(-check.proved_bytes // LEAF_BYTES)
            for index in range(leaf, proved):
                receipts.moved.leaf(index, leaf_size(size_bytes, index), hashes[index * _HASH_BYTES : (index + 1) * _HASH_BYTES])
            leaf = proved
        if receipts.moved.bytes - receipts.moved.acked_bytes >= RECEIPT_BYTES:
            await stream.send(record(receipts.so_far().SerializeToString()))


def _let_go(stream: Stream, receipts: Receipts) -> None:
    """A get that is given up: the final receipt of what was good goes out behind the caller's back, so that the node is paid for it."""
    if stream.over:
        stream.cancel()
        return
    final = None if receipts.is_final else record(receipts.so_far(is_final=True).SerializeToString())

    async def end() -> None:
        with contextlib.suppress(WireError, TimeoutError):
            async with asyncio.timeout(_LET_GO_S), stream:
                if final is not None:
                    await stream.send(final)
                    stream.end()
                while await stream.receive():
                    pass

    task = asyncio.get_running_loop().create_task(end())
    _ENDING.add(task)
    task.add_done_callback(_ENDING.discard)


_ENDING: Final[set[asyncio.Task[None]]] = set()
"""Tasks that nobody waits for have to be held by somebody."""

# --- a whole object out ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ObjectToGet:
    """What the ledger says of an object."""

    root: bytes
    size_bytes: int
    scheme: Scheme
    segment_roots: tuple[bytes, ...]


@dataclass(slots=True)
class _Part:
    """Leaves of one share that are there."""

    run: Run
    start: int
    data: memoryview

    def slice(self, start: int, stop: int) -> memoryview:
        """Bytes of the share from ``start`` to ``stop``."""
        return self.data[start - self.start : stop - self.start]


@dataclass(slots=True)
class _Reading:
    """A range of a segment on its way."""

    segment: int
    segment_bytes: int
    size_bytes: int
    """Of a share."""
    needed: dict[int, Run]
    parts: dict[int, _Part] = field(default_factory=dict)
    running: dict[asyncio.Task[None], int] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    """What was asked of each share, whether it came or not."""
    failures: dict[int, str] = field(default_factory=dict)


class ObjectReader:
    """Reads an object, whole or in ranges. It remembers leaf hashes, so that a range costs little more than its leaves.

    Raises TransferFailed for an object whose segments have not its root.
    """

    def __init__(self, session: Session, issuer: Issuer, wanted: ObjectToGet, settings: Settings | None = None) -> None:
        if len(wanted.segment_roots) != segment_count(wanted.size_bytes) or object_root(wanted.segment_roots) != wanted.root:
            raise TransferFailed(f"expected the {segment_count(wanted.size_bytes)} segment roots of object {wanted.root.hex()}")
        self._session, self._issuer, self._object, self._settings = session, issuer, wanted, settings or Settings()
        self._hashes: OrderedDict[tuple[int, int], tuple[bytes, bytes]] = OrderedDict()

    async def read(self, offset: int = 0, length: int | None = None) -> AsyncGenerator[memoryview, None]:
        """The stored stream's bytes from ``offset`` on, in order, in pieces of at most 1 MiB. While one segment is handed out the next is fetched.

        Raises NotReadable, TransferFailed for a range that the object has not, what the issuer raises.
        """
        size = self._object.size_bytes
        length = size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > size:
            raise TransferFailed(f"the object has {size} bytes; {length} from {offset} on are not among them")
        ranges = _ranges(size, offset, length)
        tasks: list[asyncio.Task[list[memoryview]]] = []
        try:
            for at in range(len(ranges)):
                while len(tasks) < self._settings.segments_at_once and at + len(tasks) < len(ranges):
                    tasks.append(asyncio.create_task(self._segment(*ranges[at + len(tasks)])))
                for part in await tasks.pop(0):
                    for start in range(0, len(part), RECEIPT_BYTES):
                        yield part[start : start + RECEIPT_BYTES]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _segment(self, segment: int, offset: int, length: int) -> list[memoryview]:
        scheme = self._object.scheme
        segment_bytes = segment_size(self._object.size_bytes, segment)
        size = share_bytes(scheme, segment_bytes)
        slices = locate(scheme, segment_bytes, offset, length)
        needed: dict[int, Run] = {}
        for one in slices:
            first = one.offset // LEAF_BYTES
            needed[one.index] = Run(first, -(-(one.offset + one.length) // LEAF_BYTES) - first)
        reading = _Reading(segment, segment_bytes, size, needed)
        try:
            for index, run in needed.items():
                self._start(reading, index, run)
            while not self._is_complete(reading):
                while not self._enough_under_way(reading) and self._start_another(reading):
                    pass
                if not reading.running:
                    raise NotReadable(segment, scheme.k, reading.failures)
                done, _ = await asyncio.wait(reading.running, timeout=self._settings.hedge_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del reading.running[task]
                    task.result()
                if not done:
                    self._start_another(reading)
        finally:
            for task in reading.running:
                task.cancel()
            await asyncio.gather(*reading.running, return_exceptions=True)
        for index, run in needed.items():
            if index not in reading.parts:
                await self._recreate(reading, index, run)
        return [reading.parts[one.index].slice(one.offset, one.offset + one.length) for one in slices]

    def _start(self, reading: _Reading, index: int, run: Run) -> None:
        reading.runs[index] = run
        reading.running[asyncio.create_task(self._fetch(reading, index, run))] = index

    def _start_another(self, reading: _Reading) -> bool:
        """Ask one more holder for what is missing. Returns whether there is one."""
        hull = _hull(*(run for index, run in reading.needed.items() if index not in reading.parts))
        for index in range(self._object.scheme.n):
            if index not in reading.runs:
                self._start(reading, index, hull)
                return True
        # A share of which other leaves came may be asked again, once, for these too.
        for index, part in reading.parts.items():
            if not _covers(reading.runs[index], hull):
                self._start(reading, index, _hull(part.run, hull))
                return True
        return False

    def _sources(self, reading: _Reading, run: Run, *, with_running: bool) -> list[int]:
        """Shares that have the leaves of a run, or will."""
        found = [index for index, part in reading.parts.items() if _covers(part.run, run)]
        if with_running:
            found += [index for index in reading.running.values() if index not in found and _covers(reading.runs[index], run)]
        return found

    def _is_there(self, reading: _Reading, index: int, run: Run, *, with_running: bool) -> bool:
        sources = self._sources(reading, run, with_running=with_running)
        return index in sources or len(sources) >= self._object.scheme.k

    def _is_complete(self, reading: _Reading) -> bool:
        return all(self._is_there(reading, index, run, with_running=False) for index, run in reading.needed.items())

    def _enough_under_way(self, reading: _Reading) -> bool:
        return all(self._is_there(reading, index, run, with_running=True) for index, run in reading.needed.items())

    async def _fetch(self, reading: _Reading, index: int, run: Run) -> None:
        start, stop = run.bounds(reading.size_bytes)
        place = await self._issuer.for_get(GetWanted(self._object.root, reading.segment, index, stop - start))
        if place is None:
            reading.failures[index] = "nobody holds it"
            return
        share = ShareToGet(self._object.segment_roots[reading.segment], index, self._object.scheme.n, reading.size_bytes)
        key, root = (reading.segment, index), bytes(place.limit.share_root)
        kept = self._hashes.get(key)
        data = memoryview(bytearray(stop - start))
        try:
            known = kept[1] if kept is not None and kept[0] == root else None
            hashes = await get_share(self._session, place, share, [run], data, known, self._settings)
        except NodeFailed as error:
            reading.failures[index] = str(error)
            return
        self._hashes[key] = root, hashes
        self._hashes.move_to_end(key)
        if len(self._hashes) > _CACHED_HASHES:
            self._hashes.popitem(last=False)
        reading.parts[index] = _Part(run, start, data)

    async def _recreate(self, reading: _Reading, index: int, run: Run) -> None:
        """Compute the leaves of a share from those of k others."""
        start, stop = run.bounds(reading.size_bytes)
        chosen = self._sources(reading, run, with_running=False)[: self._object.scheme.k]
        given = [(one, reading.parts[one].slice(start, stop)) for one in chosen]
        try:
            (made,) = await asyncio.to_thread(recreate, self._object.scheme, given, [index])
        except NotEnoughShares as error:
            raise NotReadable(reading.segment, self._object.scheme.k, reading.failures) from error
        reading.parts[index] = _Part(run, start, made)


def _covers(run: Run, other: Run) -> bool:
    return run.first <= other.first and other.first + other.leaves <= run.first + run.leaves


def _hull(*runs: Run) -> Run:
    """The shortest run that has all of these."""
    first = min(run.first for run in runs)
    return Run(first, max(run.first + run.leaves for run in runs) - first)


def _ranges(size_bytes: int, offset: int, length: int) -> list[tuple[int, int, int]]:
    """A range of an object → (segment, offset in it, length) of each segment that it touches."""
    found = []
    while length:
        segment, at = divmod(offset, SEGMENT_BYTES)
        taken = min(length, segment_size(size_bytes, segment) - at)
        found.append((segment, at, taken))
        offset, length = offset + taken, length - taken
    return found
