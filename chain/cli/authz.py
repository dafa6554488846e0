"""``stchaind tx authz``: let another account send messages in one's name, and send them in another's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import click

from chain.cli.tx import send, sender_of, tx_options
from chain.codec.json import from_json, loads
from chain.codec.registry import message_class, pack_any
from chain.coins import Coins, to_messages
from chain.crypto import address as bech32
from chain.tx.fees import BASE_DENOM, parse_amounts

STAKE: Final = {"delegate": 1, "unbond": 2, "redelegate": 3, "cancel-unbond": 4}
"""AuthorizationType by the word of the command line."""
MAX_TIME_S: Final = 253_402_300_799


@click.group()
def authz() -> None:
    """Let others act in your name, and act in theirs."""


@authz.command("grant")
@click.argument("grantee")
@click.argument("authorization_type", type=click.Choice(["send", "generic", *STAKE]))
@click.option("--spend-limit", default="", help="At most these coins: for send, and (one coin) for stake.")
@click.option("--allow-list", multiple=True, help="For send: only to these addresses, separated by commas.")
@click.option("--msg-type", default="", help="For generic: the messages, as /cosmos.gov.v1.MsgVote.")
@click.option("--allowed-validators", multiple=True, help="For stake: only with these validators, separated by commas.")
@click.option("--deny-validators", multiple=True, help="For stake: not with these validators, separated by commas.")
@click.option("--expiration", type=click.IntRange(0, MAX_TIME_S), default=0, help="Unix seconds at which the grant ends (default: never).")
@tx_options
@click.pass_context
def grant(ctx: click.Context, /, grantee: str, authorization_type: str, expiration: int, sender: str, **options: Any) -> None:
    """Let GRANTEE send messages of one kind in the name of --from.

    \b
    stchaind tx authz grant st1… send --spend-limit 100gwei --from alice --fees 200000gwei
    stchaind tx authz grant st1… generic --msg-type /cosmos.gov.v1.MsgVote --from alice --fees 200000gwei
    stchaind tx authz grant st1… delegate --allowed-validators stvaloper1… --from alice --fees 200000gwei
    """
    granter = bech32.encode(sender_of(ctx, sender))
    bech32.decode(grantee)
    if grantee.lower() == granter:
        raise click.ClickException("grantee and granter should be different")
    made = message_class("cosmos.authz.v1beta1.MsgGrant")(granter=granter, grantee=grantee)
    made.grant.authorization.CopyFrom(pack_any(_authorization(authorization_type, options)))
    if expiration:
        made.grant.expiration.seconds = expiration
    send(ctx, [made], sender)


@authz.command("revoke")
@click.argument("grantee")
@click.argument("msg_type_url")
@tx_options
@click.pass_context
def revoke(ctx: click.Context, /, grantee: str, msg_type_url: str, sender: str, **_: Any) -> None:
    """Take back what --from granted GRANTEE for one kind of message.

    \b
    stchaind tx authz revoke st1… /cosmos.bank.v1beta1.MsgSend --from alice --fees 200000gwei
    """
    bech32.decode(grantee)
    granter = bech32.encode(sender_of(ctx, sender))
    send(ctx, [message_class("cosmos.authz.v1beta1.MsgRevoke")(granter=granter, grantee=grantee, msg_type_url=msg_type_url)], sender)


@authz.command("exec")
@click.argument("tx_json_file", type=click.File("rb"))
@tx_options
@click.pass_context
def execute(ctx: click.Context, /, tx_json_file: Any, sender: str, **_: Any) -> None:
    """Send the messages of a transaction's JSON file (- for standard input), which others have to sign, as --from, whom they granted that.

    \b
    stchaind tx bank send st1… st1… 5gwei --generate-only > tx.json
    stchaind tx authz exec tx.json --from bob --fees 200000gwei
    """
    given = from_json(message_class("cosmos.tx.v1beta1.Tx"), loads(tx_json_file.read()))
    if not given.body.messages:
        raise click.ClickException(f"{tx_json_file.name} holds no messages: expected the JSON of a transaction, as --generate-only prints it")
    grantee = bech32.encode(sender_of(ctx, sender))
    send(ctx, [message_class("cosmos.authz.v1beta1.MsgExec")(grantee=grantee, msgs=given.body.messages)], sender)


def listed(options: Iterable[str]) -> list[str]:
    """The parts of an option that may be given several times and holds commas."""
    return [part.strip() for option in options for part in option.split(",") if part.strip()]


def _authorization(kind: str, options: dict[str, Any]) -> Any:
    limit = parse_amounts(options["spend_limit"])
    if kind == "generic":
        if not options["msg_type"]:
            raise click.ClickException("--msg-type must name the messages, as /cosmos.gov.v1.MsgVote")
        return message_class("cosmos.authz.v1beta1.GenericAuthorization")(msg=options["msg_type"])
    if kind == "send":
        if not limit:
            raise click.ClickException("spend-limit should be greater than zero")
        allowed = listed(options["allow_list"])
        for at, address in enumerate(allowed):
            bech32.decode(address)
            if address in allowed[:at]:
                raise click.ClickException(f"duplicate address {address} in allow-list")
        return message_class("cosmos.bank.v1beta1.SendAuthorization")(spend_limit=to_messages(limit), allow_list=allowed)
    return _stake(kind, limit, listed(options["allowed_validators"]), listed(options["deny_validators"]))


def _stake(kind: str, limit: Coins, allowed: list[str], denied: list[str]) -> Any:
    for address in (*allowed, *denied):
        bech32.decode(address, bech32.VALIDATOR)
    if bool(allowed) == bool(denied):
        raise click.ClickException("give one of --allowed-validators and --deny-validators")
    made = message_class("cosmos.staking.v1beta1.StakeAuthorization")(authorization_type=STAKE[kind])
    (made.allow_list if allowed else made.deny_list).address.extend(allowed or denied)
    if limit:
        if [denom for denom, _ in limit] != [BASE_DENOM]:
            raise click.ClickException(f"--spend-limit must be in the denom that is staked, {BASE_DENOM}")
        made.max_tokens.CopyFrom(to_messages(limit)[0])
    return made
