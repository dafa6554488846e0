"""``stchaind tx settlement``: keys of meta nodes, an epoch's commitment with its report, fraud proofs (storage-protocol.md 1.6 to 1.9)."""

from __future__ import annotations

from typing import Any, Final

import click

from chain.cli.keyring import setting
from chain.cli.metakeys import draft_in, file_option, keys_of, signatures_in
from chain.cli.options import UINT64, json_of
from chain.cli.tx import Remote, send, sender_of, tx_options
from chain.codec.json import from_json
from chain.codec.registry import message_class
from chain.crypto import address as bech32

PACKAGE: Final = "stratos.settlement.v1"
EPOCH: Final = click.IntRange(0, (1 << 63) - 1)
KINDS: Final = ("bad_leaf", "double_entry", "wrong_order", "wrong_sum", "overlapping_ranges", "withheld_leaf")


@click.group()
def settlement() -> None:
    """Register a meta node's keys, commit and report an epoch, prove fraud."""


@settlement.command("register-meta-keys")
@file_option
@tx_options
@click.pass_context
def register_meta_keys(ctx: click.Context, /, sender: str, **options: Any) -> None:
    """Register the keys of a meta node that --from owns, with the proof that it has their secrets. New keys replace the old ones.

    \b
    stchaind tx settlement register-meta-keys --from alice --fees 300000gwei
    """
    owner = bech32.encode(sender_of(ctx, sender))
    chain_id = setting("chain-id") or Remote(options["node"]).chain_id()
    keys = keys_of(ctx)
    message = message_class(f"{PACKAGE}.MsgRegisterMetaKeys")(
        meta_node=keys.network_address,
        owner=owner,
        bls_pubkey=keys.bls_pubkey,
        proof_of_possession=keys.proof_of_possession(chain_id),
        ledger_consensus_pubkey=keys.ledger_consensus_pubkey,
    )
    send(ctx, [message], sender)


@settlement.command("commit-and-report")
@click.argument("draft", type=click.File("rb"))
@click.argument("signatures", nargs=-1, type=click.File("rb"), metavar="[SIGNATURE]...")
@click.option("--sign", "is_signing", is_flag=True, help="Sign with the meta keys here, too.")
@file_option
@tx_options
@click.pass_context
def commit_and_report(ctx: click.Context, /, draft: Any, signatures: tuple[Any, ...], is_signing: bool, sender: str, **_: Any) -> None:
    """Report an epoch: its commitment and its volume report in one transaction, from a DRAFT and the SIGNATURE files of a quorum of meta nodes.

    `stchaind meta-keys draft-report` writes a draft, `stchaind meta-keys sign-report` a signature.

    \b
    stchaind tx settlement commit-and-report draft.json sig1.json sig2.json sig3.json --from alice --fees 1000000gwei --gas 1000000
    stchaind tx settlement commit-and-report draft.json --sign --from alice --fees 1000000gwei --gas auto
    """
    made = draft_in(draft)
    owner = bech32.encode(sender_of(ctx, sender))
    if owner != made.report.reporter_owner:
        raise click.ClickException(f"the draft's reporter_owner is {made.report.reporter_owner}, --from is {owner}: the owner sends the report")
    found = signatures_in(signatures, made)
    if is_signing:
        keys = keys_of(ctx)
        found[keys.bls_pubkey] = keys.sign(made.message)
    send(ctx, made.messages(made.signature_info(found)), sender)


@settlement.command("fraud-proof")
@click.argument("proof_json_file", type=click.File("rb"))
@tx_options
@click.pass_context
def fraud_proof(ctx: click.Context, /, proof_json_file: Any, sender: str, **_: Any) -> None:
    """Prove fraud, as a JSON file says (- for standard input). A proof that holds voids the epoch and pays its finder; one that does not costs the fee.

    The file has one of bad_leaf, double_entry, wrong_order, wrong_sum, overlapping_ranges and withheld_leaf.

    \b
    stchaind tx settlement fraud-proof proof.json --from alice --fees 1000000gwei --gas 1000000
    """
    shape = '{"bad_leaf": {"leaf": {…}}} or another of ' + ", ".join(KINDS[1:])
    given = json_of(proof_json_file, shape)
    if len(given) != 1 or next(iter(given)) not in KINDS:
        raise click.ClickException(f"{proof_json_file.name} has {', '.join(map(str, given))[:80] or 'nothing'}: expected {shape}")
    finder = bech32.encode(sender_of(ctx, sender))
    send(ctx, [from_json(message_class(f"{PACKAGE}.MsgFraudProof"), {"finder": finder, **given}, "proof")], sender)


@settlement.command("challenge")
@click.argument("epoch", type=EPOCH)
@click.argument("leaf_index", type=UINT64)
@tx_options
@click.pass_context
def challenge(ctx: click.Context, /, epoch: int, leaf_index: int, sender: str, **_: Any) -> None:
    """Ask for a leaf that nobody hands out: it is posted in time and the bond is lost, or the epoch is void and the bond comes back.

    \b
    stchaind tx settlement challenge 12 7 --from alice --fees 300000gwei --gas 300000
    """
    message = message_class(f"{PACKAGE}.MsgFraudProof")(finder=bech32.encode(sender_of(ctx, sender)))
    message.withheld_leaf.epoch, message.withheld_leaf.leaf_index = epoch, leaf_index
    message.withheld_leaf.SetInParent()
    send(ctx, [message], sender)


@settlement.command("answer-challenge")
@click.argument("challenge_id", type=UINT64)
@click.argument("leaf_json_file", type=click.File("rb"))
@tx_options
@click.pass_context
def answer_challenge(ctx: click.Context, /, challenge_id: int, leaf_json_file: Any, sender: str, **_: Any) -> None:
    """Post the leaf that a challenge asks for, with its path, as a JSON file says (- for standard input).

    \b
    stchaind tx settlement answer-challenge 3 leaf.json --from alice --fees 300000gwei --gas 300000
    """
    leaf = json_of(leaf_json_file, '{"epoch": "1", "index": "0", "leaf": {…}, "path": [{"hash": "…", "sum_noz": "…"}]}')
    given = {"responder": bech32.encode(sender_of(ctx, sender)), "challenge_id": str(challenge_id), "leaf": leaf}
    send(ctx, [from_json(message_class(f"{PACKAGE}.MsgAnswerChallenge"), given, "answer")], sender)
