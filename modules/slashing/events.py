"""What slashing tells indexers: names and attributes as SDK 0.50 emits them."""

from __future__ import annotations

from typing import Final

from chain.context import Context
from chain.crypto import address as bech32

UNSPECIFIED, DOUBLE_SIGN, DOWNTIME = 0, 1, 2
"""``cosmos.staking.v1beta1.Infraction``"""
_REASONS: Final = {DOUBLE_SIGN: "double_sign", DOWNTIME: "missing_signature"}


def _text(cons: bytes) -> str:
    return bech32.encode(cons, bech32.CONSENSUS)


def liveness(ctx: Context, cons: bytes, missed: int) -> None:
    ctx.events.emit("liveness", ("address", _text(cons)), ("missed_blocks", str(missed)), ("height", str(ctx.height)))


def slashed(ctx: Context, cons: bytes, power: int, infraction: int, burned_wei: int) -> None:
    reason = _REASONS.get(infraction, "unspecified")
    ctx.events.emit("slash", ("address", _text(cons)), ("power", str(power)), ("reason", reason), ("burned_coins", str(burned_wei)))


def jailed(ctx: Context, cons: bytes) -> None:
    ctx.events.emit("slash", ("jailed", _text(cons)))


def slashed_and_jailed(ctx: Context, cons: bytes, power: int, burned_wei: int) -> None:
    """The one event of a punished absence."""
    text = _text(cons)
    ctx.events.emit(
        "slash", ("address", text), ("power", str(power)), ("reason", _REASONS[DOWNTIME]), ("jailed", text), ("burned_coins", str(burned_wei))
    )
