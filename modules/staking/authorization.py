"""StakeAuthorization: to delegate, undelegate, redelegate another's stake, or cancel its unbonding, with validators allowed or denied and a limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain import coins
from chain.authorization import Accepted, AuthorizationKind, NegativeMaxTokens, UnknownAuthorizationType
from chain.codec.registry import message_class
from chain.context import Context
from chain.errors import InvalidRequest, PanicError, Unauthorized, UndefinedError

StakeAuthorization: Final = message_class("cosmos.staking.v1beta1.StakeAuthorization")
TYPE_URLS: Final = {
    1: "/cosmos.staking.v1beta1.MsgDelegate",
    2: "/cosmos.staking.v1beta1.MsgUndelegate",
    3: "/cosmos.staking.v1beta1.MsgBeginRedelegate",
    4: "/cosmos.staking.v1beta1.MsgCancelUnbondingDelegation",
}
"""Type URL of messages by ``AuthorizationType``."""
GAS_PER_VALIDATOR: Final = 10


def type_url(authorization: Any) -> str:
    """Raises PanicError (undefined/111222), as the SDK panics, for a number that is no ``AuthorizationType``."""
    found = TYPE_URLS.get(authorization.authorization_type)
    if found is None:
        raise PanicError(f"cannot normalize authz type {authorization.authorization_type}: unknown authorization type")
    return found


def check(authorization: Any) -> None:
    """Raise NegativeMaxTokens (authz/12), UnknownAuthorizationType (authz/4)."""
    if authorization.HasField("max_tokens") and coins.parse_wire_int(authorization.max_tokens.amount) < 0:
        raise NegativeMaxTokens(f"negative coin amount: {authorization.max_tokens.amount}{authorization.max_tokens.denom}")
    if not authorization.authorization_type:
        raise UnknownAuthorizationType


def accept(ctx: Context, authorization: Any, message: Any) -> Accepted:
    """Take a message's amount from the limit, if there is one. Raises Unauthorized (sdk/4), InvalidRequest (sdk/18), UndefinedError."""
    if "/" + message.DESCRIPTOR.full_name not in TYPE_URLS.values():
        raise InvalidRequest("unknown msg type")
    redelegates = message.DESCRIPTOR.name == "MsgBeginRedelegate"
    validator = message.validator_dst_address if redelegates else message.validator_address
    allowed = authorization.allow_list.address
    is_allowed = _listed(ctx, allowed, validator)
    if _listed(ctx, authorization.deny_list.address, validator) or (allowed and not is_allowed):
        raise Unauthorized(f"cannot delegate/undelegate to {validator} validator")
    updated = StakeAuthorization()
    updated.CopyFrom(authorization)
    if not authorization.HasField("max_tokens"):
        return Accepted(updated=updated)
    limit, amount = authorization.max_tokens, message.amount
    if limit.denom != amount.denom:
        raise UndefinedError(f"invalid coin denoms: {limit.denom}, {amount.denom}")
    left = coins.parse_wire_int(limit.amount) - coins.parse_wire_int(amount.amount)
    if left < 0:
        raise UndefinedError(f"negative coin amount: {left}{limit.denom}")
    if left.bit_length() > coins.MAX_BITS:
        raise PanicError(f"the limit exceeds {coins.MAX_BITS} bits")
    if not left:
        return Accepted(used_up=True)
    updated.max_tokens.amount = str(left)
    return Accepted(updated=updated)


def _listed(ctx: Context, addresses: Any, validator: str) -> bool:
    """Bech32 may be written in capitals, too: it is the same validator."""
    for address in addresses:
        ctx.gas.consume(GAS_PER_VALIDATOR, "stake authorization")
        if address.lower() == validator.lower():
            return True
    return False


KINDS: Final[Mapping[str, AuthorizationKind]] = {StakeAuthorization.DESCRIPTOR.full_name: AuthorizationKind(type_url, check, accept)}
