"""``stchaind init`` and ``stchaind genesis``: making a chain."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from chain import config, nodekeys
from chain.app import build_application
from chain.cli.keyring import keyring_options, user_keyring
from chain.cli.options import home_of, home_option
from chain.codec.json import loads, to_json
from chain.codec.registry import message_class
from chain.coins import parse_coins
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.dec import dec_wire
from chain.errors import InvalidAddress
from chain.module import GenesisError, Module
from chain.node import VERSION
from chain.store.kv import MemoryBackend
from chain.tx.build import Signer, build_tx
from genesis import build, document

GAS_LIMIT = 200_000


def modules() -> tuple[Module, ...]:
    """The chain's modules, over nothing."""
    return build_application(MemoryBackend()).modules


@click.command()
@click.argument("moniker")
@click.option("--chain-id", default="", help="The chain's id (default: made up).")
@click.option("--initial-height", default=1, show_default=True)
@click.option("--default-denom", default="wei", show_default=True, help="The staking denom.")
@click.option("-o", "--overwrite", is_flag=True, help="Replace an existing genesis file.")
@click.option("--recover", is_flag=True, hidden=True)
@home_option
@click.pass_context
def init(ctx: click.Context, /, moniker: str, chain_id: str, initial_height: int, default_denom: str, overwrite: bool, **_: Any) -> None:
    """Make the home of a new node: keys, configuration and a default genesis file.

    \b
    stchaind init my-node --chain-id stratos-dev-1
    """
    home = home_of(ctx)
    if home.genesis.exists() and not overwrite:
        raise click.ClickException(f"genesis.json file already exists: {home.genesis}; use --overwrite to replace it")
    now = datetime.now(UTC)
    chain_id = chain_id or f"test-chain-{now.strftime('%H%M%S')}"
    nodekeys.create_missing(home)
    if not home.comet_config.exists() or overwrite:
        config.write_defaults(home, moniker)
    made = build.default_document(modules(), chain_id, now.strftime("%Y-%m-%dT%H:%M:%S.%f000Z"), VERSION, initial_height)
    made["app_state"]["staking"]["params"]["bond_denom"] = default_denom
    document.save(document.normalise(made), home.genesis)
    told = {
        "moniker": moniker,
        "chain_id": chain_id,
        "node_id": nodekeys.node_id(home),
        "gentxs_dir": "",
        "app_message": made["app_state"],
    }
    click.echo(json.dumps(told, separators=(",", ":")), err=True)


@click.group()
def genesis() -> None:
    """Make and check the genesis file."""


@genesis.command("add-genesis-account")
@click.argument("address_or_name")
@click.argument("amount")
@click.option("--append", is_flag=True, help="Add coins to an account that is there already.")
@keyring_options
@click.pass_context
def add_genesis_account(ctx: click.Context, /, address_or_name: str, amount: str, append: bool, **_: Any) -> None:
    """Give an address (or a key of the keyring) coins in the genesis file.

    \b
    stchaind genesis add-genesis-account alice 1000000000000000000wei
    """
    home = home_of(ctx)
    try:
        address = bech32.decode(address_or_name)
    except InvalidAddress:
        address = user_keyring().find(address_or_name).address
    made = document.load(home.genesis)
    build.add_account(made, address, parse_coins(amount), append=append)
    document.save(made, home.genesis)


