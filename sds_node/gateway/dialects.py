"""What differs between clients of the original, and what is made of it (reference sds.md 5.6).

signature object, req_time ─► signer (key and wallet fit, version 2 if it is there) ─► accepted ─► Ask
names, links, flags as clients send them ─► as they are kept
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sds_node.gateway.backend import Ask
from sds_node.gateway.results import SIGNATURE_FAILURE, WRONG_INPUT, WRONG_WALLET_ADDRESS, Failed
from sds_node.gateway.table import Params
from sds_node.handles import HandleError, ShareLink, parse_share_link, parse_wallet
from sds_node.hashes import HashError, parse_hash
from sds_node.requests import (
    Accepted,
    Action,
    Dialect,
    RequestError,
    UsedStrings,
    WalletSignature,
    WrongRequest,
    accept,
    accept_get_shared,
    check_v2,
    parse_signature,
)

TOLERANCE_S: Final = 1
"""sdubo looks at its clock once for req_time and once more for what it signs."""
MAX_NAME_CHARACTERS: Final = 128
MAX_NAME_BYTES: Final = 1_024
MAX_EXTENSION: Final = 20
_NO_NAME: Final = "unnamed"


def signer(params: Params, method: str, chain_id: str, now_s: int) -> WalletSignature:
    """Who signed a call: the key is the wallet's, and the call is the one that was signed where version 2 is there. Nothing is noted, since nothing is known
    of the wallet yet. Raises Failed."""
    given = params.signature()
    if given is None:
        raise Failed(WRONG_INPUT, "signature is missing: expected {address, pubkey, signature} of the wallet")
    try:
        found = parse_signature(given.address, given.pubkey, given.signature)
    except WrongRequest as error:
        raise Failed(WRONG_WALLET_ADDRESS, f"wrong wallet address: {error}") from None
    except RequestError as error:
        what = "pubkey" if "public key" in str(error) else "signature"
        raise Failed(SIGNATURE_FAILURE, f"wrong wallet {what}: {error}") from None
    if given.v2 is not None:
        expiry_s, text = given.v2
        try:
            v2 = parse_signature(given.address, given.pubkey, text)
            check_v2(chain_id, method, {name: value for name, value in params.raw.items() if value is not None}, expiry_s, v2, now_s)
        except RequestError as error:
            raise Failed(SIGNATURE_FAILURE, f"wrong wallet signature, version 2: {error}") from None
    return found


def asked(
    params: Params, action: Action, subject: str, sequences: Sequence[str], signature: WalletSignature, used: UsedStrings, now_s: int
) -> tuple[Ask, Accepted]:
    """The string of a call. Raises Failed."""
    try:
        found = accept(used, action, subject, sequences, params.number("req_time"), signature, now_s, TOLERANCE_S)
    except WrongRequest as error:
        raise Failed(WRONG_INPUT, str(error)) from None
    except RequestError as error:
        raise Failed(SIGNATURE_FAILURE, f"wrong wallet signature: {error}") from None
    return Ask(action, subject, found.sequence, found.timestamp_s, signature), found


def asked_shared(
    params: Params, sequences: Sequence[str], signature: WalletSignature, used: UsedStrings, now_s: int
) -> tuple[Ask, Accepted, ShareLink]:
    """The string of a call for a shared file; its action says the dialect. Raises Failed."""
    shown = params.text("sharelink")
    link = share_link(shown)
    try:
        dialect, found = accept_get_shared(used, shown, sequences, params.number("req_time"), signature, now_s, TOLERANCE_S)
    except WrongRequest as error:
        raise Failed(WRONG_INPUT, str(error)) from None
    except RequestError as error:
        raise Failed(SIGNATURE_FAILURE, f"wrong wallet signature: {error}") from None
    if dialect is Dialect.OLD:
        return Ask(Action.GET_SHARED_OLD, shown, "", found.timestamp_s, signature), found, link
    return Ask(Action.DOWNLOAD_SHARED, link.link, found.sequence, found.timestamp_s, signature), found, link


def share_link(text: str) -> ShareLink:
    """A link with or without prefix and password. Raises Failed."""
    try:
        return parse_share_link(text)
    except HandleError as error:
        raise Failed(WRONG_INPUT, f"sharelink: {error}") from None


def file_hash(params: Params) -> str:
    """The hash of the file that a call is about. Raises Failed."""
    text = params.text("filehash")
    try:
        parse_hash(text)
    except HashError as error:
        raise Failed(WRONG_INPUT, f"filehash: {error}") from None
    return text


def wallet(params: Params) -> str:
    """The wallet that a call names. Raises Failed."""
    text = params.text("walletaddr")
    try:
        parse_wallet(text)
    except HandleError as error:
        raise Failed(WRONG_WALLET_ADDRESS, f"walletaddr: {error}") from None
    return text


def file_name(text: str) -> str:
    """A file's name as it is kept: 128 characters, of which the extension stays. Raises Failed."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Failed(WRONG_INPUT, "filename: expected Unicode text, got half of a surrogate pair") from None
    if any(ord(one) < 32 or ord(one) == 127 for one in text):
        raise Failed(WRONG_INPUT, "filename: expected a name without control characters")
    stem, dot, extension = text.rpartition(".")
    if len(text) > MAX_NAME_CHARACTERS:
        kept = f".{extension}" if dot and stem and len(extension) <= MAX_EXTENSION else ""
        text = text[: MAX_NAME_CHARACTERS - len(kept)] + kept
    # 128 characters have at most 512 bytes.
    return text or _NO_NAME
