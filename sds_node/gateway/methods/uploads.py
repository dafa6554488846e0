"""Uploads: ``requestUpload``, ``requestUploadStream``, ``uploadData``, ``uploadSign`` (reference sds.md 5.4 and 5.6)."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from sds_node.gateway.backend import Ask, NotEnoughOzone, SameFile, WalletState
from sds_node.gateway.dialects import asked, file_hash, file_name
from sds_node.gateway.results import (
    CONFLICT_WITH_ANOTHER_SESSION,
    INTERNAL_DATA_FAILURE,
    SESSION_STOPPED,
    SIGNATURE_FAILURE,
    SUCCESS,
    UPLOAD_DATA,
    WRONG_FILE_SIZE,
    WRONG_INPUT,
    Failed,
    failure,
    result,
)
from sds_node.gateway.table import Params
from sds_node.gateway.uploading import Phase, Upload
from sds_node.hashes import is_video
from sds_node.legacy import MAX_UPLOAD_BYTES, is_recent, sequence_number
from sds_node.requests import Accepted, Action, WalletSignature, is_signed, signed_text

if TYPE_CHECKING:
    from sds_node.gateway.gateway import Gateway, Work


async def request(gateway: Gateway, params: Params) -> dict[str, Any]:
    return await _request(gateway, params, "user_requestUpload")


async def request_stream(gateway: Gateway, params: Params) -> dict[str, Any]:
    if not is_video(file_hash(params)):
        raise Failed(WRONG_INPUT, "filehash: a video that is streamed has a hash with codec 0x72, v05p1m5…")
    return await _request(gateway, params, "user_requestUploadStream")


async def _request(gateway: Gateway, params: Params, method: str) -> dict[str, Any]:
    subject, size_bytes = file_hash(params), params.number("filesize")
    if not 0 <= size_bytes <= MAX_UPLOAD_BYTES:
        raise Failed(WRONG_FILE_SIZE, f"filesize: expected 0 to {MAX_UPLOAD_BYTES}, got {size_bytes}; larger files are stored with ppd")
    name = file_name(params.text("filename"))
    signature = gateway.signer(params, method)
    known = gateway.uploads.get(signature.wallet, subject)
    ask, accepted = await _checked(gateway, params, signature, subject, known)
    if known is not None and params.flag("resume") and known.phase is not Phase.DONE:
        if known.size_bytes != size_bytes:
            raise Failed(CONFLICT_WITH_ANOTHER_SESSION, f"this file is under way with {known.size_bytes} bytes, got {size_bytes}: stop it first")
        _note(gateway, known, ask, accepted)
        gateway.uploads.go_on(known)
        return _next(known)
    # Every byte is stored at least once, for a noz. Without this anybody could fill the disk.
    found = await _paying(gateway, signature.wallet, size_bytes)
    return _next(gateway.uploads.begin(ask, accepted.text, size_bytes, name, found.noz))


async def data(gateway: Gateway, params: Params) -> dict[str, Any]:
    subject = file_hash(params)
    signature = gateway.signer(params, "user_uploadData")
    upload = gateway.uploads.get(signature.wallet, subject)
    ask, accepted = await _checked(gateway, params, signature, subject, upload)
    if params.flag("stop") or upload is None:
        if upload is not None and upload.phase is not Phase.DONE:
            gateway.uploads.drop(upload)
        return result(SESSION_STOPPED)
    try:
        content = base64.b64decode(params.text("data"), validate=True)
    except (binascii.Error, ValueError):
        raise Failed(WRONG_INPUT, "data: expected standard base64") from None
    _note(gateway, upload, ask, accepted)
    await gateway.uploads.receive(upload, content, params.number("offsetstart") if params.has("offsetstart") else None)
    return _next(upload)


async def sign(gateway: Gateway, params: Params) -> dict[str, Any]:
    subject = file_hash(params)
    signature = gateway.signer(params, "user_uploadSign")
    upload = gateway.uploads.get(signature.wallet, subject)
    ask, accepted = await _checked(gateway, params, signature, subject, upload)
    if upload is None:
        raise Failed(INTERNAL_DATA_FAILURE, "no upload of this file is under way here: it was dropped, or never begun")
    if upload.phase is Phase.RECEIVING:
        raise Failed(INTERNAL_DATA_FAILURE, f"{upload.size_bytes - upload.offset} bytes of the file are missing: send them first")
    upload.texts.add(accepted.text)
    try:
        await gateway.uploads.sign(upload, ask)
    except SameFile as error:
        # Clients look for the phrase in detail, and some in return.
        told = failure(error)
        return result(told.shown, detail=told.detail)
    return result(SUCCESS)


async def _paying(gateway: Gateway, wallet: str, least_noz: int) -> WalletState:
    """A wallet that has so many noz. Raises NotEnoughOzone."""
    found = await gateway.backend.wallet(wallet)
    if found.noz < least_noz:
        raise NotEnoughOzone(f"not enough ozone to process (Available: {found.noz}  Required: {least_noz} or more): buy ozone and try again")
    return found


def _next(upload: Upload) -> dict[str, Any]:
    if upload.is_full:
        return result(SUCCESS)
    start, end = upload.wanted
    return result(UPLOAD_DATA, offsetstart=start, offsetend=end)


async def _checked(gateway: Gateway, params: Params, signature: WalletSignature, subject: str, upload: Upload | None) -> tuple[Ask, Accepted]:
    """The call's string: by the number that the wallet has now, or one that this very upload has seen before. Raises Failed."""
    given, time_s = params.text("sequencenumber"), params.number("req_time")
    if upload is not None:
        known = f"{subject}{signature.wallet}{given}{time_s}"
        is_known = known in upload.texts and signed_text(Action.UPLOAD, subject, signature.wallet, given, time_s) == known
        # The same string goes on for as long as its upload: what it pays for is one upload.
        if is_known and is_signed(known, signature):
            return Ask(Action.UPLOAD, subject, given, time_s, signature), Accepted(known, given, time_s, is_first=False)
    current = (await _paying(gateway, signature.wallet, 1 if upload is None else 0)).sequence
    # Uploads that were begun at once end one after another, each with a number of its own.
    if not is_recent(given, sequence_number(current)) and not (upload is not None and given == upload.ask.sequence):
        raise Failed(SIGNATURE_FAILURE, f"wrong sequence number: expected {current}, got {given[:40]!a}; ask for it with user_requestGetOzone")
    return asked(params, Action.UPLOAD, subject, [given], signature, gateway.used, gateway.now_s)


def _note(gateway: Gateway, upload: Upload, ask: Ask, accepted: Accepted) -> None:
    """The newest string is the one that pays; a repeated one is no newer."""
    upload.heard_s = gateway.clock()
    if accepted.text not in upload.texts and len(upload.texts) < 10_000:
        upload.texts.add(accepted.text)
    if ask.timestamp_s >= upload.ask.timestamp_s:
        upload.ask = ask


WORK: Final[dict[str, Work]] = {
    "user_requestUpload": request,
    "user_requestUploadStream": request_stream,
    "user_uploadData": data,
    "user_uploadSign": sign,
}
