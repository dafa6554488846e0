"""Random histories of deposits, sales, reports, leavings, suspensions and slashes keep what docs/economics.md promises."""

from __future__ import annotations

from tests.economics.histories import check_many
from tests.economics.pure import PureWorld


def test_random_histories_on_the_functions_equal_the_model_to_the_last_unit_and_keep_every_promise() -> None:
    figures = check_many(PureWorld, 500)
    print(figures)
    for name in ("create", "add", "effective", "suspend", "slash", "leave", "wait", "prepay", "claim", "report", "refused"):
        assert figures[name] > 250, figures
