"""Releases of other meta nodes: every one makes their leaves from its own ledger's log, the same byte for byte, and believes nobody who made them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from chain.crypto import address as bech32
from modules.settlement.leaves import Leaf, leaf_bytes, release_identity, sort_key
from sds_node.meta.books.checking import NotThatWindow, rows_of, wanted_of
from sds_node.meta.books.judging import Judge
from sds_node.meta.books.others import BadWindow, Others, OtherState
from sds_node.meta.rules import tables
from tests.sds_node.books.pair import Meta, Several, data_of, several
from tests.sds_node.books.test_releases_pay_kept_shares import HASH, put, releases, result
from tests.sds_node.books.world import CHAIN_ID, DAY_S, message, observed_node, owner

pytestmark = pytest.mark.asyncio


async def other(meta: Meta, of: Meta, number: int = 1) -> Any:
    return await meta.books.do(lambda database: Others(meta.books).window_in(database, of.me, number))


async def leaves_here(meta: Meta, of: Meta, number: int = 1) -> list[bytes]:
    """The leaves of a meta node's window as another one's books have them, in order."""
    window = number if meta is of else (await other(meta, of, number)).id
    rows = await meta.books.leaves_of_window(window)
    return [row.leaf for row in sorted(rows, key=lambda row: (row.beneficiary, row.fund, row.traffic_class, row.id))]


async def nobody_fetches(made: Several, maker: Meta) -> None:
    """The maker of releases gives nobody anything from here on."""
    for one in made.metas:
        one.silent.add(maker.me)


async def move(made: Several, by: Meta, segment: int, index: int, from_node: int, to_node: int) -> None:
    """A share goes to another node, with its acknowledgement where that is needed."""
    share = message("MovedShare", segment=segment, index=index, from_node=from_node, to_node=to_node, serial=by.serial())
    await by.proposer.propose("move", message("Move", shares=[share]))


async def test_all_have_the_same_leaves_of_releases_whose_maker_gives_them_to_nobody(tmp_path: Path) -> None:
    async with several(tmp_path, 4) as made:
        first, maker, *_ = made.metas
        await nobody_fetches(made, maker)
        await put(first, 1, 5_000_000, [1, 2, 3])
        await put(maker, 2, 700, [3, 1, 2])
        made.clock.now_s += 2 * DAY_S
        await releases(maker).release([result(1), result(2, has_failed=True)], HASH, 2, HASH)
        await made.observe(observed_node(1, beneficiary=owner(60)))
        made.clock.now_s += DAY_S
        await releases(maker).release([result(1), result(3)], HASH, 2, HASH)
        for one in made.metas:
            if one is not maker:
                assert await one.fetching.step() == one.fetching.made == 2
                for number in (1, 2):
                    found = await leaves_here(one, maker, number)
                    assert found == await leaves_here(maker, maker, number) != []
        assert {Leaf.FromString(leaf).beneficiary for leaf in await leaves_here(first, maker, 1)} == {text(owner(1))}
        assert {Leaf.FromString(leaf).beneficiary for leaf in await leaves_here(first, maker, 2)} == {text(owner(60)), text(owner(3))}
        await made.close()
        epochs = [await data_of(one, 1) for one in made.metas]
        assert all(one == epochs[0] for one in epochs)


def text(address: bytes) -> str:
    return bech32.encode(address)


async def test_what_happened_after_a_release_changes_none_of_its_leaves(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as made:
        first, maker, third = made.metas
        await nobody_fetches(made, maker)
        await made.observe(observed_node(4), observed_node(5))
        await put(first, 1, 1_000_000, [1, 2, 3])
        await move(made, first, 1, 0, 1, 4)
        made.clock.now_s += 2 * DAY_S
        await made.observe(observed_node(4, beneficiary=owner(69)), observed_node(4, beneficiary=owner(70)))
        await releases(maker).release([result(2), result(4)], HASH, 2, HASH)
        await first.fetching.step()
        # The other one comes later: shares went on, and so did whom a node pays.
        await move(made, first, 1, 0, 4, 5)
        await move(made, first, 1, 0, 5, 1)
        await made.observe(observed_node(4, beneficiary=owner(71)), observed_node(2, beneficiary=owner(72)))
        await made.observe(observed_node(4, beneficiary=owner(73)))
        await third.fetching.step()
        wanted = await leaves_here(maker, maker)
        assert {Leaf.FromString(leaf).beneficiary for leaf in wanted} == {text(owner(70)), text(owner(2))}
        assert await leaves_here(third, maker) == await leaves_here(first, maker) == wanted


async def ended_at_once(made: Several, maker: Meta, segment: int) -> None:
    """A release of an object whose seven days in the trash end now, and what removes its rows, before anybody looks at the release."""
    number = (await made.first.row(tables.META, maker.me)).windows + 1
    results = [result(node, first_segment=segment, last_segment=segment) for node in (1, 2)]
    body = message("Release", number=number, answers_root=HASH, answers_count=1, batch_hash=HASH, results=results)
    await maker.proposer.propose("release", body)
    for _ in range(3):
        await maker.proposer.propose("tick", message("Tick"))
    assert await made.first.row(tables.SEGMENT, segment) is None


async def in_the_trash(made: Several, maker: Meta, *counters: int) -> None:
    for counter in counters:
        await put(maker, counter, 5_000, [1, 2, 3])
        await made.first.order(1, delete=message("DeleteFiles", lookup_ids=[sha256(b"lookup%d" % counter).digest()]))


async def test_a_release_whose_objects_rows_are_gone_is_had_of_nobody_and_stops_no_epoch(tmp_path: Path) -> None:
    async with several(tmp_path, 4) as made:
        first, maker, *others = made.metas
        await in_the_trash(made, maker, 1)
        await made.earn(first, (3, 1_000))
        await nobody_fetches(made, maker)
        made.clock.now_s += 7 * DAY_S
        await ended_at_once(made, maker, 1)
        for one in (first, *others):
            assert await one.fetching.step() >= 1
            assert (await other(one, maker)).state == OtherState.HERE
            rows = [Leaf.FromString(leaf) for leaf in await leaves_here(one, maker)]
            assert {(leaf.beneficiary, leaf.release.segment, leaf.release.index) for leaf in rows} == {(text(owner(1)), 1, 0), (text(owner(2)), 1, 1)}
            assert {leaf.release.day for leaf in rows} == set(range(1, 8))
        await made.close()
        epochs = [await data_of(one, 1) for one in (first, *others)]
        assert epochs[0] == epochs[1] == epochs[2]


async def test_what_a_maker_gives_as_leaves_of_its_release_is_not_even_asked_for(tmp_path: Path) -> None:
    async with several(tmp_path, 4) as made:
        first, maker, *others = made.metas
        await put(first, 1, 5_000_000, [1, 2, 3])
        await in_the_trash(made, maker, 2)
        made.clock.now_s += 7 * DAY_S
        await ended_at_once(made, maker, 2)
        noz = (await first.row(tables.WINDOW, maker.me, 1)).noz
        for one in (first, *others):
            # Days of a share of somebody else that were not paid yet: its own release would be bad, and so would be what an epoch has.
            lies(one, maker, [leaf_of(1, 1, day, owner(3), noz // 7 + (noz % 7 if day == 7 else 0)) for day in range(1, 8)])
            await one.fetching.step()
        assert (await releases(first).release([result(1), result(2)], HASH, 1, HASH)).noz > 0
        for one in others:
            await one.fetching.step()
            assert [(await other(one, first)).state, (await other(one, maker)).state] == [OtherState.HERE, OtherState.HERE]
            assert {Leaf.FromString(leaf).release.segment for leaf in await leaves_here(one, maker)} == {2}
        await made.close()
        epochs = [await data_of(one, 1) for one in (first, *others)]
        assert epochs[0] == epochs[1] == epochs[2]


def leaf_of(segment: int, index: int, day: int, beneficiary: bytes, noz: int) -> Any:
    leaf = Leaf(beneficiary=text(beneficiary), fund=1, traffic_class=tables.STORAGE, noz=noz)
    leaf.release.share_root, leaf.release.day, leaf.release.segment, leaf.release.index = b"z" * 32, day, segment, index
    return leaf


def in_order(leaf: Any) -> tuple[bytes, int, int, bytes]:
    key = sort_key(leaf)
    assert key is not None
    return key


def lies(meta: Meta, liar: Meta, leaves: list[Any]) -> None:
    """Whoever asks the liar for its windows gets these leaves."""
    fetch = meta.fetching._fetch

    async def given() -> AsyncIterator[bytes]:
        for leaf in sorted(leaves, key=in_order):
            yield leaf_bytes(leaf)

    meta.fetching._fetch = lambda source, of, number: given() if source == liar.me else fetch(source, of, number)


async def test_where_the_log_is_gone_as_many_others_as_sign_a_lease_have_to_give_the_same_leaves(tmp_path: Path) -> None:
    async with several(tmp_path, 4) as made:
        first, maker, third, fourth = made.metas
        await put(first, 1, 1_000_000, [1, 2, 3])
        made.clock.now_s += 2 * DAY_S
        done = await releases(maker).release([result(1)], HASH, 2, HASH)
        for one in (third, fourth):
            assert await one.fetching.step() == one.fetching.made == 1
        await made.observe(observed_node(1, beneficiary=owner(60)))
        first.replica.ledger.prune(first.ledger.head.sequence)
        lies(first, maker, [leaf_of(1, 0, 1, owner(3), done.noz)])
        first.silent.update((third.me, fourth.me))
        assert await first.fetching.step() == 0
        assert (await other(first, maker)).state == OtherState.MISSING
        first.silent.discard(third.me)  # one says this, one says that
        made.clock.now_s += 600
        assert await first.fetching.step() == 0
        first.silent.discard(fourth.me)
        made.clock.now_s += 600
        assert await first.fetching.step() == 1
        assert (first.fetching.made, first.fetching.fetched) == (0, 1)
        assert await leaves_here(first, maker) == await leaves_here(maker, maker) == await leaves_here(third, maker)


async def test_leaves_of_a_release_that_others_give_are_good_by_themselves_and_pay_no_day_twice(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, maker = made.metas
        await put(first, 1, 5_000_000, [1, 2, 3])
        made.clock.now_s += 2 * DAY_S
        done = await releases(maker).release([result(1), result(2)], HASH, 2, HASH)
        wanted = await first.ledger.query(lambda view: wanted_of(view, maker.me, 1))
        assert [(one.node, one.beneficiary, one.last_day) for one in wanted.settled] == [(1, owner(1), 2), (2, owner(2), 2)]
        raws = await leaves_here(maker, maker)
        assert len(rows_of(raws, wanted, Judge(), CHAIN_ID)) == 4
        twice = sorted([leaf_of(1, 0, 1, owner(1), done.noz - 1), leaf_of(1, 0, 1, owner(2), 1)], key=in_order)
        with pytest.raises(BadWindow, match="twice"):
            rows_of([leaf_bytes(leaf) for leaf in twice], wanted, Judge(), CHAIN_ID)
        with pytest.raises(BadWindow, match="the day is not"):
            rows_of([leaf_bytes(leaf_of(1, 0, 0, owner(1), done.noz))], wanted, Judge(), CHAIN_ID)
        with pytest.raises(BadWindow, match="in order"):
            rows_of(raws[::-1], wanted, Judge(), CHAIN_ID)
        with pytest.raises(NotThatWindow, match="the ledger moved"):
            rows_of(raws[1:], wanted, Judge(), CHAIN_ID)


async def test_two_objects_whose_shares_are_stored_under_one_serial_are_paid_both(tmp_path: Path) -> None:
    async with several(tmp_path) as made:
        first, maker = made.metas
        await nobody_fetches(made, maker)
        serial = maker.serial()
        for counter in (1, 2):
            maker.serial = lambda boot=None: serial  # type: ignore[method-assign]  # a meta node that gives its serials twice
            await put(maker, counter, 1_000_000, [1, 2, 3])
        made.clock.now_s += DAY_S
        await releases(first).release([result(1), result(2)], HASH, 2, HASH)
        await maker.fetching.step()
        rows = [Leaf.FromString(leaf) for leaf in await leaves_here(first, first)]
        ids = {release_identity(leaf.release.segment, leaf.release.index, leaf.release.day) for leaf in rows}
        assert ids == {release_identity(segment, index, 1) for segment in (1, 2) for index in (0, 1)}
        assert await leaves_here(maker, first) == await leaves_here(first, first)
        assert (await other(maker, first)).state == OtherState.HERE
        assert {bytes(leaf.release.share_root) for leaf in rows} == {(await first.row(tables.SEGMENT, number)).root for number in (1, 2)}
