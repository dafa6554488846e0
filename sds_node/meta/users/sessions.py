"""Sessions: which key may spend for which wallet, until when.

    WalletDocument {SessionGrant} + the key that TLS proved ─► Session          forgotten at the grant's end, and when this process ends

A session that a string of the original's clients opened has ``bounds``: every request in it goes through them, at the moment at which it is worked on.
The grant is judged by the lines that judge it on chain, so a limit that is issued under it can be paid. Its path is for clients: records are found by
hashes of paths here, so it is not looked at. A wallet costs nothing: those of which the ledger knows nothing have a small room of their own, where the newest
takes the place of the oldest. In the other room the oldest session goes that has no lease in hand; whoever it was opens another one. Source: docs/adr/0009 (a session is a connection's key); storage-protocol.md 4.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, Final, Protocol

from modules.settlement.commitment import wallet_of
from modules.settlement.documents import OrderLimit, SessionGrant, decoded, wallet_signed
from modules.settlement.leaves import faults_of_grant
from sds_node import asking
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import LedgerRefused
from sds_node.meta.users.asked import need, refuse
from sds_node.meta.users.placement import Barred
from sds_node.p2p import address_of
from sds_node.wire import errors as wire_errors

MAX_SESSIONS: Final = 100_000
MAX_STRANGERS: Final = 2_000
"""Sessions of wallets of which the ledger knows nothing."""
MAX_SESSIONS_OF_WALLET: Final = 1_000
MAX_OPENED: Final = 1_000
"""Shares that a session has open; the one that was opened first is closed for one more."""
OPENS_PER_S: Final = 10
OPERATIONS_PER_S: Final = 100
COMMITS_PER_S: Final = 100
REFUSED_COSTS: Final = 10
"""What is refused counts as so many."""
MAX_LOOSE: Final = 10_000
"""Accounts of wallets without a session, of which something is remembered."""
MOST_LOGGED_BYTES: Final = 64 << 20
"""So much of a log that meta nodes keep together a wallet may fill on a day (UTC) for nothing, at one of them: some 100,000 small files. Of the 12 GiB that a meta
node may have there for its users no wallet has more than a small part. What was placed before is committed for all that: some 40 MiB in three copies."""
BEGUN_BYTES: Final = 4 << 10
"""With less room a wallet gets no lease, and no place for another object: its commits would hardly come in."""
MUCH_LOGGED_BYTES: Final = 1 << 20
NOZ_OF_A_BYTE: Final = 16
"""A byte of the log that is paid with so many noz of escrow does not count: files of 20 KB and more in three copies never do."""
ENVELOPE_BYTES: Final = 192
"""Of an operation, beside what was asked for: chain, sender, nonce, time, signature."""
_DAY_S: Final = 86_400
MAX_IN_LINE: Final = 100
"""Leases and orders of a wallet that wait for their turn."""
_SEARCHED: Final = 1_000
_SLACK: Final = 1_000


@dataclass(slots=True)
class Rate:
    """So many a second, and at once. Time is an argument in Unix seconds."""

    per_s: int
    left: float = 0.0
    at_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Whether one more may be done now."""
        most = float(self.per_s)
        self.left = most if self.at_s is None else min(most, self.left + max(0.0, now_s - self.at_s) * self.per_s)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def charge(self, count: int) -> None:
        """What was done counts as so many more; at most a second's worth is owed."""
        self.left = max(-float(self.per_s), self.left - count)


