"""What a store does beside serving: ``collect`` empties the trash, ``scrub`` reads everything again in turn, ``verify`` tells an operator what is wrong,
and ``rebuild`` makes the index from the files. The first two are steps of bounded work, to be called again and again.

    shares/00/00 ─► shares/00/01 ─► … ─► shares/ff/ff ─► and again          names in the folder ∪ rows of the index, in one order
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from sds_node.files import sync_folder
from sds_node.resource.store import layout
from sds_node.resource.store.disk import disk_errors
from sds_node.resource.store.errors import ShareRefused, StoreUnusable
from sds_node.resource.store.index import Copy, Kept, Writing, changed, create
from sds_node.resource.store.layout import ROOT_BYTES, Damaged, Key, State, Trailer, file_name, folder_of, key_of, path_in
from sds_node.resource.store.shares import KEYS_AT_ONCE, ShareStore, damage_of_disk, hold_folder, write_marker

FOLDERS: Final = 1 << 16
NAMES_TOLD: Final = 100
"""Of a list in a report, at most so many are kept."""
_FIRST: Final = (bytes(ROOT_BYTES), b"")


@dataclass(frozen=True, slots=True)
class Collected:
    """What a step of ``collect`` did."""

    expired: int
    """Pending copies that went to the trash, since the ledger never named them."""
    purged: int
    """Copies that left the trash for good."""
    abandoned: int
    """Unfinished writes that were given up."""
    settled: int
    """Files made durable that lagged behind their rows."""


@dataclass(slots=True)
class Scrubbed:
    """What a step of ``scrub`` found. At most ``max_copies`` of each."""

    copies: int = 0
    bytes: int = 0
    damaged: list[tuple[Key, str]] = field(default_factory=list)
    """Copies whose file was damaged or missing, and what was wrong. They are put aside; ``ShareStore.damaged`` tells them until they are repaired."""
    adopted: list[Key] = field(default_factory=list)
    """Whole files of which the index had lost the row."""
    mended: list[Key] = field(default_factory=list)
    """Rows that were behind the state in the file."""
    unknown: list[str] = field(default_factory=list)
    """Names in the folders that are not those of shares (at most 100); they are left alone."""
    is_round: bool = False
    """The last share was reached; the next step begins with the first."""


def collect(store: ShareStore, max_copies: int = 256) -> Collected:
    """One bounded step: old pending copies to the trash, old trash away, idle writes given up, files settled; at most ``max_copies`` (1 to 1000) of each.

    A file that says otherwise than its row (the index was put back to an older state) is believed, and the row mended. Raises StoreFull, StoreUnusable.
    """
    _check_bound(max_copies, KEYS_AT_ONCE)
    now_s = store.clock.monotonic_s()
    idle = [writer for writer in store.writers() if now_s - writer.touched_s > store.settings.writer_idle_s][:max_copies]
    for writer in idle:
        writer.abort()
    age_s = store.clock.age_s()
    expired = store.index.older(State.PENDING, age_s - store.settings.pending_s, max_copies)
    expired = [copy for copy in expired if not _mend_row(store, copy)]
    old = store.index.older(State.TRASH, age_s - store.settings.trash_s, max_copies)
    old = [copy for copy in old if not _mend_row(store, copy)]
    missing = store.trash_if(expired, State.PENDING) if expired else 0
    purged = store.purge_if(old, State.TRASH) if old else 0
    return Collected(len(expired) - missing, purged, len(idle), store.settle(max_copies))


def _mend_row(store: ShareStore, copy: Copy) -> bool:
    """Whether a copy's file says another state than its row and nothing is under way that explains it; the row then follows the file."""
    if copy.kept is Kept.DAMAGED:
        return False
    with disk_errors(store.home), contextlib.suppress(Damaged, FileNotFoundError), store.lock_of(copy.root):
        trailer = _trailer(store, copy.key)

        def make(writing: Writing) -> bool:
            now = writing.get(copy.key)
            if now is None or now.kept is Kept.DAMAGED or now.state is trailer.state or writing.is_due(copy.key):
                return False
            writing.put(changed(now, trailer.state, store.clock.age_s()))
            return True

        return store.index.commit(make)
    return False


def _trailer(store: ShareStore, key: Key) -> Trailer:
    fd, trailer = store.open_file(key)
    os.close(fd)
    return trailer


