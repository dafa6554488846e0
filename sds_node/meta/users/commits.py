"""``object.commit``: what clients stored enters the ledger, in as many operations as it takes, and its nodes are told that it counts.

    CommitAsk ─ lease ─ form ─ rows ─ acknowledgements, roots, serials (a thread) ─► tried out ─► share roots kept by others, staged ─► Commit, … ─► numbered
                                       CONFIRM to nodes ◄─ book: escrow spent, the rest of the reservation freed ◄────────────────────┘

The same commit again answers the same: what is in the ledger already is compared and left. A node that misses its CONFIRM is told again: ``tell`` notes it on
the disk and repeats it; nodes for which nothing could be noted lag behind by themselves, the others do not wait for them; and what was not noted before a
stop is found at the next start, as its share roots are not marked as told. What is under way is bounded for each wallet, and nobody waits for a lease that is
not his own.
Source: storage-protocol.md 3.3, 3.4, 3.6; docs/adr/0008, 0009.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from modules.settlement.commitment import node_of
from modules.settlement.leaves import SERIAL_BYTES
from sds_node import asking, transfers
from sds_node.documents import PACKAGE
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.tables import LEASE, MOVED, NODE, OBJECT, OPEN, SEGMENT, Lease, Moved, Node, Object
from sds_node.meta.rules.tables import Segment as SegmentRow
from sds_node.meta.rules.wire import MAX_OBJECTS, MAX_SEGMENTS
from sds_node.meta.users.asked import need, refuse, sized
from sds_node.meta.users.checks import MAX_OBJECTS_ASKED, Given, Judge, Progress, Segment, check_same, packed_nodes, parse_object
from sds_node.meta.users.known import Registry, Tell
from sds_node.meta.users.leases import Held, LeaseBook, ObjectInHand
from sds_node.meta.users.limits import LimitSigner
from sds_node.meta.users.places import Places
from sds_node.meta.users.roots import Part, ShareRoots, Spread, nobody_else
from sds_node.meta.users.sessions import REFUSED_COSTS, Session
from sds_node.meta.users.telling import Copies, Telling
from sds_node.schemes import THREE_REPLICAS, returned, scheme_for, scheme_of, share_bytes, share_noz
from sds_node.wire import errors as wire_errors

log = structlog.get_logger("users")

Commit: Final = message_class(f"{PACKAGE}.Commit")
NewObject: Final = message_class(f"{PACKAGE}.NewObject")
NewSegment: Final = message_class(f"{PACKAGE}.NewSegment")
OtherSerial: Final = message_class(f"{PACKAGE}.OtherSerial")
MAX_COMMIT_BYTES: Final = 850 << 10
"""Of an operation's 900 KiB; the rest is its envelope."""
MAX_COMMITS: Final = 256
"""Under way at a time."""
MAX_COMMITS_OF_WALLET: Final = 4
MAX_BYTES: Final = 256 << 20
"""Of all commits that are under way."""
MAX_PROGRESS: Final = 64
"""Objects in several parts whose serials and roots are in memory."""
_ROWS: Final = 5_000


IsRefused = Callable[[Sequence[bytes]], Awaitable[bool]]
"""Whether the receipt of one of these serials was refused for good."""


async def none_is_refused(serials: Sequence[bytes]) -> bool:
    """``IsRefused`` where nobody takes receipts."""
    return False


@dataclass(slots=True)
class _Rows:
    """What the ledger has of a commit."""

    lease: Lease | None
    objects: dict[bytes, Object]
    nodes: dict[str, Node]
    escrow_ratio_e18: int


@dataclass(slots=True)
class _Part:
    """Segments of one object in one operation."""

    given: Given
    message: Any
    segments: list[Segment]


