"""Shares and whole objects to nodes: coded and hashed once, each share at its node's own pace, every receipt signed as it falls due.

    32 MiB of the stream ─ coded, hashed once ─► n shares ─► n nodes; confirmed with enough acknowledgements, the others have a moment more
                                                             and are then given up

A segment under way holds its bytes and what the code adds, and two are under way; so memory does not grow with the object.
Source: storage-protocol.md 3.1 to 3.4 and 4; ADR 7 and 8.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import structlog

from sds_node import transfers
from sds_node.client.placing import ChainOnly, Issuer, NodeFailed, NotStored, Place, PutWanted, Settings, TransferFailed, WrongSource, of_node
from sds_node.client.session import Receipts, Session
from sds_node.coding import STRETCH_BYTES, add_shares
from sds_node.documents import ShareManifest, SignedDocument, SignedManifest, check_ack, signed
from sds_node.memory import room
from sds_node.merkle import Buffer, LeafHasher, object_root, segment_path, segment_root
from sds_node.schemes import Scheme, segment_count, segment_size, share_bytes
from sds_node.transfers import RECEIPT_BYTES, head_bytes, receive_record, record
from sds_node.wire.errors import ConnectionFailed, Refused
from sds_node.wire.stream import Stream

log = structlog.get_logger("client")

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

    ``data`` may not change until it returns. When only the answer was lost, now or by an earlier call, it is asked for once more; when the node has not all of
    the share then, it is sent once more. Raises NodeFailed, NodeLied.
    """
    patience = settings or Settings()
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
    with of_node(place):
        receipts = Receipts(session, place.order_limit, share.share_root)
        final = record(receipts.whole(len(view)).SerializeToString())
        answer = await _sent(place, head, view, final, patience, is_last=False)
        if answer is None:
            # The connection was lost before the node had all of it: it takes the share once more under the same limit.
            answer = await _sent(place, head, view, final, patience, is_last=True)
        ack = transfers.parsed(SignedDocument, answer or b"")
        check_ack(ack, ChainOnly(session.chain_id), place.node_key, serial=bytes(limit.serial), share_root=share.share_root, size_bytes=len(view))
        return ack


async def _sent(place: Place, head: Any, view: memoryview, final: bytes, patience: Settings, *, is_last: bool) -> bytes | None:
    """Send a share and its final receipt → the node's answer. None, unless ``is_last``, when the answer was lost and the share is not there."""
    is_sent = False
    try:
        async with asyncio.timeout(patience.stall_s):
            stream = await place.peer.call(transfers.PUT, head_bytes(head), idle_s=patience.slow_s)
        async with stream:
            for at in range(0, len(view), RECEIPT_BYTES):
                async with asyncio.timeout(patience.slow_s):
                    await stream.send(view[at : at + RECEIPT_BYTES])
            await stream.send(final)
            stream.end()
            is_sent = True
            return await _answer(stream, patience.slow_s)
    except (ConnectionFailed, Refused) as error:
        # The answer was lost now, or when an earlier put of the same was interrupted: the limit is used, and the share may be there.
        if not (is_sent if isinstance(error, ConnectionFailed) else error.code == transfers.LIMIT_USED):
            raise
    asked = transfers.PutHead()
    asked.CopyFrom(head)
    asked.again = True
    try:
        async with asyncio.timeout(patience.stall_s):
            stream = await place.peer.call(transfers.PUT, head_bytes(asked), ended=True)
        async with stream:
            return await _answer(stream, patience.stall_s)
    except Refused as error:
        if is_last or error.code != transfers.SHARE_MISSING:
            raise
        return None


async def _answer(stream: Stream, stall_s: float) -> bytes:
    async with asyncio.timeout(stall_s):
        answer = await receive_record(stream, transfers.MAX_ACK_BYTES)
        await stream.result()
        return answer or b""


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
    """Memory of one segment under way: its own k shares one after the other, which are its bytes and zeros, and the shares that the code adds."""

    own: memoryview
    added: memoryview


def _slot_sizes(scheme: Scheme, size_bytes: int) -> tuple[int, int]:
    """Bytes of a slot for segments of an object of so many: their own, and those that the code adds."""
    size = share_bytes(scheme, segment_size(size_bytes, 0))
    return scheme.k * size, scheme.parity * size if scheme.k > 1 else 0


