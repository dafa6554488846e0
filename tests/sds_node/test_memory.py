"""Room for pieces of content: writable, there on systems without large pages, too, and used again only when nobody has a view of it."""

from __future__ import annotations

import mmap

import pytest

from sds_node import memory
from sds_node.memory import room

MIB = 1 << 20


@pytest.mark.parametrize("size_bytes", [0, 1, 4 * MIB - 1, 4 * MIB, 5 * MIB + 3])
@pytest.mark.parametrize("advice", [mmap.MADV_HUGEPAGE, 9_999, None])
def test_there_is_room_with_and_without_large_pages(size_bytes: int, advice: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if advice is None:
        monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    else:
        monkeypatch.setattr(mmap, "MADV_HUGEPAGE", advice)  # the kernel refuses one that it does not know
    made = room(size_bytes)
    assert len(made) == size_bytes
    made[:] = b"\x07" * size_bytes
    assert bytes(made) == b"\x07" * size_bytes


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> memory._Rooms:
    rooms = memory._Rooms()
    rooms.most_bytes = 10 * MIB
    monkeypatch.setattr(memory, "_rooms", rooms)
    return rooms


def test_a_room_is_used_again_when_its_last_view_is_gone(kept: memory._Rooms) -> None:
    first = room(5 * MIB)
    first[:4] = b"left"
    part = first[MIB : 2 * MIB]
    del first
    second = room(5 * MIB)
    assert second[:4] == bytes(4)
    del second, part
    third, fourth = room(5 * MIB), room(5 * MIB)
    assert sorted([bytes(third[:4]), bytes(fourth[:4])]) == [bytes(4), b"left"]


def test_rooms_that_are_kept_are_bounded_and_those_in_use_stay(kept: memory._Rooms) -> None:
    used = room(6 * MIB)
    used[:4] = b"used"
    others = [room(4 * MIB) for _ in range(3)]
    assert sum(map(len, kept._made)) == 10 * MIB
    del others
    larger = room(8 * MIB)
    larger[:] = b"\x01" * len(larger)
    assert sum(map(len, kept._made)) <= 10 * MIB
    assert used[:4] == b"used"


def test_nothing_is_kept_unless_a_program_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = memory._Rooms()
    monkeypatch.setattr(memory, "_rooms", rooms)
    room(5 * MIB)
    assert rooms._made == []
