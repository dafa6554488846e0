"""``spd ledger rebuild`` and ``spd ledger import``: a ledger made anew of what resource nodes keep, and a ledger out of a file.

rebuild FILE ─► FILE, FILE.roots ─► import FILE on one meta node, or join FILE on several ─► spd start
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chain import metakeys
from chain.crypto import address as bech32
from sds_node.cli.output import aligned, output_option, remark, show
from sds_node.meta.daemon.home import Home
from sds_node.meta.federation.comet import CometHome
from sds_node.meta.federation.genesis import READING
from sds_node.meta.ledger.transfer import import_ledger, peek
from sds_node.meta.nodes.hello import BadEndpoint, endpoint_of
from sds_node.meta.rebuild.rebuild import WAIT_S, Rebuilt, Settings, roots_of
from sds_node.meta.rebuild.rebuild import rebuild as rebuild_ledger
from sds_node.meta.rules.apply import rules
from sds_node.value_chain.client import ValueChain

_KEY_CHARACTERS = 64
_EVERY_S = 0.2


class _Bar:
    """One line of counts on a terminal's stderr; nothing elsewhere."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._is_shown = sys.stderr.isatty()
        self._at_s = 0.0

    def __call__(self, what: str, count: int) -> None:
        self._counts[what] = self._counts.get(what, 0) + count
        if self._is_shown and time.monotonic() - self._at_s >= _EVERY_S:
            self._at_s = time.monotonic()
            self._draw()

    def end(self) -> None:
        if self._is_shown and self._counts:
            self._draw()
            click.echo("", err=True)

    def _draw(self) -> None:
        click.echo("\r\x1b[K" + "  ".join(f"{what} {count}" for what, count in self._counts.items()), err=True, nl=False)


def _former(texts: tuple[str, ...]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for text in texts:
        name, _, key = text.partition("=")
        if len(key) != _KEY_CHARACTERS:
            raise click.BadParameter(f"expected stsds1…=KEY with a key of 64 hexadecimal digits, got {text[:100]!r}", param_hint="--former-key")
        try:
            found.setdefault(bech32.decode(name, bech32.NODE), []).append(bytes.fromhex(key))
        except Exception as error:
            raise click.BadParameter(f"expected stsds1…=KEY, got {text[:100]!r} ({error})", param_hint="--former-key") from None
    return found


def _listening(texts: tuple[str, ...]) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for text in texts:
        name, _, endpoint = text.partition("@")
        try:
            if not endpoint_of(endpoint)[0]:
                raise BadEndpoint("it names no host")
            found[bech32.decode(name, bech32.NODE)] = endpoint
        except Exception as error:
            raise click.BadParameter(f"expected stsds1…@host:port, got {text[:100]!r} ({error})", param_hint="--node") from None
    return found


def add_to(ledger: click.Group, stopped: Callable[[click.Context], Any], home_option: Callable[[Any], Any]) -> None:
    """Give the group ``spd ledger`` these commands. ``stopped`` holds the home of a meta node that does not run."""

    @ledger.command()
    @click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
    @click.option(
        "--wait", "wait_s", type=click.IntRange(0, 86_400), default=int(WAIT_S), show_default=True, help="How long nodes are waited for, s."
    )
    @click.option("--dry-run", is_flag=True, help="Ask and count, and write nothing.")
    @click.option("--no-balances", is_flag=True, help="Do not read the chain's blocks: wallets begin with nothing but their files.")
    @click.option("--node", "listening", multiple=True, help="Where a resource node listens, as stsds1…@host:port, beside those that say hello.")
    @click.option("--former-key", "former", multiple=True, help="A ledger key that a meta node had before, as stsds1…=HEX.")
    @home_option
    @output_option
    @click.pass_context
    def rebuild(
        ctx: click.Context, /, file: Path, wait_s: int, dry_run: bool, no_balances: bool, listening: tuple[str, ...], former: tuple[str, ...],
        output: str, **_: Any,
    ) -> None:  # fmt: skip
        """Make a ledger of what the resource nodes keep, into FILE, when those of all meta nodes are lost (docs/meta-nodes.md).

        Nodes say hello to this meta node at its usual place; those that are away are not in the ledger.

        \b
        spd ledger rebuild ledger.export --dry-run
        spd ledger rebuild ledger.export
        spd ledger import ledger.export         # alone; several meta nodes: spd ledger join on each
        """
        settings = Settings(
            wait_s=wait_s, has_balances=not no_balances, is_dry=dry_run, keys=_former(former), nodes=_listening(listening)
        )  # fmt: skip
        with stopped(ctx) as home:
            home.check()
            keys, network, bar = metakeys.read(home.meta_keys), home.settings.network, _Bar()

            async def run() -> Rebuilt:
                async with ValueChain(home.settings.chain.rpc) as chain:
                    return await rebuild_ledger(chain, keys, (network.host, network.port), file, time.time, settings, bar)

            try:
                made = asyncio.run(run())
            finally:
                bar.end()
        told = made.summary()
        show(told, output, aligned(told))
        for text in remarks(made):
            remark(text)

    @ledger.command("import")
    @click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
    @home_option
    @output_option
    @click.pass_context
    def import_command(ctx: click.Context, /, file: Path, output: str, **_: Any) -> None:
        """Take the ledger in FILE, with a log of its own: for the chain's only active meta node. Several join it (`spd ledger join`).

        \b
        spd ledger import ledger.export
        """
        with stopped(ctx) as home:
            if CometHome(home.comet).is_made:
                raise click.ClickException(f"{home.comet} has a genesis: this meta node has joined others (`spd ledger join`); nothing was changed")
            with file.open("rb") as stream:
                head = peek(stream.read, READING)
            with file.open("rb") as stream:
                name = import_ledger(home.ledger_url, rules(head.ledger_id), head.ledger_id, stream.read)[1]
            take_roots(home, file)
        told = {"chain_id": head.ledger_id, "sequence": str(head.sequence), "name": name.hex(), "file": str(file)}
        show(told, output, f"the ledger of {head.ledger_id} goes on after operation {head.sequence}\nname      {name.hex()}")


def remarks(made: Rebuilt) -> list[str]:
    """What an operator should do before the ledger is imported."""
    found, in_part = [], sum(1 for one in made.told.values() if one.problem)
    if in_part:
        found.append(f"{in_part} nodes told only a part of what they keep (nodes_in_part), the log says why: see to it, and rebuild again")
    if made.silent:
        found.append(f"{len(made.silent)} nodes of the chain did not come: what only they keep is not in the ledger; start them, and rebuild again")
    return found


def take_roots(home: Home, file: Path) -> None:
    """Share roots that came with a ledger, unless there are some already; other meta nodes get them from each other."""
    roots, target = roots_of(file), home.root / "data" / "roots.db"
    if roots.exists() and not target.exists():
        part = target.with_name(".roots.db.part")
        shutil.copyfile(roots, part)
        part.chmod(0o600)
        part.replace(target)
