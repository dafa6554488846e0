"""Wallets and files: ``requestGetOzone``, ``getFileStatus``, ``requestDeleteFile``, ``requestList``, ``requestServiceStatus``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sds_node.gateway.backend import BackendError, NotFound
from sds_node.gateway.dialects import file_hash, wallet
from sds_node.gateway.results import SUCCESS, WRONG_INPUT, Failed, result
from sds_node.gateway.table import Params
from sds_node.gateway.uploading import Phase
from sds_node.requests import Action

if TYPE_CHECKING:
    from sds_node.gateway.gateway import Gateway, Work

UNKNOWN, UPLOADING, FAILED, STORED = 0, 1, 2, 3
MAX_PAGE: Final = 50_000


async def ozone(gateway: Gateway, params: Params) -> dict[str, Any]:
    found = await gateway.backend.wallet(wallet(params))
    return result(SUCCESS, ozone=str(found.noz), sequencynumber=found.sequence)


async def status(gateway: Gateway, params: Params) -> dict[str, Any]:
    subject = file_hash(params)
    try:
        ask, _ = await gateway.asked(params, "user_getFileStatus", Action.FILE_STATUS, subject)
    except NotFound as error:
        return _state(UNKNOWN, error=str(error))
    upload = gateway.uploads.get(ask.wallet, subject)
    if upload is not None:
        # Polls keep no room on the disk: bytes do, and what is being stored stays anyway.
        if upload.error:
            return _state(FAILED, error=upload.error)
        if upload.phase is not Phase.DONE:
            return _state(UPLOADING)
    try:
        found = await gateway.backend.file(ask)
    except BackendError as error:
        # A poll goes on, whatever the network says now.
        return _state(UPLOADING if upload is not None else UNKNOWN, error=str(error))
    if found is None:
        return _state(UNKNOWN, error="file not found")
    return _state(STORED, has_file=True, replicas=found[1])


def _state(state: int, *, has_file: bool = False, replicas: int = 0, error: str | None = None) -> dict[str, Any]:
    return result(SUCCESS, error=error, file_upload_state=state, user_has_file=has_file, replicas=replicas)


async def delete(gateway: Gateway, params: Params) -> dict[str, Any]:
    subject = file_hash(params)
    ask, accepted = await gateway.asked(params, "user_requestDeleteFile", Action.DELETE_FILE, subject)

    async def work() -> dict[str, Any]:
        await gateway.backend.delete(ask)
        upload = gateway.uploads.get(ask.wallet, subject)
        if upload is not None and upload.phase is Phase.DONE:
            gateway.uploads.drop(upload)
        return result(SUCCESS)

    return await gateway.once(ask, accepted.text, work)


async def listed(gateway: Gateway, params: Params) -> dict[str, Any]:
    number = page(params)
    ask, _ = await gateway.asked(params, "user_requestList", Action.LIST_FILES, "")
    if not await gateway.is_known(ask.wallet):
        return result(SUCCESS, totalnumber=0, page=number)
    files, total = await gateway.backend.files(ask, number)
    told = [{"filehash": one.file_hash, "filesize": one.size_bytes, "filename": one.name, "createtime": one.made_s} for one in files]
    return result(SUCCESS, fileinfo=told or None, totalnumber=total, page=number)


def page(params: Params) -> int:
    """Which page of a list is asked for. Raises Failed."""
    number = params.number("page")
    if not 0 <= number <= MAX_PAGE:
        raise Failed(WRONG_INPUT, f"page: expected 0 to {MAX_PAGE}, got {number}")
    return number


async def service(gateway: Gateway, params: Params) -> dict[str, Any]:
    return result(SUCCESS, message=gateway.service_status(wallet(params)))


WORK: Final[dict[str, Work]] = {
    "user_requestGetOzone": ozone,
    "user_getFileStatus": status,
    "user_requestDeleteFile": delete,
    "user_requestList": listed,
    "user_requestServiceStatus": service,
}
