"""What enters the ledger was acknowledged by its nodes, under limits of this meta node, once; and it enters once, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from chain.crypto import address as bech32
from modules.settlement.documents import OrderLimit
from sds_node import asking, transfers
from sds_node.merkle import object_root, segment_root
from sds_node.meta.books.books import BooksError
from sds_node.meta.lateness import FREE_S
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.refusals import BAD_FORM, BAD_OBJECT, NOT_ASKED, UNKNOWN_NODE
from sds_node.meta.rules.tables import MOVED, OBJECT, OPEN, SEGMENT, STATE
from sds_node.meta.users import asked, commits
from sds_node.meta.users.roots import Part, open_roots
from sds_node.schemes import ONE_COPY, THREE_REPLICAS, TWO_OF_FIVE, share_bytes
from sds_node.wire.errors import Busy, TimedOut, TooMuch
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.rules.support import CHAIN_ID, event, message, meta_key
from tests.sds_node.users.support import (
    Meta,
    Nodes,
    Stored,
    User,
    ack,
    limit_of,
    meta_node,
    put_ask,
    resigned,
    share_root_of,
    stored_object,
    stored_segment,
)
from tests.sds_node.users.test_sessions import disk_bytes, refused

pytestmark = pytest.mark.asyncio
MIB = 1 << 20
SIZE = 2 * MIB
SEGMENT_BYTES = 32 * MIB


async def ready(meta: Meta, noz: int = 10**9) -> tuple[User, bytes]:
    user = await meta.user()
    return user, await user.lease(noz)


async def commit_refused(code: int, user: User, ask: Any) -> str:
    user.meta.clock.wait(0.1)  # what is refused is charged for
    return await refused(code, user, asking.OBJECT_COMMIT, None, ask)


# --- what is right -----------------------------------------------------------------------------------------------------------------------


async def test_the_ledger_has_what_the_nodes_acknowledged(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, SIZE, 0, TWO_OF_FIVE)
        places = await user.put_places(lease_id, ask)
        segment = stored_segment(meta.nodes, ask, places)
        (done,) = await user.commit(asking.CommitAsk(lease_id=lease_id, objects=[stored_object(1, SIZE, TWO_OF_FIVE, [segment])]))
        assert (done.counter, done.escrow_noz, done.receipts_noz, done.is_complete) == (1, 5 * MIB // 2, 5 * MIB // 2, True)
        row = await meta.get(OBJECT, done.object_id)
        stored = await meta.get(SEGMENT, row.first_segment)
        assert nodes_of(stored.nodes) == [meta.nodes.number_of(one.p2p_key) for one in places]
        assert stored.first_serial == limit_of(places[0]).serial
        assert (stored.root, row.root) == (segment_root(list(segment.share_roots)), object_root([stored.root]))
        assert await meta.get(MOVED, stored.number, 0) is None
        assert row.escrow_noz == done.escrow_noz


async def test_a_share_of_another_place_has_a_serial_of_its_own(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 8) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, SIZE, 0, TWO_OF_FIVE)
        places = await user.put_places(lease_id, ask)
        failed = meta.nodes.address(meta.nodes.number_of(places[0].p2p_key))
        places[0] = (await user.another(lease_id, ask, 0, [failed]))[0]
        await user.commit(
            asking.CommitAsk(lease_id=lease_id, objects=[stored_object(1, SIZE, TWO_OF_FIVE, [stored_segment(meta.nodes, ask, places)])])
        )
        row = await meta.get(OBJECT, object_id(lease_id, 1))
        assert (await meta.get(MOVED, row.first_segment, 0)).serial == limit_of(places[0]).serial
        stored = await meta.get(SEGMENT, row.first_segment)
        assert stored.first_serial == transfers.serial_at(limit_of(places[1]).serial, -1)


async def test_shares_that_nobody_acknowledged_cost_a_tenth_and_the_rest_is_free_again(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta, 10**8)
        done = await user.keep(lease_id, 1, SIZE, missing=[2])
        assert (await meta.get(STATE, 1)).repair_paid_noz == -(-MIB // 10)
        assert done.escrow_noz == 4 * MIB // 2
        row, held = await meta.lease(lease_id), meta.users.leases.get(lease_id)
        assert held is not None
        assert row.noz == 10**8 - done.escrow_noz - -(-MIB // 10)
        assert held.left_noz == row.noz - held.outstanding_noz
        assert held.reserved == {}


async def test_many_objects_go_in_together_in_as_many_operations_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "MAX_OBJECTS", 3)
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = [await user.store(lease_id, counter, 100 * counter) for counter in range(1, 9)]
        before = meta.ledger.head.sequence
        done = await user.commit(stored[0].ask(*stored[1:]))
        assert meta.ledger.head.sequence - before == 3
        assert [one.counter for one in done] == list(range(1, 9))
        assert all(one.is_complete for one in done)
        assert (await meta.wallet()).files == 8


async def test_a_large_object_goes_in_in_parts_of_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "MAX_SEGMENTS", 2)
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta, 10**10)
        small, large = await user.store(lease_id, 1, 50), await user.store(lease_id, 2, 4 * SEGMENT_BYTES + 5)
        done = await user.commit(small.ask(large))
        assert [one.is_complete for one in done] == [True, True]
        reading = await user.lease(10**6)
        asks = [asking.GetAsk(object_id=done[1].object_id, segment=at, index=0, size_bytes=5) for at in range(5)]
        found = [limit_of(one).share_root for one in await user.get_places(reading, *asks)]
        assert found == [share_root_of(2, at, 0) for at in range(5)]


async def test_an_operation_stays_within_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "MAX_COMMIT_BYTES", 1_200)
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta, 10**10)
        stored = [await user.store(lease_id, counter, 5 * SEGMENT_BYTES) for counter in (1, 2)]
        before = meta.ledger.head.sequence
        assert all(one.is_complete for one in await user.commit(stored[0].ask(stored[1])))
        assert 2 <= meta.ledger.head.sequence - before <= 6


def part(stored: Stored, first: int, last: int) -> Any:
    """Segments ``first`` to before ``last`` of a stored object, as a commit."""
    made = asking.StoredObject.FromString(stored.message.SerializeToString())
    kept = list(stored.message.segments)[first:last]
    made.ClearField("segments")
    made.segments.extend(kept)
    made.first_segment = first
    return asking.CommitAsk(lease_id=stored.lease_id, objects=[made])


async def test_an_object_may_come_in_several_commits_and_is_open_until_the_last(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta, 10**10)
        stored = await user.store(lease_id, 1, 3 * SEGMENT_BYTES)
        (first,) = await user.commit(part(stored, 0, 1))
        assert not first.is_complete
        assert (await meta.get(OBJECT, first.object_id)).state == OPEN
        await commit_refused(asking.BAD_ASK, user, part(stored, 2, 3))
        (again,) = await user.commit(part(stored, 0, 1))
        assert again == first
        (rest,) = await user.commit(part(stored, 0, 3))  # all of it, of which one is there
        assert rest.is_complete
        assert (await user.commit(part(stored, 2, 3)))[0].is_complete


async def test_an_empty_object_needs_no_node(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        (done,) = await user.commit(asking.CommitAsk(lease_id=lease_id, objects=[stored_object(1, 0, THREE_REPLICAS, [])]))
        assert (done.is_complete, done.escrow_noz) == (True, 0)
        bad = stored_object(2, 0, ONE_COPY, [])
        await commit_refused(asking.BAD_ASK, user, asking.CommitAsk(lease_id=lease_id, objects=[bad]))


# --- again, and after a stop -------------------------------------------------------------------------------------------------------------


async def test_the_same_commit_again_answers_the_same_even_when_its_lease_is_settled(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE, missing=[4])
        first = await user.commit(stored.ask())
        before = meta.ledger.head.sequence
        assert await user.commit(stored.ask()) == first
        assert meta.ledger.head.sequence == before
        await user.end(lease_id)
        meta.clock.wait(600 + FREE_S)
        await meta.users.lending.settle_due()
        assert await meta.lease(lease_id) is None
        assert await user.commit(stored.ask()) == first
        other = Stored(lease_id, stored_object(2, 0, THREE_REPLICAS, []))
        await commit_refused(asking.LEASE_LOST, user, other.ask())


async def test_nothing_more_is_stored_under_a_lease_that_was_ended(tmp_path: Path) -> None:
    """Its nodes are not paid any more for what was not committed until then."""
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored, late = await user.store(lease_id, 1, SIZE), await user.store(lease_id, 2, SIZE)
        first = await user.commit(stored.ask())
        await user.end(lease_id)
        assert not meta.users.leases.may_commit(lease_id)
        assert await user.commit(stored.ask()) == first
        assert "was ended, so nothing more is stored under it" in await commit_refused(asking.LEASE_LOST, user, late.ask())


async def test_under_an_ended_lease_only_what_is_there_whole_and_ones_own_is_answered_again(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta, 10**10)
        open_, whole = await user.store(lease_id, 1, 3 * SEGMENT_BYTES), await user.store(lease_id, 2, SIZE)
        await user.commit(part(open_, 0, 1))
        done = await user.commit(whole.ask())
        await user.end(lease_id)
        await commit_refused(asking.LEASE_LOST, user, part(open_, 0, 1))
        both = part(open_, 1, 3)
        both.objects.append(whole.ask().objects[0])
        await commit_refused(asking.LEASE_LOST, user, both)
        assert await user.commit(whole.ask()) == done


async def test_after_a_restart_nothing_is_stored_whose_receipts_were_refused(tmp_path: Path) -> None:
    """A meta node does not know any more which leases were ended."""
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        refused_, other = await user.store(lease_id, 1, SIZE), await user.store(lease_id, 2, SIZE)
    async with meta_node(tmp_path, is_new=False, clock=meta.clock, boot=2) as again:
        user.meta, user.peer = again, (await again.user()).peer
        session = await resumed(again, user)
        serials = [bytes(limit_of(place).serial) for place in refused_.ask().objects[0].segments[0].shares]

        async def is_refused(asked: Sequence[bytes]) -> bool:
            return serials[1] in asked

        again.users.commits._is_refused = is_refused
        assert "its receipts were refused" in await commit_refused(asking.LEASE_LOST, session, refused_.ask())
        assert (await session.commit(other.ask()))[0].is_complete


async def test_two_of_the_same_commit_at_once_are_one(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)
        first, second = await asyncio.gather(user.commit(stored.ask()), user.commit(stored.ask()))
        assert first == second


async def test_a_commit_after_a_restart_holds_by_its_signatures(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta, 10**10)
        stored = await user.store(lease_id, 1, 3 * SEGMENT_BYTES, missing=[1])
        await user.commit(part(stored, 0, 1))
        other = await user.store(lease_id, 2, 100)
    async with meta_node(tmp_path, is_new=False, clock=meta.clock, boot=2) as again:
        user.meta, user.peer = again, (await again.user()).peer
        stranger = await again.user()
        await commit_refused(asking.LEASE_LOST, stranger, part(stored, 1, 3))  # another session of the same wallet
        session = await resumed(again, user)
        forged = other.ask()
        limit = forged.objects[0].segments[0].shares[0].order_limit
        limit.CopyFrom(resigned(limit, OrderLimit, meta_key(2)))
        assert "has not signed" in await commit_refused(asking.ACK_REFUSED, session, forged)
        (done,) = await session.commit(part(stored, 1, 3))
        assert done.is_complete
        assert (await session.commit(other.ask()))[0].is_complete


async def resumed(meta: Meta, user: User) -> User:
    """The same session key at a meta node that was started again."""
    node = Node(user.session.identity, CHAIN_ID)
    meta.callers.append(node)
    made = User(meta, user.number, user.session, Peer(node, meta.server_address, [Direct(meta.host, meta.port)]))
    await made.open()
    return made


async def test_a_stop_between_ledger_and_file_loses_no_share_root_and_tells_the_nodes(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)

        async def stop(*_: Any) -> None:
            raise asyncio.CancelledError

        meta.roots.number = stop  # type: ignore[assignment, method-assign]
        stored = await user.store(lease_id, 1, SIZE)
        with pytest.raises(Exception, match="cancelled"):
            await user.commit(stored.ask())
        assert await meta.get(OBJECT, object_id(lease_id, 1)) is not None
        assert meta.told == []
    async with meta_node(tmp_path, is_new=False, clock=meta.clock, boot=2) as again:
        assert await again.users.commits.tell_again() == 1
        assert await again.users.commits.tell_again() == 0
        copies = [one for _, method, body in again.told for one in transfers.CopyList.FromString(body).copies if method == transfers.CONFIRM]
        assert {bytes(one.share_root) for one in copies} == {share_root_of(1, 0, index) for index in range(5)}
        user = await again.user()
        reading = await user.lease(10**6)
        assert len(await user.get_places(reading, asking.GetAsk(object_id=object_id(lease_id, 1), segment=0, index=3, size_bytes=5))) == 1


async def test_nodes_that_could_not_be_told_are_told_again(tmp_path: Path) -> None:
    fails = True
    told: list[int] = []

    async def tell(number: int, _: str, __: bytes) -> None:
        if fails:
            raise OSError("the disk is full")
        told.append(number)

    async with meta_node(tmp_path, tell=tell) as meta:
        user, lease_id = await ready(meta)
        await user.keep(lease_id, 1, SIZE)
        await meta.users.close()
        assert len(await meta.roots.lagging_nodes()) == 5
        fails = False
        assert await meta.users.commits.tell_again() == 5
        assert len(told) == 5
        assert await meta.roots.lagging_nodes() == await meta.roots.untold() == []


async def test_a_node_that_takes_no_messages_keeps_no_other_from_being_told(tmp_path: Path) -> None:
    told: list[int] = []
    tried: list[int] = []
    full = 0

    async def tell(number: int, _: str, __: bytes) -> None:
        tried.append(number)
        if number == full:
            raise BooksError(f"10000 messages wait for node {number}: no more are kept until it takes some")
        told.append(number)

    async with meta_node(tmp_path, tell=tell) as meta:
        user, lease_id = await ready(meta)
        stored = [await user.store(lease_id, counter, SIZE) for counter in (1, 2, 3)]
        keys = [{share.p2p_key for share in one.message.segments[0].shares} for one in stored]
        full = min(meta.nodes.number_of(key) for key in keys[0])
        count = sum(bytes(meta.nodes.key(full).verify_key) in one for one in keys)
        await user.commit(stored[0].ask(*stored[1:]))
        await meta.users.close()
        others = {meta.nodes.number_of(key) for key in set().union(*keys)} - {full}
        assert sorted(told) == sorted(others)
        tried.clear()
        assert await meta.users.commits.tell_again() == 0
        assert tried == [full]  # once, and nobody else
    async with meta_node(tmp_path, is_new=False, clock=meta.clock, boot=2, tell=tell) as again:
        node, full = full, 0
        told.clear()
        assert await again.users.commits.tell_again() == count
        assert told == [node]
        assert await again.users.commits.tell_again() == 0


async def test_a_node_that_is_gone_is_told_nothing(tmp_path: Path) -> None:
    told: list[int] = []
    fails = True

    async def tell(number: int, _: str, __: bytes) -> None:
        if fails:
            raise BooksError("too many wait")
        told.append(number)

    async with meta_node(tmp_path, tell=tell) as meta:
        user, lease_id = await ready(meta)
        await user.keep(lease_id, 1, SIZE)
        await meta.users.close()
        gone, *others = await meta.roots.lagging_nodes()
        await is_gone(meta, gone)
        fails = False
        await meta.users.commits.tell_again()
        assert sorted(told) == others
        assert len(others) == 4
        assert await meta.roots.lagging_nodes() == []


async def test_a_file_of_the_first_version_goes_on(tmp_path: Path) -> None:
    roots = open_roots(tmp_path / "roots.db")
    await roots.stage([Part(b"x" * 32, 0, [[b"r" * 32]])])
    await roots.number([(b"x" * 32, 0, 1, 7)])
    await roots.work(lambda db: db.executescript("DROP TABLE lagging; PRAGMA user_version = 1"))
    roots.close()
    for _ in range(2):
        again = open_roots(tmp_path / "roots.db")
        assert (await again.untold(), await again.lagging_nodes()) == ([7], [])
        again.close()


async def test_roots_of_segments_that_are_no_more_are_forgotten(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        done = await user.keep(lease_id, 1, SIZE)
        row = await meta.get(OBJECT, done.object_id)
        await meta.roots.stage([Part(b"x" * 32, 0, [[b"r" * 32]])])
        await meta.roots.number([(b"x" * 32, 0, 1, 10_000)])
        assert await meta.roots.sweep(meta.ledger, -1) == 10_000
        assert await meta.roots.sweep(meta.ledger, 10_000) == -1
        assert await meta.roots.numbers(-1) == [row.first_segment]


async def test_roots_that_rotted_are_not_believed_and_fetched_if_somebody_can(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        done = await user.keep(lease_id, 1, SIZE)
        row = await meta.get(SEGMENT, (await meta.get(OBJECT, done.object_id)).first_segment)
        assert (await meta.roots.of([row]))[row.number][2] == share_root_of(1, 0, 2)
        await meta.roots.work(lambda db: db.execute("UPDATE share_roots SET roots = ?", (b"r" * 160,)))
        assert await meta.roots.of([row]) == {}
        ask = asking.GetAsk(object_id=done.object_id, segment=0, index=2, size_bytes=5)
        assert await user.get_places(lease_id, ask) == []

        async def fetch(segment: Any) -> list[bytes]:
            return [share_root_of(1, 0, index) for index in range(5)]

        meta.roots._fetch = fetch
        assert len(await user.get_places(lease_id, ask)) == 1
        meta.roots._fetch = None
        assert len(await user.get_places(lease_id, ask)) == 1  # it was kept


# --- what is wrong -----------------------------------------------------------------------------------------------------------------------

Change = Callable[[Meta, Any, Any], Any]


def with_ack(**changes: Any) -> Change:
    def change(meta: Meta, place: Any, share: Any) -> Any:
        size = share_bytes(TWO_OF_FIVE, SIZE)
        share.ack.CopyFrom(ack(meta.nodes, place, share_root_of(1, 0, place.index), size, **changes))
        return share

    return change


def stranger(meta: Meta, place: Any) -> int:
    """A node that does not have the place."""
    return meta.nodes.number_of(place.p2p_key) % 6 + 1


def of_another_size(meta: Meta, place: Any, share: Any) -> Any:
    share.ack.CopyFrom(ack(meta.nodes, place, share_root_of(1, 0, place.index), 5))
    return share


def by_another_node(meta: Meta, place: Any, share: Any) -> Any:
    share.ack.CopyFrom(
        ack(meta.nodes, place, share_root_of(1, 0, place.index), share_bytes(TWO_OF_FIVE, SIZE), key=meta.nodes.key(stranger(meta, place)))
    )
    return share


def with_limit(**changes: Any) -> Change:
    """The meta node's own key signs a changed limit: what it never would, but each field is looked at."""

    def change(meta: Meta, place: Any, share: Any) -> Any:
        share.order_limit.CopyFrom(resigned(share.order_limit, OrderLimit, meta_key(1), **changes))
        return share

    return change


