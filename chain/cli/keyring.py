"""What commands share that use the user's keys: options, where the keyring is, and errors.

Values come, in this order, from the option, the same option of a parent command, the environment (``STCHAIND_…``), ``config/client.toml``
in the home, the default.
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from chain.crypto.amino import AminoError
from chain.crypto.armor import ArmorError
from chain.crypto.hd import DerivationError
from chain.crypto.keyring import BACKENDS, Keyring, KeyringError, open_keyring
from chain.errors import AppError

DEFAULT_HOME: Final = "~/.stchaind"

_Command = TypeVar("_Command", bound=Callable[..., Any])


def keyring_options(command: _Command) -> _Command:
    """Give a command ``--home``, ``--keyring-backend`` and ``--keyring-dir``; read them with ``user_keyring``."""
    for option in (
        click.option("--keyring-dir", type=click.Path(file_okay=False), help="Folder of the keyring; the home when left out."),
        click.option("--keyring-backend", metavar="|".join(BACKENDS), help="Where keys are kept.  [default: os]"),
        click.option("--home", type=click.Path(file_okay=False), help=f"Folder for configuration and data.  [default: {DEFAULT_HOME}]"),
    ):
        command = option(command)
    return command


def reported(command: _Command) -> _Command:
    """Turn what the key layers raise into a sentence on stderr and exit code 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (AppError, KeyringError, ArmorError, AminoError, DerivationError) as error:
            raise click.ClickException(str(error)) from None
        except EOFError:
            raise click.ClickException("standard input ended before every question was answered") from None

    return run  # type: ignore[return-value]


def setting(name: str) -> str | None:
    """An option's value (``keyring-backend``) by the order of this module's docstring, or None. Raises KeyringError for a broken client.toml."""
    parameter = name.replace("-", "_")
    context: click.Context | None = click.get_current_context()
    while context is not None:
        value = context.params.get(parameter)
        if value is not None:
            return str(value)
        context = context.parent
    value = os.environ.get(f"STCHAIND_{parameter.upper()}")
    if value or name == "home":
        return value or None
    path = home() / "config" / "client.toml"
    try:
        found = tomllib.loads(path.read_text("utf-8")).get(name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise KeyringError(f"cannot read {path}: {error}") from None
    return str(found) if found else None


def home() -> Path:
    """The node's home folder."""
    return Path(setting("home") or DEFAULT_HOME).expanduser()


def user_keyring() -> Keyring:
    """The keyring that the current command's options name. Raises KeyringError."""
    return open_keyring(setting("keyring-backend") or "os", Path(setting("keyring-dir") or home()).expanduser())
