"""A genesis file of an older SDK in the shape of 0.50: what ``stchaind genesis migrate`` does.

The document's own fields are turned by ``document.normalise``. Inside ``app_state``, from 0.47 on only the bank's switches per denom moved:
out of its parameters into its own list. Sections of modules that this chain does not have stay as they are, and are named.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from chain.module import GenesisError, Module
from genesis import document as files

TARGETS: Final = ("v0.47", "v0.50")


def migrate(document: dict[str, Any], modules: tuple[Module, ...]) -> tuple[dict[str, Any], list[str]]:
    """(the document in the 0.50 shape, sections that no module here reads). ``document`` stays as it is. Raises GenesisError."""
    moved = files.normalise(copy.deepcopy(document))
    moved.setdefault("app_name", "")
    moved.setdefault("app_version", "")
    moved["app_hash"] = moved.get("app_hash") or None
    moved["consensus"]["params"] = files.comet_params(moved["consensus"]["params"])
    moved["consensus"]["params"].setdefault("abci", {"vote_extensions_enable_height": "0"})
    _bank(moved["app_state"])
    known = {module.name for module in modules if module.genesis is not None}
    order = ("app_name", "app_version", "genesis_time", "chain_id", "initial_height", "app_hash", "app_state", "consensus")
    return {name: moved[name] for name in order}, sorted(set(moved["app_state"]) - known)


def _bank(app_state: dict[str, Any]) -> None:
    bank = app_state.get("bank")
    if bank is None:
        return
    if not isinstance(bank, dict) or not isinstance(bank.get("params", {}), dict):
        raise GenesisError("app_state.bank", "expected an object with params, balances and supply")
    params = bank.get("params", {})
    if not bank.get("send_enabled") and params.get("send_enabled"):
        bank["send_enabled"] = params["send_enabled"]
    if "send_enabled" in params:
        params["send_enabled"] = []
