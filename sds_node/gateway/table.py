"""All methods in one table: it checks what comes in, answers ``rpc.discover``, and the documentation is compared with it.

    params ─ Field by Field ─► values of the right types, zero where a client sent none (as the original's server reads them)

Source: sds.md 5.3 and 5.7, names exactly as on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sds_node.gateway.results import CODES, INVALID_PARAMS, RPC_CODES, RpcError

MAX_TEXT: Final = 4_096
MAX_DATA_TEXT: Final = 5 << 20
MAX_NUMBER: Final = (1 << 63) - 1
TEXT, DATA, NUMBER, BOOLEAN, SIGNATURE, LIST = "text", "data", "number", "boolean", "signature", "list"
_JSON: Final = {TEXT: "string", DATA: "string", NUMBER: "integer", BOOLEAN: "boolean", SIGNATURE: "object", LIST: "array"}
_ZERO: Final[dict[str, Any]] = {TEXT: "", DATA: "", NUMBER: 0, BOOLEAN: False, SIGNATURE: None}


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter or a part of a result. ``also`` are other names that clients send it under."""

    name: str
    kind: str
    text: str
    also: tuple[str, ...] = ()
    is_needed: bool = True


@dataclass(frozen=True, slots=True)
class Method:
    """A method as clients call it."""

    name: str
    text: str
    params: tuple[Field, ...]
    result: tuple[Field, ...]
    signs: str = ""
    """What the signature is over."""


@dataclass(frozen=True, slots=True)
class GivenSignature:
    """The signature object of a call, not checked yet; ``v2`` is (expiry in Unix seconds, hex) or None."""

    address: str
    pubkey: str
    signature: str
    v2: tuple[int, str] | None


_SIG: Final = Field(
    "signature", SIGNATURE, "{address, pubkey, signature} of the wallet; with a v2 object {expiry, signature} the call is bound as a whole"
)
_TIME: Final = Field("req_time", NUMBER, "the Unix seconds that were signed, within 5 minutes of now")
_SEQUENCE: Final = Field("sequencenumber", TEXT, "the sequence number that was signed, SN: and 19 digits")
_HASH: Final = Field("filehash", TEXT, "the file's hash, 40 characters")
_REQID: Final = Field("reqid", TEXT, "the download's id, as the first answer has it")
_PAGE: Final = Field("page", NUMBER, "from 0 on, 20 entries each", is_needed=False)
_WALLET: Final = Field("walletaddr", TEXT, "the wallet, st1 and 38 characters")
_FEE: Final = (
    Field("fee", TEXT, "taken and not used: the fee is what the gas costs", is_needed=False),
    Field("gas", NUMBER, "taken and not used: the gas is simulated", is_needed=False),
)
_RANGE: Final = (
    Field("offsetstart", NUMBER, "first byte that is wanted (ours; 0 by default)", is_needed=False),
    Field("offsetend", NUMBER, "the byte after the last that is wanted (ours; the file's end by default)", is_needed=False),
)
_RETURN: Final = Field("return", TEXT, "a code as text")
_DETAIL: Final = Field("detail", TEXT, "what went wrong, as a sentence", is_needed=False)
_OFFSETS: Final = (
    Field("offsetstart", NUMBER, "the first byte", is_needed=False),
    Field("offsetend", NUMBER, "the byte after the last", is_needed=False),
)
_UPLOADED: Final = (_RETURN, _DETAIL, *_OFFSETS)
_PACKET: Final = (
    _RETURN,
    _DETAIL,
    Field("reqid", TEXT, "the download's id", is_needed=False),
    *_OFFSETS,
    Field("filehash", TEXT, "the file's hash", is_needed=False),
    Field("filename", TEXT, "the file's name", is_needed=False),
    Field("filesize", NUMBER, "the file's size in bytes", is_needed=False),
    Field("filedata", DATA, "the bytes, standard base64", is_needed=False),
    Field("sequencenumber", TEXT, "what to sign next (code 4)", is_needed=False),
)
_ANSWER: Final = (_RETURN, _DETAIL)
_UPLOAD_PARAMS: Final = (
    Field("filename", TEXT, "the file's name; cut to 128 characters, its extension kept"),
    Field("filesize", NUMBER, "its size in bytes, from 0 on"),
    _HASH,
    _SIG,
    Field("desired_tier", NUMBER, "taken and not used: shares go to nodes by weight", is_needed=False),
    Field("allow_higher_tier", BOOLEAN, "taken and not used", is_needed=False),
    _TIME,
    _SEQUENCE,
    Field("resume", BOOLEAN, "go on with the upload that is under way instead of -13 (ours)", is_needed=False),
)
_UPLOAD_SIGNS: Final = "filehash + wallet + sequencenumber + req_time"
_FILE_SIGNS: Final = "filehash + wallet + req_time"
_DOWNLOAD_SIGNS: Final = "filehash + wallet + the current sequence number + req_time"
_LINK_SIGNS: Final = "current: bare link + wallet + the current sequence number + req_time; old: sharelink as passed + wallet + req_time"
_LIST_SIGNS: Final = "wallet + req_time"
_FILEINFO: Final = "[{filehash, filesize, filename, createtime}], left out when there are none"
_SHAREINFO: Final = "[{filehash, filesize, filename, linktime, linktimeexp, shareid, sharelink}], left out when there are none"
_LINK: Final = Field("sharelink", TEXT, "[sds://]link[/password]")

