"""A window that others do not approve, or that the ledger would not take, holds up nothing but what is wrong with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sds_node.meta.books import aside, proposed, windows
from sds_node.meta.books.aside import Aside
from sds_node.meta.books.books import BooksError, Phase, State
from sds_node.meta.books.others import BadWindow
from sds_node.meta.books.proposed import Proposed, TooManyProposed
from sds_node.meta.books.windows import NotApproved, Window
from sds_node.meta.ledger.errors import Busy
from sds_node.meta.ledger.log import Result
from sds_node.meta.operations import LedgerRefused, Said
from sds_node.meta.rules.approvals import APPROVED_S
from sds_node.meta.rules.refusals import NOT_ENOUGH, OUT_OF_TIME
from tests.sds_node.books.pair import Meta, Several, several
from tests.sds_node.books.test_releases_pay_kept_shares import HASH, put, releases, result
from tests.sds_node.books.test_windows_are_approved import METAS, held, intended, last
from tests.sds_node.books.world import DAY_S, message

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a test waits out are short."""
    monkeypatch.setattr(proposed, "BEHIND_S", 0.1)


async def pass_(made: Several, seconds: float) -> None:
    """Time goes on, the ledger's too."""
    made.clock.now_s += seconds
    await made.metas[1].proposer.propose("tick", message("Tick"))


async def settled_before(made: Several) -> bytes:
    """A receipt that the first meta node holds again, as if its books were from a copy; all others know its window. Gives its serial."""
    first, *others = made.metas
    await held(made, first, 10)
    rows = await first.books.held_of_leases(10)
    await first.windows.settle()
    for one in others:
        await one.fetching.step()
    await first.books.do(lambda database: database.execute("DELETE FROM leaves"))
    await first.books.do(lambda database: database.execute("DELETE FROM windows"))
    await first.books.hold(rows)
    first.done.clear()
    return rows[0].id


async def states(meta: Meta) -> dict[bytes, tuple[int, str]]:
    rows = await meta.books.do(lambda database: database.execute("SELECT id, state, reason FROM leaves").fetchall())
    return {key: (state, reason) for key, state, reason in rows}


async def test_a_receipt_that_is_settled_already_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first = made.first
        old = await settled_before(made)
        await held(made, first, 20, 30)
        assert await first.windows.settle() == 2, "the others go at once"
        assert await last(made.metas[1], first) == 2
        assert (await states(first))[old] == (State.HELD, ""), "one that is a block behind may be wrong: it is asked once more"
        asked = len(first.asked)
        assert await first.windows.settle() == 0
        assert len(first.asked) == asked, "it waits, and nobody is asked"
        await pass_(made, aside.ASIDE_S)
        await held(made, first, 40)
        assert await first.windows.settle() == 1
        state, reason = (await states(first))[old]
        assert state == State.REFUSED
        assert "2 other meta nodes say that this receipt does not hold, or is settled already" in reason
        assert [(serial, noz) for _, serial, noz in first.done if serial == old] == [(old, 0)], "who lent the noz hears of it"
        assert await first.books.held_of_leases(10) == []


class Liar:
    """One other meta node says of these leaves that they do not hold; what the rest says is as it is, if they are asked."""

    def __init__(self, meta: Meta, by: bytes, *, alone: bool) -> None:
        self.meta, self.by, self.asks, self.alone = meta, by, meta.windows._approve, alone
        self.leaves: Callable[[], Awaitable[list[bytes]]] = self.all
        meta.windows._approve = self.approve

    async def all(self) -> list[bytes]:
        intent = await self.meta.books.intended()
        assert intent is not None
        return [row.id for row in await self.meta.books.leaves_of_window(intent.number)]

    async def approve(self, body: Any) -> Said:
        said = Said() if self.alone else await self.asks(body)
        return Said(said.signatures, {**said.bad, self.by: await self.leaves()})


