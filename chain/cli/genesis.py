"""``stchaind init`` and ``stchaind genesis``: making a chain."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from mnemonic import Mnemonic

from chain import config, nodekeys
from chain.app import CHECK_GENTX, build_application
from chain.cli.keyring import keyring_options, user_keyring
from chain.cli.options import UINT64, fee_of, home_of, home_option, ignored, output_option, taken_as_simd_takes_them
from chain.codec.json import from_json, loads, to_json
from chain.codec.registry import Any_, message_class, unpack_any
from chain.codec.times import parse_rfc3339
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.crypto.terminal import ask_line
from chain.dec import dec_wire
from chain.errors import AppError, InvalidAddress
from chain.module import GenesisError, Module
from chain.node import VERSION
from chain.store.kv import MemoryBackend
from chain.tx.build import Signer, build_tx
from chain.tx.fees import parse_amounts
from chain.tx.signing import DIRECT, LEGACY_AMINO_JSON
from genesis import build, document
from genesis import migrate as migration

GAS_LIMIT = 200_000
META_NODES = "genmetanodes"
"""In a home's config: files of meta nodes that the chain begins with."""
_GENTX = re.compile(r"app_state\.genutil\.gen_txs\[([0-9]+)\]")


def modules() -> tuple[Module, ...]:
    """The chain's modules, over nothing."""
    return build_application(MemoryBackend()).modules


@click.command()
@click.argument("moniker")
@click.option("--chain-id", default="", help="The chain's id (default: made up).")
@click.option("--initial-height", default=1, show_default=True)
@click.option("--default-denom", default="wei", show_default=True, help="The staking denom.")
@click.option("-o", "--overwrite", is_flag=True, help="Replace an existing genesis file.")
@click.option("--recover", is_flag=True, help="Ask for a mnemonic, and derive the validator key from it.")
@home_option
@click.pass_context
def init(
    ctx: click.Context, /, moniker: str, chain_id: str, initial_height: int, default_denom: str, overwrite: bool, recover: bool, **_: Any
) -> None:
    """Make the home of a new node: keys, configuration and a default genesis file.

    \b
    stchaind init my-node --chain-id stratos-dev-1
    """
    home = home_of(ctx)
    if home.genesis.exists() and not overwrite:
        raise click.ClickException(f"genesis.json file already exists: {home.genesis}; use --overwrite to replace it")
    if not moniker.strip(" ") or not (moniker.isascii() and moniker.isprintable()):
        raise click.ClickException(f"CometBFT takes a moniker of printable ASCII characters, got {moniker[:60]!r}")
    now = datetime.now(UTC)
    chain_id = chain_id or f"test-chain-{now.strftime('%H%M%S')}"
    mnemonic = ""
    if recover:
        mnemonic = " ".join(ask_line("Enter your bip39 mnemonic").split())
        if not Mnemonic("english").check(mnemonic):
            raise click.ClickException("invalid mnemonic: expected 12 to 24 English BIP-39 words with a valid checksum")
        if home.validator_key.exists():
            raise click.ClickException(f"{home.validator_key} exists: move it away before recovering another key")
    made = build.default_document(modules(), chain_id, now.strftime("%Y-%m-%dT%H:%M:%S.%f000Z"), VERSION, initial_height)
    made["app_state"]["staking"]["params"]["bond_denom"] = default_denom
    made = document.normalise(made)
    build.validate(made, modules())
    nodekeys.create_missing(home, mnemonic)
    if not home.comet_config.exists() or overwrite:
        config.write_defaults(home, moniker)
    if not home.client_config.exists() or overwrite:
        config.write_client(home, chain_id)
    document.save(made, home.genesis)
    _tell(home, moniker, "", made)


def _tell(home: config.Home, moniker: str, gentxs_folder: str, made: dict[str, Any]) -> None:
    told = {
        "moniker": moniker,
        "chain_id": made["chain_id"],
        "node_id": nodekeys.node_id(home),
        "gentxs_dir": gentxs_folder,
        "app_message": made["app_state"],
    }
    click.echo(json.dumps(told, indent=1, ensure_ascii=False), err=True)


@click.group()
def genesis() -> None:
    """Make and check the genesis file."""


