"""The lease book: what of each lease in hand is promised, reserved, paid and left. In memory alone; the ledger has what is true in the end.

    lease ─┬─ issued: ranges [from, to), ascending, none twice         a limit's noz come back when it is done, or 300 s after it expired unused;
           │                                                           one for storing keeps them until 300 s after its segment's commit, or the lease's end
           ├─ outstanding: limits that are not done, and the governed share that a window takes on top of them
           ├─ escrow: of shares that were placed and not committed
           ├─ spent: receipts in windows, escrow of commits, tenths of what was not used
           └─ left: what may still be promised

A receipt is taken until 120 s after its limit's end (``lateness.py``), so none comes for noz that are promised anew: whatever order windows and commits come
in, the ledger's row has enough for each. Rounding is against the lease by at most one noz for each limit; what is over goes back when it is settled.
Source: storage-protocol.md 2 (lease), 3.3, 3.6; docs/adr/0009.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

from sds_node import asking
from sds_node.meta.rules.tables import Lease, State
from sds_node.meta.users.asked import need, refuse
from sds_node.meta.users.sessions import Session
from sds_node.schemes import RATIO_ONE, Scheme
from sds_node.wire import errors as wire_errors

MAX_LEASES: Final = 100_000
MAX_LIMITS: Final = 100_000
"""Of a lease: as many as a node takes of one."""
MAX_OUTSTANDING: Final = 1_000_000
"""Limits of all leases whose receipts may still come."""
MAX_OUTSTANDING_OF_WALLET: Final = 100_000

Slot = tuple[int, int, int]
"""(object's counter, segment, share's index)"""


class Outstanding(NamedTuple):
    """A limit whose receipt may still come, or be paid: its noz with what is taken on top, from when on ``free_s`` runs, and whether it is for reading."""

    noz: int
    expires_s: int
    is_read: bool
    slot: Slot | None = None
    """The share that is stored by it."""


class Reserved(NamedTuple):
    """A share's part of the bill: by receipt and as escrow."""

    receipt_noz: int
    escrow_noz: int

    @property
    def bill_noz(self) -> int:
        return self.receipt_noz + self.escrow_noz


@dataclass(slots=True)
class Issued:
    """Where a share was placed: the node, and the SignedDocument of its limit."""

    node: Any
    """Its Contact at that time."""
    owner: bytes
    prefix: bytes
    serial: int
    order_limit: Any
    expires_s: int


@dataclass(slots=True)
class SegmentInHand:
    """A segment that was placed and not committed. ``tries`` counts choices, so that each has a seed of its own."""

    size_bytes: int
    share_roots: tuple[bytes, ...]
    places: dict[int, Issued] = field(default_factory=dict)
    given: list[tuple[int, bytes, bytes, int]] = field(default_factory=list)
    """Every place of it that was ever given: (share's index, owner, prefix, node's number). A node that was replaced may have the share all the same."""
    tries: int = 0
    replaced: int = 0
    """How often a share got another place because its client asked."""

    @property
    def is_in_a_row(self) -> bool:
        """Whether its serials follow one another: not after a share was placed again."""
        first = min((one.serial - index for index, one in self.places.items()), default=0)
        return all(one.serial - index == first for index, one in self.places.items())


@dataclass(slots=True)
class ObjectInHand:
    """An object that was asked for under a lease: it keeps the scheme of its first ask."""

    object_id: bytes
    size_bytes: int
    scheme: Scheme
    seed: bytes
    segments: dict[int, SegmentInHand] = field(default_factory=dict)


@dataclass(slots=True)
class Held:
    """A lease in hand."""

    row: Lease
    noz: int
    repair_ratio_e18: int
    escrow_ratio_e18: int
    issued_noz: int = 0
    """Where the next range begins."""
    limits: int = 0
    spent_noz: int = 0
    outstanding: dict[bytes, Outstanding] = field(default_factory=dict)
    outstanding_noz: int = 0
    ends: list[tuple[int, bytes]] = field(default_factory=list)
    """A heap of (end in seconds, serial) of limits that were issued: a session under a shorter grant gets some that end before older ones."""
    waiting: dict[Slot, list[bytes]] = field(default_factory=dict)
    """Serials that were issued for shares of segments without a commit: what is stored is paid after that."""
    reserved: dict[Slot, Reserved] = field(default_factory=dict)
    escrow_noz: int = 0
    replaced_noz: int = 0
    """Reservations of places that the client had replaced; a tenth of them is for the repair fund."""
    objects: dict[int, ObjectInHand] = field(default_factory=dict)
    block_hash: bytes | None = None
    """Of the first block after the lease."""
    is_ended: bool = False
    is_settling: bool = False
    commits: int = 0
    """Under way."""

    @property
    def id(self) -> bytes:
        return self.row.id

    @property
    def ends_s(self) -> int:
        return self.row.ends_ms // 1_000

    @property
    def left_noz(self) -> int:
        """What may still be promised."""
        return self.noz - self.spent_noz - self.outstanding_noz - self.escrow_noz

    def with_share(self, noz: int, is_read: bool) -> int:
        """What receipts of so many noz take from the lease at most: the governed share of charges comes on top of reads."""
        return noz + on_top(noz, self.repair_ratio_e18) if is_read else noz


