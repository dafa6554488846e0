"""``ppd init``, ``ppd keys``, ``ppd config``: a resource node's home, its keys, its settings."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from chain.crypto.hd import DEFAULT_PATH, derive, new_mnemonic
from sds_node import keystore, p2p, settings
from sds_node.cli.node_common import home_of, home_option, run
from sds_node.cli.output import new_password, other_password, output_option, password, password_option, remark, show, table
from sds_node.control import NotRunning, ask
from sds_node.keystore import KeyFileError, Kind, StoredKey
from sds_node.resource.daemon.config import Config, checked, split_endpoint
from sds_node.resource.daemon.home import Account, Home
from sds_node.value_chain.client import ValueChain

MAX_MNEMONIC_CHARACTERS: Final = 1_000


def new_keys(mnemonic: str, *, is_new_node: bool = False) -> tuple[StoredKey, StoredKey]:
    """The wallet's and the node's key of a mnemonic, as the original derives them. ``is_new_node``: a random node key, for a wallet's second node.

    Raises DerivationError for wrong words.
    """
    wallet = StoredKey(Kind.WALLET, derive(mnemonic).raw, "wallet", DEFAULT_PATH, mnemonic)
    if is_new_node:
        return wallet, StoredKey(Kind.P2P, p2p.new_key().seed, "node")
    return wallet, StoredKey(Kind.P2P, p2p.from_mnemonic(mnemonic).seed, "node", p2p.DEFAULT_PATH)


def keep_key(home: Home, key: StoredKey, secret: str) -> Account:
    """Keep a key; one that is there already stays, if the password opens it. Raises KeyFileError."""
    there = next((one for one in home.key_files() if one.address == key.address_text), None)
    if there is None:
        return home.add_key(key, secret)
    keystore.load(there.path, secret)
    return there


def read_mnemonic(file: str | None) -> str:
    """A mnemonic of a file, or a line of standard input; on a terminal it is asked for without echo."""
    if file:
        with Path(file).open() as source:
            return " ".join(source.read(MAX_MNEMONIC_CHARACTERS).split())
    if sys.stdin.isatty():
        return " ".join(str(click.prompt("mnemonic", hide_input=True, err=True)).split())
    return " ".join(sys.stdin.readline(MAX_MNEMONIC_CHARACTERS).split())


def chain_id_of(rpc: str) -> str:
    """The id of the chain that an RPC answers for. Raises ChainUnavailable."""

    async def asked() -> str:
        async with ValueChain(rpc) as chain:
            return (await chain.status()).chain_id

    return run(asked())


def options_of_init(command: Any) -> Any:
    """Flags that ``init`` and ``up`` share."""
    for option in reversed(
        [
            click.option("--chain-id", default="", help="The chain's id (default: asked of --rpc)."),
            click.option("--rpc", default="http://127.0.0.1:26657", show_default=True, help="CometBFT's RPC of a node that you trust."),
            click.option("--meta-node", "meta_nodes", multiple=True, metavar="STSDS1…@HOST:PORT", help="A meta node to begin with; may be repeated."),
            click.option(
                "--listen", default="127.0.0.1:18081", show_default=True, help="Where the node listens; 0.0.0.0:18081 to be reached from outside."
            ),
            click.option("--public-endpoint", default="", metavar="HOST:PORT", help="How others reach it (default: the address that they see)."),
            click.option("--relay", is_flag=True, help="For a node that cannot be reached: meta nodes relay to it."),
            click.option("--storage", default="storage", show_default=True, help="The folder of the shares; relative to the home."),
            click.option("--capacity", default="0", show_default=True, help="Most that shares take, as 500GiB; 0: what the disk has."),
            click.option("--reserve", default="1GiB", show_default=True, help="As much of the disk stays free."),
            click.option(
                "--monitor-port", type=click.IntRange(0, 65_535), default=18181, show_default=True, help="Port of metrics and page; 0: none."
            ),
            click.option(
                "--gateway-port", type=click.IntRange(0, 65_535), default=0, show_default=True, help="Port of JSON-RPC for applications; 0: none."
            ),
            click.option("--beneficiary", default="", metavar="ST1…", help="The wallet that is paid (default: the owner's)."),
            click.option("--recover", is_flag=True, help="Ask for the mnemonic of a wallet instead of making a new one."),
            click.option("--mnemonic-file", type=click.Path(dir_okay=False, exists=True), default=None, help="Read that mnemonic from a file."),
            click.option("--new-node-key", is_flag=True, help="A random node key, for a second node of the same wallet."),
        ]
    ):
        command = option(command)
    return password_option(home_option(command))


def make_home(home: Home, options: dict[str, Any], secret: str, mnemonic: str) -> Config:
    """Make keys and settings as the flags of ``options_of_init`` say. Raises HomeError, SettingsError, KeyFileError, ChainUnavailable."""
    host, port = split_endpoint("--listen", options["listen"]) if not options["listen"].endswith(":0") else (options["listen"].rpartition(":")[0], 0)
    config = Config()
    config = replace(
        config,
        chain=replace(config.chain, rpc=options["rpc"], id=options["chain_id"]),
        network=replace(
            config.network,
            listen_host=host,
            listen_port=port,
            public_endpoint=options["public_endpoint"],
            relay=options["relay"],
            meta_nodes=tuple(options["meta_nodes"]),
        ),
        storage=replace(config.storage, path=options["storage"], capacity=options["capacity"], reserve=options["reserve"]),
        monitor=replace(config.monitor, port=options["monitor_port"]),
        gateway=replace(config.gateway, enabled=options["gateway_port"] > 0, port=options["gateway_port"] or config.gateway.port),
        keys=replace(config.keys, beneficiary=options["beneficiary"]),
    )
    checked(config)
    if not config.chain.id:
        config = replace(config, chain=replace(config.chain, id=chain_id_of(config.chain.rpc)))
    wallet, node = new_keys(mnemonic, is_new_node=options["new_node_key"])
    home.accounts.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(home.root, 0o700)
    for key in (wallet, node):
        keep_key(home, key, secret)
    config = replace(config, keys=replace(config.keys, wallet=wallet.address_text, p2p=node.address_text))
    home.make(checked(config))
    return config


@click.command()
@options_of_init
@output_option
@click.pass_context
def init(ctx: click.Context, /, output: str, password_file: str | None, **options: Any) -> None:
    """Make the node's home: its keys, sealed with a password, and config.toml.

    A new wallet's mnemonic is shown once. Write it down: it is the only way to get wallet and node back.

    \b
    ppd init --meta-node stsds1…@meta.example.org:18080 --listen 0.0.0.0:18081 --capacity 4TB
    ppd init --recover --chain-id stratos-1 --password-file /etc/ppd/password
    """
    home = home_of(ctx)
    if home.is_made:
        raise click.ClickException(f"{home.config_path} is there already: change it with `ppd config set`, or name another --home")
    is_known = options["recover"] or options["mnemonic_file"]
    mnemonic = read_mnemonic(options["mnemonic_file"]) if is_known else new_mnemonic()
    config = make_home(home, options, new_password(password_file), mnemonic)
    told = {"home": str(home.root), "chain_id": config.chain.id, "wallet": config.keys.wallet, "node": config.keys.p2p}
    if not is_known and output == "json":
        told["mnemonic"] = mnemonic
    show(told, output)
    if not is_known and output == "text":
        remark(f"\nWrite down the mnemonic of this wallet, and show it to nobody:\n\n{mnemonic}\n")
    if not config.network.meta_nodes:
        remark("no meta node is set: `ppd config set network.meta_nodes stsds1…@host:port`")


# --- keys -----------------------------------------------------------------------------------------------------------------------------


@click.group()
def keys() -> None:
    """The node's keys: its owner's wallet and its own (P2P), sealed with one password."""


_kind = click.option("--type", "kind", type=click.Choice(["wallet", "p2p"]), default="wallet", show_default=True, help="Whose key it is.")
_use = click.option("--use", is_flag=True, help="Make it the node's, in place of the one that config.toml names.")


def _kept(ctx: click.Context, key: StoredKey, secret: str, *, use: bool, output: str, **more: str) -> None:
    home = home_of(ctx)
    account = home.add_key(key, secret)
    is_used = False
    if home.is_made:
        config, name = home.config(), "wallet" if key.kind is Kind.WALLET else "p2p"
        if use or not getattr(config.keys, name):
            home.save(checked(replace(config, keys=replace(config.keys, **{name: key.address_text}))))
            is_used = True
    show({"address": account.address, "type": key.kind.value, "file": str(account.path), "is_used": is_used, **more}, output)


@keys.command("add")
@_kind
@_use
@click.option("--name", default="", help="A name to remember it by.")
@password_option
@home_option
@output_option
@click.pass_context
def keys_add(ctx: click.Context, /, kind: str, use: bool, name: str, password_file: str | None, output: str, **_: Any) -> None:
    """Make a new key.

    \b
    ppd keys add --type p2p --use
    """
    mnemonic = new_mnemonic() if kind == "wallet" else ""
    raw, path = (derive(mnemonic).raw, DEFAULT_PATH) if mnemonic else (p2p.new_key().seed, "")
    key = StoredKey(Kind(kind), raw, name, path, mnemonic)
    secret = _password_of_home(home_of(ctx), password_file)
    _kept(ctx, key, secret, use=use, output=output, **({"mnemonic": mnemonic} if mnemonic and output == "json" else {}))
    if mnemonic and output == "text":
        remark(f"\nWrite down the mnemonic of this wallet, and show it to nobody:\n\n{mnemonic}\n")


@keys.command("import")
@click.argument("file", required=False, type=click.Path(dir_okay=False, exists=True))
@click.option("--mnemonic", "is_mnemonic", is_flag=True, help="Ask for a mnemonic instead of reading a key file.")
@click.option("--key-password-file", type=click.Path(dir_okay=False), default=None, help="The password of FILE (default: it is asked for).")
@_kind
@_use
@click.option("--name", default="", help="A name to remember it by (default: the file's).")
@password_option
@home_option
@output_option
@click.pass_context
def keys_import(
    ctx: click.Context,
    /,
    file: str | None,
    is_mnemonic: bool,
    key_password_file: str | None,
    kind: str,
    use: bool,
    name: str,
    password_file: str | None,
    output: str,
    **_: Any,
) -> None:
    """Take over a key file of the original's ppd (accounts/<address>.json) or of ours, or a mnemonic. It is sealed anew with this node's password.

    \b
    ppd keys import ~/rsnode/accounts/st1….json --use
    ppd keys import ~/rsnode/accounts/stsds1….json --use
    """
    if is_mnemonic == bool(file):
        raise click.UsageError("name a key file, or say --mnemonic")
    if file:
        # A file without a password of its own named is opened with one that is asked for, never with the node's.
        key = keystore.load(Path(file), other_password(key_password_file, f"password of {file}"))
        key = replace(key, name=name or key.name)
    else:
        wallet, node = new_keys(read_mnemonic(None))
        key = replace(wallet if kind == "wallet" else node, name=name or kind)
    _kept(ctx, key, _password_of_home(home_of(ctx), password_file), use=use, output=output)


@keys.command("list")
@home_option
@output_option
@click.pass_context
def keys_list(ctx: click.Context, /, output: str, **_: Any) -> None:
    """The keys that there are, and which of them the node uses."""
    home = home_of(ctx)
    used = set()
    if home.is_made:
        config = home.config()
        used = {config.keys.wallet, config.keys.p2p}
    found = [{"address": one.address, "type": one.kind.value, "is_used": one.address in used, "file": str(one.path)} for one in home.key_files()]
    show({"keys": found}, output, table(["ADDRESS", "TYPE", "USED", "FILE"], [list(one.values()) for one in found]))


@keys.command("export")
@click.argument("address")
@click.option("--to", "target", type=click.Path(file_okay=False), default=None, help="A folder: a key file of the original's format goes there.")
@click.option("--unsafe", is_flag=True, help="Print the private key in hex, for everybody who sees it.")
@password_option
@home_option
@output_option
@click.pass_context
def keys_export(ctx: click.Context, /, address: str, target: str | None, unsafe: bool, password_file: str | None, output: str, **_: Any) -> None:
    """Take a key elsewhere: as a key file that the original's ppd reads, or in hex.

    \b
    ppd keys export stsds1… --to ~/backup
    """
    if (target is None) != unsafe:
        raise click.UsageError("say where the key file goes with --to, or --unsafe")
    secret = password(password_file)
    key = home_of(ctx).load_key(address, secret)
    if target is None:
        show({"address": address, "private_key": key.private_key.hex()}, output)
        return
    folder = Path(target)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    show({"address": address, "file": str(keystore.save(folder, key, secret, original_format=True))}, output)


def _password_of_home(home: Home, file: str | None) -> str:
    """The password of the home's keys: a new one for the first key, else one that opens those that are there. Raises KeyFileError."""
    there = home.key_files()
    if not there:
        return new_password(file)
    secret = password(file)
    try:
        keystore.load(there[0].path, secret)
    except KeyFileError as error:
        raise type(error)(f"{error}; all keys of a home have one password") from None
    return secret


