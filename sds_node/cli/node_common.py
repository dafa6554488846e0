"""What the commands of a resource node share: which home, its settings, the owner's transactions, durations, amounts.

--home, else ppd --home, else $PPD_HOME, else ~/.ppd ─► Home ─► Config        owner's key ─ Sender ─► one transaction, in a block
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from chain.crypto.keys import PrivateKey
from sds_node.cli import output
from sds_node.control import ControlError, NotRunning, ask
from sds_node.resource.daemon.config import Config
from sds_node.resource.daemon.home import Home, HomeError, default_home
from sds_node.resource.daemon.node import NodeBroken
from sds_node.resource.receipts import ReceiptsError
from sds_node.resource.store import StoreError
from sds_node.settings import SettingsError
from sds_node.value_chain.client import ValueChain
from sds_node.value_chain.sender import Sender
from sds_node.wire.errors import WireError

NODE_ERRORS: Final = (*output.OURS, HomeError, NodeBroken, ControlError, StoreError, ReceiptsError, WireError)
_DURATION: Final = re.compile(r"([0-9]{1,9})(s|m|min|h|d)?")
_SECONDS: Final = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def home_option(command: F) -> F:
    """``--home`` behind a command, too."""
    return click.option("--home", type=click.Path(file_okay=False), default=None, help="The node's folder (default: $PPD_HOME or ~/.ppd).")(command)


def home_of(ctx: click.Context) -> Home:
    """The home named on the command, on any parent, or by default."""
    current: click.Context | None = ctx
    while current is not None:
        chosen = current.params.get("home")
        if chosen:
            return Home(Path(chosen).expanduser().absolute())
        current = current.parent
    return Home(default_home().absolute())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run something of asyncio's to its end."""
    return asyncio.run(work)


def asked_node(home: Home, command: str, timeout_s: float = 60.0, **arguments: Any) -> Any:
    """What the running node answers. Raises NotRunning, ControlError."""
    return run(ask(home.socket_path, command, timeout_s, **arguments))


def asked_if_running(home: Home, command: str, **arguments: Any) -> Any | None:
    """The same, None when no node runs."""
    try:
        return asked_node(home, command, **arguments)
    except NotRunning:
        return None


def owner_key(home: Home, config: Config, password_file: str | None) -> PrivateKey:
    """The owner's key, opened with the password of the node's keys."""
    return home.wallet_key(config, output.password(password_file))


def with_chain(config: Config, work: Callable[[ValueChain], Awaitable[T]]) -> T:
    """Ask the value chain something."""

    async def asked() -> T:
        async with ValueChain(config.chain.rpc) as chain:
            return await work(chain)

    return run(asked())


def send(config: Config, key: PrivateKey, messages: list[Any]) -> dict[str, Any]:
    """Sign and send messages in one transaction; what is told of it once it is in a block. Raises TxRefused, ChainUnavailable, AccountUnknown."""

    async def sent(chain: ValueChain) -> Any:
        status = await chain.status()
        if config.chain.id and status.chain_id != config.chain.id:
            raise SettingsError(f"chain.rpc leads to chain {status.chain_id[:60]!r}, expected {config.chain.id!r}: nothing was sent")
        return await Sender(chain, key).send(messages)

    result = with_chain(config, sent)
    return {"tx": result.hash.hex().upper(), "height": result.height, "gas_used": result.gas_used}


def seconds_of(text: str) -> int:
    """Seconds of ``90``, ``30m``, ``2h``, ``1d``. Raises BadParameter."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"expected a time as 30m, 2h or a number of seconds, got {text[:40]!r}")
    return int(match[1]) * _SECONDS[match[2]]
