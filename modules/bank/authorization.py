"""SendAuthorization: to send another's coins, up to a limit, to anybody or to the addresses of a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain import coins
from chain.authorization import Accepted, AuthorizationKind
from chain.codec.registry import message_class
from chain.coins import Coin, Coins
from chain.context import Context
from chain.errors import InsufficientFunds, InvalidCoins, Unauthorized
from modules.bank.errors import DuplicateEntry

SendAuthorization: Final = message_class("cosmos.bank.v1beta1.SendAuthorization")
TYPE_URL: Final = "/cosmos.bank.v1beta1.MsgSend"
GAS_PER_ADDRESS: Final = 10


def check(authorization: Any) -> None:
    """Raise InvalidCoins (sdk/10) unless there is a limit of positive amounts, DuplicateEntry (bank/8) for an address listed twice."""
    if not authorization.spend_limit:
        raise InvalidCoins("spend limit cannot be nil")
    if any(amount <= 0 for _, amount in _coins(authorization.spend_limit)):
        raise InvalidCoins("spend limit must be positive")
    if len(set(authorization.allow_list)) != len(authorization.allow_list):
        raise DuplicateEntry


def accept(ctx: Context, authorization: Any, message: Any) -> Accepted:
    """Take a MsgSend's amount from the limit. Raises InsufficientFunds (sdk/5), Unauthorized (sdk/4)."""
    left = coins.subtract_checked(_coins(authorization.spend_limit), _coins(message.amount))
    if left is None:
        raise InsufficientFunds("requested amount is more than spend limit")
    allowed = authorization.allow_list
    for address in allowed:
        ctx.gas.consume(GAS_PER_ADDRESS, "send authorization")
        if address == message.to_address:
            break
    else:
        if allowed:
            raise Unauthorized(f"cannot send to {message.to_address} address")
    if not left:
        return Accepted(used_up=True)
    return Accepted(updated=SendAuthorization(spend_limit=coins.to_messages(left), allow_list=allowed))


def _coins(messages: Any) -> Coins:
    """As they come, for whoever checks them. Raises TxDecodeError, InvalidCoins for a text that is no Int."""
    return tuple(Coin(coin.denom, coins.parse_wire_int(coin.amount)) for coin in messages)


KINDS: Final[Mapping[str, AuthorizationKind]] = {
    SendAuthorization.DESCRIPTOR.full_name: AuthorizationKind(lambda _: TYPE_URL, check, accept),
}
