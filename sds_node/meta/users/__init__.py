"""What a meta node does for users: sessions, leases, plans, places, order limits, commits, files and shares (docs/adr/0009, the rows of a session).

    session.open ─► lease.take ─► object.plan ─► place.put ─► (nodes) ─► object.commit ─► file.find … ─► place.get ─► (nodes)
        Sessions       Lending        Places ─ LimitSigner       Commits        Files, Sharing      Places
                          └────────── LeaseBook ────┴───────────────┘

``Users`` puts the parts together; what other parts do comes in as arguments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import nacl.signing
import structlog

from sds_node import asking
from sds_node.meta.ledger import errors as ledger_errors
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.rules.call import state_of
from sds_node.meta.users.asked import body_handler, handler
from sds_node.meta.users.commits import Commits, IsRefused, none_is_refused
from sds_node.meta.users.files import Files, wallet_row
from sds_node.meta.users.known import Cosign, Registry, ReportFailure, Settings, Tell
from sds_node.meta.users.leases import LeaseBook
from sds_node.meta.users.lending import Before, HasLeaves, Lending, no_leaves, nothing_before
from sds_node.meta.users.limits import Another, LimitSigner
from sds_node.meta.users.places import Places
from sds_node.meta.users.roots import RootsError, ShareRoots, Spread, nobody_else
from sds_node.meta.users.sessions import Session, Sessions
from sds_node.meta.users.sharing import Sharing
from sds_node.wire.connection import Connection, Handler

__all__ = ["Settings", "Users"]

log = structlog.get_logger("users")

SWEEP_S = 60.0
_Done = Callable[[Session, Any], Awaitable[Any | None]]


class Users:
    """The handlers for users of one meta node, and their loops. Everything runs in one event loop.

    ``key`` is the ledger key of the proposer's meta node; ``boot`` a number that no earlier process of it had, and ``another_boot`` draws one more; ``clock`` tells Unix seconds. Give ``leases.done``
    what is in windows; ``has_leaves`` tells whether receipts of a lease wait for one, ``before_lost`` puts those in windows that an earlier process took;
    ``spread`` has other meta nodes keep share roots before a commit; ``is_log_shared`` is as in ``Sessions``. Call ``run`` as a task, and ``close`` when nothing is served any more; ``roots`` and the
    ledger are the caller's to close.
    """

    def __init__(
        self,
        proposer: Proposer,
        key: nacl.signing.SigningKey,
        registry: Registry,
        roots: ShareRoots,
        clock: Callable[[], float],
        *,
        boot: int,
        cosign: Cosign,
        tell: Tell,
        report_failure: ReportFailure,
        settings: Settings | None = None,
        has_leaves: HasLeaves = no_leaves,
        before_lost: Before = nothing_before,
        spread: Spread = nobody_else,
        another_boot: Another | None = None,
        is_log_shared: bool = True,
        is_refused: IsRefused = none_is_refused,
    ) -> None:
        self.settings = settings or Settings()
        self._proposer, self._ledger, self._clock, self.roots = proposer, proposer.ledger, clock, roots
        self.leases = LeaseBook(clock, self.settings.free_s)
        self.sessions = Sessions(proposer.chain_id, clock, self.leases.has_session, is_log_shared=is_log_shared)
        signer = LimitSigner(proposer.chain_id, proposer.address, key, boot, another=another_boot)
        self.places = Places(self._ledger, registry, self.leases, signer, roots, clock, report_failure, self.settings)
        self.lending = Lending(proposer, key, self.leases, clock, cosign, self.settings, self.places.forget, has_leaves, before_lost)
        self.commits = Commits(proposer, signer, self.leases, self.places, roots, registry, tell, clock, spread, is_refused)
        self.files = Files(proposer, registry, clock)
        self.sharing = Sharing(self._ledger, clock)

    def handlers(self) -> dict[str, Handler]:
        """The methods for ``wire.node.Node``."""
        return {
            asking.SESSION_OPEN: handler(asking.SessionHead, self._open),
            asking.OBJECT_COMMIT: body_handler(asking.CommitAsk, self._with_session(asking.OBJECT_COMMIT, self.commits.commit), self._admitted),
        } | {method: handler(kind, self._with_session(method, work)) for method, (kind, work) in self._in_session().items()}

    def _in_session(self) -> dict[str, tuple[Any, _Done]]:
        """Method → (its head's kind, what it does)."""
        return {
            asking.WALLET_INFO: (asking.SessionHead, lambda session, _: self.files.wallet(session)),
            asking.LEASE_TAKE: (asking.LeaseHead, self._take),
            asking.LEASE_END: (asking.LeaseEndHead, self.lending.end),
            asking.OBJECT_PLAN: (asking.PlanHead, self._plan),
            asking.PLACE_PUT: (asking.PlacePutHead, self.places.put),
            asking.PLACE_ANOTHER: (asking.PlaceAnotherHead, self.places.another),
            asking.PLACE_GET: (asking.PlaceGetHead, self.places.get),
            asking.FILE_FIND: (asking.FileFindHead, self.files.find),
            asking.FILE_LIST: (asking.FileListHead, self.files.listed),
            asking.FILE_SEGMENTS: (asking.SegmentRootsHead, self.files.segments),
            asking.FILE_HEALTH: (asking.HealthHead, self.files.health),
            asking.FILE_ORDER: (asking.OrderHead, self.files.order),
            asking.SHARE_LIST: (asking.ShareListHead, self.sharing.listed),
            asking.SHARE_OPEN: (asking.ShareOpenHead, self.sharing.open),
        }

    async def start(self) -> None:
        """After a stop: have right what was on its way into the ledger. Call it before the wire listens."""
        count = await self.roots.recover(self._ledger)
        if count:
            log.info("commits of before the stop were looked up", objects=count)

    async def run(self) -> None:
        """The loops, until they are cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.lending.run())
            group.create_task(self._upkeep())

    async def close(self) -> None:
        """Wait for what is on its way to nodes."""
        await self.commits.close()

    async def _upkeep(self) -> None:
        """Tell nodes that were not told, forget roots of segments that are no more, and sessions that are over."""
        after = -1
        while True:
            self.sessions.expire(self._clock())
            try:
                await self.commits.tell_again()
                after = await self.roots.sweep(self._ledger, after)
            except (LedgerRefused, ledger_errors.LedgerError, RootsError) as error:
                log.warning("the upkeep of share roots is tried again later", why=str(error))
            await asyncio.sleep(SWEEP_S)

    # --- sessions ---

    def _session_of(self, connection: Connection) -> Session:
        return self.sessions.of(connection.remote.address)

    def _admitted(self, connection: Connection) -> AbstractContextManager[Callable[[int], None]]:
        session = self._session_of(connection)
        if session.bounds is not None:
            session.bounds.check_method(asking.OBJECT_COMMIT)
        return self.commits.admitted(session)

    def _with_session(self, method: str, work: _Done) -> Callable[[Any, Connection], Awaitable[Any | None]]:
        async def done(message: Any, connection: Connection) -> Any | None:
            # The session in which it is worked on is the one whose bounds are asked: while a body came in it may have become another one.
            session = self._session_of(connection)
            if session.bounds is not None:
                return await session.bounds.serve(method, session, message, work)
            return await work(session, message)

        return done

    async def _open(self, head: Any, connection: Connection) -> Any:
        session = self.sessions.judged(head.grant, connection.remote.address)
        row = await self._ledger.query(lambda view: wallet_row(view, session.wallet))
        session.is_stranger = not (int(row.paid_noz) or int(row.promo_noz) or row.open_leases or row.files or row.trash)
        self.sessions.add(session, int(self._clock()))
        return row

    async def _take(self, session: Session, head: Any) -> Any:
        reply = await self.lending.take(session, head)
        self.sessions.known(session)
        return reply

    async def _plan(self, session: Session, head: Any) -> Any:
        state = await self._ledger.query(state_of)
        return self.places.plan(head, state.escrow_ratio_e18)
