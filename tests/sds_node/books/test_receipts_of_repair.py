"""A receipt of repair is paid once, however late it comes again: no lease of the ledger says that it was settled."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from sds_node.documents import StoreAck, signed
from sds_node.merkle import segment_path, segment_root
from sds_node.meta.books.epochs import KEPT_MS, EpochBooks
from sds_node.meta.books.receipts import HELD, REFUSED, SETTLED
from sds_node.meta.lateness import REPAIR_LATEST_S, REPAIR_RECEIPTS_S, is_late_repair
from sds_node.meta.rules import tables
from sds_node.p2p import address_of, format_address
from tests.sds_node.books.test_epochs_add_up import close, report
from tests.sds_node.books.world import CHAIN_ID, DAY_S, message, new_object, node_key, public, world

pytestmark = pytest.mark.asyncio
REPAIR = 3
LONGEST_LIMIT_S = 3_600


async def test_a_receipt_of_repair_is_refused_for_good_before_its_leaf_is_forgotten(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        books = EpochBooks(made.ledger, made.books, made.windows, made.clock)
        lease = await made.lease(10**6)
        await made.proposer.propose("commit", message("Commit", lease_id=lease.id, unused_noz=10**6))
        fund = (await made.row(tables.STATE, 1)).repair_paid_noz
        leaf = made.leaf(lease, 1, 1_000, action=REPAIR)
        peer = made.peer(1)
        assert [one.state for one in await made.hand_in(peer, leaf)] == [HELD]
        assert await made.windows.settle() == 1
        for number in range(1, 8):
            made.clock.now_s += 601
            await books.epoch(number, *await close(made, number))
            await report(made, number)
            await books.reported(number)
        (known,) = await made.hand_in(peer, leaf)
        assert known.state == SETTLED, known
        made.clock.now_s += 8 * DAY_S
        while await books.forget():
            pass
        (again,) = await made.hand_in(peer, leaf)
        assert (again.state, "may come for" in again.reason) == (REFUSED, True)
        assert await made.windows.settle() == 0
        assert (await made.row(tables.STATE, 1)).repair_paid_noz == fund - 1_000


async def test_a_receipt_that_comes_hours_later_is_paid_and_one_after_its_time_is_not(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(10**6)
        leaves = [made.leaf(lease, 1, 1_000, action=REPAIR) for _ in range(2)]
        made.clock.now_s += REPAIR_RECEIPTS_S
        assert [one.state for one in await made.hand_in(made.peer(1), leaves[0])] == [HELD]
        made.clock.now_s += LONGEST_LIMIT_S
        assert [one.state for one in await made.hand_in(made.peer(1), leaves[1])] == [REFUSED]


async def test_with_several_meta_nodes_a_receipt_waits_until_a_move_allows_what_it_costs(tmp_path: Path) -> None:
    roots = [sha256(b"share%d" % at).digest() for at in range(3)]
    async with world(tmp_path, metas=4, nodes=4) as made:
        lease = await made.lease(10**9)
        stored = new_object(1, 1_000, [1, 2, 3], 1, [made.serial()])
        stored.segments[0].root = segment_root(roots)
        await made.proposer.propose("commit", message("Commit", lease_id=lease.id, objects=[stored], unused_noz=10**8))
        leaf = made.leaf(lease, 1, 1_000, action=REPAIR)
        assert await made.states(made.peer(1), leaf) == [HELD]
        assert await made.windows.settle() == 0
        serial = made.serial()
        said = StoreAck(
            chain_id=CHAIN_ID, node=format_address(address_of(public(node_key(4)))), serial=serial, share_root=roots[0], size_bytes=1_000, stored_s=5
        )  # fmt: skip
        ack = signed(said, node_key(4))
        shown = {"share_root": roots[0], "segment_path": segment_path(roots, 0), "ack_body": ack.body, "ack_signature": ack.signature}
        moved = message("MovedShare", segment=1, index=0, from_node=1, to_node=4, serial=serial, **shown)
        await made.proposer.propose("move", message("Move", shares=[moved]))
        assert await made.windows.settle() == 1
        assert await made.states(made.peer(1), leaf) == [SETTLED]


async def test_no_absence_makes_it_later_than_a_paid_leaf_is_known() -> None:
    now_s = 1_800_000_000
    due_ms = (now_s + REPAIR_RECEIPTS_S) * 1_000
    assert not is_late_repair(now_s, due_ms - 1)
    assert is_late_repair(now_s, due_ms)
    # Away when it was due: as much time after that, but never beyond the least time that its leaf is kept.
    away = (now_s * 1_000, (now_s + DAY_S) * 1_000)
    assert not is_late_repair(now_s, (now_s + DAY_S + REPAIR_RECEIPTS_S) * 1_000 - 1, away)
    assert is_late_repair(now_s, (now_s + DAY_S + REPAIR_RECEIPTS_S) * 1_000, away)
    away = (now_s * 1_000, (now_s + 30 * DAY_S) * 1_000)
    assert is_late_repair(now_s, (now_s + REPAIR_LATEST_S) * 1_000, away)
    assert (REPAIR_LATEST_S + LONGEST_LIMIT_S) * 1_000 < KEPT_MS
