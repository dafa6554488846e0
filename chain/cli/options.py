"""What commands share: the home, output, and the errors that become one sentence and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from chain.cli.keyring import setting
from chain.cli.text import yaml
from chain.codec.json import loads
from chain.config import Home, default_home

F = TypeVar("F", bound=Callable[..., Any])

UINT64: Final = click.IntRange(0, (1 << 64) - 1)
"""What fits protobuf's uint64."""
MAX_FILE_BYTES: Final = 16 << 20
"""Of a JSON file that a command reads."""
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


def json_of(file: Any, shape: str) -> dict[str, Any]:
    """The JSON object in an open file. Raises ClickException saying that ``shape`` was expected, and what ``loads`` raises."""
    text = file.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        raise click.ClickException(f"{file.name} has more than {MAX_FILE_BYTES} bytes")
    given = loads(text)
    if not isinstance(given, dict):
        raise click.ClickException(f"{file.name} is no JSON object: expected {shape}")
    return given


def yes_or_no(flag: str, **attributes: Any) -> Callable[[F], F]:
    """An option as Go's commands have switches: ``--flag`` and ``--flag=true`` are yes, ``--flag=false`` is no."""
    return click.option(flag, type=click.BOOL, is_flag=False, flag_value="true", **attributes)
