"""Queries of settlement: parameters, keys, the quorum, epochs, challenges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import InvalidRequest, NotFound
from chain.module import Query
from chain.pagination import paginate
from chain.quorum import quorum
from chain.store.api import StateReader
from modules.settlement import keys
from modules.settlement.keeper import Challenge, CommittedEpoch, MetaKeys, SettlementKeeper
from modules.settlement.params import PACKAGE

SERVICE: Final = f"/{PACKAGE}.Query/"


def handlers(keeper: SettlementKeeper) -> Mapping[str, Query]:
    """The module's query handlers."""

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Params")(params=keeper.params(state))

    def meta_keys(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.meta_keys(state, bech32.decode(request.meta_node, bech32.NODE))
        if found is None:
            raise NotFound(f"{request.meta_node} has registered no keys")
        return _response("MetaKeys")(keys=found)

    def all_meta_keys(ctx: Context, state: StateReader, request: Any) -> Any:
        found, page = paginate(state.store(keys.STORE), keys.META_KEYS, request.pagination, lambda _, raw: MetaKeys.FromString(raw))
        return _response("AllMetaKeys")(keys=found, pagination=page)

    def quorum_now(ctx: Context, state: StateReader, request: Any) -> Any:
        active = len(keeper.register.active_meta_nodes(state))
        return _response("Quorum")(active_meta_nodes=active, with_keys=len(keeper.active_keys(state)), quorum=quorum(active))

    def epoch(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.epoch(state, request.epoch)
        if found is None:
            raise NotFound(f"epoch {request.epoch} was not committed, or its rewards have matured")
        return _response("Epoch")(epoch=found)

    def epochs(ctx: Context, state: StateReader, request: Any) -> Any:
        def has_status(_: bytes, raw: bytes) -> bool:
            return not request.status or CommittedEpoch.FromString(raw).status == request.status

        if request.status not in (0, 1, 2):
            raise InvalidRequest(f"expected a status of 0 (any), 1 (committed) or 2 (void), got {request.status}")
        found, page = paginate(state.store(keys.STORE), keys.EPOCHS, request.pagination, lambda _, raw: CommittedEpoch.FromString(raw), has_status)
        return _response("Epochs")(epochs=found, pagination=page)

    def challenge(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.challenge(state, request.challenge_id)
        if found is None:
            raise NotFound(f"no challenge {request.challenge_id} is open")
        return _response("Challenge")(challenge=found)

    def challenges(ctx: Context, state: StateReader, request: Any) -> Any:
        def is_of_epoch(_: bytes, raw: bytes) -> bool:
            return not request.epoch or Challenge.FromString(raw).epoch == request.epoch

        found, page = paginate(state.store(keys.STORE), keys.CHALLENGES, request.pagination, lambda _, raw: Challenge.FromString(raw), is_of_epoch)
        return _response("Challenges")(challenges=found, pagination=page)

    return {
        SERVICE + "Params": params,
        SERVICE + "MetaKeys": meta_keys,
        SERVICE + "AllMetaKeys": all_meta_keys,
        SERVICE + "Quorum": quorum_now,
        SERVICE + "Epoch": epoch,
        SERVICE + "Epochs": epochs,
        SERVICE + "Challenge": challenge,
        SERVICE + "Challenges": challenges,
    }


def _response(name: str) -> Any:
    return message_class(f"{PACKAGE}.Query{name}Response")
