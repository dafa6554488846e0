"""``stchaind start``, ``status``, ``comet``, ``export``, ``rollback`` and ``version``."""

from __future__ import annotations

import base64
import contextlib
import json
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from chain import config, nodekeys
from chain.cli.options import UINT63, home_of, home_option, output_option, refused, show, yes_or_no
from chain.cli.tx import Remote, node_option
from chain.codec.json import to_json
from chain.comet import find_comet
from chain.config import Home
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, public_key_message
from chain.errors import AppError, InvariantBroken
from chain.node import VERSION, StartOptions, open_application, run
from chain.store.errors import CorruptStore, VersionPruned
from chain.store.kv import open_backend
from genesis import document

_COMET_FLAGS = {
    "moniker": "",
    "rpc.laddr": "",
    "rpc.unsafe": "true",
    "p2p.laddr": "",
    "p2p.external-address": "",
    "p2p.seeds": "",
    "p2p.persistent_peers": "",
    "p2p.pex": "true",
    "p2p.seed_mode": "true",
    "p2p.private_peer_ids": "",
    "p2p.unconditional_peer_ids": "",
    "priv_validator_laddr": "",
    "consensus.double_sign_check_height": "",
    "consensus.create_empty_blocks": "true",
    "consensus.create_empty_blocks_interval": "",
    "rpc.grpc_laddr": "",
    "rpc.pprof_laddr": "",
    "db_backend": "",
}
"""Flags that go to CometBFT as they are, and what they mean without a value where that is allowed."""


def _comet_flags(command: Any) -> Any:
    for flag, alone in reversed(_COMET_FLAGS.items()):
        told: dict[str, Any] = {"is_flag": False, "flag_value": alone} if alone else {}
        command = click.option(f"--{flag}", _parameter(flag), default=None, help="Instead of what config.toml says.", **told)(command)
    return command


def _simd_flags(command: Any) -> Any:
    """Flags of simd that do nothing here or cannot be had."""
    for flag, why in reversed(_WITHOUT_EFFECT.items()):
        kind: dict[str, Any] = {"type": click.BOOL, "is_flag": False, "flag_value": "true"} if flag in _SWITCHES_WITHOUT_EFFECT else {}
        command = click.option(
            f"--{flag}", _parameter(flag), default=None, expose_value=False, help=f"Accepted for scripts that are written for simd: {why}.", **kind
        )(command)
    for flag, why in reversed(_NOT_TO_BE_HAD.items()):
        command = refused(f"--{flag}", why, is_flag=flag == "grpc-only", is_shown=True)(command)
    return command


_WITHOUT_EFFECT = {
    "inter-block-cache": "what blocks read is always kept in memory",
    "iavl-disable-fastnode": "the tree has no second index to leave out",
    "grpc-web.enable": "there is no gRPC-web, pages call REST",
    "query-gas-limit": "queries are not metered",
    "api.max-open-connections": "the server bounds them itself",
    "api.rpc-read-timeout": "the server has its own limits",
    "api.rpc-write-timeout": "the server has its own limits",
    "api.rpc-max-body-bytes": "the server has its own limits",
    "abci": "CometBFT is always asked through a socket",
    "proxy_app": "CometBFT is told where the application listens, see --address",
    "shutdown-grace": "a node that stops waits for its parts anyway",
}
_SWITCHES_WITHOUT_EFFECT = ("inter-block-cache", "iavl-disable-fastnode", "grpc-web.enable")
_NOT_TO_BE_HAD = {
    "trace-store": "the store writes no trace of its operations: `stchaind query store` shows single keys, `stchaind export` the whole state",
    "cpu-profile": "the application is no Go program: profile it with py-spy, and CometBFT through --rpc.pprof_laddr",
    "genesis_hash": "CometBFT reads a copy of the genesis file in its own shape: compare `sha256sum config/genesis.json` before the start",
    "db_dir": "CometBFT's data stay in the home, where the guard against double signing reads them: choose another --home",
    "grpc-only": "the servers answer from a running application: start with --with-comet=false, which serves queries and makes no blocks",
}


def _parameter(flag: str) -> str:
    return flag.replace(".", "_").replace("-", "_")


class _Heights(click.ParamType[Any]):
    """Block heights, comma-separated."""

    name = "heights"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        parts = str(value).split(",")
        if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
            self.fail(f"expected block heights as 100,200, got {value[:60]!r}", param, ctx)
        return tuple(map(int, parts))


