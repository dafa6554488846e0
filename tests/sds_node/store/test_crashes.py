"""A store that is killed, a disk that is full or refuses, and files that rot: what was acknowledged is there, and wrong bytes are never handed out."""

from __future__ import annotations

import errno
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sds_node.resource import store as package
from sds_node.resource.store import (
    IndexDamaged,
    Key,
    ShareDamaged,
    ShareNotFound,
    ShareStore,
    StoreFull,
    StoreUnusable,
    collect,
    rebuild,
    scrub,
    verify,
)
from tests.sds_node.store.samples import files_of, opened, path, put, serial, share, states
from tests.sds_node.store.torture import STEPS, Life, a_nursery


def test_the_list_of_steps_is_that_of_the_code() -> None:
    text = "".join(file.read_text() for file in Path(package.__file__).parent.glob("*.py"))
    assert set(re.findall(r'at_step\("([^"]+)"\)', text)) == set(STEPS)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """One store that all kills of this file go through."""
    with a_nursery() as nursery:
        yield Life(tmp_path_factory.mktemp("killed") / "store", nursery)


@pytest.mark.parametrize("label", STEPS)
def test_a_kill_at_every_step_loses_nothing_and_shows_nothing_else(label: str, life: Life) -> None:
    """The seed is the process's own: other operations are under way in every run."""
    choose = random.Random()
    assert life.kill(choose.randrange(1 << 30), label, choose.randint(1, 2), 3000), f"no child came to the step {label!r}"


@pytest.mark.parametrize("number", range(4))
def test_a_kill_at_any_moment_loses_nothing_and_shows_nothing_else(number: int, life: Life) -> None:
    choose = random.Random()
    before = life.operations
    life.kill(choose.randrange(1 << 30), after_operations=choose.randint(1, 40))
    assert life.operations > before, number


# --- a disk that is full or refuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=["full", "broken", "read-only"])
def test_an_error_of_the_disk_at_any_step_is_told_and_changes_nothing_but_what_was_asked(number: int, tmp_path: Path) -> None:
    """Every step fails once for every operation that meets it; afterwards the operation can be done."""
    failing: list[str] = []

    def at_step(label: str) -> None:
        if label in failing:
            failing.clear()
            raise OSError(number, "the disk said so")

    expected = StoreFull if number == errno.ENOSPC else StoreUnusable
    met = set()
    with opened(tmp_path, at_step=at_step) as store:
        keep = put(store, 1)
        store.confirm([keep])
        for step in STEPS:
            for operation, (before, after) in OPERATIONS.items():
                key = (share(2, 20_000)[1], serial(1))
                assert states(store).get(key) == before, (step, operation)
                failing[:] = [step]
                try:
                    change(store, operation, key)
                except expected:
                    met.add(step)
                    assert states(store).get(key) in (before, after), (step, operation)
                failing.clear()
                if states(store).get(key) != after:
                    change(store, operation, key)
                assert states(store).get(key) == after, (step, operation)
                assert store.writers() == []
                assert store.read(keep[0]) == share(1)[0]
            store.settle()
            assert files_of(store) == [path(store, keep).name], step
    assert met >= {"begin", "data written", "trailer written", "file synced", "changes made", "indexed", "moved in", "folder synced"}
    with opened(tmp_path) as store:
        assert states(store) == {keep: "CONFIRMED"}
        assert list(verify(store, with_bytes=True)) == []


OPERATIONS = {
    "write": (None, "PENDING"),
    "confirm": ("PENDING", "CONFIRMED"),
    "trash": ("CONFIRMED", "TRASH"),
    "purge": ("TRASH", None),
}


def change(store: ShareStore, operation: str, key: Key) -> None:
    if operation == "write":
        put(store, 2, 20_000)
    else:
        getattr(store, operation)([key])


FILLING = """
import sys
from pathlib import Path
from tests.sds_node.store.samples import SMALL, put
from sds_node.resource.store import open_store
store = open_store(Path(sys.argv[1]), SMALL)
for number in range(int(sys.argv[2]), 100_000):
    store.confirm([put(store, number, 700)])
    print(number, flush=True)
"""


