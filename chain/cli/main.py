"""The command ``stchaind``."""

from __future__ import annotations

if __name__ == "__main__":
    # Before the other imports, which take a while; it does not return.
    from chain.launch import stchaind

    stchaind()

import logging
import os
import sys
from itertools import islice
from typing import Any

import click
import structlog

from chain.cli import (
    authz,
    bootstrap,
    compat,
    debug,
    distribution,
    feegrant,
    genesis,
    gov,
    grant,
    keys,
    maintain,
    metakeys,
    node,
    pot,
    query,
    register,
    sds,
    settlement,
    sign,
    slashing,
    snapshots,
    staking,
    testnet,
    tx,
    upgrade,
    vesting,
)
from chain.crypto.hd import DerivationError
from chain.crypto.keyring_backends import KeyringError
from chain.dec import DecError
from chain.errors import AppError
from chain.light.client import LightError
from chain.node import EXPECTED_ERRORS

_LEVELS = {"trace": 10, "debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50, "panic": 50, "disabled": 60}
_OURS: tuple[type[Exception], ...] = (*EXPECTED_ERRORS, AppError, KeyringError, DerivationError, DecError, LightError)


_EVERYWHERE = {"--home": 1, "--log_level": 1, "--log_format": 1, "--log_no_color": 0, "--trace": 0}
"""Options of the root that simd takes behind any command, too, and how many values each has."""


class Root(click.Group):
    """Turns expected errors into one sentence and exit code 1, as simd's; ``--trace`` shows where they come from."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours, rest = [], []
        given = iter(args)
        for one in given:
            name, _, value = one.partition("=")
            if one == "--":
                rest += [one, *given]
            elif name in _EVERYWHERE:
                ours += [one, *islice(given, 0 if value else _EVERYWHERE[name])]
            else:
                rest.append(one)
        return super().parse_args(ctx, ours + rest)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            error.show()
            code = 1
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            code = 130
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                # Whoever read our output has gone: nothing is left to say, and Python must not try again at its end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            else:
                click.echo(f"Error: {error.filename or 'the system'}: {error.strerror or error}", err=True)
            code = 1
        except Exception as error:
            # A defect of ours: still one sentence, and the way to the stack that a report needs.
            if "--trace" in sys.argv:
                raise
            click.echo(f"Error: this should not have happened ({type(error).__name__}: {str(error)[:300]}): run it again with --trace", err=True)
            code = 1
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UnicodeEncodeError as error:
            raise click.ClickException(f"what was typed is not UTF-8: {error.object[:60]!r}") from None
        except _OURS as error:
            if ctx.params.get("trace"):
                raise
            raise click.ClickException(str(error)) from None


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--home", type=click.Path(), default=None, help="The node's folder (default: $STCHAIND_HOME or ~/.stchaind).")
@click.option("--log_level", default="info", show_default=True, help=f"{'|'.join(_LEVELS)}; of '*:info,abci:debug' the part for * counts.")
@click.option("--log_format", type=click.Choice(["plain", "json"]), default="plain", show_default=True)
@click.option("--log_no_color", is_flag=True, help="Logs without colours.")
@click.option("--trace", is_flag=True, help="Show the full stack of errors.")
def cli(home: str | None, log_level: str, log_format: str, log_no_color: bool, trace: bool) -> None:
    """Stratos: run a node, hold keys, send transactions, ask questions."""
    colors = sys.stderr.isatty() and not log_no_color
    renderer = structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer(colors=colors)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info if log_format == "json" else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_level(log_level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING)


def _level(text: str) -> int:
    parts = dict(part.rpartition(":")[::2] for part in text.split(","))
    level = _LEVELS.get(parts.get("") or parts.get("*") or "info")
    if level is None:
        raise click.ClickException(f"--log_level must be one of {', '.join(_LEVELS)}, got {text[:60]!r}")
    return level


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes stchaind in a shell."""
    os.environ["_STCHAIND_COMPLETE"] = f"{shell}_source"
    cli.main(prog_name="stchaind", standalone_mode=True, complete_var="_STCHAIND_COMPLETE")


for _command in (
    genesis.init,
    genesis.genesis,
    keys.keys,
    metakeys.meta_keys,
    node.start,
    node.status,
    node.version,
    node.export,
    node.rollback,
    compat.compat_rpc,
    snapshots.snapshots,
    maintain.prune,
    maintain.config_group,
    tx.tx,
    query.query,
    testnet.testnet,
    debug.debug,
):
    cli.add_command(_command)
tx.tx.add_command(gov.gov)
tx.tx.add_command(slashing.slashing)
tx.tx.add_command(vesting.vesting)
tx.tx.add_command(staking.staking)
tx.tx.add_command(upgrade.upgrade)
tx.tx.add_command(upgrade.crisis)
tx.tx.add_command(distribution.distribution)
tx.tx.add_command(authz.authz)
tx.tx.add_command(feegrant.feegrant)
tx.tx.add_command(register.register)
tx.tx.add_command(sds.sds)
tx.tx.add_command(pot.pot)
tx.tx.add_command(settlement.settlement)
tx.tx.add_command(grant.grant)
for _name, _signing in sign.COMMANDS.items():
    tx.tx.add_command(_signing, _name)
node.comet.add_command(bootstrap.bootstrap_state)
for _alias in ("comet", "tendermint", "cometbft"):
    cli.add_command(node.comet, _alias)
for _name in ("reset-state", "unsafe-reset-all"):
    node.comet.add_command(node.comet.commands[_name], _name.replace("-", "_"))
cli.add_command(query.query, "q")
cli.add_command(query.query_block_results, "block-results")
for _name in ("add-genesis-account", "add-genesis-meta-node", "gentx", "collect-gentxs", "migrate"):
    cli.add_command(genesis.genesis.commands[_name], _name)
cli.add_command(genesis.genesis.commands["validate"], "validate-genesis")
genesis.genesis.add_command(genesis.genesis.commands["validate"], "validate-genesis")


def main() -> None:
    """The program; it is begun by its launcher."""
    cli(prog_name="stchaind")
