"""Nodes are given the manifests of objects whose shares they hold, behind what users do: the ledger's log is followed, nobody waits for it.

    log ─ changes ─► segments ─ the object's duty is mine ─► manifest, signed once ─► object.keep ─► every node that holds a share
                                                                                       └ away, or does not answer ─► lags behind ─► later

An empty object, such as a folder's record, has no shares: a few nodes keep its manifest, those that come first in SHA-256(object ‖ node) of those that are
there. A walk over all objects gives these again each week, since nodes come and go.

A message has many objects of one node. What no log and no lagging row brings (a renewal by a tick, a holder of the duty that died, a node with a new
disk) the comparison of a node does: ``compared.py``. Source: docs/meta-nodes.md; sds_node/manifests.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

import nacl.signing
import structlog

from chain.codec.canonical import encode
from sds_node import manifests
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.nodes.calls import Calls
from sds_node.meta.nodes.hello import BadEndpoint
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rebuild.lagging import Lagging, LaggingError
from sds_node.meta.rebuild.stating import Changes, changes, manifest_of
from sds_node.meta.repair.health import read_segments
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.tables import GONE, OBJECT, Node, Object, Segment
from sds_node.meta.users.roots import RootsError, ShareRoots
from sds_node.transfers import CopyKey
from sds_node.wire import errors as wire_errors

log = structlog.get_logger("manifests")

LOOK_S: Final = 3.0
SETTLES_MS: Final = 2_000
"""Operations are looked at when they are so old: then their share roots are here."""
PAGE: Final = 100
"""Segments at a time, so at most so many manifests in a message to a node."""
RECORD_SEGMENTS: Final = 8
"""When its record changes, the nodes of so many of an object's segments hear of it: the newest manifest counts, whoever keeps it."""
KEEPERS: Final = 6
"""So many nodes keep the manifest of an empty object."""
WALK_PAGE: Final = 500
WALK_S: Final = 7 * 86_400
"""How often all objects are walked over for empty ones."""
AT_ONCE: Final = 8
ANSWER_S: Final = 30.0
AGAIN_S: Final = 60.0
"""A node that did not take a message is tried again after so long."""
UNKNOWN_AGAIN_S: Final = 120.0
"""Share roots that were not known are asked for again after so long."""


class Nodes(Protocol):
    """The nodes of the ledger (``nodes/registry.py``)."""

    def rows(self) -> dict[int, Node]: ...

    def is_online(self, row: Node) -> bool: ...


Read = tuple[list[tuple[Segment, Object, list[bytes]]], dict[bytes, Any]]
"""Segments with their copies' serials, and manifests by object id."""


@dataclass(slots=True)
class Parcel:
    """What a node gets in one message. ``unknown``: segments of which it gets nothing yet, since their share roots are not known."""

    segments: set[int] = field(default_factory=set)
    message: Any = field(default_factory=manifests.ObjectList)
    unknown: set[int] = field(default_factory=set)


