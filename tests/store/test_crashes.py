"""A machine that stops, a disk that is full, and files that are torn: the last or the new version, or one sentence, and never other data.

Databases apply writes in order, so what a power cut leaves is what a stop after one of the writes leaves. Every write is tried.
"""

from __future__ import annotations

import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from chain import snapshots
from chain.snapshots import Restorer, Snapshot, chunks_of
from chain.store import ics23, multistore
from chain.store.errors import CorruptStore, StoreError
from chain.store.kv import KVBackend, MemoryBackend, open_backend
from chain.store.multistore import MultiStore
from tests.store.engine_pair import keys_of_kind, nodes_in

OLD, NAMES = ("acc", "bank"), ("acc", "bank", "names")
VERSIONS = 9
State = dict[str, dict[bytes, bytes]]
Block = dict[str, list[tuple[bytes, bytes | None]]]


def block(version: int) -> Block:
    """The same changes for the same version in every run; the third store exists from version 5 on."""
    choose = random.Random(version)
    found: Block = {}
    for name in NAMES if version >= 5 else OLD:
        made = {choose.randbytes(1): None if choose.random() < 0.3 else choose.randbytes(4) for _ in range(20)}
        found[name] = sorted(made.items())
    return found


def reference() -> list[tuple[bytes, State]]:
    """(app hash, entries) of every version, 0 first."""
    store = MultiStore.open(MemoryBackend(), OLD)
    state: State = {name: {} for name in NAMES}
    history = [(store.app_hash, {name: dict(entries) for name, entries in state.items()})]
    for version in range(1, VERSIONS + 1):
        if version == 5:
            store.flush()
            store = MultiStore.open(store._kv, NAMES)
        changes = block(version)
        app_hash = store.stage(version, changes)
        store.commit()
        for name, items in changes.items():
            for key, value in items:
                if value is None:
                    state[name].pop(key, None)
                else:
                    state[name][key] = value
        history.append((app_hash, {name: dict(entries) for name, entries in state.items()}))
    store.close()
    return history


HISTORY = reference()


class Dies:
    """A database on a machine that stops: the n-th write and all later ones never happen."""

    def __init__(self, inner: KVBackend, writes: int) -> None:
        self.inner = inner
        self.left = writes
        self.get, self.iterate, self.compact, self.close = inner.get, inner.iterate, inner.compact, inner.close

    def write(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = (), *, sync: bool) -> None:
        if self.left <= 0:
            raise OSError("the machine stopped")
        self.left -= 1
        self.inner.write(puts, deletes, sync=sync)


class Machine:
    """One database, opened again and again, and the writes that are left until the machine stops."""

    def __init__(self, kind: str, path: Path, native: bool, left: int) -> None:
        self.kind, self.path, self.native, self.left = kind, path, native, left
        self._memory = MemoryBackend()
        self._store: MultiStore | None = None
        self._kv: Dies | None = None

    def reopen(self, names: tuple[str, ...]) -> MultiStore:
        """Closed in order if it is open, and opened. Raises OSError when the machine stops meanwhile."""
        if self._store is not None:
            self._store.flush()
            self.stop()
        self._kv = Dies(self._memory if self.kind == "memdb" else open_backend(self.kind, self.path), self.left)
        try:
            self._store = MultiStore.open(self._kv, names, native=self.native)
        except OSError:
            self._kv.close()
            raise
        return self._store

    def stop(self) -> None:
        """Release the database as it is."""
        if self._store is not None and self._kv is not None:
            self._store.close()
            self.left, self._store = self._kv.left, None


