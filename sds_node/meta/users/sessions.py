"""Sessions: which key may spend for which wallet, until when.

    WalletDocument {SessionGrant} + the key that TLS proved ─► Session          forgotten at the grant's end, and when this process ends

The grant is judged by the lines that judge it on chain, so a limit that is issued under it can be paid. Its path is for clients: records are found by
hashes of paths here, so it is not looked at. Source: docs/adr/0009 (a session is a connection's key); storage-protocol.md 4.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, Final

from modules.settlement.commitment import wallet_of
from modules.settlement.documents import OrderLimit, SessionGrant, decoded, wallet_signed
from modules.settlement.leaves import faults_of_grant
from sds_node import asking
from sds_node.meta.users.asked import need, refuse
from sds_node.meta.users.placement import Barred
from sds_node.p2p import address_of
from sds_node.wire import errors as wire_errors

MAX_SESSIONS: Final = 100_000
MAX_SESSIONS_OF_WALLET: Final = 1_000
MAX_OPENED: Final = 1_000
"""Shares that a session has open; the one that was opened first is closed for one more."""
OPENS_PER_S: Final = 10
OPERATIONS_PER_S: Final = 100
_SLACK: Final = 1_000


@dataclass(slots=True)
class Rate:
    """So many a second, and at once. Time is an argument in Unix seconds."""

    per_s: int
    left: float = -1.0
    at_s: float = 0.0

    def take(self, now_s: float) -> bool:
        """Whether one more may be done now."""
        most = float(self.per_s)
        self.left = most if self.left < 0 else min(most, self.left + max(0.0, now_s - self.at_s) * self.per_s)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True


def _opens() -> Rate:
    return Rate(OPENS_PER_S)


def _operations() -> Rate:
    return Rate(OPERATIONS_PER_S)


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
    barred: Barred = field(default_factory=Barred)
    """Owners and networks that hold nothing of what it stores: a gateway's own."""
    opens: Rate = field(default_factory=_opens)
    """Tries to open shares."""
    operations: Rate = field(default_factory=_operations)
    """Leases and orders, of all sessions of the wallet: also what the ledger refuses is in its log."""

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
        if not self.operations.take(now_s):
            raise wire_errors.Busy(f"a wallet may take or order {OPERATIONS_PER_S} things a second: try again in a moment")


class Sessions:
    """The sessions of one meta node, by the address of their key. ``clock`` tells Unix seconds."""

    def __init__(self, chain_id: str, clock: Callable[[], float]) -> None:
        self._chain_id, self._clock = chain_id, clock
        self._sessions: dict[bytes, Session] = {}
        self._of_wallet: Counter[bytes] = Counter()
        self._operations: dict[bytes, Rate] = {}
        self._ends: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, document: Any, address: bytes) -> Session:
        """The session of a WalletDocument with a SessionGrant, for the caller with that address. One that is open already goes on under the new grant.

        Refuses what the chain would not take as evidence, a grant of another key, and more sessions than there is room for.
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
        return self.add(Session(wallet, grant.wallet, bytes(grant.session_pubkey), address, grant, document), now_s)

    def add(self, new: Session, now_s: int) -> Session:
        """Keep a session, whose authority somebody has checked, until its end. Refuses more than there is room for."""
        self.expire(now_s)
        before, rate = self._sessions.get(new.address), self._operations.get(new.wallet, new.operations)
        if before is not None and before.wallet == new.wallet:
            new.opened, new.opens = before.opened, before.opens
        self._forget(new.address)
        need(len(self._sessions) < MAX_SESSIONS, asking.TRY_ANOTHER, f"{MAX_SESSIONS} sessions are open here: try another meta node")
        need(
            self._of_wallet[new.wallet] < MAX_SESSIONS_OF_WALLET,
            asking.BAD_GRANT,
            f"wallet {new.wallet_text} has {MAX_SESSIONS_OF_WALLET} sessions open here: use one of them",
        )
        self._sessions[new.address] = new
        self._of_wallet[new.wallet] += 1
        new.operations = self._operations.setdefault(new.wallet, rate)
        heappush(self._ends, (new.expires_s, new.address))
        if len(self._ends) > 2 * len(self._sessions) + _SLACK:
            # Keys that open again and again leave old ends behind.
            self._ends = [(one.expires_s, one.address) for one in self._sessions.values()]
            heapify(self._ends)
        return new

    def of(self, address: bytes) -> Session:
        """The session of a caller. Refuses one that has none."""
        found = self._sessions.get(address)
        if found is not None and self._clock() < found.expires_s:
            return found
        refuse(asking.NO_SESSION, "this connection's key has no session here, or its grant has ended: open one with a grant of the wallet")

    def expire(self, now_s: float) -> None:
        """Forget sessions whose grant has ended."""
        while self._ends and self._ends[0][0] <= now_s:
            _, address = heappop(self._ends)
            found = self._sessions.get(address)
            if found is not None and found.expires_s <= now_s:
                self._forget(address)

    def _forget(self, address: bytes) -> None:
        found = self._sessions.pop(address, None)
        if found is not None:
            self._of_wallet[found.wallet] -= 1
            if not self._of_wallet[found.wallet]:
                del self._of_wallet[found.wallet]
                del self._operations[found.wallet]
