"""A meta node dies: the receipts of its leases are paid by the one whose duty that is, once, whoever comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sds_node.meta.books.books import State
from sds_node.meta.books.judging import read
from sds_node.meta.operations import LedgerRefused
from sds_node.meta.rules import refusals, tables
from sds_node.meta.rules.leases import SETTLE_S, TAKEOVER_S
from tests.sds_node.books.pair import Meta, Several, name, several
from tests.sds_node.books.world import message, owner

pytestmark = pytest.mark.asyncio
UNSPECIFIED, HELD, SETTLED = 0, 1, 2
LEASE_S = 600


async def said(meta: Meta, leaf: Any, node: int = 1) -> tuple[int, str]:
    answer = (await meta.hand_in(meta.peer(node), leaf))[0]
    return answer.state, answer.reason


async def earned(meta: Meta, node: int) -> int:
    row = await meta.row(tables.EARNED, owner(node), 1, 1)
    return 0 if row is None else int(row.noz)


async def over(made: Several, seconds: int = LEASE_S + TAKEOVER_S + 1) -> None:
    """The lease's end, in the ledger too."""
    made.clock.now_s += seconds
    there = next(one for one in made.metas if not one.replica.is_away)
    await there.proposer.propose("tick", message("Tick"))


async def test_receipts_of_a_dead_meta_nodes_lease_are_taken_by_the_one_whose_duty_it_is(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as made:
        dead, taker, idle = made.metas
        lease = await dead.lease(1_000, seconds=LEASE_S)
        leaf = dead.leaf(lease, 1, 100)
        taker.own.add(lease.id)
        await made.away(dead)
        assert "responsible" in (await said(taker, leaf))[1]  # the lease is not over
        await over(made)
        state, reason = await said(idle, leaf)
        assert (state, "another one settles its lease" in reason) == (UNSPECIFIED, True)
        assert (await said(taker, leaf))[0] == HELD
        made.clock.now_s += SETTLE_S - TAKEOVER_S - 10
        assert await taker.windows.settle() == 1
        assert (await said(taker, leaf))[0] == SETTLED
        assert await earned(taker, 1) == 100
        await over(made, 10)
        assert await taker.row(tables.LEASE, lease.id) is None
        await made.back(dead)


async def test_a_meta_node_that_is_there_keeps_its_leases(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        lease = await first.lease(1_000, seconds=LEASE_S)
        leaf = first.leaf(lease, 1, 100)
        second.own.add(lease.id)
        await over(made)
        state, reason = await said(second, leaf)
        assert (state, f"{name(first)} is responsible" in reason) == (UNSPECIFIED, True)


async def test_nothing_is_taken_before_the_dead_ones_windows_are_known(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as made:
        dead, taker, third = made.metas
        lease = await dead.lease(1_000, seconds=LEASE_S)
        paid, open_ = dead.leaf(lease, 1, 100), dead.leaf(lease, 1, 50)
        assert (await said(dead, paid))[0] == HELD
        await dead.windows.settle()
        await third.fetching.step()
        taker.own.add(lease.id)
        await made.away(dead)
        await over(made)
        for leaf in (paid, open_):
            state, reason = await said(taker, leaf)
            assert (state, "not all known here yet" in reason) == (UNSPECIFIED, True)
        assert await taker.fetching.step() == 1
        assert [(await said(taker, leaf))[0] for leaf in (paid, open_)] == [SETTLED, HELD]
        await taker.windows.settle()
        assert await earned(taker, 1) == 150
        await made.back(dead)


async def test_one_that_comes_back_does_not_settle_again_what_another_one_settled(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        dead, taker = made.metas
        lease = await dead.lease(1_000, seconds=LEASE_S)
        leaf, other = dead.leaf(lease, 1, 100), dead.leaf(lease, 2, 30)
        assert [(await said(dead, leaf))[0], (await said(dead, other, 2))[0]] == [HELD, HELD]  # and it dies before a window
        taker.own.add(lease.id)
        await made.away(dead)
        await over(made)
        assert (await said(taker, leaf))[0] == HELD
        await taker.windows.settle()
        await made.back(dead)
        assert await dead.windows.settle() == 0  # neither: the lease is the other one's now
        assert await earned(dead, 1) == 100
        # The node that handed in here alone is told so, and goes there.
        state, reason = await said(dead, other, 2)
        assert (state, f"{name(taker)} settles this lease" in reason) == (UNSPECIFIED, True)
        taker.own.clear()  # whosever duty it is now: nobody else can
        assert (await said(taker, other, 2))[0] == HELD
        await taker.windows.settle()
        assert (await earned(taker, 1), await earned(taker, 2)) == (100, 30)
        await dead.fetching.step()
        assert (await said(dead, leaf))[0] == SETTLED


async def test_of_two_windows_at_the_same_time_one_is_refused_and_its_receipts_are_free(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        back, taker = made.metas
        lease = await back.lease(1_000, seconds=LEASE_S)
        leaf, more = back.leaf(lease, 1, 100), back.leaf(lease, 3, 7)
        assert (await said(back, leaf))[0] == HELD
        taker.own.add(lease.id)
        taker.silent.add(back.me)
        await over(made)
        mine = await taker.lease(1_000)
        own = taker.leaf(mine, 2, 5)
        assert [(await said(taker, leaf))[0], (await said(taker, own, 2))[0], (await said(taker, more, 3))[0]] == [HELD, HELD, HELD]
        ask = taker.ledger.query

        async def late(question: Any) -> Any:
            # What the taker chose from is older than the other one's window.
            found = await ask(question)
            taker.replica.query = ask  # type: ignore[method-assign]
            await back.windows.settle()
            return found

        taker.replica.query = late  # type: ignore[method-assign]
        with pytest.raises(LedgerRefused) as caught:
            await taker.windows.settle()
        assert caught.value.code == refusals.NOT_YOURS
        assert await taker.windows.settle() == 1  # its own lease's
        assert (await earned(taker, 1), await earned(taker, 2), await earned(taker, 3)) == (100, 5, 0)
        assert await taker.books.answers([read(more).serial]) == [None]


async def test_a_held_receipt_that_another_one_settled_is_known_as_settled(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        dead, taker = made.metas
        lease = await dead.lease(1_000, seconds=LEASE_S)
        leaf = dead.leaf(lease, 1, 100)
        assert (await said(dead, leaf))[0] == HELD
        taker.own.add(lease.id)
        await made.away(dead)
        await over(made)
        assert (await said(taker, leaf))[0] == HELD
        await taker.windows.settle()
        await made.back(dead)
        assert await dead.fetching.step() == 1
        rows = await dead.books.known([read(leaf).serial])
        assert [(row.state, row.noz) for row in rows.values()] == [(State.SETTLED, 100)]
        assert (await said(dead, leaf))[0] == SETTLED
        assert await dead.windows.settle() == 0