def forged(meta: Meta, place: Any, share: Any) -> Any:
    share.order_limit.CopyFrom(resigned(share.order_limit, OrderLimit, meta_key(2)))
    return share


def no_limit(meta: Meta, place: Any, share: Any) -> Any:
    share.order_limit.body = b"\xff" * 20
    return share


def no_ack(meta: Meta, place: Any, share: Any) -> Any:
    share.ClearField("ack")
    return share


def other_key(meta: Meta, place: Any, share: Any) -> Any:
    share.p2p_key = bytes(meta.nodes.key(stranger(meta, place)).verify_key)
    return share


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (by_another_node, "has not signed"),
        (with_ack(serial=b"s" * 16), "under serial"),
        (with_ack(share_root=b"r" * 32), "acknowledges share"),
        (of_another_size, "of 5 bytes"),
        (with_ack(chain_id="other-1"), "acknowledges"),
        (with_ack(node=bech32.encode(b"n" * 20, bech32.NODE)), "acknowledges"),
        (no_ack, "StoreAck"),
        (forged, "this meta node has not signed"),
        (no_limit, "OrderLimit"),
        (other_key, "expected the key"),
        (with_limit(lease_id=b"L" * 32), "from this lease"),
        (with_limit(object_root=b"o" * 32), "of this object"),
        (with_limit(session_pubkey=b"s" * 32), "by this session"),
        (with_limit(wallet=bech32.encode(b"w" * 20)), "by this session"),
        (with_limit(action=1), "for a put"),
        (with_limit(chain_id="other-1"), "expected an order limit"),
        (with_limit(meta_node=bech32.encode(b"m" * 20, bech32.NODE)), "expected an order limit"),
        (with_limit(share_root=b"r" * 32), "got one for 7272"),
        (with_limit(max_bytes=5), "got one for 5"),
        (with_limit(node=bech32.encode(b"n" * 20, bech32.NODE)), "knows no node"),
        (with_limit(node="nobody"), "knows no node"),
        (with_limit(serial=b"s"), "serial of 16 bytes"),
        (with_limit(serial=b"\xff" * 16), "its serials are too near|acknowledges"),
    ],
)
async def test_a_share_whose_papers_do_not_hold_is_refused_and_the_rest_with_it(tmp_path: Path, change: Change, text: str) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, SIZE, 0, TWO_OF_FIVE)
        places = await user.put_places(lease_id, ask)

        def one_of(place: Any, share: Any) -> Any:
            return change(meta, place, share) if place.index == 3 else share

        bad = stored_object(1, SIZE, TWO_OF_FIVE, [stored_segment(meta.nodes, ask, places, one_of)])
        told = await commit_refused(asking.ACK_REFUSED, user, asking.CommitAsk(lease_id=lease_id, objects=[bad]))
        assert re.search(text, told), told
        assert await meta.get(OBJECT, object_id(lease_id, 1)) is None
        good = stored_object(1, SIZE, TWO_OF_FIVE, [stored_segment(meta.nodes, ask, places)])
        assert (await user.commit(asking.CommitAsk(lease_id=lease_id, objects=[good])))[0].is_complete


