"""The same histories on the modules' keepers and message handlers, and through signed transactions: CI's size. ``make soak SOAK=solvency`` is the long one."""

from __future__ import annotations

import pytest

from tests.economics.chain import ChainWorld
from tests.economics.histories import check_many
from tests.economics.keepers import KeeperWorld
from tests.economics.test_histories import AT_STAKE, OPERATIONS
from tests.soak.solvency import parts


@pytest.mark.timeout(600)
def test_500_random_histories_on_the_keepers_equal_the_model_to_the_last_unit_and_keep_every_promise() -> None:
    figures = check_many(KeeperWorld, 500)
    for name in (*OPERATIONS, *AT_STAKE):
        assert figures[name] > 100, figures


@pytest.mark.timeout(600)
def test_random_histories_through_signed_transactions_equal_the_model_to_the_last_unit_and_keep_every_promise() -> None:
    figures = check_many(ChainWorld, 12)
    for name in OPERATIONS:
        assert figures[name] > 0, figures


def test_the_soak_does_every_history_once() -> None:
    made = parts(1_050, 7)
    assert [seed for count, first in made for seed in range(first, first + count)] == list(range(7, 1_057))
