"""Parts of repair by themselves: what waits and in which order, who pays, which nodes are lost, what hostile nodes tell."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nacl.signing
import pytest

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from modules.settlement.leaves import serial_prefix
from sds_node.asking import MetaContact
from sds_node.documents import REPAIR_LEASE_NOZ, Lease
from sds_node.documents import Refused as DocumentRefused
from sds_node.meta.books.books import Answer
from sds_node.meta.books.books import State as LeafState
from sds_node.meta.nodes.registry import Candidate, Contact
from sds_node.meta.repair.damage import Damage, WrongInventory
from sds_node.meta.repair.funds import HANDED_S, Funds, escrow_needed, read_noz, store_noz
from sds_node.meta.repair.health import Health, Judged, Standing, judge
from sds_node.meta.repair.issuing import Issuer
from sds_node.meta.repair.known import Later, Settings, credit_spare
from sds_node.meta.repair.placing import Placing
from sds_node.meta.repair.queue import Audited, Expected, Owed, Put, QueueError, RepairQueue, Walk, open_queue
from sds_node.meta.repair.transfer import NodeFailed, Transfers
from sds_node.meta.rules import tables
from sds_node.meta.rules.places import pack
from sds_node.p2p import address_of
from sds_node.resource.limits import Limits
from sds_node.schemes import FIVE_OF_TEN, ONE_COPY, TEN_OF_THIRTY, THREE_REPLICAS, TWO_OF_FIVE
from sds_node.transfers import GET, SHARE_MISSING, CopyRow, InventoryPage, TrafficEvidence
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.relay import REACH, serve
from sds_node.wire.stream import Stream
from tests.sds_node.rules.support import CHAIN_ID

pytestmark = pytest.mark.asyncio
NOW_S = 1_800_000_000
KEY = nacl.signing.SigningKey(b"k" * 32)
META = b"m" * 20


class Clock:
    now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


def node_row(number: int, **changed: Any) -> tables.Node:
    address = bytes([number]) * 20
    row = tables.Node(
        number, address, b"o" + address[1:], b"b" + address[1:], bytes([number]) * 32, tables.ACTIVE, 10**20, f"127.0.{number}.1:1", bytes([127, 0, number]),
        10**12, 10**12, True, NOW_S * 1_000, 0, 10_000, 1,
    )  # fmt: skip
    return row._replace(**changed)


class Nodes:
    """A registry of rows; ``away`` are not online."""

    hello_s = 10

    def __init__(self, *rows: tables.Node, away: Sequence[int] = ()) -> None:
        self.all, self.away = {row.number: row for row in rows}, set(away)

    def rows(self) -> dict[int, tables.Node]:
        return self.all

    def is_online(self, row: tables.Node) -> bool:
        return row.number not in self.away

    def seen_of(self, number: int) -> None:
        return None

    def candidates(self) -> list[Candidate]:
        return [Candidate(row.number, row.owner, row.prefix, 1_000, 1_000_000) for row in self.all.values() if row.number not in self.away]

    async def refresh(self) -> None:
        return


def object_row(k: int, n: int, size_bytes: int = 100_000, **changed: Any) -> tables.Object:
    row = tables.Object(
        b"i" * 32, b"p" * 20, bytes(32), bytes(32), tables.PAID, bytes(32), "hash", size_bytes, k, n, 1, 1, 1, 5 * 10**17, NOW_S * 1_000, 365, 1, 0, 0, 0, 0,
        tables.KEPT, 0,
    )  # fmt: skip
    return row._replace(**changed)


def judged(
    row: tables.Object, holders: Sequence[int], standing: dict[int, Standing] | None = None, marks: dict[tuple[int, int], int] | None = None
) -> Judged:
    segment = tables.Segment(1, row.id, b"r" * 32, b"s" * 16, pack(holders, 4), bytes(2 * row.n))
    return judge((segment, row, [bytes(16)] * row.n), lambda node: (standing or {}).get(node, Standing.HEALTHY), marks or {})


def ledger_state(paid_noz: int) -> tables.State:
    values: dict[str, Any] = dict.fromkeys(tables.State._fields, 0)
    return tables.State(**{**values, "repair_paid_noz": paid_noz})


class NoBooks:
    """What became of leaves."""

    def __init__(self, states: dict[bytes, LeafState]) -> None:
        self.states = states

    async def answers(self, ids: Sequence[bytes]) -> list[Answer | None]:
        return [Answer(self.states[one], "") if one in self.states else None for one in ids]


@pytest.fixture
def queue(tmp_path: Path) -> Any:
    made = open_queue(tmp_path / "repairs.db")
    yield made
    made.close()


# --- what waits -------------------------------------------------------------------------------------------------------------


async def test_the_segment_with_the_fewest_spare_shares_comes_first_then_the_oldest(queue: RepairQueue) -> None:
    await queue.note([(5, 2), (6, 0)], NOW_S)
    await queue.note([(1, 2), (9, 0), (3, 1)], NOW_S + 1)
    found = await queue.take(10, (), NOW_S + 2)
    assert [row.number for row in found] == [6, 9, 3, 5, 1]
    assert [row.number for row in await queue.take(2, {6, 3}, NOW_S + 2)] == [9, 5]


async def test_a_segment_waits_once_and_a_worse_count_moves_it_forward(queue: RepairQueue) -> None:
    assert await queue.note([(1, 2), (2, 1)], NOW_S) == 2
    assert await queue.note([(1, 0)], NOW_S + 5) == 0
    assert [(row.number, row.spare, row.since_s) for row in await queue.take(10, (), NOW_S)] == [(1, 0, NOW_S), (2, 1, NOW_S)]


async def test_what_was_put_off_is_not_tried_before_its_time_unless_something_changes(queue: RepairQueue) -> None:
    await queue.note([(1, 1), (2, 1)], NOW_S)
    await queue.later(1, 1, NOW_S + 60, "funds")
    await queue.later(2, -1, NOW_S + 60, "lost")
    assert await queue.take(10, (), NOW_S + 59) == []
    assert await queue.numbers() == {"waiting": 2, "lost": 1, "funds": 1}
    assert await queue.lost() == [2]
    await queue.note([(2, 0)], NOW_S + 1)
    assert [(row.number, row.attempts) for row in await queue.take(10, (), NOW_S + 59)] == [(2, 0)]
    assert [(row.number, row.attempts) for row in await queue.take(10, {2}, NOW_S + 60)] == [(1, 1)]


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = open_queue(tmp_path / "q")
    put = Put(b"s" * 16, 3, 1, 7, 8, b"r" * 32, b"o" * 16, is_acked=False)
    await first.note([(3, 1)], NOW_S)
    await first.begin_walk(7, Walk.LOST)
    await first.walked(7, 4, [(4, 1)], NOW_S)
    await first.mark([(3, 0, 9, "damaged")])
    await first.putting(put)
    await first.acked(put.serial)
    await first.owe([Owed(b"s" * 16, b"i" * 32, 1, 5, NOW_S)])
    await first.not_proved(9, NOW_S)
    await first.not_proved(9, NOW_S + 5)
    await first.audited(Audited(9, 77, 5.5, b"items"))
    first.close()
    again = open_queue(tmp_path / "q")
    assert {row.number for row in await again.take(9, (), NOW_S)} == {3, 4}
    assert await again.walks() == {7: (Walk.LOST, 4)}
    assert await again.marked([3]) == {(3, 0): 9}
    assert await again.puts() == [put._replace(is_acked=True)]
    assert [row.noz for row in await again.all_owed()] == [5]
    assert await again.unproved() == {9: (2, NOW_S + 5)}
    assert await again.all_audited() == [Audited(9, 77, 5.5, b"items")]
    again.close()


async def test_a_file_of_before_is_brought_up_to_date_with_what_it_has(tmp_path: Path) -> None:
    open_queue(tmp_path / "q").close()
    database = sqlite3.connect(tmp_path / "q")
    database.executescript(
        "DROP INDEX bad_of; DROP TABLE unproved; DROP TABLE audits; ALTER TABLE puts DROP COLUMN evidence; CREATE TABLE exits (node INTEGER PRIMARY KEY); INSERT INTO exits VALUES (4);"
        "INSERT INTO bad VALUES (3, 0, 9, 'damaged'); PRAGMA user_version = 1;"
    )
    database.close()
    again = open_queue(tmp_path / "q")
    assert await again.marked_at(9, 5) == {3: 0}
    await again.not_proved(9, NOW_S)
    again.close()
    database = sqlite3.connect(tmp_path / "q")
    assert database.execute("SELECT name FROM sqlite_master WHERE name = 'exits'").fetchall() == []
    assert database.execute("PRAGMA user_version").fetchone() == (2,)
    database.close()


async def test_a_mark_ends_with_the_move_of_that_nodes_copy_alone(queue: RepairQueue) -> None:
    await queue.mark([(3, 0, 9, "damaged"), (3, 1, 8, "damaged")])
    await queue.moved([Put(b"s" * 16, 3, 0, 9, 2, b"", b"", is_acked=True), Put(b"t" * 16, 3, 1, 7, 2, b"", b"", is_acked=True)])
    assert await queue.marked([3]) == {(3, 1): 8}


async def test_a_file_that_is_none_or_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, and longer than a header of one hundred bytes" * 10)
    with pytest.raises(QueueError, match="move it away"):
        open_queue(tmp_path / "text")
    database = sqlite3.connect(tmp_path / "newer")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(QueueError, match="99"):
        open_queue(tmp_path / "newer")


# --- whose shares are healthy -----------------------------------------------------------------------------------------------


async def health(queue: RepairQueue, nodes: Nodes, clock: Clock, **settings: Any) -> Health:
    made = Health(None, nodes, queue, clock, Settings(**settings))  # type: ignore[arg-type]
    await made.start()
    return made


async def test_a_node_is_lost_when_it_was_offline_for_a_day_or_is_gone(queue: RepairQueue) -> None:
    nodes = Nodes(node_row(1), node_row(2), node_row(3, standing=tables.GONE), node_row(4, standing=tables.LEAVING), away=[2])
    clock = Clock()
    made = await health(queue, nodes, clock)
    clock.now_s += 86_399
    assert [made.standing(one) for one in (1, 2, 3, 4, 99)] == [
        Standing.HEALTHY, Standing.HEALTHY, Standing.LOST, Standing.LEAVING, Standing.LOST,
    ]  # fmt: skip
    clock.now_s += 1
    assert made.standing(2) is Standing.LOST


async def test_after_a_start_nodes_have_time_to_say_hello(queue: RepairQueue) -> None:
    nodes, clock = Nodes(node_row(1, seen_ms=0), away=[1]), Clock()
    made = await health(queue, nodes, clock)
    clock.now_s += 29
    assert made.standing(1) is Standing.HEALTHY
    clock.now_s += 1
    assert made.standing(1) is Standing.LOST


async def test_a_mark_counts_for_the_node_that_it_names_alone() -> None:
    row = object_row(2, 5)
    one = judged(row, [1, 2, 3, 4, 0], {4: Standing.LOST}, {(1, 0): 1, (1, 1): 9})
    assert (list(one.healthy), list(one.lost), list(one.marked), list(one.empty)) == ([1, 2], [0, 3], [0], [4])
    assert (one.spare, one.is_short, one.is_lost) == (0, True, False)


async def test_a_share_at_a_leaving_node_counts_and_is_work() -> None:
    one = judged(object_row(2, 5), [1, 2, 3, 4, 5], {5: Standing.LEAVING})
    assert (one.count, one.is_short, one.needs_work) == (5, False, True)
    assert not judged(object_row(2, 5), [1, 2, 3, 4, 5]).needs_work
    assert not judged(object_row(2, 5), [1, 2, 3, 4, 5], {5: Standing.LOST}).needs_work
    assert judged(object_row(1, 3), [1, 2, 3], {3: Standing.LOST}).needs_work


# --- who pays ---------------------------------------------------------------------------------------------------------------


def funds(queue: RepairQueue, clock: Clock, states: dict[bytes, LeafState] | None = None, **settings: Any) -> Funds:
    return Funds(NoBooks(states or {}), queue, clock, Settings(**settings))  # type: ignore[arg-type]


async def test_the_own_fund_pays_first_and_what_is_owed_is_not_spent_twice(queue: RepairQueue) -> None:
    made, row, state = funds(queue, Clock()), object_row(2, 5, repair_noz=100), ledger_state(1_000)
    assert made.available(state, row) == 1_100
    await made.owe([Owed(b"1" * 16, row.id, 1, 150, NOW_S), Owed(b"2" * 16, b"x" * 32, 1, 300, NOW_S), Owed(b"3" * 16, b"x" * 32, 2, 999, NOW_S)])
    # 150 of its own: 100 from its fund, 50 from the common one, of which others take 300.
    assert made.available(state, row) == 650
    await made.forget([b"1" * 16, b"1" * 16])
    assert made.available(state, row) == 800


async def test_receipts_that_are_settled_refused_or_never_came_are_not_owed(queue: RepairQueue) -> None:
    clock = Clock()
    made = funds(queue, clock, {b"1" * 16: LeafState.SETTLED, b"2" * 16: LeafState.REFUSED, b"3" * 16: LeafState.HELD})
    await made.owe([Owed(bytes([48 + at]) * 16, b"x" * 32, 1, 10, NOW_S) for at in range(1, 5)])
    assert (await made.settle(), made.owed_noz) == (2, 20)
    clock.now_s += HANDED_S + 1
    assert (await made.settle(), made.owed) == (1, 1)
    again = funds(queue, clock)
    await again.start()
    assert again.owed_noz == 10


async def test_what_is_forgotten_while_the_books_are_asked_is_settled_by_nobody(queue: RepairQueue) -> None:
    made = funds(queue, Clock())
    await made.owe([Owed(b"1" * 16, b"x" * 32, 1, 10, NOW_S), Owed(b"2" * 16, b"x" * 32, 1, 10, NOW_S)])
    ask = made._books.answers

    async def answers(serials: Any) -> Any:
        await made.forget([b"1" * 16])
        return await ask(serials)

    made._books.answers = answers  # type: ignore[assignment, method-assign]
    assert (await made.settle(), made.owed, made.owed_noz) == (0, 1, 10)


async def test_without_funds_a_repair_waits_until_half_of_its_spare_shares_are_used(queue: RepairQueue) -> None:
    made, state = funds(queue, Clock()), ledger_state(0)
    assert [credit_spare(one) for one in (TEN_OF_THIRTY, FIVE_OF_TEN, TWO_OF_FIVE, THREE_REPLICAS, ONE_COPY)] == [4, 2, 1, 1, 0]
    holders = list(range(1, 31))
    for healthy, may_wait in ((17, True), (15, True), (14, False), (10, False), (9, False)):
        one = judged(object_row(10, 30), holders, dict.fromkeys(holders[healthy:], Standing.LOST))
        if may_wait:
            with pytest.raises(Later, match="can pay 0 noz, 5 are needed"):
                made.check(one, state, 5)
        else:
            assert made.check(one, state, 5) is False
        assert made.check(one, ledger_state(5), 5) is True


async def test_credit_ends_with_too_many_receipts_that_nobody_pays_but_not_for_the_last_shares(queue: RepairQueue) -> None:
    made, state = funds(queue, Clock(), most_owed=1), ledger_state(0)
    await made.owe([Owed(b"1" * 16, b"x" * 32, 1, 1, NOW_S)])
    with pytest.raises(Later):
        made.check(judged(object_row(2, 5), [1, 2, 3, 4, 5], {4: Standing.LOST, 5: Standing.LOST}), state, 5)
    assert made.check(judged(object_row(2, 5), [1, 2, 3, 4, 5], dict.fromkeys((3, 4, 5), Standing.LOST)), state, 5) is False


async def test_shares_that_nobody_ever_held_are_made_as_far_as_the_funds_have_their_escrow(queue: RepairQueue) -> None:
    made = funds(queue, Clock())
    holders = [*range(1, 26), 0, 0, 0, 0, 0]
    lost = dict.fromkeys(range(1, 11), Standing.LOST)
    one = judged(object_row(10, 30), holders, lost | {25: Standing.LEAVING})
    size = one.share_bytes
    base = 10 * size + 11 * (size // 2)
    for noz, empty in (
        (0, []),
        (base, []),
        (base + size - 1, []),
        (base + size, [25]),
        (base + 3 * size, [25, 26, 27]),
        (base + 9 * size, [25, 26, 27, 28, 29]),
    ):
        assert made.shares_to_make(one, ledger_state(noz)) == [*range(10), *empty, 24]
    calm = judged(object_row(10, 30), holders, {25: Standing.LEAVING, 24: Standing.LOST})
    assert made.shares_to_make(calm, ledger_state(10**9)) == [24]


async def test_prices_are_a_users_and_never_nothing() -> None:
    row = object_row(2, 5)
    assert (read_noz(50_000), read_noz(0), store_noz(row, 50_001), store_noz(row, 1)) == (50_000, 1, 25_000, 1)
    one = judged(row, [1, 2, 3, 4, 0])
    assert escrow_needed(one, 0) == one.share_bytes // 2
    assert escrow_needed(one, 365) == 0


# --- where to ---------------------------------------------------------------------------------------------------------------


async def test_a_new_holder_has_another_owner_and_prefix_than_those_that_stay(queue: RepairQueue) -> None:
    nodes = Nodes(
        *(node_row(number) for number in range(1, 6)),
        node_row(6, owner=node_row(1).owner),
        node_row(7, prefix=node_row(2).prefix),
        node_row(8, prefix=node_row(5).prefix),
        node_row(9, owner=node_row(5).owner),
        away=[5],
    )
    clock = Clock()
    made = await health(queue, nodes, clock, lost_s=30)
    clock.now_s += 60
    placing = Placing(nodes, made, clock, 600)  # type: ignore[arg-type]
    one = judged(object_row(2, 5), [1, 2, 3, 4, 5], {5: Standing.LOST})
    chosen = {found.number for block in range(40) if (found := placing.choose(one, 4, bytes([block]) * 32, (), ())) is not None}
    # The lost one's prefix and owner are free for the share that was his.
    assert chosen == {8, 9}
    assert placing.choose(one, 4, bytes(32), (), (8, 9)) is None
    taken = [Candidate(8, node_row(8).owner, node_row(8).prefix, 1, 1)]
    found = placing.choose(one, 4, bytes(32), taken, ())
    assert found is not None
    assert found.number == 9


async def test_room_that_is_promised_is_not_given_twice(queue: RepairQueue) -> None:
    nodes, clock = Nodes(*(node_row(number) for number in range(1, 6))), Clock()
    placing = Placing(nodes, await health(queue, nodes, clock), clock, 600)  # type: ignore[arg-type]
    one = judged(object_row(1, 3, 700_000), [1, 2, 3])
    assert {found.number for at in range(2) if (found := placing.choose(one, at, bytes(32), (), ())) is not None} == {4, 5}
    assert placing.choose(one, 2, bytes(32), (), ()) is None
    placing.release(one, 0)
    assert placing.choose(one, 2, bytes(32), (), ()) is not None


# --- limits -----------------------------------------------------------------------------------------------------------------


class OneMeta:
    """A ledger that knows active meta nodes; the authority of nodes that judge limits."""

    chain_id = CHAIN_ID

    def __init__(self, metas: int = 1) -> None:
        keys = [bytes(KEY.verify_key), *(bytes(nacl.signing.SigningKey(bytes([at]) * 32).verify_key) for at in range(1, metas))]
        self.metas = {META if at == 0 else bytes([at]) * 20: key for at, key in enumerate(keys)}

    async def query(self, question: Any) -> Any:
        return dict(self.metas)

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        return self.metas.get(meta_node)

    def active_meta_nodes(self) -> list[bytes]:
        return list(self.metas)


async def nobody(body: bytes) -> list[tuple[bytes, bytes]]:
    return []


def issuer(ledger: OneMeta, clock: Clock) -> Issuer:
    return Issuer(ledger, CHAIN_ID, META, KEY, 3, b"e" * 32, nobody, clock, 600)  # type: ignore[arg-type]


async def test_nodes_take_the_limits_of_repair_and_no_two_have_a_noz_in_common() -> None:
    ledger, clock = OneMeta(), Clock()
    made, contact, row = issuer(ledger, clock), contact_of(1), object_row(2, 5)
    node = Limits(ledger, contact.address, bech32.encode(contact.beneficiary))
    for number in range(5):
        limit = await made.limit(row, contact, bytes([number]) * 32, 1_000, 500)
        taken = node.accept(limit.certificate, TrafficEvidence(order_limit=limit.document), NOW_S)
        assert (taken.from_noz, taken.to_noz, taken.action, taken.object_root) == (500 * number, 500 * number + 500, 3, row.id)
        assert limit.serial[:12] == serial_prefix(META) + bytes([0, 0, 0, 3])
        assert limit.serial[12] >= 0xF0
    assert node.leases == 1
    clock.now_s += 3_100
    await made.limit(row, contact, bytes(32), 1_000, 500)
    other = await made.limit(row, contact, bytes(32), 1_000, REPAIR_LEASE_NOZ)
    node.accept(other.certificate, TrafficEvidence(order_limit=other.document), int(clock.now_s))
    assert Lease.FromString(other.certificate.body).expires_s == clock.now_s + 3_600


async def test_a_lease_that_too_few_meta_nodes_sign_is_none() -> None:
    made = issuer(OneMeta(4), Clock())
    with pytest.raises(Later, match="2 meta nodes and has 1"):
        await made.limit(object_row(2, 5), contact_of(1), bytes(32), 1_000, 500)


async def test_a_node_takes_no_limit_of_repair_for_somebody_else() -> None:
    ledger = OneMeta()
    limit = await issuer(ledger, Clock()).limit(object_row(2, 5), contact_of(1), bytes(32), 1_000, 500)
    other = Limits(ledger, contact_of(2).address, bech32.encode(contact_of(2).beneficiary))
    with pytest.raises(DocumentRefused):
        other.accept(limit.certificate, TrafficEvidence(order_limit=limit.document), NOW_S)


def contact_of(number: int) -> Any:
    row = node_row(number)
    return Contact(number, row.address, row.p2p_key, row.beneficiary, row.endpoint, None, is_online=True)


async def test_a_node_behind_nat_is_reached_through_this_meta_node() -> None:
    calls = []

    async def missing(stream: Stream, connection: Connection) -> None:
        calls.append(connection.remote.address)
        raise wire_errors.Refused(SHARE_MISSING, "no such share here")

    meta = Node(Identity(b"M" * 32), CHAIN_ID)
    serve(meta)
    server = Server(meta)
    host, port = await server.listen()
    hidden = Node(Identity(b"H" * 32), CHAIN_ID, {GET: missing}, capabilities=(REACH,))
    keeping = asyncio.create_task(Peer(hidden, meta.address, [Direct(host, port)]).keep(reachable=True))
    for _ in range(1_000):
        if meta.connections_of(hidden.address):
            break
        await asyncio.sleep(0.01)
    made, clock = Transfers(CHAIN_ID, Clock(), 10.0), Clock()
    relay = MetaContact(p2p_key=bytes(nacl.signing.SigningKey(b"M" * 32).verify_key), endpoint=f"{host}:{port}")
    contact = replace(contact_of(1), address=hidden.address, endpoint="", relay=relay)
    limit = await issuer(OneMeta(), clock).limit(object_row(2, 5), contact, bytes(32), 1_000, 500)
    try:
        with pytest.raises(NodeFailed, match="no such share") as failed:
            await made.get(limit, bytes(32))
        assert (failed.value.code, failed.value.is_lie, failed.value.is_owed) == (SHARE_MISSING, False, False)
        assert calls == [address_of(made.session)]
        nowhere = await issuer(OneMeta(), clock).limit(object_row(2, 5), replace(contact, relay=None), bytes(32), 1_000, 500)
        with pytest.raises(NodeFailed, match="no endpoint"):
            await made.get(nowhere, bytes(32))
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await made.close()
        await hidden.close()
        await server.close()


# --- what nodes tell --------------------------------------------------------------------------------------------------------


class Telling:
    """A node's answers to INVENTORY."""

    def __init__(self, *pages: bytes) -> None:
        self.pages = list(pages)

    async def ask(
        self, number: int, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 1 << 20, idle_s: float | None = None
    ) -> bytes:
        return self.pages.pop(0)


