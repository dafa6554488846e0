"""The auth module, declared."""

from __future__ import annotations

from typing import Any

from chain.authority import require_gov
from chain.codec.canonical import known
from chain.codec.registry import message_class
from chain.context import Context
from chain.module import MessageHandler, Module
from chain.store.api import StateWriter
from modules.auth import keys, queries
from modules.auth.genesis import AuthGenesis
from modules.auth.keeper import AuthKeeper
from modules.auth.params import check_params


def auth_module(keeper: AuthKeeper) -> Module:
    """Declare auth over its ``keeper``."""
    response = message_class("cosmos.auth.v1beta1.MsgUpdateParamsResponse")

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        check_params(message.params)
        keeper.set_params(state, known(message.params))
        return response()

    return Module(
        name="auth",
        stores=(keys.STORE,),
        messages={"cosmos.auth.v1beta1.MsgUpdateParams": MessageHandler(update_params)},
        queries=queries.handlers(keeper),
        genesis=AuthGenesis(keeper),
        account_permissions={"fee_collector": ()},
        consensus_version=5,
    )
