"""``stchaind prune`` and ``stchaind config``: a stopped node's history, and its files."""

from __future__ import annotations

import json
from typing import Any

import click
import tomlkit

from chain import config
from chain.cli.options import home_of, home_option, ignored
from chain.config import Home
from chain.node import open_application
from chain.store.pruning import Pruning

_FILES = ("app", "config", "client")


@click.command()
@click.argument("strategy", type=click.Choice(["default", "nothing", "everything", "custom"]), default="default")
@click.option("--pruning-keep-recent", default=0, help="With custom: how many recent heights are kept.")
@ignored("--pruning-interval")
@home_option
@click.pass_context
def prune(ctx: click.Context, /, strategy: str, pruning_keep_recent: int, **_: Any) -> None:
    """Delete old versions of a stopped node's state, and give the space back."""
    home = home_of(ctx)
    try:
        pruning = Pruning.named(strategy, pruning_keep_recent, 10)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    app = open_application(home, config.read_app(home))
    try:
        before = app.store.oldest_version()
        target = pruning.oldest_to_delete(app.latest_height)
        app.store.prune_to(target)
        app.store.compact()
        click.echo(f"pruned heights {before} to {target}; {app.store.oldest_version()} is the oldest now" if target >= before else "nothing to prune")
    finally:
        app.close()


@click.group("config")
def config_group() -> None:
    """Read and change the files of the home: app, config (CometBFT's) and client."""


def _path(home: Home, name: str) -> Any:
    if name not in _FILES:
        raise click.ClickException(f"expected one of {', '.join(_FILES)}, got {name[:40]!r}")
    return home.root / "config" / f"{name}.toml"


def _document(home: Home, name: str) -> Any:
    return config.read_toml(_path(home, name))


def _find(document: Any, key: str) -> tuple[Any, str]:
    """(table, last name) of ``section.key``. Raises ClickException when there is no such key."""
    *sections, last = key.split(".")
    table = document
    for section in sections:
        table = table.get(section) if hasattr(table, "get") else None
    if not hasattr(table, "get") or table.get(last) is None:
        raise click.ClickException(f"there is no key {key[:80]!r}: see `stchaind config view`")
    return table, last


@config_group.command("home")
@click.pass_context
def config_home(ctx: click.Context) -> None:
    """The home folder in use."""
    click.echo(str(home_of(ctx).root))


@config_group.command("view")
@click.argument("name", metavar="FILE")
@home_option
@click.pass_context
def view(ctx: click.Context, /, name: str, **_: Any) -> None:
    """Print a file: app, config or client."""
    click.echo(tomlkit.dumps(_document(home_of(ctx), name)).rstrip())


@config_group.command("get")
@click.argument("name", metavar="FILE")
@click.argument("key")
@home_option
@click.pass_context
def get(ctx: click.Context, /, name: str, key: str, **_: Any) -> None:
    """Print one value, as JSON.

    \b
    stchaind config get app api.address
    """
    table, last = _find(_document(home_of(ctx), name), key)
    click.echo(json.dumps(table[last]))


@config_group.command("set")
@click.argument("name", metavar="FILE")
@click.argument("key")
@click.argument("value")
@home_option
@click.pass_context
def set_(ctx: click.Context, /, name: str, key: str, value: str, **_: Any) -> None:
    """Change one value; its type stays, and so do comments.

    \b
    stchaind config set app minimum-gas-prices 1000000000wei
    """
    home = home_of(ctx)
    document = _document(home, name)
    table, last = _find(document, key)
    old = table[last]
    try:
        if isinstance(old, bool):
            table[last] = {"true": True, "false": False}[value]
        elif isinstance(old, int):
            table[last] = int(value)
        elif isinstance(old, str):
            table[last] = value
        else:
            raise ValueError
    except (KeyError, ValueError):
        raise click.ClickException(f"{key} is a {type(old).__name__.lower()}, {value[:60]!r} is not") from None
    _path(home, name).write_text(tomlkit.dumps(document))


@config_group.command("diff")
@home_option
@click.pass_context
def diff(ctx: click.Context, /, **_: Any) -> None:
    """What in app.toml differs from the defaults."""
    found = dict(_flat(config.read_app(home_of(ctx))))
    for key, default in _flat(config.APP_DEFAULTS):
        if found.get(key) != default:
            click.echo(f"{key}: {json.dumps(default)} -> {json.dumps(found.get(key))}")


def _flat(section: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in section.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found
