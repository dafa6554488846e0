"""``stchaind tx register``: register resource and meta nodes, change and remove them, vote on meta nodes (stratos-chain.md 2.1 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from chain.cli.options import yes_or_no
from chain.cli.tx import send, sender_of, tx_options
from chain.codec.json import from_json, loads
from chain.codec.registry import Any_, message_class
from chain.coins import Coin, parse_int, to_messages
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, public_key_from_any, public_key_to_any
from chain.tx.fees import parse_amounts

PACKAGE: Final = "stratos.register.v1"
NODE_TYPES: Final = {"computation": 1, "database": 2, "storage": 4}
"""The bits of a resource node's type."""
_DESCRIPTION: Final = {
    "moniker": "The node's name.",
    "identity": "Its signature at Keybase or the like.",
    "website": "Its website.",
    "security_contact": "Its address for security reports.",
    "details": "More about it.",
}


@click.group()
def register() -> None:
    """Register nodes, change and remove them, vote on meta nodes."""


def described(command: Any) -> Any:
    """The flags of a new node's description and of its beneficiary."""
    return _described(command, "the owner's")


def described_anew(command: Any) -> Any:
    """Those of a node that is there: its beneficiary stays unless another is named."""
    return _described(command, "as it is")


def _described(command: Any, beneficiary: str) -> Any:
    command = click.option("--beneficiary-address", default="", help=f"The wallet that its rewards go to (default: {beneficiary}).")(command)
    for name, what in reversed(_DESCRIPTION.items()):
        command = click.option(f"--{name.replace('_', '-')}", default="", help=what)(command)
    return command


def description_of(options: dict[str, Any]) -> Any:
    """``Description`` of the flags of ``described``."""
    return message_class(f"{PACKAGE}.Description")(**{name: options[name] for name in _DESCRIPTION})


_network = click.option("--network-address", required=True, help="The node's network address, stsds….")
_created = click.option("--network-address", default="", help="The node's network address, stsds… (default: the one of --pubkey).")
_pubkey = click.option("--pubkey", required=True, help="The node's ed25519 key: stsdspub…, as `meta-keys show` prints it, or the SDK's JSON.")
_amount = click.option("--amount", required=True, help="The deposit, as 1000stos.")
_delta = click.option("--deposit-delta", required=True, help="What is added to the deposit, as 10stos.")
_incr = yes_or_no("--incr-deposit", default=None, expose_value=False, help="Accepted: deposits only grow.")
_voter = click.option("--voter-network-address", required=True, help="The meta node that votes; --from owns it.")
_opinion = yes_or_no("--opinion", required=True, help="true for yes, false for no.")


@register.command("create-resource-node")
@_created
@_pubkey
@_amount
@click.option("--node-type", required=True, help="The sum of 1 (computation), 2 (database) and 4 (storage), or their names, as storage/database.")
@described
@tx_options
@click.pass_context
def create_resource_node(ctx: click.Context, /, node_type: str, sender: str, **options: Any) -> None:
    """Register a resource node with a deposit. It works once meta nodes have set its effective deposit.

    \b
    stchaind tx register create-resource-node --pubkey stsdspub1… --amount 10stos --node-type 4 --moniker mine --from alice --fees 300000gwei
    """
    send(ctx, [_created_node("MsgCreateResourceNode", ctx, sender, options, node_type=type_of(node_type))], sender)


@register.command("remove-resource-node")
@_network
@tx_options
@click.pass_context
def remove_resource_node(ctx: click.Context, /, network_address: str, sender: str, **_: Any) -> None:
    """Unbond a resource node; its deposit comes back after the unbonding time.

    \b
    stchaind tx register remove-resource-node --network-address stsds1… --from alice --fees 300000gwei
    """
    send(ctx, [_owned("MsgRemoveResourceNode", ctx, sender, resource_node_address=_node(network_address))], sender)


@register.command("update-resource-node")
@_network
@click.option("--node-type", required=True, help="The sum of 1 (computation), 2 (database) and 4 (storage), or their names, as storage/database.")
@described_anew
@tx_options
@click.pass_context
def update_resource_node(ctx: click.Context, /, network_address: str, node_type: str, sender: str, **options: Any) -> None:
    """Replace a resource node's description, type and beneficiary.

    \b
    stchaind tx register update-resource-node --network-address stsds1… --node-type 7 --moniker mine --from alice --fees 300000gwei
    """
    fields = {"network_address": _node(network_address), "node_type": type_of(node_type), "description": description_of(options)}
    send(ctx, [_owned("MsgUpdateResourceNode", ctx, sender, **fields, beneficiary_address=_wallet(options["beneficiary_address"]))], sender)


@register.command("update-resource-node-deposit")
@_network
@_delta
@_incr
@tx_options
@click.pass_context
def update_resource_node_deposit(ctx: click.Context, /, network_address: str, deposit_delta: str, sender: str, **_: Any) -> None:
    """Add to the deposit of a resource node.

    \b
    stchaind tx register update-resource-node-deposit --network-address stsds1… --deposit-delta 10stos --from alice --fees 300000gwei
    """
    fields = {"network_address": _node(network_address), "deposit_delta": _coin(deposit_delta)}
    send(ctx, [_owned("MsgUpdateResourceNodeDeposit", ctx, sender, **fields)], sender)


