"""Messages of authz and feegrant, made from addresses as text. Amounts are of one coin."""

from __future__ import annotations

from typing import Any

from chain.codec.registry import message_class, pack_any
from chain.coins import Coin, to_messages

AUTHZ, FEEGRANT = "cosmos.authz.v1beta1", "cosmos.feegrant.v1beta1"
SEND_URL = "/cosmos.bank.v1beta1.MsgSend"
END_S = 4_102_444_800  # 2100-01-01


def coins(amount: int, denom: str = "wei") -> list[Any]:
    return to_messages((Coin(denom, amount),)) if amount else []


def send(sender: str, to: str, amount: int) -> Any:
    return message_class("cosmos.bank.v1beta1.MsgSend")(from_address=sender, to_address=to, amount=coins(amount))


def generic(type_url: str = SEND_URL) -> Any:
    return message_class(f"{AUTHZ}.GenericAuthorization")(msg=type_url)


def send_up_to(amount: int, *allowed: str) -> Any:
    return message_class("cosmos.bank.v1beta1.SendAuthorization")(spend_limit=coins(amount), allow_list=allowed)


def grant(granter: str, grantee: str, authorization: Any, end_s: int = 0) -> Any:
    made = message_class(f"{AUTHZ}.MsgGrant")(granter=granter, grantee=grantee)
    made.grant.authorization.CopyFrom(pack_any(authorization))
    if end_s:
        made.grant.expiration.seconds = end_s
    return made


def execute(grantee: str, *messages: Any) -> Any:
    return message_class(f"{AUTHZ}.MsgExec")(grantee=grantee, msgs=[pack_any(one) for one in messages])


def revoke(granter: str, grantee: str, type_url: str = SEND_URL) -> Any:
    return message_class(f"{AUTHZ}.MsgRevoke")(granter=granter, grantee=grantee, msg_type_url=type_url)


def basic(limit: int = 0, denom: str = "wei", end_s: int = 0) -> Any:
    made = message_class(f"{FEEGRANT}.BasicAllowance")(spend_limit=coins(limit, denom))
    if end_s:
        made.expiration.seconds = end_s
    return made


def periodic(limit: int, denom: str, period_limit: int, can_spend: int, period_s: int = 3600, end_s: int = 0) -> Any:
    made = message_class(f"{FEEGRANT}.PeriodicAllowance")(basic=basic(limit, denom, end_s), period_spend_limit=coins(period_limit, denom))
    made.period_can_spend.extend(coins(can_spend, denom))
    made.period.seconds, made.period_reset.seconds = period_s, END_S
    return made


def only_for(allowance: Any, *type_urls: str) -> Any:
    return message_class(f"{FEEGRANT}.AllowedMsgAllowance")(allowance=pack_any(allowance), allowed_messages=type_urls)


def allow(granter: str, grantee: str, allowance: Any) -> Any:
    return message_class(f"{FEEGRANT}.MsgGrantAllowance")(granter=granter, grantee=grantee, allowance=pack_any(allowance))


def disallow(granter: str, grantee: str) -> Any:
    return message_class(f"{FEEGRANT}.MsgRevokeAllowance")(granter=granter, grantee=grantee)


def prune(pruner: str) -> Any:
    return message_class(f"{FEEGRANT}.MsgPruneAllowances")(pruner=pruner)
