"""Places from a meta node: what is asked for at the same moment goes in one question, and each answer is compared with what was asked.

    for_put, for_get (many at once) ─► Batch ─► place.put of 16 segments, place.get of 256 shares ─► order limits, checked ─► Place

An order limit that names another lease, session, object, share, size or a higher price than the table's is refused here, before a receipt is signed for it.
Source: storage-protocol.md 2, 3.3 and 3.6; ADR 9.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from chain.crypto import address as bech32
from modules.settlement.commitment import node_of
from modules.settlement.documents import OrderLimit
from modules.settlement.leaves import GET, HASH_BYTES, PREFIX_BYTES, PUT, SERIAL_BYTES, serial_prefix
from sds_node import asking, p2p
from sds_node.client.errors import LeaseGone, MetaLied, MetaUnreachable, NotFound, StorageError, TooFewNodes, is_of_all
from sds_node.client.leases import Lease, Leases
from sds_node.client.meta import MetaClient
from sds_node.client.placing import GetWanted, Place, PutWanted
from sds_node.documents import Refused, opened
from sds_node.transfers import ANY_ROOT, serial_at

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

LEASES_TRIED: Final = 4
MAX_KEY_BYTES: Final = 32


class Batch(Generic[Ask, Answer]):
    """Questions of many callers in one. ``run`` answers a list in its order, an exception standing for a question that has none."""

    def __init__(self, run: Callable[[list[Ask]], Awaitable[Sequence[Answer | Exception]]], most: int) -> None:
        self._run, self._most = run, most
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Ask) -> Answer:
        """The answer to one question. Raises what stands for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append((question, future))
        return await future

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), self._most):
            batch = waiting[start : start + self._most]
            task = asyncio.get_running_loop().create_task(self._one(batch))
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._over, batch))

    def _over(self, batch: list[tuple[Ask, asyncio.Future[Answer]]], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        for _, future in batch:
            future.cancel()  # whoever has no answer by now gets none

    async def _one(self, batch: list[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        batch = [one for one in batch if not one[1].done()]
        if not batch:
            return
        try:
            answers = await self._run([question for question, _ in batch])
        except Exception as error:
            if len(batch) > 1 and isinstance(error, StorageError) and not is_of_all(error):
                # One of them may be wrong, and is not the others' fault.
                for one in batch:
                    await self._one([one])
                return
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    @property
    def is_busy(self) -> bool:
        """Whether questions wait or are under way."""
        return bool(self._waiting or self._tasks)

    async def close(self) -> None:
        """Give up what is under way: who waits for it is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, future in self._waiting:
            future.cancel()


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment to be placed: the lease, its question, and what the answer must fit."""

    lease: Lease
    ask: Any
    wanted: PutWanted


class PutIssuer:
    """Gives the places of one object's shares; an ``Issuer`` for ``put_object``."""

    def __init__(self, places: Places, lease: Lease, counter: int, object_bytes: int) -> None:
        self._places, self._lease, self._counter, self._object_bytes = places, lease, counter, object_bytes

    def _ask(self, wanted: PutWanted) -> Any:
        return asking.PutAsk(
            counter=self._counter,
            object_bytes=self._object_bytes,
            segment=wanted.segment,
            segment_bytes=wanted.segment_bytes,
            data_shares=wanted.scheme.k,
            total_shares=wanted.scheme.n,
            share_roots=wanted.share_roots,
        )

    async def for_put(self, wanted: PutWanted) -> Sequence[Place]:
        return await self._places.put(_Segment(self._lease, self._ask(wanted), wanted))

    async def another(self, wanted: PutWanted, index: int, tried: Collection[bytes]) -> Place | None:
        head = asking.PlaceAnotherHead(lease_id=self._lease.lease_id, segment=self._ask(wanted), index=index, tried=sorted(tried)[: asking.MAX_TRIED])
        return await self._places.another(self._lease, head, wanted, index, tried)

    async def for_get(self, wanted: GetWanted) -> Place | None:
        return None


class GetIssuer:
    """Gives the holders of one object's shares; an ``Issuer`` for ``ObjectReader``."""

    def __init__(self, places: Places, object_id: bytes) -> None:
        self._places, self._object_id = places, object_id

    async def for_put(self, wanted: PutWanted) -> Sequence[Place]:
        raise TypeError("this issuer is for reading")

    async def another(self, wanted: PutWanted, index: int, tried: Collection[bytes]) -> Place | None:
        return None

    async def for_get(self, wanted: GetWanted) -> Place | None:
        return await self._places.get(self._object_id, wanted)


class Places:
    """Asks for places under a client's leases."""

    def __init__(self, client: MetaClient, leases: Leases) -> None:
        self._client, self._leases = client, leases
        self._gets: Batch[tuple[bytes, GetWanted], Place | None] = Batch(self._get, asking.MAX_SHARES_ASKED)
        self._puts: dict[bytes, Batch[_Segment, Sequence[Place]]] = {}

    async def close(self) -> None:
        """Give up what is under way."""
        await self._gets.close()
        for batch in self._puts.values():
            await batch.close()

    async def put(self, segment: _Segment) -> Sequence[Place]:
        """The places of a segment. Raises LeaseGone when its lease is, TooFewNodes, MetaLied, what ``ask`` raises."""
        batch = self._puts.get(segment.lease.lease_id)
        if batch is None:
            self._puts = {key: one for key, one in self._puts.items() if one.is_busy}
            batch = self._puts[segment.lease.lease_id] = Batch(self._put, asking.MAX_SEGMENTS_ASKED)
        return await batch.ask(segment)

    async def _put(self, segments: list[_Segment]) -> Sequence[Sequence[Place] | Exception]:
        lease = segments[0].lease
        head = asking.PlacePutHead(lease_id=lease.lease_id, segments=[one.ask for one in segments])
        answer = await self._client.ask(asking.PLACE_PUT, head, asking.Places, meta=lease.meta)
        found = _by_ask(answer, {at: set(range(one.wanted.scheme.n)) for at, one in enumerate(segments)})
        return [self._segment_places(one, found.get(at, {})) for at, one in enumerate(segments)]

    def _segment_places(self, segment: _Segment, placed: dict[int, Any]) -> Sequence[Place] | Exception:
        wanted = segment.wanted
        if len(placed) != wanted.scheme.n:
            return TooFewNodes(f"segment {wanted.segment} needs {wanted.scheme.n} places, the meta node gave {len(placed)}: try again later")
        try:
            places = [self._put_place(segment.lease, placed[index], wanted, index) for index in range(wanted.scheme.n)]
        except MetaLied as error:
            return error
        first = bytes(places[0].limit.serial)
        if any(bytes(one.limit.serial) != serial_at(first, index) for index, one in enumerate(places)):
            return MetaLied(f"expected serials of segment {wanted.segment} that follow one another, got others: ask another meta node")
        if len({one.peer.address for one in places}) != len(places):
            return MetaLied(f"expected another node for each share of segment {wanted.segment}, got one twice: ask another meta node")
        return places

    def _put_place(self, lease: Lease, placed: Any, wanted: PutWanted, index: int) -> Place:
        size = wanted.share_bytes
        roots = (wanted.share_roots[index], ANY_ROOT)
        return self._place(lease, placed, PUT, (wanted.object_id,), roots, size, size)

    async def another(self, lease: Lease, head: Any, wanted: PutWanted, index: int, tried: Collection[bytes]) -> Place | None:
        """One more place for a share; None when there is none."""
        try:
            answer = await self._client.ask(asking.PLACE_ANOTHER, head, asking.Places, meta=lease.meta)
        except (TooFewNodes, NotFound):
            return None
        found = _by_ask(answer, {0: {index}}).get(0, {})
        if index not in found:
            return None
        place = self._put_place(lease, found[index], wanted, index)
        return None if place.peer.address in tried else place

    async def get(self, object_id: bytes, wanted: GetWanted) -> Place | None:
        """The holder of a share; None when nobody has it. Raises NotFound, MetaLied, what ``hold`` and ``ask`` raise."""
        return await self._gets.ask((object_id, wanted))

    async def _get(self, asks: list[tuple[bytes, GetWanted]]) -> Sequence[Place | Exception | None]:
        total = sum(one.size_bytes for _, one in asks)
        for left in reversed(range(LEASES_TRIED)):
            hold = await self._leases.hold(total)
            lease = hold.lease
            head = asking.PlaceGetHead(lease_id=lease.lease_id)
            for object_id, one in asks:
                head.shares.add(object_id=object_id, segment=one.segment, index=one.index, size_bytes=one.size_bytes)
            try:
                answer = await self._client.ask(asking.PLACE_GET, head, asking.Places, meta=lease.meta)
                break
            except (LeaseGone, MetaUnreachable):
                self._leases.lost(lease)
                if not left:
                    raise
            finally:
                self._leases.give_back(hold)
        else:
            raise AssertionError("unreachable")
        found = _by_ask(answer, {at: {one.index} for at, (_, one) in enumerate(asks)})
        places: list[Place | Exception | None] = []
        for at, (object_id, one) in enumerate(asks):
            placed = found.get(at, {}).get(one.index)
            try:
                places.append(None if placed is None else self._get_place(lease, placed, object_id, one))
            except MetaLied as error:
                places.append(error)
        return places

    def _get_place(self, lease: Lease, placed: Any, object_id: bytes, wanted: GetWanted) -> Place:
        return self._place(lease, placed, GET, (wanted.object_root, object_id), None, wanted.size_bytes, wanted.size_bytes)

    def _place(
        self, lease: Lease, placed: Any, action: int, objects: Iterable[bytes], roots: Iterable[bytes] | None, size_bytes: int, most_noz: int
    ) -> Place:
        """A PlacedShare that is what was asked. Raises MetaLied."""
        try:
            limit = opened(OrderLimit, placed.order_limit.body)
        except Refused as error:
            raise MetaLied(f"the meta node's order limit is none: {error}") from None
        session, key = self._client.session, bytes(placed.p2p_key)
        if len(key) != MAX_KEY_BYTES:
            raise MetaLied(f"expected a node's key of {MAX_KEY_BYTES} bytes from the meta node, got {len(key)}")
        for what, is_right in (
            ("chain", limit.chain_id == self._client.chain_id),
            ("session", limit.session_pubkey == session.public_key and limit.wallet == session.wallet),
            ("lease", limit.lease_id == lease.lease_id),
            ("node", limit.node == bech32.encode(p2p.address_of(key), bech32.NODE)),
            ("action", limit.action == action),
            ("object", limit.object_root in tuple(objects)),
            ("share", len(limit.share_root) == HASH_BYTES and (roots is None or limit.share_root in tuple(roots))),
            ("size", limit.max_bytes == size_bytes),
            ("price", limit.max_noz <= max(1, most_noz)),
            ("serial", _is_serial_of(limit.serial, limit.meta_node)),
            ("time", limit.expires_s > self._client.clock() - 60),
        ):
            if not is_right:
                raise MetaLied(f"the meta node's order limit is for another {what} than was asked for: ask another meta node")
        relay = placed.relay if placed.HasField("relay") else None
        return Place(self._client.peer(key, placed.endpoint, relay), key, placed.order_limit, lease.certificate)


def _is_serial_of(serial: bytes, meta_node: str) -> bool:
    """Whether a serial is one of a meta node (as text), with room for those of a segment's other shares."""
    prefix = serial_prefix(node_of(meta_node) or b"")
    return len(serial) == SERIAL_BYTES and serial.startswith(prefix) and serial[PREFIX_BYTES:-1] != b"\xff" * (SERIAL_BYTES - PREFIX_BYTES - 1)


def _by_ask(answer: Any, wanted: dict[int, set[int]]) -> dict[int, dict[int, Any]]:
    """Places by the question and the share that they are for. Raises MetaLied for one that was not asked for, or twice."""
    if len(answer.places) > sum(len(one) for one in wanted.values()):
        raise MetaLied(f"expected at most {sum(len(one) for one in wanted.values())} places from the meta node, got {len(answer.places)}")
    found: dict[int, dict[int, Any]] = {}
    for one in answer.places:
        if one.index not in wanted.get(one.ask, ()) or one.index in found.setdefault(one.ask, {}):
            raise MetaLied(f"the meta node gave a place for share {one.index} of question {one.ask}, which was not asked for, or twice")
        found[one.ask][one.index] = one
    return found
