"""Messages of feegrant: GrantAllowance, RevokeAllowance, PruneAllowances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import InvalidAddress
from chain.module import MessageHandler
from chain.store.api import StateWriter
from modules.feegrant import allowances, events
from modules.feegrant.allowances import PACKAGE
from modules.feegrant.errors import NoAllowance
from modules.feegrant.keeper import MAX_PRUNED_BY_MESSAGE, FeegrantKeeper

NAMES: Final = ("MsgGrantAllowance", "MsgRevokeAllowance", "MsgPruneAllowances")


def handlers(keeper: FeegrantKeeper) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""
    responses = {name: message_class(f"{PACKAGE}.{name}Response") for name in NAMES}

    def grant(ctx: Context, state: StateWriter, message: Any) -> Any:
        if message.granter.encode().lower() == message.grantee.encode().lower():
            raise InvalidAddress("cannot self-grant fee authorization")
        grantee, granter = bech32.decode(message.grantee), bech32.decode(message.granter)
        keeper.require_none(state, granter, grantee)
        if not message.HasField("allowance"):
            raise NoAllowance("failed to get allowance")
        allowance = allowances.unpack(message.allowance)
        allowances.check(allowance)
        keeper.save(ctx, state, granter, grantee, allowance)
        return responses["MsgGrantAllowance"]()

    def revoke(ctx: Context, state: StateWriter, message: Any) -> Any:
        if message.granter == message.grantee:
            raise InvalidAddress("addresses must be different")
        grantee, granter = bech32.decode(message.grantee), bech32.decode(message.granter)
        keeper.revoke(ctx, state, granter, grantee)
        return responses["MsgRevokeAllowance"]()

    def prune(ctx: Context, state: StateWriter, message: Any) -> Any:
        keeper.prune(ctx, state, MAX_PRUNED_BY_MESSAGE)
        events.pruned(ctx, message.pruner)
        return responses["MsgPruneAllowances"]()

    return {f"{PACKAGE}.{name}": MessageHandler(handler) for name, handler in zip(NAMES, (grant, revoke, prune), strict=True)}
