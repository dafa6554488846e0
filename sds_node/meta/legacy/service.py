"""``legacy.open``, ``legacy.order``, ``wallet.look``; and the sequence number, which goes on when a task is over.

    string ─ Strings ─► session of the connection's key for one task (tasks.py) ─ Guard ─► the users' handlers
                     └► LegacyOrder ─► ledger
    lease.end, or the string is about to be too old ─► AdvanceSequence

A number is signed again and again while its task goes on, so it moves at the task's end. The ledger takes the string for that only while it is fresh, so a
task that lasts longer moves it before. A number that did not move, because this node stopped, is used for the next task: the strings themselves are used
once. Source: storage-protocol.md 5; sds.md 5.6, 7.2; docs/adr/0009.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, Protocol

import structlog

from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from modules.settlement.documents import SessionGrant
from modules.settlement.leaves import SERIAL_BYTES
from sds_node import asking
from sds_node.documents import PACKAGE
from sds_node.handles import HandleError, parse_wallet
from sds_node.meta.ledger import errors as ledger_errors
from sds_node.meta.legacy.guard import Guard, Lender
from sds_node.meta.legacy.strings import Strings, action_of, refuse
from sds_node.meta.legacy.tasks import ACTIONS, LIFE_S, Task
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.rules.refusals import USED_BEFORE
from sds_node.meta.users.asked import handler
from sds_node.meta.users.files import wallet_row
from sds_node.meta.users.placement import Barred
from sds_node.meta.users.sessions import Session
from sds_node.requests import FRESH_S, Action, UsedStrings
from sds_node.schemes import MAX_OBJECT_BYTES
from sds_node.wire.connection import Connection, Handler

log = structlog.get_logger("legacy")

AdvanceSequence: Final = message_class(f"{PACKAGE}.AdvanceSequence")
WalletDocument: Final = message_class("stratos.settlement.v1.WalletDocument")
MAX_TASKS: Final = 100_000
MAX_DONE: Final = 10_000
"""Orders that were done here lately."""
EARLY_S: Final = 30
"""So long before its string gets too old the number of a task that still goes on is moved."""
STEP_S: Final = 5.0
_ORDERS: Final = {"delete": Action.DELETE_FILE, "share": Action.CREATE_SHARE, "unshare": Action.STOP_SHARE}


class SessionBook(Protocol):
    """The users' sessions."""

    def add(self, new: Session, now_s: int) -> Session:
        """Keep a session until its end. Refuses more than there is room for."""
        ...

    def of(self, address: bytes) -> Session:
        """The session of a caller. Refuses one that has none."""
        ...


class Nodes(Protocol):
    """The registry, as far as it is asked here."""

    def candidates(self) -> Any: ...
    def count(self) -> int: ...


