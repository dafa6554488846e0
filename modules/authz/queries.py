"""Queries of authz: what was granted to whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.module import Query
from chain.pagination import paginate
from chain.store.api import StateReader
from modules.authz import keys
from modules.authz.errors import NoAuthorization
from modules.authz.keeper import PACKAGE, AuthzKeeper, Grant

SERVICE: Final = f"/{PACKAGE}.Query/"
GrantAuthorization: Final = message_class(f"{PACKAGE}.GrantAuthorization")


def _response(name: str) -> Any:
    return message_class(f"{PACKAGE}.Query{name}Response")


def handlers(keeper: AuthzKeeper) -> Mapping[str, Query]:
    """The module's query handlers."""

    def grants(ctx: Context, state: StateReader, request: Any) -> Any:
        granter, grantee = bech32.decode(request.granter), bech32.decode(request.grantee)
        if request.msg_type_url:
            grant = keeper.grant(state, granter, grantee, request.msg_type_url)
            if grant is None:
                raise NoAuthorization(f"authorization not found for {request.msg_type_url[:200]} type")
            return _response("Grants")(grants=[grant])
        prefix = keys.grants_of(granter, grantee)
        found, page = paginate(state.store(keys.STORE), prefix, request.pagination, lambda _, raw: Grant.FromString(raw))
        return _response("Grants")(grants=found, pagination=page)

    def granter_grants(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.grants_by(bech32.decode(request.granter))
        found, page = paginate(
            state.store(keys.STORE), prefix, request.pagination, lambda rest, raw: entry(*keys.split_grant(prefix + rest)[:2], raw)
        )
        return _response("GranterGrants")(grants=found, pagination=page)

    def grantee_grants(ctx: Context, state: StateReader, request: Any) -> Any:
        grantee = bech32.decode(request.grantee)

        def parties(rest: bytes) -> tuple[bytes, bytes]:
            return keys.split_grant(keys.GRANTS + rest)[:2]

        found, page = paginate(
            state.store(keys.STORE),
            keys.GRANTS,
            request.pagination,
            lambda rest, raw: entry(*parties(rest), raw),
            lambda rest, _: parties(rest)[1] == grantee,
        )
        return _response("GranteeGrants")(grants=found, pagination=page)

    def entry(granter: bytes, grantee: bytes, raw: bytes) -> Any:
        return entry_of(granter, grantee, Grant.FromString(raw))

    return {SERVICE + "Grants": grants, SERVICE + "GranterGrants": granter_grants, SERVICE + "GranteeGrants": grantee_grants}


def entry_of(granter: bytes, grantee: bytes, grant: Any) -> Any:
    """GrantAuthorization: a Grant with its two addresses."""
    expiration = grant.expiration if grant.HasField("expiration") else None
    return GrantAuthorization(
        granter=bech32.encode(granter), grantee=bech32.encode(grantee), authorization=grant.authorization, expiration=expiration
    )
