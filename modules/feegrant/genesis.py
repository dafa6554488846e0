"""feegrant's section of app_state: ``cosmos.feegrant.v1beta1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.codec.times import NANOS
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.feegrant import allowances
from modules.feegrant.allowances import PACKAGE
from modules.feegrant.errors import NoAllowance
from modules.feegrant.keeper import FeegrantKeeper

GenesisState: Final = message_class(f"{PACKAGE}.GenesisState")
PATH: Final = "app_state.feegrant"


class FeegrantGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: FeegrantKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return to_json(GenesisState())

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        for granter, grantee, allowance in _read(section):
            expiration = allowances.expiration_of(allowance)
            if expiration is None or expiration.seconds * NANOS + expiration.nanos >= ctx.time_ns:
                self._keeper.save(ctx, state, granter, grantee, allowance)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        return to_json(GenesisState(allowances=list(self._keeper.iterate(state))))


def _read(section: Json) -> list[tuple[bytes, bytes, Any]]:
    """(granter, grantee, allowance) of each entry. Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    found: dict[tuple[bytes, bytes], Any] = {}
    for at, entry in enumerate(genesis.allowances):
        path = f"{PATH}.allowances[{at}]"
        try:
            pair = bech32.decode(entry.granter), bech32.decode(entry.grantee)
            if not entry.HasField("allowance"):
                raise NoAllowance("allowance should not be empty")
            allowance = allowances.unpack(entry.allowance)
            allowances.check(allowance)
        except AppError as error:
            raise GenesisError(path, str(error)) from None
        if pair in found:
            raise GenesisError(path, f"a second allowance of {entry.granter} to {entry.grantee}")
        found[pair] = allowance
    return [(*pair, allowance) for pair, allowance in found.items()]