def stored_with(stored: Stored, **changes: Any) -> Any:
    made = asking.StoredObject.FromString(stored.message.SerializeToString())
    for name, value in changes.items():
        setattr(made, name, value)
    return asking.CommitAsk(lease_id=stored.lease_id, objects=[made])


async def test_roots_sizes_and_schemes_must_fit(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)
        for changes in (
            {"root": b"r" * 32},
            {"root": b""},
            {"size_bytes": SIZE - 1},
            {"size_bytes": 0},
            {"size_bytes": (1 << 44) + 1},
            {"data_shares": 1, "total_shares": 3},
            {"data_shares": 1, "total_shares": 1},
            {"data_shares": 3},
            {"first_segment": 1},
            {"first_segment": (1 << 32) - 1},
            {"counter": 1 << 63},
            {"file_hash": "x" * 100},
        ):
            await commit_refused(asking.BAD_ASK, user, stored_with(stored, **changes))
        await commit_refused(asking.LEDGER_CODES + BAD_OBJECT, user, stored_with(stored, file_hash="x" * 40))
        await commit_refused(asking.ACK_REFUSED, user, stored_with(stored, counter=2))  # the limits are for object 1
        assert (await user.commit(stored.ask()))[0].is_complete
        await commit_refused(asking.BAD_ASK, user, stored_with(stored, root=b"r" * 32))


