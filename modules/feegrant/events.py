"""What feegrant tells indexers: names and attributes as SDK 0.50 emits them."""

from __future__ import annotations

from chain.context import Context
from chain.crypto import address as bech32


def granted(ctx: Context, granter: bytes, grantee: bytes) -> None:
    _emit(ctx, "set_feegrant", granter, grantee)


def updated(ctx: Context, granter: bytes, grantee: bytes) -> None:
    _emit(ctx, "update_feegrant", granter, grantee)


def used(ctx: Context, granter: bytes, grantee: bytes) -> None:
    _emit(ctx, "use_feegrant", granter, grantee)


def revoked(ctx: Context, granter: bytes, grantee: bytes) -> None:
    _emit(ctx, "revoke_feegrant", granter, grantee)


def pruned(ctx: Context, pruner: str) -> None:
    ctx.events.emit("prune_feegrant", ("pruner", pruner))


def _emit(ctx: Context, name: str, granter: bytes, grantee: bytes) -> None:
    ctx.events.emit(name, ("granter", bech32.encode(granter)), ("grantee", bech32.encode(grantee)))
