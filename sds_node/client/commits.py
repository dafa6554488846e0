"""Objects into the ledger, many at once: while one commit is on its way, what becomes ready waits for the next.

    put ─ stored object ─► its lease's queue ─► object.commit of up to 256 objects ─► CommittedObject of each

An object that is too large for one question goes in parts, in order. One that is refused is told apart from the others by asking for each alone. Source: ADR 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from chain.codec.canonical import encode
from sds_node import asking
from sds_node.client.errors import MetaLied, StorageError, is_of_all
from sds_node.client.leases import Lease, object_id
from sds_node.client.meta import MetaClient
from sds_node.client.placing import Place
from sds_node.client.put import StoredObject, StoredSegment

MAX_OBJECTS: Final = 256
MAX_SEGMENTS: Final = 1_000
MAX_BYTES: Final = 6 << 20
"""Of one question; the wire's bound is 8 MiB."""


def _segment(segment: StoredSegment) -> Any:
    made = asking.StoredSegment(share_roots=segment.share_roots)
    for index, (place, ack) in sorted(segment.acknowledged.items()):
        made.shares.add(index=index, p2p_key=place.node_key, order_limit=place.order_limit, ack=ack)
    return made


def kept(segment: StoredSegment) -> bytes:
    """A stored segment as bytes, for a journal."""
    return encode(_segment(segment))


def from_kept(data: bytes, root: bytes, segment_bytes: int, places: dict[int, Place]) -> StoredSegment:
    """What ``kept`` made, with the places of its shares."""
    found = asking.StoredSegment.FromString(data)
    acknowledged = {one.index: (places[one.index], one.ack) for one in found.shares}
    return StoredSegment(root, segment_bytes, tuple(bytes(one) for one in found.share_roots), acknowledged, {})


def parts(counter: int, stored: StoredObject, file_hash: str, record: Any) -> Iterator[Any]:
    """A stored object and its FileRecord as StoredObjects of the meta node's form: one, or several that follow one another."""
    at, first, made = 0, 0, [_segment(one) for one in stored.segments]
    while True:
        size = 0
        while at < len(made) and (at == first or (at - first < MAX_SEGMENTS and size + made[at].ByteSize() <= MAX_BYTES)):
            size += made[at].ByteSize()
            at += 1
        yield asking.StoredObject(
            counter=counter,
            root=stored.root,
            file_hash=file_hash,
            size_bytes=stored.size_bytes,
            data_shares=stored.scheme.k,
            total_shares=stored.scheme.n,
            first_segment=first,
            segments=made[first:at],
            file=record,
        )
        first = at
        if at == len(made):
            return


@dataclass(eq=False)
class _Waiting:
    part: Any
    done: asyncio.Future[Any]


class Committer:
    """Commits a client's objects."""

    def __init__(self, client: MetaClient) -> None:
        self._client = client
        self._queues: dict[bytes, list[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def commit(self, lease: Lease, counter: int, stored: StoredObject, file_hash: str, record: Any) -> tuple[int, int]:
        """An object into the ledger → (escrow, receipts) in noz, of all of its parts. Raises LeaseGone, MetaLied, what ``ask`` raises."""
        escrow = receipts = 0
        for part in parts(counter, stored, file_hash, record):
            done = await self._queued(lease, part)
            escrow, receipts = escrow + done.escrow_noz, receipts + done.receipts_noz
        if not done.is_complete:
            raise MetaLied("the meta node says that an object is not complete after its last part: try again, or ask another meta node")
        return escrow, receipts

    async def _queued(self, lease: Lease, part: Any) -> Any:
        waiting = _Waiting(part, asyncio.get_running_loop().create_future())
        queue = self._queues.get(lease.lease_id)
        if queue is None:
            self._queues[lease.lease_id] = [waiting]
            task = asyncio.get_running_loop().create_task(self._run(lease))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            queue.append(waiting)
        return await waiting.done

    async def _run(self, lease: Lease) -> None:
        # What is ready in the same moment goes together.
        await asyncio.sleep(0)
        while batch := self._next(lease.lease_id):
            try:
                await self._commit(lease, batch)
            finally:
                for one in batch:
                    one.done.cancel()  # whoever has no answer by now gets none
        del self._queues[lease.lease_id]

    def _next(self, lease_id: bytes) -> list[_Waiting]:
        queue = self._queues[lease_id]
        batch: list[_Waiting] = []
        queue.sort(key=lambda one: int(one.part.counter))
        size = segments = 0
        while queue and len(batch) < MAX_OBJECTS:
            more, bytes_more = len(queue[0].part.segments), queue[0].part.ByteSize()
            if batch and (segments + more > MAX_SEGMENTS or size + bytes_more > MAX_BYTES):
                break
            segments, size = segments + more, size + bytes_more
            batch.append(queue.pop(0))
        return batch

    async def _commit(self, lease: Lease, batch: list[_Waiting]) -> None:
        batch = [one for one in batch if not one.done.done()]
        if not batch:
            return
        try:
            body = encode(asking.CommitAsk(lease_id=lease.lease_id, objects=[one.part for one in batch]))
            reply = await self._client.ask(asking.OBJECT_COMMIT, None, asking.CommitReply, body=body, meta=lease.meta)
            if [(one.counter, one.object_id) for one in reply.objects] != [
                (one.part.counter, object_id(lease.lease_id, one.part.counter)) for one in batch
            ]:
                raise MetaLied("the meta node's answer names other objects than were committed: look whether they are there, and try again")
        except Exception as error:
            if len(batch) > 1 and isinstance(error, StorageError) and not (is_of_all(error) or isinstance(error, MetaLied)):
                for one in batch:
                    await self._commit(lease, [one])
                return
            for one in batch:
                if not one.done.done():
                    one.done.set_exception(error)
            return
        for one, done in zip(batch, reply.objects, strict=True):
            if not one.done.done():
                one.done.set_result(done)

    async def close(self) -> None:
        """Give up what is under way: who waits for it is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queue in self._queues.values():
            for one in queue:
                one.done.cancel()
