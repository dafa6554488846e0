"""Meta nodes with one ledger for tests: each has its own copy, into which all operations go in one order, and books of its own. They ask each other by wire."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from chain.crypto import address as bech32
from modules.settlement.commitment import Line
from sds_node import asking
from sds_node.meta.books.books import BooksError, open_books
from sds_node.meta.books.epochs import EpochBooks
from sds_node.meta.books.fetching import NOT_KNOWN, Before, Fetching, window_leaves
from sds_node.meta.books.proposed import Approvals
from sds_node.meta.books.serving import EpochServing
from sds_node.meta.federation.members import keepers_of
from sds_node.meta.ledger.engine import Ledger, ReadView
from sds_node.meta.ledger.log import Head, Result
from sds_node.meta.ledger.transfer import export_ledger, import_ledger
from sds_node.meta.operations import Said
from sds_node.meta.relay.reporter import EpochData
from sds_node.meta.rules import tables
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.approvals import approval_bytes, approved, sign_approval
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.books.world import CHAIN_ID, Clock, World, message, meta_address, observed_meta, owner, signing_key


class Order:
    """One order of operations for several ledgers."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.turn = clock, asyncio.Lock()
        self.log: list[tuple[bytes, int]] = []
        self.replicas: list[Replica] = []


class Replica:
    """A meta node's copy of the ledger. One that is away gets what it missed when it is back, block by block."""

    def __init__(self, order: Order, url: str) -> None:
        self._order, self._time_ms, self._done = order, int(order.clock() * 1_000), len(order.log)
        self.ledger = Ledger.open(url, rules(CHAIN_ID), CHAIN_ID, now_ms=lambda: self._time_ms)
        self.on_commit: list[Callable[[], None]] = []
        self.is_away = False
        order.replicas.append(self)

    @property
    def head(self) -> Head:
        return self.ledger.head

    async def propose(self, operation: bytes) -> Result:
        order = self._order
        async with order.turn:
            order.log.append((operation, int(order.clock() * 1_000)))
            results = {one: await one.catch_up() for one in order.replicas if not one.is_away}
        found = results[self]
        assert found is not None
        return found

    async def catch_up(self) -> Result | None:
        result = None
        for operation, time_ms in self._order.log[self._done :]:
            self._time_ms = time_ms
            result = await self.ledger.propose(operation)
            self._done += 1
            for hook in self.on_commit:
                await asyncio.to_thread(hook)
        return result

    async def query(self, question: Callable[[ReadView], Any]) -> Any:
        return await self.ledger.query(question)

    def read(self) -> AbstractContextManager[ReadView]:
        return self.ledger.read()

    def snapshot(self) -> AbstractContextManager[ReadView]:
        return self.ledger.snapshot()

    def close(self) -> None:
        self.ledger.close()


class Meta(World):
    """One of several meta nodes."""

    epochs: EpochBooks
    fetching: Fetching
    approvals: Approvals
    asked: list[tuple[bytes, str]]
    """Who was asked to approve, and what they said: nothing where they did."""
    replica: Replica
    silent: set[bytes]
    """Meta nodes that do not answer this one."""
    own: set[bytes]
    """Leases that are this one's to settle when their meta node is gone."""


