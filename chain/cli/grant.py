"""``stchaind tx grant``: pools and campaigns that give ozone away (storage-protocol.md 1.5, ADR 5)."""

from __future__ import annotations

from typing import Any, Final

import click

from chain.cli.options import UINT64, json_of
from chain.cli.register import whole_number
from chain.cli.tx import send, sender_of, tx_options
from chain.codec.json import from_json
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from chain.tx.fees import BASE_DENOM, parse_amounts

PACKAGE: Final = "stratos.grant.v1"
UINT32: Final = click.IntRange(0, (1 << 32) - 1)
_AMOUNTS: Final = ("budget_wei", "max_wei_per_day")
_FIELDS: Final = ("pool_id", "name", "operators", *_AMOUNTS, "max_noz_per_wallet", "validity_s", "end_time", "promotions")
_SHAPE: Final = (
    '{"pool_id": "2", "name": "…", "operators": ["st1…"], "budget_wei": "100stos", "max_wei_per_day": "5stos", "max_noz_per_wallet": "2000000000", '
    '"validity_s": "2592000", "end_time": "2030-01-30T00:00:00Z", "promotions": [{"promotion_id": 1, "name": "…", "noz_per_wallet": "1000000000", '
    '"start_time": "2029-12-30T00:00:00Z", "end_time": "2030-01-30T00:00:00Z"}]}'
)


@click.group()
def grant() -> None:
    """Give ozone away that cannot be sold: pools, campaigns, claims."""


@grant.command("create-pool")
@click.argument("name")
@click.argument("amount")
@tx_options
@click.pass_context
def create_pool(ctx: click.Context, /, name: str, amount: str, sender: str, **_: Any) -> None:
    """Make a pool of coins that buy ozone for others. What is in it leaves only as ozone.

    \b
    stchaind tx grant create-pool spring 1000stos --from alice --fees 200000gwei
    """
    fields = {"admin": bech32.encode(sender_of(ctx, sender)), "name": name, "funding": to_messages([_coin(amount)])[0]}
    send(ctx, [_message("MsgCreatePool", **fields)], sender)


@grant.command("fund-pool")
@click.argument("pool_id", type=UINT64)
@click.argument("amount")
@tx_options
@click.pass_context
def fund_pool(ctx: click.Context, /, pool_id: int, amount: str, sender: str, **_: Any) -> None:
    """Add coins to a pool; number 1 is the common one, which governance gives from.

    \b
    stchaind tx grant fund-pool 1 1000stos --from alice --fees 200000gwei
    """
    fields = {"depositor": bech32.encode(sender_of(ctx, sender)), "pool_id": pool_id, "amount": to_messages([_coin(amount)])[0]}
    send(ctx, [_message("MsgFundPool", **fields)], sender)


@grant.command("create-campaign")
@click.argument("campaign_json_file", type=click.File("rb"))
@tx_options
@click.pass_context
def create_campaign(ctx: click.Context, /, campaign_json_file: Any, sender: str, **_: Any) -> None:
    """Start a campaign of one's own pool, as a JSON file says (- for standard input): its budget is set aside from the pool.

    \b
    The file: {"pool_id": "2", "name": "…", "operators": ["st1…"], "budget_wei": "100stos", "max_wei_per_day": "5stos",
      "max_noz_per_wallet": "2000000000", "validity_s": "2592000", "end_time": "2030-01-30T00:00:00Z",
      "promotions": [{"promotion_id": 1, "name": "…", "noz_per_wallet": "1000000000",
        "start_time": "2029-12-30T00:00:00Z", "end_time": "2030-01-30T00:00:00Z"}]}

    \b
    stchaind tx grant create-campaign campaign.json --from alice --fees 300000gwei
    """
    given = json_of(campaign_json_file, _SHAPE)
    unknown = [name for name in given if name not in _FIELDS]
    if unknown:
        raise click.ClickException(f"{campaign_json_file.name} has {unknown[0][:60]!r}, which no campaign has: expected {_SHAPE}")
    for name in _AMOUNTS:
        if isinstance(given.get(name), str) and not given[name].isdigit():
            given[name] = str(_coin(given[name]).amount)
    message = from_json(message_class(f"{PACKAGE}.MsgCreateCampaign"), {**given, "admin": bech32.encode(sender_of(ctx, sender))}, "campaign")
    send(ctx, [message], sender)