class Life:
    """A store's life, step by step: blocks, a new store, pruning, a rollback. ``allowed`` are the versions a stop may leave."""

    def __init__(self) -> None:
        self.allowed = {0}

    def commit(self, store: MultiStore, version: int) -> None:
        self.allowed = {version - 1, version}
        assert store.stage(version, block(version)) == HISTORY[version][0]
        store.commit({"header": b"%d" % version})
        self.allowed = {version}

    def run(self, reopen: Callable[[tuple[str, ...]], MultiStore]) -> None:
        store = reopen(OLD)
        for version in range(1, 5):
            self.commit(store, version)
        store = reopen(NAMES)
        for version in range(5, 8):
            self.commit(store, version)
        store.prune_to(4)
        self.allowed = {7, 6}
        store.rollback(6)
        self.allowed = {6}
        for version in range(7, 9):
            self.commit(store, version)
        store.flush()
        store.prune_to(6)


def check_whole(store: MultiStore) -> None:
    """Every kept version holds what it held, and proves it."""
    choose = random.Random(1)
    for version in range(max(store.oldest_version(), 1), store.latest_version + 1):
        app_hash, state = HISTORY[version]
        with store.view(version) as view:
            for name in NAMES if version >= 5 else OLD:
                assert dict(view.store(name).iterate()) == state[name]
                for key in choose.sample(range(256), 8):
                    assert view.store(name).get(bytes([key])) == state[name].get(bytes([key]))
        for name in OLD:
            key = choose.choice([*state[name]])
            value, ops = store.prove(name, key, version)
            inner, outer = (ics23.decode_proof(op.data) for op in ops.ops)
            root = ics23.calculate_root(inner)
            assert value == state[name][key]
            assert ics23.verify_membership(ics23.TENDERMINT_SPEC, app_hash, outer, name.encode(), root)
            assert ics23.verify_membership(ics23.IAVL_SPEC, root, inner, key, value)
    assert store.app_hash == HISTORY[store.latest_version][0]


def check_goes_on(store: MultiStore, reopen: Callable[[tuple[str, ...]], MultiStore]) -> None:
    """The versions that follow are the same, and pruning leaves the nodes of the last one and nothing else."""
    for version in range(store.latest_version + 1, VERSIONS + 1):
        if version == 5:
            store.flush()
            store = reopen(NAMES)
        assert store.stage(version, block(version)) == HISTORY[version][0]
        store.commit({"header": b"%d" % version})
    store.prune_to(VERSIONS - 1)
    store.flush()
    state = HISTORY[VERSIONS][1]
    assert nodes_in(store._kv) == sum(2 * len(entries) - 1 for entries in state.values() if entries)
    last = VERSIONS.to_bytes(8, "big")
    assert [key for key, _ in store._kv.iterate() if key[8:9] != b"n"] == [last + b"c", last + b"lheader", last + b"v"]
    store.close()


