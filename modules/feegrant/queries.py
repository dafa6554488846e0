"""Queries of feegrant: whose fees are paid by whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.module import Query
from chain.pagination import paginate
from chain.store.api import StateReader
from modules.feegrant import allowances, keys
from modules.feegrant.allowances import PACKAGE
from modules.feegrant.keeper import FeegrantKeeper, Grant

SERVICE: Final = f"/{PACKAGE}.Query/"


def handlers(keeper: FeegrantKeeper) -> Mapping[str, Query]:
    """The module's query handlers."""

    def allowance(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.allowance(state, bech32.decode(request.granter), bech32.decode(request.grantee))
        grant = Grant(granter=request.granter, grantee=request.grantee, allowance=allowances.pack(found))
        return message_class(f"{PACKAGE}.QueryAllowanceResponse")(allowance=grant)

    def allowances_to(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.allowances_to(bech32.decode(request.grantee))
        found, page = paginate(state.store(keys.STORE), prefix, request.pagination, _read)
        return message_class(f"{PACKAGE}.QueryAllowancesResponse")(allowances=found, pagination=page)

    def allowances_by(ctx: Context, state: StateReader, request: Any) -> Any:
        granter = bech32.decode(request.granter)

        def is_his(rest: bytes, _: bytes) -> bool:
            return keys.granter_of(keys.ALLOWANCES + rest) == granter

        found, page = paginate(state.store(keys.STORE), keys.ALLOWANCES, request.pagination, _read, is_his)
        return message_class(f"{PACKAGE}.QueryAllowancesByGranterResponse")(allowances=found, pagination=page)

    return {SERVICE + "Allowance": allowance, SERVICE + "Allowances": allowances_to, SERVICE + "AllowancesByGranter": allowances_by}


def _read(_: bytes, raw: bytes) -> Any:
    return Grant.FromString(raw)
