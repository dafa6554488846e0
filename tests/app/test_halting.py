"""Halting on purpose: the last block that is made, by SDK 0.50.9's bounds, and nothing is left of the one after it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chain.application import Settings
from chain.errors import Halt
from chain.testing.driver import Driver
from tests.support import chain


def halted(driver: Driver) -> int:
    """The height at which the chain stands once it stops."""
    with pytest.raises(Halt, match="the node stops before block"):
        _go_on(driver)
    return int(driver.apps[0].latest_height)  # type: ignore[attr-defined]


def _go_on(driver: Driver) -> None:
    for _ in range(20):
        driver.next_block()


def test_the_block_of_the_halt_height_is_made_and_the_next_one_is_not() -> None:
    assert halted(chain(settings=[Settings(halt_height=4)])) == 4


@pytest.mark.parametrize(("after_s", "last"), [(0, 3), (1, 3), (-1, 2)])
def test_the_block_of_the_halt_times_second_is_made_and_a_later_one_is_not(after_s: int, last: int) -> None:
    driver = chain(blocks=3)
    third_s = driver.time_ns // 10**9
    assert halted(chain(settings=[replace(Settings(), halt_time_s=third_s + after_s)], blocks=0)) == last
