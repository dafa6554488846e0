"""Receipts that come too late take nothing from nodes whose receipts come in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sds_node.meta.books.judging import Facts, Judge, read
from sds_node.meta.lateness import FREE_S, RECEIPTS_S, is_late
from sds_node.meta.rules.tables import LEASE, META, NODE, STATE
from sds_node.meta.users.known import Settings
from sds_node.meta.users.leases import LeaseBook
from sds_node.resource.receipts import leaf_of
from tests.sds_node.books.world import CHAIN_ID, World, world

pytestmark = pytest.mark.asyncio
HELD, REFUSED = 1, 3


async def test_a_receipt_that_comes_after_its_limits_noz_may_be_promised_anew_is_refused_for_good(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=3) as made:
        lease = await made.lease(1_000_000)
        book = LeaseBook(made.clock, Settings().free_s)
        held = book.add(await made.row(LEASE, lease.id), await made.row(STATE, 1))
        own = made.limit(lease, 1, 499_999)
        book.issue(held, bytes(own.serial), 499_999, own.expires_s, is_read=False)
        made.clock.now_s = own.expires_s + FREE_S
        book.expire(held)
        honest = [made.limit(lease, node, 250_000) for node in (2, 3)]
        for one in honest:
            book.check(held, [250_000], is_read=False)
            book.issue(held, bytes(one.serial), 250_000, one.expires_s, is_read=False)
        answer = (await made.hand_in(made.peer(1), leaf_of(made.evidence(lease, own))))[0]
        assert answer.state == REFUSED
        assert f"may come for {RECEIPTS_S} s" in answer.reason
        for node, one in zip((2, 3), honest, strict=True):
            assert await made.states(made.peer(node), leaf_of(made.evidence(lease, one))) == [HELD]
        assert await made.windows.settle() == 2


async def test_a_receipt_may_come_until_two_minutes_after_its_limit(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=3) as made:
        lease = await made.lease(1_000_000)
        first, second = (made.limit(lease, 1, 1_000) for _ in range(2))
        made.clock.now_s = first.expires_s + RECEIPTS_S - 0.001
        assert await made.states(made.peer(1), leaf_of(made.evidence(lease, first))) == [HELD]
        made.clock.now_s = first.expires_s + RECEIPTS_S
        assert await made.states(made.peer(1), leaf_of(made.evidence(lease, first))) == [HELD]  # known already
        assert await made.states(made.peer(1), leaf_of(made.evidence(lease, second))) != [HELD]


@pytest.mark.parametrize(("stopped", "is_taken"), [(-1, True), (RECEIPTS_S - 1, True), (RECEIPTS_S, False), (RECEIPTS_S + 200, False)])
async def test_while_the_meta_node_is_away_no_receipt_gets_late(tmp_path: Path, stopped: int, is_taken: bool) -> None:
    async with world(tmp_path, nodes=3) as made:
        lease = await made.lease(1_000_000)
        limit = made.limit(lease, 1, 1_000)
        leaf = leaf_of(made.evidence(lease, limit))
        start_s = limit.expires_s + 1_000
        away_ms = (limit.expires_s + stopped) * 1_000, start_s * 1_000
        verdict = Judge().judge(read(leaf), await facts(made, lease.id, start_s + RECEIPTS_S - 1, away_ms))
        assert (verdict.row is not None) == is_taken
        assert Judge().judge(read(leaf), await facts(made, lease.id, start_s + RECEIPTS_S, away_ms)).row is None


async def facts(made: World, lease_id: bytes, now_s: int, away_ms: tuple[int, int]) -> Facts:
    def look(view: Any) -> Facts:
        metas = {one.address: one for one in view.scan(META, limit=10)}
        return Facts(
            CHAIN_ID, made.me, made.books.boot, now_s * 1_000, view.get(NODE, (1,)), {lease_id: view.get(LEASE, (lease_id,))}, metas, away_ms
        )

    found: Facts = await made.ledger.query(look)
    return found


@pytest.mark.parametrize(("free_s", "is_good"), [(RECEIPTS_S, False), (RECEIPTS_S + 1, True), (599, True), (600, False)])
async def test_noz_are_kept_longer_than_receipts_may_come_and_shorter_than_the_ledger_waits(free_s: int, is_good: bool) -> None:
    assert not is_late(100, (100 + RECEIPTS_S) * 1_000 - 1)
    if is_good:
        assert Settings(free_s=free_s).free_s == free_s
        return
    with pytest.raises(ValueError, match="600 s"):
        Settings(free_s=free_s)