@pytest.mark.parametrize(
    ("kind", "native", "step"),
    [("memdb", True, 1), ("memdb", False, 4), ("plyvel", True, 4), ("rocksdb", True, 5)],
    ids=["memory", "memory-plain-tree", "leveldb", "rocksdb"],
)
def test_a_stop_at_any_write_leaves_the_last_or_the_new_version(
    kind: str, native: bool, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write with the database in memory, every few on disk."""
    monkeypatch.setattr(multistore, "FLUSH_NODES", 7)
    writes = 0
    died = True
    while died:
        machine = Machine(kind, tmp_path / "db", native, writes)
        life = Life()
        died = False
        try:
            life.run(machine.reopen)
        except OSError:
            died = True
        machine.stop()
        machine.left = 10**6
        survivor = machine.reopen(NAMES if max(life.allowed) > 4 else OLD)
        assert survivor.latest_version in life.allowed, f"after {writes} writes"
        flushed, logged = (keys_of_kind(survivor._kv, kind)[-1:] for kind in (b"v", b"c"))
        assert [key[:8] for key in flushed] == [key[:8] for key in logged], "every log is applied"
        check_whole(survivor)
        check_goes_on(survivor, machine.reopen)
        shutil.rmtree(machine.path, ignore_errors=True)
        writes += step
    assert writes > 40


@pytest.mark.parametrize("honest", [True, False], ids=["accepted", "refused"])
def test_a_stop_at_any_write_of_a_restore_leaves_nothing_or_the_whole_version(honest: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    source = MultiStore.open(MemoryBackend(), OLD)
    for version in range(1, 5):
        source.stage(version, block(version))
        source.commit()
    monkeypatch.setattr(snapshots, "_BATCH_NODES", 11)
    monkeypatch.setattr(multistore, "WIPE_KEYS", 20)
    with source.view() as view:
        [chunk] = chunks_of(view, OLD)
    app_hash = source.app_hash
    writes = 0
    died = True
    while died:
        kv = MemoryBackend()
        died = False
        try:
            restorer = Restorer(MultiStore.open(Dies(kv, writes), OLD), Snapshot(4, 1, (b"",), b""))
            restorer.add(chunk)
            restorer.finish(app_hash if honest else bytes(32))
        except OSError:
            died = True
        except StoreError:
            assert not honest
        survivor = MultiStore.open(kv, OLD)
        assert (survivor.latest_version, len(list(kv.iterate())) > 0) in ([(0, False), (4, True)] if honest else [(0, False)])
        if survivor.latest_version == 0:
            again = Restorer(survivor, Snapshot(4, 1, (b"",), b""))
            again.add(chunk)
            again.finish(app_hash)
        assert (survivor.latest_version, survivor.app_hash) == (4, app_hash)
        check_whole(survivor)
        check_goes_on(survivor, lambda names, kv=kv: MultiStore.open(kv, names))  # type: ignore[misc]
        writes += 1
    assert writes > 5


def test_a_version_committed_after_a_restore_was_given_up_survives_a_restart() -> None:
    kv = MemoryBackend()
    store = MultiStore.open(kv, OLD)
    Restorer(store, Snapshot(7, 1, (b"",), b""))._kv.write([(bytes(7) + b"\x03nacc/left over", b"x")], sync=False)
    assert store.stage(1, block(1)) == HISTORY[1][0]
    store.commit()
    store.close()
    again = MultiStore.open(kv, OLD)
    assert (again.latest_version, again.app_hash) == (1, HISTORY[1][0])
    assert kv.get(bytes(7) + b"\x03nacc/left over") is None


COMMITTING = """
import sys
from pathlib import Path
from chain.store.kv import open_backend
from chain.store.multistore import MultiStore
from tests.store.test_crashes import OLD, large_block
store = MultiStore.open(open_backend(sys.argv[1], Path(sys.argv[2])), OLD)
for version in range(store.latest_version + 1, 1000):
    store.stage(version, large_block(version))
    store.commit()
    print(version, flush=True)
"""


def large_block(version: int) -> Block:
    choose = random.Random(version)
    return {name: sorted({choose.randbytes(2): choose.randbytes(100) for _ in range(60)}.items()) for name in OLD}


@pytest.mark.parametrize("kind", ["plyvel", "rocksdb"])
def test_sigkill_loses_nothing_that_was_committed(kind: str, tmp_path: Path) -> None:
    """The seed is the process's own: every run kills at other moments."""
    choose = random.Random()
    known = 0
    plain = MultiStore.open(MemoryBackend(), OLD)
    for _ in range(3):
        command = [sys.executable, "-c", COMMITTING, kind, str(tmp_path / "db")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            first = int(child.stdout.readline())
            time.sleep(choose.uniform(0, 0.3))
            child.send_signal(signal.SIGKILL)
            known = max([first, *map(int, child.stdout.read().split())])
        store = MultiStore.open(open_backend(kind, tmp_path / "db"), OLD)
        assert known <= store.latest_version <= known + 1
        for version in range(plain.latest_version + 1, store.latest_version + 1):
            plain.stage(version, large_block(version))
            plain.commit()
        assert store.app_hash == plain.app_hash
        with store.view() as view, plain.view() as expected:
            for name in OLD:
                assert list(view.store(name).iterate()) == list(expected.store(name).iterate())
        store.close()


@pytest.mark.parametrize("kind", ["plyvel", "rocksdb"])
def test_a_full_disk_stops_with_a_sentence_and_loses_nothing(kind: str, tmp_path: Path) -> None:
    """A child may not write files above a size, which fails its writes as a full disk does."""
    command = [sys.executable, "-c", COMMITTING, kind, str(tmp_path / "db")]
    child = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)), check=False
    )
    assert child.returncode != 0
    assert "StoreError: the database in" in child.stderr
    assert "cannot be written" in child.stderr
    committed = int(child.stdout.split()[-1])
    store = MultiStore.open(open_backend(kind, tmp_path / "db"), OLD)
    assert committed <= store.latest_version <= committed + 1
    plain = MultiStore.open(MemoryBackend(), OLD)
    for version in range(1, store.latest_version + 3):
        plain.stage(version, large_block(version))
        plain.commit()
        if version > store.latest_version:
            store.stage(version, large_block(version))
            store.commit()
    assert store.app_hash == plain.app_hash
    store.close()