async def test_records_and_lists_are_bounded(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)
        for count in (0, 1_025):
            await commit_refused(asking.BAD_ASK, user, asking.CommitAsk(lease_id=lease_id, objects=[asking.StoredObject()] * count))
        two = asking.CommitAsk(lease_id=lease_id, objects=[stored.message, stored.message])
        await commit_refused(asking.BAD_ASK, user, two)
        large = stored.ask()
        large.objects[0].file.name = b"n" * 5_000_000
        await commit_refused(asking.BAD_ASK, user, large)
        large.objects[0].file.name = b"n" * 2_000
        await commit_refused(asking.LEDGER_CODES + BAD_FORM, user, large)
        large.objects[0].file.name = b"n" * (9 << 20)
        with pytest.raises(TooMuch):
            await user.commit(large)


async def test_share_roots_and_indexes_of_a_segment_must_fit(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)

        def changed(change: Callable[[Any], object]) -> Any:
            made = stored.ask()
            change(made.objects[0].segments[0])
            return made

        await commit_refused(asking.BAD_ASK, user, changed(lambda one: one.share_roots.pop()))
        await commit_refused(asking.BAD_ASK, user, changed(lambda one: one.share_roots.__setitem__(0, b"r")))
        await commit_refused(asking.ACK_REFUSED, user, changed(lambda one: one.share_roots.__setitem__(0, b"r" * 32)))
        await commit_refused(asking.BAD_ASK, user, changed(lambda one: one.shares.add(index=4)))
        await commit_refused(asking.BAD_ASK, user, changed(lambda one: one.shares.add(index=5)))
        await commit_refused(asking.ACK_REFUSED, user, changed(lambda one: (one.shares.pop(), one.shares.pop())))
        await commit_refused(asking.BAD_ASK, user, stored_with(Stored(lease_id, stored_object(1, SIZE, TWO_OF_FIVE, []))))


