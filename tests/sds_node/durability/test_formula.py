"""The formulas of durability give the reference's tables, exact fractions, and what an independent chain of hours gives; the status of a file says them."""

from __future__ import annotations

import ast
import math
from fractions import Fraction
from pathlib import Path

import pytest

from sds_node import durability
from sds_node.durability import DurabilityError, file_health, loss_within, measured_churn, rate_of, status_lines, yearly_loss
from sds_node.schemes import FIVE_OF_TEN, MAX_OBJECT_BYTES, ONE_COPY, SCHEMES, SEGMENT_BYTES, TEN_OF_THIRTY, THREE_REPLICAS, TWO_OF_FIVE, Scheme

PACKAGE = Path(durability.__file__).parent
UNAVAILABLE = {  # storage-interfaces.md 3.3: (k, n) → at uptimes 0.80, 0.90, 0.95, 0.98; None where it says about 0
    (1, 3): ("8e-03", "1e-03", "1e-04", "8e-06"),
    (4, 8): ("1e-02", "4e-04", "2e-05", "2e-07"),
    (8, 16): ("2e-03", "6e-06", "2e-08", "5e-12"),
    (10, 20): ("6e-04", "7e-07", "5e-10", "3e-14"),
    (10, 30): ("5e-09", "6e-15", None, None),
    (20, 40): ("5e-06", "2e-11", None, None),
}
BY_INTERVAL = {  # the same table: (k, n) → {nodes lost in a year: losses a year with repair every 1, 7 and 30 days}
    (1, 3): {0.2: ("8e-08", "4e-06", "7e-05"), 0.5: ("2e-06", "1e-04", "2e-03"), 0.9: ("9e-05", "4e-03", "6e-02")},
    (4, 8): {0.2: ("2e-12", "4e-09", "1e-06"), 0.5: ("5e-10", "1e-06", "3e-04"), 0.9: ("2e-07", "4e-04", "7e-02")},
    (8, 16): {0.2: ("5e-23", "3e-16", "3e-11"), 0.5: ("1e-18", "7e-12", "5e-07"), 0.9: ("6e-14", "2e-07", "6e-03")},
    (10, 30): {0.5: (None, None, "4e-19"), 0.9: (None, "1e-20", "3e-09")},
}
AT_ONCE = {(1, 3): {0.2: "8e-03", 0.3: "3e-02"}, (10, 20): {0.2: "6e-04", 0.3: "2e-02"}, (10, 30): {0.2: "5e-09", 0.3: "7e-06", 0.5: "2e-02"}}

"""The reference cuts or rounds to one digit: 1.5 is 2 there, 8.6 is 8."""


def scheme(k: int, n: int) -> Scheme:
    return Scheme(k, n, n, n)


@pytest.mark.parametrize(("shares", "row"), UNAVAILABLE.items())
def test_unavailability_is_the_references_table(shares: tuple[int, int], row: tuple[str | None, ...]) -> None:
    for uptime, expected in zip((0.8, 0.9, 0.95, 0.98), row, strict=True):
        found = durability.unavailability(scheme(*shares), uptime)
        assert found == pytest.approx(float(expected), rel=0.35) if expected else found < 1e-15


@pytest.mark.parametrize(("shares", "rows"), BY_INTERVAL.items())
def test_loss_by_interval_is_the_references_table(shares: tuple[int, int], rows: dict[float, tuple[str | None, ...]]) -> None:
    for lost, row in rows.items():
        for days, expected in zip((1, 7, 30), row, strict=True):
            found = durability.yearly_loss_by_interval(scheme(*shares), rate_of(lost), 24 * days)
            assert found == pytest.approx(float(expected), rel=0.35) if expected else found < 1e-19


@pytest.mark.parametrize(("shares", "row"), AT_ONCE.items())
def test_loss_at_once_is_the_references_table(shares: tuple[int, int], row: dict[float, str]) -> None:
    for part, expected in row.items():
        assert durability.loss_at_once(scheme(*shares), part) == pytest.approx(float(expected), rel=0.35)


