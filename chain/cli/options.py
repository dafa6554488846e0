"""What commands share: the home, output, and the errors that become one sentence and an exit code."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from chain.cli.keyring import setting
from chain.cli.text import yaml
from chain.codec.json import loads
from chain.coins import Coins
from chain.config import Home, default_home
from chain.dec import Dec
from chain.tx.fees import parse_amounts, parse_gas_prices

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


def yes_or_no(*flags: str, **attributes: Any) -> Callable[[F], F]:
    """An option as Go's commands have switches: ``--flag`` and ``--flag=true`` are yes, ``--flag=false`` is no."""
    return click.option(*flags, type=click.BOOL, is_flag=False, flag_value="true", **attributes)


def ignored(*flags: str, **attributes: Any) -> Callable[[F], F]:
    """An option of simd that has no meaning here, or not even there."""
    return click.option(*flags, hidden=True, expose_value=False, **attributes)


def refused(flag: str, why: str, *, is_flag: bool = True, is_shown: bool = False) -> Callable[[F], F]:
    """An option of simd that cannot be had here: whoever types it is told why."""

    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            raise click.ClickException(f"{flag}: {why}")

    return click.option(flag, is_flag=is_flag, hidden=not is_shown, expose_value=False, callback=refuse, help=f"Refused: {why}.")


no_ledger: Final = refused("--ledger", "this keyring holds no keys of hardware: make transactions with --generate-only and sign them in a wallet")
_no_aux: Final = refused(
    "--aux", "no AuxSignerData is made here: make the transaction with --generate-only and let each signer run `stchaind tx sign`"
)


def no_ledger_nor_aux(command: F) -> F:
    """Refuse what every ``tx`` command of simd takes and none of this chain."""
    return no_ledger(_no_aux(command))


_SIMD_VALUES: Final = {
    "account-number": "a",
    "broadcast-mode": "b",
    "chain-id": "",
    "fee-granter": "",
    "fee-payer": "",
    "fees": "",
    "from": "",
    "gas": "",
    "gas-adjustment": "",
    "gas-prices": "",
    "keyring-backend": "",
    "keyring-dir": "",
    "node": "",
    "note": "",
    "output": "o",
    "sequence": "s",
    "sign-mode": "",
    "timeout-height": "",
    "tip": "",
}
_SIMD_SWITCHES: Final = {"dry-run": "", "generate-only": "", "offline": "", "yes": "y"}
"""Options of every ``tx`` command of simd, and their letters."""


def taken_as_simd_takes_them(command: Any) -> Any:
    """Give a ``tx`` command the options that it lacks and all of simd's have, without effect: scripts name them everywhere.

    It goes right below ``@click.command``, so that it sees which options the command has.
    """
    own = {name for one in getattr(command, "__click_params__", ()) for name in one.opts}
    missing = [name for name in (*_SIMD_VALUES, *_SIMD_SWITCHES) if f"--{name}" not in own]
    for name in missing:
        letter = (_SIMD_VALUES | _SIMD_SWITCHES)[name]
        flags = [f"--{name}", *([f"-{letter}"] if letter and f"-{letter}" not in own else [])]
        command = ignored(*flags, is_flag=name in _SIMD_SWITCHES)(command)
    told = f"Taken for scripts that are written for simd, and without effect: {', '.join(f'--{one}' for one in sorted(missing))}."
    lines = textwrap.wrap(told, 76, break_on_hyphens=False)
    command.__doc__ += "\n\n    ".join(["", "\n    ".join(["\b", *lines])]) + "\n"
    return no_ledger_nor_aux(command)


def fee_of(options: dict[str, Any], gas: int) -> Coins:
    """The fee that ``--fees`` or ``--gas-prices`` say. Raises ClickException."""
    if options["fees"] and options["gas_prices"]:
        raise click.ClickException("cannot provide both fees and gas prices")
    if options["fees"]:
        return parse_amounts(options["fees"])
    try:
        prices = parse_gas_prices(options["gas_prices"])
    except ValueError as error:
        raise click.ClickException(f"--gas-prices: {error}") from None
    return parse_amounts(",".join(f"{Dec(price.price.scaled * gas).ceil()}{price.denom}" for price in prices))
