"""Shares and whole objects from nodes: every byte checked against its root before the receipt that covers it is signed.

    k shares, those with the segment's own bytes first ─► checked leaf by leaf ─► in order
        └── one is slow, wrong or gone: others are asked, and its leaves are computed from theirs

A segment under way holds its shares, and two are under way; so memory does not grow with the object.
Source: storage-protocol.md 3.1 to 3.4 and 4; ADR 7 and 8.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from sds_node import transfers
from sds_node.client.placing import GetWanted, Issuer, NodeFailed, NotReadable, Place, Settings, TransferFailed, of_node
from sds_node.client.session import Receipts, Session
from sds_node.coding import NotEnoughShares, Slice, locate, recreate
from sds_node.documents import Refused
from sds_node.memory import room
from sds_node.merkle import LEAF_BYTES, LeafCheck, MerkleError, object_root, segment_root, share_proved
from sds_node.schemes import SEGMENT_BYTES, Scheme, segment_count, segment_size, share_bytes
from sds_node.threads import INLINE_BYTES, aside, to_its_end
from sds_node.transfers import RECEIPT_BYTES, Run, head_bytes, receive_record, record, runs_bytes
from sds_node.wire.errors import Busy, CallCancelled, ConnectionFailed, InternalFailure, TimedOut, Unreachable, WireError
from sds_node.wire.node import Node
from sds_node.wire.stream import Stream

_HASH_BYTES: Final = 32
_CACHED_HASHES: Final = 256
"""Lists of leaf hashes that a reader keeps, of at most 64 KiB each."""
RECEIPT_S: Final = 10.0
"""On a slow line a receipt is signed after so long, though no MiB has come."""
_LET_GO_S: Final = 30.0
OWED_PAUSE_S: Final = 3.0
"""A final receipt whose node cannot be reached is handed in again after so long."""
MOST_OWED: Final = 64
"""So many of them are kept for a node."""
_UNHEARD: Final = (ConnectionFailed, Unreachable, Busy, TimedOut, CallCancelled, InternalFailure)
"""What a node answers that has judged nothing."""
PATIENT_TIMES: Final = 12
"""A share that there is nothing to hold against may take so many times ``hedge_s``."""
PACE_LOOKS: Final = 3
"""A pace is that of so many ``hedge_s``: frames are large, and on a slow line seldom."""
_TRIED_S: Final = 5.0
"""What is owed to a node keeps others from asking it for so long at most."""
_IN_TIME_S: Final = 15.0
"""A get ends so long before its limit does, so that its last receipt comes in time."""
MOST_OPEN: Final = 48
"""Of the 64 transfers that a node takes from a wallet at once."""

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


Came = Callable[[int, int], None]
"""Is told how many bytes are proved, and how many have come."""


@dataclass(slots=True)
class _Known:
    """The hashes of a share's leaves, once they are proved by its root; empty before."""

    hashes: bytes


async def get_share(
    session: Session,
    place: Place,
    share: ShareToGet,
    runs: Sequence[Run],
    into: memoryview,
    hashes: bytes | None = None,
    settings: Settings | None = None,
    came: Came | None = None,
) -> bytes:
    """Leaves of a share → ``into``, which has exactly their bytes, one run after another; the hashes of all leaves are returned, for the next time.

    Each leaf is checked before the receipt that covers it is signed. A connection that is lost is made again, and the rest comes under the same limit.
    ``hashes``: what an earlier call for the same root returned; ``came`` is told how many bytes of ``into`` are proved and how many have come. Raises
    NodeFailed, NodeLied.
    That the node has the final receipt is waited for behind the caller's back (``last_receipts``).
    """
    patience = settings or Settings()
    if len(into) != runs_bytes(runs, share.size_bytes):
        raise ValueError(f"the runs have {runs_bytes(runs, share.size_bytes)} bytes, and into {len(into)}")
    root = bytes(place.limit.share_root)
    with of_node(place):
        async with _line(place) as line:
            debt = _Debt(session, place, Receipts(session, place.order_limit, root))
            # Not beyond its limit: what is not receipted then counts as owed, and closes the session.
            left_s = place.limit.expires_s - session.clock()
            try:
                async with asyncio.timeout(max(left_s - _IN_TIME_S, left_s / 2, 1.0)):
                    return await _got(debt, share, root, runs, into, _Known(hashes or b""), patience, came, line)
            finally:
                if debt.is_owed:
                    line.owe(debt)


