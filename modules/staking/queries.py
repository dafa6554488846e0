"""Queries of staking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import message_class
from chain.coins import Coin, CoinMessage
from chain.context import Context
from chain.crypto import address as bech32
from chain.dec import Dec
from chain.errors import InvalidRequest, NotFound, UndefinedError
from chain.module import Query
from chain.pagination import paginate
from chain.store.api import StateReader
from modules.staking import keys
from modules.staking.keeper import StakingKeeper
from modules.staking.records import PACKAGE, STATUS_NAMES, Delegation, Redelegation, UnbondingDelegation, Validator, copy_of
from modules.staking.shares import tokens_from_shares

SERVICE: Final = f"/{PACKAGE}.Query/"


def _response(name: str) -> Any:
    return message_class(f"{PACKAGE}.Query{name}Response")


def handlers(keeper: StakingKeeper) -> Mapping[str, Query]:
    """The module's query handlers over ``keeper``."""
    redelegation_response = message_class(f"{PACKAGE}.RedelegationResponse")

    def page_of(state: StateReader, prefix: bytes, request: Any, read: Any, keep: Any = None) -> tuple[list[Any], Any]:
        return paginate(state.store(keys.STORE), prefix, request.pagination, read, keep)

    def validators(ctx: Context, state: StateReader, request: Any) -> Any:
        wanted = STATUS_NAMES.get(request.status)
        if request.status and wanted is None:
            raise InvalidRequest(f"invalid validator status {request.status[:60]}")
        keep = None if wanted is None else lambda _, raw: Validator.FromString(raw).status == wanted
        found, page = page_of(state, keys.VALIDATORS, request, lambda _, raw: Validator.FromString(raw), keep)
        return _response("Validators")(validators=found, pagination=page)

    def validator(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.validator(state, _operator(request.validator_addr))
        if found is None:
            raise NotFound(f"validator {request.validator_addr} not found")
        return _response("Validator")(validator=found)

    def validator_delegations(ctx: Context, state: StateReader, request: Any) -> Any:
        operator = _operator(request.validator_addr)
        found, page = page_of(
            state, keys.delegations_to(operator), request, lambda delegator, _: shown(state, keeper.delegation(state, delegator, operator))
        )
        return _response("ValidatorDelegations")(delegation_responses=found, pagination=page)

    def validator_unbondings(ctx: Context, state: StateReader, request: Any) -> Any:
        operator = _operator(request.validator_addr)
        found, page = page_of(state, keys.unbondings_from(operator), request, lambda rest, _: keeper.unbonding(state, keys.split(rest)[0], operator))
        return _response("ValidatorUnbondingDelegations")(unbonding_responses=found, pagination=page)

    def delegation(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.delegation(state, *_pair(request))
        if found is None:
            raise NotFound(f"delegation with delegator {request.delegator_addr} not found for validator {request.validator_addr}")
        return _response("Delegation")(delegation_response=shown(state, found))

    def unbonding_delegation(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.unbonding(state, *_pair(request))
        if found is None:
            raise NotFound(f"unbonding delegation with delegator {request.delegator_addr} not found for validator {request.validator_addr}")
        return _response("UnbondingDelegation")(unbond=found)

    def delegator_delegations(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.delegations_of(_delegator(request.delegator_addr))
        found, page = page_of(state, prefix, request, lambda _, raw: shown(state, Delegation.FromString(raw)))
        return _response("DelegatorDelegations")(delegation_responses=found, pagination=page)

    def delegator_unbondings(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.unbondings_of(_delegator(request.delegator_addr))
        found, page = page_of(state, prefix, request, lambda _, raw: UnbondingDelegation.FromString(raw))
        return _response("DelegatorUnbondingDelegations")(unbonding_responses=found, pagination=page)

    def redelegations(ctx: Context, state: StateReader, request: Any) -> Any:
        delegator, source, destination = request.delegator_addr, request.src_validator_addr, request.dst_validator_addr
        if delegator and source and destination:
            moved = keeper.redelegation(state, _delegator(delegator), _operator(source), _operator(destination))
            if moved is None:
                missing = f"redelegation not found for delegator address {delegator} from validator address {source}"
                raise UndefinedError(f"rpc error: code = NotFound desc = {missing}")
            return _response("Redelegations")(redelegation_responses=[shown_redelegation(state, moved)])
        if source and not delegator and not destination:
            operator = _operator(source)

            def read(rest: bytes, _: bytes) -> Any:
                owner, target = keys.split(rest)
                return shown_redelegation(state, keeper.redelegation(state, owner, operator, target))

            found, page = page_of(state, keys.redelegations_from(operator), request, read)
        else:
            prefix = keys.redelegations_of(_delegator(delegator))
            found, page = page_of(state, prefix, request, lambda _, raw: shown_redelegation(state, Redelegation.FromString(raw)))
        return _response("Redelegations")(redelegation_responses=found, pagination=page)

    def delegator_validators(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.delegations_of(_delegator(request.delegator_addr))
        found, page = page_of(state, prefix, request, lambda rest, _: keeper.validator(state, keys.split(rest)[0]))
        return _response("DelegatorValidators")(validators=found, pagination=page)

    def delegator_validator(ctx: Context, state: StateReader, request: Any) -> Any:
        delegator, operator = _pair(request)
        if keeper.delegation(state, delegator, operator) is None:
            raise UndefinedError("no delegation for (address, validator) tuple")
        return _response("DelegatorValidator")(validator=keeper.require_validator(state, operator))

    def historical_info(ctx: Context, state: StateReader, request: Any) -> Any:
        if request.height < 0:
            raise InvalidRequest("height cannot be negative")
        found = keeper.historical_info(state, request.height)
        if found is None:
            raise NotFound(f"historical info for height {request.height} not found")
        return _response("HistoricalInfo")(hist=found)

    def pool(ctx: Context, state: StateReader, request: Any) -> Any:
        held = {"bonded_tokens": str(keeper.total_bonded(state)), "not_bonded_tokens": str(keeper.total_not_bonded(state))}
        return _response("Pool")(pool=held)

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Params")(params=keeper.params(state))

    def shown(state: StateReader, found: Any) -> Any:
        """DelegationResponse: a delegation with its worth in whole wei."""
        worth = _worth(keeper.require_validator(state, _operator(found.validator_address)), found.shares)
        return {"delegation": found, "balance": _coin(Coin(keeper.bond_denom(state), worth))}

    def shown_redelegation(state: StateReader, moved: Any) -> Any:
        destination = keeper.require_validator(state, _operator(moved.validator_dst_address))
        entries = [{"redelegation_entry": entry, "balance": str(_worth(destination, entry.shares_dst))} for entry in moved.entries]
        bare = copy_of(moved)
        del bare.entries[:]
        return redelegation_response(redelegation=bare, entries=entries)

    named = {
        "Validators": validators,
        "Validator": validator,
        "ValidatorDelegations": validator_delegations,
        "ValidatorUnbondingDelegations": validator_unbondings,
        "Delegation": delegation,
        "UnbondingDelegation": unbonding_delegation,
        "DelegatorDelegations": delegator_delegations,
        "DelegatorUnbondingDelegations": delegator_unbondings,
        "Redelegations": redelegations,
        "DelegatorValidators": delegator_validators,
        "DelegatorValidator": delegator_validator,
        "HistoricalInfo": historical_info,
        "Pool": pool,
        "Params": params,
    }
    return {SERVICE + name: query for name, query in named.items()}


def _worth(validator: Any, shares: str) -> int:
    return tokens_from_shares(validator, Dec(int(shares))).truncate()


def _coin(coin: Coin) -> Any:
    return CoinMessage(denom=coin.denom, amount=str(coin.amount))


def _pair(request: Any) -> tuple[bytes, bytes]:
    return _delegator(request.delegator_addr), _operator(request.validator_addr)


def _delegator(text: str) -> bytes:
    if not text:
        raise InvalidRequest("delegator address cannot be empty")
    return bech32.decode(text)


def _operator(text: str) -> bytes:
    if not text:
        raise InvalidRequest("validator address cannot be empty")
    return bech32.decode(text, bech32.VALIDATOR)
