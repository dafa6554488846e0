"""Shares and whole objects to and from nodes: every byte checked against its root, every receipt signed as it falls due.

    put   32 MiB of the stream ─ coded, hashed once ─► n shares ─► n nodes, each at its own pace; confirmed with enough acknowledgements,
                                                                  the others have a moment more and are then given up
    get   k shares, those with the segment's own bytes first ─► checked leaf by leaf ─► in order
              └── one is slow, wrong or gone: others are asked, and its leaves are computed from theirs

A segment under way holds its bytes and what the code adds (put), or its shares (get), and two are under way; so memory does not grow with the object.
Source: storage-protocol.md 3.1 to 3.4 and 4; ADR 7 and 8.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from modules.settlement.documents import OrderLimit
from sds_node import transfers
from sds_node.client.session import Receipts, Session
from sds_node.coding import NotEnoughShares, encode_columns, locate, recreate
from sds_node.documents import Refused, ShareManifest, SignedDocument, SignedManifest, check_ack, opened, signed
from sds_node.merkle import (
    LEAF_BYTES,
    Buffer,
    LeafCheck,
    LeafHasher,
    MerkleError,
    leaf_size,
    object_root,
    segment_path,
    segment_root,
    share_proved,
)
from sds_node.schemes import SEGMENT_BYTES, Scheme, segment_count, segment_size, share_bytes
from sds_node.transfers import RECEIPT_BYTES, Run, head_bytes, receive_record, record, runs_bytes
from sds_node.wire.errors import CallFailed, ConnectionFailed, WireError
from sds_node.wire.peer import Peer
from sds_node.wire.stream import Stream

_HASH_BYTES: Final = 32
_CACHED_HASHES: Final = 256
"""Lists of leaf hashes that a reader keeps, of at most 64 KiB each."""
_LET_GO_S: Final = 30.0


class TransferFailed(Exception):
    """A transfer that did not succeed. The text says what was expected, what came and what to do."""


class NodeFailed(TransferFailed):
    """One node did not do its part: it is gone, too slow, or refused. ``code`` is its refusal's, None when none came."""

    def __init__(self, node: bytes, text: str, code: int | None = None) -> None:
        self.node, self.code = node, code
        super().__init__(f"node {node.hex()}: {text}")


class NodeLied(NodeFailed):
    """One node answered with what is not so: wrong bytes, another size, an acknowledgement of something else."""


class NotStored(TransferFailed):
    """A segment has too few acknowledgements. ``failures`` are what the nodes did, by the share's number."""

    def __init__(self, segment: int, confirmed: int, needed: int, failures: dict[int, str]) -> None:
        self.segment, self.failures = segment, failures
        told = "; ".join(f"share {index}: {text}" for index, text in sorted(failures.items()))
        super().__init__(f"segment {segment} has {confirmed} acknowledged shares and needs {needed}: {told}")


class NotReadable(TransferFailed):
    """Too few good shares of a segment were found. ``failures`` are what the nodes did, by the share's number."""

    def __init__(self, segment: int, needed: int, failures: dict[int, str]) -> None:
        self.segment, self.failures = segment, failures
        told = "; ".join(f"share {index}: {text}" for index, text in sorted(failures.items()))
        super().__init__(f"segment {segment} needs {needed} good shares and has not so many: {told}")


class WrongSource(TransferFailed):
    """The stream to be stored is longer or shorter than was said."""


@dataclass(frozen=True, eq=False)
class Place:
    """A node for one share, and what lets it be used: the order limit (SignedDocument) and its lease's certificate (LeaseCertificate).

    ``node_key`` is the node's P2P public key, 32 bytes, which acknowledgements are judged by.
    """

    peer: Peer
    node_key: bytes
    order_limit: Any
    certificate: Any

    @property
    def limit(self) -> Any:
        return opened(OrderLimit, self.order_limit.body)


@dataclass(frozen=True, slots=True)
class PutWanted:
    """A segment for which n places are asked. ``share_roots`` are those of its shares, in order."""

    object_id: bytes
    segment: int
    segment_bytes: int
    scheme: Scheme
    share_roots: tuple[bytes, ...]

    @property
    def share_bytes(self) -> int:
        return share_bytes(self.scheme, self.segment_bytes)


