"""The native tree against the plain one: the same roots, stored nodes and orphans, byte for byte, on histories that hypothesis makes."""

from __future__ import annotations

import hashlib
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.store.engine import Changes
from chain.store.errors import CorruptStore
from chain.store.fast import core
from chain.store.fast.core import NativeEngine
from chain.store.iavl import NodeKey
from tests.store.engine_pair import History, Pair
from tools.build_core import _compilers

KEYS = st.binary(min_size=1, max_size=3) | st.binary(min_size=1, max_size=80)
BLOCKS = st.lists(st.dictionaries(KEYS, st.none() | st.binary(max_size=70), max_size=30), min_size=1, max_size=8)


def test_the_native_core_is_built() -> None:
    assert core.available(), "make setup builds it"


@given(st.binary(max_size=300))
def test_both_forms_of_sha_256_are_right(data: bytes) -> None:
    assert core.sha256(data, plain=True) == core.sha256(data, plain=False) == hashlib.sha256(data).digest()


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


@pytest.mark.parametrize("seed", range(8))
def test_both_engines_live_through_the_same_damage_restarts_and_undecided_proposals(seed: int) -> None:
    """``make soak SOAK=native-core`` does this for long, and with the core under the address and undefined-behaviour sanitizers."""
    history = History(seed)
    for _ in range(150):
        history.step()
    assert history.refused > 5


@pytest.mark.parametrize("engine", [0, 1], ids=["plain", "native"])
def test_an_inner_nodes_key_cannot_be_damaged_unnoticed(engine: int) -> None:
    """The tree's hashes do not cover it, and a search that turns the wrong way would find nothing where there is something."""
    pair = Pair()
    pair.commit(pair.stage([(bytes([at, 7]), b"value") for at in range(50)], 1))
    raw = pair.stored[engine][(1, 2)]
    assert raw[2] == 2, "after height and size comes a key of two bytes"
    pair.stored[engine][(1, 2)] = raw[:4] + b"\x09" + raw[5:]
    pair.reload()
    with pytest.raises(CorruptStore, match=r"tree node \(1, 2\)"):
        pair.engines[engine].get(b"\x00\x07")


def test_a_library_of_other_rules_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "other.c"
    source.write_text("int core_stored_form(void) { return 1; }")
    library = tmp_path / "core.so"
    subprocess.run([*next(_compilers()), "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    for path in (library, tmp_path / "absent.so", source):
        monkeypatch.setattr(core, "LIBRARY", path)
        assert core._open_library() is None
