"""``ppd terminal``: the original's terminal commands (reference sds.md 11.3), each of which runs one of ours.

    > activate 10stos 0.01stos --gas 300000 ─ argv_of ─► ppd register --deposit 10stos; ppd activate        (fees and gas are computed: given ones are left out)

``ppd terminal exec "status"`` runs one line, for scripts.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from sds_node.cli.node_common import home_of, home_option
from sds_node.cli.output import kept_passwords, password_option, remark

MAX_LINE_CHARACTERS: Final = 8_192
PROMPT: Final = "ppd> "
_HELP: Final = """\
general   help, wallets, newwallet, ver, config <section.name> <value>, monitor, performancemeasure, exit
node      rp | registerpeer, activate <amount>, updateDeposit <delta>, deactivate, startmining, status, earnings, downgradeinfo,
          maintenance start <seconds> | stop, updateinfo [--moniker --identity --website --security_contact --details],
          withdraw <amount> [--targetAddr st1…], send <to> <amount>
ozone     prepay <amount>, getoz
files     put | u <path>, list | ls, get | d <name or handle> [saveAs], delete | rm <name>, filestatus <name>
sharing   sharefile <name> <seconds>, allshare, getsharefile <link>, cancelshare <share>
Each of ours works, too: `ppd --help`. A fee or --gas that is given is not needed and left out."""
_WITHOUT_VALUE: Final = ("--isEncrypted", "--allowHigherTier")


class UnknownLine(click.ClickException):
    """A line that is no command."""


def argv_of(line: str, known: Sequence[str]) -> list[list[str]]:
    """The commands of ours that a line of the original's terminal stands for. ``known``: names of ours. Raises UnknownLine."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise UnknownLine(f"the line cannot be read: {error}") from None
    if not words:
        return []
    name, rest = words[0], words[1:]
    make = _ORIGINAL.get(name)
    if make is not None:
        plain, flags = _split(rest)
        try:
            return make(plain, flags, rest)
        except IndexError:
            raise UnknownLine(f"{name} needs more: see help") from None
    if name in known:
        return [words]
    raise UnknownLine(f"there is no command {name[:60]!r}: see help")


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Plain words, and flags with their values; those of fees and gas are left out."""
    plain, flags, given = [], {}, iter(words)
    for word in given:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            flags[name] = value if equals else "true" if name in _WITHOUT_VALUE else next(given, "")
        else:
            plain.append(word)
    flags.pop("--gas", None)
    return plain, flags


def _updateinfo(_: list[str], flags: dict[str, str], rest: Any) -> list[list[str]]:
    given = {name.replace("_", "-"): value for name, value in flags.items()}
    return [["update", *(part for name, value in given.items() for part in (name, value))]]


def _put(plain: list[str], flags: dict[str, str], rest: Any) -> list[list[str]]:
    # The original stores in the clear unless told otherwise; the names stay, the default is ours: private.
    public = ["--public"] if flags.get("--isEncrypted") == "false" else []
    return [["put", *public, plain[0]]]


_Line = Callable[[list[str], dict[str, str], list[str]], list[list[str]]]
_ORIGINAL: Final[dict[str, _Line]] = {
    "wallets": lambda plain, flags, rest: [["keys", "list"]],
    "newwallet": lambda plain, flags, rest: [["keys", "add"]],
    "ver": lambda plain, flags, rest: [["--version"]],
    "config": lambda plain, flags, rest: [["config", *rest]] if rest[0] in ("get", "set", "show") else [["config", "set", plain[0], plain[1]]],
    "monitor": lambda plain, flags, rest: [["monitor"]],
    "performancemeasure": lambda plain, flags, rest: [["check"]],
    "rp": lambda plain, flags, rest: [["activate", "--timeout", "0"]],
    "registerpeer": lambda plain, flags, rest: [["activate", "--timeout", "0"]],
    "startmining": lambda plain, flags, rest: [["activate", "--timeout", "0"]],
    "activate": lambda plain, flags, rest: [["register", "--deposit", plain[0]], ["activate"]] if plain else [["activate", *rest]],
    "updateDeposit": lambda plain, flags, rest: [["deposit", plain[0]]],
    "deactivate": lambda plain, flags, rest: [["exit", "--yes"]],
    "downgradeinfo": lambda plain, flags, rest: [["status"]],
    "updateinfo": _updateinfo,
    "withdraw": lambda plain, flags, rest: [["withdraw", *plain[:1], *(["--to", flags["--targetAddr"]] if "--targetAddr" in flags else [])]],
    "send": lambda plain, flags, rest: [["send", plain[0], plain[1]]],
    "prepay": lambda plain, flags, rest: [["prepay", plain[0]]],
    "getoz": lambda plain, flags, rest: [["balance"]],
    "put": _put,
    "u": _put,
    "list": lambda plain, flags, rest: [["list", *plain]],
    "ls": lambda plain, flags, rest: [["list", *plain]],
    "get": lambda plain, flags, rest: [["get", *plain[:2]]],
    "d": lambda plain, flags, rest: [["get", *plain[:2]]],
    "delete": lambda plain, flags, rest: [["rm", plain[0]]],
    "rm": lambda plain, flags, rest: [["rm", plain[0]]],
    "filestatus": lambda plain, flags, rest: [["status", plain[0]]],
    "backupstatus": lambda plain, flags, rest: [["status", plain[0]]],
    "replicas": lambda plain, flags, rest: [["status", plain[0]]],
    "sharefile": lambda plain, flags, rest: [["share", plain[0], *(["--expires", f"{plain[1]}s"] if len(plain) > 1 and plain[1] != "0" else [])]],
    "allshare": lambda plain, flags, rest: [["shares"]],
    "getsharefile": lambda plain, flags, rest: [["get-shared", *plain[:2]]],
    "cancelshare": lambda plain, flags, rest: [["unshare", plain[0]]],
}


def run_line(root: click.Group, home: str, line: str) -> int:
    """Run what a line stands for; the exit code of the first command that fails, else 0. Raises UnknownLine."""
    for argv in argv_of(line, list(root.commands)):
        try:
            root.main(["--home", home, *argv], prog_name="ppd")
        except SystemExit as end:
            if end.code:
                return int(end.code) if isinstance(end.code, int) else 1
    return 0


@click.group("terminal", invoke_without_command=True)
@home_option
@password_option
@click.pass_context
def terminal(ctx: click.Context, /, password_file: str | None, **_: Any) -> None:
    """Type the original's terminal commands; the password is asked for once. `help` lists them, `exit` ends.

    \b
    ppd terminal
    ppd terminal exec "maintenance start 600"
    """
    if ctx.invoked_subcommand is not None:
        return
    home, root = str(home_of(ctx).root), _root(ctx)
    with kept_passwords(password_file):
        while True:
            if sys.stdin.isatty():
                sys.stderr.write(PROMPT)
                sys.stderr.flush()
            line = sys.stdin.readline(MAX_LINE_CHARACTERS)
            if not line or line.strip() in ("exit", "quit"):
                return
            if line.strip() in ("help", "h"):
                click.echo(_HELP)
                continue
            try:
                run_line(root, home, line)
            except UnknownLine as error:
                remark(f"Error: {error.message}")


@terminal.command("exec")
@click.argument("line", nargs=-1, required=True)
@click.option("-v", "--verbose", is_flag=True, help="Accepted, as the original takes it.")
@home_option
@password_option
@click.pass_context
def terminal_exec(ctx: click.Context, /, line: tuple[str, ...], password_file: str | None, **_: Any) -> None:
    """Run one line of the terminal and end with its exit code.

    \b
    ppd terminal exec status
    ppd terminal exec "withdraw 3stos 0.01stos"
    """
    text = line[0] if len(line) == 1 else shlex.join(line)
    if text.strip() in ("help", "h"):
        click.echo(_HELP)
        return
    with kept_passwords(password_file):
        ctx.exit(run_line(_root(ctx), str(home_of(ctx).root), text))


def _root(ctx: click.Context) -> click.Group:
    command = ctx.find_root().command
    assert isinstance(command, click.Group)
    return command
