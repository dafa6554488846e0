"""The overlay a block, a check state or a simulation writes into.

    handler ── KVStore.set ──► overlay dict + undo log ──(end of block)──► net changes, sorted ──► tree

One overlay serves a whole block. ``mark``/``rollback`` replay the undo log backwards, so nothing is copied per transaction.
The gas meter is swapped per transaction (``State.meter``); costs follow chain/gas.py, in the SDK's order: reads charge flat,
then per byte of key and value; writes charge flat and per byte before they write; an iterator charges its first entry when it
starts and the entry it leaves at each step.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from typing import Final

from chain import gas
from chain.gas import GasMeter, InfiniteGasMeter
from chain.store.api import KVReader, StateReader

MAX_KEY_BYTES: Final = 65535
MAX_VALUE_BYTES: Final = (1 << 31) - 1

_FEW: Final = 16
"""A list this many times longer than what comes new takes it one by one; else sorting is as fast."""
_ABSENT: Final = object()  # undo log: the overlay held nothing for this key


class KVStore:
    """One store of a State. Satisfies ``KVWriter``."""

    __slots__ = ("_added", "_base", "_name", "_pending", "_read", "_sorted", "_state", "_undo")

    def __init__(self, name: str, base: KVReader, state: State) -> None:
        self._name = name
        self._base = base
        self._state = state
        self._undo = state._undo
        self._pending: dict[bytes, bytes | None] = {}
        # What the base answered: it cannot change under us. A base that remembers its answers shares them.
        self._read: dict[bytes, bytes | None] = getattr(base, "remembered", {})
        # Keys of _pending in order, from the first iteration on, and those that came since the last one, in the order they came.
        self._sorted: list[bytes] | None = None
        self._added: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        try:
            value = self._pending[key]
        except KeyError:
            try:
                value = self._read[key]
            except KeyError:
                value = self._read[key] = self._base.get(key)
        meter = self._state.meter
        size = len(key) if value is None else len(key) + len(value)
        consumed = meter.consumed + gas.READ_COST_FLAT + gas.READ_COST_PER_BYTE * size
        if consumed <= meter.limit:
            meter.consumed = consumed
            return value
        meter.consume(gas.READ_COST_FLAT, "ReadFlat")
        meter.consume(gas.READ_COST_PER_BYTE * len(key), "ReadPerByte")
        meter.consume(gas.READ_COST_PER_BYTE * (size - len(key)), "ReadPerByte")
        return value

    def has(self, key: bytes) -> bool:
        self._state.meter.consume(gas.HAS_COST, "Has")
        try:
            return self._pending[key] is not None
        except KeyError:
            return self._base.has(key)

    def set(self, key: bytes, value: bytes) -> None:
        if not 0 < len(key) <= MAX_KEY_BYTES:
            raise ValueError(f"store {self._name}: a key has 1 to {MAX_KEY_BYTES} bytes, got {len(key)}")
        if len(value) > MAX_VALUE_BYTES:
            raise ValueError(f"store {self._name}: a value has at most {MAX_VALUE_BYTES} bytes, got {len(value)}")
        meter = self._state.meter
        consumed = meter.consumed + gas.WRITE_COST_FLAT + gas.WRITE_COST_PER_BYTE * (len(key) + len(value))
        if consumed <= meter.limit:
            meter.consumed = consumed
        else:
            meter.consume(gas.WRITE_COST_FLAT, "WriteFlat")
            meter.consume(gas.WRITE_COST_PER_BYTE * len(key), "WritePerByte")
            meter.consume(gas.WRITE_COST_PER_BYTE * len(value), "WritePerByte")
        self._put(key, value)

    def delete(self, key: bytes) -> None:
        self._state.meter.consume(gas.DELETE_COST, "Delete")
        self._put(key, None)

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Entries in order. Gas as the SDK's gaskv: the first entry at the start, then the entry that is left at each step;
        a range without entries costs one flat step. Do not write to the store while an iterator of it is open: collect first.
        """
        meter = self._state.meter
        empty = True
        for key, value in self._merged(start, end, reverse):
            cost = gas.READ_COST_PER_BYTE * (len(key) + len(value))
            if empty:
                empty = False
                meter.consume(cost, "ValuePerByte")
                meter.consume(gas.ITER_NEXT_COST_FLAT, "IterNextFlat")
            yield key, value
            meter.consume(cost, "ValuePerByte")
            meter.consume(gas.ITER_NEXT_COST_FLAT, "IterNextFlat")
        if empty:
            meter.consume(gas.ITER_NEXT_COST_FLAT, "IterNextFlat")

    def peek(self, key: bytes) -> bytes | None:
        """The value at ``key`` without gas: for a fast twin that counts gas itself."""
        value = self._pending.get(key, _ABSENT)
        if value is _ABSENT:
            value = self._read.get(key, _ABSENT)
            if value is _ABSENT:
                value = self._read[key] = self._base.get(key)
        return value  # type: ignore[return-value]

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Write without gas and without undo: for a fast twin, outside any mark, once nothing can fail any more."""
        if self._sorted is not None:
            self._added.extend(key for key in entries if key not in self._pending)
        self._pending.update(entries)

    def _merged(self, start: bytes | None, end: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        keys = self._in_order()
        low = 0 if start is None else bisect_left(keys, start)
        high = len(keys) if end is None else bisect_left(keys, end)
        mine = keys[low:high]
        if reverse:
            mine.reverse()
        if not mine:
            yield from self._base.iterate(start, end, reverse=reverse)
            return
        pending = self._pending
        at = 0
        for key, value in self._base.iterate(start, end, reverse=reverse):
            while at < len(mine) and (mine[at] > key if reverse else mine[at] < key):
                own = pending[mine[at]]
                if own is not None:
                    yield mine[at], own
                at += 1
            if at < len(mine) and mine[at] == key:
                own = pending[key]
                if own is not None:
                    yield key, own
                at += 1
            else:
                yield key, value
        for key in mine[at:]:
            own = pending[key]
            if own is not None:
                yield key, own

    def _put(self, key: bytes, value: bytes | None) -> None:
        pending = self._pending
        previous = pending.get(key, _ABSENT)
        self._undo.append((self, key, previous))
        pending[key] = value
        if previous is _ABSENT and self._sorted is not None:
            self._added.append(key)

    def _in_order(self) -> list[bytes]:
        """The pending keys, sorted. What came since the last time is put in its place: a block that iterates after every write must not sort anew."""
        keys, added = self._sorted, self._added
        if keys is None:
            keys = self._sorted = sorted(self._pending)
        elif len(added) * _FEW < len(keys):
            for key in added:
                insort(keys, key)
        else:
            keys.extend(added)
            keys.sort()
        added.clear()
        return keys

    def _restore(self, key: bytes, previous: object) -> None:
        if previous is _ABSENT:
            del self._pending[key]
            if self._added and self._added[-1] == key:  # undone backwards: the last that came
                self._added.pop()
            elif self._added:
                self._sorted = None
                self._added.clear()
            elif self._sorted is not None:
                del self._sorted[bisect_left(self._sorted, key)]
        else:
            self._pending[key] = previous  # type: ignore[assignment]

    def _net_changes(self) -> list[tuple[bytes, bytes | None]]:
        pending = self._pending
        return [(key, pending[key]) for key in sorted(pending)]


class State:
    """An overlay over an immutable view: ``StateWriter`` for handlers, and the block's net changes at the end."""

    __slots__ = ("_stores", "_undo", "meter")

    def __init__(self, base: StateReader, names: tuple[str, ...], meter: GasMeter | None = None) -> None:
        self.meter: GasMeter = meter if meter is not None else InfiniteGasMeter()
        self._undo: list[tuple[KVStore, bytes, object]] = []
        self._stores = {name: KVStore(name, base.store(name), self) for name in names}

    def store(self, name: str) -> KVStore:
        return self._stores[name]

    def mark(self) -> int:
        return len(self._undo)

    def rollback(self, mark: int) -> None:
        undo = self._undo
        while len(undo) > mark:
            store, key, previous = undo.pop()
            store._restore(key, previous)

    def net_changes(self) -> Mapping[str, list[tuple[bytes, bytes | None]]]:
        """Per store, every key written since the view in sorted order; None marks a deletion. Stores without a write have an empty list."""
        return {name: store._net_changes() for name, store in self._stores.items()}


class MemoryKV:
    """A read-only base from a dict: for tests of modules and for the empty state before genesis."""

    def __init__(self, entries: Mapping[bytes, bytes] | None = None) -> None:
        self._entries = dict(entries or {})

    def get(self, key: bytes) -> bytes | None:
        return self._entries.get(key)

    def has(self, key: bytes) -> bool:
        return key in self._entries

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self._entries, reverse=reverse):
            if (start is None or key >= start) and (end is None or key < end):
                yield key, self._entries[key]


class EmptyView:
    """A view in which every store exists and is empty."""

    def store(self, name: str) -> KVReader:
        return MemoryKV()
