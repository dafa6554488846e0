"""What the commands of a user share: home, wallet, a client for as long as a command runs, progress, JSON, warnings.

--home ─► user.toml (else the resource node's config.toml) ─► wallet's key ─ password ─► Storage ─► the command's work ─► one JSON object, or text
                                                                                            └─ warnings and progress on stderr
"""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import click
import uvloop

from sds_node.cli import output
from sds_node.cli.node_common import NODE_ERRORS, home_of, home_option
from sds_node.client import Storage, StorageError, TransferFailed
from sds_node.client.errors import NotFound
from sds_node.client.home import Chain, Network, UserHome, UserSettings, Wallet, checked
from sds_node.client.session import SessionError
from sds_node.memory import keep_freed_memory
from sds_node.resource.daemon.config import load
from sds_node.settings import SettingsError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

EXPECTED: Final[tuple[type[Exception], ...]] = (*NODE_ERRORS, StorageError, TransferFailed, SessionError)
MAX_LOOKED: Final = 10_000
"""Entries of the trash among which a name is looked for that is not there."""
DRAWN_S: Final = 0.1
_BAR: Final = 30


def user_command(command: F) -> Any:
    """A command of a user: ``--home``, ``--json``, ``--password-file``; expected errors become one sentence and exit code 1."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except EXPECTED as error:
            raise click.ClickException(str(error) or type(error).__name__) from None

    made: Any = click.pass_context(guarded)
    made = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(made)
    return home_option(output.password_option(made))


def settings_of(home: UserHome) -> UserSettings:
    """A user's settings; in a resource node's home those of the node do for its owner. Raises SettingsError."""
    if home.settings_path.exists():
        return home.settings()
    config_path = home.root / "config.toml"
    if not config_path.exists():
        raise SettingsError(f"there is no user in {home.root}: say wallet and network with `ppd setup`, or name its --home")
    config = load(config_path)
    found = UserSettings(Wallet(config.keys.wallet), Chain(config.chain.id, config.chain.rpc), Network(config.network.meta_nodes))
    return checked(found, str(config_path))


def user_home(ctx: click.Context) -> UserHome:
    """The home that a command names."""
    return UserHome(home_of(ctx).root)


def with_storage(ctx: click.Context, password_file: str | None, work: Callable[[Storage], Awaitable[T]]) -> T:
    """Open the wallet and have ``work`` done with its client."""
    home = user_home(ctx)
    settings = settings_of(home)
    key = home.wallet_key(settings.wallet.address, output.password(password_file))

    async def done() -> T:
        async with home.storage(key, settings) as storage:
            try:
                return await work(storage)
            except NotFound as error:
                if error.name is None:
                    raise
                raise NotFound(f"{error}: {await _where(storage, error.name)}", error.name) from None

    keep_freed_memory()
    return uvloop.run(done())


async def _where(storage: Storage, name: str) -> str:
    """What to do about a name (NotFound) that is not there."""
    path, seen = name.rstrip("/"), 0
    with contextlib.suppress(StorageError):  # what was not found is told in any case
        async for entry in storage.trash():
            if name in (entry.object_id, entry.file_hash) or (path == entry.path and (entry.is_folder or path == name)):
                known = entry.object_id if name == entry.file_hash else name
                return f"it is in the trash, 'ppd restore {shlex.quote(known)}' takes it out ('ppd trash' shows what else is there)"
            seen += 1
            if seen == MAX_LOOKED:
                break
    return "'ppd list -r' shows what there is ('ppd list --all' files of other programs, too, and with --json hashes and ids)"


def told(value: dict[str, Any], *, as_json: bool, text: str | None = None) -> None:
    """Print a result: as one JSON object, else ``text``, else names and values."""
    output.show(value, "json" if as_json else "text", text)


def warn(sentences: Sequence[str]) -> None:
    """Warnings go beside the result."""
    for one in sentences:
        output.remark(f"warning: {one}")


class Progress:
    """A bar on stderr, on a terminal alone."""

    def __init__(self, label: str, *, is_shown: bool = True) -> None:
        self._label, self._is_shown = label[:40], is_shown and sys.stderr.isatty()
        self._begun_s, self._drawn_s = time.monotonic(), 0.0
        self._had_bytes = 0
        """Were there before: they tell nothing of the speed."""

    def __call__(self, done: int, total: int) -> None:
        """So many bytes of all are done."""
        now_s = time.monotonic()
        if not self._is_shown or (now_s - self._drawn_s < DRAWN_S and done < total):
            return
        self._drawn_s = now_s
        part = done / total if total else 1.0
        speed = (done - self._had_bytes) / max(now_s - self._begun_s, 0.001)
        bar = "#" * int(part * _BAR)
        line = f"{self._label}  [{bar:<{_BAR}}] {part:4.0%}  {output.size_text(done)} of {output.size_text(total)}, {output.size_text(int(speed))}/s"
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._is_shown and self._drawn_s:
            click.echo("\r\x1b[K", nl=False, err=True)