async def test_one_serial_cannot_stand_for_two_segments_in_one_commit_or_two(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 11) as meta:
        user, lease_id = await ready(meta, 10**10)
        size = 2 * SEGMENT_BYTES
        scheme = TWO_OF_FIVE
        asks = [put_ask(1, size, number, scheme, is_coded=False) for number in range(2)]
        places = [await user.put_places(lease_id, ask) for ask in asks]
        first = stored_segment(meta.nodes, asks[0], places[0])
        twice = stored_segment(meta.nodes, asks[1], places[0])  # the nodes of segment 0 acknowledge shares of 1 under the same serials
        used = {one.p2p_key for one in places[1]}
        index = next(one.index for one in places[0] if one.p2p_key not in used)
        mixed = stored_segment(meta.nodes, asks[1], [places[0][index], *(one for one in places[1] if one.index != index)])
        for bad in (twice, mixed):
            made = stored_object(1, size, scheme, [first, bad])
            assert "serials" in await commit_refused(asking.ACK_REFUSED, user, asking.CommitAsk(lease_id=lease_id, objects=[made]))
        good = Stored(lease_id, stored_object(1, size, scheme, [first, stored_segment(meta.nodes, asks[1], places[1])]))
        await user.commit(part(good, 0, 1))
        for bad in (twice, mixed):
            made = Stored(lease_id, stored_object(1, size, scheme, [first, bad], root=good.message.root))
            assert "serials" in await commit_refused(asking.ACK_REFUSED, user, part(made, 1, 2))
            meta.users.commits._progress.clear()  # as after a restart
            assert "serials" in await commit_refused(asking.ACK_REFUSED, user, part(made, 1, 2))
        wrong = Stored(lease_id, good.message)
        wrong_ask = part(wrong, 1, 2)
        wrong_ask.objects[0].segments[0].share_roots[0] = b"r" * 32
        await commit_refused(asking.ACK_REFUSED, user, wrong_ask)
        assert (await user.commit(part(good, 1, 2)))[0].is_complete


