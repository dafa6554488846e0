"""Making genesis files: the default one, accounts added to it, and gentxs collected into it."""

from __future__ import annotations

from typing import Any, Final, Protocol, runtime_checkable

from chain import coins
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.coins import Coins
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_from_any
from chain.errors import AppError
from chain.module import GenesisError, Module

APP_NAME: Final = "stchaind"
FOUNDATION: Final = "foundation_account"
"""The module account that holds what is still to be mined."""
GenesisMetaNode: Final = message_class("stratos.register.v1.GenesisMetaNode")
MetaNode: Final = message_class("stratos.register.v1.MetaNode")
META_KEYS: Final = ("bls_pubkey", "proof_of_possession", "ledger_consensus_pubkey")
"""What the file of a genesis meta node may have beside the original's fields: its keys for settlement."""

DEFAULT_CONSENSUS_PARAMS: Final[dict[str, Any]] = {
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


def base_account(address: bytes) -> dict[str, Any]:
    """A BaseAccount's JSON."""
    return {"@type": "/cosmos.auth.v1beta1.BaseAccount", **_base(address)}


def vesting_account(address: bytes, amount: Coins, vesting: Coins, start_s: int, end_s: int) -> dict[str, Any]:
    """JSON of an account of whose ``amount`` the part ``vesting`` is free at ``end_s``, evenly from ``start_s`` on if that is not 0 (Unix seconds).

    Raises GenesisError.
    """
    path = "app_state.auth.accounts"
    if coins.subtract(amount, vesting) is None:
        raise GenesisError(path, f"vesting amount {coins.to_text(vesting)} cannot be greater than total amount {coins.to_text(amount)}")
    if end_s <= 0 or start_s < 0:
        raise GenesisError(path, "invalid vesting parameters; must supply start and end time or end time")
    if start_s >= end_s:
        raise GenesisError(path, f"vesting start-time {start_s} cannot be at or after end-time {end_s}")
    vesting_base = {
        "base_account": _base(address),
        "original_vesting": _json(vesting),
        "delegated_free": [],
        "delegated_vesting": [],
        "end_time": str(end_s),
    }
    kind = "ContinuousVestingAccount" if start_s else "DelayedVestingAccount"
    account = {"@type": f"/cosmos.vesting.v1beta1.{kind}", "base_vesting_account": vesting_base}
    return {**account, "start_time": str(start_s)} if start_s else account


def module_account(address: bytes, name: str) -> dict[str, Any]:
    """JSON of the account of the module ``name``, which may mint and burn. Raises GenesisError when ``address`` is not the module's."""
    expected = bech32.module_address(name)
    if address != expected:
        raise GenesisError("app_state.auth.accounts", f"the account of module {name} is {bech32.encode(expected)}, got {bech32.encode(address)}")
    return {"@type": "/cosmos.auth.v1beta1.ModuleAccount", "base_account": _base(address), "name": name, "permissions": ["burner", "minter"]}


def add_account(document: dict[str, Any], address: bytes, amount: Coins, *, append: bool = False, account: dict[str, Any] | None = None) -> None:
    """Give ``address`` an account (``base_account`` if none is given) and ``amount``.

    Raises GenesisError when it has one already, unless ``append`` adds the coins to it.
    """
    text = bech32.encode(address)
    auth, bank = document["app_state"]["auth"], document["app_state"]["bank"]
    accounts = [_base_of(one) for one in auth["accounts"]]
    if any(base.get("address") == text for base in accounts):
        if not append:
            raise GenesisError("app_state.auth.accounts", f"cannot add account at existing address {text}; use --append to add coins to it")
    else:
        account = account or base_account(address)
        taken = {str(base.get("account_number")) for base in accounts}
        _base_of(account)["account_number"] = str(next(number for number in range(len(taken) + 1) if str(number) not in taken))
        auth["accounts"].append(account)
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


def add_meta_node(document: dict[str, Any], node: dict[str, Any], path: str) -> None:
    """Add a ``GenesisMetaNode`` in JSON, with META_KEYS or without, to register's section and its keys to settlement's.

    Its deposit is taken from its owner's coins when the chain begins. Raises GenesisError naming ``path``, where the node was read.
    """
    keys = {name: value for name, value in node.items() if name in META_KEYS}
    try:
        given = from_json(GenesisMetaNode, {name: value for name, value in node.items() if name not in META_KEYS})
        address = bech32.decode(given.network_address, bech32.NODE)
        bech32.decode(given.owner_address)
        if not given.HasField("pubkey") or public_key_from_any(given.pubkey).address != address:
            raise GenesisError(path, f"pubkey is not the key of {given.network_address}")
    except AppError as error:
        raise GenesisError(path, error.detail) from None
    register, settlement = document["app_state"]["register"], document["app_state"]["settlement"]
    if any(one["network_address"] == given.network_address for one in register["meta_nodes"]):
        raise GenesisError(path, f"the meta node {given.network_address} is in the genesis file already")
    denom = register["params"]["bond_denom"]
    if given.tokens.denom != denom:
        raise GenesisError(path, f"expected a deposit in {denom}, got {given.tokens.denom[:40]!r}")
    if keys and len(keys) < len(META_KEYS):
        raise GenesisError(path, f"expected all of {', '.join(META_KEYS)}, or none, got {', '.join(keys)}")
    added = MetaNode(tokens=given.tokens.amount, **{name: getattr(given, name) for name in ("network_address", "pubkey", "suspend", "status")})
    added.owner_address, added.beneficiary_address = given.owner_address, given.beneficiary_address or given.owner_address
    added.description.CopyFrom(given.description)
    register["meta_nodes"].append({**to_json(added), "creation_time": document["genesis_time"]})
    if keys:
        settlement["meta_keys"].append({"meta_node": given.network_address, **keys, "registered_height": "0"})


def add_foundation(document: dict[str, Any], amount: Coins) -> None:
    """Give the foundation coins to mine. Raises GenesisError."""
    address = bech32.module_address(FOUNDATION)
    add_account(document, address, amount, account=module_account(address, FOUNDATION))


def pin_supply(document: dict[str, Any]) -> None:
    """Make the supply of this genesis file the one that the chain keeps: pot mints what is missing to its ``initial_total_supply``, and burns what is
    above it from the community pool."""
    total = document["app_state"]["pot"]["params"]["initial_total_supply"]
    held = coins.from_messages(coins.CoinMessage(**coin) for coin in document["app_state"]["bank"]["supply"])
    total["amount"] = str(coins.amount_of(held, total["denom"]))


@runtime_checkable
class Warns(Protocol):
    """A module's genesis that has something to say of a file that it accepts."""

    def warnings(self, app_state: dict[str, Any]) -> list[str]: ...


def warnings(document: dict[str, Any], modules: tuple[Module, ...]) -> list[str]:
    """What does not keep a chain from starting but makes it of less use, a sentence each. ``validate`` has accepted the document."""
    defaults = {module.name: module.genesis.default() for module in modules if module.genesis is not None}
    app_state = {**defaults, **{name: section for name, section in document["app_state"].items() if section is not None}}
    speakers: list[object] = [module.genesis for module in modules]
    return [told for genesis in speakers if isinstance(genesis, Warns) for told in genesis.warnings(app_state)]


def validate(document: dict[str, Any], modules: tuple[Module, ...]) -> None:
    """Check every module's section. Raises GenesisError naming the field."""
    known = {module.name: module.genesis for module in modules if module.genesis is not None}
    for name, section in document["app_state"].items():
        if name not in known and section:
            raise GenesisError(f"app_state.{name}", "this chain has no such module")
        genesis = known.get(name)
        if section is not None and genesis is not None:
            genesis.validate(section)


def _base(address: bytes) -> dict[str, Any]:
    return {"address": bech32.encode(address), "pub_key": None, "account_number": "0", "sequence": "0"}


def _base_of(account: dict[str, Any]) -> dict[str, Any]:
    """The part of an account of any kind that holds its address and number."""
    inner = account.get("base_vesting_account", account)
    found: dict[str, Any] = inner.get("base_account", inner)
    return found


def _json(amount: Coins) -> list[dict[str, str]]:
    return [{"denom": denom, "amount": str(each)} for denom, each in amount]
