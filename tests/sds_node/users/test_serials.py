"""No serial stands for two shares of an object, in whatever parts and orders it comes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sds_node import asking
from sds_node.meta.users.checks import Progress, Segment
from sds_node.schemes import TWO_OF_FIVE
from sds_node.wire.errors import Refused

N = TWO_OF_FIVE.n


def segment(number: int, first: int, others: dict[int, int] | None = None) -> Segment:
    return Segment(number, 1, number.to_bytes(32, "big"), (), (), first, others or {})


def serials(one: Segment) -> list[int]:
    """Of all its shares."""
    return [one.others.get(index, one.first_serial + index) for index in range(N)]


def is_refused(progress: Progress, one: Segment) -> bool:
    try:
        progress.add(one)
    except Refused as error:
        return error.code == asking.ACK_REFUSED
    return False


SEGMENTS = st.lists(st.tuples(st.integers(0, 60), st.dictionaries(st.integers(0, N - 1), st.integers(0, 70), max_size=2)), max_size=8)


@settings(max_examples=500, deadline=None)
@given(SEGMENTS, st.sets(st.integers(0, 7)))
def test_what_is_taken_has_no_serial_twice_also_when_it_is_read_back_in_between(given_: list[tuple[int, dict[int, int]]], stops: set[int]) -> None:
    progress, taken = Progress(TWO_OF_FIVE), list[Segment]()
    for number, (first, others) in enumerate(given_):
        one = segment(number, first, {index: serial for index, serial in others.items() if serial != first + index})
        if number in stops:  # another process goes on
            progress = Progress(TWO_OF_FIVE)
            for before in taken:
                progress.note(before.root, before.first_serial, before.others.values())
        if not is_refused(progress, one):
            taken.append(one)
    found = [serial for one in taken for serial in serials(one)]
    assert len(found) == len(set(found))
    assert progress.roots == [one.root for one in taken]


@settings(max_examples=200, deadline=None)
@given(st.permutations(range(8)), st.dictionaries(st.tuples(st.integers(0, 7), st.integers(0, N - 1)), st.booleans(), max_size=6))
def test_what_a_meta_node_issues_is_taken_in_any_order(order: list[int], again: dict[tuple[int, int], bool]) -> None:
    progress = Progress(TWO_OF_FIVE)
    singles = {slot: 1_000 + at for at, slot in enumerate(again)}
    for number in order:
        progress.add(segment(number, number * N, {index: serial for (of, index), serial in singles.items() if of == number}))
    assert len(progress.roots) == 8


@pytest.mark.parametrize(
    ("before", "one"),
    [
        (segment(0, 10), segment(1, 10)),
        (segment(0, 10), segment(1, 14)),
        (segment(0, 10), segment(1, 6)),
        (segment(0, 10), segment(1, 20, {0: 12})),
        (segment(0, 10, {0: 50}), segment(1, 20, {3: 50})),
        (segment(0, 10, {0: 50}), segment(1, 48)),
        (segment(0, 10), segment(1, 20, {0: 60, 1: 60})),
        (segment(0, 10), segment(1, 20, {0: 21})),
    ],
)
def test_each_way_of_using_a_serial_twice_is_refused(before: Segment, one: Segment) -> None:
    progress = Progress(TWO_OF_FIVE)
    progress.add(before)
    assert is_refused(progress, one)
    assert len(progress.roots) == 1