async def _got(
    debt: _Debt,
    share: ShareToGet,
    root: bytes,
    runs: Sequence[Run],
    into: memoryview,
    known: _Known,
    patience: Settings,
    came: Came | None,
    line: _Line,
) -> bytes:
    """``get_share``'s bytes, over as many connections as it takes."""
    session, place, receipts = debt.session, debt.place, debt.receipts
    for attempt in range(patience.attempts):
        is_resumed = attempt > 0
        head = transfers.GetHead(certificate=place.certificate, with_hashes=not known.hashes, segment_root=share.segment_root)
        head.evidence.CopyFrom(session.evidence(place.order_limit, receipts.so_far() if is_resumed else None))
        left = _left(runs, share.size_bytes, receipts.moved.bytes)
        head.runs.extend(transfers.LeafRun(first=run.first, leaves=run.leaves) for run in left)
        try:
            async with asyncio.timeout(patience.stall_s):
                stream = await place.peer.call(transfers.GET, head_bytes(head))
            debt.is_owed = True
            await _receive(stream, debt, share, root, left, into[receipts.moved.bytes :], known, patience, came, line)
            return known.hashes
        except ConnectionFailed:
            if receipts.is_final:
                return known.hashes  # all came, but for the node's word that it has the receipt
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
    stream: Stream,
    debt: _Debt,
    share: ShareToGet,
    root: bytes,
    runs: Sequence[Run],
    into: memoryview,
    known: _Known,
    patience: Settings,
    came: Came | None,
    line: _Line,
) -> None:
    """The reply and the leaves of one connection; the final receipt goes out, and what the node makes of it is nobody's concern here."""
    receipts = debt.receipts
    try:
        async with asyncio.timeout(patience.stall_s):
            data = await receive_record(stream, transfers.MAX_REPLY_BYTES)
        if data is None:
            await stream.result()
        reply = transfers.parsed(transfers.GetReply, data or b"")
        if reply.size_bytes != share.size_bytes:
            raise Refused(f"expected a share of {share.size_bytes} bytes, got one of {reply.size_bytes}")
        hashes = known.hashes or bytes(reply.leaf_hashes)
        if not known.hashes:
            check_seat(share, root, [bytes(one) for one in reply.segment_path])
        for run in runs:
            check = LeafCheck(root, share.size_bytes, hashes, run.first, run.leaves)
            known.hashes = hashes  # they have the root
            size = check.missing_bytes
            await _Run(stream, receipts, check, share.size_bytes, run, into[:size], hashes, came).receive(patience)
            into = into[size:]
        final = record(receipts.so_far(is_final=True).SerializeToString())
        try:
            await stream.send(final)
            stream.end()
        except WireError:
            # Every byte is proved, whatever the node says now: the receipt is handed in anew.
            stream.cancel()
            return
        line.end_with(debt.confirmed(stream), debt)
    except BaseException as error:
        if isinstance(error, ConnectionFailed):
            stream.cancel()
        else:
            _let_go(stream, line, debt)
        raise


