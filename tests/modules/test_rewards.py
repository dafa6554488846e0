"""Rewards to the last wei: random histories held against the slow reference of ``rewards.py``."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.modules.rewards import History

HISTORIES = 60
BLOCKS = 30


def run_histories(count: int, seed: int = 0) -> dict[str, int]:
    """Figures of ``count`` histories; AssertionError names the seed of the first that differs."""
    done: Counter[str] = Counter()
    for number in range(seed, seed + count):
        try:
            done += History(number).run(BLOCKS)
        except AssertionError as error:
            raise AssertionError(f"history with seed {number}: {error}") from error
    acts = {name.removeprefix("Msg"): number for name, number in sorted(done.items()) if name != "nothing"}
    return {"histories": count, "blocks": count * BLOCKS, **acts, "differences": 0}


@pytest.mark.timeout(60)
def test_rewards_of_random_histories_equal_the_reference_to_the_last_wei() -> None:
    figures = run_histories(HISTORIES)
    for name in ("Delegate", "Undelegate", "BeginRedelegate", "CancelUnbondingDelegation", "WithdrawDelegatorReward", "slash"):
        assert figures[name] >= HISTORIES // 4, figures
