"""A receipt is lost or damaged in real books: the epoch is closed again without the wallet, and everybody else is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.settlement.commitment import Line
from sds_node.meta.books.epochs import EpochBooks
from sds_node.meta.relay.reporter import UnevenBooks
from sds_node.meta.rules import tables
from tests.sds_node.books.test_epochs_add_up import close, earn
from tests.sds_node.books.world import message, owner, world

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM leaves WHERE beneficiary = ? AND noz = 200",
        "UPDATE leaves SET noz = noz + 1 WHERE beneficiary = ? AND noz = 200",
        "UPDATE leaves SET leaf = x'ff' WHERE beneficiary = ? AND noz = 200",
    ],
)
async def test_books_that_lost_a_receipt_name_its_wallet_and_make_the_epoch_without_it(tmp_path: Path, harm: str) -> None:
    async with world(tmp_path) as made:
        books = EpochBooks(made.ledger, made.books, made.windows)
        await earn(made, (1, 100), (2, 200), (2, 50), (3, 7))
        assert await made.books.do(lambda database: database.execute(harm, (owner(2),)).rowcount) == 1
        with pytest.raises(UnevenBooks) as caught:
            await books.epoch(1, *await close(made))
        assert caught.value.wallets == (owner(2),)
        made.clock.now_s += 601
        await made.proposer.propose("close_epoch", message("CloseEpoch", epoch=1, without=caught.value.wallets))
        row = await made.row(tables.EPOCH, 1)
        lines = await made.ledger.query(lambda view: view.scan(tables.EPOCH_LINE, (1,), limit=10))
        data = await books.epoch(1, row.closed_ms, [Line(*line[1:]) for line in lines])
        assert (row.noz, data.receipts_count) == (107, 2)


async def test_a_receipt_that_is_damaged_after_its_epoch_was_made_is_found_when_it_is_made_again(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        books = EpochBooks(made.ledger, made.books, made.windows)
        await earn(made, (1, 100), (2, 200))
        assert (await books.epoch(1, *await close(made))).receipts_count == 2
        await made.books.do(lambda database: database.execute("UPDATE leaves SET leaf = x'ff' WHERE noz = 200"))
        made.clock.now_s += 601
        for _ in range(2):
            with pytest.raises(UnevenBooks, match="damaged") as caught:
                await books.epoch(1, *await close(made))
            assert caught.value.wallets == (owner(2),)
            made.clock.now_s += 601
        await made.proposer.propose("close_epoch", message("CloseEpoch", epoch=1, without=caught.value.wallets))
        row = await made.row(tables.EPOCH, 1)
        lines = await made.ledger.query(lambda view: view.scan(tables.EPOCH_LINE, (1,), limit=10))
        assert (await books.epoch(1, row.closed_ms, [Line(*line[1:]) for line in lines])).receipts_count == 1
