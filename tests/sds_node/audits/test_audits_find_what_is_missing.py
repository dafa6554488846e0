"""Audits of real resource nodes: who proves his shares is paid, who lost or never had them is found, a second chance comes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from modules.settlement.trees import plain_root
from sds_node import asking
from sds_node.merkle import leaf_proved, segment_root, share_root
from sds_node.meta.audits.auditor import AGAIN_S, Auditor
from sds_node.meta.audits.challenges import Item, challenges, judged, places, seed_of, with_leaves
from sds_node.meta.books.books import BooksError
from sds_node.meta.books.epochs import EpochBooks
from sds_node.meta.books.releases import NodeResult, Releases
from sds_node.meta.nodes.calls import NodeCalls
from sds_node.meta.nodes.hello import Hellos
from sds_node.meta.rules import tables
from sds_node.meta.rules.places import failed_of
from sds_node.meta.users.roots import RootsError
from sds_node.p2p import address_of
from sds_node.resource import store as shares
from sds_node.resource.receipts import open_receipts
from sds_node.resource.service import Service, Settings
from sds_node.schemes import released_noz
from sds_node.transfers import AUDIT, AuditAnswer
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.books.test_epochs_add_up import close
from tests.sds_node.books.world import (
    CHAIN_ID,
    DAY_S,
    World,
    message,
    meta_address,
    meta_key,
    new_object,
    node_key,
    observed_node,
    owner,
    public,
    until,
    world,
)
from tests.sds_node.data.network import content

pytestmark = pytest.mark.asyncio
SIZE = 100_000


class Chain:
    chain_id = CHAIN_ID

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        return public(meta_key()) if meta_node == meta_address() else None

    def active_meta_nodes(self) -> list[bytes]:
        return [meta_address()]


@dataclass
class Resource:
    """A resource node with a real store, that says hello and listens."""

    number: int
    store: shares.ShareStore
    service: Service
    server: Server
    close_receipts: Any
    port: int = 0

    async def close(self) -> None:
        self.service.stop()
        await self.server.close()
        self.service.close()
        self.close_receipts()
        self.store.close()

    def keep(self, data: bytes, serial: bytes) -> None:
        writer = self.store.begin(share_root(data), len(data), serial, b"kept")
        writer.write(data)
        writer.finish()


@dataclass
class Audits:
    world: World
    nodes: dict[int, Resource]
    auditor: Auditor
    calls: NodeCalls
    roots: dict[bytes, bytes]
    """Segment root → the share root of its replicas."""
    lost: list[tuple[int, int]] = field(default_factory=list)

    async def put(self, counter: int, holders: Sequence[int] = (1, 2, 3)) -> list[bytes]:
        """An object of three replicas; ``holders`` really have it. Gives the serials."""
        data = content(counter, SIZE)
        root = segment_root([share_root(data)] * 3)
        self.roots[root] = share_root(data)
        serials = [self.world.serial() for _ in range(3)]
        made = new_object(counter, SIZE, [1, 2, 3], 1, [serials[0]])
        made.segments[0].root = root
        lease = await self.world.lease(10**7)
        await self.world.proposer.propose("commit", message("Commit", lease_id=lease.id, objects=[made]))
        for node in holders:
            self.nodes[node].keep(data, serials[node - 1])
        return serials

    async def day(self, *, is_second: bool = True) -> None:
        """A day goes by, with its audits, and the second chances."""
        clock = self.world.clock
        clock.now_s = (clock.now_s // DAY_S + 2) * DAY_S - 2 * 3_600
        for number in self.nodes:
            await self.hello(number)
        await self.auditor.step()
        if is_second:
            clock.now_s += DAY_S // 48
            for number in self.nodes:
                await self.hello(number)
            await self.auditor.step()

    async def hello(self, number: int) -> None:
        node = self.nodes[number]
        peer = Peer(node.server.node, self.world.me, [Direct("127.0.0.1", self.world.port)])
        said = asking.NodeHello(endpoint=f":{node.port}", capacity_bytes=10**9, free_bytes=10**9)
        await peer.ask(asking.NODE_HELLO, encode(said))
        await peer.close()

    async def earned(self, number: int) -> int:
        row = await self.world.row(tables.EARNED, owner(number), 1, 1)
        return 0 if row is None else row.noz


@asynccontextmanager
async def audits(folder: Path) -> AsyncIterator[Audits]:
    async with world(folder) as made:
        known: dict[bytes, bytes] = {}

        async def roots_of(segments: Sequence[tables.Segment]) -> dict[int, list[bytes]]:
            return {one.number: [known[one.root]] * 3 for one in segments if one.root in known}

        hellos = Hellos(made.registry, made.books, made.wire, made.clock)
        made.wire.handlers.update(hellos.handlers())
        calls = NodeCalls(made.wire, made.registry, made.books, made.clock)
        releases = Releases(made.ledger, made.proposer, made.books, made.windows, made.me, roots_of)
        lost: list[tuple[int, int]] = []
        auditor = Auditor(
            made.ledger, made.books, releases, made.registry, calls, roots_of, CHAIN_ID, made.me, meta_key(), made.clock,
            on_lost=lambda segment, index: lost.append((segment, index)),
        )  # fmt: skip
        nodes = {}
        for number in (1, 2, 3):
            nodes[number] = await resource(folder / f"node{number}", number, made)
        try:
            yield Audits(made, nodes, auditor, calls, known, lost)
        finally:
            for node in nodes.values():
                await node.close()
            await calls.close()
            await hellos.close()


async def resource(home: Path, number: int, made: World) -> Resource:
    store = shares.open_store(home / "shares", shares.Settings(reserve_bytes=0))
    receipts = open_receipts(home / "receipts")
    service = Service(Chain(), node_key(number), bech32.encode(owner(number)), store, receipts, made.clock, Settings(threads=2))
    await service.start()
    server = Server(Node(Identity(bytes(node_key(number))), CHAIN_ID, service.handlers()))
    _, port = await server.listen()
    return Resource(number, store, service, server, receipts.close, port)


async def test_nodes_that_prove_their_shares_are_paid_each_day(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        for counter in range(6):
            await one.put(counter)
        await one.day(is_second=False)
        escrow = SIZE - SIZE // 2
        assert [await one.earned(number) for number in (1, 2, 3)] == [6 * released_noz(escrow, 1)] * 3
        assert await one.auditor.step() == 0  # once a day
        row = await one.world.row(tables.WINDOW, one.world.me, 1)
        assert row.is_release
        batch = await one.world.books.batch(row.batch_hash)
        assert batch is not None
        assert plain_root(_records(batch)) == row.root
        assert row.items == 3
        await one.day(is_second=False)
        data = await EpochBooks(one.world.ledger, one.world.books, one.world.windows).epoch(1, *await close(one.world))
        assert data.receipts_count > 18
        assert one.lost == []


def _records(batch: bytes) -> list[bytes]:
    records = []
    while batch:
        size = int.from_bytes(batch[:4], "big")
        records.append(batch[4 : 4 + size])
        batch = batch[4 + size :]
    return records


async def test_a_share_that_a_node_lost_is_found_and_only_it_fails(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        await one.put(2, holders=(2, 3))
        await one.day(is_second=False)
        assert await one.earned(1) == 0  # it has its second chance
        assert one.lost == []
        await one.hello(1)
        one.world.clock.now_s += DAY_S // 48
        await one.auditor.step()
        escrow = SIZE - SIZE // 2
        assert await one.earned(1) == released_noz(escrow, 1)
        assert await one.earned(2) == 2 * released_noz(escrow, 1)
        assert one.lost == [(2, 0)]
        segment = await one.world.row(tables.SEGMENT, 2)
        assert (await one.world.row(tables.OBJECT, segment.object)).repair_noz == released_noz(escrow, 1)
        seen = one.world.registry.seen_of(1)
        assert seen is not None
        assert seen.score_change == -50


async def another_auditor(one: Audits) -> None:
    """From now on a meta node audits that remembers nothing, and draws no share of any node."""
    made = one.world
    one.auditor = Auditor(
        made.ledger, made.books, one.auditor._releases, made.registry, one.calls, one.auditor._roots_of, CHAIN_ID, made.me, meta_key(), made.clock,
        on_lost=lambda segment, index: one.lost.append((segment, index)),
    )  # fmt: skip

    async def none(*_: Any) -> list[Any]:
        return []

    one.auditor._drawn_items = none  # type: ignore[method-assign, assignment]


async def test_a_share_that_was_lost_is_not_paid_by_whoever_audits_its_node_next(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        serials = await one.put(2, holders=(2, 3))
        await one.day()
        assert one.lost == [(2, 0)]
        escrow = SIZE - SIZE // 2
        await another_auditor(one)
        await one.day(is_second=False)
        assert await one.earned(1) == sum(released_noz(escrow, day) for day in (1, 2))
        assert one.lost == [(2, 0), (2, 0)]  # asked for, and not proved: it is to be repaired here, too
        seen = one.world.registry.seen_of(1)
        assert seen is not None
        assert seen.score_change == -50  # it costs no score a second time
        one.nodes[1].keep(content(2, SIZE), serials[0])
        await one.day(is_second=False)
        assert await one.earned(1) == sum(released_noz(escrow, day) for day in (1, 2, 3)) + sum(released_noz(escrow, day) for day in (2, 3))
        assert await one.world.ledger.query(lambda view: failed_of(view, 1)) == {}


async def test_a_failure_that_a_meta_node_makes_up_holds_until_the_next_audit(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        await one.put(2)
        one.world.clock.now_s += DAY_S
        results = [NodeResult(node=1, last_segment=9, failed_segments=[1, 2])]
        await one.auditor._releases.release(results, bytes(32), 1, bytes(32))
        assert await one.earned(1) == 0
        assert await one.world.ledger.query(lambda view: failed_of(view, 1)) == {1: 0, 2: 0}
        await another_auditor(one)
        await one.day(is_second=False)
        days = (await one.world.ledger.query(lambda view: view.get(tables.SEGMENT, (1,)))).days[1]
        assert days > 1
        assert await one.earned(1) == 2 * sum(released_noz(SIZE - SIZE // 2, day) for day in range(2, days + 1))
        assert one.lost == []


async def test_a_second_chance_that_is_used_is_a_pass(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        serials = await one.put(2, holders=(2, 3))
        await one.day(is_second=False)
        one.nodes[1].keep(content(2, SIZE), serials[0])
        one.world.clock.now_s += DAY_S // 48
        await one.auditor.step()
        assert one.lost == []
        assert await one.earned(1) == await one.earned(2)


async def test_a_node_that_answers_nothing_twice_is_not_paid(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        await one.nodes[1].server.close()
        del one.nodes[1].server.node.handlers[AUDIT]
        one.world.clock.now_s = (one.world.clock.now_s // DAY_S + 2) * DAY_S - 2 * 3_600
        await one.hello(2)
        await one.hello(3)
        await one.auditor.step()
        one.world.clock.now_s += DAY_S // 48
        await one.auditor.step()
        assert await one.earned(1) == 0
        assert await one.earned(2) > 0
        segment = await one.world.row(tables.SEGMENT, 1)
        assert (await one.world.row(tables.OBJECT, segment.object)).repair_noz > 0
        assert one.lost == []  # it is silent; whether its shares are lost is not known


async def test_a_node_in_maintenance_is_not_audited(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        one.world.clock.now_s = (one.world.clock.now_s // DAY_S + 2) * DAY_S - 2 * 3_600
        node = one.nodes[1]
        peer = Peer(node.server.node, one.world.me, [Direct("127.0.0.1", one.world.port)])
        said = asking.NodeHello(endpoint=":1", capacity_bytes=10**9, maintenance_until_s=int(one.world.clock.now_s) + 3_600)
        await peer.ask(asking.NODE_HELLO, encode(said))
        await one.auditor.step()
        one.world.clock.now_s += DAY_S // 48
        await one.auditor.step()
        assert await one.earned(1) == 0
        segment = await one.world.row(tables.SEGMENT, 1)
        assert segment.days[:2] == bytes(2)  # neither paid nor failed: settled with the next audit
        await one.day()
        assert await one.earned(1) == sum(released_noz(SIZE - SIZE // 2, day) for day in (1, 2))


async def test_maintenance_that_another_meta_node_makes_up_puts_no_audit_off(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        one.world.clock.now_s = (one.world.clock.now_s // DAY_S + 2) * DAY_S - 2 * 3_600
        await one.hello(1)
        lie = message("NodeSeen", node=1, capacity_bytes=10**9, is_online=True, maintenance_until_s=1 << 40)
        await one.world.proposer.propose("node_statuses", message("NodeStatuses", nodes=[lie]))
        await one.world.registry.refresh()
        assert (await one.world.row(tables.NODE, 1)).maintenance_until_ms > one.world.clock.now_s * 1_000
        await one.auditor.step()
        assert await one.earned(1) > 0


async def test_shares_whose_roots_are_not_known_are_left_out_and_paid_later(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        for counter in (1, 2, 3):
            await one.put(counter)
        forgotten = (await one.world.row(tables.SEGMENT, 2)).root
        root = one.roots.pop(forgotten)
        await one.day(is_second=False)
        assert await one.earned(1) == 2 * released_noz(SIZE - SIZE // 2, 1)
        one.roots[forgotten] = root
        await one.day(is_second=False)
        escrow = SIZE - SIZE // 2
        assert await one.earned(1) == 3 * sum(released_noz(escrow, day) for day in (1, 2))


async def test_a_share_that_was_deleted_before_the_second_chance_fails_nobody(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        await one.put(2, holders=(2, 3))
        await one.day(is_second=False)
        moved = message("MovedShare", segment=2, index=0, from_node=1, to_node=0, serial=one.world.serial())
        await one.world.observe(observed_node(4))
        moved.to_node = 4
        await one.world.proposer.propose("move", message("Move", shares=[moved]))
        one.world.clock.now_s += DAY_S // 48
        await one.auditor.step()
        assert one.lost == []
        assert await one.earned(1) == released_noz(SIZE - SIZE // 2, 1)


# --- what is asked, what proves it ----------------------------------------------------------------------------------------------------


async def test_places_are_different_in_order_and_change_with_the_seed() -> None:
    seeds = [seed_of(sha256(b"%d" % at).digest(), b"n" * 20, 1) for at in range(200)]
    drawn = [places(seed, 1_000, 20) for seed in seeds]
    assert all(one == sorted(set(one)) and len(one) == 20 and one[-1] < 1_000 for one in drawn)
    assert len({tuple(one) for one in drawn}) == 200
    hits = [0] * 10
    for one in drawn:
        for place in one:
            hits[place // 100] += 1
    assert min(hits) > 300  # 400 expected in each tenth
    assert places(seeds[0], 5, 20) == [0, 1, 2, 3, 4]


async def test_wrong_answers_prove_nothing() -> None:
    data = content(7, SIZE)
    item = Item(1, 0, b"s" * 16, share_root(data), SIZE)
    items = with_leaves([item, item], b"seed" * 8)
    ((head, part),) = challenges(items, CHAIN_ID, meta_address(), address_of(public(node_key(1))), 5, bytes(32), 10**9, meta_key())
    for raw in (
        b"",
        b"\xff\xff",
        AuditAnswer(challenge_hash=bytes(32)).SerializeToString(),
        AuditAnswer(challenge_hash=sha256(head.body).digest()).SerializeToString(),
    ):
        failed, record = judged(head, part, raw)
        assert failed == list(items)
        assert len(record) < 1_000
    answer = AuditAnswer(challenge_hash=sha256(head.body).digest())
    for _ in items:
        answer.proofs.add(leaf=data[: 1 << 14], path=[b"short", b"x" * 40] * 100)
    assert len(judged(head, part, answer.SerializeToString())[0]) == 2
    assert not leaf_proved(item.share_root, b"", 0, 7, [])


async def test_a_roots_file_that_fails_ends_no_audit_of_others_and_is_tried_again(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)
        auditor, broken = one.auditor, {2}
        drawn_items = auditor._drawn_items

        async def drawn(row: tables.Node, seed: bytes, count: int) -> list[Item]:
            if row.number in broken:
                raise RootsError("database or disk is full")
            return await drawn_items(row, seed, count)

        auditor._drawn_items = drawn  # type: ignore[method-assign]
        await one.day(is_second=False)
        assert (await one.earned(1) > 0, await one.earned(2), await one.earned(3) > 0) == (True, 0, True)
        broken.clear()
        assert await auditor.step() == 0, "it waits a little"
        one.world.clock.now_s += AGAIN_S
        await one.hello(2)
        assert await auditor.step() == 1
        assert await one.earned(2) > 0


async def test_the_loop_of_audits_outlives_a_roots_file_that_fails(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        calls = 0

        async def step() -> int:
            nonlocal calls
            calls += 1
            raise RootsError("database or disk is full")

        one.auditor.step = step  # type: ignore[method-assign]
        task = asyncio.create_task(one.auditor.run(0.001))
        await until(lambda: calls > 2)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_settled_while_the_books_cannot_be_written(tmp_path: Path) -> None:
    async with audits(tmp_path) as one:
        await one.put(1)

        async def broken(*_: Any) -> None:
            raise BooksError("the disk is full")

        one.world.books.keep_batch = broken  # type: ignore[assignment,method-assign]
        with pytest.raises(BooksError):
            await one.day(is_second=False)
        assert await one.earned(1) == 0
