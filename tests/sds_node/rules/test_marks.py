"""Marks of epochs, leases that another meta node settles, and ledgers that were made before either of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sds_node.meta.ledger.core import Core
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.ledger.sql import open_store
from sds_node.meta.rules import refusals
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.invariants import check, walk
from sds_node.meta.rules.leases import SETTLE_S, TAKEOVER_S
from sds_node.meta.rules.tables import EARNED, EPOCH_MARK, LEASE, META, NODE, SCHEMA_1, SCHEMA_2, SENT, TAKEN, TOLD, WALLET
from tests.sds_node.rules import support
from tests.sds_node.rules.support import CHAIN_ID, HOUR_MS, Make, World, event, message, meta, opened_with_todays, owner
from tests.sds_node.rules.test_epochs import close, report

EPOCH_MS = 600_000


def marks(world: World, number: int) -> dict[bytes, tuple[int, int]]:
    """Meta node → (after, last)."""
    return {row.meta_node: (row.after, row.last) for row in walk(world.core.tables, EPOCH_MARK, (number,))}


class Two(World):
    """Two meta nodes that take leases."""

    def ok_lease(self, sender: int) -> bytes:
        return self.lease(10, sender=sender)


def work(world: Two, sender: int = 1, times: int = 1) -> None:
    """Windows of a meta node."""
    for _ in range(times):
        lease = world.ok_lease(sender)
        world.settle_window({lease: 1}, [(owner(1), 1, 1, 1)], sender=sender)


def two(tmp_path: Path, **settings: Any) -> Two:
    return Two(tmp_path, **{"metas": 2} | settings)


def test_a_close_marks_the_last_window_of_each_meta_node(tmp_path: Path) -> None:
    world = two(tmp_path)
    work(world, 1, 3)
    world.ok("close_epoch", close())
    assert marks(world, 1) == {meta(1): (0, 3), meta(2): (0, 0)}
    world.observe(report(world))
    work(world, 1)
    work(world, 2, 2)
    world.wait(EPOCH_MS)
    world.ok("close_epoch", close(2))
    assert marks(world, 2) == {meta(1): (3, 4), meta(2): (0, 2)}
    assert marks(world, 1) == {meta(1): (0, 3), meta(2): (0, 0)}
    world.core.close()


def test_an_epoch_that_is_closed_again_has_new_marks(tmp_path: Path) -> None:
    world = two(tmp_path)
    work(world)
    world.ok("close_epoch", close())
    work(world, 2)
    world.wait(EPOCH_MS)
    world.ok("close_epoch", close())
    assert marks(world, 1) == {meta(1): (0, 1), meta(2): (0, 1)}
    world.core.close()


def test_releases_after_a_void_epoch_are_counted_from_the_last_one_that_holds(tmp_path: Path) -> None:
    world = two(tmp_path)
    for number in (1, 2, 3):
        work(world)
        world.ok("close_epoch", close(number))
        world.observe(report(world, number, maturity_epoch=number + 9))
        world.wait(EPOCH_MS)
    for number in (2, 3):
        world.observe(event(voided=message("VoidedEpoch", epoch=number)))
    work(world)
    world.ok("close_epoch", close(4))
    assert marks(world, 4)[meta(1)] == (1, 4)
    world.core.close()


def test_marks_of_an_epoch_that_was_passed_over_are_forgotten(tmp_path: Path) -> None:
    world = two(tmp_path)
    work(world)
    world.ok("close_epoch", close(1))
    world.observe(report(world, 3, lines=[]))
    assert list(walk(world.core.tables, EPOCH_MARK)) == []
    work(world)
    world.wait(EPOCH_MS)
    world.ok("close_epoch", close(4))  # the third has no marks: the time says which windows it had
    assert marks(world, 4)[meta(1)] == (2, 2)
    world.core.close()


def test_a_lease_that_ended_is_settled_by_the_first_meta_node_that_takes_from_it(make: Make) -> None:
    for first, second in ((1, 2), (2, 1)):
        world = make(metas=2)
        lease = world.lease(1_000)
        world.settle_window({lease: 1}, [(owner(1), 1, 1, 1)])  # while it runs: its own, and nothing is noted
        assert world.core.tables.get(TAKEN, (lease,)) is None
        world.wait(HOUR_MS + TAKEOVER_S * 1_000)
        world.settle_window({lease: 10}, [(owner(1), 1, 1, 10)], sender=first)
        world.refused(refusals.NOT_YOURS, "window", world.window({lease: 10}, [(owner(1), 1, 1, 10)], sender=second), second)
        world.settle_window({lease: 20}, [(owner(1), 1, 1, 20)], sender=first)
        assert [row.noz for row in walk(world.core.tables, EARNED)] == [31]


def test_a_meta_node_that_comes_back_does_not_give_back_a_lease_that_another_one_settles(make: Make) -> None:
    world = make(metas=2)
    lease, other = world.lease(1_000), world.lease(500)
    world.wait(HOUR_MS + TAKEOVER_S * 1_000)
    world.settle_window({lease: 10}, [(owner(1), 1, 1, 10)], sender=2)
    both = message("SettleLeases", lease_ids=sorted((lease, other)))
    world.ok("settle_leases", both)
    assert [row.id for row in walk(world.core.tables, LEASE)] == [lease]
    world.settle_window({lease: 10}, [(owner(1), 1, 1, 10)], sender=2)
    world.wait(SETTLE_S * 1_000)
    world.tick()
    assert (list(walk(world.core.tables, LEASE)), list(walk(world.core.tables, TAKEN))) == ([], [])
    assert [row.open_leases for row in walk(world.core.tables, WALLET)] == [0]


def test_a_ledger_of_version_one_is_opened_with_the_same_rows_and_counts_on(tmp_path: Path, monkeypatch: Any) -> None:
    before = replace(rules(CHAIN_ID), schema=SCHEMA_1, schema_version=1, migrations={})

    monkeypatch.setattr("sds_node.meta.rules.epochs._mark", lambda tables, number: None)
    monkeypatch.setattr("sds_node.meta.rules.apply._count_bytes", lambda tables, sender, size_bytes, time_ms: None)
    monkeypatch.setattr(support, "rules", lambda chain_id: before)
    world = two(tmp_path, is_checked=False, metas=1)
    lease = world.lease(100)
    for _ in range(5):
        world.settle_window({lease: 2}, [(owner(1), 1, 1, 2)])
        world.wait(1_000)
    world.ok("close_epoch", close())
    world.observe(report(world))
    world.wait(1)
    world.settle_window({lease: 2}, [(owner(1), 1, 1, 2)])
    core = opened_with_todays(world, SCHEMA_1, tmp_path, monkeypatch)
    check(core.tables)
    world.core, world.last_hash = core, core.head.app_hash
    world.wait(EPOCH_MS)
    core.begin(world.time_ms)
    world.ok("close_epoch", close(2))
    check(core.tables)
    assert marks(world, 2) == {meta(1): (5, 6)}  # the first epoch has none: what was there at its close
    core.write()
    core.commit()
    core.close()
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", rules(CHAIN_ID), CHAIN_ID) as ledger, ledger.read() as view:
        meta_row = view.get(META, (meta(1),))
        assert meta_row is not None
        assert meta_row.windows == 6


def test_a_ledger_of_version_two_is_opened_with_the_same_rows_and_bounds_from_then_on(tmp_path: Path, monkeypatch: Any) -> None:
    before = replace(rules(CHAIN_ID), schema=SCHEMA_2, schema_version=2, migrations={})
    down = message("NodeStatuses", nodes=[message("NodeSeen", node=1, score_change=-1_000)])
    monkeypatch.setattr("sds_node.meta.rules.apply._count_bytes", lambda tables, sender, size_bytes, time_ms: None)
    monkeypatch.setattr("sds_node.meta.rules.nodes.is_word_of_several", lambda view: False)
    monkeypatch.setattr(support, "rules", lambda chain_id: before)
    world = World(tmp_path, metas=4, is_checked=False)
    for _ in range(3):
        world.ok("node_statuses", down)
    core = opened_with_todays(world, SCHEMA_2, tmp_path, monkeypatch)
    world.core, world.last_hash = core, core.head.app_hash
    core.begin(world.time_ms)
    for _ in range(2):
        world.ok("node_statuses", down)
        row = core.tables.get(NODE, (1,))
        assert row is not None
        assert row.score == 1_000
    assert [row.lost for row in walk(core.tables, TOLD)] == [1_000]
    assert [row.meta_node for row in walk(core.tables, SENT)] == [meta(1)]
    core.write()
    core.commit()
    core.close()
    Core.open(open_store(f"sqlite:///{tmp_path}/ledger.db"), rules(CHAIN_ID), CHAIN_ID).close()