@genesis.command("add-genesis-account")
@click.argument("address_or_name")
@click.argument("amount")
@click.option("--append", is_flag=True, help="Add coins to an account that is there already.")
@click.option("--vesting-amount", default="", help="The part of the amount that is locked at first.")
@click.option("--vesting-start-time", type=int, default=0, help="Unix seconds from which it is freed evenly; 0 frees all of it at the end.")
@click.option("--vesting-end-time", type=int, default=0, help="Unix seconds at which all of it is free.")
@click.option("--module-name", default="", help="Make the account of this module.")
@ignored("--node")
@ignored("--grpc-addr")
@ignored("--grpc-insecure", is_flag=True)
@ignored("--height")
@output_option
@keyring_options
@click.pass_context
def add_genesis_account(ctx: click.Context, /, address_or_name: str, amount: str, append: bool, vesting_amount: str, **options: Any) -> None:
    """Give an address (or a key of the keyring) coins in the genesis file.

    \b
    stchaind genesis add-genesis-account alice 1000000000000000000wei
    stchaind genesis add-genesis-account st1… 10stos --vesting-amount 9stos --vesting-end-time 1893456000
    """
    home = home_of(ctx)
    try:
        address = bech32.decode(address_or_name)
    except InvalidAddress:
        address = user_keyring().find(address_or_name).address
    made, coins = document.load(home.genesis), parse_amounts(amount)
    account = None
    if vesting_amount:
        account = build.vesting_account(address, coins, parse_amounts(vesting_amount), options["vesting_start_time"], options["vesting_end_time"])
    elif options["module_name"]:
        account = build.module_account(address, options["module_name"])
    build.add_account(made, address, coins, append=append, account=account)
    build.validate(made, modules())
    document.save(made, home.genesis)


@genesis.command("add-genesis-meta-node")
@click.option("--gen-meta-node-dir", type=click.Path(), default=None, help=f"Folder of the meta nodes' files (default: config/{META_NODES}).")
@home_option
@click.pass_context
def add_genesis_meta_node(ctx: click.Context, /, gen_meta_node_dir: str | None, **_: Any) -> None:
    """Put every meta node's file into the genesis file; `stchaind meta-keys gen-meta-node` writes one. Its owner needs an account with the deposit.

    \b
    stchaind genesis add-genesis-meta-node
    """
    home = home_of(ctx)
    folder = Path(gen_meta_node_dir) if gen_meta_node_dir else home.root / "config" / META_NODES
    found = sorted(path for path in folder.glob("*.json") if path.is_file())
    if not found:
        raise click.ClickException(f"there are no meta nodes in {folder}: make one with `stchaind meta-keys gen-meta-node`")
    made = document.load(home.genesis)
    for path in found:
        try:
            node = loads(path.read_bytes())
        except OSError as error:
            raise click.ClickException(f"{path} cannot be read ({error.strerror})") from None
        except AppError as error:
            raise click.ClickException(f"{path}: {error.detail}") from None
        if not isinstance(node, dict):
            raise click.ClickException(f"{path} is no meta node: expected a JSON object as `stchaind meta-keys gen-meta-node` writes it")
        build.add_meta_node(made, node, str(path))
        require_deposit(made, node, path)
    build.validate(made, modules())
    document.save(made, home.genesis)
    click.echo(f"{len(found)} meta nodes added", err=True)


def require_deposit(made: dict[str, Any], node: dict[str, Any], path: Path) -> None:
    """Raise ClickException when the owner of a meta node in the file ``path`` has less than its deposit and those of his other nodes."""
    owner, denom = node["owner_address"], node["tokens"]["denom"]
    nodes = made["app_state"]["register"]["meta_nodes"]
    needed = sum(int(one["tokens"]) for one in nodes if one["owner_address"] == owner)
    held = [one for one in made["app_state"]["bank"]["balances"] if one["address"] == owner]
    owned = sum(int(coin["amount"]) for one in held for coin in one["coins"] if coin["denom"] == denom)
    if owned < needed:
        raise click.ClickException(
            f"{path}: {owner} has {owned}{denom} in the genesis file, less than the {needed}{denom} of meta nodes: "
            "run `stchaind genesis add-genesis-account` first"
        )


