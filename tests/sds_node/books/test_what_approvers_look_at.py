"""What an approver looks at before it approves a window, what it says where it does not, and what it costs it to be asked; how it gets windows from slow others."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from modules.settlement import leaves as settlement
from modules.settlement.trees import sum_root
from sds_node.meta.books import checking, fetching, file, proposed
from sds_node.meta.books.books import State
from sds_node.meta.books.epochs import KEPT_MS
from sds_node.meta.books.others import BadWindow, OtherState, Unfinished, UnsureWindow
from sds_node.meta.books.proposed import Proposed, ProposedRow, TooManyProposed
from sds_node.meta.books.windows import Credit, LeaseDebit, Window, batch_bytes
from sds_node.meta.rules import tables
from sds_node.meta.rules.approvals import APPROVED_S, approval_bytes, approved, sign_approval
from tests.sds_node.books.pair import Meta, Several, several
from tests.sds_node.books.test_windows_of_others import other
from tests.sds_node.books.world import CHAIN_ID, message, owner

pytestmark = pytest.mark.asyncio
METAS = 4


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a test waits out are short."""
    monkeypatch.setattr(proposed, "BEHIND_S", 0.1)


def window_of(made: Several, number: int, lease: Any, leaves: Sequence[tuple[Any, int]], **changes: Any) -> tuple[list[bytes], Any]:
    """(leaves in their order, a Window of (leaf, the node that earned it) out of one lease)."""
    credits: dict[bytes, int] = {}
    for leaf, node in leaves:
        credits[owner(node)] = credits.get(owner(node), 0) + leaf.noz
    ordered = sorted([leaf for leaf, _ in leaves], key=lambda leaf: settlement.sort_key(leaf) or ())
    raws = [settlement.leaf_bytes(leaf) for leaf in ordered]
    root, noz = sum_root([(raw, leaf.noz) for raw, leaf in zip(raws, ordered, strict=True)])
    fields = {
        "number": number,
        "receipts_root": root,
        "receipts_count": len(raws),
        "batch_hash": sha256(batch_bytes(raws)).digest(),
        "leases": [LeaseDebit(lease_id=lease.id, noz=noz)],
        "credits": [Credit(beneficiary=to, fund=1, traffic_class=1, noz=given) for to, given in sorted(credits.items())],
        "until_s": int(made.clock()) + 600,
    }
    return raws, Window(**fields | changes)


class Gives:
    """Whoever is asked for leaves by these meta nodes gives these."""

    def __init__(self, raws: Sequence[bytes], *metas: Meta) -> None:
        self.raws, self.times = raws, 0
        for one in metas:
            one.approvals._fetch = self.fetch

    async def fetch(self, source: bytes, of: bytes, number: int) -> AsyncIterator[bytes]:
        self.times += 1
        for raw in self.raws:
            yield raw


async def put_on_the_ledger(meta: Meta, window: Any, by: Meta) -> None:
    """A meta node proposes a window with one other's signature, whatever that one thinks of it."""
    await meta.proposer.propose("window", approved(window, [(by.me, sign_approval(approval_bytes(CHAIN_ID, meta.me, window), by.key))]))


# --- what it looks at --------------------------------------------------------------------------------------------------------------


async def test_one_serial_twice_in_a_window_is_approved_by_nobody(tmp_path: Path) -> None:
    """For two nodes, so that both leaves are in order and each has its receipt: once on the ledger, nobody's books could hold it, and both would be unpaid."""
    async with several(tmp_path, METAS) as made:
        liar, *honest = made.metas
        lease, serial = await liar.lease(100_000), liar.serial()
        leaves = [(liar.leaf(lease, 1, 10, serial=serial), 1), (liar.leaf(lease, 3, 1, serial=serial), 3), (liar.leaf(lease, 2, 5), 2)]
        raws, window = window_of(made, 1, lease, leaves)
        Gives(raws, *honest)
        for one in honest:
            with pytest.raises(BadWindow, match=f"serial {serial.hex()} is there more than once") as caught:
                await one.approvals.check_window(liar.me, window)
            assert caught.value.serials == (serial,)
            assert await Proposed(one.books).count() == 0
        with pytest.raises(BadWindow, match="is there 2 times") as caught:
            await Proposed(honest[0].books).keep(ProposedRow(liar.me, 1, b"r" * 32, b"b" * 32, 0, b""), [serial, b"x" * 16, serial])
        assert caught.value.serials == (serial,)