class Commits:
    """``object.commit``."""

    def __init__(
        self,
        proposer: Proposer,
        signer: LimitSigner,
        book: LeaseBook,
        places: Places,
        roots: ShareRoots,
        registry: Registry,
        tell: Tell,
        clock: Callable[[], float],
        spread: Spread = nobody_else,
        is_refused: IsRefused = none_is_refused,
    ) -> None:
        self._proposer, self._ledger, self._signer, self._clock = proposer, proposer.ledger, signer, clock
        self._book, self._places, self._roots, self._registry = book, places, roots, registry
        self._spread, self._is_refused = spread, is_refused
        self._progress: OrderedDict[bytes, Progress] = OrderedDict()
        self._locks: dict[bytes, tuple[asyncio.Lock, int]] = {}
        self._under_way = self._bytes = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._telling = Telling(self._ledger, roots, tell)

    @contextlib.contextmanager
    def admitted(self, session: Session) -> Iterator[Callable[[int], None]]:
        """A place for a commit whose body comes in; what is given wants to know how many bytes have come. Raises Busy when too many are under way."""
        need(not session.is_stranger, asking.LEASE_LOST, f"{session.wallet_text} has no lease here: buy ozone and take one")
        before = 0

        def came(size_bytes: int) -> None:
            nonlocal before
            self._count_bytes(size_bytes - before)
            before = size_bytes

        self._enter_queue(session)
        try:
            yield came
        finally:
            self._leave_queue(session, before)

    def _enter_queue(self, session: Session) -> None:
        if session.account.commits_under_way >= MAX_COMMITS_OF_WALLET:
            raise wire_errors.Busy(f"{MAX_COMMITS_OF_WALLET} commits of this wallet are under way: send it again when one is done")
        if self._under_way >= MAX_COMMITS:
            raise wire_errors.Busy(f"{self._under_way} commits are under way here: send it again in a moment")
        session.account.commits_under_way += 1
        self._under_way += 1

    def _leave_queue(self, session: Session, size_bytes: int) -> None:
        session.account.commits_under_way -= 1
        self._under_way -= 1
        self._bytes -= size_bytes

    def _count_bytes(self, more: int) -> None:
        if self._bytes + more > MAX_BYTES:
            raise wire_errors.Busy("commits of many bytes are under way here: send it again in a moment")
        self._bytes += more

    async def commit(self, session: Session, ask: Any) -> Any:
        """The CommitReply of a CommitAsk."""
        session.may_commit(self._clock())
        lease_id = sized(ask.lease_id, "lease_id")
        need(1 <= len(ask.objects) <= MAX_OBJECTS_ASKED, asking.BAD_ASK, f"objects: expected 1 to {MAX_OBJECTS_ASKED}, got {len(ask.objects)}")
        counters = [one.counter for one in ask.objects]
        need(counters == sorted({*counters}) and counters[-1] < 1 << 63, asking.BAD_ASK, "objects: expected them by counter, each once, below 2^63")
        size = ask.ByteSize()
        self._enter_queue(session)
        try:
            self._count_bytes(size)
        except BaseException:
            self._leave_queue(session, 0)
            raise
        # What the ledger takes must be in the book, too: the commit goes on when its caller is gone.
        task = asyncio.get_running_loop().create_task(self._alone(session, lease_id, ask))
        self._tasks.add(task)
        task.add_done_callback(self._over)
        task.add_done_callback(lambda _: self._leave_queue(session, size))
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the caller has it, or is gone

    async def _alone(self, session: Session, lease_id: bytes, ask: Any) -> Any:
        try:
            # Before anything dear, and before anybody waits for somebody else's lease.
            keys = [object_id(lease_id, one.counter) for one in ask.objects]
            self._check_lease(session, lease_id, await self._ledger.query(lambda view: _look(view, lease_id, keys, set())), keys)
            return await self._in_turn(session, lease_id, ask)
        except (LedgerRefused, wire_errors.Refused) as error:
            if not (isinstance(error, wire_errors.Refused) and error.code == asking.NOT_READY):
                session.account.commits.charge(REFUSED_COSTS - 1)
            raise

    async def _in_turn(self, session: Session, lease_id: bytes, ask: Any) -> Any:
        async with self._one_of(lease_id):
            held = self._book.get(lease_id)
            if held is not None:
                held.commits += 1
            try:
                return await self._commit(session, lease_id, held, ask)
            finally:
                if held is not None:
                    held.commits -= 1

    async def _commit(self, session: Session, lease_id: bytes, held: Held | None, ask: Any) -> Any:
        given = await asyncio.to_thread(lambda: [parse_object(one, object_id(lease_id, one.counter)) for one in ask.objects])
        names = {share.limit.node for one in given for segment in one.segments for share in segment.shares}
        keys = [one.key for one in given]
        rows = await self._ledger.query(lambda view: _look(view, lease_id, keys, names))
        self._check_lease(session, lease_id, rows, keys)
        if held is not None and held.is_ended:
            # The receipts of what was not committed by then are refused.
            text = f"lease {lease_id.hex()} was ended, so nothing more is stored under it: store the objects under another one"
            need(_is_done(session, rows, keys), asking.LEASE_LOST, text)
        elif held is None and not _is_done(session, rows, keys):
            # Of a start before: its client may have ended it then, and receipts were refused since.
            serials = [bytes(share.limit.serial) for one in given for segment in one.segments for share in segment.shares]
            text = f"lease {lease_id.hex()} was ended, and its receipts were refused: store the objects under another one"
            need(not await self._is_refused(serials), asking.LEASE_LOST, text)
        in_hand = {one.key: self._scheme_checked(one, held, rows) for one in given}
        new = {one.key: await self._new_segments(one, rows.objects.get(one.key)) for one in given}
        progress = {one.key: await self._progress_of(one, rows.objects.get(one.key)) for one in given if new[one.key] is not None}
        prefixes = {name: self._registry.prefix(row) for name, row in rows.nodes.items()}
        judge = Judge(self._proposer.chain_id, self._signer.text, self._signer.public_key, lease_id, session, rows.nodes, prefixes)

        def check() -> None:
            for one in given:
                if (segments := new[one.key]) is not None:
                    judge.check_object(one, segments, progress[one.key], in_hand[one.key])

        try:
            await asyncio.to_thread(check)
            parts = [(one, segments) for one in given if (segments := new[one.key]) is not None]
            groups = _operations(parts, rows.nodes)
            free = [part.message.ByteSize() for group in groups for part in group if not part.segments]
            if free:
                # What nodes hold was paid, and its places were bounded; nothing at all needs none.
                session.account.logged.need_room(self._clock(), sum(free))
            for group in groups:
                await self._enter(session, held, lease_id, group, rows)
        except BaseException:
            # What was noted of serials may not have come into the ledger: it is read from there next time.
            for key in progress:
                self._progress.pop(key, None)
            raise
        for key, one in progress.items():
            self._keep_progress(key, one, is_over=any(each.key == key and each.end == each.count for each in given))
        return asking.CommitReply(objects=[_answer(one, rows) for one in given])

    # --- checks ---

    def _check_lease(self, session: Session, lease_id: bytes, rows: _Rows, keys: Sequence[bytes]) -> None:
        lease = rows.lease
        if lease is None:
            text = f"there is no lease {lease_id.hex()}: it was settled, or never taken; store the objects under another one"
            need(_is_done(session, rows, keys), asking.LEASE_LOST, text)
            return
        if lease.meta_node != self._proposer.address:
            refuse(asking.TRY_ANOTHER, f"lease {lease_id.hex()} is held by meta node {bech32.encode(lease.meta_node, bech32.NODE)}: ask that one")
        own = (lease.wallet, lease.session_pubkey) == (session.wallet, session.public_key)
        need(own, asking.LEASE_LOST, f"lease {lease_id.hex()} is another session's: commit under your own")

    def _scheme_checked(self, given: Given, held: Held | None, rows: _Rows) -> ObjectInHand | None:
        """The object as it was placed. Refuses a scheme that is not the one of the first ask; where that is not known, one that no ask could have had."""
        there = held.objects.get(given.stored.counter) if held is not None else None
        if there is not None:
            need(
                (there.scheme, there.size_bytes) == (given.scheme, given.stored.size_bytes),
                asking.BAD_ASK,
                f"object {given.stored.counter} was placed as {there.scheme.k} of {there.scheme.n} shares of {there.size_bytes} bytes, got "
                f"{given.scheme.k} of {given.scheme.n} of {given.stored.size_bytes}",
            )
        elif given.key not in rows.objects:
            # Limits name the size of a share, which tells codes apart, not how many copies there are. Nothing at all needs no limit.
            wanted = scheme_for(max(1, self._registry.count()), given.stored.size_bytes)
            copies = wanted.n if wanted.k == 1 else THREE_REPLICAS.n
            is_fit = given.scheme.n >= copies if given.scheme.k == 1 and given.count else given.scheme == wanted or bool(given.count)
            need(
                is_fit,
                asking.BAD_ASK,
                f"object {given.stored.counter} of {given.stored.size_bytes} bytes is stored as {wanted.k} of {wanted.n} shares, got "
                f"{given.scheme.k} of {given.scheme.n}",
            )
        return there

    async def _new_segments(self, given: Given, row: Object | None) -> list[Segment] | None:
        """Those that the ledger has not yet; None for an object of which it has all that comes. Refuses a gap, and others in place of what is there."""
        first = given.stored.first_segment
        if row is None:
            need(first == 0, asking.BAD_ASK, f"object {given.stored.counter} is new: expected its segments from 0 on, got {first}")
            return list(given.segments)
        check_same(given, row)
        there = row.committed if row.state == OPEN else row.segments
        need(
            first <= there,
            asking.BAD_ASK,
            f"object {given.stored.counter} has {there} segments in the ledger: expected those from there on, got {first}",
        )
        known = [one for one in given.segments if one.number < there]
        if known and row.state == OPEN:
            begin = row.first_segment + first
            stored = await self._segments(begin, begin + len(known))
            is_same = [one.root for one in stored] == [one.root for one in known]
            need(is_same, asking.BAD_ASK, f"object {given.stored.counter}: segments from {first} on are in the ledger with other roots")
        return list(given.segments[len(known) :]) if row.state == OPEN and len(known) < len(given.segments) else None

    async def _progress_of(self, given: Given, row: Object | None) -> Progress:
        """What the ledger has of an object's serials and roots."""
        found = self._progress.pop(given.key, None)
        committed = row.committed if row is not None else 0
        if found is not None and len(found.roots) == committed:
            return found
        found = Progress(given.scheme)
        if row is None:
            return found
        for at in range(0, committed, _ROWS):
            begin, end = row.first_segment + at, row.first_segment + min(at + _ROWS, committed)
            others = await self._moved(begin, end)
            for one in await self._segments(begin, end):
                found.note(one.root, int.from_bytes(one.first_serial, "big"), others.get(one.number, ()))
        return found

    def _keep_progress(self, key: bytes, one: Progress, *, is_over: bool) -> None:
        if not is_over:
            self._progress[key] = one
            if len(self._progress) > MAX_PROGRESS:
                self._progress.popitem(last=False)

    async def _segments(self, begin: int, end: int) -> list[SegmentRow]:
        found: list[SegmentRow] = []
        for at in range(begin, end, _ROWS):

            def page(view: ReadView, at: int = at) -> list[SegmentRow]:
                return view.scan(SEGMENT, start=(at,), end=(min(at + _ROWS, end),), limit=_ROWS)

            found.extend(await self._ledger.query(page))
        return found

    async def _moved(self, begin: int, end: int) -> dict[int, list[int]]:
        """Serials of their own of the shares of segments, by segment."""
        found: dict[int, list[int]] = {}
        after: tuple[int, ...] = ()
        while True:

            def page(view: ReadView, after: tuple[int, ...] = after) -> list[Moved]:
                return view.scan(MOVED, start=() if after else (begin,), after=after, end=(end,), limit=_ROWS)

            rows = await self._ledger.query(page)
            for row in rows:
                found.setdefault(row.segment, []).append(int.from_bytes(row.serial, "big"))
            if len(rows) < _ROWS:
                return found
            after = (rows[-1].segment, rows[-1].share)

    # --- into the ledger ---

    async def _enter(self, session: Session, held: Held | None, lease_id: bytes, group: Sequence[_Part], rows: _Rows) -> None:
        """One operation, what it needs before and what it leaves."""
        stored = [one for one in group if one.segments]
        unused_noz = self._unused(held, group) if held is not None else 0
        message = Commit(lease_id=lease_id, objects=[part.message for part in group], unused_noz=unused_noz)
        await self._proposer.try_out("commit", message)
        size_bytes, paid_noz = message.ByteSize(), sum(_escrow_noz(part, rows) for part in group)
        if stored:
            parts = [Part(one.given.key, one.segments[0].number, [each.share_roots for each in one.segments]) for one in stored]
            await self._spread(parts)
            await self._roots.stage(parts)
        try:
            with session.account.logged.counting(size_bytes, self._clock(), paid_noz):
                result = (await self._proposer.propose("commit", message)).result
        except LedgerRefused:
            for one in stored:
                await self._roots.drop_staged(one.given.key)
            raise
        numbers = [int.from_bytes(result[at : at + 6], "big") for at in range(0, len(result), 6)]
        if held is not None:
            held.replaced_noz = 0
            held.spent_noz += returned(unused_noz).repair_fund_noz
            for part in group:
                self._account(held, part, rows)
        told = [(part, number) for part, number in zip(group, numbers, strict=True) if part.segments]
        if told:
            await self._roots.number([(part.given.key, part.segments[0].number, len(part.segments), number) for part, number in told])
        self._tell_later(told, rows.nodes)

    def _unused(self, held: Held, group: Sequence[_Part]) -> int:
        """The noz that were reserved for shares which nobody acknowledged, and for places that were replaced; no more than leaves the lease's other promises
        whole."""
        unused_noz, freed_noz = held.replaced_noz, 0
        for part in group:
            for segment in part.segments:
                stored = {one.given.index for one in segment.shares}
                for index in range(part.given.scheme.n):
                    one = held.reserved.get((part.given.stored.counter, segment.number, index))
                    if one is not None and index not in stored:
                        unused_noz += one.bill_noz
                        freed_noz += one.escrow_noz
        return min(unused_noz, 10 * max(0, held.left_noz + freed_noz))

    def _account(self, held: Held, part: _Part, rows: _Rows) -> None:
        counter, scheme = part.given.stored.counter, part.given.scheme
        held.spent_noz += _escrow_noz(part, rows)
        for segment in part.segments:
            for index in range(scheme.n):
                self._book.release(held, (counter, segment.number, index))
        last = part.segments[-1].number + 1 if part.segments else 0
        self._places.committed(held, counter, [one.number for one in part.segments], is_complete=last == part.given.count)

    # --- the nodes ---

    def _tell_later(self, parts: Sequence[tuple[_Part, int]], nodes: dict[str, Node]) -> None:
        copies: Copies = {}
        numbers: list[int] = []
        for part, first in parts:
            for segment in part.segments:
                numbers.append(first + segment.number)
                for one in segment.shares:
                    key = transfers.CopyKey(share_root=segment.share_roots[one.given.index], serial=bytes(one.limit.serial))
                    copies.setdefault(nodes[one.limit.node].number, []).append((first + segment.number, key))
        if not numbers:
            return
        task = asyncio.get_running_loop().create_task(self._telling.first(copies, numbers))
        self._tasks.add(task)
        task.add_done_callback(self._over)

    async def tell_again(self) -> int:
        """Tell nodes of segments that are in the ledger and of which they may not know (``telling.py``)."""
        return await self._telling.again()

    async def close(self) -> None:
        """Wait for commits that are under way, and for what nodes are being told."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    @contextlib.asynccontextmanager
    async def _one_of(self, lease_id: bytes) -> AsyncIterator[None]:
        """One commit of a lease at a time."""
        lock, users = self._locks.get(lease_id) or (asyncio.Lock(), 0)
        self._locks[lease_id] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[lease_id]
            if users == 1:
                del self._locks[lease_id]
            else:
                self._locks[lease_id] = lock, users - 1


def _is_done(session: Session, rows: _Rows, keys: Sequence[bytes]) -> bool:
    """Whether the ledger has all of these objects of a session's wallet, whole."""
    done = [rows.objects.get(key) for key in keys]
    return all(row is not None and row.state != OPEN and row.payer == session.wallet for row in done)