class _PoolSize(click.IntRange):
    """How many transactions, or -1, which is simd's word for no pool and 0 here."""

    def __init__(self) -> None:
        super().__init__(-1, (1 << 63) - 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return max(int(super().convert(value, param, ctx)), 0)


@click.command()
@yes_or_no("--with-comet", "--with-tendermint", default=True, show_default=True, help="Run CometBFT as a child; false leaves it to you.")
@click.option("--transport", type=click.Choice(["socket"]), default="socket", show_default=True)
@click.option("--address", default="", help="Where the application listens (default: a unix socket in the home).")
@click.option("--minimum-gas-prices", default=None, help="As 1000000000wei.")
@click.option("--pruning", default=None, help="default, nothing, everything or custom.")
@click.option("--pruning-keep-recent", type=UINT63, default=None, help="With --pruning custom: how many recent versions are kept.")
@click.option("--pruning-interval", type=UINT63, default=None, help="With --pruning custom: prune each so many blocks.")
@click.option("--halt-height", type=UINT63, default=None, help="Stop after this block.")
@click.option("--halt-time", type=UINT63, default=None, help="Stop before the first block after this Unix time in seconds.")
@click.option("--min-retain-blocks", type=UINT63, default=None)
@click.option("--inv-check-period", type=click.IntRange(0, (1 << 31) - 1), default=None, help="Check the invariants each so many blocks; 0 never.")
@click.option("--x-crisis-skip-assert-invariants", "skip_invariants", is_flag=True, default=None, help="Do not check them on the genesis state.")
@click.option("--unsafe-skip-upgrades", type=_Heights(), default=None, help="Heights, comma-separated, at which the upgrade plan is dropped.")
@click.option("--state-sync.snapshot-interval", "snapshot_interval", type=UINT63, default=None, help="Take a snapshot each so many blocks; 0 never.")
@click.option("--state-sync.snapshot-keep-recent", "snapshot_keep_recent", type=UINT63, default=None, help="How many snapshots are kept.")
@click.option("--grpc.address", "grpc_address", default=None)
@yes_or_no("--grpc.enable", "grpc_enable", default=None)
@yes_or_no("--api.enable", "api_enable", default=None)
@click.option("--api.address", "api_address", default=None)
@yes_or_no("--api.swagger", "api_swagger", default=None, help="Serve the page that lists the REST routes at /swagger/.")
@yes_or_no("--api.enabled-unsafe-cors", "api_cors", default=None, help="Let pages of any origin call REST.")
@click.option("--mempool.max-txs", "pool_txs", type=_PoolSize(), default=None, help="Size of the application's own pool; 0 and -1: none.")
@_comet_flags
@_simd_flags
@click.option("--accept-signing-state", is_flag=True, help="Start although priv_validator_state.json does not fit the key or the blocks.")
@home_option
@click.pass_context
def start(ctx: click.Context, /, with_comet: bool, transport: str, address: str, accept_signing_state: bool, **given: Any) -> None:
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
            "pruning-keep-recent": "pruning_keep_recent",
            "pruning-interval": "pruning_interval",
            "halt-height": "halt_height",
            "halt-time": "halt_time",
            "min-retain-blocks": "min_retain_blocks",
            "inv-check-period": "inv_check_period",
            "x-crisis-skip-assert-invariants": "skip_invariants",
            "unsafe-skip-upgrades": "unsafe_skip_upgrades",
            "state-sync.snapshot-interval": "snapshot_interval",
            "state-sync.snapshot-keep-recent": "snapshot_keep_recent",
            "grpc.address": "grpc_address",
            "grpc.enable": "grpc_enable",
            "api.enable": "api_enable",
            "api.address": "api_address",
            "api.swagger": "api_swagger",
            "api.enabled-unsafe-cors": "api_cors",
            "mempool.max-txs": "pool_txs",
        }.items()
        if given[option] is not None
    }
    flags: list[str] = []
    for flag in _COMET_FLAGS:
        value = given[_parameter(flag)]
        if value is not None:
            flags.append(f"--{flag}={value}")
    flags += _comet_log_level(ctx)
    raise SystemExit(run(StartOptions(home_of(ctx), with_comet, address, flags, overrides, accept_signing_state)))