class _Run:
    """A run of leaves on its way into memory. A thread judges each MiB of it while the next one comes."""

    def __init__(
        self,
        stream: Stream,
        receipts: Receipts,
        check: LeafCheck,
        size_bytes: int,
        run: Run,
        into: memoryview,
        hashes: bytes,
        came: Came | None,
    ) -> None:
        self._stream, self._receipts, self._check, self._size_bytes = stream, receipts, check, size_bytes
        self._into, self._hashes, self._came = into, hashes, came
        self._leaf, self._first = run.first, run.first
        self._at = self._asked = 0
        self._judging: asyncio.Task[None] | None = None
        self._is_wrong = False

    async def receive(self, patience: Settings) -> None:
        """Fill the memory. Raises what the node or the check says, TimeoutError for a node that is too slow; receipts then cover all that was good."""
        stream, size = self._stream, self._into.nbytes
        stream.place(self._into)
        now_s = asyncio.get_running_loop().time
        due_s, slow_at, slow_s = now_s() + RECEIPT_S, RECEIPT_BYTES, now_s() + patience.slow_s
        try:
            while self._at < size:
                async with asyncio.timeout_at(min(now_s() + patience.stall_s, slow_s)):
                    chunk = await self._next(min(size - self._at, RECEIPT_BYTES))
                if not chunk:
                    await stream.result()
                    raise Refused(f"expected {size - self._at} bytes more of the share, got the end")
                self._at += chunk.nbytes
                self._told()
                if self._at >= slow_at:
                    slow_at, slow_s = self._at + RECEIPT_BYTES, now_s() + patience.slow_s
                is_due = now_s() >= due_s
                if self._at - self._asked >= RECEIPT_BYTES or self._at == size or is_due:
                    due_s = now_s() + RECEIPT_S
                    await self._judged()
                    part, self._asked = self._into[self._asked : self._at], self._at
                    if part.nbytes > INLINE_BYTES:
                        self._judging = asyncio.get_running_loop().create_task(self._judge(part, is_due))
                    else:
                        await self._judge(part, is_due)
            await self._judged()
        except BaseException:
            await self._good()
            raise
        finally:
            stream.place(memoryview(b""))

    async def _next(self, most_bytes: int) -> memoryview:
        """What comes next. Raises what was wrong with what came before, as soon as that is known."""
        if self._judging is None:
            return await self._stream.receive(most_bytes)
        coming = asyncio.ensure_future(self._stream.receive(most_bytes))
        try:
            while not coming.done():
                await asyncio.wait({coming, self._judging} if self._judging else {coming}, return_when=asyncio.FIRST_COMPLETED)
                if self._judging is not None and self._judging.done():
                    await self._judged()
            return coming.result()
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.wait({coming})
            if not coming.cancelled():
                coming.exception()  # what was judged may have failed first

    async def _judge(self, part: memoryview, is_due: bool) -> None:
        """Judge what came; count it, and send the receipt that is due: by its time, or with each MiB."""
        try:
            await aside(part.nbytes, self._check.update, part)
        except MerkleError:
            self._is_wrong = True
            raise
        finally:
            self._count()
        moved = self._receipts.moved
        if moved.bytes - moved.acked_bytes >= (1 if is_due else RECEIPT_BYTES):
            await self._stream.send(record(self._receipts.so_far().SerializeToString()))

    async def _judged(self) -> None:
        """Wait for what is being judged. Raises what was wrong with it."""
        if self._judging is None:
            return
        await asyncio.wait({self._judging})
        judged, self._judging = self._judging, None
        try:
            judged.result()
        finally:
            del judged  # its error has this frame, which would have the error

    def _count(self) -> None:
        """Count the leaves that were proved, and tell of them."""
        proved = self._first + -(-self._check.proved_bytes // LEAF_BYTES)
        if proved > self._leaf:
            start, stop = Run(self._leaf, proved - self._leaf).bounds(self._size_bytes)
            self._receipts.moved.leaves(self._leaf, self._hashes[self._leaf * _HASH_BYTES : proved * _HASH_BYTES], stop - start)
            self._leaf = proved
        self._told()

    def _told(self) -> None:
        """Tell how much is proved, and how much is there."""
        if self._came is not None:
            proved_bytes = self._receipts.moved.bytes
            self._came(proved_bytes, proved_bytes + self._at - self._check.proved_bytes)

    async def _good(self) -> None:
        """The run is given up: count what came and was not judged yet."""

        async def judged() -> None:
            try:
                await self._judged()
                if not self._is_wrong:  # what follows a wrong leaf is not looked at
                    self._check.update(self._into[self._asked : self._at])
            except (MerkleError, WireError):
                pass  # what was good before it counts
            finally:
                self._count()

        # Cancelled once more, too: the final receipt says what was counted, and nothing is counted after it.
        await to_its_end(asyncio.ensure_future(judged()))


def _let_go(stream: Stream, line: _Line, debt: _Debt) -> None:
    """A get that is given up: the final receipt of what was good goes out behind the caller's back, so that the node is paid for it."""
    receipts = debt.receipts
    if stream.over:
        stream.cancel()
        # One that went on has the node wait for its receipt, though nothing came.
        debt.is_owed = receipts.moved.bytes > 0 or receipts.last is not None
        return
    final = None if receipts.is_final else record(receipts.so_far(is_final=True).SerializeToString())

    async def end() -> None:
        async with stream:
            if final is not None:
                await stream.send(final)
                stream.end()
            while await stream.receive():
                pass

    line.end_with(end(), debt)


@dataclass(slots=True)
class _Debt:
    """The final receipt of a get at a place. ``is_owed``: bytes may have come, and it is not on its way."""

    session: Session
    place: Place
    receipts: Receipts
    is_owed: bool = False

    async def confirmed(self, stream: Stream) -> None:
        """Let the node say that it has the receipt. Raises what else it says, or WireError."""
        async with stream:
            await stream.result()
        self.is_owed = False

    async def hand_in(self, tried: Callable[[], object]) -> None:
        """Until the node has it, or judged it, or the limit's time is over; ``tried`` is called once it was tried. A node serves nobody who owes it some, and
        closes a session whose limits end so.
        """
        if not self.receipts.is_final:
            self.receipts.so_far(is_final=True)
        head = transfers.GetHead(certificate=self.place.certificate, evidence=self.session.evidence(self.place.order_limit, self.receipts.last))
        while self.session.clock() < self.receipts.limit.expires_s:
            try:
                async with asyncio.timeout(_LET_GO_S):
                    await self.confirmed(await self.place.peer.call(transfers.GET, head_bytes(head), ended=True))
                return
            except (*_UNHEARD, TimeoutError):
                pass
            except WireError:
                return
            finally:
                tried()
            await asyncio.sleep(OWED_PAUSE_S)


class _Line:
    """What a client has open at a node: gets that go on, and what is still said to it behind their backs."""

    def __init__(self, key: tuple[Node, bytes]) -> None:
        self.key = key
        self._users = self._gets = 0
        self.ending: set[asyncio.Task[None]] = set()
        self.owing: set[asyncio.Task[None]] = set()
        self._trying: set[asyncio.Future[None]] = set()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        """Begin a get. What the node is owed comes before it, as far as the node can be reached. While a node counts many, those that are over and not
        confirmed are waited for: it takes few at once from one wallet, and refuses more.
        """
        self._users += 1
        try:
            if self._trying:
                await asyncio.wait(set(self._trying), timeout=_TRIED_S)
            while self.ending and self._gets + len(self.ending) >= MOST_OPEN:
                await asyncio.wait(set(self.ending), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._users -= 1
            self._tidy()
            raise
        self._gets += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gets -= 1
        self._users -= 1
        self._tidy()

    def end_with(self, work: Coroutine[Any, Any, None], debt: _Debt) -> None:
        """Have the last words said in the background; and again, if the node may not have heard them: who refuses them may have given the get up before."""
        debt.is_owed = False

        async def end() -> None:
            try:
                async with asyncio.timeout(_LET_GO_S):
                    await work
            except Exception as error:
                self.owe(debt)
                if not isinstance(error, (WireError, TimeoutError)):
                    raise  # a fault of this client, of which the loop tells

        self._begin(end(), self.ending)

    def owe(self, debt: _Debt) -> None:
        """Hand a debt in as soon as the node can be reached."""
        if not self._is_closed and len(self.owing) < MOST_OWED:
            tried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._trying.add(tried)
            tried.add_done_callback(self._trying.discard)
            # Once it was tried, or when that comes to an end before.
            self._begin(debt.hand_in(tried.cancel), self.owing).add_done_callback(lambda _: tried.cancel())

    def close(self) -> None:
        """The client's connections end: what is owed is not handed in any more."""
        self._is_closed = True
        for task in self.owing:
            task.cancel()

    def _begin(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        def ended(task: asyncio.Task[None]) -> None:
            among.discard(task)
            self._tidy()

        task = asyncio.get_running_loop().create_task(work)
        among.add(task)
        task.add_done_callback(ended)
        return task

    def _tidy(self) -> None:
        if not self._users and not self.ending and not self.owing and _LINES.get(self.key) is self:
            del _LINES[self.key]


def _line(place: Place) -> _Line:
    key = place.peer.node, place.peer.address
    return _LINES.setdefault(key, _Line(key))


async def last_receipts(client: Node, timeout_s: float) -> None:
    """Wait until the nodes have the last receipts of a client, or the time is over: its connections are closed then. Another client of the same session has
    its own.
    """

    def lines() -> list[_Line]:
        return [line for (node, _), line in _LINES.items() if node is client]

    now_s = asyncio.get_running_loop().time
    until_s = now_s() + timeout_s
    try:
        # What a node has not heard is owed by another task then.
        while (waiting := {task for line in lines() for task in line.ending | line.owing}) and now_s() < until_s:
            await asyncio.wait(waiting, timeout=until_s - now_s())
    finally:
        for line in lines():
            line.close()
            _LINES.pop(line.key, None)


_LINES: Final[dict[tuple[Node, bytes], _Line]] = {}
"""By the client's own node and the address of the one that it calls. They hold tasks that nobody waits for."""

# --- a whole object out ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ObjectToGet:
    """What the ledger says of an object."""

    root: bytes
    size_bytes: int
    scheme: Scheme
    segment_roots: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of an object from ``offset`` on, which come from their beginning: the first ``proved_bytes`` of ``data`` are right and do not change any more,
    ``new_bytes`` of them since it was told before.
    """

    offset: int
    data: memoryview
    proved_bytes: int
    new_bytes: int


Tell = Callable[[Stretch], None]


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
class _Progress:
    """How far a segment is, for the one after it: with a quarter it asks for its places, with half it begins."""

    quarter: asyncio.Event = field(default_factory=asyncio.Event)
    half: asyncio.Event = field(default_factory=asyncio.Event)

    def came(self, size_bytes: int, of_bytes: int) -> None:
        if 4 * size_bytes >= of_bytes:
            self.quarter.set()
        if 2 * size_bytes >= of_bytes:
            self.half.set()


@dataclass(slots=True)
class _Flow:
    """How what is wanted of a share comes, proved or not."""

    begun_s: float
    wanted_bytes: int
    heard_bytes: int = 0
    done_s: float | None = None
    looks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=PACE_LOOKS))
    """When it was looked at, and what had come by then."""

    @property
    def tells(self) -> bool:
        """Whether enough came to hold others against it."""
        return self.done_s is not None or self.heard_bytes >= RECEIPT_BYTES

    def pace(self, now_s: float) -> float:
        """Bytes a second: of a share that is there over all, else of late."""
        if self.done_s is not None:
            return self.wanted_bytes / max(self.done_s - self.begun_s, 1e-3)
        since_s, before_bytes = self.looks[0] if len(self.looks) == PACE_LOOKS else (self.begun_s, 0)
        return (self.heard_bytes - before_bytes) / max(now_s - since_s, 1e-3)


@dataclass(slots=True)
class _Reading:
    """A range of a segment on its way."""

    segment: int
    segment_bytes: int
    size_bytes: int
    """Of a share."""
    needed: dict[int, Run]
    progress: _Progress
    came_bytes: int = 0
    parts: dict[int, _Part] = field(default_factory=dict)
    running: dict[asyncio.Task[None], int] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    """What was asked of each share, whether it came or not."""
    failures: dict[int, str] = field(default_factory=dict)
    refused: Exception | None = None
    """What was wrong when no place was given for a share that is needed: nobody is asked for more."""
    hedge_from_s: float = 0.0
    """A share in case others are late had no place: the next one is asked for then."""
    flows: dict[int, _Flow] = field(default_factory=dict)
    tell: Tell | None = None
    where: dict[int, tuple[int, Slice]] = field(default_factory=dict)
    """Where in the object what is wanted of a share begins, and what it is."""
    told: dict[int, int] = field(default_factory=dict)

    def came(self, index: int, data: memoryview, start: int, proved_bytes: int) -> None:
        """So many bytes of a share from ``start`` on are proved."""
        if self.tell is None or index not in self.where:
            return
        offset, wanted = self.where[index]
        skip = wanted.offset - start
        good = min(max(proved_bytes - skip, 0), wanted.length)
        known = self.told.get(index, 0)
        if good > known:
            self.told[index] = good
            self.tell(Stretch(offset, data[skip : skip + wanted.length], good, good - known))


class ObjectReader:
    """Reads an object, whole or in ranges. It remembers leaf hashes, so that a range costs little more than its leaves.

    Raises TransferFailed for an object whose segments have not its root.
    """

    def __init__(self, session: Session, issuer: Issuer, wanted: ObjectToGet, settings: Settings | None = None) -> None:
        if len(wanted.segment_roots) != segment_count(wanted.size_bytes) or object_root(wanted.segment_roots) != wanted.root:
            raise TransferFailed(f"expected the {segment_count(wanted.size_bytes)} segment roots of object {wanted.root.hex()}")
        self._session, self._issuer, self._object, self._settings = session, issuer, wanted, settings or Settings()
        self._hashes: OrderedDict[tuple[int, int], tuple[bytes, bytes]] = OrderedDict()
        self._pace = 0.0
        """Of the last share that was complete, in bytes a second."""

    async def read(self, offset: int = 0, length: int | None = None) -> AsyncGenerator[memoryview, None]:
        """The stored stream's bytes from ``offset`` on, in order, in pieces of at most 1 MiB. While one segment is handed out the next is fetched.

        Raises NotReadable, TransferFailed for a range that the object has not, what the issuer raises.
        """
        ranges = self._ranges(offset, length)
        tasks: list[asyncio.Task[list[memoryview]]] = []
        last: _Progress | None = None
        try:
            for at in range(len(ranges)):
                while len(tasks) < self._settings.segments_at_once and at + len(tasks) < len(ranges):
                    before, last = last, _Progress()
                    tasks.append(asyncio.create_task(self._in_turn(before, last, *ranges[at + len(tasks)])))
                for part in await tasks.pop(0):
                    for start in range(0, len(part), RECEIPT_BYTES):
                        yield part[start : start + RECEIPT_BYTES]
        finally:
            await _cancelled(tasks)

    async def stretches(self, offset: int = 0, length: int | None = None) -> AsyncGenerator[Stretch, None]:
        """The same bytes as they come, several stretches side by side, for a reader who needs no order. As many segments are under way.

        Raises what ``read`` raises.
        """
        ranges = self._ranges(offset, length)
        came: asyncio.Queue[Stretch | asyncio.Task[list[memoryview]]] = asyncio.Queue()
        tasks: list[asyncio.Task[list[memoryview]]] = []
        over = set[asyncio.Task[list[memoryview]]]()
        last: _Progress | None = None
        try:
            while ranges or tasks:
                while ranges and len(tasks) < self._settings.segments_at_once:
                    before, last = last, _Progress()
                    tasks.append(asyncio.create_task(self._in_turn(before, last, *ranges.pop(0), came.put_nowait)))
                    # Behind the last stretch of its segment.
                    tasks[-1].add_done_callback(came.put_nowait)
                one = await came.get()
                if isinstance(one, Stretch):
                    yield one
                    continue
                one.result()
                over.add(one)
                # In order: a late share does not have all that follows it in memory. One that is done and not heard of yet has stretches that wait here.
                while tasks and tasks[0] in over:
                    over.remove(tasks.pop(0))
        finally:
            await _cancelled(tasks)

    def _ranges(self, offset: int, length: int | None) -> list[tuple[int, int, int]]:
        size = self._object.size_bytes
        length = size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > size:
            raise TransferFailed(f"the object has {size} bytes; {length} from {offset} on are not among them")
        return _ranges(size, offset, length)

    async def _in_turn(
        self, before: _Progress | None, progress: _Progress, segment: int, offset: int, length: int, tell: Tell | None = None
    ) -> list[memoryview]:
        """A range of a segment, begun when half of the one before has come: whose turn it is has the line for itself, and the line is never empty."""
        try:
            return await self._segment(before, progress, segment, offset, length, tell)
        finally:
            progress.came(1, 1)

    async def _segment(
        self, before: _Progress | None, progress: _Progress, segment: int, offset: int, length: int, tell: Tell | None
    ) -> list[memoryview]:
        scheme = self._object.scheme
        segment_bytes = segment_size(self._object.size_bytes, segment)
        size = share_bytes(scheme, segment_bytes)
        slices = locate(scheme, segment_bytes, offset, length)
        needed: dict[int, Run] = {}
        reading = _Reading(segment, segment_bytes, size, needed, progress, tell=tell)
        at = segment * SEGMENT_BYTES + offset
        for one in slices:
            first = one.offset // LEAF_BYTES
            needed[one.index] = Run(first, -(-(one.offset + one.length) // LEAF_BYTES) - first)
            reading.where[one.index] = at, one
            at += one.length
        asked: dict[int, Place | BaseException | None] = {}
        if before is not None:
            await before.quarter.wait()
            # Not earlier: a place is for some minutes.
            found = await asyncio.gather(*(self._place(reading, index, run) for index, run in needed.items()), return_exceptions=True)
            asked = dict(zip(needed, found, strict=True))
            await before.half.wait()
        now_s, hedge_s = asyncio.get_running_loop().time, self._settings.hedge_s
        look_s = now_s() + hedge_s
        try:
            for index, run in needed.items():
                self._start(reading, index, run, asked)
            while not self._is_complete(reading):
                while not self._enough_under_way(reading) and reading.refused is None and self._start_another(reading):
                    pass
                if not self._enough_under_way(reading):
                    if reading.refused is not None:
                        raise reading.refused
                    if not reading.running:
                        raise NotReadable(segment, scheme.k, reading.failures)
                done, _ = await asyncio.wait(reading.running, timeout=max(look_s - now_s(), 0.0), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del reading.running[task]
                    task.result()
                if now_s() >= look_s:
                    self._look(reading, now_s())
                    look_s = now_s() + hedge_s
        finally:
            reading.refused = None  # its traceback has this frame
            for task in reading.running:
                task.cancel()
            await asyncio.gather(*reading.running, return_exceptions=True)
        for index, run in needed.items():
            if index not in reading.parts:
                await self._recreate(reading, index, run)
        return [reading.parts[one.index].slice(one.offset, one.offset + one.length) for one in slices]

    async def _place(self, reading: _Reading, index: int, run: Run) -> Place | None:
        start, stop = run.bounds(reading.size_bytes)
        return await self._issuer.for_get(GetWanted(self._object.root, reading.segment, index, stop - start))

    def _start(self, reading: _Reading, index: int, run: Run, asked: Mapping[int, Place | BaseException | None], *, is_hedge: bool = False) -> None:
        """``asked``: what was asked for already."""
        reading.runs[index] = run
        start, stop = run.bounds(reading.size_bytes)
        reading.flows[index] = _Flow(asyncio.get_running_loop().time(), stop - start)
        reading.running[asyncio.create_task(self._fetch(reading, index, run, asked, is_hedge))] = index

    def _look(self, reading: _Reading, now_s: float) -> None:
        """Ask as many holders more as it takes to do without what is late."""
        late = self._late(reading, now_s) if now_s >= reading.hedge_from_s else set()
        while late and not self._enough_under_way(reading, late) and self._start_another(reading, is_hedge=True):
            pass
        for flow in reading.flows.values():
            flow.looks.append((now_s, flow.heard_bytes))

    def _late(self, reading: _Reading, now_s: float) -> set[int]:
        """Which of the shares on their way are to be had elsewhere: those that will take more than twice as long as a new one, by the pace of the others, or
        of what was read before; where nothing is known, more than ``PATIENT_TIMES`` of ``hedge_s``; of several, when nothing comes of any. A line that is
        slow for all is no holder's fault: a share too many makes it slower, and costs.
        """
        hedge_s, late = self._settings.hedge_s, set()
        for index in reading.running.values():
            one = reading.flows[index]
            if now_s - one.begun_s < hedge_s:
                continue
            beside = [flow for at, flow in reading.flows.items() if at != index and (flow.done_s is not None or at in reading.running.values())]
            others = sorted(flow.pace(now_s) for flow in beside if flow.tells)
            if 2 * len(others) < len(beside):
                others = []  # a few that are near say nothing of the rest
            known = others[len(others) // 2] if others else self._pace
            pace = one.pace(now_s)
            left_s = (one.wanted_bytes - one.heard_bytes) / pace if pace else math.inf
            if not others and len(reading.needed) > 1:
                # Too early to tell, unless nothing comes at all.
                is_late = not pace and now_s - one.begun_s >= PACE_LOOKS * hedge_s
            else:
                is_late = left_s > (2 * one.wanted_bytes / known + hedge_s if known else PATIENT_TIMES * hedge_s)
            if is_late:
                late.add(index)
        return late

    def _start_another(self, reading: _Reading, *, is_hedge: bool = False) -> bool:
        """Ask one more holder for what is missing. Returns whether there is one."""
        hull = _hull(*(run for index, run in reading.needed.items() if index not in reading.parts))
        for index in range(self._object.scheme.n):
            if index not in reading.runs:
                self._start(reading, index, hull, {}, is_hedge=is_hedge)
                return True
        # A share of which other leaves came may be asked again, once, for these too.
        for index, part in reading.parts.items():
            if not _covers(reading.runs[index], hull):
                self._start(reading, index, _hull(part.run, hull), {}, is_hedge=is_hedge)
                return True
        return False

    def _sources(self, reading: _Reading, run: Run, running: Collection[int] = ()) -> list[int]:
        """Shares that have the leaves of a run, or will, if they are among those that run."""
        found = [index for index, part in reading.parts.items() if _covers(part.run, run)]
        return found + [index for index in running if index not in found and _covers(reading.runs[index], run)]

    def _is_there(self, reading: _Reading, index: int, run: Run, running: Collection[int] = ()) -> bool:
        sources = self._sources(reading, run, running)
        return index in sources or len(sources) >= self._object.scheme.k

    def _is_complete(self, reading: _Reading) -> bool:
        return all(self._is_there(reading, index, run) for index, run in reading.needed.items())

    def _enough_under_way(self, reading: _Reading, late: Collection[int] = ()) -> bool:
        running = [index for index in reading.running.values() if index not in late]
        return all(self._is_there(reading, index, run, running) for index, run in reading.needed.items())

    async def _fetch(self, reading: _Reading, index: int, run: Run, asked: Mapping[int, Place | BaseException | None], is_hedge: bool) -> None:
        start, stop = run.bounds(reading.size_bytes)
        flow, now_s = reading.flows[index], asyncio.get_running_loop().time
        try:
            place = asked[index] if index in asked else await self._place(reading, index, run)
            if isinstance(place, BaseException):
                raise place
        except Exception as error:
            reading.failures[index] = str(error)
            if is_hedge:
                reading.hedge_from_s = now_s() + PACE_LOOKS * self._settings.hedge_s
            else:
                reading.refused = error
            return
        if place is None:
            reading.failures[index] = "nobody holds it"
            return
        share = ShareToGet(self._object.segment_roots[reading.segment], index, self._object.scheme.n, reading.size_bytes)
        key, root = (reading.segment, index), bytes(place.limit.share_root)
        kept = self._hashes.get(key)
        data = room(stop - start)
        needed_bytes = sum(one.bounds(reading.size_bytes)[1] - one.bounds(reading.size_bytes)[0] for one in reading.needed.values())
        came_bytes = 0

        def came(proved_bytes: int, heard_bytes: int) -> None:
            nonlocal came_bytes
            flow.heard_bytes = heard_bytes
            reading.came_bytes += proved_bytes - came_bytes
            came_bytes = proved_bytes
            reading.progress.came(reading.came_bytes, needed_bytes)
            reading.came(index, data, start, proved_bytes)

        try:
            known = kept[1] if kept is not None and kept[0] == root else None
            hashes = await get_share(self._session, place, share, [run], data, known, self._settings, came)
        except NodeFailed as error:
            reading.failures[index] = str(error)
            return
        self._hashes[key] = root, hashes
        self._hashes.move_to_end(key)
        if len(self._hashes) > _CACHED_HASHES:
            self._hashes.popitem(last=False)
        reading.parts[index] = _Part(run, start, data)
        flow.done_s = now_s()
        self._pace = flow.pace(flow.done_s)

    async def _recreate(self, reading: _Reading, index: int, run: Run) -> None:
        """Compute the leaves of a share from those of k others."""
        start, stop = run.bounds(reading.size_bytes)
        chosen = self._sources(reading, run)[: self._object.scheme.k]
        given = [(one, reading.parts[one].slice(start, stop)) for one in chosen]
        try:
            (made,) = await asyncio.to_thread(recreate, self._object.scheme, given, [index])
        except NotEnoughShares as error:
            raise NotReadable(reading.segment, self._object.scheme.k, reading.failures) from error
        reading.parts[index] = _Part(run, start, made)
        reading.came(index, made, start, len(made))


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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
