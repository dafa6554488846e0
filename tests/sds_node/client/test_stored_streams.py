"""The stored stream writes itself into a put's memory, whatever the cuts are: the frames that the cipher makes, hashed, and no more and no less of them."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sds_node import cipher
from sds_node.client.errors import SourceChanged
from sds_node.client.placing import WrongSource
from sds_node.client.sources import PIECE_BYTES, FileSource, Resealer, Source, Stored, StreamSource, source_of
from sds_node.hashes import FileHasher, file_hash

FRAME = cipher.FRAME_BYTES
KEY = bytes(range(32))


def frames_of(content: bytes) -> bytes:
    """What the cipher itself makes of it, under KEY."""
    encryptor = cipher.Encryptor()
    encryptor.key = KEY
    encryptor._aead = AESGCM(KEY)
    return b"".join([*encryptor.update(content), encryptor.finish()])


async def reused(pieces: list[bytes]) -> AsyncIterator[memoryview]:
    """Pieces that all come in the same memory."""
    memory = bytearray(max(map(len, pieces), default=0))
    for piece in pieces:
        memory[: len(piece)] = piece
        yield memoryview(memory)[: len(piece)]


async def filled(source: Source, sealer: cipher.Encryptor | None, size_bytes: int, memory_bytes: int) -> tuple[bytes, str, list[tuple[int, int]]]:
    """A stored stream through two memories in turn, its hash and what was told of its progress."""
    memories = [memoryview(bytearray(memory_bytes)) for _ in range(2)]
    hasher, told, found = FileHasher(), list[tuple[int, int]](), bytearray()
    async with Stored(source, sealer, hasher, lambda done, of: told.append((done, of))) as stream:
        for number, at in enumerate(range(0, size_bytes, memory_bytes)):
            part = memories[number % 2][: min(memory_bytes, size_bytes - at)]
            await stream.fill(part)
            found += part
        await stream.finish()
    return bytes(found), hasher.file_hash(), told


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 9 * FRAME + 5])
@pytest.mark.parametrize("memory_bytes", [777_777, FRAME + 16, FRAME + 17, 5 * FRAME])
@pytest.mark.parametrize("kind", ["file", "bytes", "stream", "small pieces"])
async def test_frames_and_hash_are_right_whatever_the_cuts_of_content_and_memory_are(size: int, memory_bytes: int, kind: str, tmp_path: Path) -> None:
    content = random.Random(size).randbytes(size)

    def source() -> Source:
        if kind == "file":
            (tmp_path / "file").write_bytes(content)
            return FileSource(tmp_path / "file")
        if kind == "bytes":
            return source_of(content)
        step = 1_500_000 if kind == "stream" else 100_003
        return StreamSource(reused([content[at : at + step] for at in range(0, size, step)]), size)

    expected = frames_of(content)
    found, name, told = await filled(source(), Resealer(KEY), len(expected), memory_bytes)
    assert found == expected
    assert name == file_hash(expected)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert all(of == size for _, of in told)
    assert not size or told[-1] == (size, size)
    assert (await filled(source(), None, size, memory_bytes))[:2] == (content, file_hash(content))


@pytest.mark.asyncio
@pytest.mark.parametrize("is_public", [False, True])
async def test_a_stream_of_another_length_than_its_memory_is_refused(is_public: bool) -> None:
    content = random.Random(1).randbytes(2 * FRAME + 5)
    size = len(content) if is_public else cipher.stored_bytes(len(content))

    async def stored(size: int) -> None:
        async with Stored(source_of(content), None if is_public else cipher.Encryptor(), FileHasher()) as stream:
            await stream.fill(memoryview(bytearray(size)))
            await stream.finish()

    await stored(size)
    for wrong in (0, 1, size - 1, size + 1):
        with pytest.raises(WrongSource, match="say its right length"):
            await stored(wrong)


@pytest.mark.asyncio
async def test_a_file_that_changes_after_its_last_piece_is_told_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1_000)
    async with Stored(FileSource(path), cipher.Encryptor(), FileHasher()) as stream:
        await stream.fill(memoryview(bytearray(1_016)))
        path.write_bytes(b"y" * 1_001)
        with pytest.raises(SourceChanged, match="changed while it was stored"):
            await stream.finish()


@pytest.mark.asyncio
async def test_a_file_that_grows_is_told_before_its_next_piece_goes_out(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * PIECE_BYTES))
    pieces = FileSource(path).pieces()
    assert len(await anext(pieces)) == PIECE_BYTES
    with path.open("ab") as file:
        file.write(b"one more line")
    with pytest.raises(SourceChanged, match="changed while it was stored"):
        await anext(pieces)


@pytest.mark.asyncio
@pytest.mark.parametrize("said", [0, 5])
async def test_a_file_that_has_more_than_it_says_is_not_stored_without_the_rest(tmp_path: Path, said: int) -> None:
    """As those of /proc, which say that they have 0 bytes."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    source = FileSource(path)
    source.size_bytes = said
    with pytest.raises(SourceChanged, match=f"more than the {said} bytes that it says"):
        async for _ in source.pieces():
            pass


def test_a_source_that_does_not_last_is_not_known_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    source = source_of(FileSource(tmp_path / "file", is_lasting=False))
    assert (source.identity, source.can_repeat, source.size_bytes) == (None, True, 7)


@pytest.mark.asyncio
async def test_memory_is_filled_again_only_when_it_was_hashed() -> None:
    may_hash, seen = threading.Event(), list[bytes]()

    class Slow(FileHasher):
        def update(self, data: bytes | bytearray | memoryview) -> None:
            assert may_hash.wait(60)
            seen.append(bytes(data))

    content = random.Random(2).randbytes(3 * FRAME)
    memories = [memoryview(bytearray(FRAME)) for _ in range(2)]
    async with Stored(source_of(content), None, Slow()) as stream:
        for memory in memories:
            await stream.fill(memory)  # the hash is not waited for
        again = asyncio.create_task(stream.fill(memories[0]))
        done, _ = await asyncio.wait({again}, timeout=0.1)
        assert not done
        assert bytes(memories[0]) == content[:FRAME]
        may_hash.set()
        await again
        await stream.finish()
    assert b"".join(seen) == content


def test_a_sealer_seals_nothing_after_its_last_frame_or_a_failure() -> None:
    into = memoryview(bytearray(FRAME + 16))
    ended, failed = cipher.Encryptor(), cipher.Encryptor()
    ended.seal_into(b"ab", into[:18], is_last=True)
    with pytest.raises(ValueError, match="buffer must be"):
        failed.seal_into(b"ab", into[:17], is_last=False)
    for one in (ended, failed):
        with pytest.raises(cipher.CipherError, match="new key"):
            one.seal_into(b"cd", into[:18], is_last=False)
