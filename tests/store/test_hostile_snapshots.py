"""Snapshots from a peer who lies: every chunk has the hash its metadata names, and what they hold is made to hurt."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from chain import snapshots
from chain.snapshots import Restorer, Snapshot, SnapshotError, SnapshotFolder, chunks_of
from chain.store.errors import CorruptStore
from chain.store.kv import MemoryBackend
from chain.store.multistore import MultiStore
from chain.store.pruning import Pruning
from tests.store.test_multistore import NAMES, grow

HEIGHT = 9


def uvarint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def leaf(key: bytes, value: bytes = b"v", version: int = 1) -> bytes:
    return b"\x02" + uvarint(version) + uvarint(len(key)) + key + uvarint(len(value)) + value


def inner(version: int = 1) -> bytes:
    return b"\x03" + uvarint(version)


def store(*items: bytes, name: bytes = b"bank") -> bytes:
    return b"\x01" + bytes([len(name)]) + name + b"".join(items) + b"\x04"


def feed(restorer: Restorer, packed: bytes, size: int) -> None:
    for at in range(0, len(packed), size):
        restorer.add(packed[at : at + size])


A, B, C, D = leaf(b"a"), leaf(b"b"), leaf(b"c"), leaf(b"d")
LIES = {
    "version 0": (store(leaf(b"a", version=0)), "version 0; expected 1 to 9"),
    "version of the future": (store(leaf(b"a", version=HEIGHT + 1)), "version 10; expected 1 to 9"),
    "inner version of the future": (store(A, B, inner(HEIGHT + 1)), "version 10; expected 1 to 9"),
    "a version of 70 bits": (store(b"\x02" + b"\xff" * 9 + b"\x7f"), "more than 63 bits"),
    "a key that is too long": (store(b"\x02\x01" + uvarint(65_536)), "65536 bytes"),
    "a value that is too long": (store(b"\x02\x01\x01a" + uvarint(1 << 40)), f"{1 << 40} bytes"),
    "an empty key": (store(leaf(b"")), "not in order"),
    "keys out of order": (store(B, A, inner()), "not in order"),
    "a key twice": (store(A, A, inner()), "not in order"),
    "keys out of order across subtrees": (store(A, D, inner(), B, C, inner(), inner()), "not in order"),
    "an unbalanced tree": (store(A, B, C, D, inner(), inner(), inner()), "not balanced"),
    "an inner node without children": (store(A, inner()), "lacks its children"),
    "two roots": (store(A, B), "has no root"),
    "an unknown store": (store(A, name=b"gold"), "does not know: 'gold'"),
    "a store twice": (store(A) + store(A), "does not know: 'bank'"),
    "a node outside a store": (A, "expected a store"),
    "an unknown kind": (b"\x09", "expected a store"),
    "data after the end": (store(A) + b"\x05" + store(A), "goes on after its end"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_named_and_leaves_an_empty_database(lie: str) -> None:
    body, told = LIES[lie]
    kv = MemoryBackend()
    restorer = Restorer(MultiStore.open(kv, NAMES), Snapshot(HEIGHT, 1, (b"",), b""))
    packed = zlib.compress(b"STRS1" + body + b"\x05")
    with pytest.raises(SnapshotError, match=told):
        feed(restorer, packed, 7)
    assert MultiStore.open(kv, NAMES).latest_version == 0
    assert not list(kv.iterate())


def bombs() -> Iterator[tuple[str, bytes, str]]:
    yield "one value of zeros", b"STRS1\x01\x04bank\x02\x01\x01a" + uvarint(100 << 20) + bytes(100 << 20), "grows more than 100 times"
    yield "leaves without parents", b"STRS1\x01\x04bank" + b"".join(leaf(at.to_bytes(4, "big")) for at in range(1, 1000)), "not balanced"
    small = b"".join(store(name=name) for name in (b"acc", b"bank", b"ibc"))
    yield "more after the end", b"STRS1" + small + b"\x05" + bytes(60 << 20), "goes on after its end"


@pytest.mark.parametrize(("bomb", "told"), [pytest.param(bomb, told, id=name) for name, bomb, told in bombs()])
def test_a_chunk_that_grows_is_refused_before_it_takes_memory(bomb: bytes, told: str) -> None:
    packed = zlib.compress(bomb, 9)
    assert len(packed) < 200_000
    restorer = Restorer(MultiStore.open(MemoryBackend(), NAMES), Snapshot(HEIGHT, 1, (b"",), b""))
    del bomb
    tracemalloc.start()
    with pytest.raises(SnapshotError, match=told):
        restorer.add(packed)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 80 << 20


def test_chunks_after_the_end_are_refused() -> None:
    restorer = Restorer(MultiStore.open(MemoryBackend(), NAMES), Snapshot(HEIGHT, 1, (b"",), b""))
    restorer.add(zlib.compress(b"STRS1\x05"))
    with pytest.raises(SnapshotError, match="goes on after its end"):
        restorer.add(b"more")


def test_an_entry_of_many_pieces_is_restored(tmp_path: Path) -> None:
    choose = random.Random(2)
    source = MultiStore.open(MemoryBackend(), NAMES)
    app_hash = source.stage(1, {"bank": [(b"large", choose.randbytes(5 << 20)), (b"small", b"x")]})
    source.commit()
    target = MultiStore.open(MemoryBackend(), NAMES)
    restorer = Restorer(target, Snapshot(1, 1, (b"",), b""))
    with source.view() as view:
        for chunk in chunks_of(view, NAMES):
            feed(restorer, chunk, 300_000)
        restorer.finish(app_hash)
        with target.view() as restored:
            assert list(restored.store("bank").iterate()) == list(view.store("bank").iterate())


def test_metadata_that_does_not_fit_is_refused() -> None:
    header, chunk = "00", "11" * 32
    told = [b"[" * 100_000, b'{"chunks": ["%s"]}' % chunk.encode(), b'{"chunks": 1, "header": "00"}', b'{"chunks": [1], "header": "00"}', b"null"]
    told += [b'{"chunks":["1111"],"header":"00"}', b'{"chunks":["%s"],"header":"0g"}' % chunk.encode(), b"x" * (snapshots.MAX_METADATA_BYTES + 1)]
    for metadata in told:
        with pytest.raises(SnapshotError):
            Snapshot.from_offer(5, 1, 1, bytes(32), metadata)
    made = Snapshot(5, 1, (bytes.fromhex(chunk),), bytes.fromhex(header))
    assert Snapshot.from_offer(5, 1, 1, made.hash, made.metadata) == made
    for height, chunks in ((6, 1), (5, 2), (5, 0), (5, snapshots.MAX_CHUNKS + 1)):
        with pytest.raises(SnapshotError):
            Snapshot.from_offer(height, 1, chunks, made.hash, made.metadata)


def test_a_snapshot_taken_while_versions_are_pruned_is_of_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 100)
    source = MultiStore.open(MemoryBackend(), NAMES, pruning=Pruning.named("everything"))
    app_hash = grow(source, 12)[-1][0]
    view = source.view()
    taking = chunks_of(view, NAMES)
    chunks = [next(taking)]
    grow(source, 30, start=13, seed=2)
    source._join_pruner()
    assert source.oldest_version() <= 12, "the view holds it"
    chunks += taking
    view.close()
    source.prune_to(41)
    assert source.oldest_version() == 42
    target = MultiStore.open(MemoryBackend(), NAMES)
    restorer = Restorer(target, Snapshot(12, 1, (b"",), b""))
    for chunk in chunks:
        restorer.add(chunk)
    restorer.finish(app_hash)
    assert (target.latest_version, target.app_hash) == (12, app_hash)


def test_a_snapshot_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"first"
        raise CorruptStore("a node is missing")

    folder = SnapshotFolder(tmp_path)
    with pytest.raises(CorruptStore):
        folder.write(5, b"", broken())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert folder.list() == []
