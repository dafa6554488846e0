"""Uploads under way: one for each (wallet, file hash), on disk until all bytes are there and have the right hash, then in the network.

    RECEIVING ─ last byte, hash is right ─► READY ─ user_uploadSign, or the grace is over ─► STORING ─► DONE
        │                └ wrong: gone, nothing charged            └ refused, or failed on the way: READY with an error and its bytes, until
        └ stop, or nothing heard for long: gone, its room free       somebody signs or resumes, or it is dropped

The string that pays is the last one that the wallet signed. The network takes a string for five minutes only, so an upload that lasts longer takes its lease
while bytes still come; a lease that is old by the time it is used is taken anew by a newer string. What a wallet sends is together at most what it could pay
and a quarter of the disk, and its polls keep no room. Source: sds.md 5.4 and 5.6; storage-protocol.md 5.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

import structlog

from sds_node.gateway.backend import Ask, Backend, BackendError, NotEnoughOzone, SameFile, Storing
from sds_node.gateway.results import CONFLICT_WITH_ANOTHER_SESSION, INTERNAL_DATA_FAILURE, TIME_OUT, WRONG_FILE_INFO, WRONG_FILE_SIZE, Failed
from sds_node.gateway.spool import NoRoom, Room, Spool
from sds_node.gateway_settings import Settings
from sds_node.hashes import FileHasher, is_legacy, parse_hash, upload_chunk_at
from sds_node.threads import aside

log = structlog.get_logger("gateway")

BEGIN_EARLY_S: Final = 200
"""A string that is so old is used for the lease now, though bytes are still missing."""
RENEW_S: Final = 2_400
"""A lease holds an hour; one of which so much is over is given back for a new one."""
WALLET_PART: Final = 4
"""One wallet's uploads have so great a part of the disk: a quarter."""
QUIET_S: Final = 30
"""When all places are taken, one that was not heard of for so long may have to go."""
KEPT_S: Final = 600
"""An upload that is over is remembered so long, for late calls and polls."""


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
        self.begun_s = now_s
        """When its lease was taken."""
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

    def begin(self, ask: Ask, text: str, size_bytes: int, name: str, noz: int) -> Upload:
        """A new upload of a wallet that has ``noz``, in place of one that is over. Raises Failed, NoRoom, NotEnoughOzone."""
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
        self._check_share(wallet, size_bytes, noz)
        if len(self._uploads) >= self._settings.uploads_most and self._of_wallet[wallet] < self._settings.uploads_of_wallet:
            self._make_place(wallet)
        if len(self._uploads) >= self._settings.uploads_most or self._of_wallet[wallet] >= self._settings.uploads_of_wallet:
            raise Failed(INTERNAL_DATA_FAILURE, "too many uploads are under way at this gateway: end one, or try again later")
        made = Upload(file_hash, size_bytes, name, self._room.take(size_bytes), ask, text, self._clock())
        self._uploads[wallet, file_hash] = made
        self._of_wallet[wallet] += 1
        return made

    def _check_share(self, wallet: str, size_bytes: int, noz: int) -> None:
        """Refuses more than one wallet may have here at a time."""
        mine = [one for one in self._uploads.values() if one.ask.wallet == wallet and one.phase is not Phase.DONE]
        unpaid = sum(one.size_bytes for one in mine if one.storing is None)
        if unpaid + size_bytes > noz:
            raise NotEnoughOzone(f"not enough ozone to process (Available: {noz}  Required: {unpaid + size_bytes} or more, with uploads under way)")
        others = sum(one.size_bytes for one in mine)
        most = self._room.most_bytes // WALLET_PART
        if others + size_bytes > most:
            raise NoRoom(
                f"uploads of one wallet have at most {most} bytes at this gateway, {others} are under way: try again later, or another gateway"
            )

    def _make_place(self, wallet: str) -> None:
        """Drop what is over, or a quiet upload of the wallet that has the most, so that few wallets do not keep out all others."""
        now_s = self._clock()
        over = next((one for one in self._uploads.values() if one.phase is Phase.DONE), None)
        other, count = self._of_wallet.most_common(1)[0]
        if over is None and count > self._of_wallet[wallet] + 1:
            quiet = [one for one in self._uploads.values() if one.ask.wallet == other and one.phase is Phase.RECEIVING and not one.lock.locked()]
            over = min((one for one in quiet if now_s - one.heard_s > QUIET_S), key=lambda one: one.heard_s, default=None)
        if over is not None:
            self.drop(over)

    async def receive(self, upload: Upload, data: bytes, offset: int | None) -> None:
        """The next bytes, or those once more whose answer was lost. Raises Failed, NoRoom; WRONG_FILE_INFO when all are there and are another file."""
        # It is done whole or not at all, though its client may be gone in the middle.
        task = asyncio.get_running_loop().create_task(self._receive(upload, data, offset))
        self._keep(task)
        await asyncio.shield(task)

    async def _receive(self, upload: Upload, data: bytes, offset: int | None) -> None:
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
            # First onto the disk: when that fails the same bytes may come again, and the hash has not seen them.
            await upload.spool.write(start, data)
            await aside(len(data), upload.hasher.update, data)
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
            if ask.timestamp_s >= upload.ask.timestamp_s:
                upload.ask = ask
            await self._begin(upload)
            if upload.same is not None:
                raise upload.same
            self._run(upload, self._store(upload))

    def go_on(self, upload: Upload) -> None:
        """Store again what could not be stored: the wallet has signed anew, and resumes."""
        if upload.phase is Phase.READY and upload.error:
            upload.error = ""
            self._run(upload, self._after_grace(upload))

    async def settle(self, upload: Upload, within_s: float) -> None:
        """Have an upload whose bytes are all there stored, without waiting for user_uploadSign: its wallet goes on as if it was. Raises BackendError, Failed."""
        if upload.phase is Phase.READY:
            with contextlib.suppress(SameFile):
                await self.sign(upload, upload.ask)
        if upload.task is not None:
            _, running = await asyncio.wait({upload.task}, timeout=within_s)
            if running:
                raise Failed(TIME_OUT, f"the file is still being stored after {within_s:g} s: try again")
        if upload.error:
            raise BackendError(upload.error)

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
        is_due = self._clock() - upload.ask.timestamp_s > BEGIN_EARLY_S if upload.storing is None else self._is_old(upload)
        if is_due and upload.same is None:
            try:
                await self._begin(upload)
            except BackendError as error:
                # The next string may do.
                log.info("an upload's lease is taken later", file=upload.file_hash, why=str(error))
                upload.error = ""

    def _is_old(self, upload: Upload) -> bool:
        """Whether a lease is better taken anew, and a string that was signed since is there to pay for it."""
        return self._clock() - upload.begun_s > RENEW_S and upload.ask.timestamp_s > upload.begun_s

    async def _begin(self, upload: Upload) -> None:
        """Have its lease. Raises BackendError; of a file that the wallet has already it is noted."""
        if upload.storing is not None:
            if not self._is_old(upload):
                return
            before, upload.storing = upload.storing, None
            await before.close()
        try:
            upload.storing = await self._backend.begin_upload(upload.ask, upload.size_bytes)
            upload.error, upload.begun_s = "", self._clock()
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
        upload.phase = Phase.STORING
        is_stored = False
        try:
            async with self._stores:
                # Its turn may have come late.
                await self._begin(upload)
                if upload.storing is not None:
                    await upload.storing.store(upload.name, upload.spool.pieces())
            is_stored, upload.error = True, ""
        except BackendError as error:
            upload.error = str(error)
            log.warning("an upload failed", file=upload.file_hash, why=str(error))
        finally:
            storing, upload.storing = upload.storing, None
            if is_stored or upload.is_gone:
                self._over(upload)
            else:
                upload.phase, upload.heard_s = Phase.READY, self._clock()
            if storing is not None:
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
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, (Failed, BackendError)):
            log.error("an upload ended by a fault of this gateway", error=repr(error))
