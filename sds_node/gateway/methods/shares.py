"""Shares: ``requestShare``, ``requestListShare``, ``requestStopShare``, ``requestClearExpiredShareLinks`` (reference sds.md 5.3 and 6.8)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from sds_node.gateway.backend import NewShare
from sds_node.gateway.dialects import file_hash
from sds_node.gateway.methods.files import page
from sds_node.gateway.results import SUCCESS, WRONG_INPUT, Failed, result
from sds_node.gateway.table import Params
from sds_node.handles import LINK_ENTROPY_BYTES, HandleError, LinkKind, new_share_link, parse_share_id, parse_share_link
from sds_node.hashes import MAX_META_INFO_CHARACTERS
from sds_node.requests import Action

if TYPE_CHECKING:
    from sds_node.gateway.gateway import Gateway, Work

DAY_S: Final = 86_400
MAX_DURATION_S: Final = 100 * 365 * DAY_S
_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"
RANDOM_CHARACTERS: Final = 8
"""The original's have 4 characters, which a determined guesser has soon."""
UPLOAD_WAIT_S: Final = 60.0
"""How long a share waits for its file to be stored."""
MAX_PAGES: Final = 500
_NO_SUCH_PAGE: Final = 20


async def make(gateway: Gateway, params: Params) -> dict[str, Any]:
    subject, duration_s, cid = file_hash(params), params.number("duration"), params.text("ipfs_cid")
    if len(params.text("meta_info")) > MAX_META_INFO_CHARACTERS:
        raise Failed(WRONG_INPUT, f"invalid meta info: expected at most {MAX_META_INFO_CHARACTERS} characters")
    if not 0 <= duration_s <= MAX_DURATION_S:
        raise Failed(WRONG_INPUT, f"duration: expected 0 to {MAX_DURATION_S} s, got {duration_s}")
    link = cid or new_share_link(secrets.token_bytes(LINK_ENTROPY_BYTES))
    try:
        parsed = parse_share_link(link)
    except HandleError as error:
        raise Failed(WRONG_INPUT, f"ipfs_cid: {error}") from None
    if cid and (parsed.kind is not LinkKind.CID or parsed.link != cid):
        raise Failed(WRONG_INPUT, f"ipfs_cid: expected an IPFS CID, got {cid[:80]!a}")
    ask, accepted = await gateway.asked(params, "user_requestShare", Action.CREATE_SHARE, subject)

    async def work() -> dict[str, Any]:
        # sdubo shares at once what it has just sent, and looks at no status.
        upload = gateway.uploads.get(ask.wallet, subject)
        if upload is not None and upload.is_full:
            await gateway.uploads.settle(upload, UPLOAD_WAIT_S)
        password = "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS)) if params.flag("private_flag") else ""
        ends_s = gateway.now_s + (duration_s or gateway.settings.share_days * DAY_S)
        share_id = await gateway.backend.share(ask, NewShare(parsed.share_id, parsed.link, password, ends_s))
        shown = f"{parsed.link}/{password}" if password else parsed.link
        return result(SUCCESS, shareid=share_id, sharelink=shown, password=password or None)

    return await gateway.once(ask, accepted.text, work)


async def listed(gateway: Gateway, params: Params) -> dict[str, Any]:
    number = page(params)
    ask, _ = await gateway.asked(params, "user_requestListShare", Action.LIST_SHARES, "")
    if not await gateway.is_known(ask.wallet):
        return result(SUCCESS, totalnumber=0, page=number)
    shares, total = await gateway.backend.shares(ask, number)
    told = [
        {
            "filehash": one.file.file_hash,
            "filesize": one.file.size_bytes,
            "filename": one.file.name,
            "linktime": one.made_s,
            "linktimeexp": one.ends_s,
            "shareid": one.share_id,
            "sharelink": one.link,
        }
        for one in shares
    ]
    return result(SUCCESS, fileinfo=told or None, totalnumber=total, page=number)


async def stop(gateway: Gateway, params: Params) -> dict[str, Any]:
    subject = params.text("shareid")
    try:
        parse_share_id(subject)
    except HandleError as error:
        raise Failed(WRONG_INPUT, f"shareid: {error}") from None
    ask, accepted = await gateway.asked(params, "user_requestStopShare", Action.STOP_SHARE, subject)

    async def work() -> dict[str, Any]:
        await gateway.backend.stop_share(ask)
        return result(SUCCESS)

    return await gateway.once(ask, accepted.text, work)


async def clear(gateway: Gateway, params: Params) -> dict[str, Any]:
    """Shares end by themselves when their time is over, so there is nothing to do but to count."""
    ask, _ = await gateway.asked(params, "user_requestClearExpiredShareLinks", Action.CLEAR_SHARES, "")
    if not await gateway.is_known(ask.wallet):
        return result(SUCCESS, walletaddr=ask.wallet, deleted=0, new_count=0)
    over = 0
    for number in range(MAX_PAGES):
        shares, total = await gateway.backend.shares(ask, number)
        over += sum(1 for one in shares if one.ends_s and one.ends_s <= gateway.now_s)
        if (number + 1) * _NO_SUCH_PAGE >= total:
            break
    return result(SUCCESS, walletaddr=ask.wallet, deleted=over, new_count=total - over)


WORK: Final[dict[str, Work]] = {
    "user_requestShare": make,
    "user_requestListShare": listed,
    "user_requestStopShare": stop,
    "user_requestClearExpiredShareLinks": clear,
}