def on_top(noz: int, repair_ratio_e18: int) -> int:
    """The governed share of a charge, rounded up: a window rounds the sum of many down."""
    return -(-noz * repair_ratio_e18 // RATIO_ONE)


class LeaseBook:
    """The leases that were taken in this process. Its functions do not wait, so what one of them checks and does is one step.

    ``clock`` tells Unix seconds. ``free_s`` is how long after a limit's end its noz are kept: until its receipt is in a window if it came in time.
    """

    def __init__(self, clock: Callable[[], float], free_s: int) -> None:
        self._clock, self._free_s = clock, free_s
        self._held: dict[bytes, Held] = {}
        self._of_session: Counter[bytes] = Counter()
        self._outstanding = 0
        self._outstanding_of: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    def is_full(self) -> bool:
        """Whether no lease may be added."""
        return len(self._held) >= MAX_LEASES

    def add(self, row: Lease, state: State) -> Held:
        """A lease that was taken now, by its row in the ledger, under the ledger's parameters."""
        held = self._held[row.id] = Held(row, row.noz, state.repair_ratio_e18, state.escrow_ratio_e18)
        self._of_session[row.session_pubkey] += 1
        return held

    def has_session(self, public_key: bytes) -> bool:
        """Whether a session with that key has a lease in hand."""
        return public_key in self._of_session

    def get(self, lease_id: bytes) -> Held | None:
        """A lease in hand, ended or not."""
        return self._held.get(lease_id)

    def forget(self, lease_id: bytes) -> None:
        """It is settled."""
        held = self._held.pop(lease_id, None)
        if held is None:
            return
        for serial in list(held.outstanding):
            self._drop(held, serial)
        key = held.row.session_pubkey
        self._of_session[key] -= 1
        if not self._of_session[key]:
            del self._of_session[key]

    def usable(self, lease_id: bytes, session: Session) -> Held:
        """A lease of a session's from which limits may be issued. Refuses any other."""
        held = self._held.get(lease_id)
        if held is None:
            refuse(
                asking.LEASE_LOST, f"lease {lease_id.hex()[:64]} is not in hand here: it is over, or was taken before this start; take another one"
            )
        if (held.row.wallet, held.row.session_pubkey) != (session.wallet, session.public_key):
            refuse(asking.LEASE_LOST, f"lease {lease_id.hex()} is another session's: take one of your own")
        if held.is_ended or held.is_settling or self._clock() >= held.ends_s:
            refuse(asking.LEASE_LOST, f"lease {lease_id.hex()} has ended: take another one")
        self.expire(held)
        return held

    def check(self, held: Held, limits: Iterable[int], escrow_noz: int = 0, *, is_read: bool) -> None:
        """Refuses limits of these noz and so much more escrow when the lease has too little left for all of them."""
        amounts = list(limits)
        needed, bare = sum(held.with_share(one, is_read) for one in amounts) + escrow_noz, sum(amounts)
        if needed > held.left_noz or held.issued_noz + bare > held.noz:
            left = max(0, min(held.left_noz, held.noz - held.issued_noz))
            refuse(asking.LEASE_SPENT, f"lease {held.id.hex()} has {left} of {held.noz} noz left, {needed} are needed: take another one")
        need(held.limits + len(amounts) <= MAX_LIMITS, asking.LEASE_SPENT, f"{MAX_LIMITS} order limits of this lease were issued: take another one")
        if self._outstanding_of[held.row.wallet] + len(amounts) > MAX_OUTSTANDING_OF_WALLET:
            raise wire_errors.Busy(f"{MAX_OUTSTANDING_OF_WALLET} order limits of this wallet are in use: wait until their receipts have come in")
        if self._outstanding + len(amounts) > MAX_OUTSTANDING:
            raise wire_errors.Busy(f"{self._outstanding} order limits are in use here: try again in a minute, or another meta node")

    def issue(self, held: Held, serial: bytes, noz: int, expires_s: int, *, is_read: bool, slot: Slot | None = None) -> tuple[int, int]:
        """The range [from, to) of a limit of ``noz``, after ``check``. It is given to nobody else. ``slot``: the share that is to be stored by it, which is
        reserved next."""
        begin = held.issued_noz
        held.issued_noz += noz
        held.limits += 1
        charged = held.with_share(noz, is_read)
        held.outstanding[serial] = Outstanding(charged, expires_s, is_read, slot)
        if slot is not None:
            held.waiting.setdefault(slot, []).append(serial)
        held.outstanding_noz += charged
        heappush(held.ends, (expires_s, serial))
        self._outstanding += 1
        self._outstanding_of[held.row.wallet] += 1
        return begin, held.issued_noz

    def done(self, lease_id: bytes, serial: bytes, noz: int) -> None:
        """The receipt of a serial is in a window on the ledger with so many noz, or was refused for good (0)."""
        held = self._held.get(lease_id)
        if held is None:
            return
        one = self._drop(held, serial)
        held.spent_noz += held.with_share(noz, one is None or one.is_read)

    def reserve(self, held: Held, slot: Slot, share: Reserved) -> None:
        """A share's escrow is kept for its commit."""
        before = held.reserved.get(slot)
        held.reserved[slot] = share
        held.escrow_noz += share.escrow_noz - (before.escrow_noz if before is not None else 0)

    def replace(self, held: Held, slots: Iterable[Slot]) -> None:
        """What is reserved for these shares is given up for other places."""
        held.replaced_noz += sum(held.reserved[slot].bill_noz for slot in slots if slot in held.reserved)

    def release(self, held: Held, slot: Slot) -> Reserved | None:
        """It is not kept any more: its segment was committed, and receipts of it get into windows from now on."""
        share = held.reserved.pop(slot, None)
        if share is not None:
            held.escrow_noz -= share.escrow_noz
        now_s = int(self._clock())
        for serial in held.waiting.pop(slot, ()):
            if (one := held.outstanding.get(serial)) is not None:
                held.outstanding[serial] = one._replace(expires_s=max(one.expires_s, now_s))
                heappush(held.ends, (held.outstanding[serial].expires_s, serial))
        return share

    def expire(self, held: Held) -> None:
        """The noz of limits that have been over for long enough come back, but not those of shares whose segments may still be committed."""
        over_s = self._clock() - self._free_s
        if held.waiting and self._is_over(held):
            for serial in (serial for serials in held.waiting.values() for serial in serials if serial in held.outstanding):
                heappush(held.ends, (held.outstanding[serial].expires_s, serial))
            held.waiting.clear()
        while held.ends and (held.ends[0][0] <= over_s or held.ends[0][1] not in held.outstanding):
            _, serial = heappop(held.ends)
            one = held.outstanding.get(serial)
            if one is None or one.slot in held.waiting:
                continue
            if one.expires_s > over_s:
                heappush(held.ends, (one.expires_s, serial))
            else:
                self._drop(held, serial)

    def _is_over(self, held: Held) -> bool:
        return held.is_ended or self._clock() >= held.ends_s + self._free_s

    def may_commit(self, lease_id: bytes) -> bool:
        """Whether a commit under a lease may still come into the ledger, as far as is known here: not under one in hand that was ended."""
        held = self._held.get(lease_id)
        return held is None or not held.is_ended or held.commits > 0

    def _drop(self, held: Held, serial: bytes) -> Outstanding | None:
        one = held.outstanding.pop(serial, None)
        if one is None:
            return None
        held.outstanding_noz -= one.noz
        self._outstanding -= 1
        self._outstanding_of[held.row.wallet] -= 1
        if not self._outstanding_of[held.row.wallet]:
            del self._outstanding_of[held.row.wallet]
        return one

    def is_due(self, held: Held) -> bool:
        """Whether a lease may be settled: ended, and no receipt or commit can come any more."""
        if held.is_settling or held.commits:
            return False
        self.expire(held)
        return not held.outstanding and self._is_over(held)
