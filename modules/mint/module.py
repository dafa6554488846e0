"""The mint module, declared."""

from __future__ import annotations

from typing import Any, Final

from chain.authority import require_gov
from chain.codec.canonical import known
from chain.codec.registry import message_class
from chain.context import Context
from chain.module import MessageHandler, Module
from chain.store.api import StateReader, StateWriter
from modules.mint import keys
from modules.mint.genesis import Accounts, MintGenesis
from modules.mint.keeper import NAME, MintKeeper
from modules.mint.params import check_params

PACKAGE: Final = "cosmos.mint.v1beta1"


def mint_module(keeper: MintKeeper, accounts: Accounts) -> Module:
    """Declare mint over its ``keeper`` and what it knows of ``accounts``."""

    def response(name: str) -> Any:
        return message_class(f"{PACKAGE}.{name}Response")

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        check_params(message.params)
        keeper.set_params(state, known(message.params))
        return response("MsgUpdateParams")()

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return response("QueryParams")(params=keeper.params(state))

    def inflation(ctx: Context, state: StateReader, request: Any) -> Any:
        return response("QueryInflation")(inflation=keeper.minter(state).inflation.encode())

    def annual_provisions(ctx: Context, state: StateReader, request: Any) -> Any:
        return response("QueryAnnualProvisions")(annual_provisions=keeper.minter(state).annual_provisions.encode())

    return Module(
        name=NAME,
        stores=(keys.STORE,),
        messages={f"{PACKAGE}.MsgUpdateParams": MessageHandler(update_params)},
        queries={
            f"/{PACKAGE}.Query/Params": params,
            f"/{PACKAGE}.Query/Inflation": inflation,
            f"/{PACKAGE}.Query/AnnualProvisions": annual_provisions,
        },
        genesis=MintGenesis(keeper, accounts),
        begin_block=keeper.mint_block,
        consensus_version=2,
    )
