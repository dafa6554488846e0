"""Of four meta nodes none closes an epoch without a wallet alone: another one's books have to lack its receipts, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chain.metakeys import MetaKeys
from sds_node.meta.operations import Said
from sds_node.meta.relay.reporter import LEFT_OUT_S, NotYet, Reporter, TooFewSignatures, Unequal, nobody
from sds_node.meta.rules import tables
from sds_node.meta.rules.approvals import approval_bytes, sign_approval
from sds_node.value_chain.client import ValueChain
from sds_node.value_chain.sender import Sender
from tests.sds_node.books.pair import Meta, Several, data_of, several
from tests.sds_node.books.world import CHAIN_ID, message, owner, wallet_key

pytestmark = pytest.mark.asyncio
EPOCH_S = 600


def reporters(made: Several) -> list[Reporter]:
    """Of each meta node, over its ledger and books; the value chain has no part in closing."""
    found: list[Reporter] = []
    for one in made.metas:
        chain = ValueChain("http://127.0.0.1:1")
        key = wallet_key(9)
        approve = _approving(made, one, found)
        reporter = Reporter(
            chain, Sender(chain, key), one.proposer, MetaKeys.new(), key.public_key.address, one.epochs, nobody, made.clock, approve=approve
        )
        found.append(reporter)
    return found


def _approving(made: Several, meta: Meta, all_of_them: list[Reporter]) -> Any:
    async def approve(closing: Any) -> Said:
        found = []
        for other, its in zip(made.metas, all_of_them, strict=True):
            if other is not meta and other.me not in meta.silent:
                try:
                    await its.check_close(closing)
                except Unequal:
                    continue
                found.append((other.me, sign_approval(approval_bytes(CHAIN_ID, meta.me, closing), other.key)))
        return Said(found)

    return approve


async def lose(meta: Meta, number: int) -> None:
    """A wallet's leaves are gone from a meta node's books."""
    await meta.books.do(lambda database: database.execute("DELETE FROM leaves WHERE beneficiary = ?", (owner(number),)))


def without(*numbers: int, epoch: int = 1) -> Any:
    return message("CloseEpoch", epoch=epoch, without=sorted(owner(number) for number in numbers))


async def test_a_wallet_is_left_out_that_two_cannot_show_and_one_that_others_show_is_not(tmp_path: Path) -> None:
    async with several(tmp_path, 4) as made:
        first, second, third, _ = made.metas
        await made.earn(first, (1, 100), (2, 200), (3, 50))
        for one in made.metas[1:]:
            await one.fetching.step()
        for one in (first, second):
            await lose(one, 2)
        sides = reporters(made)
        await made.close()
        await sides[1].check_close(without(2))
        for body in (without(3), without(2, 3)):
            with pytest.raises(Unequal, match="show the leaves of 1 wallets"):
                await sides[1].check_close(body)
        with pytest.raises(Unequal, match="show the leaves of 1 wallets"):
            await sides[2].check_close(without(2))
        with pytest.raises(NotYet):
            await sides[1].check_close(without(2, epoch=2))
        with pytest.raises(Unequal):
            await sides[1].check_close(message("CloseEpoch", epoch=1, without=[b"x"]))
        # It is closed again without the wallet, by who found it out first.
        sides[0]._leave_out(1, [owner(2)])
        row = await first.row(tables.EPOCH, 1)
        made.clock.now_s += EPOCH_S
        first.silent.add(second.me)
        with pytest.raises(TooFewSignatures, match="expected 1 other meta nodes to approve that epoch 1 is closed without wallets, 0 did"):
            await sides[0]._closing(1, row)
        first.silent.discard(second.me)
        await first.proposer.propose("close_epoch", await sides[0]._closing(1, row))
        assert (await first.row(tables.EPOCH, 1)).noz == 150
        assert await data_of(first, 1) == await data_of(third, 1)


async def test_the_next_epoch_is_closed_with_the_wallet_where_nobody_remembers_that_it_was_left_out(tmp_path: Path) -> None:
    async with several(tmp_path, 4) as made:
        first, second, *_ = made.metas
        await made.earn(first, (1, 100), (2, 200))
        await second.fetching.step()
        await lose(second, 2)
        sides = reporters(made)
        await made.close()
        await sides[1].check_close(without(2))
        sides[0]._leave_out(1, [owner(2)])
        assert list((await sides[0]._closing(1, None)).without) == [owner(2)], "of an epoch that is closed for the first time, who remembers"
        made.clock.now_s += 2 * LEFT_OUT_S
        await made.report(1)
        await made.earn(first, (3, 5))
        await second.fetching.step()
        made.clock.now_s += EPOCH_S
        await made.close(2)
        with pytest.raises(Unequal):
            await sides[1].check_close(without(2, epoch=2))
        assert list((await sides[0]._closing(2, None)).without) == []
        assert sides[0].problems() == []


async def test_up_to_three_meta_nodes_ask_nobody(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as made:
        side = reporters(made)[0]
        side._leave_out(1, [owner(1)])
        closing = await side._closing(1, None)
        assert (list(closing.without), list(closing.approvals)) == ([owner(1)], [])