# --- settings -------------------------------------------------------------------------------------------------------------------------


@click.group("config")
def config_group() -> None:
    """The settings in config.toml. A running node takes them at its next start."""


@config_group.command("show")
@home_option
@output_option
@click.pass_context
def config_show(ctx: click.Context, /, output: str, **_: Any) -> None:
    """All settings."""
    config = home_of(ctx).config()
    values = {name: settings.get(config, name) for name in settings.names(Config)}
    show({name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}, output, settings.write(config).rstrip())


@config_group.command("get")
@click.argument("name", metavar="SECTION.NAME")
@home_option
@output_option
@click.pass_context
def config_get(ctx: click.Context, /, name: str, output: str, **_: Any) -> None:
    """One setting.

    \b
    ppd config get storage.capacity
    """
    value = settings.get(home_of(ctx).config(), name)
    value = list(value) if isinstance(value, tuple) else value
    text = ",".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)
    show({name: value}, output, text)


@config_group.command("set")
@click.argument("name", metavar="SECTION.NAME")
@click.argument("value")
@home_option
@click.pass_context
def config_set(ctx: click.Context, /, name: str, value: str, **_: Any) -> None:
    """Change a setting; a list is written with commas.

    \b
    ppd config set storage.capacity 4TB
    ppd config set network.meta_nodes stsds1…@a.example.org:18080,stsds1…@b.example.org:18080
    """
    set_value(home_of(ctx), name, value)


def set_value(home: Home, name: str, value: str) -> None:
    """Change a setting in config.toml. Raises SettingsError, HomeError."""
    home.save(checked(settings.changed(home.config(), name, value)))
    with contextlib.suppress(NotRunning):
        run(ask(home.socket_path, "status"))
        remark("the node runs with the old settings until it is started again")
