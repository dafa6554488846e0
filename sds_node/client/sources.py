"""What is to be stored, in pieces; and the stored stream of it: encrypted when it is private, named by its hash, while it goes by.

    file, bytes, stream ─► 4 MiB pieces ─ a thread ─► frames (private) ─► put_object
                                                └─ Keccak ─► file hash, of the stored stream

Nothing is in memory but a piece and what was not taken yet. Source: ADR 7 ("what a file becomes"); storage-protocol.md 3.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sds_node import cipher
from sds_node.client.errors import SourceChanged, StorageError
from sds_node.hashes import FileHasher
from sds_node.merkle import Buffer

PIECE_BYTES: Final = 4 << 20
INLINE_BYTES: Final = 256 << 10
"""Work on so little is not worth a thread."""

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class Source(ABC):
    """Content of a known length. ``identity`` is what tells that a file is the same as before; None for what cannot be read again."""

    size_bytes: int
    identity: dict[str, int] | None = None
    can_repeat: bool = False

    @abstractmethod
    def pieces(self) -> AsyncGenerator[Buffer, None]:
        """The content from its beginning. Raises SourceChanged when it has not the length that was said, StorageError when it cannot be read."""

    async def digest(self) -> str:
        """SHA-256 of the content, which tells it from another one; empty for what is read once. Raises SourceChanged, StorageError."""
        if not self.can_repeat:
            return ""
        hasher = sha256()
        async with contextlib.aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                if len(piece) <= INLINE_BYTES:
                    hasher.update(piece)
                else:
                    await asyncio.to_thread(hasher.update, piece)
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
    """A file. Raises StorageError for one that cannot be read, or is none."""

    can_repeat = True

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = path.stat()
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from None
        if not path.is_file():
            raise StorageError(f"{path} is not a file: to store a folder, say so (put -r)")
        self.size_bytes = found.st_size
        self.identity = _identity(found)

    async def pieces(self) -> AsyncGenerator[Buffer, None]:
        try:
            with self.path.open("rb") as file:
                left = self.size_bytes
                while left:
                    piece = await _off(min(left, PIECE_BYTES), file.read, min(left, PIECE_BYTES))
                    if not piece:
                        raise SourceChanged(f"{self.path} became shorter while it was stored: store it again")
                    left -= len(piece)
                    yield piece
                if _identity(os.fstat(file.fileno())) != self.identity:
                    raise SourceChanged(f"{self.path} changed while it was stored: store it again")
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror}") from None


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


def source_of(given: Path | str | Buffer | AsyncIterable[Buffer], size_bytes: int | None = None) -> Source:
    """What a caller gave: a path, bytes, or a stream with its length. Raises StorageError."""
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


async def _off(size_bytes: int, work: Callable[..., bytes], *given: object) -> bytes:
    return work(*given) if size_bytes <= INLINE_BYTES else await asyncio.to_thread(work, *given)


async def stored_stream(
    source: Source, sealer: cipher.Encryptor | None, hasher: FileHasher, progress: Progress | None = None
) -> AsyncGenerator[Buffer, None]:
    """The stored stream of a source: its frames, or the content as it is without a ``sealer``. ``hasher`` sees every byte of it."""
    done = 0

    def sealed(piece: Buffer) -> list[Buffer]:
        found: list[Buffer] = [piece] if sealer is None else list(sealer.update(piece))
        for one in found:
            hasher.update(one)
        return found

    async with contextlib.aclosing(source.pieces()) as pieces:
        async for piece in pieces:
            size = len(memoryview(piece).cast("B"))
            for one in sealed(piece) if size <= INLINE_BYTES else await asyncio.to_thread(sealed, piece):
                yield one
            done += size
            if progress is not None:
                progress(done, source.size_bytes)
    if sealer is not None:
        last = sealer.finish()
        hasher.update(last)
        yield last
