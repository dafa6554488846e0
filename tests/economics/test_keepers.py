"""The same histories on the modules' keepers and message handlers: CI's size. ``make soak SOAK=solvency`` runs 100,000."""

from __future__ import annotations

import pytest

from tests.economics.histories import check_many
from tests.economics.keepers import KeeperWorld
from tests.economics.test_histories import AT_STAKE, OPERATIONS

HISTORIES = 500


@pytest.mark.timeout(300)
def test_random_histories_on_the_keepers_equal_the_model_to_the_last_unit_and_keep_every_promise() -> None:
    figures = check_many(KeeperWorld, HISTORIES)
    for name in (*OPERATIONS, *AT_STAKE):
        assert figures[name] > 100, figures