@dataclass(frozen=True, slots=True)
class GetWanted:
    """One share, of which ``size_bytes`` are read, for which a place is asked."""

    object_root: bytes
    segment: int
    index: int
    size_bytes: int


class Issuer(Protocol):
    """Who chooses nodes and issues order limits: a meta node, or a test. Raises what it likes; a TransferFailed goes to the caller as it is."""

    async def for_put(self, wanted: PutWanted) -> Sequence[Place]:
        """The places of all n shares of a segment, in the order of the shares, their serials following one another (ADR 8)."""
        ...

    async def another(self, wanted: PutWanted, index: int, tried: Collection[bytes]) -> Place | None:
        """Another place for one share, at a node whose address is not among those ``tried``; None when there is none."""
        ...

    async def for_get(self, wanted: GetWanted) -> Place | None:
        """The holder of a share and a limit of that many bytes; None when nobody holds it."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How patient a client is, and how much it has in memory."""

    segments_at_once: int = 2
    stall_s: float = 30.0
    """A node that moves nothing for so long has failed."""
    straggler_s: float = 2.0
    """What shares beyond those that confirm a segment still get."""
    hedge_s: float = 5.0
    """Nothing was complete for so long: one more holder is asked."""
    attempts: int = 3
    """Places tried for one share of a put; connections for one share of a get."""

    def __post_init__(self) -> None:
        if not (1 <= self.segments_at_once <= 64 and 1 <= self.attempts <= 16):
            raise ValueError("expected 1 to 64 segments at once, and 1 to 16 attempts")
        if not (self.stall_s > 0 and self.straggler_s >= 0 and self.hedge_s > 0):
            raise ValueError("expected times above 0")


@dataclass(frozen=True, slots=True)
class _ChainOnly:
    """What an acknowledgement is judged by: it names no meta node."""

    chain_id: str

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        return None

    def active_meta_nodes(self) -> Collection[bytes]:
        return ()


@contextlib.contextmanager
def _of_node(place: Place) -> Any:
    """Have what goes wrong with one node come out as its failure."""
    node = place.peer.address
    try:
        yield
    except NodeFailed:
        raise
    except TimeoutError:
        raise NodeFailed(node, "nothing moved in time: ask another one") from None
    except WireError as error:
        raise NodeFailed(node, f"{type(error).__name__}: {error}", error.code if isinstance(error, CallFailed) else None) from error
    except (MerkleError, Refused) as error:
        raise NodeLied(node, str(error)) from error


# --- one share in ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShareToPut:
    """A share, and where it stands. ``segment_path`` leads from its root to the segment's."""

    object_id: bytes
    segment: int
    segment_bytes: int
    index: int
    scheme: Scheme
    share_root: bytes
    segment_root: bytes
    segment_path: Sequence[bytes]


async def put_share(session: Session, place: Place, share: ShareToPut, data: Buffer, settings: Settings | None = None) -> Any:
    """Send a share to a node → its StoreAck (SignedDocument), checked. The final receipt goes with the bytes.

    ``data`` may not change until it returns. When only the answer was lost it is asked for once more. Raises NodeFailed, NodeLied.
    """
    stall_s = (settings or Settings()).stall_s
    view = memoryview(data).cast("B")
    limit = place.limit
    manifest = ShareManifest(
        chain_id=session.chain_id,
        wallet=session.wallet,
        object_id=share.object_id,
        segment=share.segment,
        segment_bytes=share.segment_bytes,
        index=share.index,
        data_shares=share.scheme.k,
        total_shares=share.scheme.n,
        share_root=share.share_root,
        size_bytes=len(view),
        serial=limit.serial,
    )
    document = signed(manifest, session.key)
    head = transfers.PutHead(
        certificate=place.certificate,
        evidence=session.evidence(place.order_limit),
        manifest=SignedManifest(body=document.body, signature=document.signature, session_pubkey=session.public_key),
        segment_root=share.segment_root,
        segment_path=share.segment_path,
    )
    is_sent = False
    with _of_node(place):
        receipts = Receipts(session, place.order_limit, share.share_root)
        final = record(receipts.whole(len(view)).SerializeToString())
        try:
            async with asyncio.timeout(stall_s):
                stream = await place.peer.call(transfers.PUT, head_bytes(head))
            async with stream:
                for at in range(0, len(view), RECEIPT_BYTES):
                    async with asyncio.timeout(stall_s):
                        await stream.send(view[at : at + RECEIPT_BYTES])
                await stream.send(final)
                stream.end()
                is_sent = True
                async with asyncio.timeout(stall_s):
                    answer = await receive_record(stream, transfers.MAX_ACK_BYTES)
                    await stream.result()
        except ConnectionFailed:
            if not is_sent:
                raise
            head.again = True
            async with asyncio.timeout(stall_s), await place.peer.call(transfers.PUT, head_bytes(head), ended=True) as stream:
                answer = await receive_record(stream, transfers.MAX_ACK_BYTES)
                await stream.result()
        ack = transfers.parsed(SignedDocument, answer or b"")
        check_ack(ack, _ChainOnly(session.chain_id), place.node_key, serial=bytes(limit.serial), share_root=share.share_root, size_bytes=len(view))
        return ack


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
    with _of_node(place):
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