@dataclass(slots=True)
class Logged:
    """What a wallet has in the ledger's log by this meta node on one day (UTC)."""

    day: int = -1
    size_bytes: int = 0
    is_bounded: bool = True
    """A log that is one meta node's own has room for whoever its operator serves."""

    def need_room(self, now_s: float, message_bytes: int = 0) -> None:
        """Refuses what would come into the log where the wallet has filled its part of the day."""
        self._begin(now_s)
        need(
            not self.is_bounded or self.size_bytes + message_bytes + ENVELOPE_BYTES <= MOST_LOGGED_BYTES,
            asking.TRY_ANOTHER,
            f"this wallet has filled {self.size_bytes} bytes of the ledger's log today (UTC) by this meta node, at most {MOST_LOGGED_BYTES} beyond what it "
            "pays for: go on tomorrow, or under a lease of another meta node",
        )

    @contextlib.contextmanager
    def counting(self, message_bytes: int, now_s: float, paid_noz: int = 0) -> Iterator[None]:
        """Around what proposes an operation: it counts while it is under way, and afterwards unless it certainly came into no log."""
        self._begin(now_s)
        day, more = self.day, max(0, message_bytes + ENVELOPE_BYTES - paid_noz // NOZ_OF_A_BYTE)
        self.size_bytes += more
        try:
            yield
        except (LedgerRefused, LedgerError) as error:
            if not (isinstance(error, LedgerRefused) and error.is_logged) and day == self.day:
                self.size_bytes -= more
            raise

    def _begin(self, now_s: float) -> None:
        if int(now_s) // _DAY_S != self.day:
            self.day, self.size_bytes = int(now_s) // _DAY_S, 0


def _opens() -> Rate:
    return Rate(OPENS_PER_S)


def _operations() -> Rate:
    return Rate(OPERATIONS_PER_S)


def _commits() -> Rate:
    return Rate(COMMITS_PER_S)


@dataclass(slots=True)
class Account:
    """What all sessions of a wallet share."""

    operations: Rate = field(default_factory=_operations)
    """Leases and orders."""
    commits: Rate = field(default_factory=_commits)
    commits_under_way: int = 0
    logged: Logged = field(default_factory=Logged)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of what is tried out and then proposed: two at once could be good each, and not both."""
    in_line: int = 0
    sessions: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    """Addresses of its sessions, the oldest first."""

    def may_propose(self, now_s: float) -> None:
        """One more lease or order may go to the ledger. Raises Busy beyond the rate."""
        if not self.operations.take(now_s):
            raise wire_errors.Busy(f"a wallet may take or order {OPERATIONS_PER_S} things a second: try again in a moment")

    @contextlib.asynccontextmanager
    async def in_turn(self) -> AsyncIterator[None]:
        """A wallet's leases and orders go to the ledger one after another; one that is refused counts as several. Raises Busy when too many wait."""
        if self.in_line >= MAX_IN_LINE:
            raise wire_errors.Busy(f"{self.in_line} leases and orders of this wallet are on their way: try again in a moment")
        self.in_line += 1
        try:
            async with self.turn:
                yield
        except LedgerRefused:
            self.operations.charge(REFUSED_COSTS - 1)
            raise
        finally:
            self.in_line -= 1

    @contextlib.contextmanager
    def logging(self, message: Any, now_s: float) -> Iterator[None]:
        """Around what proposes a lease or an order of the wallet. Refuses more of them than a day has."""
        self.logged.need_room(now_s, message.ByteSize())
        with self.logged.counting(message.ByteSize(), now_s):
            yield


Work = Callable[[Any, Any], Awaitable[Any | None]]
"""(session, the message of a request) → the answer."""


class Bounds(Protocol):
    """What a session is for, where its wallet signed one task and no grant."""

    def check_method(self, method: str) -> None:
        """Refuses what the task does not need."""
        ...

    async def serve(self, method: str, session: Session, message: Any, work: Work) -> Any | None:
        """Do ``work`` if the task allows it for this message."""
        ...


@dataclass(slots=True)
class Session:
    """A key that a wallet lets spend. ``address`` is the wire's of that key."""

    wallet: bytes
    wallet_text: str
    public_key: bytes
    address: bytes
    grant: Any
    """The SessionGrant."""
    document: Any
    """The WalletDocument that it is in."""
    opened: OrderedDict[bytes, bytes] = field(default_factory=OrderedDict)
    """Object id → the key in the ledger of the share that opened it."""
    bounds: Bounds | None = None
    """None: the grant alone says what it may do."""
    barred: Barred = field(default_factory=Barred)
    """Owners and networks that hold nothing of what it stores, and are asked for nothing of what others hold too: a gateway's own."""
    opens: Rate = field(default_factory=_opens)
    """Tries to open shares."""
    account: Account = field(default_factory=Account)
    is_stranger: bool = False
    """The ledger knows nothing of its wallet."""

    @property
    def expires_s(self) -> int:
        return int(self.grant.expires_s)

    def allow(self, action: int) -> None:
        """Refuses an action that the wallet's grant does not name."""
        need(
            action in self.grant.actions, asking.BAD_GRANT, f"the session grant allows actions {list(self.grant.actions)}, not {action}: sign another"
        )

    def note_opened(self, object_id: bytes, share: bytes) -> None:
        """From now on this session may read that object while the share is there."""
        self.opened[object_id] = share
        self.opened.move_to_end(object_id)
        if len(self.opened) > MAX_OPENED:
            self.opened.popitem(last=False)

    def may_open(self, now_s: float) -> None:
        """One more share may be tried. Raises Busy beyond the rate."""
        if not self.opens.take(now_s):
            raise wire_errors.Busy(f"a session may try {OPENS_PER_S} shares a second: try again in a moment")

    def may_propose(self, now_s: float) -> None:
        """One more lease or order may go to the ledger. Raises Busy beyond the rate."""
        self.account.may_propose(now_s)

    def may_commit(self, now_s: float) -> None:
        """One more commit may be looked at. Raises Busy beyond the rate."""
        if not self.account.commits.take(now_s):
            raise wire_errors.Busy(f"a wallet may commit {COMMITS_PER_S} times a second: try again in a moment")


class Sessions:
    """The sessions of one meta node, by the address of their key. ``clock`` tells Unix seconds; ``has_lease`` whether a session with that public key has a
    lease in hand; ``is_log_shared`` whether other meta nodes keep the ledger's log, too, so that a wallet has a part of each day."""

    def __init__(
        self, chain_id: str, clock: Callable[[], float], has_lease: Callable[[bytes], bool] = lambda _: False, *, is_log_shared: bool = True
    ) -> None:
        self._chain_id, self._clock, self._has_lease, self._is_log_shared = chain_id, clock, has_lease, is_log_shared
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._strangers: OrderedDict[bytes, Session] = OrderedDict()
        self._accounts: dict[bytes, Account] = {}
        self._loose: OrderedDict[bytes, Account] = OrderedDict()
        self._filled: dict[bytes, Logged] = {}
        """Of wallets whose account was forgotten, what they have in the log of the day, where that is much: by the day's bounds there are some thousands."""
        self._ends: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._sessions) + len(self._strangers)

    def open(self, document: Any, address: bytes) -> Session:
        """``judged`` and ``add``ed, of a wallet that the ledger knows."""
        return self.add(self.judged(document, address), int(self._clock()))

    def judged(self, document: Any, address: bytes) -> Session:
        """The session of a WalletDocument with a SessionGrant, for the caller with that address; not kept yet.

        Refuses what the chain would not take as evidence, and a grant of another key.
        """
        grant = decoded(SessionGrant, document.body)
        if grant is None:
            refuse(
                asking.BAD_GRANT, f"expected a SessionGrant in canonical form of at most 4,096 bytes, got {len(document.body)} bytes that are none"
            )
        now_s = int(self._clock())
        limit = OrderLimit(
            chain_id=self._chain_id, wallet=grant.wallet, session_pubkey=grant.session_pubkey, action=min(grant.actions, default=0), max_noz=1,
            created_s=now_s, expires_s=now_s + 1,
        )  # fmt: skip
        wallet = wallet_of(grant.wallet)
        if wallet is None:
            refuse(asking.BAD_GRANT, "the session grant names no wallet")
        if len(grant.session_pubkey) != 32 or address_of(grant.session_pubkey) != address:
            refuse(asking.BAD_GRANT, "expected the grant of the key at the other end of this connection: call with the session's key")
        fault = next(faults_of_grant(grant, limit, self._chain_id), None)
        if fault is not None:
            refuse(asking.BAD_GRANT, f"the session grant does not hold at {now_s} s: {fault}")
        if not wallet_signed(document.body, document.public_key, document.signature, wallet):
            refuse(asking.BAD_GRANT, f"{grant.wallet} has not signed the session grant")
        return Session(wallet, grant.wallet, bytes(grant.session_pubkey), address, grant, document)

    def account(self, wallet: bytes) -> Account:
        """What the sessions of a wallet share, also while it has none: orders by strings need no session, and count there."""
        found = self._accounts.get(wallet)
        if found is None:
            found = self._loose.pop(wallet, None) or self._remembered(wallet, Account())
            self._let_loose(wallet, found)
        return found

    def _remembered(self, wallet: bytes, account: Account) -> Account:
        """A new account of a wallet, with what it has in the log of the day."""
        account.logged = self._filled.get(wallet) or Logged(is_bounded=self._is_log_shared)
        return account

    def _drop(self, wallet: bytes, account: Account) -> None:
        """An account is forgotten, but not that its wallet has filled the log."""
        today = int(self._clock()) // _DAY_S
        if account.logged.day == today and account.logged.size_bytes >= MUCH_LOGGED_BYTES:
            self._filled = {one: logged for one, logged in self._filled.items() if logged.day == today} | {wallet: account.logged}

    def _let_loose(self, wallet: bytes, account: Account) -> None:
        self._loose[wallet] = account
        if len(self._loose) > MAX_LOOSE:
            self._drop(*self._loose.popitem(last=False))

    def of_wallet(self, wallet: bytes) -> list[Session]:
        """The sessions of a wallet, 1,000 at most."""
        account = self._accounts.get(wallet)
        return [found for one in account.sessions if (found := self._found(one)) is not None] if account is not None else []

    def add(self, new: Session, now_s: int) -> Session:
        """Keep a session, whose authority somebody has checked, until its end. One of the same key goes on under the new grant. Refuses one for which no other
        can go, and leaves what there was."""
        self.expire(now_s)
        before, room = self._found(new.address), self._room(new)
        account = self._accounts.get(new.wallet) or self._loose.get(new.wallet) or self._remembered(new.wallet, new.account)
        gone = None
        if len(account.sessions) - (new.address in account.sessions) >= MAX_SESSIONS_OF_WALLET:
            gone = self._oldest(account.sessions, new.address) or next(one for one in account.sessions if one != new.address)
        most = MAX_STRANGERS if new.is_stranger else MAX_SESSIONS
        if len(room) - (new.address in room) - (gone in room) >= most:
            first = self._oldest(room, new.address)
            if first is None:
                refuse(asking.TRY_ANOTHER, f"{most} sessions are open here, and in use: try another meta node")
            self._forget(first)
        if gone is not None:
            self._forget(gone)
        if before is not None and before.wallet == new.wallet:
            new.opens = before.opens
            if before.bounds is None and new.bounds is None:
                new.opened = before.opened  # what a task has opened is for that task
        self._forget(new.address)
        room[new.address] = new
        self._loose.pop(new.wallet, None)
        new.account = self._accounts.setdefault(new.wallet, account)
        account.sessions[new.address] = None
        heappush(self._ends, (new.expires_s, new.address))
        if len(self._ends) > 2 * len(self) + _SLACK:
            # Keys that open again and again leave old ends behind.
            self._ends = [(one.expires_s, one.address) for one in (*self._sessions.values(), *self._strangers.values())]
            heapify(self._ends)
        return new

    def known(self, session: Session) -> None:
        """The ledger knows the session's wallet now."""
        if session.is_stranger and self._strangers.get(session.address) is session:
            session.is_stranger = False
            try:
                self.add(session, int(self._clock()))
            except wire_errors.Refused:
                session.is_stranger = True  # it stays where it is until there is room

    def _room(self, session: Session) -> OrderedDict[bytes, Session]:
        return self._strangers if session.is_stranger else self._sessions

    def _found(self, address: bytes) -> Session | None:
        return self._sessions.get(address) or self._strangers.get(address)

    def _oldest(self, addresses: OrderedDict[bytes, Any], other: bytes) -> bytes | None:
        """The oldest session that has no lease in hand; those that have one go to the end, as they are in use. None where the first thousand have."""
        for _ in range(min(len(addresses), _SEARCHED)):
            address = next(iter(addresses))
            found = self._found(address)
            if found is not None and address != other and not self._has_lease(found.public_key):
                return address
            addresses.move_to_end(address)
        return None

    def of(self, address: bytes) -> Session:
        """The session of a caller. Refuses one that has none."""
        found = self._found(address)
        if found is not None and self._clock() < found.expires_s:
            return found
        refuse(asking.NO_SESSION, "this connection's key has no session here, or its grant has ended: open one with a grant of the wallet")

    def expire(self, now_s: float) -> None:
        """Forget sessions whose grant has ended."""
        while self._ends and self._ends[0][0] <= now_s:
            _, address = heappop(self._ends)
            found = self._found(address)
            if found is not None and found.expires_s <= now_s:
                self._forget(address)

    def _forget(self, address: bytes) -> None:
        found = self._sessions.pop(address, None) or self._strangers.pop(address, None)
        if found is None:
            return
        del found.account.sessions[address]
        if not found.account.sessions:
            del self._accounts[found.wallet]
            if found.is_stranger:
                self._drop(found.wallet, found.account)
            else:
                self._let_loose(found.wallet, found.account)
