"""``stchaind tx staking``: become a validator, and give stake to validators, move it and take it back."""

from __future__ import annotations

from typing import Any, Final

import click

from chain.cli.options import UINT63
from chain.cli.tx import send, sender_of, tx_options
from chain.codec.json import from_json, loads
from chain.codec.registry import Any_, message_class
from chain.coins import Coin, parse_int, to_messages
from chain.crypto import address as bech32
from chain.dec import dec_wire
from chain.tx.fees import parse_amounts

PACKAGE: Final = "cosmos.staking.v1beta1"
MAX_FILE_BYTES: Final = 1 << 20
KEEP: Final = "[do-not-modify]"
"""What MsgEditValidator has for a part of the description that stays."""
_WANTED: Final = ("pubkey", "amount", "moniker", "commission-rate", "commission-max-rate", "commission-max-change-rate", "min-self-delegation")
_SHAPE: Final = (
    '{"pubkey": {"@type": "/cosmos.crypto.ed25519.PubKey", "key": "…"}, "amount": "1000000000000000000wei", "moniker": "…", '
    '"commission-rate": "0.1", "commission-max-rate": "0.2", "commission-max-change-rate": "0.01", "min-self-delegation": "1"}'
)


@click.group()
def staking() -> None:
    """Validate, delegate, unbond."""


@staking.command("create-validator")
@click.argument("validator_json_file", type=click.File("rb"))
@click.option("--node-id", default="", help="The node's id, for the memo.")
@click.option("--ip", default="", help="The node's address, for the memo.")
@click.option("--p2p-port", type=click.IntRange(0, 65535), default=0, help="The node's port: with --generate-only, the memo has all three.")
@tx_options
@click.pass_context
def create_validator(ctx: click.Context, /, validator_json_file: Any, node_id: str, ip: str, p2p_port: int, sender: str, **options: Any) -> None:
    """Become a validator with a self-delegation, as a JSON file says (- for standard input).

    The key is the one that `stchaind comet show-validator` prints on the validator's machine.

    \b
    stchaind tx staking create-validator validator.json --from alice --fees 500000gwei --gas 500000
    """
    message = _validator_of(validator_json_file, bech32.encode(sender_of(ctx, sender), bech32.VALIDATOR))
    if options["generate_only"] and node_id and ip and p2p_port:
        ctx.params["note"] = f"{node_id}@{ip}:{p2p_port}"
    send(ctx, [message], sender)


@staking.command("edit-validator")
@click.option("--new-moniker", "moniker", default=KEEP, show_default=True, help="The validator's name.")
@click.option("--identity", default=KEEP, show_default=True, help="Its signature at Keybase or the like.")
@click.option("--website", default=KEEP, show_default=True, help="Its website.")
@click.option("--security-contact", default=KEEP, show_default=True, help="Its address for security reports.")
@click.option("--details", default=KEEP, show_default=True, help="More about it.")
@click.option("--commission-rate", default="", help="Another commission, as 0.1: once a day, by no more than the validator's own limit.")
@click.option("--min-self-delegation", default="", help="A higher least self-delegation, in wei.")
@tx_options
@click.pass_context
def edit_validator(ctx: click.Context, /, commission_rate: str, min_self_delegation: str, sender: str, **options: Any) -> None:
    """Change the description, commission or least self-delegation of one's validator.

    \b
    stchaind tx staking edit-validator --new-moniker "my node" --from alice --fees 200000gwei
    """
    message = _message("MsgEditValidator", validator_address=bech32.encode(sender_of(ctx, sender), bech32.VALIDATOR))
    for name in ("moniker", "identity", "website", "security_contact", "details"):
        setattr(message.description, name, options[name])
    if commission_rate:
        message.commission_rate = dec_wire(commission_rate)
    if min_self_delegation:
        message.min_self_delegation = str(parse_int(min_self_delegation))
    send(ctx, [message], sender)


@staking.command("delegate")
@click.argument("validator_addr")
@click.argument("amount")
@tx_options
@click.pass_context
def delegate(ctx: click.Context, /, validator_addr: str, amount: str, sender: str, **_: Any) -> None:
    """Give stake to a validator.

    \b
    stchaind tx staking delegate stvaloper1… 1stos --from alice --fees 300000gwei --gas 300000
    """
    send(ctx, [_of_delegator("MsgDelegate", ctx, sender, amount, validator_address=validator_addr)], sender)


