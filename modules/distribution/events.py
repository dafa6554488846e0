"""What distribution tells indexers: names and attributes as SDK 0.50 emits them."""

from __future__ import annotations

from chain import coins, dec_coins
from chain.coins import Coins
from chain.context import Context
from chain.crypto import address as bech32
from chain.dec_coins import DecCoins


def set_withdraw_address(ctx: Context, withdraw_address: bytes) -> None:
    ctx.events.emit("set_withdraw_address", ("withdraw_address", bech32.encode(withdraw_address)))


def commission(ctx: Context, amount: DecCoins, operator: bytes) -> None:
    ctx.events.emit("commission", ("amount", dec_coins.to_text(amount)), ("validator", _validator(operator)))


def rewards(ctx: Context, amount: DecCoins, operator: bytes) -> None:
    ctx.events.emit("rewards", ("amount", dec_coins.to_text(amount)), ("validator", _validator(operator)))


def withdraw_rewards(ctx: Context, amount: Coins, operator: bytes, delegator: bytes) -> None:
    ctx.events.emit(
        "withdraw_rewards", ("amount", coins.to_text(amount)), ("validator", _validator(operator)), ("delegator", bech32.encode(delegator))
    )


def withdraw_commission(ctx: Context, amount: Coins) -> None:
    ctx.events.emit("withdraw_commission", ("amount", coins.to_text(amount)))


def _validator(operator: bytes) -> str:
    return bech32.encode(operator, bech32.VALIDATOR)
