"""What the share store promises to its callers: what was finished is there, what was not is nowhere, and only right bytes are handed out."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sds_node.merkle import LEAF_BYTES, MAX_SHARE_BYTES, leaf_proved, share_root
from sds_node.resource.store import (
    Kept,
    Settings,
    ShareDamaged,
    ShareExists,
    ShareNotFound,
    ShareRefused,
    ShareStore,
    State,
    StoreBusy,
    StoreFull,
    StoreLocked,
    StoreUnusable,
    collect,
    scrub,
    verify,
)
from sds_node.resource.store import disk as disk_module
from sds_node.resource.store import index as index_module
from sds_node.resource.store.index import Writing, changed
from tests.sds_node.store.samples import SMALL, files_of, only, opened, path, put, serial, share, states


def test_what_was_finished_is_read_back_whole_and_in_part_after_a_restart(tmp_path: Path) -> None:
    sizes = [1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES, 100_001]
    for is_again in (False, True):
        with opened(tmp_path) as store:
            for number, size_bytes in enumerate(sizes):
                if not is_again:
                    put(store, number, size_bytes, manifest=b"m%d" % number)
                data, root = share(number, size_bytes)
                assert store.read(root) == data
                assert store.read(root, size_bytes // 3, size_bytes // 2) == data[size_bytes // 3 : size_bytes // 3 + size_bytes // 2]
                assert store.read(root, size_bytes, 0) == b""
                assert store.manifest(root, serial(1)) == b"m%d" % number
            assert list(verify(store, with_bytes=True)) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 70_000), st.lists(st.integers(1, 40_000), max_size=6), st.data())
def test_any_cut_of_the_stream_gives_the_same_share_and_any_range_of_it_is_right(
    the_store: ShareStore, size_bytes: int, cuts: list[int], data: st.DataObject
) -> None:
    content, root = share(size_bytes, size_bytes)
    number = the_store.totals().count(*State) + 1
    with the_store.begin(root, size_bytes, serial(number), b"") as writer:
        at = 0
        for cut in cuts:
            writer.write(memoryview(content)[at : at + cut])
            at += cut
        writer.write(bytearray(content[at:]))
        writer.finish()
    offset = data.draw(st.integers(0, size_bytes))
    length = data.draw(st.integers(0, size_bytes - offset))
    assert the_store.read(root, offset, length) == content[offset : offset + length]


@pytest.fixture(scope="module")
def the_store(tmp_path_factory: pytest.TempPathFactory) -> ShareStore:
    store = opened(tmp_path_factory.mktemp("store"))
    yield store  # type: ignore[misc]
    store.close()


def test_every_leaf_comes_with_a_path_that_proves_it(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for size_bytes in (1, LEAF_BYTES, 5 * LEAF_BYTES + 7):
            data, root = share(size_bytes, size_bytes)
            put(store, size_bytes, size_bytes)
            count = -(-size_bytes // LEAF_BYTES)
            for index in range(count):
                leaf, path_of_leaf = store.leaf(root, index)
                assert leaf == data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES]
                assert leaf_proved(root, leaf, index, count, path_of_leaf)
            for index in (-1, count):
                with pytest.raises(ShareRefused, match=f"has leaves 0 to {count - 1}, not {index}"):
                    store.leaf(root, index)


def test_a_wrong_root_or_size_leaves_nothing(tmp_path: Path) -> None:
    data, root = share(1)
    with opened(tmp_path) as store:
        writer = store.begin(root, len(data), serial(1), b"")
        writer.write(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ShareRefused, match="root"):
            writer.finish()
        writer = store.begin(root, len(data), serial(1), b"")
        writer.write(data[:-1])
        with pytest.raises(ShareRefused, match="ended after"):
            writer.finish()
        writer = store.begin(root, len(data), serial(1), b"")
        writer.write(data)
        with pytest.raises(ShareRefused, match="40000 bytes were announced and 40001 came"):
            writer.write(b"x")
        with pytest.raises(ShareRefused, match="is over"):
            writer.finish()
        with store.begin(root, len(data), serial(1), b"") as writer:
            writer.write(data)
        writer.abort()
        assert not store.has(root)
        assert files_of(store) == []
        assert store.writers() == []
        assert states(store) == {}


@pytest.mark.parametrize(
    ("root", "size_bytes", "name", "manifest", "what"),
    [
        (bytes(31), 1, bytes(16), b"", "root of 32 bytes"),
        (bytes(32), 1, bytes(17), b"", "serial of 16"),
        (bytes(32), 0, bytes(16), b"", "1 to 33554432 bytes, not 0"),
        (bytes(32), MAX_SHARE_BYTES + 1, bytes(16), b"", "not 33554433"),
        (bytes(32), -1, bytes(16), b"", "not -1"),
        (bytes(32), 1, bytes(16), bytes(8193), "at most 8192 bytes, not 8193"),
    ],
)
def test_names_sizes_and_manifests_out_of_bounds_are_refused(
    root: bytes, size_bytes: int, name: bytes, manifest: bytes, what: str, tmp_path: Path
) -> None:
    with opened(tmp_path) as store, pytest.raises(ShareRefused, match=what):
        store.begin(root, size_bytes, name, manifest)


def test_ranges_and_lists_out_of_bounds_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        root, _ = put(store, 1)
        for offset, length in ((-1, 1), (0, -1), (0, 40_001), (40_000, 1), (1 << 70, 1)):
            with pytest.raises(ShareRefused, match="has 40000 bytes"):
                store.read(root, offset, length)
        with pytest.raises(ShareRefused, match="at most 1000 copies"):
            store.confirm([(root, serial(number)) for number in range(1001)])
        for limit in (0, 1001):
            with pytest.raises(ShareRefused):
                store.damaged(limit=limit)
            with pytest.raises(ShareRefused):
                collect(store, limit)
        for unnamed in (b"", bytes(33)):
            with pytest.raises(ShareRefused):
                store.has(unnamed)
            with pytest.raises(ShareRefused):
                store.read(unnamed)


def test_the_largest_share_and_the_largest_manifest_fit(tmp_path: Path) -> None:
    data = bytes(MAX_SHARE_BYTES)
    root = share_root(data)
    with opened(tmp_path) as store:
        with store.begin(root, len(data), serial(1), b"m" * 8192) as writer:
            writer.write(data)
            writer.finish()
        assert store.manifest(root, serial(1)) == b"m" * 8192
        leaf, path_of_leaf = store.leaf(root, 2047)
        assert leaf_proved(root, leaf, 2047, 2048, path_of_leaf)
        assert store.read(root, MAX_SHARE_BYTES - 5, 5) == bytes(5)


def test_equal_shares_of_two_payers_are_two_copies_that_share_bytes_and_each_outlives_the_other(tmp_path: Path) -> None:
    for first_to_go in (1, 2):
        home = tmp_path / str(first_to_go)
        with opened(home) as store:
            keys = {number: put(store, 7, serial_number=number, manifest=b"of %d" % number) for number in (1, 2)}
            data, root = share(7)
            assert [copy.kept for copy in store.copies(root)] == [Kept.OWN, Kept.SHARED]
            assert path(store, keys[2]).stat().st_size < 1000
            assert store.trash([keys[first_to_go]]) == []
            assert store.read(root) == data
            assert store.purge([keys[first_to_go]]) == []
            assert store.read(root) == data
            stays = 3 - first_to_go
            assert states(store) == {keys[stays]: "PENDING"}
            assert store.manifest(root, serial(stays)) == b"of %d" % stays
            with pytest.raises(ShareNotFound):
                store.manifest(root, serial(first_to_go))
            if first_to_go == 1:
                with pytest.raises(ShareExists, match="store it under another serial"):
                    put(store, 7, serial_number=1)
        with opened(home) as store:
            assert store.read(root) == data
            assert list(verify(store, with_bytes=True)) == []
            store.trash([keys[stays]])
            assert not store.has(root)
            assert store.purge([keys[stays]]) == []
            assert files_of(store) == []
            assert store.totals().disk_bytes == 0


def test_bytes_are_not_shared_with_a_file_that_rotted_and_the_new_ones_heal_both_copies(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        first = put(store, 7, serial_number=1)
        file = path(store, first)
        file.write_bytes(b"\x00" * 100 + file.read_bytes()[100:])
        second = put(store, 7, serial_number=2)
        data, root = share(7)
        assert only(store.copies(root)).serial == serial(2)
        assert store.read(root) == data
        assert [copy.key for copy in store.damaged()] == [first]
        store.confirm([first])
        again = put(store, 7, serial_number=1, manifest=b"again")
        assert (again, store.damaged()) == (first, [])
        assert states(store) == {first: "CONFIRMED", second: "PENDING"}
        assert store.manifest(root, serial(1)) == b"again"
        assert list(verify(store, with_bytes=True)) == []


def test_a_copy_that_is_kept_or_being_written_is_refused(tmp_path: Path) -> None:
    data, root = share(1)
    with opened(tmp_path) as store:
        with store.begin(root, len(data), serial(1), b""):
            with pytest.raises(StoreBusy, match="being written"):
                store.begin(root, len(data), serial(1), b"")
            put(store, 1, serial_number=2)
        key = put(store, 1, serial_number=1)
        with pytest.raises(ShareExists, match="pending"):
            store.begin(root, len(data), serial(1), b"")
        store.trash([key])
        with pytest.raises(ShareExists, match="restore it"):
            store.begin(root, len(data), serial(1), b"")


def test_unfinished_writes_are_limited_and_the_limit_is_free_again_when_they_end(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        _, root = share(1)
        writers = [store.begin(root, 40_000, serial(number), b"") for number in range(SMALL.max_writers)]
        with pytest.raises(StoreBusy, match="8 writes are unfinished"):
            store.begin(root, 40_000, serial(99), b"")
        writers[3].abort()
        with pytest.raises(ShareRefused):
            writers[4].write(bytes(50_000))
        for number in (98, 99):
            writers.append(store.begin(root, 40_000, serial(number), b""))
        for writer in writers:
            writer.abort()
        assert files_of(store) == []


def test_the_capacity_counts_files_and_unfinished_writes(tmp_path: Path) -> None:
    with opened(tmp_path, Settings(reserve_bytes=0, capacity_bytes=200_000)) as store:
        assert store.free_bytes() == 200_000
        first = put(store, 1, 80_000)
        free = store.free_bytes()
        assert free == 200_000 - store.totals().disk_bytes == 200_000 - sum(-(-path(store, first).stat().st_size // 4096) * 4096 for _ in [0])
        _, root = share(2, 80_000)
        with store.begin(root, 80_000, serial(1), b""):
            assert store.free_bytes() == free - 81_920
            with pytest.raises(StoreFull, match="200000 bytes of capacity"):
                put(store, 3, 80_000)
        put(store, 3, 80_000)
        store.trash([first])
        with pytest.raises(StoreFull):
            put(store, 4, 80_000)
        store.purge([first])
        put(store, 4, 80_000)


def test_the_free_space_that_is_kept_is_measured_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, Settings(reserve_bytes=1 << 20)) as store:
        put(store, 1)
        real = os.statvfs(tmp_path)
        figures = {"free": ((1 << 20) + 40_000) // 4096, "files": 1 << 20}

        class Disk:
            f_frsize = 4096
            f_files = real.f_files or 1

            @property
            def f_bavail(self) -> int:
                return figures["free"]

            @property
            def f_favail(self) -> int:
                return figures["files"]

        monkeypatch.setattr(disk_module.os, "statvfs", lambda _path: Disk())
        with pytest.raises(StoreFull, match="1048576 are kept free, and 40960 are wanted"):
            put(store, 2)
        figures["free"] += 20
        put(store, 2)
        figures["files"] = 3
        with pytest.raises(StoreFull, match="3 more files"):
            put(store, 3)
        monkeypatch.undo()
        assert put(store, 3) in states(store)


def test_states_change_as_the_ledger_says_and_what_cannot_is_told(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        one, two = put(store, 1), put(store, 2)
        stranger = (bytes(32), serial(5))
        assert store.confirm([one, stranger]) == [stranger]
        assert store.confirm([one]) == []
        assert store.restore([two]) == [two]
        assert store.purge([one, two]) == [one, two]
        assert states(store) == {one: "CONFIRMED", two: "PENDING"}
        assert store.trash([one, two, stranger]) == [stranger]
        assert (store.has(one[0]), store.has(*two)) == (False, False)
        with pytest.raises(ShareNotFound):
            store.read(one[0])
        with pytest.raises(ShareNotFound):
            store.open_share(two[0])
        assert store.confirm([one]) == [one]
        assert store.restore([one]) == []
        assert store.read(one[0]) == share(1)[0]
        assert store.purge([one, two]) == [one]
        assert states(store) == {one: "CONFIRMED"}
    with opened(tmp_path) as store:
        assert states(store) == {one: "CONFIRMED"}
        assert files_of(store) == [path(store, one).name]


def test_totals_are_those_of_the_copies(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        keys = [put(store, number, 1000 * number + 1) for number in range(1, 7)]
        put(store, 6, 6001, serial_number=9)
        store.confirm(keys[:3])
        store.trash(keys[2:4])
        store.purge([keys[3]])
        for _ in range(2):
            totals = store.totals()
            assert totals.copies == Counter((copy.state, copy.kept) for copy in store.inventory())
            assert totals.bytes(State.CONFIRMED) == 1001 + 2001
            assert totals.count(State.PENDING, State.TRASH) == 4
            assert totals.damaged == 0
            on_disk = [file.stat().st_size for file in (store.home / "shares").rglob("*") if file.is_file()]
            assert totals.disk_bytes == sum(-(-size // 4096) * 4096 for size in on_disk)
            store.close()
            store = opened(tmp_path)
        store.close()


def test_the_inventory_tells_every_copy_once_in_order_while_copies_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.resource.store.index.Index.after.__kwdefaults__", {"below": None, "rows": 3})
    with opened(tmp_path) as store:
        stay = {put(store, number, 10) for number in range(12)}
        go = [put(store, number, 10) for number in range(100, 104)]
        told = []
        for step, copy in enumerate(store.inventory()):
            told.append(copy.key)
            if step == 2:
                store.trash(go)
                store.purge(go)
            if step == 4:
                put(store, 200, 10)
        assert told == sorted(told)
        assert stay <= set(told)
        assert [copy.key for copy in store.inventory(told[5])] == [key for key in sorted(states(store)) if key > told[5]]


def test_no_question_of_the_store_looks_at_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of every statement that the store sends but ``verify``'s finds rows by a key or an index."""
    statements: set[str] = set()
    real = index_module._connect

    def connect(*arguments: object, **options: object) -> sqlite3.Connection:
        db: sqlite3.Connection = real(*arguments, **options)  # type: ignore[arg-type]
        db.set_trace_callback(statements.add)
        return db

    monkeypatch.setattr(index_module, "_connect", connect)
    with opened(tmp_path) as store:
        keys = [put(store, number, 100, serial_number=2) for number in range(3)]
        put(store, 1, 100)
        store.confirm(keys)
        store.trash(keys[:1])
        collect(store)
        store.purge(keys[:1])
        store.damaged()
        path(store, keys[1]).unlink()
        scrub(store)
        assert list(store.inventory())
    used = {one for one in statements if "FROM copies" in one and one.startswith(("SELECT", "DELETE"))}
    assert len(used) > 8
    db = sqlite3.connect(tmp_path / "store" / "index.db")
    for statement in used:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert all(step.startswith("SEARCH copies USING") and "B-TREE" not in step for step in plan), (statement, plan)
    db.close()


