"""A genesis file of SDK 0.47 in the shape of 0.50: what ``stchaind genesis migrate`` writes, and what ``start`` and ``validate`` read.

document      its own fields, by ``document.normalise``
bank          the switches per denom move out of the parameters into a list of their own
parameters    what 0.50 added takes its default; gov's ``expedited_min_deposit`` is five times the file's ``min_deposit``
Stratos' own   parameters that pot and register have beside the original's stay off, as the chain was without them
other modules sections of Stratos' first chain that this version has no module for are left out, and named
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

from chain import coins
from chain.errors import AppError
from chain.module import GenesisError, Module
from genesis import document as files

TARGETS: Final = ("v0.47", "v0.50")
FIRST_CHAIN: Final = frozenset(
    [
        "authz",
        "capability",
        "crisis",
        "distribution",
        "evidence",
        "evm",
        "feegrant",
        "feeibc",
        "gov",
        "ibc",
        "interchainaccounts",
        "mint",
        "params",
        "pot",
        "register",
        "sds",
        "slashing",
        "staking",
        "transfer",
        "upgrade",
        "vesting",
    ]
)
"""Sections that the genesis file of Stratos' first chain may have."""
STRATOS_OWN: Final = frozenset(["pot", "register", "sds"])
"""Modules that the first chain had in the very shape that they have here: what is missing is zero, which switches a rule off."""
EXPEDITED_FACTOR: Final = 5


def read(path: Path, modules: tuple[Module, ...]) -> tuple[dict[str, Any], list[str]]:
    """(the genesis file in the 0.50 shape, sections left out). One of 0.47 is migrated. Raises GenesisError."""
    given = files.parse(path)
    if "consensus" in given:
        return files.normalise(given), []
    return migrate(given, modules)


def migrate(document: dict[str, Any], modules: tuple[Module, ...]) -> tuple[dict[str, Any], list[str]]:
    """(the document in the 0.50 shape, sections left out since no module here reads them). ``document`` stays as it is. Raises GenesisError."""
    moved = files.normalise(copy.deepcopy(document))
    moved.setdefault("app_name", "")
    moved.setdefault("app_version", "")
    moved["app_hash"] = moved.get("app_hash") or None
    moved["consensus"]["params"] = files.comet_params(moved["consensus"]["params"])
    moved["consensus"]["params"].setdefault("abci", {"vote_extensions_enable_height": "0"})
    app_state = moved["app_state"]
    _bank(app_state)
    known = {module.name: module.genesis for module in modules if module.genesis is not None}
    dropped = {name: app_state.pop(name) for name in sorted(app_state) if name in FIRST_CHAIN and name not in known}
    _expedited_min_deposit(app_state.get("gov"))
    for name, genesis in known.items():
        if name in STRATOS_OWN:
            continue
        _add_defaults(app_state.get(name), genesis.default())
    order = ("app_name", "app_version", "genesis_time", "chain_id", "initial_height", "app_hash", "app_state", "consensus")
    return {name: moved[name] for name in order}, [name for name, section in dropped.items() if section]


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


def _add_defaults(section: Any, default: Any) -> None:
    """Parameters that the section does not have."""
    if isinstance(section, dict) and isinstance(section.get("params"), dict) and isinstance(default.get("params"), dict):
        for name, value in default["params"].items():
            section["params"].setdefault(name, value)


def _expedited_min_deposit(gov: Any) -> None:
    params = gov.get("params") if isinstance(gov, dict) else None
    if not isinstance(params, dict) or "expedited_min_deposit" in params or not isinstance(params.get("min_deposit"), list):
        return
    try:
        deposit = coins.from_messages(coins.CoinMessage(**coin) for coin in params["min_deposit"])
    except (AppError, TypeError, ValueError):
        raise GenesisError("app_state.gov.params.min_deposit", "expected a list of coins") from None
    params["expedited_min_deposit"] = [{"denom": denom, "amount": str(EXPEDITED_FACTOR * amount)} for denom, amount in deposit]
