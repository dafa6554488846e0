"""The books after kills, damage, and at the hands of two processes; messages, maintenance and batches that they keep."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from sds_node.meta.books.books import (
    MAX_TELLS_OF_A_NODE,
    NEVER_MS,
    BooksDamaged,
    BooksError,
    BooksLocked,
    BooksUnusable,
    LeafRow,
    State,
    open_books,
)
from sds_node.meta.books.epochs import EpochBooks
from sds_node.meta.rules import tables
from tests.sds_node.books.test_epochs_add_up import close
from tests.sds_node.books.world import START_S, Clock, owner, world

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("step", ["held", "intended", "applied", "marked"])
async def test_what_was_answered_held_is_settled_once_whenever_the_process_is_killed(tmp_path: Path, step: str) -> None:
    ended = subprocess.run([sys.executable, "-m", "tests.sds_node.books.killed", tmp_path, step], capture_output=True, text=True, timeout=60)  # noqa: ASYNC221
    assert ended.returncode == -9, ended.stderr
    assert "held 20" in ended.stdout
    async with world(tmp_path) as made:
        assert made.books.boot == START_S + 1
        await made.windows.settle()
        assert (await made.row(tables.EARNED, owner(1), 1, 1)).noz == sum(10 + at for at in range(20))
        assert (await made.row(tables.META, made.me)).windows == 1
        assert await made.windows.settle() == 0
        data = await EpochBooks(made.ledger, made.books, made.windows).epoch(1, *await close(made))
        assert data.receipts_count == 20
        assert list(made.books.verify()) == []


def row(number: int, **changes: object) -> LeafRow:
    made = LeafRow(number.to_bytes(16, "big"), State.HELD, owner(1), 1, 1, 5, 10, b"L" * 32, b"", 1, 10**15, 0, 0, b"leaf%d" % number, "")
    return made._replace(**changes)  # type: ignore[arg-type]


async def test_a_row_that_rotted_is_told_and_not_paid(tmp_path: Path) -> None:
    with open_books(tmp_path / "books") as books:
        await books.hold([row(1), row(2)])
    database = sqlite3.connect(tmp_path / "books")
    database.execute("UPDATE leaves SET noz = 500 WHERE id = ?", (row(1).id,))
    database.commit()
    database.close()
    with open_books(tmp_path / "books") as books:
        assert [one.id for one in await books.held_of_leases(10)] == [row(2).id]
        assert row(1).id.hex() in books.damaged[0]
        assert any("row 1 of leaves" in text for text in books.verify())
        assert (await books.hold([row(1)]))[0].state == State.HELD  # the node still has it, and hands it in again
        assert len(await books.held_of_leases(10)) == 2


async def test_starts_are_counted_and_a_rotten_counter_starts_nothing(tmp_path: Path) -> None:
    for boot in (1, 2, 3):
        with open_books(tmp_path / "books", lambda: 0.0) as books:
            assert books.boot == boot
    database = sqlite3.connect(tmp_path / "books")
    database.execute("UPDATE facts SET value = 1")
    database.commit()
    database.close()
    with pytest.raises(BooksDamaged, match="serials could come twice"):
        open_books(tmp_path / "books")


async def test_an_old_copy_of_the_books_and_new_ones_repeat_no_serial(tmp_path: Path) -> None:
    clock = Clock()
    seen = []
    for name in ("books", "books", "books", "copy", "new"):
        with open_books(tmp_path / name, clock) as books:
            seen.append(books.boot)
        if len(seen) == 1:
            shutil.copy(tmp_path / "books", tmp_path / "copy")
        clock.now_s += 2
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen)


async def test_a_long_run_draws_numbers_of_starts_that_no_other_start_has(tmp_path: Path) -> None:
    clock = Clock()
    seen = []
    for _ in range(2):
        with open_books(tmp_path / "books", clock) as books:
            seen.append(books.boot)
            for _ in range(2):
                seen.append(await asyncio.wrap_future(books.another_boot()))
                assert books.boot == seen[-1]
    assert len(set(seen)) == 6
    assert seen == sorted(seen)


async def test_two_processes_do_not_share_books(tmp_path: Path) -> None:
    with open_books(tmp_path / "books", lambda: 5.0), pytest.raises(BooksLocked):
        open_books(tmp_path / "books", lambda: 9.0)
    with open_books(tmp_path / "books", lambda: 0.0) as books:
        assert books.boot == 6


async def test_a_lease_has_leaves_until_all_of_them_are_in_windows(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(10_000)
        assert not await made.books.has_leaves(lease.id)
        await made.hand_in(made.peer(1), made.leaf(lease, 1, 1_000))
        assert await made.books.has_leaves(lease.id)
        assert not await made.books.has_leaves(b"L" * 32)
        await made.windows.settle()
        assert not await made.books.has_leaves(lease.id)


async def test_refused_leaves_of_repair_are_forgotten_after_a_week(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.books.hold([row(1, lease=b"", action=3, settles_ms=NEVER_MS), row(2, lease=b"", action=3, settles_ms=NEVER_MS)])
        await made.books.refuse([(row(1).id, "no")])
        epochs = EpochBooks(made.ledger, made.books, made.windows, made.clock)
        assert await epochs.forget() == 0
        made.clock.now_s += 8 * 86_400
        assert await epochs.forget() == 1
        assert [found is None for found in await made.books.answers([row(1).id, row(2).id])] == [True, False]


async def test_maintenance_that_goes_on_and_off_is_one_span(tmp_path: Path) -> None:
    with open_books(tmp_path / "books") as books:
        for at_s in range(1_000, 2_000, 10):
            await books.note_maintenance(1, at_s, at_s + 500, 0)
            await books.note_maintenance(1, at_s, at_s + 5, 0, is_over=True)
        assert await books.maintenance(1) == [(1_000, 1_995)]
        await books.note_maintenance(1, 3_000, 3_010, 0, is_over=True)
        assert await books.maintenance(1) == [(1_000, 1_995), (3_000, 3_010)]


async def test_a_folder_or_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(BooksUnusable):
        open_books(tmp_path / "nowhere" / "books")
    (tmp_path / "other").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(BooksDamaged):
        open_books(tmp_path / "other")


async def test_messages_to_nodes_keep_their_order_and_are_bounded(tmp_path: Path) -> None:
    with open_books(tmp_path / "books") as books:
        for number in range(5):
            await books.tell_later(1 + number % 2, "share.confirm", b"%d" % number)
        assert [one.body for one in await books.tells(1)] == [b"0", b"2", b"4"]
        await books.told([(await books.tells(1))[0].number])
        await books.do(
            lambda db: db.executemany("INSERT INTO tells (node, method, body, check32) VALUES (7, 'm', x'', 0)", [()] * MAX_TELLS_OF_A_NODE)
        )
        with pytest.raises(BooksError, match="10000 messages wait for node 7"):
            await books.tell_later(7, "share.confirm", b"")
    with open_books(tmp_path / "books") as books:
        assert [one.body for one in await books.tells(1)] == [b"2", b"4"]
        assert await books.nodes_to_tell() == {1: 2, 2: 2, 7: MAX_TELLS_OF_A_NODE}


async def test_batches_are_kept_by_their_hash(tmp_path: Path) -> None:
    with open_books(tmp_path / "books") as books:
        digest = sha256(b"answers").digest()
        await books.keep_batch(digest, b"answers", 1)
        assert await books.batch(digest) == b"answers"
        assert await books.batch(bytes(32)) is None


async def test_closed_books_take_nothing(tmp_path: Path) -> None:
    books = open_books(tmp_path / "books")
    books.close()
    with pytest.raises(BooksUnusable, match="closed"):
        await books.hold([row(1)])
