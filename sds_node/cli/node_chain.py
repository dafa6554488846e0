"""``ppd register``, ``deposit``, ``activate``, ``earnings``, ``withdraw``, ``exit``: a resource node on the value chain.

register ─► bonded, suspended ─ start: hello ─► meta nodes set the effective deposit ─► active ─ exit ─► unbonding, shares move ─► paid back
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import click

from chain.codec.registry import message_class
from chain.coins import CoinMessage
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, public_key_to_any
from sds_node.cli.node_common import asked_if_running, asked_node, home_of, home_option, owner_key, run, send, with_chain
from sds_node.cli.output import output_option, password, password_option, remark, show, stos_text, table, time_text
from sds_node.p2p import P2PKey, parse_address
from sds_node.resource.daemon.config import Config, parse_amount
from sds_node.resource.daemon.earnings import on_chain
from sds_node.resource.daemon.home import Home
from sds_node.resource.daemon.withdrawing import withdraw as withdrawal
from sds_node.value_chain import views
from sds_node.value_chain.client import ValueChain, ValueChainError

PACKAGE: Final = "stratos.register.v1"
STORAGE: Final = 4
"""The node type of the chain: 1 is computation, 2 database, 4 storage."""
POLL_S: Final = 1.0


def node_on_chain(config: Config) -> views.ResourceNode | None:
    """What the chain has of the node. Raises ValueChainError."""

    async def asked(chain: ValueChain) -> views.ResourceNode | None:
        return await views.resource_node(chain, parse_address(config.keys.p2p))

    return with_chain(config, asked)


def beneficiary_of(config: Config) -> str:
    """Who is paid: the account on the chain, else the one in the settings."""
    with contextlib.suppress(ValueChainError):
        node = node_on_chain(config)
        if node is not None:
            return bech32.encode(node.beneficiary)
    return config.keys.beneficiary or config.keys.wallet


def registration(config: Config, node: P2PKey, deposit_wei: int, description: dict[str, str]) -> Any:
    """MsgCreateResourceNode of the home's node."""
    return message_class(f"{PACKAGE}.MsgCreateResourceNode")(
        network_address=config.keys.p2p,
        pubkey=public_key_to_any(Ed25519PublicKey(node.public_key)),
        value=CoinMessage(denom="wei", amount=str(deposit_wei)),
        owner_address=config.keys.wallet,
        beneficiary_address=config.keys.beneficiary or config.keys.wallet,
        description=description,
        node_type=STORAGE,
    )


def register_node(home: Home, config: Config, secret: str, deposit_wei: int, description: dict[str, str]) -> dict[str, Any]:
    """Register the node, if the chain does not have it. Raises ValueChainError, KeyFileError, HomeError, ClickException for somebody else's node."""
    there = node_on_chain(config)
    if there is not None:
        owner = bech32.encode(there.owner)
        if owner != config.keys.wallet:
            raise click.ClickException(
                f"{config.keys.p2p} is registered already, by {owner}: make another node key with `ppd keys add --type p2p --use`, and start over"
            )
        return {"node": config.keys.p2p, "was_registered": True, "deposit_wei": str(there.tokens_wei)}
    node = P2PKey(home.load_key(config.keys.p2p, secret).private_key)
    sent = send(config, home.wallet_key(config, secret), [registration(config, node, deposit_wei, description)])
    # After an earlier `ppd exit` it took no shares.
    if asked_if_running(home, "stay") is None:
        home.remember(is_leaving=False)
    return {"node": config.keys.p2p, "was_registered": False, "deposit_wei": str(deposit_wei), **sent}


@click.command()
@click.option("--deposit", required=True, metavar="AMOUNT", help="What the node deposits, as 10stos; more deposit, more shares and traffic.")
@click.option("--moniker", default="", help="The node's name (default: its address).")
@click.option("--identity", default="", help="Its signature at Keybase or the like.")
@click.option("--website", default="", help="Its website.")
@click.option("--security-contact", default="", help="Its address for security reports.")
@click.option("--details", default="", help="More about it.")
@password_option
@home_option
@output_option
@click.pass_context
def register(ctx: click.Context, /, deposit: str, password_file: str | None, output: str, moniker: str, **description: Any) -> None:
    """Register the node on the chain, with a deposit. Once it runs, meta nodes put it to work.

    \b
    ppd register --deposit 10stos --moniker mine
    """
    home = home_of(ctx)
    config = home.config()
    description.pop("home")
    amount_wei = parse_amount("--deposit", deposit)
    told = register_node(home, config, password(password_file), amount_wei, {"moniker": moniker or config.keys.p2p, **description})
    text = (
        "was registered before" if told["was_registered"] else f"is registered with {stos_text(int(told['deposit_wei']))} in block {told['height']}"
    )
    show(told, output, f"{told['node']} {text}; now `ppd start`, then `ppd activate`")


