"""``ppd start``, ``stop``, ``status``, ``maintenance``, ``verify``, ``systemd``: a resource node as a process."""

from __future__ import annotations

import asyncio
import getpass
import os
import resource
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import click
import nacl.signing
import uvloop

from chain.crypto.keys import PrivateKey
from sds_node.cli.node_common import asked_if_running, asked_node, home_of, home_option, seconds_of, with_chain
from sds_node.cli.output import (
    configure_logs,
    output_option,
    password,
    password_option,
    remark,
    show,
    size_text,
    span_text,
    stos_text,
    table,
    time_text,
)
from sds_node.client.meta import MetaAddress
from sds_node.control import NotRunning
from sds_node.gateway.owner import ChainOwner
from sds_node.gateway.running import RunningGateway
from sds_node.keystore import Kind
from sds_node.memory import keep_freed_memory
from sds_node.p2p import parse_address
from sds_node.resource import store as shares
from sds_node.resource.daemon.config import Config, capacity_bytes, parse_meta_node, reserve_bytes
from sds_node.resource.daemon.home import Home, HomeError
from sds_node.resource.daemon.node import ResourceNode
from sds_node.resource.daemon.running import Running
from sds_node.resource.receipts import open_receipts
from sds_node.value_chain import views
from sds_node.value_chain.client import ValueChain, ValueChainError
from sds_node.value_chain.sender import Sender

STOP_S = 90.0


def opened_keys(home: Home, config: Config, secret: str) -> tuple[nacl.signing.SigningKey, PrivateKey | None]:
    """The node's key, and the owner's where earnings are withdrawn by themselves. Raises KeyFileError, HomeError."""
    key = home.load_key(config.keys.p2p, secret)
    if key.kind is not Kind.P2P:
        raise HomeError(f"keys.p2p is {config.keys.p2p}: expected the key of a node")
    wallet = home.wallet_key(config, secret) if config.withdrawal.automatic else None
    return nacl.signing.SigningKey(key.private_key), wallet


def run_node(home: Home, config: Config, secret: str) -> None:
    """Run the node until SIGTERM or SIGINT. Raises HomeLocked and what ``Running.run`` raises."""
    with home.held():
        key, wallet = opened_keys(home, config, secret)
        allow_files()
        keep_freed_memory()
        owner = home.wallet_key(config, secret) if config.gateway.enabled and config.gateway.owner else None
        beside = partial(_gateway, home, config, owner) if config.gateway.enabled else None
        uvloop.run(Running(home, config, key, wallet, beside=beside).run())


def _gateway(home: Home, config: Config, owner: PrivateKey | None, chain: ValueChain, node: ResourceNode) -> RunningGateway:
    """The gateway of a node. ``owner`` opens the door for ``owner_`` methods."""

    def service_status(wallet: str) -> str:
        metas = [link.told_of() for link in node.links.values()]
        works = any(one["is_online"] and not one["why_not_eligible"] for one in metas)
        return f"Registration Status: {'ACTIVE' if works else 'INACTIVE'} | Mining: {'ONLINE' if works else 'OFFLINE'}"

    return RunningGateway(
        home.root,
        config.chain.id,
        [MetaAddress(one.address, one.host, one.port) for one in map(parse_meta_node, config.network.meta_nodes)],
        time.time,
        config.gateway,
        owner=None if owner is None else ChainOwner(chain, Sender(chain, owner), node.public_key),
        rest_port=config.gateway.streaming_port or None,
        service_status=service_status,
    )


