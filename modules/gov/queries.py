"""Queries of governance, v1 and v1beta1. The old ones answer the new ones' answers in the old form, as SDK 0.50 does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import Any_, message_class, pack_any, unpack_any
from chain.context import Context
from chain.crypto import address as bech32
from chain.dec import parse_dec
from chain.errors import InvalidRequest, InvalidType, NotFound
from chain.module import Query
from chain.pagination import MAX_WALK, paginate
from chain.store.api import StateReader
from modules.gov import keys
from modules.gov.keeper import EXEC_LEGACY_CONTENT, VOTING_PERIOD, Deposit, GovKeeper, Proposal, Vote
from modules.gov.tally import tally

SERVICE: Final = "/cosmos.gov.v1.Query/"
LEGACY_SERVICE: Final = "/cosmos.gov.v1beta1.Query/"
_NO_TIME_S: Final = -62_135_596_800
"""Go's zero time, the year 1: what the old form has for none."""
_STATUSES: Final = range(1, 6)


def handlers(keeper: GovKeeper) -> Mapping[str, Query]:
    """The module's query handlers."""

    def constitution(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Constitution")(constitution=keeper.constitution(state))

    def proposal(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Proposal")(proposal=existing(state, request))

    def existing(state: StateReader, request: Any) -> Any:
        found = keeper.proposal(state, _id(request))
        if found is None:
            raise NotFound(f"proposal {request.proposal_id} doesn't exist")
        return found

    def proposals(ctx: Context, state: StateReader, request: Any) -> Any:
        voter = bech32.decode(request.voter) if request.voter else None
        depositor = bech32.decode(request.depositor) if request.depositor else None
        store = state.store(keys.STORE)

        def keep(key: bytes, value: bytes) -> bool:
            number = int.from_bytes(key, "big")
            if request.proposal_status in _STATUSES and Proposal.FromString(value).status != request.proposal_status:
                return False
            if voter is not None and not store.has(keys.vote(number, voter)):
                return False
            return depositor is None or store.has(keys.deposit(number, depositor))

        found, page = paginate(store, keys.PROPOSALS, request.pagination, lambda _, value: Proposal.FromString(value), keep)
        return _response("Proposals")(proposals=found, pagination=page)

    def vote(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.vote(state, _id(request), _address(request.voter, "voter"))
        if found is None:
            raise InvalidRequest(f"voter: {request.voter} not found for proposal: {request.proposal_id}")
        return _response("Vote")(vote=found)

    def votes(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.votes_of(_id(request))
        found, page = paginate(state.store(keys.STORE), prefix, request.pagination, lambda _, value: Vote.FromString(value))
        return _response("Votes")(votes=found, pagination=page)

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.params(state)
        response = _response("Params")(params=found)
        if request.params_type == "deposit":
            response.deposit_params.min_deposit.extend(found.min_deposit)
            response.deposit_params.max_deposit_period.CopyFrom(found.max_deposit_period)
        elif request.params_type == "voting":
            response.voting_params.voting_period.CopyFrom(found.voting_period)
        elif request.params_type == "tallying":
            for name in ("quorum", "threshold", "veto_threshold"):
                setattr(response.tally_params, name, getattr(found, name))
        elif request.params_type:
            raise InvalidRequest(f"unknown params type: {request.params_type[:100]}")
        return response

    def deposit(ctx: Context, state: StateReader, request: Any) -> Any:
        depositor = _address(request.depositor, "depositor")
        found = keeper.deposit(state, _id(request), depositor)
        if found is None:
            # The SDK's store speaks here; clients know its words.
            shown = f'("{request.proposal_id}", "{request.depositor}")'
            raise NotFound(f"collections: not found: key '{shown}' of type github.com/cosmos/gogoproto/cosmos.gov.v1.Deposit")
        return _response("Deposit")(deposit=found)

    def deposits(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.deposits_of(_id(request))
        found, page = paginate(state.store(keys.STORE), prefix, request.pagination, lambda _, value: Deposit.FromString(value))
        return _response("Deposits")(deposits=found, pagination=page)

    def tally_result(ctx: Context, state: StateReader, request: Any) -> Any:
        found = existing(state, request)
        if found.status != VOTING_PERIOD:
            return _response("TallyResult")(tally=found.final_tally_result)
        for at, _ in enumerate(keeper.votes(state, found.id)):
            if at >= MAX_WALK:
                raise InvalidRequest(f"proposal {found.id} has more than {MAX_WALK} votes: they are counted when its voting period ends")
        return _response("TallyResult")(tally=tally(keeper, state, found).result)

    def legacy_proposal(ctx: Context, state: StateReader, request: Any) -> Any:
        return _legacy("Proposal")(proposal=_old_proposal(existing(state, request)))

    def legacy_proposals(ctx: Context, state: StateReader, request: Any) -> Any:
        answer = proposals(ctx, state, request)
        return _legacy("Proposals")(proposals=map(_old_proposal, answer.proposals), pagination=answer.pagination)

    def legacy_vote(ctx: Context, state: StateReader, request: Any) -> Any:
        return _legacy("Vote")(vote=_old_vote(vote(ctx, state, request).vote))

    def legacy_votes(ctx: Context, state: StateReader, request: Any) -> Any:
        answer = votes(ctx, state, request)
        return _legacy("Votes")(votes=map(_old_vote, answer.votes), pagination=answer.pagination)

    def legacy_params(ctx: Context, state: StateReader, request: Any) -> Any:
        answer = params(ctx, state, request)
        if not request.params_type:
            raise InvalidRequest(" is not a valid parameter type")
        response = _legacy("Params")()
        if request.params_type == "deposit":
            response.deposit_params.min_deposit.extend(answer.deposit_params.min_deposit)
            response.deposit_params.max_deposit_period.CopyFrom(answer.deposit_params.max_deposit_period)
        elif request.params_type == "voting":
            response.voting_params.voting_period.CopyFrom(answer.voting_params.voting_period)
        else:
            for name in ("quorum", "threshold", "veto_threshold"):
                setattr(response.tally_params, name, str(parse_dec(getattr(answer.tally_params, name)).scaled).encode())
        return response

    def legacy_deposit(ctx: Context, state: StateReader, request: Any) -> Any:
        return _legacy("Deposit")(deposit=_old_deposit(deposit(ctx, state, request).deposit))

    def legacy_deposits(ctx: Context, state: StateReader, request: Any) -> Any:
        answer = deposits(ctx, state, request)
        return _legacy("Deposits")(deposits=map(_old_deposit, answer.deposits), pagination=answer.pagination)

    def legacy_tally_result(ctx: Context, state: StateReader, request: Any) -> Any:
        return _legacy("TallyResult")(tally=_old_tally(tally_result(ctx, state, request).tally))

    return {
        SERVICE + "Params": params,
        SERVICE + "Proposals": proposals,
        SERVICE + "Proposal": proposal,
        SERVICE + "Vote": vote,
        SERVICE + "Votes": votes,
        SERVICE + "Deposit": deposit,
        SERVICE + "Deposits": deposits,
        SERVICE + "TallyResult": tally_result,
        SERVICE + "Constitution": constitution,
        LEGACY_SERVICE + "Proposal": legacy_proposal,
        LEGACY_SERVICE + "Proposals": legacy_proposals,
        LEGACY_SERVICE + "Vote": legacy_vote,
        LEGACY_SERVICE + "Votes": legacy_votes,
        LEGACY_SERVICE + "Params": legacy_params,
        LEGACY_SERVICE + "Deposit": legacy_deposit,
        LEGACY_SERVICE + "Deposits": legacy_deposits,
        LEGACY_SERVICE + "TallyResult": legacy_tally_result,
    }


def _response(name: str) -> Any:
    return message_class(f"cosmos.gov.v1.Query{name}Response")


def _old(name: str) -> Any:
    return message_class(f"cosmos.gov.v1beta1.{name}")


def _legacy(name: str) -> Any:
    return _old(f"Query{name}Response")


def _id(request: Any) -> int:
    if request.proposal_id == 0:
        raise InvalidRequest("proposal id can not be 0")
    return int(request.proposal_id)


def _address(text: str, what: str) -> bytes:
    if not text:
        raise InvalidRequest(f"empty {what} address")
    return bech32.decode(text)


def _old_proposal(proposal: Any) -> Any:
    if len(proposal.messages) != 1:
        raise InvalidType(
            "can't convert a gov/v1 Proposal to gov/v1beta1 Proposal when amount of proposal messages not exactly one: "
            f"proposal {proposal.id} has {len(proposal.messages)}; ask /cosmos/gov/v1 instead"
        )
    message = unpack_any(proposal.messages[0])
    content = message.content if message.DESCRIPTOR.full_name == EXEC_LEGACY_CONTENT else pack_any(message)
    old = _old("Proposal")(
        proposal_id=proposal.id,
        content=Any_(type_url=content.type_url, value=content.value),
        status=proposal.status,
        final_tally_result=_old_tally(proposal.final_tally_result),
        total_deposit=proposal.total_deposit,
    )
    for name in ("submit_time", "deposit_end_time", "voting_start_time", "voting_end_time"):
        if proposal.HasField(name):
            getattr(old, name).CopyFrom(getattr(proposal, name))
        else:
            getattr(old, name).seconds = _NO_TIME_S
    return old


def _old_tally(tally_result: Any) -> Any:
    return _old("TallyResult")(
        yes=tally_result.yes_count,
        abstain=tally_result.abstain_count,
        no=tally_result.no_count,
        no_with_veto=tally_result.no_with_veto_count,
    )


def _old_vote(vote: Any) -> Any:
    options = [{"option": one.option, "weight": str(parse_dec(one.weight).scaled)} for one in vote.options]
    return _old("Vote")(proposal_id=vote.proposal_id, voter=vote.voter, options=options)


def _old_deposit(deposit: Any) -> Any:
    return _old("Deposit")(proposal_id=deposit.proposal_id, depositor=deposit.depositor, amount=deposit.amount)
