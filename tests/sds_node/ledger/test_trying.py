"""What would be refused is found out without a trace, and the log is not kept for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.ledger.errors import CODE_BUG, CODE_OK, BadValue
from sds_node.meta.ledger.pruning import Pruner
from tests.sds_node.ledger.shop import ACCOUNTS, LEDGER_ID, POOR, RULES, UNKNOWN, UNREADABLE, Account, all_rows, operation

DAY_MS = 86_400_000


def test_an_operation_that_is_tried_out_gets_the_answer_it_would_get_and_changes_nothing(kind_url: str) -> None:
    with Ledger.open(kind_url, RULES, LEDGER_ID) as ledger:
        ledger.submit(operation("mint", "a", 5)).result(60)
        head = ledger.head
        with ledger.read() as view:
            before = all_rows(view)
            for code, one in (
                (CODE_OK, operation("send", "a", "b", 5)),
                (CODE_OK, operation("send", "a", "b", 4)),  # on what is committed, not on the one before
                (POOR, operation("send", "a", "b", 6)),
                (UNKNOWN, operation("send", "b", "a", 1)),
                (UNREADABLE, b"?"),
            ):
                assert view.try_out(RULES, one, 0)[0] == code
            for bad in (b"", "text", b"x" * (2 << 20)):
                with pytest.raises(BadValue):
                    view.try_out(RULES, bad, 0)  # type: ignore[arg-type]
            assert all_rows(view) == before
        assert ledger.head == head
        ledger.submit(operation("send", "a", "b", 5)).result(60)
        with ledger.read() as view:
            assert view.try_out(RULES, operation("send", "a", "b", 1), 0)[0] == POOR
            assert view.get(ACCOUNTS, ("b",)) == Account("b", 5, 1)


def test_a_rule_with_a_bug_is_a_refusal_when_it_is_tried_out(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID) as ledger, ledger.read() as view:
        assert view.try_out(RULES, operation("mint", "a"), 0)[0] in (CODE_BUG, UNREADABLE)


def test_the_place_in_the_log_of_a_time_is_found(tmp_path: Path) -> None:
    clock = [0]
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID, now_ms=lambda: clock[0]) as ledger:
        with ledger.read() as view:
            assert view.sequence_at(5) == 1
        for at in (10, 10, 20, 30, 30, 30):
            clock[0] = at
            ledger.submit(operation("mint", "a", 1)).result(60)
        ledger.prune(2)
        with ledger.read() as view:
            assert [view.sequence_at(at) for at in (0, 10, 11, 20, 21, 30, 31)] == [2, 2, 3, 3, 4, 4, 7]


def test_entries_that_are_too_old_are_forgotten_and_rows_stay(tmp_path: Path) -> None:
    now_ms = [0]
    url = f"sqlite:///{tmp_path}/ledger.db"
    with Ledger.open(url, RULES, LEDGER_ID, now_ms=lambda: now_ms[0]) as ledger:
        pruner = Pruner(ledger, lambda: now_ms[0] / 1_000, 30)
        assert asyncio.run(pruner.prune()) == 0
        for day in range(100):
            now_ms[0] = day * DAY_MS
            ledger.submit(operation("mint", "a", 1)).result(60)
        assert asyncio.run(pruner.prune()) == 69
        assert asyncio.run(pruner.prune()) == 0
        with ledger.read() as view:
            assert [one.sequence for one in view.entries(0, 1_000)] == list(range(70, 101))
            assert view.get(ACCOUNTS, ("a",)) == Account("a", 100, 100)
        now_ms[0] += 10_000 * DAY_MS  # a clock that is wrong: the ledger's own time counts, too
        assert asyncio.run(pruner.prune()) == 0
    with Ledger.open(url, RULES, LEDGER_ID) as again:
        assert again.head.sequence == 100


def test_a_log_is_kept_for_a_day_at_least(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID) as ledger, pytest.raises(ValueError, match="at least one day"):
        Pruner(ledger, lambda: 0.0, 0)