def _comet_log_level(ctx: click.Context) -> list[str]:
    """CometBFT's flag for a ``--log_level`` that was typed; else its config.toml decides. It knows fewer levels."""
    root = ctx.find_root()
    if root.get_parameter_source("log_level") != ParameterSource.COMMANDLINE:
        return []
    levels = {"trace": "debug", "warn": "error", "fatal": "error", "panic": "error", "disabled": "none"}
    parts = (part.rpartition(":") for part in root.params["log_level"].split(","))
    return ["--log_level", ",".join(f"{name}{colon}{levels.get(level, level)}" for name, colon, level in parts)]


@click.command()
@node_option
@output_option
def status(node: str | None, output: str | None) -> None:
    """What a node says of itself; in JSON unless --output says text."""
    remote = Remote(node)
    show(remote.call(lambda: remote.comet.call("status")), output or "json")


@click.command()
@click.option("--long", "is_long", is_flag=True, help="With everything that was built in.")
@output_option
def version(is_long: bool, output: str) -> None:
    """The version of stchaind."""
    if not is_long:
        click.echo(VERSION)
        return
    python = f"python version {platform.python_version()} {platform.system().lower()}/{platform.machine()}"
    packages = sorted({f"{one.name}@v{one.version}" for one in metadata.distributions() if one.name})
    told = {"name": "stratos", "server_name": "stchaind", "version": VERSION, "commit": "", "build_tags": "", "python": python}
    show({**told, "build_deps": packages, "cosmos_sdk_version": "v0.50.9"}, output)


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
    """The versions of the CometBFT that is found and of its protocols."""
    told = json.loads(subprocess.run([_comet_binary(), "version", "--verbose"], capture_output=True, text=True, check=True).stdout)
    names = {"CometBFT": "cometbft", "ABCI": "abci", "BlockProtocol": "block_protocol", "P2PProtocol": "p2p_protocol"}
    show({name: told.get(source) for name, source in names.items()}, "text")


@comet.command("reset-state")
@home_option
@click.pass_context
def reset_state(ctx: click.Context, /, **_: Any) -> None:
    """Delete CometBFT's blocks, state and WAL; keys, the validator's state and the application's database stay."""
    home = home_of(ctx)
    _require_stopped(home)
    for name in ("blockstore.db", "state.db", "cs.wal", "evidence.db", "tx_index.db"):
        path = home.root / "data" / name
        if path.exists():
            shutil.rmtree(path)
            click.echo(f"Removed {path}")


@comet.command("unsafe-reset-all")
@click.option("--keep-addr-book", is_flag=True, help="Keep config/addrbook.json.")
@home_option
@click.pass_context
def unsafe_reset_all(ctx: click.Context, /, keep_addr_book: bool, **_: Any) -> None:
    """Delete all data of the chain in this home; keys stay, the validator's state starts anew.

    A validator that signed on a chain that goes on must never be reset: it would sign the same heights twice.
    """
    home = home_of(ctx)
    _require_stopped(home)
    book = home.root / "config" / "addrbook.json"
    if book.exists() and not keep_addr_book:
        book.unlink()
        click.echo(f"Removed existing address book {book}")
    if (home.root / "data").exists():
        shutil.rmtree(home.root / "data")
        click.echo(f"Removed all blockchain history in {home.root / 'data'}")
    nodekeys.create_missing(home)
    click.echo(f"Reset private validator file to genesis state: {home.validator_key}, {home.validator_state}")


def _comet_binary() -> Path:
    binary = find_comet()
    if binary is None:
        raise click.ClickException("CometBFT is not on PATH nor in the tool folder: run `python -m chain.comet`")
    return binary


def _require_stopped(home: Home) -> None:
    """Raise while a node runs on the home. A damaged database is no reason: deleting it may be the cure."""
    if not home.database.exists():
        return
    with contextlib.suppress(CorruptStore):
        open_backend(config.read_app(home)["app-db-backend"], home.database).close()


