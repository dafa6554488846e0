"""A meta node that runs: ledger and books, the value chain followed and reported to, users and resource nodes served.

    value chain ◄─ Observer, Reporter, Activation ─► ledger ◄─ Users, Statuses, Windows, Ticker ─► books
                                                     ▲   ▲
    users, resource nodes ─ wire ─► Info, Users, Hellos, Receipts        log of its own, or an order with others (CometBFT)
    other meta nodes ─ wire ─► Peers, Agreeing: who is there, signatures       relay ─► nodes behind NAT

Start: ledger (founded, if it is new and has a log of its own), what a crash left is looked up, then the wire listens; receipts that wait get into windows
before leases are settled. Stop: the wire first, the order, the ledger last. A loop that ends by itself ends the node, which says why. The loops read the ledger by a path that waits for its turn
(patience.py), so strangers who keep its readers busy end none. All of it goes by a time that the chain's blocks do not contradict (timekeeping.py). Source:
docs/adr/0009 and 0010; storage-protocol.md 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

import nacl.signing
import structlog

from chain.metakeys import MetaKeys
from sds_node import asking
from sds_node.endpoints import endpoint_text
from sds_node.meta.audits.auditor import Auditor
from sds_node.meta.books.books import Books, open_books
from sds_node.meta.books.epochs import EpochBooks
from sds_node.meta.books.fetching import Before, Fetching, window_leaves
from sds_node.meta.books.proposed import Approvals
from sds_node.meta.books.receipts import Receipts
from sds_node.meta.books.releases import Releases
from sds_node.meta.books.restoring import Restoring
from sds_node.meta.books.serving import EpochServing
from sds_node.meta.books.windows import Windows
from sds_node.meta.daemon.activation import Activation
from sds_node.meta.daemon.home import Home, HomeError
from sds_node.meta.daemon.info import Info
from sds_node.meta.daemon.patience import OwnProposer, PatientLedger
from sds_node.meta.daemon.ticker import Ticker
from sds_node.meta.daemon.web import Monitor
from sds_node.meta.federation.agreeing import Agreeing
from sds_node.meta.federation.approving import Approving
from sds_node.meta.federation.comet import CometHome, CometOrder
from sds_node.meta.federation.duties import OBJECT, TURN_DAYS, Duties, is_current
from sds_node.meta.federation.genesis import before_blocks
from sds_node.meta.federation.keeping import Keeping
from sds_node.meta.federation.ledger import FederatedLedger, Order
from sds_node.meta.federation.peers import Bounds, Peers
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.ledger.pruning import Pruner
from sds_node.meta.legacy import Legacy
from sds_node.meta.nodes.calls import NodeCalls
from sds_node.meta.nodes.hello import Hellos
from sds_node.meta.nodes.registry import Registry, prefix_of
from sds_node.meta.nodes.statuses import Statuses
from sds_node.meta.operations import Proposer
from sds_node.meta.rebuild.compared import Comparing
from sds_node.meta.rebuild.giving import Giving
from sds_node.meta.relay.answering import Answers
from sds_node.meta.relay.founding import found_message, founding_height
from sds_node.meta.relay.observer import Observer
from sds_node.meta.relay.penalties import Penalties
from sds_node.meta.relay.reporter import Reporter
from sds_node.meta.relay.unreported import open_unreported
from sds_node.meta.relay.uploads import Uploads
from sds_node.meta.repair import Repair
from sds_node.meta.repair import Settings as RepairSettings
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.call import STATE_KEY
from sds_node.meta.rules.tables import STATE
from sds_node.meta.timekeeping import Timekeeper
from sds_node.meta.users import Users
from sds_node.meta.users.roots import ShareRoots, open_roots
from sds_node.monitoring import Values
from sds_node.requests import UsedStrings
from sds_node.value_chain import views
from sds_node.value_chain.client import ChainUnavailable, ValueChain
from sds_node.value_chain.sender import Sender
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.relay import RelayLimits, serve

log = structlog.get_logger("spd")

SOFTWARE: Final = "stratos-spd/1"
ACTIVATE_S: Final = 3.0
LAST_WORDS_S: Final = 10.0
"""At a stop operations that were proposed have so long to come into a block."""
WINDOW: Final = Bounds(4, 0)
"""Pages of windows that another meta node may ask for at a time."""
RELAYED_PART: Final = 4
"""One stream has at most so large a part of what is relayed."""


class MetaNode:
    """A meta node with a home that the caller has locked. ``start``, then ``stop`` once; ``failed`` ends with the error of a loop that should not have ended.

    ``keys`` are its three keys, ``sender`` sends for the wallet that owns it, ``clock`` tells Unix seconds. ``owner`` has 20 bytes. ``order`` puts the
    operations of several meta nodes into blocks: by default CometBFT, where the home has joined such a ledger, and a log of its own where it has not.
    """

    def __init__(
        self,
        home: Home,
        keys: MetaKeys,
        owner: bytes,
        chain: ValueChain,
        sender: Sender,
        chain_id: str,
        clock: Callable[[], float],
        order: Order | None = None,
    ) -> None:
        self.home, self.settings, self.keys, self.chain_id = home, home.settings, keys, chain_id
        self._owner, self._chain, self._sender, self._clock = owner, chain, sender, clock
        self.time = Timekeeper(clock)
        self._key = nacl.signing.SigningKey(keys.ledger_seed)
        self.listening: tuple[str, int] | None = None
        self.failed: asyncio.Future[None] | None = None
        self._is_new = False
        """The ledger was founded in this run: no string that a wallet signed can have been used before."""
        self._tasks: list[asyncio.Task[None]] = []
        self.order = order
        if order is None and CometHome(home.comet).is_made:
            self.order = CometOrder(home.comet, self.settings.comet, keys)
        self.ledger: Ledger | FederatedLedger
        self.books: Books
        self.roots: ShareRoots

    async def start(self) -> None:
        """Raises HomeError, LedgerError (OrderError among them), BooksError, RootsError, UnreportedError, ValueChainError, ObservingError, OSError for a port that is
        taken."""
        self.home.check()
        self.failed = asyncio.get_running_loop().create_future()
        async with contextlib.AsyncExitStack() as undo:
            self.ledger = await asyncio.to_thread(self._opened)
            undo.push_async_callback(asyncio.to_thread, self.ledger.close)
            if self.ledger.head.sequence:
                self.time.opened(self.ledger.head.time_ms / 1_000)
            await self._hear_chain()
            self._away_ms = self.ledger.head.time_ms, self.time.now_ms()
            self._patient = PatientLedger(self.ledger)
            self.books = await asyncio.to_thread(open_books, self.home.books, self.time.now_s)
            undo.push_async_callback(asyncio.to_thread, self.books.close)
            self.roots = open_roots(self.home.root / "data" / "roots.db", lambda segment: self.agreeing.fetch_roots(segment))
            undo.callback(self.roots.close)
            self.unreported = open_unreported(self.home.root / "data" / "uploads.db")
            undo.callback(self.unreported.close)
            self.proposer = Proposer(self.ledger, self.chain_id, self.keys.address, self._key, self.time.now_s, self.time.check)
            await self.proposer.start()
            await self._found()
            self._build()
            undo.callback(self.giving.close)
            if isinstance(self.ledger, FederatedLedger):
                await asyncio.to_thread(self.epochs.follow, self.ledger)
                undo.push_async_callback(asyncio.to_thread, self.epochs.close)
                await self.ledger.order.start()
                undo.push_async_callback(self.ledger.order.stop)
            await self.peers.refresh()
            await self.registry.refresh()
            await self.users.start()
            await self.repair.start()
            undo.push_async_callback(self.repair.close)
            self.listening = await self.server.listen(self.settings.network.host, self.settings.network.port)
            undo.push_async_callback(self.server.close)
            self._own.endpoint = self.settings.network.endpoint or endpoint_text(*self.listening)
            if self.settings.metrics.port:
                await self.monitor.start(self.settings.metrics.host, self.settings.metrics.port)
            for name, loop in self._loops().items():
                self._run(name, loop)
            undo.pop_all()
        log.info("meta node runs", node=self.keys.network_address, listens=self._own.endpoint, sequence=self.ledger.head.sequence)

    def _opened(self) -> Ledger | FederatedLedger:
        made = rules(self.chain_id)
        if self.order is None:
            return Ledger.open(self.home.ledger_url, made, self.chain_id, now_ms=self.time.now_ms)
        return FederatedLedger.open(self.home.ledger_url, made, self.chain_id, order=self.order, keep_blocks=self.settings.comet.keep_blocks)

    async def _hear_chain(self) -> None:
        """What time it is by the chain's last block. Without that nothing is known of a ledger that is older than some minutes."""
        try:
            status = await self._chain.status()
        except ChainUnavailable as error:
            log.warning("the value chain does not answer: the ledger waits for it", reason=str(error))
        else:
            if status.height:
                self.time.heard(status.time_s)

    async def _found(self) -> None:
        if await self.ledger.query(lambda view: view.get(STATE, STATE_KEY)) is not None:
            return
        if self.order is not None:
            raise HomeError("this ledger has blocks and was never founded: join the export of one that was (`spd ledger join`)")
        self._is_new = True
        height = await founding_height(self._chain)
        await self.proposer.propose("found", await found_message(self._chain, height))
        log.info("ledger founded", chain_id=self.chain_id, height=height)

    def _build(self) -> None:
        times, clock, ledger = self.settings.times, self.time.now_s, self._patient
        own = OwnProposer(self.proposer, ledger)
        self._own = asking.MetaContact(p2p_key=self.keys.network_key.raw)
        self.wire = Node(Identity(self.keys.network_seed), self.chain_id, software=SOFTWARE)
        self.peers = Peers(
            self.wire,
            ledger,
            self._own,
            clock,
            peers=self.settings.network.peers,
            standing=lambda: (self.observer.height, self.observer.is_ready and self.has_room(is_users=False)),
        )
        is_up_to_date = is_current(ledger, clock) if self.order is not None else lambda: True
        self.duties = Duties(self.keys.address, self.peers.able, lambda: is_up_to_date() and self.has_room(is_users=False))
        has_node = self.duties.of_nodes(TURN_DAYS * times.audit_day_s, clock)
        self.keeping = Keeping(self.peers, ledger, self.roots, clock)
        self.agreeing = Agreeing(self.peers, ledger, self.chain_id, self._key, self.keys.bls_pubkey, self.roots.of, self._bls_keys, clock)
        self.approving = Approving(self.peers, self.chain_id, self._key)
        self.registry = Registry(
            ledger,
            clock,
            hello_s=times.hello_s,
            own=self._own,
            is_connected=lambda address: bool(self.wire.connections_of(address)),
            monotonic=time.monotonic,
        )
        self.calls = NodeCalls(self.wire, self.registry, self.books, clock)
        self.hellos = Hellos(self.registry, self.books, self.wire, clock, self.peers.contacts)
        self.statuses = Statuses(self.registry, own, clock, status_s=times.status_s, is_ours=has_node)
        self.receipts = Receipts(
            self.ledger,
            self.books,
            self.registry,
            self.chain_id,
            self.keys.address,
            clock,
            away_ms=self._away_ms,
            online=self.peers.online,
            has_duty=self.duties.has,
        )
        self.users = Users(
            self.proposer,
            self._key,
            self.registry,
            self.roots,
            clock,
            boot=self.books.boot,
            cosign=self.agreeing.cosign,
            tell=self.calls.tell_later,
            report_failure=self.registry.failed,
            has_leaves=self.books.has_leaves,
            is_refused=self.books.is_refused,
            before_lost=lambda: self.windows.settle(),
            spread=self.keeping.spread,
            another_boot=self.books.another_boot,
            is_log_shared=isinstance(self.ledger, FederatedLedger),
        )
        self.windows = Windows(
            ledger,
            own,
            self.books,
            self.keys.address,
            clock,
            window_s=times.window_s,
            on_done=self.users.leases.done,
            approve=self.approving.approve,
            may_commit=self.users.leases.may_commit,
        )
        self.epochs = EpochBooks(ledger, self.books, self.windows, clock)
        self.serving = EpochServing(self.epochs, self.books)
        self.fetching = Fetching(
            ledger,
            self.books,
            self.chain_id,
            self.keys.address,
            self._window_of,
            self.peers.others_online,
            clock,
            before=Before(*before_blocks(CometHome(self.home.comet))),
        )
        self.restoring = Restoring(
            ledger,
            self.books,
            self.chain_id,
            self.keys.address,
            self._window_of,
            self.peers.others_online,
            self.users.leases.done,
            self.fetching.need,
            self.fetching.agreed,
            clock,
        )
        self.epochs.need = self.restoring.need
        self.approvals = Approvals(ledger, self.books, self.chain_id, self.keys.address, self._window_of, self.fetching.need, clock)
        self.answers = Answers(self._chain, self._sender, self.epochs, clock)
        self.legacy = Legacy(
            self.proposer,
            self.users.sessions,
            self.users.lending,
            self.registry,
            clock,
            online=self.peers.online,
            prefix_of=prefix_of,
            used=UsedStrings() if self._is_new else None,
        )
        self.repair = Repair(
            own,
            self._key,
            self.registry,
            self.calls,
            self.books,
            self.roots,
            self.home.root / "data" / "repairs.db",
            clock,
            boot=self.books.boot,
            cosign=self.agreeing.cosign,
            tell=self.calls.tell_later,
            settings=RepairSettings(lost_s=float(times.lost_s)),
            is_ours=self.duties.of(OBJECT),
            finish=partial(self.windows.finish_intended, proposes=False),
        )
        self.giving = Giving(
            ledger,
            self.chain_id,
            self.keys.address,
            self._key,
            self.registry,
            self.calls,
            self.roots,
            self.home.root / "data" / "given.db",
            clock,
            self.duties.of(OBJECT),
        )
        self.repair.damage.also = Comparing(self.giving, has_node).compare
        self.releases = Releases(ledger, own, self.books, self.windows, self.keys.address, self.roots.of)
        self.repair.pays(self.releases)
        self.auditor = Auditor(
            ledger,
            self.books,
            self.releases,
            self.registry,
            self.calls,
            self.roots.of,
            self.chain_id,
            self.keys.address,
            self._key,
            clock,
            audit_day_s=times.audit_day_s,
            on_lost=self.repair.share_lost,
            is_ours=has_node,
            memory=self.repair,
        )
        self.observer = Observer(self._chain, own, self._key, self.agreeing.gather, clock, heard=self.time.heard, place=self.duties.height_place)
        self.reporter = Reporter(
            self._chain,
            self._sender,
            own,
            self.keys,
            self._owner,
            self.epochs,
            self.agreeing.gather_bls,
            clock,
            online=self.peers.online,
            approve=self.approving.approve,
        )
        self.penalties = Penalties(self._chain, self._sender, ledger, self.keys.network_address, clock=clock, day_s=times.audit_day_s)
        self.uploads = Uploads(
            self._chain,
            self._sender,
            ledger,
            self.unreported,
            self.keys.address,
            clock,
            place=self.duties.upload_place,
            is_able=self.duties.is_able,
            most_per_hour=self.settings.uploads.most_per_hour,
        )
        self.ticker = Ticker(own, clock, self.duties.tick_place)
        self.pruner = Pruner(self.ledger, clock, self.settings.ledger.keep_days)
        self.activation = Activation(
            self._chain,
            self._sender,
            ledger,
            self.keys.network_address,
            self.online,
            least_score=self.settings.nodes.least_score,
            every_s=ACTIVATE_S,
            clock=clock,
        )
        self.info = Info(
            self.ledger,
            self.chain_id,
            self.keys.network_address,
            SOFTWARE,
            self.peers.contacts,
            self.registry.count,
            lambda: self.observer.is_ready and self.has_room(is_users=True),
            clock,
        )
        self.wire.handlers.update(
            {
                asking.INFO: self.info.info,
                **self.users.handlers(),
                **self.legacy.handlers(),
                **self.hellos.handlers(),
                **self.receipts.handlers(),
                **self.serving.handlers(),
                **self.peers.handlers(),
                **self.keeping.handlers(),
                asking.META_WINDOW: self.peers.guarded(WINDOW, self.serving.window_page),
                **self.agreeing.handlers(self.observer.countersign, self.reporter.countersign),
                **self.approving.handlers(self.approvals.check_window, self.reporter.check_close),
            }
        )
        if self.settings.network.is_relay:
            whole = self.settings.network.relay_bytes_per_s
            serve(self.wire, RelayLimits(bytes_per_s=whole, stream_bytes_per_s=whole / RELAYED_PART), self._is_relayed)
        self.server = Server(self.wire)
        self.monitor = Monitor(self.status, self.values)

    def _loops(self) -> dict[str, Coroutine[Any, Any, None]]:
        loops = {
            "observer": self.observer.run(),
            "reporter": self.reporter.run(),
            "registry": self.registry.run(),
            "statuses": self.statuses.run(),
            "windows": self.windows.run(),
            "epochs": self.epochs.run(),
            "audits": self.auditor.run(),
            "users": self.users.run(),
            "ticker": self.ticker.run(),
            "calls": self.calls.run(),
            "pruner": self.pruner.run(),
            "answers": self.answers.run(),
            "legacy": self.legacy.run(),
            "repair": self.repair.run(),
            "peers": self.peers.run(),
            "fetching": self.fetching.run(),
            "restoring": self.restoring.run(),
            "penalties": self.penalties.run(),
            "keeping": self.keeping.run(),
            "manifests": self.giving.run(),
        }
        if isinstance(self.order, CometOrder):
            loops["order"] = self.order.watch()
        if self.settings.nodes.activates:
            loops["activation"] = self.activation.run()
        if self.settings.uploads.reports:
            loops["uploads"] = self.uploads.run()
        return loops

    def _window_of(self, source: bytes, meta_node: bytes, number: int) -> AsyncIterator[bytes]:
        """Leaves of a meta node's window, as ``source`` has them."""

        async def ask(head: bytes) -> bytes:
            return await self.peers.ask(source, asking.META_WINDOW, head, most_bytes=asking.MAX_ANSWER_BYTES)

        return window_leaves(ask, meta_node, number)

    async def _bls_keys(self) -> Mapping[bytes, bytes]:
        """BLS keys of the meta nodes, as the chain has them now."""
        return {address: one.bls_pubkey for address, one in (await views.meta_keys(self._chain)).items() if one.bls_pubkey}

    def _is_relayed(self, address: bytes) -> bool:
        """Whether a node of the chain asked to be reached through this meta node."""
        row = self.registry.row_of(address)
        seen = self.registry.seen_of(row.number) if row is not None else None
        return seen is not None and seen.is_relayed

    def online(self) -> list[int]:
        """Numbers of the nodes that are heard of."""
        return [number for number, row in self.registry.rows().items() if self.registry.is_online(row)]

    def has_room(self, *, is_users: bool) -> bool:
        """Whether the ledger's log takes more of this meta node today: of what users ask for, or of its own duties."""
        return not isinstance(self.ledger, FederatedLedger) or self.ledger.has_room(self.keys.address, is_users)

    def problems(self) -> list[str]:
        """What is wrong, in sentences."""
        found = []
        if not self.has_room(is_users=True):
            what = "its users ask for" if self.has_room(is_users=False) else "it does"
            found.append(f"the ledger's log takes nothing more today (UTC) of what {what}: users and duties go to other meta nodes until midnight")
        if not self.observer.is_ready:
            found.append(f"the ledger is at height {self.observer.height}, the value chain at {self.observer.chain_height}, or it does not answer")
        if self.observer.problem:
            found.append(self.observer.problem)
        if self.time.problem():
            found.append(self.time.problem())
        found.extend(self.reporter.problems())
        found.extend(self.peers.problems())
        found.extend(self.fetching.problems())
        found.extend(self.restoring.problems())
        found.extend(self.windows.problems())
        found.extend(self.penalties.problems())
        found.extend(self.uploads.problems())
        found.extend(self.keeping.problems())
        if isinstance(self.order, CometOrder) and self.order.problem():
            found.append(self.order.problem())
        if self.order is None and self.observer.active_metas > 1:
            found.append(
                f"the chain has {self.observer.active_metas} active meta nodes, and this ledger has a log of its own: nothing more is observed or reported "
                "until they keep it together (`spd ledger migrate`, docs/meta-nodes.md)"
            )
        if self.failed is not None and self.failed.done():
            found.append("a part of the node has ended: see its log")
        return found

    def values(self) -> Values:
        """Of ``web.METRICS``."""
        rows = self.registry.rows()
        plain: dict[str, float] = {
            "spd_is_healthy": not self.problems(),
            "spd_chain_height": self.observer.chain_height,
            "spd_observed_height": self.observer.height,
            "spd_ledger_sequence": self.ledger.head.sequence,
            "spd_sessions": len(self.users.sessions),
            "spd_leases": len(self.users.leases),
            "spd_connections": len(self.wire.connections),
            "spd_settled_noz_total": self.windows.settled_noz,
            "spd_settled_receipts_total": self.windows.settled_leaves,
            "spd_epochs_reported_total": self.reporter.reported,
            "spd_files_reported_total": self.uploads.reported,
            "spd_files_unreported": self.uploads.waiting,
        }
        found: Values = {name: {(): float(value)} for name, value in plain.items()}
        found["spd_nodes"] = {("known",): len(rows), ("online",): len(self.online()), ("eligible",): self.registry.count()}
        return found

    def status(self) -> dict[str, Any]:
        """What an operator is told."""
        head = self.ledger.head
        rows = self.registry.rows()
        return {
            "node": self.keys.network_address,
            "chain_id": self.chain_id,
            "listens": self._own.endpoint,
            "is_ready": self.observer.is_ready,
            "chain_height": self.observer.chain_height,
            "observed_height": self.observer.height,
            "sequence": head.sequence,
            "app_hash": head.app_hash.hex(),
            "nodes": len(rows),
            "online_nodes": len(self.online()),
            "eligible_nodes": self.registry.count(),
            "sessions": len(self.users.sessions),
            "leases": len(self.users.leases),
            "reported": self.reporter.reported,
            "reported_files": self.uploads.reported,
            "problems": self.problems(),
        }

    async def stop(self) -> None:
        """End in order: nothing that was answered is lost."""
        await self.monitor.close()
        await self.server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end_users()
        await self.repair.close()
        await self.hellos.close()
        await self.registry.close()
        await self.calls.close()
        await self.keeping.close()
        await self.peers.close()
        await self.wire.close()
        await self.approvals.close()
        if self.order is not None:
            await self.order.stop()
        await asyncio.to_thread(self._close)
        log.info("meta node stopped", sequence=self.ledger.head.sequence)

    async def _end_users(self) -> None:
        """Let what is on its way to the ledger and to nodes come to its end; without an order it never would."""
        closing = asyncio.ensure_future(self.users.close())
        await asyncio.wait([closing], timeout=LAST_WORDS_S)
        if not closing.done() and isinstance(self.ledger, FederatedLedger):
            self.ledger.give_up()
        await closing

    def _close(self) -> None:
        self.giving.close()
        self.receipts.close()
        self.epochs.close()
        self.unreported.close()
        self.roots.close()
        self.books.close()
        self.ledger.close()

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._over)
        self._tasks.append(task)

    def _over(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.failed is None or self.failed.done():
            return
        error = task.exception()
        self.failed.set_exception(error if error is not None else RuntimeError(f"{task.get_name()} ended by itself"))
