"""Both engines over stored nodes of their own, compared at every step, and random histories of everything that may happen to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from chain.store.engine import Changes, Engine, PlainEngine, Staged
from chain.store.errors import CorruptStore
from chain.store.fast.core import NativeEngine
from chain.store.iavl import EMPTY_HASH, Change, NodeKey
from chain.store.kv import KVBackend


class Pair:
    """The plain engine first, the native one second."""

    def __init__(self) -> None:
        self.stored: list[dict[NodeKey, bytes]] = [{}, {}]
        self.loads: list[Callable[[NodeKey], bytes | None]] = [self.stored[0].get, self.stored[1].get]
        self.engines: list[Engine] = []
        self._open(None, EMPTY_HASH)

    def _open(self, root_key: NodeKey | None, root_hash: bytes) -> None:
        plain, native = (lambda key, at=at: self.loads[at](key) for at in range(2))  # type: ignore[misc]
        self.engines = [PlainEngine(root_key, root_hash, plain), NativeEngine(root_key, root_hash, native)]

    def stage(self, changes: Sequence[Change], version: int) -> Staged:
        plain, native = (engine.stage(Changes(changes), version) for engine in self.engines)
        assert (plain.root_key, plain.root_hash) == (native.root_key, native.root_hash)
        assert list(plain.new_nodes) == list(native.new_nodes)
        assert sorted(split(plain.orphans)) == sorted(split(native.orphans))
        for at, one in enumerate((plain, native)):
            self.stored[at].update({(version, nonce): raw for nonce, raw in enumerate(one.new_nodes, start=1)})
        return native

    def commit(self, staged: Staged) -> None:
        for stored, engine in zip(self.stored, self.engines, strict=True):
            engine.commit()
            for key in split(staged.orphans):
                del stored[key]

    def reload(self) -> None:
        self._open(self.engines[0].root_key, self.engines[0].hash)


def split(orphans: bytes) -> list[NodeKey]:
    return [(int.from_bytes(orphans[at : at + 8], "big"), int.from_bytes(orphans[at + 8 : at + 12], "big")) for at in range(0, len(orphans), 12)]


class History:
    """A random history of one tree: versions, proposals that are not decided, reads while one is staged, a small cache, restarts, and a database
    that fails, loses nodes or gives back other bytes. After each step both engines and a dict must agree.
    """

    def __init__(self, seed: int, keys: int = 400) -> None:
        self.choose = random.Random(seed)
        self.keys = [self.choose.randbytes(self.choose.choice((1, 2, 8, 33, 50, 90))) for _ in range(keys)]
        self.pair = Pair()
        self.expected: dict[bytes, bytes] = {}
        self.version = 0
        self.refused = 0

    def step(self) -> None:
        """One random step. Raises AssertionError for a difference."""
        choose = self.choose
        kind = choose.randrange(10)
        if kind < 4:
            self._next_version()
        elif kind == 4:
            self.pair.stage(self._block(), self.version + 1)
            self._read(5)
            self._next_version()
        elif kind == 5:
            self.pair.engines[1].shrink(choose.randrange(60))
        elif kind == 6:
            self.pair.reload()
        elif kind == 7:
            self._damage()
        else:
            self._read(20)

    def _block(self) -> list[Change]:
        choose = self.choose
        size = choose.choice((0, 1, 3, 30, 200))
        deletes = choose.choice((0.0, 0.3, 1.0))
        block = {
            key: None if choose.random() < deletes else choose.randbytes(choose.choice((0, 1, 40, 300))) for key in choose.choices(self.keys, k=size)
        }
        return sorted(block.items())

    def _next_version(self) -> None:
        changes = self._block()
        self.version += 1
        if self.choose.random() < 0.3:
            self.pair.engines[1].shrink(self.choose.randrange(20))
        staged = self.pair.stage(changes, self.version)
        if self.choose.random() < 0.5:
            self._read(10)  # of the committed version, through nodes that the staged one shares
        self.pair.commit(staged)
        for key, value in changes:
            if value is None:
                self.expected.pop(key, None)
            else:
                self.expected[key] = value

    def _read(self, count: int) -> None:
        choose = self.choose
        for _ in range(count):
            key = choose.choice(self.keys) + choose.choice((b"", b"", b"\x00"))
            assert self.pair.engines[1].get(key) == self.expected.get(key)
        start, end = (choose.choice([None, *choose.sample(self.keys, 3)]) for _ in range(2))
        wanted = [(key, self.expected[key]) for key in sorted(self.expected) if (start is None or key >= start) and (end is None or key < end)]
        reverse = choose.random() < 0.5
        for engine in self.pair.engines:
            assert list(engine.iterate(start, end, reverse=reverse)) == (wanted[::-1] if reverse else wanted)

    def _damage(self) -> None:
        """Both engines refuse what they are given, or never ask for it; afterwards both go on as if nothing had been."""
        choose, pair = self.choose, self.pair
        good = list(pair.loads)
        pair.engines[1].shrink(choose.randrange(30))
        if choose.random() < 0.5:
            pair.reload()
        bad_bit, kind, after = choose.randrange(1 << 16), choose.randrange(5), choose.randrange(6)
        for at, engine in enumerate(pair.engines):
            asked = 0

            def load(key: NodeKey, at: int = at) -> bytes | None:
                nonlocal asked
                asked += 1
                raw = good[at](key)
                if asked <= after or raw is None:
                    return raw
                if kind == 0:
                    raise OSError("disk")
                if kind == 1:
                    return None
                damaged = bytearray(raw)
                if kind == 2:
                    del damaged[bad_bit % len(damaged) :]
                elif kind == 3:
                    damaged[bad_bit % len(damaged)] ^= 1 << bad_bit % 8
                else:
                    damaged += b"\x00"
                return bytes(damaged)

            pair.loads[at] = load
            before = list(self.expected.items())
            try:
                if choose.random() < 0.5:
                    assert sorted(engine.iterate()) == sorted(before)
                else:
                    engine.stage(Changes(self._block()), self.version + 1)
            except (CorruptStore, OSError):
                self.refused += 1
        pair.loads[:] = good
        self._read(10)


def keys_of_kind(kv: KVBackend, kind: bytes) -> list[bytes]:
    """Keys of the records of one kind, in order (``chain/store/multistore.py`` lists the kinds)."""
    return [key for key, _ in kv.iterate() if key[8:9] == kind]


def nodes_in(kv: KVBackend) -> int:
    """How many tree nodes are stored."""
    return len(keys_of_kind(kv, b"n"))
