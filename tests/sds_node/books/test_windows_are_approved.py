"""No window comes onto the ledger whose leaves its meta node alone has: others fetch them, check them and keep them before they approve it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking
from sds_node.meta.books import proposed, windows
from sds_node.meta.books.others import BadWindow, OtherState, Unfinished
from sds_node.meta.books.proposed import Proposed, ProposedRow, TooManyProposed
from sds_node.meta.books.windows import NotApproved, Window, batch_bytes, batch_of
from sds_node.meta.operations import LedgerRefused, nobody_approves
from sds_node.meta.rules import tables
from sds_node.meta.rules.approvals import approval_bytes, approved, sign_approval
from sds_node.meta.rules.refusals import NO_QUORUM
from sds_node.wire.errors import Refused
from tests.sds_node.books.pair import Meta, Several, data_of, several
from tests.sds_node.books.test_windows_of_others import ask, other
from tests.sds_node.books.world import CHAIN_ID, message, owner

pytestmark = pytest.mark.asyncio
METAS = 4


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a test waits out are short."""
    monkeypatch.setattr(proposed, "BEHIND_S", 0.1)


async def held(made: Several, meta: Meta, *noz: int) -> Any:
    """The lease of leaves that node 1 earned and a meta node holds."""
    lease = await meta.lease(100_000)
    await meta.hand_in(meta.peer(1), *[meta.leaf(lease, 1, one) for one in noz])
    return lease


async def intended(meta: Meta) -> Any:
    """The window that a meta node intends and nobody approves."""
    meta.windows._approve, asks = nobody_approves, meta.windows._approve
    with pytest.raises(NotApproved):
        await meta.windows.settle()
    meta.windows._approve = asks
    row = await meta.books.intended()
    assert row is not None
    return Window.FromString(row.note)


async def last(meta: Meta, of: Meta) -> int:
    return int((await meta.row(tables.META, of.me)).windows)


