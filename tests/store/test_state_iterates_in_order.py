"""A State's stores iterate in order, whatever was written, undone and iterated before; and many short iterations among many writes stay cheap."""

from __future__ import annotations

import random

import pytest

from chain.gas import InfiniteGasMeter
from chain.store.state import EmptyView, KVStore, MemoryKV, State


class Reference:
    """The same store, obviously right: one dict that is copied at every mark and sorted at every iteration."""

    def __init__(self, base: dict[bytes, bytes]) -> None:
        self.entries = dict(base)
        self.marks: list[tuple[int, dict[bytes, bytes]]] = []

    def range(self, start: bytes | None, end: bytes | None, reverse: bool) -> list[tuple[bytes, bytes]]:
        inside = [(key, value) for key, value in self.entries.items() if (start is None or key >= start) and (end is None or key < end)]
        return sorted(inside, reverse=reverse)


class _Base:
    def __init__(self, base: dict[bytes, bytes]) -> None:
        self._base = MemoryKV(base)

    def store(self, name: str) -> MemoryKV:
        return self._base


def _iterated(store: KVStore, start: bytes | None, end: bytes | None, reverse: bool) -> list[tuple[bytes, bytes]]:
    return list(store.iterate(start, end, reverse=reverse))


@pytest.mark.parametrize("seed", range(40))
def test_the_order_is_right_whatever_came_before(seed: int) -> None:
    dice = random.Random(seed)
    keys = [dice.randbytes(dice.randint(1, 3)) for _ in range(200)]
    base = {key: b"base" for key in dice.sample(keys, 60)}
    state, reference = State(_Base(base), ("a",)), Reference(base)
    store = state.store("a")
    for step in range(600):
        key, value = dice.choice(keys), str(step).encode()
        match dice.choice(("set", "set", "set", "delete", "mark", "rollback", "put", "iterate", "iterate")):
            case "set":
                store.set(key, value)
                reference.entries[key] = value
            case "delete":
                store.delete(key)
                reference.entries.pop(key, None)
            case "mark":
                reference.marks.append((state.mark(), dict(reference.entries)))
            case "rollback" if reference.marks:
                at = dice.randrange(len(reference.marks))
                mark, reference.entries = reference.marks[at]
                del reference.marks[at:]
                state.rollback(mark)
            case "put" if not reference.marks:
                more = {each: value for each in dice.sample(keys, 3)}
                store.put(more)
                reference.entries.update(more)
            case "iterate":
                start, end = (dice.choice((None, *keys[:20])) for _ in range(2))
                reverse = dice.random() < 0.5
                assert _iterated(store, start, end, reverse) == reference.range(start, end, reverse), (seed, step)
    assert _iterated(store, None, None, False) == reference.range(None, None, False)


class Counted(bytes):
    """A key that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: bytes) -> bool:
        Counted.compared += 1
        return bytes.__lt__(self, other)


def test_iterating_after_every_write_costs_no_sort() -> None:
    state = State(EmptyView(), ("a",), InfiniteGasMeter())
    store, writes = state.store("a"), 2_000
    Counted.compared = 0
    for at in range(writes):
        key = Counted((at * 7919 % 100_003).to_bytes(8, "big"))
        store.set(key, b"value")
        assert list(store.iterate(key, key + b"\x00")) == [(key, b"value")]
        if at % 3 == 0:
            mark = state.mark()
            store.set(Counted(key + b"undone"), b"value")
            state.rollback(mark)
    assert Counted.compared < 60 * writes  # a search each; sorted anew, it would be some 2,000 for each
