"""Places: nodes and order limits for the shares of a put or a get.

    place.put       scheme by N, kept for the object ─► nodes drawn ─► per share: receipt's part in the limit, escrow beside it, bytes promised
    place.another   a node failed ─► one more of another owner and prefix than all that hold a share; the place that is given up costs as one not used
    place.get       object ─ may this session read it? ─► the share's holder ─► a limit of the bytes asked for, 1 noz each

A put asked again gets the same places while they are good; those that are not are replaced. A get asked again gets a new limit, as nobody can tell whether
the first one was used. Reading a byte costs one noz, what storing one costs: ozone is traffic bought in advance, a noz about one byte (docs/economics.md).
The holder of a share is the one that the ledger names, so there is nothing to rank: which of the shares are read is the client's choice. Only a gateway's own
nodes are left out while enough others have the segment: with those the gateway would pay itself for what it need not deliver.

Nothing between the check of a lease and the issue of its limits waits, so two asks at once cannot get the same part.

**When blocks are slow.** Nodes are drawn by the first block observed after the lease. The first placement of a lease waits up to ``block_wait_s`` for it; if none
comes, the newest block that is known is taken with the lease's id, and stays for this lease: the id could not be foreseen by the wallet, but the meta node
could have chosen among leases. Without any block the seed is of zeros. Source: storage-protocol.md 3.2, 3.3, 3.6; docs/adr/0009.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from modules.settlement.leaves import GET, PUT, SERIAL_BYTES
from sds_node import asking
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.tables import BLOCK, NODE, SEGMENT, Object, Segment
from sds_node.meta.users.access import readable
from sds_node.meta.users.asked import HASH_BYTES, need, refuse, sized
from sds_node.meta.users.known import Candidate, Contact, Registry, ReportFailure, Settings
from sds_node.meta.users.leases import Held, Issued, LeaseBook, ObjectInHand, Reserved, SegmentInHand
from sds_node.meta.users.limits import LimitSigner, SerialsUsedUp
from sds_node.meta.users.placement import Barred, Pool, Promises, seed_of, segment_seed
from sds_node.meta.users.roots import ShareRoots
from sds_node.meta.users.sessions import BEGUN_BYTES, Session
from sds_node.p2p import ADDRESS_BYTES
from sds_node.schemes import MAX_OBJECT_BYTES, bill_noz, scheme_for, scheme_of, segment_count, segment_size, share_bytes, share_noz, warning
from sds_node.transfers import ANY_ROOT
from sds_node.wire import errors as wire_errors

MAX_IN_HAND: Final = 500_000
"""Places that are remembered, of all leases."""
MAX_IN_HAND_OF_WALLET: Final = 50_000
ANOTHER_TIMES: Final = 2
"""A segment's shares may be given another place so many times the number of its shares."""
MAX_COUNTER: Final = (1 << 63) - 1
GOOD_S: Final = 60
"""A limit that holds so much longer is still a good one to answer with."""
_BLOCKS: Final = 100


def reserved_of(size_bytes: int, escrow_ratio_e18: int) -> Reserved:
    """A share's two parts of the bill. A limit has at least one noz."""
    parts = share_noz(size_bytes, escrow_ratio_e18)
    return Reserved(max(1, parts.receipt_noz), parts.escrow_noz)