async def test_a_window_is_with_those_who_approved_it_and_they_give_it_when_its_meta_node_is_gone(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, third, fourth = made.metas
        first.silent.update((third.me, fourth.me))  # the second alone is asked
        await held(made, first, 10, 20)
        assert await first.windows.settle() == 2
        assert first.asked == [(second.me, "")]
        await made.away(first)
        assert await third.fetching.step() == 0, "nobody has put it in its books"
        assert await second.fetching.step() == 1, "what was approved is here, its meta node is not asked"
        made.clock.now_s += 600
        assert (await third.fetching.step(), await fourth.fetching.step()) == (1, 1)
        assert await Proposed(second.books).count() == 0, "it is a window like others now"
        closer, made.first = first, second
        made.first.height = closer.height
        await made.close()
        assert await data_of(second, 1) == await data_of(third, 1) == await data_of(fourth, 1)
        assert (await data_of(third, 1)).receipts_count == 2
        assert list(second.books.verify()) == []


async def test_leaves_that_nobody_gets_are_not_approved_and_the_window_waits(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await held(made, first, 10)
        for one in made.metas[1:]:
            one.silent.add(first.me)
        with pytest.raises(NotApproved, match="expected 1 other meta nodes to approve window 1, 0 did"):
            await first.windows.settle()
        assert len(first.asked) == METAS - 1
        assert all("does not give the window's leaves" in why for _, why in first.asked)
        assert await last(second, first) == 0
        made.clock.now_s += windows.LONG_S
        assert "window 1 of this meta node is not approved" in first.windows.problems()[0]
        made.metas[3].silent.discard(first.me)
        assert await first.windows.settle() == 1, "one that can have them is enough"
        assert first.windows.problems() == []
        # Whoever proposes it without them is refused by the ledger.
        await held(made, first, 10)
        with pytest.raises(LedgerRefused) as caught:
            await first.proposer.propose("window", await intended(first))
        assert caught.value.code == NO_QUORUM
        await first.windows.settle()


class Giving:
    """A meta node gives these leaves for its window."""

    def __init__(self, meta: Meta, leaves: Sequence[bytes]) -> None:
        self.leaves, self.times = leaves, 0
        meta.approvals._fetch = self.fetch

    async def fetch(self, source: bytes, of: bytes, number: int) -> AsyncIterator[bytes]:
        self.times += 1
        for leaf in self.leaves:
            yield leaf


async def test_what_no_receipt_backs_is_not_approved(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        lease, other_lease = await held(made, first, 10, 20), await first.lease(100_000)
        good = await intended(first)

        def changed(**changes: Any) -> Any:
            one = Window.FromString(good.SerializeToString())
            for name, value in changes.items():
                if isinstance(value, list):
                    one.ClearField(name)
                    getattr(one, name).extend(value)
                else:
                    setattr(one, name, value)
            return one

        credit, debit = good.credits[0], good.leases[0]
        more = message("Credit", beneficiary=b"\xff" * 20, fund=1, traffic_class=1, noz=1)
        wrong = {
            "gave to wallets": changed(credits=[message("Credit", beneficiary=owner(2), fund=1, traffic_class=1, noz=30)]),
            "its leaves have 30 noz": changed(credits=[credit, more]),
            "took from leases": changed(leases=[message("LeaseDebit", lease_id=lease.id, noz=29)]),
            "its lease": changed(leases=[message("LeaseDebit", lease_id=other_lease.id, noz=30)]),
            "is not on the ledger": changed(leases=[message("LeaseDebit", lease_id=b"x" * 32, noz=30)]),
            "took from repair funds": changed(leases=[debit], repairs=[message("RepairDebit", fund=1, noz=1)]),
            "not those of the window": changed(batch_hash=b"x" * 32),
            "it gives more": changed(receipts_count=1),
            "with 1 to": changed(receipts_count=0),
            "from 1 on": changed(number=0),
        }
        for text, body in wrong.items():
            with pytest.raises(BadWindow, match=text):
                await second.approvals.check_window(first.me, body)
        with pytest.raises(BadWindow, match="is settled by meta node"):
            await second.approvals.check_window(made.metas[2].me, good)
        giving = Giving(second, [b"no leaf"])
        with pytest.raises(BadWindow, match="not those of the window"):
            await second.approvals.check_window(first.me, changed(receipts_count=1))
        assert giving.times == 1
        assert await Proposed(second.books).count() == 0
        assert await first.windows.settle() == 2, "the one that its receipts back is"


async def test_a_serial_that_is_in_another_window_is_not_approved_again(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await held(made, first, 10)
        await first.windows.settle()
        for one in made.metas[1:]:
            await one.fetching.step()
        leaf = (await first.books.leaves_of_window(1))[0]
        await first.books.do(lambda database: database.execute("DELETE FROM leaves"))
        await first.books.hold([leaf._replace(state=1, window=0)])
        assert await first.windows.settle() == 0
        assert all("is settled in window 1" in why for _, why in first.asked[-3:])
        assert await last(second, first) == 1
        # One that is in a window of the approving meta node itself is not known yet to be anybody's.
        await held(made, second, 7)
        await intended(second)
        mine = (await second.books.leaves_of_window(1))[0]
        key = first.me, 2, b"r" * 32, b"b" * 32
        with pytest.raises(Unfinished):
            await Proposed(second.books).keep(ProposedRow(*key, 0, b""), [mine.id])


async def test_earlier_windows_have_to_be_here_and_hold(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, third, fourth = made.metas
        first.silent.update((third.me, fourth.me))
        await held(made, first, 10)
        await first.windows.settle()
        await held(made, first, 20)
        body = await intended(first)
        third.silent.update((first.me, second.me, fourth.me))
        with pytest.raises(Unfinished, match="window 1 is not here yet: it is fetched first"):
            await third.approvals.check_window(first.me, body)
        third.silent.clear()
        await third.approvals.check_window(first.me, body)
        assert (await other(third, first)).state == OtherState.HERE
        ahead = Window.FromString(body.SerializeToString())
        ahead.number = 3
        with pytest.raises(Unfinished, match="has 1 windows"):
            await third.approvals.check_window(first.me, ahead)
        ahead.number = 1
        with pytest.raises(BadWindow, match="has 1 windows"):
            await third.approvals.check_window(first.me, ahead)
        await first.windows.settle()


async def test_what_was_approved_twice_is_not_given_up_for_the_other_and_goes_when_its_number_is_over(tmp_path: Path) -> None:
    """A meta node that has two windows of one number approved and then proposes the first: both are there."""
    async with several(tmp_path, METAS) as made:
        first, second, third, _ = made.metas
        await held(made, first, 10)
        one = await intended(first)
        await second.approvals.check_window(first.me, one)
        await second.approvals.check_window(first.me, one)
        assert await Proposed(second.books).count() == 1
        await first.books.free(1)
        await held(made, first, 30)
        two = await intended(first)
        assert two.number == one.number
        await second.approvals.check_window(first.me, two)
        assert await Proposed(second.books).count() == 2
        signature = sign_approval(approval_bytes(CHAIN_ID, first.me, one), second.key)
        await first.proposer.propose("window", approved(one, [(second.me, signature)]))
        await made.away(first)
        assert await second.fetching.step() == 1
        assert (await other(second, first)).leaves == 1
        assert await Proposed(second.books).count() == 0, "the other one never came onto the ledger"
        assert await third.fetching.step() == 1
        await made.back(first)
        await first.windows.finish_intended()


async def test_of_one_meta_node_few_windows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(tmp_path, METAS) as made:
        books = Proposed(made.metas[1].books)
        for at in range(proposed.MAX_OF_A_NUMBER):
            await books.keep(ProposedRow(made.first.me, 1, b"r" * 32, bytes([at]) * 32, 0, b"data"), [])
        with pytest.raises(TooManyProposed):
            await books.keep(ProposedRow(made.first.me, 1, b"r" * 32, b"x" * 32, 0, b"data"), [])
        await books.keep(ProposedRow(made.first.me, 1, b"r" * 32, bytes(32), 1, b"data"), [])
        monkeypatch.setattr(proposed, "MAX_KEPT_BYTES", 6)
        await books.keep(ProposedRow(made.metas[2].me, 1, b"r" * 32, b"x" * 32, 0, b"larger than that"), [])
        with pytest.raises(TooManyProposed):
            await books.keep(ProposedRow(made.metas[2].me, 1, b"r" * 32, b"y" * 32, 0, b"data"), [])


async def test_a_window_that_nobody_approves_for_long_is_chosen_anew(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        lease = await held(made, first, 10)
        one = await intended(first)
        await first.hand_in(first.peer(1), first.leaf(lease, 1, 20))
        made.clock.now_s += windows.GIVE_UP_S
        await second.proposer.propose("tick", message("Tick"))
        assert (await intended(first)).receipts_root == one.receipts_root, "until then it is the same one"
        made.clock.now_s += 1
        await second.proposer.propose("tick", message("Tick"))
        two = await intended(first)
        assert (two.number, two.receipts_count) == (1, 2), "what came since is in it"
        made.clock.now_s += 1
        await second.proposer.propose("tick", message("Tick"))
        assert (await intended(first)).receipts_root == two.receipts_root
        # As long as the others have not what they are asked to approve, nothing else is on the ledger either.
        assert await last(second, first) == 0
        assert await first.windows.settle() == 2


async def test_a_window_that_is_intended_is_given_to_whoever_asks_for_it_and_a_batch_is_read_as_it_was_written(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await held(made, first, 10, 20)
        await intended(first)
        page = await ask(second, first, meta_node=first.me, number=1)
        rows = await first.books.leaves_of_window(1)
        assert sorted(batch_of(page.data)) == sorted(row.leaf for row in rows)
        assert batch_of(batch_bytes(row.leaf for row in rows)) == [row.leaf for row in rows]
        assert batch_of(b"") == []
        with pytest.raises(Refused) as caught:
            await ask(second, first, meta_node=first.me, number=2)
        assert caught.value.code == asking.NOT_HELD
        await first.windows.settle()
