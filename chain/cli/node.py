"""``stchaind start``, ``status``, ``comet``, ``export``, ``rollback`` and ``version``."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from typing import Any

import click

from chain import config, nodekeys
from chain.cli.options import home_of, home_option, output_option, show
from chain.cli.tx import Remote, node_option
from chain.codec.json import to_json
from chain.comet import find_comet
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_message
from chain.node import VERSION, StartOptions, open_application, run
from chain.store.errors import VersionPruned
from genesis import document

_COMET_FLAGS = ("rpc.laddr", "p2p.laddr", "p2p.seeds", "p2p.persistent_peers", "consensus.timeout_commit", "moniker")


@click.command()
@click.option("--with-comet", type=bool, default=True, show_default=True, help="Run CometBFT as a child; false leaves it to you.")
@click.option("--transport", type=click.Choice(["socket"]), default="socket", show_default=True)
@click.option("--address", default="", help="Where the application listens (default: a unix socket in the home).")
@click.option("--minimum-gas-prices", default=None, help="As 1000000000wei.")
@click.option("--pruning", default=None, help="default, nothing, everything or custom.")
@click.option("--halt-height", type=int, default=None, help="Stop after this block.")
@click.option("--min-retain-blocks", type=int, default=None)
@click.option("--grpc.address", "grpc_address", default=None)
@click.option("--grpc.enable", "grpc_enable", type=bool, default=None)
@click.option("--api.enable", "api_enable", type=bool, default=None)
@click.option("--api.address", "api_address", default=None)
@click.option("--rpc.laddr", "rpc_laddr", default=None)
@click.option("--p2p.laddr", "p2p_laddr", default=None)
@click.option("--p2p.persistent_peers", "p2p_persistent_peers", default=None)
@home_option
@click.pass_context
def start(ctx: click.Context, /, with_comet: bool, transport: str, address: str, **given: Any) -> None:
    """Run the node: the application, gRPC, REST, and CometBFT.

    \b
    stchaind start
    stchaind start --with-comet=false --address tcp://127.0.0.1:26658
    """
    overrides = {
        name: given[option]
        for name, option in {
            "minimum-gas-prices": "minimum_gas_prices",
            "pruning": "pruning",
            "halt-height": "halt_height",
            "min-retain-blocks": "min_retain_blocks",
            "grpc.address": "grpc_address",
            "grpc.enable": "grpc_enable",
            "api.enable": "api_enable",
            "api.address": "api_address",
        }.items()
        if given[option] is not None
    }
    flags: list[str] = []
    for flag in _COMET_FLAGS:
        value = given.get(flag.replace(".", "_"))
        if value is not None:
            flags += [f"--{flag}", value]
    raise SystemExit(run(StartOptions(home_of(ctx), with_comet, address, flags, overrides)))


@click.command()
@node_option
@output_option
def status(node: str, output: str) -> None:
    """What a node says of itself."""
    remote = Remote(node)
    show(remote.call(lambda: remote.comet.call("status")), output)


@click.command()
@click.option("--long", "is_long", is_flag=True, help="With everything that was built in.")
@output_option
def version(is_long: bool, output: str) -> None:
    """The version of stchaind."""
    if not is_long:
        click.echo(VERSION)
        return
    python = f"python {platform.python_version()} {platform.system().lower()}/{platform.machine()}"
    show({"name": "stratos", "server_name": "stchaind", "version": VERSION, "cosmos_sdk_version": "v0.50.9", "python": python}, output)


@click.group()
def comet() -> None:
    """The node's keys and CometBFT's data."""


@comet.command("show-node-id")
@home_option
@click.pass_context
def show_node_id(ctx: click.Context, /, **_: Any) -> None:
    """The node's id among peers."""
    click.echo(nodekeys.node_id(home_of(ctx)))


@comet.command("show-validator")
@home_option
@click.pass_context
def show_validator(ctx: click.Context, /, **_: Any) -> None:
    """The public key that signs blocks."""
    key = nodekeys.validator_key(home_of(ctx))
    click.echo(json.dumps({"@type": key.type_url, **to_json(public_key_message(key))}, separators=(",", ":")))


@comet.command("show-address")
@home_option
@click.pass_context
def show_address(ctx: click.Context, /, **_: Any) -> None:
    """The address of the key that signs blocks."""
    click.echo(bech32.encode(nodekeys.validator_key(home_of(ctx)).address, bech32.CONSENSUS))


@comet.command("version")
def comet_version() -> None:
    """The version of the CometBFT that is found."""
    binary = find_comet()
    click.echo(subprocess.run([binary, "version"], capture_output=True, text=True).stdout.strip() if binary else "not found")


@comet.command("unsafe-reset-all")
@click.option("--keep-addr-book", is_flag=True)
@home_option
@click.pass_context
def unsafe_reset_all(ctx: click.Context, /, keep_addr_book: bool, **_: Any) -> None:
    """Delete all data of the chain in this home; keys stay, the validator's state starts anew."""
    home = home_of(ctx)
    shutil.rmtree(home.root / "data", ignore_errors=True)
    if not keep_addr_book:
        (home.root / "config" / "addrbook.json").unlink(missing_ok=True)
    nodekeys.create_missing(home)
    click.echo(f"Removed all blockchain history in {home.root / 'data'}", err=True)


@click.command()
@click.option("--height", type=int, default=-1, help="At this height (default: the latest).")
@click.option("--output-document", type=click.Path(), default=None, help="Write here instead of to the screen.")
@home_option
@click.pass_context
def export(ctx: click.Context, /, height: int, output_document: str | None, **_: Any) -> None:
    """Print the state as a genesis document; the node must be stopped."""
    home = home_of(ctx)
    made = document.load(home.genesis)
    app = open_application(home, config.read_app(home))
    try:
        if app.latest_height == 0:
            raise click.ClickException("the node has no block yet: there is nothing to export")
        at = None if height < 0 else height
        made = {
            **made,
            "initial_height": (app.latest_height if at is None else at) + 1,
            "app_state": app.export(at),
            "consensus": {"params": app.export_consensus_params(at)},
        }
    finally:
        app.close()
    text = json.dumps(made, separators=(",", ":"), ensure_ascii=False)
    if output_document:
        with open(output_document, "w") as file:
            file.write(text + "\n")
    else:
        click.echo(text)


@click.command()
@click.option("--hard", is_flag=True, help="Remove the last block from CometBFT's store, too.")
@home_option
@click.pass_context
def rollback(ctx: click.Context, /, hard: bool, **_: Any) -> None:
    """Undo the last block's state, in CometBFT and the application; the node must be stopped."""
    home = home_of(ctx)
    binary = find_comet()
    if binary is None:
        raise click.ClickException("CometBFT is not on PATH nor in the tool folder: its state has to be rolled back, too")
    app = open_application(home, config.read_app(home))
    try:
        target = app.latest_height - 1
        if target < 1:
            raise click.ClickException("there is no earlier block to go back to")
        answer = subprocess.run([binary, "rollback", "--home", str(home.root), *(["--hard"] if hard else [])], capture_output=True, text=True)
        if answer.returncode:
            raise click.ClickException(f"CometBFT cannot roll back: {answer.stderr.strip()[-300:] or answer.stdout.strip()[-300:]}")
        try:
            app.store.rollback(target)
        except VersionPruned as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"Rolled back state to height {target} and hash {app.store.app_hash.hex().upper()}")
    finally:
        app.close()
