"""The committed store: versions, proofs, rollback, pruning, damage and kills."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import pytest

from chain.store import ics23, proofs
from chain.store.errors import CorruptStore, FutureVersion, StoreError, StoreLocked, VersionPruned
from chain.store.kv import KVBackend, MemoryBackend, open_backend
from chain.store.multistore import MultiStore
from chain.store.pruning import Pruning
from tests.store.engine_pair import keys_of_kind, nodes_in

NAMES = ("acc", "bank", "ibc")
BACKENDS = ("plyvel", "rocksdb", "memdb")
Changes = dict[str, list[tuple[bytes, bytes | None]]]


def random_block(choose: random.Random, size: int = 40) -> Changes:
    changes: Changes = {}
    for name in NAMES[:2]:
        block = {choose.randbytes(choose.randrange(1, 3)): choose.randbytes(choose.randrange(1, 6)) for _ in range(choose.randrange(size))}
        changes[name] = sorted((key, None if choose.random() < 0.3 else value) for key, value in block.items())
    return changes


def grow(store: MultiStore, versions: int, seed: int = 1, start: int = 1) -> list[tuple[bytes, dict[str, dict[bytes, bytes]]]]:
    """Commit random versions; returns (app hash, entries per store) of each."""
    state: dict[str, dict[bytes, bytes]] = {name: {} for name in NAMES}
    history = []
    for version in range(start, start + versions):
        changes = random_block(random.Random(seed * 1000 + version))
        app_hash = store.stage(version, changes)
        store.commit({"header": str(version).encode()})
        for name, block in changes.items():
            for key, value in block:
                if value is None:
                    state[name].pop(key, None)
                else:
                    state[name][key] = value
        history.append((app_hash, {name: dict(entries) for name, entries in state.items()}))
    return history


@pytest.mark.parametrize("kind", BACKENDS)
def test_every_committed_version_can_be_read_as_it_was(kind: str, tmp_path: Path) -> None:
    kv = open_backend(kind, tmp_path / "db")
    store = MultiStore.open(kv, NAMES)
    history = grow(store, 12)
    if kind != "memdb":
        store.close()
        store = MultiStore.open(open_backend(kind, tmp_path / "db"), NAMES)
    assert store.latest_version == 12
    assert store.app_hash == history[-1][0]
    for version, (_, state) in enumerate(history, start=1):
        with store.view(version) as view:
            for name in NAMES:
                assert dict(view.store(name).iterate()) == state[name]
        assert store.record("header", version) == str(version).encode()
    store.close()


def test_backends_give_the_same_app_hashes(tmp_path: Path) -> None:
    hashes = []
    for kind in BACKENDS:
        store = MultiStore.open(open_backend(kind, tmp_path / kind), NAMES, cache_nodes=10 if kind == "memdb" else 10**6)
        hashes.append([app_hash for app_hash, _ in grow(store, 8)])
        store.close()
    assert hashes[0] == hashes[1] == hashes[2]


def verify(store: MultiStore, name: str, key: bytes, version: int, app_hash: bytes) -> bytes | None:
    """What the proof shows to be at ``key``, checked by ICS-23 alone."""
    value, ops = store.prove(name, key, version)
    inner, outer = (ics23.decode_proof(op.data) for op in ops.ops)
    assert [op.type for op in ops.ops] == ["ics23:iavl", "ics23:simple"]
    root = ics23.calculate_root(inner)
    assert ics23.verify_membership(ics23.TENDERMINT_SPEC, app_hash, outer, name.encode(), root)
    if value is None:
        assert ics23.verify_non_membership(ics23.IAVL_SPEC, root, inner, key)
    else:
        assert ics23.verify_membership(ics23.IAVL_SPEC, root, inner, key, value)
    return value


def test_presence_and_absence_are_proved_at_every_version() -> None:
    store = MultiStore.open(MemoryBackend(), NAMES)
    history = grow(store, 6)
    choose = random.Random(5)
    for version, (app_hash, state) in enumerate(history, start=1):
        for name in NAMES[:2]:
            keys = [*state[name], *(choose.randbytes(2) for _ in range(20)), b"\x00", b"\xff\xff\xff"]
            for key in keys:
                if state[name]:
                    assert verify(store, name, key, version, app_hash) == state[name].get(key)
    with pytest.raises(proofs.NoProof):
        store.prove("ibc", b"key", 6)


def test_reference_multistore_roots_come_out() -> None:
    store = MultiStore.open(MemoryBackend(), ["ibc"])
    assert store.stage(1, {}).hex() == "5e66fe7dadcc5a32eab65a8dcc164f4fafbf6835d51d7cf5a49e9de0fd621252"
    store = MultiStore.open(MemoryBackend(), ["bank", "ibc", "transfer", "upgrade"])
    assert store.stage(1, {}).hex() == "57d7dca3c42ae4ecc8e82e2dc45e49b171ff5f76e0779eed6cce4ff57841d49c"


def test_staging_touches_nothing_committed_and_may_be_repeated() -> None:
    store = MultiStore.open(MemoryBackend(), NAMES)
    history = grow(store, 3)
    first = store.stage(4, {"bank": [(b"a", b"1")]})
    assert store.app_hash == history[-1][0]
    other = store.stage(4, {"bank": [(b"a", b"2")]})
    assert first != other
    assert store.stage(4, {"bank": [(b"a", b"1")]}) == first
    with store.view() as view:
        assert dict(view.store("bank").iterate()) == history[-1][1]["bank"]
    with pytest.raises(ValueError, match="version after 3 is 4"):
        store.stage(6, {})


def test_a_rollback_gives_the_older_version_and_the_same_future(tmp_path: Path) -> None:
    store = MultiStore.open(open_backend("plyvel", tmp_path / "db"), NAMES)
    history = grow(store, 10)
    store.rollback(7)
    assert (store.latest_version, store.app_hash) == (7, history[6][0])
    with pytest.raises(FutureVersion):
        store.view(8)
    again = grow(store, 3, start=8)
    assert [app_hash for app_hash, _ in again] == [app_hash for app_hash, _ in history[7:]]
    store.close()


def test_pruning_deletes_what_no_kept_version_needs() -> None:
    kv = MemoryBackend()
    store = MultiStore.open(kv, NAMES)
    history = grow(store, 30)
    store.prune_to(27)
    assert store.oldest_version() == 28
    with pytest.raises(VersionPruned, match="oldest is 28"):
        store.view(27)
    for version in (28, 29, 30):
        with store.view(version) as view:
            assert dict(view.store("bank").iterate()) == history[version - 1][1]["bank"]
    store.prune_to(29)
    assert nodes_in(kv) == sum(max(2 * len(entries) - 1, 0) for entries in history[-1][1].values())


def test_pruning_stops_at_a_version_that_is_being_read() -> None:
    store = MultiStore.open(MemoryBackend(), NAMES)
    history = grow(store, 9)
    with store.view(4) as view:
        store.prune_to(8)
        assert store.oldest_version() == 4
        assert dict(view.store("acc").iterate()) == history[3][1]["acc"]
    store.prune_to(8)
    assert store.oldest_version() == 9


def test_a_pruning_policy_runs_by_itself() -> None:
    store = MultiStore.open(MemoryBackend(), NAMES, pruning=Pruning.named("everything"))
    grow(store, 30)
    store._join_pruner()
    assert store.oldest_version() == 28


def test_a_new_store_starts_empty_at_the_next_version() -> None:
    kv = MemoryBackend()
    store = MultiStore.open(kv, NAMES)
    grow(store, 3)
    store.close()
    store = MultiStore.open(kv, [*NAMES, "names"])
    store.stage(4, {"names": [(b"k", b"v")]})
    store.commit()
    assert set(store.root_hashes(3)) == set(NAMES)
    assert set(store.root_hashes(4)) == {*NAMES, "names"}
    assert verify(store, "names", b"k", 4, store.app_hash) == b"v"


def test_a_database_in_use_is_refused_in_one_sentence(tmp_path: Path) -> None:
    first = open_backend("plyvel", tmp_path / "db")
    with pytest.raises(StoreLocked, match="in use by another process"):
        open_backend("plyvel", tmp_path / "db")
    first.close()


def test_closing_waits_for_readers_and_refuses_those_that_come_later(tmp_path: Path) -> None:
    """LevelDB ends the process when it is closed under a read."""
    for round_number in range(20):
        kv = open_backend("plyvel", tmp_path / str(round_number))
        kv.write([(number.to_bytes(4, "big"), bytes(1000)) for number in range(2000)], sync=False)
        refused: list[str] = []

        def read(kv: KVBackend = kv, refused: list[str] = refused) -> None:
            try:
                while True:
                    kv.get((1999).to_bytes(4, "big"))
                    deque(kv.iterate(), maxlen=0)
            except StoreError as error:
                refused.append(str(error))

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        kv.close()
        for reader in readers:
            reader.join()
        assert len(refused) == 3
        assert "is closed" in refused[0]
        open_backend("plyvel", tmp_path / str(round_number)).close()


def test_a_flipped_bit_in_any_record_is_noticed_or_harmless() -> None:
    kv = MemoryBackend()
    store = MultiStore.open(kv, NAMES)
    app_hash, state = grow(store, 5)[-1]
    store.close()
    choose = random.Random(3)
    for key, raw in list(kv.iterate()):
        at = choose.randrange(len(raw))
        damaged = bytearray(raw)
        damaged[at] ^= 1 << choose.randrange(8)
        kv.write([(key, bytes(damaged))], sync=True)
        try:
            again = MultiStore.open(kv, NAMES)
            assert again.app_hash == app_hash
            with again.view() as view:
                for name in NAMES:
                    assert dict(view.store(name).iterate()) == state[name]
                    assert {one: view.store(name).get(one) for one in state[name]} == state[name]
        except CorruptStore:
            pass
        kv.write([(key, raw)], sync=True)


class DiesAfter(MemoryBackend):
    """Stands for a machine that stops: the n-th write and all later ones never happen."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes

    def write(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = (), *, sync: bool) -> None:
        if self.left <= 0:
            raise OSError("the machine stopped")
        self.left -= 1
        super().write(puts, deletes, sync=sync)


