"""Windows of other meta nodes: fetched page by page, judged as a stranger would, and never believed from whoever does not have them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from modules.settlement.leaves import Leaf, leaf_bytes
from sds_node import asking
from sds_node.meta.books import fetching, file, serving
from sds_node.meta.books.books import BooksDamaged, open_books
from sds_node.meta.books.checking import NotThatWindow
from sds_node.meta.books.fetching import window_leaves
from sds_node.meta.books.others import FIRST_ID, Others, OtherState
from sds_node.meta.books.proposed import Proposed
from sds_node.wire.errors import Refused
from tests.sds_node.books.pair import Meta, Several, data_of, several
from tests.sds_node.books.test_books_survive import row
from tests.sds_node.books.world import CHAIN_ID, DAY_S, Clock, message, world

pytestmark = pytest.mark.asyncio


async def other(meta: Meta, of: Meta, number: int = 1) -> Any:
    return await meta.books.do(lambda database: Others(meta.books).window_in(database, of.me, number))


async def ask(meta: Meta, of: Meta, **head: Any) -> Any:
    raw = await of.peer(7, None).ask(asking.META_WINDOW, encode(asking.WindowLeavesHead(**head)), most_bytes=asking.MAX_ANSWER_BYTES)
    return asking.EpochBatchPage.FromString(raw)


async def test_a_windows_leaves_come_in_pages_and_in_order_from_whoever_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PAGE_LEAVES", 3)
    async with several(tmp_path, 3) as made:
        first, second, third = made.metas
        await made.earn(second, *((1 + at % 3, at + 1) for at in range(11)))
        assert await first.fetching.step() == 1
        await made.away(second)
        assert await third.fetching.step() == 1  # from the first
        rows = [await meta.books.leaves_of_window(await _window(meta, second)) for meta in (first, second, third)]
        assert [[one.leaf for one in found] for found in rows] == [[one.leaf for one in rows[1]]] * 3
        assert {one.window for one in rows[2]} == {FIRST_ID + 1}
        page = await ask(third, first, meta_node=second.me, number=1)
        assert page.next
        assert list(third.books.verify()) == []


async def _window(meta: Meta, of: Meta) -> int:
    return 1 if meta is of else (await other(meta, of)).id


async def test_what_is_not_here_or_not_asked_for_well_is_refused(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        await made.earn(second, (1, 5))
        for code, head in (
            (asking.NOT_HELD, {"meta_node": first.me, "number": 1}),
            (asking.NOT_HELD, {"meta_node": second.me, "number": 1}),  # known to the ledger, not fetched
            (asking.NOT_HELD, {"meta_node": second.me, "number": 2}),
            (asking.BAD_ASK, {"meta_node": b"x", "number": 1}),
            (asking.BAD_ASK, {"meta_node": second.me, "number": 0}),
            (asking.BAD_ASK, {"meta_node": second.me, "number": (1 << 64) - 1}),
            (asking.BAD_ASK, {"meta_node": second.me, "number": 1, "after": b"x"}),
        ):
            with pytest.raises(Refused) as caught:
                await ask(second, first, **head)
            assert caught.value.code == code
        # A window that waits for the ledger is nobody's yet, and neither is one of which leaves are forgotten.
        await second.books.do(lambda database: database.execute("DELETE FROM leaves WHERE window = 1"))
        with pytest.raises(Refused) as caught:
            await ask(first, second, meta_node=second.me, number=1)
        assert caught.value.code == asking.NOT_HELD


class Liar:
    """Gives other leaves than it is asked for, as long as it lies."""

    def __init__(self, made: Several, meta: Meta, leaves: list[bytes]) -> None:
        self.meta, self.leaves, self.liars, self.asked = meta, leaves, set[bytes](), list[bytes]()
        self._fetch, meta.fetching._fetch = meta.fetching._fetch, self.fetch

    async def fetch(self, source: bytes, of: bytes, number: int) -> AsyncIterator[bytes]:
        self.asked.append(source)
        if source in self.liars:
            for leaf in self.leaves:
                yield leaf
            return
        async for leaf in self._fetch(source, of, number):
            yield leaf


async def test_whoever_gives_other_leaves_is_not_believed_and_the_next_one_is_asked(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as made:
        first, second, third = made.metas
        await made.earn(second, (1, 5))
        await third.fetching.step()
        leaf = (await second.books.leaves_of_window(1))[0].leaf
        cheaper = Leaf.FromString(leaf)
        cheaper.noz = 4
        for leaves in ([], [leaf_bytes(cheaper)], [leaf, leaf], [b"no leaf"], [leaf + b"\x00"]):
            liar = Liar(made, first, leaves)
            liar.liars = {second.me, third.me}
            made.clock.now_s += 600
            assert await first.fetching.step() == 0
            assert (await other(first, second)).state == OtherState.MISSING
            assert liar.asked == [second.me, third.me]
            first.fetching._fetch = liar._fetch
        assert first.fetching.problems()
        liar = Liar(made, first, [])
        liar.liars = {second.me}
        made.clock.now_s += 600
        assert await first.fetching.step() == 1
        assert first.fetching.problems() == []


async def test_what_cannot_be_had_is_asked_for_again_after_pauses_that_grow(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        await made.earn(second, (1, 5))
        await made.away(second)
        liar, times = Liar(made, first, []), []
        for second_s in range(40):
            await first.fetching.step()
            if liar.asked:
                times.append(second_s)
                liar.asked.clear()
            made.clock.now_s += 1
        assert times == [0, 2, 6, 14, 30]
        await made.back(second)
        await first.fetching.need({second.me: 1})  # does not wait for the pause
        assert (await other(first, second)).state == OtherState.HERE


async def test_a_serial_that_another_window_settled_makes_the_later_one_bad(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        leaves = await made.earn(second, (1, 5))
        await first.fetching.step()
        await second.books.do(lambda database: database.execute("DELETE FROM leaves"))
        lease = leaves[0]
        await second.books.hold([(await first.books.leaves_of_window(FIRST_ID + 1))[0]._replace(state=1, window=0, epoch=0)])
        assert lease.noz == 5
        await second.windows.settle()
        await first.fetching.step()
        found = await other(first, second, 2)
        assert found.state == OtherState.BAD
        assert f"is settled in window 1 of meta node {second.me.hex()}, too" in found.reason
        assert first.fetching.bad == 1


async def test_a_window_that_took_other_noz_than_its_leaves_say_is_bad(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        one, two = await second.lease(1_000), await second.lease(1_000)
        leaf = second.leaf(one, 1, 5)
        await second.hand_in(second.peer(1), leaf)
        held = (await second.books.held_of_leases(1))[0]
        await second.books.do(lambda database: file.put(database, "leaves", file.LEAF, held._replace(lease=two.id)))
        assert await second.windows.settle() == 1
        await first.fetching.step()
        assert "took from leases is not what its leaves say" in (await other(first, second)).reason


async def test_windows_of_an_epoch_that_is_long_mature_are_not_looked_for(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as made:
        first, second, third = made.metas
        third.silent.update((first.me, second.me))
        for number in range(1, 4):
            await made.earn(second, (1, 10 + number))
            await made.close(number)
            assert await data_of(first, number) == await data_of(second, number)
            await made.report(number, maturity_epoch=number + 1)
            made.clock.now_s += 601
        await first.proposer.propose("tick", message("Tick"))
        third.silent.clear()
        assert await third.fetching.step() == 1
        assert (await other(third, second, 2)).state == OtherState.PAST
        assert await other(third, second, 1) is None
        await made.earn(second, (1, 5))
        await made.close(4)
        assert await data_of(third, 4) == await data_of(first, 4)


async def test_pages_that_are_none_or_have_no_end_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = b"\x00\x00\x00\x01x"
    pages = {
        "are none": [b"\xff"],
        "it says 0": [encode(asking.EpochBatchPage(data=bytes(4)))],
        "it says 9": [encode(asking.EpochBatchPage(data=b"\x00\x00\x00\x09x"))],
        "without an end": [encode(asking.EpochBatchPage(data=leaf, next=b"b")), encode(asking.EpochBatchPage(data=leaf, next=b"a"))],
    }
    for text, answers in pages.items():
        left = iter(answers)

        async def give(head: bytes, left: Iterator[bytes] = left) -> bytes:
            return next(left)

        with pytest.raises(NotThatWindow, match=text):
            _ = [one async for one in window_leaves(give, b"m" * 20, 1)]


async def test_more_leaves_than_a_window_has_are_not_waited_for(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        await made.earn(second, (1, 5))
        given = 0

        async def endless(source: bytes, of: bytes, number: int) -> AsyncIterator[bytes]:
            nonlocal given
            while True:
                given += 1
                yield b"leaf"

        first.fetching._fetch = endless
        assert await first.fetching.step() == 0
        assert given == 2


async def test_books_of_version_one_are_opened_and_have_the_windows_of_others_from_now_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(file, "_VERSION", 1)
        before.setattr(file, "_OTHERS", "")
        with open_books(tmp_path / "books") as books:
            await books.hold([row(1)])
    database = sqlite3.connect(tmp_path / "books")
    assert database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'others'").fetchone() == (0,)
    database.close()
    with open_books(tmp_path / "books") as books:
        assert [one.id for one in await books.held_of_leases(10)] == [row(1).id]
        assert await Others(books).last_numbers() == {}
        assert list(books.verify()) == []
    database = sqlite3.connect(tmp_path / "books")
    assert database.execute("PRAGMA user_version").fetchone() == (2,)
    database.execute("PRAGMA user_version = 3")
    database.close()
    with pytest.raises(BooksDamaged, match="have version 3, expected 2"):
        open_books(tmp_path / "books")


async def test_leaves_of_others_are_forgotten_with_their_epochs(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, second = made.metas
        for number in range(1, 4):
            await made.earn(second, (1, 10 + number))
            await made.close(number)
            await data_of(first, number)
            await made.report(number, maturity_epoch=number + 1)
            await first.epochs.reported(number)
            made.clock.now_s += 601
        made.clock.now_s += 8 * DAY_S
        while await first.epochs.forget():
            pass
        assert [await other(first, second, number) is None for number in (1, 2, 3)] == [True, True, False]
        assert len(await first.books.leaves_of_window((await other(first, second, 3)).id)) == 1


async def test_windows_that_do_not_hold_go_with_their_epochs_and_so_does_what_was_approved_of_them(tmp_path: Path) -> None:
    async with several(tmp_path, 4) as made:
        first, second, *_ = made.metas
        for number in range(1, 4):
            await made.earn(second, (1, 10 + number))
            await first.fetching._discover()
            row = await other(first, second, number)
            if number < 3:
                await Others(first.books).refuse(row, "the ledger has forgotten it")
            assert await Proposed(first.books).count() == number
            await made.close(number)
            await data_of(second, number)
            await made.report(number, maturity_epoch=number + 1)
            made.clock.now_s += 601
            assert await first.epochs.forget() == 0, "somebody may need them"
        assert (await Others(first.books).bad())[0] == 2
        await first.proposer.propose("tick", message("Tick"))
        assert await first.epochs.forget() == 2
        assert [await other(first, second, number) is None for number in (1, 2, 3)] == [True, True, False]
        assert await Proposed(first.books).count() == 1, "that of the window that is not here yet"
        assert await first.fetching.step() == 1
        assert await Proposed(first.books).count() == 0


async def test_one_meta_node_alone_looks_for_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, clock=Clock()) as made:
        asked = []

        async def never(source: bytes, of: bytes, number: int) -> AsyncIterator[bytes]:
            asked.append(source)
            yield b""

        alone = fetching.Fetching(made.ledger, made.books, CHAIN_ID, made.me, never, lambda: [], made.clock)
        lease = await made.lease(1_000)
        await made.hand_in(made.peer(1), made.leaf(lease, 1, 10))
        await made.windows.settle()
        assert await alone.step() == 0
        assert asked == []
        assert await alone.others.last_numbers() == {}