class Several:
    """``metas`` meta nodes of one network, which ``with`` all of them are online."""

    def __init__(self, clock: Clock, metas: list[Meta]) -> None:
        self.clock, self.metas = clock, metas
        self.first = metas[0]

    async def observe(self, *events: Any) -> None:
        await self.first.observe(*events)
        for one in self.metas:
            one.height = self.first.height
            if not one.replica.is_away:
                await one.registry.refresh()

    async def earn(self, meta: Meta, *noz: tuple[int, int]) -> list[Any]:
        """(node, noz) in one window of a meta node."""
        lease = await meta.lease(100_000)
        leaves = [meta.leaf(lease, node, amount) for node, amount in noz]
        for node in {node for node, _ in noz}:
            answers = await meta.states(meta.peer(node), *[leaf for (who, _), leaf in zip(noz, leaves, strict=True) if who == node])
            assert set(answers) == {1}
        await meta.windows.settle()
        return leaves

    async def close(self, number: int = 1, without: Sequence[bytes] = ()) -> None:
        made = message("CloseEpoch", epoch=number, without=sorted(without))
        signatures = (await self.first.approve(made)).signatures[: (len(self.metas) - 1) // 3] if without else []
        await self.first.proposer.propose("close_epoch", approved(made, signatures))

    async def report(self, number: int, **changes: Any) -> None:
        row = await self.first.row(tables.EPOCH, number)
        fields: dict[str, Any] = {
            "epoch": number, "reference": "sc1", "lines_root": row.lines_root, "lines_count": row.lines_count, "maturity_epoch": number + 4
        }  # fmt: skip
        await self.observe(message("ObservedEvent", report=message("ObservedReport", **fields | changes)))

    async def away(self, meta: Meta) -> None:
        meta.replica.is_away = True
        for one in self.metas:
            one.silent.add(meta.me)

    async def back(self, meta: Meta) -> None:
        meta.replica.is_away = False
        async with meta.replica._order.turn:
            await meta.replica.catch_up()
        await meta.registry.refresh()
        for one in self.metas:
            one.silent.discard(meta.me)


async def data_of(meta: Meta, number: int) -> EpochData:
    """What a meta node makes of an epoch as its ledger closed it."""
    row = await meta.row(tables.EPOCH, number)
    lines = await meta.ledger.query(lambda view: view.scan(tables.EPOCH_LINE, (number,), limit=1_000))
    return await meta.epochs.epoch(number, row.closed_ms, [Line(*line[1:]) for line in lines])


def name(meta: Meta) -> str:
    return bech32.encode(meta.me, bech32.NODE)


@asynccontextmanager
async def several(
    folder: Path, count: int = 2, *, follow: bool = True, alone: Callable[[Several], Awaitable[None]] | None = None
) -> AsyncIterator[Several]:
    """Meta nodes on files in ``folder``, all there, with three resource nodes and a wallet that bought noz. ``alone``: the first one does that before the others
    have its ledger, which they join by its export."""
    clock = Clock()
    order = Order(clock)
    metas: list[Meta] = []
    before, export = NOT_KNOWN, b""
    for number in range(1, count + 1):
        home = folder / f"meta{number}"
        home.mkdir()
        if export:
            import_ledger(f"sqlite:///{home}/ledger.db", rules(CHAIN_ID), CHAIN_ID, io.BytesIO(export).read)
        replica = Replica(order, f"sqlite:///{home}/ledger.db")
        own: set[bytes] = set()
        silent: set[bytes] = set()
        made = Meta(
            home,
            replica,
            open_books(home / "books", clock),
            clock,
            count,
            number,
            online=partial(_online, count, silent),
            has_duty=partial(_has_duty, own),
        )
        made.replica, made.own, made.silent = replica, own, silent
        made.epochs = EpochBooks(replica, made.books, made.windows, clock)
        metas.append(made)
        if number == 1 and alone is not None:
            made.metas = 1
            await made.start(3, 10**12)
            await alone(Several(clock, metas))
            await made.observe(*(message("ObservedEvent", meta=observed_meta(one)) for one in range(2, count + 1)))
            made.metas = count
            before, export = _exported(replica)
    if alone is None:
        await metas[0].start(3, 10**12)
    for one in metas[1:]:
        await one.start(0, 0)
    for one in metas:
        one.wire.handlers[asking.META_WINDOW] = partial(_window, EpochServing(one.epochs, one.books))
        one.fetching = _fetching(one, metas, before)
        one.approvals = Approvals(one.replica, one.books, CHAIN_ID, one.me, one.fetching._fetch, partial(one.fetching.need, wait_s=0.2), clock)
        one.asked = []
        one.windows._approve = partial(_approve, one, metas)
        one.epochs.need = partial(one.fetching.need, wait_s=0.2)
        if follow:
            await asyncio.to_thread(one.epochs.follow, one.replica)
    made_all = Several(clock, metas)
    try:
        yield made_all
        for one in metas:
            if not one.replica.is_away:
                await one.check()
        heads = {(one.ledger.head.sequence, one.ledger.head.app_hash) for one in metas if not one.replica.is_away}
        assert len(heads) == 1
    finally:
        for one in metas:
            await asyncio.to_thread(one.epochs.close)
        for one in metas:
            await one.close()


async def _approve(meta: Meta, metas: list[Meta], proposed: Any) -> Said:
    """Each of the others that answers looks at it as a meta node does."""
    found = []
    bad: dict[bytes, Sequence[bytes]] = {}
    for other in metas:
        if other is meta or other.me in meta.silent:
            continue
        try:
            await other.approvals.check_window(meta.me, proposed)
        except BooksError as error:
            meta.asked.append((other.me, str(error)))
            bad[other.me] = getattr(error, "serials", ())
        else:
            meta.asked.append((other.me, ""))
            found.append((other.me, sign_approval(approval_bytes(CHAIN_ID, meta.me, proposed), other.key)))
    return Said(found, bad)


async def _window(serving: EpochServing, stream: Any, connection: Any) -> None:
    """``meta.window`` for whoever asks."""
    await stream.send(await serving.window_page(b"", stream.head, b""))


def _online(count: int, silent: set[bytes]) -> list[bytes]:
    return [one for one in map(meta_address, range(1, count + 1)) if one not in silent]


def _has_duty(own: set[bytes], duty: bytes) -> bool:
    assert duty.startswith(b"lease")
    return duty.removeprefix(b"lease") in own


def _exported(replica: Replica) -> tuple[Before, bytes]:
    """(what the genesis tells, the export)."""
    written = io.BytesIO()
    with replica.snapshot() as view:
        export_ledger(view, rules(CHAIN_ID).schema, written.write)
        return Before(view.head.time_ms, frozenset(keepers_of(view))), written.getvalue()


def _fetching(meta: Meta, metas: list[Meta], before: Before) -> Fetching:
    peers: dict[bytes, Peer] = {}
    for other in metas:
        if other is not meta:
            caller = Node(Identity(bytes(signing_key(b"caller%d" % len(meta.callers)))), CHAIN_ID)
            meta.callers.append(caller)
            peers[other.me] = Peer(caller, other.me, [Direct("127.0.0.1", other.port, None)])

    async def ask(source: bytes, head: bytes) -> bytes:
        if source in meta.silent:
            raise TimeoutError("it does not answer")
        return await peers[source].ask(asking.META_WINDOW, head, most_bytes=asking.MAX_ANSWER_BYTES)

    def fetch(source: bytes, of: bytes, number: int) -> AsyncIterator[bytes]:
        return window_leaves(partial(ask, source), of, number)

    return Fetching(meta.ledger, meta.books, CHAIN_ID, meta.me, fetch, lambda: list(peers), meta.clock, before=before)


__all__ = ["Meta", "Order", "Replica", "Several", "data_of", "name", "owner", "several"]