@genesis.command()
@taken_as_simd_takes_them
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
@click.option("--p2p-port", type=click.IntRange(1, 65535), default=26656, show_default=True)
@click.option("--node-id", default="", help="The node's id (default: this home's).")
@click.option("--pubkey", default="", help="The validator's public key, as `comet show-validator` prints it (default: this home's).")
@click.option("--output-document", type=click.Path(), default=None)
@click.option("--fees", default="", help="Fee of the genesis transaction.")
@click.option("--gas-prices", default="", help="Price of gas, as 1000000000wei: the fee follows from it.")
@click.option("--gas", type=UINT64, default=GAS_LIMIT, show_default=True)
@click.option("--timeout-height", type=UINT64, default=0, help="Not valid above this height.")
@click.option("--sign-mode", type=click.Choice(["direct", "amino-json"]), default="direct", show_default=True)
@ignored("--amount", "amount_again")
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
    coins = parse_amounts(amount)
    if len(coins) != 1:
        raise click.ClickException(f"the self-delegation is one coin, as 1000000000000000000wei, got {amount[:60]!r}")
    [coin] = coins
    held = [one for one in made["app_state"]["bank"]["balances"] if one["address"] == bech32.encode(key.address)]
    if not held:
        raise click.ClickException(f"account {name} has no coins in the genesis file: run `stchaind genesis add-genesis-account` first")
    owned = sum(int(one["amount"]) for one in held[0]["coins"] if one["denom"] == coin.denom)
    if owned < coin.amount:
        raise click.ClickException(f"account {name} has {owned}{coin.denom} in the genesis file, less than the {coin.amount}{coin.denom} to stake")
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        validator_address=bech32.encode(key.address, bech32.VALIDATOR),
        pubkey=from_json(Any_, loads(options["pubkey"])) if options["pubkey"] else public_key_to_any(nodekeys.validator_key(home)),
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
    CHECK_GENTX(message)
    node = options["node_id"] or nodekeys.node_id(home)
    memo = f"{node}@{options['ip']}:{options['p2p_port']}"
    signer = Signer(key.public_key, 0, mode=LEGACY_AMINO_JSON if options["sign_mode"] == "amino-json" else DIRECT)
    fee = fee_of(options, options["gas"])
    unsigned = build_tx([message], fee=fee, gas_limit=options["gas"], signers=[signer], memo=memo, timeout_height=options["timeout_height"])
    raw = unsigned.sign([key.private_key], made["chain_id"])
    path = Path(options["output_document"]) if options["output_document"] else home.root / "config" / "gentx" / f"gentx-{node}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(json.dumps(to_json(tx_message(raw)), separators=(",", ":")) + "\n")
    except FileExistsError:
        raise click.ClickException(f"{path} exists: move it away, or name another file with --output-document") from None
    click.echo(f'Genesis transaction written to "{path}"', err=True)


@genesis.command("collect-gentxs")
@click.option("--gentx-dir", type=click.Path(), default=None, help="Folder of the gentxs (default: config/gentx).")
@home_option
@click.pass_context
def collect_gentxs(ctx: click.Context, /, gentx_dir: str | None, **_: Any) -> None:
    """Put every gentx into the genesis file."""
    home = home_of(ctx)
    folder = Path(gentx_dir) if gentx_dir else home.root / "config" / "gentx"
    found = sorted(path for path in folder.glob("*.json") if path.is_file())
    if not found:
        raise click.ClickException(f"there are no gentxs in {folder}: make one with `stchaind genesis gentx`")
    made = document.load(home.genesis)
    moniker = str(config.read_comet(home)["moniker"])
    gen_txs, peers = [], set()
    owners: dict[str, Path] = {}
    for path in found:
        tx = _read_gentx(path)
        gen_txs.append(tx)
        for what in _claims(tx):
            if owners.setdefault(what, path) is not path:
                raise click.ClickException(f"{owners[what]} and {path} have the same {what}: every validator needs its own; ask their operators")
        if tx["body"]["messages"][0].get("description", {}).get("moniker") != moniker:
            peers.add(tx["body"]["memo"])
    made["app_state"]["genutil"] = {"gen_txs": gen_txs}
    build.validate(made, modules())
    rehearse(made, found)
    config.update(home.comet_config, {"p2p.persistent_peers": ",".join(sorted(peers))})
    document.save(made, home.genesis)
    _tell(home, moniker, str(folder), made)


def _claims(tx: Any) -> tuple[str, ...]:
    """What no two gentxs may share."""
    [message] = tx["body"]["messages"]
    return f"operator {message['validator_address']}", f"consensus key {message['pubkey'].get('key')}"