async def test_the_refusal_names_each_leaf_that_is_bad_or_settled_already_and_no_other(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, *_ = made.metas
        lease, another = await first.lease(100_000), await first.lease(100_000)
        settled = [first.leaf(lease, 1, 10), first.leaf(lease, 1, 20)]
        await first.hand_in(first.peer(1), *settled)
        await first.windows.settle()
        await second.fetching.step()
        good, foreign = first.leaf(lease, 1, 40), first.leaf(another, 1, 80)
        raws, window = window_of(made, 2, lease, [(one, 1) for one in (*settled, good)])
        Gives(raws, second)
        with pytest.raises(BadWindow, match="is settled in window 1") as caught:
            await second.approvals.check_window(first.me, window)
        assert {*caught.value.serials} == {settlement.identity(one) for one in settled}
        unsigned = settlement.Leaf.FromString(settlement.leaf_bytes(first.leaf(lease, 1, 5)))
        unsigned.traffic.receipt.signature = bytes(64)
        raws, window = window_of(made, 2, lease, [(one, 1) for one in (good, foreign, unsigned)])
        Gives(raws, second)
        with pytest.raises(BadWindow, match="is bad") as caught:
            await second.approvals.check_window(first.me, window)
        assert {*caught.value.serials} == {settlement.identity(foreign), settlement.identity(unsigned)}
        raws, window = window_of(made, 2, lease, [(good, 1)])
        Gives(raws, second)
        await second.approvals.check_window(first.me, window)


async def test_who_lacks_windows_of_a_leases_own_meta_node_approves_nobody_who_takes_it_over(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        dead, taker, approver, fourth = made.metas
        dead.silent.update((taker.me, approver.me))  # its window is approved by the fourth
        lease = await dead.lease(100_000, seconds=600)
        settled, unsettled = dead.leaf(lease, 1, 10), dead.leaf(lease, 1, 20)
        await dead.hand_in(dead.peer(1), settled)
        await dead.windows.settle()
        await made.away(dead)
        approver.silent.add(fourth.me)
        made.clock.now_s += 901
        raws, window = window_of(made, 1, lease, [(settled, 1)])
        Gives(raws, approver)
        await taker.proposer.propose("tick", message("Tick"))
        with pytest.raises(Unfinished, match=r"whose lease .* are not all here"):
            await approver.approvals.check_window(taker.me, window)
        approver.silent.clear()
        await fourth.fetching.step()
        with pytest.raises(BadWindow, match=f"is settled in window 1 of meta node {dead.me.hex()}"):
            await approver.approvals.check_window(taker.me, window)
        raws, window = window_of(made, 1, lease, [(unsettled, 1)])
        Gives(raws, approver)
        await approver.approvals.check_window(taker.me, window)


async def test_a_lease_is_taken_over_by_the_ledgers_time_and_ones_own_by_what_the_own_books_have(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        own, taker, *_ = made.metas
        lease = await own.lease(100_000, seconds=600)
        leaf, kept = own.leaf(lease, 1, 10), own.leaf(lease, 1, 20)
        await own.hand_in(own.peer(1), leaf)
        await own.windows.settle()
        made.clock.now_s += 901
        raws, window = window_of(made, 1, lease, [(kept, 1)])
        Gives(raws, own)
        with pytest.raises(Unfinished, match="is its own meta node's until"):
            await own.approvals.check_window(taker.me, window)
        await taker.proposer.propose("tick", message("Tick"))
        await own.approvals.check_window(taker.me, window)
        # These books are a copy from before that window; and then the next one is there, but not that one.
        await own.books.do(lambda database: [database.execute(f"DELETE FROM {table}") for table in ("leaves", "windows", "proposed")] and None)
        raws, window = window_of(made, 1, lease, [(leaf, 1)])
        Gives(raws, own)
        with pytest.raises(Unfinished, match="are not all in its books: they are brought back first"):
            await own.approvals.check_window(taker.me, window)
        later = await own.lease(100_000)
        await own.hand_in(own.peer(1), own.leaf(later, 1, 10))
        await own.windows.settle()
        assert await own.books.do(lambda database: database.execute("SELECT number FROM windows").fetchall()) == [(2,)]
        with pytest.raises(Unfinished, match="are not all in its books"):
            await own.approvals.check_window(taker.me, window)


async def test_new_books_approve_no_receipt_that_may_be_in_a_window_which_others_remember(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, liar, rebuilt, fourth = made.metas
        lease = await liar.lease(100_000)
        leaf = liar.leaf(lease, 1, 10)
        await liar.hand_in(liar.peer(1), leaf)
        await liar.windows.settle()
        for one in (first, rebuilt, fourth):
            await one.fetching.step()
        for number in range(1, 4):
            made.clock.now_s += 600
            await made.close(number)
            await made.report(number, maturity_epoch=number + 2)
            await first.proposer.propose("tick", message("Tick"))
        await rebuilt.books.do(lambda database: [database.execute(f"DELETE FROM {table}") for table in ("leaves", "others", "epochs")] and None)
        await rebuilt.fetching.step()
        assert (await other(rebuilt, liar)).state == OtherState.PAST
        raws, window = window_of(made, 2, lease, [(leaf, 1)])
        Gives(raws, rebuilt, fourth)
        with pytest.raises(UnsureWindow, match="whose leaves the books here do not know") as caught:
            await rebuilt.approvals.check_window(liar.me, window)
        assert caught.value.serials == (settlement.identity(leaf),)
        with pytest.raises(BadWindow, match="is settled in window 1"):
            await fourth.approvals.check_window(liar.me, window)
        # One that was given since cannot be in those windows; one of a start to come would be in none ever.
        now_s = int(made.clock())
        for boot, is_good in ((now_s, True), (now_s + 61, False)):
            raws, window = window_of(made, 2, lease, [(liar.leaf(lease, 1, 10, serial=liar.serial(boot)), 1)])
            Gives(raws, rebuilt)
            if is_good:
                await rebuilt.approvals.check_window(liar.me, window)
                continue
            with pytest.raises(UnsureWindow, match="still to come"):
                await rebuilt.approvals.check_window(liar.me, window)
        # Once the others forget them, too, it is as good as they are.
        made.clock.now_s += KEPT_MS // 1_000
        later = await liar.lease(100_000)
        raws, window = window_of(made, 2, later, [(liar.leaf(later, 1, 10), 1)])
        Gives(raws, rebuilt)
        await rebuilt.approvals.check_window(liar.me, window)


async def test_a_window_that_does_not_hold_is_gone_past_and_looked_at_again(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, third, _ = made.metas
        first.silent.update((second.me, third.me))
        await made.earn(first, (1, 10))
        await made.earn(first, (1, 20))
        settled = (await first.books.leaves_of_window(1))[0]
        await third.books.hold([settled._replace(state=State.SETTLED, window=77)])
        await third.fetching.step()
        assert [(await other(third, first, number)).state for number in (1, 2)] == [OtherState.BAD, OtherState.HERE]
        lease = await first.lease(100_000)
        raws, window = window_of(made, 3, lease, [(first.leaf(lease, 1, 5), 1)])
        Gives(raws, third)
        await third.approvals.check_window(first.me, window)
        await third.books.do(lambda database: database.execute("DELETE FROM leaves WHERE window = 77"))
        made.clock.now_s += fetching.BAD_AGAIN_S - 1
        await third.fetching.step()
        assert (await other(third, first)).state == OtherState.BAD
        made.clock.now_s += 1
        await third.fetching.step()
        assert (await other(third, first)).state == OtherState.HERE
        assert third.fetching.problems() == []


# --- what was approved -------------------------------------------------------------------------------------------------------------


async def test_what_was_approved_stays_until_its_leaves_are_taken_whatever_comes_after_it(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        _, maker, approver, fourth = made.metas
        maker.silent.update(one.me for one in made.metas if one is not approver)
        await made.earn(maker, (1, 10))
        assert await Proposed(approver.books).count() == 1
        # The same receipt is in a window that the approver intends: it is not known yet whose it is.
        leaf = (await maker.books.leaves_of_window(1))[0]
        await approver.books.hold([leaf._replace(state=State.IN_WINDOW, window=1)])
        await fourth.fetching.step()
        maker.silent = {one.me for one in made.metas if one is not fourth}
        maker.windows._approve.args[0].silent.update(maker.silent)  # type: ignore[attr-defined]
        maker.windows._approve.args[0].silent.discard(fourth.me)  # type: ignore[attr-defined]
        await made.earn(maker, (1, 20))
        await approver.fetching.step()
        assert [(await other(approver, maker, number)).state for number in (1, 2)] == [OtherState.MISSING, OtherState.HERE]
        assert await Proposed(approver.books).count() == 1
        # Then it is free, and nobody else gives it.
        await approver.books.do(lambda database: database.execute("DELETE FROM leaves WHERE state = 2"))
        approver.silent.update(one.me for one in made.metas)
        made.clock.now_s += 600
        assert await approver.fetching.step() == 1
        assert (await other(approver, maker)).state == OtherState.HERE
        assert await Proposed(approver.books).count() == 0


async def test_another_message_over_approved_leaves_is_as_bad_for_its_approver_as_for_others(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        liar, approver, third, _ = made.metas
        lease = await liar.lease(100_000)
        raws, window = window_of(made, 1, lease, [(liar.leaf(lease, 1, 10), 1)])
        Gives(raws, approver)
        await approver.approvals.check_window(liar.me, window)
        changed = window_of(made, 1, lease, [(liar.leaf(lease, 2, 10), 2)])[1].credits
        another = Window.FromString(window.SerializeToString())
        another.ClearField("credits")
        another.credits.extend(changed)
        await put_on_the_ledger(liar, another, approver)
        third.fetching._fetch = approver.approvals._fetch
        for one in (approver, third):
            await one.fetching.step()
            found = await other(one, liar)
            assert (found.state, "gave to wallets" in found.reason) == (OtherState.BAD, True)


# --- what it costs to be asked -----------------------------------------------------------------------------------------------------


class Judging:
    """Counts how often leaves are judged, and how many threads do it at most; they wait for ``gate``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = self.now = self.most = 0
        self.gate, self._rows_of, self._guard = threading.Event(), checking.rows_of, threading.Lock()
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        monkeypatch.setattr(proposed, "rows_of", self.rows_of)

    def rows_of(self, *parts: Any) -> Any:
        with self._guard:
            self.times, self.now = self.times + 1, self.now + 1
            self.most = max(self.most, self.now)
        self._loop.call_soon_threadsafe(self.begun.set)
        self.gate.wait()
        with self._guard:
            self.now -= 1
        return self._rows_of(*parts)


async def test_giving_requests_up_and_asking_again_makes_one_thread_work_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(tmp_path, METAS) as made:
        asker, approver, *_ = made.metas
        lease = await asker.lease(100_000)
        raws, window = window_of(made, 1, lease, [(asker.leaf(lease, 1, 10), 1)])
        gives, judging = Gives(raws, approver), Judging(monkeypatch)
        try:
            for _ in range(12):
                asked = asyncio.ensure_future(approver.approvals.check_window(asker.me, window))
                await judging.begun.wait()
                asked.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asked
            # Another one of the same meta node waits for the end of that one.
            another = Window.FromString(window.SerializeToString())
            another.batch_hash = b"x" * 32
            waits = asyncio.ensure_future(approver.approvals.check_window(asker.me, another))
            await asyncio.sleep(0)
        finally:
            judging.gate.set()
        with pytest.raises(BadWindow):
            await waits
        assert (judging.most, judging.times) == (1, 2)
        for _ in range(3):
            await approver.approvals.check_window(asker.me, window)
        longer = Window.FromString(window.SerializeToString())
        longer.until_s += 100
        await approver.approvals.check_window(asker.me, longer)
        assert judging.times == 2, "nothing of it is new but until when it holds"
        assert gives.times == 2


async def test_what_is_approved_again_is_not_written_again_for_a_while_and_kept_as_long_as_it_may_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with several(tmp_path, METAS) as made:
        asker, approver, third, _ = made.metas
        lease = await asker.lease(100_000)
        leaf = asker.leaf(lease, 1, 10)
        raws, window = window_of(made, 1, lease, [(leaf, 1)])
        Gives(raws, approver)
        written = []

        def counted(database: Any, table: str, *parts: Any) -> None:
            written.append(table)
            file.put(database, table, *parts)

        monkeypatch.setattr(proposed, "put", counted)
        for passed_s, times in ((0, 1), (0, 1), (299, 1), (1, 2)):
            made.clock.now_s += passed_s
            window.until_s = int(made.clock()) + APPROVED_S
            await approver.approvals.check_window(asker.me, window)
            assert len(written) == times
        # Others of that number: this one stays while it can come onto the ledger, and goes when it cannot.
        for passed_s, count in ((proposed.OVER_MS // 1_000, 2), (1, 2)):
            made.clock.now_s += passed_s
            await third.proposer.propose("tick", message("Tick"))
            raws, window = window_of(made, 1, lease, [(leaf, 1), (asker.leaf(lease, 1, 1), 1)])
            Gives(raws, approver)
            await approver.approvals.check_window(asker.me, window)
            assert await Proposed(approver.books).count() == count


async def test_what_there_is_no_room_for_is_neither_fetched_nor_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(tmp_path, METAS) as made:
        asker, approver, *_ = made.metas
        lease = await asker.lease(100_000)
        for at in range(proposed.MAX_OF_A_NUMBER):
            made_ms = int(made.clock() * 1_000)
            await Proposed(approver.books).keep(ProposedRow(asker.me, 1, b"r" * 32, bytes([at]) * 32, made_ms, b"data"), [])
        raws, window = window_of(made, 1, lease, [(asker.leaf(lease, 1, 10), 1)])
        gives, judging = Gives(raws, approver), Judging(monkeypatch)
        judging.gate.set()
        with pytest.raises(TooManyProposed, match="8 of them with this number"):
            await approver.approvals.check_window(asker.me, window)
        assert (gives.times, judging.times) == (0, 0)
        # Those of other numbers do not count, and those that can come no more are forgotten.
        made.clock.now_s += proposed.OVER_MS // 1_000 + 1
        await asker.proposer.propose("tick", message("Tick"))
        _, window = window_of(made, 1, lease, [(asker.leaf(lease, 1, 10), 1)])
        with pytest.raises(BadWindow):
            await approver.approvals.check_window(asker.me, window)
        assert gives.times == 1


# --- getting windows from slow others ----------------------------------------------------------------------------------------------


async def test_a_slow_meta_node_delays_nobody_elses_windows(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        slow, maker, reader, fourth = made.metas
        slow.silent.update((reader.me, fourth.me))
        for _ in range(3):
            await made.earn(slow, (1, 1))
        await made.earn(maker, (2, 5))
        fetch, asked, never = reader.fetching._fetch, asyncio.Event(), asyncio.Event()

        async def trickles(source: bytes, of: bytes, number: int) -> AsyncIterator[bytes]:
            if source == slow.me:
                asked.set()
                await never.wait()
            async for raw in fetch(source, of, number):
                yield raw

        reader.fetching._fetch = trickles
        step = asyncio.ensure_future(reader.fetching.step())
        await asked.wait()
        await reader.fetching.need({maker.me: 1})
        assert (await other(reader, maker)).state == OtherState.HERE
        assert not step.done()
        await made.earn(maker, (2, 6))
        assert await reader.fetching.step() == 1, "rounds of the others go on, too"
        await reader.fetching.close()
        with pytest.raises(asyncio.CancelledError):
            await step


async def test_who_let_others_wait_is_asked_last_and_each_meta_node_has_its_share_of_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_PAGE", 2)
    async with several(tmp_path, METAS) as made:
        slow, second, reader, fourth = made.metas
        slow.silent.update((reader.me, fourth.me))
        for _ in range(5):
            await made.earn(slow, (1, 1))
        await made.earn(fourth, (2, 5))
        fetch, asked = reader.fetching._fetch, list[tuple[bytes, bytes, int]]()

        async def times_out(source: bytes, of: bytes, number: int) -> AsyncIterator[bytes]:
            asked.append((source, of, number))
            if of == slow.me:
                raise TimeoutError
            async for raw in fetch(source, of, number):
                yield raw

        reader.fetching._fetch = times_out
        assert await reader.fetching.step() == 1, "that of the fourth, though more than fit a round are older"
        assert reader.fetching.missing == 5
        await second.fetching.step()

        async def slowly(source: bytes, of: bytes, number: int) -> AsyncIterator[bytes]:
            asked.append((source, of, number))
            if source == slow.me:
                raise TimeoutError
            async for raw in fetch(source, of, number):
                yield raw

        reader.fetching._fetch = slowly
        made.clock.now_s += fetching.SLOW_FOR_S
        asked.clear()
        assert await reader.fetching.step() == 2
        assert next(source for source, _, number in asked if number == 1) == slow.me
        assert slow.me not in [source for source, _, number in asked if number == 2], "by then it is known to be slow"


async def test_the_ledgers_windows_are_found_by_several_at_once_and_kept_once(tmp_path: Path) -> None:
    async with several(tmp_path, METAS) as made:
        first, second, reader, _ = made.metas
        for one in (first, second):
            for _ in range(3):
                await made.earn(one, (1, 7))
        upto = {one.me: int((await one.row(tables.META, one.me)).windows) for one in (first, second)}
        await asyncio.gather(reader.fetching.step(), reader.fetching.need(upto), reader.fetching.need(upto), reader.fetching.step())
        assert reader.fetching.fetched == 6
        assert (await reader.fetching.others.bad())[0] == 0
