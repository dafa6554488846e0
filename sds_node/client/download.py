"""Content back: ranges and whole files, checked as they come, and files on disk that are there whole or not at all.

    object ─ ObjectReader (roots) ─► stored stream ─ Decryptor (tags) ─► content ─► caller, or .NAME.part ─ sync, rename ─► NAME
                                                  └─ public: Keccak, when all of it was read ─► the file's hash

A private file proves itself: its key was wrapped by the wallet for this object alone. A public one is compared with the hash by which it was asked for.
Source: storage-protocol.md 3.1; ADR 7.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from sds_node import cipher
from sds_node.client import locks
from sds_node.client.errors import MetaLied, StorageError
from sds_node.client.files import Files, StoredFile
from sds_node.client.issuing import GetIssuer, Places
from sds_node.client.leases import Leases
from sds_node.client.placing import Settings
from sds_node.client.session import Session
from sds_node.client.sources import Progress
from sds_node.client.transfer import ObjectReader
from sds_node.files import sync_folder
from sds_node.hashes import FileHasher, is_legacy

SYNC_BYTES: Final = 32 << 20
"""A part that is on disk for sure is noted each time so much came: a get that was interrupted goes on from there."""
MAX_NOTE_BYTES: Final = 4_096
WAITING_PIECES: Final = 8
"""So many pieces, each of at most 1 MiB, wait for the disk."""


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
        reader = ObjectReader(self._session(), GetIssuer(self._places, file.object_id), await self._files.to_get(file), self._settings)
        # A little more: leaves are read whole, and of slow nodes' shares others are read instead.
        with self._leases.expect(length + length // 16) as expected:
            async with contextlib.aclosing(
                self._checked(file, reader, offset, length) if key is None else _opened(file, key, reader, offset, length)
            ) as pieces:
                async for piece in pieces:
                    expected.left_noz = max(0, expected.left_noz - len(piece))
                    yield piece

    async def _checked(self, file: StoredFile, reader: ObjectReader, offset: int, length: int) -> AsyncGenerator[memoryview, None]:
        """A public file's content; when all of it was read it has the file's hash. The old hashes, which rest on MD5, prove nothing."""
        wanted = file.row.object.file_hash
        hasher = FileHasher() if (offset, length) == (0, file.size_bytes) and not is_legacy(wanted) else None
        async with contextlib.aclosing(reader.read(offset, length)) as pieces:
            async for piece in pieces:
                if hasher is not None:
                    await asyncio.to_thread(hasher.update, piece)
                yield piece
        if hasher is not None and hasher.file_hash() != wanted:
            raise MetaLied(f"what came is {hasher.file_hash()}, not {wanted}: the meta node told of another content; ask another one")

    async def to_path(self, file: StoredFile, key: bytes | None, target: Path, progress: Progress | None = None, *, replace: bool = True) -> None:
        """Content to a file, synced, whole or not at all. A part of it that an earlier call left is not fetched again.

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
                    part.unlink(missing_ok=True)
                    note.unlink(missing_ok=True)
                    raise
                os.replace(part, target)
                note.unlink(missing_ok=True)
            await asyncio.to_thread(sync_folder, target.parent)
        except OSError as error:
            raise StorageError(f"{target} cannot be written: {error.strerror}") from None

    async def _write(self, file: StoredFile, key: bytes | None, out: BinaryIO, done: int, note: Path, progress: Progress | None) -> None:
        out.truncate(done)
        out.seek(done)
        if done and key is None:
            await self._prefix(file, out, done, note, progress)
            return
        async with _Writer(out, done, file, note) as writer, contextlib.aclosing(self.read(file, key, done)) as pieces:
            async for piece in pieces:
                await writer.write(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, file.size_bytes)

    async def _prefix(self, file: StoredFile, out: BinaryIO, done: int, note: Path, progress: Progress | None) -> None:
        """The rest of a public file: what is there already is hashed again, so that the whole is."""
        hasher = FileHasher()

        def again() -> None:
            out.seek(0)
            left = done
            while left and (data := out.read(min(left, 1 << 20))):
                hasher.update(data)
                left -= len(data)
            out.seek(done)

        await asyncio.to_thread(again)
        async with contextlib.aclosing(self.read(file, None, done)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(hasher.update, piece)
                out.write(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, file.size_bytes)
        wanted = file.row.object.file_hash
        if not is_legacy(wanted) and hasher.file_hash() != wanted:
            raise MetaLied(f"what came is {hasher.file_hash()}, not {wanted}: fetch it again")
        await asyncio.to_thread(_sync, out)


class _Writer:
    """Writes what comes to a file in a thread, while more comes; on the disk at each SYNC_BYTES and at the end. Leaving it without an error waits for that.

    ``done`` is how many bytes of ``file`` are there. ``write`` raises what the disk said of an earlier piece.
    """

    def __init__(self, out: BinaryIO, done: int, file: StoredFile, note: Path) -> None:
        self._out, self._done, self._synced, self._file, self._note = out, done, done, file, note
        self._thread = ThreadPoolExecutor(1, "download")
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def write(self, piece: memoryview) -> None:
        """Have a piece written after those before. At most WAITING_PIECES wait."""
        while len(self._waiting) >= WAITING_PIECES:
            await self._waiting.popleft()
        self._waiting.append(asyncio.get_running_loop().run_in_executor(self._thread, self._write, piece))

    def _write(self, piece: memoryview) -> None:
        self._out.write(piece)
        self._done += len(piece)
        if self._done - self._synced >= SYNC_BYTES:
            self._synced = self._done
            _noted_down(self._out, self._note, self._file, self._done)

    async def __aenter__(self) -> _Writer:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                while self._waiting:
                    await self._waiting.popleft()
                await asyncio.get_running_loop().run_in_executor(self._thread, _sync, self._out)
        finally:
            # Nothing may be written once the caller closes the file.
            await asyncio.shield(asyncio.to_thread(self._thread.shutdown, cancel_futures=True))
            for one in self._waiting:
                if one.done() and not one.cancelled():
                    one.exception()


async def _opened(file: StoredFile, key: bytes, reader: ObjectReader, offset: int, length: int) -> AsyncGenerator[memoryview, None]:
    """A private file's content."""
    try:
        decryptor = cipher.Decryptor(key, file.stored_bytes, offset, length)
        wanted = decryptor.range
        async with contextlib.aclosing(reader.read(wanted.stored_offset, wanted.stored_length)) as pieces:
            async for piece in pieces:
                for content in decryptor.update(piece):
                    yield content
        decryptor.finish()
    except cipher.CipherError as error:
        raise StorageError(f"the file cannot be opened: {error}") from None


def _parts(target: Path, file: StoredFile, replace: bool) -> tuple[Path, Path]:
    """(where the content goes first, what notes how much of it is there): one for each version of a file and each target."""
    if target.is_dir() or (target.exists() and not replace):
        raise StorageError(f"{target} is there already: choose another name")
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


def _noted_down(out: BinaryIO, note: Path, file: StoredFile, done: int) -> None:
    _sync(out)
    fresh = note.with_suffix(".new")
    fresh.write_text(json.dumps({"object": file.object_id.hex(), "bytes": done}))
    os.replace(fresh, note)


def _sync(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())