@genesis.command()
@click.argument("name")
@click.argument("amount")
@click.option("--chain-id", default="", help="Must be the genesis file's.")
@click.option("--moniker", default="")
@click.option("--commission-rate", default="0.1", show_default=True)
@click.option("--commission-max-rate", default="0.2", show_default=True)
@click.option("--commission-max-change-rate", default="0.01", show_default=True)
@click.option("--min-self-delegation", default="1", show_default=True)
@click.option("--details", default="")
@click.option("--website", default="")
@click.option("--identity", default="")
@click.option("--security-contact", default="")
@click.option("--ip", default="127.0.0.1", show_default=True)
@click.option("--output-document", type=click.Path(), default=None)
@click.option("--fees", default="", help="Fee of the genesis transaction.")
@keyring_options
@click.pass_context
def gentx(ctx: click.Context, /, name: str, amount: str, **options: Any) -> None:
    """Sign a genesis transaction that makes this node a validator with a self-delegation.

    \b
    stchaind genesis gentx alice 1000000000000000000wei --chain-id stratos-dev-1
    """
    home = home_of(ctx)
    made = document.load(home.genesis)
    if options["chain_id"] and options["chain_id"] != made["chain_id"]:
        raise click.ClickException(f"--chain-id is {options['chain_id']}, the genesis file's chain is {made['chain_id']}")
    key = user_keyring().find(name)
    if key.private_key is None:
        raise click.ClickException(f"{name} has no private key here: a gentx must be signed")
    [coin] = parse_coins(amount) or [None]
    assert coin is not None, "parse_coins gives a coin or raises"
    held = [one for one in made["app_state"]["bank"]["balances"] if one["address"] == bech32.encode(key.address)]
    if not held:
        raise click.ClickException(f"account {name} has no coins in the genesis file: run `stchaind genesis add-genesis-account` first")
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        validator_address=bech32.encode(key.address, bech32.VALIDATOR),
        pubkey=public_key_to_any(nodekeys.validator_key(home)),
        min_self_delegation=options["min_self_delegation"],
    )
    message.value.denom, message.value.amount = coin.denom, str(coin.amount)
    description = message.description
    description.moniker = options["moniker"] or str(config.read_comet(home)["moniker"])
    for field in ("details", "website", "identity", "security_contact"):
        setattr(description, field, options[field])
    message.commission.rate = dec_wire(options["commission_rate"])
    message.commission.max_rate = dec_wire(options["commission_max_rate"])
    message.commission.max_change_rate = dec_wire(options["commission_max_change_rate"])
    _check(message)
    node = nodekeys.node_id(home)
    unsigned = build_tx(
        [message], fee=parse_coins(options["fees"]), gas_limit=GAS_LIMIT, signers=[Signer(key.public_key, 0)], memo=f"{node}@{options['ip']}:26656"
    )
    raw = unsigned.sign([key.private_key], made["chain_id"])
    path = Path(options["output_document"]) if options["output_document"] else home.root / "config" / "gentx" / f"gentx-{node}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(tx_message(raw)), separators=(",", ":")) + "\n")
    click.echo(f'Genesis transaction written to "{path}"', err=True)


@genesis.command("collect-gentxs")
@click.option("--gentx-dir", type=click.Path(), default=None, help="Folder of the gentxs (default: config/gentx).")
@home_option
@click.pass_context
def collect_gentxs(ctx: click.Context, /, gentx_dir: str | None, **_: Any) -> None:
    """Put every gentx into the genesis file."""
    home = home_of(ctx)
    folder = Path(gentx_dir) if gentx_dir else home.root / "config" / "gentx"
    found = sorted(folder.glob("*.json"))
    if not found:
        raise click.ClickException(f"there are no gentxs in {folder}: make one with `stchaind genesis gentx`")
    made = document.load(home.genesis)
    made["app_state"]["genutil"]["gen_txs"] = [loads(path.read_bytes()) for path in found]
    build.validate(made, modules())
    document.save(made, home.genesis)
    told = {"chain_id": made["chain_id"], "gentxs_dir": str(folder), "node_id": nodekeys.node_id(home)}
    click.echo(json.dumps(told, separators=(",", ":")), err=True)


@genesis.command()
@click.argument("file", required=False)
@home_option
@click.pass_context
def validate(ctx: click.Context, /, file: str | None, **_: Any) -> None:
    """Check a genesis file (default: the home's)."""
    path = Path(file) if file else home_of(ctx).genesis
    build.validate(document.load(path), modules())
    click.echo(f"File at {path} is a valid genesis file", err=True)


@genesis.command()
@home_option
@click.pass_context
def comet(ctx: click.Context, /, **_: Any) -> None:
    """Write the copy of the genesis file that CometBFT reads, for a CometBFT that you start yourself."""
    home = home_of(ctx)
    document.save(document.comet_shape(document.load(home.genesis)), home.comet_genesis)
    click.echo(str(home.comet_genesis))


def tx_message(raw: bytes) -> Any:
    """``cosmos.tx.v1beta1.Tx`` of TxRaw bytes."""
    parts = message_class("cosmos.tx.v1beta1.TxRaw").FromString(raw)
    tx = message_class("cosmos.tx.v1beta1.Tx")(signatures=parts.signatures)
    tx.body.ParseFromString(parts.body_bytes)
    tx.auth_info.ParseFromString(parts.auth_info_bytes)
    return tx


def _check(message: Any) -> None:
    for module in modules():
        handler = module.messages.get(message.DESCRIPTOR.full_name)
        if handler is not None:
            handler.check_stateless(message)
            return
    raise GenesisError("gentx", "this chain has no staking module")