@register.command("create-meta-node")
@_created
@_pubkey
@_amount
@described
@tx_options
@click.pass_context
def create_meta_node(ctx: click.Context, /, sender: str, **options: Any) -> None:
    """Make a meta node a candidate, with a deposit; the meta nodes that there are vote on it.

    `stchaind meta-keys new` makes its keys. Once it is voted in, `stchaind tx settlement register-meta-keys` makes its signature count.

    \b
    stchaind tx register create-meta-node --pubkey stsdspub1… --amount 1000stos --moniker mine --from alice --fees 300000gwei
    """
    options["beneficiary_address"] = options["beneficiary_address"] or bech32.encode(sender_of(ctx, sender))
    send(ctx, [_created_node("MsgCreateMetaNode", ctx, sender, options)], sender)


@register.command("remove-meta-node")
@_network
@tx_options
@click.pass_context
def remove_meta_node(ctx: click.Context, /, network_address: str, sender: str, **_: Any) -> None:
    """Unbond a meta node, or take a candidate back; the deposit comes back after the unbonding time.

    \b
    stchaind tx register remove-meta-node --network-address stsds1… --from alice --fees 300000gwei
    """
    send(ctx, [_owned("MsgRemoveMetaNode", ctx, sender, meta_node_address=_node(network_address))], sender)


@register.command("update-meta-node")
@_network
@described_anew
@tx_options
@click.pass_context
def update_meta_node(ctx: click.Context, /, network_address: str, sender: str, **options: Any) -> None:
    """Replace a meta node's description and beneficiary.

    \b
    stchaind tx register update-meta-node --network-address stsds1… --moniker mine --from alice --fees 300000gwei
    """
    fields = {"network_address": _node(network_address), "description": description_of(options)}
    send(ctx, [_owned("MsgUpdateMetaNode", ctx, sender, **fields, beneficiary_address=_wallet(options["beneficiary_address"]))], sender)


@register.command("update-meta-node-deposit")
@_network
@_delta
@_incr
@tx_options
@click.pass_context
def update_meta_node_deposit(ctx: click.Context, /, network_address: str, deposit_delta: str, sender: str, **_: Any) -> None:
    """Add to the deposit of a meta node.

    \b
    stchaind tx register update-meta-node-deposit --network-address stsds1… --deposit-delta 10stos --from alice --fees 300000gwei
    """
    fields = {"network_address": _node(network_address), "deposit_delta": _coin(deposit_delta)}
    send(ctx, [_owned("MsgUpdateMetaNodeDeposit", ctx, sender, **fields)], sender)


@register.command("meta-node-reg-vote")
@click.option("--candidate-network-address", required=True, help="The candidate's network address, stsds….")
@click.option("--candidate-owner-address", required=True, help="The wallet that owns the candidate.")
@_opinion
@_voter
@tx_options
@click.pass_context
def meta_node_reg_vote(ctx: click.Context, /, opinion: bool, sender: str, **options: Any) -> None:
    """Vote on a candidate.

    \b
    stchaind tx register meta-node-reg-vote --candidate-network-address stsds1… --candidate-owner-address st1… --opinion=true \\
        --voter-network-address stsds1… --from alice --fees 300000gwei
    """
    message = message_class(f"{PACKAGE}.MsgMetaNodeRegistrationVote")(
        candidate_network_address=_node(options["candidate_network_address"]),
        candidate_owner_address=_wallet(options["candidate_owner_address"]),
        opinion=opinion,
        voter_network_address=_node(options["voter_network_address"]),
        voter_owner_address=bech32.encode(sender_of(ctx, sender)),
    )
    send(ctx, [message], sender)


@register.command("kick-meta-node-vote")
@click.option("--target-network-address", required=True, help="The meta node that shall go, stsds….")
@_opinion
@_voter
@tx_options
@click.pass_context
def kick_meta_node_vote(ctx: click.Context, /, opinion: bool, sender: str, **options: Any) -> None:
    """Vote on whether a meta node shall go; it has no vote itself.

    \b
    stchaind tx register kick-meta-node-vote --target-network-address stsds1… --opinion=true --voter-network-address stsds1… --from alice
    """
    message = message_class(f"{PACKAGE}.MsgKickMetaNodeVote")(
        target_network_address=_node(options["target_network_address"]),
        opinion=opinion,
        voter_network_address=_node(options["voter_network_address"]),
        voter_owner_address=bech32.encode(sender_of(ctx, sender)),
    )
    send(ctx, [message], sender)