class Legacy:
    """The legacy side of one meta node. Everything runs in one event loop.

    ``online``: addresses of the meta nodes that are there; ``prefix_of`` a caller's host → its network prefix as the registry writes them, empty when it is
    not known. Put ``guarded(users.handlers())`` and ``handlers()`` on the wire, and call ``run`` as a task.
    """

    def __init__(
        self,
        proposer: Proposer,
        sessions: SessionBook,
        lender: Lender,
        nodes: Nodes,
        clock: Callable[[], float],
        *,
        online: Callable[[], list[bytes]],
        prefix_of: Callable[[str], bytes],
        used: UsedStrings | None = None,
    ) -> None:
        self._proposer, self._ledger, self._sessions, self._nodes = proposer, proposer.ledger, sessions, nodes
        self._clock, self._prefix_of = clock, prefix_of
        self.strings = Strings(self._ledger, proposer.address, online, clock, used)
        self._tasks: OrderedDict[bytes, Task] = OrderedDict()
        self._done: OrderedDict[bytes, None] = OrderedDict()
        guard = Guard(self._ledger, lender, nodes.count, self._task_of, sessions.of, self._advance, self._forget)
        self.guarded = guard.guarded

    def handlers(self) -> dict[str, Handler]:
        """The methods for ``wire.node.Node``."""
        return {
            asking.LEGACY_OPEN: handler(asking.LegacySession, self._open),
            asking.LEGACY_ORDER: handler(asking.LegacyOrder, self._order),
            asking.WALLET_LOOK: handler(asking.WalletHead, self._look),
        }

    # --- methods ---

    async def _look(self, head: Any, connection: Connection) -> Any:
        try:
            address = parse_wallet(head.wallet)
        except HandleError as error:
            refuse(asking.BAD_ASK, str(error))
        return await self._ledger.query(lambda view: wallet_row(view, address))

    async def _open(self, head: Any, connection: Connection) -> Any:
        kind = head.WhichOneof("task")
        if kind is None:
            refuse(asking.BAD_ASK, "expected a string for upload, download, download_shared or read, got none")
        if kind == "upload" and head.size_bytes > MAX_OBJECT_BYTES:
            refuse(asking.BAD_ASK, f"size_bytes: expected at most {MAX_OBJECT_BYTES}, got {head.size_bytes}")
        ask, wallet, now_s = getattr(head, kind), bytes(head.wallet), int(self._clock())
        await self.strings.accepted(wallet, ask, action_of(kind, ask))
        self._expire(now_s)
        if len(self._tasks) >= MAX_TASKS:
            refuse(asking.NOT_READY, f"{MAX_TASKS} legacy sessions are open here: try again in a moment")
        remote = connection.remote
        task = Task(kind, wallet, ask.subject, ask, head.size_bytes, remote.public_key, now_s + LIFE_S, is_done=kind == "read")
        barred = await self._barred(remote.host) if kind == "upload" else Barred()
        # Made here and signed by nobody: it says what this session may ask for. What nodes show for their pay is the string.
        grant = SessionGrant(
            chain_id=self._proposer.chain_id, wallet=bech32.encode(wallet), session_pubkey=remote.public_key, actions=ACTIONS[kind], path_prefix="/",
            max_noz=(1 << 63) - 1, not_before_s=now_s - 1, expires_s=now_s + LIFE_S, nonce=bytes(SERIAL_BYTES),
        )  # fmt: skip
        made = Session(wallet, bech32.encode(wallet), remote.public_key, remote.address, grant, WalletDocument(), barred=barred)
        self._sessions.add(made, now_s)
        self._tasks.pop(remote.address, None)
        self._tasks[remote.address] = task
        return await self._ledger.query(lambda view: wallet_row(view, wallet))

    async def _barred(self, host: str) -> Barred:
        """The network that a gateway calls from, and the owners of the nodes in it: whoever runs a node beside it is no holder."""
        prefix = self._prefix_of(host)
        if not prefix:
            return Barred()
        owners = {one.owner for one in self._nodes.candidates() if one.prefix == prefix}
        return Barred(owners=owners, prefixes={prefix})

    async def _order(self, head: Any, connection: Connection) -> None:
        kind = head.WhichOneof("kind")
        if kind is None:
            refuse(asking.BAD_ASK, "expected an order to delete, share or unshare, got none")
        await self.strings.accepted(bytes(head.wallet), head.ask, _ORDERS[kind])
        digest = sha256(encode(known(head))).digest()
        try:
            await self._proposer.propose("legacy_order", head)
        except LedgerRefused as error:
            # Sent again since the answer was lost: it is done.
            if error.code != USED_BEFORE or digest not in self._done:
                raise
            return
        self._done[digest] = None
        if len(self._done) > MAX_DONE:
            self._done.popitem(last=False)

    # --- tasks ---

    def _task_of(self, address: bytes) -> Task | None:
        return self._tasks.get(address)

    def _forget(self, address: bytes) -> None:
        self._tasks.pop(address, None)

    def _expire(self, now_s: int) -> None:
        while self._tasks:
            address = next(iter(self._tasks))
            if self._tasks[address].ends_s > now_s:
                return
            del self._tasks[address]

    async def _advance(self, task: Task) -> None:
        """The wallet's number goes on by one, once for a task that took a lease."""
        if task.is_done or not task.leases:
            return
        task.is_done = True
        message = AdvanceSequence(wallet=task.wallet)
        getattr(message, task.kind).CopyFrom(task.ask)
        try:
            await self._proposer.propose("advance_sequence", message)
        except LedgerRefused as error:
            # Another task with the same number was faster, or it took too long.
            log.info("a sequence number stays", wallet=bech32.encode(task.wallet), why=str(error))

    async def run(self) -> None:
        """Move the numbers of tasks that last long, forget those that are over; until it is cancelled."""
        while True:
            await asyncio.sleep(STEP_S)
            await self.step()

    async def step(self) -> None:
        """One look at all tasks."""
        now_s = int(self._clock())
        self._expire(now_s)
        late = [one for one in self._tasks.values() if not one.is_done and one.leases and one.ask.timestamp_s + FRESH_S - EARLY_S <= now_s]
        for task in late:
            try:
                await self._advance(task)
            except ledger_errors.LedgerError as error:
                task.is_done = False
                log.warning("a sequence number is moved later", why=str(error))
