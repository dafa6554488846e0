"""The three kinds of allowance: a limit in all and an end (basic), a limit in each period (periodic), only for some messages (allowed messages).

Every function takes the allowance as ``unpack`` gives it. Amounts are in the base denom, times Unix nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain import coins
from chain.codec.registry import message_class, pack_any, unpack_any
from chain.codec.times import NANOS, ns_of
from chain.coins import Coin, Coins
from chain.context import Context
from chain.errors import AppError, InvalidCoins, PackAnyError, UndefinedError
from modules.feegrant.errors import FeeLimitExceeded, FeeLimitExpired, InvalidDuration, MessageNotAllowed, NoAllowance, NoMessages

PACKAGE: Final = "cosmos.feegrant.v1beta1"
BASIC: Final = f"{PACKAGE}.BasicAllowance"
PERIODIC: Final = f"{PACKAGE}.PeriodicAllowance"
ALLOWED: Final = f"{PACKAGE}.AllowedMsgAllowance"
Timestamp: Final = message_class("google.protobuf.Timestamp")
GAS_PER_MESSAGE: Final = 10
_FIRST_S, _END_S = -62_135_596_800, 253_402_300_800  # the years 1 to 9999
NEVER_RESET: Final = Timestamp(seconds=_FIRST_S)
"""What Go reads where no time is given: the year 1."""


def unpack(wrapped: Any) -> Any:
    """The allowance in an Any. Raises NoAllowance (feegrant/5) for a message that is none, UnpackAnyError."""
    allowance = unpack_any(wrapped)
    kind = allowance.DESCRIPTOR.full_name
    if kind not in (BASIC, PERIODIC, ALLOWED):
        raise NoAllowance(f"failed to get allowance: got /{kind}")
    if kind == PERIODIC and not allowance.HasField("period_reset"):
        allowance.period_reset.CopyFrom(NEVER_RESET)
    allowance.DiscardUnknownFields()
    return allowance


def pack(allowance: Any) -> Any:
    """An Any with the allowance. Raises UndefinedError for a period that would be over after the year 9999."""
    if allowance.DESCRIPTOR.full_name == PERIODIC and not _FIRST_S <= allowance.period_reset.seconds < _END_S:
        raise UndefinedError(f"timestamp out of range: the period is over {allowance.period_reset.seconds} seconds after 1970, beyond the year 9999")
    return pack_any(allowance)


def expiration_of(allowance: Any) -> Any | None:
    """The Timestamp at which the allowance ends, or None."""
    match allowance.DESCRIPTOR.full_name:
        case "cosmos.feegrant.v1beta1.AllowedMsgAllowance":
            return expiration_of(unpack(allowance.allowance))
        case "cosmos.feegrant.v1beta1.PeriodicAllowance":
            return expiration_of(allowance.basic)
    return allowance.expiration if allowance.HasField("expiration") else None


def check(allowance: Any) -> None:
    """Raise unless the allowance makes sense by itself: InvalidCoins (sdk/10), InvalidDuration, NoAllowance, NoMessages."""
    match allowance.DESCRIPTOR.full_name:
        case "cosmos.feegrant.v1beta1.AllowedMsgAllowance":
            if not allowance.HasField("allowance"):
                raise NoAllowance("allowance should not be empty")
            if not allowance.allowed_messages:
                raise NoMessages("allowed messages shouldn't be empty")
            check(unpack(allowance.allowance))
        case "cosmos.feegrant.v1beta1.PeriodicAllowance":
            _check_basic(allowance.basic)
            _check_periodic(allowance)
        case _:
            _check_basic(allowance)


def accept(ctx: Context, allowance: Any, fee: Coins, type_urls: Sequence[str]) -> bool:
    """Take ``fee``, of a transaction with messages of ``type_urls``, from the allowance, which changes; True if it is used up.

    Raises FeeLimitExceeded (feegrant/2), FeeLimitExpired (feegrant/3), MessageNotAllowed (feegrant/7).
    """
    match allowance.DESCRIPTOR.full_name:
        case "cosmos.feegrant.v1beta1.AllowedMsgAllowance":
            return _accept_allowed(ctx, allowance, fee, type_urls)
        case "cosmos.feegrant.v1beta1.PeriodicAllowance":
            return _accept_periodic(ctx, allowance, fee)
    if _is_over(ctx, allowance):
        raise FeeLimitExpired("basic allowance")
    return _take(allowance.spend_limit, fee, "basic allowance")


def _accept_periodic(ctx: Context, allowance: Any, fee: Coins) -> bool:
    if _is_over(ctx, allowance.basic):
        raise FeeLimitExpired("absolute limit")
    _begin_period(ctx, allowance)
    can_spend = coins.subtract_checked(_coins(allowance.period_can_spend), fee)
    if can_spend is None:
        raise FeeLimitExceeded("period limit")
    _set(allowance.period_can_spend, can_spend)
    return _take(allowance.basic.spend_limit, fee, "absolute limit")


def _accept_allowed(ctx: Context, allowance: Any, fee: Coins, type_urls: Sequence[str]) -> bool:
    for _ in allowance.allowed_messages:
        ctx.gas.consume(GAS_PER_MESSAGE, "check msg")
    allowed = frozenset(allowance.allowed_messages)
    for type_url in type_urls:
        ctx.gas.consume(GAS_PER_MESSAGE, "check msg")
        if type_url not in allowed:
            raise MessageNotAllowed("message does not exist in allowed messages")
    inner = unpack(allowance.allowance)
    used_up = accept(ctx, inner, fee, type_urls)
    if not used_up:
        try:
            allowance.allowance.CopyFrom(pack(inner))
        except AppError as error:
            raise PackAnyError(error.detail) from None
    return used_up


def _begin_period(ctx: Context, allowance: Any) -> None:
    """Fill up what may be spent, to no more than is left in all, if the period is over; the next one follows it, or where none was used, begins now."""
    reset_ns = ns_of(allowance.period_reset)
    if ctx.time_ns < reset_ns:
        return
    limit, left = _coins(allowance.period_spend_limit), _coins(allowance.basic.spend_limit)
    _set(allowance.period_can_spend, left if left and coins.subtract_checked(left, limit) is None else limit)
    period_ns = ns_of(allowance.period)
    reset_ns += period_ns
    if ctx.time_ns > reset_ns:
        reset_ns = ctx.time_ns + period_ns
    allowance.period_reset.seconds, allowance.period_reset.nanos = divmod(reset_ns, NANOS)


def _take(limit: Any, fee: Coins, what: str) -> bool:
    """Take ``fee`` from a limit, if there is one; True if nothing is left."""
    if not limit:
        return False
    left = coins.subtract_checked(_coins(limit), fee)
    if left is None:
        raise FeeLimitExceeded(what)
    _set(limit, left)
    return not left


def _check_basic(allowance: Any) -> None:
    coins.from_messages(allowance.spend_limit)
    if allowance.HasField("expiration") and allowance.expiration.seconds < 0:
        raise InvalidDuration("expiration time cannot be negative")


def _check_periodic(allowance: Any) -> None:
    limit = coins.from_messages(allowance.period_spend_limit)
    if not limit:
        raise InvalidCoins("spend limit must be positive")
    coins.from_messages(allowance.period_can_spend)
    total = coins.from_messages(allowance.basic.spend_limit)
    if total and (len(limit) > len(total) or any(not coins.amount_of(total, denom) for denom, _ in limit)):
        raise InvalidCoins("period spend limit has different currency than basic spend limit")
    if ns_of(allowance.period) < 0:
        raise InvalidDuration("negative clock step")


def _is_over(ctx: Context, basic: Any) -> bool:
    return basic.HasField("expiration") and ns_of(basic.expiration) < ctx.time_ns


def _coins(messages: Any) -> Coins:
    return tuple(Coin(coin.denom, coins.parse_wire_int(coin.amount)) for coin in messages)


def _set(messages: Any, amount: Coins) -> None:
    del messages[:]
    messages.extend(coins.to_messages(amount))
