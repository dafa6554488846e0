"""An epoch is the same on all meta nodes of a ledger, and one that cannot know it makes none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from modules.settlement.leaves import Leaf, leaf_bytes
from modules.settlement.trees import plain_root
from sds_node.meta.books import file
from sds_node.meta.books.books import BooksError
from sds_node.meta.ledger.errors import Unavailable
from sds_node.meta.relay.reporter import UnevenBooks
from sds_node.meta.rules import tables
from sds_node.proofs import balance_leaf, proved_balance
from tests.sds_node.books.pair import data_of, several
from tests.sds_node.books.test_releases_pay_kept_shares import HASH, put, releases, result
from tests.sds_node.books.world import DAY_S, message, owner, sold, wallet

pytestmark = pytest.mark.asyncio


async def test_windows_and_releases_of_both_make_the_same_epoch_on_both(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        await put(first, 1, 5_000_000, [1, 2, 3])
        made.clock.now_s += DAY_S
        await made.earn(first, (1, 100), (2, 200))
        await made.earn(second, (1, 300), (3, 7))
        await releases(first).release([result(1), result(2)], HASH, 2, HASH)
        await releases(second).release([result(3)], b"a" * 32, 1, HASH)
        await made.earn(second, (2, 11))
        await made.close()
        one, other = await data_of(first, 1), await data_of(second, 1)
        assert one == other
        assert one.receipts_count == 5 + 3
        assert await first.epochs.batch(1) == await second.epochs.batch(1)
        assert one.audits_root == plain_root([root for _, root in sorted([(first.me, HASH), (second.me, b"a" * 32)])])
        assert (first.fetching.fetched, second.fetching.fetched) == (2, 1)
        assert (first.fetching.made, second.fetching.made) == (1, 1)
        await made.report(1)
        for meta in made.metas:
            await meta.epochs.reported(1)
        made.clock.now_s += 601
        await made.earn(second, (3, 5))
        await made.close(2)
        later = await data_of(first, 2)
        assert later == await data_of(second, 2)
        assert (later.receipts_count, later.audits_root) == (1, plain_root([]))


async def test_balances_and_files_are_those_of_the_close_on_both(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        await made.earn(first, (1, 100))
        before = await first.row(tables.WALLET, wallet())
        await made.close()
        one = await data_of(first, 1)
        await made.observe(sold(1, 77), sold(2, 5))  # what comes after the close is in the next epoch
        other = await data_of(second, 1)
        assert one == other
        assert one.balances_root == plain_root([balance_leaf(wallet(), before.paid_noz, before.promo_noz)])
        proof = await second.epochs.balance_proof(1, wallet())
        assert proof is not None
        assert proved_balance(one.balances_root, proof, wallet()) == (before.paid_noz, before.promo_noz)


async def test_who_was_away_at_the_close_has_its_state_from_the_blocks_that_it_missed(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        await made.earn(first, (1, 100))
        await made.away(second)
        await made.close()
        await made.observe(sold(1, 77))
        await made.back(second)
        assert await data_of(second, 1) == await data_of(first, 1)


async def test_a_close_whose_state_was_not_held_needs_the_next_close(tmp_path: Path) -> None:
    async with several(tmp_path, follow=False) as made:
        first, second = made.metas
        await made.earn(first, (1, 100))
        await made.close()
        made.clock.now_s += 1
        await made.observe(sold(1, 77))
        second.epochs.follow(second.replica)
        with pytest.raises(BooksError, match="the next close is needed"):
            await data_of(second, 1)
        made.clock.now_s += 601
        await made.close()
        assert (await data_of(second, 1)).receipts_count == 1


async def test_a_ledger_that_cannot_be_read_after_a_block_stops_no_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        with monkeypatch.context() as broken:
            broken.setattr(first.replica, "snapshot", lambda: (_ for _ in ()).throw(Unavailable("the database is away")))
            await made.close()
        made.clock.now_s += 1
        await made.observe()
        with pytest.raises(BooksError, match="the next close is needed"):
            await data_of(first, 1)
        assert (await data_of(second, 1)).receipts_count == 0


async def test_one_manipulated_leaf_leaves_its_window_out_and_no_such_epoch_is_made(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        await made.earn(first, (1, 100))
        leaf = second.leaf(await second.lease(100_000), 2, 50)
        assert await second.states(second.peer(2), leaf) == [1]
        held = (await second.books.held_of_leases(1))[0]
        forged = Leaf.FromString(held.leaf)
        forged.traffic.receipt.signature = bytes(64)

        forged_row = held._replace(leaf=leaf_bytes(forged))
        await second.books.do(lambda database: file.put(database, "leaves", file.LEAF, forged_row))
        assert await second.windows.settle() == 1
        await made.close()
        with pytest.raises(UnevenBooks) as caught:
            await data_of(first, 1)
        assert caught.value.wallets == (owner(2),)
        await first.fetching.step()
        assert first.fetching.bad == 1
        assert "the session key has not signed the receipt" in first.fetching.problems()[0]
        made.clock.now_s += 601
        await made.close(1, [owner(2)])
        assert await data_of(first, 1) == await data_of(second, 1)


async def test_a_window_that_nobody_gives_is_named_and_after_an_hour_only_whom_it_pays_is_left_out(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as made:
        first, second, third = made.metas
        await made.earn(first, (1, 100))
        await made.earn(second, (2, 50))
        await made.away(second)
        await made.close()
        with pytest.raises(BooksError, match=f"window 1 of meta node {second.me.hex()} is not here, and epoch 1 has it"):
            await data_of(first, 1)
        made.clock.now_s += 3_601
        await made.close()
        with pytest.raises(UnevenBooks) as caught:
            await data_of(first, 1)
        assert caught.value.wallets == (owner(2),)
        made.clock.now_s += 601
        await made.close(1, [owner(2)])
        assert await data_of(first, 1) == await data_of(third, 1)
        await made.report(1)
        await made.back(second)
        await first.fetching.need({second.me: 1})
        made.clock.now_s += 601
        await made.close(2)
        assert (await data_of(first, 2)).receipts_count == 1
        assert await data_of(first, 2) == await data_of(second, 2) == await data_of(third, 2)


async def test_an_epoch_that_the_others_reported_is_not_paid_twice_here(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as made:
        first, second, third = made.metas
        await made.earn(first, (1, 100), (2, 1))
        await made.earn(second, (2, 50))
        await made.close()
        assert await data_of(first, 1) == await data_of(second, 1)
        await made.report(1)
        await made.earn(second, (2, 9))
        await made.observe()
        made.clock.now_s += 601
        await made.close(2)
        later = await data_of(third, 2)  # which never made the first
        assert later == await data_of(first, 2) == await data_of(second, 2)
        assert later.receipts_count == 1
        assert await third.epochs.batch(1) == await first.epochs.batch(1)
        with pytest.raises(BooksError, match="was not made here"):
            await data_of(third, 1)


async def test_a_window_that_comes_after_its_epoch_was_reported_is_of_that_epoch(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as made:
        first, second, third = made.metas
        await made.earn(first, (1, 100))
        await made.earn(second, (1, 50), (3, 6))
        third.silent.update((first.me, second.me))
        await made.close()
        made.clock.now_s += 3_601
        await made.close()
        assert await data_of(first, 1) == await data_of(second, 1)
        with pytest.raises(UnevenBooks):
            await data_of(third, 1)
        await made.report(1)
        await third.epochs.reported(1)
        with pytest.raises(BooksError, match="no data of epoch 1"):
            await third.epochs.batch(1)
        third.silent.clear()
        await third.fetching.need({first.me: 1, second.me: 1})
        await made.earn(first, (1, 4))
        made.clock.now_s += 601
        await made.close(2)
        assert await data_of(third, 2) == await data_of(first, 2)
        assert await third.epochs.batch(1) == await first.epochs.batch(1)


async def test_a_void_epochs_leaves_come_again_on_all(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as made:
        first, second, third = made.metas
        await made.earn(first, (1, 100))
        await made.earn(second, (1, 50))
        await made.close()
        await data_of(first, 1)
        await data_of(third, 1)
        await made.report(1)
        await first.epochs.reported(1)
        await made.observe(message("ObservedEvent", voided=message("VoidedEpoch", epoch=1)))
        made.clock.now_s += 601
        await made.earn(third, (1, 3))
        await made.close(2)
        again = await data_of(first, 2)
        assert again == await data_of(second, 2) == await data_of(third, 2)
        assert again.receipts_count == 3


async def test_another_number_than_the_ledgers_close_is_not_made(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        await made.close()
        row = await made.first.row(tables.EPOCH, 1)
        with pytest.raises(BooksError, match=f"was closed at {row.closed_ms} ms, not at 5 ms"):
            await made.first.epochs.epoch(1, 5, [])
        data = await data_of(made.first, 1)
        assert dataclasses.asdict(data) == dataclasses.asdict(await data_of(made.metas[1], 1))