METHODS: Final = (
    Method(
        "user_requestGetOzone", "A wallet's ozone and its sequence number.", (_WALLET,),
        (_RETURN, _DETAIL, Field("ozone", TEXT, "noz, decimal"), Field("sequencynumber", TEXT, "the sequence number (the name is the original's)")),
    ),
    Method("user_requestUpload", "Begin an upload, or resume one.", _UPLOAD_PARAMS, _UPLOADED, _UPLOAD_SIGNS),
    Method("user_requestUploadStream", "The same for a video whose hash has codec 0x72.", _UPLOAD_PARAMS, _UPLOADED, _UPLOAD_SIGNS),
    Method(
        "user_uploadData", "The bytes that the last answer asked for.",
        (
            _HASH,
            Field("data", DATA, "the bytes, standard base64"),
            _SIG, _TIME, _SEQUENCE,
            Field("stop", BOOLEAN, "give the upload up", is_needed=False),
            Field("offsetstart", NUMBER, "where the bytes stand, so that a chunk whose answer was lost can be sent again (ours)", is_needed=False),
        ),
        _UPLOADED, _UPLOAD_SIGNS,
    ),
    Method("user_uploadSign", "The wallet's last word on an upload; without it the last user_uploadData counts.", (_HASH, _SIG, _SEQUENCE, _TIME),
           _ANSWER, _UPLOAD_SIGNS),
    Method(
        "user_getFileStatus", "Whether a file is stored.", (_HASH, _SIG, _TIME),
        (
            _RETURN,
            Field("error", TEXT, "what went wrong with the upload", is_needed=False),
            Field("file_upload_state", NUMBER, "0 not known, 1 under way, 2 failed, 3 stored"),
            Field("user_has_file", BOOLEAN, "whether the wallet has it"),
            Field("replicas", NUMBER, "how often the healthy shares would give it"),
        ),
        _FILE_SIGNS,
    ),
    Method("user_requestDownload", "Begin a download of an own file; the first packet is in the answer.",
           (Field("filehandle", TEXT, "sdm://wallet/filehash[/name]"), _SIG, _TIME, *_RANGE), _PACKET, _DOWNLOAD_SIGNS),
    Method("user_downloadData", "The next packet.",
           (_HASH, _REQID, Field("offsetstart", NUMBER, "where the packet that is wanted stands, to have one again (ours)", is_needed=False)), _PACKET),
    Method("user_downloadedFileInfo", "The end of a download.", (_HASH, _REQID, Field("filesize", NUMBER, "not used", is_needed=False)), _ANSWER),
    Method("user_requestVideoDownload", "A file as slices for a player.", (Field("filehandle", TEXT, "sdm://wallet/filehash[/name]"), _SIG, _TIME),
           (*_PACKET, Field("slices", LIST, "[{slicenumber, slicesize, offsetstart, offsetend}]", is_needed=False)), _DOWNLOAD_SIGNS),
    Method(
        "user_requestDownloadSliceData", "One whole slice of it.",
        (
            _HASH, _REQID,
            Field("slicehash", TEXT, "the slice's hash; when it is given the bytes are checked against it", is_needed=False),
            Field("slicenumber", NUMBER, "from 1 on"),
            Field("slicesize", NUMBER, "not used", is_needed=False),
            Field("networkaddress", TEXT, "not used", is_needed=False),
            Field("p2pAddress", TEXT, "not used", ("p2paddress",), is_needed=False),
            Field("req_time", NUMBER, "not used", is_needed=False),
        ),
        _PACKET,
    ),
    Method("user_requestDeleteFile", "A file into the trash, where it stays 7 days.", (_HASH, _SIG, _TIME), _ANSWER, _FILE_SIGNS),
    Method(
        "user_requestList", "Own files, newest first up to 1,000 of them.", (_SIG, _PAGE, _TIME, Field("walletaddr", TEXT, "not used", is_needed=False)),
        (_RETURN, _DETAIL, Field("fileinfo", LIST, _FILEINFO, is_needed=False), Field("totalnumber", NUMBER, "files of the wallet"),
         Field("page", NUMBER, "the page")),
        _LIST_SIGNS,
    ),
    Method(
        "user_requestShare", "A link to a public file.",
        (
            _HASH, _SIG,
            Field("duration", NUMBER, "how long it holds, in seconds; 0: 180 days", is_needed=False),
            Field("private_flag", BOOLEAN, "whether it has a password", ("bool", "privateflag"), is_needed=False),
            _TIME,
            Field("ipfs_cid", TEXT, "a CID that becomes the link, also of other wallets' shares of the same content", is_needed=False),
            Field("meta_info", TEXT, "at most 40 characters; not kept", is_needed=False),
        ),
        (_RETURN, _DETAIL, Field("shareid", TEXT, "the share's id", is_needed=False), Field("sharelink", TEXT, "its link, with the password", is_needed=False),
         Field("password", TEXT, "of a private share (ours)", is_needed=False)),
        _FILE_SIGNS,
    ),
    Method(
        "user_requestListShare", "Own shares.", (_SIG, _PAGE, _TIME, Field("walletaddr", TEXT, "not used", is_needed=False)),
        (_RETURN, _DETAIL, Field("fileinfo", LIST, _SHAREINFO, is_needed=False), Field("totalnumber", NUMBER, "shares of the wallet"),
         Field("page", NUMBER, "the page")),
        _LIST_SIGNS,
    ),
    Method("user_requestStopShare", "End a share.", (_SIG, Field("shareid", TEXT, "the share's id"), _TIME), _ANSWER, "shareid + wallet + req_time"),
    Method(
        "user_requestClearExpiredShareLinks", "What is over ends by itself; how many shares there are.", (_SIG, _TIME),
        (_RETURN, _DETAIL, Field("walletaddr", TEXT, "the wallet"), Field("deleted", NUMBER, "shares that are over"),
         Field("new_count", NUMBER, "shares that are left")),
        _LIST_SIGNS,
    ),
    Method("user_requestGetShared", "Begin a download of a shared file; the downloader pays.", (_SIG, _LINK, _TIME, *_RANGE), _PACKET, _LINK_SIGNS),
    Method("user_requestGetVideoShared", "A shared file as slices for a player.", (_SIG, _LINK, _TIME),
           (*_PACKET, Field("slices", LIST, "[{slicenumber, slicesize, offsetstart, offsetend}]", is_needed=False)), _LINK_SIGNS),
    Method("user_requestDownloadShared", "The second step of the old dialect.", (_HASH, _SIG, _REQID, _TIME), _PACKET, _UPLOAD_SIGNS),
    Method("user_requestServiceStatus", "Whether this node is registered and mining.", (_WALLET,), (_RETURN, Field("message", TEXT, "in words"))),
)  # fmt: skip

