"""A put's receipt is paid when a commit has its share, and never for one that has none (storage-protocol.md 3.6: unconfirmed shares are refunded)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sds_node.meta.books import proposed
from sds_node.meta.books.others import UnsureWindow
from sds_node.meta.books.receipts import HELD, REFUSED, SETTLED
from sds_node.meta.books.windows import LeaseDebit
from sds_node.meta.rules import tables
from sds_node.meta.rules.leases import TAKEOVER_S, takeover_ms
from sds_node.meta.rules.wire import REPAIR_FROM
from tests.sds_node.books.pair import several
from tests.sds_node.books.test_receipts_become_windows import leaf_serial
from tests.sds_node.books.test_what_approvers_look_at import Gives, window_of
from tests.sds_node.books.world import Lease, World, message, world
from tests.serials import own_serial

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
        stored, aborted = await handed_in(made, lease), await handed_in(made, lease, 2)
        await made.store(lease, 1, 1_000, [1, 2, 3], leaf_serial(stored[0]))
        made.ended.add(lease.id)
        assert await made.windows.settle() == 3
        assert (await states(made, stored), await states(made, aborted)) == ([SETTLED] * 3, [REFUSED] * 3)
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


async def test_a_share_that_repair_moved_since_is_paid_to_the_node_that_took_it_in(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=4) as made:
        lease = await made.lease(100_000)
        leaves = await handed_in(made, lease)
        await made.store(lease, 1, 1_000, [1, 2, 3], leaf_serial(leaves[0]))
        serial = own_serial(made.me, made.books.boot << 32 | REPAIR_FROM)
        moved = message("MovedShare", segment=1, index=0, from_node=1, to_node=4, serial=serial)
        await made.proposer.propose("move", message("Move", shares=[moved]))
        assert await made.windows.settle() == 3
        assert await states(made, leaves) == [SETTLED] * 3


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
        assert await made.windows.settle() == 3
        assert await states(made, reads) == [SETTLED] * 3


@pytest.mark.parametrize("is_stored", [True, False])
async def test_others_approve_no_window_with_a_share_that_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stored: bool) -> None:
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
        if is_stored:
            await honest.approvals.check_window(liar.me, window)
            return
        with pytest.raises(UnsureWindow, match="3 of its receipts are for shares of which the ledger here has no commit") as caught:
            await honest.approvals.check_window(liar.me, window)
        assert {*caught.value.serials} == {leaf_serial(leaf) for leaf in leaves}
