"""Messages of distribution: SetWithdrawAddress, WithdrawDelegatorReward, WithdrawValidatorCommission, FundCommunityPool, CommunityPoolSpend,
DepositValidatorRewardsPool, UpdateParams."""

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
from chain.errors import AppError, InvalidAddress, InvalidCoins, Unauthorized
from chain.module import MessageHandler
from chain.store.api import StateWriter
from modules.distribution import params
from modules.distribution.expected import Bank
from modules.distribution.keeper import DistributionKeeper

PACKAGE: Final = "cosmos.distribution.v1beta1"


def handlers(keeper: DistributionKeeper, bank: Bank) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""

    def response(name: str) -> Any:
        return message_class(f"{PACKAGE}.Msg{name}Response")

    def set_withdraw_address(ctx: Context, state: StateWriter, message: Any) -> Any:
        delegator, address = _address(message.delegator_address, "delegator"), _address(message.withdraw_address, "withdraw")
        keeper.change_withdraw_address(ctx, state, delegator, address)
        return response("SetWithdrawAddress")()

    def withdraw_rewards(ctx: Context, state: StateWriter, message: Any) -> Any:
        operator, delegator = _operator(message), _address(message.delegator_address, "delegator")
        paid = keeper.withdraw_rewards(ctx, state, delegator, operator)
        return response("WithdrawDelegatorReward")(amount=coins.to_messages(paid))

    def withdraw_commission(ctx: Context, state: StateWriter, message: Any) -> Any:
        paid = keeper.withdraw_commission(ctx, state, _operator(message))
        return response("WithdrawValidatorCommission")(amount=coins.to_messages(paid))

    def fund_community_pool(ctx: Context, state: StateWriter, message: Any) -> Any:
        depositor = _address(message.depositor, "depositor")
        keeper.fund_community_pool(ctx, state, _amount(message.amount), depositor)
        return response("FundCommunityPool")()

    def spend_community_pool(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        amount, recipient = _amount(message.amount), _address(message.recipient, "recipient")
        if bank.is_blocked(recipient):
            raise Unauthorized(f"{message.recipient} is not allowed to receive external funds")
        keeper.spend_pool(ctx, state, amount, recipient)
        return response("CommunityPoolSpend")()

    def deposit_rewards(ctx: Context, state: StateWriter, message: Any) -> Any:
        depositor, operator = _address(message.depositor, "depositor"), _operator(message)
        keeper.deposit_rewards(ctx, state, coins.from_messages(message.amount), depositor, operator)
        return response("DepositValidatorRewardsPool")()

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        params.check_update(message.params)
        keeper.set_params(state, known(message.params))
        return response("UpdateParams")()

    return {
        f"{PACKAGE}.MsgSetWithdrawAddress": MessageHandler(set_withdraw_address),
        f"{PACKAGE}.MsgWithdrawDelegatorReward": MessageHandler(withdraw_rewards),
        f"{PACKAGE}.MsgWithdrawValidatorCommission": MessageHandler(withdraw_commission),
        f"{PACKAGE}.MsgFundCommunityPool": MessageHandler(fund_community_pool),
        f"{PACKAGE}.MsgCommunityPoolSpend": MessageHandler(spend_community_pool),
        f"{PACKAGE}.MsgDepositValidatorRewardsPool": MessageHandler(deposit_rewards),
        f"{PACKAGE}.MsgUpdateParams": MessageHandler(update_params),
    }


def _address(text: str, what: str, prefix: str = bech32.ACCOUNT) -> bytes:
    try:
        return bech32.decode(text, prefix)
    except AppError as error:
        raise InvalidAddress(f"invalid {what} address: {error.detail}") from None


def _operator(message: Any) -> bytes:
    return _address(message.validator_address, "validator", bech32.VALIDATOR)


def _amount(messages: Any) -> Coins:
    if not messages:
        raise InvalidCoins("amount cannot be nil")
    return coins.from_messages(messages)