# --- a whole object in -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A confirmed segment: its root, its shares' roots in order, and who acknowledged which (share number → place and StoreAck)."""

    root: bytes
    segment_bytes: int
    share_roots: tuple[bytes, ...]
    acknowledged: dict[int, tuple[Place, Any]]
    failures: dict[int, str]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a commit needs. The root of an object without segments is that of nothing."""

    object_id: bytes
    root: bytes
    size_bytes: int
    scheme: Scheme
    segments: tuple[StoredSegment, ...]


@dataclass(slots=True)
class _Slot:
    """Memory of one segment under way: its bytes, and the shares that the code adds."""

    segment: bytearray
    added: bytearray


async def put_object(
    session: Session,
    issuer: Issuer,
    scheme: Scheme,
    object_id: bytes,
    size_bytes: int,
    source: AsyncIterable[Buffer],
    settings: Settings | None = None,
) -> StoredObject:
    """Store a stream of ``size_bytes`` (what is encrypted is so before). Every segment is confirmed when it returns.

    Two segments are under way: one is read and coded while the other goes out. Raises NotStored, WrongSource, what ``source`` and ``issuer`` raise.
    """
    patience = settings or Settings()
    count = segment_count(size_bytes)
    slots: asyncio.Queue[_Slot] = asyncio.Queue()
    for _ in range(min(patience.segments_at_once, count)):
        largest = segment_size(size_bytes, 0)
        slots.put_nowait(_Slot(bytearray(largest), bytearray(scheme.parity * share_bytes(scheme, largest) if scheme.k > 1 else 0)))
    pieces = _Pieces(source)
    tasks: list[asyncio.Task[StoredSegment]] = []

    async def one(segment: int, length: int, slot: _Slot) -> StoredSegment:
        try:
            return await _put_segment(session, issuer, scheme, object_id, segment, memoryview(slot.segment)[:length], slot.added, patience)
        finally:
            slots.put_nowait(slot)

    try:
        for segment in range(count):
            slot = await slots.get()
            for task in tasks[-patience.segments_at_once - 1 :]:
                if task.done():
                    task.result()  # no need to go on after one that failed
            length = segment_size(size_bytes, segment)
            await pieces.fill(memoryview(slot.segment)[:length])
            tasks.append(asyncio.create_task(one(segment, length, slot)))
        await pieces.finish()
        stored = tuple([await task for task in tasks])
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return StoredObject(object_id, object_root(one.root for one in stored), size_bytes, scheme, stored)


class _Pieces:
    """A stream of pieces of any length, cut anew."""

    def __init__(self, source: AsyncIterable[Buffer]) -> None:
        self._source = source.__aiter__()
        self._rest = memoryview(b"")

    async def fill(self, into: memoryview) -> None:
        """Fill ``into``. Raises WrongSource when the stream ends before."""
        at = 0
        while at < len(into):
            if not self._rest:
                try:
                    self._rest = memoryview(await anext(self._source)).cast("B")
                except StopAsyncIteration:
                    raise WrongSource(f"the stream ended {len(into) - at} bytes before the end of a segment: say its right length") from None
            taken = self._rest[: len(into) - at]
            into[at : at + len(taken)] = taken
            at, self._rest = at + len(taken), self._rest[len(taken) :]

    async def finish(self) -> None:
        """Raises WrongSource unless the stream is at its end."""
        while not self._rest:
            try:
                self._rest = memoryview(await anext(self._source)).cast("B")
            except StopAsyncIteration:
                return
        raise WrongSource("the stream has more bytes than were said: say its right length")


def _coded(scheme: Scheme, segment: memoryview, added: bytearray) -> tuple[list[memoryview], list[bytes]]:
    """A segment → its n shares, the first k views of it where no padding is needed, the others in ``added``; and their roots. Each column is hashed
    while it is in the cache.
    """
    size, k = share_bytes(scheme, len(segment)), scheme.k
    if k == 1:
        hasher = LeafHasher()
        hasher.update(segment)
        return [segment] * scheme.n, [hasher.root()] * scheme.n
    hashers = [LeafHasher() for _ in range(scheme.n)]
    room = memoryview(added)
    extra = [room[at : at + size] for at in range(0, scheme.parity * size, size)]
    start = 0
    for column in encode_columns(scheme, segment):
        stop = start + len(column[0])
        for hasher, part in zip(hashers, column, strict=True):
            hasher.update(part)
        for out, part in zip(extra, column[k:], strict=True):
            out[start:stop] = part
        start = stop
    own = [segment[index * size : (index + 1) * size] for index in range(k)]
    whole = [one if len(one) == size else memoryview(bytes(one).ljust(size, b"\x00")) for one in own]
    return whole + [one.toreadonly() for one in extra], [hasher.root() for hasher in hashers]


async def _put_segment(
    session: Session, issuer: Issuer, scheme: Scheme, object_id: bytes, segment: int, data: memoryview, added: bytearray, patience: Settings
) -> StoredSegment:
    shares, roots = await asyncio.to_thread(_coded, scheme, data, added)
    wanted = PutWanted(object_id, segment, len(data), scheme, tuple(roots))
    root = segment_root(roots)
    places = await issuer.for_put(wanted)
    if len(places) != scheme.n:
        raise TransferFailed(f"expected places for {scheme.n} shares of segment {segment}, got {len(places)}: ask the meta node again")
    acknowledged: dict[int, tuple[Place, Any]] = {}
    failures: dict[int, str] = {}

    async def store(index: int) -> None:
        share = ShareToPut(object_id, segment, len(data), index, scheme, roots[index], root, segment_path(roots, index))
        place: Place | None = places[index]
        tried: set[bytes] = set()
        for _ in range(patience.attempts):
            assert place is not None
            tried.add(place.peer.address)
            try:
                acknowledged[index] = place, await put_share(session, place, share, shares[index], patience)
                failures.pop(index, None)
                return
            except NodeFailed as error:
                failures[index] = str(error)
            if len(tried) == patience.attempts or (place := await issuer.another(wanted, index, tried | _in_use(places, acknowledged))) is None:
                return

    tasks = {asyncio.create_task(store(index)) for index in range(scheme.n)}
    try:
        waiting = tasks
        while waiting and len(acknowledged) < scheme.confirmed_at:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # what the issuer raises ends the put
        if waiting:
            done, waiting = await asyncio.wait(waiting, timeout=patience.straggler_s)
    finally:
        # Slices of the slot are being sent: they may be overwritten when the senders are gone.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for index in range(scheme.n):
        if index not in acknowledged:
            failures.setdefault(index, "was not done when the segment was confirmed")
    if len(acknowledged) < scheme.confirmed_at:
        raise NotStored(segment, len(acknowledged), scheme.confirmed_at, failures)
    return StoredSegment(root, len(data), tuple(roots), acknowledged, failures)


def _in_use(places: Sequence[Place], acknowledged: dict[int, tuple[Place, Any]]) -> set[bytes]:
    """Nodes that have a share of the segment, or are to have one: no node gets two."""
    return {place.peer.address for place in places} | {place.peer.address for place, _ in acknowledged.values()}


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

    async def read(self, offset: int = 0, length: int | None = None) -> AsyncIterator[memoryview]:
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
