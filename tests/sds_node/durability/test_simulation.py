"""The simulated network agrees with the formula where the formula's model holds, loses nothing out of its books, and depends on its seed alone."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import durability as bench
from bench.durability_world import Simulation, World
from sds_node.durability import loss_in_window, repair_traffic, yearly_loss
from sds_node.schemes import FIVE_OF_TEN, TEN_OF_THIRTY, THREE_REPLICAS, TWO_OF_FIVE, Scheme

PLAIN = World(THREE_REPLICAS, 4.0, segments=1_500, years=4.0, nodes=60, detection_h=0, rebuild_h=48)
"""The formulas' world, with churn so fast that losses are seen."""


def everything(scheme: Scheme, nodes: int = 60, networks: int = 1) -> World:
    """All that can happen, often."""
    return replace(
        bench.stated(scheme, times=8),
        segments=300,
        years=2.0,
        nodes=nodes,
        networks=networks,
        shared_places=networks == 1,
        outages_per_year=6.0,
        damages_per_year=4.0,
        prefix_failures_per_year=0.2,
        owner_failures_per_year=0.2,
        region_failures_per_year=0.3,
    )


@pytest.mark.parametrize(("scheme", "rate"), [(THREE_REPLICAS, 6.0), (TWO_OF_FIVE, 6.0), (FIVE_OF_TEN, 12.0), (TEN_OF_THIRTY, 28.0)])
def test_losses_repairs_and_traffic_are_the_formulas(scheme: Scheme, rate: float) -> None:
    tally = Simulation(replace(PLAIN, scheme=scheme, rate_per_year=rate, years=12 / rate), seed=1).run()
    seen = bench.seen_rate(tally)
    found, formula = bench.interval(tally.lost, tally.lost_squared, tally.segment_years), yearly_loss(scheme, seen, 48)
    assert tally.lost >= 10
    assert found.low is not None
    assert found.low < formula < found.high
    windows = tally.repairs + tally.lost
    assert sum(tally.chance) == pytest.approx(windows * loss_in_window(scheme, scheme.repair_below - 1, rate, 48), rel=0.06)
    traffic = repair_traffic(scheme, seen, 48)
    assert tally.repairs / tally.segment_years == pytest.approx(traffic.repairs, rel=0.06)
    assert tally.shares_read == tally.repairs * scheme.k
    assert (tally.shares_read + tally.shares_written) / tally.segment_years / scheme.k == pytest.approx(traffic.times_the_segment, rel=0.06)
    assert tally.repair_wait_h / tally.repairs == pytest.approx(48)
    assert tally.delayed == tally.unavailable == 0


@pytest.mark.parametrize(
    ("scheme", "nodes", "networks"),
    [(TEN_OF_THIRTY, 80, 1), (FIVE_OF_TEN, 24, 2), (TWO_OF_FIVE, 12, 2), (THREE_REPLICAS, 60, 1), (THREE_REPLICAS, 9, 3)],
)
def test_with_everything_at_once_the_books_are_right(scheme: Scheme, nodes: int, networks: int) -> None:
    run = Simulation(everything(scheme, nodes, networks), seed=2)
    tally = run.run()  # checks the books in each part of the time
    assert min(tally.node_deaths, tally.shares_died, tally.shares_damaged, tally.repairs) > 0
    assert tally.delayed > 0 or nodes // networks > scheme.n + 2
    assert run.ledger.superseded > 0
    assert run.ledger.made == int(run.good.sum()) + run.ledger.spoiled + run.ledger.superseded + run.ledger.dropped
    assert tally.seen == 100 * 300
    held = run.holder[run.good].reshape(-1) // run.per_network
    assert (held == np.repeat(run.network, run.good.reshape(-1, scheme.n).sum(axis=1))).all()


def test_books_that_are_wrong_are_noticed() -> None:
    run = Simulation(everything(FIVE_OF_TEN), seed=3)
    run.run()
    for spoil, said in (
        (lambda: run.good.__setitem__(int(np.flatnonzero(run.good)[0]), False), "counted wrongly"),
        (lambda: run.good_count.__isub__(1), "counted wrongly"),
        (lambda: run.believed_count.__isub__(1), "counted wrongly"),
        (lambda: setattr(run.ledger, "made", run.ledger.made + 1), "appeared or vanished"),
        (lambda: setattr(run.ledger, "done", run.ledger.done + 1), "twice or never"),
        (lambda: run.owner.fill(0), "share an owner"),
    ):
        kept = run.good.copy(), run.good_count.copy(), run.believed_count.copy(), replace(run.ledger), run.owner.copy()
        spoil()
        with pytest.raises(AssertionError, match=said):
            run.check()
        run.good, run.good_count, run.believed_count, run.ledger, run.owner = kept
        run.check()


