"""What sds tells indexers: typed events, whose values are JSON text, sorted by name (stratos-chain.md 1.9)."""

from __future__ import annotations

from chain.context import Context


def prepaid(ctx: Context, sender: str, beneficiary: str, paid_wei: int, noz: int) -> None:
    """EventPrePay: who credits ozone off the chain reads it."""
    _emit(ctx, "EventPrePay", sender=sender, beneficiary=beneficiary, amount=f"{paid_wei}wei", purchased_noz=str(noz))


def uploaded(ctx: Context, sender: str, reporter: str, uploader: str, file_hash: str) -> None:
    """EventFileUpload."""
    _emit(ctx, "EventFileUpload", sender=sender, reporter=reporter, uploader=uploader, file_hash=file_hash)


def _emit(ctx: Context, name: str, **fields: str) -> None:
    ctx.events.emit_typed(f"stratos.sds.v1.{name}", **fields)