_AMOUNT: Final = "a coin, as 100gwei or 1600stos"
OWNER_METHODS: Final = (
    Method("owner_requestRegisterNewPP", "Whether the node is registered.", (Field("signature", SIGNATURE, "not used", is_needed=False),
           Field("req_time", NUMBER, "not used", is_needed=False)), (_RETURN, _DETAIL, Field("alreadypp", BOOLEAN, "whether it is registered"))),
    Method("owner_requestActivate", "Register the node with a deposit.", (_WALLET, Field("deposit", TEXT, _AMOUNT), *_FEE),
           (_RETURN, _DETAIL, Field("activationstate", NUMBER, "1 active, 2 in a transaction", is_needed=False))),
    Method("owner_requestPrepay", "Buy ozone for the node's wallet.", (Field("signature", SIGNATURE, "not used", is_needed=False),
           Field("prepayamount", TEXT, _AMOUNT), *_FEE, Field("req_time", NUMBER, "not used", is_needed=False)), _ANSWER),
    Method("owner_requestStartMining", "Begin to take shares.", (_WALLET,), _ANSWER),
    Method("owner_requestWithdraw", "Withdraw matured rewards.", (Field("amount", TEXT, _AMOUNT),
           Field("target_address", TEXT, "where to; empty: the node's wallet", is_needed=False), *_FEE), _ANSWER),
    Method("owner_requestSend", "Send coins.", (Field("amount", TEXT, _AMOUNT), Field("to", TEXT, "the receiver's wallet"), *_FEE), _ANSWER),
    Method("owner_requestStatus", "The node's state.", (_WALLET,), (_RETURN, _DETAIL, Field("message", TEXT, "in words", is_needed=False))),
    Method("owner_requestUpdatePPInfo", "Change the node's description.",
           tuple(Field(name, TEXT, "empty: as it is", is_needed=False) for name in ("moniker", "identity", "website", "security_contact", "details")) + _FEE,
           (_RETURN, _DETAIL, Field("message", TEXT, "in words", is_needed=False))),
)  # fmt: skip


