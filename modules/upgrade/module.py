"""The upgrade module, declared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain.authority import GOV_ADDRESS
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.module import Json, MessageHandler, Module, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.upgrade import errors, keys
from modules.upgrade.errors import InvalidSigner, ModuleVersionNotFound
from modules.upgrade.keeper import UpgradeKeeper

PACKAGE: Final = "cosmos.upgrade.v1beta1"
SERVICE: Final = f"/{PACKAGE}.Query/"
AUTHORITY: Final = bech32.encode(GOV_ADDRESS)


def upgrade_module(keeper: UpgradeKeeper) -> Module:
    """Declare upgrade over its ``keeper``."""
    module_version = message_class(f"{PACKAGE}.ModuleVersion")

    def software_upgrade(ctx: Context, state: StateWriter, message: Any) -> Any:
        _require_authority(message.authority)
        keeper.schedule(ctx, state, message.plan)
        return message_class(f"{PACKAGE}.MsgSoftwareUpgradeResponse")()

    def cancel_upgrade(ctx: Context, state: StateWriter, message: Any) -> Any:
        _require_authority(message.authority)
        keeper.clear(state)
        return message_class(f"{PACKAGE}.MsgCancelUpgradeResponse")()

    def current_plan(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("CurrentPlan")(plan=keeper.plan(state))

    def applied_plan(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("AppliedPlan")(height=keeper.done_height(state, request.name))

    def upgraded_consensus_state(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("UpgradedConsensusState")(upgraded_consensus_state=keeper.upgraded_consensus_state(state, request.last_height))

    def module_versions(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.versions(state)
        if request.module_name:
            if request.module_name not in found:
                raise ModuleVersionNotFound(f"x/upgrade: QueryModuleVersions module {request.module_name[:100]} not found")
            found = {request.module_name: found[request.module_name]}
        return _response("ModuleVersions")(module_versions=[module_version(name=name, version=version) for name, version in found.items()])

    def authority(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Authority")(address=AUTHORITY)

    return Module(
        name="upgrade",
        stores=(keys.STORE,),
        messages={
            f"{PACKAGE}.MsgSoftwareUpgrade": MessageHandler(software_upgrade),
            f"{PACKAGE}.MsgCancelUpgrade": MessageHandler(cancel_upgrade),
        },
        queries={
            SERVICE + "CurrentPlan": current_plan,
            SERVICE + "AppliedPlan": applied_plan,
            SERVICE + "UpgradedConsensusState": upgraded_consensus_state,
            SERVICE + "ModuleVersions": module_versions,
            SERVICE + "Authority": authority,
        },
        genesis=UpgradeGenesis(keeper),
        pre_block=keeper.pre_block,
        errors=errors.ERRORS,
        consensus_version=2,
    )


class UpgradeGenesis:
    """The section ``upgrade`` is empty, as the SDK's: a new chain has the versions of the binary that starts it, and no plan."""

    def __init__(self, keeper: UpgradeKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return {}

    def validate(self, section: Json) -> None:
        """Anything will do; it is not read."""

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        self._keeper.set_versions(state, self._keeper.module_versions)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        return {}


def _response(name: str) -> Any:
    return message_class(f"{PACKAGE}.Query{name}Response")


def _require_authority(authority: str) -> None:
    if authority != AUTHORITY:
        raise InvalidSigner(f"expected {AUTHORITY} got {authority}")