@click.command()
@click.option("--height", type=int, default=-1, help="At this height (default: the latest).")
@click.option("--output-document", type=click.Path(), default=None, help="Write here instead of to the screen.")
@click.option("--for-zero-height", is_flag=True, help="Prepare the state for a new chain that begins at height 1.")
@click.option("--jail-allowed-addrs", default="", help="With --for-zero-height: jail all validators but these operators, comma-separated.")
@click.option("--modules-to-export", default="", help="Names, comma-separated (default: every module).")
@home_option
@click.pass_context
def export(
    ctx: click.Context,
    /,
    height: int,
    output_document: str | None,
    for_zero_height: bool,
    jail_allowed_addrs: str,
    modules_to_export: str,
    **_: Any,
) -> None:
    """Print the state as a genesis document; the node must be stopped.

    With --for-zero-height all rewards and commissions are paid out first, and heights become 0: of unbondings, redelegations, and of when
    validators began to sign. Set chain_id and genesis_time in the document before a chain begins with it.
    """
    allowed = _operators(jail_allowed_addrs)
    if allowed and not for_zero_height:
        raise click.ClickException("--jail-allowed-addrs goes with --for-zero-height")
    home = home_of(ctx)
    made = document.load(home.genesis)
    app = open_application(home, config.read_app(home))
    try:
        if app.latest_height == 0:
            raise click.ClickException("the node has no block yet: there is nothing to export")
        at = None if height < 0 else height
        app_state = app.export_for_zero_height(at, allowed) if for_zero_height else app.export(at)
        wanted = modules_to_export.split(",") if modules_to_export else list(app_state)
        unknown = sorted(set(wanted) - set(app_state))
        if unknown:
            raise click.ClickException(f"module {unknown[0][:60]} is not one of {', '.join(app_state)}")
        made = {
            **made,
            "initial_height": 0 if for_zero_height else (app.latest_height if at is None else at) + 1,
            "app_state": {name: section for name, section in app_state.items() if name in wanted},
            "consensus": {"validators": _validators(app_state), "params": document.comet_params(app.export_consensus_params(at))},
        }
    except (AppError, InvariantBroken) as error:
        raise click.ClickException(str(error)) from None
    finally:
        app.close()
    text = json.dumps(made, separators=(",", ":"), ensure_ascii=False)
    if output_document:
        with open(output_document, "w") as file:
            file.write(text + "\n")
    else:
        click.echo(text)


def _operators(text: str) -> list[bytes]:
    try:
        return [bech32.decode(one.strip(), bech32.VALIDATOR) for one in text.split(",")] if text else []
    except AppError as error:
        raise click.ClickException(f"--jail-allowed-addrs: {error.detail}") from None


def _validators(app_state: dict[str, Any]) -> list[dict[str, Any]]:
    """The bonded validators of exported state, in the form of genesis files."""
    powers = {one["address"]: one["power"] for one in app_state["staking"]["last_validator_powers"]}
    found = []
    for one in app_state["staking"]["validators"]:
        if one["operator_address"] in powers:
            raw = base64.b64decode(one["consensus_pubkey"]["key"])
            found.append(
                {
                    "address": Ed25519PublicKey(raw).address.hex().upper(),
                    "pub_key": {"type": "tendermint/PubKeyEd25519", "value": one["consensus_pubkey"]["key"]},
                    "power": powers[one["operator_address"]],
                    "name": one["description"]["moniker"],
                }
            )
    return found


@click.command()
@click.option("--hard", is_flag=True, help="Remove the last block from CometBFT's store, too.")
@home_option
@click.pass_context
def rollback(ctx: click.Context, /, hard: bool, **_: Any) -> None:
    """Undo the last block's state, in CometBFT and the application; the node must be stopped.

    Done twice it undoes no second block: CometBFT keeps that one until it is executed again, or removed with --hard.
    """
    home = home_of(ctx)
    binary = _comet_binary()
    app = open_application(home, config.read_app(home))
    try:
        target = app.latest_height - 1
        if target < 1:
            raise click.ClickException("there is no earlier block to go back to")
        if app.store.oldest_version() > target:
            raise click.ClickException(f"height {target} is pruned: the oldest that is kept is {app.store.oldest_version()}")
        answer = subprocess.run([binary, "rollback", "--home", str(home.root), *(["--hard"] if hard else [])], capture_output=True, text=True)
        told = re.search(r"Rolled back (?:state|both state and block) to height (\d+) and hash ([0-9A-F]+)", answer.stdout)
        if answer.returncode or told is None:
            raise click.ClickException(f"CometBFT cannot roll back: {answer.stderr.strip()[-300:] or answer.stdout.strip()[-300:]}")
        height = int(told[1])
        if height < app.latest_height:
            app.store.rollback(height)
        click.echo(f"Rolled back state to height {height} and hash {told[2]}")
    except VersionPruned as error:
        raise click.ClickException(str(error)) from None
    finally:
        app.close()
