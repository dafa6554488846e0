"""``stchaind tx sds``: buy ozone, record uploaded files (stratos-chain.md 3.1 and 7)."""

from __future__ import annotations

from typing import Any, Final

import click

from chain.cli.tx import send, sender_of, tx_options
from chain.codec.registry import message_class
from chain.coins import to_messages
from chain.crypto import address as bech32
from chain.tx.fees import parse_amounts

PACKAGE: Final = "stratos.sds.v1"


@click.group()
def sds() -> None:
    """Buy ozone, record uploaded files."""


@sds.command("prepay")
@click.argument("from_key_or_address")
@click.argument("beneficiary")
@click.argument("amount")
@tx_options
@click.pass_context
def prepay(ctx: click.Context, /, from_key_or_address: str, beneficiary: str, amount: str, **_: Any) -> None:
    """Buy ozone for the wallet BENEFICIARY at the price of the moment; `stchaind query sds sim-prepay` says how much it would be.

    \b
    stchaind tx sds prepay alice st1… 1stos --fees 200000gwei
    """
    bech32.decode(beneficiary)
    message = message_class(f"{PACKAGE}.MsgPrepay")(
        sender=bech32.encode(sender_of(ctx, from_key_or_address)), beneficiary=beneficiary, amount=to_messages(parse_amounts(amount))
    )
    send(ctx, [message], from_key_or_address)


@sds.command("upload")
@click.option("--file-hash", required=True, help="The file's CID.")
@click.option("--reporter", required=True, help="The meta node that reports it, stsds…; --from owns it.")
@click.option("--uploader", required=True, help="The wallet that uploaded it.")
@tx_options
@click.pass_context
def upload(ctx: click.Context, /, file_hash: str, reporter: str, uploader: str, sender: str, **_: Any) -> None:
    """Record an uploaded file, as a meta node's owner.

    \b
    stchaind tx sds upload --file-hash v05… --reporter stsds1… --uploader st1… --from alice --fees 200000gwei
    """
    bech32.decode(reporter, bech32.NODE)
    bech32.decode(uploader)
    fields = {"file_hash": file_hash, "from": bech32.encode(sender_of(ctx, sender)), "reporter": reporter, "uploader": uploader}
    send(ctx, [message_class(f"{PACKAGE}.MsgFileUpload")(**fields)], sender)
