"""What one meta node may have in a mempool, in a block and in the log, so that one that floods costs the others little, and its users do not stop it.

    CheckTx ─ Waiting: 62 operations and 16 MiB of a sender, one of a nonce, in this meta node's mempool ─ decided, refused again, out of time ─► room again
    a block ─ Block: 62 operations and 2 MiB of a sender, each in time, under nonces that are free one after the other; none of one that has 16 GiB in the
              log of this day ─► proposed by all honest ones, accepted by them
    of all that, and of a day, three quarters are for what users ask for; the last quarter is for what a meta node owes: windows, releases, leases' ends, …

What a block may hold follows from the ledger as its last commit left it and from the block's time, so it is the same on all meta nodes. A sender's bytes of a day are counted by
the rules (``sent``), whether its operations were applied or refused, and one that was decided is in no block again, as its nonce is used. So the log grows by at most 16 GiB and
2 MiB a day for each sender, whatever it signs. 200 objects a second, in commits of one object in 30 shares (690 bytes), are 11 GiB a day.

Source: docs/adr/0010.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sds_node.meta.ledger.errors import Refused
from sds_node.meta.rules.apply import NONCE_WINDOW, used_by
from sds_node.meta.rules.tables import DAY_MS, Meta, Sent

MOST_WAITING: Final = NONCE_WINDOW
"""Operations of one sender in the mempool: what is further ahead could not be applied out of order anyway."""
MOST_WAITING_BYTES: Final = 16 << 20
MOST_IN_BLOCK: Final = NONCE_WINDOW
MOST_IN_BLOCK_BYTES: Final = 2 << 20
"""Half a block, so that one sender never keeps the others' operations out."""
MOST_A_DAY_BYTES: Final = 16 << 30
_OF_USERS: Final = frozenset({"take_lease", "commit", "wallet_order", "legacy_order", "advance_sequence"})


def is_of_users(operation: Any) -> bool:
    """Whether a user asked for an Operation. All others a meta node makes by itself; so it does a commit without objects, with which a lease ends."""
    kind = operation.WhichOneof("kind")
    return kind in _OF_USERS and (kind != "commit" or bool(operation.commit.objects))


def part_of(most: int, is_users: bool) -> int:
    """How much of a bound there is for such operations: users' leave a quarter."""
    return most - most // 4 if is_users else most


@dataclass(frozen=True, slots=True)
class Sender:
    """An active meta node that has a ledger key, as of the last commit, and what it has in the log."""

    meta: Meta
    sent: Sent | None

    @property
    def key(self) -> bytes:
        """Its ledger key, 32 bytes."""
        return self.meta.ledger_key

    def has_room(self, time_ms: int, is_users: bool) -> bool:
        """Whether the log takes more of it on the day of ``time_ms``, of what users ask for or of its own."""
        sent = self.sent
        return sent is None or sent.day != time_ms // DAY_MS or sent.size_bytes < part_of(MOST_A_DAY_BYTES, is_users)


@dataclass(frozen=True, slots=True)
class Held:
    """An operation: whose, under which key its signature was found right, until when it may be applied, whether a user asked for it."""

    sender: bytes
    key: bytes
    size_bytes: int
    nonce: int
    until_s: int
    is_users: bool

    @classmethod
    def of(cls, sender: Sender, operation: Any, size_bytes: int) -> Held:
        """The Operation that a sender signed, in so many bytes."""
        return cls(sender.meta.address, sender.key, size_bytes, int(operation.nonce), int(operation.until_s), is_of_users(operation))


@dataclass(slots=True)
class _Tally:
    """Operations of one sender: how many and how large, and of these the users'."""

    count: int = 0
    size_bytes: int = 0
    users_count: int = 0
    users_bytes: int = 0

    def has_room(self, size_bytes: int, is_users: bool, most: int, most_bytes: int) -> bool:
        """Whether one more is within the bounds."""
        if is_users and (self.users_count >= part_of(most, is_users=True) or self.users_bytes + size_bytes > part_of(most_bytes, is_users=True)):
            return False
        return self.count < most and self.size_bytes + size_bytes <= most_bytes

    def change(self, one: Held, by: int) -> None:
        """One more, or one less."""
        self.count, self.size_bytes = self.count + by, self.size_bytes + by * one.size_bytes
        if one.is_users:
            self.users_count, self.users_bytes = self.users_count + by, self.users_bytes + by * one.size_bytes


class Block:
    """What a block at ``time_ms`` has of each sender."""

    def __init__(self, senders: Mapping[bytes, Sender], time_ms: int) -> None:
        self._senders, self._time_ms = senders, time_ms
        self._tallies: dict[bytes, _Tally] = {}
        self._metas: dict[bytes, Meta] = {}
        """Rows as they are after what was taken."""

    def take(self, one: Held) -> bool:
        """Whether one more operation of an active meta node has room in the block, is in time, and has a nonce that neither the ledger nor an operation taken
        before has used; it is counted then."""
        sender = self._senders[one.sender]
        tally = self._tallies.setdefault(one.sender, _Tally())
        if not tally.has_room(one.size_bytes, one.is_users, MOST_IN_BLOCK, MOST_IN_BLOCK_BYTES) or not sender.has_room(self._time_ms, one.is_users):
            return False
        try:
            self._metas[one.sender] = used_by(self._metas.get(one.sender, sender.meta), one.nonce, one.until_s, self._time_ms)
        except Refused:
            return False
        tally.change(one, 1)
        return True


@dataclass(slots=True)
class _Sender:
    """What waits of one."""

    tally: _Tally = field(default_factory=_Tally)
    nonces: set[int] = field(default_factory=set)


class Waiting:
    """Operations in this meta node's mempool by their SHA-256, as far as it can know: CometBFT does not say what it drops by itself."""

    def __init__(self) -> None:
        self._held: dict[bytes, Held] = {}
        self._by_sender: dict[bytes, _Sender] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, digest: bytes) -> Held | None:
        """The operation of that digest, if it waits."""
        return self._held.get(digest)

    def has_room(self, one: Held) -> bool:
        """Whether one more operation may wait: within the bounds, and none of its sender has its nonce, since a block takes one of them."""
        there = self._by_sender.get(one.sender) or _Sender()
        return one.nonce not in there.nonces and there.tally.has_room(one.size_bytes, one.is_users, MOST_WAITING, MOST_WAITING_BYTES)

    def add(self, digest: bytes, one: Held) -> None:
        """Count an operation that is not counted yet, for which there is room."""
        self._held[digest] = one
        there = self._by_sender.setdefault(one.sender, _Sender())
        there.tally.change(one, 1)
        there.nonces.add(one.nonce)

    def forget(self, digest: bytes) -> None:
        """It is decided, or was refused. Nothing where it is not counted."""
        if (one := self._held.pop(digest, None)) is None:
            return
        there = self._by_sender[one.sender]
        there.tally.change(one, -1)
        there.nonces.discard(one.nonce)
        if not there.tally.count:
            del self._by_sender[one.sender]

    def end(self, now_s: int) -> None:
        """Forget what no block can apply any more."""
        for digest in [digest for digest, one in self._held.items() if one.until_s < now_s]:
            self.forget(digest)

    def clear(self) -> None:
        """CometBFT has begun anew, with an empty mempool."""
        self._held.clear()
        self._by_sender.clear()
