"""Votes of meta nodes: who becomes one, and who has to leave (stratos-chain.md 2.5, 2.7; storage-protocol.md 1.8)."""

from __future__ import annotations

from typing import Any

from chain.codec.times import ns_of
from chain.context import Context
from chain.quorum import quorum
from chain.store.api import StateReader, StateWriter
from modules.register import deposits, events, keys, records
from modules.register.deposits import NodeDeposit
from modules.register.errors import (
    DuplicateVoting,
    GovernanceDecides,
    InvalidCandidateOwnerAddr,
    MetaNodesDecide,
    NoActiveTargetMetaNodeFound,
    NoActiveVoterMetaNodeFound,
    NoCandidateMetaNodeFound,
    NoRegistrationVotePoolFound,
    VoteExpired,
)
from modules.register.keeper import RegisterKeeper
from modules.register.nodes import raised_noz
from modules.register.records import BONDED, STATUS_NAMES, UNBONDED, KickPool, bonded_pool, is_active, not_bonded_pool, time_of
from modules.register.unbonding import leave

FEWEST_KICK_VOTERS = 2
"""With fewer meta nodes beside those of the accused one's owner governance decides."""


def register(
    keeper: RegisterKeeper, ctx: Context, state: StateWriter, candidate: bytes, owner: str, voter: bytes, sender: str, *, approves: bool
) -> None:
    """An active meta node, whose owner is ``sender``, votes on a candidate; with a quorum of approvals it becomes active.

    Raises NoCandidateMetaNodeFound (register/25), InvalidCandidateOwnerAddr (24), NoRegistrationVotePoolFound (33), VoteExpired (35), DuplicateVoting
    (34), NoActiveVoterMetaNodeFound (67), and InvalidRequest (sdk/18) where all deposits would exceed 2^127 - 1.
    """
    node = keeper.meta_node(state, candidate)
    if node is None:
        raise NoCandidateMetaNodeFound(records.text_of(candidate))
    if node.owner_address != owner:
        raise InvalidCandidateOwnerAddr(f"expected {node.owner_address}, got {owner}")
    vote = keeper.registration(state, candidate)
    if vote is None:
        raise NoRegistrationVotePoolFound(node.network_address)
    _require_running(ctx, vote)
    _require_voter(keeper, state, voter, sender)
    _add(vote, voter, approves=approves)
    active = list(map(records.text_of, keeper.active_addresses(state)))
    change_noz = 0
    if node.status == UNBONDED and not vote.is_vote_passed and sum(one in vote.approve_list for one in active) >= quorum(len(active)):
        pool, deposit = keeper.ozone(state), keeper.deposit(state, node)
        after = deposits.raise_deposit(pool, deposit.tokens_wei)
        change_noz = raised_noz(pool, deposit.tokens_wei)
        keeper.pay_module(ctx, state, not_bonded_pool(node), bonded_pool(node), deposit.tokens_wei)
        node.status, node.suspend, vote.is_vote_passed = BONDED, False, True
        keeper.change(ctx, state, node, (pool, deposit), (after, NodeDeposit(deposit.tokens_wei, 0, deposit.tokens_wei, deposit.tokens_wei)))
    keeper.set_record(state, keys.registration(candidate), vote)
    events.emit(
        ctx,
        "EventMetaNodeRegistrationVote",
        sender=sender,
        voter_network_address=records.text_of(voter),
        candidate_network_address=node.network_address,
        candidate_status=STATUS_NAMES[node.status],
        ozone_limit_changes=change_noz,
    )


def kick(keeper: RegisterKeeper, ctx: Context, state: StateWriter, target: bytes, voter: bytes, sender: str, *, approves: bool) -> None:
    """An active meta node, whose owner is ``sender``, votes on whether another has to leave. The accused's owner neither votes nor counts, with
    none of his meta nodes.

    With a quorum it leaves as if its owner had asked for it. A vote that cannot reach that any more is over at once. Raises
    NoActiveTargetMetaNodeFound (register/66), NoActiveVoterMetaNodeFound (67), GovernanceDecides (102) with fewer than two voters, VoteExpired (35),
    DuplicateVoting (34), and what ``leave`` raises.
    """
    node, voters = _accused(keeper, state, target)
    _require_voter(keeper, state, voter, sender)
    if sender == node.owner_address:
        raise NoActiveVoterMetaNodeFound(f"{records.text_of(voter)} is of the accused's owner, who has no vote")
    if len(voters) < FEWEST_KICK_VOTERS:
        raise GovernanceDecides(f"{len(voters)} may vote on {node.network_address}, expected {FEWEST_KICK_VOTERS} or more")
    vote, key = keeper.kick_vote(state, target), keys.kick(target)
    if vote is None:
        until = time_of(ctx.time_ns + ns_of(keeper.params(state).voting_period))
        vote = KickPool(target_network_address=node.network_address, expire_time=until)
    _require_running(ctx, vote)
    _add(vote, voter, approves=approves)
    approvals = sum(one in vote.approve_list for one in voters)
    rejections = sum(one in vote.reject_list for one in voters)
    needed = quorum(len(voters))
    passes = approvals >= needed
    _tell_kick(ctx, sender, records.text_of(voter), node.network_address, passes)
    if passes:
        vote.is_vote_passed = True
        leave(keeper, ctx, state, node, node.owner_address)
    if passes or len(voters) - rejections >= needed:
        keeper.set_record(state, key, vote)
    else:
        keeper.delete_record(state, key)


def kick_by_governance(keeper: RegisterKeeper, ctx: Context, state: StateWriter, target: bytes, sender: str) -> None:
    """A passed proposal makes a meta node leave that fewer than two others could vote on. Raises NoActiveTargetMetaNodeFound (register/66),
    MetaNodesDecide (103), and what ``leave`` raises."""
    node, voters = _accused(keeper, state, target)
    if len(voters) >= FEWEST_KICK_VOTERS:
        raise MetaNodesDecide(f"{len(voters)} meta nodes may vote on {node.network_address}")
    _tell_kick(ctx, sender, "", node.network_address, True)
    leave(keeper, ctx, state, node, node.owner_address)


def _accused(keeper: RegisterKeeper, state: StateReader, target: bytes) -> tuple[Any, list[str]]:
    """(the node, network addresses of who may vote on it)."""
    node = keeper.meta_node(state, target)
    if node is None or not is_active(node):
        raise NoActiveTargetMetaNodeFound(records.text_of(target))
    return node, [one.network_address for one in keeper.active_meta_nodes(state) if one.owner_address != node.owner_address]


def _tell_kick(ctx: Context, sender: str, voter: str, target: str, passes: bool) -> None:
    status = STATUS_NAMES[records.UNBONDING if passes else BONDED]
    events.emit(ctx, "EventKickMetaNodeVote", sender=sender, voter_network_address=voter, target_network_address=target, target_status=status)


def _require_running(ctx: Context, vote: Any) -> None:
    if ns_of(vote.expire_time) < ctx.time_ns:
        raise VoteExpired(f"it ended at {records.time_text(ns_of(vote.expire_time))}")


def _require_voter(keeper: RegisterKeeper, state: StateReader, voter: bytes, sender: str) -> None:
    node = keeper.meta_node(state, voter)
    if node is None or not is_active(node) or node.owner_address != sender:
        raise NoActiveVoterMetaNodeFound(f"{records.text_of(voter)} of {sender}")


def _add(vote: Any, voter: bytes, *, approves: bool) -> None:
    text = records.text_of(voter)
    if text in vote.approve_list or text in vote.reject_list:
        raise DuplicateVoting(text)
    (vote.approve_list if approves else vote.reject_list).append(text)