async def test_a_serial_of_its_own_cannot_be_one_of_another_share(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 10) as meta:
        user, lease_id = await ready(meta, 10**10)
        ask = put_ask(1, SIZE, 0, TWO_OF_FIVE, is_coded=False)
        places = await user.put_places(lease_id, ask)
        swapped = list(places)
        swapped[0] = asking.PlacedShare.FromString(places[1].SerializeToString())
        swapped[0].index = 0
        swapped.pop(1)
        made = stored_object(1, SIZE, TWO_OF_FIVE, [stored_segment(meta.nodes, ask, swapped)])
        await commit_refused(asking.ACK_REFUSED, user, asking.CommitAsk(lease_id=lease_id, objects=[made]))


async def test_a_serial_of_its_own_is_remembered_over_parts_and_a_restart(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 11) as meta:
        user, lease_id = await ready(meta, 10**10)
        size = 2 * SEGMENT_BYTES
        asks = [put_ask(1, size, number, TWO_OF_FIVE, is_coded=False) for number in range(2)]
        places = [await user.put_places(lease_id, ask) for ask in asks]
        placed = (await user.another(lease_id, asks[0], 0, [meta.nodes.address(meta.nodes.number_of(places[0][0].p2p_key))]))[0]
        first = stored_segment(meta.nodes, asks[0], [placed, *places[0][1:]])
        used = {one.p2p_key for one in places[1][1:]}
        if placed.p2p_key in used:
            places[1] = [one for one in places[1] if one.p2p_key != placed.p2p_key]
        second = stored_segment(meta.nodes, asks[1], [placed, *(one for one in places[1] if one.index != 0)])
        stored = Stored(lease_id, stored_object(1, size, TWO_OF_FIVE, [first, second]))
        await user.commit(part(stored, 0, 1))
        for _ in range(2):
            assert "serials" in await commit_refused(asking.ACK_REFUSED, user, part(stored, 1, 2))
            meta.users.commits._progress.clear()


