"""Small files of a meta node: new, older, of another program, no file of ours, a disk that fails."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from sds_node.meta.file import File

OLD, NEW = "CREATE TABLE a (x INTEGER);", "CREATE TABLE b (x INTEGER);"


class Fault(Exception):
    pass


def opened(path: Path, version: int = 2) -> File:
    return File(path, version, {0: OLD + NEW, 1: NEW} if version == 2 else {0: OLD}, Fault, "move it away", "small")


async def tables(file: File) -> list[str]:
    return await file.do(lambda database: [row[0] for row in database.execute("SELECT name FROM sqlite_master ORDER BY name")])


@pytest.mark.asyncio
async def test_a_file_is_made_and_an_older_one_is_brought_up_to_date_once(tmp_path: Path) -> None:
    first = opened(tmp_path / "small", 1)
    await first.change(lambda database: database.execute("INSERT INTO a VALUES (7)"))
    assert await tables(first) == ["a"]
    first.close()
    for _ in range(2):
        file = opened(tmp_path / "small")
        assert await tables(file) == ["a", "b"]
        assert await file.do(lambda database: database.execute("SELECT x FROM a").fetchall()) == [(7,)]
        file.close()


@pytest.mark.asyncio
async def test_work_that_fails_changes_nothing_and_is_told_by_the_files_own_error(tmp_path: Path) -> None:
    file = opened(tmp_path / "small")

    def half(database: sqlite3.Connection) -> None:
        database.execute("INSERT INTO a VALUES (1)")
        database.execute("INSERT INTO c VALUES (1)")

    with pytest.raises(Fault, match=r"small cannot be used \(no such table: c\): look at the disk"):
        await file.do(half)
    assert await file.do(lambda database: database.execute("SELECT count(*) FROM a").fetchone()) == (0,)
    file.close()


def test_what_is_another_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"no database" * 100)
    with pytest.raises(Fault, match=r"move it away"):
        opened(tmp_path / "other")
    with pytest.raises(Fault, match=r"cannot be opened .*: move it away"):
        opened(tmp_path / "none" / "small")
    opened(tmp_path / "small").close()
    with pytest.raises(Fault, match="has version 2, this program knows 1: use the program that wrote it"):
        opened(tmp_path / "small", 1)
