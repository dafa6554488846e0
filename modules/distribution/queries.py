"""Queries of distribution. What a delegation has earned is computed from the running period without ending it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain import dec_coins
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import InvalidRequest
from chain.module import Query
from chain.pagination import paginate
from chain.store.api import StateReader
from modules.distribution import keys
from modules.distribution.expected import Staking
from modules.distribution.keeper import Commission, DistributionKeeper, Outstanding, SlashEvent

PACKAGE: Final = "cosmos.distribution.v1beta1"
SERVICE: Final = f"/{PACKAGE}.Query/"
MAX_DELEGATIONS: Final = 10_000
"""Of one delegator that one query sums up: the SDK has no pages here."""


def handlers(keeper: DistributionKeeper, staking: Staking) -> Mapping[str, Query]:
    """The module's query handlers."""

    def response(name: str) -> Any:
        return message_class(f"{PACKAGE}.Query{name}Response")

    def earned(ctx: Context, state: StateReader, delegator: bytes, operator: bytes) -> list[Any]:
        validator = keeper.require_validator(state, operator)
        delegation = keeper.require_delegation(state, delegator, operator)
        return dec_coins.to_messages(keeper.earned_so_far(state, validator, delegation, ctx.height))

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return response("Params")(params=keeper.params(state))

    def validator_info(ctx: Context, state: StateReader, request: Any) -> Any:
        operator = _operator(request)
        rewards = earned(ctx, state, operator, operator)
        commission = dec_coins.to_messages(keeper.commission(state, operator))
        return response("ValidatorDistributionInfo")(operator_address=bech32.encode(operator), self_bond_rewards=rewards, commission=commission)

    def outstanding(ctx: Context, state: StateReader, request: Any) -> Any:
        operator = _operator(request)
        keeper.require_validator(state, operator)
        rewards = Outstanding(rewards=dec_coins.to_messages(keeper.outstanding(state, operator)))
        return response("ValidatorOutstandingRewards")(rewards=rewards)

    def commission(ctx: Context, state: StateReader, request: Any) -> Any:
        operator = _operator(request)
        keeper.require_validator(state, operator)
        found = Commission(commission=dec_coins.to_messages(keeper.commission(state, operator)))
        return response("ValidatorCommission")(commission=found)

    def slashes(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.validator_address:
            raise InvalidRequest("empty validator address")
        first, last = request.starting_height, request.ending_height
        if last < first:
            raise InvalidRequest(f"starting height greater than ending height ({first} > {last})")
        # The SDK holds the period of a slash, not its height, against the two bounds; so does every client's expectation.
        found, page = paginate(
            state.store(keys.STORE),
            keys.slashes_of(_operator(request)),
            request.pagination,
            lambda _, raw: SlashEvent.FromString(raw),
            lambda _, raw: first <= SlashEvent.FromString(raw).validator_period <= last,
        )
        return response("ValidatorSlashes")(slashes=found, pagination=page)

    def delegation_rewards(ctx: Context, state: StateReader, request: Any) -> Any:
        delegator = _delegator(request)
        return response("DelegationRewards")(rewards=earned(ctx, state, delegator, _operator(request)))

    def total_rewards(ctx: Context, state: StateReader, request: Any) -> Any:
        answer = response("DelegationTotalRewards")()
        total: dec_coins.DecCoins = ()
        for delegation in _delegations(state, _delegator(request)):
            validator = keeper.require_validator(state, bech32.decode(delegation.validator_address, bech32.VALIDATOR))
            rewards = keeper.earned_so_far(state, validator, delegation, ctx.height)
            answer.rewards.add(validator_address=delegation.validator_address, reward=dec_coins.to_messages(rewards))
            total = dec_coins.add(total, rewards)
        answer.total.extend(dec_coins.to_messages(total))
        return answer

    def validators_of(ctx: Context, state: StateReader, request: Any) -> Any:
        names = [delegation.validator_address for delegation in _delegations(state, _delegator(request))]
        return response("DelegatorValidators")(validators=names)

    def withdraw_address(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.withdraw_address(state, _delegator(request))
        return response("DelegatorWithdrawAddress")(withdraw_address=bech32.encode(found))

    def community_pool(ctx: Context, state: StateReader, request: Any) -> Any:
        return response("CommunityPool")(pool=dec_coins.to_messages(keeper.community_pool(state)))

    def _delegations(state: StateReader, delegator: bytes) -> list[Any]:
        found = list(staking.delegations_of(state, delegator, MAX_DELEGATIONS + 1))
        if len(found) > MAX_DELEGATIONS:
            raise InvalidRequest(f"more than {MAX_DELEGATIONS} delegations: ask for one validator at a time")
        return found

    return {
        SERVICE + "Params": params,
        SERVICE + "ValidatorDistributionInfo": validator_info,
        SERVICE + "ValidatorOutstandingRewards": outstanding,
        SERVICE + "ValidatorCommission": commission,
        SERVICE + "ValidatorSlashes": slashes,
        SERVICE + "DelegationRewards": delegation_rewards,
        SERVICE + "DelegationTotalRewards": total_rewards,
        SERVICE + "DelegatorValidators": validators_of,
        SERVICE + "DelegatorWithdrawAddress": withdraw_address,
        SERVICE + "CommunityPool": community_pool,
    }


def _operator(request: Any) -> bytes:
    if not request.validator_address:
        raise InvalidRequest("empty validator address")
    return bech32.decode(request.validator_address, bech32.VALIDATOR)


def _delegator(request: Any) -> bytes:
    if not request.delegator_address:
        raise InvalidRequest("empty delegator address")
    return bech32.decode(request.delegator_address)
