"""Buckets, budgets, and the bounds themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sds_node.wire.limits import Bucket, Budget, Limits, Rates, byte_bucket
from sds_node.wire.relay import RelayLimits


@given(
    rate=st.floats(1, 1e9),
    burst=st.floats(0, 1e9),
    takes=st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 100)), min_size=1, max_size=50),
)
def test_who_waits_as_told_never_gets_more_than_the_rate_and_the_burst(rate: float, burst: float, takes: list[tuple[float, float]]) -> None:
    bucket, now, taken = Bucket(rate, burst, 0.0), 0.0, 0.0
    for amount, pause in takes:
        now += pause + bucket.take(amount, now)
        taken += amount
        now += bucket.wait_s(now)
        assert taken <= (burst + rate * now) * (1 + 1e-6) + 1e-3


def test_a_bucket_without_a_rate_never_waits() -> None:
    bucket = byte_bucket(None, 0.0)
    assert bucket.take(1e18, 0.0) == bucket.wait_s(0.0) == 0.0


def test_a_bucket_fills_up_to_its_burst_and_tells_the_time_until_it_is_paid_back() -> None:
    bucket = Bucket(10.0, 5.0, 0.0)
    assert bucket.take(5, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(0.1)
    assert bucket.wait_s(0.1) == 0.0
    assert bucket.take(6, 1000.0) == pytest.approx(0.1)


def test_a_full_budget_calls_everyone_once_when_there_is_room() -> None:
    budget, called = Budget(100), []
    budget.take(101)
    assert budget.full

    def wake() -> None:
        called.append(1)

    def forgotten() -> None:
        called.append(2)

    budget.when_free(wake)
    budget.when_free(wake)
    budget.when_free(forgotten)
    budget.forget(forgotten)
    budget.take(10)
    budget.give(10)
    assert called == []
    budget.give(1)
    budget.give(1)
    assert called == [1]


@pytest.mark.parametrize(
    "bad",
    [
        {"connections": 0}, {"idle_s": 0}, {"idle_s": 86_401}, {"stream_window_bytes": 1023}, {"stream_window_bytes": 2 << 20, "connection_window_bytes": 1 << 20},
        {"connection_window_bytes": 1 << 31}, {"head_bytes": 65537}, {"streams_per_connection": 1 << 31}, {"opens_per_s": 0}, {"dead_s": float("nan")},
    ],
)  # fmt: skip
def test_limits_out_of_bounds_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be more than 0|at most|windows are"):
        Limits(**bad)  # type: ignore[arg-type]


def test_rates_and_relay_limits_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Rates(up_bytes_per_s=0)
    with pytest.raises(ValueError, match="at least 1"):
        RelayLimits(streams=0)