@click.command()
@click.argument("amount")
@password_option
@home_option
@output_option
@click.pass_context
def deposit(ctx: click.Context, /, amount: str, password_file: str | None, output: str, **_: Any) -> None:
    """Add AMOUNT to the node's deposit. A deposit only grows; it comes back after `ppd exit`.

    \b
    ppd deposit 5stos
    """
    home = home_of(ctx)
    config = home.config()
    amount_wei = parse_amount("AMOUNT", amount)
    message = message_class(f"{PACKAGE}.MsgUpdateResourceNodeDeposit")(
        network_address=config.keys.p2p, owner_address=config.keys.wallet, deposit_delta=CoinMessage(denom="wei", amount=str(amount_wei))
    )
    sent = send(config, owner_key(home, config, password_file), [message])
    show({"node": config.keys.p2p, "added_wei": str(amount_wei), **sent}, output, f"{stos_text(amount_wei)} added in block {sent['height']}")


# --- activation -----------------------------------------------------------------------------------------------------------------------


def waits_for(node: views.ResourceNode | None, *, is_running: bool) -> str:
    """What is still missing before a node works, in words; empty when nothing is."""
    if node is None:
        return "it is not registered: `ppd register`"
    if node.standing is views.Standing.LEAVING:
        return "it is leaving: it can be registered again when its deposit was paid back"
    if node.effective_wei > 0 and node.standing is views.Standing.ACTIVE:
        return ""
    if not is_running:
        return "it does not run: `ppd start`; meta nodes put a node to work when it says hello"
    if node.effective_wei > 0:
        return "it is suspended: meta nodes lift that when it is worth it; a deposit helps (`ppd deposit`)"
    return "meta nodes have not set its effective deposit yet: enough of them have to approve it on the chain"


def wait_until_active(home: Home, config: Config, timeout_s: float, tell: Callable[[str], None]) -> bool:
    """Ask meta nodes and the chain until the node works, and ``tell`` what is waited for whenever that changes. False when the time is over."""

    async def wait() -> None:
        told = ""
        async with ValueChain(config.chain.rpc) as chain, asyncio.timeout(timeout_s):
            while True:
                node = await views.resource_node(chain, parse_address(config.keys.p2p))
                is_running = await asyncio.to_thread(lambda: asked_if_running(home, "announce") is not None)
                missing = waits_for(node, is_running=is_running)
                if not missing:
                    return
                if missing != told:
                    tell(missing)
                told = missing
                await asyncio.sleep(POLL_S)

    try:
        run(wait())
    except TimeoutError:
        return False
    return True


@click.command()
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=300.0, show_default=True, help="How long to wait, seconds; 0 only asks.")
@home_option
@output_option
@click.pass_context
def activate(ctx: click.Context, /, timeout_s: float, output: str, **_: Any) -> None:
    """Ask the meta nodes to put the node to work, and wait until the chain says so; what is waited for is told.

    \b
    ppd activate --timeout 600
    """
    home = home_of(ctx)
    config = home.config()
    if timeout_s == 0:
        node = node_on_chain(config)
        missing = waits_for(node, is_running=asked_if_running(home, "announce") is not None)
        show({"node": config.keys.p2p, "is_active": not missing, "waits_for": missing}, output, missing or "the node is active")
        ctx.exit(1 if missing else 0)
    last: list[str] = []

    def tell(text: str) -> None:
        last.append(text)
        remark(f"waiting: {text}")

    if not wait_until_active(home, config, timeout_s, tell):
        raise click.ClickException(f"the node is not active after {timeout_s:g} s: {last[-1] if last else 'the chain did not answer'}")
    node = node_on_chain(config)
    effective_wei = 0 if node is None else node.effective_wei
    show(
        {"node": config.keys.p2p, "is_active": True, "effective_deposit_wei": str(effective_wei)},
        output,
        f"the node is active: {stos_text(effective_wei)} of its deposit count",
    )


# --- earnings -------------------------------------------------------------------------------------------------------------------------


