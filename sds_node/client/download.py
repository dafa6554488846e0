"""Content back: ranges and whole files, checked as they come, and files on disk that are there whole or not at all.

    object ─ ObjectReader (roots) ─► stored stream ─ Decryptor (tags) ─► content ─► caller
                     └─ in any order ─► Arrivals ─ Opener (tags) ─► content ─► .NAME.part ─ sync, rename ─► NAME
                                            └─ public: Keccak, when all of it was read ─► the file's hash

A private file proves itself: its key was wrapped by the wallet for this object alone. A public one is compared with the hash by which it was asked for.
Source: storage-protocol.md 3.1; ADR 7.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from sds_node import cipher
from sds_node.client import locks
from sds_node.client.arrivals import Arrivals
from sds_node.client.errors import MetaLied, StorageError
from sds_node.client.files import Files, StoredFile
from sds_node.client.issuing import GetIssuer, Places
from sds_node.client.leases import Leases
from sds_node.client.placing import Settings
from sds_node.client.session import Session
from sds_node.client.sources import Progress
from sds_node.client.transfer import ObjectReader, Stretch
from sds_node.files import sync_folder
from sds_node.hashes import FileHasher, is_legacy
from sds_node.merkle import Buffer
from sds_node.threads import aside, in_thread

SYNC_BYTES: Final = 8 << 20
"""A file is synced each time so much came, and noted how much of its beginning is there: a get that was interrupted goes on from there."""
MAX_NOTE_BYTES: Final = 4_096
WAITING_PIECES: Final = 32
"""So many pieces, of a MiB or so, wait for the disk: those of a segment."""
UNIT_BYTES: Final = 1 << 20
"""A public file is written in pieces of so much."""


class Downloads:
    """Reads files. ``session`` gives the client's, as it is now."""

    def __init__(self, session: Callable[[], Session], leases: Leases, places: Places, files: Files, settings: Settings) -> None:
        self._session, self._leases, self._places, self._files, self._settings = session, leases, places, files, settings

    async def read(self, file: StoredFile, key: bytes | None, offset: int = 0, length: int | None = None) -> AsyncGenerator[memoryview, None]:
        """Content from ``offset`` on, in order, in pieces of at most 1 MiB. ``key`` is a private file's. Raises StorageError, TransferFailed."""
        size = file.size_bytes
        length = size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > size:
            raise StorageError(f"the file has {size} bytes; {length} from {offset} on are not among them")
        content = _Content(file, key, offset, length)
        # A little more: leaves are read whole, and of slow nodes' shares others are read instead.
        with self._leases.expect(length + length // 16) as expected:
            reader = await self._reader(file)
            async with contextlib.aclosing(reader.read(content.stored_offset, content.stored_bytes)) as pieces:
                async for piece in pieces:
                    expected.left_noz = max(0, expected.left_noz - len(piece))
                    for one in await aside(len(piece), content.update, piece):
                        yield one
        content.finish()

    async def _reader(self, file: StoredFile) -> ObjectReader:
        return ObjectReader(self._session(), GetIssuer(self._places, file.object_id), await self._files.to_get(file), self._settings)

    async def to_path(self, file: StoredFile, key: bytes | None, target: Path, progress: Progress | None = None, *, replace: bool = True) -> None:
        """Content to a file, synced, whole or not at all. A part of it that an earlier call left is not fetched again: the
        first call of ``progress``, before anything is fetched, tells how many bytes that is.

        Raises StorageError (also for a target that is there already, unless ``replace``, and while another call fetches it), TransferFailed.
        """
        part, note = _parts(target, file, replace)
        try:
            out = locks.opened(part)
            if out is None:
                raise StorageError(f"{target} is being fetched already: wait for that, or choose another name")
            # Held until the content has its name: who comes later sees the whole file, or goes on with the part.
            with out:
                try:
                    await self._write(file, key, out, _noted(part, note, file), note, progress)
                except MetaLied:
                    note.unlink(missing_ok=True)
                    part.unlink(missing_ok=True)
                    raise
                # First the note: one that is left over would vouch for the beginning of the next part.
                note.unlink(missing_ok=True)
                os.replace(part, target)
            await asyncio.to_thread(sync_folder, target.parent)
        except OSError as error:
            raise StorageError(f"{target} cannot be written: {error.strerror}{_advice(error, file, target)}") from None

    async def _write(self, file: StoredFile, key: bytes | None, out: BinaryIO, done: int, note: Path, progress: Progress | None) -> None:
        if not done:
            await asyncio.to_thread(_unnoted, note)
        out.truncate(done)
        if progress is not None:
            progress(done, file.size_bytes)
        length = file.size_bytes - done
        content = _Scattered(file, key, done, length)
        if done and key is None:
            await asyncio.to_thread(content.see, out, done)
        with self._leases.expect(length + length // 16) as expected:
            reader = await self._reader(file)
            async with (
                _Writer(out, done, file, note, content) as writer,
                contextlib.aclosing(reader.stretches(content.stored_offset, content.stored_bytes)) as stretches,
            ):
                async for stretch in stretches:
                    expected.left_noz = max(0, expected.left_noz - stretch.new_bytes)
                    await writer.write(stretch)
                    if progress is not None:
                        progress(writer.done_bytes, file.size_bytes)
        if progress is not None:
            progress(file.size_bytes, file.size_bytes)


class _Hashing:
    """What a public file is compared with: its hash, when all of it was read in order. The old hashes, which rest on MD5, prove nothing."""

    def __init__(self, file: StoredFile, offset: int, length: int) -> None:
        self._wanted = file.row.object.file_hash
        is_whole = offset + length == file.size_bytes and not is_legacy(self._wanted)
        self._hasher = FileHasher() if is_whole else None
        self._is_begun = offset == 0

    def see(self, out: BinaryIO, size_bytes: int) -> None:
        """Of the file so many bytes, those before the offset, are in ``out`` already."""
        out.seek(0)
        self._is_begun = True
        left = size_bytes
        while left and (data := out.read(min(left, 1 << 20))):
            self.update(data)
            left -= len(data)

    @property
    def is_on(self) -> bool:
        """Whether anything is compared."""
        return self._hasher is not None and self._is_begun

    def update(self, data: Buffer) -> None:
        if self._hasher is not None and self._is_begun:
            self._hasher.update(data)

    def finish(self) -> None:
        """All has come. Raises MetaLied for another content than the file's."""
        if self._hasher is not None and self._is_begun and self._hasher.file_hash() != self._wanted:
            raise MetaLied(
                f"what came is {self._hasher.file_hash()}, not {self._wanted}: the meta node told of another content; fetch it again, ask another one"
            )


class _Content:
    """What stored bytes that come in order become: a private file's are opened, a public one's are compared with the file's hash, once all of them came.
    Used by one thread at a time. Every method raises StorageError."""

    def __init__(self, file: StoredFile, key: bytes | None, offset: int, length: int) -> None:
        self._decryptor: cipher.Decryptor | None = None
        self._hashing = _Hashing(file, offset, length)
        self.stored_offset, self.stored_bytes = offset, length
        if key is not None:
            with _unopened():
                self._decryptor = cipher.Decryptor(key, file.stored_bytes, offset, length)
            self.stored_offset, self.stored_bytes = self._decryptor.range.stored_offset, self._decryptor.range.stored_length

    def update(self, piece: memoryview) -> list[memoryview]:
        """The next stored bytes → the content that is proved now."""
        if self._decryptor is None:
            self._hashing.update(piece)
            return [piece]
        with _unopened():
            return self._decryptor.update(piece)

    def finish(self) -> None:
        """All has come. Raises MetaLied for another content than the file's."""
        if self._decryptor is None:
            self._hashing.finish()
            return
        with _unopened():
            self._decryptor.finish()


class _Scattered:
    """The same of stored bytes that come in stretches, in any order."""

    def __init__(self, file: StoredFile, key: bytes | None, offset: int, length: int) -> None:
        self._opener: cipher.Opener | None = None
        self._hashing = _Hashing(file, offset, length)
        self.stored_offset, self.stored_bytes, unit_bytes = offset, length, UNIT_BYTES
        if key is not None:
            with _unopened():
                self._opener = cipher.Opener(key, file.stored_bytes, offset, length)
            self.stored_offset, self.stored_bytes = self._opener.range.stored_offset, self._opener.range.stored_length
            unit_bytes = cipher.STORED_FRAME_BYTES
        self._arrivals = Arrivals(self.stored_offset, self.stored_offset + self.stored_bytes, unit_bytes)
        self._hashed, self._unhashed = offset, dict[int, Buffer]()

    def see(self, out: BinaryIO, size_bytes: int) -> None:
        """Of a public file so many bytes, those before the offset, are in ``out`` already."""
        self._hashing.see(out, size_bytes)

    def take(self, stretch: Stretch) -> list[tuple[int, Buffer]]:
        """More of a stretch → (where in the content, bytes) of what is proved now."""
        found = self._arrivals.take(stretch)
        if self._opener is not None:
            with _unopened():
                return [self._opener.open(at // cipher.STORED_FRAME_BYTES, frame) for at, frame in found]
        self._unhashed.update(found if self._hashing.is_on else ())
        while (data := self._unhashed.pop(self._hashed, None)) is not None:
            self._hashing.update(data)
            self._hashed += len(data)
        return found

    def finish(self) -> None:
        """All has come. Raises MetaLied for another content than the file's."""
        if self._arrivals.missing_bytes:
            raise StorageError(f"{self._arrivals.missing_bytes} bytes of the file did not come: fetch it again")
        if self._opener is None:
            self._hashing.finish()


@contextlib.contextmanager
def _unopened() -> Iterator[None]:
    try:
        yield
    except cipher.CipherError as error:
        raise StorageError(f"the file cannot be opened: {error}") from None


class _Writer:
    """Opens what comes and writes it to a file in a thread, while more comes; on the disk at each SYNC_BYTES and at the end. Leaving it without an error
    waits for that, and for all of the content to be proved.

    ``done_bytes`` of ``file`` are written, though not in order. ``write`` raises what the disk or the content said of an earlier piece; nothing is written
    or noted after that.
    """

    def __init__(self, out: BinaryIO, done_bytes: int, file: StoredFile, note: Path, content: _Scattered) -> None:
        self._out, self.done_bytes, self._synced, self._file, self._note, self._content = out, done_bytes, done_bytes, file, note, content
        # Up to here the file has no holes; what lies behind that, by its beginning.
        self._whole = self._noted = done_bytes
        self._ahead: dict[int, int] = {}
        self._thread = ThreadPoolExecutor(1, "download")
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._failure: Exception | None = None

    async def write(self, stretch: Stretch) -> None:
        """Have a stretch opened and written as far as it came."""
        # A turn of the loop is long while much comes in, so the thread has enough to do until the next one.
        while len(self._waiting) >= WAITING_PIECES:
            await self._waiting.popleft()
        self._waiting.append(asyncio.get_running_loop().run_in_executor(self._thread, self._write, stretch))

    def _write(self, stretch: Stretch) -> None:
        with self._until_it_fails():
            for at, data in self._content.take(stretch):
                _pwrite(self._out.fileno(), data, at)
                self._ahead[at] = at + len(data)
                self.done_bytes += len(data)
            while (after := self._ahead.pop(self._whole, None)) is not None and after > self._whole:
                self._whole = after
            if max(self.done_bytes - self._synced, self._whole - self._noted) >= SYNC_BYTES:
                _sync(self._out)
                self._synced = self.done_bytes
                if self._whole > self._noted:
                    _noted_down(self._note, self._file, self._whole)
                    self._noted = self._whole

    def _end(self) -> None:
        with self._until_it_fails():
            self._content.finish()
            _sync(self._out)

    @contextlib.contextmanager
    def _until_it_fails(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except Exception as error:
            self._failure = error
            raise

    async def __aenter__(self) -> _Writer:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                while self._waiting:
                    await self._waiting.popleft()
                await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        finally:
            # Nothing may be written once the caller closes the file.
            await in_thread(partial(self._thread.shutdown, cancel_futures=True))
            for one in self._waiting:
                if one.done() and not one.cancelled():
                    one.exception()


def _advice(error: OSError, file: StoredFile, target: Path) -> str:
    """What to do about it, where that is known."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f": the file has {file.size_bytes} bytes; make room, and the same call goes on"
    if error.errno == errno.ENOENT and not target.parent.exists():
        return f": there is no folder {target.parent}"
    return ""


def _parts(target: Path, file: StoredFile, replace: bool) -> tuple[Path, Path]:
    """(where the content goes first, what notes how much of it is there): one for each version of a file and each target."""
    if target.is_dir() or (target.exists() and not replace):
        raise StorageError(f"{target} is there already: choose another name")
    if target.exists() and not target.is_file():
        raise StorageError(f"{target} is no file, and would be replaced by one: choose another name, or - to write to standard output")
    part = target.with_name(f".{sha256(target.name.encode(errors='surrogateescape')).hexdigest()[:12]}.{file.object_id.hex()[:24]}.part")
    return part, part.with_suffix(".note")


def _noted(part: Path, note: Path, file: StoredFile) -> int:
    """How many bytes of a file are there for sure."""
    try:
        if note.stat().st_size > MAX_NOTE_BYTES:
            return 0
        said = json.loads(note.read_bytes())
        done = said["bytes"] if said["object"] == file.object_id.hex() else 0
        return done if isinstance(done, int) and 0 <= done <= min(part.stat().st_size, file.size_bytes) else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _noted_down(note: Path, file: StoredFile, done: int) -> None:
    fresh = note.with_suffix(".new")
    fresh.write_text(json.dumps({"object": file.object_id.hex(), "bytes": done}))
    os.replace(fresh, note)


def _unnoted(note: Path) -> None:
    """A note of another part, or of none, goes: what comes is written in any order, and would soon be as long as it says."""
    if note.exists():
        note.unlink()
        sync_folder(note.parent)


def _pwrite(fd: int, data: Buffer, at: int) -> None:
    """All of it."""
    left = memoryview(data)
    while left:
        done = os.pwrite(fd, left, at)
        at, left = at + done, left[done:]


def _sync(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())
