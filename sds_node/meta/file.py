"""A small SQLite file of one meta node, beside its ledger and books: one thread has it, each piece of work is one transaction.

    File(path) ─ its version? ─┬─ known, or older: the statements that lead here ─► do(work) ─► transaction, synced ─► answered
                               └─ another ─► refused, and what to do

Each user of it has an error class of its own, so that who catches one knows which file failed. Source: docs/adr/0008 (what is kept beside the ledger).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class File:
    """The file at ``path``, made if there is none. ``fault`` makes the error that is raised from a text. ``upgrades``: version of a file → the statements that
    make it one of ``version``; 0 is a new file. ``loss`` says what to do about a file that is something else. ``name`` is the thread's. A file that is not
    ``is_synced`` may lose its last changes with the machine's power, not with the process."""

    def __init__(
        self,
        path: Path,
        version: int,
        upgrades: Mapping[int, str],
        fault: Callable[[str], Exception],
        loss: str,
        name: str,
        *,
        is_synced: bool = True,
    ) -> None:
        self._path, self._fault = path, fault
        try:
            self._database = sqlite3.connect(path, check_same_thread=False)
            try:
                self._open(version, upgrades, is_synced)
            except BaseException:
                self._database.close()
                raise
        except sqlite3.Error as error:
            raise fault(f"{path} is not what it should be, or cannot be opened ({error}): {loss}") from error
        self._thread = ThreadPoolExecutor(1, name)

    def _open(self, version: int, upgrades: Mapping[int, str], is_synced: bool) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute(f"PRAGMA synchronous = {'FULL' if is_synced else 'NORMAL'}")
        found = int(self._database.execute("PRAGMA user_version").fetchone()[0])
        if found == version:
            return
        if found not in upgrades:
            raise self._fault(f"{self._path} has version {found}, this program knows {version}: use the program that wrote it")
        self._database.executescript(f"BEGIN; {upgrades[found]} PRAGMA user_version = {version}; COMMIT;")

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` makes of the database, in one transaction, which is on the disk when this returns. Raises the file's error."""
        return await asyncio.wrap_future(self._thread.submit(self._run, work))

    async def change(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Do something that answers nothing: a cursor may not reach another thread."""

        def make(database: sqlite3.Connection) -> None:
            work(database)

        await self.do(make)

    def close(self) -> None:
        """Give the file back, after what is under way."""
        self._thread.submit(self._database.close).result()
        self._thread.shutdown()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._database:
                return work(self._database)
        except sqlite3.Error as error:
            raise self._fault(f"{self._path} cannot be used ({error}): look at the disk, then start again") from error