class Params:
    """A call's parameters as they were checked. ``raw`` is what the client sent, for version 2."""

    def __init__(self, values: Mapping[str, Any], raw: Mapping[str, Any], given: frozenset[str]) -> None:
        self._values, self.raw, self._given = values, raw, given

    def text(self, name: str) -> str:
        return str(self._values[name])

    def number(self, name: str) -> int:
        return int(self._values[name])

    def flag(self, name: str) -> bool:
        return bool(self._values[name])

    def signature(self) -> GivenSignature | None:
        found: GivenSignature | None = self._values["signature"]
        return found

    def has(self, name: str) -> bool:
        """Whether the client sent it."""
        return name in self._given


def read_params(method: Method, params: Any) -> Params:
    """The parameters of a call. Raises RpcError for what is not an array of one object, or has a value of another type."""
    if params is None:
        params = [{}]
    if isinstance(params, dict):
        params = [params]
    if not isinstance(params, list) or len(params) != 1 or not isinstance(params[0], dict):
        raise RpcError(INVALID_PARAMS, f"params of {method.name}: expected an array of one object")
    raw: dict[str, Any] = params[0]
    values: dict[str, Any] = {}
    given = set()
    for field in method.params:
        values[field.name] = _ZERO[field.kind]
        for name in (field.name, *field.also):
            if raw.get(name) is not None:
                values[field.name] = _value(field, name, raw[name])
                given.add(field.name)
                break
    return Params(values, raw, frozenset(given))


