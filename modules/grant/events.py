"""What grant tells indexers: typed events, whose values are JSON text, sorted by name (stratos-chain.md 1.9)."""

from __future__ import annotations

from chain.context import Context
from modules.grant.records import PACKAGE


def emit(ctx: Context, name: str, **fields: str | int) -> None:
    """``stratos.grant.v1.<name>`` with these fields; numbers are text in it, as 64-bit ones are in JSON."""
    ctx.events.emit_typed(f"{PACKAGE}.{name}", **fields)
