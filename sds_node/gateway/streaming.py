"""Videos for players: a stored file is fetched once, cut into HLS segments, and handed out segment by segment (reference sds.md 5.8).

    POST prepare… ─ signed ─► the file ─► disk ─ PyAV, codecs copied ─► index.m3u8, 0.ts, 1.ts, …        GET getVideoSliceCache ─► one of them

PyAV is an extra: without it a prepare is refused with a sentence, and everything else goes on. Caches live an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
import os
import re
import shutil
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from sds_node.gateway.backend import Ask, BackendError, FileInfo, Reading
from sds_node.gateway.gateway import Gateway
from sds_node.gateway.results import FILE_REQ_FAILURE, GENERIC_ERR, INTERNAL_DATA_FAILURE, TIME_OUT, WRONG_INPUT, Failed, failure
from sds_node.gateway.spool import Spool
from sds_node.handles import HandleError, ShareLink, parse_share_link, parse_wallet
from sds_node.hashes import HashError, parse_hash
from sds_node.requests import Action, RequestError, WalletSignature, accept, parse_signature

log = structlog.get_logger("gateway")

PLAYLIST: Final = "index.m3u8"
LIFE_S: Final = 3_600
MAX_CACHES: Final = 64
MAX_VIDEO_BYTES: Final = 16 << 30
MAX_BODY_BYTES: Final = 16 << 10
READ_S: Final = 30.0
"""A body comes in within this time."""
SLICE_MIB: Final = 32
SEGMENT_S: Final = (2, 60)
CUTS_AT_ONCE: Final = 2
_IS_SEGMENT: Final = re.compile(r"(?:[0-9]{1,6}\.ts|index\.m3u8)").fullmatch
_TYPES: Final = {".m3u8": "application/x-mpegURL", ".ts": "video/MP2T"}

Cut = Callable[[BinaryIO, Path, int], None]
"""(the video, a folder for the segments, its size in bytes): blocks; raises BackendError for what is no video."""


def segment_seconds(duration_s: float, size_bytes: int) -> int:
    """How long a segment is: as the original computes it, within 2 to 60 s."""
    wanted = math.sqrt(10 * max(1.0, size_bytes / (SLICE_MIB << 20)) - 9)
    return min(max(math.ceil(duration_s / wanted), SEGMENT_S[0]), SEGMENT_S[1])


def cut_with_pyav(video: BinaryIO, folder: Path, size_bytes: int) -> None:
    """Cut a video without coding it anew. Raises BackendError, also when PyAV is not installed."""
    try:
        av: Any = importlib.import_module("av")
    except ImportError:
        raise BackendError("this gateway streams no videos: its operator has not installed PyAV (pip install av)") from None
    try:
        with av.open(video) as source:
            seconds = segment_seconds((source.duration or 0) / 1_000_000, size_bytes)
            options = {"hls_time": str(seconds), "hls_list_size": "0", "hls_playlist_type": "vod", "hls_segment_filename": str(folder / "%d.ts")}
            with av.open(str(folder / PLAYLIST), "w", format="hls", options=options) as target:
                streams = {one.index: target.add_stream_from_template(one) for one in source.streams if one.type in ("video", "audio")}
                if not streams:
                    raise BackendError("the file has neither pictures nor sound: is it a video?")
                for packet in source.demux([source.streams[index] for index in streams]):
                    if packet.dts is not None:
                        packet.stream = streams[packet.stream.index]
                        target.mux(packet)
    except (OSError, ValueError) as error:
        # PyAV's errors are both.
        raise BackendError(f"the file cannot be cut into segments: {str(error)[:200]}") from None


@dataclass
class Cache:
    """A video that is ready. ``text`` is the string that has paid for it, ``reserved`` its place on the disk."""

    text: str
    folder: Path
    reserved: Spool
    ends_s: float


class Streaming:
    """The REST of one gateway. ``cut`` cuts videos. Call ``expire`` now and then, ``close`` at the end."""

    def __init__(self, gateway: Gateway, folder: Path, *, cut: Cut = cut_with_pyav) -> None:
        self._gateway, self._folder, self._cut = gateway, folder / "hls", cut
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._caches: dict[str, Cache] = {}
        self._making = 0
        self._cuts = asyncio.Semaphore(CUTS_AT_ONCE)
        routes = [
            Route("/getOzone/{wallet}", self._told(self._ozone), methods=["GET"]),
            Route("/prepareVideoFileCache/{owner}/{file_hash}", self._told(self._prepare), methods=["POST"]),
            Route("/prepareSharedVideoFileCache/{link}", self._told(self._prepare_shared), methods=["POST"]),
            Route("/getVideoSliceCache/{reqid}/{name}", self._told(self._segment), methods=["GET"]),
        ]
        cors = Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET", "POST"], allow_headers=["Content-Type"])
        self.app = Starlette(routes=routes, middleware=[cors])

    def _told(self, work: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def told(request: Request) -> Response:
            try:
                return await work(request)
            except (Failed, BackendError) as error:
                found = error if isinstance(error, Failed) else failure(error)
                return _json({"errcode": int(found.code), "data": None, "message": found.detail}, 500)
            except ClientDisconnect:
                return Response(status_code=400)
            except Exception:
                log.exception("a request for a video failed by a fault of this gateway")
                return _json({"errcode": int(GENERIC_ERR), "data": None, "message": "the gateway failed; its log says why"}, 500)

        return told

    async def _ozone(self, request: Request) -> Response:
        wallet = request.path_params["wallet"]
        _checked_wallet(wallet)
        found = await self._gateway.backend.wallet(wallet)
        return _json({"walletAddress": wallet, "sequenceNumber": found.sequence, "ozone": str(found.noz)})

    async def _prepare(self, request: Request) -> Response:
        owner, file_hash = request.path_params["owner"], request.path_params["file_hash"]
        _checked_wallet(owner)
        try:
            parse_hash(file_hash)
        except HashError as error:
            raise Failed(WRONG_INPUT, str(error)) from None
        signature, time_s = await _signature(request)
        if owner != signature.wallet:
            raise Failed(WRONG_INPUT, "the owner in the path is not the wallet that signed: an own file is asked for by its owner")
        return await self._ready(*await self._ask(Action.DOWNLOAD, file_hash, signature, time_s), None)

    async def _prepare_shared(self, request: Request) -> Response:
        signature, time_s = await _signature(request)
        password = request.query_params.get("password", "")
        try:
            link = parse_share_link(request.path_params["link"] + (f"/{password}" if password else ""))
        except HandleError as error:
            raise Failed(WRONG_INPUT, str(error)) from None
        return await self._ready(*await self._ask(Action.DOWNLOAD_SHARED, link.link, signature, time_s), link)

    async def _ask(self, action: Action, subject: str, signature: WalletSignature, time_s: int) -> tuple[Ask, str]:
        """(the ask of a string, the string)."""
        sequences = self._gateway.recent(await self._gateway.known(signature.wallet))
        try:
            found = accept(self._gateway.used, action, subject, sequences, time_s, signature, self._gateway.now_s)
        except RequestError as error:
            raise failure(error) from None
        return Ask(action, subject, found.sequence, found.timestamp_s, signature), found.text

    async def _ready(self, ask: Ask, text: str, link: ShareLink | None) -> Response:
        """A prepared video; a string that comes again has the same one."""
        await self.expire()
        reqid = next((reqid for reqid, one in self._caches.items() if one.text == text), None)
        if reqid is None:
            reqid = await self._gateway.joined(f"video\n{text}", lambda: self._made(ask, text, link))
        return _json({"headerFile": PLAYLIST, "reqId": reqid})

    async def _made(self, ask: Ask, text: str, link: ShareLink | None) -> str:
        if len(self._caches) + self._making >= MAX_CACHES:
            raise Failed(INTERNAL_DATA_FAILURE, "too many videos are cached at this gateway: try again later")
        self._making += 1
        try:
            reading = await self._gateway.backend.begin_download(ask, link, _check_video)
            try:
                return await self._cached(reading, text)
            finally:
                await reading.close()
        finally:
            self._making -= 1

    async def _cached(self, reading: Reading, text: str) -> str:
        """Fetch and cut a file. Gives the id of its cache."""
        size = reading.file.size_bytes
        _check_video(reading.file)
        reqid = str(uuid.uuid4())
        folder = self._folder / reqid
        with contextlib.ExitStack() as undo:
            # The video while it is cut, and its segments, which are about as large.
            reserved = self._gateway.room.take(size)
            undo.callback(reserved.close)
            spool = self._gateway.room.take(size)
            try:
                at = 0
                async for piece in reading.read(0, size):
                    await spool.write(at, piece)
                    at += len(memoryview(piece).cast("B"))
                async with self._cuts:
                    undo.callback(shutil.rmtree, folder, ignore_errors=True)
                    await asyncio.to_thread(self._cut_into, spool, folder, size)
            finally:
                spool.close()
            undo.pop_all()
        self._caches[reqid] = Cache(text, folder, reserved, self._gateway.clock() + LIFE_S)
        return reqid

    def _cut_into(self, spool: Spool, folder: Path, size_bytes: int) -> None:
        folder.mkdir()
        with os.fdopen(spool.duplicate(), "rb") as video:
            video.seek(0)
            self._cut(video, folder, size_bytes)

    async def _segment(self, request: Request) -> Response:
        await self.expire()
        reqid, name = request.path_params["reqid"], request.path_params["name"]
        cache = self._caches.get(reqid)
        path = cache.folder / name if cache is not None and _IS_SEGMENT(name) else None
        if path is None or not await asyncio.to_thread(path.is_file):
            raise Failed(FILE_REQ_FAILURE, "there is no such segment here: prepare the video first")
        return FileResponse(path, media_type=_TYPES[path.suffix])

    async def expire(self) -> None:
        """Forget what is over."""
        now_s = self._gateway.clock()
        over = [self._caches.pop(key) for key in [key for key, one in self._caches.items() if one.ends_s <= now_s]]
        try:
            for one in over:
                await asyncio.to_thread(shutil.rmtree, one.folder, ignore_errors=True)
        finally:
            for one in over:
                one.reserved.close()

    def close(self) -> None:
        """Forget all."""
        for one in self._caches.values():
            one.reserved.close()
        self._caches.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


def _check_video(file: FileInfo) -> None:
    if not file.is_public or not 0 < file.size_bytes <= MAX_VIDEO_BYTES:
        raise Failed(INTERNAL_DATA_FAILURE, f"a video that is streamed is public and has 1 to {MAX_VIDEO_BYTES} bytes")


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def _checked_wallet(text: str) -> None:
    try:
        parse_wallet(text)
    except HandleError as error:
        raise Failed(WRONG_INPUT, str(error)) from None


async def _signature(request: Request) -> tuple[WalletSignature, int]:
    """Who signed, and the time that was signed, of a body. Raises Failed."""
    body = bytearray()
    try:
        async with asyncio.timeout(READ_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise Failed(WRONG_INPUT, f"the body has at most {MAX_BODY_BYTES} bytes")
    except TimeoutError:
        raise Failed(TIME_OUT, f"expected the whole body within {READ_S:g} s") from None
    try:
        found = orjson.loads(bytes(body))
    except orjson.JSONDecodeError:
        found = None
    texts = [found.get(name) for name in ("walletAddress", "pubKey", "signature")] if isinstance(found, dict) else [None]
    time_s = found.get("reqTime") if isinstance(found, dict) else None
    if any(not isinstance(one, str) for one in texts) or not isinstance(time_s, int) or isinstance(time_s, bool):
        raise Failed(WRONG_INPUT, "expected a JSON object with walletAddress, pubKey, signature (texts) and reqTime (a number)")
    try:
        return parse_signature(*texts), time_s
    except RequestError as error:
        raise failure(error) from None
