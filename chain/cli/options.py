"""What commands share: the home, output, and the errors that become one sentence and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from chain.cli.keyring import setting
from chain.cli.text import yaml
from chain.config import Home, default_home

F = TypeVar("F", bound=Callable[..., Any])

UINT64: Final = click.IntRange(0, (1 << 64) - 1)
"""What fits protobuf's uint64."""
UINT63: Final = click.IntRange(0, (1 << 63) - 1)
"""What fits protobuf's int64 and is not negative."""


def home_of(ctx: click.Context) -> Home:
    """The home named on the command, on any parent, or by default."""
    current: click.Context | None = ctx
    while current is not None:
        chosen = current.params.get("home")
        if chosen:
            return Home(Path(chosen).expanduser())
        current = current.parent
    return Home(default_home())


def home_option(command: F) -> F:
    return click.option("--home", type=click.Path(), default=None, help="The node's folder (default: $STCHAIND_HOME or ~/.stchaind).")(command)


def output_option(command: F) -> F:
    return click.option("-o", "--output", type=click.Choice(["text", "json"]), help="Output format.  [default: text]")(command)


def show(value: Any, output: str | None = None, *, indent: bool = False) -> None:
    """Print a JSON value as JSON or as YAML: as ``output`` says, else environment or client.toml, else as text."""
    if (output or setting("output") or "text") == "json":
        click.echo(json.dumps(value, separators=None if indent else (",", ":"), indent=2 if indent else None, ensure_ascii=False))
    else:
        click.echo(yaml(value))
