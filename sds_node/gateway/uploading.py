"""Uploads under way: one for each (wallet, file hash), on disk until all bytes are there and have the right hash, then in the network.

    RECEIVING ─ last byte, hash is right ─► READY ─ user_uploadSign, or the grace is over ─► STORING ─► DONE
        │                └ wrong: gone, nothing charged            └ refused: READY with an error, until somebody signs again or it is dropped
        └ stop, or nothing heard for long: gone, its room is free at once

The string that pays is the last one that the wallet signed. The network takes a string for five minutes only, so an upload that lasts longer takes its lease
while bytes still come. Source: sds.md 5.4 and 5.6; storage-protocol.md 5.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

import structlog

from sds_node.gateway.backend import Ask, Backend, BackendError, SameFile, Storing
from sds_node.gateway.results import CONFLICT_WITH_ANOTHER_SESSION, INTERNAL_DATA_FAILURE, WRONG_FILE_INFO, WRONG_FILE_SIZE, Failed
from sds_node.gateway.spool import Room, Spool
from sds_node.gateway_settings import Settings
from sds_node.hashes import FileHasher, is_legacy, parse_hash, upload_chunk_at

log = structlog.get_logger("gateway")

BEGIN_EARLY_S: Final = 200
"""A string that is so old is used for the lease now, though bytes are still missing."""
KEPT_S: Final = 600
"""An upload that is over is remembered so long, for late calls and polls."""
INLINE_BYTES: Final = 256 << 10


class Phase(enum.Enum):
    """What an upload is in."""

    RECEIVING = 1
    READY = 2
    STORING = 3
    DONE = 4


class Upload:
    """One upload. Its calls come one after another."""

    def __init__(self, file_hash: str, size_bytes: int, name: str, spool: Spool, ask: Ask, text: str, now_s: float) -> None:
        self.file_hash, self.size_bytes, self.name, self.spool, self.ask = file_hash, size_bytes, name, spool, ask
        self.texts = {text}
        self.heard_s = now_s
        self.phase = Phase.RECEIVING
        self.offset = 0
        self.error = ""
        self.same: SameFile | None = None
        self.storing: Storing | None = None
        self.lock = asyncio.Lock()
        self.hasher = FileHasher(parse_hash(file_hash).codec)
        self.last: tuple[int, bytes] | None = None
        """(where the last chunk began, its SHA-256)."""
        self.task: asyncio.Task[None] | None = None
        self.is_gone = False

    @property
    def wanted(self) -> tuple[int, int]:
        """The bytes that are asked for next."""
        return upload_chunk_at(self.size_bytes, self.offset) if self.offset < self.size_bytes else (self.offset, self.offset)

    @property
    def is_full(self) -> bool:
        return self.phase is not Phase.RECEIVING


class Uploads:
    """All uploads of a gateway. ``clock`` tells Unix seconds."""

    def __init__(self, backend: Backend, room: Room, clock: Callable[[], float], settings: Settings) -> None:
        self._backend, self._room, self._clock, self._settings = backend, room, clock, settings
        self._uploads: dict[tuple[str, str], Upload] = {}
        self._of_wallet: Counter[str] = Counter()
        self._stores = asyncio.Semaphore(settings.stores_at_once)
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._uploads)

    def get(self, wallet: str, file_hash: str) -> Upload | None:
        """An upload, over or not."""
        return self._uploads.get((wallet, file_hash))

    def begin(self, ask: Ask, text: str, size_bytes: int, name: str) -> Upload:
        """A new upload, in place of one that is over. Raises Failed, NoRoom."""
        self.expire()
        wallet, file_hash = ask.wallet, ask.subject
        if is_legacy(file_hash):
            raise Failed(WRONG_FILE_INFO, "a hash that starts with v05ahm5 rests on MD5 and proves nothing: hash the file again, to v05j1m5…")
        before = self.get(wallet, file_hash)
        if before is not None:
            if before.phase is not Phase.DONE and not before.error:
                raise Failed(
                    CONFLICT_WITH_ANOTHER_SESSION,
                    "this wallet uploads this file already: send user_uploadData with stop, or user_requestUpload with resume",
                )
            self.drop(before)
        if len(self._uploads) >= self._settings.uploads_most or self._of_wallet[wallet] >= self._settings.uploads_of_wallet:
            raise Failed(INTERNAL_DATA_FAILURE, "too many uploads are under way at this gateway: end one, or try again later")
        made = Upload(file_hash, size_bytes, name, self._room.take(size_bytes), ask, text, self._clock())
        self._uploads[wallet, file_hash] = made
        self._of_wallet[wallet] += 1
        return made

    async def receive(self, upload: Upload, data: bytes, offset: int | None) -> None:
        """The next bytes, or those once more whose answer was lost. Raises Failed, NoRoom; WRONG_FILE_INFO when all are there and are another file."""
        async with upload.lock:
            upload.heard_s = self._clock()
            digest = sha256(data).digest()
            if offset is not None and upload.last == (offset, digest):
                return
            start, end = upload.wanted
            if upload.is_full:
                return
            if len(data) != end - start or (offset is not None and offset != start):
                raise Failed(WRONG_FILE_SIZE, f"expected the {end - start} bytes from {start} to {end}, got {len(data)} from {offset or start} on")
            if len(data) <= INLINE_BYTES:
                upload.hasher.update(data)
            else:
                await asyncio.to_thread(upload.hasher.update, data)
            await upload.spool.write(start, data)
            upload.offset, upload.last = end, (start, digest)
            if end < upload.size_bytes:
                await self._begin_early(upload)
                return
            found = upload.hasher.file_hash()
            if found != upload.file_hash:
                self.drop(upload)
                raise Failed(WRONG_FILE_INFO, f"the content has the hash {found}, not {upload.file_hash}: nothing was stored, nothing was charged")
            upload.phase = Phase.READY
            self._run(upload, self._after_grace(upload))

    async def sign(self, upload: Upload, ask: Ask) -> None:
        """The wallet's last word; returns when the transfer has begun. Raises BackendError, SameFile among them."""
        async with upload.lock:
            upload.heard_s = self._clock()
            if upload.phase in (Phase.STORING, Phase.DONE):
                if upload.same is not None:
                    raise upload.same
                return
            if upload.task is not None:
                upload.task.cancel()
            if upload.storing is None:
                upload.ask = ask
            await self._begin(upload)
            if upload.same is not None:
                raise upload.same
            self._run(upload, self._store(upload))

    def drop(self, upload: Upload) -> None:
        """It is no more: its room is free, its lease goes back."""
        key = (upload.ask.wallet, upload.file_hash)
        if self._uploads.get(key) is upload:
            del self._uploads[key]
            self._of_wallet[upload.ask.wallet] -= 1
            if not self._of_wallet[upload.ask.wallet]:
                del self._of_wallet[upload.ask.wallet]
        upload.is_gone = True
        if upload.task is not None:
            upload.task.cancel()
        upload.spool.close()
        if upload.storing is not None and upload.phase is not Phase.STORING:
            self._keep(asyncio.get_running_loop().create_task(upload.storing.close()))
            upload.storing = None

    def expire(self) -> None:
        """Drop those of which nothing was heard for long, and forget those that are over."""
        now_s = self._clock()
        for upload in list(self._uploads.values()):
            life_s = KEPT_S if upload.phase is Phase.DONE else self._settings.upload_idle_s
            if upload.phase is not Phase.STORING and not upload.lock.locked() and now_s - upload.heard_s > life_s:
                self.drop(upload)

    async def close(self) -> None:
        """Drop all."""
        for upload in list(self._uploads.values()):
            self.drop(upload)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- into the network ---

    async def _begin_early(self, upload: Upload) -> None:
        if upload.storing is None and upload.same is None and self._clock() - upload.ask.timestamp_s > BEGIN_EARLY_S:
            try:
                await self._begin(upload)
            except BackendError as error:
                # The next string may do.
                log.info("an upload's lease is taken later", file=upload.file_hash, why=str(error))
                upload.error = ""

    async def _begin(self, upload: Upload) -> None:
        """Have its lease. Raises BackendError; of a file that the wallet has already it is noted."""
        if upload.storing is not None:
            return
        try:
            upload.storing = await self._backend.begin_upload(upload.ask, upload.size_bytes)
            upload.error = ""
        except SameFile as error:
            upload.same, upload.error = error, ""
            if upload.phase is not Phase.RECEIVING:
                self._over(upload)
        except BackendError as error:
            upload.error = str(error)
            raise
        if upload.is_gone and upload.storing is not None:
            await upload.storing.close()
            upload.storing = None
            raise BackendError("this upload was stopped")

    async def _after_grace(self, upload: Upload) -> None:
        await asyncio.sleep(self._settings.grace_s)
        async with upload.lock:
            try:
                await self._begin(upload)
            except BackendError as error:
                log.info("an upload is not stored", file=upload.file_hash, why=str(error))
                return
            if upload.same is None:
                self._run(upload, self._store(upload))

    async def _store(self, upload: Upload) -> None:
        storing = upload.storing
        assert storing is not None
        upload.phase = Phase.STORING
        try:
            async with self._stores:
                await storing.store(upload.name, upload.spool.pieces())
            upload.error = ""
        except BackendError as error:
            upload.error = str(error)
            log.warning("an upload failed", file=upload.file_hash, why=str(error))
        finally:
            upload.storing = None
            self._over(upload)
            await storing.close()

    def _over(self, upload: Upload) -> None:
        upload.phase, upload.heard_s = Phase.DONE, self._clock()
        upload.spool.close()

    def _run(self, upload: Upload, work: Any) -> None:
        upload.task = asyncio.get_running_loop().create_task(work)
        self._keep(upload.task)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an upload ended by a fault of this gateway", error=repr(error))
