"""What methods answer: ``return`` codes inside of HTTP 200, and the JSON-RPC errors around them (reference sds.md 5.1 and 5.2).

the call itself is wrong (no JSON, unknown method, wrong types) ─► RpcError: the ``error`` object
what it asks for cannot be done ─► Failed: ``result.return`` is a negative code, ``result.detail`` a sentence
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sds_node.gateway.backend import BackendError, NotEnoughOzone, NotFound, SameFile, StringRefused, Unreachable, WrongPassword
from sds_node.requests import RequestError, WrongRequest

SUCCESS: Final = "0"
UPLOAD_DATA: Final = "1"
DOWNLOAD_OK: Final = "2"
DL_OK_ASK_INFO: Final = "3"
SHARED_DL_START: Final = "4"
GENERIC_ERR: Final = "-1"
SIGNATURE_FAILURE: Final = "-3"
WRONG_FILE_SIZE: Final = "-4"
TIME_OUT: Final = "-5"
FILE_REQ_FAILURE: Final = "-6"
WRONG_INPUT: Final = "-7"
WRONG_PP_ADDRESS: Final = "-8"
INTERNAL_DATA_FAILURE: Final = "-9"
INTERNAL_COMM_FAILURE: Final = "-10"
WRONG_FILE_INFO: Final = "-11"
WRONG_WALLET_ADDRESS: Final = "-12"
CONFLICT_WITH_ANOTHER_SESSION: Final = "-13"
SESSION_STOPPED: Final = "-14"

PARSE_ERROR: Final = -32_700
INVALID_REQUEST: Final = -32_600
METHOD_NOT_FOUND: Final = -32_601
INVALID_PARAMS: Final = -32_602
SERVER_ERROR: Final = -32_000


@dataclass(frozen=True, slots=True)
class Code:
    """A code with its name and what a client does about it."""

    code: str
    name: str
    text: str


CODES: Final = (
    Code(SUCCESS, "SUCCESS", "Done."),
    Code(UPLOAD_DATA, "UPLOAD_DATA", "Send the bytes from offsetstart to offsetend (exclusive) with user_uploadData."),
    Code(DOWNLOAD_OK, "DOWNLOAD_OK", "filedata holds the bytes from offsetstart to offsetend (exclusive)."),
    Code(DL_OK_ASK_INFO, "DL_OK_ASK_INFO", "All bytes were handed out: call user_downloadedFileInfo."),
    Code(SHARED_DL_START, "SHARED_DL_START", "Old dialect: sign filehash + wallet + sequencenumber + req_time and call user_requestDownloadShared."),
    Code(GENERIC_ERR, "GENERIC_ERR", "No such download is under way here, or another error that detail names."),
    Code(
        SIGNATURE_FAILURE, "SIGNATURE_FAILURE", "Key, signature, sequence number or req_time does not hold: ask for the number again and sign again."
    ),
    Code(WRONG_FILE_SIZE, "WRONG_FILE_SIZE", "The size is none that a file has, or data has not the length that was asked for."),
    Code(TIME_OUT, "TIME_OUT", "It took too long: try again."),
    Code(FILE_REQ_FAILURE, "FILE_REQ_FAILURE", "There is no such file or share, or the password is wrong."),
    Code(WRONG_INPUT, "WRONG_INPUT", "A parameter is missing or has the wrong form; detail names it."),
    Code(WRONG_PP_ADDRESS, "WRONG_PP_ADDRESS", "The node that is named is another."),
    Code(INTERNAL_DATA_FAILURE, "INTERNAL_DATA_FAILURE", "The network refused or failed; detail says why, for instance too little ozone."),
    Code(INTERNAL_COMM_FAILURE, "INTERNAL_COMM_FAILURE", "No meta node answers: try again later."),
    Code(WRONG_FILE_INFO, "WRONG_FILE_INFO", "The content has another hash than filehash: nothing was stored, nothing was charged."),
    Code(WRONG_WALLET_ADDRESS, "WRONG_WALLET_ADDRESS", "The wallet is none, or not the one of the signature."),
    Code(CONFLICT_WITH_ANOTHER_SESSION, "CONFLICT_WITH_ANOTHER_SESSION", "This wallet uploads this file already: stop it, or resume it."),
    Code(SESSION_STOPPED, "SESSION_STOPPED", "The upload was stopped, or there is none."),
)
RPC_CODES: Final = (
    Code(str(PARSE_ERROR), "parse error", "The body is no JSON."),
    Code(str(INVALID_REQUEST), "invalid request", "The body is no request, or a batch of none or too many."),
    Code(str(METHOD_NOT_FOUND), "method not found", "There is no such method; rpc.discover lists them."),
    Code(str(INVALID_PARAMS), "invalid params", "A parameter has the wrong type, or params is not an array of one object."),
    Code(str(SERVER_ERROR), "server error", "The gateway failed; its log says why."),
)


class RpcError(Exception):
    """A call that cannot be understood, as JSON-RPC tells it."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


class Failed(Exception):
    """A call that was understood and cannot be done: its ``return`` code, with text behind it where clients look for it there."""

    def __init__(self, code: str, detail: str, *, appended: bool = False) -> None:
        self.code, self.detail = code, detail
        self.shown = f"{code}, {detail}" if appended else code
        super().__init__(detail)


_REASONS: Final[tuple[tuple[type[BackendError], str], ...]] = (
    (StringRefused, SIGNATURE_FAILURE),
    (NotFound, FILE_REQ_FAILURE),
    (WrongPassword, FILE_REQ_FAILURE),
    (NotEnoughOzone, INTERNAL_DATA_FAILURE),
    (Unreachable, INTERNAL_COMM_FAILURE),
    (BackendError, INTERNAL_DATA_FAILURE),
)


def failure(error: BackendError | RequestError) -> Failed:
    """How a client is told of it."""
    if isinstance(error, RequestError):
        return Failed(WRONG_INPUT if isinstance(error, WrongRequest) else SIGNATURE_FAILURE, str(error))
    if isinstance(error, SameFile):
        return Failed(INTERNAL_DATA_FAILURE, str(error), appended=True)
    return Failed(next(code for kind, code in _REASONS if isinstance(error, kind)), str(error))


def result(code: str, **fields: Any) -> dict[str, Any]:
    """A result without the fields that are None."""
    return {"return": code} | {name: value for name, value in fields.items() if value is not None}