def test_a_reader_outlives_the_removal_of_its_share(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        key = put(store, 1)
        data, root = share(1)
        with store.open_share(root) as reader:
            store.trash([key])
            store.purge([key])
            assert files_of(store) == []
            assert reader.read(0, reader.size_bytes) == data
        with pytest.raises(StoreUnusable, match="closed"):
            reader.read(0, 1)


def test_the_descriptor_of_a_reader_sends_the_share_and_a_range_can_be_checked_before(tmp_path: Path) -> None:
    with opened(tmp_path) as store, open(tmp_path / "out", "wb") as out:
        put(store, 1)
        data, root = share(1)
        with store.open_share(root) as reader:
            reader.check(0, reader.size_bytes)
            assert os.sendfile(out.fileno(), reader.fileno(), 0, reader.size_bytes) == len(data)
            assert (tmp_path / "out").read_bytes() == data
            assert b"".join(reader.stream(100, 20_000)) == data[100:20_100]
            file = bytearray(path(store, (root, serial(1))).read_bytes())
            file[20_000] ^= 1
            path(store, (root, serial(1))).write_bytes(file)
            reader.check(0, LEAF_BYTES)
            with pytest.raises(ShareDamaged, match="leaf 1"):
                reader.check(LEAF_BYTES, 1)


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o755)
    with opened(tmp_path) as store:
        put(store, 1)
        _, root = share(2)
        with store.begin(root, 40_000, serial(1), b""):
            for found in [store.home, *store.home.rglob("*")]:
                assert stat.S_IMODE(found.stat().st_mode) == (0o700 if found.is_dir() else 0o600), found