def earnings_of(home: Home) -> dict[str, Any]:
    """``chain``, ``network`` and ``problems``: from the running node, else from the chain alone."""
    config = home.config()
    told = asked_if_running(home, "earnings")
    if told is not None:
        return dict(told)
    wallet = beneficiary_of(config)

    async def asked(chain: ValueChain) -> dict[str, Any]:
        return await on_chain(chain, wallet)

    return {"chain": with_chain(config, asked), "network": None, "problems": ["the node does not run: what is not on the chain yet is not known"]}


def earnings_text(told: dict[str, Any]) -> str:
    """The same for people."""
    lines: list[str] = []
    chain, network = told["chain"], told["network"]
    if chain is not None:
        lines += [f"to withdraw now      {stos_text(int(chain['mature_wei']))}", f"maturing             {stos_text(int(chain['immature_wei']))}"]
        if int(chain["slashing_debt_wei"]):
            lines.append(f"debt, taken first    {stos_text(int(chain['slashing_debt_wei']))}")
    if network is not None:
        lines += [
            f"in the next report   {network['earned_noz']} noz",
            f"in the next window   {network['held_noz']} noz",
            f"escrow, day by day   {network['escrow_noz']} noz for {network['shares']} shares",
        ]
    if chain is not None and chain["upcoming"]:
        rows = [
            [
                one["reward_epoch"],
                one["maturity_epoch"],
                stos_text(int(one["amount_wei"])),
                time_text(one["not_before_s"]) if one["not_before_s"] else "–",
            ]
            for one in chain["upcoming"]
        ]
        lines += ["", table(["OF EPOCH", "MATURES IN", "AMOUNT", "NOT BEFORE"], rows)]
    return "\n".join([*lines, *told["problems"]])


@click.command()
@home_option
@output_option
@click.pass_context
def earnings(ctx: click.Context, /, output: str, **_: Any) -> None:
    """What the node earned: to withdraw, maturing and when, in the next report, in escrow."""
    told = earnings_of(home_of(ctx))
    show(told, output, earnings_text(told) if output == "text" else None)


def maturing_text(chain: dict[str, Any]) -> str:
    """What will have matured when, for people; ``chain`` as ``on_chain`` gives it."""
    if not int(chain["immature_wei"]):
        return "nothing is maturing"
    text = f"{stos_text(int(chain['immature_wei']))} maturing"
    if not chain["upcoming"]:
        return text
    soonest = chain["upcoming"][0]
    when = f"not before {time_text(soonest['not_before_s'])}" if soonest["not_before_s"] else f"with epoch {soonest['maturity_epoch']}"
    return f"{text}, {stos_text(int(soonest['amount_wei']))} of it {when}"


def withdrawal_wei(amount_wei: int | None, chain: dict[str, Any]) -> int:
    """How much is withdrawn, wei: all that has matured where ``amount_wei`` is None. Raises ClickException for more than that, and where
    nothing has."""
    mature_wei, wallet = int(chain["mature_wei"]), chain["wallet"]
    if not mature_wei:
        raise click.ClickException(f"nothing has matured for {wallet} yet ({maturing_text(chain)}): see `ppd earnings`")
    if amount_wei is None:
        return mature_wei
    if amount_wei > mature_wei:
        raise click.ClickException(
            f"expected at most {stos_text(mature_wei)}, which is what has matured for {wallet} ({maturing_text(chain)}), got {stos_text(amount_wei)}: "
            "withdraw less, or all that has matured by naming no amount"
        )
    return amount_wei


@click.command()
@click.argument("amount", required=False)
@click.option("--to", "target", default="", metavar="ST1…", help="The account that it goes to (default: the wallet itself).")
@password_option
@home_option
@output_option
@click.pass_context
def withdraw(ctx: click.Context, /, amount: str | None, target: str, password_file: str | None, output: str, **_: Any) -> None:
    """Withdraw AMOUNT of what has matured, or all of it. The owner's key signs, so the owner has to be the one who is paid.

    \b
    ppd withdraw
    ppd withdraw 3stos --to st1…
    """
    home = home_of(ctx)
    config = home.config()
    if target:
        bech32.decode(target)

    wanted_wei = parse_amount("AMOUNT", amount) if amount else None

    async def asked(chain: ValueChain) -> dict[str, Any]:
        return await on_chain(chain, config.keys.wallet)

    amount_wei = withdrawal_wei(wanted_wei, with_chain(config, asked))
    message = withdrawal(amount_wei, config.keys.wallet, target or config.keys.wallet)
    sent = send(config, owner_key(home, config, password_file), [message])
    show({"amount_wei": str(amount_wei), **sent}, output, f"{stos_text(amount_wei)} withdrawn in block {sent['height']}")