async def test_one_liar_has_no_receipt_thrown_away(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await held(made, first, 10, 20)
        liar = Liar(first, second.me, alone=True)
        for _ in range(3):
            with pytest.raises(NotApproved):
                await first.windows.settle()
            await pass_(made, aside.ASIDE_S)
        assert {state for state, _ in (await states(first)).values()} == {State.IN_WINDOW}, "all of it is named: nothing would go ahead"
        named = sorted(await liar.all())[:1]

        async def some() -> list[bytes]:
            return named

        liar.leaves = some
        for _ in range(3):
            with pytest.raises(NotApproved):
                await first.windows.settle()
            found = await states(first)
            assert found[named[0]] == (State.HELD, "")
            await pass_(made, aside.ASIDE_S)
        liar.alone = False
        assert await first.windows.settle() == 2, "enough approve, so nobody asks what he says"


async def test_what_enough_name_once_and_once_more_is_bad_and_what_few_name_waits() -> None:
    now_s = 1_000.0
    kept = Aside(lambda: now_s)
    leaves = [b"a", b"b", b"c"]
    assert kept.note({b"1": [b"a", b"a"], b"2": [b"a", b"b", b"other"]}, {}, leaves, 2) == ([], 2)
    assert [kept.has(one) for one in leaves] == [True, True, False]
    assert not kept.has(b"other"), "what is not in the window is nobody's business"
    assert kept.note({b"1": leaves}, {}, leaves, 2) == ([], 0), "all of it named by few"
    now_s += aside.ASIDE_S
    assert not any(map(kept.has, leaves))
    assert kept.note({b"1": [b"a", b"b"], b"2": [b"a", b"b"]}, {}, leaves, 2) == ([b"a"], 1)
    now_s += aside.ASIDE_S
    assert kept.note({b"1": [b"b"], b"2": [b"b"]}, {}, [b"b"], 2) == ([b"b"], 0)


async def test_what_others_know_too_little_of_waits_and_is_never_thrown_away() -> None:
    now_s = 1_000.0
    kept = Aside(lambda: now_s)
    for _ in range(3):
        assert kept.note({b"1": [b"a"]}, {b"2": [b"a", b"b"], b"3": [b"a", b"b"]}, [b"a", b"b", b"c"], 2) == ([], 2)
        assert [kept.has(one) for one in (b"a", b"b", b"c")] == [True, True, False]
        now_s += aside.ASIDE_S
    assert kept.note({}, {b"2": [b"a"]}, [b"a"], 2) == ([], 0), "all of it by one: it is asked for again"
    assert kept.note({}, {b"2": [b"a"], b"3": [b"a"]}, [b"a"], 2) == ([], 1), "by several: others go first"


async def test_what_is_remembered_of_named_leaves_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "MAX_REMEMBERED", 2)
    kept = Aside(lambda: 1_000.0)
    for at in range(4):
        kept.note({b"1": [b"%d" % at]}, {}, [b"%d" % at, b"x"], 2)
    assert [kept.has(b"%d" % at) for at in range(4)] == [False, False, True, True]