def test_fractions_give_exact_results() -> None:
    assert durability.unavailability(THREE_REPLICAS, Fraction(9, 10)) == Fraction(1, 1000)
    assert durability.unavailability(TWO_OF_FIVE, Fraction(1, 2)) == Fraction(1 + 5, 32)
    assert durability.loss_at_once(FIVE_OF_TEN, Fraction(1, 10), healthy=5) == 1 - Fraction(9, 10) ** 5
    assert durability.loss_at_once(FIVE_OF_TEN, Fraction(1, 3), healthy=4) == 1
    for one in SCHEMES:
        assert durability.unavailability(one, Fraction(1)) == 0
        assert durability.unavailability(one, Fraction(0)) == 1


def test_lazy_repair_costs_what_the_reference_says() -> None:
    sixteen = Scheme(10, 30, 17, 25)  # repaired when it has fallen to 16
    assert durability.cycle_years(sixteen, rate_of(0.5), 0) * 365 == pytest.approx(331, rel=0.05)
    assert durability.repair_traffic(sixteen, rate_of(0.5), 0).times_the_segment == pytest.approx(2.65, rel=0.05)
    at_once = durability.repair_traffic(THREE_REPLICAS, rate_of(0.5), 0)
    assert at_once.shares_written == pytest.approx(3 * rate_of(0.5))
    assert at_once.times_the_segment == at_once.shares_read + at_once.shares_written == pytest.approx(2 * at_once.repairs)


def test_without_deaths_nothing_is_lost_or_moved() -> None:
    for one in SCHEMES:
        assert yearly_loss(one, 0) == durability.repair_traffic(one, 0).times_the_segment == 0
        assert loss_within(one, 0.0)[one.k :] == (0,) * (one.n - one.k + 1)


def test_one_copy_is_lost_as_often_as_its_node() -> None:
    assert loss_within(ONE_COPY, rate_of(0.2))[1] == pytest.approx(0.2)
    assert yearly_loss(ONE_COPY, 0.5, 0) == pytest.approx(0.5)


def by_hours(one: Scheme, rate_per_year: float, window_h: int, hours: int) -> list[float]:
    """The chance of loss by a chain of hours: state = (shares, hours until the repair is done or None). Knows nothing of the formulas."""
    alive = math.exp(-rate_per_year / 8760)
    step = [[math.comb(j, i) * alive**i * (1 - alive) ** (j - i) for i in range(j + 1)] for j in range(one.n + 1)]
    idle = [0.0 if j >= one.k else 1.0 for j in range(one.n + 1)]
    busy = [list(idle) for _ in range(window_h + 1)]
    for _ in range(hours):
        # a whole segment, or one whose repair is done in this hour, has n shares
        now_busy = [[idle[one.n] if left == 0 and j >= one.k else 1.0 for j in range(one.n + 1)] for left in range(window_h + 1)]
        for left in range(1, window_h + 1):
            for j in range(one.k, one.n + 1):
                after = (busy[left - 1][i] if left > 1 else idle[one.n] for i in range(one.k, j + 1))
                now_busy[left][j] = sum(step[j][: one.k]) + sum(p * v for p, v in zip(step[j][one.k :], after, strict=True))
        now_idle = list(idle)
        for j in range(one.repair_below, one.n + 1):
            after = (busy[window_h][i] if i < one.repair_below else idle[i] for i in range(one.k, j + 1))
            now_idle[j] = sum(step[j][: one.k]) + sum(p * v for p, v in zip(step[j][one.k :], after, strict=True))
        idle, busy = now_idle, now_busy
    return [busy[window_h][j] if one.k <= j < one.repair_below else idle[j] for j in range(one.n + 1)]