def test_files_that_may_not_grow_stop_a_write_with_a_sentence_and_lose_nothing(tmp_path: Path) -> None:
    """A child may not write files above a size, which fails the growing index as a full disk does."""
    home = tmp_path / "store"
    opened(tmp_path).close()
    command = [sys.executable, "-c", FILLING, str(home), "0"]
    child = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    assert child.returncode != 0
    assert re.search(r"Store(Full|Unusable): the (disk of the )?share store", child.stderr), child.stderr
    known = [int(line) for line in child.stdout.split()]
    assert known
    with opened(tmp_path) as store:
        for number in known:
            assert store.read(share(number, 700)[1]) == share(number, 700)[0]
        assert len(known) <= len(states(store)) <= len(known) + 1
        assert list(verify(store, with_bytes=True)) == []
        put(store, 200_000)


ON_A_SMALL_DISK = """
import sys
from pathlib import Path
from sds_node.resource.store import Settings, StoreError, open_store, verify
from tests.sds_node.store.samples import put, serial, share, states
home, rules = Path(sys.argv[1]) / "store", Settings(reserve_bytes=0)
store, kept, refused = open_store(home, rules), [], 0
for number in range(400):
    size = 1000 + number % 7 * 9000
    try:
        kept.append(put(store, number, size))
        store.confirm(kept[-1:])
    except StoreError as error:
        assert type(error).__name__ in ("StoreFull", "StoreUnusable"), error
        refused += 1
        if refused == 20:
            break
        try:  # a full disk may still be emptied
            gone = kept[:3]
            if not store.trash(gone):
                kept = kept[3:]
                store.purge(gone)
        except StoreError:
            pass
assert refused == 20, refused
data = {share(number, 1000 + number % 7 * 9000)[1]: share(number, 1000 + number % 7 * 9000)[0] for number in range(400)}
for is_again in (False, True):
    for key in kept:
        if store.has(*key):
            assert store.read(key[0]) == data[key[0]]
    assert sum(store.has(*key) for key in kept) >= len(kept) - 3
    assert set(states(store)) >= {key for key in kept if store.has(*key)}
    if not is_again:
        store.close()
        store = open_store(home, rules)
store.trash(kept[:20])
store.purge(kept[:20])
put(store, 1000, 1000)
assert list(verify(store, with_bytes=True)) == [], list(verify(store))
print("kept", len(kept))
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode != 0,
    reason="this machine lets nobody mount a small disk",
)
def test_a_disk_that_fills_up_again_and_again_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """A real one, of 2 MiB: file, folder, index and its log run out of space wherever they happen to."""
    script = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-Urm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, ON_A_SMALL_DISK]
    child = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("kept ")


# --- files that rot ----------------------------------------------------------------------------------------------------------


def damages(size: int, choose: random.Random) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """(what is done, the doing) for a file of ``size`` bytes."""

    def to(edit: Callable[[bytearray], None]) -> Callable[[Path], None]:
        def do(file: Path) -> None:
            data = bytearray(file.read_bytes())
            edit(data)
            file.write_bytes(data)

        return do

    def cut(data: bytearray, at: int = choose.randrange(size)) -> None:
        del data[at:]

    def zeros(data: bytearray, at: int = choose.randrange(size)) -> None:
        data[at : at + 4096] = bytes(len(data[at : at + 4096]))

    def grow(data: bytearray) -> None:
        data += b"more"

    def fold(file: Path) -> None:
        file.unlink()
        file.mkdir()

    yield "cut", to(cut)
    yield "zeroed", to(zeros)
    yield "emptied", to(bytearray.clear)
    yield "longer", to(grow)
    yield "removed", Path.unlink
    yield "a folder", fold
    for at in [choose.randrange(size), size - 1 - choose.randrange(200), size - 1 - choose.randrange(300)]:

        def flip(data: bytearray, at: int = at) -> None:
            data[at] ^= 1 << at % 8

        yield f"flipped at {at} of {size}", to(flip)


def test_a_damaged_share_is_never_served_whatever_was_damaged(tmp_path: Path) -> None:
    """Every kind of damage, before the store is opened and while it is: what is read is right or refused, and scrubbing finds it, unless only the slots of
    the state were hit, of which one may be lost.
    """
    choose = random.Random(3)
    outcomes: Counter[str] = Counter()
    with opened(tmp_path) as store:
        healthy, victim = put(store, 1), put(store, 2, 50_000)
        put(store, 2, 50_000, serial_number=2)
        store.confirm([healthy, victim])
        file, kept = path(store, victim), path(store, victim).read_bytes()
    data, root = share(2, 50_000)
    for when in ("closed", "open"):
        file.write_bytes(kept)
        for what, damage in damages(len(kept), choose):
            if when == "closed":
                damage(file)
            with opened(tmp_path) as store:
                if when == "open":
                    assert store.read(root) == data
                    damage(file)
                for read in (
                    lambda s: s.read(root) == data,
                    lambda s: s.leaf(root, 3)[0] == data[3 * 16384 :],
                    lambda s: s.manifest(*victim) == b"manifest",
                ):
                    try:
                        assert read(store), (when, what)
                        outcomes["read"] += 1
                    except ShareDamaged:
                        outcomes["refused"] += 1
                report = scrub(store, 1 << 30, 1000)
                assert report.is_round
                is_whole = file.is_file() and len(file.read_bytes()) == len(kept) and file.read_bytes()[:-64] == kept[:-64]
                assert [copy.key for copy in store.damaged()] == ([] if is_whole else [victim]), (when, what)
                assert store.has(root) == is_whole
                assert store.read(healthy[0]) == share(1)[0]
                if not is_whole:
                    put(store, 2, 50_000)
                    outcomes["repaired"] += 1
                assert store.read(root) == data
                assert list(verify(store, with_bytes=True)) == [], (when, what)
                assert states(store)[victim] == "CONFIRMED", (when, what)
            if file.is_dir():
                file.rmdir()
            file.write_bytes(kept)
    assert outcomes["refused"] > 20
    assert outcomes["repaired"] > 10


def test_a_share_that_rots_while_it_is_read_is_refused_and_another_copy_is_read(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        first = put(store, 1)
        data, root = share(1)
        file = path(store, first)
        with store.open_share(root) as reader:
            assert reader.read(0, 100) == data[:100]
            file.write_bytes(file.read_bytes().replace(data[20_000:20_010], bytes(10)))
            second = put(store, 1, serial_number=2)  # reads the first, finds it damaged, and keeps its own bytes
            with pytest.raises(ShareDamaged, match="leaf 1"):
                reader.read(0, 30_000)
        assert store.read(root) == data
        assert [copy.key for copy in store.copies(root)] == [second]
        file = path(store, second)
        file.unlink()
        with pytest.raises(ShareDamaged, match=r"No such file|missing"):
            store.read(root)
        assert [copy.key for copy in store.damaged()] == sorted([first, second])
        store.trash([first, second])
        store.purge([first, second])
        with pytest.raises(ShareNotFound):
            store.read(root)
        assert files_of(store) == []


def test_damage_that_cannot_be_noted_is_refused_all_the_same(tmp_path: Path) -> None:
    broken = False

    def at_step(label: str) -> None:
        if broken and label == "changes made":
            raise OSError(errno.EROFS, "read-only")

    with opened(tmp_path, at_step=at_step) as store:
        key = put(store, 1)
        file = path(store, key)
        file.write_bytes(bytes(30_000) + file.read_bytes()[30_000:])
        broken = True
        for _ in range(2):
            with pytest.raises(ShareDamaged):
                store.read(key[0])
            with pytest.raises(ShareDamaged):
                store.leaf(key[0], 0)
        broken = False
        with pytest.raises(ShareDamaged):
            store.read(key[0])
        assert [copy.key for copy in store.damaged()] == [key]


# --- an index that rots ------------------------------------------------------------------------------------------------------


def test_a_damaged_index_never_gives_wrong_bytes_and_is_rebuilt_from_the_files(tmp_path: Path) -> None:
    choose = random.Random(11)
    whole = tmp_path / "whole"
    with opened(whole) as store:
        keys = [put(store, number, 5_000) for number in range(12)]
        put(store, 3, 5_000, serial_number=2)
        store.confirm(keys[:8])
        store.trash(keys[6:10])
        expected = states(store)
    outcomes: Counter[str] = Counter()
    for number, (what, damage) in enumerate(one for _ in range(2) for one in damages((whole / "store" / "index.db").stat().st_size, choose)):
        if what == "a folder":
            continue
        home = tmp_path / str(number)
        shutil.copytree(whole, home)
        file = home / "store" / "index.db"
        damage(file)
        try:
            with opened(home) as store:
                for key in keys:
                    try:
                        assert store.read(key[0]) in [share(one, 5_000)[0] for one, other in enumerate(keys) if other == key]
                        outcomes["read"] += 1
                    except (ShareNotFound, ShareDamaged, IndexDamaged):
                        outcomes["not read"] += 1
                collect(store)
        except (IndexDamaged, StoreUnusable):
            outcomes["refused"] += 1
        report = rebuild(home / "store")
        assert (report.copies, report.set_aside, report.unknown) == (13, 0, [])
        with opened(home) as store:
            assert states(store) == expected, what
            assert list(verify(store, with_bytes=True)) == []
            assert [store.read(key[0]) for key in keys[:6]] == [share(one, 5_000)[0] for one in range(6)]
        shutil.rmtree(home)
    assert outcomes["refused"] >= 4


def test_a_row_that_was_changed_behind_the_store_is_not_believed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        key = put(store, 1)
    db = sqlite3.connect(tmp_path / "store" / "index.db")
    db.execute("UPDATE copies SET size_bytes = size_bytes + 1")
    db.commit()
    db.close()
    with opened(tmp_path) as store:
        with pytest.raises(IndexDamaged, match="rebuild the index from the files"):
            store.read(key[0])
        with pytest.raises(IndexDamaged):
            store.trash([key])
        assert any("totals" in text for text in store.index.complaints())
    rebuild(tmp_path / "store")
    with opened(tmp_path) as store:
        assert store.read(key[0]) == share(1)[0]


def test_a_missing_index_or_marker_asks_for_a_rebuild_and_never_begins_anew(tmp_path: Path) -> None:
    for name in ("index.db", "store"):
        with opened(tmp_path / name) as store:
            key = put(store, 1)
        (tmp_path / name / "store" / name).unlink()
        with pytest.raises(IndexDamaged, match=r"rebuild the index|rebuild it"):
            opened(tmp_path / name)
        rebuild(tmp_path / name / "store")
        with opened(tmp_path / name) as store:
            assert states(store) == {key: "PENDING"}


def test_a_log_of_the_index_that_was_cut_loses_rows_that_scrubbing_finds_again(tmp_path: Path) -> None:
    """As on a disk that lied about a sync: the rows of whole files come back with their states, and nothing that the files call confirmed expires."""
    home = tmp_path / "store"
    with opened(tmp_path) as store:
        old = put(store, 1)
        store.settle()
    shutil.copy(home / "index.db", tmp_path / "index.db")
    with opened(tmp_path) as store:
        new = put(store, 2)
        store.confirm([old, new])
    for ending in ("-wal", "-shm"):
        (home / f"index.db{ending}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "index.db", home / "index.db")
    with opened(tmp_path) as store:
        assert states(store) == {old: "PENDING"}
        texts = list(verify(store))
        assert any("without a row" in text for text in texts)
        assert any("the index says" in text for text in texts)
        report = scrub(store)
        assert (report.adopted, report.mended) == ([new], [old])
        assert states(store) == {old: "CONFIRMED", new: "CONFIRMED"}
        assert list(verify(store, with_bytes=True)) == []
