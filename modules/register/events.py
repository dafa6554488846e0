"""What register tells indexers: the original's typed events, whose values are JSON texts, quotes included (stratos-chain.md 1.9, 2.10)."""

from __future__ import annotations

from chain.context import Context
from modules.register.records import PACKAGE


def emit(ctx: Context, name: str, **values: str | int) -> None:
    """``stratos.register.v1.<name>`` with its fields, sorted by name."""
    ctx.events.emit_typed(f"{PACKAGE}.{name}", **values)


def lowered(ctx: Context, address: str, wei: int, noz: int, pending_wei: int, pending_noz: int) -> None:
    """A deposit does not count any more: what left S (wei) and the limit (noz, negative), and what waits."""
    emit(
        ctx,
        "EventLowerDeposit",
        network_address=address,
        lowered_wei=wei,
        ozone_limit_changes=noz,
        pending_lower_wei=pending_wei,
        pending_lower_noz=pending_noz,
    )
