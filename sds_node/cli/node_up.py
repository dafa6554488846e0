"""``ppd up``: a resource node in one step, and its page in the terminal; ``ppd check``, ``ppd monitor``.

home there? ─ no ─► wallet's mnemonic, asked for or new ─► keys, settings
     └─► machine checked ─► enough on the wallet? ─► registered? ─► runs ─► live page, until Ctrl-C
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Any, Final, TextIO

import click
import structlog
import uvloop

from chain.crypto.hd import new_mnemonic
from sds_node.cli.node_chain import earnings_text, node_on_chain, register_node, waits_for
from sds_node.cli.node_common import asked_if_running, home_of, home_option, run, with_chain
from sds_node.cli.node_home import make_home, options_of_init, read_mnemonic
from sds_node.cli.node_run import allow_files, opened_keys, status_text
from sds_node.cli.output import configure_logs, new_password, output_option, password, remark, show, stos_text, table
from sds_node.memory import keep_freed_memory
from sds_node.p2p import parse_address
from sds_node.resource.daemon.config import Config, parse_amount
from sds_node.resource.daemon.home import Home
from sds_node.resource.daemon.machine import Finding, check
from sds_node.resource.daemon.running import Running
from sds_node.value_chain import views
from sds_node.value_chain.client import ValueChain, ValueChainError

FEE_WEI: Final = 10**16
"""What registering costs at most at the least price of gas, with room to spare."""
PAGE_S: Final = 2.0
LINE_S: Final = 60.0
FUNDS_S: Final = 3_600.0
_CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"


@click.command("check")
@home_option
@output_option
@click.pass_context
def check_machine(ctx: click.Context, /, output: str, **_: Any) -> None:
    """Look at this machine: disk, ports, clock, the way to the chain and to meta nodes. Exit code 1 if something is not good."""
    home = home_of(ctx)
    config = home.config()
    found = run(check(config, home.storage_path(config)))
    if asked_if_running(home, "status") is not None:
        found = [one for one in found if "port" not in one.name]
    rows = [{"name": one.name, "is_good": one.is_good, "text": one.text} for one in found]
    show({"findings": rows}, output, _findings_text(found))
    if not all(one.is_good for one in found):
        ctx.exit(1)


@click.command()
@home_option
@output_option
@click.pass_context
def monitor(ctx: click.Context, /, output: str, **_: Any) -> None:
    """Where the running node shows its page and its metrics."""
    told = asked_if_running(home_of(ctx), "status")
    if told is None or not told["monitor"]:
        raise click.ClickException("no page is served: start the node, with monitor.port set")
    show({"page": told["monitor"], "metrics": f"{told['monitor']}metrics"}, output)


@click.command()
@click.option("--deposit", default="", metavar="AMOUNT", help="What the node deposits, as 10stos (default: asked for, or the least that there is).")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing: defaults, and an error where something is missing.")
@options_of_init
@click.pass_context
def up(ctx: click.Context, /, deposit: str, yes: bool, password_file: str | None, **options: Any) -> None:
    """Become a resource node in one step, and watch it earn.

    Makes or takes a wallet, checks this machine, registers with a deposit, runs the node and shows earnings, score and health, here and on a local web page.
    What is done already is not done again: the same command starts the node the next time.

    \b
    ppd up --meta-node stsds1…@meta.example.org:18080 --listen 0.0.0.0:18081
    ppd up --mnemonic-file words --password-file password --deposit 10stos --yes
    """
    home = home_of(ctx)
    if home.is_made:
        config, secret = home.config(), password(password_file)
    else:
        config, secret = _made(home, options, password_file, is_asking=not yes)
    found = run(check(config, home.storage_path(config)))
    remark(_findings_text(found))
    if any(one.is_fatal and not one.is_good for one in found):
        raise click.ClickException("the node cannot run like this: mend what is marked above, and say `ppd up` again")
    if node_on_chain(config) is None:
        amount_wei = _deposit_wei(config, deposit, is_asking=not yes)
        _funded(config, amount_wei + FEE_WEI, is_waiting=not yes)
        told = register_node(home, config, secret, amount_wei, {"moniker": config.keys.p2p})
        remark(f"registered with {stos_text(int(told['deposit_wei']))} in block {told['height']}")
    else:
        register_node(home, config, secret, 0, {})  # refuses a node of another owner
    with home.held():
        _run(home, config, secret)


def _made(home: Home, options: dict[str, Any], password_file: str | None, *, is_asking: bool) -> tuple[Config, str]:
    """A new home. What is not named is asked for on a terminal."""
    mnemonic, is_new = "", False
    if options["mnemonic_file"] or options["recover"]:
        mnemonic = read_mnemonic(options["mnemonic_file"])
    elif is_asking and sys.stdin.isatty():
        typed = click.prompt("mnemonic of your wallet (empty: a new one)", default="", show_default=False, hide_input=True, err=True)
        mnemonic = " ".join(str(typed).split())
    if not mnemonic:
        mnemonic, is_new = new_mnemonic(), True
    if not options["meta_nodes"] and is_asking and sys.stdin.isatty():
        options["meta_nodes"] = (click.prompt("a meta node, as stsds1…@host:port", err=True),)
    secret = new_password(password_file)
    config = make_home(home, options, secret, mnemonic)
    if is_new:
        remark(f"\nWrite down the mnemonic of your wallet {config.keys.wallet}, and show it to nobody:\n\n{mnemonic}\n")
    return config, secret


def _deposit_wei(config: Config, given: str, *, is_asking: bool) -> int:
    async def least(chain: ValueChain) -> int:
        params = (await views.ask(chain, "/stratos.register.v1.Query/Params")).params
        return parse_amount("the least deposit", f"{params.resource_node_min_deposit.amount}wei")

    least_wei = max(with_chain(config, least), 1)
    if not given and is_asking and sys.stdin.isatty():
        given = click.prompt(f"deposit (at least {stos_text(least_wei)}; more deposit, more shares and traffic)", default=f"{least_wei}wei", err=True)
    amount_wei = parse_amount("--deposit", given) if given else least_wei
    if amount_wei < least_wei:
        raise click.ClickException(f"the chain asks for a deposit of at least {stos_text(least_wei)}, got {stos_text(amount_wei)}")
    return amount_wei


def _funded(config: Config, wanted_wei: int, *, is_waiting: bool) -> None:
    """Wait until the wallet has enough. Raises ClickException if that is not to be waited for, or does not happen within an hour."""

    async def wait() -> None:
        is_told = False
        async with ValueChain(config.chain.rpc) as chain, asyncio.timeout(FUNDS_S):
            while (has_wei := await chain.balance_wei(config.keys.wallet)) < wanted_wei:
                text = f"{config.keys.wallet} has {stos_text(has_wei)}: send it {stos_text(wanted_wei - has_wei)}"
                if not is_waiting:
                    raise click.ClickException(text)
                if not is_told:
                    remark(f"{text}; waiting for it")
                is_told = True
                await asyncio.sleep(PAGE_S)

    try:
        run(wait())
    except TimeoutError:
        raise click.ClickException(f"{config.keys.wallet} did not get {stos_text(wanted_wei)} within an hour: say `ppd up` again") from None


def _run(home: Home, config: Config, secret: str) -> None:
    """Run the node with its page on a terminal, or a line a minute elsewhere."""
    key, wallet = opened_keys(home, config, secret)
    is_terminal = sys.stdout.isatty()
    with _logs(home.root / "ppd.log") if is_terminal else contextlib.nullcontext():
        if not is_terminal:
            configure_logs("info", "plain")

        async def both() -> None:
            running = Running(home, config, key, wallet)
            showing = asyncio.ensure_future(_show(running, config, is_terminal=is_terminal))
            try:
                await running.run()
            finally:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)

        allow_files()
        keep_freed_memory()
        uvloop.run(both())
    remark("the node stopped")


@contextlib.contextmanager
def _logs(path: Path) -> Any:
    """While a page is on the terminal, logs go to a file."""
    with path.open("a") as file:
        path.chmod(0o600)
        configure_logs("info", "json")
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(_Flushed(file)))  # type: ignore[arg-type]
        yield
    configure_logs("warn", "plain")


class _Flushed:
    """A text file of which every line is there at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        self._file.write(text)

    def flush(self) -> None:
        self._file.flush()


