"""What pot tells indexers: typed events, whose type is the message's name, whose attributes go by key and whose values are JSON texts, quotes included
(stratos-chain.md 1.9). Amounts of wei and noz are decimal texts.
"""

from __future__ import annotations

from chain.context import Context
from chain.resource_nodes import node_type_text


def volume_report(ctx: Context, reference: str, epoch: int) -> None:
    _emit(ctx, "EventVolumeReport", report_reference=reference, epoch=str(epoch))


def epoch_paid(ctx: Context, epoch: int, reported_noz: int, paid_noz: int, traffic_wei: int, mining_wei: int, tax_wei: int) -> None:
    _emit(
        ctx,
        "EventEpochPaid",
        epoch=str(epoch),
        reported_noz=str(reported_noz),
        paid_noz=str(paid_noz),
        traffic_reward_wei=str(traffic_wei),
        mining_reward_wei=str(mining_wei),
        community_tax_wei=str(tax_wei),
    )


def withdrawn(ctx: Context, amount: str, wallet: str, target: str) -> None:
    _emit(ctx, "EventWithdraw", amount=amount, wallet_address=wallet, target_address=target)


def foundation_deposit(ctx: Context, amount: str) -> None:
    _emit(ctx, "EventFoundationDeposit", amount=amount)


def slashing_approved(ctx: Context, node: str, wallet: str, slashing_noz: int, suspend: bool, approver: str, approvals: int, quorum: int) -> None:
    _emit(
        ctx,
        "EventApproveSlashing",
        network_address=node,
        wallet_address=wallet,
        slashing_noz=str(slashing_noz),
        suspend=_bool(suspend),
        approver=approver,
        approvals=str(approvals),
        quorum=str(quorum),
    )


def slashed(ctx: Context, node: str, wallet: str, amount_wei: int, node_type: int, suspend: bool) -> None:
    _emit(
        ctx,
        "EventSlashing",
        wallet_address=wallet,
        network_address=node,
        amount=str(amount_wei),
        slashing_type=node_type_text(node_type),
        suspend=_bool(suspend),
    )


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _emit(ctx: Context, name: str, **values: str) -> None:
    ctx.events.emit_typed(f"stratos.pot.v1.{name}", **values)
