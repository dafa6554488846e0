"""What authz tells indexers: the SDK's typed events, whose values are JSON, sorted by name."""

from __future__ import annotations

import json

from chain.context import Context
from chain.crypto import address as bech32


def granted(ctx: Context, granter: bytes, grantee: bytes, type_url: str) -> None:
    _emit(ctx, "EventGrant", granter, grantee, type_url)


def revoked(ctx: Context, granter: bytes, grantee: bytes, type_url: str) -> None:
    _emit(ctx, "EventRevoke", granter, grantee, type_url)


def index_since(ctx: Context, mark: int, at: int) -> None:
    """Tell of every event since ``mark`` that it comes from message ``at`` of a MsgExec."""
    found = ctx.events.events[mark:]
    ctx.events.rollback(mark)
    for kind, attributes in found:
        ctx.events.emit(kind, *attributes, ("authz_msg_index", str(at)))


def _emit(ctx: Context, name: str, granter: bytes, grantee: bytes, type_url: str) -> None:
    fields = {"grantee": bech32.encode(grantee), "granter": bech32.encode(granter), "msg_type_url": type_url}
    ctx.events.emit(f"cosmos.authz.v1beta1.{name}", *((key, json.dumps(value, ensure_ascii=False)) for key, value in fields.items()))
