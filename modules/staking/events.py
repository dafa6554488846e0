"""What staking tells indexers: names and attributes as SDK 0.50 emits them."""

from __future__ import annotations

from typing import Any

from chain import coins
from chain.codec.times import NANOS, rfc3339
from chain.coins import Coin, Coins
from chain.context import Context
from chain.dec import Dec


def create_validator(ctx: Context, operator: str, amount: Coin) -> None:
    ctx.events.emit("create_validator", ("validator", operator), ("amount", str(amount)))


def edit_validator(ctx: Context, validator: Any) -> None:
    minimum = validator.min_self_delegation or "0"
    ctx.events.emit("edit_validator", ("commission_rate", _commission(validator.commission)), ("min_self_delegation", minimum))


def delegate(ctx: Context, message: Any, amount: Coin, shares: Dec) -> None:
    ctx.events.emit("delegate", *_parties(message), ("amount", str(amount)), ("new_shares", str(shares)))


def redelegate(ctx: Context, message: Any, amount: Coin, end_ns: int) -> None:
    ctx.events.emit(
        "redelegate",
        ("source_validator", message.validator_src_address),
        ("destination_validator", message.validator_dst_address),
        ("amount", str(amount)),
        ("completion_time", _time(end_ns)),
    )


def unbond(ctx: Context, message: Any, amount: Coin, end_ns: int) -> None:
    ctx.events.emit("unbond", *_parties(message), ("amount", str(amount)), ("completion_time", _time(end_ns)))


def cancel_unbonding(ctx: Context, message: Any, amount: Coin) -> None:
    height = ("creation_height", str(message.creation_height))
    ctx.events.emit("cancel_unbonding_delegation", ("amount", str(amount)), *_parties(message), height)


def complete_unbonding(ctx: Context, pair: Any, amount: Coins) -> None:
    ctx.events.emit("complete_unbonding", ("amount", coins.to_text(amount)), *_parties(pair))


def complete_redelegation(ctx: Context, triplet: Any, amount: Coins) -> None:
    ctx.events.emit(
        "complete_redelegation",
        ("amount", coins.to_text(amount)),
        ("delegator", triplet.delegator_address),
        ("source_validator", triplet.validator_src_address),
        ("destination_validator", triplet.validator_dst_address),
    )


def _parties(message: Any) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("validator", message.validator_address), ("delegator", message.delegator_address)


def _time(time_ns: int) -> str:
    return rfc3339(time_ns // NANOS)


def _commission(commission: Any) -> str:
    """Go's compact text form of the message, which has the scaled integers of its decimals."""
    rates = "".join(f'{name}:"{getattr(commission.commission_rates, name) or 0}" ' for name in ("rate", "max_rate", "max_change_rate"))
    time = "".join(f"{name}:{value} " for name in ("seconds", "nanos") if (value := getattr(commission.update_time, name)))
    return f"commission_rates:<{rates}> update_time:<{time}> "
