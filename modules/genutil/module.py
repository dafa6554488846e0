"""genutil: the gentxs of the genesis file. Its section is ``{"gen_txs": [tx JSON, …]}``; InitChain runs them through the transaction
pipeline, then the validators they made are bonded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from chain.codec.canonical import encode
from chain.codec.json import from_json
from chain.codec.registry import message_class
from chain.context import Context
from chain.errors import AppError
from chain.module import GenesisError, Json, Module, ValidatorUpdate
from chain.store.api import StateReader, StateWriter

PATH: Final = "app_state.genutil"
MAX_GEN_TXS: Final = 10_000
_Tx: Final = message_class("cosmos.tx.v1beta1.Tx")
_TxRaw: Final = message_class("cosmos.tx.v1beta1.TxRaw")


class Staking(Protocol):
    """What genutil needs of staking."""

    def bond_genesis_validators(self, ctx: Context, state: StateWriter) -> list[ValidatorUpdate]: ...


class GenutilGenesis:
    """The section ``genutil``: checked here, delivered by ``deliver``."""

    def default(self) -> Json:
        return {"gen_txs": []}

    def validate(self, section: Json) -> None:
        gen_txs(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        gen_txs(section)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        return {"gen_txs": []}


def gen_txs(section: Json) -> list[bytes]:
    """TxRaw bytes of the section's transactions. Raises GenesisError."""
    items = section.get("gen_txs") or [] if isinstance(section, dict) else None
    if not isinstance(items, list) or len(items) > MAX_GEN_TXS:
        raise GenesisError(f"{PATH}.gen_txs", f"expected a list of at most {MAX_GEN_TXS} transactions")
    return [tx_bytes(item, f"{PATH}.gen_txs[{at}]") for at, item in enumerate(items)]


def tx_bytes(item: Json, path: str) -> bytes:
    """TxRaw bytes of one transaction in JSON. Raises GenesisError naming ``path``."""
    try:
        tx = from_json(_Tx, item, path)
    except AppError as error:
        raise GenesisError(path, error.detail) from None
    if [wrapped.type_url for wrapped in tx.body.messages] != ["/cosmos.staking.v1beta1.MsgCreateValidator"]:
        raise GenesisError(f"{path}.body.messages", "expected exactly one MsgCreateValidator")
    raw: bytes = _TxRaw(body_bytes=encode(tx.body), auth_info_bytes=encode(tx.auth_info), signatures=list(tx.signatures)).SerializeToString()
    return raw


def deliver_with(staking: Staking) -> Callable[[Context, Any, Json, Callable[[bytes], None]], Sequence[ValidatorUpdate]]:
    """The application's hook at the end of InitChain: run every gentx, then bond the validators."""

    def deliver(ctx: Context, state: Any, app_state: Json, run: Callable[[bytes], None]) -> Sequence[ValidatorUpdate]:
        raws = gen_txs(app_state.get("genutil") or {})
        for at, raw in enumerate(raws):
            try:
                run(raw)
            except AppError as error:
                raise GenesisError(f"{PATH}.gen_txs[{at}]", error.detail) from None
        return staking.bond_genesis_validators(ctx, state) if raws else ()

    return deliver


def genutil_module() -> Module:
    """Declare genutil."""
    return Module(name="genutil", genesis=GenutilGenesis())
