"""Downloads: own files, shared files in both dialects, slices for players (reference sds.md 5.5 and 5.6)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from sds_node.gateway import budget
from sds_node.gateway.backend import Ask, FileInfo
from sds_node.gateway.dialects import asked, asked_shared, file_hash
from sds_node.gateway.downloading import Download, checked_end
from sds_node.gateway.results import (
    DL_OK_ASK_INFO,
    DOWNLOAD_OK,
    FILE_REQ_FAILURE,
    GENERIC_ERR,
    SHARED_DL_START,
    SIGNATURE_FAILURE,
    SUCCESS,
    WRONG_FILE_INFO,
    WRONG_INPUT,
    WRONG_WALLET_ADDRESS,
    Failed,
    result,
)
from sds_node.gateway.table import Params
from sds_node.handles import HandleError, ShareLink, parse_file_handle
from sds_node.hashes import PIECE_BYTES, SliceHasher, slice_ranges
from sds_node.requests import Accepted, Action

if TYPE_CHECKING:
    from sds_node.gateway.gateway import Gateway, Work

MAX_SLICES_TOLD: Final = 100_000


async def request(gateway: Gateway, params: Params) -> dict[str, Any]:
    ask, accepted = await _own(gateway, params, "user_requestDownload")
    download = await _begun(gateway, params, ask, accepted, None)
    return await _packet(gateway, download, download.start)


async def request_video(gateway: Gateway, params: Params) -> dict[str, Any]:
    ask, accepted = await _own(gateway, params, "user_requestVideoDownload")
    return _slices(await _begun(gateway, params, ask, accepted, None))


async def get_shared(gateway: Gateway, params: Params) -> dict[str, Any]:
    found = await _shared(gateway, params, "user_requestGetShared")
    return found if isinstance(found, dict) else await _packet(gateway, found, found.start)


async def get_video_shared(gateway: Gateway, params: Params) -> dict[str, Any]:
    found = await _shared(gateway, params, "user_requestGetVideoShared")
    return found if isinstance(found, dict) else _slices(found)


async def download_shared(gateway: Gateway, params: Params) -> dict[str, Any]:
    """The old dialect's second step."""
    subject = file_hash(params)
    signature = gateway.signer(params, "user_requestDownloadShared")
    download = gateway.downloads.get(params.text("reqid"), subject)
    if download.wallet != signature.wallet:
        raise Failed(WRONG_WALLET_ADDRESS, f"this download was begun by another wallet than {signature.wallet}")
    if download.reading is not None:
        # The answer to the same call was lost.
        return await _packet(gateway, download, download.start)
    sequences = gateway.recent(await gateway.known(signature.wallet))
    ask, _ = asked(params, Action.DOWNLOAD, subject, sequences, signature, gateway.used, gateway.now_s)
    async with download.lock:
        if download.reading is None and not download.is_over and not download.is_gone:
            gateway.downloads.begin(download, await gateway.backend.begin_download(ask, download.link), 0, None)
    return await _packet(gateway, download, download.start)


async def data(gateway: Gateway, params: Params) -> dict[str, Any]:
    download = _found(gateway, params)
    return await _packet(gateway, download, params.number("offsetstart") if params.has("offsetstart") else None)


async def slice_data(gateway: Gateway, params: Params) -> dict[str, Any]:
    download, number = _found(gateway, params), params.number("slicenumber")
    ranges = list(slice_ranges(download.file.size_bytes))
    if not 1 <= number <= len(ranges):
        raise Failed(WRONG_INPUT, f"slicenumber: the file has slices 1 to {len(ranges)}, got {number}")
    start, end = ranges[number - 1]
    await budget.charge(end - start)
    parts, at = [], start
    while at < end:
        packet = await gateway.downloads.packet(download, at)
        if packet is None:
            break
        at = packet[1]
        parts.append(packet[2])
    content, wanted = b"".join(parts), params.text("slicehash")
    parts.clear()
    if wanted:
        hasher = SliceHasher(number)
        hasher.update(content)
        if hasher.slice_hash(download.file.file_hash) != wanted:
            raise Failed(WRONG_FILE_INFO, f"slicehash: slice {number} is {hasher.slice_hash(download.file.file_hash)}, got {wanted[:60]!a}")
    return result(DOWNLOAD_OK, reqid=download.reqid, offsetstart=start, offsetend=end, filedata=base64.b64encode(content).decode())


async def info(gateway: Gateway, params: Params) -> dict[str, Any]:
    try:
        download = gateway.downloads.get(params.text("reqid"), params.text("filehash"))
    except Failed:
        return result(SUCCESS)  # it is over already
    # What begins or fetches now is done first.
    async with download.lock:
        gateway.downloads.drop(download)
    return result(SUCCESS)


