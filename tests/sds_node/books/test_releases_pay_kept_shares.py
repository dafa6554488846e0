"""Releases: the days of kept shares become leaves whose sums are what the ledger moved."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from modules.settlement.leaves import Leaf, fault, release_identity
from modules.settlement.trees import plain_root
from sds_node.meta.books.books import BooksError, open_books
from sds_node.meta.books.epochs import EpochBooks
from sds_node.meta.books.releases import NodeResult, Releases
from sds_node.meta.books.windows import Windows
from sds_node.meta.ledger.errors import Unavailable
from sds_node.meta.operations import LedgerRefused
from sds_node.meta.rules import tables
from sds_node.schemes import SEGMENT_BYTES
from tests.sds_node.books.test_epochs_add_up import close
from tests.sds_node.books.world import CHAIN_ID, DAY_S, World, message, new_object, observed_node, owner, world

pytestmark = pytest.mark.asyncio
ALL = (1 << 48) - 1
HASH = sha256(b"batch").digest()


def share_roots(segment: int, count: int) -> list[bytes]:
    return [sha256(b"root %d %d" % (segment, at)).digest() for at in range(count)]


async def roots_of(segments: Sequence[tables.Segment]) -> dict[int, list[bytes]]:
    return {one.number: share_roots(one.number, len(one.nodes) // 4) for one in segments}


def releases(made: World, roots: Any = roots_of) -> Releases:
    return Releases(made.ledger, made.proposer, made.books, made.windows, made.me, roots)


async def put(made: World, counter: int, size_bytes: int, nodes: list[int], k: int = 1) -> None:
    lease = await made.lease(10**9)
    count = -(-size_bytes // SEGMENT_BYTES)
    serials = []
    for _ in range(count):
        serials.append(made.serial())
        for _ in range(len(nodes) - 1):
            made.serial()
    await made.proposer.propose("commit", message("Commit", lease_id=lease.id, objects=[new_object(counter, size_bytes, nodes, k, serials)]))


def result(node: int, **changes: Any) -> Any:
    return NodeResult(**{"node": node, "last_segment": ALL} | changes)


async def test_days_of_many_objects_become_leaves_that_add_up(tmp_path: Path) -> None:
    chosen = random.Random(1)
    async with world(tmp_path, nodes=6, noz=10**13) as made:
        books, maker = EpochBooks(made.ledger, made.books, made.windows), releases(made)
        number, paid = 0, 0
        for counter in range(12):
            nodes = chosen.sample(range(1, 7), 5 if counter % 2 else 3)
            await put(made, counter, chosen.choice((1, 700, 5_000, 1_000_003, SEGMENT_BYTES + 77)), nodes, 2 if counter % 2 else 1)
            made.clock.now_s += chosen.randrange(3 * DAY_S)
            if counter % 3 == 2:
                number += 1
                failed = await made.ledger.query(lambda view: view.scan(tables.HELD, (2,), limit=1))
                results = [result(1), result(2, failed_segments=[failed[0].first] if failed else []), result(3), result(4, has_failed=True)]
                done = await maker.release(results, HASH, 4, HASH)
                assert done.noz == (await made.row(tables.WINDOW, made.me, number)).noz  # what the rule moved
                paid += done.noz
        closed_ms, lines = await close(made)
        assert sum(line.noz for line in lines) == paid > 0
        data = await books.epoch(1, closed_ms, lines)
        assert data.audits_root == plain_root([HASH] * number)
        leaves = [Leaf.FromString(row.leaf) for row in await made.books.do(lambda db: made.books.leaves_where(db, "epoch = 1", ()))]
        assert len(leaves) == data.receipts_count > 50
        assert all(fault(leaf, CHAIN_ID, lambda _: None) is None for leaf in leaves)
        assert len({(leaf.release.segment, leaf.release.index, leaf.release.day) for leaf in leaves}) == len(leaves)


async def test_a_moved_share_is_paid_to_its_new_node(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=4) as made:
        await put(made, 1, 1_000_000, [1, 2, 3])
        moved = message("MovedShare", segment=1, index=1, from_node=2, to_node=4, serial=made.serial())
        await made.proposer.propose("move", message("Move", shares=[moved]))
        made.clock.now_s += DAY_S
        done = await releases(made).release([result(4)], HASH, 1, HASH)
        assert [(one.segment, one.index, one.first_day, one.last_day, one.has_passed) for one in done.settled] == [(1, 1, 1, 1, True)]
        row = (await made.books.leaves_of_window(done.number))[0]
        assert (row.id, row.beneficiary) == (release_identity(1, 1, 1), owner(4))
        assert Leaf.FromString(row.leaf).release.share_root == (await made.row(tables.SEGMENT, 1)).root  # the share's is under it


async def test_segments_whose_share_roots_are_not_known_are_told_and_their_leaves_need_none(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await put(made, 1, 1_000, [1, 2, 3])
        await put(made, 2, 1_000, [1, 2, 3])
        made.clock.now_s += DAY_S

        async def some(segments: Sequence[tables.Segment]) -> dict[int, list[bytes]]:
            return {number: roots for number, roots in (await roots_of(segments)).items() if number != 2}

        maker = releases(made, some)
        assert await maker.missing(1, 0, ALL, 100) == [2]
        done = await maker.release([result(1)], HASH, 1, HASH)
        assert done.noz == sum(leaf.noz for leaf in await made.books.leaves_of_window(1)) > 0


async def test_a_refused_release_leaves_its_number_free(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        maker = releases(made)
        with pytest.raises(LedgerRefused):
            await maker.release([result(9)], HASH, 1, HASH)
        await put(made, 1, 1_000_000, [1, 2, 3])
        made.clock.now_s += DAY_S
        assert (await maker.release([result(1)], HASH, 1, HASH)).number == 1


class Lost:
    """A proposer whose answers are lost, before or after the ledger has the operation."""

    def __init__(self, made: World, *, is_applied: bool) -> None:
        self.made, self.is_applied = made, is_applied

    async def propose(self, kind: str, body: Any) -> Any:
        if self.is_applied:
            await self.made.proposer.propose(kind, body)
        raise Unavailable("the ledger has stopped: whether this operation was done is known when it is open again")


@pytest.mark.parametrize("is_applied", [True, False])
async def test_a_release_whose_answer_was_lost_is_finished_after_a_restart(tmp_path: Path, is_applied: bool) -> None:
    async with world(tmp_path) as made:
        await put(made, 1, 1_000_000, [1, 2, 3])
        made.clock.now_s += 3 * DAY_S
        lost: Any = Lost(made, is_applied=is_applied)
        with pytest.raises(Unavailable):
            await Releases(made.ledger, lost, made.books, made.windows, made.me, roots_of).release([result(1)], HASH, 1, HASH)
        made.books.close()
        made.books = open_books(tmp_path / "books")
        made.windows = Windows(made.ledger, made.proposer, made.books, made.me, made.clock)
        if is_applied:
            await made.observe(observed_node(1, beneficiary=owner(60)))  # after the release: the leaves are still the old one's
        with pytest.raises(BooksError, match="nothing here finishes releases"):
            await made.windows.settle()
        releases(made)
        await made.windows.settle()
        leaves = await made.books.leaves_of_window(1)
        assert sum(leaf.noz for leaf in leaves) == (await made.row(tables.WINDOW, made.me, 1)).noz > 0
        assert {leaf.beneficiary for leaf in leaves} == {owner(1)}
        assert (await EpochBooks(made.ledger, made.books, made.windows).epoch(1, *await close(made))).receipts_count == 3
