"""What a commit is checked for before it enters the ledger: the ledger sees neither limits nor acknowledgements.

    StoredShare {limit, ack} ─ this meta node signed the limit, for this lease, session and object ─ the node signed the ack, for this share and serial
    StoredSegment            ─ roots of shares under the segment's; enough shares; owners and networks differ; serials follow the first one
    StoredObject             ─ roots of segments under the object's; no serial twice in it, in whatever part it comes

Limits and acknowledgements prove themselves, so a commit holds after a restart of the meta node, too. Everything here is a function of bytes and rows and may
run in any thread. Source: storage-protocol.md 3.4; docs/adr/0008 (serials), 0009.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from sortedcontainers import SortedList

from modules.settlement.documents import OrderLimit
from modules.settlement.leaves import PUT, SERIAL_BYTES
from sds_node import asking
from sds_node.documents import Refused, check_ack, check_signature, opened
from sds_node.hashes import is_hash
from sds_node.merkle import object_root, segment_root
from sds_node.meta.ledger.errors import Refused as RefusedByRule
from sds_node.meta.rules.files import check_record
from sds_node.meta.rules.refusals import BAD_OBJECT
from sds_node.meta.rules.tables import NODE_BYTES, Node, Object
from sds_node.meta.users.asked import HASH_BYTES, need, refuse
from sds_node.meta.users.leases import ObjectInHand
from sds_node.meta.users.sessions import Session
from sds_node.schemes import Scheme, scheme_of, segment_count, segment_size, share_bytes
from sds_node.transfers import ANY_ROOT

MAX_OBJECTS_ASKED: Final = 1_024
MAX_RECORD_BYTES: Final = 4_096
"""Of a FileRecord: above what the ledger takes, which says more about what is wrong."""
MAX_HASH_CHARACTERS: Final = 64
_LAST_SERIAL: Final = 1 << 128


@dataclass(frozen=True, slots=True)
class Share:
    """A share as it was handed in: its StoredShare and the OrderLimit in it."""

    given: Any
    limit: Any
    serial: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as it was handed in. ``number`` counts within the object."""

    number: int
    size_bytes: int
    root: bytes
    share_roots: Sequence[bytes]
    shares: Sequence[Share]
    first_serial: int
    others: Mapping[int, int]
    """Index → serial of shares that have one of their own."""


@dataclass(frozen=True, slots=True)
class Given:
    """An object as it was handed in, its form checked."""

    key: bytes
    stored: Any
    scheme: Scheme
    count: int
    """Segments that the whole object has."""
    segments: Sequence[Segment]

    @property
    def end(self) -> int:
        """The number after its last segment here."""
        return int(self.stored.first_segment) + len(self.segments)


@dataclass(slots=True)
class Progress:
    """Segments of an object that are in the ledger: their roots and serials."""

    scheme: Scheme
    roots: list[bytes] = field(default_factory=list)
    firsts: SortedList = field(default_factory=SortedList)
    others: set[int] = field(default_factory=set)

    def add(self, segment: Segment) -> None:
        """Take a segment's serials. Refuses one that is used."""
        first, n = segment.first_serial, self.scheme.n
        at = self.firsts.bisect_left(first)
        is_beside = (at == 0 or self.firsts[at - 1] + n <= first) and (at == len(self.firsts) or first + n <= self.firsts[at])
        strangers = set(segment.others.values())
        is_new = is_beside and self.others.isdisjoint(strangers) and not any(first <= one < first + n for one in self.others | strangers)
        need(
            is_new and len(strangers) == len(segment.others) and not any(self._is_used(one) for one in strangers),
            asking.ACK_REFUSED,
            f"segment {segment.number} is stored under serials of which one stands for another share of the object",
        )
        self.note(segment.root, first, strangers)

    def _is_used(self, serial: int) -> bool:
        at = self.firsts.bisect_right(serial)
        return bool(at) and self.firsts[at - 1] <= serial < self.firsts[at - 1] + self.scheme.n

    def note(self, root: bytes, first: int, others: Collection[int]) -> None:
        """A segment that is in the ledger."""
        self.roots.append(root)
        self.firsts.add(first)
        self.others.update(others)