@pytest.mark.parametrize("one", [THREE_REPLICAS, TWO_OF_FIVE])
def test_the_chance_within_a_time_is_that_of_a_chain_of_hours(one: Scheme) -> None:
    expected = by_hours(one, 12.0, 24, 30 * 24)
    found = loss_within(one, 12.0, 24.5, 30)  # half an hour more: in the chain, others die in the hour that starts a window
    assert found[: one.k] == (1,) * one.k
    for healthy in range(one.k, one.n + 1):
        assert found[healthy] == pytest.approx(expected[healthy], rel=0.03)


@pytest.mark.parametrize("one", [FIVE_OF_TEN, TWO_OF_FIVE])
def test_in_the_long_run_the_chance_grows_at_the_yearly_rate(one: Scheme) -> None:
    one_year, two_years = (loss_within(one, 3.0, 30, days)[one.n] for days in (365, 730))
    assert math.log1p(-one_year) - math.log1p(-two_years) == pytest.approx(yearly_loss(one, 3.0, 30), rel=0.02)


def test_fewer_shares_more_deaths_and_slower_repairs_are_worse() -> None:
    chances = loss_within(FIVE_OF_TEN, 1.0)
    assert list(chances) == sorted(chances, reverse=True)
    assert all(worse > better for worse, better in zip(loss_within(FIVE_OF_TEN, 1.5)[5:], chances[5:], strict=True))
    assert all(worse > better for worse, better in zip(loss_within(FIVE_OF_TEN, 1.0, 60)[5:], chances[5:], strict=True))


def test_the_schemes_are_the_better_the_more_nodes_they_need() -> None:
    for lost in (0.05, 0.2, 0.5):
        losses = [yearly_loss(one, rate_of(lost)) for one in (TEN_OF_THIRTY, FIVE_OF_TEN)] + [
            max(yearly_loss(one, rate_of(lost)) for one in (TWO_OF_FIVE, THREE_REPLICAS))
        ]
        assert losses == sorted(losses)
    assert yearly_loss(TEN_OF_THIRTY, rate_of(0.2)) < 1e-20
    assert yearly_loss(FIVE_OF_TEN, rate_of(0.2)) < 1e-10
    assert yearly_loss(TWO_OF_FIVE, rate_of(0.2)) < 1e-6


def test_nines_count_nines() -> None:
    assert durability.nines(1e-11) == pytest.approx(11)
    assert durability.nines(Fraction(1, 1000)) == pytest.approx(3)
    assert durability.nines(1) == 0
    assert durability.nines(0) == math.inf
    assert durability.annual_loss_of(rate_of(0.37)) == pytest.approx(0.37)


def test_churn_is_taken_as_high_as_what_was_seen_allows() -> None:
    for count, most in ((0, 2.9957), (1, 4.7439), (10, 16.962), (100, 118.08)):  # half the 95 % point of chi-squared with 2(count + 1) degrees
        assert durability.most_expected(count) == pytest.approx(most, rel=1e-4)
    at, beyond = (durability.most_expected(durability.EXACT_COUNT + one) for one in (0, 1))
    assert beyond - at == pytest.approx(1.03, abs=0.03)
    churn = measured_churn(4, 7300)
    assert churn.rate_per_year == pytest.approx(0.2)
    assert churn.at_most_per_year == pytest.approx(9.1535 / 20, rel=1e-4)
    assert measured_churn(0, 365).at_most_per_year == pytest.approx(2.9957, rel=1e-4)


def test_a_files_chance_is_that_of_all_its_segments() -> None:
    chances = loss_within(FIVE_OF_TEN, 2.0)
    found = file_health(FIVE_OF_TEN, {10: 1000, 9: 20, 6: 2, 5: 0}, 2.0)
    assert (found.segments, found.lost, found.to_repair, found.fewest_healthy, found.may_fail) == (1022, 0, 2, 6, 1)
    assert 1 - found.loss_next_year == pytest.approx((1 - chances[10]) ** 1000 * (1 - chances[9]) ** 20 * (1 - chances[6]) ** 2, rel=1e-9)
    lost = file_health(FIVE_OF_TEN, {10: 3, 4: 1}, 2.0)
    assert (lost.lost, lost.may_fail, lost.loss_next_year) == (1, 0, 1)