def scrub(store: ShareStore, max_bytes: int = 64 << 20, max_copies: int = 1000) -> Scrubbed:
    """One bounded step of reading every copy again: it goes on where the last one ended, over restarts too, and ends after ``max_copies`` (1 to 100,000) or
    when ``max_bytes`` of shares are read (the share that reaches them is finished).

    What is damaged or missing is told, put aside and no longer served; what the index lost is found again. Raises StoreBusy for a second step at the same
    time, StoreUnusable, StoreFull, IndexDamaged.
    """
    _check_bound(max_copies, 100_000)
    with store.scrubbing():
        report = Scrubbed()
        place = store.index.fact("scrub_after")
        after = (place[:ROOT_BYTES], place[ROOT_BYTES:]) if isinstance(place, bytes) and len(place) >= ROOT_BYTES else _FIRST
        report.is_round = True
        for key in _keys_after(store, after, report.unknown):
            if report.copies >= max_copies or report.bytes >= max_bytes:
                report.is_round = False
                break
            after = key
            report.copies += 1
            _scrub_one(store, key, report)
        place = b"".join(_FIRST if report.is_round else after)
        with disk_errors(store.home):
            store.index.commit(lambda writing: writing.fact("scrub_after", place))
        return report


def _scrub_one(store: ShareStore, key: Key, report: Scrubbed) -> None:
    copy = store.index.get(key)
    if copy is None:
        if _adopt(store, key, report):
            report.adopted.append(key)
        return
    if copy.kept is Kept.DAMAGED:
        return
    if copy.kept is Kept.OWN:
        report.bytes += copy.size_bytes
    with disk_errors(store.home):
        try:
            trailer = store.check_file(key)
            if trailer.is_shared != (copy.kept is Kept.SHARED) or trailer.size_bytes != copy.size_bytes:
                raise Damaged("the file has another size than the index says, or holds its bytes elsewhere")
        except (Damaged, FileNotFoundError) as error:
            if store.mark_damaged(key, str(error)):
                report.damaged.append((key, _text(error)))
            return
    if trailer.state is not copy.state and _mend_row(store, copy):
        report.mended.append(key)


def _adopt(store: ShareStore, key: Key, report: Scrubbed) -> bool:
    """Take a file into the index that has no row and is not on its way out; a damaged one is put aside. Returns whether it was taken in."""
    with disk_errors(store.home), store.lock_of(key[0]):
        if store.index.get(key) is not None or store.index.due(key) is not None:
            return False
        try:
            trailer = store.check_file(key)
        except FileNotFoundError:
            return False
        except Damaged as error:
            os.rename(path_in(store.home, key), store.home / "quarantine" / file_name(key))
            report.damaged.append((key, _text(error)))
            return False
        if not trailer.is_shared:
            report.bytes += trailer.size_bytes
        copy = _copy_of(trailer, store.clock.age_s())
        store.index.commit(lambda writing: writing.put(copy))
        return True


def _copy_of(trailer: Trailer, age_s: int) -> Copy:
    length = layout.length_bytes(trailer.size_bytes, len(trailer.manifest), is_shared=trailer.is_shared)
    kept = Kept.SHARED if trailer.is_shared else Kept.OWN
    stored_s = min(trailer.stored_s, (1 << 63) - 1)
    return Copy(*trailer.key, trailer.size_bytes, len(trailer.manifest), trailer.state, kept, stored_s, age_s, layout.on_disk_bytes(length))


def _keys_after(store: ShareStore, after: Key, unknown: list[str]) -> Iterator[Key]:
    """Copies that have a row, a file or both, in order, those that follow ``after``."""
    folder = int.from_bytes(after[0][:2])
    while True:
        names = _names(store.home, folder, unknown)
        rows = _rows(store, folder, after)
        yield from sorted({key for key in [*names, *rows] if key > after})
        following = _next_folder(store, folder + 1)
        if following is None:
            return
        folder, after = following, (following.to_bytes(2) + bytes(ROOT_BYTES - 2), b"")


def _rows(store: ShareStore, folder: int, after: Key) -> list[Key]:
    below = (folder + 1).to_bytes(2) if folder + 1 < FOLDERS else None
    found: list[Key] = []
    while page := store.index.after(after, below=below):
        found += [copy.key for copy in page]
        after = page[-1].key
    return found


def _next_folder(store: ShareStore, start: int) -> int | None:
    """The first folder from ``start`` on that is there, or that a row belongs to."""
    if start >= FOLDERS:
        return None
    page = store.index.after((start.to_bytes(2) + bytes(ROOT_BYTES - 2), b""), rows=1)
    best = int.from_bytes(page[0].root[:2]) if page else None
    for first in range(start >> 8, (best >> 8) + 1 if best is not None else 256):
        seconds = [int(name, 16) for name in _list(f"{store.home}/shares/{first:02x}", store.home) if _is_hex(name)]
        here = [first << 8 | second for second in seconds if first << 8 | second >= start]
        if here:
            return min([*here, *([best] if best is not None else [])])
    return best


def _is_hex(name: str) -> bool:
    return len(name) == 2 and all(letter in "0123456789abcdef" for letter in name)