class Giving:
    """Gives manifests of one meta node (``address``, 20 bytes), signed with its ledger key. ``is_ours`` says of an object's id whether this one gives them;
    ``clock`` tells Unix seconds. Run ``run`` as a task; ``close`` gives the file at ``path`` back. Raises LaggingError."""

    def __init__(
        self,
        ledger: AnyLedger,
        chain_id: str,
        address: bytes,
        key: nacl.signing.SigningKey,
        registry: Nodes,
        calls: Calls,
        roots: ShareRoots,
        path: Path,
        clock: Callable[[], float],
        is_ours: Callable[[bytes], bool] = lambda object_id: True,
    ) -> None:
        self.ledger, self.chain_id, self.address = ledger, chain_id, address
        self._key, self.registry, self.calls, self._roots, self._clock, self._is_ours = key, registry, calls, roots, clock, is_ours
        self._lagging = Lagging(path)
        self._failed: dict[int, float] = {}
        self._unknown: dict[int, float] = {}
        """Nodes that lag behind with segments whose share roots were not known → when it was."""
        self.given = 0
        """Manifests that nodes took since this process began."""

    async def run(self, look_s: float = LOOK_S) -> None:
        """Give what changed, until cancelled."""
        while True:
            try:
                await self.step()
            except (LedgerError, RootsError, LaggingError) as error:
                log.error("nodes are not given manifests now; it is tried again", why=str(error))
            await asyncio.sleep(look_s)

    async def step(self) -> None:
        """Give all that changed until a moment ago, then what nodes lag behind with. Raises LedgerError, RootsError, LaggingError."""
        is_all = False
        while not is_all:
            after, before_ms = await self._lagging.place(), int(self._clock() * 1_000) - SETTLES_MS
            found: Changes = await self.ledger.query(partial(changes, after=after, before_ms=before_ms))
            await self._give_changed(found)
            if found.after != after:
                await self._lagging.came_to(found.after)
            is_all = found.is_all
        for node in await self._lagging.nodes():
            await self._catch_up(node)
        await self._walk()

    def close(self) -> None:
        """Give the file back."""
        self._lagging.close()

    async def _give_changed(self, found: Changes) -> None:
        numbers = set(found.segments)
        for objects, most in ((found.complete, None), (found.records - found.complete, RECORD_SEGMENTS)):
            rows: list[Object] = await self.ledger.query(partial(_objects, keys=sorted(objects)))
            await self._give_empty([row.id for row in rows if not row.segments and self._is_ours(row.id)])
            for row in rows:
                count = row.committed if most is None else min(row.committed, most)
                for first in range(0, count, PAGE):
                    numbers.update(range(row.first_segment + first, row.first_segment + min(first + PAGE, count)))
                    if len(numbers) >= PAGE:
                        await self.give(sorted(numbers))
                        numbers.clear()
        if numbers:
            await self.give(sorted(numbers))

    async def give(self, numbers: Sequence[int]) -> None:
        """Give the nodes of segments what they are to keep of them; those that do not take it lag behind."""
        for at in range(0, len(numbers), PAGE):
            parcels = await self.parcels(numbers[at : at + PAGE], self._is_ours)
            gate = asyncio.Semaphore(AT_ONCE)

            async def one(node: int, parcel: Parcel, gate: asyncio.Semaphore = gate) -> None:
                async with gate:
                    lags = parcel.unknown
                    if parcel.segments and (self._is_waited_for(node) or not await self.hand(node, parcel)):
                        lags = lags | parcel.segments
                    if lags:
                        await self._lagging.add(node, sorted(lags))

            await together([one(node, parcel) for node, parcel in sorted(parcels.items())])

    async def _walk(self) -> None:
        """A step of the walk over all objects, which begins anew each week."""
        (after, began_s), now_s = await self._lagging.walked(), int(self._clock())
        if not after and now_s - began_s < WALK_S:
            return
        page: list[Object] = await self.ledger.query(lambda view: view.scan(OBJECT, after=(after,) if after else (), limit=WALK_PAGE))
        await self._give_empty([row.id for row in page if not row.segments and self._is_ours(row.id)], replaces=True)
        await self._lagging.walked_to(page[-1].id if len(page) == WALK_PAGE else b"", began_s if after else now_s)

    async def _give_empty(self, keys: Sequence[bytes], *, replaces: bool = False) -> None:
        """Have some nodes keep the manifests of empty objects, whatever they keep of these if it ``replaces``. Those that do not answer are left out: the walk
        comes again."""
        if not keys:
            return
        made: list[Any] = await self.ledger.query(partial(_stated, keys=keys, chain_id=self.chain_id, address=self.address))
        there = [row for row in self.registry.rows().values() if not self._is_waited_for(row.number) and row.standing != GONE]
        by_node: dict[int, list[Any]] = {}
        for manifest in made:
            document = manifests.signed_object(manifest, self._key)
            for row in sorted(there, key=lambda row: sha256(manifest.object_id + row.address).digest())[:KEEPERS]:
                by_node.setdefault(row.number, []).append(document)
        for node, documents in sorted(by_node.items()):
            for at in range(0, len(documents), manifests.MAX_OBJECTS_ASKED):
                parcel = Parcel()
                for document in documents[at : at + manifests.MAX_OBJECTS_ASKED]:
                    parcel.message.objects.add(manifest=document, replaces=replaces)
                if not await self.hand(node, parcel):
                    break

    async def _catch_up(self, node: int) -> None:
        """Give a node what it lags behind with, until it has all or takes no more. Segments whose share roots are not known stay, and are looked at later."""
        row = self.registry.rows().get(node)
        if row is None or row.standing == GONE:
            await self._lagging.forget(node)
            return
        if self._clock() < self._unknown.get(node, 0.0):
            return
        after, unknown = -1, False
        while numbers := await self._lagging.of(node, after):
            after = numbers[-1]
            for at in range(0, len(numbers), PAGE):
                if self._is_waited_for(node):
                    return
                # Whose duty an object is may have changed since: what was begun here is done here.
                part = numbers[at : at + PAGE]
                parcel = (await self.parcels(part, lambda _: True, node)).get(node, Parcel())
                if parcel.segments and not await self.hand(node, parcel):
                    return
                await self._lagging.done(node, [number for number in part if number not in parcel.unknown])
                unknown = unknown or bool(parcel.unknown)
        if unknown:
            self._unknown[node] = self._clock() + UNKNOWN_AGAIN_S
        else:
            self._unknown.pop(node, None)

    def _is_waited_for(self, node: int) -> bool:
        """Whether a node is not there, or has just not answered."""
        row = self.registry.rows().get(node)
        return row is None or not self.registry.is_online(row) or self._clock() < self._failed.get(node, 0.0)

    async def parcels(
        self, numbers: Sequence[int], is_ours: Callable[[bytes], bool], only: int | None = None, replaced: Collection[bytes] = ()
    ) -> dict[int, Parcel]:
        """By node, what its holders of at most 100 segments are to keep; of one node, if that is named. Of objects that are to be ``replaced``, whatever is kept.
        Raises LedgerError, RootsError."""
        read: Read = await self.ledger.query(partial(_read, numbers=numbers, chain_id=self.chain_id, address=self.address))
        segments = [one for one in read[0] if one[1].id in read[1] and is_ours(one[1].id)]
        roots = await self._roots.of([segment for segment, _, _ in segments])
        signed: dict[bytes, Any] = {}
        found: dict[int, Parcel] = {}
        given: set[tuple[int, bytes]] = set()
        rows = self.registry.rows()
        for segment, row, serials in segments:
            if row.id not in signed:
                signed[row.id] = manifests.signed_object(read[1][row.id], self._key)
            for index, node in enumerate(nodes_of(segment.nodes)):
                if not node or only not in (None, node) or (node in rows and rows[node].standing == GONE):
                    continue
                parcel = found.setdefault(node, Parcel())
                if segment.number not in roots:
                    parcel.unknown.add(segment.number)
                    continue
                copy = CopyKey(share_root=roots[segment.number][index], serial=serials[index])
                parcel.segments.add(segment.number)
                if (node, row.id) not in given:
                    given.add((node, row.id))
                    parcel.message.objects.add(manifest=signed[row.id], copy=copy, replaces=row.id in replaced)
                if row.k > 1:
                    parcel.message.roots.add(copy=copy, roots=b"".join(roots[segment.number]))
        return found

    async def hand(self, node: int, parcel: Parcel) -> bool:
        """Whether a node has taken a parcel, or never will."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.calls.ask(node, manifests.KEEP_OBJECTS, body=encode(parcel.message), idle_s=ANSWER_S)
        except (wire_errors.BadRequest, wire_errors.UnknownMethod, wire_errors.TooMuch) as error:
            log.warning("a node keeps no manifests of objects: it is of an older version", node=node, why=str(error))
            return True
        except (wire_errors.WireError, BadEndpoint, TimeoutError) as error:
            log.debug("a node is given manifests later", node=node, why=str(error))
            self._failed[node] = self._clock() + AGAIN_S
            return False
        self._failed.pop(node, None)
        self.given += len(parcel.message.objects)
        return True


async def together(works: Sequence[Awaitable[None]]) -> None:
    """Do all; when one fails, its error is raised once the others are done."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _objects(view: ReadView, keys: Sequence[bytes]) -> list[Object]:
    return [row for key in keys if (row := view.get(OBJECT, (key,))) is not None]


def _stated(view: ReadView, keys: Sequence[bytes], chain_id: str, address: bytes) -> list[Any]:
    made = [manifest_of(view, row, chain_id, address) for row in _objects(view, keys)]
    return [one for one in made if one is not None]


def _read(view: ReadView, numbers: Sequence[int], chain_id: str, address: bytes) -> Read:
    segments = read_segments(view, numbers)
    made: dict[bytes, Any] = {}
    for _, row, _ in segments:
        if row.id not in made and (manifest := manifest_of(view, row, chain_id, address)) is not None:
            made[row.id] = manifest
    return segments, made