def _read_gentx(path: Path) -> Any:
    """A gentx file's JSON, checked as far as it can be alone. Raises ClickException naming the file."""
    try:
        tx = loads(path.read_bytes())
        gentxs = next(module.genesis for module in modules() if module.name == "genutil")
        assert gentxs is not None, "genutil has a section"
        gentxs.validate({"gen_txs": [tx]})
        CHECK_GENTX(unpack_any(from_json(message_class("cosmos.tx.v1beta1.Tx"), tx).body.messages[0]))
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read ({error.strerror})") from None
    except AppError as error:
        raise click.ClickException(f"{path} is not a gentx: {error.detail}") from None
    except GenesisError as error:
        raise click.ClickException(f"{path} is not a gentx: {error.problem}") from None
    if not tx["body"].get("memo"):
        raise click.ClickException(f"{path} has no memo: expected the node's address as NODE_ID@IP:PORT; make it with `stchaind genesis gentx`")
    return tx


def rehearse(made: dict[str, Any], gentx_files: Sequence[Path] = ()) -> None:
    """Run InitChain of a genesis document on an empty chain in memory. Raises ClickException with the reason for which a node could not start."""
    app = build_application(MemoryBackend())
    request = message_class("tendermint.abci.RequestInitChain")(
        chain_id=made["chain_id"],
        app_state_bytes=json.dumps(made["app_state"]).encode(),
        initial_height=made["initial_height"],
        consensus_params=document.consensus_params(made),
    )
    request.time.seconds, request.time.nanos = parse_rfc3339(made["genesis_time"])
    try:
        app.init_chain(request)
    except GenesisError as error:
        at = _GENTX.fullmatch(error.path)
        if at is None or not gentx_files:
            raise
        hint = f"; was it signed for another chain than {made['chain_id']}, or changed since?" if "signature verification" in error.problem else ""
        raise click.ClickException(f"{gentx_files[int(at[1])]}: {error.problem}{hint}") from None
    except AppError as error:
        raise click.ClickException(error.detail) from None
    finally:
        app.close()


@genesis.command()
@click.argument("target", metavar="TARGET_VERSION")
@click.argument("file", metavar="GENESIS_FILE")
@click.option("--chain-id", default="", help="Another chain id.")
@click.option("--genesis-time", default="", help="Another genesis time, as 2026-01-01T00:00:00Z.")
@click.option("--output-document", type=click.Path(), default=None, help="Write here instead of to the screen.")
def migrate(target: str, file: str, chain_id: str, genesis_time: str, output_document: str | None) -> None:
    """Turn a genesis file of SDK 0.47 into one of 0.50.

    \b
    stchaind genesis migrate v0.50 exported.json --chain-id stratos-2 --output-document genesis.json
    """
    if target not in migration.TARGETS:
        raise click.ClickException(f"unknown migration function for version: {target} (supported versions {', '.join(migration.TARGETS)})")
    given = document.parse(Path(file))
    given.update({name: value for name, value in (("chain_id", chain_id), ("genesis_time", genesis_time)) if value})
    moved, left_out = migration.migrate(given, modules())
    _tell_left_out(left_out)
    if output_document:
        document.save(moved, Path(output_document))
    else:
        click.echo(json.dumps(moved, separators=(",", ":"), ensure_ascii=False))


@genesis.command()
@click.argument("file", required=False)
@home_option
@click.pass_context
def validate(ctx: click.Context, /, file: str | None, **_: Any) -> None:
    """Check a genesis file (default: the home's)."""
    path = Path(file) if file else home_of(ctx).genesis
    made, left_out = migration.read(path, modules())
    build.validate(made, modules())
    _tell_left_out(left_out)
    for warning in build.warnings(made, modules()):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"File at {path} is a valid genesis file")


@genesis.command()
@home_option
@click.pass_context
def comet(ctx: click.Context, /, **_: Any) -> None:
    """Write the copy of the genesis file that CometBFT reads, for a CometBFT that you start yourself."""
    home = home_of(ctx)
    made, left_out = migration.read(home.genesis, modules())
    _tell_left_out(left_out)
    document.save(document.comet_shape(made), home.comet_genesis)
    click.echo(str(home.comet_genesis))


def _tell_left_out(sections: Sequence[str]) -> None:
    if sections:
        click.echo(f"left out, since this version has no such modules: {', '.join(sections)}", err=True)


def tx_message(raw: bytes) -> Any:
    """``cosmos.tx.v1beta1.Tx`` of TxRaw bytes."""
    parts = message_class("cosmos.tx.v1beta1.TxRaw").FromString(raw)
    tx = message_class("cosmos.tx.v1beta1.Tx")(signatures=parts.signatures)
    tx.body.ParseFromString(parts.body_bytes)
    tx.auth_info.ParseFromString(parts.auth_info_bytes)
    return tx