def test_pruning_that_cannot_write_stops_the_next_commit_and_leaks_nothing() -> None:
    memory = MemoryBackend()
    kv = Dies(memory, 1000)
    store = MultiStore.open(kv, NAMES)
    for version in range(1, 6):
        store.stage(version, block(version))
        store.commit({"header": b"%d" % version})
    store.flush()
    kv.left = 0
    store._start_pruning(3)
    store._join_pruner()
    store.stage(6, block(6))
    with pytest.raises(OSError, match="the machine stopped"):
        store.commit()
    store.close()
    survivor = MultiStore.open(memory, NAMES)
    assert (survivor.oldest_version(), survivor.latest_version) == (1, 5)
    for version in range(6, VERSIONS + 1):
        survivor.stage(version, block(version))
        survivor.commit({"header": b"%d" % version})
    survivor.prune_to(VERSIONS - 1)
    with survivor.view() as view:
        sizes = [view.tree(name).size for name in NAMES]
    assert nodes_in(memory) == sum(2 * size - 1 for size in sizes)


# --- torn files ---------------------------------------------------------------------------------------------------------


def damaged_files(path: Path, choose: random.Random) -> Iterator[tuple[str, Callable[[], None]]]:
    """(what is done, the doing) for every file of a database: cut, bits flipped, a page of zeros, removed, emptied."""
    for file in sorted(path.iterdir()):
        if file.name in ("LOCK", "LOG", "LOG.old") or file.name.startswith("OPTIONS") or not file.is_file():
            continue
        size = file.stat().st_size

        def change(edit: Callable[[bytearray], None], file: Path = file) -> Callable[[], None]:
            def do() -> None:
                data = bytearray(file.read_bytes())
                edit(data)
                file.write_bytes(data)

            return do

        def cut(data: bytearray, at: int = choose.randrange(max(size, 1))) -> None:
            del data[at:]

        def zeros(data: bytearray, at: int = choose.randrange(max(size, 1))) -> None:
            data[at : at + 4096] = bytes(len(data[at : at + 4096]))

        yield f"{file.name} cut", change(cut)
        yield f"{file.name} zeroed", change(zeros)
        yield f"{file.name} emptied", change(bytearray.clear)
        yield f"{file.name} removed", file.unlink
        for at in (choose.randrange(max(size, 1)) for _ in range(3)):

            def flip(data: bytearray, at: int = at) -> None:
                if data:
                    data[at % len(data)] ^= 1 << at % 8

            yield f"{file.name} flipped at {at}", change(flip)


@pytest.mark.parametrize("kind", ["plyvel", "rocksdb"])
def test_torn_and_damaged_files_never_give_other_data(kind: str, tmp_path: Path) -> None:
    """A database of tables, a log and a manifest, one file damaged: it opens at a version that was, or says in a sentence what to do; what is
    read then is right or refused.
    """
    outcomes = damage_all_files(kind, tmp_path, 5)
    assert all(outcomes.values()), outcomes