def _look(view: ReadView, lease_id: bytes, keys: Iterable[bytes], names: Iterable[str]) -> _Rows:
    objects = {key: row for key in keys if (row := view.get(OBJECT, (key,))) is not None}
    nodes: dict[str, Node] = {}
    for name in names:
        address = node_of(name)
        node = view.find(NODE, "by_address", (address,)) if address is not None else None
        if node is not None:
            nodes[name] = node
    return _Rows(view.get(LEASE, (lease_id,)), objects, nodes, state_of(view).escrow_ratio_e18)


def _operations(parts: Sequence[tuple[Given, list[Segment]]], nodes: dict[str, Node]) -> list[list[_Part]]:
    """Objects as parts that fit into operations, in order; one that does not fit goes on in the next."""
    groups: list[list[_Part]] = [[]]
    segments_left, bytes_left = MAX_SEGMENTS, MAX_COMMIT_BYTES
    for given, segments in parts:
        rest = [(one, _new_segment(given, one, nodes)) for one in segments]
        is_first = True
        while rest or is_first:
            head_bytes = given.stored.file.ByteSize() + 256
            taken = _fitting([message.ByteSize() + 8 for _, message in rest], segments_left, bytes_left - head_bytes)
            if len(groups[-1]) >= MAX_OBJECTS or head_bytes > bytes_left or (rest and not taken):
                groups.append([])
                segments_left, bytes_left = MAX_SEGMENTS, MAX_COMMIT_BYTES
                taken = _fitting([message.ByteSize() + 8 for _, message in rest], segments_left, bytes_left - head_bytes)
            now, rest = rest[:taken], rest[taken:]
            message = _new_object(given, now[0][0].number if now else 0, [one for _, one in now])
            groups[-1].append(_Part(given, message, [one for one, _ in now]))
            segments_left -= len(now)
            bytes_left -= message.ByteSize() + 8
            is_first = False
            if rest:
                # An object is once in an operation.
                groups.append([])
                segments_left, bytes_left = MAX_SEGMENTS, MAX_COMMIT_BYTES
    return [group for group in groups if group]