@click.command("send")
@click.argument("to")
@click.argument("amount")
@password_option
@home_option
@output_option
@click.pass_context
def send_coins(ctx: click.Context, /, to: str, amount: str, password_file: str | None, output: str, **_: Any) -> None:
    """Send AMOUNT from the owner's wallet to another account.

    \b
    ppd send st1… 3stos
    """
    home = home_of(ctx)
    config = home.config()
    bech32.decode(to)
    amount_wei = parse_amount("AMOUNT", amount)
    coins = [CoinMessage(denom="wei", amount=str(amount_wei))]
    message = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=config.keys.wallet, to_address=to, amount=coins)
    sent = send(config, owner_key(home, config, password_file), [message])
    show({"amount_wei": str(amount_wei), "to": to, **sent}, output, f"{stos_text(amount_wei)} sent in block {sent['height']}")


@click.command()
@click.option("--moniker", default=None, help="The node's name.")
@click.option("--identity", default=None, help="Its signature at Keybase or the like.")
@click.option("--website", default=None, help="Its website.")
@click.option("--security-contact", default=None, help="Its address for security reports.")
@click.option("--details", default=None, help="More about it.")
@click.option("--beneficiary", default="", metavar="ST1…", help="The wallet that is paid from now on; start the node again afterwards.")
@password_option
@home_option
@output_option
@click.pass_context
def update(ctx: click.Context, /, beneficiary: str, password_file: str | None, output: str, **given: str | None) -> None:
    """Change what the chain says of the node. What is not named stays.

    \b
    ppd update --moniker mine --website https://example.org
    """
    home = home_of(ctx)
    config = home.config()
    given.pop("home")

    async def asked(chain: ValueChain) -> Any:
        return (await views.ask(chain, "/stratos.register.v1.Query/ResourceNode", network_addr=config.keys.p2p)).node

    node = with_chain(config, asked)
    description = message_class(f"{PACKAGE}.Description")()
    description.CopyFrom(node.description)
    for name, text in given.items():
        if text is not None:
            setattr(description, name, text)
    message = message_class(f"{PACKAGE}.MsgUpdateResourceNode")(
        network_address=config.keys.p2p,
        owner_address=config.keys.wallet,
        description=description,
        node_type=node.node_type,
        beneficiary_address=beneficiary or node.beneficiary_address,
    )
    sent = send(config, owner_key(home, config, password_file), [message])
    show({"node": config.keys.p2p, **sent}, output, f"changed in block {sent['height']}")


# --- leaving --------------------------------------------------------------------------------------------------------------------------


@click.command("exit")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait/--no-wait", default=False, help="Wait until all shares are elsewhere.")
@password_option
@home_option
@output_option
@click.pass_context
def leave(ctx: click.Context, /, yes: bool, wait: bool, password_file: str | None, output: str, **_: Any) -> None:
    """Leave the network for good: unbond the node, hand its shares over, get the deposit back.

    The node goes on running, takes no new shares, and serves those that it has until meta nodes have brought them elsewhere. Stop it when none is left.

    \b
    ppd exit --wait && ppd stop
    """
    home = home_of(ctx)
    config = home.config()
    node = node_on_chain(config)
    if node is None:
        raise click.ClickException(f"the chain has no node {config.keys.p2p}: there is nothing to leave")
    asked_node(home, "status")  # a node that does not run hands nothing over
    told: dict[str, Any] = {"node": config.keys.p2p}
    if node.standing is not views.Standing.LEAVING:
        if not yes and not click.confirm(f"unbond {config.keys.p2p} and its {stos_text(node.tokens_wei)}?", err=True):
            raise click.ClickException("nothing was done")
        message = message_class(f"{PACKAGE}.MsgRemoveResourceNode")(resource_node_address=config.keys.p2p, owner_address=config.keys.wallet)
        told |= send(config, owner_key(home, config, password_file), [message])
    asked_node(home, "leave")
    left = _shares_left(home)
    while wait and left:
        remark(f"{left} shares are still here")
        run(asyncio.sleep(10 * POLL_S))
        left = _shares_left(home)
    told["shares_left"] = left
    show(told, output, f"{config.keys.p2p} is leaving; {left} shares are still here" + ("" if left else ": `ppd stop`"))


def _shares_left(home: Home) -> int:
    told = asked_node(home, "status")
    return int(max([one["shares"] for one in told["meta_nodes"] if one["is_online"]], default=told["copies"]))
