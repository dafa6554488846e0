"""``stchaind tx pot``: report traffic, withdraw rewards, fill the foundation, slash (stratos-chain.md 4.1 and 7)."""

from __future__ import annotations

from typing import Any, Final

import click

from chain.cli.options import yes_or_no
from chain.cli.register import reporters_of, whole_number
from chain.cli.tx import send, sender_of, tx_options
from chain.codec.json import from_json, loads
from chain.codec.registry import message_class
from chain.coins import to_messages
from chain.crypto import address as bech32
from chain.tx.fees import parse_amounts

PACKAGE: Final = "stratos.pot.v1"


@click.group()
def pot() -> None:
    """Report traffic, withdraw rewards, fill the foundation, slash."""


@pot.command("report")
@click.option("--wallet-volumes", required=True, help='As [{"wallet_address": "st1…", "volume": "50000"}], in the order that was signed.')
@click.option("--reporter-addr", required=True, help="The meta node that reports, stsds…; --from owns it.")
@click.option("--epoch", required=True, help="The epoch: the last one plus 1.")
@click.option("--reference", required=True, help="The report's reference, sc1….")
@click.option("--bls-signature", required=True, help='As `meta-keys aggregate` prints it: {"pub_keys": [], "signature": "", "txData": ""} in base64.')
@tx_options
@click.pass_context
def report(ctx: click.Context, /, wallet_volumes: str, reporter_addr: str, sender: str, **options: Any) -> None:
    """Make a volume report alone. The chain takes it only behind its commitment, in one transaction: `stchaind tx settlement commit-and-report` makes both.

    \b
    stchaind tx pot report --wallet-volumes '[{"wallet_address": "st1…", "volume": "50000"}]' --reporter-addr stsds1… --epoch 1 \\
        --reference sc1… --bls-signature "$(cat signature.json)" --from alice --generate-only
    """
    bech32.decode(reporter_addr, bech32.NODE)
    volumes = loads(wallet_volumes)
    message = from_json(
        message_class(f"{PACKAGE}.MsgVolumeReport"),
        {
            "wallet_volumes": volumes.get("volumes", []) if isinstance(volumes, dict) else volumes,
            "reporter": reporter_addr,
            "epoch": options["epoch"],
            "report_reference": options["reference"],
            "reporter_owner": bech32.encode(sender_of(ctx, sender)),
            "BLS_signature": loads(options["bls_signature"]),
        },
        "report",
    )
    send(ctx, [message], sender)


@pot.command("withdraw")
@click.option("--amount", required=True, help="What to withdraw of the matured rewards, as 10stos.")
@click.option("--target-address", default="", help="The wallet that it goes to (default: --from).")
@tx_options
@click.pass_context
def withdraw(ctx: click.Context, /, amount: str, target_address: str, sender: str, **_: Any) -> None:
    """Withdraw matured rewards; `stchaind query pot withdrawals` says what there is and when more comes.

    \b
    stchaind tx pot withdraw --amount 10stos --from alice --fees 200000gwei
    """
    wallet = bech32.encode(sender_of(ctx, sender))
    if target_address:
        bech32.decode(target_address)
    fields = {"amount": to_messages(parse_amounts(amount)), "wallet_address": wallet, "target_address": target_address or wallet}
    send(ctx, [message_class(f"{PACKAGE}.MsgWithdraw")(**fields)], sender)


@pot.command("foundation-deposit")
@click.option("--amount", required=True, help="What to give, as 1000stos.")
@tx_options
@click.pass_context
def foundation_deposit(ctx: click.Context, /, amount: str, sender: str, **_: Any) -> None:
    """Give coins to the foundation, which mining rewards come from. Nothing comes back.

    \b
    stchaind tx pot foundation-deposit --amount 1000stos --from alice --fees 200000gwei
    """
    fields = {"amount": to_messages(parse_amounts(amount)), "from": bech32.encode(sender_of(ctx, sender))}
    send(ctx, [message_class(f"{PACKAGE}.MsgFoundationDeposit")(**fields)], sender)


@pot.command("slashing")
@click.option("--reporters", required=True, help="Meta nodes that want it, as stsds1…,stsds1… or a JSON list.")
@click.option("--reporter-owner", default="", help="The wallet of each, in the same order; all of them sign (default: --from).")
@click.option("--network-address", required=True, help="The resource node, stsds….")
@click.option("--wallet-address", required=True, help="The wallet that owns it.")
@click.option("--slashing", "slashing_noz", required=True, help="How much, in noz: its worth is taken.")
@yes_or_no("--suspend", default=False, help="Whether the node is suspended (default: no; a suspended one is not any more).")
@tx_options
@click.pass_context
def slashing(ctx: click.Context, /, network_address: str, wallet_address: str, slashing_noz: str, suspend: bool, sender: str, **options: Any) -> None:
    """Slash a resource node and suspend it: each meta node says so in a transaction of its own, the same of each, and a quorum makes it so.

    \b
    stchaind tx pot slashing --reporters stsds1… --network-address stsds1… --wallet-address st1… --slashing 1000000 --suspend \\
        --from alice --fees 300000gwei --gas 300000
    """
    bech32.decode(network_address, bech32.NODE)
    bech32.decode(wallet_address)
    reporters, owners = reporters_of(ctx, sender, options)
    message = message_class(f"{PACKAGE}.MsgSlashingResourceNode")(
        reporters=reporters,
        reporter_owner=owners,
        network_address=network_address,
        wallet_address=wallet_address,
        slashing=whole_number(slashing_noz, "--slashing"),
        suspend=suspend,
    )
    send(ctx, [message], sender)
