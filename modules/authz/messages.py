"""Messages of authz: Grant, Exec, Revoke."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import message_class, unpack_any
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidAddress, InvalidRequest, InvalidType
from chain.module import MessageHandler
from chain.store.api import StateWriter
from modules.authz.errors import GranteeIsGranter
from modules.authz.keeper import PACKAGE, AuthzKeeper

MAX_MESSAGES: Final = 1000
"""Of one MsgExec: as many as a transaction has."""


def handlers(keeper: AuthzKeeper) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""
    responses = {name: message_class(f"{PACKAGE}.{name}Response") for name in ("MsgGrant", "MsgExec", "MsgRevoke")}

    def grant(ctx: Context, state: StateWriter, message: Any) -> Any:
        granter, grantee = _parties(message)
        if not message.grant.HasField("authorization"):
            raise InvalidType("authorization is nil")
        authorization = unpack_any(message.grant.authorization)
        kind = keeper.kind_of(authorization)
        kind.check(authorization)
        keeper.open_account(ctx, state, grantee)
        keeper.require_message(kind.type_url(authorization))
        expiration = message.grant.expiration if message.grant.HasField("expiration") else None
        keeper.save(ctx, state, granter, grantee, authorization, expiration)
        return responses["MsgGrant"]()

    def execute(ctx: Context, state: StateWriter, message: Any) -> Any:
        grantee, messages = _parts(message)
        return responses["MsgExec"](results=keeper.dispatch(ctx, state, grantee, messages))

    def revoke(ctx: Context, state: StateWriter, message: Any) -> Any:
        granter, grantee = _parties(message)
        if not message.msg_type_url:
            raise InvalidRequest("missing msg method name")
        keeper.delete(ctx, state, granter, grantee, message.msg_type_url)
        return responses["MsgRevoke"]()

    return {
        f"{PACKAGE}.MsgGrant": MessageHandler(grant),
        f"{PACKAGE}.MsgExec": MessageHandler(execute),
        f"{PACKAGE}.MsgRevoke": MessageHandler(revoke),
    }


def _parties(message: Any) -> tuple[bytes, bytes]:
    """(granter, grantee). Raises GranteeIsGranter (authz/7), InvalidAddress (sdk/7)."""
    if message.granter.encode().lower() == message.grantee.encode().lower():
        raise GranteeIsGranter
    grantee, granter = _address(message.grantee, "grantee"), _address(message.granter, "granter")
    return granter, grantee


def _parts(message: Any) -> tuple[bytes, list[Any]]:
    """(grantee, messages). Raises InvalidAddress, InvalidRequest, UnpackAnyError."""
    grantee = _address(message.grantee, "grantee")
    if not 0 < len(message.msgs) <= MAX_MESSAGES:
        raise InvalidRequest(f"messages cannot be empty: expected 1 to {MAX_MESSAGES}, got {len(message.msgs)}")
    return grantee, [unpack_any(wrapped) for wrapped in message.msgs]


def _address(text: str, what: str) -> bytes:
    try:
        return bech32.decode(text)
    except AppError as error:
        raise InvalidAddress(f"invalid {what} address: {error.detail}") from None
