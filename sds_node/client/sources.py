"""What is to be stored, in pieces; and the stored stream of it: encrypted when it is private, named by its hash, while it goes by.

    file, bytes, stream ─► 4 MiB pieces ─ a thread ─► frames (private), sealed into the memory of put_object
                                                          └─ Keccak ─► file hash, of the stored stream, a little later

Nothing else is in memory but a piece, and of a frame what is cut by the end of the memory. Source: ADR 7 ("what a file becomes"); storage-protocol.md 3.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sds_node import cipher
from sds_node.client.errors import SourceChanged, StorageError
from sds_node.client.placing import WrongSource
from sds_node.hashes import FileHasher
from sds_node.merkle import Buffer
from sds_node.threads import INLINE_BYTES, aside

PIECE_BYTES: Final = 4 << 20

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class Source(ABC):
    """Content of a known length. ``identity`` is what tells that a file is the same as before; None for what cannot be read again."""

    size_bytes: int
    identity: dict[str, int] | None = None
    can_repeat: bool = False

    @abstractmethod
    def pieces(self) -> AsyncGenerator[Buffer, None]:
        """The content from its beginning; a piece may change when the next one is asked for. Raises SourceChanged when it has not the length that was
        said, StorageError when it cannot be read.
        """

    async def digest(self) -> str:
        """SHA-256 of the content, which tells it from another one; empty for what is read once. Raises SourceChanged, StorageError."""
        if not self.can_repeat:
            return ""
        hasher = sha256()
        async with contextlib.aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                await aside(len(piece), hasher.update, piece)
        return hasher.hexdigest()


class BytesSource(Source):
    """Content in memory."""

    can_repeat = True

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data).cast("B")
        self.size_bytes = len(self._data)

    async def pieces(self) -> AsyncGenerator[Buffer, None]:
        for start in range(0, self.size_bytes, PIECE_BYTES):
            yield self._data[start : start + PIECE_BYTES]


class FileSource(Source):
    """A file; ``is_lasting``: it is there when the process is gone. Raises StorageError for one that cannot be read, or is none."""

    can_repeat = True

    def __init__(self, path: Path, *, is_lasting: bool = True) -> None:
        self.path = path
        try:
            found = path.stat()
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from None
        if not path.is_file():
            raise StorageError(f"{path} is not a file: to store a folder, say so (put -r)")
        self.size_bytes = found.st_size
        self._found = _identity(found)
        self.identity = self._found if is_lasting else None

    async def pieces(self) -> AsyncGenerator[Buffer, None]:
        try:
            with self.path.open("rb", buffering=0) as file:
                left = self.size_bytes
                memory = memoryview(bytearray(min(left, PIECE_BYTES)))
                while left:
                    came = await aside(min(left, PIECE_BYTES), file.readinto, memory[:left])
                    if not came:
                        raise SourceChanged(f"{self.path} became shorter while it was stored: store it again")
                    # With each piece: what is sent and paid of a file that changes is lost.
                    self._check(file.fileno())
                    left -= came
                    yield memory[:came]
                self._check(file.fileno())
                if file.read(1):
                    raise SourceChanged(f"{self.path} has more than the {self.size_bytes} bytes that it says it has: copy it, and store the copy")
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror}") from None

    def _check(self, fd: int) -> None:
        if _identity(os.fstat(fd)) != self._found:
            raise SourceChanged(f"{self.path} changed while it was stored: store it again")


class StreamSource(Source):
    """An asynchronous stream of ``size_bytes``, which is read once."""

    def __init__(self, stream: AsyncIterable[Buffer], size_bytes: int) -> None:
        if size_bytes < 0:
            raise StorageError(f"a stream has 0 bytes or more, got {size_bytes}")
        self._stream: AsyncIterable[Buffer] | None = stream
        self.size_bytes = size_bytes

    async def pieces(self) -> AsyncGenerator[Buffer, None]:
        stream, self._stream = self._stream, None
        if stream is None:
            raise StorageError("the stream was read before, and what was stored of it is lost: begin anew with another stream")
        seen = 0
        async for piece in stream:
            view = memoryview(piece).cast("B")
            seen += len(view)
            if seen > self.size_bytes:
                raise SourceChanged(f"the stream has more than the {self.size_bytes} bytes that were said: say its right length")
            for start in range(0, len(view), PIECE_BYTES):
                yield view[start : start + PIECE_BYTES]
        if seen != self.size_bytes:
            raise SourceChanged(f"the stream ended after {seen} of {self.size_bytes} bytes: say its right length")


def source_of(given: Source | Path | str | Buffer | AsyncIterable[Buffer], size_bytes: int | None = None) -> Source:
    """What a caller gave: a source, a path, bytes, or a stream with its length. Raises StorageError."""
    if isinstance(given, Source):
        return given
    if isinstance(given, (str, Path)):
        return FileSource(Path(given))
    if isinstance(given, (bytes, bytearray, memoryview)):
        return BytesSource(given)
    if size_bytes is None:
        raise StorageError("a stream is stored with its length: give size_bytes")
    return StreamSource(given, size_bytes)


def _identity(found: os.stat_result) -> dict[str, int]:
    return {
        "size": found.st_size,
        "device": found.st_dev,
        "inode": found.st_ino,
        "modified_ns": found.st_mtime_ns,
        "changed_ns": found.st_ctime_ns,
    }


class Resealer(cipher.Encryptor):
    """The frames of a content again, under the key that it was sealed with before, for a put that goes on.

    A key seals no other content: of every segment that went out the journal has the root, and none goes out that has another one (journal.py).
    """

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self.key = key
        self._aead = AESGCM(key)


class Stored:
    """The stored stream of a source, for ``put_object``: its frames, or the content as it is without a ``sealer``. ``hasher`` sees every byte of it, and has
    seen all when the ``async with`` block is left without an error.
    """

    def __init__(self, source: Source, sealer: cipher.Encryptor | None, hasher: FileHasher, progress: Progress | None = None) -> None:
        self._source, self._progress = source, progress
        self._pieces = source.pieces()
        self._behind = _Behind(hasher)
        self._piece = memoryview(b"")
        self._came_bytes = 0
        self._frames = None if sealer is None else _Frames(sealer, source.size_bytes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._pieces.aclose()
        finally:
            await self._behind.close(is_good=kind is None)

    async def fill(self, into: memoryview) -> None:
        """The next bytes into memory, from which they are hashed, too, until it is given again. Raises WrongSource, SourceChanged, StorageError."""
        await self._behind.leave(into)
        at = 0
        while at < len(into):
            if not self._piece and self._came_bytes < self._source.size_bytes:
                await self._next(len(into) - at)
            taken, written = await aside(len(self._piece), self._write, self._piece, into[at:])
            if not (taken or written):
                raise WrongSource(f"the stream ended {len(into) - at} bytes before the end of a segment: say its right length")
            self._piece = self._piece[taken:]
            if written:
                self._behind.take(into[at : at + written])
                at += written
            if self._progress is not None and taken:
                self._progress(self._came_bytes - len(self._piece), self._source.size_bytes)

    def _write(self, piece: memoryview, into: memoryview) -> tuple[int, int]:
        """From a piece into memory: how much was taken of one, and written to the other."""
        if self._frames is not None:
            return self._frames.write(piece, into)
        size = min(len(piece), len(into))
        into[:size] = piece[:size]
        return size, size

    async def _next(self, missing_bytes: int) -> None:
        try:
            self._piece = memoryview(await anext(self._pieces)).cast("B")
        except StopAsyncIteration:
            raise WrongSource(f"the stream ended {missing_bytes} bytes before the end of a segment: say its right length") from None
        self._came_bytes += len(self._piece)

    async def finish(self) -> None:
        """Raises SourceChanged unless the source is at its end and was the same all the while; WrongSource."""
        while not self._piece and (self._frames is None or self._frames.is_done):
            try:
                self._piece = memoryview(await anext(self._pieces)).cast("B")
            except StopAsyncIteration:
                return
        raise WrongSource("the stream has more bytes than were said: say its right length")


class _Frames:
    """Content of a known length in pieces, sealed into memory that comes in pieces, too."""

    def __init__(self, sealer: cipher.Encryptor, size_bytes: int) -> None:
        self._sealer = sealer
        self._left_bytes = size_bytes
        """Of content that is in no frame yet."""
        self._begun = bytearray()
        """The beginning of a frame whose rest is in the next piece."""
        self._over = memoryview(b"")
        """The rest of a frame that begins in the memory before."""
        self._is_over = False

    @property
    def is_done(self) -> bool:
        """Whether the last frame is written, whole."""
        return self._is_over and not self._over

    def write(self, piece: memoryview, into: memoryview) -> tuple[int, int]:
        """Seal until a piece is used up or memory is full → how much was taken of one, and written to the other."""
        taken = written = 0
        while written < len(into):
            if self._over:
                part = self._over[: len(into) - written]
                into[written : written + len(part)] = part
                self._over, written = self._over[len(part) :], written + len(part)
                continue
            content: Buffer = piece[taken : taken + min(cipher.FRAME_BYTES, self._left_bytes) - len(self._begun)]
            taken += len(content)
            whole = len(self._begun) + len(content)
            if self._is_over or whole < min(cipher.FRAME_BYTES, self._left_bytes):
                self._begun += content
                break
            if self._begun:
                content, self._begun = self._begun + content, bytearray()
            written += self._seal(content, into[written:])
        return taken, written

    def _seal(self, content: Buffer, into: memoryview) -> int:
        """A whole frame into memory, and what is more into ``_over``."""
        size = len(content) + cipher.TAG_BYTES
        self._left_bytes -= len(content)
        self._is_over = not self._left_bytes
        if size <= len(into):
            self._sealer.seal_into(content, into[:size], is_last=self._is_over)
            return size
        sealed = memoryview(bytearray(size))
        self._sealer.seal_into(content, sealed, is_last=self._is_over)
        into[:] = sealed[: len(into)]
        self._over = sealed[len(into) :]
        return len(into)


class _Behind:
    """Has bytes hashed in their order by a thread, behind those who use them: Keccak is slower than all else that is done with them."""

    def __init__(self, hasher: FileHasher) -> None:
        self._hasher = hasher
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[tuple[asyncio.Future[None], memoryview]] = deque()

    def take(self, part: memoryview) -> None:
        """The next bytes. They do not change until they are hashed."""
        if len(part) <= INLINE_BYTES and not self._waiting:
            self._hasher.update(part)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "keccak")
        self._waiting.append((asyncio.get_running_loop().run_in_executor(self._thread, self._hasher.update, part), part))

    async def leave(self, memory: memoryview) -> None:
        """Returns when nothing waits that is in this memory, or before it."""
        for _ in range(max((place for place, (_, part) in enumerate(self._waiting, 1) if part.obj is memory.obj), default=0)):
            await self._waiting.popleft()[0]

    async def close(self, *, is_good: bool) -> None:
        """The end: of all bytes, or of those that are being hashed."""
        try:
            while is_good and self._waiting:
                await self._waiting.popleft()[0]
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=False, cancel_futures=True)
