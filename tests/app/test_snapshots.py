"""State-sync snapshots: taken from one application, offered to and restored by another through the ABCI calls."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Application, Settings
from chain.codec.registry import message_class
from chain.snapshots import CHUNK_BYTES, Snapshot, SnapshotError
from chain.store.kv import KVBackend, MemoryBackend
from chain.testing.driver import Driver
from tests.support import chain, genesis_document, send

ACCEPT, REJECT, REJECT_FORMAT, RETRY, REJECT_SNAPSHOT, ABORT = 1, 3, 4, 3, 5, 2


def abci(name: str, **fields: Any) -> Any:
    return message_class(f"tendermint.abci.{name}")(**fields)


@pytest.fixture
def source(tmp_path: Path) -> Driver:
    """A chain of 8 blocks with a snapshot of block 6."""
    app = build_application(MemoryBackend(), Settings(snapshot_interval=3, snapshot_keep_recent=1), snapshots=tmp_path / "snapshots")
    driver = Driver([app], genesis_document(app))
    driver.start()
    for block in range(8):
        driver.next_block([send(2, 3, 7, sequence=block), send(4, 5, 9, sequence=block)])
        assert app.snapshots is not None
        if app.snapshots._thread is not None:
            app.snapshots._thread.join()
    return driver


def offer(app: Application, snapshot: Any, app_hash: bytes) -> int:
    return int(app.offer_snapshot(abci("RequestOfferSnapshot", snapshot=snapshot, app_hash=app_hash)).result)


def hash_at(driver: Driver, height: int) -> bytes:
    app = driver.apps[0]
    with app.store.view(height) as view:  # type: ignore[attr-defined]
        return bytes(app.store._hash_of(view._roots))  # type: ignore[attr-defined]


def chunks(driver: Driver, snapshot: Any) -> list[bytes]:
    request = [abci("RequestLoadSnapshotChunk", height=snapshot.height, format=snapshot.format, chunk=at) for at in range(snapshot.chunks)]
    return [driver.apps[0].load_snapshot_chunk(one).chunk for one in request]


def apply(app: Application, number: int, chunk: bytes) -> Any:
    return app.apply_snapshot_chunk(abci("RequestApplySnapshotChunk", index=number, chunk=chunk, sender="peer"))


def listed(driver: Driver) -> Any:
    [snapshot] = driver.apps[0].list_snapshots(None).snapshots
    return snapshot


@pytest.mark.parametrize("native", [True, False], ids=["native", "plain"])
def test_a_restored_node_goes_on_with_equal_hashes(source: Driver, native: bool) -> None:
    snapshot = listed(source)
    assert (snapshot.height, snapshot.format) == (6, 1)
    kv = MemoryBackend()
    app = build_application(kv, Settings(native_core=native))
    assert offer(app, snapshot, hash_at(source, 6)) == ACCEPT
    for number, chunk in enumerate(chunks(source, snapshot)):
        assert apply(app, number, chunk).result == ACCEPT
    info = app.info(None)
    assert (info.last_block_height, info.last_block_app_hash) == (6, hash_at(source, 6))
    app.close()
    app = build_application(kv, Settings(native_core=not native))
    reference = source.apps[0]
    assert app.export() == reference.export(6)  # type: ignore[attr-defined]
    for height in (7, 8):
        answer = message_class("tendermint.abci.ResponseFinalizeBlock").FromString(app.finalize_block(source.blocks[height].request))
        app.commit(None)
        assert answer.app_hash == hash_at(source, height)
    assert not app.broken_invariants()


def test_a_snapshot_for_another_app_hash_leaves_the_node_empty(source: Driver) -> None:
    kv = MemoryBackend()
    app = build_application(kv)
    snapshot = listed(source)
    assert offer(app, snapshot, bytes(32)) == ACCEPT
    results = [apply(app, number, chunk).result for number, chunk in enumerate(chunks(source, snapshot))]
    assert results[-1] == REJECT_SNAPSHOT
    assert app.info(None).last_block_height == 0
    assert not list(kv.iterate())
    assert offer(app, snapshot, hash_at(source, 6)) == ACCEPT, "the next offer starts anew"


def test_a_wrong_chunk_is_fetched_again_and_its_sender_refused(source: Driver) -> None:
    app = build_application(MemoryBackend())
    snapshot = listed(source)
    assert apply(app, 0, b"").result == ABORT
    offer(app, snapshot, hash_at(source, 6))
    first = chunks(source, snapshot)[0]
    for bad in (first[:-1], first + b"x", bytes([first[0] ^ 1, *first[1:]]), b""):
        answer = apply(app, 0, bad)
        assert (answer.result, list(answer.refetch_chunks), list(answer.reject_senders)) == (RETRY, [0], ["peer"])
    assert list(apply(app, 5, first).refetch_chunks) == [0]
    assert apply(app, 0, first).result == ACCEPT


def test_offers_that_do_not_fit_are_refused(source: Driver) -> None:
    snapshot = listed(source)

    def changed(**fields: Any) -> Any:
        copy = type(snapshot)()
        copy.CopyFrom(snapshot)
        for name, value in fields.items():
            setattr(copy, name, value)
        return copy

    app = build_application(MemoryBackend())
    assert offer(app, changed(format=2), b"") == REJECT_FORMAT
    for bad in (changed(chunks=2), changed(chunks=0), changed(hash=bytes(32)), changed(metadata=b"[]"), changed(metadata=b"\xff"), changed(height=7)):
        assert offer(app, bad, b"") == REJECT
    assert offer(source.apps[0], snapshot, b"") == ABORT, "a node with blocks takes none"  # type: ignore[arg-type]


def test_a_header_that_no_app_hash_covers_is_checked_before_anything_is_restored(source: Driver) -> None:
    held = source.apps[0].snapshots.folder.get(6, 1)  # type: ignore[attr-defined]

    def with_header(header: bytes) -> Any:
        lied = Snapshot(6, 1, held.chunk_hashes, header)
        return abci("Snapshot", height=6, format=1, chunks=len(held.chunk_hashes), hash=lied.hash, metadata=lied.metadata)

    app = build_application(MemoryBackend())
    app.chain_id = "test-1"  # as the node sets it from its genesis file
    for header in (b"", b"test-1", b"test-1\n1\n1\n1", b"test-1\nx\n1", b"\xff\n1\n1", b"test-1\n-1\n1", b"test-1\n1\n7", b"test-1\n1\n0"):
        assert offer(app, with_header(header), b"") == REJECT
    assert offer(app, with_header(b"other-1\n1\n1"), b"") == REJECT
    assert offer(app, with_header(b"test-1\n" + b"9" * 2000 + b"\n1"), b"") == REJECT
    assert offer(app, with_header(b"test-1\n1\n1"), b"") == ACCEPT


def test_chunks_in_any_order_and_number_are_asked_for_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.snapshots.CHUNK_BYTES", 200)
    one = build_application(MemoryBackend(), Settings(), snapshots=tmp_path)
    driver = Driver([one], genesis_document(one))
    driver.start()
    driver.next_block([send(2, 3, 7)])
    assert one.snapshots is not None
    one.snapshots.take(1)
    snapshot = listed(driver)
    parts = chunks(driver, snapshot)
    assert len(parts) > 3
    app = build_application(MemoryBackend())
    assert offer(app, snapshot, one.store.app_hash) == ACCEPT
    choose = random.Random(7)
    wanted = 0
    while wanted < len(parts):
        number = choose.randrange(len(parts))
        answer = apply(app, number, parts[number])
        if number == wanted:
            assert answer.result == ACCEPT
            wanted += 1
        else:
            assert (answer.result, list(answer.refetch_chunks)) == (RETRY, [wanted])
    assert apply(app, 0, parts[0]).result == ABORT, "no restore is under way any more"
    assert (app.info(None).last_block_height, app.store.app_hash) == (1, one.store.app_hash)


def test_mutated_snapshots_never_restore_another_state(source: Driver) -> None:
    """Bytes that were changed before compression, with honest hashes over them: refused, or the same state."""
    import zlib

    from chain.snapshots import Restorer
    from chain.store.multistore import MultiStore

    whole = zlib.decompress(b"".join(chunks(source, listed(source))))
    choose = random.Random(4)
    app_hash, names = hash_at(source, 6), source.apps[0].store.names  # type: ignore[attr-defined]
    refused = 0
    for _ in range(400):
        mutant = bytearray(whole)
        match choose.randrange(3):
            case 0:
                mutant[choose.randrange(len(mutant))] ^= 1 << choose.randrange(8)
            case 1:
                del mutant[choose.randrange(len(mutant)) :]
            case _:
                mutant.insert(choose.randrange(len(mutant)), choose.randrange(256))
        store = MultiStore.open(MemoryBackend(), names)
        restorer = Restorer(store, Snapshot(6, 1, (b"",), b""))
        try:
            restorer.add(zlib.compress(bytes(mutant)))
            restorer.finish(app_hash)
        except SnapshotError:
            refused += 1
            assert store.latest_version == 0
    assert refused == 400


def test_a_kill_in_the_middle_of_a_restore_leaves_an_empty_node(source: Driver) -> None:
    kv: KVBackend = MemoryBackend()
    app = build_application(kv)
    snapshot = listed(source)
    offer(app, snapshot, hash_at(source, 6))
    restorer, _ = app._restoring  # type: ignore[misc]
    for chunk in chunks(source, snapshot):
        restorer.add(chunk)
    restorer._flush()
    assert len(list(kv.iterate())) > 20
    again = build_application(kv)
    assert again.info(None).last_block_height == 0
    assert not list(kv.iterate())


def test_leftovers_of_a_killed_snapshot_are_removed_and_old_ones_pruned(source: Driver, tmp_path: Path) -> None:
    folder = source.apps[0].snapshots.folder  # type: ignore[attr-defined]
    assert [one.height for one in folder.list()] == [6]
    partial = folder.root / "9" / "1.partial"
    partial.mkdir(parents=True)
    (partial / "0").write_bytes(b"half")
    assert [one.height for one in type(folder)(folder.root).list()] == [6]
    assert not partial.exists()


def test_large_states_come_in_several_chunks(tmp_path: Path) -> None:
    from chain.snapshots import SnapshotFolder, SnapshotTaker, chunks_of
    from chain.store.multistore import MultiStore

    choose = random.Random(1)
    store = MultiStore.open(MemoryBackend(), ["bank"])
    store.stage(1, {"bank": [(at.to_bytes(4, "big"), choose.randbytes(2000)) for at in range(10_000)]})
    store.commit({"header": b"h"})
    made = SnapshotTaker(store, SnapshotFolder(tmp_path), 0, 0).take(1)
    assert len(made.chunk_hashes) == 3
    with store.view(1) as view:
        assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks_of(view, store.names))


def test_blocks_that_snapshots_need_are_retained(tmp_path: Path) -> None:
    consensus = {"evidence": {"max_age_num_blocks": "1", "max_age_duration": "1", "max_bytes": "1000"}}
    settings = Settings(min_retain_blocks=2, snapshot_interval=4, snapshot_keep_recent=2)
    app = build_application(MemoryBackend(), settings, snapshots=tmp_path)
    driver = Driver([app], genesis_document(app, consensus=consensus))
    driver.start()
    assert [driver.next_block().retain_height for _ in range(10)] == [0] * 8 + [1, 2]
    plain = chain(settings=[Settings(min_retain_blocks=2)], blocks=0, consensus=consensus)
    assert [plain.next_block().retain_height for _ in range(4)] == [0, 0, 1, 2]