def test_one_folder_is_open_in_one_process_and_once(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from sds_node.resource.store import open_store; open_store(Path(sys.argv[1]))"
    with opened(tmp_path) as store:
        key = put(store, 1)
        with pytest.raises(StoreLocked, match="open in another process"):
            opened(tmp_path)
        child = subprocess.run([sys.executable, "-c", script, str(store.home)], capture_output=True, text=True, check=False)
        assert child.returncode != 0
        assert "StoreLocked: the share store in" in child.stderr
        assert states(store) == {key: "PENDING"}
    with opened(tmp_path) as store:
        assert states(store) == {key: "PENDING"}


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(StoreUnusable, match=r"holds 'photo\.jpg' and no share store"):
        opened(tmp_path)
    assert [file.name for file in (tmp_path / "store").iterdir()] == ["photo.jpg"]


def test_a_store_of_another_layout_is_not_taken(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / "store" / "store").write_bytes(b"stratos share store, layout 2\n")
    with pytest.raises(StoreUnusable, match="another version"):
        opened(tmp_path)


def test_a_closed_store_says_so_and_gives_up_what_is_unfinished(tmp_path: Path) -> None:
    store = opened(tmp_path)
    key = put(store, 1)
    data, root = share(2)
    writer = store.begin(root, len(data), serial(1), b"")
    writer.write(data)
    store.close()
    store.close()
    with pytest.raises(ShareRefused, match="is over"):
        writer.finish()
    for use in (lambda: put(store, 3), lambda: store.read(key[0]), lambda: store.trash([key]), lambda: list(store.inventory())):
        with pytest.raises(StoreUnusable, match="closed"):
            use()
    with opened(tmp_path) as again:
        assert states(again) == {key: "PENDING"}
        assert files_of(again) == [path(again, key).name]


def test_threads_that_write_read_and_delete_the_same_shares_see_right_bytes_or_none(tmp_path: Path) -> None:
    """Six threads, five roots, own serials: so copies share bytes, lose their holder and come again under each other's feet."""
    with opened(tmp_path, Settings(reserve_bytes=0)) as store:
        contents = [share(number, 20_000) for number in range(5)]
        stop = threading.Event()

        def write(thread: int) -> int:
            kept = 0
            for round_number in range(12):
                data, root = contents[(thread + round_number) % 5]
                key = (root, serial(thread * 100 + round_number))
                with store.begin(root, len(data), key[1], b"m") as writer:
                    writer.write(data)
                    writer.finish()
                assert store.read(root, 100, 18_000) == data[100:18_100]
                if round_number % 3:
                    assert store.trash([key]) == []
                    assert store.purge([key]) == []
                else:
                    assert store.confirm([key]) == []
                    kept += 1
            return kept

        def read() -> int:
            found = 0
            while not stop.is_set():
                for data, root in contents:
                    with contextlib.suppress(ShareNotFound):
                        assert store.read(root) == data
                        found += 1
                collect(store)
            return found

        with ThreadPoolExecutor(6) as pool:
            reading = pool.submit(read)
            kept = [pool.submit(write, thread) for thread in range(1, 6)]
            try:
                numbers = [one.result() for one in kept]
            finally:
                stop.set()
            assert reading.result() > 0
        assert len(states(store)) == sum(numbers) == 20
        assert store.totals().damaged == 0
        assert list(verify(store, with_bytes=True)) == []
    with opened(tmp_path) as store:
        assert set(states(store).values()) == {"CONFIRMED"}
        assert len(files_of(store)) == store.totals().count(*State)


def test_a_state_that_changes_while_damage_is_noted_or_a_copy_is_written_again_is_not_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread's change is committed at the last moment before the row changes."""

    def change(state: State) -> None:
        def make(writing: Writing) -> None:
            copy = writing.get(key)
            assert copy is not None
            writing.put(changed(copy, state, 0))

        store.index.commit(make)

    def at_step(label: str) -> None:
        if label == "trailer written" and meddles:
            change(State.TRASH)

    meddles = False
    with opened(tmp_path, at_step=at_step) as store:
        key = put(store, 1)
        path(store, key).write_bytes(b"rotten")
        real = store.check_file
        monkeypatch.setattr(store, "check_file", lambda key: (change(State.CONFIRMED), real(key))[1])
        with pytest.raises(ShareDamaged):
            store.read(key[0])
        monkeypatch.undo()
        assert [(copy.state, copy.kept) for copy in store.damaged()] == [(State.CONFIRMED, Kept.DAMAGED)]
        meddles = True
        with pytest.raises(StoreBusy, match="begin again"):
            put(store, 1)
        meddles = False
        assert states(store) == {key: "TRASH"}
        assert put(store, 1) == key
        assert (states(store), store.damaged()) == ({key: "PENDING"}, [])
        assert list(verify(store, with_bytes=True)) == []


def test_everything_is_synced_before_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order on which a power cut depends: file, index, name, folder; then the answer."""
    told: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(fd: int) -> None:
        name = os.readlink(f"/proc/self/fd/{fd}")
        told.append("sync " + ("file" if "/tmp/" in name.removeprefix(str(tmp_path)) else name.rpartition("store/")[2]))
        real_sync(fd)

    def rename(source: str, target: str) -> None:
        told.append("rename")
        real_rename(source, target)

    with opened(tmp_path, at_step=told.append) as store:
        monkeypatch.setattr(disk_module.os, "fsync", sync)
        monkeypatch.setattr(disk_module.os, "rename", rename)
        put(store, 1)
        folder = share(1)[1][:2].hex()
        folder = f"shares/{folder[:2]}/{folder[2:]}"
        order = [one for one in told if one.startswith(("sync", "rename")) or one == "changes committed"]
        assert order == ["sync file", "changes committed", "rename", f"sync {folder}", f"sync {folder[:9]}", "sync shares"]
        with store.index._reading() as db:
            assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