async def _show(running: Running, config: Config, *, is_terminal: bool) -> None:
    await running.is_up.wait()
    told_s = 0.0
    while True:
        text = await page(running, config)
        if is_terminal:
            click.echo(f"{_CLEAR}{text}\n\nCtrl-C stops the node as it should be.")
        elif time.monotonic() - told_s >= LINE_S:
            told_s = time.monotonic()
            click.echo(text)
        await asyncio.sleep(PAGE_S)


async def page(running: Running, config: Config) -> str:
    """The live page: how the node is, what it waits for, what it earned."""
    told = await running.status()
    node, problem = None, ""
    try:
        async with ValueChain(config.chain.rpc, timeout_s=3.0) as chain:
            node = await views.resource_node(chain, parse_address(config.keys.p2p))
    except ValueChainError as error:
        problem = str(error)
    on_chain: dict[str, Any] | None = {"is_registered": False} if not problem else None
    if node is not None:
        on_chain = {
            "is_registered": True,
            "standing": node.standing.name.lower(),
            "deposit_wei": str(node.tokens_wei),
            "effective_deposit_wei": str(node.effective_wei),
        }
    lines = [status_text({"is_running": True, **told, "chain": on_chain, "chain_problem": problem})]
    missing = "" if problem else waits_for(node, is_running=True)
    if missing:
        lines += ["", f"waiting: {missing}"]
    lines += ["", earnings_text(await running.earnings())]
    if told["monitor"]:
        lines += ["", f"page: {told['monitor']}"]
    return "\n".join(lines)


def _findings_text(found: list[Finding]) -> str:
    return table(["", "", "MACHINE"], [["ok" if one.is_good else "!!", one.name, one.text] for one in found])
