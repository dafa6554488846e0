"""Making genesis files: the default one, accounts added to it, and gentxs collected into it."""

from __future__ import annotations

from typing import Any, Final

from chain import coins
from chain.coins import Coins
from chain.crypto import address as bech32
from chain.module import GenesisError, Module

APP_NAME: Final = "stchaind"

DEFAULT_CONSENSUS_PARAMS: Final = {
    "block": {"max_bytes": "2097152", "max_gas": "-1"},
    "evidence": {"max_age_num_blocks": "100000", "max_age_duration": "172800000000000", "max_bytes": "1048576"},
    "validator": {"pub_key_types": ["ed25519"]},
    "version": {"app": "0"},
    "abci": {"vote_extensions_enable_height": "0"},
}


def default_document(modules: tuple[Module, ...], chain_id: str, genesis_time: str, version: str, initial_height: int = 1) -> dict[str, Any]:
    """A genesis document with every module's default section."""
    return {
        "app_name": APP_NAME,
        "app_version": version,
        "genesis_time": genesis_time,
        "chain_id": chain_id,
        "initial_height": initial_height,
        "app_hash": None,
        "app_state": {module.name: module.genesis.default() for module in modules if module.genesis is not None},
        "consensus": {"params": DEFAULT_CONSENSUS_PARAMS},
    }


def add_account(document: dict[str, Any], address: bytes, amount: Coins, *, append: bool = False) -> None:
    """Give ``address`` an account and ``amount``. Raises GenesisError when it has one already, unless ``append`` adds to it."""
    text = bech32.encode(address)
    auth, bank = document["app_state"]["auth"], document["app_state"]["bank"]
    if any(account.get("address") == text for account in auth["accounts"]):
        if not append:
            raise GenesisError("app_state.auth.accounts", f"cannot add account at existing address {text}; use --append to add coins to it")
    else:
        auth["accounts"].append(
            {"@type": "/cosmos.auth.v1beta1.BaseAccount", "address": text, "pub_key": None, "account_number": "0", "sequence": "0"}
        )
    for balance in bank["balances"]:
        if balance["address"] == text:
            held = coins.from_messages(coins.CoinMessage(**coin) for coin in balance["coins"])
            balance["coins"] = _json(coins.add(held, amount))
            break
    else:
        bank["balances"].append({"address": text, "coins": _json(amount)})
    bank["balances"].sort(key=lambda balance: bech32.decode(balance["address"]))
    supply = coins.from_messages(coins.CoinMessage(**coin) for coin in bank["supply"])
    bank["supply"] = _json(coins.add(supply, amount))


def validate(document: dict[str, Any], modules: tuple[Module, ...]) -> None:
    """Check every module's section. Raises GenesisError naming the field."""
    known = {module.name: module.genesis for module in modules if module.genesis is not None}
    for name, section in document["app_state"].items():
        if name not in known:
            raise GenesisError(f"app_state.{name}", "this chain has no such module")
        genesis = known[name]
        if section is not None and genesis is not None:
            genesis.validate(section)


def _json(amount: Coins) -> list[dict[str, str]]:
    return [{"denom": denom, "amount": str(each)} for denom, each in amount]
