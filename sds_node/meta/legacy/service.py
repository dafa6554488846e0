"""``legacy.open``, ``legacy.order``, ``wallet.look``; and the sequence number, which goes on when a task is over.

    string ─ Strings ─► session of the connection's key, with one task as its bounds (tasks.py, guard.py) ─► the users' handlers
                     └► LegacyOrder, tried out in the wallet's turn ─► ledger
    lease.end, or the string is about to be too old ─► AdvanceSequence

A number is signed again and again while its task goes on, so it moves at the task's end. The ledger takes the string for that only while it is fresh, so a
task that lasts longer moves it before. A number that did not move, because this node stopped, is used for the next task: the strings themselves are used
once. A session is forgotten with its key's next one, or when there is no room; kept here is what has a lease. Source: storage-protocol.md 5; sds.md 5.6, 7.2; docs/adr/0009.
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
from sds_node.legacy import MAX_UPLOAD_BYTES
from sds_node.meta.ledger import errors as ledger_errors
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.legacy.guard import LEASES_OF_A_TASK, Bounded, Guard, Lender
from sds_node.meta.legacy.strings import Strings, action_of, refuse
from sds_node.meta.legacy.tasks import ACTIONS, LIFE_S, Task
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.rules.leases import MAX_OPEN_LEASES
from sds_node.meta.rules.refusals import TAKEN, USED_BEFORE
from sds_node.meta.rules.shares import is_for_all, share_key, shares_of_link
from sds_node.meta.rules.tables import LEASE, SHARE, Share
from sds_node.meta.users.access import link_of, opened
from sds_node.meta.users.asked import handler
from sds_node.meta.users.files import wallet_row
from sds_node.meta.users.placement import Barred
from sds_node.meta.users.sessions import Account, Session
from sds_node.meta.users.sharing import share_row
from sds_node.requests import FRESH_S, Action, UsedStrings
from sds_node.wire.connection import Connection, Handler

log = structlog.get_logger("legacy")

AdvanceSequence: Final = message_class(f"{PACKAGE}.AdvanceSequence")
WalletDocument: Final = message_class("stratos.settlement.v1.WalletDocument")
SESSIONS_OF_A_STRING: Final = 16
"""A gateway has one for polls, and one more each time that it begins a task again."""
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

    def of_wallet(self, wallet: bytes) -> list[Session]:
        """The sessions of a wallet."""
        ...

    def account(self, wallet: bytes) -> Account:
        """What they share, also while there are none."""
        ...


class Nodes(Protocol):
    """The registry, as far as it is asked here."""

    def rows(self) -> Any: ...
    def prefix(self, row: Any) -> bytes: ...
    def count(self) -> int: ...


class Legacy:
    """The legacy side of one meta node. Everything runs in one event loop.

    ``online``: addresses of the meta nodes that are there; ``prefix_of`` a caller's host → its network prefix as the registry writes them, empty when it is
    not known. Put ``handlers()`` on the wire beside the users', and call ``run`` as a task.
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
        self._under_way: set[Task] = set()
        self._done: OrderedDict[bytes, None] = OrderedDict()
        self._guard = Guard(self._ledger, lender, nodes.count, clock, self._under_way.add, self._ended)

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
        if kind == "upload" and head.size_bytes > MAX_UPLOAD_BYTES:
            refuse(asking.BAD_ASK, f"size_bytes: a string stores at most {MAX_UPLOAD_BYTES} bytes, got {head.size_bytes}: store with ppd")
        ask, wallet, now_s, remote = getattr(head, kind), bytes(head.wallet), int(self._clock()), connection.remote
        task = Task(kind, wallet, ask.subject, ask, head.size_bytes, remote.public_key, now_s + LIFE_S, is_done=kind == "read")
        if kind == "upload" and ask.timestamp_s < now_s - FRESH_S and await self._has_lease(wallet, remote.public_key):
            # This process has begun since. What was stored under that lease is paid, so it may still be committed; no other lease is taken.
            await self.strings.check_late(wallet, ask, action_of(kind, ask), LIFE_S + FRESH_S)
            task.leases, task.is_done = LEASES_OF_A_TASK, True
        else:
            await self.strings.accepted(wallet, ask, action_of(kind, ask))
        self._check_sessions(wallet, ask, remote.address)
        barred = await self._barred(remote.host) if kind != "read" else Barred()
        # Made here and signed by nobody: it says what this session may ask for. What nodes show for their pay is the string.
        grant = SessionGrant(
            chain_id=self._proposer.chain_id, wallet=bech32.encode(wallet), session_pubkey=remote.public_key, actions=ACTIONS[kind], path_prefix="/",
            max_noz=(1 << 63) - 1, not_before_s=now_s - 1, expires_s=now_s + LIFE_S, nonce=bytes(SERIAL_BYTES),
        )  # fmt: skip
        made = Session(
            wallet, bech32.encode(wallet), remote.public_key, remote.address, grant, WalletDocument(), bounds=Bounded(self._guard, task),
            barred=barred,
        )  # fmt: skip
        self._sessions.add(made, now_s)
        return await self._ledger.query(lambda view: wallet_row(view, wallet))

    async def _has_lease(self, wallet: bytes, key: bytes) -> bool:
        """Whether the ledger has a lease of a wallet for that session key, from this meta node, to store with."""

        def look(view: ReadView) -> bool:
            rows = view.scan(LEASE, (wallet,), index="by_wallet", limit=MAX_OPEN_LEASES)
            return any((row.session_pubkey, row.meta_node) == (key, self._proposer.address) and row.is_put_allowed for row in rows)

        return bool(await self._ledger.query(look))

    def _check_sessions(self, wallet: bytes, ask: Any, address: bytes) -> None:
        """Refuses a string that is in use by too many keys: whoever has it could push out the wallet's other sessions."""
        wanted = (ask.subject, ask.sequence, ask.timestamp_s)
        others = [one.bounds.task.ask for one in self._sessions.of_wallet(wallet) if isinstance(one.bounds, Bounded) and one.address != address]
        if sum(1 for one in others if (one.subject, one.sequence, one.timestamp_s) == wanted) >= SESSIONS_OF_A_STRING:
            refuse(asking.LEASE_LOST, f"{SESSIONS_OF_A_STRING} keys have sessions by this string: have the wallet sign again")

    async def _barred(self, host: str) -> Barred:
        """The network that a gateway calls from, and the owners of the nodes in it: whoever runs a node beside it is no holder."""
        prefix = self._prefix_of(host)
        if not prefix:
            return Barred()
        # By what is heard here: another meta node could say in the ledger that all nodes are beside this gateway, or that those which are are not.
        owners = {row.owner for row in self._nodes.rows().values() if self._nodes.prefix(row) == prefix}
        return Barred(owners=owners, prefixes={prefix})

    async def _order(self, head: Any, connection: Connection) -> Any | None:
        """The ShareRow of the share that an order made, or that there was; nothing of any other order."""
        kind = head.WhichOneof("kind")
        if kind is None:
            refuse(asking.BAD_ASK, "expected an order to delete, share or unshare, got none")
        wallet, digest = bytes(head.wallet), sha256(encode(known(head))).digest()
        await self.strings.accepted(wallet, head.ask, _ORDERS[kind])
        if digest in self._done:
            return await self._made(head)  # sent again since the answer was lost
        account = self._sessions.account(wallet)
        account.may_propose(self._clock())
        try:
            async with account.in_turn():
                with account.logging(head, self._clock()):
                    await self._proposer.propose_tried("legacy_order", head)
        except LedgerRefused as error:
            if error.code == USED_BEFORE and digest in self._done:
                return await self._made(head)  # the same order was on its way
            found = await self._leads_there(head) if error.code == TAKEN else None
            if found is None:
                raise
            return found
        self._done[digest] = None
        if len(self._done) > MAX_DONE:
            self._done.popitem(last=False)
        return await self._made(head)

    async def _made(self, head: Any) -> Any | None:
        """The ShareRow of the share that an order has made; nothing when it made none, or that has ended."""
        if head.WhichOneof("kind") != "share":
            return None

        def look(view: ReadView) -> Any | None:
            found = view.get(SHARE, (share_key(head.share.share_id),))
            return share_row(found, link_of(view, found)) if found is not None and found.wallet == bytes(head.wallet) else None

        return await self._ledger.query(look)

    async def _leads_there(self, head: Any) -> Any | None:
        """The ShareRow of a share of the wallet's own that has the link which an order would make, leads to that very content, and for everybody. Nothing when
        only other wallets have such a share: of theirs it cannot be said how long they hold."""
        wanted, link, now_ms = head.share, head.share.also or head.share.link, int(self._clock() * 1_000)
        if wanted.password_check or wanted.wrapped_key:
            return None

        def leads(view: ReadView, share: Share) -> bool:
            found = opened(view, share, now_ms)
            return found is not None and share.wallet == bytes(head.wallet) and is_for_all(share) and bool(found[2].file_hash == head.ask.subject)

        def look(view: ReadView) -> Any | None:
            return next((share_row(one, link) for one in shares_of_link(view, link) if leads(view, one)), None)

        return await self._ledger.query(look)

    # --- tasks ---

    async def _ended(self, task: Task) -> None:
        """A task's lease was ended: its number goes on, now or later."""
        task.is_over = True
        await self._try_advance(task)

    async def _try_advance(self, task: Task) -> None:
        try:
            await self._advance(task)
        except ledger_errors.LedgerError as error:
            task.is_done = False
            log.warning("a sequence number is moved later", why=str(error))

    async def _advance(self, task: Task) -> None:
        """The wallet's number goes on by one, once for a task that took a lease."""
        if task.is_done or not task.leases:
            return
        task.is_done = True
        message = AdvanceSequence(wallet=task.wallet)
        getattr(message, task.kind).CopyFrom(task.ask)
        try:
            await self._proposer.propose_tried("advance_sequence", message)
        except LedgerRefused as error:
            # Another task with the same number was faster, or it took too long.
            log.info("a sequence number stays", wallet=bech32.encode(task.wallet), why=str(error))

    async def run(self) -> None:
        """Move the numbers of tasks that last long, forget those that are over; until it is cancelled."""
        while True:
            await asyncio.sleep(STEP_S)
            await self.step()

    async def step(self) -> None:
        """One look at all tasks that have a lease, and at who is responsible for which wallets."""
        now_s = int(self._clock())
        self.strings.look()
        for task in [one for one in self._under_way if not one.is_done and (one.is_over or one.ask.timestamp_s + FRESH_S - EARLY_S <= now_s)]:
            await self._try_advance(task)
        # A string that is too old moves no number.
        self._under_way -= {one for one in self._under_way if one.is_done or one.ask.timestamp_s + FRESH_S < now_s}