def allow_files() -> None:
    """Have as many files and connections open as the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@click.command()
@click.option("--log-level", type=click.Choice(["debug", "info", "warn", "error"]), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(["plain", "json"]), default="plain", show_default=True)
@password_option
@home_option
@click.pass_context
def start(ctx: click.Context, /, log_level: str, log_format: str, password_file: str | None, **_: Any) -> None:
    """Run the node until SIGTERM or Ctrl-C.

    It then stops as it should: meta nodes are told, transfers under way end (60 s at most), receipts are handed in. A node that is killed instead loses score.

    \b
    ppd start --password-file /etc/ppd/password --log-format json
    """
    home = home_of(ctx)
    config = home.config()
    configure_logs(log_level, log_format)
    run_node(home, config, password(password_file))


@click.command()
@home_option
@click.pass_context
def stop(ctx: click.Context, /, **_: Any) -> None:
    """Stop the running node as it should be, and wait until it is over."""
    home = home_of(ctx)
    asked_node(home, "stop")
    wait_for_end(home)


def wait_for_end(home: Home) -> None:
    """Wait until no process holds the home. Raises ClickException after 90 s."""

    async def wait() -> bool:
        async with asyncio.timeout(STOP_S):
            while True:
                try:
                    with home.held():
                        return True
                except HomeError:
                    await asyncio.sleep(0.1)

    try:
        asyncio.run(wait())
    except TimeoutError:
        raise click.ClickException(f"the node did not end in {STOP_S:g} s: see its log") from None


# --- status ---------------------------------------------------------------------------------------------------------------------------


def status_of(home: Home) -> dict[str, Any]:
    """What is known of the node: of the running one, what it says; and what the chain has of it."""
    config = home.config()
    running = asked_if_running(home, "status")
    state = home.state()
    told: dict[str, Any] = {"is_running": running is not None}
    told |= running or {
        "node": config.keys.p2p,
        "wallet": config.keys.wallet,
        "chain_id": config.chain.id,
        "maintenance_until_s": state.maintenance_until_s,
        "is_leaving": state.is_leaving,
        "problems": ["the node does not run: `ppd start`"],
    }

    async def asked(chain: ValueChain) -> views.ResourceNode | None:
        return await views.resource_node(chain, parse_address(config.keys.p2p))

    try:
        node = with_chain(config, asked) if config.keys.p2p else None
    except ValueChainError as error:
        return {**told, "chain": None, "chain_problem": str(error)}
    if node is None:
        return {**told, "chain": {"is_registered": False}}
    return {
        **told,
        "chain": {
            "is_registered": True,
            "standing": node.standing.name.lower(),
            "deposit_wei": str(node.tokens_wei),
            "effective_deposit_wei": str(node.effective_wei),
            "is_suspended": node.is_suspended,
        },
    }


def status_text(told: dict[str, Any]) -> str:
    """The same for people."""
    chain, rows = told["chain"], [("node", told["node"])]
    if chain is None:
        rows.append(("chain", told["chain_problem"]))
    elif not chain["is_registered"]:
        rows.append(("chain", "not registered: `ppd register`"))
    else:
        works = stos_text(int(chain["effective_deposit_wei"]))
        rows.append(("chain", f"{chain['standing']}, deposit {stos_text(int(chain['deposit_wei']))}, of which {works} count"))
    if not told["is_running"]:
        return _lines([*rows, ("running", "no: `ppd start`")])
    rows += [
        (
            "running",
            f"for {span_text(told['time_s'] - told['started_s'])}, {'stopping' if told['is_stopping'] else told['listens'] or 'behind a relay'}",
        ),
        ("storage", f"{size_text(told['kept_bytes'])} kept in {told['copies']} shares, {size_text(told['free_bytes'])} free"),
        ("transfers", f"{told['transfers']} under way, {told['pending_receipts']} receipts not settled"),
    ]
    if told["is_leaving"]:
        rows.append(("leaving", "it takes no new shares"))
    if told["maintenance_until_s"]:
        rows.append(("maintenance", f"until {time_text(told['maintenance_until_s'])}"))
    rows += [("problem", one) for one in told["problems"]]
    metas = [
        [
            one["meta_node"],
            one["standing"] if one["is_online"] else "away",
            one["score"],
            one["shares"],
            one["problem"] or one["why_not_eligible"] or "ok",
        ]
        for one in told["meta_nodes"]
    ]
    return _lines(rows) + ("\n\n" + table(["META NODE", "STANDING", "SCORE", "SHARES", "SAYS"], metas) if metas else "")


def _lines(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


@click.command()
@home_option
@output_option
@click.pass_context
def status(ctx: click.Context, /, output: str, **_: Any) -> None:
    """How the node is: on the chain, on its disk, with the meta nodes.

    \b
    ppd status -o json
    """
    told = status_of(home_of(ctx))
    show(told, output, status_text(told) if output == "text" else None)


# --- maintenance ----------------------------------------------------------------------------------------------------------------------


@click.group()
def maintenance() -> None:
    """Announce that the node will be away: it loses no score, and earns nothing meanwhile. At most 4 hours at a time and 8 hours in 30 days."""


@maintenance.command("start")
@click.argument("duration")
@home_option
@output_option
@click.pass_context
def maintenance_start(ctx: click.Context, /, duration: str, output: str, **_: Any) -> None:
    """Announce maintenance for DURATION (as 30m, 2h) from now on. Stop the node afterwards, if you need to.

    \b
    ppd maintenance start 2h && ppd stop
    """
    _announced(home_of(ctx), max(seconds_of(duration), 1), output)


@maintenance.command("stop")
@home_option
@output_option
@click.pass_context
def maintenance_stop(ctx: click.Context, /, output: str, **_: Any) -> None:
    """Announce that maintenance is over."""
    _announced(home_of(ctx), 0, output)


def _announced(home: Home, seconds: int, output: str) -> None:
    told = asked_node(home, "maintenance", seconds=seconds)
    until_s = told["maintenance_until_s"]
    missed = [one["meta_node"] for one in told["meta_nodes"] if not one["was_told"]]
    show(told, output, f"maintenance until {time_text(until_s)}" if until_s else "no maintenance")
    for one in missed:
        remark(f"{one} did not answer: it is told as soon as it does")
    if not told["meta_nodes"] or len(missed) == len(told["meta_nodes"]):
        raise click.ClickException("no meta node heard of it yet: what happens until then may cost score")


# --- the disk -------------------------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--bytes", "with_bytes", is_flag=True, help="Read every byte of every share, too.")
@home_option
@output_option
@click.pass_context
def verify(ctx: click.Context, /, with_bytes: bool, output: str, **_: Any) -> None:
    """Look through shares and receipts of a node that does not run; exit code 1 if something is wrong."""
    home = home_of(ctx)
    config = home.config()
    with home.held():
        settings = shares.Settings(capacity_bytes=capacity_bytes(config), reserve_bytes=reserve_bytes(config))
        with shares.open_store(home.storage_path(config), settings) as store, open_receipts(home.receipts_path) as receipts:
            found = [*shares.verify(store, with_bytes=with_bytes), *receipts.verify()]
            copies = store.totals().count(*shares.State)
    show({"copies": copies, "problems": found}, output, "\n".join([*found, f"{copies} copies, {len(found)} problems"]))
    if found:
        ctx.exit(1)


# --- as a service ---------------------------------------------------------------------------------------------------------------------

UNIT = """[Unit]
Description=Stratos resource node
After=network-online.target time-sync.target
Wants=network-online.target time-sync.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=simple
User={user}
ExecStart={command} start --home {home} --log-format json
Environment=PPD_PASSWORD_FILE=%d/password
LoadCredential=password:{password}
Restart=on-failure
RestartSec=5
# The node tells meta nodes, lets transfers end and hands in its receipts: 60 s and a little.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec=90
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=true
ProtectSystem=strict
ReadWritePaths={paths}
PrivateTmp=true
PrivateDevices=true
ProtectKernelTunables=true
ProtectControlGroups=true
RestrictSUIDSGID=true

