"""Books from an older copy: what this meta node put on the ledger since then comes back from the others, and is paid once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sds_node.meta.books import checking, file
from sds_node.meta.books import releases as making
from sds_node.meta.books import restoring as module
from sds_node.meta.books.books import BooksError, LeafRow, State
from sds_node.meta.books.restoring import Restoring
from sds_node.meta.relay.reporter import UnevenBooks
from sds_node.meta.rules import tables
from tests.sds_node.books.pair import Meta, Several, data_of, several
from tests.sds_node.books.test_releases_of_others import leaf_of, leaves_here, lies
from tests.sds_node.books.test_releases_pay_kept_shares import HASH, put, releases, result
from tests.sds_node.books.test_windows_are_approved import METAS, held, intended
from tests.sds_node.books.world import CHAIN_ID, DAY_S, owner

pytestmark = pytest.mark.asyncio


def restoring(meta: Meta, *sources: Meta, lies: Any = None) -> Restoring:
    async def need(upto: Mapping[bytes, int]) -> None:
        return None

    def fetch(source: bytes, of: bytes, number: int) -> AsyncIterator[bytes]:
        return lies(source, number) if lies is not None and source == sources[0].me else meta.fetching._fetch(source, of, number)

    def done(*one: Any) -> None:
        meta.done.append(one)

    return Restoring(
        meta.ledger, meta.books, CHAIN_ID, meta.me, fetch, lambda: [one.me for one in sources], done, need, meta.fetching.agreed, meta.clock
    )


async def rows(meta: Meta) -> dict[bytes, LeafRow]:
    keys = await meta.books.do(lambda database: [key for (key,) in database.execute("SELECT id FROM leaves")])
    return await meta.books.known(keys)


async def lose(meta: Meta, kept: list[LeafRow]) -> None:
    """The books are those of before, when these leaves were held."""
    await meta.books.do(lambda database: database.execute("DELETE FROM leaves"))
    await meta.books.do(lambda database: database.execute("DELETE FROM windows"))
    await meta.books.hold(kept)
    meta.done.clear()


async def fetched(made: Several) -> None:
    for one in made.metas[1:]:
        await one.fetching.step()


async def test_windows_and_releases_that_the_books_lost_are_as_they_were(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await put(first, 1, 1_000_000, [1, 2, 3])
        lease = await held(made, first, 10, 20)
        before = await first.books.held_of_leases(10)
        await first.windows.settle()
        made.clock.now_s += 2 * DAY_S
        await releases(first).release([result(1)], HASH, 1, HASH)
        await made.earn(first, (2, 500))
        await fetched(made)
        was, windows = await rows(first), [await first.books.window(number) for number in (1, 2, 3)]
        await lose(first, before)
        brings = restoring(first, second)
        assert await brings.step() == 3
        assert {key: row._replace(settles_ms=0) for key, row in (await rows(first)).items()} == {
            key: row._replace(settles_ms=0) for key, row in was.items()
        }
        again = [await first.books.window(number) for number in (1, 2, 3)]
        assert [row and row[:6] for row in again] == [row and row[:6] for row in windows]
        assert sorted(noz for id_, _, noz in first.done if id_ == lease.id) == [10, 20], "who lent the noz hears that they are spent"
        assert await brings.step() == 0
        assert brings.problems() == []
        assert await first.windows.settle() == 0, "nothing is held that is paid already"
        await made.close()
        epochs = [await data_of(one, 1) for one in made.metas]
        assert all(one == epochs[0] for one in epochs)


async def test_nobody_makes_a_window_come_back_as_something_else(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, third, _ = made.metas
        await held(made, first, 10)
        await first.windows.settle()
        await fetched(made)
        await lose(first, [])

        async def lies(source: bytes, number: int) -> AsyncIterator[bytes]:
            for _ in range(2):
                yield b"no leaf"

        nobody = restoring(first)
        assert await nobody.step() == 0
        assert "1 windows of this meta node are not in its books" in nobody.problems()[0]
        assert await restoring(first, second, lies=lies).step() == 0
        assert await rows(first) == {}
        brings = restoring(first, second, third, lies=lies)
        assert await brings.step() == 1
        assert max(brings._failed, key=lambda one: brings._failed[one]) == second.me, "who lied is asked last from now on"
        assert [row.state for row in (await rows(first)).values()] == [State.SETTLED]


async def test_a_receipt_that_waits_in_a_window_comes_back_once_that_is_freed(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await held(made, first, 10)
        before = await first.books.held_of_leases(10)
        await first.windows.settle()
        await fetched(made)
        await lose(first, before)
        await intended(first)
        brings = restoring(first, second)
        assert await brings.step() == 0
        assert brings.missing == 1
        assert await first.windows.settle() == 0, "the others name it"
        assert await brings.step() == 1
        assert (await first.row(tables.META, first.me)).windows == 1
        assert [row.state for row in (await rows(first)).values()] == [State.SETTLED]


async def test_an_intended_window_is_not_a_lost_one(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await made.earn(first, (1, 10))
        await held(made, first, 20)
        await intended(first)
        brings = restoring(first, second)
        assert await brings.step() == brings.missing == 0
        await brings.need({second.me: 0})
        assert await first.windows.settle() == 1


async def test_what_comes_back_after_its_epoch_was_reported_is_of_that_epoch(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await held(made, first, 10, 20)
        await first.windows.settle()
        await fetched(made)
        await made.close()
        await data_of(second, 1)
        await made.report(1)
        await second.epochs.reported(1)
        await lose(first, [])
        first.epochs.need = restoring(first).need  # nobody answers yet
        await first.epochs.reported(1)
        with pytest.raises(BooksError, match="no data of epoch 1"):
            await first.epochs.batch(1)
        brings = restoring(first, second)
        first.epochs.need = brings.need
        assert await brings.step() == 1
        made.clock.now_s += 601
        await made.earn(first, (1, 5))
        await made.close(2)
        epochs = [await data_of(one, 2) for one in made.metas]
        assert all(one == epochs[0] for one in epochs)
        assert epochs[0].receipts_count == 1
        assert await first.epochs.batch(1) == await second.epochs.batch(1)
        assert len(await first.epochs.batch(1)) > 0


async def test_an_epoch_waits_for_own_windows_that_may_still_come_and_not_for_ever(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await held(made, first, 10)
        await first.windows.settle()
        await made.earn(second, (2, 7))
        await fetched(made)
        await lose(first, [])
        await made.close()
        nobody = restoring(first)
        first.epochs.need = nobody.need
        with pytest.raises(BooksError, match="1 windows of this meta node are not in its books, 1 is the first") as caught:
            await data_of(first, 1)
        assert not isinstance(caught.value, UnevenBooks), "nobody is left out for it"
        made.clock.now_s += 3_601
        await first.fetching.step()
        with pytest.raises(UnevenBooks) as uneven:
            await data_of(first, 1)
        assert uneven.value.wallets == (owner(1),)
        first.epochs.need = restoring(first, second).need
        assert await data_of(first, 1) == await data_of(second, 1)


async def test_a_meta_node_alone_waits_for_nobody(tmp_path: Path) -> None:
    async with several(tmp_path, 1) as made:
        await held(made, made.first, 10)
        await made.first.windows.settle()
        await lose(made.first, [])
        await made.close()
        made.first.epochs.need = restoring(made.first).need
        with pytest.raises(UnevenBooks):
            await data_of(made.first, 1)


async def test_windows_that_cannot_come_back_keep_no_others_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_AT_ONCE", 1)
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await held(made, first, 10)
        await first.windows.settle()
        (leaf,) = await first.books.leaves_of_window(1)
        await held(made, first, 20)
        await first.windows.settle()
        await fetched(made)
        await lose(first, [])
        await first.books.do(lambda database: file.put(database, "leaves", file.LEAF, leaf._replace(window=7)))
        brings = restoring(first, second)
        assert await brings.step() == 0
        assert await brings.step() == 1
        assert brings.missing == 1
        assert brings.problems() == [
            f"window 1 of this meta node is not in its books, and cannot be brought back: serial {leaf.id.hex()} is settled in window 7 of this meta node, too"
        ]
        await brings.need({first.me: 2})


async def test_a_release_that_the_log_tells_no_more_comes_back_as_enough_others_give_it(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, third, _ = made.metas
        await put(first, 1, 1_000_000, [1, 2, 3])
        made.clock.now_s += 2 * DAY_S
        done = await releases(first).release([result(1)], HASH, 1, HASH)
        await fetched(made)
        was = await leaves_here(first, first)
        await lose(first, [])
        await made.observe()
        first.replica.ledger.prune(first.ledger.head.sequence)
        lies(first, second, [leaf_of(1, 0, 1, owner(3), done.noz)])
        first.silent.add(third.me)
        brings = restoring(first)
        assert await brings.step() == 0, "one says this, one says that"
        assert "others are asked for them" in brings.problems()[0]
        first.silent.clear()
        assert await brings.step() == 1
        assert await leaves_here(first, first) == was != []
        assert brings.problems() == []


@pytest.mark.parametrize("is_of_before", [True, False])
async def test_a_release_whose_result_does_not_tell_its_leaves_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_of_before: bool
) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await put(first, 1, 1_000_000, [1, 2, 3])
        made.clock.now_s += DAY_S
        stopped = releases(first)

        async def stops(*_: Any) -> Any:
            raise asyncio.CancelledError

        monkeypatch.setattr(stopped, "_done", stops)
        with pytest.raises(asyncio.CancelledError):
            await stopped.release([result(1)], HASH, 1, HASH)
        await fetched(made)
        await made.observe()
        if is_of_before:
            for one in (making, checking):
                monkeypatch.setattr(one, "settled_of", lambda raw: None)
        else:
            first.replica.ledger.prune(first.ledger.head.sequence)
        maker = releases(first)
        await held(made, first, 20)
        assert await first.windows.settle() == 1
        monkeypatch.undo()
        assert (await maker.release([result(2)], HASH, 1, HASH)).number == 3
        brings = restoring(first)
        if is_of_before:
            monkeypatch.setattr(checking, "settled_of", lambda raw: None)
        assert await brings.step() == 1
        monkeypatch.undo()
        assert await leaves_here(first, first) == await leaves_here(second, first) != []
        await made.close()
        epochs = [await data_of(one, 1) for one in made.metas]
        assert all(one == epochs[0] for one in epochs)
        assert epochs[0].receipts_count == 3