def test_a_run_depends_on_its_seed_alone() -> None:
    first, again, other = (Simulation(everything(TWO_OF_FIVE), seed).run() for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_a_region_at_once_loses_what_the_samples_expect() -> None:
    world = replace(PLAIN, rate_per_year=0.5, segments=2_000, years=60.0, nodes=40, region_failures_per_year=0.5)
    tally = Simulation(world, seed=7).run()
    found = bench.interval(tally.lost, tally.lost_squared, tally.segment_years)
    regional, error = bench.block_mean(tally.regional, tally.segment_years)
    assert tally.incidents > 50
    assert found.low is not None
    assert found.low < regional < found.high
    assert error < regional
    assert regional > 3 * yearly_loss(THREE_REPLICAS, bench.seen_rate(tally), 48)


def test_nodes_live_as_long_as_the_churn_says_with_and_without_infants() -> None:
    for infants in (0.0, 0.4):
        world = replace(PLAIN, segments=10, rate_per_year=1.0, years=30.0, nodes=100, infants=infants)
        tally = Simulation(world, seed=8).run()
        assert tally.node_deaths / tally.node_years == pytest.approx(1.0, abs=4 / math.sqrt(tally.node_deaths) * (1 + infants))


def test_slow_repairs_wait_for_each_other() -> None:
    fast, slow = (Simulation(replace(PLAIN, years=2.0, detection_h=24, rebuild_h=6, repair_bytes_per_s=rate), seed=9).run() for rate in (1e7, 2e5))
    assert 6 <= fast.repair_wait_h / fast.repairs < 12
    assert slow.repair_wait_h / slow.repairs > 2 * fast.repair_wait_h / fast.repairs
    assert slow.lost > fast.lost


def test_damage_that_nobody_sees_is_worse_than_a_death_that_is_noticed() -> None:
    world = replace(PLAIN, rate_per_year=1.0, damages_per_year=8.0, years=6.0)
    seldom, often = (Simulation(replace(world, scrub_days=days), seed=10).run() for days in (365.0, 0.5))
    assert sum(seldom.chance) > sum(often.chance)
    assert seldom.lost > often.lost


def test_intervals_are_wilsons_and_count_what_is_lost_together_once() -> None:
    ten = bench.interval(10, 10, 100.0)
    assert (ten.rate, ten.low, ten.high) == (pytest.approx(0.1), pytest.approx(0.0552, abs=1e-4), pytest.approx(0.1744, abs=1e-4))
    together = bench.interval(1000, 100_000, 100_000.0)  # ten incidents of a hundred
    assert together.rate == pytest.approx(0.01)
    assert (together.low, together.high) == (pytest.approx(0.00544, abs=1e-4), pytest.approx(0.0183, abs=1e-4))
    none = bench.interval(0, 0, 1_000_000.0)
    assert none.low is None
    assert none.high == pytest.approx(3.0e-6, rel=0.01)
    assert bench.block_mean([1.0, 3.0], 8.0) == (0.5, pytest.approx(0.5))


def test_impossible_worlds_are_refused() -> None:
    with pytest.raises(ValueError, match="100 nodes cannot be parted into 3 equal networks"):
        Simulation(replace(PLAIN, nodes=100, networks=3), seed=1)


def test_the_pages_formula_table_is_what_the_formulas_give() -> None:
    found = {one.group(2): one.group(0) for one in bench.MARKED.finditer(bench.PAGE.read_text())}
    assert set(found) == {"formula", *bench.RUNS}
    assert "\n".join(bench.formula_table()) in found["formula"]
    for name in bench.RUNS:
        assert re.search(r"\ncommit [0-9a-f]{12}(?: with changes)?, seed \d+, \d+ s of CPU\n", found[name])


def test_a_table_says_what_was_seen_and_what_none_means() -> None:
    calm = replace(PLAIN, rate_per_year=0.1, segments=100, years=1.0)
    busy = replace(PLAIN, rate_per_year=60.0, segments=100, years=1.0)
    lines = bench.table("stated", [calm, busy], [Simulation(world, 11).run() for world in (calm, busy)])
    assert len(lines) == 3
    assert "none seen, so below 3.0e-2" in lines[1]
    assert " to " in lines[2]
    assert all(line.startswith(("scheme", "3 replicas")) for line in lines)


def test_tables_go_between_their_marks_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    mark = "<!-- bench/durability.py: {} -->\n```text\nold\n```\n<!-- end -->\n"
    page.write_text("before\n" + mark.format("check") + "between\n" + mark.format("stated"))
    bench.write({"check": ["a", "b"]}, page)
    assert page.read_text() == "before\n" + mark.format("check").replace("old", "a\nb") + "between\n" + mark.format("stated")
    with pytest.raises(SystemExit, match=r"page\.md has no marks for other"):
        bench.write({"other": ["a"]}, page)