class OneOwner(Nodes):
    """Nodes of which the ledger says that two are one owner's, though the registry thinks otherwise."""

    def events(self) -> list[Any]:
        made = super().events()
        for one in made:
            one.node.owner = b"o" * 20
        return made


async def test_nodes_that_are_one_owners_by_the_ledger_are_refused(tmp_path: Path) -> None:
    async with meta_node(tmp_path, nodes=OneOwner(6)) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)
        assert "one owner" in await commit_refused(asking.ACK_REFUSED, user, stored.ask())


async def test_the_tenth_of_what_was_not_used_never_comes_out_of_what_is_promised(tmp_path: Path) -> None:
    async with meta_node(tmp_path, params={"escrow_ratio_e18": 0}) as meta:
        user = await meta.user()
        lease_id = await user.lease((await user.plan(SIZE)).bill_noz)
        await user.keep(lease_id, 1, SIZE, missing=[4])
        row, held = await meta.lease(lease_id), meta.users.leases.get(lease_id)
        assert held is not None
        assert held.left_noz == 0
        assert row.noz == held.outstanding_noz == 5 * MIB


async def test_two_shares_of_a_segment_at_one_owner_or_in_one_network_are_refused(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, SIZE, 0, TWO_OF_FIVE)
        places = await user.put_places(lease_id, ask)
        stored = Stored(lease_id, stored_object(1, SIZE, TWO_OF_FIVE, [stored_segment(meta.nodes, ask, places)]))
        numbers = sorted(meta.nodes.number_of(one.p2p_key) for one in places)
        held = meta.users.leases.get(lease_id)
        assert held is not None
        held.objects.clear()  # as after a restart: where it placed the shares this meta node does not know any more
        await see(meta, {numbers[0]: b"\x7f\x01\x01", numbers[1]: b"\x7f\x01\x01"})
        assert "network" in await commit_refused(asking.ACK_REFUSED, user, stored.ask())
        await see(meta, {numbers[0]: b"\x7f\x01\x01", numbers[1]: b"\x7f\x01\x02"})
        meta.nodes.heard = dict.fromkeys(numbers[:2], b"\x7f\x01\x01")
        assert "network" in await commit_refused(asking.ACK_REFUSED, user, stored.ask())
        meta.nodes.heard.clear()
        assert (await user.commit(stored.ask()))[0].is_complete


async def test_networks_that_another_meta_node_makes_up_stop_no_commit(tmp_path: Path) -> None:
    """It says in the ledger that all nodes are in one network; this meta node placed the shares by what it heard."""
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = [await user.store(lease_id, counter, SIZE) for counter in (1, 2)]
        numbers = range(1, meta.nodes.count_ + 1)
        await see(meta, dict.fromkeys(numbers, b"\x7f\x01\x01"))
        assert (await user.commit(stored[0].ask()))[0].is_complete
        held = meta.users.leases.get(lease_id)
        assert held is not None
        held.objects.clear()  # as after a restart, when the nodes have said hello
        meta.nodes.heard = {number: bytes([127, 0, number]) for number in numbers}
        assert (await user.commit(stored[1].ask()))[0].is_complete


async def see(meta: Meta, prefixes: dict[int, bytes]) -> None:
    seen = [message("NodeSeen", node=number, prefix=prefix, is_online=True) for number, prefix in sorted(prefixes.items())]
    await meta.proposer.propose("node_statuses", message("NodeStatuses", nodes=seen))


async def test_what_the_ledger_knows_better_is_refused_by_it(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)
        await is_gone(meta, meta.nodes.number_of(stored.message.segments[0].shares[0].p2p_key))
        await commit_refused(asking.LEDGER_CODES + UNKNOWN_NODE, user, stored.ask())
        held = meta.users.leases.get(lease_id)
        assert held is not None
        assert len(held.reserved) == 5


async def is_gone(meta: Meta, number: int) -> None:
    """The chain says so."""
    node = meta.nodes.events()[number - 1].node
    names = ("address", "owner", "beneficiary", "p2p_key", "deposit_wei")
    await meta.observe(event(node=message("ObservedNode", standing=4, **{name: getattr(node, name) for name in names})))


# --- what it costs to be refused ---------------------------------------------------------------------------------------------------------


async def test_refused_commits_leave_nothing_on_the_disk_and_count_as_several(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)
        large = stored.ask()
        large.objects[0].file.name = b"n" * 4_000
        await is_gone(meta, meta.nodes.number_of(stored.message.segments[0].shares[0].p2p_key))
        before, size = meta.ledger.head.sequence, disk_bytes(tmp_path)
        for code, ask in ((BAD_FORM, large), (BAD_OBJECT, stored_with(stored, file_hash="x" * 40)), (UNKNOWN_NODE, stored.ask())):
            for _ in range(3):
                await refused(asking.LEDGER_CODES + code, user, asking.OBJECT_COMMIT, None, ask)
        assert (meta.ledger.head.sequence, disk_bytes(tmp_path)) == (before, size)
        await refused(asking.ACK_REFUSED, user, asking.OBJECT_COMMIT, None, stored_with(stored, counter=2))
        with pytest.raises(Busy):
            await user.commit(stored.ask())
        meta.clock.wait(1)
        await commit_refused(asking.LEDGER_CODES + UNKNOWN_NODE, user, stored.ask())


