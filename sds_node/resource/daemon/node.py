"""The resource node that runs: store, receipts and service behind the wire, ties to meta nodes, upkeep; how it starts and how it stops.

    users ─ wire ─► counted ─► Service ─► ShareStore, ReceiptLog ◄─ Upkeep
                                                │ leaves
    meta nodes ◄─ MetaLink: hello ──────────────┴─ Hander: receipts
    ppd status, maintenance, exit ─ control socket ─► commands            Prometheus, browser ─ loopback HTTP ─► metrics, health, page

Stopping: meta nodes hear of it, no transfer begins any more, those under way end within 60 s, receipts are handed in and on disk, the marker of the run
goes. A run that ends otherwise leaves the marker; the next one says so to a meta node. Source: storage-interfaces.md 9; docs/adr/0009.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

import nacl.signing
import structlog
from google.protobuf.message import DecodeError

from sds_node import transfers
from sds_node.asking import MAX_ANSWER_BYTES, NODE_EARNINGS, NodeEarningsReply, NodeHello
from sds_node.documents import Authority, lease_quorum
from sds_node.endpoints import endpoint_text
from sds_node.monitoring import Values
from sds_node.p2p import P2PError, address_of, format_address
from sds_node.resource import store as shares
from sds_node.resource.daemon.config import Config, MetaNode, capacity_bytes, parse_meta_node, reserve_bytes, split_endpoint
from sds_node.resource.daemon.handing import Asked, Hander
from sds_node.resource.daemon.home import Home, HomeError, State
from sds_node.resource.daemon.links import MetaLink
from sds_node.resource.daemon.upkeep import Upkeep
from sds_node.resource.daemon.withdrawing import Withdrawer
from sds_node.resource.receipts import ReceiptsError, open_receipts
from sds_node.resource.service import Service, hands_in
from sds_node.resource.service import Settings as ServiceSettings
from sds_node.settings import SettingsError
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.identity import Identity
from sds_node.wire.limits import Rates
from sds_node.wire.node import Node, Server, describe
from sds_node.wire.relay import REACH
from sds_node.wire.stream import Stream

log = structlog.get_logger("ppd")

SOFTWARE: Final = "stratos-ppd/1"
DRAIN_S: Final = 60.0
LAST_WORDS_S: Final = 5.0
AWAY_S: Final = 90.0
"""After so long without an answer another meta node is offered the receipts."""
MOST_SKEW_S: Final = 30
MOST_AGE_S: Final = 120
MAX_LINKS: Final = 100
MAX_MAINTENANCE_S: Final = 4 * 3_600
_MOVES: Final = {transfers.PUT: "put", transfers.GET: "get"}


class NodeBroken(Exception):
    """A part of the running node ended with an error of ours. The node stops; its log has the details."""


class ResourceNode:
    """A resource node with a home, which the caller holds (``Home.held``). ``start``, then ``stop`` once; in between it serves.

    ``key`` is the P2P key, ``beneficiary`` the account that is paid, ``authority`` tells who may sign on the chain, ``chain_age_s`` how old that is.
    ``background`` are loops that run along (refreshing the authority); ``withdrawer`` withdraws earnings; ``clock`` tells Unix seconds.
    """

    def __init__(
        self,
        home: Home,
        config: Config,
        key: nacl.signing.SigningKey,
        beneficiary: str,
        authority: Authority,
        clock: Callable[[], float],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        chain_age_s: Callable[[], float] = lambda: 0.0,
        background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
        withdrawer: Withdrawer | None = None,
        hand_every_s: float = 5.0,
        held_s: float = 30.0,
    ) -> None:
        self.home, self.config, self.beneficiary = home, config, beneficiary
        self.public_key = bytes(key.verify_key)
        self.address = address_of(self.public_key)
        self.name = format_address(self.address)
        self._key, self._authority, self._clock, self._monotonic = key, authority, clock, monotonic
        self._chain_age_s, self._background, self.withdrawer = chain_age_s, background, withdrawer
        self.state = State()
        self._unsaved: dict[str, Any] = {}
        """What of the state the disk did not take yet."""
        self.started_s = 0
        self._started_at_s = 0.0
        self.is_draining = False
        self.listening: tuple[str, int] | None = None
        """Where the wire listens; None behind a relay."""
        self.store = shares.open_store(
            home.storage_path(config),
            shares.Settings(
                capacity_bytes=capacity_bytes(config),
                reserve_bytes=reserve_bytes(config),
                pending_s=int(config.storage.pending_hours * 3_600),
                trash_s=int(config.storage.trash_days * 86_400),
            ),
        )
        try:
            self.receipts = open_receipts(home.receipts_path)
        except BaseException:
            self.store.close()
            raise
        serving = ServiceSettings(transfers_most=config.network.transfers)
        self.service = Service(authority, key, beneficiary, self.store, self.receipts, clock, serving)
        handlers = {name: self._counted(name, handler) if name in _MOVES else handler for name, handler in self.service.handlers().items()}
        network = config.network
        self.wire = Node(
            Identity(bytes(key)),
            authority.chain_id,
            handlers,
            software=SOFTWARE,
            capabilities=(REACH,) if network.relay else (),
            rates=Rates(network.upload_bytes_per_s or None, network.download_bytes_per_s or None),
        )
        self.server = Server(self.wire)
        self.upkeep = Upkeep(self.store, self.receipts, home.root, clock, config.storage.scrub_days, self.announce)
        self.hander = Hander(
            self.receipts,
            home,
            self._takers,
            clock,
            others=self._others,
            quorum=lambda: lease_quorum(len(self._authority.active_meta_nodes())),
            is_stored=self._is_named,
            every_s=hand_every_s,
            held_s=held_s,
        )
        self.links: dict[bytes, MetaLink] = {}
        self.ended: Counter[tuple[str, str]] = Counter()
        """Puts and gets by how they ended."""
        self._moving = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.failed: asyncio.Future[None] | None = None
        """Ends with the error of a loop that should not have ended."""

    # --- life ---------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, call meta nodes, begin the loops. Raises OSError for a port that is taken, StoreError, ReceiptsError, HomeError."""
        self.started_s, self._started_at_s = int(self._clock()), self._monotonic()
        self.failed = asyncio.get_running_loop().create_future()
        self.state = self.home.begin_run(self.started_s)
        if self.state.was_killed:
            log.warning("the last run did not stop as it should: meta nodes will hear of it, and it costs score")
        await self.service.start()
        if not self.config.network.relay:
            self.listening = await self.server.listen(self.config.network.listen_host, self.config.network.listen_port)
        self._run("upkeep", self.upkeep.run())
        self._run("receipts", self.hander.run())
        for number, loop in enumerate(self._background):
            self._run(f"background {number}", loop())
        if self.withdrawer is not None:
            self._run("withdrawals", self.withdrawer.run())
        for text in self.config.network.meta_nodes:
            self._link(parse_meta_node(text))
        if not self.links:
            log.warning("no meta node is known: set network.meta_nodes, else nobody finds this node")
        log.info("node runs", node=self.name, listens=None if self.listening is None else endpoint_text(*self.listening))

    async def stop(self, *, drain_s: float = DRAIN_S) -> None:
        """Stop as it should be: nothing that was earned is lost, and nobody is surprised."""
        self.is_draining = True
        log.info("node stops", transfers=self._moving)
        await asyncio.gather(*(link.told(LAST_WORDS_S) for link in self.links.values() if link.is_online))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._quiet.wait()
        if self._moving:
            log.warning("transfers did not end in time and are cut off", transfers=self._moving)
        self.service.stop()
        await self._end("receipts")
        if any(link.is_online for link in self.links.values()):
            with contextlib.suppress(TimeoutError, ReceiptsError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await self.hander.round()
        await self._close()
        self.home.end_run()
        log.info("node stopped")

    async def _close(self) -> None:
        for name in list(self._tasks):
            await self._end(name)
        await self.server.drain(0.0)
        await asyncio.to_thread(self._close_disk)

    def _close_disk(self) -> None:
        self.service.close()
        self.upkeep.close()
        self.receipts.close()
        self.store.close()

    async def abandon(self) -> None:
        """End what ``start`` began and could not finish. The run's marker goes; that an earlier run was killed is in the state."""
        self.service.stop()
        await self._close()
        self.home.end_run()

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._over)
        self._tasks[name] = task

    def _over(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self.failed is not None and not self.failed.done():
            log.error("a part of the node failed", part=task.get_name(), exc_info=error)
            self.failed.set_exception(NodeBroken(f"a part of the node failed ({task.get_name()}): its log has the details"))

    async def _end(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # --- transfers ----------------------------------------------------------------------------------------------------------

    def _counted(self, method: str, handler: Handler) -> Handler:
        name = _MOVES[method]

        async def counted(stream: Stream, connection: Connection) -> None:
            # A receipt that is handed in moves nothing and is this node's pay.
            is_pay = hands_in(method, stream.head)
            if self.is_draining and not is_pay:
                raise wire_errors.Busy("this node is stopping: ask another one")
            if self.upkeep.is_short and not is_pay:
                raise wire_errors.Busy("the disk of this node is full: ask another one")
            if self.state.is_leaving and method == transfers.PUT:
                raise wire_errors.Refused(transfers.STORE_FULL, "this node is leaving the network and takes no new shares: ask another one")
            self._moving += 1
            self._quiet.clear()
            outcome = "failed"
            try:
                await handler(stream, connection)
                outcome = "done"
            except wire_errors.Refused:
                outcome = "refused"
                raise
            finally:
                self.ended[name, outcome] += 1
                self._moving -= 1
                if not self._moving:
                    self._quiet.set()

        return counted

    # --- meta nodes ---------------------------------------------------------------------------------------------------------

    def announce(self) -> None:
        """Something that meta nodes should know has changed."""
        for link in self.links.values():
            link.poke()

    def hello(self) -> Any:
        """What meta nodes are told: NodeHello."""
        totals, network = self.store.totals(), self.config.network
        kept_bytes = totals.bytes(shares.State.PENDING, shares.State.CONFIRMED)
        free_bytes = self.upkeep.free_bytes
        endpoint = ""
        if not network.relay and self.listening is not None:
            endpoint = network.public_endpoint or endpoint_text(_host_to_tell(self.listening[0]), self.listening[1])
        takes_none = self.state.is_leaving or self.upkeep.is_short
        return NodeHello(
            endpoint=endpoint,
            capacity_bytes=capacity_bytes(self.config) or totals.disk_bytes + free_bytes,
            free_bytes=0 if takes_none else free_bytes,
            kept_bytes=kept_bytes,
            maintenance_until_s=self.maintenance_until_s,
            is_stopping=self.is_draining,
            was_killed=self.state.was_killed,
            software=SOFTWARE,
            wants_relay=network.relay,
        )

    @property
    def maintenance_until_s(self) -> int:
        """When announced maintenance ends, Unix seconds; 0 if there is none."""
        until_s = self.state.maintenance_until_s
        return until_s if until_s > self._clock() else 0

    def _link(self, meta: MetaNode) -> None:
        if meta.address in self.links or meta.address == self.address or len(self.links) >= MAX_LINKS:
            return
        host = self.config.network.listen_host
        source = None if self.config.network.relay or ipaddress.ip_address(host).is_unspecified else host
        link = MetaLink(
            self.wire,
            meta,
            self.hello,
            self._welcomed,
            self._clock,
            monotonic=self._monotonic,
            source_host=source,
            reachable=self.config.network.relay,
        )
        self.links[meta.address] = link
        self._run(f"meta node {link.name}", link.run())

    def _welcomed(self, link: MetaLink, welcome: Any) -> None:
        if self.state.was_killed:
            self.remember(was_killed=False)
        elif self._unsaved:
            self.remember()
        self.hander.poke()
        active = set(self._authority.active_meta_nodes())
        for contact in welcome.metas[:MAX_LINKS]:
            with contextlib.suppress(SettingsError, P2PError, ValueError):
                address = address_of(bytes(contact.p2p_key))
                if address in active and contact.endpoint:
                    self._link(MetaNode(address, *split_endpoint("the endpoint of a meta node", contact.endpoint)))

    def _takers(self, issuer: bytes) -> list[Asked]:
        """The meta node that issued a limit while it can be hoped for, else those that answer."""
        own, now_s = self.links.get(issuer), self._monotonic()
        if own is not None and (own.is_online or now_s - max(own.welcome_at_s, self._started_at_s) < AWAY_S):
            return [own] if own.is_online else []
        if own is None and now_s - self._started_at_s < AWAY_S and issuer in set(self._authority.active_meta_nodes()):
            return []  # others will tell where it is
        return [link for link in self.links.values() if link.is_online]

    def _is_named(self, share_root: bytes, serial: bytes) -> bool:
        """Whether the ledger has a share at this node under a serial, as meta nodes told; blocks."""
        return any(
            copy.serial == serial and copy.state in (shares.State.CONFIRMED, shares.State.TRASH) for copy in self.store.index.of_root(share_root)
        )

    def _others(self, issuer: bytes) -> list[Asked]:
        """The meta nodes that answer and did not issue a limit."""
        return [link for address, link in self.links.items() if address != issuer and link.is_online]

    # --- what an operator sees and says -----------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What is wrong, a sentence each; nothing when all is well."""
        found: list[str] = []
        links = list(self.links.values())
        if not any(link.is_online for link in links):
            found.append("no meta node answers: " + ("; ".join(f"{link.name}: {link.problem}" for link in links) or "none is known"))
        if self.listening is not None and not _is_far(self.listening[0]) and any(_is_far(link.meta.host) for link in links):
            found.append("the node listens for this machine alone: set network.listen_host, or network.relay true")
        skews = sorted((link.skew_s for link in links if link.is_online), key=abs)
        if skews and abs(skews[0]) > MOST_SKEW_S:
            found.append(
                f"the clock is {abs(skews[0]):.0f} s {'ahead of' if skews[0] > 0 else 'behind'} the meta nodes': set it, else limits are refused"
            )
        age_s = self._chain_age_s()
        if age_s > MOST_AGE_S:
            known = "nothing is known of the value chain" if math.isinf(age_s) else f"what is known of the value chain is {age_s:.0f} s old"
            found.append(f"{known}: see that {self.config.chain.rpc} answers")
        found += [f"upkeep fails: {one}" for one in self.upkeep.problems.values()]
        if self._unsaved:
            found.append("what the node should remember over a restart is not on disk: see that the home is yours and its disk has room")
        if self.hander.problem:
            found.append(self.hander.problem)
        if self.upkeep.is_short:
            found.append("the disk of the home is full")
        if self.store.totals().damaged:
            found.append(f"{self.store.totals().damaged} shares are damaged: meta nodes have them repaired; look at the disk")
        if self.receipts.damaged:
            found.append(f"{len(self.receipts.damaged)} receipts are damaged")
        if self.withdrawer is not None and self.withdrawer.problem:
            found.append(f"earnings are not withdrawn: {self.withdrawer.problem}")
        return found

    async def status(self) -> dict[str, Any]:
        """Everything about the running node, as JSON can say it."""
        totals = self.store.totals()
        pending = await asyncio.wrap_future(self.receipts.pending_count(int(self._clock())))
        age_s = self._chain_age_s()
        return {
            "node": self.name,
            "wallet": self.config.keys.wallet,
            "beneficiary": self.beneficiary,
            "chain_id": self._authority.chain_id,
            "software": SOFTWARE,
            "started_s": self.started_s,
            "time_s": int(self._clock()),
            "listens": "" if self.listening is None else endpoint_text(*self.listening),
            "is_relayed": self.config.network.relay,
            "is_stopping": self.is_draining,
            "is_leaving": self.state.is_leaving,
            "maintenance_until_s": self.maintenance_until_s,
            "free_bytes": self.upkeep.free_bytes,
            "kept_bytes": totals.bytes(shares.State.PENDING, shares.State.CONFIRMED),
            "trash_bytes": totals.bytes(shares.State.TRASH),
            "disk_bytes": totals.disk_bytes,
            "copies": totals.count(shares.State.PENDING, shares.State.CONFIRMED),
            "damaged_copies": totals.damaged,
            "transfers": self._moving,
            "pending_receipts": pending,
            "receipts": dict(self.hander.count),
            "receipts_noz": {name: str(noz) for name, noz in self.hander.noz.items()},
            "chain_age_s": None if math.isinf(age_s) else int(age_s),
            "meta_nodes": [link.told_of() for link in self.links.values()],
            "problems": self.problems(),
        }

    async def earnings(self) -> dict[str, Any]:
        """What the first meta node that answers knows of the node's earnings, noz as texts. Raises WireError when none does."""
        last: Exception = wire_errors.Unreachable("no meta node answers")
        for link in sorted(self.links.values(), key=lambda one: not one.is_online):
            try:
                reply = NodeEarningsReply.FromString(await link.ask(NODE_EARNINGS, most_bytes=MAX_ANSWER_BYTES))
            except (wire_errors.WireError, DecodeError, TimeoutError) as error:
                last = error
                continue
            fields = {"escrow_noz": reply.escrow_noz, "earned_noz": reply.earned_noz, "held_noz": reply.held_noz}
            return {"meta_node": link.name, **{name: text[:40] or "0" for name, text in fields.items()}, "shares": int(reply.shares)}
        raise wire_errors.Unreachable(str(last) or describe(last))

    async def set_maintenance(self, seconds: int) -> list[dict[str, Any]]:
        """Announce maintenance for so long from now on, or with 0 its end. What meta nodes say to it. Raises ValueError for a time out of bounds."""
        if not 0 <= seconds <= MAX_MAINTENANCE_S:
            raise ValueError(f"maintenance lasts at most {MAX_MAINTENANCE_S} s (4 hours), got {seconds}")
        self.remember(maintenance_until_s=int(self._clock()) + seconds if seconds else 0)
        links = list(self.links.values())  # others may be learned meanwhile
        told = await asyncio.gather(*(link.told(LAST_WORDS_S) for link in links))
        return [{**link.told_of(), "was_told": was} for link, was in zip(links, told, strict=True)]

    def leave(self) -> None:
        """The node was unbonded: it takes no new shares, and serves what it has until that is elsewhere."""
        self.remember(is_leaving=True)
        self.announce()

    def stay(self) -> None:
        """The node is registered again: it takes shares as before."""
        self.remember(is_leaving=False)
        self.announce()

    def remember(self, **changes: Any) -> None:
        """Change what is remembered over restarts. A disk that does not take it ends no running node: it is kept in memory, and written when it can be."""
        self._unsaved |= changes
        try:
            self.state, self._unsaved = self.home.remember(**self._unsaved), {}
        except HomeError as error:
            log.error("what should be remembered is not on disk yet", changes=sorted(self._unsaved), why=str(error))
            self.state = replace(self.state, **changes)

    async def values(self) -> Values:
        """What Prometheus is told."""
        totals, one = self.store.totals(), ()
        pending: int = await asyncio.wrap_future(self.receipts.pending_count(int(self._clock())))
        links = list(self.links.values())
        told = [(link.name, link.welcome) for link in links if link.welcome is not None]
        return {
            "ppd_started_seconds": {one: self.started_s},
            "ppd_is_healthy": {one: float(not self.problems())},
            "ppd_free_bytes": {one: self.upkeep.free_bytes},
            "ppd_kept_bytes": {one: totals.bytes(shares.State.PENDING, shares.State.CONFIRMED)},
            "ppd_disk_bytes": {one: totals.disk_bytes},
            "ppd_copies": {(state.name.lower(),): totals.count(state) for state in shares.State},
            "ppd_damaged_copies": {one: totals.damaged},
            "ppd_transfers": {one: self._moving},
            "ppd_transfers_total": {labels: count for labels, count in self.ended.items()},
            "ppd_connections": {one: len(self.wire.connections)},
            "ppd_receipts_pending": {one: pending},
            "ppd_receipts_total": {(name,): count for name, count in self.hander.count.items()},
            "ppd_receipts_noz_total": {(name,): noz for name, noz in self.hander.noz.items()},
            "ppd_receipts_bytes_total": {(name,): size for name, size in self.hander.bytes.items()},
            "ppd_meta_nodes_online": {one: sum(link.is_online for link in links)},
            "ppd_score": {(name,): welcome.score for name, welcome in told},
            "ppd_shares": {(name,): welcome.shares for name, welcome in told},
            "ppd_is_eligible": {
                (link.name,): float(link.is_online and not link.welcome.why_not_eligible) for link in links if link.welcome is not None
            },
            "ppd_maintenance_until_seconds": {one: self.maintenance_until_s},
            "ppd_upkeep_total": {(name,): count for name, count in self.upkeep.count.items()},
            "ppd_chain_age_seconds": {one: self._chain_age_s()},
            "ppd_withdrawn_wei_total": {one: 0 if self.withdrawer is None else self.withdrawer.withdrawn_wei},
        }


def _is_far(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _host_to_tell(host: str) -> str:
    """Of the address that the node listens at: nothing where it is every address, since others see which one they reach."""
    return "" if ipaddress.ip_address(host).is_unspecified else host