def _slots(size_bytes: int, segments_at_once: int) -> int:
    return min(segments_at_once, segment_count(size_bytes))


def held_bytes(scheme: Scheme, size_bytes: int, segments_at_once: int) -> int:
    """What ``put_object`` has in memory for an object of so many bytes."""
    count = _slots(size_bytes, segments_at_once)
    return count * sum(_slot_sizes(scheme, size_bytes)) if count else 0


class Memory(Protocol):
    """Remembers the segments of a put, so that one that was interrupted goes on. It raises what it likes."""

    async def coded(self, segment: int, root: bytes) -> StoredSegment | None:
        """A segment was coded and nothing of it went out yet; what was stored of it earlier, if it is whole."""
        ...

    async def stored(self, segment: int, found: StoredSegment) -> None:
        """A segment is confirmed."""
        ...


@runtime_checkable
class Filling(Protocol):
    """A stream that writes itself into the memory of a put."""

    async def fill(self, into: memoryview) -> None:
        """Write the next bytes, as many as there is memory for. It may be read until this is called with the same memory again. Raises WrongSource, too."""
        ...

    async def finish(self) -> None:
        """Raises unless the stream is at its end."""
        ...


async def put_object(
    session: Session,
    issuer: Issuer,
    scheme: Scheme,
    object_id: bytes,
    size_bytes: int,
    source: AsyncIterable[Buffer] | Filling,
    settings: Settings | None = None,
    memory: Memory | None = None,
) -> StoredObject:
    """Store a stream of ``size_bytes`` (what is encrypted is so before). Every segment is confirmed when it returns.

    Two segments are under way: one is read and coded while the other goes out. Raises NotStored, WrongSource, what ``source``, ``issuer`` and ``memory``
    raise.
    """
    patience = settings or Settings()
    count = segment_count(size_bytes)
    slots: asyncio.Queue[_Slot] = asyncio.Queue()
    for _ in range(_slots(size_bytes, patience.segments_at_once)):
        slots.put_nowait(_Slot(*map(room, _slot_sizes(scheme, size_bytes))))
    stream = source if isinstance(source, Filling) else _Pieces(source)
    tasks: list[asyncio.Task[StoredSegment]] = []

    async def one(segment: int, length: int, slot: _Slot) -> StoredSegment:
        try:
            return await _put_segment(session, issuer, scheme, object_id, segment, length, slot, patience, memory)
        finally:
            slots.put_nowait(slot)

    try:
        for segment in range(count):
            slot = await slots.get()
            for task in tasks[-patience.segments_at_once - 1 :]:
                if task.done():
                    task.result()  # no need to go on after one that failed
            length = segment_size(size_bytes, segment)
            await stream.fill(slot.own[:length])
            tasks.append(asyncio.create_task(one(segment, length, slot)))
        await stream.finish()
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


def _coded(scheme: Scheme, length: int, slot: _Slot) -> tuple[list[memoryview], list[bytes]]:
    """The segment of ``length`` bytes in a slot → its n shares, all views of the slot, and their roots. A part of each is hashed while it is in the cache."""
    size, k = share_bytes(scheme, length), scheme.k
    if k == 1:
        hasher = LeafHasher()
        hasher.update(slot.own[:length])
        return [slot.own[:length].toreadonly()] * scheme.n, [hasher.root()] * scheme.n
    slot.own[length : k * size] = bytes(k * size - length)
    own, added = ([memory[at : at + size] for at in range(0, count * size, size)] for memory, count in ((slot.own, k), (slot.added, scheme.parity)))
    shares = own + added
    hashers = [LeafHasher() for _ in shares]
    for start in range(0, size, STRETCH_BYTES):
        stop = min(start + STRETCH_BYTES, size)
        add_shares(scheme, own, added, start, stop)
        for hasher, share in zip(hashers, shares, strict=True):
            hasher.update(share[start:stop])
    return [one.toreadonly() for one in shares], [hasher.root() for hasher in hashers]