async def test_share_roots_of_a_commit_that_the_ledger_refuses_are_not_kept(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)
        stage = meta.roots.stage

        async def then_it_changes(parts: Any) -> None:
            await stage(parts)
            await is_gone(meta, meta.nodes.number_of(stored.message.segments[0].shares[0].p2p_key))

        meta.roots.stage = then_it_changes  # type: ignore[method-assign]
        await commit_refused(asking.LEDGER_CODES + UNKNOWN_NODE, user, stored.ask())
        assert await meta.roots.work(lambda db: db.execute("SELECT count(*) FROM staged").fetchone()) == (0,)


async def test_one_wallets_commits_leave_room_for_others(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        await meta.buys(2)
        user, lease_id = await ready(meta)
        other = await meta.user(2)
        theirs = await other.store(await other.lease(), 1, SIZE)
        stored = await user.store(lease_id, 1, SIZE)
        go_on, number = asyncio.Event(), meta.roots.number

        async def slow(parts: Any) -> None:
            if parts[0][0] == object_id(lease_id, 1):
                await go_on.wait()
            await number(parts)

        meta.roots.number = slow  # type: ignore[method-assign]
        waiting = [asyncio.create_task(user.commit(stored.ask())) for _ in range(commits.MAX_COMMITS_OF_WALLET)]
        while meta.users.commits._under_way < len(waiting) or not meta.users.commits._locks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        again = await meta.user()  # another session of the same wallet
        for one in (user, again):
            with pytest.raises(Busy, match="of this wallet"):
                await one.commit(stored.ask())
        assert (await other.commit(theirs.ask()))[0].is_complete
        go_on.set()
        assert len({str(one) for one in await asyncio.gather(*waiting)}) == 1
        assert (meta.users.commits._under_way, meta.users.commits._bytes) == (0, 0)
        assert (await user.commit(stored.ask()))[0].is_complete


async def test_nobody_waits_for_a_lease_that_others_name(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        await meta.buys(2)
        user, lease_id = await ready(meta)
        other = await meta.user(2)
        stored = await user.store(lease_id, 1, SIZE)
        go_on, number = asyncio.Event(), meta.roots.number

        async def slow(parts: Any) -> None:
            await go_on.wait()
            await number(parts)

        meta.roots.number = slow  # type: ignore[method-assign]
        waiting = asyncio.create_task(user.commit(stored.ask()))
        while not meta.users.commits._locks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        garbage = asking.StoredObject(counter=1, data_shares=77, total_shares=5)
        for ask in (stored.ask(), asking.CommitAsk(lease_id=lease_id, objects=[garbage]), asking.CommitAsk(lease_id=b"?" * 32, objects=[garbage])):
            await commit_refused(asking.LEASE_LOST, other, ask)
        go_on.set()
        await waiting


async def test_bytes_of_commits_are_bounded_while_they_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "MAX_BYTES", 200_000)
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)
        large = stored.ask()
        large.objects[0].file.name = b"n" * 300_000
        with pytest.raises(Busy, match="many bytes"):
            await user.commit(large)
        assert (meta.users.commits._under_way, meta.users.commits._bytes) == (0, 0)
        assert (await user.commit(stored.ask()))[0].is_complete


async def test_a_body_that_does_not_come_gives_its_place_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "BODY_S", 0.05)
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)
        stream = await user.peer.call(asking.OBJECT_COMMIT)
        await stream.send(b"a beginning")
        with pytest.raises(TimedOut):
            await stream.receive()
        assert meta.users.commits._under_way == 0
        assert (await user.commit(stored.ask()))[0].is_complete


async def test_a_commit_goes_on_when_its_caller_is_gone(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, SIZE)
        begun, go_on = asyncio.Event(), asyncio.Event()
        number = meta.roots.number

        async def slow(*arguments: Any) -> None:
            begun.set()
            await go_on.wait()
            await number(*arguments)

        meta.roots.number = slow  # type: ignore[assignment, method-assign]
        call = asyncio.create_task(user.commit(stored.ask()))
        await begun.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        go_on.set()
        await meta.users.close()
        held = meta.users.leases.get(lease_id)
        assert held is not None
        assert (held.reserved, held.commits) == ({}, 0)
        assert len(meta.told) == 5


async def test_a_reading_grant_cannot_store(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user(actions=[1])
        lease_id = await user.lease(10**6)
        made = stored_object(1, 0, THREE_REPLICAS, [])
        await commit_refused(asking.LEDGER_CODES + NOT_ASKED, user, asking.CommitAsk(lease_id=lease_id, objects=[made]))