def test_a_log_that_does_not_lead_to_its_root_is_refused() -> None:
    kv = DiesAfter(1)
    store = MultiStore.open(kv, NAMES)
    with contextlib.suppress(OSError):
        grow(store, 5)
    store.close()
    kv.left = 10**6
    key = keys_of_kind(kv, b"c")[0]
    raw = kv.get(key)
    value = bytearray(raw[8:])
    value[10] ^= 1  # in the first root
    kv.write([(key, hashlib.sha256(key + value).digest()[:8] + value)], sync=True)
    with pytest.raises(CorruptStore, match="does not lead to its root"):
        MultiStore.open(kv, NAMES)


def test_a_version_reads_alike_before_and_after_its_nodes_are_on_disk() -> None:
    kv = Held()
    store = MultiStore.open(kv, NAMES)
    history = grow(store, 6)
    for _ in range(2):
        for version, (app_hash, state) in enumerate(history, start=1):
            with store.view(version) as view:
                for name in NAMES:
                    assert dict(view.store(name).iterate()) == state[name]
            for key in list(state["acc"])[:5]:
                assert verify(store, "acc", key, version, app_hash) == state["acc"][key]
        kv.go.set()
        store.flush()
        assert len(keys_of_kind(kv, b"v")) == 6
    store.close()