@staking.command("redelegate")
@click.argument("src_validator_addr")
@click.argument("dst_validator_addr")
@click.argument("amount")
@tx_options
@click.pass_context
def redelegate(ctx: click.Context, /, src_validator_addr: str, dst_validator_addr: str, amount: str, sender: str, **_: Any) -> None:
    """Move stake to another validator at once; it stays liable for the first one until its unbonding time is over.

    \b
    stchaind tx staking redelegate stvaloper1… stvaloper1… 1stos --from alice --fees 500000gwei --gas 500000
    """
    addresses = {"validator_src_address": src_validator_addr, "validator_dst_address": dst_validator_addr}
    send(ctx, [_of_delegator("MsgBeginRedelegate", ctx, sender, amount, **addresses)], sender)


@staking.command("unbond")
@click.argument("validator_addr")
@click.argument("amount")
@tx_options
@click.pass_context
def unbond(ctx: click.Context, /, validator_addr: str, amount: str, sender: str, **_: Any) -> None:
    """Take stake back from a validator; it arrives after the unbonding time.

    \b
    stchaind tx staking unbond stvaloper1… 1stos --from alice --fees 400000gwei --gas 400000
    """
    send(ctx, [_of_delegator("MsgUndelegate", ctx, sender, amount, validator_address=validator_addr)], sender)


@staking.command("cancel-unbond")
@click.argument("validator_addr")
@click.argument("amount")
@click.argument("creation_height", type=UINT63)
@tx_options
@click.pass_context
def cancel_unbond(ctx: click.Context, /, validator_addr: str, amount: str, creation_height: int, sender: str, **_: Any) -> None:
    """Delegate again what began to unbond in the block at CREATION_HEIGHT.

    \b
    stchaind tx staking cancel-unbond stvaloper1… 1stos 5 --from alice --fees 300000gwei --gas 300000
    """
    made = _of_delegator("MsgCancelUnbondingDelegation", ctx, sender, amount, validator_address=validator_addr, creation_height=creation_height)
    send(ctx, [made], sender)


def _message(name: str, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.{name}")(**fields)


def _of_delegator(name: str, ctx: click.Context, sender: str, amount: str, **fields: Any) -> Any:
    delegator = bech32.encode(sender_of(ctx, sender))
    for field, value in fields.items():
        if field.endswith("address"):
            bech32.decode(value, bech32.VALIDATOR)
    return _message(name, delegator_address=delegator, amount=to_messages([_coin(amount)])[0], **fields)


def _coin(text: str) -> Coin:
    coins = parse_amounts(text)
    if len(coins) != 1:
        raise click.ClickException(f"expected one coin, as 1000000000000000000wei, got {text[:60]!r}")
    return coins[0]


def _validator_of(file: Any, operator: str) -> Any:
    """MsgCreateValidator of simd's JSON. Raises ClickException, AppError, DecError."""
    text = file.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        raise click.ClickException(f"{file.name} has more than {MAX_FILE_BYTES} bytes")
    given = loads(text)
    if not isinstance(given, dict) or any(not given.get(name) for name in _WANTED):
        missing = [name for name in _WANTED if not isinstance(given, dict) or not given.get(name)]
        raise click.ClickException(f"{file.name} does not have {', '.join(missing)}: expected {_SHAPE}")
    key, texts = given.pop("pubkey"), given
    if any(not isinstance(value, str) for value in texts.values()):
        raise click.ClickException(f"{file.name} has something else than text: expected {_SHAPE}")
    message = _message("MsgCreateValidator", validator_address=operator, pubkey=from_json(Any_, key, "pubkey"))
    message.min_self_delegation = str(parse_int(texts["min-self-delegation"]))
    message.value.CopyFrom(to_messages([_coin(texts["amount"])])[0])
    parts = {"moniker": "moniker", "identity": "identity", "website": "website", "security_contact": "security", "details": "details"}
    for field, name in parts.items():
        setattr(message.description, field, texts.get(name, ""))
    for field, name in (("rate", "commission-rate"), ("max_rate", "commission-max-rate"), ("max_change_rate", "commission-max-change-rate")):
        setattr(message.commission, field, dec_wire(texts[name]))
    return message
