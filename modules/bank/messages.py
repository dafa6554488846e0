"""Messages of the bank: Send, MultiSend, Burn, SetSendEnabled, UpdateParams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain import coins
from chain.authority import require_gov
from chain.codec.canonical import known
from chain.codec.registry import message_class
from chain.coins import Coins
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidAddress, InvalidCoins, InvalidRequest, Unauthorized, UndefinedError
from chain.module import MessageHandler
from chain.store.api import StateWriter
from modules.bank.errors import InputOutputMismatch, MultipleSenders, NoInputs, NoOutputs
from modules.bank.keeper import BankMint

PACKAGE: Final = "cosmos.bank.v1beta1"
MAX_OUTPUTS: Final = 10_000
MAX_SEND_ENABLED: Final = 1000


def _response(name: str) -> Any:
    return message_class(f"{PACKAGE}.{name}Response")


def _address(text: str, what: str) -> bytes:
    try:
        return bech32.decode(text)
    except AppError as error:
        raise InvalidAddress(f"invalid {what} address: {error.detail}") from None


def handlers(keeper: BankMint) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""
    send_response, multi_response = _response("MsgSend"), _response("MsgMultiSend")
    burn_response, enabled_response, params_response = _response("MsgBurn"), _response("MsgSetSendEnabled"), _response("MsgUpdateParams")

    def send(ctx: Context, state: StateWriter, message: Any) -> Any:
        sender, recipient = _address(message.from_address, "from"), _address(message.to_address, "to")
        amount = _amount(message.amount)
        keeper.require_send_enabled(state, amount)
        if keeper.is_blocked(recipient):
            raise Unauthorized(f"{message.to_address} is not allowed to receive funds")
        keeper.send(ctx, state, sender, recipient, amount)
        return send_response()

    def multi_send(ctx: Context, state: StateWriter, message: Any) -> Any:
        sender, amount, outputs = _parts_of(message)
        keeper.require_send_enabled(state, amount)
        for recipient, _ in outputs:
            if keeper.is_blocked(recipient):
                raise Unauthorized(f"{bech32.encode(recipient)} is not allowed to receive funds")
        keeper.send_one_to_many(ctx, state, sender, amount, outputs)
        return multi_response()

    def burn(ctx: Context, state: StateWriter, message: Any) -> Any:
        keeper.burn_from(ctx, state, _address(message.from_address, "from"), _amount(message.amount))
        return burn_response()

    def set_send_enabled(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        _check_send_enabled(message)
        for entry in message.send_enabled:
            keeper.set_send_enabled(state, entry.denom, entry.enabled)
        for denom in message.use_default_for:
            keeper.set_send_enabled(state, denom, None)
        return enabled_response()

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        if message.params.send_enabled:
            raise UndefinedError("use of send_enabled in params is no longer supported: use MsgSetSendEnabled")
        keeper.set_params(state, known(message.params))
        return params_response()

    return {
        f"{PACKAGE}.MsgSend": MessageHandler(send, _check_send),
        f"{PACKAGE}.MsgMultiSend": MessageHandler(multi_send, _check_multi_send),
        f"{PACKAGE}.MsgBurn": MessageHandler(burn, _check_burn),
        f"{PACKAGE}.MsgSetSendEnabled": MessageHandler(set_send_enabled),
        f"{PACKAGE}.MsgUpdateParams": MessageHandler(update_params),
    }


def _amount(messages: Any) -> Coins:
    amount = coins.from_messages(messages)
    if not amount:
        raise InvalidCoins("expected at least one coin, got none")
    return amount


def _check_send(message: Any) -> None:
    _address(message.from_address, "from")
    _address(message.to_address, "to")
    _amount(message.amount)


def _check_burn(message: Any) -> None:
    _address(message.from_address, "from")
    _amount(message.amount)


def _check_multi_send(message: Any) -> None:
    _parts_of(message)


def _parts_of(message: Any) -> tuple[bytes, Coins, list[tuple[bytes, Coins]]]:
    """(sender, coins, outputs) of a MultiSend that adds up."""
    if not message.inputs:
        raise NoInputs
    if len(message.inputs) != 1:
        raise MultipleSenders
    if not message.outputs:
        raise NoOutputs
    if len(message.outputs) > MAX_OUTPUTS:
        raise InvalidRequest(f"a MultiSend has at most {MAX_OUTPUTS} outputs, got {len(message.outputs)}")
    amount = _amount(message.inputs[0].coins)
    outputs = [(_address(output.address, "output"), _amount(output.coins)) for output in message.outputs]
    if coins.normalise(coin for _, part in outputs for coin in part) != amount:
        raise InputOutputMismatch
    return _address(message.inputs[0].address, "input"), amount, outputs


def _check_send_enabled(message: Any) -> None:
    if len(message.send_enabled) + len(message.use_default_for) > MAX_SEND_ENABLED:
        raise InvalidRequest(f"at most {MAX_SEND_ENABLED} denoms can be set at once")
    seen: set[str] = set()
    for entry in message.send_enabled:
        if entry.denom in seen:
            raise InvalidRequest(f"duplicate denom entries found for {entry.denom[:130]!r}")
        seen.add(entry.denom)
    for denom in [*(entry.denom for entry in message.send_enabled), *message.use_default_for]:
        if not coins.is_denom(denom):
            raise InvalidRequest(f"invalid denom {denom[:60]!r}: expected a letter, then 2 to 127 of letters, digits and / : . _ -")