def test_the_status_says_how_a_file_is() -> None:
    churn = measured_churn(4, 7300)
    lines = status_lines(file_health(TEN_OF_THIRTY, {30: 20, 19: 3, 17: 1}, churn.at_most_per_year), churn)
    assert lines[0] == "segments: 24, none lost, 1 to repair"
    assert lines[1] == "shares: any 10 of 30 give a segment back; the worst one has 17 healthy ones, repair starts below 18"
    assert lines[2] == "any 7 places may fail at this moment without a loss"
    assert lines[3].startswith("loss within a year: ")
    assert "if nodes fail independently (4 nodes lost in 7300 node-days, taken as 36.7 % a year at most)" in lines[3]
    [edge] = [line for line in status_lines(file_health(TWO_OF_FIVE, {2: 1}, 0.2), churn) if "one more" in line]
    assert edge == "the loss of one more place may lose it"
    gone = status_lines(file_health(TWO_OF_FIVE, {5: 1, 1: 2}, 0.2), churn)
    assert gone[0] == "segments: 3, 2 lost, 0 to repair"
    assert "cannot be read as a whole" in gone[-1]
    assert status_lines(file_health(TWO_OF_FIVE, {}, 0.2), churn) == ["empty: nothing is stored, nothing can be lost"]
    assert durability.chance_text(1e-40) == durability.chance_text(0) == "below 1e-30"
    assert durability.chance_text(0.02) == "0.02 (1.7 nines)"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rate_of(1.0), "below 1, not 1.0"),
        (lambda: rate_of(math.nan), "not nan"),
        (lambda: durability.annual_loss_of(-1), "not -1"),
        (lambda: durability.nines(1.5), "not 1.5"),
        (lambda: durability.unavailability(FIVE_OF_TEN, 1.1), "an uptime is a part from 0 to 1, not 1.1"),
        (lambda: durability.loss_at_once(FIVE_OF_TEN, 0.5, healthy=11), "from 0 to 10 healthy shares, not 11"),
        (lambda: durability.loss_in_window(FIVE_OF_TEN, 9, 10_001, 30), "not 10001"),
        (lambda: durability.loss_in_window(FIVE_OF_TEN, 9, 1, 8_761), "not 8761"),
        (lambda: durability.yearly_loss_by_interval(FIVE_OF_TEN, 1, 0), "an interval is above 0"),
        (lambda: yearly_loss(Scheme(3, 2, 2, 2), 1), "k 3, repair_below 2, n 2 came"),
        (lambda: yearly_loss(Scheme(10, 257, 18, 25), 1), "n 257 came"),
        (lambda: loss_within(FIVE_OF_TEN, 1.0, 30, 3_651), "not 3651"),
        (lambda: durability.most_expected(-1), "not -1"),
        (lambda: measured_churn(0, 0), "wait for a day of one node"),
        (lambda: file_health(FIVE_OF_TEN, {11: 1}, 0.2), "not 11"),
        (lambda: file_health(FIVE_OF_TEN, {10: -1}, 0.2), "-1 came for 10 healthy shares"),
        (lambda: file_health(FIVE_OF_TEN, {10: MAX_OBJECT_BYTES // SEGMENT_BYTES + 1}, 0.2), "at most 524288 segments"),
    ],
)
def test_numbers_that_are_none_are_refused(call: object, said: str) -> None:
    assert callable(call)
    with pytest.raises(DurabilityError) as refused:
        call()
    assert said in str(refused.value)


def test_extreme_numbers_give_probabilities() -> None:
    for rate in (1e-12, durability.MAX_RATE):
        for one in (ONE_COPY, FIVE_OF_TEN):
            assert all(0 <= chance <= 1 for chance in loss_within(one, rate, durability.MAX_WINDOW_H, durability.MAX_DAYS))


def test_no_part_of_the_storage_node_needs_numpy() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "numpy" in text else ():
            names = (
                [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )
            assert not any(name.split(".")[0] == "numpy" for name in names), path
