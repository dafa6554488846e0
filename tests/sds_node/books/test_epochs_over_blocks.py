"""The state at a close is the same on all members of a ledger with blocks, whatever came after it and whoever was away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from modules.settlement.trees import plain_root
from sds_node.meta.books.books import Books, open_books
from sds_node.meta.books.epochs import EpochBooks
from sds_node.meta.books.windows import Windows
from sds_node.meta.rules.tables import EPOCH
from sds_node.proofs import balance_leaf
from tests.sds_node.federation.orders import Party, Standing, driven, ended, observed
from tests.sds_node.rules.support import message, sold, wallet

pytestmark = pytest.mark.asyncio


def books_of(folder: Path, party: Party) -> tuple[Books, EpochBooks]:
    books = open_books(folder / f"books{party.number}", party.clock)
    windows = Windows(party.ledger, party.proposer, books, party.proposer.address, party.clock)
    epochs = EpochBooks(party.ledger, books, windows, party.clock)
    epochs.follow(party.ledger)
    return books, epochs


async def test_members_hold_the_block_that_closed_the_epoch(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    made = [await asyncio.to_thread(books_of, tmp_path, one) for one in parties]
    try:
        first, away = parties[0], parties[3]
        signers = [0, 1, 2, 3]
        await first.propose("observe", observed(102, signers, sold(1, 500)))
        await away.order.stop()
        clock.now_s += 1
        await first.propose("close_epoch", message("CloseEpoch", epoch=1))
        clock.now_s += 1
        last = await first.propose("observe", observed(103, signers, sold(1, 7), sold(2, 9)))
        await away.order.start()
        for one in parties:
            await one.reached(last.sequence)
        row = await first.ledger.query(lambda view: view.get(EPOCH, (1,)))
        assert row is not None
        data = [await epochs.epoch(1, row.closed_ms, []) for _, epochs in made]
        assert data == [data[0]] * 4
        assert data[0].balances_root == plain_root([balance_leaf(wallet(1), 500, 0)])
        assert [await epochs.balance_proof(1, wallet(2)) for _, epochs in made] == [None] * 4
    finally:
        for _, epochs in made:
            await asyncio.to_thread(epochs.close)
        await ended(order, parties)
        for books, _ in made:
            await asyncio.to_thread(books.close)
