"""The trash and its grace time, the clock that measures it, scrubbing in steps, and what an operator is told."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from sds_node.merkle import share_root
from sds_node.resource.store import Settings, ShareNotFound, ShareRefused, State, StoreBusy, StoreLocked, collect, rebuild, scrub, verify
from sds_node.resource.store.clock import MAX_AWAY_S
from sds_node.resource.store.layout import Damaged, encode_trailer, length_bytes, read_trailer, write_state
from tests.sds_node.store.samples import SMALL, Time, files_of, opened, path, put, serial, share, states


def test_what_is_in_the_trash_can_be_restored_until_the_grace_time_has_passed(tmp_path: Path) -> None:
    time = Time()
    with opened(tmp_path, time=time) as store:
        one, two, three = (put(store, number) for number in (1, 2, 3))
        store.confirm([one, two, three])
        store.trash([one, two])
        time.pass_s(SMALL.trash_s - 1)
        assert collect(store).purged == 0
        assert store.restore([one]) == []
        time.pass_s(2)
        assert collect(store).purged == 1
        assert states(store) == {one: "CONFIRMED", three: "CONFIRMED"}
        assert store.restore([two]) == [two]
        assert files_of(store) == sorted(path(store, key).name for key in (one, three))
        store.trash([one])
        time.pass_s(SMALL.trash_s - 1)
        assert collect(store).purged == 0, "each stay in the trash begins anew"


def test_copies_that_the_ledger_never_names_go_to_the_trash_and_then_away(tmp_path: Path) -> None:
    time = Time()
    with opened(tmp_path, time=time) as store:
        named, unnamed = put(store, 1), put(store, 2)
        store.confirm([named])
        time.pass_s(SMALL.pending_s + 1)
        assert (collect(store).expired, states(store)) == (1, {named: "CONFIRMED", unnamed: "TRASH"})
        assert collect(store).expired == 0
        time.pass_s(SMALL.trash_s + 1)
        assert collect(store).purged == 1
        assert states(store) == {named: "CONFIRMED"}


def test_copies_whose_files_are_missing_or_rotten_expire_and_go_as_others_do(tmp_path: Path) -> None:
    time = Time()
    with opened(tmp_path, time=time) as store:
        missing, rotten, told = put(store, 1), put(store, 2), put(store, 3)
        path(store, missing).unlink()
        path(store, rotten).write_bytes(b"rotten")
        path(store, told).write_bytes(b"rotten")
        scrub(store, max_copies=1000)
        path(store, put(store, 4)).unlink()
        time.pass_s(SMALL.pending_s + 1)
        assert collect(store).expired == 4
        time.pass_s(SMALL.trash_s + 1)
        assert collect(store).purged == 4
        assert (states(store), files_of(store), store.totals().disk_bytes) == ({}, [], 0)


def test_a_step_collects_no_more_than_it_was_told_and_steps_reach_the_end(tmp_path: Path) -> None:
    time = Time()
    with opened(tmp_path, time=time) as store:
        keys = [put(store, number, 100) for number in range(7)]
        store.trash(keys)
        time.pass_s(SMALL.trash_s + 1)
        assert [collect(store, 3).purged for _ in range(4)] == [3, 3, 1, 0]
        assert files_of(store) == []
        while collect(store).settled:
            pass
        assert store.index.dues(10) == []


def test_writes_to_which_nothing_comes_are_given_up(tmp_path: Path) -> None:
    time = Time()
    with opened(tmp_path, time=time) as store:
        data, root = share(1)
        writer = store.begin(root, len(data), serial(1), b"")
        time.pass_s(SMALL.writer_idle_s)
        assert collect(store).abandoned == 0
        writer.write(data[:10])
        time.pass_s(SMALL.writer_idle_s)
        assert collect(store).abandoned == 0
        time.pass_s(1)
        assert collect(store).abandoned == 1
        with pytest.raises(ShareRefused, match="is over"):
            writer.write(data[10:])
        assert files_of(store) == []


@pytest.mark.parametrize("jump_s", [10 * 365 * 86_400, -10 * 365 * 86_400, 1e300, -1e300])
def test_a_clock_that_jumps_purges_nothing_early(jump_s: float, tmp_path: Path) -> None:
    """While the store is open a jump does nothing; over a restart one forward takes at most a day."""
    time = Time()
    rules = Settings(reserve_bytes=0, pending_s=2 * MAX_AWAY_S, trash_s=3 * MAX_AWAY_S)
    with opened(tmp_path, rules, time) as store:
        pending, deleted = put(store, 1), put(store, 2)
        store.trash([deleted])
        time.wall += jump_s
        report = collect(store)
        assert (report.expired, report.purged) == (0, 0)
        put(store, 3)
    with opened(tmp_path, rules, time) as store:
        collect(store)
        assert states(store)[deleted] == "TRASH"
        assert states(store)[pending] == "PENDING"
        assert store.clock.age_s() <= MAX_AWAY_S
        time.monotonic += 3 * MAX_AWAY_S + 1
        assert collect(store).purged == 1


def test_the_time_that_a_store_was_closed_counts(tmp_path: Path) -> None:
    time = Time()
    with opened(tmp_path, time=time) as store:
        deleted = put(store, 1)
        store.trash([deleted])
    time.wall += SMALL.trash_s + 1
    time.monotonic = 3.0  # the machine was started again
    with opened(tmp_path, time=time) as store:
        assert collect(store).purged == 1


def test_scrubbing_goes_on_where_it_was_over_restarts_and_reaches_every_copy(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        keys = sorted(put(store, number, 2000) for number in range(11))
        broken = keys[8]
        file = path(store, broken)
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    found = []
    rounds = 0
    for _ in range(6):
        with opened(tmp_path) as store:
            report = scrub(store, max_copies=2)
            assert report.copies <= 2
            found += [key for key, _ in report.damaged]
            rounds += report.is_round
    assert (found, rounds) == ([broken], 1)
    with opened(tmp_path) as store:
        assert scrub(store, max_bytes=1).copies == 1
        assert scrub(store).copies == 10
        assert scrub(store).copies == 11
        assert store.totals().damaged == 1
        assert any("put aside" in text for text in verify(store))


def test_scrubbing_tells_what_is_missing_and_leaves_strange_files_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        keys = sorted(put(store, number, 2000) for number in range(4))
        path(store, keys[1]).unlink()
        for other in path(store, keys[2]).parent.iterdir():
            other.unlink()
        path(store, keys[2]).parent.rmdir()
        strange = path(store, keys[0]).with_name("notes.txt")
        strange.write_text("mine")
        moved = path(store, keys[0]).with_name(path(store, keys[3]).name)
        moved.write_bytes(path(store, keys[3]).read_bytes())
        told = list(verify(store, with_bytes=True))
        assert sum("missing" in text for text in told) == 2
        assert sum("not the name of a share" in text for text in told) == (1 if moved.parent == path(store, keys[3]).parent else 2)
        report = scrub(store)
        assert report.damaged == [(keys[1], "the file is missing"), (keys[2], "the file is missing")]
        assert any(name.endswith("notes.txt") for name in report.unknown)
        assert strange.read_text() == "mine"
        assert [copy.key for copy in store.damaged()] == [keys[1], keys[2]]
        assert store.damaged(after=keys[1])[0].key == keys[2]
        with pytest.raises(ShareNotFound):
            store.read(bytes(32))


def test_one_scrubbing_step_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with store.scrubbing(), pytest.raises(StoreBusy):
            scrub(store)
        assert scrub(store).is_round


def test_the_index_is_rebuilt_from_the_files_alone_with_every_state(tmp_path: Path) -> None:
    time = Time()
    with opened(tmp_path, time=time) as store:
        pending, confirmed, deleted, damaged, ghost = (put(store, number, 3000) for number in range(5))
        sharer = put(store, 4, 3000, serial_number=2, manifest=b"of another")
        store.confirm([confirmed, sharer, ghost])
        store.trash([deleted, ghost])
        store.purge([ghost])
        expected = states(store)
        with pytest.raises(StoreLocked):
            rebuild(store.home)
        file = path(store, damaged)
        home = store.home
    file.write_bytes(file.read_bytes()[:-150])
    file.with_name("strange").write_bytes(b"")
    (home / "tmp" / "left over").write_bytes(b"")
    time.pass_s(SMALL.trash_s - 10)
    report = rebuild(home)
    assert (report.copies, report.set_aside, len(report.unknown)) == (5, 1, 1)
    del expected[damaged]
    with opened(tmp_path, time=time) as store:
        assert states(store) == expected
        assert store.totals().count(State.GHOST) == 1
        assert store.read(ghost[0]) == share(4, 3000)[0]
        assert store.manifest(*sharer) == b"of another"
        assert [name for name in files_of(store) if name == "left over"] == []
        time.pass_s(20)
        assert collect(store).purged == 0, "grace times begin anew"
        assert all("not the name" in text for text in verify(store, with_bytes=True))
    assert pending in expected


def test_either_slot_of_the_state_may_be_torn_and_the_other_one_holds(tmp_path: Path) -> None:
    data, root = share(1, 1000)
    hashes = share_root(data)  # one leaf: its hash is the root
    key = (root, serial(1))
    file = tmp_path / "file"
    choose = random.Random(5)
    file.write_bytes(data + encode_trailer(key, 1000, 7, hashes, b"m", State.PENDING, is_shared=False))
    assert file.stat().st_size == length_bytes(1000, 1)
    fd = os.open(file, os.O_RDWR)
    history = [State.PENDING]
    for state in (State.CONFIRMED, State.TRASH, State.CONFIRMED, State.TRASH, State.GHOST):
        before = file.read_bytes()
        write_state(fd, read_trailer(fd), state, 8)
        after = file.read_bytes()
        assert before[:-64] == after[:-64]
        assert read_trailer(fd).state is state
        for length in range(1, 32):
            at = next(at for at in (len(after) - 64, len(after) - 32) if before[at : at + 32] != after[at : at + 32])
            torn = after[:at] + after[at : at + length] + before[at + length : at + 32] + after[at + 32 :]
            file.write_bytes(torn)
            assert read_trailer(fd).state in (history[-1], state)
            file.write_bytes(after[:at] + choose.randbytes(32) + after[at + 32 :])
            assert read_trailer(fd).state is history[-1]
        file.write_bytes(after)
        history.append(state)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(Damaged):
        read_trailer(fd)
    os.close(fd)
