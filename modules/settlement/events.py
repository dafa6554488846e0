"""What settlement tells indexers: typed events, whose values are JSON texts with their quotes (stratos-chain.md 1.9), attributes in order of names."""

from __future__ import annotations

from typing import Any

from chain.context import Context
from chain.crypto import address as bech32
from modules.settlement.expected import Voided
from modules.settlement.params import PACKAGE


def keys_registered(ctx: Context, keys: Any, owner: str) -> None:
    _emit(
        ctx,
        "EventRegisterMetaKeys",
        meta_node=keys.meta_node,
        owner=owner,
        bls_pubkey=keys.bls_pubkey.hex(),
        ledger_consensus_pubkey=keys.ledger_consensus_pubkey.hex(),
    )


def epoch_committed(ctx: Context, epoch: Any) -> None:
    _emit(
        ctx,
        "EventCommitEpoch",
        epoch=epoch.epoch,
        report_reference=epoch.report_reference,
        receipts_root=epoch.roots.receipts_root.hex(),
        data_ref=epoch.roots.data_ref,
        volume_noz=epoch.volume_noz,
        promo_noz=epoch.promo_noz,
        promo_expired_noz=epoch.promo_expired_noz,
    )


def fraud_proved(ctx: Context, kind: str, epoch: int, finder: bytes, reward_wei: int, slashed_wei: int) -> None:
    """``epoch`` is 0 for a lease used twice."""
    _emit(ctx, "EventFraudProof", kind=kind, epoch=epoch, finder=bech32.encode(finder), finder_reward_wei=reward_wei, slashed_wei=slashed_wei)


def epoch_voided(ctx: Context, epoch: int, voided: Voided, lowered_noz: int, pending_noz: int) -> None:
    _emit(
        ctx,
        "EventVoidEpoch",
        epoch=epoch,
        prepay_returned_wei=voided.prepay_returned_wei,
        foundation_returned_wei=voided.foundation_returned_wei,
        lowered_noz=lowered_noz,
        pending_lower_noz=pending_noz,
        gap_wei=voided.prepay_gap_wei + voided.foundation_gap_wei,
    )


def signer_slashed(ctx: Context, meta_node: str, slashed_wei: int) -> None:
    _emit(ctx, "EventSlashSigner", meta_node=meta_node, slashed_wei=slashed_wei)


def challenged(ctx: Context, challenge: Any) -> None:
    _emit(
        ctx,
        "EventChallenge",
        challenge_id=challenge.challenge_id,
        epoch=challenge.epoch,
        leaf_index=challenge.leaf_index,
        challenger=challenge.challenger,
        bond_wei=challenge.bond_wei,
        deadline_height=challenge.deadline_height,
    )


def answered(ctx: Context, challenge_id: int, recipient: str, bond_wei: int) -> None:
    """``bond_wei``: what of the bond came to ``responder``. Also where a bond goes back to the challenger, who is then the responder."""
    _emit(ctx, "EventAnswerChallenge", challenge_id=challenge_id, responder=recipient, bond_wei=bond_wei)


def _emit(ctx: Context, name: str, **values: str | int) -> None:
    ctx.events.emit_typed(f"{PACKAGE}.{name}", **values)
