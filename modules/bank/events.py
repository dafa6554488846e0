"""What the bank tells indexers: names and attributes as SDK 0.50 emits them."""

from __future__ import annotations

from chain import coins
from chain.coins import Coins
from chain.context import Context
from chain.crypto import address as bech32


def coin_spent(ctx: Context, spender: bytes, amount: Coins) -> None:
    ctx.events.emit("coin_spent", ("spender", bech32.encode(spender)), ("amount", coins.to_text(amount)))


def coin_received(ctx: Context, receiver: bytes, amount: Coins) -> None:
    ctx.events.emit("coin_received", ("receiver", bech32.encode(receiver)), ("amount", coins.to_text(amount)))


def coinbase(ctx: Context, minter: bytes, amount: Coins) -> None:
    ctx.events.emit("coinbase", ("minter", bech32.encode(minter)), ("amount", coins.to_text(amount)))


def burn(ctx: Context, burner: bytes, amount: Coins) -> None:
    ctx.events.emit("burn", ("burner", bech32.encode(burner)), ("amount", coins.to_text(amount)))