@pytest.mark.parametrize("kind", ["plyvel", "rocksdb"])
def test_a_log_whose_end_never_reached_the_disk_opens_at_a_version_before(kind: str, tmp_path: Path) -> None:
    for number, garble in enumerate((lambda size: bytes(size), lambda size: random.Random(size).randbytes(size), lambda size: b"")):
        path = tmp_path / str(number)
        store = MultiStore.open(open_backend(kind, path), OLD)
        hashes = [store.app_hash]
        for version in range(1, 13):
            hashes.append(store.stage(version, large_block(version)))
            store.commit()
        store.close()
        newest = max(path.glob("*.log"))
        data = newest.read_bytes()
        newest.write_bytes(data[:-60_000] + garble(60_000))
        store = MultiStore.open(open_backend(kind, path), OLD)
        assert 1 <= store.latest_version <= 12
        assert store.app_hash == hashes[store.latest_version]
        for version in range(store.latest_version + 1, 13):
            assert store.stage(version, large_block(version)) == hashes[version]
            store.commit()
        store.close()


def damage_all_files(kind: str, tmp_path: Path, seed: int) -> dict[str, int]:
    """How often a damaged database was read, refused to open, refused to read. Raises AssertionError for anything else."""
    store = MultiStore.open(open_backend(kind, tmp_path / "whole"), OLD)
    plain = MultiStore.open(MemoryBackend(), OLD)
    expected: list[tuple[bytes, State]] = [(store.app_hash, {name: {} for name in OLD})]
    for version in range(1, 13):
        store.stage(version, large_block(version))
        store.commit({"header": b"%d" % version})
        plain.stage(version, large_block(version))
        plain.commit()
        with plain.view() as view:
            expected.append((plain.app_hash, {name: dict(view.store(name).iterate()) for name in OLD}))
        if version == 5:
            store.flush()
            store.compact()
        if version == 10:
            store.prune_to(2)
    store.close()
    outcomes = {"read": 0, "refused to open": 0, "refused to read": 0}
    for number, (what, damage) in enumerate(damaged_files(tmp_path / "whole", random.Random(seed))):
        copy = tmp_path / f"whole-{number}"
        shutil.copytree(tmp_path / "whole", copy)
        shutil.rmtree(tmp_path / "kept", ignore_errors=True)
        (tmp_path / "whole").rename(tmp_path / "kept")
        copy.rename(tmp_path / "whole")
        try:
            damage()
            outcomes[outcome(kind, tmp_path / "whole", expected, what)] += 1
        finally:
            shutil.rmtree(tmp_path / "whole")
            (tmp_path / "kept").rename(tmp_path / "whole")
    return outcomes


def refused(error: StoreError, what: str) -> str:
    assert any(advice in str(error) for advice in ("restore", "see that")), str(error)
    return f"refused to {what}"


def outcome(kind: str, path: Path, expected: list[tuple[bytes, State]], what: str) -> str:
    try:
        kv = open_backend(kind, path)
    except StoreError as error:
        return refused(error, "open")
    try:
        store = MultiStore.open(kv, OLD)
    except StoreError as error:
        kv.close()
        return refused(error, "open")
    try:
        assert store.app_hash == expected[store.latest_version][0], what
        for version in range(max(store.oldest_version(), 1), store.latest_version + 1):
            assert store.record("header", version) in (b"%d" % version, None), what
            with store.view(version) as view:
                for name in OLD:
                    state = expected[version][1][name]
                    assert dict(view.store(name).iterate()) == state, what
                    for key in list(state)[::7]:
                        assert view.store(name).get(key) == state[key], what
        following = store.latest_version + 1
        if following < len(expected):
            assert store.stage(following, large_block(following)) == expected[following][0], what
    except CorruptStore as error:
        return refused(error, "read")
    finally:
        store.close()
    return "read"