async def test_a_lease_that_is_over_does_not_keep_its_window_from_being_chosen_anew(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, *others = made.metas
        short, long = await first.lease(100_000, seconds=600), await first.lease(100_000, seconds=900)
        leaves = first.leaf(short, 1, 10), first.leaf(long, 2, 1_000)
        for node, leaf in enumerate(leaves, 1):
            await first.hand_in(first.peer(node), leaf)
        made.clock.now_s += 660
        first.silent.update(one.me for one in others)
        with pytest.raises(NotApproved):
            await first.windows.settle()
        await pass_(made, 545)  # the short one was settled by the ledger 5 s ago
        first.silent.clear()
        assert await first.windows.settle() == 1, "the rest goes at once"
        found = sorted((state, reason) for state, reason in (await states(first)).values())
        assert [state for state, _ in found] == [State.SETTLED, State.REFUSED]
        assert "settled before" in found[1][1] or "time to settle is over" in found[1][1]


class Order:
    """What becomes of windows that a meta node proposes: refused, lost, or as they are."""

    def __init__(self, meta: Meta) -> None:
        self.fails: list[Exception] = []
        self.sent: list[Any] = []
        self.proposes = meta.proposer.propose
        meta.proposer.propose = self.propose  # type: ignore[method-assign]

    async def propose(self, kind: str, message: Any) -> Result:
        if kind == "window":
            self.sent.append(message)
            if self.fails:
                raise self.fails.pop(0)
        return await self.proposes(kind, message)


@pytest.mark.parametrize("error", [LedgerRefused(OUT_OF_TIME, "its time is over"), Busy("too much waits")], ids=["out of time", "busy"])
async def test_what_did_not_get_its_turn_is_proposed_again_as_it_is(tmp_path: Path, error: Exception) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await held(made, first, 10)
        order = Order(first)
        order.fails.append(error)
        with pytest.raises(type(error)):
            await first.windows.settle()
        row = await first.books.intended()
        assert row is not None
        assert row.state == Phase.INTENDED, "it is certain that it is not on its way"
        await held(made, first, 20)
        await pass_(made, 601)
        assert await first.windows.settle() == 2
        assert [one.receipts_root for one in order.sent[:2]] == [row.root, row.root]
        assert order.sent[1].until_s > order.sent[0].until_s
        assert [one.number for one in order.sent] == [1, 1, 2]
        assert await Proposed(second.books).count() <= 2


async def test_what_the_ledger_refuses_is_free_unless_it_may_be_on_its_way(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, *_ = made.metas
        await held(made, first, 10)
        order = Order(first)
        order.fails.append(LedgerRefused(NOT_ENOUGH, "no"))
        with pytest.raises(LedgerRefused):
            await first.windows.settle()
        assert await first.books.intended() is None
        # An answer that is lost: a block may have it later.
        order.fails.append(ConnectionError("gone"))
        with pytest.raises(ConnectionError):
            await first.windows.settle()
        row = await first.books.intended()
        assert row is not None
        assert row.state == Phase.PROPOSED
        order.fails.append(LedgerRefused(NOT_ENOUGH, "no"))
        with pytest.raises(LedgerRefused):
            await first.windows.settle()
        again = await first.books.intended()
        assert again is not None
        assert (again.root, again.state) == (row.root, Phase.PROPOSED), "what was sent at first may still come"
        made.clock.now_s += 1_000
        await made.metas[1].proposer.propose("tick", message("Tick"))
        assert await first.windows.settle() == 1


async def test_a_window_that_may_be_on_its_way_is_not_replaced_before_its_time_is_over(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        lease = await first.lease(100_000, seconds=900)
        await first.hand_in(first.peer(1), first.leaf(lease, 1, 10))
        made.clock.now_s += 1_000
        order = Order(first)
        order.fails.append(ConnectionError("gone"))
        with pytest.raises(ConnectionError):
            await first.windows.settle()
        row = await first.books.intended()
        assert row is not None
        until_s = Window.FromString(row.note).until_s
        assert until_s == made.clock.now_s + 600
        await pass_(made, 500)  # the ledger has settled the lease
        await held(made, first, 20)
        for _ in range(2):
            with pytest.raises(NotApproved, match="may be on its way until"):
                await first.windows.settle()
        assert (await last(second, first)) == 0
        later = await first.books.intended()
        assert later is not None
        assert Window.FromString(later.note).until_s == until_s, "waiting makes it no longer"
        await pass_(made, 101)
        assert await first.windows.settle() == 1


async def test_an_intent_of_before_that_says_no_time_may_have_been_proposed(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, *others = made.metas
        await held(made, first, 10)
        body = await intended(first)
        row = await first.books.intended()
        assert row is not None
        body.ClearField("until_s")
        await first.books.note_intent(row._replace(note=body.SerializeToString()))
        first.silent.update(one.me for one in others)
        with pytest.raises(NotApproved):
            await first.windows.settle()
        with pytest.raises(NotApproved):
            await first.windows.make_way()
        row = await first.books.intended()
        assert row is not None
        assert row.state == Phase.PROPOSED
        assert Window.FromString(row.note).until_s == made.clock.now_s + 600
        first.silent.clear()
        assert await first.windows.settle() == 1


async def test_a_release_does_not_wait_for_a_window_that_nobody_approves(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, *others = made.metas
        await put(first, 1, 1_000_000, [1, 2, 3])
        made.clock.now_s += 2 * DAY_S
        await held(made, first, 10)
        await intended(first)
        first.silent.update(one.me for one in others)
        assert (await releases(first).release([result(1)], HASH, 1, HASH)).number == 1
        assert len(await first.books.held_of_leases(10)) == 1
        made.clock.now_s += windows.LONG_S
        assert "is not approved by others since 120 s" in first.windows.problems()[0], "that is told all the same"
        first.silent.clear()
        assert await first.windows.settle() == 1
        assert await last(others[0], first) == 2
        assert first.windows.problems() == []


async def test_a_release_waits_for_a_window_that_may_be_on_its_way(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, *others = made.metas
        await held(made, first, 10)
        order = Order(first)
        order.fails.append(ConnectionError("gone"))
        with pytest.raises(ConnectionError):
            await first.windows.settle()
        first.silent.update(one.me for one in others)
        with pytest.raises(NotApproved):
            await first.windows.make_way()
        assert await first.books.intended() is not None
        await pass_(made, 601)
        await first.windows.make_way()
        assert await first.books.intended() is None
        first.silent.clear()
        assert await first.windows.settle() == 1


async def versions(made: Several, *noz: int) -> list[Any]:
    """Windows of one number with different leaves, that the second meta node is asked to approve; the last one's leaves are in it."""
    first, second, *_ = made.metas
    found = []
    for one in noz:
        await held(made, first, one)
        body = await intended(first)
        await second.approvals.check_window(first.me, body)
        await first.books.free(1)
        found.append(body)
    return found


async def test_of_one_number_as_many_are_approved_as_can_still_be_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposed, "MAX_OF_A_NUMBER", 2)
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        one, *_ = await versions(made, 1, 2)
        with pytest.raises(TooManyProposed):
            await versions(made, 3)
        await first.books.free(1)
        await pass_(made, proposed.OVER_MS // 1_000)
        with pytest.raises(TooManyProposed):
            await versions(made, 4)
        await first.books.free(1)
        with pytest.raises(BadWindow, match="expected a window that holds until"):
            await second.approvals.check_window(first.me, one)
        await pass_(made, 1)
        await versions(made, 5)
        assert await Proposed(second.books).count() == 1, "no block takes the two of before"
        assert await first.windows.settle() == 5


@pytest.mark.parametrize("until_s", [0, -1, APPROVED_S + 1])
async def test_a_window_without_an_end_or_with_one_far_away_is_not_approved(tmp_path: Path, until_s: int) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        await held(made, first, 10)
        body = await intended(first)
        body.until_s = int(made.clock()) + until_s if until_s else 0
        with pytest.raises(BadWindow, match="expected a window that holds until"):
            await second.approvals.check_window(first.me, body)
        body.until_s = int(made.clock()) + APPROVED_S
        await second.approvals.check_window(first.me, body)
        await first.windows.settle()


async def test_a_receipt_that_another_window_took_meanwhile_is_in_no_second_one(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first = made.first
        await held(made, first, 10, 20)
        rows = await first.books.held_of_leases(10)
        query = first.windows._choose

        def choose(view: Any, rows: Any, ended: Any) -> Any:
            chosen = query(view, rows, ended)
            first.books.submit(lambda database: database.execute("DELETE FROM leaves WHERE id = ?", (rows[0].id,)) and None).result()
            first.windows._choose = query  # type: ignore[method-assign]
            return chosen

        first.windows._choose = choose  # type: ignore[method-assign]
        with pytest.raises(BooksError, match="is not held any more: choose anew"):
            await first.windows.settle()
        assert await first.books.intended() is None
        assert len(rows) == 2
        assert await first.windows.settle() == 1
