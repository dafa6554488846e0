"""What governance tells indexers: names and attributes as SDK 0.50 emits them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from chain import coins
from chain.coins import Coins
from chain.context import Context
from chain.crypto import address as bech32


def proposal_submitted(ctx: Context, proposal_id: int, proposer: bytes, messages: Sequence[Any]) -> None:
    urls = "".join(f",/{message.DESCRIPTOR.full_name}" for message in messages)
    ctx.events.emit("submit_proposal", ("proposal_id", str(proposal_id)), ("proposal_proposer", bech32.encode(proposer)), ("proposal_messages", urls))


def deposited(ctx: Context, proposal_id: int, depositor: bytes, amount: Coins) -> None:
    ctx.events.emit("proposal_deposit", ("depositor", bech32.encode(depositor)), ("amount", coins.to_text(amount)), ("proposal_id", str(proposal_id)))


def voting_started(ctx: Context, event_type: str, proposal_id: int) -> None:
    """``event_type`` is that of the message that started it."""
    ctx.events.emit(event_type, ("voting_period_start", str(proposal_id)))


def voted(ctx: Context, proposal_id: int, voter: bytes, options: Sequence[Any]) -> None:
    ctx.events.emit("proposal_vote", ("voter", bech32.encode(voter)), ("option", options_text(options)), ("proposal_id", str(proposal_id)))


def options_text(options: Sequence[Any]) -> str:
    """Weighted options as the SDK prints them: ``[{"option":1,"weight":"1.000000000000000000"}]``."""
    return json.dumps([{"option": one.option, "weight": one.weight} for one in options], separators=(",", ":"))


def canceled(ctx: Context, proposal_id: int, proposer: str) -> None:
    ctx.events.emit("cancel_proposal", ("sender", proposer), ("proposal_id", str(proposal_id)))


def dropped(ctx: Context, proposal_id: int) -> None:
    ctx.events.emit("inactive_proposal", ("proposal_id", str(proposal_id)), ("proposal_result", "proposal_dropped"))


def undecodable(ctx: Context, event_type: str, proposal_id: int) -> None:
    ctx.events.emit(event_type, ("proposal_id", str(proposal_id)), ("proposal_result", "proposal_failed"))


def tallied(ctx: Context, proposal_id: int, result: str, text: str) -> None:
    ctx.events.emit("active_proposal", ("proposal_id", str(proposal_id)), ("proposal_result", result), ("proposal_log", text))