def parse_object(stored: Any, key: bytes) -> Given:
    """A StoredObject of a commit, its form checked. Refuses what no object has."""
    scheme = scheme_of(stored.data_shares, stored.total_shares)
    count = segment_count(stored.size_bytes)
    need(len(stored.root) == HASH_BYTES, asking.BAD_ASK, f"object {stored.counter}: expected a root of {HASH_BYTES} bytes")
    is_short = len(stored.file_hash) <= MAX_HASH_CHARACTERS and stored.file.ByteSize() <= MAX_RECORD_BYTES
    need(is_short, asking.BAD_ASK, f"object {stored.counter}: expected a file hash and a record of at most {MAX_RECORD_BYTES} bytes")
    need(
        is_hash(stored.file_hash),
        asking.LEDGER_CODES + BAD_OBJECT,
        f"object {stored.counter}: expected a file hash of 40 characters, got {stored.file_hash!a}",
    )
    try:
        check_record(stored.file)
    except RefusedByRule as error:
        refuse(asking.LEDGER_CODES + error.code, f"object {stored.counter}: {error.reason}")
    need(
        stored.first_segment + len(stored.segments) <= count and (bool(stored.segments) or not count),
        asking.BAD_ASK,
        f"object {stored.counter} has {count} segments, got {len(stored.segments)} from {stored.first_segment} on",
    )
    segments = [_parse_segment(stored, scheme, number, one) for number, one in enumerate(stored.segments, stored.first_segment)]
    return Given(key, stored, scheme, count, segments)


def _parse_segment(stored: Any, scheme: Scheme, number: int, given: Any) -> Segment:
    what = f"segment {number} of object {stored.counter}"
    roots = [bytes(one) for one in given.share_roots]
    need(len(roots) == scheme.n and all(len(one) == HASH_BYTES for one in roots), asking.BAD_ASK, f"{what}: expected the roots of {scheme.n} shares")
    indexes = [one.index for one in given.shares]
    is_ordered = all(left < right for left, right in pairwise(indexes)) and all(one < scheme.n for one in indexes)
    need(is_ordered, asking.BAD_ASK, f"{what}: expected its shares by index, each once, from 0 to {scheme.n - 1}")
    need(
        len(indexes) >= scheme.confirmed_at,
        asking.ACK_REFUSED,
        f"{what} has {len(indexes)} acknowledged shares and needs {scheme.confirmed_at}: store more of them before the commit",
    )
    shares = [_parse_share(what, one) for one in given.shares]
    first = Counter(one.serial - one.given.index for one in shares).most_common(1)[0][0]
    need(first >= 0 and first + scheme.n < _LAST_SERIAL, asking.ACK_REFUSED, f"{what}: its serials are too near to the first or last there can be")
    others = {one.given.index: one.serial for one in shares if one.serial - one.given.index != first}
    size = segment_size(stored.size_bytes, number)
    return Segment(number, size, segment_root(roots), roots, shares, first, others)


