"""The native tree against the plain one: the same roots, stored nodes and orphans, byte for byte, on histories that hypothesis makes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.store.engine import Changes, Engine, PlainEngine, Staged
from chain.store.errors import CorruptStore
from chain.store.fast import core
from chain.store.fast.core import NativeEngine
from chain.store.iavl import EMPTY_HASH, Change, NodeKey

KEYS = st.binary(min_size=1, max_size=3) | st.binary(min_size=1, max_size=80)
BLOCKS = st.lists(st.dictionaries(KEYS, st.none() | st.binary(max_size=70), max_size=30), min_size=1, max_size=8)


def test_the_native_core_is_built() -> None:
    assert core.available(), "make setup builds it"


@given(st.binary(max_size=300))
def test_both_forms_of_sha_256_are_right(data: bytes) -> None:
    assert core.sha256(data, plain=True) == core.sha256(data, plain=False) == hashlib.sha256(data).digest()


class Pair:
    """Both engines over one set of stored nodes each."""

    def __init__(self) -> None:
        self.stored: list[dict[NodeKey, bytes]] = [{}, {}]
        self.engines: list[Engine] = [
            PlainEngine(None, EMPTY_HASH, self.stored[0].get),
            NativeEngine(None, EMPTY_HASH, self.stored[1].get),
        ]

    def stage(self, changes: Sequence[Change], version: int) -> Staged:
        plain, native = (engine.stage(Changes(changes), version) for engine in self.engines)
        assert (plain.root_key, plain.root_hash) == (native.root_key, native.root_hash)
        assert list(plain.new_nodes) == list(native.new_nodes)
        assert sorted(_split(plain.orphans)) == sorted(_split(native.orphans))
        for at, one in enumerate((plain, native)):
            self.stored[at].update({(version, nonce): raw for nonce, raw in enumerate(one.new_nodes, start=1)})
        return native

    def commit(self, staged: Staged) -> None:
        for stored, engine in zip(self.stored, self.engines, strict=True):
            engine.commit()
            for key in _split(staged.orphans):
                del stored[key]

    def reload(self) -> None:
        root_key, root_hash = self.engines[0].root_key, self.engines[0].hash
        self.engines = [PlainEngine(root_key, root_hash, self.stored[0].get), NativeEngine(root_key, root_hash, self.stored[1].get)]


def _split(orphans: bytes) -> list[NodeKey]:
    return [(int.from_bytes(orphans[at : at + 8], "big"), int.from_bytes(orphans[at + 8 : at + 12], "big")) for at in range(0, len(orphans), 12)]


@settings(max_examples=200, deadline=None)
@given(BLOCKS, st.randoms(use_true_random=False))
def test_every_version_is_the_same_in_both_engines(blocks: list[dict[bytes, bytes | None]], choose: random.Random) -> None:
    pair = Pair()
    expected: dict[bytes, bytes] = {}
    for version, block in enumerate(blocks, start=1):
        changes = sorted(block.items())
        if choose.random() < 0.3:  # another proposal that is not decided
            other = sorted({key: b"other" if choose.random() < 0.7 else None for key in [*expected, *block]}.items())
            pair.stage(other, version)
            for key in expected:
                assert pair.engines[1].get(key) == expected[key]
        pair.commit(pair.stage(changes, version))
        for key, value in changes:
            if value is None:
                expected.pop(key, None)
            else:
                expected[key] = value
        match choose.randrange(4):
            case 0:
                pair.reload()
            case 1:
                pair.engines[1].shrink(choose.randrange(20))
        native = pair.engines[1]
        ordered = sorted(expected.items())
        assert list(native.iterate()) == ordered
        assert list(native.iterate(reverse=True)) == ordered[::-1]
        start, end = sorted((choose.randbytes(1), choose.randbytes(1)))
        assert list(native.iterate(start, end)) == list(pair.engines[0].iterate(start, end))
        for key in [*block, *expected, b"\x00", b"\xff\xff"]:
            assert native.get(key) == pair.engines[0].get(key) == expected.get(key)


@pytest.mark.parametrize("seed", range(6))
def test_long_histories_with_a_small_cache_are_the_same(seed: int) -> None:
    choose = random.Random(seed)
    pair = Pair()
    for version in range(1, 40):
        block = {
            choose.randrange(3000).to_bytes(2, "big"): None if choose.random() < 0.3 else choose.randbytes(choose.randrange(40)) for _ in range(200)
        }
        pair.commit(pair.stage(sorted(block.items()), version))
        if version % 3 == 0:
            pair.engines[1].shrink(100)
    assert list(pair.engines[0].iterate()) == list(pair.engines[1].iterate())


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_damaged_node_is_refused_by_its_key(damage: str) -> None:
    pair = Pair()
    pair.commit(pair.stage([(bytes([at]), b"value") for at in range(50)], 1))
    pair.reload()
    key = (1, 7)
    raw = pair.stored[1][key]
    if damage == "missing":
        del pair.stored[1][key]
    else:
        pair.stored[1][key] = raw[:-1] if damage == "cut" else bytes([*raw[:-1], raw[-1] ^ 1])
    with pytest.raises(CorruptStore, match=r"tree node \(1, 7\)"):
        list(pair.engines[1].iterate())
    with pytest.raises(CorruptStore, match=r"tree node \(1, 7\)"):
        pair.engines[1].stage(Changes([(bytes([at]), b"other") for at in range(50)]), 2)
    pair.stored[1][key] = raw
    assert len(list(pair.engines[1].iterate())) == 50, "what failed left the committed version as it was"


def test_an_error_of_the_database_reaches_the_caller() -> None:
    def load(key: NodeKey) -> bytes | None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        NativeEngine((1, 1), bytes(32), load).get(b"key")