def page(*copies: tuple[bytes, bytes]) -> bytes:
    return encode(InventoryPage(copies=[CopyRow(share_root=root, serial=serial, size_bytes=1, state=2, is_damaged=True) for root, serial in copies]))


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff",
        page((b"b" * 32, b"1" * 16), (b"a" * 32, b"1" * 16)),
        page((b"a" * 32, b"1" * 16), (b"a" * 32, b"1" * 16)),
        page((b"a" * 31, b"1" * 16)),
        page((b"a" * 32, b"")),
        page(*((at.to_bytes(32, "big"), b"1" * 16) for at in range(1, 1_002))),
    ],
)
async def test_an_inventory_that_is_none_is_refused_and_nothing_counts_as_missing(queue: RepairQueue, answer: bytes) -> None:
    class Empty:
        async def query(self, question: Any) -> Any:
            return [], None

    await queue.expect([Expected(b"1" * 16, b"a" * 32, 1, 0)])
    made = Damage(Empty(), Nodes(node_row(1)), Telling(answer), queue, None, None, None, Clock(), Settings())  # type: ignore[arg-type]
    with pytest.raises(WrongInventory):
        await made.ask_damaged(1)


async def test_what_was_expected_is_ticked_off_by_its_serial_and_root(queue: RepairQueue) -> None:
    await queue.expect([Expected(b"1" * 16, b"a" * 32, 1, 0), Expected(b"2" * 16, b"", 2, 1), Expected(b"3" * 16, b"c" * 32, 3, 2)])
    found = await queue.found([(b"a" * 32, b"1" * 16), (b"z" * 32, b"2" * 16), (b"x" * 32, b"3" * 16), (b"x" * 32, b"9" * 16)])
    assert [None if one is None else one.segment for one in found] == [1, 2, None, None]
    assert [one.segment for one in await queue.missing()] == [3]
    assert await queue.missing() == []


@pytest.mark.parametrize("changed", [{"lost_s": 0}, {"at_once": 0}, {"attempts": 99}, {"limit_s": 4_000}, {"retry_most_s": 1.0}])
async def test_settings_that_mean_nothing_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Settings(**changed)