def _escrow_noz(part: _Part, rows: _Rows) -> int:
    """What the shares of a part cost until their term ends."""
    row = rows.objects.get(part.given.key)
    ratio_e18 = row.escrow_ratio_e18 if row is not None else rows.escrow_ratio_e18
    return sum(share_noz(share_bytes(part.given.scheme, one.size_bytes), ratio_e18).escrow_noz * len(one.shares) for one in part.segments)


def _fitting(sizes: Sequence[int], most: int, most_bytes: int) -> int:
    count = 0
    for size in sizes:
        if count == most or size > most_bytes:
            break
        most_bytes -= size
        count += 1
    return count


def _new_segment(given: Given, segment: Segment, nodes: dict[str, Node]) -> Any:
    return NewSegment(
        root=segment.root,
        first_serial=segment.first_serial.to_bytes(SERIAL_BYTES, "big"),
        nodes=packed_nodes(segment, given.scheme, nodes),
        others=[OtherSerial(index=index, serial=serial.to_bytes(SERIAL_BYTES, "big")) for index, serial in sorted(segment.others.items())],
    )


def _new_object(given: Given, first: int, segments: Sequence[Any]) -> Any:
    stored = given.stored
    return NewObject(
        counter=stored.counter, root=stored.root, file_hash=stored.file_hash, size_bytes=stored.size_bytes, data_shares=stored.data_shares,
        total_shares=stored.total_shares, first_segment=first, segments=segments, file=stored.file,
    )  # fmt: skip


def _answer(given: Given, rows: _Rows) -> Any:
    """What the shares that came cost, whether they came for the first time or again."""
    row = rows.objects.get(given.key)
    ratio_e18 = row.escrow_ratio_e18 if row is not None else rows.escrow_ratio_e18
    escrow_noz = receipts_noz = 0
    for segment in given.segments:
        each = share_noz(share_bytes(scheme_of(given.scheme.k, given.scheme.n), segment.size_bytes), ratio_e18)
        escrow_noz += each.escrow_noz * len(segment.shares)
        receipts_noz += each.receipt_noz * len(segment.shares)
    is_complete = given.end == given.count or (row is not None and row.state != OPEN)
    return asking.CommittedObject(
        counter=given.stored.counter, object_id=given.key, escrow_noz=escrow_noz, receipts_noz=receipts_noz, is_complete=is_complete
    )  # fmt: skip