@register.command("update-effective-deposit")
@_network
@click.option("--effective-tokens", required=True, help="What counts of the resource node's deposit, as 10stos.")
@click.option("--reporters", required=True, help="Meta nodes that say so, as stsds1…,stsds1… or a JSON list.")
@click.option("--reporter-owner", default="", help="The wallet of each, in the same order; all of them sign (default: --from).")
@tx_options
@click.pass_context
def update_effective_deposit(ctx: click.Context, /, network_address: str, effective_tokens: str, sender: str, **options: Any) -> None:
    """Set the part of a resource node's deposit that works: each meta node says so in a transaction of its own, and a quorum makes it so.

    One transaction may carry several meta nodes, if all their owners sign it: --generate-only, then `stchaind tx sign --sign-mode amino-json` by each.

    \b
    stchaind tx register update-effective-deposit --network-address stsds1… --effective-tokens 10stos --reporters stsds1… --from alice
    """
    reporters, owners = reporters_of(ctx, sender, options)
    amount = _coin(effective_tokens)
    if amount.denom != "wei":
        raise click.ClickException(f"--effective-tokens is counted in wei, gwei or stos, got {effective_tokens[:60]!r}")
    message = message_class(f"{PACKAGE}.MsgUpdateEffectiveDeposit")(
        reporters=reporters, reporter_owner=owners, network_address=_node(network_address), effective_tokens=amount.amount
    )
    send(ctx, [message], sender)


def reporters_of(ctx: click.Context, sender: str, options: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(meta nodes, owners) of ``--reporters`` and ``--reporter-owner``. Raises ClickException when they do not fit each other or one signer."""
    reporters = [_node(one) for one in texts_of(options["reporters"], "--reporters")]
    own = bech32.encode(sender_of(ctx, sender))
    owners = [_wallet(one) for one in texts_of(options["reporter_owner"], "--reporter-owner")] or [own] * len(reporters)
    if len(owners) != len(reporters):
        raise click.ClickException(f"expected an owner for each of {len(reporters)} reporters, got {len(owners)}")
    others = [one for one in owners if one != own]
    if others and not options["generate_only"]:
        raise click.ClickException(f"{others[0]} has to sign, too: use --generate-only, then let every owner sign")
    return reporters, owners


def texts_of(text: str, flag: str) -> list[str]:
    """A list that is typed as JSON or with commas. Raises ClickException."""
    if not text.lstrip().startswith("["):
        return [one.strip() for one in text.split(",") if one.strip()]
    found = loads(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise click.ClickException(f"{flag}: expected a list of addresses, got {text[:80]!r}")
    return found


def type_of(text: str) -> int:
    """A resource node's type from its number or the names of its parts. Raises ClickException."""
    names = [one.strip().lower() for one in text.replace(",", "/").split("/")]
    if text.isascii() and text.isdigit() and len(text) == 1 and 1 <= int(text) <= 7:
        return int(text)
    if all(name in NODE_TYPES for name in names) and len({*names}) == len(names):
        return sum(NODE_TYPES[name] for name in names)
    raise click.ClickException(f"--node-type: expected 1 to 7, or names out of {'/'.join(reversed(NODE_TYPES))}, got {text[:60]!r}")


def node_key(text: str) -> Ed25519PublicKey:
    """A node's key from ``stsdspub…`` or the SDK's JSON. Raises InvalidAddress, InvalidPubKey, ClickException."""
    if not text.lstrip().startswith("{"):
        return Ed25519PublicKey(bech32.decode(text, bech32.NODE_PUB))
    key = public_key_from_any(from_json(Any_, loads(text), "pubkey"))
    if not isinstance(key, Ed25519PublicKey):
        raise click.ClickException(f"--pubkey: a node has an ed25519 key, got {key.type_url}")
    return key


def _created_node(name: str, ctx: click.Context, sender: str, options: dict[str, Any], **fields: Any) -> Any:
    key = node_key(options["pubkey"])
    derived = bech32.encode(key.address, bech32.NODE)
    address = _node(options["network_address"]) if options["network_address"] else derived
    if address != derived:
        raise click.ClickException(f"--network-address {address} is not the one of --pubkey, which is {derived}")
    if not options["moniker"]:
        raise click.ClickException("--moniker must name the node")
    return _owned(
        name,
        ctx,
        sender,
        network_address=address,
        pubkey=public_key_to_any(key),
        value=_coin(options["amount"]),
        beneficiary_address=_wallet(options["beneficiary_address"]),
        description=description_of(options),
        **fields,
    )


def _owned(name: str, ctx: click.Context, sender: str, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.{name}")(owner_address=bech32.encode(sender_of(ctx, sender)), **fields)


def _node(text: str) -> str:
    bech32.decode(text, bech32.NODE)
    return text


def _wallet(text: str) -> str:
    if text:
        bech32.decode(text)
    return text


def _coin(text: str) -> Any:
    coins: Sequence[Coin] = parse_amounts(text)
    if len(coins) != 1:
        raise click.ClickException(f"expected one coin, as 10stos, got {text[:60]!r}")
    return to_messages(coins)[0]


def whole_number(text: str, flag: str) -> str:
    """A count of noz. Raises ClickException for what is none."""
    if not text.isascii() or not text.isdigit() or len(text) > 78:
        raise click.ClickException(f"{flag}: expected a whole number of noz, got {text[:60]!r}")
    return str(parse_int(text))
