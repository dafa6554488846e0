"""The command ``spd``: a meta node, its ledger, and what anyone can check of an epoch."""

from __future__ import annotations

if __name__ == "__main__":
    # Before the other imports, which take a while; it does not return.
    from sds_node.cli.launch import spd

    spd()

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import Any, Final

import click
import uvloop

from chain import metakeys
from chain.config import ConfigError
from chain.crypto import hd
from chain.crypto.keys import PrivateKey
from sds_node import keystore
from sds_node import settings as settings_file
from sds_node.cli.output import OURS, Commands, configure_logs, output_option, password, password_option, remark, show
from sds_node.cli.spd_epochs import epoch_batch, verify_epoch
from sds_node.cli.spd_ledger import ledger
from sds_node.control import ControlError, ControlServer, ask
from sds_node.keystore import Kind, StoredKey
from sds_node.memory import keep_freed_memory
from sds_node.meta.books.books import BooksError
from sds_node.meta.daemon.home import DEFAULT, Home, HomeError, Keys, Network, Settings
from sds_node.meta.daemon.home import Chain as ChainSettings
from sds_node.meta.daemon.node import MetaNode
from sds_node.meta.daemon.running import Running
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.rebuild.lagging import LaggingError
from sds_node.meta.relay.reading import ObservingError
from sds_node.meta.relay.unreported import UnreportedError
from sds_node.meta.users.roots import RootsError

VERSION: Final = "0.1.0"
SPD_ERRORS: Final[tuple[type[Exception], ...]] = (
    *OURS, ConfigError, HomeError, LedgerError, BooksError, RootsError, LaggingError, UnreportedError, ObservingError, ControlError
)  # fmt: skip


class Root(Commands):
    """``spd`` itself."""

    expected = SPD_ERRORS


def home_option(command: Any) -> Any:
    """``--home``."""
    text = "Folder of the meta node (default: $SPD_HOME, else ~/.spd)."
    return click.option("--home", type=click.Path(file_okay=False), default=None, help=text)(command)


def root_of(ctx: click.Context) -> Path:
    """The home that was named, here or before the command."""
    given = ctx.params.get("home") or (ctx.parent.params.get("home") if ctx.parent else None) or os.environ.get("SPD_HOME")
    return Path(given or DEFAULT).expanduser().absolute()


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@home_option
@click.option("--trace", is_flag=True, help="Show the full stack of errors.")
@click.version_option(VERSION, prog_name="spd")
def cli(home: str | None, trace: bool) -> None:
    """Stratos storage: run a meta node, which places shares, settles receipts and reports epochs.

    \b
    spd init --owner-mnemonic-file owner.txt --meta-keys ~/.stchaind/config/meta_keys.json
    spd start
    spd status
    """
    configure_logs("warn", "plain")