[Install]
WantedBy=multi-user.target
"""


@click.command()
@click.option("--user", default=None, help="Who the node runs as (default: you).")
@password_option
@home_option
@click.pass_context
def systemd(ctx: click.Context, /, user: str | None, password_file: str | None, **_: Any) -> None:
    """Print a systemd unit for this node.

    \b
    ppd systemd --password-file /etc/ppd/password | sudo tee /etc/systemd/system/ppd.service
    sudo systemctl enable --now ppd
    """
    home = home_of(ctx)
    config = home.config()
    paths = dict.fromkeys(str(path) for path in (home.root, home.storage_path(config)))
    secret = Path(password_file or os.environ.get("PPD_PASSWORD_FILE") or "/etc/ppd/password").absolute()
    program = [sys.executable, "-m", "sds_node.cli.ppd"]
    beside = Path(sys.executable).with_name("ppd")
    if beside.exists():
        program = [str(beside)]
    text = UNIT.format(
        user=user or getpass.getuser(),
        command=shlex.join(program),
        home=shlex.quote(str(home.root)),
        password=shlex.quote(str(secret)),
        paths=" ".join(shlex.quote(one) for one in paths),
    )
    click.echo(text.rstrip())


def is_running(home: Home) -> bool:
    """Whether a node answers in that home."""
    try:
        asked_node(home, "status")
    except NotRunning:
        return False
    return True