async def _put_segment(
    session: Session,
    issuer: Issuer,
    scheme: Scheme,
    object_id: bytes,
    segment: int,
    length: int,
    slot: _Slot,
    patience: Settings,
    memory: Memory | None = None,
) -> StoredSegment:
    shares, roots = await asyncio.to_thread(_coded, scheme, length, slot)
    wanted = PutWanted(object_id, segment, length, scheme, tuple(roots))
    root = segment_root(roots)
    if memory is not None and (before := await memory.coded(segment, root)) is not None:
        return before
    places = await issuer.for_put(wanted)
    if len(places) != scheme.n:
        raise TransferFailed(f"expected places for {scheme.n} shares of segment {segment}, got {len(places)}: ask the meta node again")
    acknowledged: dict[int, tuple[Place, Any]] = {}
    failures: dict[int, str] = {}
    refused: list[Exception] = []
    tried: list[set[bytes]] = [{place.peer.address} for place in places]
    asking = [asyncio.Lock() for _ in places]
    hedged: set[int] = set()

    async def another(index: int) -> Place | None:
        """A place that no sender of the share has had, unless it has been stored meanwhile. One asks at a time: the meta node gives two who ask for the same one
        limit, which moves one share. Why there is none ends the put only if too few of the other shares are stored.
        """
        async with asking[index]:
            if index in acknowledged:
                return None
            try:
                place = await issuer.another(wanted, index, tried[index] | _in_use(places, acknowledged))
            except Exception as error:
                if index not in acknowledged:
                    log.info("a share has no other place", segment=segment, index=index, why=str(error))
                    refused.append(error)
                return None
            if place is not None:
                tried[index].add(place.peer.address)
            return place

    async def store(index: int, place: Place | None, *, is_hedge: bool = False) -> None:
        share = ShareToPut(object_id, segment, length, index, scheme, roots[index], root, segment_path(roots, index))
        for left in reversed(range(patience.attempts)):
            if place is None:
                return
            try:
                ack = await put_share(session, place, share, shares[index], patience)
            except NodeFailed as error:
                if index not in acknowledged:
                    failures[index] = str(error)
            else:
                acknowledged.setdefault(index, (place, ack))
                failures.pop(index, None)
                return
            # A share that is on its way elsewhere, too, needs no third place: that one is asked for when the second fails.
            if not left or index in acknowledged or (index in hedged and not is_hedge):
                return
            place = await another(index)

    async def elsewhere(index: int) -> None:
        try:
            place = await another(index)
            if place is None:
                alone.add(index)
            await store(index, place, is_hedge=True)
        finally:
            hedged.discard(index)

    loop = asyncio.get_running_loop()
    tasks = {asyncio.create_task(store(index, places[index])): index for index in range(scheme.n)}
    slow: set[int] = set()
    # Of the slow ones those for which there was no second place.
    alone: set[int] = set()
    try:
        waiting, begun, last = set(tasks), loop.time(), loop.time()
        while waiting and len(acknowledged) < scheme.confirmed_at:
            if refused and len(acknowledged.keys() | {tasks[task] for task in waiting}) < scheme.confirmed_at:
                break  # and the meta node has no more
            # As long again as the others took: then it is the node that is slow, and not the own line.
            patient_s = max(patience.hedge_s, last - begun) if acknowledged else None
            done, waiting = await asyncio.wait(waiting, timeout=patient_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if done:
                last = loop.time()
                continue
            coming = {tasks[task] for task in waiting} - acknowledged.keys()
            # One that asks for its next place just now is not late.
            late = sorted(index for index in coming - slow if not asking[index].locked())
            # Below 0 when a slow share that was not sent elsewhere has come after all.
            for index in late[: max(0, scheme.confirmed_at - len(acknowledged) - len(coming & slow - alone))]:
                slow.add(index)
                hedged.add(index)
                task = asyncio.create_task(elsewhere(index))
                tasks[task] = index
                waiting.add(task)
            last = loop.time()
        # Whoever is slower with a share that another node has is not waited for.
        waiting = {task for task in waiting if tasks[task] not in acknowledged}
        if waiting and len(acknowledged) >= scheme.confirmed_at:
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
        if refused:
            raise refused[0]
        raise NotStored(segment, len(acknowledged), scheme.confirmed_at, failures)
    found = StoredSegment(root, length, tuple(roots), acknowledged, failures)
    if memory is not None:
        await memory.stored(segment, found)
    return found


def _in_use(places: Sequence[Place], acknowledged: dict[int, tuple[Place, Any]]) -> set[bytes]:
    """Nodes that have a share of the segment, or are to have one: no node gets two."""
    return {place.peer.address for place in places} | {place.peer.address for place, _ in acknowledged.values()}
