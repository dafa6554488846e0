"""The crisis module, declared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain import coins
from chain.authority import require_gov
from chain.codec.canonical import known
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidAddress, InvalidCoins
from chain.module import GenesisError, Json, MessageHandler, Module, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.crisis import errors, keys
from modules.crisis.keeper import CrisisKeeper

PACKAGE: Final = "cosmos.crisis.v1beta1"
PATH: Final = "app_state.crisis"
GenesisState: Final = message_class(f"{PACKAGE}.GenesisState")
DEFAULT_FEE: Final = coins.CoinMessage(denom="wei", amount=str(606 * 10**18))
"""The mainnet's (reference stratos-chain.md 1.7)."""


def crisis_module(keeper: CrisisKeeper) -> Module:
    """Declare crisis over its ``keeper``."""

    def verify_invariant(ctx: Context, state: StateWriter, message: Any) -> Any:
        keeper.verify(ctx, state, _sender(message), message.invariant_module_name, message.invariant_route)
        return message_class(f"{PACKAGE}.MsgVerifyInvariantResponse")()

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        _check_fee(message.constant_fee)
        keeper.set_constant_fee(state, known(message.constant_fee))
        return message_class(f"{PACKAGE}.MsgUpdateParamsResponse")()

    return Module(
        name="crisis",
        stores=(keys.STORE,),
        messages={
            f"{PACKAGE}.MsgVerifyInvariant": MessageHandler(verify_invariant, _check_verify),
            f"{PACKAGE}.MsgUpdateParams": MessageHandler(update_params),
        },
        genesis=CrisisGenesis(keeper),
        errors=errors.ERRORS,
        consensus_version=2,
    )


class CrisisGenesis:
    """The section ``crisis``: what a check costs."""

    def __init__(self, keeper: CrisisKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return to_json(GenesisState(constant_fee=DEFAULT_FEE))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        self._keeper.set_constant_fee(state, _read(section).constant_fee)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        return to_json(GenesisState(constant_fee=self._keeper.constant_fee(state)))


def _read(section: Json) -> Any:
    """GenesisState. Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
        _check_fee(genesis.constant_fee)
    except AppError as error:
        raise GenesisError(f"{PATH}.constant_fee", error.detail) from None
    return genesis


def _check_fee(fee: Any) -> None:
    """Raise InvalidCoins (sdk/10) unless ``fee`` is a coin of zero or more."""
    if not coins.is_denom(fee.denom) or coins.parse_int(fee.amount) < 0:
        raise InvalidCoins(f"invalid constant fee: expected a coin of zero or more, got {fee.amount[:80]}{fee.denom[:130]}")


def _check_verify(message: Any) -> None:
    _sender(message)


def _sender(message: Any) -> bytes:
    try:
        return bech32.decode(message.sender)
    except AppError as error:
        raise InvalidAddress(f"invalid sender address: {error.detail}") from None
