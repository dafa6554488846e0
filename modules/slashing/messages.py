"""Messages of slashing: Unjail, UpdateParams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.authority import require_gov
from chain.codec.canonical import known
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidAddress
from chain.module import MessageHandler
from chain.store.api import StateWriter
from modules.slashing.keeper import SlashingKeeper
from modules.slashing.params import check_decimals, check_params

PACKAGE: Final = "cosmos.slashing.v1beta1"


def handlers(keeper: SlashingKeeper) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""
    unjail_response, params_response = (message_class(f"{PACKAGE}.{name}Response") for name in ("MsgUnjail", "MsgUpdateParams"))

    def unjail(ctx: Context, state: StateWriter, message: Any) -> Any:
        try:
            operator = bech32.decode(message.validator_addr, bech32.VALIDATOR)
        except AppError as error:
            raise InvalidAddress(f"validator input address: {error.detail}") from None
        keeper.unjail(ctx, state, operator)
        return unjail_response()

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        check_params(message.params)
        keeper.set_params(state, known(message.params))
        return params_response()

    return {
        f"{PACKAGE}.MsgUnjail": MessageHandler(unjail),
        f"{PACKAGE}.MsgUpdateParams": MessageHandler(update_params, lambda message: check_decimals(message.params)),
    }
