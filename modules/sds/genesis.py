"""sds's section of app_state: ``stratos.sds.v1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain.codec.canonical import known
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.coins import parse_wire_int
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidRequest
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.sds.cid import check_cid
from modules.sds.keeper import SdsKeeper
from modules.sds.params import check_params, default_params
from modules.sds.reporters import BLOCK_BYTES, MAX_REPORTERS

GenesisState: Final = message_class("stratos.sds.v1.GenesisState")
PATH: Final = "app_state.sds"
MAX_HEIGHT: Final = (1 << 63) - 1


class SdsGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: SdsKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return to_json(GenesisState(params=default_params()))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis = _read(section)
        self._keeper.set_params(state, known(genesis.params))
        for one in genesis.files:
            self._keeper.set_file(state, one.file_hash, one.file_info)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        genesis = GenesisState(params=self._keeper.params(state))
        for file_hash, info in self._keeper.files(state):
            genesis.files.add(file_hash=file_hash, file_info=info)
        return to_json(genesis)


def check_file(info: Any) -> None:
    """Raise an AppError for a FileInfo that no upload makes."""
    height = parse_wire_int(info.height or "0")
    if not 0 <= height <= MAX_HEIGHT:
        raise InvalidRequest(f"expected a height from 0 to {MAX_HEIGHT}, got {height}")
    if len(info.reporters) % BLOCK_BYTES or len(info.reporters) * 8 > MAX_REPORTERS:
        raise InvalidRequest(f"expected reporters in blocks of {BLOCK_BYTES} bytes, at most {MAX_REPORTERS} bits, got {len(info.reporters)} bytes")
    bech32.decode(info.uploader)


def _read(section: Json) -> Any:
    """The GenesisState. Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
        check_params(genesis.params)
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    seen: dict[str, None] = {}
    for at, one in enumerate(genesis.files):
        path = f"{PATH}.files[{at}]"
        try:
            check_cid(one.file_hash)
            check_file(one.file_info)
        except AppError as error:
            raise GenesisError(path, error.detail) from None
        if one.file_hash in seen:
            raise GenesisError(path, f"a second record of {one.file_hash}")
        seen[one.file_hash] = None
    return genesis