def _names(home: Path, folder: int, unknown: list[str]) -> list[Key]:
    place = f"{folder >> 8:02x}/{folder & 255:02x}"
    found = []
    for name in _list(f"{home}/shares/{place}", home):
        key = key_of(name)
        if key is not None and folder_of(key[0]) == place:
            found.append(key)
        elif len(unknown) < NAMES_TOLD:
            unknown.append(f"{place}/{name}")
    return found


def _list(path: str, home: Path) -> list[str]:
    with disk_errors(home):
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []


def verify(store: ShareStore, *, with_bytes: bool = False) -> Iterator[str]:
    """What is wrong with the store, one sentence for each, as it is found; nothing when all is well. It changes nothing.

    It reads the whole index and every file's trailer; ``with_bytes`` reads every share as well. Raises StoreUnusable, IndexDamaged.
    """
    for text in store.index.complaints():
        yield f"index: {text}"
    unknown: list[str] = []
    for key in _keys_after(store, _FIRST, unknown):
        if (what := _complaint(store, key, with_bytes=with_bytes)) is not None:
            yield f"copy {file_name(key)}: {what}"
    for name in unknown:
        yield f"file shares/{name}: not the name of a share"


def _complaint(store: ShareStore, key: Key, *, with_bytes: bool) -> str | None:
    with disk_errors(store.home), store.lock_of(key[0]):
        copy = store.index.get(key)
        if copy is None:
            return None if store.index.due(key) is not None or not os.path.lexists(path_in(store.home, key)) else "a file without a row in the index"
        if copy.kept is Kept.DAMAGED:
            return "was damaged and put aside: it waits to be repaired from the network"
        try:
            trailer = store.check_file(key) if with_bytes else _trailer(store, key)
        except (Damaged, FileNotFoundError) as error:
            return _text(error)
        if _copy_of(trailer, copy.changed_age_s) != replace(copy, stored_s=trailer.stored_s) and store.index.due(key) is None:
            return f"the index says {copy}, the file {_copy_of(trailer, copy.changed_age_s)}"
        if copy.kept is Kept.SHARED and not any(row.kept is Kept.OWN for row in store.index.of_root(key[0])):
            return "shares bytes that no file holds"
    return None


@dataclass(slots=True)
class Rebuilt:
    """What ``rebuild`` found."""

    copies: int = 0
    set_aside: int = 0
    """Damaged files, now in quarantine."""
    unknown: list[str] = field(default_factory=list)
    """Names that are not those of shares (at most 100); left alone."""


def rebuild(home: Path) -> Rebuilt:
    """Make the index of the closed store in ``home`` from its files alone, and put it in the place of the one that is there. Grace times begin anew.

    Trailers are checked, the shares' bytes are not: reading and scrubbing do. A crash leaves a store that asks for ``rebuild`` again. Memory is bounded by
    the names of one folder. Raises StoreLocked, StoreFull, StoreUnusable.
    """
    report = Rebuilt()
    with hold_folder(home, for_rebuild=True), disk_errors(home):
        new = home / "index.new"
        try:
            create(new, _rows_of_files(home, report))
        except sqlite3.Error as error:
            raise StoreUnusable(f"the new index {new} cannot be written ({error}): see that its disk has room and works") from error
        if report.set_aside:
            sync_folder(home / "quarantine")
        (home / "store").unlink(missing_ok=True)  # from here to the end the store asks for a rebuild
        for ending in ("-wal", "-shm", ""):
            (home / f"index.db{ending}").unlink(missing_ok=True)
        os.rename(new, home / "index.db")
        sync_folder(home)
        for name in os.listdir(home / "tmp"):
            os.unlink(home / "tmp" / name)
        write_marker(home)
    return report


def _rows_of_files(home: Path, report: Rebuilt) -> Iterator[Copy]:
    for folder in range(FOLDERS):
        if folder & 255 == 0:
            seconds = set(_list(f"{home}/shares/{folder >> 8:02x}", home))
        if f"{folder & 255:02x}" not in seconds:
            continue
        for key in sorted(_names(home, folder, report.unknown)):
            path = path_in(home, key)
            try:
                with damage_of_disk():
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                    try:
                        trailer = layout.read_trailer(fd)
                    finally:
                        os.close(fd)
                if trailer.key != key:
                    raise Damaged(f"the file is that of {file_name(trailer.key)}")
            except Damaged:
                os.rename(path, home / "quarantine" / file_name(key))
                report.set_aside += 1
                continue
            report.copies += 1
            yield _copy_of(trailer, 0)


def _text(error: Exception) -> str:
    return "the file is missing" if isinstance(error, FileNotFoundError) else str(error)


def _check_bound(value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise ShareRefused(f"a step takes 1 to {most} copies, not {value}")