@grant.command("add-promotion")
@click.argument("campaign_id", type=UINT64)
@click.argument("promotion_id", type=UINT32)
@click.option("--name", required=True, help="What it is called.")
@click.option("--noz-per-wallet", required=True, help="What each wallet gets, in noz.")
@click.option("--start-time", required=True, help="From when on it can be claimed, as 2030-01-30T00:00:00Z.")
@click.option("--end-time", required=True, help="Until when.")
@tx_options
@click.pass_context
def add_promotion(ctx: click.Context, /, campaign_id: int, promotion_id: int, sender: str, **options: Any) -> None:
    """Add a promotion to a campaign, under its budget and limits; each wallet claims it once.

    \b
    stchaind tx grant add-promotion 3 2 --name summer --noz-per-wallet 1000000000 --start-time 2030-06-01T00:00:00Z \\
        --end-time 2030-09-01T00:00:00Z --from alice --fees 200000gwei
    """
    promotion = {
        "promotion_id": promotion_id,
        "name": options["name"],
        "noz_per_wallet": whole_number(options["noz_per_wallet"], "--noz-per-wallet"),
        "start_time": options["start_time"],
        "end_time": options["end_time"],
    }
    made = from_json(message_class(f"{PACKAGE}.Promotion"), promotion, "promotion")
    send(ctx, [_message("MsgAddPromotion", admin=bech32.encode(sender_of(ctx, sender)), campaign_id=campaign_id, promotion=made)], sender)


@grant.command("set-operators")
@click.argument("campaign_id", type=UINT64)
@click.argument("operators", nargs=-1, metavar="[OPERATOR]...")
@tx_options
@click.pass_context
def set_operators(ctx: click.Context, /, campaign_id: int, operators: tuple[str, ...], sender: str, **_: Any) -> None:
    """Replace the wallets that may claim for a campaign; none of them stops it.

    \b
    stchaind tx grant set-operators 3 st1… st1… --from alice --fees 200000gwei
    """
    for operator in operators:
        bech32.decode(operator)
    fields = {"admin": bech32.encode(sender_of(ctx, sender)), "campaign_id": campaign_id, "operators": operators}
    send(ctx, [_message("MsgSetOperators", **fields)], sender)


@grant.command("end-campaign")
@click.argument("campaign_id", type=UINT64)
@tx_options
@click.pass_context
def end_campaign(ctx: click.Context, /, campaign_id: int, sender: str, **_: Any) -> None:
    """End a campaign; what is left of its budget is free in its pool again.

    \b
    stchaind tx grant end-campaign 3 --from alice --fees 200000gwei
    """
    send(ctx, [_message("MsgEndCampaign", admin=bech32.encode(sender_of(ctx, sender)), campaign_id=campaign_id)], sender)


@grant.command("claim")
@click.argument("campaign_id", type=UINT64)
@click.argument("promotion_id", type=UINT32)
@click.argument("wallets", nargs=-1, required=True)
@tx_options
@click.pass_context
def claim(ctx: click.Context, /, campaign_id: int, promotion_id: int, wallets: tuple[str, ...], sender: str, **_: Any) -> None:
    """Claim a promotion for up to 100 wallets, as an operator of its campaign.

    \b
    stchaind tx grant claim 3 1 st1… st1… --from operator --fees 500000gwei --gas auto
    """
    for wallet in wallets:
        bech32.decode(wallet)
    fields = {"operator": bech32.encode(sender_of(ctx, sender)), "campaign_id": campaign_id, "promotion_id": promotion_id, "wallets": wallets}
    send(ctx, [_message("MsgClaim", **fields)], sender)


def _message(name: str, /, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.{name}")(**fields)


def _coin(text: str) -> Coin:
    coins = parse_amounts(text)
    if len(coins) != 1 or coins[0].denom != BASE_DENOM:
        raise click.ClickException(f"expected an amount in wei, gwei or stos, as 100stos, got {text[:60]!r}")
    return coins[0]
