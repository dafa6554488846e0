"""What rules see: ranges, writes that are undone, bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sds_node.meta.ledger import tables as tables_module
from sds_node.meta.ledger.core import Core, Rules
from sds_node.meta.ledger.errors import BadValue, Refused
from sds_node.meta.ledger.schema import Index, Int63, Schema, Text, declare
from sds_node.meta.ledger.sql import open_store
from sds_node.meta.ledger.tables import Tables
from tests.sds_node.ledger.shop import ACCOUNTS, ITEMS, LEDGER_ID, RULES, Account, Item, all_rows, operation


class Point(NamedTuple):
    x: Annotated[int, Int63()]
    y: Annotated[int, Int63()]
    name: Annotated[str, Text(4)]


POINTS = declare(1, "points", Point, key=("x", "y"), indexes=(Index("by_name", ("name", "y")),))


def in_operation(core: Core, rule: Any) -> Any:
    """Run ``rule(tables)`` as an operation of an open batch and keep what it wrote."""
    core.tables.open_operation()
    try:
        answer = rule(core.tables)
    except BaseException:
        core.tables.close_operation(keep=False)
        raise
    core.tables.close_operation(keep=True)
    return answer


SMALL = st.integers(0, 3)
PLACES = st.tuples(SMALL, SMALL)
PARTS = st.one_of(st.just(()), st.tuples(SMALL), st.tuples(SMALL, SMALL))
NAMES = st.sampled_from(("", "a", "b", "ä"))


def test_a_scan_gives_the_same_whether_rows_are_stored_or_pending(tmp_path: Path) -> None:
    core = Core.open(open_store(f"sqlite:///{tmp_path}/ledger.db"), Rules("points", Schema([POINTS]), lambda *_: b""), "points-1")

    @given(
        stored=st.dictionaries(PLACES, NAMES, max_size=12),
        pending=st.dictionaries(PLACES, st.one_of(st.none(), NAMES), max_size=12),
        bounds=st.tuples(PARTS, PARTS, PARTS),
        by_name=st.booleans(),
        is_after=st.booleans(),
        limit=st.integers(1, 6),
        reverse=st.booleans(),
    )
    @settings(max_examples=150, deadline=None)
    def holds(stored: Any, pending: Any, bounds: Any, by_name: bool, is_after: bool, limit: int, reverse: bool) -> None:
        core.begin(0)
        for x in range(4):
            for y in range(4):
                in_operation(core, lambda tables, at=(x, y): tables.delete(POINTS, at))
        for place, name in stored.items():
            in_operation(core, lambda tables, at=place, called=name: tables.put(POINTS, Point(*at, called)))
        core.tables.flush()
        for place, name in pending.items():
            if name is None:
                in_operation(core, lambda tables, at=place: tables.delete(POINTS, at))
            else:
                in_operation(core, lambda tables, at=place, called=name: tables.put(POINTS, Point(*at, called)))
        rows = {**stored, **pending}
        alive = [Point(*place, name) for place, name in rows.items() if name is not None]
        columns = (lambda one: (one.name, one.y, one.x)) if by_name else (lambda one: (one.x, one.y))
        prefix, low, high = bounds
        if by_name:  # numbers of the prefix become the column's texts
            prefix = (("", "a", "b", "ä")[prefix[0]], *prefix[1:]) if prefix else ()
            low, high = ((), ()) if not prefix else (low[: 3 - len(prefix)], high[: 3 - len(prefix)])
        else:
            low, high = low[: 2 - len(prefix)], high[: 2 - len(prefix)]
        wanted = []
        for row in sorted(alive, key=columns):
            place = columns(row)
            rest = place[len(prefix) :]
            above = not low or (rest[: len(low)] > low if is_after else rest[: len(low)] >= low)
            if place[: len(prefix)] == prefix and above and (not high or rest[: len(high)] < high):
                wanted.append(row)
        wanted = wanted[::-1] if reverse else wanted
        where = {"after" if is_after else "start": low, "end": high}
        got = core.tables.scan(POINTS, prefix, index="by_name" if by_name else "", limit=limit, reverse=reverse, **where)
        assert got == wanted[:limit]
        core.abandon()

    holds()
    core.close()


def test_a_refused_operation_changes_nothing_and_a_mark_undoes_a_part(tmp_path: Path) -> None:
    core = Core.open(open_store(f"sqlite:///{tmp_path}/ledger.db"), RULES, LEDGER_ID)
    core.begin(0)
    core.apply(operation("mint", "a", 5))
    before = all_rows(core.tables)
    refused = core.apply(operation("send", "a", "b", 6))
    assert (refused.code, refused.reason) == (16, "a has 5, not 6")
    assert all_rows(core.tables) == before
    tried = core.apply(operation("try_all", ["send", "a", "b", 6], ["send", "a", "b", 2]))
    assert tried.result == b"\0\1"
    assert [row.balance for row in core.tables.scan(ACCOUNTS, limit=9)] == [3, 2]
    core.close()


def test_rows_change_places_in_a_unique_index_in_one_batch(kind_url: str) -> None:
    core = Core.open(open_store(kind_url), RULES, LEDGER_ID)
    core.begin(0)
    core.apply(operation("stock", "01", 1, "00000001", "x", 1))
    core.apply(operation("stock", "01", 2, "00000002", "y", 2))
    core.write()
    core.commit()
    core.begin(0)
    assert core.apply(operation("swap", "00000001", "00000002")).is_applied
    assert core.apply(operation("stock", "01", 3, "00000001", "z", 1)).code == 2
    core.write()
    core.commit()
    rows = core.tables.scan(ITEMS, limit=5)
    assert [(row.number, row.code[-1]) for row in rows] == [(1, 2), (2, 1)]
    core.close()


def test_what_an_operation_may_write_and_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "MAX_CHANGES", 3)
    monkeypatch.setattr(tables_module, "MAX_READ_ROWS", 3)
    core = Core.open(open_store(f"sqlite:///{tmp_path}/ledger.db"), RULES, LEDGER_ID)
    core.begin(0)
    assert core.apply(operation("try_all", *[["close", "a"]] * 3)).is_applied
    # The refusal of a bound is one like any other: rules that go on without the part meet the bound again.
    assert core.apply(operation("try_all", *[["close", "a"]] * 5)).result == b"\1\1\1\0\0"
    assert core.apply(operation("report", "01", 5, False)).code == 3
    core.close()


def test_writing_is_possible_only_while_an_operation_is_applied_and_tables_are_the_schemas(tmp_path: Path) -> None:
    core = Core.open(open_store(f"sqlite:///{tmp_path}/ledger.db"), RULES, LEDGER_ID)
    core.begin(0)
    kept: list[Tables] = [core.tables]
    for attempt in (
        lambda: kept[0].put(ACCOUNTS, Account("a", 1, 1)),
        lambda: kept[0].delete(ACCOUNTS, ("a",)),
        lambda: kept[0].get(POINTS, (1, 2)),
        lambda: kept[0].get(ACCOUNTS, ("a", "b")),
        lambda: kept[0].scan(ACCOUNTS, limit=0),
        lambda: kept[0].scan(ACCOUNTS, limit=10_001),
        lambda: kept[0].scan(ACCOUNTS, index="none", limit=1),
        lambda: kept[0].scan(ACCOUNTS, ("a", "b"), limit=1),
        lambda: kept[0].scan(ACCOUNTS, (1,), limit=1),
        lambda: kept[0].scan(ACCOUNTS, start=("a",), after=("a",), limit=1),
        lambda: kept[0].find(ACCOUNTS, "by_balance", (1,)),
    ):
        with pytest.raises(BadValue):
            attempt()
    core.close()


def test_a_part_of_a_batch_that_went_into_the_open_transaction_is_read_and_undone_like_the_rest(
    kind_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_node.meta.ledger.core.SPILL_BYTES", 1)
    core = Core.open(open_store(kind_url), RULES, LEDGER_ID, cache_bytes=0)
    first = core.head
    for is_kept in (False, True):
        core.begin(0)
        core.apply(operation("mint", "a", 5))
        core.apply(operation("stock", "01", 1, "00000001", "x", 1))
        assert core.apply(operation("send", "a", "b", 2)).result == b"3"
        if is_kept:
            core.write()
            core.commit()
        else:
            core.abandon()
            assert core.head == first
            assert not any(all_rows(core.tables).values())
    assert core.tables.get(ITEMS, (b"\1", 1)) == Item(b"\1", 1, b"\0\0\0\1", "x", 1, False)
    assert core.head.sequence == 3
    core.close()


def test_a_refusal_needs_a_code_of_its_own() -> None:
    for code in (0, 15, 1 << 31):
        with pytest.raises(BadValue):
            Refused(code, "no")
    assert Refused(16, "x" * 5000 + "\0").reason == "x" * 1024
    assert Refused(16, "\ud800\0y").reason == "? y"
