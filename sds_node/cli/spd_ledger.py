"""``spd ledger``: how a meta node's ledger begins, and how several meta nodes come to keep one.

found ─► export FILE ─► copied to the other meta nodes ─► join FILE on each, the first one too ─► spd start on all
migrate FILE = export and join on the same home          all ledgers lost: rebuild FILE ─► import or join (spd_rebuild.py)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from chain import metakeys
from chain.crypto import address as bech32
from sds_node.cli import spd_rebuild
from sds_node.cli.output import output_option, show
from sds_node.meta.daemon.home import DEFAULT, Home
from sds_node.meta.federation import genesis
from sds_node.meta.federation.comet import CometHome
from sds_node.meta.ledger.log import Head
from sds_node.value_chain.client import ValueChain


def _home_option(command: Any) -> Any:
    text = "Folder of the meta node (default: $SPD_HOME, else ~/.spd)."
    return click.option("--home", type=click.Path(file_okay=False), default=None, help=text)(command)


def _home(ctx: click.Context | None) -> Home:
    """The home that was named, here or before the command."""
    given = None
    while ctx is not None and given is None:
        given, ctx = ctx.params.get("home"), ctx.parent
    return Home.open(Path(given or os.environ.get("SPD_HOME") or DEFAULT))


@contextlib.contextmanager
def _stopped(ctx: click.Context) -> Iterator[Home]:
    """The home of a meta node that does not run, and will not meanwhile."""
    home = _home(ctx)
    held = home.lock()
    try:
        yield home
    finally:
        os.close(held)


def _told(head: Head, senders: Mapping[bytes, bytes]) -> dict[str, Any]:
    return {
        "chain_id": head.ledger_id,
        "sequence": str(head.sequence),
        "app_hash": head.app_hash.hex(),
        "meta_nodes": [bech32.encode(one, bech32.NODE) for one in sorted(senders)],
    }


@click.group("ledger")
def ledger() -> None:
    """The meta node's ledger: found it, share it with other meta nodes, look at it.

    \b
    spd ledger found
    spd ledger migrate ledger.export        # then copy the file to the other meta nodes
    spd ledger join ledger.export           # on each of them
    spd ledger show
    """


@ledger.command()
@_home_option
@output_option
@click.pass_context
def found(ctx: click.Context, /, output: str, **_: Any) -> None:
    """Begin a ledger where the value chain stands. One of the meta nodes does so; the others join.

    \b
    spd ledger found
    """
    with _stopped(ctx) as home:
        if CometHome(home.comet).is_made:
            raise click.ClickException(f"{home.comet} has a genesis: this meta node has joined others; nothing was changed")
        keys = metakeys.read(home.meta_keys)

        async def run() -> None:
            async with ValueChain(home.settings.chain.rpc) as chain:
                await genesis.found(home.ledger_url, keys, chain, time.time)

        asyncio.run(run())
        head, senders = genesis.look(home.ledger_url)
    told = _told(head, senders)
    show(
        told,
        output,
        f"the ledger of {head.ledger_id} is founded with {len(senders)} active meta nodes; alone: `spd start`, else `spd ledger migrate FILE`",
    )


@ledger.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_home_option
@output_option
@click.pass_context
def export(ctx: click.Context, /, file: Path, output: str, **_: Any) -> None:
    """Write the ledger of a stopped meta node into FILE, and print its name, which names this state.

    \b
    spd stop; spd ledger export ledger.export
    """
    with _stopped(ctx) as home:
        state = genesis.write_export(home.ledger_url, file)
    told = {**_told(state.head, state.senders), "name": state.name.hex(), "file": str(file), "size_bytes": str(file.stat().st_size)}
    show(told, output)


@ledger.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_home_option
@output_option
@click.pass_context
def join(ctx: click.Context, /, file: Path, output: str, **_: Any) -> None:
    """Keep the ledger in FILE together with other meta nodes: import it, unless it is the one that is here, and make CometBFT's home beside it.

    Compare the printed name with what the other meta nodes print. What the others' CometBFT listens at is in the settings:

    \b
    spd config set comet.peers stsds1…@meta2.example.org:18883,stsds1…@meta3.example.org:18883
    spd ledger join ledger.export
    spd start
    """
    with _stopped(ctx) as home:
        state = genesis.join(home.ledger_url, CometHome(home.comet), metakeys.read(home.meta_keys), file)
        spd_rebuild.take_roots(home, file)
        own = metakeys.read(home.meta_keys)
    _show_joined(state, own, file, output)


@ledger.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_home_option
@output_option
@click.pass_context
def migrate(ctx: click.Context, /, file: Path, output: str, **_: Any) -> None:
    """From one meta node to several: write the ledger into FILE and go on with blocks here. Its sequence and app hash go on, too.

    \b
    spd stop; spd ledger migrate ledger.export
    scp ledger.export meta2.example.org:      # there: spd ledger join ledger.export
    spd start
    """
    with _stopped(ctx) as home:
        comet, own = CometHome(home.comet), metakeys.read(home.meta_keys)
        if comet.is_made:
            raise click.ClickException(
                f"{home.comet} has a genesis: the ledger is in blocks already; to begin new ones, move that folder away on all meta nodes"
            )
        genesis.write_export(home.ledger_url, file)
        state = genesis.join(home.ledger_url, comet, own, file)
    _show_joined(state, own, file, output)


def _show_joined(state: genesis.State, own: metakeys.MetaKeys, file: Path, output: str) -> None:
    votes = state.senders.get(own.address) == own.ledger_consensus_pubkey
    told = {
        **_told(state.head, state.senders),
        "name": state.name.hex(),
        "file": str(file),
        "node": own.network_address,
        "is_validator": votes,
        "is_new": state.is_new,
    }
    lines = [
        f"the ledger of {state.head.ledger_id} goes on after operation {state.head.sequence}, with {len(state.senders)} active meta nodes",
        f"name      {state.name.hex()}",
        f"app hash  {state.head.app_hash.hex()}",
        f"copy {file} to each of the others, run `spd ledger join` there, and compare the name; then name all in comet.peers and start them",
    ]
    if not votes:
        lines.append(
            f"{own.network_address} is not among the active meta nodes of this ledger: it follows, and votes once it is observed to be active"
        )
    if not state.is_new:
        lines[0] = "this meta node had joined already: nothing was changed"
    show(told, output, "\n".join(lines))


@ledger.command("show")
@_home_option
@output_option
@click.pass_context
def show_ledger(ctx: click.Context, /, output: str, **_: Any) -> None:
    """Where the ledger stands, and who keeps it. The meta node may run.

    \b
    spd ledger show -o json
    """
    home = _home(ctx)
    head, senders = genesis.look(home.ledger_url)
    comet = CometHome(home.comet)
    told = {**_told(head, senders), "order": "blocks" if comet.is_made else "log", "height": str(head.height), "time_ms": str(head.time_ms)}
    if comet.is_made:
        state = comet.read_genesis().get("app_state", {})
        told["export"] = str(state.get("export", "")) if isinstance(state, dict) else ""
    show(told, output)


spd_rebuild.add_to(ledger, _stopped, _home_option)
