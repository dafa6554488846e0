"""``stchaind tx distribution``: rewards withdrawn, where they go, and gifts to the community pool and to a validator's delegators."""

from __future__ import annotations

from typing import Any

import click

from chain.cli.tx import Remote, send, sender_of, tx_options
from chain.codec.registry import message_class
from chain.coins import to_messages
from chain.crypto import address as bech32
from chain.tx.fees import parse_amounts


@click.group()
def distribution() -> None:
    """Withdraw rewards, and give to others' rewards."""


@distribution.command("withdraw-rewards")
@click.argument("validator_addr")
@click.option("--commission", is_flag=True, help="Withdraw the validator's commission, too.")
@tx_options
@click.pass_context
def withdraw_rewards(ctx: click.Context, /, validator_addr: str, commission: bool, sender: str, **_: Any) -> None:
    """Withdraw the rewards of a delegation, and a validator's commission if its operator signs.

    \b
    stchaind tx distribution withdraw-rewards stvaloper1… --from alice --fees 300000gwei
    """
    bech32.decode(validator_addr, bech32.VALIDATOR)
    messages = [_withdrawal(_address(ctx, sender), validator_addr)]
    if commission:
        messages.append(_message("MsgWithdrawValidatorCommission", validator_address=validator_addr))
    send(ctx, messages, sender)


@distribution.command("withdraw-all-rewards")
@click.option("--max-msgs", type=click.IntRange(0), default=0, show_default=True, help="Messages per transaction at most; 0: all in one.")
@tx_options
@click.pass_context
def withdraw_all_rewards(ctx: click.Context, /, max_msgs: int, sender: str, **options: Any) -> None:
    """Withdraw the rewards of all delegations, in one transaction or in several with sequences that follow each other.

    \b
    stchaind tx distribution withdraw-all-rewards --from alice --gas auto --gas-prices 1gwei
    """
    if options["offline"]:
        raise click.ClickException("cannot generate tx in offline mode")
    delegator = _address(ctx, sender)
    request = message_class("cosmos.distribution.v1beta1.QueryDelegatorValidatorsRequest")(delegator_address=delegator)
    remote = Remote(options["node"])
    validators = remote.rpc("/cosmos.distribution.v1beta1.Query/DelegatorValidators", request).validators
    if not validators:
        raise click.ClickException(f"{delegator} has no delegations")
    messages = [_withdrawal(delegator, validator) for validator in validators]
    size = max_msgs or len(messages)
    first = options["sequence"] if size >= len(messages) or options["sequence"] is not None else remote.account(delegator)[1]
    for number, at in enumerate(range(0, len(messages), size)):
        ctx.params["sequence"] = None if first is None else first + number
        send(ctx, messages[at : at + size], sender)


@distribution.command("set-withdraw-addr")
@click.argument("withdraw_addr")
@tx_options
@click.pass_context
def set_withdraw_addr(ctx: click.Context, /, withdraw_addr: str, sender: str, **_: Any) -> None:
    """Have all rewards of the signer paid to another address from now on.

    \b
    stchaind tx distribution set-withdraw-addr st1… --from alice --fees 200000gwei
    """
    bech32.decode(withdraw_addr)
    send(ctx, [_message("MsgSetWithdrawAddress", delegator_address=_address(ctx, sender), withdraw_address=withdraw_addr)], sender)


@distribution.command("fund-community-pool")
@click.argument("amount")
@tx_options
@click.pass_context
def fund_community_pool(ctx: click.Context, /, amount: str, sender: str, **_: Any) -> None:
    """Give coins to the community pool.

    \b
    stchaind tx distribution fund-community-pool 10stos --from alice --fees 200000gwei
    """
    given = to_messages(parse_amounts(amount))
    send(ctx, [_message("MsgFundCommunityPool", amount=given, depositor=_address(ctx, sender))], sender)


@distribution.command("fund-validator-rewards-pool")
@click.argument("validator_addr")
@click.argument("amount")
@tx_options
@click.pass_context
def fund_validator_rewards_pool(ctx: click.Context, /, validator_addr: str, amount: str, sender: str, **_: Any) -> None:
    """Give coins to a validator and its delegators, as if they were fees of a block.

    \b
    stchaind tx distribution fund-validator-rewards-pool stvaloper1… 10stos --from alice --fees 200000gwei
    """
    bech32.decode(validator_addr, bech32.VALIDATOR)
    given = to_messages(parse_amounts(amount))
    message = _message("MsgDepositValidatorRewardsPool", depositor=_address(ctx, sender), validator_address=validator_addr, amount=given)
    send(ctx, [message], sender)


def _message(name: str, **fields: Any) -> Any:
    return message_class(f"cosmos.distribution.v1beta1.{name}")(**fields)


def _withdrawal(delegator: str, validator: str) -> Any:
    return _message("MsgWithdrawDelegatorReward", delegator_address=delegator, validator_address=validator)


def _address(ctx: click.Context, sender: str) -> str:
    return bech32.encode(sender_of(ctx, sender))
