"""A put's receipt is paid when a commit has its share, and never for one that has none (storage-protocol.md 3.6: unconfirmed shares are refunded)."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sds_node.meta.books import proposed
from sds_node.meta.books.others import UnsureWindow
from sds_node.meta.books.receipts import HELD, REFUSED, SETTLED
from sds_node.meta.books.windows import LeaseDebit
from sds_node.meta.rules import invariants, tables
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.leases import TAKEOVER_S, takeover_ms
from sds_node.schemes import SEGMENT_BYTES
from tests.sds_node.books.pair import several
from tests.sds_node.books.test_receipts_become_windows import leaf_serial
from tests.sds_node.books.test_what_approvers_look_at import Gives, window_of
from tests.sds_node.books.world import Lease, World, message, new_object, world

pytestmark = pytest.mark.asyncio
NOZ = 500
"""By receipt, of a share of 1,000 bytes."""


async def handed_in(made: World, lease: Lease, counter: int = 1, nodes: tuple[int, ...] = (1, 2, 3)) -> list[Any]:
    """Leaves for the shares of an object, held."""
    leaves = made.puts(lease, counter, NOZ, nodes)
    for node, leaf in zip(nodes, leaves, strict=True):
        assert await made.states(made.peer(node), leaf) == [HELD]
    return leaves


async def states(made: World, leaves: list[Any]) -> list[int]:
    found = await made.books.answers([leaf_serial(leaf) for leaf in leaves])
    return [{1: HELD, 2: HELD, 3: SETTLED, 4: REFUSED}[one.state] for one in found if one is not None]


async def tick(made: World) -> None:
    """The ledger's time is the clock's."""
    await made.proposer.propose("tick", message("Tick"))


async def test_a_receipt_waits_for_its_commit_and_is_paid_then(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        leaves = await handed_in(made, lease)
        assert await made.windows.settle() == 0
        assert await states(made, leaves) == [HELD] * 3
        await made.store(lease, 1, 1_000, [1, 2, 3], leaf_serial(leaves[0]))
        assert await made.windows.settle() == 3
        assert await states(made, leaves) == [SETTLED] * 3
        assert (await made.row(tables.LEASE, lease.id)).noz == 100_000 - 6 * NOZ


async def test_of_a_lease_that_was_ended_what_was_not_stored_is_refused_and_the_rest_is_paid(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        kept, aborted = await handed_in(made, lease), await handed_in(made, lease, 2)
        await made.store(lease, 1, 1_000, [1, 2, 3], leaf_serial(kept[0]))
        made.ended.add(lease.id)
        assert await made.windows.settle() == 3
        assert (await states(made, kept), await states(made, aborted)) == ([SETTLED] * 3, [REFUSED] * 3)
        assert {one for one in made.done if one[2] == 0} == {(lease.id, leaf_serial(leaf), 0) for leaf in aborted}
        assert not await made.books.has_leaves(lease.id)
        (answer,) = await made.hand_in(made.peer(1), aborted[0])
        assert (answer.state, answer.reason) == (REFUSED, "its share was not stored: no commit had it when its lease was ended, or over")


async def test_of_a_lease_that_nobody_ended_it_waits_as_long_as_a_commit_may_come(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000, seconds=600)
        leaves = await handed_in(made, lease)
        over_s = takeover_ms(await made.row(tables.LEASE, lease.id)) / 1_000
        made.clock.now_s = over_s - 0.001
        await tick(made)
        await made.windows.settle()
        assert await states(made, leaves) == [HELD] * 3
        await made.store(lease, 1, 1_000, [1, 2, 3], leaf_serial(leaves[0]))
        other = await handed_in(made, await made.lease(100_000, seconds=600), 2)
        made.clock.now_s = over_s
        assert await made.windows.settle() == 3
        assert (await states(made, leaves), await states(made, other)) == ([SETTLED] * 3, [HELD] * 3)


async def test_when_no_commit_can_come_by_the_ledgers_time_it_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000, seconds=600)
        leaves = await handed_in(made, lease)
        made.clock.now_s += 600 + TAKEOVER_S
        await made.windows.settle()
        assert await states(made, leaves) == [HELD] * 3  # a commit may be on its way, by the ledger's time
        await tick(made)
        await made.windows.settle()
        assert await states(made, leaves) == [REFUSED] * 3


async def test_a_node_that_was_replaced_is_not_paid_and_the_one_in_its_place_is(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=4) as made:
        lease = await made.lease(100_000)
        thief, *honest = await handed_in(made, lease)
        (instead,) = await handed_in(made, lease, 1, (4,))
        others = [message("OtherSerial", index=0, serial=leaf_serial(instead))]
        await made.store(lease, 1, 1_000, [4, 2, 3], leaf_serial(thief), others=others)
        assert await made.windows.settle() == 3
        assert (await states(made, [thief]), await states(made, [instead, *honest])) == ([HELD], [SETTLED] * 3)
        made.ended.add(lease.id)
        await made.windows.settle()
        assert await states(made, [thief]) == [REFUSED]


async def test_a_share_that_no_node_confirmed_is_not_paid(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=10) as made:
        lease = await made.lease(100_000)
        leaves = await handed_in(made, lease, 1, tuple(range(1, 11)))
        await made.store(lease, 1, 5_000, [*range(1, 10), 0], leaf_serial(leaves[0]), k=5)
        assert await made.windows.settle() == 9
        assert await states(made, leaves) == [SETTLED] * 9 + [HELD]


async def move(made: World, index: int, there: int, to: int) -> None:
    moved = message("MovedShare", segment=1, index=index, from_node=there, to_node=to, serial=made.serial())
    await made.proposer.propose("move", message("Move", shares=[moved]))


async def test_a_share_that_repair_moved_since_is_paid_to_the_node_that_took_it_in(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=5) as made:
        lease = await made.lease(100_000)
        leaves = await handed_in(made, lease)
        await made.store(lease, 1, 1_000, [1, 2, 3], leaf_serial(leaves[0]))
        await move(made, 0, 1, 4)
        await move(made, 0, 4, 5)
        assert await made.windows.settle() == 3
        assert await states(made, leaves) == [SETTLED] * 3


async def test_a_thief_in_whose_place_repair_put_the_share_is_not_paid(tmp_path: Path) -> None:
    """Of a share that nobody confirmed, and of one that was stored at another node; which is paid, though the share is not there any more."""
    async with world(tmp_path, nodes=12) as made:
        lease = await made.lease(100_000)
        leaves = await handed_in(made, lease, 1, tuple(range(1, 11)))
        (instead,) = await handed_in(made, lease, 1, (11,))
        others = [message("OtherSerial", index=0, serial=leaf_serial(instead))]
        await made.store(lease, 1, 5_000, [11, *range(2, 10), 0], leaf_serial(leaves[0]), k=5, others=others)
        await made.proposer.propose("commit", message("Commit", lease_id=lease.id, unused_noz=10_000))
        await move(made, 9, 0, 10)
        await move(made, 0, 11, 12)
        assert await made.windows.settle() == 9
        assert (await states(made, leaves), await states(made, [instead])) == ([HELD, *[SETTLED] * 8, HELD], [SETTLED])


async def test_of_objects_of_several_segments_each_share_is_known_by_its_own_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "_PAGE", 2)
    async with world(tmp_path, nodes=4, noz=10**13) as made:
        lease = await made.lease(10**12)
        size, count = 3 * SEGMENT_BYTES, 3
        rows = [
            [made.leaf(lease, node, NOZ, action=2, object_root=object_id(lease.id, counter)) for node in (1, 2, 3)]
            for counter in (1, 2)
            for _ in range(count)
        ]
        (instead,) = made.puts(lease, 2, NOZ, [4])
        for leaf, node in [(leaf, at + 1) for row in rows for at, leaf in enumerate(row)] + [(instead, 4)]:
            assert await made.states(made.peer(node), leaf) == [HELD]
        # Rows of serials in another order than segments.
        firsts = [leaf_serial(row[0]) for row in rows]
        for counter, part in ((1, [2, 0, 1]), (2, [5, 4, 3])):
            new = new_object(counter, size, [1, 2, 3], 1, [firsts[at] for at in part])
            if counter == 2:
                for at in range(count):
                    new.segments[at].others.append(message("OtherSerial", index=1, serial=made.serial()))
                new.segments[2].nodes = b"".join(node.to_bytes(4, "big") for node in (4, 2, 3))
                new.segments[2].others.insert(0, message("OtherSerial", index=0, serial=leaf_serial(instead)))
            await made.proposer.propose("commit", message("Commit", lease_id=lease.id, objects=[new]))
        assert await made.windows.settle() == 9 + 6 - 1 + 1
        assert [await states(made, row) for row in rows] == [[SETTLED] * 3] * 3 + [[HELD, HELD, SETTLED]] + [[SETTLED, HELD, SETTLED]] * 2
        assert await states(made, [instead]) == [SETTLED]


async def test_a_put_whose_lease_is_gone_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        gone, lease = await made.lease(100_000), await made.lease(100_000)
        leaves = await handed_in(made, gone)
        read = made.leaf(lease, 1, 10)
        await made.hand_in(made.peer(1), read)
        await made.proposer.propose("settle_leases", message("SettleLeases", lease_ids=[gone.id]))
        assert await made.windows.settle() == 1
        assert (await states(made, leaves), await states(made, [read])) == ([REFUSED] * 3, [SETTLED])


async def test_what_is_committed_while_a_lease_is_ended_is_in_what_is_looked_at(tmp_path: Path) -> None:
    """Whether a commit may still come is asked before the ledger is: one that ends in between is in it."""
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        leaves = await handed_in(made, lease)
        query, is_over = made.ledger.query, False

        async def late(question: Any) -> Any:
            nonlocal is_over
            if not is_over:
                is_over = True
                await made.store(lease, 1, 1_000, [1, 2, 3], leaf_serial(leaves[0]))
                made.ended.add(lease.id)
            return await query(question)

        made.ledger.query = late
        made.windows._may_commit = lambda lease_id: lease_id not in made.ended
        rows = await made.books.held_of_leases(10)
        assert len(rows) == 3
        count, _, _ = await made.windows._window_of(partial(_given, rows))
        assert count == 3
        assert await states(made, leaves) == [SETTLED] * 3


async def _given(rows: list[Any], limit: int) -> list[Any]:
    return rows


async def test_serials_before_behind_and_of_another_object_are_of_no_share(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        before, *leaves, behind = made.puts(lease, 1, NOZ, [1, 1, 2, 3, 3])
        (foreign,) = made.puts(lease, 2, NOZ, [1])
        await made.hand_in(made.peer(1), before, leaves[0], foreign)
        await made.hand_in(made.peer(3), behind)
        await made.store(lease, 1, 1_000, [1, 2, 3], leaf_serial(leaves[0]))
        assert await made.windows.settle() == 1
        assert await states(made, [before, behind, foreign, leaves[0]]) == [HELD, HELD, HELD, SETTLED]


async def test_more_receipts_without_a_commit_than_a_window_takes_keep_no_others_waiting(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.windows._most_leaves = 2
        early, lease = await made.lease(100_000, seconds=600), await made.lease(100_000)
        for counter in (1, 2):
            await handed_in(made, early, counter)
        reads = [made.leaf(lease, 1, 10) for _ in range(3)]
        await made.hand_in(made.peer(1), *reads)
        committed = await handed_in(made, lease, 3)
        await made.store(lease, 3, 1_000, [1, 2, 3], leaf_serial(committed[0]))
        assert await made.windows.settle() == 6
        assert await states(made, reads + committed) == [SETTLED] * 6


@pytest.mark.parametrize("is_stored", [True, False, None])
async def test_others_approve_no_window_with_a_share_that_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stored: bool | None
) -> None:
    monkeypatch.setattr(proposed, "BEHIND_S", 0.1)
    async with several(tmp_path, 4) as made:
        liar, honest, *_ = made.metas
        lease = await liar.lease(100_000)
        leaves = liar.puts(lease, 1, NOZ, [1, 2, 3])
        if is_stored:
            await liar.store(lease, 1, 1_000, [1, 2, 3], leaf_serial(leaves[0]))
        raws, window = window_of(
            made, 1, lease, list(zip(leaves, (1, 2, 3), strict=True)), leases=[LeaseDebit(lease_id=lease.id, noz=3 * NOZ, put_noz=3 * NOZ)]
        )
        Gives(raws, honest)
        if is_stored is None:
            # The approver's ledger is a moment behind.
            monkeypatch.setattr(proposed, "BEHIND_S", 30.0)
            asked = asyncio.ensure_future(honest.approvals.check_window(liar.me, window))
            await asyncio.sleep(0.2)
            assert not asked.done()
            await liar.store(lease, 1, 1_000, [1, 2, 3], leaf_serial(leaves[0]))
            await asked
            return
        if is_stored:
            await honest.approvals.check_window(liar.me, window)
            return
        with pytest.raises(UnsureWindow, match="3 of its receipts are for shares of which the ledger here has no commit") as caught:
            await honest.approvals.check_window(liar.me, window)
        assert {*caught.value.serials} == {leaf_serial(leaf) for leaf in leaves}