class Places:
    """``object.plan`` and ``place.*``."""

    def __init__(
        self,
        ledger: AnyLedger,
        registry: Registry,
        book: LeaseBook,
        signer: LimitSigner,
        roots: ShareRoots,
        clock: Callable[[], float],
        report_failure: ReportFailure,
        settings: Settings,
    ) -> None:
        self._ledger, self._registry, self._book, self._signer, self._roots = ledger, registry, book, signer, roots
        self._clock, self._report_failure, self._settings = clock, report_failure, settings
        self.promises = Promises(clock, settings.limit_s)
        self._in_hand = 0
        self._in_hand_of: Counter[bytes] = Counter()

    # --- what it costs ---

    def plan(self, head: Any, escrow_ratio_e18: int) -> Any:
        """The Plan of a stored size: its scheme, and the noz that a lease for it needs: the bill, and one more for each share that earns nothing by its
        receipt, since no order limit is for nothing.
        """
        scheme = scheme_for(self._registry.count(), head.size_bytes)
        bill = bill_noz(scheme, head.size_bytes)
        for count, size in _segments(head.size_bytes):
            share = reserved_of(share_bytes(scheme, size), escrow_ratio_e18)
            above = share.bill_noz - share_bytes(scheme, size)
            bill += count * scheme.n * above
        return asking.Plan(data_shares=scheme.k, total_shares=scheme.n, bill_noz=bill, warning=warning(scheme) or "")

    # --- puts ---

    async def put(self, session: Session, head: Any) -> Any:
        """The Places of a PlacePutHead: all shares of each segment, in order. Objects that were begun go on when the wallet's day of the log is used."""
        session.allow(PUT)
        held = self._book.usable(sized(head.lease_id, "lease_id"), session)
        asks = head.segments
        need(1 <= len(asks) <= asking.MAX_SEGMENTS_ASKED, asking.BAD_ASK, f"segments: expected 1 to {asking.MAX_SEGMENTS_ASKED}, got {len(asks)}")
        await self._find_block(held)
        held = self._book.usable(held.id, session)
        new: dict[int, ObjectInHand] = {}
        objects = [new.setdefault(ask.counter, self._object(held, ask, new.get(ask.counter))) for ask in asks]
        pairs = [(ask.counter, ask.segment) for ask in asks]
        need(len({*pairs}) == len(pairs), asking.BAD_ASK, "segments: expected each segment once")
        if new.keys() - held.objects.keys():
            session.account.logged.need_room(self._clock(), BEGUN_BYTES)
        self.promises.expire()
        pool = self._pool()
        answer = asking.Places()
        for at, (ask, there) in enumerate(zip(asks, objects, strict=True)):
            self._place_segment(session, held, ask, there, pool)
            held.objects.setdefault(ask.counter, there)
            places = there.segments[ask.segment].places
            for index in range(there.scheme.n):
                self._add(answer, at, index, places[index].node, places[index].order_limit)
        return answer

    def _pool(self) -> Pool:
        def room(one: Candidate) -> int:
            return one.free_bytes - self.promises.of(one.number)

        return Pool(self._registry.candidates(), room)

    def _object(self, held: Held, ask: Any, new: ObjectInHand | None = None) -> ObjectInHand:
        """The object that a PutAsk is for, as it was first asked for or new. Refuses sizes and schemes that do not fit."""
        need(ask.counter <= MAX_COUNTER and ask.object_bytes <= MAX_OBJECT_BYTES, asking.BAD_ASK, "expected a counter below 2^63, a size below 2^44")
        there = held.objects.get(ask.counter) or new
        if there is None:
            scheme = scheme_for(self._registry.count(), ask.object_bytes)
            seed = seed_of(held.block_hash or bytes(HASH_BYTES), held.id, ask.counter)
            there = ObjectInHand(object_id(held.id, ask.counter), ask.object_bytes, scheme, seed)
        scheme = there.scheme
        need(
            (ask.data_shares, ask.total_shares) == (scheme.k, scheme.n),
            asking.BAD_ASK,
            f"object {ask.counter} is stored as {scheme.k} of {scheme.n} shares, got {ask.data_shares} of {ask.total_shares}: make a plan first",
        )
        need(
            ask.object_bytes == there.size_bytes,
            asking.BAD_ASK,
            f"object {ask.counter} was asked for with {there.size_bytes} bytes, got {ask.object_bytes}: count on for another object",
        )
        wanted = segment_size(ask.object_bytes, ask.segment)
        need(ask.segment_bytes == wanted, asking.BAD_ASK, f"segment {ask.segment} has {wanted} bytes, got {ask.segment_bytes}")
        need(
            len(ask.share_roots) in (0, scheme.n) and all(len(one) == HASH_BYTES for one in ask.share_roots),
            asking.BAD_ASK,
            f"share_roots: expected none, or {scheme.n} of {HASH_BYTES} bytes",
        )
        return there

    def _place_segment(self, session: Session, held: Held, ask: Any, there: ObjectInHand, pool: Pool) -> None:
        """Have good places for all shares of a segment: those that are good stay."""
        scheme, roots = there.scheme, tuple(bytes(one) for one in ask.share_roots)
        before = there.segments.get(ask.segment)
        now_s = int(self._clock())
        if (
            before is not None
            and before.share_roots == roots
            and before.is_in_a_row
            and all(self._is_good(one, now_s) for one in before.places.values())
        ):
            return
        segment = before or SegmentInHand(ask.segment_bytes, roots)
        is_other = before is not None and before.share_roots != roots
        # Other content under limits of its own, of which one at most is stored: as for places that are replaced.
        need(
            not is_other or segment.replaced + scheme.n <= ANOTHER_TIMES * scheme.n,
            asking.BAD_ASK,
            f"segment {ask.segment} of object {ask.counter} was asked for with other share roots {ANOTHER_TIMES} times: count on for another object",
        )
        size = share_bytes(scheme, ask.segment_bytes)
        stay = {index: one for index, one in segment.places.items() if self._is_online(one)}
        missing = [index for index in range(scheme.n) if index not in stay]
        barred = session.barred.copy()
        for one in stay.values():
            barred.add(one.owner, one.prefix, one.node.number)
        chosen = self._chosen(pool, len(missing), size, segment_seed(there.seed, ask.segment, segment.tries), barred)
        share = reserved_of(size, held.escrow_ratio_e18)
        new_slots = sum(1 for index in range(scheme.n) if (ask.counter, ask.segment, index) not in held.reserved)
        self._book.check(held, [share.receipt_noz] * scheme.n, share.escrow_noz * new_slots, is_read=False)
        first = self._serials(scheme.n)
        need_room = scheme.n if before is None else 0
        if self._in_hand_of[held.row.wallet] + need_room > MAX_IN_HAND_OF_WALLET:
            raise wire_errors.Busy(f"{MAX_IN_HAND_OF_WALLET} places of this wallet are in use: commit what is stored")
        if self._in_hand + need_room > MAX_IN_HAND:
            raise wire_errors.Busy(f"{self._in_hand} places are in use here: commit what is stored, or try another meta node")
        self._in_hand += need_room
        self._in_hand_of[held.row.wallet] += need_room
        nodes = {index: (one.node, one.owner, one.prefix) for index, one in stay.items()}
        nodes |= {index: found for index, found in zip(missing, chosen, strict=True)}
        if is_other:
            segment.replaced += scheme.n
            self._book.replace(held, ((ask.counter, ask.segment, index) for index in range(scheme.n)))
        segment.share_roots, segment.tries = roots, segment.tries + 1
        there.segments[ask.segment] = segment
        for index in range(scheme.n):
            node, owner, prefix = nodes[index]
            self._give(session, held, there, (ask.counter, ask.segment, index), segment, (node, owner, prefix), first + index, size, share)

    def _chosen(self, pool: Pool, count: int, size: int, seed: bytes, barred: Barred) -> list[tuple[Contact, bytes, bytes]]:
        chosen = pool.choose(count, size, seed, barred) if count else []
        if chosen is None:
            refuse(
                asking.TOO_FEW_NODES, f"expected {count} nodes of different owners and networks with {size} free bytes, there are fewer: ask later"
            )
        found = []
        for one in chosen:
            contact = self._registry.contact(one.number)
            if contact is None:
                refuse(asking.TOO_FEW_NODES, f"node {one.number} has just left: ask again")
            found.append((contact, one.owner, one.prefix))
        return found

    def _give(
        self, session: Session, held: Held, there: ObjectInHand, slot: tuple[int, int, int], segment: SegmentInHand,
        where: tuple[Contact, bytes, bytes], serial: int, size: int, share: Reserved,
    ) -> None:  # fmt: skip
        """Issue a share's limit for a node, after the lease was checked."""
        node, owner, prefix = where
        index = slot[2]
        times_s = self._times(session, held)
        taken = self._book.issue(held, serial.to_bytes(SERIAL_BYTES, "big"), share.receipt_noz, times_s[1], is_read=False, slot=slot)
        root = segment.share_roots[index] if segment.share_roots else ANY_ROOT
        signed = self._signer.sign(held, node, PUT, serial, taken, there.object_id, root, size, times_s)
        self._book.reserve(held, slot, share)
        self.promises.add((held.id, *slot), node.number, size)
        segment.places[index] = Issued(node, owner, prefix, serial, signed, times_s[1])
        segment.given.append((index, owner, prefix, node.number))

    async def another(self, session: Session, head: Any) -> Any:
        """The Places of a PlaceAnotherHead: one more for a share, none when there is no node for it."""
        session.allow(PUT)
        held = self._book.usable(sized(head.lease_id, "lease_id"), session)
        ask, index = head.segment, head.index
        tried = {bytes(one) for one in head.tried}
        need(
            len(head.tried) <= asking.MAX_TRIED and all(len(one) == ADDRESS_BYTES for one in tried),
            asking.BAD_ASK,
            f"tried: expected at most {asking.MAX_TRIED} addresses of {ADDRESS_BYTES} bytes",
        )
        there = self._object(held, ask)
        segment = there.segments.get(ask.segment)
        if segment is None or index not in segment.places:
            refuse(asking.BAD_ASK, f"share {index} of segment {ask.segment} has no place yet: ask for those of the whole segment first")
        roots = tuple(bytes(one) for one in ask.share_roots)
        need(
            segment.share_roots in ((), roots),
            asking.BAD_ASK,
            f"segment {ask.segment} was asked for with other share roots: ask for its places again",
        )
        now = segment.places[index]
        answer = asking.Places()
        if now.node.address not in tried and self._is_good(now, int(self._clock())):
            self._add(answer, 0, index, now.node, now.order_limit)
            return answer
        if now.node.address in tried:
            self._report_failure(now.node.number, f"share {index} of a segment could not be put there", session.wallet)
        self.promises.expire()
        # Whoever may ask for ever chooses the nodes.
        is_left = segment.replaced < ANOTHER_TIMES * there.scheme.n
        found = self._replacement(session, ask, there, segment, index, tried) if is_left else None
        if found is None:
            return answer
        size = share_bytes(there.scheme, segment.size_bytes)
        share = reserved_of(size, held.escrow_ratio_e18)
        slot = (ask.counter, ask.segment, index)
        self._book.check(held, [share.receipt_noz], 0 if slot in held.reserved else share.escrow_noz, is_read=False)
        # At the same place of a row of its own: serials of a segment that were given one by one could stand within the row of the others.
        serial = self._serials(there.scheme.n) + index
        segment.share_roots = roots
        segment.replaced += 1
        self._book.replace(held, (slot,))
        self._give(session, held, there, slot, segment, found, serial, size, share)
        self._add(answer, 0, index, found[0], segment.places[index].order_limit)
        return answer

    def _replacement(
        self, session: Session, ask: Any, there: ObjectInHand, segment: SegmentInHand, index: int, tried: set[bytes]
    ) -> tuple[Contact, bytes, bytes] | None:
        """A node of another owner and prefix than those that have or had a place of another share, that was not tried."""
        barred = session.barred.copy()
        for other, owner, prefix, number in segment.given:
            barred.numbers.add(number)
            if other != index:
                barred.add(owner, prefix, number)
        size, pool = share_bytes(there.scheme, segment.size_bytes), self._pool()
        while True:
            segment.tries += 1
            chosen = pool.choose(1, size, segment_seed(there.seed, ask.segment, segment.tries), barred)
            if chosen is None:
                return None
            contact = self._registry.contact(chosen[0].number)
            if contact is not None and contact.address not in tried:
                return contact, chosen[0].owner, chosen[0].prefix
            barred.numbers.add(chosen[0].number)

    def _is_online(self, one: Issued) -> bool:
        contact = self._registry.contact(one.node.number)
        return contact is not None and contact.is_online

    def _is_good(self, one: Issued, now_s: int) -> bool:
        return one.expires_s > now_s + min(GOOD_S, self._settings.limit_s // 2) and self._is_online(one)

    # --- gets ---

    async def get(self, session: Session, head: Any) -> Any:
        """The Places of a PlaceGetHead; shares that nobody holds, or whose node is away, are left out."""
        session.allow(GET)
        held = self._book.usable(sized(head.lease_id, "lease_id"), session)
        asks = head.shares
        need(1 <= len(asks) <= asking.MAX_SHARES_ASKED, asking.BAD_ASK, f"shares: expected 1 to {asking.MAX_SHARES_ASKED}, got {len(asks)}")
        ids = {sized(ask.object_id, "object_id") for ask in asks}
        now_ms = int(self._clock() * 1_000)

        def look(view: ReadView) -> tuple[dict[bytes, Object], dict[tuple[bytes, int], Segment], set[int]]:
            objects = {key: row for key in ids if (row := readable(view, session, key, now_ms)) is not None}
            wanted = {(bytes(ask.object_id), ask.segment) for ask in asks if bytes(ask.object_id) in objects}
            rows = {}
            for key, segment in wanted:
                if segment < objects[key].segments and (found := view.get(SEGMENT, (objects[key].first_segment + segment,))) is not None:
                    rows[key, segment] = found
            return objects, rows, _barred_of(view, session.barred, rows)

        objects, segments, barred = await self._ledger.query(look)
        for ask in asks:
            self._check_get(ask, objects.get(bytes(ask.object_id)))
        roots = await self._roots.of(list(segments.values()))
        held = self._book.usable(held.id, session)
        found = []
        for at, ask in enumerate(asks):
            row = segments.get((bytes(ask.object_id), ask.segment))
            number = nodes_of(row.nodes)[ask.index] if row is not None else 0
            if row is not None and number in barred and self._without(row, barred) >= objects[bytes(ask.object_id)].k:
                continue
            contact = self._registry.contact(number) if number else None
            if row is not None and contact is not None and contact.is_online and row.number in roots:
                found.append((at, ask, contact, objects[bytes(ask.object_id)].root, roots[row.number][ask.index]))
        self._book.check(held, [ask.size_bytes for _, ask, _, _, _ in found], is_read=True)
        answer = asking.Places()
        first = self._serials(len(found))
        times_s = self._times(session, held)
        for serial, (at, ask, contact, root, share_root) in enumerate(found, first):
            taken = self._book.issue(held, serial.to_bytes(SERIAL_BYTES, "big"), ask.size_bytes, times_s[1], is_read=True)
            signed = self._signer.sign(held, contact, GET, serial, taken, root, share_root, ask.size_bytes, times_s)
            self._add(answer, at, ask.index, contact, signed)
        return answer

    def _without(self, row: Segment, barred: set[int]) -> int:
        """How many shares of a segment others can give."""
        others = [self._registry.contact(number) for number in nodes_of(row.nodes) if number and number not in barred]
        return sum(1 for one in others if one is not None and one.is_online)

    @staticmethod
    def _check_get(ask: Any, row: Object | None) -> None:
        if row is None:
            refuse(asking.NOT_HELD, f"object {bytes(ask.object_id).hex()} is not stored, or this wallet may not read it")
        if ask.segment >= row.segments or ask.index >= row.n:
            refuse(asking.BAD_ASK, f"expected share 0 to {row.n - 1} of segment 0 to {row.segments - 1}, got {ask.index} of {ask.segment}")
        size = share_bytes(scheme_of(row.k, row.n), segment_size(row.size_bytes, ask.segment))
        need(1 <= ask.size_bytes <= size, asking.BAD_ASK, f"size_bytes: expected 1 to {size}, as the share has, got {ask.size_bytes}")

    # --- both ---

    def _serials(self, count: int) -> int:
        try:
            return self._signer.serials(count)
        except SerialsUsedUp as error:
            raise wire_errors.Busy(f"{error}; meanwhile ask another meta node") from None

    def _times(self, session: Session, held: Held) -> tuple[int, int]:
        """From when until when a limit holds that is issued now: within its lease and its session's grant."""
        now_s = int(self._clock())
        created_s = max(now_s, int(session.grant.not_before_s))
        expires_s = min(now_s + self._settings.limit_s, held.ends_s, session.expires_s)
        need(created_s < expires_s, asking.LEASE_LOST, f"lease {held.id.hex()} or its session's grant ends now: take another one")
        return created_s, expires_s

    @staticmethod
    def _add(answer: Any, ask: int, index: int, node: Contact, order_limit: Any) -> None:
        place = answer.places.add(ask=ask, index=index, p2p_key=node.p2p_key, endpoint=node.endpoint, order_limit=order_limit)
        if node.relay is not None:
            place.relay.CopyFrom(node.relay)

    async def _find_block(self, held: Held) -> None:
        """Have the block by which nodes are drawn for a lease: waits for it a little."""
        tries = max(1, int(self._settings.block_wait_s / self._settings.poll_s))
        for at in range(tries + 1):
            if held.block_hash is not None:
                return
            first, newest = await self._ledger.query(lambda view: _blocks(view, held.row.made_ms))
            found: bytes | None = first if first is not None or at < tries else newest
            if found is not None:
                held.block_hash = held.block_hash or found
                return
            if at < tries:
                await asyncio.sleep(self._settings.poll_s)
        held.block_hash = held.block_hash or bytes(HASH_BYTES)

    def committed(self, held: Held, counter: int, segments: Sequence[int], *, is_complete: bool) -> None:
        """Segments of an object are in the ledger: their places are needed no more."""
        there = held.objects.get(counter)
        if there is None:
            return
        for number in segments:
            self._drop(held, counter, there, number)
        if is_complete:
            self._drop_object(held, counter)

    def forget(self, held: Held) -> None:
        """A lease is settled."""
        for counter in list(held.objects):
            self._drop_object(held, counter)

    def _drop_object(self, held: Held, counter: int) -> None:
        there = held.objects.pop(counter)
        for number in list(there.segments):
            self._drop(held, counter, there, number)

    def _drop(self, held: Held, counter: int, there: ObjectInHand, number: int) -> None:
        if there.segments.pop(number, None) is None:
            return
        self._in_hand -= there.scheme.n
        self._in_hand_of[held.row.wallet] -= there.scheme.n
        if not self._in_hand_of[held.row.wallet]:
            del self._in_hand_of[held.row.wallet]
        for index in range(there.scheme.n):
            self.promises.release((held.id, counter, number, index))


def _segments(size_bytes: int) -> list[tuple[int, int]]:
    """(how many, their size) of an object's full segments and of its last one."""
    count = segment_count(size_bytes)
    return [] if not count else [(count - 1, segment_size(size_bytes, 0)), (1, segment_size(size_bytes, count - 1))]


def _barred_of(view: ReadView, barred: Barred, rows: dict[tuple[bytes, int], Segment]) -> set[int]:
    """Numbers of the holders of segments that a session shall not ask."""
    if not barred.owners and not barred.prefixes:
        return set()
    nodes = {number: view.get(NODE, (number,)) for row in rows.values() for number in nodes_of(row.nodes) if number}
    return {number for number, one in nodes.items() if one is not None and (one.owner in barred.owners or one.prefix in barred.prefixes)}


def _blocks(view: ReadView, made_ms: int) -> tuple[bytes | None, bytes | None]:
    """The hash of the first observed block that came after a time, and of the newest one; None where there is none."""
    first = newest = None
    end: tuple[int, ...] = ()
    while True:
        page = view.scan(BLOCK, end=end, limit=_BLOCKS, reverse=True)
        for row in page:
            newest = newest or row.block_hash
            if row.made_ms <= made_ms:
                return first, newest
            first = row.block_hash
        if len(page) < _BLOCKS:
            return first, newest
        end = (page[-1].number,)
