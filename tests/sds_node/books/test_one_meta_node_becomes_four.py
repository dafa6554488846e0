"""A ledger that was one meta node's becomes four's: those that join have its rows and no log, and get the leaves of its windows and releases all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from sds_node.meta.books.fetching import NOT_KNOWN, Before
from sds_node.meta.books.others import OtherState
from sds_node.meta.rules import tables
from tests.sds_node.books.pair import Meta, Several, data_of, several
from tests.sds_node.books.test_releases_of_others import leaf_of, leaves_here, lies, other
from tests.sds_node.books.test_releases_pay_kept_shares import HASH, put, releases, result
from tests.sds_node.books.world import DAY_S, observed_node, owner

pytestmark = pytest.mark.asyncio
WINDOW, RELEASE = 1, 2


async def alone(made: Several) -> None:
    """A window and a release of a meta node that keeps the ledger by itself, and whom a node pays is another one since."""
    maker = made.first
    await put(maker, 1, 1_000_000, [1, 2, 3])
    await made.earn(maker, (3, 1_000))
    made.clock.now_s += 2 * DAY_S
    assert (await releases(maker).release([result(1), result(2)], HASH, 2, HASH)).number == RELEASE
    await maker.observe(observed_node(1, beneficiary=owner(60)))


async def states(made: Several, number: int) -> list[OtherState]:
    return [OtherState((await other(one, made.first, number)).state) for one in made.metas[1:]]


async def fetched(made: Several) -> None:
    for one in made.metas[1:]:
        await one.fetching.step()
    made.clock.now_s += 600


async def test_those_who_join_get_its_windows_and_releases_and_epochs_close_with_all_of_them(tmp_path: Path) -> None:
    async with several(tmp_path, 4, alone=alone) as made:
        maker, *others = made.metas
        assert all(one.ledger.head.base_sequence > 0 for one in others), "the log begins where the export ends"
        await fetched(made)
        assert await states(made, WINDOW) == await states(made, RELEASE) == [OtherState.HERE] * 3
        for one in others:
            assert await leaves_here(one, maker, RELEASE) == await leaves_here(maker, maker, RELEASE) != []
        await made.earn(maker, (1, 500))
        await made.earn(others[0], (2, 70))
        await fetched(made)
        await made.close()
        epochs = [await data_of(one, 1) for one in made.metas]
        assert all(one == epochs[0] for one in epochs)
        lines = await maker.ledger.query(lambda view: view.scan(tables.EPOCH_LINE, (1,), limit=10))
        assert {line.wallet for line in lines} == {owner(1), owner(2), owner(3)}


async def test_windows_are_approved_while_a_release_of_before_is_not_here(tmp_path: Path) -> None:
    async with several(tmp_path, 4, alone=alone) as made:
        maker, *others = made.metas
        for one in others:
            one.fetching.before = NOT_KNOWN
        await made.earn(maker, (1, 500))
        await fetched(made)
        assert await states(made, RELEASE) == [OtherState.MISSING] * 3
        for one in others:
            last = (await one.row(tables.META, maker.me)).windows
            assert await one.fetching.others.behind({maker.me: last}, 1) == {maker.me: 0}, "its leases can be taken over"


async def test_only_who_kept_the_ledger_then_is_believed_alone_and_only_of_what_was_made_then(tmp_path: Path) -> None:
    async with several(tmp_path, 4, alone=alone) as made:
        maker, second, third, fourth = made.metas
        begins = second.fetching.before
        assert begins.keepers == {maker.me}
        noz = (await second.row(tables.WINDOW, maker.me, RELEASE)).noz
        lies(second, third, [leaf_of(1, 0, 1, owner(3), noz)])
        second.silent.update((maker.me, fourth.me))
        await step(made, second)
        assert (await other(second, maker, RELEASE)).state == OtherState.MISSING, "who joined later says something alone"
        second.silent.discard(maker.me)
        second.fetching.before = Before(begins.until_ms - 2 * DAY_S * 1_000, begins.keepers)
        await step(made, second)
        assert (await other(second, maker, RELEASE)).state == OtherState.MISSING, "what was made later is in the log of more than the maker"
        second.fetching.before = Before(begins.until_ms, frozenset({maker.me, third.me, fourth.me, b"m" * 20}))
        await step(made, second)
        assert (await other(second, maker, RELEASE)).state == OtherState.MISSING, "four kept it, of whom two are believed"
        second.fetching.before = begins
        await step(made, second)
        assert await leaves_here(second, maker, RELEASE) == await leaves_here(maker, maker, RELEASE)


async def step(made: Several, meta: Meta) -> None:
    await meta.fetching.step()
    made.clock.now_s += 600


async def test_two_who_joined_and_have_it_are_enough_where_who_kept_the_ledger_is_gone(tmp_path: Path) -> None:
    async with several(tmp_path, 4, alone=alone) as made:
        maker, second, third, fourth = made.metas
        for one in (third, fourth):
            await one.fetching.step()
        second.silent.update((maker.me, fourth.me))
        await step(made, second)
        assert (await other(second, maker, RELEASE)).state == OtherState.MISSING
        second.silent.discard(fourth.me)
        await step(made, second)
        assert await leaves_here(second, maker, RELEASE) == await leaves_here(maker, maker, RELEASE)
