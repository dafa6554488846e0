"""``stchaind comet bootstrap-state``: CometBFT's databases for an application that was restored from a snapshot."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, Final

import click

from chain import config
from chain.cli.options import home_of, home_option
from chain.codec.json import from_json
from chain.codec.times import parse_go_duration
from chain.config import ConfigError, Home
from chain.light.bootstrap import Restored, gather, require_empty, write
from chain.light.client import LightClient, Server, Trust
from chain.light.headers import types
from chain.node import open_application
from genesis import document

MIN_SERVERS: Final = 2
MAX_SERVERS: Final = 20
HASH_BYTES: Final = 32


@click.command("bootstrap-state")
@click.option("--height", type=click.IntRange(0), default=0, help="The application's height (default: its latest).")
@home_option
@click.pass_context
def bootstrap_state(ctx: click.Context, /, height: int, **_: Any) -> None:
    """Give CometBFT its state for the height that the application was restored at; the node must be stopped.

    \b
    stchaind snapshots load 1000-1.tar.gz && stchaind snapshots restore 1000 1
    stchaind comet bootstrap-state
    stchaind start

    A light client verifies it from [statesync] in config.toml: rpc_servers (two at least), trust_height, trust_hash, trust_period. The chain has
    to be two blocks further.
    """
    home = home_of(ctx)
    settings = config.read_comet(home)
    addresses, trust = _trust(home, settings)
    if settings.get("db_backend") != "goleveldb":
        raise ConfigError(f"{home.comet_config}: db_backend must be goleveldb for this, got {settings.get('db_backend')!r}")
    data = home.root / str(settings.get("db_dir") or "data")
    restored = _restored(home, height)
    require_empty(data)
    with ExitStack() as stack:
        servers = [Server(one) for one in addresses]
        for server in servers:
            stack.callback(server.close)
        blocks = gather(LightClient(restored.chain_id, servers, trust, time.time_ns()), restored)
    write(data, restored, blocks)
    click.echo(f"CometBFT's state is at height {restored.height}, block {blocks[0].hash.hex().upper()}: `stchaind start` goes on from there")


def _restored(home: Home, height: int) -> Restored:
    """What the stopped application of the home knows. Raises ClickException, NodeError, GenesisError."""
    genesis = document.load(home.genesis)
    app = open_application(home, config.read_app(home))
    try:
        if not app.latest_height:
            raise click.ClickException("the application has no state yet: restore a snapshot first (`stchaind snapshots restore`)")
        if height not in (0, app.latest_height):
            raise click.ClickException(f"the application is at height {app.latest_height}, not {height}: CometBFT's state must be of the same height")
        if app.chain_id != genesis["chain_id"]:
            raise click.ClickException(f"the application's state is of chain {app.chain_id}, the genesis file of {genesis['chain_id']}")
        params = from_json(types("ConsensusParams"), app.export_consensus_params(), "consensus params")
        return Restored(app.chain_id, genesis["initial_height"], app.latest_height, app.store.app_hash, params)
    finally:
        app.close()


def _trust(home: Home, settings: dict[str, Any]) -> tuple[list[str], Trust]:
    """Addresses and trusted header of [statesync] of config.toml. Raises ConfigError naming the key."""
    section = settings.get("statesync") or {}
    where = f"{home.comet_config}: [statesync]"
    addresses = [one.strip() for one in str(section.get("rpc_servers") or "").split(",") if one.strip()]
    if not MIN_SERVERS <= len(addresses) <= MAX_SERVERS:
        raise ConfigError(f"{where} rpc_servers must name {MIN_SERVERS} to {MAX_SERVERS} RPC addresses, comma-separated, got {len(addresses)}")
    height, text = section.get("trust_height"), str(section.get("trust_hash") or "")
    if not isinstance(height, int) or height < 1:
        raise ConfigError(f"{where} trust_height must be the height of a block that you trust, got {height!r}")
    try:
        trusted = bytes.fromhex(text)
        if len(trusted) != HASH_BYTES:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{where} trust_hash must be the hash of that block, 64 hex digits, got {text[:80]!r}") from None
    try:
        period_ns = parse_go_duration(str(section.get("trust_period") or ""))
    except ValueError as error:
        raise ConfigError(f"{where} trust_period: {error}") from None
    return addresses, Trust(height, trusted, period_ns)