@cli.command()
@click.option("--rpc", default=ChainSettings.rpc, show_default=True, help="CometBFT RPC of a value-chain node.")
@click.option("--host", default=Network.host, show_default=True, help="Address to listen at; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65_535), default=Network.port, show_default=True, help="TCP port of the wire.")
@click.option(
    "--meta-keys", type=click.Path(dir_okay=False), default=None, help="The node's keys, as `stchaind meta-keys new` writes them (default: new ones)."
)
@click.option(
    "--owner-mnemonic-file", type=click.File("r"), default=None, help="A file with the words of the wallet that owns it (default: asked for)."
)
@click.option("--hd-path", default=hd.DEFAULT_PATH, show_default=True, help="Where in the words the key is.")
@password_option
@home_option
@output_option
@click.pass_context
def init(
    ctx: click.Context, /, rpc: str, host: str, port: int, meta_keys: str | None, owner_mnemonic_file: Any, hd_path: str, password_file: str | None,
    output: str, **_: Any,
) -> None:  # fmt: skip
    """Make the home of a meta node: settings, the key of its owner (sealed with a password), its own keys.

    \b
    spd init --rpc http://127.0.0.1:26657 --owner-mnemonic-file owner.txt
    """
    root = root_of(ctx)
    words = owner_mnemonic_file.read() if owner_mnemonic_file else click.prompt("words of the owner's wallet", hide_input=True)
    mnemonic = " ".join(words.split())
    key = hd.derive(mnemonic, hd_path, "eth_secp256k1")
    stored = StoredKey(Kind.WALLET, key.raw, name="owner", hd_path=hd_path, mnemonic=mnemonic)
    own = str(Path(meta_keys).expanduser().absolute()) if meta_keys else ""
    made = Home(
        root,
        Settings(
            chain=ChainSettings(rpc=rpc),
            network=Network(host=host, port=port),
            keys=Keys(meta_keys=own, owner=stored.address_text, password_file=str(Path(password_file).absolute()) if password_file else ""),
        ),
    )
    if own:
        metakeys.read(Path(own))
    secret = password(password_file)
    made.make()
    keystore.save(root / "accounts", stored, secret)
    if not own:
        metakeys.MetaKeys.new().save(made.meta_keys)
    node = metakeys.read(made.meta_keys)
    show(
        {"home": str(root), "node": node.network_address, "pubkey": node.network_pubkey, "owner": stored.address_text},
        output,
        f"{node.network_address}, owned by {stored.address_text}, has its home in {root}; register it (docs/meta-nodes.md), then `spd start`",
    )


@cli.command()
@click.option("--log-level", type=click.Choice(["debug", "info", "warn", "error"]), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(["plain", "json"]), default="plain", show_default=True)
@password_option
@home_option
@click.pass_context
def start(ctx: click.Context, /, log_level: str, log_format: str, password_file: str | None, **_: Any) -> None:
    """Run the meta node until SIGTERM or Ctrl-C.

    \b
    spd start --password-file /etc/spd/password --log-format json
    """
    home = Home.open(root_of(ctx))
    configure_logs(log_level, log_format)
    held = home.lock()
    try:
        secret = password(password_file or home.settings.keys.password_file or None)
        owner = PrivateKey(keystore.load(home.owner, secret).private_key, "eth_secp256k1")
        keep_freed_memory()
        uvloop.run(_run(home, owner))
    finally:
        os.close(held)


async def _run(home: Home, owner: PrivateKey) -> None:
    running = Running(home, owner)
    control: ControlServer | None = None

    async def begun(node: MetaNode) -> None:
        nonlocal control

        async def status(_: Any) -> Any:
            return node.status()

        async def stop(_: Any) -> Any:
            running.stop()
            return {"is_stopping": True}

        control = ControlServer(socket_of(home.root), {"status": status, "stop": stop})
        await control.start()

    try:
        await running.run(begun)
    finally:
        if control is not None:
            await control.close()


def socket_of(root: Path) -> Path:
    """How commands reach the node that runs in a home."""
    return root / "spd.sock"


@cli.command()
@home_option
@output_option
@click.pass_context
def status(ctx: click.Context, /, output: str, **_: Any) -> None:
    """How the running meta node is: what it followed of the chain, its ledger, its nodes.

    \b
    spd status -o json
    """
    show(asyncio.run(ask(socket_of(root_of(ctx)), "status")), output)


@cli.command()
@home_option
@click.pass_context
def stop(ctx: click.Context, /, **_: Any) -> None:
    """Stop the running meta node as it should be."""
    asyncio.run(ask(socket_of(root_of(ctx)), "stop"))
    remark("it stops")


@cli.group("config")
def config_group() -> None:
    """Read and change settings."""


@config_group.command("get")
@click.argument("name")
@home_option
@output_option
@click.pass_context
def config_get(ctx: click.Context, /, name: str, output: str, **_: Any) -> None:
    """A setting, as `spd config get network.port`."""
    found = settings_file.get(Home.open(root_of(ctx)).settings, name)
    show({name: found}, output, str(found))


@config_group.command("set")
@click.argument("pairs", nargs=-1, required=True, metavar="NAME VALUE [NAME VALUE]…")
@home_option
@click.pass_context
def config_set(ctx: click.Context, /, pairs: tuple[str, ...], **_: Any) -> None:
    """Change settings, all of them or none, as `spd config set network.port 18881`; the node takes them at its next start."""
    if len(pairs) % 2:
        raise click.UsageError(f"expected a value after each name, got {len(pairs)} words")
    home = Home.open(root_of(ctx))
    settings = home.settings
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        settings = settings_file.changed(settings, name, value)
    dataclasses.replace(home, settings=settings).save()


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes spd in a shell.

    \b
    eval "$(spd completion bash)"
    """
    os.environ["_SPD_COMPLETE"] = f"{shell}_source"
    click.Group.main(cli, args=[], prog_name="spd", complete_var="_SPD_COMPLETE")


for _command in (verify_epoch, epoch_batch, ledger):
    cli.add_command(_command)


def main() -> None:
    """The program; it is begun by its launcher."""
    cli(prog_name="spd")
