"""Downloads under way: packets of at most 3 MiB in order, a segment at a time on disk, whole files compared with their hash.

    user_downloadData ─► the packet's segment is here? ─ no ─► fetched (few at a time, wallets in turn), checked against its roots ─► disk ─► packet
                                                                 └ whole file: Keccak goes along; before the last segment is handed out it must be right

A client that is slow, or gone, holds a segment's disk and no memory. Source: sds.md 5.5; storage-protocol.md 3.1 and 5.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from sds_node.gateway.backend import Ask, BackendError, FileInfo, Reading
from sds_node.gateway.results import GENERIC_ERR, INTERNAL_DATA_FAILURE, WRONG_INPUT, Failed
from sds_node.gateway.spool import Room, Spool
from sds_node.gateway.turns import Turns
from sds_node.gateway_settings import Settings
from sds_node.handles import ShareLink
from sds_node.hashes import FileHasher, is_legacy, parse_hash, piece_at, slice_at, slice_range
from sds_node.merkle import Buffer
from sds_node.threads import aside

log = structlog.get_logger("gateway")


class Download:
    """One download, or the first step of one in the old dialect: then ``reading`` comes with the second."""

    def __init__(self, wallet: str, file: FileInfo, now_s: float, *, link: ShareLink | None = None, text: str = "") -> None:
        self.reqid = str(uuid.uuid4())
        self.wallet, self.file, self.link, self.text = wallet, file, link, text
        self.heard_s = now_s
        self.reading: Reading | None = None
        self.start, self.end = 0, file.size_bytes
        self.offset = 0
        self.lock = asyncio.Lock()
        self.spool: Spool | None = None
        self.spooled = (0, 0)
        self.hasher: FileHasher | None = None
        self.is_over = False
        self.is_gone = False

    def want(self, start: int, end: int) -> None:
        """Only these bytes; all of them have their hash checked."""
        self.start, self.end, self.offset = start, end, start
        is_whole = (start, end) == (0, self.file.size_bytes) and not is_legacy(self.file.file_hash)
        self.hasher = FileHasher(parse_hash(self.file.file_hash).codec) if is_whole else None


class Downloads:
    """All downloads of a gateway. ``clock`` tells Unix seconds."""

    def __init__(self, room: Room, clock: Callable[[], float], settings: Settings) -> None:
        self._room, self._clock, self._settings = room, clock, settings
        self._downloads: dict[str, Download] = {}
        self._of_wallet: Counter[str] = Counter()
        self._entering: Counter[str] = Counter()
        self._fetches = Turns(settings.fetches_at_once)
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._downloads)

    def get(self, reqid: str, file_hash: str) -> Download:
        """A download under way. Raises Failed."""
        found = self._downloads.get(reqid)
        if found is None or found.file.file_hash != file_hash:
            raise Failed(GENERIC_ERR, "data is empty: no download with this reqid and filehash is under way here; begin one")
        found.heard_s = self._clock()
        return found

    def by_text(self, text: str) -> Download | None:
        """The one that a signed string began."""
        return next((one for one in self._downloads.values() if one.text == text), None)

    @contextlib.contextmanager
    def place(self, wallet: str) -> Iterator[None]:
        """A place is kept for a download that begins inside. Raises Failed when the wallet, or all, have too many."""
        self.expire()
        of_wallet, of_all = self._of_wallet[wallet] + self._entering[wallet], len(self._downloads) + self._entering.total()
        if of_all >= self._settings.downloads_most or of_wallet >= self._settings.downloads_of_wallet:
            raise Failed(INTERNAL_DATA_FAILURE, "too many downloads are under way at this gateway: end one, or try again later")
        self._entering[wallet] += 1
        try:
            yield
        finally:
            self._entering[wallet] -= 1
            if not self._entering[wallet]:
                del self._entering[wallet]

    def add(self, ask: Ask, file: FileInfo, *, link: ShareLink | None = None, text: str = "") -> Download:
        """A new one."""
        made = Download(ask.wallet, file, self._clock(), link=link, text=text)
        self._downloads[made.reqid] = made
        self._of_wallet[made.wallet] += 1
        return made

    def begin(self, download: Download, reading: Reading, start: int, end: int | None) -> None:
        """It is read from here on. Raises Failed for a range that the file has not, and for a download that was ended meanwhile; then the reading is closed."""
        try:
            stop = checked_end(download.file, start, end)
            if download.is_gone:
                raise Failed(GENERIC_ERR, "this download was ended while it began: begin another one")
        except Failed:
            self._keep(asyncio.get_running_loop().create_task(reading.close()))
            raise
        download.reading = reading
        download.want(start, stop)

    async def packet(self, download: Download, offset: int | None = None) -> tuple[int, int, bytes] | None:
        """(first byte, byte after the last, bytes) of the next packet, or of the one at ``offset``; None at the end. Raises Failed, BackendError."""
        async with download.lock:
            at = download.offset if offset is None else offset
            if not download.start <= at <= download.end:
                raise Failed(WRONG_INPUT, f"offsetstart: expected {download.start} to {download.end}, got {at}")
            if at == download.end and download.end > download.start:
                self.finish(download)
                return None
            if download.file.size_bytes == 0:
                is_first = not download.is_over
                self.finish(download)
                return (0, 0, b"") if is_first else None
            start, end = piece_at(download.file.size_bytes, at)
            end = min(end, download.end)
            if not (download.spooled[0] <= start and end <= download.spooled[1]):
                await self._fetch(download, start)
            assert download.spool is not None
            data = await download.spool.read(start - download.spooled[0], end - start)
            download.offset = end
            download.heard_s = self._clock()
            return start, end, data

    async def _fetch(self, download: Download, offset: int) -> None:
        """What is wanted of the segment that holds a byte, from there on, onto the disk."""
        reading = download.reading
        if reading is None:
            raise Failed(GENERIC_ERR, "this download is over: begin another one")
        # The first packet alone: clients begin a download to learn a file's name and size, and go no further.
        _, border = (
            piece_at(download.file.size_bytes, offset)
            if offset == download.start
            else slice_range(download.file.size_bytes, slice_at(download.file.size_bytes, offset))
        )
        start, end = offset, min(border, download.end)
        if download.spool is not None:
            download.spool.close()
        download.spool, download.spooled = self._room.take(end - start), (0, 0)
        hasher = download.hasher
        is_next = hasher is not None and hasher.size_bytes == start
        async with self._fetches.take(download.wallet), contextlib.aclosing(_stream(reading, start, end - start)) as pieces:
            at = 0
            async for piece in pieces:
                await download.spool.write(at, piece)
                at += len(memoryview(piece).cast("B"))
        if at != end - start:
            raise BackendError(f"expected {end - start} bytes of the file from the network, got {at}: try again")
        if hasher is not None and is_next:
            # All of it is here: a fetch that failed half way has not changed the hash.
            async for piece in download.spool.pieces():
                await _hashed(hasher, piece)
        is_whole = hasher is not None and hasher.size_bytes == download.file.size_bytes
        if hasher is not None and is_whole and hasher.file_hash() != download.file.file_hash:
            self.drop(download)
            raise BackendError(
                f"what the network holds is {hasher.file_hash()}, not {download.file.file_hash}: throw away what you have, and try again"
            )
        download.spooled = (start, end)

    def finish(self, download: Download) -> None:
        """All was handed out: the lease goes back; calls that come once more are answered for a while."""
        download.is_over = True
        if download.reading is not None:
            self._keep(asyncio.get_running_loop().create_task(download.reading.close()))
            download.reading = None

    def drop(self, download: Download) -> None:
        """It is no more."""
        if self._downloads.pop(download.reqid, None) is None:
            return
        download.is_gone = True
        self._of_wallet[download.wallet] -= 1
        if not self._of_wallet[download.wallet]:
            del self._of_wallet[download.wallet]
        self.finish(download)
        if download.spool is not None:
            download.spool.close()

    def expire(self) -> None:
        """Drop those of which nothing was heard for long."""
        now_s = self._clock()
        for one in list(self._downloads.values()):
            if not one.lock.locked() and now_s - one.heard_s > self._settings.download_idle_s:
                self.drop(one)

    async def close(self) -> None:
        """Drop all."""
        for one in list(self._downloads.values()):
            self.drop(one)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def checked_end(file: FileInfo, start: int, end: int | None) -> int:
    """The byte after the last one that is wanted. Raises Failed for a range that the file has not."""
    size = file.size_bytes
    stop = size if end is None else end
    if not 0 <= start <= stop <= size or (start == stop and size > 0):
        raise Failed(WRONG_INPUT, f"offsetstart and offsetend: the file has {size} bytes, got {start} to {stop}")
    return stop


async def _stream(reading: Reading, offset: int, length: int) -> Any:
    async for piece in reading.read(offset, length):
        yield piece


async def _hashed(hasher: FileHasher, piece: Buffer) -> None:
    await aside(memoryview(piece).nbytes, hasher.update, piece)