def _found(gateway: Gateway, params: Params) -> Download:
    download = gateway.downloads.get(params.text("reqid"), params.text("filehash"))
    if download.reading is None and not download.is_over:
        raise Failed(GENERIC_ERR, "data is empty: sign filehash + wallet + sequencenumber + req_time and call user_requestDownloadShared first")
    return download


async def _own(gateway: Gateway, params: Params, method: str) -> tuple[Ask, Accepted]:
    try:
        handle = parse_file_handle(params.text("filehandle"))
    except HandleError as error:
        raise Failed(WRONG_INPUT, f"filehandle: {error}") from None
    signature = gateway.signer(params, method)
    if handle.wallet != signature.wallet:
        raise Failed(WRONG_WALLET_ADDRESS, f"filehandle: the wallet is {handle.wallet}, the call is signed by {signature.wallet}")
    return await gateway.asked(params, method, Action.DOWNLOAD, handle.file_hash)


async def _shared(gateway: Gateway, params: Params, method: str) -> Download | dict[str, Any]:
    signature = gateway.signer(params, method)
    known = await gateway.known(signature.wallet)
    ask, accepted, link = asked_shared(params, gateway.recent(known), signature, gateway.used, gateway.now_s)
    if ask.action is Action.DOWNLOAD_SHARED:
        return await _begun(gateway, params, ask, accepted, link)
    with gateway.downloads.place(signature.wallet):
        file = await gateway.backend.shared(ask, link)
        _check_public(file)
        download = gateway.downloads.add(ask, file, link=link)
    return result(
        SHARED_DL_START, reqid=download.reqid, filehash=file.file_hash, filename=file.name, filesize=file.size_bytes, sequencenumber=known.sequence
    )


def _check_public(file: FileInfo) -> None:
    if not file.is_public:
        raise Failed(FILE_REQ_FAILURE, "this file is private: its key is in the link, which only a client that decrypts can use (ppd get-shared)")


async def _begun(gateway: Gateway, params: Params, ask: Ask, accepted: Accepted, link: ShareLink | None) -> Download:
    known = gateway.downloads.by_text(accepted.text)
    if known is not None:
        # The answer was lost: the same string, the same download, from its beginning.
        if known.is_over and known.spooled[0] > known.start:
            raise Failed(SIGNATURE_FAILURE, "this string was used for a download that is over: sign again with a new req_time")
        return known
    return await gateway.joined(f"download\n{accepted.text}", lambda: _begin(gateway, params, ask, accepted.text, link))


async def _begin(gateway: Gateway, params: Params, ask: Ask, text: str, link: ShareLink | None) -> Download:
    start = params.number("offsetstart") if params.has("offsetstart") else 0
    end = params.number("offsetend") if params.has("offsetend") else None

    def check(file: FileInfo) -> None:
        if link is not None:
            _check_public(file)
        checked_end(file, start, end)

    with gateway.downloads.place(ask.wallet):
        reading = await gateway.backend.begin_download(ask, link, check)
        download = gateway.downloads.add(ask, reading.file, link=link, text=text)
        try:
            gateway.downloads.begin(download, reading, start, end)
        except Failed:
            gateway.downloads.drop(download)
            raise
    return download


async def _packet(gateway: Gateway, download: Download, offset: int | None = None) -> dict[str, Any]:
    await budget.charge(min(download.file.size_bytes, PIECE_BYTES))
    found = await gateway.downloads.packet(download, offset)
    if found is None:
        return result(DL_OK_ASK_INFO)
    start, end, content = found
    return result(
        DOWNLOAD_OK,
        reqid=download.reqid,
        offsetstart=start,
        offsetend=end,
        filehash=download.file.file_hash,
        filename=download.file.name,
        filesize=download.file.size_bytes,
        filedata=base64.b64encode(content).decode(),
    )


def _slices(download: Download) -> dict[str, Any]:
    file = download.file
    told = [
        {"slicenumber": number, "slicesize": end - start, "offsetstart": start, "offsetend": end}
        for number, (start, end) in zip(range(1, MAX_SLICES_TOLD + 1), slice_ranges(file.size_bytes), strict=False)
    ]
    return result(SUCCESS, reqid=download.reqid, filehash=file.file_hash, filename=file.name, filesize=file.size_bytes, slices=told)


WORK: Final[dict[str, Work]] = {
    "user_requestDownload": request,
    "user_downloadData": data,
    "user_downloadedFileInfo": info,
    "user_requestVideoDownload": request_video,
    "user_requestDownloadSliceData": slice_data,
    "user_requestGetShared": get_shared,
    "user_requestGetVideoShared": get_video_shared,
    "user_requestDownloadShared": download_shared,
}
