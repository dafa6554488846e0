"""``stchaind tx slashing``: a validator's way out of jail."""

from __future__ import annotations

from typing import Any

import click

from chain.cli.tx import send, sender_of, tx_options
from chain.codec.registry import message_class
from chain.crypto import address as bech32


@click.group()
def slashing() -> None:
    """Come back from jail."""


@slashing.command()
@tx_options
@click.pass_context
def unjail(ctx: click.Context, /, sender: str, **_: Any) -> None:
    """Let the sender's validator out of jail, once its time is over.

    \b
    stchaind tx slashing unjail --from operator --fees 200000gwei
    """
    operator = bech32.encode(sender_of(ctx, sender), bech32.VALIDATOR)
    send(ctx, [message_class("cosmos.slashing.v1beta1.MsgUnjail")(validator_addr=operator)], sender)
