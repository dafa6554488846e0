"""``stchaind tx feegrant``: let another account pay its fees from one's own."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from chain.cli.authz import listed
from chain.cli.tx import send, sender_of, tx_options
from chain.codec.registry import message_class, pack_any
from chain.codec.times import parse_rfc3339
from chain.coins import to_messages
from chain.crypto import address as bech32
from chain.tx.fees import parse_amounts

PACKAGE: Final = "cosmos.feegrant.v1beta1"
MAX_PERIOD_S: Final = (1 << 63) // 10**9


@click.group()
def feegrant() -> None:
    """Pay the fees of others."""


@feegrant.command("grant")
@click.argument("granter_key_or_address")
@click.argument("grantee")
@click.option("--spend-limit", default="", help="At most these coins in all (default: no limit).")
@click.option("--expiration", default="", help="When it ends, as 2030-01-30T15:04:05Z (default: never).")
@click.option("--period", type=click.IntRange(0, MAX_PERIOD_S), default=0, help="Seconds after which --period-limit may be spent again.")
@click.option("--period-limit", default="", help="At most these coins in each period.")
@click.option("--allowed-messages", multiple=True, help="Only for these messages, separated by commas, as /cosmos.gov.v1.MsgVote.")
@tx_options
@click.pass_context
def grant(ctx: click.Context, /, granter_key_or_address: str, grantee: str, **options: Any) -> None:
    """Let GRANTEE pay fees from one's account.

    \b
    stchaind tx feegrant grant alice st1… --spend-limit 1stos --expiration 2030-01-30T15:04:05Z --fees 200000gwei
    stchaind tx feegrant grant alice st1… --period 3600 --period-limit 1000000gwei --fees 200000gwei
    """
    bech32.decode(grantee)
    granter = bech32.encode(sender_of(ctx, granter_key_or_address))
    made = message_class(f"{PACKAGE}.MsgGrantAllowance")(granter=granter, grantee=grantee, allowance=pack_any(_allowance(options)))
    send(ctx, [made], granter_key_or_address)


@feegrant.command("revoke")
@click.argument("granter_key_or_address")
@click.argument("grantee")
@tx_options
@click.pass_context
def revoke(ctx: click.Context, /, granter_key_or_address: str, grantee: str, **_: Any) -> None:
    """Take back what was granted to GRANTEE.

    \b
    stchaind tx feegrant revoke alice st1… --fees 200000gwei
    """
    bech32.decode(grantee)
    granter = bech32.encode(sender_of(ctx, granter_key_or_address))
    send(ctx, [message_class(f"{PACKAGE}.MsgRevokeAllowance")(granter=granter, grantee=grantee)], granter_key_or_address)


@feegrant.command("prune")
@tx_options
@click.pass_context
def prune(ctx: click.Context, /, sender: str, **_: Any) -> None:
    """Remove up to 75 allowances that have ended.

    \b
    stchaind tx feegrant prune --from alice --fees 400000gwei --gas 400000
    """
    send(ctx, [message_class(f"{PACKAGE}.MsgPruneAllowances")(pruner=bech32.encode(sender_of(ctx, sender)))], sender)


def _allowance(options: dict[str, Any]) -> Any:
    made = message_class(f"{PACKAGE}.BasicAllowance")(spend_limit=to_messages(parse_amounts(options["spend_limit"])))
    if options["expiration"]:
        try:
            made.expiration.seconds, made.expiration.nanos = parse_rfc3339(options["expiration"])
        except ValueError as error:
            raise click.ClickException(f"--expiration: {error}") from None
    period_s, limit = options["period"], to_messages(parse_amounts(options["period_limit"]))
    if period_s or limit:
        if not (period_s and limit):
            raise click.ClickException("a periodic allowance needs both --period and --period-limit")
        reset_s = int(time.time()) + period_s
        if options["expiration"] and reset_s > made.expiration.seconds:
            raise click.ClickException(f"period ({period_s}) cannot reset after expiration ({options['expiration']})")
        made = message_class(f"{PACKAGE}.PeriodicAllowance")(basic=made, period_spend_limit=limit, period_can_spend=limit)
        made.period.seconds, made.period_reset.seconds = period_s, reset_s
    only = listed(options["allowed_messages"])
    return message_class(f"{PACKAGE}.AllowedMsgAllowance")(allowance=pack_any(made), allowed_messages=only) if only else made