def _parse_share(what: str, given: Any) -> Share:
    try:
        limit = opened(OrderLimit, given.order_limit.body)
    except Refused as error:
        refuse(asking.ACK_REFUSED, f"{what}, share {given.index}: {error}")
    need(len(limit.serial) == SERIAL_BYTES, asking.ACK_REFUSED, f"{what}, share {given.index}: expected a serial of {SERIAL_BYTES} bytes")
    return Share(given, limit, int.from_bytes(limit.serial, "big"))


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges shares of one commit. ``meta_node`` is this meta node's address as text, ``ledger_key`` the public key that its limits are signed by."""

    chain_id: str
    meta_node: str
    key: bytes
    lease_id: bytes
    session: Session
    nodes: Mapping[str, Node]
    """By their address as text."""
    prefixes: Mapping[str, bytes]
    """Theirs, as this meta node hears them: the ledger's word is that of any one meta node."""

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        """As an ``Authority``; an acknowledgement names no meta node."""
        return None

    def active_meta_nodes(self) -> Collection[bytes]:
        return ()

    def check_object(self, given: Given, segments: Sequence[Segment], progress: Progress, in_hand: ObjectInHand | None) -> None:
        """Check the segments of an object that are new, and the root of a complete one. ``progress`` has those before them, and these afterwards."""
        for one in segments:
            self._check_segment(given, one, in_hand)
            progress.add(one)
        if given.end == given.count:
            found = object_root(progress.roots)
            need(
                found == given.stored.root,
                asking.BAD_ASK,
                f"object {given.stored.counter}: the roots of its segments are under {found.hex()}, got {given.stored.root.hex()}",
            )

    def _check_segment(self, given: Given, segment: Segment, in_hand: ObjectInHand | None) -> None:
        what = f"segment {segment.number} of object {given.stored.counter}"
        size = share_bytes(given.scheme, segment.size_bytes)
        placed = in_hand.segments.get(segment.number) if in_hand is not None else None
        rows, prefixes = [], []
        for share in segment.shares:
            issued = placed.places.get(share.given.index) if placed is not None else None
            is_known = issued is not None and issued.order_limit == share.given.order_limit
            try:
                rows.append(self._check_share(given.key, share, segment.share_roots[share.given.index], size, is_known=is_known))
            except Refused as error:
                refuse(asking.ACK_REFUSED, f"{what}, share {share.given.index}: {error}")
            # Where this meta node placed the share it saw to the networks by what it heard then.
            prefixes.append(issued.prefix if issued is not None and is_known else self.prefixes[share.limit.node])
        need(len({row.owner for row in rows}) == len(rows), asking.ACK_REFUSED, f"{what}: two of its shares are with one owner of nodes")
        known = [one for one in prefixes if one]
        need(len({*known}) == len(known), asking.ACK_REFUSED, f"{what}: two of its shares are in one network")

    def _check_share(self, key: bytes, share: Share, root: bytes, size: int, *, is_known: bool) -> Node:
        """The node of a share that it holds, by its limit and acknowledgement. Raises documents.Refused."""
        limit, given = share.limit, share.given
        if not is_known:
            check_signature(OrderLimit, given.order_limit, self.key, "this meta node")
        found = (limit.chain_id, limit.meta_node, limit.lease_id, limit.wallet, limit.session_pubkey, limit.action, limit.object_root)
        wanted = (self.chain_id, self.meta_node, self.lease_id, self.session.wallet_text, self.session.public_key, PUT, key)
        if found != wanted:
            raise Refused("expected an order limit for a put of this object, by this session, from this lease")
        if limit.share_root not in (ANY_ROOT, root):
            raise Refused(f"expected an order limit for share {root.hex()}, got one for {limit.share_root.hex()}")
        if limit.max_bytes != size:
            raise Refused(f"expected an order limit for a share of {size} bytes, got one for {limit.max_bytes}")
        node = self.nodes.get(limit.node)
        if node is None:
            raise Refused(f"the ledger knows no node {limit.node[:64]}")
        if given.p2p_key != node.p2p_key:
            raise Refused(f"expected the key of {limit.node}, got {given.p2p_key.hex()[:64]}")
        check_ack(given.ack, self, node.p2p_key, serial=bytes(limit.serial), share_root=root, size_bytes=size)
        return node


def packed_nodes(segment: Segment, scheme: Scheme, nodes: Mapping[str, Node]) -> bytes:
    """The ``nodes`` column of a segment's row."""
    numbers = {one.given.index: nodes[one.limit.node].number for one in segment.shares}
    return b"".join([numbers.get(index, 0).to_bytes(NODE_BYTES, "big") for index in range(scheme.n)])


def check_same(given: Given, row: Object) -> None:
    """Refuses what is handed in under the name of another object."""
    stored = given.stored
    said = (stored.root, stored.file_hash, stored.size_bytes, stored.data_shares, stored.total_shares)
    need(
        said == (row.root, row.file_hash, row.size_bytes, row.k, row.n),
        asking.BAD_ASK,
        f"object {stored.counter} of this lease is in the ledger as another one, root {row.root.hex()}: count on for the next one",
    )