def _value(field: Field, name: str, given: Any) -> Any:
    match field.kind:
        case "text" | "data":
            most = MAX_DATA_TEXT if field.kind == DATA else MAX_TEXT
            if isinstance(given, str) and len(given) <= most:
                return given
            raise RpcError(INVALID_PARAMS, f"invalid argument {name}: expected a text of at most {most} characters")
        case "number":
            if isinstance(given, int) and not isinstance(given, bool) and abs(given) <= MAX_NUMBER:
                return given
            raise RpcError(INVALID_PARAMS, f"invalid argument {name}: expected a whole number below 2^63")
        case "boolean":
            if isinstance(given, bool):
                return given
            raise RpcError(INVALID_PARAMS, f"invalid argument {name}: expected true or false")
        case _:
            return _signature(given)


def _signature(given: Any) -> GivenSignature:
    wrong = RpcError(
        INVALID_PARAMS, "invalid argument signature: expected {address, pubkey, signature} of texts, and v2 {expiry, signature} if it is there"
    )
    if not isinstance(given, dict):
        raise wrong
    parts = [given.get(name, "") for name in ("address", "pubkey", "signature")]
    v2 = given.get("v2")
    if any(not isinstance(one, str) or len(one) > MAX_TEXT for one in parts):
        raise wrong
    address, pubkey, signature = parts
    if v2 is None:
        return GivenSignature(address, pubkey, signature, None)
    expiry, text = (v2.get("expiry"), v2.get("signature")) if isinstance(v2, dict) else (None, None)
    if not isinstance(expiry, int) or isinstance(expiry, bool) or not isinstance(text, str) or len(text) > MAX_TEXT or abs(expiry) > MAX_NUMBER:
        raise wrong
    return GivenSignature(address, pubkey, signature, (expiry, text))


# --- rpc.discover ---


def discover(methods: tuple[Method, ...], version: str) -> dict[str, Any]:
    """The OpenRPC document of some methods."""
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "Stratos storage gateway",
            "version": version,
            "description": "JSON-RPC for clients of the original's gateway. What cannot be done is told by result.return, not by error.",
        },
        "methods": [_described(one) for one in methods],
        "components": {
            "errors": {one.name: {"code": int(one.code), "message": one.text} for one in RPC_CODES},
            "x-returns": {one.code: {"name": one.name, "text": one.text} for one in CODES},
        },
    }


def _described(method: Method) -> dict[str, Any]:
    params = {"name": "request", "required": True, "schema": _schema(method.params)}
    made = {
        "name": method.name,
        "summary": method.text,
        "paramStructure": "by-position",
        "params": [params],
        "result": {"name": "result", "schema": _schema(method.result)},
    }
    return made | {"x-signs": method.signs} if method.signs else made


def _schema(fields: tuple[Field, ...]) -> dict[str, Any]:
    properties = {one.name: {"type": _JSON[one.kind], "description": one.text} for one in fields}
    for one in fields:
        for name in one.also:
            properties[name] = {"type": _JSON[one.kind], "description": f"the same as {one.name}"}
    return {"type": "object", "properties": properties, "required": [one.name for one in fields if one.is_needed]}


# --- the documentation ---


def as_markdown(methods: tuple[Method, ...]) -> str:
    """The methods as docs/gateway.md lists them."""
    lines = []
    for one in methods:
        lines += [f"**`{one.name}`**: {one.text}" + (f" Signed: {one.signs}." if one.signs else ""), ""]
        lines += ["| | name | type | |", "|---|---|---|---|"]
        lines += [_row("in", field) for field in one.params]
        lines += [_row("out", field) for field in one.result]
        lines.append("")
    return "\n".join(lines)


def _row(direction: str, field: Field) -> str:
    names = ", ".join(f"`{name}`" for name in (field.name, *field.also))
    text = field.text.replace("|", "\\|")
    return f"| {direction} | {names} | {_JSON[field.kind]}{'' if field.is_needed else ', optional'} | {text} |"
