"""``stchaind tx vesting``: accounts whose coins become free over time, opened and funded by a transaction."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from chain.cli.tx import send, sender_of, tx_options
from chain.codec.registry import message_class
from chain.coins import Coins, to_messages
from chain.crypto import address as bech32
from chain.tx.fees import parse_amounts

MAX_FILE_BYTES: Final = 4 << 20
INT64: Final = click.IntRange(-(1 << 63), (1 << 63) - 1)


@click.group()
def vesting() -> None:
    """Open vesting accounts."""


@vesting.command("create-vesting-account")
@click.argument("to_address")
@click.argument("amount")
@click.argument("end_time", type=INT64)
@click.option("--delayed", is_flag=True, help="All coins become free at the end, and none before.")
@tx_options
@click.pass_context
def create_vesting_account(ctx: click.Context, /, to_address: str, amount: str, end_time: int, delayed: bool, sender: str, **_: Any) -> None:
    """Open an account whose coins become free bit by bit until END_TIME, in Unix seconds.

    It begins with the time of the block that the transaction is in.

    \b
    stchaind tx vesting create-vesting-account st1… 1000wei 1900000000 --from alice --fees 200000gwei
    """
    made = _message("MsgCreateVestingAccount", ctx, sender, to_address, amount=to_messages(_coins(amount)), end_time=end_time, delayed=delayed)
    send(ctx, [made], sender)


@vesting.command("create-permanent-locked-account")
@click.argument("to_address")
@click.argument("amount")
@tx_options
@click.pass_context
def create_permanent_locked_account(ctx: click.Context, /, to_address: str, amount: str, sender: str, **_: Any) -> None:
    """Open an account whose coins can be delegated and never be sent.

    \b
    stchaind tx vesting create-permanent-locked-account st1… 1000wei --from alice --fees 200000gwei
    """
    send(ctx, [_message("MsgCreatePermanentLockedAccount", ctx, sender, to_address, amount=to_messages(_coins(amount)))], sender)


@vesting.command("create-periodic-vesting-account")
@click.argument("to_address")
@click.argument("periods_json_file", type=click.File("rb"))
@tx_options
@click.pass_context
def create_periodic_vesting_account(ctx: click.Context, /, to_address: str, periods_json_file: Any, sender: str, **_: Any) -> None:
    """Open an account whose coins become free in periods, one after the other, from a start in Unix seconds.

    \b
    stchaind tx vesting create-periodic-vesting-account st1… periods.json --from alice --fees 200000gwei
    {"start_time": 1900000000, "periods": [{"coins": "10wei", "length_seconds": 2592000}]}
    """
    start_time, periods = _periods(periods_json_file)
    made = _message("MsgCreatePeriodicVestingAccount", ctx, sender, to_address, start_time=start_time)
    for coins, length_s in periods:
        made.vesting_periods.add(length=length_s, amount=to_messages(coins))
    send(ctx, [made], sender)


def _message(name: str, ctx: click.Context, sender: str, to_address: str, **fields: Any) -> Any:
    bech32.decode(to_address)
    made = message_class(f"cosmos.vesting.v1beta1.{name}")
    return made(from_address=bech32.encode(sender_of(ctx, sender)), to_address=to_address, **fields)


def _coins(text: str) -> Coins:
    if not text:
        raise click.ClickException("amount is empty")
    return parse_amounts(text)


def _periods(file: Any) -> tuple[int, list[tuple[Coins, int]]]:
    """(start in Unix seconds, (coins, length in seconds) of each period) of simd's JSON. Raises ClickException, InvalidCoins."""
    text = file.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        raise click.ClickException(f"{file.name} has more than {MAX_FILE_BYTES} bytes")
    try:
        document = json.loads(text)
        periods = [(one["coins"], _int64(one["length_seconds"])) for one in document["periods"]]
        start_time = _int64(document["start_time"])
        if not all(isinstance(coins, str) for coins, _ in periods):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        shape = '{"start_time": 1900000000, "periods": [{"coins": "10wei", "length_seconds": 2592000}]}'
        raise click.ClickException(f"{file.name} holds no vesting periods: expected JSON as {shape}") from None
    for at, (_, length_s) in enumerate(periods):
        if length_s < 0:
            raise click.ClickException(f"invalid period length of {length_s} in period {at}, length must be greater than 0")
    return start_time, [(parse_amounts(coins), length_s) for coins, length_s in periods]


def _int64(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 63) <= value < 1 << 63:
        raise ValueError
    return value
