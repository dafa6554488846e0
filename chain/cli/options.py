"""What commands share: the home, output, and the errors that become one sentence and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from chain.config import Home, default_home

F = TypeVar("F", bound=Callable[..., Any])


def home_of(ctx: click.Context) -> Home:
    """The home named on the command, on any parent, or by default."""
    current: click.Context | None = ctx
    while current is not None:
        chosen = current.params.get("home")
        if chosen:
            return Home(Path(chosen))
        current = current.parent
    return Home(default_home())


def home_option(command: F) -> F:
    return click.option("--home", type=click.Path(), default=None, help="The node's folder (default: $STCHAIND_HOME or ~/.stchaind).")(command)


def output_option(command: F) -> F:
    return click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Output format.")(command)


def show(value: Any, output: str) -> None:
    """Print JSON as JSON, or as readable text (``key: value`` lines, nested by indentation)."""
    if output == "json":
        click.echo(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    else:
        click.echo("\n".join(_text(value, 0)))


def _text(value: Any, depth: int) -> list[str]:
    pad = "  " * depth
    if isinstance(value, dict) and value:
        lines = []
        for name, item in value.items():
            if isinstance(item, dict | list) and item:
                lines += [f"{pad}{name}:", *_text(item, depth + (isinstance(item, dict)))]
            else:
                lines.append(f"{pad}{name}: {_plain(item)}")
        return lines
    if isinstance(value, list) and value:
        lines = []
        for item in value:
            inner = _text(item, depth + 1)
            lines += [f"{pad}- {inner[0].strip()}", *inner[1:]]
        return lines
    return [pad + _plain(value)]


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if value == "" or (value.isascii() and value.isdigit()) else value
    return json.dumps(value)
