"""What commands of nodes share: the group that turns errors into sentences, text or JSON, tables, sizes, passwords.

command ─► value ─ show ─► aligned text, or one JSON object (-o json)        OURS ─► one sentence on stderr, exit code 1; usage: 2
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import structlog

from chain.crypto.hd import DerivationError
from chain.errors import AppError
from sds_node.keystore import KeyFileError
from sds_node.p2p import P2PError
from sds_node.settings import SettingsError
from sds_node.value_chain.client import ValueChainError

F = TypeVar("F", bound=Callable[..., Any])

OURS: Final[tuple[type[Exception], ...]] = (AppError, DerivationError, KeyFileError, P2PError, SettingsError, ValueChainError)
"""Errors whose text is for people. A command's group adds its own."""
LEAST_PASSWORD: Final = 8
MAX_PASSWORD_FILE_BYTES: Final = 1_025
PASSWORD_FILE_VARIABLE: Final = "PPD_PASSWORD_FILE"  # noqa: S105  the name of a variable
_LEVELS: Final = {"debug": 10, "info": 20, "warn": 30, "error": 40}
_STOS: Final = 10**18


class Commands(click.Group):
    """A command's root: expected errors become one sentence and exit code 1; ``--trace`` shows where they come from."""

    expected: tuple[type[Exception], ...] = OURS

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.UsageError as error:
            error.show()
            code = 2
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt, EOFError):
            click.echo(
                "interrupted (a put or get goes on when the same command is run again), or standard input ended before everything was answered",
                err=True,
            )
            code = 130
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                # Whoever read our output has gone: nothing is left to say, and Python must not try again at its end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            else:
                click.echo(f"Error: {error.filename or 'the system'}: {error.strerror or error}" if error.errno else f"Error: {error}", err=True)
            code = 1
        except Exception as error:
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
        except self.expected as error:
            if ctx.params.get("trace"):
                raise
            raise click.ClickException(str(error)) from None


def configure_logs(level: str, form: str) -> None:
    """Have structlog write to stderr: ``level`` debug, info, warn or error; ``form`` plain or json. Colours on a terminal alone, and not with NO_COLOR."""
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    plain = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info if form == "json" else structlog.processors.StackInfoRenderer(),
            structlog.processors.JSONRenderer() if form == "json" else plain,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING)


def output_option(command: F) -> F:
    """``-o/--output text|json``."""
    return click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format.")(command)


def show(value: Any, output: str, text: str | None = None) -> None:
    """Print a JSON value: as JSON on one line, else ``text``, else as aligned names and values."""
    if output == "json":
        click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    else:
        click.echo(aligned(value) if text is None else text)


def aligned(values: Mapping[str, Any]) -> str:
    """``name  value`` lines with the values under each other."""
    width = max((len(name) for name in values), default=0)
    return "\n".join(f"{name:<{width}}  {_plain(value)}" for name, value in values.items())


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows under their heads, columns two blanks apart."""
    texts = [list(heads), *([_plain(one) for one in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(heads))]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts)


def remark(text: str) -> None:
    """A line on stderr, beside the result."""
    click.echo(text, err=True)


def size_text(size_bytes: int) -> str:
    """``1.5 GiB``."""
    size, units = float(size_bytes), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def stos_text(amount_wei: int) -> str:
    """``12.5 STOS``, every digit that is there."""
    whole, part = divmod(amount_wei, _STOS)
    return f"{whole}{f'.{part:018d}'.rstrip('0') if part else ''} STOS"


def time_text(unix_s: float) -> str:
    """A time of the calendar, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s))


def span_text(seconds: float) -> str:
    """``2 d 3 h``, ``5 min``, ``12 s``."""
    left = int(seconds)
    parts = [(left // 86_400, "d"), (left // 3_600 % 24, "h"), (left // 60 % 60, "min"), (left % 60, "s")]
    told = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(told[:2]) or "0 s"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(one) for one in value) or "–"
    return str(value)


# --- passwords ----------------------------------------------------------------------------------------------------------------------


def password_option(command: F) -> F:
    """``--password-file``."""
    return click.option(
        "--password-file",
        type=click.Path(dir_okay=False),
        default=None,
        help=f"A file whose first line is the password of the home's keys (default: ${PASSWORD_FILE_VARIABLE}, else it is asked for).",
    )(command)


_kept: ContextVar[list[str] | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def kept_passwords(file: str | None) -> Iterator[None]:
    """Within, the password of the node's keys is asked for once, or read from ``file``."""
    token = _kept.set([_password_of(Path(file))] if file else [])
    try:
        yield
    finally:
        _kept.reset(token)


def password(file: str | None) -> str:
    """The password of the home's keys, a node's or a user's: of a file, else asked for without echo, else a line of standard input. Raises ClickException, EOFError."""
    kept = _kept.get()
    if kept:
        return kept[0]
    path = file or os.environ.get(PASSWORD_FILE_VARIABLE)
    chosen = _password_of(Path(path)) if path else _asked("password of the keys: ")
    if kept is not None:
        kept.append(chosen)
    return chosen


def other_password(file: str | None, what: str) -> str:
    """The password of something else: of a file that is named, else asked for. Raises ClickException, EOFError."""
    return _password_of(Path(file)) if file else _asked(f"{what}: ")


def new_password(file: str | None) -> str:
    """A password for new key files, at least 8 characters; on a terminal it is asked for twice. Raises ClickException, EOFError."""
    path = file or os.environ.get(PASSWORD_FILE_VARIABLE)
    chosen = _password_of(Path(path)) if path else _asked("new password for the keys: ")
    if len(chosen) < LEAST_PASSWORD:
        raise click.ClickException(f"expected a password of at least {LEAST_PASSWORD} characters, got {len(chosen)}")
    if not path and sys.stdin.isatty() and _asked("the same again: ") != chosen:
        raise click.ClickException("the two passwords differ: nothing was made")
    return chosen


def _asked(prompt: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(prompt, stream=sys.stderr)
    line = sys.stdin.readline(MAX_PASSWORD_FILE_BYTES)
    if not line:
        raise click.ClickException(f"no password: name a file with --password-file or ${PASSWORD_FILE_VARIABLE}, or give it on standard input")
    return line.rstrip("\r\n")


def _password_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_PASSWORD_FILE_BYTES)
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                remark(f"warning: other users may read {path}: chmod 600 {path}")
        return raw.decode().split("\n", 1)[0].rstrip("\r")
    except OSError as error:
        raise click.ClickException(f"the password file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"the password file {path} is not text") from None
