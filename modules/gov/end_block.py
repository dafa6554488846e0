"""The end of deposit and voting periods: refunds, burns, tallies, and the messages of what passed.

Nothing in here may fail because of what somebody queued, and one block does a bounded part of it: see ``WORK_PER_BLOCK``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import structlog

from chain.codec.registry import unpack_any
from chain.context import Context
from chain.errors import AppError, PanicError
from chain.machine import MACHINE_ERRORS
from chain.store.api import StateWriter
from modules.gov import events, keys
from modules.gov.keeper import FAILED, OPEN, PASSED, REJECTED, GovKeeper
from modules.gov.tally import tally

log = structlog.get_logger("gov")

WORK_PER_BLOCK: Final = 10_000
"""Proposals, deposits, votes and voters' delegations that one block deals with. The proposal that reaches it is finished; the next ones wait, open, for the next block."""


def end_block(keeper: GovKeeper, ctx: Context, state: StateWriter) -> None:
    """End the periods that are over by the block's time, in the order of their ends."""
    left = WORK_PER_BLOCK
    for queue, end in ((keys.INACTIVE, _end_deposit_period), (keys.ACTIVE, _end_voting_period)):
        for proposal_id in _over(ctx, state, queue, left):
            if left <= 0:
                return
            proposal = keeper.proposal(state, proposal_id)
            if proposal is not None and proposal.status in OPEN:  # else the messages of one before have cancelled it
                left -= 1 + end(keeper, ctx, state, proposal)


def _over(ctx: Context, state: StateWriter, queue: bytes, most: int) -> list[int]:
    """Numbers of the proposals in a queue whose time is the block's or earlier, at most ``most`` of them."""
    end = keys.queued(queue, ctx.time_ns + 1, 0)
    found: list[int] = []
    for _, raw in state.store(keys.STORE).iterate(queue, end):
        found.append(int.from_bytes(raw, "big"))
        if len(found) >= most:
            break
    return found


def _end_deposit_period(keeper: GovKeeper, ctx: Context, state: StateWriter, proposal: Any) -> int:
    """Drop a proposal that did not get its deposit together; how many deposits there were."""
    _, unreadable = _messages(proposal)
    if unreadable is not None:
        count = _fail_undecodable(keeper, ctx, state, proposal, "inactive_proposal", unreadable)
        keeper.delete_proposal(state, proposal.id)
        return count
    keeper.delete_proposal(state, proposal.id)
    settle = keeper.burn_deposits if keeper.params(state).burn_proposal_deposit_prevote else keeper.refund
    count = settle(ctx, state, proposal.id)
    for hook in keeper.hooks:
        _told(ctx, state, hook.after_proposal_failed_min_deposit, proposal.id)
    events.dropped(ctx, proposal.id)
    log.info("proposal did not meet its minimum deposit and is deleted", proposal=proposal.id, title=proposal.title)
    return count


def _end_voting_period(keeper: GovKeeper, ctx: Context, state: StateWriter, proposal: Any) -> int:
    """Decide a proposal by its votes, and execute it; how many votes and deposits there were."""
    messages, unreadable = _messages(proposal)
    if unreadable is not None:
        count = _fail_undecodable(keeper, ctx, state, proposal, "active_proposal", unreadable)
        keeper.unqueue_active(state, proposal)
        return count
    counted = tally(keeper, state, proposal)
    keeper.delete_votes(state, proposal.id)
    count = counted.entries
    if counted.passes or not proposal.expedited:
        count += (keeper.burn_deposits if counted.burn else keeper.refund)(ctx, state, proposal.id)
    keeper.unqueue_active(state, proposal)
    if counted.passes:
        result, text = _execute(keeper, ctx, state, proposal, messages)
    elif proposal.expedited:
        keeper.extend(state, proposal)
        result, text = "expedited_proposal_rejected", "expedited proposal converted to regular"
    else:
        proposal.status = REJECTED
        proposal.failed_reason = "proposal did not get enough votes to pass"
        result, text = "proposal_rejected", "rejected"
    proposal.final_tally_result.CopyFrom(counted.result)
    keeper.set_proposal(state, proposal)
    for hook in keeper.hooks:
        _told(ctx, state, hook.after_proposal_voting_period_ended, proposal.id)
    log.info("proposal tallied", proposal=proposal.id, title=proposal.title, results=text)
    events.tallied(ctx, proposal.id, result, text)
    return count


def _execute(keeper: GovKeeper, ctx: Context, state: StateWriter, proposal: Any, messages: list[Any]) -> tuple[str, str]:
    """Run the messages, all or nothing: (result, log) of the event; the status is set in ``proposal``."""
    _, at, error = keeper.router.attempt(ctx, state, messages)
    if error is None:
        proposal.status = PASSED
        return "proposal_passed", "passed"
    name = f"/{messages[at].DESCRIPTOR.full_name}"
    why = f"handling x/gov proposal msg [{name}] PANICKED: {error}" if isinstance(error, PanicError) else str(error)
    proposal.status = FAILED
    proposal.failed_reason = why
    return "proposal_failed", f"passed, but msg {at} ({name}) failed on execution: {why}"


def _messages(proposal: Any) -> tuple[list[Any], str | None]:
    """The messages of a proposal, or why they cannot be read: after an upgrade, a type may be gone."""
    try:
        return [unpack_any(wrapped) for wrapped in proposal.messages], None
    except AppError as error:
        return [], str(error)


def _fail_undecodable(keeper: GovKeeper, ctx: Context, state: StateWriter, proposal: Any, event_type: str, why: str) -> int:
    proposal.status = FAILED
    proposal.failed_reason = f"proposal failed because it cannot be processed by gov: {why}"
    del proposal.messages[:]
    keeper.set_proposal(state, proposal)
    count = keeper.refund(ctx, state, proposal.id)
    events.undecodable(ctx, event_type, proposal.id)
    log.info("proposal cannot be read and has failed", proposal=proposal.id, reason=why)
    return count


def _told(ctx: Context, state: StateWriter, hook: Callable[[Context, StateWriter, int], None], proposal_id: int) -> None:
    start, emitted = state.mark(), ctx.events.mark()
    try:
        hook(ctx, state, proposal_id)
    except MACHINE_ERRORS:
        raise
    except Exception as error:
        state.rollback(start)
        ctx.events.rollback(emitted)
        log.error("a hook of gov failed", proposal=proposal_id, exc_info=error)
