"""slashing's section of app_state: ``cosmos.slashing.v1beta1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.slashing.expected import StakingKeeper
from modules.slashing.keeper import SlashingKeeper
from modules.slashing.params import check_params, default_params

GenesisState: Final = message_class("cosmos.slashing.v1beta1.GenesisState")
PATH: Final = "app_state.slashing"
MAX_COUNT: Final = 1 << 62
"""Of heights and counters in the file: far from where 64 bits end."""


class SlashingGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: SlashingKeeper, staking: StakingKeeper) -> None:
        self._keeper, self._staking = keeper, staking

    def default(self) -> Json:
        return to_json(GenesisState(params=default_params()))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis, infos, missed = _read(section)
        for validator in self._staking.validators(state):
            self._keeper.add_public_key(state, validator.consensus_pubkey)
        for cons, info in infos:
            self._keeper.set_signing_info(state, cons, info)
        for cons, index, is_missed in missed:
            self._keeper.set_missed(state, cons, index, is_missed)
        self._keeper.set_params(state, genesis.params)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        genesis = GenesisState(params=self._keeper.params(state))
        for cons, info in self._keeper.signing_infos(state):
            address = bech32.encode(cons, bech32.CONSENSUS)
            genesis.signing_infos.add(address=address, validator_signing_info=info)
            missed = genesis.missed_blocks.add(address=address)
            for index in self._keeper.missed_blocks(state, cons):
                missed.missed_blocks.add(index=index, missed=True)
        return to_json(genesis)


def _read(section: Json) -> tuple[Any, list[tuple[bytes, Any]], list[tuple[bytes, int, bool]]]:
    """(GenesisState, (address, signing info) pairs, (address, index, missed) triples). Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
        check_params(genesis.params)
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    infos = []
    for at, entry in enumerate(genesis.signing_infos):
        info, where = entry.validator_signing_info, f"{PATH}.signing_infos[{at}]"
        infos.append((_cons(entry.address, where), info))
        for name in ("start_height", "index_offset", "missed_blocks_counter"):
            if not 0 <= getattr(info, name) < MAX_COUNT:
                raise GenesisError(f"{where}.validator_signing_info.{name}", f"expected 0 to {MAX_COUNT - 1}, got {getattr(info, name)}")
    missed = []
    for at, entry in enumerate(genesis.missed_blocks):
        cons = _cons(entry.address, f"{PATH}.missed_blocks[{at}]")
        for number, one in enumerate(entry.missed_blocks):
            if one.index < 0:
                raise GenesisError(f"{PATH}.missed_blocks[{at}].missed_blocks[{number}].index", f"must not be negative, got {one.index}")
            missed.append((cons, one.index, one.missed))
    return genesis, infos, missed


def _cons(text: str, path: str) -> bytes:
    try:
        return bech32.decode(text, bech32.CONSENSUS)
    except AppError as error:
        raise GenesisError(f"{path}.address", error.detail) from None
