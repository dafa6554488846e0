"""Queries of slashing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import InvalidRequest, NotFound
from chain.module import Query
from chain.pagination import paginate
from chain.store.api import StateReader
from modules.slashing import keys
from modules.slashing.keeper import SigningInfo, SlashingKeeper

SERVICE: Final = "/cosmos.slashing.v1beta1.Query/"


def _response(name: str) -> Any:
    return message_class(f"cosmos.slashing.v1beta1.Query{name}Response")


def handlers(keeper: SlashingKeeper) -> Mapping[str, Query]:
    """The module's query handlers."""

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Params")(params=keeper.params(state))

    def signing_info(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.cons_address:
            raise InvalidRequest("invalid request: expected a consensus address, got none")
        info = keeper.signing_info(state, bech32.decode(request.cons_address, bech32.CONSENSUS))
        if info is None:
            raise NotFound(f"SigningInfo not found for validator {request.cons_address}")
        return _response("SigningInfo")(val_signing_info=info)

    def signing_infos(ctx: Context, state: StateReader, request: Any) -> Any:
        found, page = paginate(state.store(keys.STORE), keys.SIGNING_INFOS, request.pagination, lambda _, value: SigningInfo.FromString(value))
        return _response("SigningInfos")(info=found, pagination=page)

    return {SERVICE + "Params": params, SERVICE + "SigningInfo": signing_info, SERVICE + "SigningInfos": signing_infos}