class Held(MemoryBackend):
    """A disk on which the flusher makes no progress until ``go``."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = (), *, sync: bool) -> None:
        if not sync:
            self.go.wait()
        super().write(puts, deletes, sync=sync)


@pytest.mark.parametrize("native", [True, False], ids=["native", "plain"])
def test_views_taken_while_versions_come_and_are_pruned_read_their_version_or_are_refused(native: bool) -> None:
    """Readers in threads of their own take any version at any moment; each sees exactly what it was, or that it is not kept."""
    expected = [state for _, state in grow(MultiStore.open(MemoryBackend(), NAMES), 120)]
    store = MultiStore.open(MemoryBackend(), NAMES, pruning=Pruning(5, 2), native=native)
    done = threading.Event()
    wrong: list[object] = []
    read = [0, 0]

    def reader(seed: int) -> None:
        choose = random.Random(seed)
        while not done.is_set():
            version = max(store.latest_version - choose.randrange(-1, 9), 1)
            try:
                with store.view(version) as view:
                    for name in NAMES[:2]:
                        if dict(view.store(name).iterate()) != expected[version - 1][name]:
                            wrong.append(version)
                read[0] += 1
            except (VersionPruned, FutureVersion):
                read[1] += 1
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    grow(store, 120)
    done.set()
    for thread in threads:
        thread.join()
    store._join_pruner()
    assert not wrong
    assert read[0], "readers came to read"
    store.prune_to(119)
    assert store.oldest_version() == 120, "no reader left a version held"
    store.close()


def test_a_rollback_waits_for_versions_that_are_not_on_disk() -> None:
    kv = Held()
    store = MultiStore.open(kv, NAMES)
    history = grow(store, 6)
    assert store.pending_versions() == 6
    threading.Timer(0.1, kv.go.set).start()
    store.rollback(4)
    assert (store.latest_version, store.app_hash, store.pending_versions()) == (4, history[3][0], 0)
    assert [app_hash for app_hash, _ in grow(store, 2, start=5)] == [app_hash for app_hash, _ in history[4:]]
    store.close()


def test_pruning_waits_for_the_flusher_and_leaks_nothing() -> None:
    kv = Held()
    store = MultiStore.open(kv, NAMES)
    history = grow(store, 6)
    store._start_pruning(5)
    assert store.oldest_version() == 1
    kv.go.set()
    store._join_pruner()
    store.flush()
    assert store.oldest_version() == 6
    assert nodes_in(kv) == sum(max(2 * len(entries) - 1, 0) for entries in history[-1][1].values())
    store.close()


def test_a_restart_finds_the_oldest_version_that_pruning_left() -> None:
    kv = MemoryBackend()
    store = MultiStore.open(kv, NAMES)
    history = grow(store, 12)
    store.flush()
    store.prune_to(8)
    store.close()
    again = MultiStore.open(kv, NAMES)
    assert (again.oldest_version(), again.latest_version) == (9, 12)
    again.rollback(10)
    assert (again.oldest_version(), again.app_hash) == (9, history[9][0])
    again.close()
    last = MultiStore.open(kv, NAMES)
    assert (last.oldest_version(), last.latest_version) == (9, 10)


def test_a_database_of_an_earlier_form_is_named() -> None:
    kv = MemoryBackend()
    kv.write([(b"mlatest", bytes(16))], sync=True)
    with pytest.raises(StoreError, match="written by an earlier version of this program"):
        MultiStore.open(kv, NAMES)


@pytest.mark.parametrize("lost", [b"v", b"vc"])
def test_lost_roots_follow_from_the_log_and_a_version_without_both_is_noticed(lost: bytes) -> None:
    kv = MemoryBackend()
    store = MultiStore.open(kv, NAMES)
    history = grow(store, 5)
    store.flush()
    store.close()
    kv.write((), [keys_of_kind(kv, bytes([kind]))[-1] for kind in lost], sync=True)
    if lost == b"vc":
        with pytest.raises(CorruptStore, match="neither the roots nor the log"):
            MultiStore.open(kv, NAMES)
    else:
        again = MultiStore.open(kv, NAMES)
        assert (again.latest_version, again.app_hash) == (5, history[-1][0])
