"""The share store of a resource node: begin, write, finish; read, leaf, manifest; confirm, trash, restore, purge. Any thread may call it.

    begin ─► write … ─► finish:  root and size right? ─► file synced ─► row and due in the index ─► moved in ─► folder synced ─► acknowledged
                                                                        (durable)

    PENDING ──confirm──► CONFIRMED ──trash──► TRASH ──purge, after the grace time──► gone
       └──────────────too old──────────────────┘ └──restore──► CONFIRMED

What is visible is what the index says and ``_hidden`` does not name. Locks: one of ``_locks`` for a root's files (several only in ascending order), then
the index's; never the other way round.
Source: storage-protocol.md 3.4 to 3.7, ADR 7, storage-interfaces.md 4.4.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from sds_node.files import sync_folder
from sds_node.merkle import LEAF_BYTES, MAX_SHARE_BYTES, MerkleError, RootCheck, leaf_count, root_of_hashes, share_path
from sds_node.resource.store import layout
from sds_node.resource.store.clock import Clock
from sds_node.resource.store.disk import Folders, check_room, disk_errors, lock_folder, write_all
from sds_node.resource.store.errors import (
    IndexDamaged,
    ShareDamaged,
    ShareExists,
    ShareNotFound,
    ShareRefused,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreUnusable,
)
from sds_node.resource.store.index import Copy, Due, Index, Kept, Totals, Writing, changed, check_key, create
from sds_node.resource.store.layout import (
    MAX_MANIFEST_BYTES,
    ROOT_BYTES,
    Damaged,
    Key,
    State,
    Trailer,
    file_name,
    folder_of,
    path_in,
)

KEYS_AT_ONCE: Final = 1000
"""Copies that one call may change."""
COPIES_OF_ROOT: Final = 256
"""As many copies of one share may be kept: reads look at all of them."""
MARKER: Final = "store"
_OURS: Final = {"lock", "shares", "tmp", "quarantine", "store.new", "objects.db", "objects.db-wal", "objects.db-shm", "objects.db.damaged"}
_MARKER_TEXT: Final = b"stratos share store, layout 1\n"
_LOCKS: Final = 256
_SETTLERS: Final = 16
_DUES_KEPT: Final = 4096
"""As many files may lag behind their rows; beyond, a change waits until they are durable."""
_VISIBLE: Final = (State.PENDING, State.CONFIRMED)

T = TypeVar("T")


def _no_step(_label: str) -> None:
    """What happens at a step of a real node: nothing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides about the store."""

    capacity_bytes: int = 0
    """What all files together may take on disk; 0 leaves it to the free space."""
    reserve_bytes: int = 1 << 30
    """As much of the disk is left free."""
    max_writers: int = 256
    """Unfinished writes at a time."""
    writer_idle_s: int = 600
    """An unfinished write to which nothing came for so long is given up by ``collect``."""
    pending_s: int = 86_400
    """A copy that the ledger has not named for so long goes to the trash: an order limit lives an hour, a commit takes seconds."""
    trash_s: int = 7 * 86_400
    """How long a deleted copy can be restored (storage-protocol.md 3.7)."""

    def __post_init__(self) -> None:
        for name in ("capacity_bytes", "reserve_bytes", "writer_idle_s", "pending_s", "trash_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 0 or more")
        if not 1 <= self.max_writers <= 65_536:
            raise ValueError(f"max_writers is {self.max_writers}: expected 1 to 65536")


class ShareStore:
    """An open share store. ``open_store`` makes one; ``close`` ends it."""

    def __init__(self, home: Path, settings: Settings, clock: Clock, at_step: Callable[[str], None], lock_fd: int) -> None:
        self.home, self.settings, self.clock, self.at_step = home, settings, clock, at_step
        self._lock_fd = lock_fd
        self.folders = Folders(home)
        self._locks = [threading.RLock() for _ in range(_LOCKS)]
        self._space_lock = threading.Lock()
        self._writers: dict[Key, Writer] = {}
        self._hidden: set[Key] = set()
        self._closing = threading.Lock()
        self._settling = threading.Lock()
        self._scrubbing = threading.Lock()
        self._is_closed = False
        self.index = Index(home / "index.db", clock, at_step)

    # --- writing -----------------------------------------------------------------------------------------------------------

    def begin(self, root: bytes, size_bytes: int, serial: bytes, manifest: bytes) -> Writer:
        """Reserve room for a copy and return what takes its bytes.

        ``root`` 32 bytes, ``serial`` 16 bytes, 1 <= ``size_bytes`` <= 32 MiB, ``manifest`` at most 8 KiB, opaque. A damaged copy may be begun again.
        Raises ShareRefused, ShareExists, StoreBusy, StoreFull, StoreUnusable.
        """
        key = _checked(root, serial)
        if not 1 <= size_bytes <= MAX_SHARE_BYTES:
            raise ShareRefused(f"a share has 1 to {MAX_SHARE_BYTES} bytes, not {size_bytes}")
        if len(manifest) > MAX_MANIFEST_BYTES:
            raise ShareRefused(f"a manifest has at most {MAX_MANIFEST_BYTES} bytes, not {len(manifest)}")
        self._refuse_existing(key, self.index.get(key))
        need_bytes = layout.on_disk_bytes(layout.length_bytes(size_bytes, len(manifest)))
        with self._space_lock:
            self._refuse_closed()
            if key in self._writers:
                raise StoreBusy(f"the copy {file_name(key)} is being written: wait for that write to end")
            if len(self._writers) >= self.settings.max_writers:
                raise StoreBusy(f"{len(self._writers)} writes are unfinished, as many as are allowed: try again in a moment, or another node")
            # What open writers have written is off the free space already, so this asks for a little more than it needs.
            reserved_bytes = need_bytes + sum(writer.need_bytes for writer in self._writers.values())
            capacity, used = self.settings.capacity_bytes, self.index.totals.disk_bytes
            if capacity and used + reserved_bytes > capacity:
                raise StoreFull(
                    f"{used} of {capacity} bytes of capacity are used and {reserved_bytes} wanted: raise the capacity, or wait for the trash"
                )
            with disk_errors(self.home):
                check_room(self.home, reserved_bytes, self.settings.reserve_bytes)
            writer = self._writers[key] = Writer(self, key, size_bytes, bytes(manifest), need_bytes)
        try:
            with disk_errors(self.home):
                self.at_step("begin")
                writer._open()
        except BaseException:
            writer.abort()
            raise
        return writer

    def _refuse_existing(self, key: Key, copy: Copy | None) -> None:
        if copy is not None and copy.kept is not Kept.DAMAGED:
            hints = {State.TRASH: ": restore it", State.GHOST: ": other copies share its bytes, so store it under another serial"}
            hint = hints.get(copy.state, "")
            raise ShareExists(f"the copy {file_name(key)} is kept already ({copy.state.name.lower()}){hint}")

    def _finish(self, writer: Writer, fd: int, leaf_hashes: bytes) -> Copy:
        """The end of ``Writer.finish``: the bytes are right and in the file ``fd``. Raises what ``finish`` raises; the caller removes what is left."""
        key, size_bytes = writer.key, writer.size_bytes
        with self.lock_of(key[0]):
            is_shared = self._sharable(key, size_bytes)
            stored_s = self.clock.wall_s()
            before = self.index.get(key)
            if before is None and len(self.index.of_root(key[0])) >= COPIES_OF_ROOT:
                raise StoreFull(f"{COPIES_OF_ROOT} copies of the share {key[0].hex()} are kept, as many as are allowed: choose another node")
            self._refuse_existing(key, before)
            state = State.CONFIRMED if before is not None and before.state is State.CONFIRMED else State.PENDING
            if is_shared:
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)
            hashes = b"" if is_shared else leaf_hashes
            write_all(fd, layout.encode_trailer(key, size_bytes, stored_s, hashes, writer.manifest, state, is_shared=is_shared))
            self.at_step("trailer written")
            os.fsync(fd)
            self.at_step("file synced")
            folder = folder_of(key[0])
            self.folders.make(folder)
            disk_bytes = layout.on_disk_bytes(os.fstat(fd).st_size)
            kept = Kept.SHARED if is_shared else Kept.OWN
            copy = Copy(*key, size_bytes, len(writer.manifest), state, kept, stored_s, self.clock.age_s(), disk_bytes)

            def put(writing: Writing) -> int:
                if writing.get(key) != before:
                    raise StoreBusy(f"the damaged copy {file_name(key)} changed while it was being written again: begin again")
                return writing.put(copy, Due.ARRIVES if before is None else Due.RETURNS)

            self._hidden.add(key)
            try:
                number = self.index.commit(put)
                self.at_step("indexed")
                os.rename(writer.path, path_in(self.home, key))
                self.at_step("moved in")
                self.folders.sync(folder)
                self.at_step("folder synced")
            except BaseException:
                self._take_back(writer)
                raise
            self._hidden.discard(key)
            self.index.settled_later(key, number)
        return copy

    def _take_back(self, writer: Writer) -> None:
        """Undo a row whose file could not be moved in. If even that fails, the copy stays hidden, and the next start removes it."""
        with contextlib.suppress(OSError):
            os.unlink(writer.path)
        with contextlib.suppress(StoreError, OSError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path_in(self.home, writer.key))
            if self.index.get(writer.key) is not None:
                self._settle(writer.key, self.index.due(writer.key) or Due.CHECK)
            self._hidden.discard(writer.key)

    def _sharable(self, key: Key, size_bytes: int) -> bool:
        """Whether another copy of the root holds the same bytes, whole: they are read and checked before the new ones are given up."""
        for copy in self.index.of_root(key[0]):
            if copy.key == key or copy.kept is not Kept.OWN or copy.size_bytes != size_bytes or copy.key in self._hidden:
                continue
            try:
                self.check_file(copy.key)
            except (Damaged, FileNotFoundError) as error:
                self.mark_damaged(copy.key, str(error))
            else:
                return True
        return False

    # --- reading -----------------------------------------------------------------------------------------------------------

    def has(self, root: bytes, serial: bytes | None = None) -> bool:
        """Whether the share can be served; with ``serial``, whether that copy of it is kept as well. Raises ShareRefused for wrong lengths."""
        found = self.copies(root)
        if serial is not None:
            _checked(root, serial)
            found = [copy for copy in found if copy.serial == serial]
        return bool(found)

    def copies(self, root: bytes) -> list[Copy]:
        """The copies of a share that are pending or confirmed and whole, in the order of their serials; empty when its bytes are not whole."""
        _checked_root(root)
        rows = [copy for copy in self.index.of_root(root) if copy.key not in self._hidden and copy.kept is not Kept.DAMAGED]
        return [copy for copy in rows if copy.state in _VISIBLE] if any(copy.kept is Kept.OWN for copy in rows) else []

    def open_share(self, root: bytes) -> Reader:
        """A reader of the share's bytes, to be closed. Its leaf hashes have been checked against the root. A file that is removed meanwhile stays readable.

        Raises ShareRefused, ShareNotFound, ShareDamaged, StoreUnusable.
        """
        return self._open_share(root, {})

    def _open_share(self, root: bytes, failed: dict[Key, str]) -> Reader:
        """The same, without the holders in ``failed`` (copy → what is wrong with it), to which it adds."""
        _checked_root(root)
        gone: set[Key] = set()
        while True:
            rows = [copy for copy in self.index.of_root(root) if copy.key not in self._hidden]  # read once: other threads change them
            if not any(copy.state in _VISIBLE for copy in rows):
                raise ShareNotFound(f"no share {root.hex()} is kept here: ask another holder")
            untried = [copy.key for copy in rows if copy.kept is Kept.OWN and copy.key not in failed]
            if not untried or all(copy.kept is Kept.DAMAGED for copy in rows if copy.state in _VISIBLE):
                what = next(iter(failed.values()), "it was found so before")
                raise ShareDamaged(f"the share {root.hex()} is damaged ({what}) and put aside: it must be repaired from the network")
            with disk_errors(self.home):
                try:
                    return Reader(self, *self._open_holder(untried[0]))
                except (Damaged, FileNotFoundError) as error:
                    # It may only have been purged, or written anew, since the rows were read: then it has a second chance.
                    if self.mark_damaged(untried[0], str(error)) or untried[0] in gone:
                        failed[untried[0]] = str(error)
                    gone.add(untried[0])

    def read(self, root: bytes, offset: int = 0, length: int | None = None) -> bytes:
        """``length`` bytes of a share from ``offset`` (None: to its end), each leaf of them checked. Raises ShareRefused for a range that it does not have,
        ShareNotFound, ShareDamaged, StoreUnusable.
        """
        return self._with_any_holder(root, lambda reader: reader.read(offset, reader.size_bytes - offset if length is None else length))

    def leaf(self, root: bytes, index: int) -> tuple[bytes, list[bytes]]:
        """Leaf ``index`` of a share (at most 16 KiB) and its path, from the bottom up: the answer to an audit. Raises as ``read`` does."""
        return self._with_any_holder(root, lambda reader: reader.leaf(index))

    def _with_any_holder(self, root: bytes, use: Callable[[Reader], T]) -> T:
        """What ``use`` returns for the first holder that is not damaged."""
        failed: dict[Key, str] = {}
        while True:
            with self._open_share(root, failed) as reader:
                try:
                    return use(reader)
                except ShareDamaged as error:
                    failed[reader.key] = str(error.__cause__)

    def manifest(self, root: bytes, serial: bytes) -> bytes:
        """What was handed in with a copy. Raises ShareRefused, ShareNotFound, ShareDamaged, StoreUnusable."""
        key = _checked(root, serial)
        copy = self.index.get(key)
        if copy is None or copy.state is State.GHOST or key in self._hidden:
            raise ShareNotFound(f"no copy {file_name(key)} is kept here")
        if copy.kept is Kept.DAMAGED:
            raise ShareDamaged(f"the file of the copy {file_name(key)} is damaged")
        with disk_errors(self.home):
            try:
                fd, trailer = self.open_file(key)
            except (Damaged, FileNotFoundError) as error:
                self.mark_damaged(key, str(error))
                raise ShareDamaged(f"the file of the copy {file_name(key)} is damaged ({error}) and was put aside") from error
            os.close(fd)
        return trailer.manifest

    def inventory(self, after: Key = (b"", b"")) -> Iterator[Copy]:
        """All copies but ghosts in the order of (root, serial), those that follow ``after``. It reads page by page: a copy that is kept all the while is
        told once, one that comes or goes meanwhile may be told or not.
        """
        while page := self.index.after(after):
            yield from (copy for copy in page if copy.state is not State.GHOST and copy.key not in self._hidden)
            after = page[-1].key

    def damaged(self, after: Key = (b"", b""), limit: int = KEYS_AT_ONCE) -> list[Copy]:
        """Up to ``limit`` copies whose file is damaged or missing, in order, those that follow ``after``. ``begin`` with the same names repairs one."""
        if not 1 <= limit <= KEYS_AT_ONCE:
            raise ShareRefused(f"1 to {KEYS_AT_ONCE} damaged copies are told at a time, not {limit}")
        return self.index.damaged(after, limit)

    def totals(self) -> Totals:
        """How many copies there are and what they take, as of the last change."""
        return self.index.totals

    def free_bytes(self) -> int:
        """How many more bytes of files may come: the lesser of what the capacity and what the disk leaves, unfinished writes taken off."""
        with self._space_lock, disk_errors(self.home):
            disk = os.statvfs(self.home)
            reserved_bytes = sum(writer.need_bytes for writer in self._writers.values())
        free_bytes = disk.f_bavail * disk.f_frsize - self.settings.reserve_bytes
        if self.settings.capacity_bytes:
            free_bytes = min(free_bytes, self.settings.capacity_bytes - self.index.totals.disk_bytes)
        return max(free_bytes - reserved_bytes, 0)

    # --- life of a copy ----------------------------------------------------------------------------------------------------

    def confirm(self, keys: Iterable[Key]) -> list[Key]:
        """The ledger names these copies (at most 1,000). Durable when it returns. Returns those that are neither pending nor confirmed here."""
        return self._change(keys, {State.PENDING: State.CONFIRMED, State.CONFIRMED: State.CONFIRMED})

    def trash(self, keys: Iterable[Key]) -> list[Key]:
        """Delete copies (at most 1,000) in a way that ``restore`` undoes. Durable when it returns. Returns those that are not kept here."""
        return self._change(keys, {State.PENDING: State.TRASH, State.CONFIRMED: State.TRASH, State.TRASH: State.TRASH})

    def restore(self, keys: Iterable[Key]) -> list[Key]:
        """Take copies (at most 1,000) out of the trash; they are confirmed then. Durable when it returns. Returns those that are not in it."""
        return self._change(keys, {State.TRASH: State.CONFIRMED, State.CONFIRMED: State.CONFIRMED})

    def purge(self, keys: Iterable[Key]) -> list[Key]:
        """Remove copies (at most 1,000) that are in the trash, whatever their age, for good. Durable when it returns. Returns those that are not in it."""
        wanted = _checked_keys(keys)
        gone = {copy.key for copy in self._purge(wanted, lambda copy: copy.state is State.TRASH)}
        return [key for key in wanted if key not in gone]

    def _change(self, keys: Iterable[Key], moves: dict[State, State]) -> list[Key]:
        wanted = _checked_keys(keys)
        age_s = self.clock.age_s()

        def make(writing: Writing) -> list[Key]:
            missing = []
            for key in wanted:
                copy = writing.get(key)
                if copy is not None and key in self._hidden:
                    raise StoreBusy(f"the copy {file_name(key)} is being moved in: try again in a moment")
                if copy is None or copy.state not in moves:
                    missing.append(key)
                elif moves[copy.state] is not copy.state:
                    writing.put(changed(copy, moves[copy.state], age_s))
            return missing

        with disk_errors(self.home):
            missing = self.index.commit(make)
            self.at_step("state changed")
            # The row decides. The slots in the files are for a rebuild: they are written at once, and made durable a little later.
            for key in set(wanted) - set(missing):
                with contextlib.suppress(OSError, StoreError), self.lock_of(key[0]):
                    self._write_slot(key, is_durable=False)
            self.at_step("slots written")
        if self.index.due_count() > _DUES_KEPT:
            self.settle()
        return missing

    def _purge(self, keys: Iterable[Key], is_meant: Callable[[Copy], bool]) -> list[Copy]:
        """Remove those of ``keys`` whose row ``is_meant``, with the ghosts that nobody needs any more. Returns what was removed; ghosts to be are told too."""
        wanted = list(keys)
        with self._all_locks_of(wanted), disk_errors(self.home):
            gone, removed = self.index.commit(lambda writing: self._remove_rows(writing, wanted, is_meant))
            self.at_step("rows removed")
            for key in removed:
                with contextlib.suppress(StoreError, OSError):  # due, so a later step or start settles it
                    self._settle_file(key)
            self.at_step("files removed")
        if self.index.due_count() > _DUES_KEPT:
            self.settle()
        return gone

    def _remove_rows(self, writing: Writing, keys: list[Key], is_meant: Callable[[Copy], bool]) -> tuple[list[Copy], list[Key]]:
        gone: list[Copy] = []
        removed: list[Key] = []
        for key in keys:
            copy = writing.get(key)
            if copy is None or copy.state is State.GHOST or not is_meant(copy):
                continue
            gone.append(copy)
            rows = [row for row in writing.of_root(key[0]) if row.key != key]
            needs_bytes = any(row.kept is Kept.SHARED for row in rows) and not any(row.kept is Kept.OWN for row in rows)
            if copy.kept is Kept.OWN and needs_bytes:
                writing.put(changed(copy, State.GHOST, self.clock.age_s()))
                removed.append(key)
                continue
            removed.append(key)
            writing.remove(copy)
            if all(row.state is State.GHOST for row in rows):
                for row in rows:
                    writing.remove(row)
                    removed.append(row.key)
        return gone, removed

    def trash_if(self, copies: list[Copy], state: State) -> int:
        """Move copies to the trash that are still in ``state``. Returns how many are not."""
        return len(self._change([copy.key for copy in copies], {state: State.TRASH}))

    def purge_if(self, copies: list[Copy], state: State) -> int:
        """Remove copies for good that are still as they were, in ``state``. Returns how many it removed."""
        as_they_were = {copy.key: copy for copy in copies}
        return len(self._purge(as_they_were, lambda copy: copy.state is state and copy.changed_age_s == as_they_were[copy.key].changed_age_s))

    def writers(self) -> list[Writer]:
        """The unfinished writes."""
        with self._space_lock:
            return list(self._writers.values())

    @contextlib.contextmanager
    def scrubbing(self) -> Iterator[None]:
        """One scrubbing step at a time. Raises StoreBusy."""
        if not self._scrubbing.acquire(blocking=False):
            raise StoreBusy("a scrubbing step is under way: wait for it to end")
        try:
            yield
        finally:
            self._scrubbing.release()

    # --- files and rows ----------------------------------------------------------------------------------------------------

    def lock_of(self, root: bytes) -> contextlib.AbstractContextManager[object]:
        """The lock under which a root's files change."""
        return self._locks[root[0]]

    @contextlib.contextmanager
    def _all_locks_of(self, keys: Iterable[Key]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for number in sorted({key[0][0] for key in keys}):
                stack.enter_context(self._locks[number])
            yield

    def open_file(self, key: Key) -> tuple[int, Trailer]:
        """A copy's file, open for reading, and its trailer. Raises FileNotFoundError, Damaged, OSError."""
        with damage_of_disk():
            fd = os.open(path_in(self.home, key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            with damage_of_disk():
                trailer = layout.read_trailer(fd)
            if trailer.key != key:
                raise Damaged(f"the file is that of {file_name(trailer.key)}")
            if not trailer.is_shared and root_of_hashes(trailer.leaf_hashes) != key[0]:
                raise Damaged("the leaf hashes do not have the share's root")
        except BaseException:
            os.close(fd)
            raise
        return fd, trailer

    def _open_holder(self, key: Key) -> tuple[int, Trailer]:
        fd, trailer = self.open_file(key)
        if trailer.is_shared:
            os.close(fd)
            raise Damaged("the file holds no bytes, though the index says so")
        return fd, trailer

    def check_file(self, key: Key) -> Trailer:
        """Read a copy's file and check every byte of it. Raises FileNotFoundError, Damaged, OSError."""
        fd, trailer = self.open_file(key)
        try:
            if not trailer.is_shared:
                with damage_of_disk():
                    for index in range(leaf_count(trailer.size_bytes)):
                        layout.read_leaves(fd, trailer, index, index + 1)
        finally:
            os.close(fd)
        return trailer

    def mark_damaged(self, key: Key, what: str) -> bool:
        """A copy's file is damaged or missing: say so in the index and put the file aside. It is looked at again first, since it may have been replaced or
        removed meanwhile. Returns whether it was so. What the disk refuses here is left to a later step: each read checks anyway.
        """
        with contextlib.suppress(StoreError, OSError), self.lock_of(key[0]):
            copy = self.index.get(key)
            if copy is None or copy.kept is Kept.DAMAGED or key in self._hidden:
                return False
            try:
                trailer = self.check_file(key)
                if trailer.is_shared == (copy.kept is Kept.SHARED) and trailer.size_bytes == copy.size_bytes:
                    return False
            except (Damaged, FileNotFoundError):
                pass
            self._put_damaged(key)
            self.at_step("marked damaged")
            self._settle_file(key)
            self.at_step("put aside")
            return True
        return False

    def _put_damaged(self, key: Key) -> None:
        """The row is read again in the transaction, since a state changes without the root's lock."""

        def make(writing: Writing) -> None:
            copy = writing.get(key)
            if copy is not None:
                writing.put(replace(copy, kept=Kept.DAMAGED))

        self.index.commit(make)

    def _write_slot(self, key: Key, *, is_durable: bool) -> None:
        """See that a copy's file says the state that its row says. A damaged file is left to who reads it next."""
        copy = self.index.get(key)
        if copy is None or copy.kept is Kept.DAMAGED:
            return
        try:
            with damage_of_disk():
                fd = os.open(path_in(self.home, key), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, Damaged):
            return
        try:
            with damage_of_disk():
                trailer = layout.read_trailer(fd)
            if trailer.key == key and trailer.state is not copy.state:
                layout.write_state(fd, trailer, copy.state, self.clock.wall_s())
            if is_durable:
                with damage_of_disk():
                    os.fsync(fd)
        except Damaged:
            pass
        finally:
            os.close(fd)

    def _settle_file(self, key: Key) -> None:
        """Make a copy's file look as its row says; the root's lock is held. Raises OSError."""
        copy = self.index.get(key)
        path, aside = path_in(self.home, key), self.home / "quarantine" / file_name(key)
        # Somebody may have put a folder where a file was; it is left to him.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            if copy is None:
                os.unlink(path)
            elif copy.kept is Kept.DAMAGED:
                os.rename(path, aside)
        if copy is None or copy.kept is not Kept.DAMAGED:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(aside)
        if copy is not None:
            self._write_slot(key, is_durable=False)

    def _settle(self, key: Key, why: Due) -> None:
        """Make a copy's file and row agree, durably; the root's lock is held. Raises OSError, StoreError."""
        copy = self.index.get(key)
        if copy is not None and copy.kept is not Kept.DAMAGED and not os.path.lexists(path_in(self.home, key)):
            if why is Due.ARRIVES and copy.state is State.PENDING:
                self.index.commit(lambda writing: writing.remove(copy) if writing.get(key) == copy else None)
            else:
                self._put_damaged(key)
        self._settle_file(key)
        self._write_slot(key, is_durable=True)
        if why is not Due.CHECK or copy is None or copy.kept is Kept.DAMAGED:  # else no name changed
            self.folders.sync(folder_of(key[0]))

    def settle(self, limit: int = KEYS_AT_ONCE) -> int:
        """Make up to ``limit`` files durable that lag behind their rows, and forget that they did. Returns how many. One thread at a time does so; for
        another one it is 0. Raises StoreError.
        """
        if not self._settling.acquire(blocking=False):
            return 0
        try:
            with disk_errors(self.home):
                dues = self.index.dues(limit)
                if len(dues) > 1:  # side by side, since a disk makes many syncs at once as fast as one
                    with ThreadPoolExecutor(_SETTLERS, "settle") as pool:
                        done = list(pool.map(self._settle_due, dues))
                else:
                    done = list(map(self._settle_due, dues))
                self.at_step("dues settled")
                if done:
                    self.index.commit(lambda writing: writing.settled(done))
                    sync_folder(self.home / "quarantine")
                self.at_step("dues forgotten")
                return len(done)
        finally:
            self._settling.release()

    def _settle_due(self, due: tuple[bytes, bytes, int, Due]) -> tuple[bytes, bytes, int]:
        root, serial, number, why = due
        with self.lock_of(root):
            self._settle((root, serial), why)
            self._hidden.discard((root, serial))
        return root, serial, number

    def _recover(self) -> None:
        """After a start: settle every file that was on its way, then remove what unfinished writes left."""
        while self.settle():
            pass
        for name in os.listdir(self.home / "tmp"):
            os.unlink(self.home / "tmp" / name)

    # --- the end -----------------------------------------------------------------------------------------------------------

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise StoreUnusable(f"the share store in {self.home} is closed: the node is stopping")

    def close(self) -> None:
        """Give up unfinished writes, settle what is due and release the folder. Readers that are open stay so. Calling it again does nothing."""
        with self._closing:
            with self._space_lock:
                if self._is_closed:
                    return
                self._is_closed = True
                writers = list(self._writers.values())
            for writer in writers:
                writer.abort()
            with contextlib.suppress(StoreError):
                self.settle()
            with contextlib.ExitStack() as stack:  # whatever moves files now ends before another process may open the folder
                for lock in self._locks:
                    stack.enter_context(lock)
                self.index.close()
            os.close(self._lock_fd)

    def __enter__(self) -> ShareStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Writer:
    """A copy on its way in. ``finish`` or ``abort`` ends it; leaving its ``with`` block unfinished aborts it."""

    def __init__(self, store: ShareStore, key: Key, size_bytes: int, manifest: bytes, need_bytes: int) -> None:
        self.key, self.size_bytes, self.manifest, self.need_bytes = key, size_bytes, manifest, need_bytes
        self.path = os.fspath(store.home / "tmp" / file_name(key))
        self.touched_s = store.clock.monotonic_s()
        self._store = store
        self._check = RootCheck(key[0], size_bytes)
        self._came = 0
        self._fd = -1
        self._is_over = False
        self._lock = threading.Lock()

    def _open(self) -> None:
        with self._lock:
            if not self._is_over:
                # Nobody else writes this copy, so a file of that name is a leftover.
                self._fd = os.open(self.path, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes. Raises ShareRefused for more than were announced, StoreFull or StoreUnusable; the write is then over and nothing is kept."""
        with self._lock, self._ending_badly():
            view = memoryview(data).cast("B")
            if self._came + len(view) > self.size_bytes:
                raise ShareRefused(f"{self.size_bytes} bytes were announced and {self._came + len(view)} came: begin again with the right size")
            self._check.update(view)
            write_all(self._fd, view)
            self._came += len(view)
            self.touched_s = self._store.clock.monotonic_s()
            self._store.at_step("data written")

    def finish(self) -> Copy:
        """Check root and size, and keep the copy, pending. Everything is durable when it returns.

        Raises ShareRefused for a wrong root or size, ShareExists, StoreFull, StoreUnusable, IndexDamaged; nothing is kept then.
        """
        with self._lock, self._ending_badly():
            try:
                leaf_hashes = self._check.finish()
            except MerkleError as error:
                raise ShareRefused(str(error)) from error
            copy = self._store._finish(self, self._fd, leaf_hashes)
            self._close()
            return copy

    def abort(self) -> None:
        """Give the write up; nothing is kept. After ``finish`` or ``abort`` it does nothing."""
        with self._lock:
            self._give_up()

    @contextlib.contextmanager
    def _ending_badly(self) -> Iterator[None]:
        """Have any error end the write."""
        if self._fd < 0:
            raise ShareRefused(f"the write of {file_name(self.key)} is over: begin again")
        try:
            with disk_errors(self._store.home):
                yield
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        with contextlib.suppress(OSError):  # the next start removes it
            if self._fd >= 0:
                os.unlink(self.path)
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._is_over = True
        with self._store._space_lock:
            if self._store._writers.get(self.key) is self:
                del self._store._writers[self.key]

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abort()


class Reader:
    """An open share. Any thread may read; every leaf that is read is checked. ``close`` it, or use it in a ``with`` block."""

    def __init__(self, store: ShareStore, fd: int, trailer: Trailer) -> None:
        self._store, self._fd, self._trailer = store, fd, trailer
        self.key, self.root, self.size_bytes, self.leaf_hashes = trailer.key, trailer.root, trailer.size_bytes, trailer.leaf_hashes

    def fileno(self) -> int:
        """The file's descriptor, for sendfile; the share is its first ``size_bytes``. The bytes are not checked on that way: call ``check`` on the range
        before, or leave it to who receives them. It belongs to the reader.
        """
        return self._fd

    def read(self, offset: int, length: int) -> bytes:
        """Bytes ``offset`` to ``offset + length`` of the share. Raises ShareRefused, ShareDamaged, StoreUnusable."""
        self._refuse_range(offset, length)
        if not length:
            return b""
        first = offset // LEAF_BYTES
        data, skip = self._leaves(first, -(-(offset + length) // LEAF_BYTES)), offset - first * LEAF_BYTES
        return data if len(data) == length else data[skip : skip + length]

    def stream(self, offset: int, length: int) -> Iterator[memoryview]:
        """The same, in pieces of at most a leaf."""
        self._refuse_range(offset, length)
        end = offset + length
        while offset < end:
            index, skip = divmod(offset, LEAF_BYTES)
            piece = memoryview(self._leaf(index))[skip : skip + end - offset]
            yield piece
            offset += len(piece)

    def check(self, offset: int, length: int) -> None:
        """Check the leaves of a range without handing them out. Raises as ``read`` does."""
        self._refuse_range(offset, length)
        for index in range(offset // LEAF_BYTES, -(-(offset + length) // LEAF_BYTES) if length else 0):
            self._leaf(index)

    def leaf(self, index: int) -> tuple[bytes, list[bytes]]:
        """A leaf and its path. Raises ShareRefused for one that the share does not have, ShareDamaged, StoreUnusable."""
        count = leaf_count(self.size_bytes)
        if not 0 <= index < count:
            raise ShareRefused(f"the share {self.root.hex()} has leaves 0 to {count - 1}, not {index}")
        return self._leaf(index), share_path(self.leaf_hashes, index)

    def _leaf(self, index: int) -> bytes:
        return self._leaves(index, index + 1)

    def _leaves(self, first: int, stop: int) -> bytes:
        if self._fd < 0:
            raise StoreUnusable(f"the reader of the share {self.root.hex()} is closed")
        with disk_errors(self._store.home):
            try:
                with damage_of_disk():
                    return layout.read_leaves(self._fd, self._trailer, first, stop)
            except Damaged as error:
                self._store.mark_damaged(self._trailer.key, str(error))
                raise ShareDamaged(f"the share {self.root.hex()} is damaged ({error}) and was put aside: repair it from the network") from error

    def _refuse_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise ShareRefused(f"the share {self.root.hex()} has {self.size_bytes} bytes; {length} from {offset} on are not all among them")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_store(home: Path, settings: Settings | None = None, *, clock: Clock | None = None, at_step: Callable[[str], None] = _no_step) -> ShareStore:
    """Open the share store in ``home``, or make one in a folder that is empty or not there. ``at_step`` is called at every labelled step, for tests.

    Raises StoreLocked, IndexDamaged (``rebuild`` mends it), StoreFull, StoreUnusable.
    """
    with hold_folder(home) as held, disk_errors(home):
        if not (home / MARKER).exists():
            try:
                create(home / "index.db")
            except sqlite3.Error as error:
                raise StoreUnusable(f"the index {home / 'index.db'} cannot be made ({error}): see that its disk has room and works") from error
            write_marker(home)
        store = ShareStore(home, settings or Settings(), clock or Clock(), at_step, held.fd)
        try:
            store._recover()
        except BaseException:
            store.index.close()
            raise
        held.is_kept = True
    return store


@dataclass
class Held:
    """A folder that this process holds; ``is_kept`` leaves it so."""

    fd: int
    is_kept: bool = False


@contextlib.contextmanager
def hold_folder(home: Path, *, for_rebuild: bool = False) -> Iterator[Held]:
    """Lock the store's folder, made when it is not there. Raises StoreLocked, and StoreUnusable for a folder that holds something else."""
    with disk_errors(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        foreign = set() if (home / MARKER).exists() else {name for name in os.listdir(home) if name not in _OURS and not name.startswith("index.")}
        if foreign:
            raise StoreUnusable(f"the folder {home} holds {sorted(foreign)[0]!r} and no share store: give the store an empty folder")
        held = Held(lock_folder(home))
    try:
        with disk_errors(home):
            if not for_rebuild and (home / MARKER).exists() and (text := (home / MARKER).read_bytes()) != _MARKER_TEXT:
                raise StoreUnusable(f"the file {home / MARKER} says {text[:80]!r}, expected {_MARKER_TEXT!r}: another version made this store")
            for name in ("shares", "tmp", "quarantine"):
                (home / name).mkdir(mode=0o700, exist_ok=True)
            if not (for_rebuild or (home / MARKER).exists()) and os.listdir(home / "shares"):
                raise IndexDamaged(f"the folder {home} holds shares, but its file {MARKER!r} is missing: rebuild the index from the files")
        yield held
    finally:
        if not held.is_kept:
            os.close(held.fd)


def write_marker(home: Path) -> None:
    """Say that the index in ``home`` is whole. From then on a missing index is an error, and none is made in its place."""
    fd = os.open(home / "store.new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, _MARKER_TEXT)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(home / "store.new", home / MARKER)
    sync_folder(home)


@contextlib.contextmanager
def damage_of_disk() -> Iterator[None]:
    """A disk that cannot read a place of a file has damaged that file, and so has who put a folder or a link in its place. Other errors of the system
    stay what they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EIO, errno.EISDIR, errno.ELOOP, getattr(errno, "EUCLEAN", errno.EIO)):
            raise Damaged(f"the disk cannot read it: {error.strerror}") from error
        raise


def _checked_root(root: bytes) -> None:
    if len(root) != ROOT_BYTES:
        raise ShareRefused(f"a share is named by a root of {ROOT_BYTES} bytes, not {len(root)}")


def _checked(root: bytes, serial: bytes) -> Key:
    try:
        return check_key((root, serial))
    except ValueError as error:
        raise ShareRefused(str(error)) from None


def _checked_keys(keys: Iterable[Key]) -> list[Key]:
    found = [_checked(*key) for key in keys]
    if len(found) > KEYS_AT_ONCE:
        raise ShareRefused(f"at most {KEYS_AT_ONCE} copies can be changed at a time, not {len(found)}")
    return found
